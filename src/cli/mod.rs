//! The definition of the command line. The options of `serve` come from the table in `corecast::config`, which holds
//! their names, defaults and ranges, and also validates their values.

mod console;
mod dial;
mod generated;
mod keys;
mod leaving;
mod process;
mod run;
mod serve;
mod subscribe;
mod top;

pub use run::{is_server, run};

use clap::builder::{PossibleValuesParser, StyledStr, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use corecast::admin::client;
use corecast::api::history::{Cursor, MESSAGES_MAX, Since};
use corecast::api::operation::{self, ALSO, KINDS, PAGE_MAX, RATE_MAX, SHOWN_BYTES_MAX, Shed, declaration};
use corecast::api::publish::Draft;
use corecast::api::{By, Request, Share};
use corecast::config::{Flags, Invalid, OPTIONS, Opt};
use dial::Trust;
use std::path::PathBuf;
use std::time::Duration;
use tungstenite::http::Uri;

#[derive(Parser)]
#[command(name = "corecast", version, about = ABOUT, args_conflicts_with_subcommands = true, after_help = CLI_AFTER)]
pub struct Cli {
    #[command(flatten)]
    pub serve: Serve,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve WebSocket clients until SIGTERM or SIGINT (the default command)
    #[command(after_help = SERVE_AFTER)]
    Serve(Serve),

    #[command(about = about("publish"), override_usage = PUBLISH_USAGE, after_help = PUBLISH_AFTER)]
    Publish(Publish),

    #[command(about = about("channels"))]
    #[command(
        after_help = "Examples:\n  corecast channels --prefix user: --limit 20\n  corecast channels --all --json"
    )]
    Channels {
        /// Only channels whose names start with this
        #[arg(long)]
        prefix: Option<Box<str>>,
        #[command(flatten)]
        list: List,
    },

    #[command(about = about("channel"))]
    Channel {
        /// Name of the channel
        #[arg(value_name = "CHANNEL")]
        channel: Box<str>,
        /// Show the newest message that the channel keeps
        #[arg(long)]
        newest: bool,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("subscribers"), after_help = SUBSCRIBERS_AFTER)]
    Subscribers {
        /// Name of the channel
        channel: Box<str>,
        #[command(flatten)]
        list: List,
    },

    #[command(about = about("history"), after_help = HISTORY_AFTER)]
    History {
        /// Name of the channel
        channel: Box<str>,
        /// Only messages after this position
        #[arg(long, value_name = "EPOCH:OFFSET")]
        since: Option<Since>,
        /// Number of messages (with --all: of each page); 0: only the channel's position [default: 1000]
        #[arg(long, value_name = "N", value_parser = within::<0, MESSAGES_MAX>)]
        limit: Option<usize>,
        /// Newest first
        #[arg(long)]
        reverse: bool,
        /// Start where the previous page ended
        #[arg(long, value_name = "CURSOR")]
        after: Option<Since>,
        /// Print all pages
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("members"))]
    Members(OfChannel),

    #[command(about = about("connections"))]
    #[command(after_help = "Examples:\n  corecast connections --limit 50\n  corecast connections --all --json")]
    Connections(List),

    #[command(about = about("connection"))]
    Connection {
        /// Its socket_id, in either spelling
        socket_id: Box<str>,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("disconnect"))]
    #[command(after_help = "Close codes tell the client what to do next:
  4000-4099  do not reconnect (the default, 4000)
  4100-4199  reconnect after a while
  4200-4299  reconnect at once

