//! Errors made on purpose in the ledger, the journal and the table: the simulated worlds must notice each.
//!
//! The test holds the list to the code: each text must stand there once. To make the errors, one after the other, in a copy, and see
//! each of them noticed, which takes some minutes:
//!
//! ```sh
//! TASKSTATS_TEST_MUTATIONS=1 cargo test --test simulator mutations -- --nocapture
//! ```
#![allow(clippy::print_stderr)] // how far it is

use std::fs;
use std::path::Path;
use std::process::Command;

struct Mutation {
    what: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const LEDGER: &str = "src/ledger/mod.rs";
const BALANCE: &str = "src/ledger/balance.rs";
const DEPTH: &str = "src/ledger/depth.rs";
const LIFECYCLE: &str = "src/processes/lifecycle.rs";
const UNOBSERVED: &str = "src/processes/unobserved.rs";
const REFRESH: &str = "src/processes/refresh.rs";
const TABLE: &str = "src/processes/mod.rs";

const MUTATIONS: [Mutation; 14] = [
    Mutation {
        what: "CPU that was counted while a child was alive is not expected",
        file: BALANCE,
        from: "let expected = remembered(due, lives.late, 0);",
        to: "let expected = 0;",
    },
    Mutation {
        what: "expected CPU is not subtracted from a reaped time",
        file: BALANCE,
        from: "saturating_sub(self.reaped).saturating_sub(self.expected.saturating_add(lives.all))",
        to: "saturating_sub(self.reaped).saturating_sub(lives.all)",
    },
    Mutation {
        what: "a life does not contain the lives of the children",
        file: BALANCE,
        from: ".saturating_add(self.expected).saturating_add(lives.all)",
        to: ".saturating_add(self.expected)",
    },
    Mutation {
        what: "lives go up in the order of pids, not of depth",
        file: DEPTH,
        from: "Reverse((*depth, *index))",
        to: "Reverse((*depth - *depth, *index))",
    },
    Mutation {
        what: "the life of a process that vanished is taken to be in the reaped time already",
        file: BALANCE,
        from: "late: if is_late { life } else { lives.late },",
        to: "late: if is_late { 0 } else { lives.late },",
    },
    Mutation {
        what: "no ancestor is taken to have reaped an orphan",
        file: LEDGER,
        from: "self.place_orphans(members, &mut depths);",
        to: "",
    },
    Mutation {
        what: "the life of one of the dead lacks those of its own dead",
        file: UNOBSERVED,
        from: "life.add(below.lives);",
        to: "",
    },
    Mutation {
        what: "who was born to one that is gone has no ancestor",
        file: UNOBSERVED,
        from: "self.pass_children(ProcessRef::Newborn(pid), new.ancestor);",
        to: "self.pass_children(ProcessRef::Newborn(pid), None);",
    },
    Mutation {
        what: "the lives of the dead stand nowhere",
        file: UNOBSERVED,
        from: "unobserved.lives.add(life);",
        to: "",
    },
    Mutation {
        what: "an ancestor that has exited is forgotten at the next gather",
        file: LIFECYCLE,
        from: "exited(above).map(ProcessRef::Exited)",
        to: "exited(above).map(ProcessRef::Exited).filter(|_| false)",
    },
    Mutation {
        what: "a series rests although records tell of those below an exited member",
        file: TABLE,
        from: "!self.unobserved.keys().any(is_tracked_or_exited)",
        to: "!self.unobserved.keys().any(|id| self.is_tracked(id.pid) && is_tracked_or_exited(id))",
    },
    Mutation {
        what: "children are read before their parents",
        file: REFRESH,
        from: "self.tracked.iter().map(|id| (id.start, id.pid)).collect();\n        order.sort_unstable();",
        to: "self.tracked.iter().map(|id| (id.start, id.pid)).collect();\n        order.sort_unstable_by(|a, b| b.cmp(a));",
    },
    Mutation {
        what: "what is told while the living are read is forgotten",
        file: REFRESH,
        from: "self.unobserved.entry(id).or_default().add_late(&later);",
        to: "let _ = (id, later);",
    },
    Mutation {
        what: "one that was there and could not be read is taken for gone",
        file: TABLE,
        from: "None if was_there() => Presence::Vanished,",
        to: "None if was_there() => Presence::Reaped,",
    },
];

#[test]
fn mutations_are_noticed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for Mutation { what, file, from, .. } in MUTATIONS {
        let times = fs::read_to_string(root.join(file)).unwrap().matches(from).count();
        assert_eq!(times, 1, "{what}: {file} must have this once: {from}");
    }
    if std::env::var_os("TASKSTATS_TEST_MUTATIONS").is_none() {
        return;
    }
    let copy = root.join("target/mutations");
    let mut unnoticed = Vec::new();
    for Mutation { what, file, from, to } in MUTATIONS {
        copy_of(root, &copy);
        let text = fs::read_to_string(root.join(file)).unwrap();
        fs::write(copy.join(file), text.replace(from, to)).unwrap();
        let cargo = |command: &str| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.current_dir(&copy).args([command, "--locked", "--test", "simulator"]);
            cargo.env_remove("TASKSTATS_TEST_MUTATIONS").env("CARGO_TARGET_DIR", root.join("target/mutations/target"));
            cargo.env("CARGO_PROFILE_TEST_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_OPT_LEVEL", "1"); // it takes a fifth of the time
            cargo
        };
        assert!(cargo("check").status().unwrap().success(), "{what}: it does not compile");
        let tested = cargo("test").args(["--", "by_"]).output().unwrap();
        eprintln!("{}: {what}", if tested.status.success() { "NOT NOTICED" } else { "noticed" });
        if tested.status.success() {
            unnoticed.push(what);
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

/// What the simulator is built from.
fn copy_of(root: &Path, copy: &Path) {
    fs::create_dir_all(copy).unwrap();
    let what = ["src", "tests", "benches", "examples", "Cargo.toml", "Cargo.lock", "plugin.conf.example", "README.md"];
    let copied = Command::new("cp").arg("-r").args(what.map(|path| root.join(path))).arg(copy).status();
    assert!(copied.unwrap().success());
}
