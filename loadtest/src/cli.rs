//! The command line, and the plan that it describes.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::CompareArgs;
use crate::plan::{Churn, Connect, Flood, Idle, Ping, Plan, SETUP_S, Scenario, nanoseconds, processes_for};
use crate::proof::conflate::ConflateArgs;
use crate::proof::depart::DepartArgs;
use crate::proof::mixed::MixedArgs;
use crate::proof::presence::PresenceArgs;
use crate::proof::recover::RecoverArgs;
use crate::proof::slow::SlowArgs;
use crate::proof::soak::SoakArgs;
use crate::proof::storm::StormArgs;
use crate::proof::unread::UnreadArgs;
use crate::publisher::NOWHERE;
use crate::report::ReportArgs;
use crate::server::ServerArgs;
use crate::target::{App, Dialect, KEY_PAIR, NAMES, Publish, Target};
use crate::values;

/// The load generator of corecast: loads a WebSocket pub/sub server over loopback and measures its speed and its cost.
///
/// Every run is bounded in time. Ctrl-C ends a run early, with a report. Examples:
///
///   loadtest fanout --start --subscribers 1000 --window 16
///   loadtest fanout --connect 127.0.0.1:9000 --admin-socket /run/corecast.sock --rate 20000 --expect 'last.p99<10ms'
///   loadtest idle --start --connections 15000 --report idle.html
///   loadtest compare --peers floor,bun --only w1,w16 --rounds 3
///   loadtest compare --against old/corecast --rounds 5 --seconds 1
///   loadtest depart -n 12000 --expect 'departure.ping.p999<5ms'
///   loadtest unread -n 1500 --expect 'unlimited.memory.each<256k'
///   loadtest fanout --start --history 100 --expect 'ratio.rate>0.95'
///   loadtest recover -n 10000 --expect 'ratio.caught_up<=2'
#[derive(Parser)]
#[command(name = "loadtest", version, verbatim_doc_comment)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// One publisher, many subscribers: deliveries per second, latency to the last subscriber.
    Fanout(FanoutArgs),
    /// Pings in a closed loop: round trips per second.
    Ping(RunArgs<Ping>),
    /// Idle connections: memory and CPU time per connection, heartbeats included.
    Idle(RunArgs<Idle>),
    /// Handshakes per second; with --hold, connections that drop and reconnect together.
    Connect(RunArgs<Connect>),
    /// Subscribe, unsubscribe and reconnect while messages are published; checks for gaps.
    Churn(RunArgs<Churn>),
    /// Fairness: pings and small channels without and beside a flood of a large channel.
    Mixed(MixedArgs),
    /// Slow readers: the latency of their neighbours, and the memory that they take.
    Slow(SlowArgs),
    /// Clients that send requests and read no reply: the memory that they take, and pings of others.
    Unread(UnreadArgs),
    /// Many clients drop and reconnect at once, beside a live fan-out.
    Storm(StormArgs),
    /// Many connections are reset at once: the latency of pings on other connections.
    Depart(DepartArgs),
    /// Users join and leave presence channels; at rest all views equal the server's members.
    Presence(PresenceArgs),
    /// Many subscribers of one channel are cut off and come back to what they missed, while messages are published.
    Recover(RecoverArgs),
    /// Slow readers of a channel that keeps only the last value of each key for them.
    Conflate(ConflateArgs),
    /// A long load with faults: kills, resets, half-sent frames, a full disk; counters must add up.
    Soak(SoakArgs),
    /// Run a peer server in the foreground: floor, bun, node-ws, nchan, nats …
    Peer(PeerArgs),
    /// Compare corecast with peers or with an older binary, round by round, as ratios.
    Compare(CompareArgs),
    /// A further process of a run; started by the program itself.
    #[command(hide = true)]
    Worker,
}

