//! The command line, and how it becomes a plan.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::CompareArgs;
use crate::expect::Expect;
use crate::plan::{Flood, Plan, SETUP_S, Scenario, processes_for};
use crate::proof::depart::DepartArgs;
use crate::proof::mixed::MixedArgs;
use crate::proof::slow::SlowArgs;
use crate::proof::soak::SoakArgs;
use crate::proof::storm::StormArgs;
use crate::publisher::NOWHERE;
use crate::target::{NAMES, Publish, Target};

/// The load generator of corecast: drives a WebSocket pub/sub server over loopback, and says what it and its deliveries cost.
///
/// Every run is bounded in time; Ctrl-C ends it early and still reports. Examples:
///
///   loadtest fanout --start --subscribers 1000 --window 16
///   loadtest fanout --connect 127.0.0.1:9000 --admin-socket /run/corecast.sock --rate 20000 --expect 'last.p99<10ms'
///   loadtest idle --start --connections 15000 --report idle.html
///   loadtest compare --peers floor,bun --only w1,w16 --rounds 3
#[derive(Parser)]
#[command(name = "loadtest", version, verbatim_doc_comment)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// One publisher, many subscribers: deliveries a second, and how late the last subscriber is.
    Fanout(FanoutArgs),
    /// Pings in a closed loop: how fast small messages go both ways.
    Ping(PingArgs),
    /// Connections that do nothing: memory and CPU time of one, heartbeats included.
    Idle(IdleArgs),
    /// Handshakes a second; with --hold, a crowd that is dropped and comes back together.
    Connect(ConnectArgs),
    /// Subscribing, unsubscribing and reconnecting while messages are published; checks that nothing is missing between.
    Churn(ChurnArgs),
    /// Fairness: pings and small channels without and beside a flood of a large channel.
    Mixed(MixedArgs),
    /// Slow readers: what one costs its neighbours, and a thousand in memory.
    Slow(SlowArgs),
    /// A crowd drops and comes back at once, beside a live fan-out.
    Storm(StormArgs),
    /// Many connections with many subscriptions each are reset at once: what it does to the pings of others.
    Depart(DepartArgs),
    /// A load with faults for a long time: kills, resets, half-sent frames, no descriptors, a full disk; everything adds up.
    Soak(SoakArgs),
    /// Runs a peer server in the foreground: floor, bun, node-ws, tokio-tungstenite, nchan, nats …
    Peer(PeerArgs),
    /// Compares corecast with peers, round by round, each on a core of its own; prints ratios.
    Compare(CompareArgs),
    /// A further process of a run (not for people).
    #[command(hide = true)]
    Worker,
}

/// Options of every scenario.
#[derive(Args, Clone)]
pub struct Common {
    /// Measured time, in seconds.
    #[arg(long, short, default_value_t = 10.0, value_name = "SECONDS")]
    pub duration: f64,
    /// Time before it that does not count, in seconds.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub warmup: f64,
    /// Time for connecting and subscribing before the warm-up, in seconds. What is not ready then is given up.
    #[arg(long, default_value_t = SETUP_S, value_name = "SECONDS")]
    pub setup: f64,
    /// What kind of server this is.
    #[arg(long, default_value = "corecast", value_name = "NAME", help = format!("What kind of server this is: {} or custom", NAMES.join(", ")))]
    pub target: String,
    /// Where it listens: an address or a name, and a port.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "HOST:PORT", value_parser = endpoint)]
    pub connect: SocketAddr,
    /// Its admin socket, where publishing goes through one.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Where publishing goes to a TCP address of its own.
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    pub publish_to: Option<SocketAddr>,
    /// Start the server (and end it afterwards), instead of connecting to a running one.
    #[arg(long)]
    pub start: bool,
    /// The corecast binary that --start starts [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    pub server_bin: Option<PathBuf>,
    /// Shards of the corecast that --start starts.
    #[arg(long, default_value_t = 1)]
    pub shards: usize,
    /// The core for the server that --start starts.
    #[arg(long, value_name = "CORE")]
    pub server_core: Option<usize>,
    /// The core for the first client thread; further threads take the next ones.
    #[arg(long, value_name = "CORE")]
    pub client_core: Option<usize>,
    /// The server's process, for what it costs; known with --start.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Count the system calls of the server. Needs perf, and slows them a little.
    #[arg(long)]
    pub syscalls: bool,
    /// Threads in each process of the load generator.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Processes of the load generator [default: as many as the descriptor limit asks for].
    #[arg(long)]
    pub processes: Option<usize>,
    /// Look at every message as a whole (JSON, channel, payload, ids). Costs the client a lot.
    #[arg(long)]
    pub verify: bool,
    /// Number of the first channel, for runs beside each other.
    #[arg(long, default_value_t = 0)]
    pub first_channel: u32,
    /// Every connection sends a socket:ping this often, in seconds; 0 for never.
    #[arg(long, value_name = "SECONDS")]
    pub heartbeat: Option<f64>,
    /// Fail (exit status 1) unless this holds; repeatable. Metrics: p50, p99, p999, max, rate, connected, ...; of one latency:
    /// last.p99. Losses: lost, undelivered, unconnected, disconnected, unanswered, refused, unsent, duplicated, reordered,
    /// invalid. Units: us, ms, s, k, M, %.
    #[arg(long, value_name = "'p99<5ms'")]
    pub expect: Vec<Expect>,
    /// Print the results as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write a page with percentile curves and throughput over time.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// The server's custom ways.
    #[command(flatten)]
    pub custom: Custom,
}

