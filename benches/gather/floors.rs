//! What is compared with: passes over all processes that do one thing each, and learn nothing.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::process::{Resource, Rlimit};
use rustix::time::ClockId;

use crate::series::Series;

pub struct Floors {
    stats: Vec<CString>,
    /// The same files, held open; none where the limit of open files is too low for them.
    held: Vec<OwnedFd>,
    schedstats: Vec<CString>,
    netlink: Result<Netlink>,
    pub listing: Series,
    pub pread: Series,
    schedstat: Series,
    taskstats: Series,
    /// *The* floor.
    pub open_read_close: Series,
}

impl Floors {
    pub fn over(pids: &[u32]) -> Result<Self> {
        let stats = paths(pids, "stat")?;
        Ok(Self {
            held: hold(&stats),
            stats,
            schedstats: paths(pids, "schedstat")?,
            netlink: Netlink::asking_for(pids),
            listing: Series::new("getdents of /proc alone"),
            pread: Series::new("pread of every stat, held open"),
            schedstat: Series::new("open, read, close every schedstat"),
            taskstats: Series::new("ask netlink for every process, in batches"),
            open_read_close: Series::new("open, read, close every stat: the floor"),
        })
    }

    /// How many they pass over.
    pub fn processes(&self) -> usize {
        self.stats.len()
    }

    /// Why taskstat cannot be measured, if so.
    pub fn taskstats_error(&self) -> Option<&anyhow::Error> {
        self.netlink.as_ref().err()
    }

    /// Those that could be measured.
    pub fn all(&self) -> impl Iterator<Item = &Series> {
        let all = [&self.listing, &self.pread, &self.schedstat, &self.taskstats, &self.open_read_close];
        all.into_iter().filter(|series| !series.is_empty())
    }

    /// Each floor once. A process that has ended meanwhile is no failure.
    pub fn pass(&mut self) -> Result<()> {
        let mut text = [0; 4096];
        self.listing.push(cost_of(list_proc)?);
        if !self.held.is_empty() {
            self.pread.push(cost_of(|| {
                for fd in &self.held {
                    let _ = rustix::io::pread(fd, &mut text, 0);
                }
                Ok(())
            })?);
        }
        let mut open_read_close = |paths: &[CString]| {
            cost_of(|| {
                for path in paths {
                    let _ = open(path).and_then(|fd| rustix::io::read(fd, &mut text));
                }
                Ok(())
            })
        };
        self.schedstat.push(open_read_close(&self.schedstats)?);
        self.open_read_close.push(open_read_close(&self.stats)?);
        if let Ok(netlink) = &mut self.netlink {
            self.taskstats.push(cost_of(|| netlink.pass())?);
        }
        Ok(())
    }
}

fn paths(pids: &[u32], file: &str) -> Result<Vec<CString>> {
    pids.iter().map(|pid| Ok(CString::new(format!("/proc/{pid}/{file}"))?)).collect()
}

fn open(path: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens them all, if the hard limit of open files allows it.
fn hold(paths: &[CString]) -> Vec<OwnedFd> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let needed = u64::try_from(paths.len()).map_or(u64::MAX, |files| files + 64);
    let raised = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if raised.is_err() || limit.maximum.is_some_and(|maximum| maximum < needed) {
        return Vec::new();
    }
    paths.iter().filter_map(|path| open(path).ok()).collect()
}

fn list_proc() -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let proc = rustix::fs::open("/proc", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = RawDir::new(proc, &mut buffer);
    while let Some(entry) = entries.next() {
        entry?;
    }
    Ok(())
}

/// The CPU that this thread spends on `work`.
fn cost_of(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let now = || Duration::try_from(rustix::time::clock_gettime(ClockId::ThreadCPUTime));
    let before = now()?;
    work()?;
    Ok(now()? - before)
}

/// Requests for the delays of every process, ready to be sent. What is answered is received and not looked at.
struct Netlink {
    socket: NlSocket,
    /// Requests that are sent together, and how many they are.
    batches: Vec<(usize, Vec<u8>)>,
}

impl Netlink {
    /// As many as the receive buffer surely has room for the answers of.
    const BATCH: usize = 128;
    const BUFFER: usize = 256 * 1024;

    fn asking_for(pids: &[u32]) -> Result<Self> {
        let socket = NlSocket::connect(NlFamily::Generic, None, Groups::empty())?;
        socket.set_recv_buffer_size(Self::BUFFER)?;
        let answer = ask(&socket, &request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, TASKSTATS))?;
        let family = family_in(&answer).context("the kernel has no taskstats")?;
        let get = |pid: u32| request(family, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_TGID, &pid.to_ne_bytes());
        ask(&socket, &get(std::process::id()))?;
        let batch = |pids: &[u32]| (pids.len(), pids.iter().flat_map(|pid| get(*pid)).collect());
        Ok(Self { batches: pids.chunks(Self::BATCH).map(batch).collect(), socket })
    }

    fn pass(&self) -> Result<()> {
        let mut answer = [0; 8192];
        for (count, requests) in &self.batches {
            self.socket.send(requests, Msg::empty())?;
            for _ in 0..*count {
                self.socket.recv(answer.as_mut_slice(), Msg::DONTWAIT)?;
            }
        }
        Ok(())
    }
}

// linux/netlink.h, linux/genetlink.h, linux/taskstats.h
const NLMSG_ERROR: u16 = 2;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const TASKSTATS_CMD_GET: u8 = 1;
const TASKSTATS_CMD_ATTR_TGID: u16 = 2;
/// The family's name, padded.
const TASKSTATS: &[u8] = b"TASKSTATS\0\0\0";
/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 20;

/// A generic netlink request with one attribute, whose value's length is a multiple of 4.
fn request(kind: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    const NLM_F_REQUEST: u16 = 1;
    let attribute_length = 4 + value.len() as u16;
    let length = HEADERS as u32 + u32::from(attribute_length);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend([kind, NLM_F_REQUEST].map(u16::to_ne_bytes).as_flattened());
    request.extend([0; 8]); // seq and pid: answers come in the order of requests
    request.extend([command, 1, 0, 0]); // version 1
    request.extend([attribute_length, attribute].map(u16::to_ne_bytes).as_flattened());
    request.extend(value);
    request
}

/// The attributes of the answer to one request.
fn ask(socket: &NlSocket, request: &[u8]) -> Result<Vec<u8>> {
    let mut answer = vec![0; 8192];
    socket.send(request, Msg::empty())?;
    let (length, _) = socket.recv(&mut answer, Msg::DONTWAIT)?;
    answer.truncate(length);
    if number_at(&answer, 4) == Some(NLMSG_ERROR) {
        let errno = answer.get(16..).and_then(<[u8]>::first_chunk).map_or(0, |errno| i32::from_ne_bytes(*errno));
        bail!("netlink: {}", io::Error::from_raw_os_error(-errno));
    }
    Ok(answer.split_off(HEADERS.min(length)))
}

/// The number of the family in the controller's answer.
fn family_in(mut attributes: &[u8]) -> Option<u16> {
    while number_at(attributes, 2)? != CTRL_ATTR_FAMILY_ID {
        attributes = attributes.get(usize::from(number_at(attributes, 0)?).next_multiple_of(4).max(4)..)?;
    }
    number_at(attributes, 4)
}

fn number_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}
