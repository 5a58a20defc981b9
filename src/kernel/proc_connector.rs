//! Processes that come, go and change: the proc connector (linux/cn_proc.h), NETLINK_CONNECTOR.
//!
//! They come in the order in which they were sent, on whatever CPU: a fork before the new process first runs, an exit
//! when the process is a zombie already, or gone.
//!
//! Without capabilities since Linux 6.6; before, CAP_NET_ADMIN. Only in the initial user, pid and network namespaces.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use neli::consts::connector::{CnMsgIdx, CnMsgVal, ProcCnMcastOp, ProcEventType};
use neli::consts::nl::{NlmF, Nlmsg};
use rustix::io::Errno;
use rustix::net::netlink::CONNECTOR;

use super::netlink::{self, Drained, Listener, Message, u16_at, u32_at};

// linux/connector.h, linux/cn_proc.h
/// `struct cn_msg` without its data.
const CN_MSG: usize = 20;
/// `struct proc_event` without its union.
const PROC_EVENT: usize = 16;

/// Event of a process; those of threads are left out. The pids are those of the initial pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A process was made.
    Fork {
        /// The real parent: with CLONE_PARENT not the process that forked.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// The process executes another program. If another thread than the leader called execve(2), an `Exit` of the old
    /// leader mostly came before.
    Exec {
        /// Which.
        pid: u32,
    },
    /// The process changed its comm, by prctl(2) or /proc. execve(2) makes no such event.
    Comm {
        /// Which.
        pid: u32,
    },
    /// The leader thread exited. Mostly the process has exited with it, but other threads may go on, or even call
    /// execve(2): /proc and the exit records show which. There is no event when a process exits whose leader exited before.
    Exit {
        /// Which.
        pid: u32,
        /// The real parent now: another one than at the exit if that exited too. `None`: it was reaped already, by
        /// itself where SIGCHLD is ignored or because its parent was quicker, or the kernel is older than Linux 4.18.
        parent: Option<u32>,
    },
}

/// A subscription.
#[derive(Debug)]
pub struct ProcConnector {
    listener: Listener,
    /// The number of the next message, by CPU.
    next: HashMap<u32, u32>,
}

impl ProcConnector {
    /// Subscribes.
    ///
    /// # Errors
    /// - `PermissionDenied`: CAP_NET_ADMIN is needed, before Linux 6.6
    /// - `ConnectionRefused`: this is another network namespace
    /// - `TimedOut`: no acknowledgement; this is another user or pid namespace
    /// - `Unsupported`: the kernel has no connector
    ///
    /// or what else the kernel said.
    pub fn listen() -> io::Result<Self> {
        let listener =
            Listener::open(CONNECTOR, CnMsgIdx::Proc.into()).map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::PROTONOSUPPORT) => {
                    let what = "the kernel has no proc connector (CONFIG_PROC_EVENTS)";
                    io::Error::new(ErrorKind::Unsupported, what)
                }
                Some(Errno::PERM) => netlink::meaning(&error, "before Linux 6.6, process events need CAP_NET_ADMIN"),
                _ => error,
            })?;
        // Nobody else's, and never the 0 of an event.
        let token = listener.address()?;
        listener.send(&request(ProcCnMcastOp::Listen, token)).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::CONNREFUSED) => {
                netlink::meaning(&error, "process events exist in the initial network namespace only")
            }
            _ => error,
        })?;
        // To drop it is to unsubscribe. Not before: old kernels do not know whom they count.
        let mut connector = Self { listener, next: HashMap::new() };
        // The kernel acknowledges within send(2), so there is nothing to wait for.
        let mut acknowledged = None;
        let _ = connector.listener.drain(|message| {
            acknowledged = acknowledged.or(acknowledgement(message, token));
        })?;
        match acknowledged {
            Some(0) => Ok(connector),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => {
                let what = "process events were not acknowledged: they exist in the initial user and pid namespaces \
                            only, with CONFIG_PROC_EVENTS";
                Err(io::Error::new(ErrorKind::TimedOut, what))
            }
        }
    }

    /// Sets how many bytes of messages may wait, beyond rmem_max only with CAP_NET_ADMIN. 16 MiB at first; an event
    /// takes about 400 of these bytes.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        self.listener.set_receive_buffer(bytes)
    }

    /// Returns how much there is of the room for messages that was asked for at first: less than 1 where the privilege was missing.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn room(&self) -> io::Result<f64> {
        self.listener.room()
    }

    /// Calls `each` with every event since the last call, without waiting. After an overrun, events that are left and later
    /// ones still come.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&mut self, mut each: impl FnMut(Event)) -> io::Result<Drained> {
        let Self { listener, next } = self;
        let mut complete = true;
        let drained = listener.drain(|message| {
            let Some(bytes) = proc_event(message) else { return };
            complete &= is_next(next, bytes, message.seq);
            if let Some(event) = event(bytes) {
                each(event);
            }
        })?;
        if drained == Drained::Lossy {
            // What is missing is told once, not again by its numbers.
            next.clear();
        }
        Ok(if complete { drained } else { Drained::Lossy })
    }
}