/// How a server that is not known by name wants to be talked to (--target custom).
#[derive(Args, Clone)]
#[command(next_help_heading = "With --target custom (holes: {channel} {data} {body} {len} {n})")]
pub struct Custom {
    /// Path of the WebSocket.
    #[arg(long, default_value = "/", value_name = "TEMPLATE")]
    pub path: String,
    /// A text in the first frame, where the server speaks first.
    #[arg(long, value_name = "TEXT")]
    pub greeting: Option<String>,
    /// What to say to subscribe; leave out where the path says it.
    #[arg(long, value_name = "TEMPLATE")]
    pub subscribe: Option<String>,
    /// A text in the answer to it.
    #[arg(long, value_name = "TEXT")]
    pub subscribed: Option<String>,
    /// What to say so that the server answers with one frame.
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
    /// Subscribers; number i hears channel i modulo the number of channels.
    #[arg(long, short = 'n', default_value_t = 1000)]
    pub subscribers: usize,
    /// Channels; publishes take turns over them.
    #[arg(long, short = 'c', default_value_t = 1)]
    pub channels: u32,
    /// Channels that each subscriber hears: its own and the ones after it.
    #[arg(long, default_value_t = 1, value_name = "CHANNELS")]
    pub channels_each: u32,
    /// Closed loop: publishes outstanding until the last subscriber has them.
    #[arg(long, short = 'w', default_value_t = 16)]
    pub window: u32,
    /// Publish as fast as the server takes it: nothing but its back-pressure holds the publisher.
    #[arg(long, conflicts_with_all = ["window", "rate"])]
    pub flat_out: bool,
    /// Open loop instead: publishes per second, whatever becomes of them. Latencies count from when each was due.
    #[arg(long, short = 'r')]
    pub rate: Option<f64>,
    /// Bytes of payload (the JSON value of `data`), at least 28.
    #[arg(long, short = 's', default_value_t = 128)]
    pub size: usize,
    /// Options of every scenario.
    #[command(flatten)]
    pub common: Common,
}

/// Pings in a closed loop.
#[derive(Args)]
pub struct PingArgs {
    /// Connections.
    #[arg(long, short = 'n', default_value_t = 1000)]
    pub connections: usize,
    /// Pings in flight on each.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Options of every scenario.
    #[command(flatten)]
    pub common: Common,
}

/// Idle connections.
#[derive(Args)]
pub struct IdleArgs {
    /// Connections.
    #[arg(long, short = 'n', default_value_t = 15_000)]
    pub connections: usize,
    /// Subscribe each to one of so many channels.
    #[arg(long, short = 'c', default_value_t = 0)]
    pub channels: u32,
    /// Options of every scenario.
    #[command(flatten)]
    pub common: Common,
}

/// Handshakes.
#[derive(Args)]
pub struct ConnectArgs {
    /// Handshakes in flight.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// So many connections stay until all are there, are dropped at once, and come back together.
    #[arg(long, default_value_t = 0)]
    pub hold: usize,
    /// Options of every scenario.
    #[command(flatten)]
    pub common: Common,
}

