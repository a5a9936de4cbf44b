//! The table of options: every name, default and range, once.

use super::{Key, Origin, WEBHOOK_EVENTS, WebhookUrl, access};
use std::net::SocketAddr;

/// One option. `name` is also the key in the file; in the environment it is [`Opt::env`], on the command line `--name`.
pub struct Opt {
    /// Name, in kebab case.
    pub name: &'static str,
    /// Placeholder of the value in the help.
    pub value: &'static str,
    /// Default, as one would write it; empty: none, or worked out at start.
    pub default: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Whether it holds a list.
    pub repeatable: bool,
    /// Whether a running server keeps what it was started with; see [`super::Live`] for the others.
    pub needs_restart: bool,
    /// What it does, for `--help`.
    pub help: &'static str,
}

/// What values an option takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// An IP address and a port.
    Address,
    /// `off`, or an IP address and a port.
    AddressOrOff,
    /// Letters, digits, `_` and `-`.
    Word,
    /// The path of a Unix socket.
    SocketPath,
    /// The path of a file.
    FilePath,
    /// The path of a request.
    UrlPath,
    /// Where a page comes from, as browsers write it.
    Origin,
    /// A network in CIDR notation, or one address.
    Network,
    /// `ID:SECRET`.
    KeyPair,
    /// Where a webhook is posted to.
    WebhookUrl,
    /// Some of these words, separated by commas.
    Words(&'static [&'static str]),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `auto`, or a whole number.
    AutoOr {
        /// Smallest number.
        min: u64,
        /// Largest number.
        max: u64,
    },
    /// A whole number.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// What is counted, for the error.
        unit: &'static str,
    },
    /// A number of bytes, plain or with KiB, MiB or GiB.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Seconds, up to three decimals; the value is milliseconds.
    Millis {
        /// Smallest, milliseconds.
        min: u64,
        /// Largest, milliseconds.
        max: u64,
    },
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// `sockaddr_un` holds 108 bytes, the last one zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

const WORD_BYTES_MAX: usize = 64;

const HEART: Kind = Kind::Count { min: 1, max: 86_400, unit: " seconds" };

const DEADLINE: Kind = Kind::Millis { min: 100, max: 3_600_000 };

