//! Netlink (linux/netlink.h, linux/genetlink.h): messages as they are written and walked, and a socket to listen at.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use neli::consts::nl::{NlmF, Nlmsg};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

const NLMSGHDR: usize = 16;
const GENLMSGHDR: usize = 4;
const NLATTR: usize = 4;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Room for one datagram; the longest there is today holds two `struct taskstats` of 688 bytes (version 17).
pub(super) const DATAGRAM: usize = 8192;

/// Most datagrams of one [`Listener::drain`]: whatever comes, there is an end. Some times what [`RECEIVE_BUFFER`] holds.
const DRAIN: usize = 1 << 18;

/// SO_RCVBUF of a [`Listener`], which the kernel doubles: it holds what comes within a gather that takes its time, or while others
/// have the CPUs. Only what waits takes memory.
pub(super) const RECEIVE_BUFFER: usize = 16 << 20;

/// Text of a message where no netlink socket can be opened.
pub const IS_FORBIDDEN: &str =
    "no netlink socket can be opened; in the systemd unit, RestrictAddressFamilies= has to allow AF_NETLINK";

/// Returns whether an error means that no netlink socket can be opened.
#[must_use]
pub fn is_forbidden(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// Result of draining a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// Every message that was sent before has been taken.
    Complete,
    /// Overrun: the receive buffer was full, a message could not be read, or messages came faster than they were taken.
    /// Some are missing, and there is no way to know which.
    Lossy,
}

/// Result of one receive call.
#[derive(Debug)]
pub(super) enum Received<'a> {
    Datagram(&'a [u8]),
    /// ENOBUFS: something was lost; the rest is there.
    Lost,
    Nothing,
}

/// A socket that the kernel sends to unasked. neli's could be neither polled without unsafe code nor given a buffer
/// beyond rmem_max.
pub(super) struct Listener {
    socket: OwnedFd,
    datagram: Vec<u8>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Listener {
    /// Opens a socket and joins `groups` (a bit each).
    pub(super) fn open(protocol: Protocol, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(protocol))?;
        let listener = Self { socket, datagram: vec![0; DATAGRAM] };
        listener.set_receive_buffer(RECEIVE_BUFFER)?;
        rustix::net::bind(&listener.socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(listener)
    }

    /// The address that the kernel gave it, which no other socket of the protocol has.
    pub(super) fn address(&self) -> io::Result<u32> {
        Ok(SocketAddrNetlink::try_from(rustix::net::getsockname(&self.socket)?)?.pid())
    }

    /// Sets how many bytes may wait; beyond rmem_max with CAP_NET_ADMIN, up to it without.
    pub(super) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        sockopt::set_socket_recv_buffer_size_force(&self.socket, bytes)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&self.socket, bytes))?;
        Ok(())
    }

    /// Returns how much of [`RECEIVE_BUFFER`] there is: less than 1 without CAP_NET_ADMIN, as rmem_max has it.
    pub(super) fn room(&self) -> io::Result<f64> {
        // As the kernel counts, which has doubled it.
        Ok(sockopt::socket_recv_buffer_size(&self.socket)? as f64 / (2 * RECEIVE_BUFFER) as f64)
    }

    pub(super) fn send(&self, messages: &[u8]) -> io::Result<()> {
        // A datagram goes as a whole or not at all.
        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, messages, SendFlags::empty()))?;
        Ok(())
    }

    /// The next datagram, without waiting.
    ///
    /// Only the kernel and CAP_NET_ADMIN can send to this socket, so the sender is not asked for.
    pub(super) fn receive(&mut self) -> io::Result<Received<'_>> {
        let buffer = self.datagram.as_mut_slice();
        match rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT)) {
            Ok((length, _)) => Ok(self.datagram.get(..length).map_or(Received::Nothing, Received::Datagram)),
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(Errno::NOBUFS) => Ok(Received::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls `each` with every message that has come, without waiting.
    ///
    /// An overrun is reported at once, before the messages in the buffer, and every later message is lost until the buffer
    /// is empty. So a drain that ends with an empty buffer has seen every overrun.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&Message<'_>)) -> io::Result<Drained> {
        let mut drained = Drained::Complete;
        for _ in 0..DRAIN {
            match self.receive()? {
                Received::Datagram(datagram) => {
                    let mut messages = Messages(datagram);
                    messages.by_ref().for_each(|message| each(&message));
                    if !messages.0.is_empty() {
                        drained = Drained::Lossy;
                    }
                }
                Received::Lost => drained = Drained::Lossy,
                Received::Nothing => return Ok(drained),
            }
        }
        Ok(Drained::Lossy)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns the same error with its meaning here before it.
pub(super) fn meaning(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what} ({error})"))
}

/// Appends a `struct nlmsghdr`, for a payload of that many bytes.
pub(super) fn push_header(messages: &mut Vec<u8>, kind: u16, flags: NlmF, seq: u32, payload: usize) {
    // What is sent is a few bytes long.
    messages.extend_from_slice(&((NLMSGHDR + payload) as u32).to_ne_bytes());
    messages.extend_from_slice(&kind.to_ne_bytes());
    messages.extend_from_slice(&flags.bits().to_ne_bytes());
    messages.extend_from_slice(&seq.to_ne_bytes());
    messages.extend_from_slice(&0_u32.to_ne_bytes()); // nlmsg_pid: the kernel knows
}

/// A generic netlink request with one attribute.
pub(super) struct Request<'a> {
    pub(super) family: u16,
    pub(super) command: u8,
    pub(super) attribute: u16,
    pub(super) value: &'a [u8],
}

