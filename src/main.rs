//! The command line.

mod cli;

use anyhow::Context;
use clap::Parser;
use cli::{Ask, Cli, Command, Publish, Serve, Sign, Subscribe};
use corecast::admin::client::{Client, Error};
use corecast::api::Route;
use corecast::config::{Invalid, Settings};
use corecast::protocol::auth;
use corecast::protocol::channel::{Channel, Kind, RULE};
use corecast::protocol::json::is_unseen;
use corecast::protocol::socket_id::SocketId;
use corecast::server::arithmetic::Arithmetic;
use corecast::server::machine::Machine;
use corecast::server::signals::{self, Calls};
use corecast::server::{Log, NO_THREAD};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

/// Gives memory back: `tikv-jemallocator` in `Cargo.toml` says why.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Client commands keep the system's handling of signals. The first argument says what this process is: clap, which judges
    // it, takes milliseconds in which a signal would be lost.
    let first = std::env::args_os().nth(1);
    let is_server = first.is_none_or(|first| first == "serve" || first.as_encoded_bytes().starts_with(b"-"));
    let calls = is_server.then(signals::catch);
    let cli = Cli::parse();
    let done = match cli.command.map(Command::ask) {
        None => serve(cli.serve, calls),
        Some(Ok(asked)) => ask(&asked),
        Some(Err(Command::Serve(options))) => serve(options, calls),
        Some(Err(Command::Publish(publish))) => self::publish(publish),
        Some(Err(Command::Top(options))) => top(&options),
        Some(Err(Command::Subscribe(options))) => subscribe(&options),
        Some(Err(Command::Sign(sign_options))) => sign(&sign_options),
        Some(Err(Command::Completions { shell })) => completions(shell),
        Some(Err(Command::Man { directory })) => cli::generated::man_pages(&directory).map(|()| ExitCode::SUCCESS),
        Some(Err(_)) => keygen(),
    };
    match done {
        Ok(status) => status,
        Err(error) => fail(&error),
    }
}

fn serve(options: Serve, calls: Option<anyhow::Result<Calls>>) -> anyhow::Result<ExitCode> {
    let calls = calls.unwrap_or_else(signals::catch)?;
    let settings = gather(&options.options.0)?;
    let config = settings.validate()?;
    let strays = Settings::strays(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()));
    if options.print_config {
        print(&settings.to_toml(&config))?;
    } else if options.check_config {
        let machine = Machine::look();
        let arithmetic = Arithmetic::of(&config, &machine);
        let pinning = machine.unpinned(config.pin).map_or(String::new(), |why| format!("{why}\n"));
        print(&format!("configuration ok\n{arithmetic}\n{pinning}"))?;
        let limits = arithmetic.warnings(&config, &machine);
        let warnings = strays.into_iter().chain(limits).chain(config.live.warnings(SystemTime::now()));
        warnings.for_each(|warning| eprintln!("warning: {warning}"));
    } else {
        let (log, _written_at_the_end) = start_log(config.live.log)?;
        strays.iter().for_each(|stray| tracing::warn!("{stray}"));
        let flags = options.options.0;
        let reread = Arc::new(move || Settings::gather_again(&flags, env)?.validate());
        corecast::server::run(config, reread, log, calls)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs on stderr, by a thread of its own: a pipe that nobody reads may hold that up, but no shard.
fn start_log(level: LevelFilter) -> anyhow::Result<(Log, WrittenAtTheEnd)> {
    // Where no thread can be started the library panics.
    drop(thread::Builder::new().spawn(|| ()).context(NO_THREAD)?.join());
    let (filter, handle) = reload::Layer::new(level);
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES_MAX).thread_name("log").finish(io::stderr());
    let dropped = writer.error_counter();
    let lines = fmt::layer().compact().with_writer(writer).with_ansi(io::stderr().is_terminal());
    // A full disk must not end the server, and it would: this is reported on stderr, by a macro that panics.
    let lines = lines.log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    let log = Log {
        // Fails only where the subscriber is gone, and with it whoever could be told.
        set_level: Box::new(move |level| drop(handle.reload(level))),
        lines_dropped: Box::new(move || dropped.dropped_lines() as u64),
    };
    Ok((log, WrittenAtTheEnd(Some(guard))))
}

/// Sees to it that what is queued when it is dropped is still written, for a second at most. Where nobody reads it is left:
/// then the guard would wait in vain, and complain on stdout.
struct WrittenAtTheEnd(Option<WorkerGuard>);