Examples:
  corecast disconnect 0190b0f2-7c5e-7d3a-8a61-2f5f0c1d9e44 --code 4200 --reason 'please reconnect'
  corecast disconnect --user 12")]
    Disconnect {
        /// Its socket_id, in either spelling
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        socket_id: Option<Box<str>>,
        /// Close every connection that is signed in as this user
        #[arg(long, value_name = "ID")]
        user: Option<Box<str>>,
        /// Close code, 4000 to 4999
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(4000..=4999))]
        code: Option<u16>,
        /// Text for the close frame
        #[arg(long, value_name = "TEXT")]
        reason: Option<Box<str>>,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("unsubscribe"))]
    Unsubscribe {
        /// socket_id of the connection, in either spelling
        socket_id: Box<str>,
        /// Name of the channel
        channel: Box<str>,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("events"))]
    #[command(after_help = EVENTS_AFTER)]
    Events {
        /// Only events after this number, if the server still has them; otherwise a snapshot comes first
        #[arg(long, value_name = "N")]
        since: Option<u64>,
        /// Run of the server that the number belongs to; for another run, a snapshot comes first
        #[arg(long, value_name = "EPOCH", requires = "since")]
        epoch: Option<Box<str>>,
        /// Also these kinds of events, separated by commas
        #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = PossibleValuesParser::new(ALSO).map(Box::<str>::from))]
        also: Vec<Box<str>>,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("busiest"))]
    #[command(after_help = "Example:\n  corecast busiest --by messages --limit 5")]
    Busiest {
        /// Rank channels by subscribers, or by messages in the last seconds
        #[arg(long, value_parser = by(), default_value = "subscribers")]
        by: By,
        /// Number of entries in each list [default: 20]
        #[arg(long, value_name = "N", value_parser = within::<1, PAGE_MAX>)]
        limit: Option<usize>,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("tail"))]
    #[command(after_help = TAIL_AFTER)]
    Tail(Tail),

    /// Watch the server: rates, shards, closes, the busiest channels and addresses
    #[command(after_help = TOP_AFTER)]
    Top(Top),

    /// Print a link that opens the console in a browser
    #[command(after_help = console::AFTER)]
    Console(Console),

    #[command(about = about("rule"))]
    #[command(after_help = "Example:\n  corecast rule prices:eur")]
    Rule(OfChannel),

    #[command(about = about("stats"))]
    Stats(Server),

    #[command(about = about("reload"))]
    #[command(after_help = RELOAD_AFTER)]
    Reload(Server),

    #[command(about = about("drain"))]
    #[command(after_help = leaving::DRAIN_AFTER)]
    Drain {
        /// Over this time: 500ms, 60s, 5m, at most 1h
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = leaving::time)]
        over: u64,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("shed"))]
    #[command(after_help = leaving::SHED_AFTER)]
    Shed {
        /// Part of all connections: 20%, or a number
        #[arg(value_name = "N|N%", value_parser = leaving::share)]
        share: Share,
        /// Over this time: 500ms, 60s, 5m, at most 1h
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = leaving::time)]
        over: u64,
        #[command(flatten)]
        server: Server,
    },

    #[command(about = about("ping"))]
    Ping(Server),

    /// Subscribe to channels and print each message on a line
    #[command(after_help = SUBSCRIBE_AFTER)]
    Subscribe(Subscribe),

    /// Sign a subscription to a private channel, as the business backend does
    #[command(after_help = SIGN_AFTER)]
    Sign(Sign),

    /// Make a fresh key pair, ID:SECRET
    #[command(after_help = "Example:\n  (umask 077; corecast keygen >> keys)\n  corecast serve --key-file keys")]
    Keygen,

    /// Print the completion script of a shell
    #[command(hide = true, after_help = COMPLETIONS_AFTER)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Write the man pages, one per command, into a directory
    #[command(hide = true, after_help = "Example:\n  corecast man . && man ./corecast-publish.1")]
    Man {
        /// Directory to write to; created if missing
        directory: PathBuf,
    },
}

/// A request for the admin socket, and how its reply is shown.
pub struct Ask {
    pub server: Server,
    pub request: Request,
    /// Whether all pages of a list are requested.
    pub all: bool,
}

