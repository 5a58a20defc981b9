//! What stands fenced in the documents: commands, configuration and output.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of it

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block of a Markdown file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the fence, as `sh container`: what the block is.
    pub info: String,
    /// What stands between the fences. Each line ends in a newline, and what the fence is indented by is taken off.
    pub text: String,
    /// The document, relative to the root of the repository.
    pub file: PathBuf,
    /// The line of the opening fence, from 1.
    pub line: usize,
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ```{}", self.file.display(), self.line, self.info)
    }
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents, relative to the root: the Markdown files there and in docs, by name, README.md before all others, since it
/// is what is read first.
pub fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["", "docs"] {
        let entries = fs::read_dir(repository().join(directory)).unwrap();
        let names = entries.map(|entry| Path::new(directory).join(entry.unwrap().file_name()));
        found.extend(names.filter(|name| name.extension().is_some_and(|extension| extension == "md")));
    }
    found.sort_by_key(|name| (name != Path::new("README.md"), name.clone()));
    found
}

/// The blocks of a document, in order.
pub fn blocks(file: &Path) -> Vec<Block> {
    parse(&fs::read_to_string(repository().join(file)).unwrap(), file)
}

/// The blocks of all documents, in order.
pub fn all_blocks() -> Vec<Block> {
    documents().iter().flat_map(|file| blocks(file)).collect()
}

/// As CommonMark has it: a fence is three or more backticks or tildes, and is closed by as many or more of the same. One that is
/// never closed is a mistake in the document, and fails.
pub fn parse(text: &str, file: &Path) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some((indent, fence, info)) = opening(line) else { continue };
        let mut block = Block { info: info.to_owned(), text: String::new(), file: file.to_owned(), line: number + 1 };
        loop {
            let Some((_, line)) = lines.next() else { panic!("{block} is never closed") };
            if closes(line, fence) {
                break;
            }
            let spaces = line.len() - line.trim_start_matches(' ').len();
            block.text.push_str(&line[spaces.min(indent)..]);
            block.text.push('\n');
        }
        blocks.push(block);
    }
    blocks
}

/// The indentation, the fence and the info string of a line that opens a block.
fn opening(line: &str) -> Option<(usize, &str, &str)> {
    let text = line.trim_start_matches(' ');
    let mark = text.chars().next().filter(|c| ['`', '~'].contains(c))?;
    let info = text.trim_start_matches(mark);
    let fence = &text[..text.len() - info.len()];
    let is_fence = fence.len() >= 3 && !(mark == '`' && info.contains('`'));
    is_fence.then_some((line.len() - text.len(), fence, info.trim()))
}

fn closes(line: &str, fence: &str) -> bool {
    let line = line.trim();
    line.starts_with(fence) && line.chars().all(|c| fence.starts_with(c))
}

#[test]
fn blocks_are_found_as_they_are_read() {
    let text = "\
# Title
```sh container
apt install ./it.deb
```
In a list:
  ```text
  one
    two
  ```
~~~~
```toml
~~~~
`inline` and ``` not a fence ```
````markdown
```sh
```
````
";
    let blocks = parse(text, Path::new("docs/it.md"));
    let found: Vec<_> = blocks.iter().map(|b| (b.line, b.info.as_str(), b.text.as_str())).collect();
    let expected = [
        (2, "sh container", "apt install ./it.deb\n"),
        (6, "text", "one\n  two\n"),
        (10, "", "```toml\n"),
        (14, "markdown", "```sh\n```\n"),
    ];
    assert_eq!(found, expected);
    assert_eq!(blocks[0].to_string(), "docs/it.md:2: ```sh container");
}
