//! Configuration: one struct, documented defaults; file < environment < flag; validated once into plain integers.
//!
//! [`OPTIONS`] declares each option once. The command line, the environment, the file, `--print-config` and the changes that a
//! reload reports follow from its rows, and so does the test of the manual, `corecast.toml`. [`Settings`] holds what the
//! sources say, as text; [`Settings::validate`] makes it a [`Config`].

mod access;
mod certificate;
mod console;
mod difference;
mod files;
mod host;
mod kind;
mod options;
pub mod pattern;
mod rules;
mod settings;
mod value;
mod webhooks;

pub use access::{Access, Endpoint, Origin, network};
pub use certificate::{Certificate, WARNING_INTERVAL};
pub use console::{AccessKey, Console};
pub use difference::{Change, Difference};
pub use files::Files;
pub use kind::Kind;
pub use options::{OPTIONS, Opt};
pub use rules::{
    ENCRYPTED, Explained, ExplainedKey, History, KeySource, OnSubscribe, PRESENCE, PRIVATE, Presence, RULES_MAX, Rule,
    Rules, Slow, is_cache, may_take_client_events,
};
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

/// Shown in place of a secret; no key pair may have it as its secret.
pub const REDACTED: &str = "[redacted]";

/// Whether shard threads are pinned to cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Shard `i` on the `i`-th core that the process may use, unless a CPU quota limits the shards.
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
    /// The HTTP listener; `None`: there is none.
    pub http: Option<HttpListener>,
    /// The app ID of the HTTP publishing interface.
    pub app_id: String,
    /// Number of shards, at least 1.
    pub shards: usize,
    /// Pinning of shard threads.
    pub pin: Pin,
    /// The rest, which a reload exchanges in a running server.
    pub live: Live,
}

/// Where HTTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpListener {
    /// Its address; port 0 picks one.
    pub address: SocketAddr,
    /// Whether the configuration names it. If the default address is in use, the server starts without HTTP.
    pub is_named: bool,
}

/// What a reload exchanges in a running server, as a whole: every shard receives the same.
#[derive(Clone, Debug)]
pub struct Live {
    /// New connections speak TLS with this certificate; without one they are plain.
    pub certificate: Option<Arc<Certificate>>,
    /// Which requests are served, and which proxies are trusted.
    pub access: Access,
    /// Live key pairs.
    pub keys: Vec<Key>,
    /// The console of the HTTP listener.
    pub console: Console,
    /// The token of `POST /publish`; without one it is not served.
    pub publish_token: Option<AccessKey>,
    /// Where lifecycle events are posted.
    pub webhooks: Webhooks,
    /// What channels get beyond delivery.
    pub rules: Arc<Rules>,
    /// Limits and times that each shard holds a copy of.
    pub limits: Limits,
    /// Client connections that are configured; `None`: as many as the machine holds.
    pub connections_named: Option<usize>,
    /// Memory for all outboxes that is configured, bytes; `None`: a part of what the machine has.
    pub outbox_memory_named: Option<u64>,
    /// Over how long SIGTERM closes connections, milliseconds; 0: at once.
    pub drain_timeout_ms: u64,
    /// How long a shutdown may take, milliseconds; a drain comes before it.
    pub shutdown_timeout_ms: u64,
    /// Log level: error, warn, info, debug, trace or off.
    pub log: tracing::level_filters::LevelFilter,
    /// The files that keys and certificate are read from.
    pub files: KeyFiles,
    /// Problems that do not keep the server from starting.
    pub notes: Vec<String>,
}

/// The files that keys and certificate are read from.
#[derive(Clone, Debug, Default)]
pub struct KeyFiles {
    /// Certificate chain.
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    pub tls_key: Option<PathBuf>,
    /// Key pairs.
    pub keys: Option<PathBuf>,
    /// Access key of the console.
    pub console_key: Option<PathBuf>,
    /// Token of `POST /publish`.
    pub publish_token: Option<PathBuf>,
}

