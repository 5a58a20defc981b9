//! Cache files that cannot be used: each is one warning and a fresh start.

use std::fs::{create_dir, remove_file, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Plugin, PublicBinary, command, is_root, skip};
use crate::watched::FakeProc;

const NAME: &str = "bad";

/// One gather with a cache file in `directory`; the lines it gave, and what it said.
fn gather(mut plugin: Command, directory: &Path) -> (Vec<String>, Vec<String>) {
    plugin.arg("--once").arg("--cache-dir").arg(directory).args(["--cache-name", NAME]);
    plugin.arg("--pid").arg(format!("good:{}", std::process::id()));
    let (status, stdout, stderr) = Plugin::start(plugin).wait();
    assert!(status.success(), "{status}: {stderr:?}");
    assert!(matches!(&stdout[..], [line] if line.starts_with("psstat,process_name=good ")), "{stdout:?}");
    (stdout, stderr)
}

/// A directory with a good cache file, the file's path and its text.
fn with_cache() -> (TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    let (_, stderr) = gather(command(), directory.path());
    assert!(stderr.is_empty(), "{stderr:?}");
    let mut files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = files.find(|path| std::fs::metadata(path).unwrap().len() > 0).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    (directory, path, text)
}

/// How a cache file is spoilt, from its good text.
type Spoil = fn(&Path, &str);

const SPOILT: &[(&str, Spoil)] = &[
    ("empty", |at, _| write(at, "").unwrap()),
    ("truncated", |at, text| write(at, &text[..text.len() / 2]).unwrap()),
    ("without its last byte", |at, text| write(at, &text[..text.len() - 1]).unwrap()),
    ("followed by more", |at, text| write(at, format!("{text}{text}")).unwrap()),
    ("with another number", |at, text| write(at, text.replacen(":1", ":2", 1)).unwrap()),
    ("binary", |at, _| write(at, b"\x7fELF\0\xff\xfe").unwrap()),
    ("of another version", |at, text| write(at, text.replacen(" 2 ", " 999999 ", 1)).unwrap()),
    ("null", |at, text| seal(at, text, "null")),
    ("an empty object", |at, text| seal(at, text, "{}")),
    ("deep", |at, text| seal(at, text, &"[".repeat(1 << 20))),
    ("with negative numbers", |at, text| seal(at, text, &body_of(text).replace(":1", ":-1"))),
    ("with words for numbers", |at, text| seal(at, text, &body_of(text).replace(":1", ":\"one\""))),
    ("from the future", |at, text| seal(at, text, &body_of(text).replace("\"gathered\":", "\"gathered\":9"))),
    ("a fifo", |at, _| become_other(at, || mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap())),
    ("a link loop", |at, _| become_other(at, || symlink(at, at).unwrap())),
    ("an endless device", |at, _| become_other(at, || symlink("/dev/zero", at).unwrap())),
];

/// The JSON below the first line.
fn body_of(text: &str) -> &str {
    text.split_once('\n').unwrap().1
}

/// Writes a cache file with this body under a first line that fits it.
fn seal(path: &Path, text: &str, body: &str) {
    let (head, _) = text.split_once('\n').unwrap();
    let (words, _) = head.rsplit_once(' ').unwrap();
    let digest = telegraf_taskstats::cache::digest_of(body.as_bytes());
    write(path, format!("{words} {digest:016x}\n{body}")).unwrap();
}

/// The body with its numbers changed, but for the pids and those by which it is judged.
fn with_numbers(text: &str, change: fn(u64) -> u64) -> String {
    fn walk(value: &mut Value, change: fn(u64) -> u64) {
        match value {
            Value::Number(number) => *value = change(number.as_u64().unwrap_or(0)).into(),
            Value::Array(values) => values.iter_mut().for_each(|value| walk(value, change)),
            Value::Object(map) => {
                map.iter_mut()
                    .filter(|(key, _)| !["digest", "gathered", "pid", "ppid"].contains(&key.as_str()))
                    .for_each(|(_, value)| walk(value, change));
            }
            _ => {}
        }
    }
    let mut body = serde_json::from_str(body_of(text)).unwrap();
    walk(&mut body, change);
    body.to_string()
}

fn become_other(path: &Path, make: impl FnOnce()) {
    remove_file(path).unwrap();
    make();
}

#[test]
fn a_spoilt_cache_is_one_warning_and_a_fresh_start() {
    // Side by side, since a fresh start takes its second.
    std::thread::scope(|scope| {
        for (how, spoil) in SPOILT {
            scope.spawn(move || assert_begun_anew(how, *spoil));
        }
    });
}

fn assert_begun_anew(how: &str, spoil: Spoil) {
    let (directory, path, text) = with_cache();
    spoil(&path, &text);
    let (_, stderr) = gather(command(), directory.path());
    assert!(matches!(&stderr[..], [line] if line.starts_with("W! ") && line.contains(NAME)), "{how}: {stderr:?}");
    // Whatever it was, the next run has a good one.
    assert_eq!(gather(command(), directory.path()).1, Vec::<String>::new(), "{how}");
}