/// Readable when there is something to drain.
impl AsFd for ProcConnector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Unsubscribes: the kernel counts its listeners, and does not notice when one exits. After a SIGKILL it goes on making
/// messages, up to the point where it sees that the multicast group is empty.
impl Drop for ProcConnector {
    fn drop(&mut self) {
        let token = self.listener.address().unwrap_or_default();
        let _ = self.listener.send(&request(ProcCnMcastOp::Ignore, token));
    }
}

/// Returns a message to the proc connector. Its acknowledgement has the number `token` + 1 (the sequence number is not
/// kept).
///
/// Since Linux 6.6 the message could name the kinds of events that are wanted. It does not: the other kinds are few, gaps
/// in the sequence numbers could not be told from losses, and kernels of early 2024 (c46bfba1337d, reverted in 6.8) send
/// nothing after the first unwanted event.
///
/// A socket filter (SO_ATTACH_FILTER) could drop the events of threads, which would save 2 of the 3 µs that each costs. It
/// is not used: the sequence numbers of dropped messages would look like those of messages for which the kernel had no
/// memory, and the process of such a message would stay unknown.
fn request(op: ProcCnMcastOp, token: u32) -> Vec<u8> {
    let input = u32::from(op).to_ne_bytes();
    let mut message = Vec::new();
    netlink::push_header(&mut message, Nlmsg::Done.into(), NlmF::empty(), 0, CN_MSG + input.len());
    for word in [CnMsgIdx::Proc.into(), CnMsgVal::Proc.into(), 0, token] {
        message.extend_from_slice(&u32::to_ne_bytes(word));
    }
    message.extend_from_slice(&(input.len() as u16).to_ne_bytes());
    message.extend_from_slice(&[0; 2]); // flags
    message.extend_from_slice(&input);
    message
}

/// The `struct proc_event` in a message.
fn proc_event<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let payload = message.payload;
    let (idx, val) = (u32_at(payload, 0)?, u32_at(payload, 4)?);
    let ours = idx == u32::from(CnMsgIdx::Proc) && val == u32::from(CnMsgVal::Proc);
    let ours = ours && message.kind == u16::from(Nlmsg::Done);
    payload.get(CN_MSG..)?.get(..usize::from(u16_at(payload, 16)?)).filter(|_| ours)
}

/// Returns whether no message is missing before this one. Each CPU numbers its messages, including those for which it then
/// has no memory and of which the socket knows nothing.
fn is_next(next: &mut HashMap<u32, u32>, bytes: &[u8], seq: u32) -> bool {
    let Some(cpu) = u32_at(bytes, 4) else { return false };
    next.insert(cpu, seq.wrapping_add(1)).is_none_or(|next| next == seq)
}

/// Decodes a `struct proc_event`. `None`: a thread's, one that is not read, or too short.
fn event(bytes: &[u8]) -> Option<Event> {
    let data = |at: usize| u32_at(bytes, PROC_EVENT + 4 * at);
    // A process is its leader, the thread whose pid is the tgid.
    let leader = |at| data(at).filter(|pid| data(at + 1) == Some(*pid));
    match ProcEventType::from(u32_at(bytes, 0)?) {
        ProcEventType::Fork => Some(Event::Fork { parent: data(1)?, child: leader(2)? }),
        ProcEventType::Exec => Some(Event::Exec { pid: leader(0)? }),
        ProcEventType::Comm => Some(Event::Comm { pid: leader(0)? }),
        ProcEventType::Exit => Some(Event::Exit { pid: leader(0)?, parent: data(5).filter(|parent| *parent != 0) }),
        _ => None,
    }
}