impl Command {
    /// The request that the command sends to the admin socket. `Err` returns a command that sends none.
    #[allow(clippy::result_large_err, reason = "called once")]
    pub fn ask(self) -> Result<Ask, Command> {
        let (request, server): (Request, Server) = match self {
            Command::Channels { prefix, list: List { limit, after, all, server } } => {
                return Ok(Ask { server, request: operation::Channels { prefix, limit, after }.into(), all });
            }
            Command::Subscribers { channel, list: List { limit, after, all, server } } => {
                return Ok(Ask { server, request: operation::Subscribers { channel, limit, after }.into(), all });
            }
            Command::Connections(List { limit, after, all, server }) => {
                return Ok(Ask { server, request: operation::Connections { limit, after }.into(), all });
            }
            Command::History { channel, since, limit, reverse, after, all, server } => {
                let after = after.map(Cursor);
                let request = operation::History { channel, since, limit, reverse, after }.into();
                return Ok(Ask { server, request, all });
            }
            Command::Members(OfChannel { channel, server }) => (operation::Members { channel }.into(), server),
            Command::Channel { channel, newest, server } => (operation::Channel { channel, newest }.into(), server),
            Command::Connection { socket_id, server } => (operation::Connection { socket_id }.into(), server),
            Command::Disconnect { socket_id, user, code, reason, server } => {
                (operation::Disconnect { socket_id, user, code, reason }.into(), server)
            }
            Command::Unsubscribe { socket_id, channel, server } => {
                (operation::Unsubscribe { socket_id, channel }.into(), server)
            }
            Command::Events { since, epoch, also, server } => (operation::Events { since, epoch, also }.into(), server),
            Command::Busiest { by, limit, server } => (operation::Busiest { by, limit }.into(), server),
            Command::Tail(Tail { channel, address, events, sample, rate, data, server }) => {
                (operation::Tail { channel, address, events, sample, rate, data }.into(), server)
            }
            Command::Rule(OfChannel { channel, server }) => (operation::Rule { channel }.into(), server),
            Command::Stats(server) => (operation::Stats {}.into(), server),
            Command::Reload(server) => (operation::Reload {}.into(), server),
            Command::Drain { over, server } => (operation::Drain { over_ms: Some(over) }.into(), server),
            Command::Shed { share, over, server } => (Shed::of(share, over).into(), server),
            Command::Ping(server) => (operation::Ping {}.into(), server),
            other => return Err(other),
        };
        Ok(Ask { server, request, all: false })
    }
}

/// The help line of an operation.
fn about(operation: &str) -> &'static str {
    declaration(operation).map_or("", |operation| operation.help)
}

#[derive(Args)]
#[command(next_help_heading = "Options of serve")]
pub struct Serve {
    #[command(flatten)]
    pub options: ServeOptions,
    /// Print the effective configuration as TOML, without secrets, and exit
    #[arg(long, conflicts_with = "check_config")]
    pub print_config: bool,
    /// Check the configuration, print what its limits can cost, and exit
    #[arg(long)]
    pub check_config: bool,
}

/// The options of the table that were given, and `config`.
pub struct ServeOptions(pub Flags);

