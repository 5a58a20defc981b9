//! Delay accounting of a process: `struct taskstats` (linux/taskstats.h), asked for over generic netlink.
//!
//! Requests are sent many at a time, because that halves their cost: hence the raw socket. CAP_NET_ADMIN is needed when
//! opening *and* at every query. Without kernel.task_delayacct (0 unless set, since 5.14) only the cpu delays and the
//! context switches count; the others stay 0.

use std::fmt;
use std::io::{self, ErrorKind};

use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::{GenlId, NlmF};
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::io::Errno;

use super::netlink::{DATAGRAM, Message, Messages, Request, find, u16_at, u64_at};

// linux/taskstats.h
const FAMILY: &[u8; 10] = b"TASKSTATS\0";
pub(super) const TASKSTATS_CMD_GET: u8 = 1;
const TASKSTATS_CMD_ATTR_TGID: u16 = 2;
pub(super) const TASKSTATS_TYPE_STATS: u16 = 3;
pub(super) const TASKSTATS_TYPE_AGGR_TGID: u16 = 5;

/// Requests in flight.
const BATCH: usize = 128;

/// SO_RCVBUF, which the kernel doubles, as far as rmem_max lets it. A reply of 560 bytes occupies 1.3 kB of it; one of
/// 688 (version 17) needs the next size of a slab, so 2.3 kB, and then the default of 208 kB does not hold a batch.
const RECEIVE_BUFFER: usize = BATCH * 2048;

/// Most datagrams received for one batch, stale ones included: whatever comes, there is an end.
const RECEIVES: usize = 8 * BATCH;

/// Number of counters that are read.
pub const COUNTERS: usize = 18;

/// The counters, in the order in which kernels got them.
pub const NAMES: [&str; COUNTERS] = [
    "cpu_count",
    "cpu_delay_total",
    "blkio_count",
    "blkio_delay_total",
    "swapin_count",
    "swapin_delay_total",
    "nvcsw",
    "nivcsw",
    "freepages_count",
    "freepages_delay_total",
    "thrashing_count",
    "thrashing_delay_total",
    "compact_count",
    "compact_delay_total",
    "wpcopy_count",
    "wpcopy_delay_total",
    "irq_count",
    "irq_delay_total",
];

/// The version that brought each counter. 8 is the oldest that is read.
const SINCE: [u16; COUNTERS] = [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9, 11, 11, 13, 13, 14, 14];

/// Number of counters that every version of the struct has.
const BASE: usize = 10;

/// Where blkio_delay_total is among them.
pub const BLKIO_DELAY: usize = 3;

/// Where the counters are. The struct grows at its end, so this goes for versions to come, too.
const OFFSETS: [usize; COUNTERS] = [16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360, 400, 408, 416, 424];

/// Where they are in version 15, which had a maximum and a minimum put behind each total. Version 16, of the same size,
/// took that back.
const OFFSETS_15: [usize; COUNTERS] =
    [16, 24, 48, 56, 80, 88, 320, 328, 360, 368, 392, 400, 432, 440, 496, 504, 528, 536];

/// Delays of a process, summed over all its threads, exited ones included: times in ns, and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Values in the order of [`NAMES`]; 0 where the kernel has none.
    pub values: [u64; COUNTERS],
    /// Number of values that the kernel has: always the first ones.
    pub known: usize,
}

impl Delays {
    /// Decodes a `struct taskstats`. `None`: it is older than version 8, or too short for what that version has.
    ///
    /// A counter is there if the version has it *and* the bytes reach so far; what is behind the last is ignored.
    #[must_use]
    pub fn decode(taskstats: &[u8]) -> Option<Self> {
        Self::decode_as(u16_at(taskstats, 0)?, taskstats)
    }

    /// Decodes a struct that does not contain its version.
    pub(super) fn decode_as(version: u16, taskstats: &[u8]) -> Option<Self> {
        let offsets = if version == 15 { &OFFSETS_15 } else { &OFFSETS };
        let mut delays = Self { values: [0; COUNTERS], known: 0 };
        for ((value, offset), since) in delays.values.iter_mut().zip(offsets).zip(SINCE) {
            let Some(counter) = u64_at(taskstats, *offset).filter(|_| version >= since) else { break };
            *value = counter;
            delays.known += 1;
        }
        (delays.known >= BASE).then_some(delays)
    }
}

