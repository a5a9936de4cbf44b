//! Runs a command, and prints its error.

use super::process::{fail, gather, print};
use super::{Ask, Cli, Command, Publish, Subscribe, Top, console, generated, keys, serve, subscribe, top};
use clap::Parser;
use corecast::admin::client::Client;
use corecast::api::Route;
use corecast::server::signals::Calls;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// Whether this is `corecast serve`, by the first argument.
pub fn is_server(first: Option<OsString>) -> bool {
    first.is_none_or(|first| first == "serve" || first.as_encoded_bytes().starts_with(b"-"))
}

/// Runs the command of the command line. `calls` has caught signals since the start of the process.
pub fn run(calls: Option<anyhow::Result<Calls>>) -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.map(Command::ask) {
        None => serve::run(cli.serve, calls),
        Some(Ok(asked)) => ask(&asked),
        Some(Err(Command::Serve(options))) => serve::run(options, calls),
        Some(Err(Command::Publish(message))) => publish(message),
        Some(Err(Command::Console(options))) => console::run(&options),
        Some(Err(Command::Top(options))) => watch(&options),
        Some(Err(Command::Subscribe(options))) => listen(&options),
        Some(Err(Command::Sign(options))) => keys::sign(&options),
        Some(Err(Command::Completions { shell })) => completions(shell),
        Some(Err(Command::Man { directory })) => generated::man_pages(&directory).map(|()| ExitCode::SUCCESS),
        Some(Err(_)) => keys::keygen(),
    };
    done.unwrap_or_else(|error| fail(&error))
}

fn ask(Ask { server, request, all }: &Ask) -> anyhow::Result<ExitCode> {
    let path = server.socket.path()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut client = Client::connect(&path)?;
    match request.route() {
        Ok(Route::Events(_) | Route::Tail(_)) => client.watch(request, server.json, &mut out)?,
        _ => client.run(request, *all, server.json, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn publish(publish: Publish) -> anyhow::Result<ExitCode> {
    let path = publish.server.socket.path()?;
    let is_json = publish.server.json;
    let message = publish.message().unwrap_or_else(|error| error.exit());
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut client = Client::connect(&path)?;
    let Some(message) = message else {
        let summary = client.publish_lines(io::stdin(), is_json, &mut out)?;
        eprintln!("{summary}");
        return Ok(ExitCode::from(u8::from(summary.refused.count > 0)));
    };
    client.run(&message, false, is_json, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn listen(options: &Subscribe) -> anyhow::Result<ExitCode> {
    let keys = gather(&options.keys.flags())?.keys()?;
    let member = options.member().unwrap_or_else(|error| error.exit());
    let (channels, key) = (&options.channels, keys.first());
    subscribe::run(&options.url, &options.trust(), channels, key, member.as_deref(), options.count)?;
    Ok(ExitCode::SUCCESS)
}

fn watch(options: &Top) -> anyhow::Result<ExitCode> {
    top::run(&options.socket.path()?, &options.options())
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    print(&generated::completions(shell))?;
    Ok(ExitCode::SUCCESS)
}
