//! The table of options: each option's name, default, values, field and help, once.

use super::kind::Kind;
use super::value::{Auto, List, Maybe, One, Shape};
use super::{Config, WEBHOOK_EVENTS};
use toml::Value;

/// One option. `name` is also the key in the file; in the environment it is [`Opt::env`], on the command line `--name`.
pub struct Opt {
    /// Name, in kebab case.
    pub name: &'static str,
    /// Placeholder of the value in the help.
    pub value: &'static str,
    /// Default, as text; empty: none, or determined at start.
    pub default: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// Whether it holds a list.
    pub repeatable: bool,
    /// Whether a running server keeps the value that it was started with; [`super::Live`] holds the others.
    pub needs_restart: bool,
    /// What it does, for `--help`.
    pub help: &'static str,
    read: fn(&mut Config, &[String], Kind) -> Vec<String>,
    show: fn(&Config, Kind) -> Option<Value>,
}

use Kind::{
    Address, AddressOrOff, AutoOr, AutoOrBytes, Bytes, Choice, Count, FilePath, KeyPair, Millis, Network, Seconds,
    SocketPath, UrlPath, WebhookUrl, Word, Words,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SWITCH: Kind = Choice("on|off", &["on", "off"]);
const HEART: Kind = Seconds(1, 86_400);
const DEADLINE: Kind = Millis(100, 3_600_000);
const LEVELS: Kind = Choice("LEVEL", &["off", "error", "warn", "info", "debug", "trace"]);

/// Declares the table, one row an option: name, default, kind; shape and field of [`Config`]; help. Options outside `live`
/// need a restart.
macro_rules! options {
    ($($name:literal, $default:literal, $kind:expr; $shape:ident $root:ident $(. $field:ident)*; $help:literal;)*) => {
        /// Every option, in the order of the manual.
        pub const OPTIONS: &[Opt] = &[$(Opt {
            name: $name,
            value: $kind.placeholder(),
            default: $default,
            kind: $kind,
            repeatable: matches!(stringify!($shape).as_bytes(), b"List"),
            needs_restart: !matches!(stringify!($root).as_bytes(), b"live"),
            help: $help,
            read: |config, texts, kind| $shape::read(&mut config.$root$(.$field)*, texts, kind),
            show: |config, kind| $shape::show(&config.$root$(.$field)*, kind),
        },)*];
    };
}

options! {
    "listen", "127.0.0.1:9000", Address; One listen;
        "Where WebSocket clients connect; port 0 lets the system choose one";
    "tls-cert", "", FilePath; Maybe live.files.tls_cert;
        "PEM certificate chain for wss://, with --tls-key [default: none, ws://]";
    "tls-key", "", FilePath; Maybe live.files.tls_key;
        "Private key of the certificate, PEM, without a passphrase";
    "path", "", UrlPath; List live.access.paths;
        "Serve this request path only (repeatable) [default: every path]";
    "echo-path", "", UrlPath; Maybe live.access.echo_path;
        "Echo messages on this request path [default: none]";
    "pusher", "on", SWITCH; One live.access.pusher;
        "Serve Pusher's clients on /app/KEY, behind each --path";
    "pusher-activity-timeout", "120", Seconds(1, 3600); One live.limits.activity_timeout_s;
        "Seconds without a message after which Pusher's clients are told to ping";
    "pusher-client-events", "on", SWITCH; One live.limits.pusher_client_events;
        "Take client events of Pusher's clients on channels whose rule says nothing";
    "pusher-watchlist", "on", SWITCH; One live.limits.pusher_watchlist;
        "Tell Pusher's clients when the users of their watchlists come and go";
    "pusher-authorize-within", "0", Seconds(0, 3600); One live.limits.pusher_authorize_within_s;
        "Seconds in which Pusher's clients must sign in or show a signature; 0: no limit";
    "allow-origin", "", Kind::Origin; List live.access.origins;
        "Allow pages of this origin, or of https://*.HOST (repeatable) [default: all]";
    "trust-proxy", "", Network; List live.access.trusted;
        "Trust client addresses from these proxies (repeatable) [default: none]";
    "proxy-protocol", "off", SWITCH; One live.access.has_proxy_header;
        "Expect a PROXY header, version 1 or 2, on connections from trusted proxies";
    "admin-socket", "", SocketPath; One admin_socket;
        "Unix socket for publishing and administration [default: $XDG_RUNTIME_DIR/corecast.sock, else /tmp/corecast-UID.sock]";
    "http", "127.0.0.1:9001", AddressOrOff; One http;
        "Address of health checks, monitoring, publishing and console; off: no HTTP";
    "app-id", "1", Word; One app_id;
        "App ID in the paths of the HTTP publishing interface";
    "console", "on", SWITCH; One live.console.is_on;
        "Serve the console over HTTP; `corecast console` opens it";
    "console-key-file", "", FilePath; Maybe live.files.console_key;
        "File with a key that opens the console, too [default: none]";
    "publish-token-file", "", FilePath; Maybe live.files.publish_token;
        "File with the token of POST /publish [default: none, not served]";
    "shards", "auto", AutoOr(1, 256); One shards;
        "Event loops, each on a thread of its own; auto: one per core";
    "pin", "auto", Choice("auto|none", &["auto", "none"]); One pin;
        "Keep each shard on one core; auto: unless a CPU quota limits the shards";
    "key", "", KeyPair; List live.keys;
        "Key pair (repeatable); visible in the process list, so prefer --key-file";
    "key-file", "", FilePath; Maybe live.files.keys;
        "File of key pairs: one ID:SECRET a line, # starts a comment";
    "webhook", "", WebhookUrl; List live.webhooks.urls;
        "POST events to this URL, signed with the first key pair (repeatable)";
    "webhook-events", "channel_occupied,channel_vacated", Words(&WEBHOOK_EVENTS); One live.webhooks.events;
        "Events to post, separated by commas: of channels, members and connections";
    "webhook-retry", "300", DEADLINE; One live.webhooks.retry_ms;
        "Seconds for which a batch that was not delivered is retried";
    // Proxies close connections that are quiet for longer: HAProxy's examples 50 s, Heroku 55 s, nginx and AWS ALB 60 s. The
    // sum of interval and timeout is below 60 s too, so that the server closes a dead connection before a proxy does.
    "heart-interval", "30", HEART; One live.limits.heart_interval_s;
        "Seconds between heartbeats, announced to clients";
    "heart-timeout", "25", HEART; One live.limits.heart_timeout_s;
        "Seconds within which a heartbeat must be answered";
    "server-ping", "on", SWITCH; One live.limits.server_ping;
        "Send heartbeats from the server";
    "outbox-limit", "1MiB", Bytes(4 * KIB, GIB); One live.limits.outbox_bytes_max;
        "Bytes that may wait for one connection; a slower reader is closed with 4100";
    "outbox-memory", "auto", AutoOrBytes(MIB, 1024 * GIB); Auto live.outbox_memory_named;
        "Memory of all outboxes; beyond it the largest are closed; auto: a quarter of all";
    "max-message", "64KiB", Bytes(128, 16 * MIB); One live.limits.message_bytes_max;
        "Bytes of one message from a client; a longer one closes the connection with 1009";
    "max-subscriptions", "128", Count(1, 1_000_000, "subscriptions"); One live.limits.subscriptions_max;
        "Subscriptions of one connection";
    "max-subscribes-per-second", "50", Count(0, 10_000, "a second"); One live.limits.subscribes_per_second_max;
        "Subscribes and unsubscribes a second of one connection; 0: no limit";
    "max-connections", "auto", AutoOr(1, 100_000_000); Auto live.connections_named;
        "Client connections of the server; auto: as many as the machine holds";
    "max-connections-per-address", "auto", AutoOr(0, 100_000_000); Auto live.limits.connections_per_address_max;
        "Connections of one address or IPv6 /64; auto: half of all; 0: no limit";
    "max-upgrades-per-address", "0", Count(0, 1_000_000, "a second"); One live.limits.upgrades_per_address_max;
        "New connections a second of one address, ten times that at once; 0: no limit";
    "max-messages-per-second", "0", Count(0, 1_000_000, "messages a second"); One live.limits.messages_per_second_max;
        "Messages a second of one connection, ten times that at once; 0: no limit";
    "max-bytes-per-second", "0", Bytes(0, GIB); One live.limits.bytes_per_second_max;
        "Bytes a second of one connection, ten times that at once; 0: no limit";
    "max-request", "8KiB", Bytes(512, 64 * KIB); One live.access.request_bytes_max;
        "Bytes of an upgrade request, with its headers";
    "handshake-timeout", "10", DEADLINE; One live.limits.handshake_timeout_ms;
        "Seconds within which a new connection must finish its upgrade";
    "admin-line-limit", "1MiB", Bytes(KIB, GIB); One live.limits.admin_line_bytes_max;
        "Bytes of one line on the admin socket";
    "history-memory", "256MiB", Bytes(64 * KIB, 1024 * GIB); One live.limits.history_bytes_max;
        "Bytes that the kept messages of all channels may take";
    "presence-members", "100", Count(1, 1_000_000, "members"); One live.limits.presence_members_max;
        "Users of one presence channel; a further one is refused with presence_full";
    "presence-grace", "3", Millis(0, 3_600_000); One live.limits.presence_grace_ms;
        "Seconds for which a user that has left may return unnoticed; 0: none";
    "presence-info-max", "1KiB", Bytes(2, 64 * KIB); One live.limits.presence_info_bytes_max;
        "Bytes of the user_info of a member";
    "client-events-per-second", "10", Count(1, 1_000_000, "client events a second"); One live.limits.client_events_per_second_max;
        "Client events a second of one connection, and at once";
    "pusher-subscription-count", "off", SWITCH; One live.limits.subscription_count;
        "Tell how many subscribers a channel has: Pusher's clients, and webhooks";
    "connection-age-max", "0", Seconds(0, 31_536_000); One live.limits.connection_age_max_s;
        "Seconds after which clients must reconnect, spread over a quarter; 0: never";
    "drain-timeout", "0", Millis(0, 3_600_000); One live.drain_timeout_ms;
        "Seconds over which SIGTERM closes connections; 0: all at once";
    // With the server's 5 s on top it is below Kubernetes' 30 s and systemd's 90 s. Docker kills after 10 s: --stop-timeout.
    "shutdown-timeout", "8", DEADLINE; One live.shutdown_timeout_ms;
        "Seconds that a shutdown may take to deliver what was accepted";
    "log", "info", LEVELS; One live.log;
        "How much to log, on stderr";
}

impl Opt {
    /// Name of its environment variable: `outbox-limit` is `CORECAST_OUTBOX_LIMIT`.
    pub fn env(&self) -> String {
        format!("CORECAST_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// Reads its values into its field. Returns what is wrong with them, without secrets.
    pub(super) fn read(&self, config: &mut Config, texts: &[String]) -> Vec<String> {
        (self.read)(config, texts, self.kind)
    }

    /// The value that is in force; `None`: it has none.
    pub(super) fn show(&self, config: &Config) -> Option<Value> {
        (self.show)(config, self.kind)
    }

    /// The values of its default.
    pub(super) fn default_values(&self) -> Vec<String> {
        Some(self.default.to_owned()).filter(|text| !text.is_empty()).into_iter().collect()
    }
}

impl Config {
    /// The defaults of the table, without what is determined at start.
    pub(super) fn of_defaults() -> Config {
        let mut config = Config::blank();
        OPTIONS.iter().for_each(|option| drop(option.read(&mut config, &option.default_values())));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_texts_are_short() {
        for option in OPTIONS.iter().filter(|option| option.name != "admin-socket") {
            assert!(option.help.len() <= 80, "{}: {}", option.name, option.help.len());
        }
    }

    #[test]
    fn every_default_is_a_value_its_option_takes() {
        for option in OPTIONS {
            let wrong = option.read(&mut Config::blank(), &option.default_values());
            assert!(wrong.is_empty(), "{}: {wrong:?}", option.name);
        }
    }
}