/// What no run of ours ever wrote, yet well formed: whatever is made of it, the line comes.
#[test]
fn absurd_numbers_in_a_cache() {
    let changes: [fn(u64) -> u64; 5] =
        [|_| 0, |_| 1, |number| number / 2, |number| number.saturating_mul(1000), |_| u64::MAX];
    for change in changes {
        let (directory, path, text) = with_cache();
        seal(&path, &text, &with_numbers(&text, change));
        for _ in 0..3 {
            gather(command(), directory.path());
        }
    }
}

/// Lists that say everything twice.
#[test]
fn a_cache_that_repeats_itself() {
    let (directory, path, text) = with_cache();
    let mut body: Value = serde_json::from_str(body_of(&text)).unwrap();
    for list in ["/collectors/cpu/accounts", "/series", "/series/0/1/members", "/series/0/1/top"] {
        let list = body.pointer_mut(list).unwrap().as_array_mut().unwrap();
        list.extend(list.clone());
    }
    seal(&path, &text, &body.to_string());
    for _ in 0..3 {
        gather(command(), directory.path());
    }
}

#[test]
fn a_cache_of_another_boot() {
    let (directory, fake) = (tempfile::tempdir().unwrap(), FakeProc::new());
    let run = || {
        let mut plugin = command();
        plugin.arg("--proc-root").arg(fake.path());
        gather(plugin, directory.path()).1
    };
    assert_eq!(run(), [format!("W! No process has the pid {}", std::process::id())]);
    fake.write("sys/kernel/random/boot_id", "b0070000-0000-4000-8000-000000000001\n");
    assert!(run().iter().any(|line| line.starts_with("W! Cache file") && line.contains("another boot")));
}

/// A cache of other targets is none of these targets'.
#[test]
fn a_cache_of_other_settings_is_a_fresh_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = command();
    other.args(["--pid", "1"]).args(["--tag", "other=yes"]).args(["--once", "--cache-name", NAME]);
    other.arg("--cache-dir").arg(directory.path());
    assert!(other.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    let (_, stderr) = gather(command(), directory.path());
    assert!(matches!(&stderr[..], [line] if line.starts_with("W! ")), "{stderr:?}");
}

/// Whose boot is not known may be of any.
#[test]
fn a_cache_without_a_boot_id() {
    let (directory, _, _) = with_cache();
    let fake = FakeProc::new();
    fake.remove("sys");
    let mut plugin = command();
    plugin.arg("--proc-root").arg(fake.path());
    let (_, stderr) = gather(plugin, directory.path());
    assert!(stderr.iter().any(|line| line.starts_with("W! Cache") && line.contains("boot")), "{stderr:?}");
}

#[test]
fn a_cache_that_cannot_be_written_costs_no_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for directory in [file.path(), Path::new("/nonexistent"), Path::new("/proc/self")] {
        let (_, stderr) = gather(command(), directory);
        let directory = directory.display().to_string();
        assert!(
            matches!(&stderr[..], [line] if line.starts_with("W! ") && line.contains(&directory)),
            "{directory}: {stderr:?}"
        );
    }
}

/// It can neither be read nor be replaced, which makes two warnings.
#[test]
fn a_directory_in_place_of_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    create_dir(directory.path().join(NAME)).unwrap();
    let (_, stderr) = gather(command(), directory.path());
    assert!(stderr.len() == 2 && stderr.iter().all(|line| line.starts_with("W! ")), "{stderr:?}");
}

#[test]
fn a_cache_directory_of_somebody_else() {
    if !is_root() {
        return skip("only root can make a directory that an ordinary user cannot enter");
    }
    let (directory, _, _) = with_cache();
    let public = PublicBinary::new();
    let (_, stderr) = gather(public.command_as_ordinary_user(), directory.path());
    assert!(matches!(&stderr[..], [line] if line.starts_with("W! ") && line.contains("denied")), "{stderr:?}");
}

/// Locked by another: it gathers without the cache, and says so.
#[test]
fn a_cache_that_another_has_locked() {
    let (directory, _, _) = with_cache();
    let mut locks = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.lock().unwrap();
        locks.push(file);
    }
    let (_, stderr) = gather(command(), directory.path());
    assert!(matches!(&stderr[..], [line] if line.starts_with("W! ") && line.contains("lock")), "{stderr:?}");
}

/// A lock that is no file: a FIFO would wait for a reader for ever, a link may lead anywhere.
#[test]
fn a_lock_that_is_no_file() {
    let others: [fn(&Path); 3] = [
        |at| mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        |at| symlink(at.with_file_name("elsewhere"), at).unwrap(),
        |at| create_dir(at).unwrap(),
    ];
    for make in others {
        let directory = tempfile::tempdir().unwrap();
        make(&directory.path().join(format!("{NAME}.lock")));
        let (_, stderr) = gather(command(), directory.path());
        assert!(matches!(&stderr[..], [line] if line.starts_with("W! ") && line.contains("lock")), "{stderr:?}");
        assert!(!directory.path().join("elsewhere").exists());
    }
}