impl Drop for WrittenAtTheEnd {
    fn drop(&mut self) {
        let stderr = io::stderr();
        let is_read = rustix::event::poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&LOG_TIMEOUT));
        if is_read == Ok(0) {
            std::mem::forget(self.0.take());
        }
    }
}

/// How long whoever reads the log may take before it is left at the end.
const LOG_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Lines that may wait to be written, of about 150 bytes each. More are dropped and counted.
const LOG_LINES_MAX: usize = 8192;

fn ask(Ask { server, request, all }: &Ask) -> anyhow::Result<ExitCode> {
    let path = gather(&server.flags())?.admin_socket()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut client = Client::connect(&path)?;
    match request.route() {
        Ok(Route::Events(_) | Route::Tail(_)) => client.watch(request, server.json, &mut out)?,
        _ => client.run(request, *all, server.json, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn publish(publish: Publish) -> anyhow::Result<ExitCode> {
    let path = gather(&publish.server.flags())?.admin_socket()?;
    let is_json = publish.server.json;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut client = Client::connect(&path)?;
    let Some(message) = publish.message() else {
        let summary = client.publish_lines(io::stdin(), is_json, &mut out)?;
        eprintln!("{summary}");
        return Ok(ExitCode::from(u8::from(summary.refused.count > 0)));
    };
    client.run(&message, false, is_json, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn subscribe(options: &Subscribe) -> anyhow::Result<ExitCode> {
    let keys = gather(&options.keys.flags())?.keys()?;
    cli::subscribe::run(&options.url, &options.trust(), &options.channels, keys.first(), options.count)?;
    Ok(ExitCode::SUCCESS)
}

fn top(options: &cli::Top) -> anyhow::Result<ExitCode> {
    cli::top::run(&gather(&options.flags())?.admin_socket()?, &options.options())
}

fn sign(options: &Sign) -> anyhow::Result<ExitCode> {
    let keys = gather(&options.keys.flags())?.keys()?;
    let key = keys.first().ok_or(Usage(
        "there is no key pair to sign with. Give --key ID:SECRET, --key-file PATH, CORECAST_KEY or --config PATH"
            .into(),
    ))?;
    let (socket_id, channel) = (&options.socket_id, &options.channel);
    if SocketId::parse(socket_id).is_none() {
        let text =
            "is no socket_id: it is a UUID, or two numbers joined by a dot, as the client got it in socket:connected";
        return Err(Usage(format!("{socket_id:?} {text}")).into());
    }
    match Channel::parse(channel).map(Channel::kind) {
        Some(Kind::Private) => {}
        Some(Kind::Public) => eprintln!("note: {channel} is a public channel, which needs no signature"),
        None => {
            return Err(Usage(format!("{channel:?} is no channel: {RULE}")).into());
        }
    }
    print(&(auth::sign(key, socket_id, channel, options.channel_data.as_deref()) + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn keygen() -> anyhow::Result<ExitCode> {
    let id = random_hex::<10>()?;
    let secret = random_hex::<32>()?;
    print(&format!("{id}:{secret}\n"))?;
    eprint!(
        "\
# A key pair, ID:SECRET. The business backend signs with it, the server verifies with it; nobody else may know it.
#   (umask 077; corecast keygen >> keys)      keep it in a file that only its owner can read
#   corecast serve --key-file keys            serve with every pair of the file
#   corecast sign SOCKET_ID private-CHANNEL --key-file keys
# To rotate, add a pair, let the backend change over, then remove the old one.
"
    );
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    print(&cli::generated::completions(shell))?;
    Ok(ExitCode::SUCCESS)
}

fn random_hex<const BYTES: usize>() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn gather(flags: &corecast::config::Flags) -> Result<Settings, Invalid> {
    Settings::gather(flags, env)
}

fn env(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

fn print(text: &str) -> Result<(), Error> {
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}

/// Says what went wrong. Status 2: the command line or the configuration is at fault; 1: anything else.
fn fail(error: &anyhow::Error) -> ExitCode {
    // `corecast channels | head`: whoever was to read it has read enough.
    if let Some(Error::Output(output)) = error.downcast_ref()
        && output.kind() == io::ErrorKind::BrokenPipe
    {
        return ExitCode::FAILURE;
    }
    // Much of it can be what somebody else said.
    let text = format!("{error:#}").replace(|character| character != '\n' && is_unseen(character), "\u{fffd}");
    let _ = writeln!(io::stderr(), "error: {text}");
    ExitCode::from(if error.is::<Invalid>() || error.is::<Usage>() { 2 } else { 1 })
}

/// The command line asks for what makes no sense.
#[derive(Debug)]
struct Usage(String);

impl std::error::Error for Usage {}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