/// The errno of the acknowledgement of our request; 0 if it was granted.
fn acknowledgement(message: &Message<'_>, token: u32) -> Option<i32> {
    let bytes = proc_event(message)?;
    let ours = u32_at(message.payload, 12)? == token.wrapping_add(1);
    let none = u32_at(bytes, 0)? == u32::from(ProcEventType::None);
    let errno = u32_at(bytes, PROC_EVENT)?.cast_signed();
    (ours && none).then(|| errno.saturating_abs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, clippy::print_stdout)]
mod tests {
    use super::*;
    use crate::kernel::elsewhere;
    use crate::kernel::netlink::made_up::{message, only};
    use crate::kernel::netlink::{Messages, Received};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    /// Linux 6.18, captured by tests/event_messages/capture.py.
    const ACKNOWLEDGED: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-acknowledged.bin");
    const FORK: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-fork.bin");
    const FORK_THREAD: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-fork-thread.bin");
    const EXEC: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-exec.bin");
    const COMM: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-comm.bin");
    const EXITED: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-exited.bin");
    const EXITED_REAPED: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-exited-reaped.bin");
    const CAPTURED: [&[u8]; 7] = [ACKNOWLEDGED, FORK, FORK_THREAD, EXEC, COMM, EXITED, EXITED_REAPED];

    fn read(datagram: &[u8]) -> Vec<Event> {
        Messages(datagram).filter_map(|message| proc_event(&message).and_then(event)).collect()
    }

    #[test]
    fn reads_the_captured_messages() {
        let (parent, child) = (22720, 22761);
        assert_eq!(read(FORK), [Event::Fork { parent, child }]);
        assert_eq!(read(EXEC), [Event::Exec { pid: child }]);
        assert_eq!(read(COMM), [Event::Comm { pid: child }]);
        assert_eq!(read(EXITED), [Event::Exit { pid: child, parent: Some(parent) }]);
        assert_eq!(read(EXITED_REAPED), [Event::Exit { pid: 22768, parent: None }]);
        assert_eq!(read(FORK_THREAD), [], "a thread is no process");
        assert_eq!(read(ACKNOWLEDGED), []);
        assert_eq!(read(&CAPTURED.concat()).len(), 5);
    }

    #[test]
    fn an_acknowledgement_is_ours_by_its_token() {
        assert_eq!(acknowledgement(&only(ACKNOWLEDGED), 41), Some(0));
        for token in [0, 40, 42, u32::MAX] {
            assert_eq!(acknowledgement(&only(ACKNOWLEDGED), token), None);
        }
        assert!(CAPTURED[1..].iter().all(|event| acknowledgement(&only(event), u32::MAX).is_none()));
        // The kernel writes errors without a sign.
        let mut refused = ACKNOWLEDGED.to_vec();
        for (errno, read) in [(1_i32, 1), (-1, 1), (12, 12), (i32::MIN, i32::MAX)] {
            refused[52..56].copy_from_slice(&errno.to_ne_bytes());
            assert_eq!(acknowledgement(&only(&refused), 41), Some(read));
        }
    }

    #[test]
    fn a_request_is_what_the_kernel_reads() {
        let words = |message: Vec<u8>| -> Vec<u32> {
            message.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
        };
        let length = |length: u16| u32::from_ne_bytes([length.to_ne_bytes(), [0; 2]].concat().try_into().unwrap());
        let kind = length(3);
        assert_eq!(words(request(ProcCnMcastOp::Listen, 7)), [40, kind, 0, 0, 1, 1, 0, 7, length(4), 1]);
        assert_eq!(words(request(ProcCnMcastOp::Ignore, 7))[9], 2);
    }

