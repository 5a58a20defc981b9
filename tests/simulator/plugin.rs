//! The plugin, on a simulated kernel: its own agent, process table, journal, ledger and series. Only what the kernel would tell is
//! simulated.

use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use telegraf_taskstats::accounting::Accounting;
use telegraf_taskstats::agent::Agent;
use telegraf_taskstats::cli::Arguments;
use telegraf_taskstats::config::Settings;
use telegraf_taskstats::events::{EventStream, Messages};
use telegraf_taskstats::host::Host;
use telegraf_taskstats::kernel::clock::Clock;
use telegraf_taskstats::kernel::netlink::Drained;
use telegraf_taskstats::kernel::pidfile::Pidfiles;
use telegraf_taskstats::kernel::proc_connector::Event;
use telegraf_taskstats::kernel::procfs::Proc;
use telegraf_taskstats::kernel::stat::{Identity, Stat};
use telegraf_taskstats::kernel::taskstats::AskNobody;
use telegraf_taskstats::processes::Record;
use telegraf_taskstats::processes::{ProcessSource, Read};
use telegraf_taskstats::series::Series;

use crate::kernel::{INIT, Kernel, ROOT};

/// A kernel that the plugin and the world share.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Kernel>>);

impl Shared {
    pub fn new(kernel: Kernel) -> Self {
        Self(Arc::new(Mutex::new(kernel)))
    }

    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }

    /// The kernel, after what happens before the plugin gets an answer.
    fn asked(&self) -> MutexGuard<'_, Kernel> {
        let mut kernel = self.kernel();
        kernel.go_on();
        kernel
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated kernel")
    }
}

impl ProcessSource for Shared {
    fn list(&mut self, pids: &mut Vec<u32>) -> io::Result<()> {
        *pids = [INIT].into_iter().chain(self.asked().pids()).collect();
        Ok(())
    }

    fn stat(&mut self, pid: u32) -> io::Result<Option<Stat>> {
        Ok(self.asked().stat(pid))
    }

    fn is_process(&mut self, _: u32) -> bool {
        true
    }

    fn leader_time(&mut self, pid: u32) -> io::Result<Option<u64>> {
        Ok(self.kernel().leader_time(pid))
    }

    fn leaderless_rss(&mut self, _: u32) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn stat_again(&mut self, pid: u32, _: &dyn Fn(&Stat) -> bool) -> io::Result<Option<Stat>> {
        let mut kernel = self.asked();
        kernel.be_read(pid, None);
        Ok(kernel.stat(pid))
    }

    fn read(&mut self, known: &Stat, _: u64, _: &dyn Fn(&Stat) -> bool) -> io::Result<Read> {
        let mut kernel = self.asked();
        if kernel.be_read(known.id.pid, Some(known.id)) {
            return Ok(Read::Same);
        }
        Ok(kernel.stat(known.id.pid).map_or(Read::Gone, Read::Stat))
    }
}

/// What tells of births and exits.
#[derive(Debug)]
struct Told {
    shared: Shared,
    has_records: bool,
    /// Number of reads so far: at some of them, messages are taken in the middle of a gather.
    reads: u32,
    /// Whether they are now. The world stands still then: it is the same as if they were not.
    is_in_between: bool,
}

impl Messages for Told {
    fn has_records(&self) -> bool {
        self.has_records
    }

    fn records(&mut self, take: &mut dyn FnMut(Record)) -> io::Result<Drained> {
        let mut kernel = self.shared.kernel();
        kernel.be_drained();
        let records = std::mem::take(&mut kernel.records);
        records.into_iter().filter(|_| self.has_records).for_each(take);
        Ok(if std::mem::take(&mut kernel.has_lost) { Drained::Lossy } else { Drained::Complete })
    }

    fn events(&mut self, take: &mut dyn FnMut(Event)) -> io::Result<Drained> {
        let mut kernel = self.shared.kernel();
        if !std::mem::take(&mut self.is_in_between) {
            kernel.be_between(true);
            kernel.go_on();
            kernel.be_between(false);
        }
        std::mem::take(&mut kernel.events).into_iter().for_each(take);
        Ok(Drained::Complete)
    }

    fn is_due(&mut self, _: Duration) -> bool {
        self.reads += 1;
        self.is_in_between = self.reads.is_multiple_of(5);
        self.is_in_between
    }

    fn is_reaped(&self, pid: u32) -> bool {
        self.shared.asked().is_gone(pid)
    }
}

impl Clock for Shared {
    fn realtime(&self) -> u64 {
        self.kernel().now
    }

    fn monotonic(&self) -> u64 {
        self.kernel().now
    }

    fn boottime(&self) -> u64 {
        self.kernel().now
    }
}

/// What of the plugin's own is read from the real host: nothing.
static NOTHING: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("meminfo"), "MemTotal: 1 kB\n").unwrap();
    directory
});

/// How it learns of births and exits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    Scan,
    Connector,
    Events,
}

/// The plugin, watching the tree below ROOT.
pub struct Plugin {
    agent: Agent,
    by: By,
    shared: Shared,
}

impl Plugin {
    /// Started, with the base of its counters taken.
    pub fn start(shared: &Shared, by: By) -> Self {
        let arguments = ["telegraf-taskstats".to_owned(), "--pid".to_owned(), ROOT.to_string()];
        let settings = Settings::load(&Arguments::of(arguments.into_iter().map(Into::into)).unwrap()).unwrap();
        let nothing: &Path = NOTHING.path();
        let messages =
            || Box::new(Told { shared: shared.clone(), has_records: by == By::Events, reads: 0, is_in_between: false });
        let events = (by != By::Scan).then(|| EventStream::new(messages()));
        let host = Host {
            proc: Proc::open(nothing).unwrap(),
            source: Box::new(shared.clone()),
            holdable: 0,
            sys_root: nothing.to_owned(),
            pidfiles: Pidfiles::default(),
            clock: Box::new(shared.clone()),
            taskstats: Box::new(AskNobody(String::new())),
            accounting: events.map(Accounting::by).unwrap_or_default(),
        };
        let mut plugin = Self { agent: Agent::new(settings, host), by, shared: shared.clone() };
        plugin.shared.kernel().era += 1;
        plugin.at_work(|plugin| _ = plugin.agent.prime());
        plugin
    }

    pub fn gather(&mut self) {
        self.shared.kernel().era += 1;
        if self.by == By::Scan {
            self.shared.kernel().be_ignored();
        }
        self.at_work(|plugin| drop(plugin.agent.gather()));
    }

    /// Takes all that has come, as its loop does between two gathers.
    pub fn drain(&mut self) {
        self.at_work(|plugin| {
            if let Some(events) = plugin.agent.accounting().events() {
                events.drain();
            }
        });
    }

    fn at_work(&mut self, work: impl FnOnce(&mut Self)) {
        self.shared.kernel().be_watched(true);
        work(self);
        self.shared.kernel().be_watched(false);
    }

    pub fn series(&self) -> &Series {
        self.agent.series().next().unwrap()
    }

    pub fn reported(&self) -> u64 {
        self.series().cpu_time.total()
    }

    pub fn has(&self, id: Identity) -> bool {
        self.series().members().binary_search_by_key(&id, |member| member.id).is_ok()
    }

    /// Whether it had to scan: by choice, or since messages were lost before this gather.
    pub fn has_scanned(&self) -> bool {
        self.agent.has_scanned()
    }

    /// What it keeps of the exited.
    pub fn journal(&mut self) -> String {
        self.agent.accounting().events().map(|events| format!("{events:?}")).unwrap_or_default()
    }
}