/// Returns whether a delay for block devices (ns) is made up: it is longer than the `time` that all threads together had,
/// and as long as the host is up (`now`: CLOCK_MONOTONIC, ns).
///
/// The kernel notes the begin of such a delay when it takes the thread off its queue. Since Linux 6.12 that may happen
/// later, while another thread runs, and then the begin is noted for the wrong thread. The end of a delay without a begin
/// adds all the time since boot: with Linux 6.18 on busy CPUs, for one in some hundred new processes that read.
#[must_use]
pub fn is_since_boot(delay: u64, time: u64, now: u64) -> bool {
    delay > time && delay >= now - now / 16
}

/// Source of delays; a trait so that tests can answer.
pub trait Ask {
    /// Asks for each of `tgids`: see [`Taskstats::query`].
    ///
    /// # Errors
    /// Nothing can be asked.
    fn ask(&mut self, tgids: &[u32], each: &mut dyn FnMut(usize, io::Result<Option<Delays>>)) -> io::Result<()>;
}

/// The kernel of this host, by a socket that is opened when there is something to ask.
#[derive(Debug, Default)]
pub struct AskKernel(Option<Taskstats>);

impl Ask for AskKernel {
    fn ask(&mut self, tgids: &[u32], each: &mut dyn FnMut(usize, io::Result<Option<Delays>>)) -> io::Result<()> {
        let taskstats = match &mut self.0 {
            Some(taskstats) => taskstats,
            none => none.insert(Taskstats::open()?),
        };
        taskstats.query(tgids, each)
    }
}

/// Source that has no delays, for this reason.
#[derive(Debug)]
pub struct AskNobody(pub String);

impl Ask for AskNobody {
    fn ask(&mut self, _: &[u32], _: &mut dyn FnMut(usize, io::Result<Option<Delays>>)) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::Unsupported, self.0.clone()))
    }
}

/// A generic netlink socket, and the number that the family TASKSTATS has on this host.
pub struct Taskstats {
    socket: NlSocket,
    family: u16,
    /// nlmsg_seq of the next request. No number is used twice, so that a late reply matches no request.
    seq: u32,
    requests: Vec<u8>,
    datagram: Vec<u8>,
}

