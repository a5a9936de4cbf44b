//! What a run is to do, in a form that can be handed to other processes.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::target::Target;

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Whom to talk to.
    pub target: Target,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its admin socket, where publishing goes through one.
    pub admin_socket: Option<PathBuf>,
    /// Where publishing goes to another TCP address.
    pub publish_to: Option<SocketAddr>,
    /// What to do with it.
    pub scenario: Scenario,
    /// Threads in each process.
    pub threads: usize,
    /// Processes, this one included.
    pub processes: usize,
    /// Measured time.
    pub duration_ns: u64,
    /// Time before it, which does not count.
    pub warmup_ns: u64,
    /// Look at every message as a whole.
    pub verify: bool,
    /// Every connection sends a `socket:ping` this often; 0 for never.
    pub heartbeat_ns: u64,
    /// The core for the first thread; further threads take the next ones.
    pub client_core: Option<usize>,
    /// Number of the first channel, so that runs beside each other have channels of their own.
    pub first_channel: u32,
    /// Count the system calls of the server, which costs it a little.
    pub counts_syscalls: bool,
    /// It makes trouble for another run, whose measurements must not wait for its own CPU time: lowest priority.
    pub is_background: bool,
}

/// The kinds of work there are. `fanout`, `mixed` and `soak` are all floods.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Scenario {
    /// Messages published to subscribers, perhaps with pings beside them.
    Flood(Flood),
    /// Pings in a closed loop.
    Ping {
        /// Connections.
        connections: usize,
        /// Pings in flight on each.
        depth: usize,
    },
    /// Connections that do nothing but stay.
    Idle {
        /// Connections.
        connections: usize,
        /// Channels they are subscribed to, taking turns; 0 for none.
        channels: u32,
    },
    /// Connections that stay until they are told to drop and to come back, all at once.
    Crowd {
        /// Connections.
        connections: usize,
        /// Channels they are subscribed to, taking turns; 0 for none.
        channels: u32,
    },
    /// Handshakes.
    Connect {
        /// Handshakes in flight.
        in_flight: usize,
        /// Connections that stay open and come back together whenever all of them are there; 0: every connection is
        /// closed as soon as it is open.
        hold: usize,
    },
    /// Subscribing, unsubscribing and reconnecting without end.
    Churn {
        /// Connections.
        connections: usize,
        /// Channels to choose from.
        channels: u32,
        /// Share of operations that are reconnects.
        reconnect: f64,
        /// Publishes per second, spread over the channels; 0 for none.
        rate: f64,
        /// Bytes of payload.
        size: usize,
    },
}

/// Parameters of a flood.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flood {
    /// Subscribers; number i hears channel i modulo `channels`, and those after it.
    pub subscribers: usize,
    /// Channels; publishes take turns over them.
    pub channels: u32,
    /// Channels that each subscriber hears.
    pub channels_each: u32,
    /// Closed loop: publishes outstanding until the last subscriber has them.
    pub window: u32,
    /// Open loop: publishes per second, whatever becomes of them. Wins over `window`.
    pub rate: Option<f64>,
    /// Bytes of payload.
    pub size: usize,
    /// Connections that ping meanwhile.
    pub pingers: usize,
    /// Time between two pings of one of them.
    pub ping_every_ns: u64,
}

impl Plan {
    /// Connections the whole run wants.
    pub fn connections(&self) -> usize {
        match &self.scenario {
            Scenario::Flood(flood) => flood.subscribers + flood.pingers,
            Scenario::Ping { connections, .. }
            | Scenario::Idle { connections, .. }
            | Scenario::Crowd { connections, .. }
            | Scenario::Churn { connections, .. } => *connections,
            Scenario::Connect { in_flight, hold } => (*in_flight).max(*hold),
        }
    }

    /// Workers of the whole run.
    pub fn workers(&self) -> usize {
        self.threads * self.processes
    }
}

/// Processes that so many connections need, given how many descriptors one may have.
pub fn processes_for(connections: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let descriptors = limit.current.unwrap_or(u64::MAX).min(1 << 30) as usize;
    connections.div_ceil(descriptors.saturating_sub(200).max(1)).max(1)
}
