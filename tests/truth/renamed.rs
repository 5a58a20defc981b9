//! A workload whose processes write into their names what they are at, as some servers do.

use std::ffi::CString;
use std::time::Duration;

use rustix::process::{WaitOptions, getpid, wait};
use rustix::thread::set_name;

use crate::parts::{SHORT, burn, fork, ready, reap};

/// Name and function.
pub const RENAMED: (&str, fn() -> !) = ("renamed", renamed);

/// Two workers. Each serves a request with 50 ms of its own and ten children of 5 ms, and then has another name, which nobody
/// had before. All their names begin with the pid of the root, which has none of these: else its series would have them all.
fn renamed() -> ! {
    let root = getpid();
    let work = |worker: char| {
        for request in 0.. {
            set_name(&CString::new(format!("t{root}-{worker}{request}")).unwrap()).unwrap();
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(10));
                burn(SHORT);
                reap(fork(|| burn(SHORT)));
            }
        }
    };
    ['a', 'b'].into_iter().for_each(|worker| _ = fork(|| work(worker)));
    ready();
    wait(WaitOptions::empty()).unwrap();
    panic!("a worker ended by itself");
}