impl fmt::Debug for Taskstats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taskstats").field("family", &self.family).field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl Taskstats {
    /// Opens a socket and asks for the family.
    ///
    /// # Errors
    /// `NotFound` if the kernel has no such family; else what the kernel said.
    pub fn open() -> io::Result<Self> {
        let socket = NlSocket::connect(NlFamily::Generic, None, Groups::empty())?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        let mut requests = Vec::new();
        let (command, attribute) = (CtrlCmd::Getfamily.into(), CtrlAttr::FamilyName.into());
        Request { family: GenlId::Ctrl.into(), command, attribute, value: FAMILY }.push(
            &mut requests,
            NlmF::empty(),
            0,
        );
        send(&socket, &requests)?;
        let mut datagram = vec![0; DATAGRAM];
        for _ in 0..RECEIVES {
            let Some(bytes) = receive(&socket, &mut datagram)? else { break };
            if let Some(family) = Messages(bytes).find_map(|message| family(&message)) {
                return Ok(Self { socket, family: family?, seq: 1, requests, datagram });
            }
        }
        Err(unanswered())
    }

    /// The number of the family.
    pub(super) fn family(&self) -> u16 {
        self.family
    }

    /// Asks for each of `tgids`, and calls `each` once for each, in any order, with its index and the result: `Ok(None)` if
    /// the process does not exist any more, `Err` if this one failed.
    ///
    /// # Errors
    /// No process can be asked for: EPERM without CAP_NET_ADMIN, or the socket is broken. `each` may have been called for
    /// some by then.
    pub fn query(&mut self, tgids: &[u32], mut each: impl FnMut(usize, io::Result<Option<Delays>>)) -> io::Result<()> {
        for (number, batch) in tgids.chunks(BATCH).enumerate() {
            let first = number * BATCH;
            let mut waiting = std::array::from_fn(|at| at < batch.len());
            // A reply is lost if there is no room for it. For one there always is: asking again comes to an end.
            while self.ask(batch, &mut waiting, |at, outcome| each(first + at, outcome))? > 0 {}
            for (at, _) in waiting.iter().enumerate().filter(|(_, waiting)| **waiting) {
                each(first + at, Err(unanswered()));
            }
        }
        Ok(())
    }

    /// Asks for those of a batch that wait, in one send(2), and returns how many were answered.
    fn ask(
        &mut self,
        batch: &[u32],
        waiting: &mut [bool; BATCH],
        mut each: impl FnMut(usize, io::Result<Option<Delays>>),
    ) -> io::Result<usize> {
        let first = self.seq;
        self.seq = first.wrapping_add(BATCH as u32);
        self.requests.clear();
        let mut asked = 0;
        for ((tgid, _), at) in batch.iter().zip(waiting.iter()).zip(0..).filter(|((_, waiting), _)| **waiting) {
            let (family, value) = (self.family, &tgid.to_ne_bytes());
            Request { family, command: TASKSTATS_CMD_GET, attribute: TASKSTATS_CMD_ATTR_TGID, value }.push(
                &mut self.requests,
                NlmF::empty(),
                first.wrapping_add(at),
            );
            asked += 1;
        }
        let mut answered = 0;
        if asked == 0 {
            return Ok(answered);
        }
        send(&self.socket, &self.requests)?;
        for _ in 0..RECEIVES {
            if answered == asked {
                break;
            }
            let Some(datagram) = receive(&self.socket, &mut self.datagram)? else { break };
            for message in Messages(datagram) {
                let at = message.seq.wrapping_sub(first) as usize;
                let Some(waiting) = waiting.get_mut(at).filter(|waiting| **waiting) else { continue };
                let Some(outcome) = outcome(&message, self.family) else { continue };
                if let Err(error) = &outcome
                    && is_refusal(error)
                {
                    self.drain();
                    return outcome.map(|_| 0);
                }
                *waiting = false;
                answered += 1;
                each(at, outcome);
            }
        }
        Ok(answered)
    }

    /// Throws away what else was answered.
    fn drain(&mut self) {
        for _ in 0..RECEIVES {
            if !matches!(receive(&self.socket, &mut self.datagram), Ok(Some(_))) {
                break;
            }
        }
    }
}

/// Returns whether every request would get this error: no capability, forbidden by a security module, or the number of the
/// family has changed.
fn is_refusal(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::PERM | Errno::ACCESS | Errno::NOENT | Errno::OPNOTSUPP))
}

pub(super) fn unanswered() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the kernel did not answer")
}

fn send(socket: &NlSocket, requests: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(requests, Msg::empty()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map(|_| ()), // a datagram goes as a whole or not at all
        }
    }
}

/// The next datagram, without waiting: generic netlink answers within send(2), so what is not there then was lost, and
/// no timeout is needed. `None`: there is none. Empty: ENOBUFS, which says that something was lost; the rest is there.
///
/// Only the kernel and CAP_NET_ADMIN can send to this socket, so the sender is not asked for.
fn receive<'a>(socket: &NlSocket, datagram: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    match socket.recv(&mut *datagram, Msg::DONTWAIT) {
        Ok((length, _)) => Ok(datagram.get(..length)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::AGAIN) => Ok(None),
            Some(Errno::INTR | Errno::NOBUFS) => Ok(Some(&[])),
            _ => Err(error),
        },
    }
}

/// Returns the result that a message has for its request. `None`: the message is no answer.
fn outcome(message: &Message<'_>, family: u16) -> Option<io::Result<Option<Delays>>> {
    if let Some(error) = message.error() {
        let gone = Errno::from_io_error(&error) == Some(Errno::SRCH);
        return Some(if gone { Ok(None) } else { Err(error) });
    }
    if message.kind != family {
        return None;
    }
    let aggregate = message.attribute(TASKSTATS_TYPE_AGGR_TGID).unwrap_or_default();
    let delays = find(aggregate, TASKSTATS_TYPE_STATS).and_then(Delays::decode);
    Some(delays.map(Some).ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidData, "the answer has no struct taskstats of version 8 or later")
    }))
}

