//! Processes that come, go and change between two looks at them, and a /proc that is not as it should be.
//! A made-up /proc makes the moments certain.

use std::io::Write;
use std::process::Command;

use crate::support::{Plugin, command, field};
use crate::watched::{FakeProc, Stat};

const WEB: u32 = 123;

/// A plugin that watches `web`, pid 123, and `good`, pid 100, which is always there.
fn watching(fake: &FakeProc) -> Command {
    fake.put(&Stat::old(100, "good"));
    let mut command = command();
    command.arg("--proc-root").arg(fake.path());
    command.args(["--psstat-fields", "all", "--pid", "web:123", "--pid", "good:100"]);
    command
}

/// One gather; the line of `web`, after `good` was found as it is.
fn gather(plugin: &mut Plugin) -> String {
    let lines = plugin.gather(2);
    let of = |name: &str| lines.iter().find(|line| line.contains(name)).unwrap().clone();
    let good = of("process_name=good ");
    assert_eq!(field(&good, "n_proc"), Some("1i"), "{good}");
    of("process_name=web ")
}

fn assert_fields(line: &str, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(field(line, name), Some(*value), "{name} in {line}");
    }
}

fn assert_stops_well(plugin: Plugin) -> Vec<String> {
    let (status, rest, stderr) = plugin.stop();
    assert!(status.success() && rest.is_empty(), "{status}: {rest:?}, {stderr:?}");
    stderr
}

#[test]
fn a_pid_that_dies_between_listing_and_its_first_reading() {
    let fake = FakeProc::new();
    let mut plugin = Plugin::start(watching(&fake));
    std::fs::create_dir(fake.path().join("123")).unwrap();
    assert_fields(&gather(&mut plugin), &[("n_proc", "0i"), ("p_mem", "0"), ("cpu_time", "0i")]);
    assert_stops_well(plugin);
}

/// It is gone then, and once only: not again when the listing lacks it too.
#[test]
fn a_pid_that_dies_between_listing_and_a_later_reading() {
    let fake = FakeProc::new();
    let web = Stat { utime: 100, ..Stat::old(WEB, "web") };
    fake.put(&web);
    let mut plugin = Plugin::start(watching(&fake));
    assert_fields(&gather(&mut plugin), &[("n_proc", "1i"), ("cpu_time", "0i")]);
    fake.put(&Stat { utime: 150, ..web });
    assert_fields(&gather(&mut plugin), &[("n_proc", "1i"), ("cpu_time", "500000000i")]);
    let gone = [("n_proc", "0i"), ("p_mem", "0"), ("exited", "1i"), ("cpu_time", "500000000i")];
    fake.remove("123/stat");
    assert_fields(&gather(&mut plugin), &gone);
    fake.remove("123");
    assert_fields(&gather(&mut plugin), &gone);
    assert_stops_well(plugin);
}

/// The same pid with another start time is another process: what the first had used is no base for it.
#[test]
fn a_reused_pid_is_another_process() {
    // Born since the last gather, it is counted in full; born before that, from now on.
    for (is_newborn, cpu_time, started) in [(true, "570000000i", "1i"), (false, "500000000i", "0i")] {
        let fake = FakeProc::new();
        let first = Stat { utime: 9000, ..Stat::old(WEB, "web") };
        fake.put(&first);
        let mut plugin = Plugin::start(watching(&fake));
        assert_fields(&gather(&mut plugin), &[("n_proc", "1i"), ("restarts", "0i"), ("cpu_time", "0i")]);
        fake.put(&Stat { utime: 9050, ..first });
        assert_fields(&gather(&mut plugin), &[("n_proc", "1i"), ("restarts", "0i"), ("cpu_time", "500000000i")]);
        let start = if is_newborn { ticks_since_boot() } else { 2000 };
        fake.put(&Stat { utime: 7, start, ..first });
        let line = gather(&mut plugin);
        assert_fields(&line, &[("n_proc", "1i"), ("restarts", "1i"), ("exited", "1i"), ("started", started)]);
        assert_fields(&line, &[("cpu_time", cpu_time)]);
        assert!(field(&line, "p_cpu").is_none_or(|cpu| !cpu.starts_with('-')), "{line}");
        assert_stops_well(plugin);
    }
}