/// Every option, in the order of the manual.
pub const OPTIONS: [Opt; 38] = [
    Opt {
        name: "listen",
        value: "ADDR:PORT",
        default: "127.0.0.1:9000",
        kind: Kind::Address,
        repeatable: false,
        needs_restart: true,
        help: "Where WebSocket clients connect; port 0 lets the system choose one",
    },
    Opt {
        name: "tls-cert",
        value: "PATH",
        default: "",
        kind: Kind::FilePath,
        repeatable: false,
        needs_restart: false,
        help: "Certificate chain, PEM: clients connect with wss://; needs --tls-key [default: none, ws://]",
    },
    Opt {
        name: "tls-key",
        value: "PATH",
        default: "",
        kind: Kind::FilePath,
        repeatable: false,
        needs_restart: false,
        help: "Private key of the certificate, PEM, without a passphrase",
    },
    Opt {
        name: "path",
        value: "PATH",
        default: "",
        kind: Kind::UrlPath,
        repeatable: true,
        needs_restart: false,
        help: "Serve this request path only (repeatable) [default: every path]",
    },
    Opt {
        name: "echo-path",
        value: "PATH",
        default: "",
        kind: Kind::UrlPath,
        repeatable: false,
        needs_restart: false,
        help: "Send every message on this request path back to who sent it, for probes and conformance tests [default: none]",
    },
    Opt {
        name: "allow-origin",
        value: "ORIGIN",
        default: "",
        kind: Kind::Origin,
        repeatable: true,
        needs_restart: false,
        help: "Let pages of this origin connect, https://*.example.com for all below one (repeatable) [default: every origin]",
    },
    Opt {
        name: "trust-proxy",
        value: "CIDR",
        default: "",
        kind: Kind::Network,
        repeatable: true,
        needs_restart: false,
        help: "Believe proxies of this network about whose connection it is (repeatable) [default: nobody]",
    },
    Opt {
        name: "proxy-protocol",
        value: "on|off",
        default: "off",
        kind: Kind::Choice(&["on", "off"]),
        repeatable: false,
        needs_restart: false,
        help: "Whether connections from trusted proxies begin with a PROXY header, version 1 or 2",
    },
    Opt {
        name: "admin-socket",
        value: "PATH",
        default: "",
        kind: Kind::SocketPath,
        repeatable: false,
        needs_restart: true,
        help: "Unix socket for publishing and administration [default: $XDG_RUNTIME_DIR/corecast.sock, else /tmp/corecast-UID.sock]",
    },
    Opt {
        name: "http",
        value: "ADDR:PORT|off",
        default: "127.0.0.1:9001",
        kind: Kind::AddressOrOff,
        repeatable: false,
        needs_restart: true,
        help: "Where health checks, monitoring and backends on other machines connect; off: nowhere",
    },
    Opt {
        name: "app-id",
        value: "ID",
        default: "1",
        kind: Kind::Word,
        repeatable: false,
        needs_restart: true,
        help: "The app ID in the paths of the HTTP publishing interface",
    },
    Opt {
        name: "console",
        value: "on|off",
        default: "on",
        kind: Kind::Choice(&["on", "off"]),
        repeatable: false,
        needs_restart: false,
        help: "Whether the HTTP listener serves the console; beyond loopback only with --console-key-file",
    },
    Opt {
        name: "console-key-file",
        value: "PATH",
        default: "",
        kind: Kind::FilePath,
        repeatable: false,
        needs_restart: false,
        help: "File with the access key that the console asks for [default: none, loopback only]",
    },
    Opt {
        name: "shards",
        value: "N|auto",
        default: "auto",
        kind: Kind::AutoOr { min: 1, max: 256 },
        repeatable: false,
        needs_restart: true,
        help: "Event loops, each on a thread of its own; auto: one per core",
    },
    Opt {
        name: "pin",
        value: "auto|none",
        default: "auto",
        kind: Kind::Choice(&["auto", "none"]),
        repeatable: false,
        needs_restart: true,
        help: "Whether each shard stays on one core",
    },
    Opt {
        name: "key",
        value: "ID:SECRET",
        default: "",
        kind: Kind::KeyPair,
        repeatable: true,
        needs_restart: false,
        help: "Key pair for private channels (repeatable); others can see it in the process list, so prefer --key-file",
    },
    Opt {
        name: "key-file",
        value: "PATH",
        default: "",
        kind: Kind::FilePath,
        repeatable: false,
        needs_restart: false,
        help: "File of key pairs: one ID:SECRET a line, # starts a comment",
    },
    Opt {
        name: "webhook",
        value: "URL",
        default: "",
        kind: Kind::WebhookUrl,
        repeatable: true,
        needs_restart: false,
        help: "POST what happens to this URL, signed with the first key pair as Pusher signs webhooks (repeatable) [default: none]",
    },
    Opt {
        name: "webhook-events",
        value: "LIST",
        default: "channel_occupied,channel_vacated",
        kind: Kind::Words(&WEBHOOK_EVENTS),
        repeatable: false,
        needs_restart: false,
        help: "What webhooks tell, separated by commas: channel_occupied, channel_vacated, connected, disconnected",
    },
    Opt {
        name: "webhook-retry",
        value: "S",
        default: "300",
        kind: DEADLINE,
        repeatable: false,
        needs_restart: false,
        help: "Seconds for which a webhook that is not taken is sent again",
    },
    Opt {
        name: "heart-interval",
        value: "S",
        default: "30",
        kind: HEART,
        repeatable: false,
        needs_restart: false,
        help: "Seconds between heartbeats; clients are told",
    },
    Opt {
        name: "heart-timeout",
        value: "S",
        default: "25",
        kind: HEART,
        repeatable: false,
        needs_restart: false,
        help: "Seconds within which a heartbeat must be answered",
    },
    Opt {
        name: "server-ping",
        value: "on|off",
        default: "on",
        kind: Kind::Choice(&["on", "off"]),
        repeatable: false,
        needs_restart: false,
        help: "Whether the server sends heartbeats of its own",
    },
    Opt {
        name: "outbox-limit",
        value: "BYTES",
        default: "1MiB",
        kind: Kind::Bytes { min: 4 * KIB, max: GIB },
        repeatable: false,
        needs_restart: false,
        help: "Bytes that may wait for one connection; one that falls further behind is closed with 4100",
    },
    Opt {
        name: "max-message",
        value: "BYTES",
        default: "64KiB",
        kind: Kind::Bytes { min: 128, max: 16 * MIB },
        repeatable: false,
        needs_restart: false,
        help: "Bytes of one message from a client; a longer one is closed with 1009",
    },
    Opt {
        name: "max-subscriptions",
        value: "N",
        default: "128",
        kind: Kind::Count { min: 1, max: 1_000_000, unit: " subscriptions" },
        repeatable: false,
        needs_restart: false,
        help: "Subscriptions of one connection",
    },
    Opt {
        name: "max-connections",
        value: "N|auto",
        default: "auto",
        kind: Kind::AutoOr { min: 1, max: 100_000_000 },
        repeatable: false,
        needs_restart: false,
        help: "Client connections of the whole server; auto: as many as descriptors (ulimit -Hn), memory and firewall hold",
    },
    Opt {
        name: "max-connections-per-address",
        value: "N|auto",
        default: "auto",
        kind: Kind::AutoOr { min: 0, max: 100_000_000 },
        repeatable: false,
        needs_restart: false,
        help: "Connections of one address (IPv6: of a /64); auto: half of all, and any number from this machine; 0: any number",
    },
    Opt {
        name: "max-upgrades-per-address",
        value: "N",
        default: "0",
        kind: Kind::Count { min: 0, max: 1_000_000, unit: " a second" },
        repeatable: false,
        needs_restart: false,
        help: "Connections that one address may make a second, ten seconds' worth at once; 0: any number",
    },
    Opt {
        name: "max-messages-per-second",
        value: "N",
        default: "0",
        kind: Kind::Count { min: 0, max: 1_000_000, unit: " messages a second" },
        repeatable: false,
        needs_restart: false,
        help: "Messages of one connection, ten seconds' worth at once; 0: any number",
    },
    Opt {
        name: "max-bytes-per-second",
        value: "BYTES",
        default: "0",
        kind: Kind::Bytes { min: 0, max: GIB },
        repeatable: false,
        needs_restart: false,
        help: "Bytes that one connection may send a second, ten seconds' worth at once; 0: any number",
    },
    Opt {
        name: "max-request",
        value: "BYTES",
        default: "8KiB",
        kind: Kind::Bytes { min: 512, max: 64 * KIB },
        repeatable: false,
        needs_restart: false,
        help: "Bytes of an upgrade request, with its headers",
    },
    Opt {
        name: "handshake-timeout",
        value: "S",
        default: "10",
        kind: DEADLINE,
        repeatable: false,
        needs_restart: false,
        help: "Seconds within which a new connection must finish its upgrade",
    },
    Opt {
        name: "admin-line-limit",
        value: "BYTES",
        default: "1MiB",
        kind: Kind::Bytes { min: KIB, max: GIB },
        repeatable: false,
        needs_restart: false,
        help: "Bytes of one line on the admin socket",
    },
    Opt {
        name: "connection-age-max",
        value: "S",
        default: "0",
        kind: Kind::Count { min: 0, max: 31_536_000, unit: " seconds" },
        repeatable: false,
        needs_restart: false,
        help: "Seconds after which a connection is told to come back anew, somewhere in the last quarter of them; 0: never",
    },
    Opt {
        name: "drain-timeout",
        value: "S",
        default: "0",
        kind: Kind::Millis { min: 0, max: 3_600_000 },
        repeatable: false,
        needs_restart: false,
        help: "Seconds over which SIGTERM spreads the closing of connections, before the shutdown; 0: all at once",
    },
    Opt {
        name: "shutdown-timeout",
        value: "S",
        default: "10",
        kind: DEADLINE,
        repeatable: false,
        needs_restart: false,
        help: "Seconds that a shutdown may spend on sending what it still owes",
    },
    Opt {
        name: "log",
        value: "LEVEL",
        default: "info",
        kind: Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        repeatable: false,
        needs_restart: false,
        help: "How much to log, on stderr: off, error, warn, info, debug or trace",
    },
];

