//! Workloads that are made as servers are: workers that serve each request by processes below them, and are replaced.

use std::time::Duration;

use rustix::process::{Pid, WaitOptions, wait};

use crate::parts::{burn, fork, ready, reap};

/// Name and function of each.
pub const SERVERS: [(&str, fn() -> !); 2] =
    [("cgi_server", cgi_server), ("cgi_server_of_scripts", cgi_server_of_scripts)];

const WORKERS: usize = 4;
/// Requests that a worker serves before it makes room for another.
const REQUESTS: u32 = 20;
/// How long each request is in coming.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(20);

/// Four workers. Each serves a request by a shell that has a pipeline of two commands of 1 ms, and waits for it. After 20
/// requests it exits, and the master, which waits for it, starts another. Nobody is adopted by anybody: all that a shell or a
/// worker was charged goes up with it.
fn cgi_server() -> ! {
    serve(1)
}

/// The same, with a script that starts another script that has the pipeline.
fn cgi_server_of_scripts() -> ! {
    serve(2)
}

fn serve(scripts: u32) -> ! {
    ready();
    (0..WORKERS).for_each(|_| _ = worker(scripts));
    loop {
        wait(WaitOptions::empty()).unwrap();
        worker(scripts);
    }
}

fn worker(scripts: u32) -> Pid {
    fork(|| {
        for _ in 0..REQUESTS {
            std::thread::sleep(BETWEEN_REQUESTS);
            reap(fork(|| script(scripts)));
        }
    })
}

fn script(scripts: u32) {
    if scripts > 1 {
        reap(fork(|| script(scripts - 1)));
    } else {
        [(); 2].map(|()| fork(|| burn(Duration::from_millis(1)))).into_iter().for_each(reap);
    }
}
