//! Configuration: one struct, documented defaults; file < environment < flag; validated once into plain integers.
//!
//! [`OPTIONS`] is the one table of names, defaults and ranges: the command line, the environment, the file, the errors and
//! `--print-config` all read it. [`Settings`] is what the sources say, as text; [`Settings::validate`] makes it a [`Config`].
//! `corecast.toml` at the root of the repository is the manual, and a test holds it to the table.

mod access;
mod certificate;
mod console;
mod difference;
mod files;
mod options;
mod settings;
mod webhooks;

pub use access::{Access, Endpoint, Origin};
pub use certificate::{Certificate, WARNING_INTERVAL};
pub use console::{Console, ConsoleKey};
pub use difference::{Change, Difference};
pub use files::Files;
pub use options::{Kind, OPTIONS, Opt};
pub use settings::{CONFIG_ENV, Flags, Invalid, Settings, shared_admin_socket};
pub use webhooks::{WEBHOOK_EVENTS, WEBHOOKS_MAX, WebhookUrl, Webhooks};

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// A key pair that the business backend and this server share.
#[derive(Clone)]
pub struct Key {
    /// Public name of the pair; the part of `auth` before the colon.
    pub id: String,
    /// Shared secret; never printed.
    pub secret: String,
}

/// What stands where a secret would; no key pair may have it as its secret.
pub const REDACTED: &str = "[redacted]";

/// Whether shard threads are pinned to cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Shard `i` on the `i`-th core that the process may use.
    Auto,
    /// The scheduler decides.
    None,
}

/// Everything `serve` needs, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the WebSocket listener; port 0 picks one.
    pub listen: SocketAddr,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
    /// The HTTP listener, if there is to be one.
    pub http: Option<HttpListener>,
    /// The app ID of the HTTP publishing interface.
    pub app_id: String,
    /// Number of shards, at least 1.
    pub shards: usize,
    /// Pinning of shard threads.
    pub pin: Pin,
    /// The rest, which a running server can exchange.
    pub live: Live,
}

/// Where HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpListener {
    /// Its address; port 0 picks one.
    pub address: SocketAddr,
    /// Somebody named it. The default may be in use: then the server does without.
    pub is_named: bool,
}

/// What a reload exchanges in a running server, whole: every shard is handed the same.
#[derive(Clone, Debug)]
pub struct Live {
    /// What connections that are accepted from now on speak TLS with; without one they are plain.
    pub certificate: Option<Arc<Certificate>>,
    /// Who may connect, and who is believed.
    pub access: Access,
    /// Live key pairs.
    pub keys: Vec<Key>,
    /// The console of the HTTP listener.
    pub console: Console,
    /// Who else is told of what happens.
    pub webhooks: Webhooks,
    /// Limits and times that each shard holds a copy of.
    pub limits: Limits,
    /// Client connections that somebody asked for; `None`: as many as the machine holds.
    pub connections_named: Option<usize>,
    /// Over how long SIGTERM closes connections, milliseconds; 0: at once.
    pub drain_timeout_ms: u64,
    /// How long a shutdown may take, milliseconds; what draining takes comes before.
    pub shutdown_timeout_ms: u64,
    /// Log level: error, warn, info, debug, trace or off.
    pub log: tracing::level_filters::LevelFilter,
}

/// Limits and times: plain integers, copied into every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Connections of one address; `None`: half of `connections_max`, but for this machine's own; 0: any number.
    pub connections_per_address_max: Option<u32>,
    /// Connections of one address in a second, in the long run; 0: any number.
    pub upgrades_per_address_max: u32,
    /// Messages of one connection in a second, in the long run; 0: any number.
    pub messages_per_second_max: u32,
    /// Bytes of one connection in a second, in the long run; 0: any number.
    pub bytes_per_second_max: u32,
    /// Milliseconds until an upgrade must be finished.
    pub handshake_timeout_ms: u64,
    /// Bytes of one line on the admin socket.
    pub admin_line_bytes_max: usize,
    /// Seconds that a connection may last; 0: as long as it likes.
    pub connection_age_max_s: u32,
}

/// The defaults of [`OPTIONS`].
impl Default for Limits {
    fn default() -> Limits {
        Limits {
            heart_interval_s: 30,
            heart_timeout_s: 25,
            server_ping: true,
            outbox_bytes_max: 1 << 20,
            message_bytes_max: 1 << 16,
            subscriptions_max: 128,
            connections_max: CONNECTIONS_AUTO_MAX,
            connections_per_address_max: None,
            upgrades_per_address_max: 0,
            messages_per_second_max: 0,
            bytes_per_second_max: 0,
            handshake_timeout_ms: 10_000,
            admin_line_bytes_max: 1 << 20,
            connection_age_max_s: 0,
        }
    }
}

/// What `max-connections` comes to at most where nobody names a number.
pub const CONNECTIONS_AUTO_MAX: usize = 1_000_000;

impl Limits {
    /// Connections of one address.
    pub fn address_connections_max(&self) -> u32 {
        let half = (self.connections_max / 2).clamp(1, u32::MAX as usize) as u32;
        match self.connections_per_address_max {
            None => half,
            Some(0) => u32::MAX,
            Some(max) => max,
        }
    }

    /// Whether connections of this address are counted, or as many may come as like to.
    pub fn counts_address(&self, address: IpAddr) -> bool {
        let has_connections_max = match self.connections_per_address_max {
            None => !address.to_canonical().is_loopback(),
            Some(max) => max > 0,
        };
        has_connections_max || self.upgrades_per_address_max > 0
    }
}

/// The secret stays out of logs, panics and test output.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}:{REDACTED})", self.id)
    }
}

impl Live {
    /// What operators should know of it before it is too late, to the log.
    pub fn warn(&self) {
        if let Some(warning) = self.certificate.as_ref().and_then(|certificate| certificate.warning(SystemTime::now()))
        {
            tracing::warn!("{warning}");
        }
    }

    /// What takes the place of these settings: sessions of a certificate that stays can be taken up as before.
    pub fn exchange(&mut self, new: Live) {
        let old = std::mem::replace(self, new);
        if let (Some(old), Some(new)) = (old.certificate, &mut self.certificate)
            && old.is_same(new)
            && (&old.path, &old.key_path) == (&new.path, &new.key_path)
        {
            *new = old;
        }
    }
}

/// A number of bytes for people: exact below 1 KiB, one decimal above.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_shows_its_secret() {
        let key = Key { id: "app".into(), secret: "hunter2".into() };
        assert_eq!(format!("{key:?}"), "Key(app:[redacted])");
        assert!(!format!("{:#?}", vec![key]).contains("hunter2"));
    }

    #[test]
    fn bytes_are_written_for_people() {
        let check = |count, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1 KiB");
        check(1536, "1.5 KiB");
        check(1 << 20, "1 MiB");
        check(u64::MAX, "16384 PiB");
    }
}
