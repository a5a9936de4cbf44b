//! The process around a command: its environment, its output, and its exit status.

use corecast::admin::client::Error;
use corecast::config::{Flags, Invalid, Settings};
use corecast::protocol::json::is_unseen;
use std::io::{self, Write};
use std::process::ExitCode;

/// Gathers the settings from these flags, the environment and the configuration file.
pub fn gather(flags: &Flags) -> Result<Settings, Invalid> {
    Settings::gather(flags, |name| std::env::var_os(name))
}

/// Prints to stdout.
pub fn print(text: &str) -> Result<(), Error> {
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}

/// Prints an error. Status 2: the command line or the configuration is wrong; 1: any other error.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    // Not an error: in `corecast channels | head` the reader stops early.
    if let Some(Error::Output(output)) = error.downcast_ref()
        && output.kind() == io::ErrorKind::BrokenPipe
    {
        return ExitCode::FAILURE;
    }
    // The error may quote the server, so control characters are replaced.
    let text = format!("{error:#}").replace(|character| character != '\n' && is_unseen(character), "\u{fffd}");
    let _ = writeln!(io::stderr(), "error: {text}");
    ExitCode::from(if error.is::<Invalid>() || error.is::<Usage>() { 2 } else { 1 })
}

/// A mistake in the use of the command line.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::error::Error for Usage {}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