/// The start time of a process that is born now.
fn ticks_since_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec * 100 + now.tv_nsec / 10_000_000).unwrap()
}

/// Counters of the kernel that fall, or jump to absurd heights, never make ours fall.
#[test]
fn cpu_times_that_fall_and_jump() {
    let fake = FakeProc::new();
    let web = Stat::old(WEB, "web");
    fake.put(&web);
    let mut plugin = Plugin::start(watching(&fake));
    let mut before = 0;
    for utime in [100, 50, 150, u64::MAX, 0, u64::MAX / 20_000_000, 200] {
        fake.put(&Stat { utime, ..web });
        let line = gather(&mut plugin);
        let cpu_time: i64 = field(&line, "cpu_time").unwrap().trim_end_matches('i').parse().unwrap();
        assert!(cpu_time >= before, "{cpu_time} after {before}");
        before = cpu_time;
    }
    assert_stops_well(plugin);
}

/// The same with all times and sizes, of a parent and of a child that dies: as many ticks as 64 bits of ns hold.
#[test]
fn numbers_of_absurd_height() {
    let fake = FakeProc::new();
    let n = u64::MAX / 10_000_000;
    let absurd = |pid: u32, ppid: u32| {
        let text = format!("{pid} (web) S {ppid} 0 0 0 -1 0 {n} {n} {n} {n} {n} {n} {n} {n} 20 0 1 0 1000 {n} {n}\n");
        fake.write(&format!("{pid}/stat"), text);
    };
    fake.put(&Stat::old(WEB, "web"));
    fake.put(&Stat { ppid: WEB, ..Stat::old(124, "child") });
    let mut plugin = Plugin::start(watching(&fake));
    assert_fields(&gather(&mut plugin), &[("n_proc", "2i"), ("cpu_time", "0i")]);
    absurd(124, WEB);
    let most = ("cpu_time", "9223372036854775807i");
    assert_fields(&gather(&mut plugin), &[("n_proc", "2i"), most]);
    fake.remove("124");
    absurd(WEB, 1);
    for _ in 0..2 {
        assert_fields(&gather(&mut plugin), &[("n_proc", "1i"), most]);
    }
    assert_stops_well(plugin);
}

/// Parents are read one after another, so that they may seem to be each other's.
#[test]
fn parents_that_go_round_in_a_circle() {
    let fake = FakeProc::new();
    fake.put(&Stat { ppid: 124, ..Stat::old(WEB, "web") });
    fake.put(&Stat { ppid: 125, ..Stat::old(124, "child") });
    fake.put(&Stat { ppid: WEB, ..Stat::old(125, "grandchild") });
    fake.put(&Stat { ppid: 126, ..Stat::old(126, "its own") });
    let mut plugin = Plugin::start(watching(&fake));
    assert_fields(&gather(&mut plugin), &[("n_proc", "3i")]);
    for pid in ["123", "124", "125", "126"] {
        fake.remove(pid);
    }
    assert_fields(&gather(&mut plugin), &[("n_proc", "0i"), ("exited", "3i")]);
    assert_stops_well(plugin);
}

/// What cannot be parsed costs its own process only: that exists, and nothing is said of it.
#[test]
fn a_stat_that_is_none() {
    let whole = Stat::old(WEB, "web").text();
    let texts: &[&[u8]] = &[
        b"",
        b"\n",
        b"123",
        b"123 (web",
        b"123 (web) S",
        whole.split_at(whole.len() / 3).0.as_bytes(),
        b"123 web S 1",
        b"(web) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24",
        b"123 (web) S -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1",
        b"123 (web) S a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h",
        b"\0\xff\xfe\x80 (\xff) \xff",
        &[b'9'; 100_000],
    ];
    for text in texts {
        let fake = FakeProc::new();
        fake.write("123/stat", text);
        let mut plugin = Plugin::start(watching(&fake));
        for _ in 0..2 {
            let [line] = &plugin.gather(1)[..] else { unreachable!() };
            assert!(line.contains("process_name=good "), "{line}");
        }
        fake.put(&Stat::old(WEB, "web"));
        assert_fields(&gather(&mut plugin), &[("n_proc", "1i"), ("cpu_time", "0i")]);
        let stderr = assert_stops_well(plugin);
        let [line] = &stderr[..] else { panic!("{text:?}: {stderr:?}") };
        assert!(line.starts_with("W! ") && line.contains("process 123"), "{line}");
    }
}