/// Limits and times: plain integers, copied into every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds between heartbeats (`heart.interval`), at least 1.
    pub heart_interval_s: u32,
    /// Seconds a heartbeat may take (`heart.timeout`), at least 1.
    pub heart_timeout_s: u32,
    /// Seconds without a message after which Pusher's clients are told to ping, at least 1.
    pub activity_timeout_s: u32,
    /// Whether client events of Pusher's clients are taken on channels whose rule does not mention them.
    pub pusher_client_events: bool,
    /// Whether the watchlists of Pusher clients that sign in are served.
    pub pusher_watchlist: bool,
    /// Seconds within which a Pusher client must sign in, or subscribe to a channel that needs a signature; 0: no limit.
    pub pusher_authorize_within_s: u32,
    /// Whether the server sends `socket:ping` itself.
    pub server_ping: bool,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// Bytes of memory for all outboxes of one shard: its share of `outbox-memory`.
    pub shard_outboxes_bytes_max: usize,
    /// Bytes of one inbound message.
    pub message_bytes_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Subscribes and unsubscribes of one connection in a second, in the long run; 0: no limit.
    pub subscribes_per_second_max: u32,
    /// Open client connections of the whole server.
    pub connections_max: usize,
    /// Connections of one address; `None`: half of `connections_max`, loopback exempt; 0: no limit.
    pub connections_per_address_max: Option<u32>,
    /// Connections of one address in a second, in the long run; 0: no limit.
    pub upgrades_per_address_max: u32,
    /// Messages of one connection in a second, in the long run; 0: no limit.
    pub messages_per_second_max: u32,
    /// Bytes of one connection in a second, in the long run; 0: no limit.
    pub bytes_per_second_max: u32,
    /// Milliseconds until an upgrade must be finished.
    pub handshake_timeout_ms: u64,
    /// Bytes of one line on the admin socket.
    pub admin_line_bytes_max: usize,
    /// Seconds that a connection may last; 0: no limit.
    pub connection_age_max_s: u32,
    /// Bytes that the histories of all channels may take.
    pub history_bytes_max: usize,
    /// Users that a presence channel may have.
    pub presence_members_max: usize,
    /// Milliseconds for which a user is still a member after its last connection has left; 0: none.
    pub presence_grace_ms: u32,
    /// Bytes of `user_info` of a member.
    pub presence_info_bytes_max: usize,
    /// Client events of one connection in a second, and at once.
    pub client_events_per_second_max: u32,
    /// Whether the number of a channel's subscribers is told.
    pub subscription_count: bool,
}

/// The defaults of [`OPTIONS`].
impl Default for Limits {
    fn default() -> Limits {
        Config::of_defaults().live.limits
    }
}

impl Config {
    /// A configuration without any value, into which [`OPTIONS`] reads them.
    fn blank() -> Config {
        Config {
            listen: ([0; 4], 0).into(),
            admin_socket: PathBuf::new(),
            http: None,
            app_id: String::new(),
            shards: 0,
            pin: Pin::Auto,
            live: Live {
                certificate: None,
                access: Access {
                    paths: Vec::new(),
                    echo_path: None,
                    pusher: false,
                    origins: Vec::new(),
                    trusted: Vec::new(),
                    has_proxy_header: false,
                    request_bytes_max: 0,
                },
                keys: Vec::new(),
                console: Console::default(),
                publish_token: None,
                webhooks: Webhooks::default(),
                rules: Arc::default(),
                limits: Limits {
                    heart_interval_s: 0,
                    heart_timeout_s: 0,
                    activity_timeout_s: 0,
                    pusher_client_events: false,
                    pusher_watchlist: false,
                    pusher_authorize_within_s: 0,
                    server_ping: false,
                    outbox_bytes_max: 0,
                    shard_outboxes_bytes_max: usize::MAX,
                    message_bytes_max: 0,
                    subscriptions_max: 0,
                    subscribes_per_second_max: 0,
                    connections_max: CONNECTIONS_AUTO_MAX,
                    connections_per_address_max: None,
                    upgrades_per_address_max: 0,
                    messages_per_second_max: 0,
                    bytes_per_second_max: 0,
                    handshake_timeout_ms: 0,
                    admin_line_bytes_max: 0,
                    connection_age_max_s: 0,
                    history_bytes_max: 0,
                    presence_members_max: 0,
                    presence_grace_ms: 0,
                    presence_info_bytes_max: 0,
                    client_events_per_second_max: 0,
                    subscription_count: false,
                },
                connections_named: None,
                outbox_memory_named: None,
                drain_timeout_ms: 0,
                shutdown_timeout_ms: 0,
                log: tracing::level_filters::LevelFilter::OFF,
                files: KeyFiles::default(),
                notes: Vec::new(),
            },
        }
    }
}