impl Args for ServeOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config").long("config").value_name("PATH").help(CONFIG_HELP);
        OPTIONS.iter().map(arg).fold(command.arg(config), clap::Command::arg)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = OPTIONS.iter().map(|option| option.name).chain(["config"]);
        let given = names.filter_map(|name| {
            let values = matches.get_many::<String>(name)?;
            Some((name.to_owned(), values.cloned().collect()))
        });
        Ok(ServeOptions(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn arg(option: &'static Opt) -> Arg {
    let help = match option.default {
        "" => option.help.to_owned(),
        default => format!("{} [default: {default}]", option.help),
    };
    Arg::new(option.name)
        .long(option.name)
        .value_name(option.value)
        .help(StyledStr::from(help))
        .action(if option.repeatable { ArgAction::Append } else { ArgAction::Set })
}

/// Which server, and how to show what it says.
#[derive(Args)]
pub struct Server {
    #[command(flatten)]
    pub socket: Socket,
    /// Print the server's reply lines as they are
    #[arg(long)]
    pub json: bool,
}

/// Which server.
#[derive(Args)]
pub struct Socket {
    /// The server's admin socket [default: $XDG_RUNTIME_DIR/corecast.sock, else /tmp/corecast-UID.sock]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<String>,
    #[arg(long, value_name = "PATH", help = CONFIG_HELP)]
    config: Option<String>,
}

impl Socket {
    /// Its path, by the flags, the environment and the configuration file.
    pub fn path(&self) -> Result<PathBuf, Invalid> {
        let given = [("admin-socket", self.admin_socket.as_slice()), ("config", self.config.as_slice())];
        process::gather(&flags(given))?.admin_socket()
    }
}

fn flags<const N: usize>(given: [(&str, &[String]); N]) -> Flags {
    let given = given.into_iter().filter(|(_, values)| !values.is_empty());
    given.map(|(name, values)| (name.to_owned(), values.to_vec())).collect()
}

/// A request about one channel.
#[derive(Args)]
pub struct OfChannel {
    /// Name of the channel
    channel: Box<str>,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub struct List {
    /// Number of entries (with --all: of each page)
    #[arg(long, value_name = "N", value_parser = within::<1, PAGE_MAX>)]
    limit: Option<usize>,
    /// Start where the previous page ended
    #[arg(long, value_name = "CURSOR")]
    after: Option<Box<str>>,
    /// Print all pages
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: Server,
}

/// Parses a whole number.
fn within<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {MIN} to {MAX}"))
}

#[derive(Args)]
pub struct Console {
    /// Open the link in the browser, too
    #[arg(long, conflicts_with = "json")]
    open: bool,
    /// Only look: no publishing, no signing, no disconnecting
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub struct Top {
    /// Time between two samples: 500ms, 1s, 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one picture from two samples and exit; needs no terminal
    #[arg(long)]
    once: bool,
    /// With --once: as JSON
    #[arg(long, requires = "once")]
    json: bool,
    #[command(flatten)]
    pub socket: Socket,
}

impl Top {
    pub fn options(&self) -> top::Options {
        top::Options { interval: self.interval, is_once: self.once, is_json: self.json }
    }
}

/// A shorter interval would measure mostly the sampling itself.
fn interval(text: &str) -> Result<Duration, String> {
    match leaving::time(text)? {
        millis @ 100.. => Ok(Duration::from_millis(millis)),
        _ => Err("must be 100ms to 1h".into()),
    }
}

/// Reads the words of [`By`].
fn by() -> impl TypedValueParser<Value = By> {
    let meant = |word: String| By::WORDS.into_iter().find_map(|(known, by)| (known == word).then_some(by));
    PossibleValuesParser::new(By::WORDS.map(|(word, _)| word)).map(move |word| meant(word).unwrap_or_default())
}

#[derive(Args)]
pub struct Publish {
    /// Channel to publish to; not with --user
    #[arg(required_unless_present = "stdin")]
    channel: Option<Box<str>>,
    /// Name of the event; names that start with socket: are the server's own
    #[arg(required_unless_present_any = ["stdin", "user"], allow_negative_numbers = true)]
    event: Option<Box<str>>,
    /// Payload: any JSON value, delivered byte for byte; without it the event has none
    #[arg(value_parser = data, allow_hyphen_values = true, conflicts_with = "user")]
    data: Option<Box<str>>,
    /// Another channel to publish to (repeatable)
    #[arg(long, value_name = "CHANNEL", conflicts_with = "user")]
    also: Vec<Box<str>>,
    /// User to publish to instead of a channel, by id (repeatable)
    #[arg(long, value_name = "ID")]
    user: Vec<Box<str>>,
    /// Connection that gets no copy, usually the one that caused the event
    #[arg(long, value_name = "SOCKET_ID")]
    exclude: Option<Box<str>>,
    /// Name of the message: a repetition within 5 minutes publishes nothing
    #[arg(long, value_name = "NAME")]
    dedupe: Option<Box<str>>,
    /// Name of the value that the message updates
    #[arg(long, value_name = "NAME")]
    key: Option<Box<str>>,
    /// Publish every line of standard input
    #[arg(long, conflicts_with_all = ["channel", "event", "data", "also", "user", "exclude", "dedupe", "key"])]
    stdin: bool,
    #[command(flatten)]
    pub server: Server,
}

impl Publish {
    /// `None`: the messages come from standard input. The error is one of usage.
    pub fn message(self) -> Result<Option<Draft>, clap::Error> {
        let Publish {
            channel: Some(first), event: second, data: third, also, user: users, exclude, dedupe, key, ..
        } = self
        else {
            return Ok(None);
        };
        let draft = Draft { users, exclude, dedupe, key, ..Draft::default() };
        if draft.users.is_empty() {
            let channels = [first].into_iter().chain(also).collect();
            return Ok(Some(Draft { channels, event: second.unwrap_or_default(), data: third, ..draft }));
        }
        // No channel is named, so the event comes first, and its data second.
        let data = second.map(|text| data(&text)).transpose();
        let data = data.map_err(|why| Cli::command().error(ErrorKind::ValueValidation, format!("DATA: {why}")))?;
        Ok(Some(Draft { event: first, data, ..draft }))
    }
}

/// The argument accepts values that begin with a minus, because a number may. Unknown options arrive here too.
fn data(text: &str) -> Result<Box<str>, String> {
    match client::data(text) {
        Err(_) if text.starts_with('-') => Err("unknown option; `corecast publish --help` lists the options".into()),
        data => data,
    }
}

#[derive(Args)]
pub struct Tail {
    /// Only channels whose names match; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    channel: Option<Box<str>>,
    /// Only clients of this network or address, which may have a port
    #[arg(long, value_name = "CIDR")]
    address: Option<Box<str>>,
    /// Only these: connect, refuse, subscribe, unsubscribe, publish, close, limit
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = PossibleValuesParser::new(KINDS).map(Box::<str>::from))]
    events: Vec<Box<str>>,
    /// One in N of them
    #[arg(long, value_name = "1/N", value_parser = sample)]
    sample: Option<u32>,
    /// At most N a second from each shard; the rest is counted [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: Option<u32>,
    /// Show the first N bytes of what is published, at most 1024
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "200", value_parser = clap::value_parser!(u16).range(..=i64::from(SHOWN_BYTES_MAX)))]
    data: Option<u16>,
    #[command(flatten)]
    pub server: Server,
}