impl Opt {
    /// Name of its environment variable: `outbox-limit` is `CORECAST_OUTBOX_LIMIT`.
    pub fn env(&self) -> String {
        format!("CORECAST_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

impl Kind {
    /// Whether `text` is a value that this kind takes.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Kind::Address => text.parse::<SocketAddr>().is_ok(),
            Kind::AddressOrOff => text == "off" || Kind::Address.accepts(text),
            Kind::Word => {
                let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
                (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_word)
            }
            Kind::SocketPath => (1..=SOCKET_PATH_BYTES_MAX).contains(&text.len()) && !text.contains('\0'),
            Kind::FilePath => !text.is_empty() && !text.contains('\0'),
            Kind::UrlPath => {
                text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
            }
            Kind::Origin => Origin::parse(text).is_some(),
            Kind::Network => access::network(text).is_some(),
            Kind::KeyPair => key_pair(text).is_ok(),
            Kind::WebhookUrl => WebhookUrl::parse(text).is_some(),
            Kind::Words(words) => text.split(',').all(|word| words.contains(&word.trim())),
            Kind::Choice(words) => words.contains(&text),
            Kind::AutoOr { .. } => text == "auto" || self.number(text).is_some(),
            Kind::Count { .. } | Kind::Bytes { .. } | Kind::Millis { .. } => self.number(text).is_some(),
        }
    }

    /// The number that `text` says, if it is one that this kind takes.
    pub fn number(self, text: &str) -> Option<u64> {
        let (number, min, max) = match self {
            Kind::AutoOr { min, max } | Kind::Count { min, max, .. } => (digits(text)?, min, max),
            Kind::Bytes { min, max } => (parse_bytes(text)?, min, max),
            Kind::Millis { min, max } => (parse_millis(text)?, min, max),
            _ => return None,
        };
        (min..=max).contains(&number).then_some(number)
    }

    /// What it takes, in words, for errors: "it takes …".
    pub fn allowed(self) -> String {
        match self {
            Kind::Address => {
                "an IP address and a port, such as 127.0.0.1:9000, 0.0.0.0:9000 or [::1]:9000 (no host names)".into()
            }
            Kind::AddressOrOff => format!("off, or {}", Kind::Address.allowed()),
            Kind::Word => format!("1 to {WORD_BYTES_MAX} of A-Z a-z 0-9 _ -"),
            Kind::SocketPath => format!("the path of a Unix socket, 1 to {SOCKET_PATH_BYTES_MAX} bytes"),
            Kind::FilePath => "the path of a file".into(),
            Kind::UrlPath => "a request path that starts with /, in ASCII, without spaces, ? and #".into(),
            Kind::Origin => {
                "an origin such as https://example.com, https://example.com:8443 or https://*.example.com (no path)"
                    .into()
            }
            Kind::Network => "a network such as 10.0.0.0/8 or fd00::/8, or one IP address".into(),
            Kind::KeyPair => "ID:SECRET, neither of them empty, no spaces, no : in the ID".into(),
            Kind::WebhookUrl => {
                "an http or https URL such as https://example.com/hooks, without a user name, a password and a fragment"
                    .into()
            }
            Kind::Words(words) => format!("some of {}, separated by commas", words.join(", ")),
            Kind::Choice(words) => words.join(" or "),
            Kind::AutoOr { min, max } => format!("auto, or a whole number from {min} to {max}"),
            Kind::Count { min, max, unit } => format!("a whole number from {min} to {max}{unit}"),
            Kind::Bytes { min, max } => {
                format!("{min} to {max} bytes, as a plain number or with KiB, MiB or GiB behind it")
            }
            Kind::Millis { min, max } => {
                format!("{} to {} seconds, with up to three decimals", min as f64 / 1000.0, max as f64 / 1000.0)
            }
        }
    }
}

/// Reads `ID:SECRET`. The error says what is wrong without repeating the text: it may hold a secret.
pub(super) fn key_pair(text: &str) -> Result<Key, &'static str> {
    let (id, secret) = text.split_once(':').ok_or("there is no : in it")?;
    if id.is_empty() {
        return Err("the ID before the : is empty");
    }
    if secret.is_empty() {
        return Err("the secret after the : is empty");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("there is a space or a control character in it");
    }
    if secret == super::REDACTED {
        return Err("it was printed by --print-config, which leaves secrets out");
    }
    Ok(Key { id: id.into(), secret: secret.into() })
}