/// The largest value of `max-connections` when it is `auto`.
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

    /// Whether connections of this address are counted. An address that a proxy names is never this machine's.
    pub fn counts_address(&self, address: IpAddr, is_forwarded: bool) -> bool {
        let has_connections_max = match self.connections_per_address_max {
            None => is_forwarded || !address.to_canonical().is_loopback(),
            Some(max) => max > 0,
        };
        has_connections_max || self.upgrades_per_address_max > 0
    }

    /// Bytes of the largest member in a list of members, as written: `{"user_id":"…","user_info":…},`.
    pub fn presence_member_bytes_max(&self) -> usize {
        28 + USER_ID_BYTES_MAX + self.presence_info_bytes_max
    }

    /// The largest members that fit into half of the outbox limit.
    fn presence_members_fitting(&self) -> usize {
        self.outbox_bytes_max / 2 / self.presence_member_bytes_max()
    }
}

/// Longest id of a user, in bytes, unescaped.
pub const USER_ID_BYTES_MAX: usize = 128;

/// The secret stays out of logs, panics and test output.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}:{REDACTED})", self.id)
    }
}

impl Key {
    /// Reads `ID:SECRET`. The error says what is wrong without the text: it may hold a secret.
    pub(crate) fn parse(text: &str) -> Result<Key, &'static str> {
        let (id, secret) = text.split_once(':').ok_or("the : between ID and secret is missing")?;
        if ['"', '\''].iter().any(|&quote| id.starts_with(quote) && secret.ends_with(quote)) {
            return Err("the pair is in quotes, which would be a part of it");
        }
        if id.is_empty() {
            return Err("the ID before the : is empty");
        }
        if secret.is_empty() {
            return Err("the secret after the : is empty");
        }
        // Webhooks carry the ID in a header.
        if !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the ID before the : holds a space or a character that is not ASCII");
        }
        if secret.contains(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c)) {
            return Err("the secret after the : holds a space, a control character or an invisible one");
        }
        if secret == REDACTED {
            return Err("it was printed by --print-config, which leaves secrets out");
        }
        Ok(Key { id: id.into(), secret: secret.into() })
    }
}

/// Characters that a copied secret may hold unseen: byte-order mark, soft hyphen, zero-width and direction marks.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

impl Live {
    /// Problems that do not keep the server from starting.
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let certificate = self.certificate.as_ref().and_then(|certificate| certificate.warning(now));
        self.notes.iter().cloned().chain(certificate).collect()
    }

    /// Replaces these settings. A certificate that stays the same keeps its session tickets.
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
    fn a_key_pair_is_split_at_its_first_colon() {
        let key = Key::parse("app:se:crét").expect("legal");
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("app", "se:crét"));
        let refused = ["", "app", ":secret", "app:", "app:se cret", "app:[redacted]", "a\tb:c", "äpp:secret"];
        for refused in refused.into_iter().chain(["\u{feff}app:secret", "app:secret\u{200b}"]) {
            assert!(Key::parse(refused).is_err(), "{refused:?}");
        }
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
