//! Generates completion scripts and man pages from the definition of the command line. The binary prints them itself, so
//! they need no build script and always match the binary.

use super::{ABOUT, Cli};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// The completion script of a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "corecast", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `corecast.1` and a `corecast-COMMAND.1` for each command into `directory`.
///
/// # Errors
/// The directory cannot be created or written to.
pub fn man_pages(directory: &Path) -> anyhow::Result<()> {
    // The NAME section takes one line: whatis(1) reads it.
    let command = Cli::command().about(ABOUT.lines().next().unwrap_or_default().to_owned()).long_about(ABOUT);
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| format!("cannot write man pages into {}", directory.display()))
}