/// Digits and nothing else: `parse` alone would take `+5`.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => KIB,
        "mib" => MIB,
        "gib" => GIB,
        _ => return None,
    };
    digits(number)?.checked_mul(factor)
}

fn parse_millis(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.is_empty() || decimals.len() > 3 {
        return None;
    }
    let millis = digits(decimals)? * 10_u64.pow(3 - decimals.len() as u32);
    digits(whole)?.checked_mul(1000)?.checked_add(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_its_option_takes() {
        for option in &OPTIONS {
            assert!(option.default.is_empty() || option.kind.accepts(option.default), "{}", option.name);
        }
    }

    #[test]
    fn numbers_are_read_in_the_units_people_write() {
        let bytes = Kind::Bytes { min: 128, max: 16 * MIB };
        let check = |kind: Kind, text: &str, expected| assert_eq!(kind.number(text), expected, "{text}");
        check(bytes, "128", Some(128));
        check(bytes, "64KiB", Some(65_536));
        check(bytes, "1 MiB", Some(MIB));
        check(bytes, "16mib", Some(16 * MIB));
        for refused in
            ["", "KiB", "127", "16777217", "1MB", "1M", "1.5MiB", "-1", "+200", "0x100", "99999999999999999999GiB"]
        {
            check(bytes, refused, None);
        }
        check(HEART, "1", Some(1));
        check(HEART, "86400", Some(86_400));
        check(HEART, "0", None);
        check(HEART, "86401", None);
        check(HEART, "1.5", None);
        check(DEADLINE, "10", Some(10_000));
        check(DEADLINE, "0.25", Some(250));
        check(DEADLINE, "3600", Some(3_600_000));
        for refused in ["0", "0.05", "3600.001", "1.", ".5", "1.2345", "1e3", ""] {
            check(DEADLINE, refused, None);
        }
    }

    #[test]
    fn a_key_pair_is_split_at_its_first_colon() {
        let key = key_pair("app:se:cret").expect("legal");
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("app", "se:cret"));
        for refused in ["", "app", ":secret", "app:", "app:se cret", "app:[redacted]", "a\tb:c"] {
            assert!(key_pair(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn paths_are_checked() {
        assert!(Kind::UrlPath.accepts("/ws"));
        assert!(!Kind::UrlPath.accepts("ws"));
        assert!(!Kind::UrlPath.accepts("/ws?x"));
        assert!(!Kind::SocketPath.accepts(&"x".repeat(108)));
        assert!(!Kind::SocketPath.accepts(""));
    }
}
