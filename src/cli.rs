//! The command line: the words of the configuration file, and psstat's.

use std::path::PathBuf;

use clap::Parser;

use crate::config::values::{AccountBy, Fields, FileName, Interval, Named, Pid, Tag, TagKey};
use crate::output::{Measurement, Scope};
use crate::select::{ProcessPattern, UnitGlob};

/// Sections of the manual besides the flags.
const MORE: &str = "\
Files: none is read without --config. The packages have /etc/telegraf-taskstats/plugin.conf, which their snippet for Telegraf names.

Environment: HOST_PROC and HOST_SYS, as above; and whatever a configuration file names as ${VAR} or $VAR in a string.

Signals: SIGHUP, SIGUSR1 and SIGUSR2 gather, too; with --interval, SIGHUP reads the configuration again. SIGTERM, SIGINT and the end \
of stdin end it.

Exit status: 0 if all went well; 1 if something failed, with --check also if something that is configured cannot work here (a \
service that does not run and delays that the kernel does not count are no faults); 2 if the configuration is invalid.";

/// What process trees on Linux really use, as line protocol, for Telegraf's inputs.execd.
///
/// A newline on stdin is answered by the lines of each target. Without any target, each service of the host is one. A NAME is the
/// tag process_name; without it, what is found names itself.
#[derive(Debug, Clone, Parser)]
#[command(version, max_term_width = 100, after_long_help = MORE)]
pub struct Arguments {
    /// Read a configuration file, or each *.conf of a directory.
    #[arg(long, value_name = "PATH")]
    pub config: Vec<PathBuf>,
    /// Gather by the clock instead of waiting for prompts.
    #[arg(long, visible_alias = "poll_interval", value_name = "DURATION")]
    pub interval: Option<Interval>,
    /// Gather once, after one second unless a cache file has the previous samples, and end.
    #[arg(long, conflicts_with = "interval")]
    pub once: bool,
    /// Say what each target matches and what works here, with the remedy for what does not, and end.
    #[arg(long)]
    pub check: bool,
    /// Watch a process.
    #[arg(long, value_name = "[NAME:]PID")]
    pub pid: Vec<Named<Pid>>,
    /// Watch the processes of a pidfile.
    #[arg(long, value_name = "[NAME:]PATH")]
    pub pid_file: Vec<Named<PathBuf>>,
    /// Watch the processes of each pidfile in a directory.
    #[arg(long, value_name = "DIR")]
    pub pid_dir: Vec<PathBuf>,
    /// Watch processes by comm, as in /proc/PID/stat.
    #[arg(long, value_name = "[NAME:]REGEX")]
    pub pattern: Vec<Named<ProcessPattern>>,
    /// Watch the processes of systemd units; without a suffix, of services.
    #[arg(long, value_name = "[NAME:]GLOB")]
    pub systemd: Vec<Named<UnitGlob>>,
    /// Measurements to collect, separated by commas [default: psstat].
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub collect: Vec<Measurement>,
    /// Fields of psstat, separated by commas: p_cpu, p_mem, n_proc (these by default), n_zombie, cpu_time, started, exited,
    /// restarts, p_cpu_thread_max; or all.
    #[arg(long, value_name = "LIST")]
    pub psstat_fields: Option<Fields>,
    /// What one line covers: the whole tree, or each selected process, with its pid as a tag; psstat is always of the tree
    /// [default: tree].
    #[arg(long)]
    pub scope: Option<Scope>,
    /// How to learn who lived and died: process events, a scan at each gather, or what can be had [default: auto].
    #[arg(long)]
    pub accounting: Option<AccountBy>,
    /// Add a tag to every line.
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Vec<Tag>,
    /// The same as --tag host=HOST.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// The tag that holds the name, instead of process_name.
    #[arg(long, value_name = "KEY")]
    pub name_tag: Option<TagKey>,
    /// Keep the previous samples in a file of this directory.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// The name of that file [default: telegraf-taskstats].
    #[arg(long, value_name = "NAME")]
    pub cache_name: Option<FileName>,
    /// Where /proc is mounted [default: $HOST_PROC, else /proc].
    #[arg(long, value_name = "DIR")]
    pub proc_root: Option<PathBuf>,
    /// Where /sys is mounted [default: $HOST_SYS, else /sys].
    #[arg(long, value_name = "DIR")]
    pub sys_root: Option<PathBuf>,
    /// Print an example of a configuration file.
    #[arg(long)]
    pub sample_config: bool,
    /// Does nothing: psstat has it.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub single_threaded: Option<bool>,
    /// Does nothing: psstat has it.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub multi_threaded: Option<bool>,
}

impl Arguments {
    /// Checks that the configuration can be read a second time: a pipe cannot.
    ///
    /// # Errors
    /// Names the file that cannot.
    pub fn can_be_read_again(&self) -> anyhow::Result<()> {
        let is_lasting = |path: &PathBuf| path.is_file() || path.is_dir();
        match self.config.iter().find(|path| !is_lasting(path)) {
            Some(path) => anyhow::bail!("{} is not there, or is no file that can be read again", path.display()),
            None => Ok(()),
        }
    }

    /// Parses the command line; a long flag may have one dash only, as psstat (a Go program) takes it.
    ///
    /// # Errors
    /// The line is wrong, or asks for help or the version: clap's error prints and exits accordingly.
    pub fn of(words: impl Iterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(words.map(|word| match word.to_str() {
            Some(flag) if flag.starts_with('-') && !flag.starts_with("--") && flag.len() > 2 => {
                format!("-{flag}").into()
            }
            _ => word,
        }))
    }
}