    #[test]
    fn a_message_that_was_never_sent_is_missed() {
        let mut next = HashMap::new();
        let mut is_next = |cpu: u32, seq| is_next(&mut next, &[[0; 4], cpu.to_ne_bytes()].concat(), seq);
        assert!(is_next(0, 7) && is_next(1, 100) && is_next(0, 8) && is_next(1, 101), "each CPU has its own");
        assert!(!is_next(0, 10), "9");
        assert!(is_next(0, 11), "once");
        assert!(is_next(2, u32::MAX) && is_next(2, 0));
        assert!(!super::is_next(&mut HashMap::new(), &[0; 7], 0), "too short");
    }

    #[test]
    fn what_is_not_the_proc_connector_s_is_no_event() {
        for (at, byte) in [(4, 2), (4, 0), (16, 2), (20, 9), (36, 0), (36, 4), (39, 1)] {
            let mut other = FORK.to_vec();
            other[at] = byte;
            assert_eq!(read(&other), [], "{byte} at {at}");
        }
    }

    #[test]
    fn a_truncated_message_is_none() {
        for whole in CAPTURED {
            for length in 0..whole.len() {
                assert_eq!(Messages(&whole[..length]).count(), 0);
            }
            let payload = only(whole).payload;
            for length in 0..payload.len() {
                let shorter = message(3, 0, &payload[..length]);
                assert_eq!(read(&shorter), [], "{length}");
                assert_eq!(acknowledgement(&only(&shorter), 41), None);
            }
            // Nor is one whose struct is shorter than what is read of it; before Linux 4.18 an exit has no parent.
            let proc_event = &payload[CN_MSG..];
            for length in 0..proc_event.len() {
                let _ = event(&proc_event[..length]);
            }
        }
        let exit = &only(EXITED).payload[CN_MSG..];
        assert_eq!(event(&exit[..PROC_EVENT + 16]), Some(Event::Exit { pid: 22761, parent: None }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), token in any::<u32>()) {
            let _ = (read(&bytes), event(&bytes), acknowledgement(&only(&message(3, 1, &bytes)), token));
            let _ = read(&message(3, 1, &bytes));
            let _ = read(&message(3, 1, &[&only(FORK).payload[..CN_MSG], &bytes].concat()));
        }

        #[test]
        fn a_spoilt_message_never_panics(spoilt in proptest::collection::vec((0_usize..76, any::<u8>()), 1..4)) {
            for whole in CAPTURED {
                let mut bytes = whole.to_vec();
                spoilt.iter().for_each(|(at, byte)| bytes[*at] = *byte);
                let _ = read(&bytes);
                for message in Messages(&bytes) {
                    let _ = acknowledgement(&message, 41);
                }
            }
        }
    }

    fn live() -> Option<ProcConnector> {
        let error = match ProcConnector::listen() {
            Ok(connector) => {
                // Whatever else the host does while we wait.
                connector.set_receive_buffer(64 << 20).unwrap();
                return Some(connector);
            }
            Err(error) => error,
        };
        elsewhere::cannot_be_had("process events", &error);
        None
    }

    fn whose(event: Event) -> u32 {
        match event {
            Event::Fork { child: pid, .. } | Event::Exec { pid } | Event::Comm { pid } | Event::Exit { pid, .. } => pid,
        }
    }

    /// What happened to a process, of which nothing is to come. Whatever else the host does is left out.
    fn life(connector: &mut ProcConnector, pid: u32) -> Vec<Event> {
        let mut life = Vec::new();
        // It can have been reaped before its exit is told.
        elsewhere::wait_until("the exit of a process", || {
            let drained = connector.drain(|event| life.extend(Some(event).filter(|event| whose(*event) == pid)));
            assert_eq!(drained.unwrap(), Drained::Complete);
            matches!(life.last(), Some(Event::Exit { .. }))
        });
        life
    }

    #[test]
    fn a_child_comes_execs_renames_itself_and_goes() {
        let Some(mut connector) = live() else { return };
        let mut child = Command::new("sh").args(["-c", "echo renamed > /proc/$$/comm"]).spawn().unwrap();
        child.wait().unwrap();
        let (parent, pid) = (std::process::id(), child.id());
        let life = life(&mut connector, pid);
        assert_eq!(life[..3], [Event::Fork { parent, child: pid }, Event::Exec { pid }, Event::Comm { pid }]);
        assert!(
            matches!(life[3..], [Event::Exit { parent: None, .. }])
                || life[3] == Event::Exit { pid, parent: Some(parent) }
        );
    }

