//! Signals: SIGHUP, SIGUSR1, SIGUSR2, SIGTERM and SIGINT.
//!
//! A signal whose handler is not installed yet ends the process, and Telegraf may signal at once. So the handlers are installed before
//! anything else, the runtime included, which signal-hook-tokio and tokio's own signals require: signal-hook's handlers write
//! to a socket, and the runtime waits for its other end later.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::epoll;

/// Signals that are caught, but not answered yet.
#[derive(Debug)]
pub struct CaughtSignals(SignalDelivery<UnixStream, SignalOnly>);

impl CaughtSignals {
    /// Installs the handlers of the signals that gather or reload. Those that stop keep ending the process until
    /// [`super::Triggers::listen`]: it may be waiting for a configuration that is a pipe.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn catch() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        SignalDelivery::with_pipe(read, write, SignalOnly, [SIGHUP, SIGUSR1, SIGUSR2]).map(Self)
    }
}

/// Signals as something that the loop waits for.
#[derive(Debug)]
pub(super) struct Signals {
    caught: SignalDelivery<UnixStream, SignalOnly>,
    /// Readable when a signal was caught.
    ready: AsyncFd<OwnedFd>,
}

impl Signals {
    /// Catches the signals that stop as well. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The handlers cannot be installed, or no descriptor is left.
    pub(super) fn listen(CaughtSignals(caught): CaughtSignals) -> io::Result<Self> {
        // A second SIGINT ends the process at once, whatever it is doing.
        let interrupted = Arc::new(AtomicBool::new(false));
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&interrupted))?;
        flag::register(SIGINT, interrupted)?;
        for signal in [SIGINT, SIGTERM] {
            caught.handle().add_signal(signal)?;
        }
        let ready = epoll::register(caught.get_read(), Interest::READABLE)?;
        Ok(Self { caught, ready })
    }

    /// Waits until a signal was caught. Returns the numbers of those that were since the last call, each once.
    ///
    /// # Errors
    /// The runtime was shut down.
    pub(super) async fn caught(&mut self) -> io::Result<impl Iterator<Item = i32>> {
        self.ready.readable().await?.clear_ready();
        Ok(self.caught.pending())
    }
}
