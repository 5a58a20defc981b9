//! What the documents say to run on a host with systemd: each document in a container of its own, in order of appearance.

use std::path::Path;

use crate::booted::Container;
use crate::delay_accounting::DelayAccounting;
use crate::document::{Block, blocks, documents};
use crate::packages::Packages;
use crate::support::wait_for;
use crate::telegraf;

/// A host as a reader has it: Telegraf, nginx, a server for metrics at its usual port (of a network of its own), influx, and
/// the package, as yet as a file in the current directory.
fn host() -> Option<Container> {
    let container = Container::boot(&["--private-network"])?;
    let package = &Packages::built()?.deb;
    telegraf::install(&container)?;
    for program in ["victoria-metrics", "influx"] {
        container.place_peer(program)?;
    }
    container.place(package, &format!("/root/{}", package.file_name().unwrap().to_str().unwrap()));
    let server = "victoria-metrics -storageDataPath=/var/lib/victoria-metrics -search.latencyOffset=0s";
    container.run(&format!("systemd-run --quiet --unit=victoria-metrics {server}"));
    let health = || container.attempt("curl --silent --fail http://127.0.0.1:8428/health").code;
    wait_for("the server", || (health() == Some(0)).then_some(()));
    Some(container)
}

/// Configuration whose first line is a comment with the path that it is for.
fn place(container: &Container, block: &Block) {
    let first = block.text.lines().next().unwrap_or_default();
    let path = first.strip_prefix("# ").filter(|path| path.starts_with('/'));
    let path =
        path.unwrap_or_else(|| panic!("{block}: the first line does not say where it goes, as in \"# /etc/it\""));
    container.write(path, &block.text);
}

#[test]
fn what_is_for_a_host_with_systemd_works_there() {
    let for_a_host = |block: &Block| ["sh container", "ini"].contains(&block.info.as_str());
    let mut count = 0;
    for document in documents() {
        let blocks: Vec<_> = blocks(&document).into_iter().filter(for_a_host).collect();
        if blocks.is_empty() {
            continue;
        }
        count += 1;
        // Who switches this switches the host's: then it becomes as it was.
        let switches = blocks.iter().any(|block| block.text.contains("sysctl"));
        let _as_before = switches.then(|| DelayAccounting::switch(false));
        let Some(container) = host() else { return };
        if document != Path::new("README.md") {
            container.run("apt-get install --yes ./telegraf-taskstats_*.deb");
        }
        for block in blocks {
            eprintln!("{block}");
            if block.info == "ini" {
                place(&container, &block);
                continue;
            }
            // As it is typed, but that the first command that fails is the last.
            let ran = container.attempt(&format!("set +u +o pipefail\n{}", block.text));
            assert_eq!(ran.code, Some(0), "{block}\n{}{ran}", block.text);
        }
    }
    assert!(count >= 2, "{count}");
}