/// Parses `1/N` or `N`.
fn sample(text: &str) -> Result<u32, String> {
    match text.strip_prefix("1/").unwrap_or(text).parse() {
        Ok(sample) if sample > 0 => Ok(sample),
        _ => Err("must be 1/N or N, as in 1/10".into()),
    }
}

#[derive(Args)]
pub struct Sign {
    /// The connection, as socket:connected names it, in either spelling
    pub socket_id: String,
    /// The private channel
    pub channel: String,
    /// channel_data, if the subscribe carries it: the same text, byte for byte
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub channel_data: Option<String>,
    #[command(flatten)]
    pub keys: Keys,
}

#[derive(Args)]
pub struct Subscribe {
    /// Names of the channels
    #[arg(value_name = "CHANNEL", required = true)]
    pub channels: Vec<String>,
    /// Where the server listens
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:9000", value_parser = dial::url)]
    pub url: Uri,
    /// Exit after this many messages
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Presence channels: the user that subscribes
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// Presence channels: what others are told about the user
    #[arg(long, value_name = "JSON", requires = "user_id")]
    user_info: Option<String>,
    /// wss://: trust certificates signed by those in this PEM file instead of the system's
    #[arg(long, value_name = "PATH")]
    ca: Option<PathBuf>,
    /// wss://: trust every certificate
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    #[command(flatten)]
    pub keys: Keys,
}

impl Subscribe {
    /// The certificates to trust.
    pub fn trust(&self) -> Trust {
        match &self.ca {
            Some(path) => Trust::Authorities(path.clone()),
            None if self.insecure => Trust::All,
            None => Trust::System,
        }
    }

    /// The `channel_data` of presence channels.
    pub fn member(&self) -> Result<Option<String>, clap::Error> {
        let Some(user_id) = &self.user_id else { return Ok(None) };
        let member = subscribe::member(user_id, self.user_info.as_deref()).ok_or_else(|| {
            Cli::command().error(ErrorKind::ValueValidation, "--user-info is not valid JSON; a string needs quotes")
        })?;
        Ok(Some(member))
    }
}

#[derive(Args)]
pub struct Keys {
    /// Key pair to sign with
    #[arg(long, value_name = "ID:SECRET")]
    key: Vec<String>,
    /// File of key pairs, one ID:SECRET a line; the first one signs
    #[arg(long, value_name = "PATH")]
    key_file: Option<String>,
    #[arg(long, value_name = "PATH", help = CONFIG_HELP)]
    config: Option<String>,
}

