//! The documents: every block is of a kind that says who runs it, what is for this host is run here in the order of appearance, links
//! lead somewhere, and tables and lists agree with the program.
//!
//! Commands run on a copy of this host that is thrown away (`documents/host.rs`). What takes long is not run a second time: cargo and the
//! scripts are noted, and that what they are asked for exists is looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

#[path = "documents/agreement.rs"]
mod agreement;
#[path = "documents/configuration.rs"]
mod configuration;
#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "support/document.rs"]
mod document;
#[path = "documents/host.rs"]
mod host;
#[path = "documents/links.rs"]
mod links;
#[path = "support/overlay.rs"]
mod overlay;
#[path = "support/peers.rs"]
mod peers;
#[path = "documents/recorded.rs"]
mod recorded;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use delay_accounting::DelayAccounting;
use document::{Block, all_blocks, blocks, documents, repository};
use host::Host;

/// What a block may be.
const KINDS: [&str; 8] = ["sh", "sh container", "toml", "ini", "yaml", "json", "dockerfile", "text"];

#[test]
fn every_block_says_what_it_is() {
    let blocks = all_blocks();
    assert!(blocks.len() > 20, "{}", blocks.len());
    for block in blocks {
        assert!(KINDS.contains(&block.info.as_str()), "{block}: the kinds are {KINDS:?}");
    }
}

/// Runs the blocks of a document on a host of its own, in order; returns what each `sh` block printed.
fn run(document: &Path) -> Option<Vec<String>> {
    let host = Host::new()?;
    let blocks = blocks(document);
    // The switch is the real one.
    let switches = blocks.iter().any(|block| block.info == "sh" && block.text.contains("kernel.task_delayacct"));
    let _as_before = if switches { Some(DelayAccounting::switch(true)?) } else { None };
    let mut telegraf = String::new();
    let mut printed = Vec::new();
    for block in blocks {
        eprintln!("{block}");
        match block.info.as_str() {
            "sh" => printed.push(host.run(&block.text)),
            "toml" => configuration::toml(&host, &block, &mut telegraf),
            "ini" => configuration::ini(&host, &block),
            "yaml" => configuration::yaml(&host, &block),
            "json" => drop(serde_json::from_str::<serde_json::Value>(&block.text).unwrap()),
            "text" | "sh container" => {}
            kind => panic!("{block}: nothing takes {kind}"),
        }
    }
    assert_can_be_asked(&host.asked());
    Some(printed)
}

#[test]
fn the_readme_does_what_it_says() {
    run(Path::new("README.md"));
}

#[test]
fn the_other_documents_do_what_they_say() {
    let mut count = 0;
    for document in documents() {
        let (is_readme, is_containers) = (document == Path::new("README.md"), document.ends_with("containers.md"));
        let is_alive = |block: &Block| !["text", "sh container"].contains(&block.info.as_str());
        if !is_readme && !is_containers && blocks(&document).iter().any(is_alive) {
            run(&document);
            count += 1;
        }
    }
    assert!(count > 5, "{count}");
}

/// That cargo would know what it was asked for, and that the scripts are there.
fn assert_can_be_asked(asked: &[String]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(repository())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut targets = BTreeSet::new();
    for target in metadata["packages"][0]["targets"].as_array().unwrap() {
        let kind = target["kind"][0].as_str().unwrap();
        targets.insert((format!("--{kind}"), target["name"].as_str().unwrap().to_owned()));
    }
    assert!(targets.contains(&("--test".to_owned(), "documents".to_owned())), "{targets:?}");
    for line in asked {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let known = ["build", "run", "test", "bench", "fmt", "clippy"];
        assert!(known.contains(&words[0].as_str()) || repository().join(&words[0]).is_file(), "{line}");
        for pair in words.windows(2) {
            if ["--bench", "--test", "--example"].contains(&pair[0].as_str()) {
                assert!(targets.contains(&(pair[0].clone(), pair[1].clone())), "{line}: {targets:?}");
            }
            if pair[0] == "--exact" {
                let test = words.iter().skip_while(|word| *word != "--test").nth(1).unwrap();
                let text = fs::read_to_string(repository().join(format!("tests/{test}.rs"))).unwrap();
                assert!(text.contains(&format!("#[test]\nfn {}()", pair[1])), "{line}");
            }
        }
    }
}

/// What `--check` says in a container: as the document has it, and with one flag less, as its table has it.
#[test]
fn a_container_is_what_its_flags_make_it() {
    let document = Path::new("docs/containers.md");
    let Some(printed) = run(document) else { return };
    let says = |text: &str, what: &str| assert!(text.contains(what), "{what:?} is not in: {text}");
    says(&printed[1], "events  process events and exit records");

    let blocks: Vec<_> = blocks(document).into_iter().filter(|block| block.info == "sh").collect();
    let [build, command] = blocks.as_slice() else { panic!("{blocks:?}") };
    let Some(host) = Host::new() else { return };
    host.run(&build.text);
    let all = "--check --collect psstat,taskstat,procmaps --pattern pid1:. || [ $? = 1 ]";
    let with_all = command.text.replace("--check", all);
    let without: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("--pid=host ", &["  scan ", "initial user and pid namespaces only"][..]),
        ("--network=host ", &["  scan ", "initial network namespace only"][..]),
        ("--cap-add NET_ADMIN ", &["  connector ", "docker run --cap-add NET_ADMIN"][..]),
        ("--cap-add SYS_PTRACE ", &["docker run --cap-add SYS_PTRACE"][..]),
    ]);
    for (flag, expected) in without {
        let less = with_all.replace(flag, "");
        assert_ne!(less, with_all, "{flag} is not in the command");
        let text = host.run(&less);
        for what in expected {
            says(&text, what);
        }
    }
}

/// The sample of `--check` is what it prints of the README's configuration. Numbers are this host's.
#[test]
fn the_sample_of_check_is_what_it_prints() {
    let Some(host) = Host::new() else { return };
    let Some(_as_it_comes) = DelayAccounting::switch(false) else { return };
    let readme = blocks(Path::new("README.md"));
    let configuration = readme.iter().find(|block| block.info == "toml" && block.text.contains("[[inputs.taskstats]]"));
    let troubleshooting = blocks(Path::new("docs/troubleshooting.md"));
    let sample = troubleshooting.iter().find(|block| block.text.starts_with("Processes\n")).unwrap();
    let head = "[[inputs.taskstats]]\n";
    let collects =
        configuration.unwrap().text.replacen(head, &format!("{head}collect = [\"psstat\", \"taskstat\"]\n"), 1);
    host.write("/etc/telegraf-taskstats/plugin.conf", &collects);
    let check = "telegraf-taskstats --config /etc/telegraf-taskstats/plugin.conf --check";
    let printed = host.run(&format!("sudo -u telegraf {check}"));
    // What stands in for nginx is called otherwise.
    let alike = |text: &str| -> Vec<String> {
        let named = text.replace("(sleep)", "(nginx)");
        let words = named.lines().map(|line| line.split(char::is_numeric).filter(|part| !part.is_empty()).collect());
        words.map(|line: Vec<_>| line.join("#")).collect()
    };
    assert_eq!(alike(&sample.text), alike(&printed), "{sample}: {printed}");
}