/// What a process is cannot be guessed: the message says which field of whom it is.
#[test]
fn a_stat_that_does_not_say_whose_it_is() {
    let cases = [(1, "pid", "-123"), (4, "ppid", "-1"), (22, "starttime", "18446744073709551616")];
    for (number, name, text) in cases {
        let fake = FakeProc::new();
        fake.put(&Stat::old(WEB, "web"));
        spoil(&fake, number, text);
        let mut plugin = Plugin::start(watching(&fake));
        plugin.gather(1);
        let stderr = assert_stops_well(plugin);
        let [line] = &stderr[..] else { panic!("{name}: {stderr:?}") };
        let parts = ["process 123", &format!("field {number} of its stat, {name}, is {text:?}")];
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        let checked = watching(&fake).arg("--check").output().unwrap();
        let report = String::from_utf8(checked.stdout).unwrap();
        assert!(report.contains(parts[1]) && !report.contains("no such process"), "{report}");
        let of_web = report.lines().find(|line| line.contains("pid 123")).unwrap();
        assert!(of_web.ends_with("cannot be read"), "{report}");
    }
}

/// A field of `web`'s stat is this text from now on.
fn spoil(fake: &FakeProc, number: usize, text: &str) {
    let path = fake.path().join("123/stat");
    let stat = std::fs::read_to_string(&path).unwrap();
    let mut fields: Vec<_> = stat.trim_end().split(' ').collect();
    fields[number - 1] = text;
    std::fs::write(&path, fields.join(" ")).unwrap();
}