impl Keys {
    pub fn flags(&self) -> Flags {
        flags([("key", &self.key), ("key-file", self.key_file.as_slice()), ("config", self.config.as_slice())])
    }
}

const SUBSCRIBERS_AFTER: &str = "\
A page can be shorter than --limit; as long as it ends with a cursor, there may be more.

Examples:
  corecast subscribers user:13
  corecast subscribers news --all --json";

const SUBSCRIBE_AFTER: &str = "\
Examples:
  corecast subscribe user:13 news
  corecast subscribe private-user.13 --key-file keys
  corecast subscribe presence-room --user-id 12 --key-file keys
  corecast subscribe user:13 --count 1 --url ws://127.0.0.1:9000/
  corecast subscribe user:13 --url wss://push.example.com --ca authority.pem";

const TOP_AFTER: &str = "\
Keys: q quits, Tab and arrows choose and scroll tables, s sorts channels by subscribers or messages, p pauses, ? explains. \
Colours are those of the terminal; NO_COLOR=1 turns them off. If the server stops, top waits for it to return.

Examples:
  corecast top
  ssh -t host corecast top --interval 5s
  corecast top --once --json";

const RELOAD_AFTER: &str = "\
The server reads its configuration file, key files, environment and flags again, as at its start, and applies them at once; \
SIGHUP does the same. A configuration that is not valid changes nothing. listen, admin-socket, http, app-id, shards and pin \
need a restart: if they differ, the reply says so, and the rest applies.

Examples:
  corecast reload
  systemctl reload corecast         with ExecReload=/usr/bin/corecast reload";

const TAIL_AFTER: &str = "\
Without a filter it shows everything: new connections, refused upgrades with the reason, subscribes and unsubscribes with \
the result, publishes with the number of subscribers, how connections end (slow consumers too), and clients that hit a rate \
limit. A line with `dropped` counts what was not shown, because it was over --rate or because the output was not read. \
Payloads are shown only with --data, signatures never. A trace costs the server little, and nothing after it has ended.

Examples:
  corecast tail
  corecast tail --events publish --channel 'user:*' --sample 1/100 --data
  corecast tail --events refuse,close,limit --address 192.0.2.0/24 --json";

const EVENTS_AFTER: &str = "\
Without --since it begins with a snapshot: the channels that have subscribers and the connections, as they were at one \
number. Then every event follows, numbered without a gap, until the server stops. A channel counts as vacated once it has \
had no subscriber for 3 s. If the output is not read, the server ends the stream when it no longer keeps the next event.

Examples:
  corecast events
  corecast events --since 41 --epoch 9f3c2d01ab45ef67 --json";

const CONFIG_HELP: &str = "TOML file to read; corecast.toml in the repository is the manual";

const ABOUT: &str = "\
A WebSocket publish/subscribe server: a shard per core, each with an event loop of its own.

Without a command, corecast serves: at ws://127.0.0.1:9000, with one shard per core.";

const CLI_AFTER: &str = "\
Every option of serve has an environment variable (--outbox-limit: CORECAST_OUTBOX_LIMIT) and a key of its name in the \
file. The command line wins over the environment, the environment over the file.

Examples:
  corecast                                      serve ws://127.0.0.1:9000
  corecast publish user:13 order.paid '{\"id\": 42}'
  corecast stats

Exit status: 0 success; 1 the server refused, or does not answer; 2 wrong usage or configuration.";

const SERVE_AFTER: &str = "\
Every option has an environment variable (--outbox-limit: CORECAST_OUTBOX_LIMIT) and a key of its name in the file. The \
command line wins over the environment, the environment over the file. corecast.toml in the repository explains each one \
at length.

Examples:
  corecast serve --listen 0.0.0.0:9000 --key-file /etc/corecast/keys
  corecast serve --config corecast.toml --check-config";

const HISTORY_AFTER: &str = "\
Only channels whose rule has `history` keep messages. The last line is the channel's position: a later call with it as \
--since prints what has been published in between.