/// Returns the number of the family from a message of the controller (nlctrl). `None`: the message is not its answer.
fn family(message: &Message<'_>) -> Option<io::Result<u16>> {
    if let Some(error) = message.error() {
        let missing = Errno::from_io_error(&error) == Some(Errno::NOENT);
        let what = "the kernel has no generic netlink family TASKSTATS (CONFIG_TASKSTATS)";
        return Some(Err(if missing { io::Error::new(ErrorKind::NotFound, what) } else { error }));
    }
    if message.kind != u16::from(GenlId::Ctrl) {
        return None;
    }
    let number = message.attribute(CtrlAttr::FamilyId.into())?.first_chunk()?;
    Some(Ok(u16::from_ne_bytes(*number)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)]
mod tests {
    use super::*;
    use crate::kernel::elsewhere;
    use crate::kernel::netlink::made_up::{attribute, message, only};
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    use proptest::prelude::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    /// Linux 6.18, captured by tests/taskstats_messages/capture.py, which also says what they hold.
    const ANSWER: &[u8] = include_bytes!("../../tests/taskstats_messages/linux-6.18-answer.bin");
    const GONE: &[u8] = include_bytes!("../../tests/taskstats_messages/linux-6.18-gone.bin");
    const REFUSED: &[u8] = include_bytes!("../../tests/taskstats_messages/linux-6.18-refused.bin");
    const FAMILY_31: &[u8] = include_bytes!("../../tests/taskstats_messages/linux-6.18-family.bin");
    const NO_FAMILY: &[u8] = include_bytes!("../../tests/taskstats_messages/linux-6.18-no-family.bin");

    /// A `struct taskstats` whose every 8 bytes hold their own offset.
    fn taskstats(version: u16, size: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..size as u64).step_by(8).flat_map(u64::to_ne_bytes).collect();
        bytes.truncate(size);
        bytes.iter_mut().zip(version.to_ne_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    #[test]
    fn reads_the_captured_messages() {
        let family = family(&only(FAMILY_31)).unwrap().unwrap();
        assert_eq!(family, 31);
        let message = only(ANSWER);
        assert_eq!(message.seq, 3);
        let delays = outcome(&message, family).unwrap().unwrap().unwrap();
        assert_eq!(delays.known, COUNTERS); // version 16
        let not_0 = NAMES.iter().zip(delays.values).filter(|(_, value)| *value != 0);
        // kernel.task_delayacct was 0.
        let expected = [("cpu_count", 101), ("cpu_delay_total", 7444), ("nvcsw", 100), ("nivcsw", 1)];
        assert!(not_0.map(|(name, value)| (*name, value)).eq(expected));
        assert!(outcome(&message, family + 1).is_none());

        assert_eq!(only(GONE).seq, 4);
        assert!(outcome(&only(GONE), family).unwrap().unwrap().is_none());
        let refused = outcome(&only(REFUSED), family).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(1));
        assert!(is_refusal(&refused));
    }

    #[test]
    fn a_kernel_without_the_family_is_told_apart() {
        let error = family(&only(NO_FAMILY)).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("TASKSTATS"));
        assert_eq!(family(&only(REFUSED)).unwrap().unwrap_err().raw_os_error(), Some(1));
    }

    /// Sizes and offsets as a C compiler has them for the header of each version.
    #[rustfmt::skip]
    const VERSIONS: [(u16, usize, &[u64]); 11] = [
        (8, 328, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320]),
        (9, 344, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336]),
        (10, 352, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336]),
        (11, 368, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360]),
        (12, 400, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360]),
        (13, 416, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360, 400, 408]),
        (14, 432, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360, 400, 408, 416, 424]),
        (15, 560, &[16, 24, 48, 56, 80, 88, 320, 328, 360, 368, 392, 400, 432, 440, 496, 504, 528, 536]),
        (16, 560, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360, 400, 408, 416, 424]),
        (17, 688, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360, 400, 408, 416, 424]),
        (99, 900, &[16, 24, 32, 40, 48, 56, 272, 280, 312, 320, 328, 336, 352, 360, 400, 408, 416, 424]),
    ];

    #[test]
    fn every_version_and_every_truncation_of_it_tells_what_it_has() {
        for (version, size, offsets) in VERSIONS {
            let whole = taskstats(version, size);
            for length in 0..=size {
                let fit: Vec<u64> = offsets.iter().copied().take_while(|at| at + 8 <= length as u64).collect();
                match Delays::decode(&whole[..length]) {
                    None => assert!(fit.len() < BASE, "version {version}, {length} bytes"),
                    Some(delays) => {
                        assert_eq!(&delays.values[..delays.known], fit, "version {version}, {length} bytes");
                        assert!(delays.values[delays.known..].iter().all(|value| *value == 0) && fit.len() >= BASE);
                    }
                }
            }
            assert_eq!(Delays::decode(&whole).unwrap().known, offsets.len());
        }
    }

    #[test]
    fn a_counter_is_not_read_before_its_version() {
        // Longer than version 8 ever was.
        assert_eq!(Delays::decode(&taskstats(8, 560)).unwrap().known, BASE);
        assert_eq!(Delays::decode(&taskstats(7, 560)), None);
        assert_eq!(Delays::decode(&taskstats(0, 560)), None);
    }

    #[test]
    fn the_struct_is_found_wherever_it_stands() {
        let stats = taskstats(17, 688);
        let expected = Delays::decode(&stats);
        let (tgid, null, unknown) = (attribute(2, &[1; 4]), attribute(6, &[]), attribute(77, b"odd"));
        let stats = attribute(TASKSTATS_TYPE_STATS, &stats);
        for nested in [
            [&tgid[..], &null, &stats].concat(), // where 64-bit words must be aligned
            [&tgid[..], &stats, &null].concat(),
            [&unknown[..], &stats, &tgid, &unknown].concat(),
            stats.clone(),
        ] {
            for kind in [TASKSTATS_TYPE_AGGR_TGID, TASKSTATS_TYPE_AGGR_TGID | 0x8000] {
                let aggregate = attribute(kind, &nested);
                let payload = [&[2, 1, 0, 0], &null[..], &unknown, &aggregate].concat();
                let outcome = outcome(&only(&message(31, 7, &payload)), 31).unwrap();
                assert_eq!(outcome.unwrap(), expected);
            }
        }
    }

    #[test]
    fn an_answer_without_the_struct_is_failed() {
        let stats = attribute(TASKSTATS_TYPE_STATS, &taskstats(16, 560));
        let old = attribute(TASKSTATS_TYPE_STATS, &taskstats(7, 328));
        for attributes in [
            vec![],
            stats.clone(),               // outside of the aggregate
            attribute(4, &stats),        // TASKSTATS_TYPE_AGGR_PID
            attribute(5, &[]),           // empty
            attribute(5, &old),          // too old
            attribute(5, &stats[..563]), // the attribute is longer than what it is in
            [0, 0, 5, 0].to_vec(),       // length 0
            [3, 0, 5, 0].to_vec(),       // less than its own header
            [255, 255, 5, 0].to_vec(),   // beyond the end
            [4].to_vec(),                // half a header
        ] {
            let payload = [&[2, 1, 0, 0], &attributes[..]].concat();
            let error = outcome(&only(&message(31, 7, &payload)), 31).unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{attributes:?}");
            assert!(!is_refusal(&error));
        }
    }

    #[test]
    fn several_messages_in_one_datagram_are_all_read() {
        let datagram = [GONE, ANSWER, NO_FAMILY, REFUSED].concat();
        assert!(Messages(&datagram).map(|message| message.seq).eq([4, 3, 2, 5]));
        // An acknowledgement and the kinds that are never asked for are no answers.
        for kind in 0..4 {
            assert!(outcome(&only(&message(kind, 4, &[0; 20])), 31).is_none());
        }
        assert!(outcome(&only(&message(2, 4, &[])), 31).is_none());
        assert!(outcome(&only(&message(2, 4, &i32::MIN.to_ne_bytes())), 31).is_none());
    }

    #[test]
    fn a_truncated_message_is_none() {
        for whole in [ANSWER, GONE, REFUSED, FAMILY_31, NO_FAMILY] {
            for length in 0..whole.len() {
                assert_eq!(Messages(&whole[..length]).count(), 0);
            }
        }
    }

    fn read_all(bytes: &[u8]) {
        for message in Messages(bytes) {
            let _ = (outcome(&message, 31), family(&message));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            read_all(&bytes);
            read_all(&message(31, 1, &bytes));
            read_all(&message(16, 1, &bytes));
            read_all(&message(2, 1, &bytes));
            let _ = find(&bytes, TASKSTATS_TYPE_STATS);
            if let Some(delays) = Delays::decode(&bytes) {
                prop_assert!((BASE..=COUNTERS).contains(&delays.known));
            }
        }

        #[test]
        fn a_spoilt_message_never_panics(spoilt in proptest::collection::vec((0_usize..150, any::<u8>()), 1..4)) {
            for message in [ANSWER, FAMILY_31, GONE] {
                let mut bytes = message.to_vec();
                for (at, byte) in &spoilt {
                    if let Some(b) = bytes.get_mut(*at) { *b = *byte; }
                }
                read_all(&bytes);
            }
        }
    }

    #[test]
    fn a_wait_since_boot_is_none_unless_there_was_time_for_it() {
        const HOUR: u64 = 3_600_000_000_000;
        let cases = [(HOUR, 10, true), (HOUR + 5, 10, true), (HOUR - HOUR / 16, 10, true), (HOUR / 2, 10, false)];
        for (delay, time, expected) in cases {
            assert_eq!(is_since_boot(delay, time, HOUR), expected, "{delay}");
        }
        assert!(!is_since_boot(HOUR, HOUR, HOUR), "one that has waited all the time");
    }

    /// A live socket that may ask.
    fn live() -> Option<Taskstats> {
        let reason = match Taskstats::open() {
            Err(error) => error,
            Ok(mut taskstats) => match taskstats.query(&[std::process::id()], |_, _| {}) {
                Err(error) => error,
                Ok(()) => return Some(taskstats),
            },
        };
        elsewhere::cannot_be_had("taskstats", &reason);
        None
    }

    struct Cat(Child);

    impl Cat {
        fn new() -> Self {
            Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
        }

        /// Gives it something to wait for.
        fn echo(&mut self) {
            self.0.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            self.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        }
    }

    impl Drop for Cat {
        fn drop(&mut self) {
            let _ = (self.0.kill(), self.0.wait());
        }
    }

    fn dead() -> u32 {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    /// What became of each; `each` was called once for each.
    fn query(taskstats: &mut Taskstats, tgids: &[u32]) -> Vec<io::Result<Option<Delays>>> {
        let mut outcomes: Vec<_> = tgids.iter().map(|_| None).collect();
        let each = |at: usize, outcome| assert!(outcomes[at].replace(outcome).is_none(), "twice: {at}");
        taskstats.query(tgids, each).unwrap();
        outcomes.into_iter().map(Option::unwrap).collect()
    }

    /// 400 of the living and the dead.
    fn tgids(cats: &[Cat], dead: u32) -> Vec<u32> {
        let living = [std::process::id(), cats[0].0.id(), cats[1].0.id()];
        (0..400).map(|n| if n % 7 == 3 { [dead, u32::MAX][n % 2] } else { living[n % 3] }).collect()
    }

    fn check(outcomes: Vec<io::Result<Option<Delays>>>) {
        assert_eq!(outcomes.len(), 400);
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let delays = outcome.unwrap();
            assert_eq!(delays.is_none(), n % 7 == 3, "{n}");
            assert!(delays.is_none_or(|delays| delays.values[0] > 0 && delays.known >= BASE), "{n}");
        }
    }

    #[test]
    fn each_process_is_told_once_and_the_dead_do_not_stop_the_rest() {
        let Some(mut taskstats) = live() else { return };
        let cats = [Cat::new(), Cat::new()];
        let tgids = tgids(&cats, dead());
        check(query(&mut taskstats, &tgids));
        check(query(&mut taskstats, &tgids));
        assert!(query(&mut taskstats, &[]).is_empty());
        // The sequence number wraps.
        taskstats.seq = u32::MAX - 140;
        check(query(&mut taskstats, &tgids));
    }

    #[test]
    fn lost_replies_are_asked_for_again() {
        let Some(mut taskstats) = live() else { return };
        taskstats.socket.set_recv_buffer_size(1).unwrap(); // the kernel's minimum: room for two
        let cats = [Cat::new(), Cat::new()];
        let first = taskstats.seq;
        check(query(&mut taskstats, &tgids(&cats, dead())));
        assert!(taskstats.seq - first > 100 * BATCH as u32, "nothing was lost");
    }

    #[test]
    fn stale_replies_are_nobody_s() {
        let Some(mut taskstats) = live() else { return };
        let me = std::process::id();
        let mut requests = Vec::new();
        for seq in 0..taskstats.seq {
            let (family, value) = (taskstats.family, &u32::MAX.to_ne_bytes());
            Request { family, command: 1, attribute: 2, value }.push(&mut requests, NlmF::empty(), seq);
        }
        send(&taskstats.socket, &requests).unwrap();
        assert!(query(&mut taskstats, &[me]).remove(0).unwrap().is_some());
    }

    #[test]
    fn a_zombie_answers_that_it_never_did_anything() {
        let Some(mut taskstats) = live() else { return };
        let mut child = Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let delays = query(&mut taskstats, &[child.id()]).remove(0).unwrap().unwrap();
        assert_eq!(delays.values, [0; COUNTERS], "of a process with one thread nothing is kept");
        child.wait().unwrap();
        assert!(query(&mut taskstats, &[child.id()]).remove(0).unwrap().is_none());
    }

    /// /proc as the independent reader: between two readings of it lies what taskstats tells.
    #[test]
    fn agrees_with_proc() {
        let Some(mut taskstats) = live() else { return };
        let mut cat = Cat::new();
        let pid = cat.0.id();
        let from_proc = || -> [u64; 4] {
            // One thread, so the leader's is the whole.
            let schedstat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
            let schedstat: Vec<u64> = schedstat.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let switches = |name: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().parse().unwrap()
            };
            let (nvcsw, nivcsw) = (switches("voluntary_ctxt_switches:"), switches("nonvoluntary_ctxt_switches:"));
            [schedstat[2], schedstat[1], nvcsw, nivcsw]
        };
        elsewhere::wait_until("a switch of each kind", || {
            cat.echo();
            !from_proc().contains(&0)
        });
        let before = from_proc();
        let values = query(&mut taskstats, &[pid]).remove(0).unwrap().unwrap().values;
        let after = from_proc();
        for (((name, at), before), after) in
            [("cpu_count", 0), ("cpu_delay_total", 1), ("nvcsw", 6), ("nivcsw", 7)].into_iter().zip(before).zip(after)
        {
            assert_eq!(NAMES[at], name);
            assert!((before..=after).contains(&values[at]), "{name}: {} not in {before}..={after}", values[at]);
        }
    }

    /// The capability counts at each send. It belongs to a thread, so one is spoilt for this.
    #[test]
    fn without_the_capability_it_stops_and_nothing_is_left_over() {
        let Some(mut taskstats) = live() else { return };
        let spoilt = std::thread::spawn(move || {
            let with = capabilities(None).unwrap();
            let mut without = with;
            without.effective.remove(CapabilitySet::NET_ADMIN);
            let tgids = [std::process::id(); 200];

            set_capabilities(None, without).unwrap();
            let error = taskstats.query(&tgids, |_, _| unreachable!()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(1));
            assert!(receive(&taskstats.socket, &mut taskstats.datagram).unwrap().is_none());

            set_capabilities(None, with).unwrap();
            for outcome in query(&mut taskstats, &tgids) {
                assert!(outcome.unwrap().is_some());
            }
        });
        spoilt.join().unwrap();
    }
}
