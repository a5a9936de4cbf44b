//! `corecast console`: a link that opens the console, once.

use super::Console;
use super::process::print;
use anyhow::{Context, ensure};
use corecast::admin::client::Client;
use corecast::api::operation::ConsoleToken;
use std::io;
use std::process::{Command, ExitCode};

pub fn run(options: &Console) -> anyhow::Result<ExitCode> {
    let Console { open, read_only, server } = options;
    let mut client = Client::connect(&server.socket.path()?)?;
    let request = ConsoleToken { read_only: *read_only }.into();
    if server.json {
        client.run(&request, false, true, &mut io::stdout())?;
        return Ok(ExitCode::SUCCESS);
    }
    let reply = client.reply(&request)?;
    let [url, token] = ["url", "token"].map(|member| reply[member].as_str().unwrap_or_default());
    let link = format!("{url}#token={token}");
    print(&format!("{link}\n"))?;
    eprintln!("It opens the console once, within 60 s.");
    if *open {
        open_browser(&link)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn open_browser(link: &str) -> anyhow::Result<()> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let status = Command::new(program).arg(link).status();
    let status = status.with_context(|| format!("cannot run {program}; open the link yourself"))?;
    ensure!(status.success(), "{program} found no browser ({status}); open the link yourself");
    Ok(())
}

pub const AFTER: &str = "\
The link holds a token, which the page exchanges for a session: 12 hours, in that tab, until the server restarts. Behind a \
reverse proxy, or over SSH (ssh -L 9001:127.0.0.1:9001 HOST), put the address that the browser uses in place of the one that is \
printed.

--open gives the link to xdg-open (macOS: open) as an argument, which other users of this machine can see. If you do not trust \
them, print the link and paste it.

Examples:
  corecast console
  corecast console --open --read-only";