Examples:
  corecast history prices:eur
  corecast history prices:eur --since 9f3c2d01ab45ef67:1005
  corecast history prices:eur --limit 1 --reverse
  corecast history prices:eur --all --json";

const PUBLISH_USAGE: &str = "\
corecast publish [OPTIONS] CHANNEL EVENT [DATA]
       corecast publish [OPTIONS] --user ID EVENT [DATA]
       corecast publish [OPTIONS] --stdin";

const PUBLISH_AFTER: &str = "\
With --stdin every line is one message. They are sent without waiting for replies, and a summary follows:
  {\"channel\": \"user:13\", \"event\": \"order.paid\", \"data\": {\"id\": 42}}
  {\"channels\": [\"a\", \"b\"], \"event\": \"e\", \"exclude\": \"SOCKET_ID\"}

Examples:
  corecast publish user:13 order.paid '{\"id\": 42}'
  corecast publish news headline '\"a text needs its quotes\"' --also news:today
  corecast publish prices:eur tick 1.07 --key EURUSD --dedupe tick-1006
  corecast publish --user 12 order.paid '{\"id\": 42}'
  generate | corecast publish --stdin";

const SIGN_AFTER: &str = "\
Prints auth, ID:HEX, for the data of socket:subscribe. Key pairs come from --key, --key-file, CORECAST_KEY, \
CORECAST_KEY_FILE or the configuration file; the first one signs.

Example:
  corecast sign 0190b0f2-7c5e-7d3a-8a61-2f5f0c1d9e44 private-room --key-file keys";

const COMPLETIONS_AFTER: &str = "\
Examples:
  corecast completions bash > ~/.local/share/bash-completion/completions/corecast
  corecast completions zsh > ~/.zfunc/_corecast
  corecast completions fish > ~/.config/fish/completions/corecast.fish";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn message(line: &str) -> Option<Draft> {
        publish(line).message().unwrap_or_else(|error| panic!("{error}"))
    }

    fn publish(line: &str) -> Publish {
        let Some(Command::Publish(publish)) = parse(line).unwrap_or_else(|error| panic!("{error}")).command else {
            panic!("{line} is not a publish");
        };
        publish
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve() {
        let expected = [("listen".to_owned(), vec!["[::1]:0".to_owned()])];
        let bare = parse("corecast --listen [::1]:0").unwrap_or_else(|error| panic!("{error}"));
        assert!(bare.command.is_none());
        assert!(bare.serve.options.0.into_iter().eq(expected.clone()));
        let Ok(Some(Command::Serve(serve))) = parse("corecast serve --listen [::1]:0").map(|cli| cli.command) else {
            panic!("no serve");
        };
        assert!(serve.options.0.into_iter().eq(expected));
        assert!(parse("corecast").is_ok_and(|cli| cli.command.is_none() && cli.serve.options.0.is_empty()));
        assert!(parse("corecast --listen [::1]:0 stats").is_err());
    }

    #[test]
    fn every_option_reaches_its_flag() {
        for option in OPTIONS {
            let cli = parse(&format!("corecast --{} v", option.name)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(cli.serve.options.0[option.name], ["v"]);
            let twice = parse(&format!("corecast --{0} v --{0} w", option.name));
            assert_eq!(twice.is_ok(), option.repeatable, "{}", option.name);
        }
    }

    #[test]
    fn publish_takes_one_message_or_standard_input() {
        let expected = Draft {
            channels: vec!["a".into(), "b".into()],
            event: "e".into(),
            data: Some("-1.50".into()),
            exclude: Some("1.2".into()),
            ..Draft::default()
        };
        assert_eq!(message("corecast publish a e -1.50 --also b --exclude 1.2"), Some(expected));
        let expected = Draft { channels: vec!["a".into()], event: "e".into(), ..Draft::default() };
        assert_eq!(message("corecast publish a e"), Some(expected));
        assert_eq!(message("corecast publish --stdin"), None);
        for refused in ["", " a", " a e hello", " --stdin a e", " --stdin --exclude 1.2", " --stdin --key k"] {
            assert!(parse(&format!("corecast publish{refused}")).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_publish_to_users_names_no_channel() {
        let users = || vec!["12".into(), "é".into()];
        let expected = Draft { users: users(), event: "e".into(), ..Draft::default() };
        assert_eq!(message("corecast publish --user 12 --user é e"), Some(expected));
        let (data, dedupe, key) = (Some("-1E9".into()), Some("d".into()), Some("k".into()));
        let expected = Draft { users: users(), event: "e".into(), data, dedupe, key, ..Draft::default() };
        let line = "corecast publish e -1E9 --user 12 --user é --dedupe d --key k";
        assert_eq!(message(line), Some(expected));
        for refused in ["--user 12", "--user 12 c e 1", "--user 12 e --also c", "--user 12 --stdin"] {
            assert!(parse(&format!("corecast publish {refused}")).is_err(), "{refused}");
        }
        let Err(error) = publish("corecast publish --user 12 e hello").message() else { panic!("not JSON") };
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(r#"'"hello"'"#), "{error}");
    }

    #[test]
    fn data_may_begin_with_a_minus() {
        for data in ["-1", "-1.5", "-1E-9", "-0e+7"] {
            let found = message(&format!("corecast publish c e {data} --also b")).and_then(|message| message.data);
            assert_eq!(found.as_deref(), Some(data));
        }
        for refused in ["--exlude 1.2", "-x", "--json=1"] {
            assert!(parse(&format!("corecast publish c e {refused}")).is_err(), "{refused}");
        }
        let told = parse("corecast publish c e --exlude").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains("unknown option"), "{told}");
    }

    #[test]
    fn a_history_is_read_from_a_position() {
        let history = |line: &str| parse(format!("corecast history {line}").trim_end()).ok()?.command?.ask().ok();
        let asked = history("c --since 0f:7 --limit 0 --reverse --after 0f:9 --all").expect("a request");
        let since = |text: &str| text.parse::<Since>().ok();
        let expected = operation::History {
            channel: "c".into(),
            since: since("0f:7"),
            limit: Some(0),
            reverse: true,
            after: since("0f:9").map(Cursor),
        };
        assert_eq!((asked.request, asked.all), (expected.into(), true));
        let expected = operation::History { channel: "c".into(), ..operation::History::default() };
        assert_eq!(history("c").map(|asked| asked.request), Some(expected.into()));
        for refused in ["", "c --since 7", "c --since 0f:-1", "c --since 0f:9007199254740992", "c --limit 1001"] {
            assert!(history(refused).is_none(), "{refused}");
        }
    }

    #[test]
    fn a_disconnect_names_a_connection_or_a_user() {
        let disconnect = |line: &str| parse(format!("corecast disconnect {line}").trim_end()).ok()?.command?.ask().ok();
        let expected = operation::Disconnect { user: Some("12".into()), ..operation::Disconnect::default() };
        assert_eq!(disconnect("--user 12").map(|asked| asked.request), Some(expected.into()));
        for refused in ["", "1.2 --user 12"] {
            assert!(disconnect(refused).is_none(), "{refused}");
        }
    }

    #[test]
    fn a_tail_is_filtered_and_sampled() {
        let tail = |line: &str| parse(&format!("corecast tail{line}")).ok()?.command?.ask().ok().map(|ask| ask.request);
        let expected = operation::Tail {
            channel: Some("a*".into()),
            events: vec!["close".into(), "limit".into()],
            sample: Some(9),
            rate: Some(5),
            data: Some(200),
            ..operation::Tail::default()
        };
        let given = tail(" --channel a* --events close,limit --sample 1/9 --rate 5 --data");
        assert_eq!(given, Some(expected.into()));
        assert_eq!(tail(""), Some(operation::Tail::default().into()));
        for refused in [" --events shut", " --sample 0", " --sample 2/3", " --rate 0", " --data 1025"] {
            assert_eq!(tail(refused), None, "{refused}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_usage_errors() {
        for refused in [
            "disconnect 1.2 --code 3999",
            "disconnect 1.2 --code 5000",
            "channels --limit 0",
            "channels --limit 1001",
            "busiest --limit 1001",
        ] {
            let Err(error) = parse(&format!("corecast {refused}")) else {
                panic!("{refused}");
            };
            assert_eq!(error.exit_code(), 2);
        }
    }
}
