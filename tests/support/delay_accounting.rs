//! kernel.task_delayacct as a test needs it. It is one for the whole host, so its file is locked, against other tests and other
//! processes that ask in this way.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of it

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::support::skip;

const SWITCH: &str = "/proc/sys/kernel/task_delayacct";

/// Whether delays are counted of what is started while this lives. When it is dropped, the switch is as it was.
pub struct DelayAccounting {
    /// Locked as long as it is open.
    switch: File,
    /// What is written back.
    before: Option<String>,
    on: bool,
}

impl DelayAccounting {
    /// As it is; it stays so.
    pub fn as_it_is() -> Self {
        let switch = File::open(SWITCH).unwrap();
        switch.lock_shared().unwrap();
        let on = fs::read_to_string(SWITCH).unwrap().trim() != "0";
        Self { switch, before: None, on }
    }

    /// Switches it; where that cannot be done, says so, and there is none.
    pub fn switch(on: bool) -> Option<Self> {
        let opened = File::options().read(true).write(true).open(SWITCH);
        let Ok(switch) = opened.inspect_err(|error| skip(&format!("{SWITCH}: {error}"))) else { return None };
        switch.lock().unwrap();
        let before = Some(fs::read_to_string(SWITCH).unwrap());
        switch.write_all_at(if on { b"1\n" } else { b"0\n" }, 0).unwrap();
        Some(Self { switch, before, on })
    }

    pub fn is_on(&self) -> bool {
        self.on
    }
}

impl Drop for DelayAccounting {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            self.switch.write_all_at(before.as_bytes(), 0).unwrap();
        }
    }
}