/// Options of every scenario.
#[derive(Args, Clone)]
pub struct Common {
    /// Measured time, in seconds.
    #[arg(long, short, default_value_t = 10.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Time before the measured time, in seconds.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = values::seconds_or_none)]
    pub warmup: f64,
    /// Time limit for connecting and subscribing, in seconds.
    #[arg(long, default_value_t = SETUP_S, value_name = "SECONDS", value_parser = values::seconds)]
    pub setup: f64,
    /// The kind of server.
    #[arg(long, default_value = "corecast", value_name = "NAME", help = format!("The kind of server: {} or custom", NAMES.join(", ")))]
    pub target: String,
    /// The server's address: an IP address or a name, and a port.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "HOST:PORT", value_parser = endpoint)]
    pub connect: SocketAddr,
    /// The server's admin socket, for targets that are published to through one.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// The server's TCP address for publishers, if that is another one.
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    pub publish_to: Option<SocketAddr>,
    /// Start the server, and end it afterwards, instead of connecting to a running one.
    #[arg(long, conflicts_with_all = ["connect", "admin_socket", "publish_to", "server_pid"])]
    pub start: bool,
    /// Options of the server that --start starts.
    #[command(flatten)]
    pub server: ServerArgs,
    /// The core for the first client thread; further threads take the next ones.
    #[arg(long, value_name = "CORE")]
    pub client_core: Option<usize>,
    /// The server's process, to measure its CPU time and memory [default with --start: known].
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Count the system calls of the server. Needs perf, and slows the calls a little.
    #[arg(long)]
    pub syscalls: bool,
    /// Threads in each process of the load generator.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Processes of the load generator, at most 64 [default: as many as the limit of open files requires].
    #[arg(long)]
    pub processes: Option<usize>,
    /// Check every message as a whole (JSON, channel, payload, ids). Costs the client much CPU time.
    #[arg(long)]
    pub verify: bool,
    /// Number of the first channel, to keep runs beside each other apart.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1 << 30))]
    pub first_channel: u32,
    /// Interval of the socket:ping that every connection sends, in seconds; 0 for none.
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds_or_none)]
    pub heartbeat: Option<f64>,
    /// Options of the report.
    #[command(flatten)]
    pub report: ReportArgs,
    /// The application of a server that speaks Pusher's protocol.
    #[command(flatten)]
    pub app: AppArgs,
    /// The protocol of a custom server.
    #[command(flatten)]
    pub custom: Custom,
}

/// The application of a server that speaks Pusher's protocol, and the way to publish to it.
#[derive(Args, Clone)]
#[command(next_help_heading = "With Pusher's protocol and signed REST")]
pub struct AppArgs {
    /// App ID, in the paths of REST.
    #[arg(long, default_value = "1", value_name = "ID")]
    pub app_id: String,
    /// Key, in the path of the WebSocket and in signatures [default: that of servers started by --start].
    #[arg(long, default_value = KEY_PAIR.0, hide_default_value = true, value_name = "KEY")]
    pub app_key: String,
    /// Secret of the key.
    #[arg(long, default_value = KEY_PAIR.1, hide_default_value = true, value_name = "SECRET", conflicts_with = "start")]
    pub app_secret: String,
    /// Messages in a request of signed REST; above 1 they go to batch_events.
    #[arg(long, default_value_t = 1, value_name = "MESSAGES", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch: u16,
    /// Requests in flight on each connection of signed REST.
    #[arg(long, default_value_t = 1, value_name = "REQUESTS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub pipeline: u16,
    /// With --target corecast-both: the share of connections that speak Pusher's protocol.
    #[arg(long, default_value_t = 0.5, value_name = "0 TO 1", value_parser = values::share)]
    pub pusher_share: f64,
}

/// The protocol of a server that is not known by name (--target custom).
#[derive(Args, Clone)]
#[command(next_help_heading = "With --target custom (holes: {channel} {data} {body} {len} {n})")]
pub struct Custom {
    /// Path of the WebSocket.
    #[arg(long, default_value = "/", value_name = "TEMPLATE")]
    pub path: String,
    /// A text in the first frame, for servers that send one.
    #[arg(long, value_name = "TEXT")]
    pub greeting: Option<String>,
    /// The message that subscribes; leave it out where the path does.
    #[arg(long, value_name = "TEMPLATE")]
    pub subscribe: Option<String>,
    /// A text in the answer to --subscribe.
    #[arg(long, value_name = "TEXT")]
    pub subscribed: Option<String>,
    /// A message that the server answers with one frame.
    #[arg(long, value_name = "TEMPLATE")]
    pub ping: Option<String>,
    /// How to publish.
    #[arg(long, value_enum, default_value = "web-socket")]
    pub publish_via: Via,
    /// The message, the line (its end is added), or the path of the POST.
    #[arg(long, value_name = "TEMPLATE", default_value = "{body}")]
    pub publish: String,
}

/// How to publish to a custom server.
#[derive(Clone, Copy, ValueEnum)]
pub enum Via {
    /// As a text message on a WebSocket of its own.
    WebSocket,
    /// As a POST whose body is the message.
    Http,
    /// As a line on --admin-socket or --publish-to.
    Lines,
}

/// One publisher, many subscribers.
#[derive(Args)]
pub struct FanoutArgs {
    /// The load.
    #[command(flatten)]
    pub flood: Flood,
    /// Publish as fast as the server reads, limited only by its backpressure.
    #[arg(long, conflicts_with_all = ["window", "rate"])]
    pub flat_out: bool,
    /// Compare with the same run on channels that keep so many messages each, round by round.
    #[arg(long, value_name = "MESSAGES", requires = "start", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub history: Option<u32>,
    /// Rounds of --history; each is a run without and a run with it.
    #[arg(long, default_value_t = 5, requires = "history", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// Options of every scenario.
    #[command(flatten)]
    pub common: Common,
}

