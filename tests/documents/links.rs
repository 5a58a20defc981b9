//! That links lead somewhere, and that files which are named exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::document::{documents, repository};

/// Files of the worked examples in CONTRIBUTING.md: whoever follows it makes them.
const TO_BE_MADE: [&str; 3] = ["src/collect/state.rs", "src/select/ppid.rs", "tests/golden/state.txt"];

/// What stands between backticks, one or more.
pub fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        let after = rest[start..].trim_start_matches('`');
        let fence = &rest[start..rest.len() - after.len()];
        let Some(end) = after.find(fence) else { break };
        found.push(after[..end].trim());
        rest = &after[end + fence.len()..];
    }
    found
}

/// The lines of a document outside of its blocks.
pub fn prose(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(repository().join(document)).unwrap();
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") && !line.trim_start()[3..].contains('`') {
            inside = !inside;
        } else if !inside {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(document: &Path) -> Vec<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let lines = prose(document);
    let headings =
        lines.iter().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let anchors = headings.map(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let again = seen.entry(anchor.clone()).or_default();
        *again += 1;
        if *again == 1 { anchor } else { format!("{anchor}-{}", *again - 1) }
    });
    anchors.collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = prose(&document).join("\n");
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(repository().join(&file).exists(), "{}: {target} leads nowhere", document.display());
            let found = anchor.is_empty() || anchors(&file).iter().any(|it| it == anchor);
            assert!(found, "{}: {target}: the anchors are {:?}", document.display(), anchors(&file));
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn files_that_are_named_exist() {
    let mut count = 0;
    for document in documents() {
        let text = prose(&document).join("\n");
        for name in code(&text) {
            let is_ours = ["src/", "tests/", "benches/", "docs/", "dist/", "scripts/", "examples/"];
            let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_plain && is_ours.iter().any(|start| name.starts_with(start)) && !TO_BE_MADE.contains(&name) {
                count += 1;
                assert!(repository().join(name).exists(), "{}: there is no {name}", document.display());
            }
        }
    }
    assert!(count > 20, "{count}");
}
