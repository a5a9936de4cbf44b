//! Configuration: one struct, documented defaults; file < environment < flag; validated once into plain integers.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A key pair that the business backend and this server share.
#[derive(Clone)]
pub struct Key {
    /// Public name of the pair; the part of `auth` before the colon.
    pub id: String,
    /// Shared secret; never printed.
    pub secret: String,
}

/// Whether shard threads are pinned to cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Shard `i` on the `i`-th core that the process may use.
    Auto,
    /// The scheduler decides.
    None,
}

/// Everything `serve` needs, validated.
#[derive(Clone)]
pub struct Config {
    /// Address of the WebSocket listener; port 0 picks one.
    pub listen: SocketAddr,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
    /// Number of shards, at least 1.
    pub shards: usize,
    /// Pinning of shard threads.
    pub pin: Pin,
    /// Request paths served; empty: all.
    pub paths: Vec<String>,
    /// Live key pairs.
    pub keys: Vec<Key>,
    /// Limits and times that each shard holds a copy of.
    pub limits: Limits,
    /// How long a shutdown may take, milliseconds.
    pub shutdown_timeout_ms: u64,
    /// Log level: error, warn, info, debug, trace or off.
    pub log: tracing::level_filters::LevelFilter,
}

/// Limits and times: plain integers, copied into every shard.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Seconds between heartbeats (`heart.interval`), at least 1.
    pub heart_interval_s: u32,
    /// Seconds a heartbeat may take (`heart.timeout`), at least 1.
    pub heart_timeout_s: u32,
    /// Whether the server sends `socket:ping` itself.
    pub server_ping: bool,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// Bytes of one inbound message.
    pub message_bytes_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Open client connections of the whole server.
    pub connections_max: usize,
    /// Milliseconds until an upgrade must be finished.
    pub handshake_timeout_ms: u64,
    /// Bytes of one line on the admin socket.
    pub admin_line_bytes_max: usize,
}