/// A load, and the options of every scenario.
#[derive(Args)]
pub struct RunArgs<Load: Args> {
    /// The load.
    #[command(flatten)]
    pub load: Load,
    /// Options of every scenario.
    #[command(flatten)]
    pub common: Common,
}

/// A peer server in the foreground.
#[derive(Args)]
pub struct PeerArgs {
    /// The peer.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(NAMES))]
    pub name: String,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "HOST:PORT", value_parser = endpoint)]
    pub listen: SocketAddr,
    /// The Unix socket for publishers (floor only).
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// The core to run on.
    #[arg(long)]
    pub core: Option<usize>,
}

impl Common {
    /// The plan for a scenario, with the address and the sockets of the command line. `Server::aim` replaces them with
    /// those of a server that was started.
    pub fn plan(&self, scenario: Scenario) -> anyhow::Result<Plan> {
        ensure!(
            self.connect.ip().is_loopback(),
            "{} is not a loopback address: this program loads nothing else",
            self.connect
        );
        let heartbeat = match (self.heartbeat, &scenario) {
            (Some(seconds), _) => seconds,
            // These runs may be longer than the idle timeout of the server.
            (None, Scenario::Idle(_) | Scenario::Flood(_)) => 25.0,
            (None, _) => 0.0,
        };
        let mut plan = Plan {
            admin_socket: self.admin_socket.clone(),
            publish_to: self.publish_to,
            threads: self.threads,
            warmup_ns: nanoseconds(self.warmup),
            setup_ns: nanoseconds(self.setup),
            verify: self.verify,
            heartbeat_ns: nanoseconds(heartbeat),
            client_core: self.client_core,
            first_channel: self.first_channel,
            counts_syscalls: self.syscalls,
            ..Plan::new(self.target()?, self.connect, scenario, nanoseconds(self.duration))
        };
        plan.processes = self.processes.unwrap_or_else(|| processes_for(plan.connections()));
        plan.check()?;
        let publishes = match &plan.scenario {
            Scenario::Flood(_) => true,
            Scenario::Churn(churn) => churn.rate > 0.0,
            _ => false,
        };
        let has_way = self.start || self.admin_socket.is_some() || self.publish_to.is_some();
        ensure!(has_way || !publishes || !matches!(plan.target.publish, Publish::Lines { .. }), "{NOWHERE}");
        Ok(plan)
    }

    fn target(&self) -> anyhow::Result<Target> {
        if self.target != "custom" {
            let app = &self.app;
            let (id, key, secret) = (app.app_id.clone(), app.app_key.clone(), app.app_secret.clone());
            let app = App { id, key, secret, pipeline: app.pipeline.into(), batch: app.batch.into() };
            let mut target = Target::with_app(&self.target, app).with_context(|| {
                format!("no target is called {}; there are {} and custom", self.target, NAMES.join(", "))
            })?;
            if let Some((share, _)) = &mut target.second {
                *share = self.app.pusher_share;
            }
            return Ok(target);
        }
        let custom = &self.custom;
        let template = custom.publish.replace("\\r", "\r").replace("\\n", "\n");
        Ok(Target {
            name: "custom".into(),
            dialect: Dialect {
                path: custom.path.as_str().into(),
                greeting: custom.greeting.clone(),
                subscribe: custom.subscribe.as_deref().map(Into::into),
                subscribed: custom.subscribed.clone(),
                unsubscribe: Vec::new(),
                unsubscribed: None,
                ping: custom.ping.as_deref().map(Into::into),
                ..Dialect::native()
            },
            second: None,
            tls: None,
            publish: match custom.publish_via {
                Via::WebSocket => Publish::WebSocket { template: template.into() },
                Via::Http => Publish::Http { path: template.into() },
                Via::Lines => Publish::Lines { hello: None, template: format!("{template}\n").into() },
            },
        })
    }
}

/// Resolves `HOST:PORT`. Of several addresses (localhost is often ::1 and 127.0.0.1) it takes the first that accepts a
/// connection.
fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let resolved = text.to_socket_addrs().map_err(|error| format!("{error}: give HOST:PORT"))?;
    let addresses: Vec<SocketAddr> = resolved.collect();
    let first = addresses.first().copied().ok_or("the name has no address")?;
    let is_open = |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE).is_ok();
    Ok(if addresses.len() > 1 { addresses.iter().find(is_open).copied().unwrap_or(first) } else { first })
}

impl FanoutArgs {
    /// The flood these options describe.
    pub fn flood(&self) -> Flood {
        Flood {
            channels_each: self.flood.channels_each.min(self.flood.channels),
            window: if self.flat_out { WINDOW_FLAT_OUT } else { self.flood.window },
            ..self.flood.clone()
        }
    }
}

/// Time for the probe of an address. A loopback address answers at once.
const PROBE: Duration = Duration::from_millis(500);
/// More publishes than any server accepts before it has delivered them.
const WINDOW_FLAT_OUT: u32 = 1 << 17;
