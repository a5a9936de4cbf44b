//! The description of a run, which can be sent to other processes.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::target::Target;
use crate::values;

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The kind of server.
    pub target: Target,
    /// Its address.
    pub address: SocketAddr,
    /// Its admin socket, for targets that are published to through one.
    pub admin_socket: Option<PathBuf>,
    /// Its TCP address for publishers, where that is another one.
    pub publish_to: Option<SocketAddr>,
    /// The load.
    pub scenario: Scenario,
    /// Threads in each process.
    pub threads: usize,
    /// Processes, this one included.
    pub processes: usize,
    /// Measured time.
    pub duration_ns: u64,
    /// Time before the measured time.
    pub warmup_ns: u64,
    /// Time limit for connecting and subscribing. Connections that are not ready then are given up.
    pub setup_ns: u64,
    /// Check every message as a whole.
    pub verify: bool,
    /// Interval of the `socket:ping` that every connection sends; 0 for none.
    pub heartbeat_ns: u64,
    /// The core for the first thread; further threads take the next ones.
    pub client_core: Option<usize>,
    /// Number of the first channel, so that runs beside each other have channels of their own.
    pub first_channel: u32,
    /// Count the system calls of the server, which costs it a little.
    pub counts_syscalls: bool,
    /// The run loads the server beside a run that measures, and gets the lowest priority so that it takes no CPU time from it.
    pub is_background: bool,
}

/// The kinds of load. `fanout` is a flood, and `mixed`, `storm` and `soak` use floods.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Scenario {
    /// Messages published to subscribers, optionally with pings on other connections.
    Flood(Flood),
    /// Pings in a closed loop.
    Ping(Ping),
    /// Idle connections, which may all depart at once.
    Idle(Idle),
    /// Subscribers of one channel that are all cut off and come back when the run is told to.
    Recover(Recover),
    /// Users of presence channels that leave and come back.
    Presence(Presence),
    /// Handshakes.
    Connect(Connect),
    /// Connections that subscribe, unsubscribe and reconnect all the time.
    Churn(Churn),
}

/// One publisher, many subscribers.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Flood {
    /// Subscribers; number i is subscribed to channel i modulo the number of channels.
    #[arg(long, short = 'n', default_value_t = 1000)]
    pub subscribers: usize,
    /// Channels; publishes take turns over them.
    #[arg(long, short = 'c', default_value_t = 1, value_parser = values::channels())]
    pub channels: u32,
    /// Channels of each subscriber: its own and the ones after it.
    #[arg(long, default_value_t = 1, value_name = "CHANNELS", value_parser = values::channels())]
    pub channels_each: u32,
    /// Closed loop: publishes in flight, each until its last subscriber has it.
    #[arg(long, short = 'w', default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub window: u32,
    /// Open loop: publishes per second. Latencies count from the time at which each was due.
    #[arg(long, short = 'r', value_parser = values::rate)]
    pub rate: Option<f64>,
    /// Bytes of payload (the JSON value of `data`), at least 28.
    #[arg(long, short = 's', default_value_t = 128, value_parser = values::size())]
    pub size: usize,
    /// Further connections, which send pings.
    #[arg(skip)]
    pub pingers: usize,
    /// Time between two pings of one of them.
    #[arg(skip)]
    pub ping_every_ns: u64,
}

/// Pings in a closed loop.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Ping {
    /// Connections.
    #[arg(long, short = 'n', default_value_t = 1000)]
    pub connections: usize,
    /// Pings in flight on each.
    #[arg(long, default_value_t = 1, value_parser = values::count())]
    pub depth: usize,
}

/// Idle connections.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Idle {
    /// Connections.
    #[arg(long, short = 'n', default_value_t = 15_000)]
    pub connections: usize,
    /// Channels; each connection is subscribed to one. 0 for no subscription.
    #[arg(long, short = 'c', default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1 << 24))]
    pub channels: u32,
    /// Channels of each connection, with consecutive numbers.
    #[arg(skip = 1u32)]
    pub each: u32,
    /// What happens to all of them at once when the run is told to.
    #[arg(skip)]
    pub departure: Option<Departure>,
}

