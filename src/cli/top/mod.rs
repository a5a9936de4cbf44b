//! `corecast top`: a live view of a server. It needs only the admin socket, so `ssh -t host corecast top` works too.
//!
//! ```text
//! sampler thread ── stats, busiest ──► admin socket        thread of keys ──► state ──► render ──► terminal
//!       └───────────── samples, or an error ─────────────────────────────────►┘
//! ```

mod figures;
mod plain;
mod render;
mod sample;
mod screen;
mod state;
mod view;

use corecast::admin::client::{Client, Error};
use corecast::api::By;
use sample::Sample;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use view::View;

/// How the view is shown.
pub struct Options {
    /// Time between two samples.
    pub interval: Duration,
    /// Whether to print one view and exit, without a terminal.
    pub is_once: bool,
    /// Whether to print that view as JSON.
    pub is_json: bool,
}

/// Runs until the user quits, or prints one view.
pub fn run(socket: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    // A missing server is an error at the start; later, top waits for it.
    let mut client = Client::connect(socket)?;
    if options.is_once {
        let before = Sample::take(&mut client, By::Messages)?;
        thread::sleep(options.interval);
        let now = Sample::take(&mut client, By::Messages)?;
        let view = View::between(Some(&before), &now, By::Messages);
        let text = if options.is_json { serde_json::to_string(&view)? + "\n" } else { plain::page(&view) };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        anyhow::bail!("top needs a terminal: with ssh that is `ssh -t`; `corecast top --once` needs none");
    }
    screen::run(client, socket, options.interval)
}
