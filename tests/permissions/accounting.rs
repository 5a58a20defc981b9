//! How processes are accounted, and why not in a better way: as each user and in each namespace, by what `--check` and the line
//! about the plugin itself say.

use std::io::Write;
use std::process::Command;

use crate::sandbox::{Check, ORDINARY, Sandbox, Words, gather, is_possible};
use crate::support::Plugin;

/// Where it runs, how it accounts there, and what the reason for nothing better says.
const CASES: [(Words, &str, &[&str]); 8] = [
    (&[], "events", &[]),
    (ORDINARY, "connector", &["exit records", "CAP_NET_ADMIN", "run as root: setcap"]),
    (
        &["setpriv", "--bounding-set", "-net_admin"],
        "connector",
        &["exit records", "CapabilityBoundingSet=CAP_NET_ADMIN"],
    ),
    (&["setpriv", "--no-new-privs", "--reuid", "65534", "--clear-groups"], "connector", &["AmbientCapabilities="]),
    (&["unshare", "--user", "--map-root-user"], "scan", &["initial user and pid namespaces"]),
    (&["unshare", "--net"], "scan", &["initial network namespace"]),
    (&["unshare", "--pid", "--fork", "--mount-proc"], "scan", &["initial user and pid namespaces"]),
    (&["unshare", "--pid", "--fork"], "scan", &["another pid namespace"]),
];

fn command(sandbox: &Sandbox, words: Words, accounting: &str) -> Command {
    let mut command = sandbox.command(words);
    command.args(["--accounting", accounting]);
    command
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut file = std::fs::File::create(sandbox.configuration()).unwrap();
    file.write_all(b"[[inputs.taskstats]]\nself_stats = true\n[[inputs.taskstats.target]]\npid = 1\n").unwrap();
    sandbox
}

#[test]
fn it_is_as_good_as_it_can_be_and_says_what_is_missing() {
    let sandbox = sandbox();
    for (words, way, reason) in CASES {
        if !is_possible(words) {
            continue;
        }
        let auto = Check::of(command(&sandbox, words, "auto").arg("--check"));
        let (found, because) = auto.accounting();
        let says = |part: &&str| because.is_some_and(|because| because.contains(part));
        assert!(
            found == way && because.is_some() != reason.is_empty() && reason.iter().all(says),
            "{words:?}: {auto:?}"
        );
        assert_eq!(auto.code, Some(0), "to scan is no fault: {auto:?}");
        // Asked for by name, it is.
        let by_name = Check::of(command(&sandbox, words, "events").arg("--check"));
        assert_eq!(by_name.accounting(), (found, because));
        assert_eq!(by_name.code, Some(i32::from(way != "events")), "{by_name:?}");
        let scan = Check::of(command(&sandbox, words, "scan").arg("--check"));
        assert_eq!((scan.accounting(), scan.code), (("scan", None), Some(0)), "{scan:?}");
    }
}

#[test]
fn each_line_about_itself_says_how_it_accounts() {
    let sandbox = sandbox();
    for (words, way, _) in CASES {
        if !is_possible(words) {
            continue;
        }
        for (accounting, way) in [("auto", way), ("events", way), ("scan", "scan")] {
            let mut plugin = Plugin::start(command(&sandbox, words, accounting));
            let (_, agent) = gather(&mut plugin);
            assert_eq!(agent.tags["accounting"], way, "{words:?}");
            assert_eq!(agent.fields.contains_key("events_lost"), way != "scan", "{agent:?}");
            let (status, _, stderr) = plugin.stop();
            let complains = stderr.iter().any(|line| line.contains("instead of \"events\""));
            assert_eq!(complains, accounting == "events" && way != "events", "{words:?}, {accounting}: {stderr:?}");
            assert!(status.success());
        }
    }
}