impl Request<'_> {
    /// Appends it. `flags` go with NLM_F_REQUEST.
    pub(super) fn push(&self, messages: &mut Vec<u8>, flags: NlmF, seq: u32) {
        let padded = self.value.len().next_multiple_of(4);
        push_header(messages, self.family, NlmF::REQUEST | flags, seq, GENLMSGHDR + NLATTR + padded);
        let end = messages.len() + GENLMSGHDR + NLATTR + padded;
        messages.extend_from_slice(&[self.command, 1, 0, 0]); // version 1, reserved
        messages.extend_from_slice(&((NLATTR + self.value.len()) as u16).to_ne_bytes());
        messages.extend_from_slice(&self.attribute.to_ne_bytes());
        messages.extend_from_slice(self.value);
        messages.resize(end, 0);
    }
}

/// The messages of a datagram, up to the first that is none; it and what follows stays.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

/// A `struct nlmsghdr` and what follows it.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) seq: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        let kind = u16_at(self.0, 4)?;
        let seq = u32_at(self.0, 8)?;
        let payload = self.0.get(NLMSGHDR..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, seq, payload })
    }
}

impl<'a> Message<'a> {
    /// The error of an NLMSG_ERROR; an acknowledgement (0) is none.
    pub(super) fn error(&self) -> Option<io::Error> {
        let errno = self.errno()?.checked_neg()?;
        (errno > 0).then(|| io::Error::from_raw_os_error(errno))
    }

    /// Returns whether this is an NLMSG_ERROR without an error: an acknowledgement (NLM_F_ACK).
    pub(super) fn acknowledges(&self) -> bool {
        self.errno() == Some(0)
    }

    fn errno(&self) -> Option<i32> {
        let bytes = self.payload.first_chunk().filter(|_| self.kind == u16::from(Nlmsg::Error))?;
        Some(i32::from_ne_bytes(*bytes))
    }

    /// An attribute of a generic netlink message.
    pub(super) fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        find(self.payload.get(GENLMSGHDR..)?, kind)
    }
}

/// The payload of the first attribute of this kind. Walks `struct nlattr`s, up to the first that is none.
pub(super) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let kind = u16_at(attributes, 2)? & NLA_TYPE_MASK;
        let payload = attributes.get(NLATTR..length)?;
        if kind == wanted {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

// Copied out: nothing is aligned to more than 4 bytes.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Made-up messages for the tests of their readers.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod made_up {
    use super::*;

    /// The one message of a datagram.
    pub(in crate::kernel) fn only(datagram: &[u8]) -> Message<'_> {
        let mut messages = Messages(datagram);
        let message = messages.next().unwrap();
        assert!(messages.next().is_none());
        message
    }

    pub(in crate::kernel) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(NLATTR + payload.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    pub(in crate::kernel) fn message(kind: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_header(&mut bytes, kind, NlmF::empty(), seq, payload.len());
        bytes.extend_from_slice(payload);
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::made_up::message;
    use super::*;
    use rustix::net::netlink::USERSOCK;

    /// A listener, and what sends to it. Any process may, by this protocol.
    fn pair() -> (Listener, impl Fn(&[u8])) {
        let (to, from) = (Listener::open(USERSOCK, 0).unwrap(), Listener::open(USERSOCK, 0).unwrap());
        let address = SocketAddrNetlink::new(to.address().unwrap(), 0);
        (to, move |datagram: &[u8]| {
            // Lost if there is no room.
            let _ = rustix::net::sendto(&from.socket, datagram, SendFlags::DONTWAIT, &address);
        })
    }

    #[test]
    fn every_message_is_told_and_what_is_none_is_a_loss() {
        let (mut listener, send) = pair();
        let (one, other) = (message(3, 1, b"payload"), message(4, 2, b""));
        let padded = [&one[..], &[0]].concat();
        let mut drained = |datagrams: &[&[u8]]| {
            datagrams.iter().for_each(|datagram| send(datagram));
            let mut seqs = Vec::new();
            (listener.drain(|message| seqs.push(message.seq)).unwrap(), seqs)
        };
        assert_eq!(drained(&[]), (Drained::Complete, vec![]));
        assert_eq!(drained(&[&one, &other]), (Drained::Complete, vec![1, 2]));
        assert_eq!(drained(&[&[&padded[..], &other].concat()]), (Drained::Complete, vec![1, 2]));
        assert_eq!(drained(&[&other[..15], &one]), (Drained::Lossy, vec![1]), "truncated");
        assert_eq!(drained(&[&[&other[..], &[1]].concat()]), (Drained::Lossy, vec![2]), "and something else");
        assert_eq!(drained(&[&[255; 40], &other]), (Drained::Lossy, vec![2]), "garbage");
        assert_eq!(drained(&[&message(3, 3, &[0; DATAGRAM])]), (Drained::Lossy, vec![]), "longer than there is room");
        assert_eq!(drained(&[&one]), (Drained::Complete, vec![1]));
    }

    #[test]
    fn however_fast_they_come_there_is_an_end() {
        let (mut listener, send) = pair();
        let one = message(3, 1, b"");
        send(&one);
        let mut told = 0;
        let drained = listener.drain(|_| {
            told += 1;
            send(&one);
        });
        assert_eq!((drained.unwrap(), told), (Drained::Lossy, DRAIN));
    }
}