/// Churn.
#[derive(Args)]
pub struct ChurnArgs {
    /// Connections.
    #[arg(long, short = 'n', default_value_t = 200)]
    pub connections: usize,
    /// Channels to choose from.
    #[arg(long, short = 'c', default_value_t = 20)]
    pub channels: u32,
    /// Share of operations that are reconnects.
    #[arg(long, default_value_t = 0.05)]
    pub reconnect: f64,
    /// Publishes per second, spread over the channels.
    #[arg(long, short = 'r', default_value_t = 5_000.0)]
    pub rate: f64,
    /// Bytes of payload.
    #[arg(long, short = 's', default_value_t = 128)]
    pub size: usize,
    /// Options of every scenario.
    #[command(flatten)]
    pub common: Common,
}

/// A peer server in the foreground.
#[derive(Args)]
pub struct PeerArgs {
    /// Which one.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(NAMES))]
    pub name: String,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "HOST:PORT", value_parser = endpoint)]
    pub listen: SocketAddr,
    /// The floor's Unix socket for publishers.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// The core it may use.
    #[arg(long)]
    pub core: Option<usize>,
}

impl Common {
    /// The plan for a scenario. The address and the sockets are those of the command line; a server that is started has
    /// its own.
    pub fn plan(&self, scenario: Scenario) -> anyhow::Result<Plan> {
        ensure!(self.connect.ip().is_loopback(), "{} is not loopback: this program loads nothing else", self.connect);
        let nanoseconds = |seconds: f64| (seconds.clamp(0.0, 1e7) * 1e9) as u64;
        let heartbeat = match (self.heartbeat, &scenario) {
            (Some(seconds), _) => seconds,
            // Longer than the others last; where connections stay, they keep themselves alive.
            (None, Scenario::Idle { .. } | Scenario::Flood(_)) => 25.0,
            (None, _) => 0.0,
        };
        let mut plan = Plan {
            target: self.target()?,
            address: self.connect,
            admin_socket: self.admin_socket.clone(),
            publish_to: self.publish_to,
            scenario,
            threads: self.threads,
            processes: 1,
            duration_ns: nanoseconds(self.duration),
            warmup_ns: nanoseconds(self.warmup),
            setup_ns: nanoseconds(self.setup),
            verify: self.verify,
            heartbeat_ns: nanoseconds(heartbeat),
            client_core: self.client_core,
            first_channel: self.first_channel,
            counts_syscalls: self.syscalls,
            is_background: false,
        };
        plan.processes = self.processes.unwrap_or_else(|| processes_for(plan.connections()));
        plan.check()?;
        let publishes = match &plan.scenario {
            Scenario::Flood(_) => true,
            Scenario::Churn { rate, .. } => *rate > 0.0,
            _ => false,
        };
        let has_way = self.start || self.admin_socket.is_some() || self.publish_to.is_some();
        ensure!(has_way || !publishes || !matches!(plan.target.publish, Publish::Lines { .. }), "{NOWHERE}");
        Ok(plan)
    }

    fn target(&self) -> anyhow::Result<Target> {
        if self.target != "custom" {
            return Target::named(&self.target).with_context(|| {
                format!("no target is called {}; there are {} and custom", self.target, NAMES.join(", "))
            });
        }
        let custom = &self.custom;
        let template = custom.publish.replace("\\r", "\r").replace("\\n", "\n");
        Ok(Target {
            name: "custom".into(),
            tls: None,
            path: custom.path.as_str().into(),
            greeting: custom.greeting.clone(),
            subscribe: custom.subscribe.as_deref().map(Into::into),
            subscribed: custom.subscribed.clone(),
            unsubscribe: None,
            unsubscribed: None,
            ping: custom.ping.as_deref().map(Into::into),
            binary: false,
            packed: false,
            publish: match custom.publish_via {
                Via::WebSocket => Publish::WebSocket { template: template.into() },
                Via::Http => Publish::Http { path: template.into() },
                Via::Lines => Publish::Lines { hello: None, template: format!("{template}\n").into() },
            },
        })
    }
}

/// Resolves `HOST:PORT`. Of several addresses (localhost is often ::1 and 127.0.0.1) the first that accepts a connection.
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
            subscribers: self.subscribers,
            channels: self.channels.max(1),
            channels_each: self.channels_each.clamp(1, self.channels.max(1)),
            window: if self.flat_out { WINDOW_FLAT_OUT } else { self.window.max(1) },
            rate: self.rate.filter(|rate| *rate > 0.0),
            size: self.size,
            pingers: 0,
            ping_every_ns: 0,
        }
    }
}

/// Loopback answers at once.
const PROBE: Duration = Duration::from_millis(500);
/// More than any server takes before it has delivered.
const WINDOW_FLAT_OUT: u32 = 1 << 17;