/// How connections depart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Departure {
    /// They are reset, and do not come back.
    Reset,
    /// They are closed, and reconnect at once.
    Reconnect,
}

/// Handshakes.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Connect {
    /// Handshakes in flight.
    #[arg(long, default_value_t = 64, value_parser = values::count())]
    pub in_flight: usize,
    /// Connections to hold: they drop when all are open, and reconnect together; 0 to close each at once.
    #[arg(long, default_value_t = 0)]
    pub hold: usize,
}

/// Subscribe, unsubscribe, reconnect.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Churn {
    /// Connections.
    #[arg(long, short = 'n', default_value_t = 200)]
    pub connections: usize,
    /// Channels to choose from.
    #[arg(long, short = 'c', default_value_t = 20, value_parser = values::channels())]
    pub channels: u32,
    /// Share of operations that are reconnects.
    #[arg(long, default_value_t = 0.05, value_parser = values::share)]
    pub reconnect: f64,
    /// Publishes per second, spread over the channels.
    #[arg(long, short = 'r', default_value_t = 5_000.0, value_parser = values::rate_or_none)]
    pub rate: f64,
    /// Bytes of payload, at least 28.
    #[arg(long, short = 's', default_value_t = 128, value_parser = values::size())]
    pub size: usize,
}

/// Subscribers of one channel that are cut off and come back.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Recover {
    /// Clients, all subscribed to one channel.
    #[arg(long, short = 'n', default_value_t = 10_000, value_parser = values::count())]
    pub connections: usize,
    /// They come back with the position of their last message.
    #[arg(skip)]
    pub since: bool,
    /// Publishes per second to the channel.
    #[arg(long, short = 'r', default_value_t = 1_000.0, value_parser = values::rate)]
    pub rate: f64,
    /// Bytes of payload, at least 28. Clients that cannot keep up before the cut miss more messages: two cores carry ten million
    /// deliveries a second of small ones only.
    #[arg(long, short = 's', default_value_t = 28, value_parser = values::size())]
    pub size: usize,
    /// Time from the cut to the return, in seconds. A client recovers at most 1 000 messages.
    #[arg(long, default_value_t = 0.25, value_name = "SECONDS", value_parser = values::seconds_or_none)]
    pub away: f64,
}

/// Users of presence channels that leave and come back.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Presence {
    /// Users, each with one connection.
    #[arg(long, short = 'n', default_value_t = 5_000, value_parser = values::count())]
    pub users: usize,
    /// Users of a channel.
    #[arg(long, short = 'c', default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=100_000))]
    pub each: usize,
    /// Departures per second, and as many returns.
    #[arg(long, short = 'r', default_value_t = 100.0, value_parser = values::rate_or_none)]
    pub rate: f64,
    /// Mean time until a user comes back, in seconds. Below the grace more users return within it.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS", value_parser = values::seconds_or_none)]
    pub away: f64,
    /// The server's --presence-grace, in seconds.
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=5))]
    pub grace: u64,
}

impl Idle {
    /// The channel of subscription `at` of all of them.
    pub fn channel_of(&self, at: usize) -> u32 {
        (at % self.channels.max(1) as usize) as u32
    }
}

impl Default for Flood {
    /// Publishes to one channel without subscribers, one after the other.
    fn default() -> Flood {
        Flood {
            subscribers: 0,
            channels: 1,
            channels_each: 1,
            window: 1,
            rate: None,
            size: 128,
            pingers: 0,
            ping_every_ns: 0,
        }
    }
}