    /// Not a test: what is done in another process. Nothing, unless asked for.
    #[test]
    fn elsewhere() {
        match elsewhere::task().as_deref() {
            Some("thread execs") => {
                let exec = std::thread::spawn(|| Command::new("true").exec());
                let _ = exec.join();
            }
            Some("listen") => println!("outcome: {:?}", ProcConnector::listen().map_err(|error| error.kind())),
            _ => {}
        }
    }

    fn elsewhere_command(before: &[&str], task: &str) -> Command {
        elsewhere::itself(before, "kernel::proc_connector::tests::elsewhere", task)
    }

    #[test]
    fn when_another_thread_execs_the_leader_mostly_exits_first() {
        let Some(mut connector) = live() else { return };
        let mut child = elsewhere_command(&[], "thread execs").stdout(Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
        let pid = child.id();
        let mut events = life(&mut connector, pid);
        if events.len() == 3 {
            events.extend(life(&mut connector, pid)); // drained in between
        }
        // Where the other thread has taken the leader's pid already, the leader's exit looks like a thread's.
        if let [_, _, Event::Exit { .. }, ..] = events[..] {
            events.remove(2);
        }
        assert!(
            matches!(events[..], [Event::Fork { .. }, Event::Exec { .. }, Event::Exec { .. }, Event::Exit { .. }]),
            "{events:?}"
        );
    }

    #[test]
    fn in_another_namespace_it_says_so() {
        if live().is_none() {
            return;
        }
        for (unshare, kind) in [
            (&["unshare", "--net"][..], "ConnectionRefused"),
            (&["unshare", "--pid", "--fork"], "TimedOut"),
            (&["unshare", "--user", "--map-root-user"], "TimedOut"),
        ] {
            if !elsewhere::can_go(unshare) {
                continue;
            }
            let output = elsewhere_command(unshare, "listen").output().unwrap();
            let output = String::from_utf8_lossy(&output.stdout);
            assert!(output.contains(&format!("outcome: Err({kind})")), "{unshare:?}: {output}");
        }
    }

    #[test]
    fn a_loss_is_told_and_what_comes_later_too() {
        let Some(mut connector) = live() else { return };
        connector.set_receive_buffer(1).unwrap(); // the kernel's minimum: room for a few
        for _ in 0..20 {
            Command::new("true").status().unwrap();
        }
        assert_eq!(connector.drain(|_| {}).unwrap(), Drained::Lossy);
        connector.set_receive_buffer(4 << 20).unwrap();
        let _ = connector.drain(|_| {}).unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(matches!(
            life(&mut connector, child.id())[..],
            [Event::Fork { .. }, Event::Exec { .. }, Event::Exit { .. }]
        ));
    }

    /// More than a pause of the thread that listens can bring, while others have the CPUs: threads make the most in the shortest time.
    #[test]
    fn there_is_room_for_ten_thousand_threads() {
        let Some(mut connector) = ProcConnector::listen().ok() else { return drop(live()) };
        if connector.room().unwrap() < 1.0 {
            return elsewhere::skip("the buffer cannot be that large: CAP_NET_ADMIN is missing");
        }
        for _ in 0..10_000 {
            std::thread::spawn(|| {}).join().unwrap();
        }
        assert_eq!(connector.drain(|_| {}).unwrap(), Drained::Complete);
    }

    /// A socket of the group that never subscribed is told everything, acknowledgements too, while somebody is
    /// subscribed.
    #[test]
    fn to_drop_it_is_to_unsubscribe() {
        let Some(_somebody) = live() else { return };
        let mut group = Listener::open(CONNECTOR, 1).unwrap();
        let connector = live().unwrap();
        let token = connector.listener.address().unwrap();
        let mut acknowledgements = || {
            let mut count = 0;
            while let Received::Datagram(datagram) = group.receive().unwrap() {
                count += Messages(datagram).filter(|message| acknowledgement(message, token) == Some(0)).count();
            }
            count
        };
        assert_eq!(acknowledgements(), 1, "subscribed");
        drop(connector);
        assert_eq!(acknowledgements(), 1, "unsubscribed");
    }
}
