//! Writes the man page and the completions of bash, zsh and fish into a directory: `cargo run --example manual -- DIR`.
//! They say what `--help` says, since they are made from the same `cli.rs`.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::Context;
use clap::{Arg, CommandFactory};
use clap_complete::Shell;
use telegraf_taskstats::cli::Arguments;

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(env::args_os().nth(1).context("which directory?")?);
    fs::create_dir_all(&directory)?;
    let mut command = Arguments::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, env!("CARGO_PKG_NAME"), &directory)?;
    }
    clap_mangen::generate_to(command.mut_args(with_aliases), directory)?;
    Ok(())
}

/// The man page would not have an argument's other names, which `--help` has.
fn with_aliases(argument: Arg) -> Arg {
    let aliases = argument.get_visible_aliases().unwrap_or_default().join(", --");
    match argument.get_help() {
        Some(help) if !aliases.is_empty() => {
            let help = format!("{help} [aliases: --{aliases}]");
            argument.help(help)
        }
        _ => argument,
    }
}