/// A field that no process can have is unknown, as long as it is so; it is named once, whatever it is; the rest counts.
#[test]
fn a_field_that_is_no_number_costs_itself_only() {
    const LOST: &str = "-9223372036854775808"; // as some kernels write cutime
    let cases = [
        (14, "utime", LOST, Some("1i")),
        (15, "stime", "-1", Some("1i")),
        (16, "cutime", LOST, Some("1i")),
        (17, "cstime", "18446744073709551616", Some("1i")),
        (19, "nice", "4000", Some("1i")),
        (20, "num_threads", "-1", None),
        (24, "rss", "-12", Some("1i")),
        (42, "delayacct_blkio_ticks", LOST, Some("1i")),
    ];
    for (number, name, text, threads) in cases {
        let fake = FakeProc::new();
        let web = Stat { utime: 100, ..Stat::old(WEB, "web") };
        fake.put(&web);
        spoil(&fake, number, text);
        fake.put(&Stat::old(100, "good"));
        let mut config = tempfile::NamedTempFile::new().unwrap();
        let all = "collect = [\"procstat\", \"psstat\"]\npsstat_fields = [\"all\"]";
        let target = "[[inputs.taskstats.target]]\nname = \"web\"\npid = 123";
        write!(config, "[[inputs.taskstats]]\n{all}\n{target}\n").unwrap();
        let mut command = command();
        command.arg("--proc-root").arg(fake.path()).arg("--config").arg(config.path());
        let mut plugin = Plugin::start(command);
        let mut gather = || {
            let lines = plugin.gather(2);
            let of = |measurement: &str| lines.iter().find(|line| line.starts_with(measurement)).unwrap().clone();
            (of("psstat,"), of("procstat,"))
        };
        gather(); // the base is taken now
        // What is not known of it at first is no base for what is.
        let is_own = ["utime", "stime"].contains(&name);
        for utime in [150, 170] {
            fake.put(&Stat { utime, ..web });
            // Another text each time, which is said once.
            spoil(&fake, number, &if utime == 170 && number == 24 { "-13".to_owned() } else { text.to_owned() });
            let (psstat, procstat) = gather();
            assert_fields(&psstat, &[("n_proc", "1i"), ("n_zombie", "0i")]);
            assert_eq!(field(&psstat, "p_mem").is_some(), name != "rss", "{name}: {psstat}");
            assert_eq!(field(&procstat, "rss").is_some(), name != "rss", "{name}: {procstat}");
            assert_eq!(field(&procstat, "num_threads"), threads, "{name}: {procstat}");
            let used = if is_own { 0 } else { (utime - 100) * 10_000_000 };
            assert_fields(&psstat, &[("cpu_time", &format!("{used}i"))]);
        }
        fake.put(&Stat { utime: 200, ..web });
        let base = if is_own { 200 } else { 100 };
        let (psstat, procstat) = gather();
        assert_fields(&psstat, &[("cpu_time", &format!("{}i", (200 - base) * 10_000_000))]);
        assert_fields(&procstat, &[("num_threads", "1i"), ("rss", "400i")]);
        fake.put(&Stat { utime: 210, ..web });
        assert_fields(&gather().0, &[("cpu_time", &format!("{}i", (210 - base) * 10_000_000))]);
        let stderr = assert_stops_well(plugin);
        let [line] = &stderr[..] else { panic!("{name}: {stderr:?}") };
        let parts = ["W! ", "process 123 (web)", &format!("field {number}, {name}, is {text:?}")];
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

/// Entries of /proc that look like a process and are none.
#[test]
fn entries_that_are_no_processes() {
    let fake = FakeProc::new();
    fake.put(&Stat::old(WEB, "web"));
    for name in ["0", "-5", "99999999999999999999", "4294967296", "12x"] {
        fake.write(&format!("{name}/stat"), Stat { ppid: WEB, ..Stat::old(7, "x") }.text());
    }
    fake.write("77", "a file");
    std::fs::create_dir_all(fake.path().join("78/stat")).unwrap();
    let mut plugin = Plugin::start(watching(&fake));
    assert_fields(&gather(&mut plugin), &[("n_proc", "1i")]);
    assert_fields(&gather(&mut plugin), &[("n_proc", "1i")]);
    assert_stops_well(plugin);
}

/// Without MemTotal there is no share of it, and one warning says why; nothing else is missing.
#[test]
fn a_meminfo_that_is_none() {
    let (real, rest) = real_meminfo();
    for text in ["", "\0\0", "MemTotal:", &rest, &real.replacen(":", ": lots", 1)] {
        let fake = FakeProc::new();
        fake.write("meminfo", text);
        let stderr = stderr_without_p_mem(&fake);
        let about: Vec<_> = stderr.iter().filter(|line| line.contains("p_mem")).collect();
        assert!(about.len() == 1 && about[0].starts_with("W! "), "{text:?}: {stderr:?}");
    }
    let fake = FakeProc::new();
    fake.remove("meminfo");
    let stderr = stderr_without_p_mem(&fake);
    assert!(matches!(&stderr[..], [line] if line.contains("p_mem") && line.contains("/meminfo")), "{stderr:?}");
}

/// A share of nothing is no number.
#[test]
fn a_meminfo_without_memory() {
    let fake = FakeProc::new();
    fake.write("meminfo", format!("MemTotal: 0 kB\n{}", real_meminfo().1));
    stderr_without_p_mem(&fake);
}

/// This host's meminfo, and all of it but MemTotal.
fn real_meminfo() -> (String, String) {
    let real = std::fs::read_to_string("/proc/meminfo").unwrap();
    let (total, rest) = real.split_once('\n').unwrap();
    assert!(total.starts_with("MemTotal:"));
    let rest = rest.to_owned();
    (real, rest)
}

/// What two gathers say that have all but a p_mem.
fn stderr_without_p_mem(fake: &FakeProc) -> Vec<String> {
    fake.put(&Stat::old(WEB, "web"));
    let mut plugin = Plugin::start(watching(fake));
    for line in [gather(&mut plugin), gather(&mut plugin)] {
        assert_fields(&line, &[("n_proc", "1i")]);
        assert_eq!(field(&line, "p_mem"), None, "{line}");
    }
    assert_stops_well(plugin)
}

/// What it says is not taken for granted.
#[test]
fn so_many_threads_as_there_cannot_be_take_no_memory() {
    let fake = FakeProc::new();
    fake.put(&Stat::old(WEB, "web"));
    let path = fake.path().join("123/stat");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut fields: Vec<_> = text.split(' ').collect();
    fields[19] = "4294967295"; // the 20th: num_threads
    std::fs::write(&path, fields.join(" ")).unwrap();
    let mut plugin = Plugin::start(watching(&fake));
    assert_fields(&gather(&mut plugin), &[("n_proc", "1i")]);
    let stderr = assert_stops_well(plugin);
    assert!(stderr.iter().any(|line| line.contains("thread_max")), "{stderr:?}");
}
