//! What is reported beside psstat's fields, of real processes: delays, context switches, times, memory and threads, against
//! the kernel's own files and what it tells the processes themselves.
//!
//! The processes are at rest when the plugin looks at them, so that its numbers must be the kernel's to the last digit; where
//! one must run, the kernel is asked before the prompt and after the answer, and the plugin's number must lie between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere
#![allow(unsafe_code)] // the workloads fork, which Rust cannot know to be safe

mod support;

#[allow(dead_code)] // who is watched by CPU alone uses more of it
#[path = "truth/cgroup.rs"]
mod cgroup;

#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "delays/kernel.rs"]
mod kernel;
#[path = "delays/lives.rs"]
mod lives;
#[path = "delays/memory.rs"]
mod memory;
#[path = "delays/puppet.rs"]
mod puppet;
#[path = "delays/threads.rs"]
mod threads;
#[path = "delays/times.rs"]
mod times;
#[path = "delays/waiting.rs"]
mod waiting;
#[path = "delays/watch.rs"]
mod watch;

/// No test by itself: the processes that the tests watch begin as this.
#[test]
fn puppets_play_here() {
    puppet::play();
}