impl Plan {
    /// A run of one thread, without a warm-up.
    pub fn new(target: Target, address: SocketAddr, scenario: Scenario, duration_ns: u64) -> Plan {
        Plan {
            target,
            address,
            admin_socket: None,
            publish_to: None,
            scenario,
            threads: 1,
            processes: 1,
            duration_ns,
            warmup_ns: 0,
            setup_ns: nanoseconds(SETUP_S),
            verify: false,
            heartbeat_ns: 0,
            client_core: None,
            first_channel: 0,
            counts_syscalls: false,
            is_background: false,
        }
    }

    /// Refuses a run that needs more processes, threads or descriptors than are allowed.
    pub fn check(&self) -> anyhow::Result<()> {
        size(self.connections(), self.processes, self.threads)
    }

    /// Connections of the whole run.
    pub fn connections(&self) -> usize {
        match &self.scenario {
            Scenario::Flood(flood) => flood.subscribers + flood.pingers,
            Scenario::Idle(idle) => idle.connections,
            Scenario::Recover(recover) => recover.connections,
            Scenario::Presence(presence) => presence.users,
            Scenario::Ping(ping) => ping.connections,
            Scenario::Connect(connect) => connect.in_flight.max(connect.hold),
            Scenario::Churn(churn) => churn.connections,
        }
    }

    /// Workers of the whole run.
    pub fn workers(&self) -> usize {
        self.threads * self.processes
    }
}

fn size(connections: usize, processes: usize, threads: usize) -> anyhow::Result<()> {
    let each = connections_per_process();
    ensure!(
        (1..=PROCESSES_MAX).contains(&processes),
        "{connections} connections in {processes} processes: the limit is {PROCESSES_MAX} processes of {each} connections; \
         ask for at most {} connections or raise the limit of open files (ulimit -Hn)",
        PROCESSES_MAX * each
    );
    ensure!((1..=THREADS_MAX).contains(&threads), "{threads} threads: there must be 1 to {THREADS_MAX}");
    ensure!(
        connections.div_ceil(processes) <= each,
        "{connections} connections in {processes} processes: the limit of a process is {each} (ulimit -Hn); ask for fewer, or use more processes"
    );
    Ok(())
}

/// Seconds in nanoseconds.
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds.clamp(0.0, 1e7) * 1e9) as u64
}

/// The number of processes that so many connections need. [`Plan::check`] refuses it if it is too large.
pub fn processes_for(connections: usize) -> usize {
    connections.div_ceil(connections_per_process()).max(1)
}

/// Connections that one process may open. Each takes a descriptor, and some descriptors have other uses.
pub fn connections_per_process() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let descriptors = limit.current.unwrap_or(u64::MAX).min(CONNECTIONS_EACH_MAX + DESCRIPTORS_SPARE) as usize;
    descriptors.saturating_sub(DESCRIPTORS_SPARE as usize).max(1)
}

/// Default time limit for connecting and subscribing, in seconds.
pub const SETUP_S: f64 = 60.0;
/// Limit of processes in a run.
const PROCESSES_MAX: usize = 64;
/// Limit of threads in a process.
const THREADS_MAX: usize = 256;
/// Limit of connections in a process whose descriptors are not limited.
const CONNECTIONS_EACH_MAX: u64 = 1_000_000;
const DESCRIPTORS_SPARE: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_needs_too_many_processes_is_refused() {
        let check = |connections, processes, threads| size(connections, processes, threads).map_err(|e| e.to_string());
        assert_eq!(check(100, 1, 1), Ok(()));
        let most = connections_per_process() * PROCESSES_MAX;
        assert_eq!(check(most, processes_for(most), 1), Ok(()));
        let error = check(most + 1, processes_for(most + 1), 1).unwrap_err();
        assert!(error.contains("the limit is 64 processes"), "{error}");
        assert!(check(99_999_999, processes_for(99_999_999), 1).is_err());
        assert!(check(connections_per_process() + 1, 1, 1).unwrap_err().contains("ulimit -Hn"));
        assert!(check(1, 65, 1).is_err() && check(1, 1, 257).is_err() && check(1, 0, 1).is_err());
    }
}
