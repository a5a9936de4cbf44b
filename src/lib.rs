//! corecast: a WebSocket publish/subscribe server, one pinned core, one event loop, one shard.

pub mod admin;
pub mod config;
pub mod hub;
pub mod metrics;
pub mod protocol;
pub mod server;
pub mod shard;
pub mod wire;
