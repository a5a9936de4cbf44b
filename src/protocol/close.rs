//! Every reason for which a connection ends: close code, text, metric label.

use super::dialect::Dialect;
use super::pusher::handshake;
use std::fmt;

/// Declares the reasons. Each has a metric label, and the code of the close frame that the server sends; `None`: it sends no
/// frame, or the reason holds the code.
macro_rules! reasons {
    ($(
        $(#[$about:meta])*
        $reason:ident $({ $($field:ident: $type:ty),* })? $(($inner:ty))? = $label:literal, $code:expr;
    )*) => {
        /// Why a connection ended, or will end.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum CloseReason {
            $($(#[$about])* $reason $({ $($field: $type),* })? $(($inner))?,)*
        }

        enum Kind {
            $($reason,)*
        }

        impl CloseReason {
            /// Number of kinds; `kind()` is less.
            pub const KINDS: usize = CloseReason::LABELS.len();

            /// Metric label of each kind, by index.
            pub const LABELS: [&'static str; [$($label),*].len()] = [$($label),*];

            /// Index of the kind, for counters.
            pub fn kind(&self) -> usize {
                match self {
                    $(CloseReason::$reason { .. } => Kind::$reason as usize,)*
                }
            }

            fn code_of_kind(&self) -> Option<u16> {
                match self {
                    $(CloseReason::$reason { .. } => $code,)*
                }
            }
        }
    };
}

reasons! {
    /// The client sent a close frame; its code is echoed.
    ClientClosed { code: Option<u16> } = "client_closed", None;
    /// The TCP connection ended or was reset without a close frame.
    ClientGone = "client_gone", None;
    /// 1012: the server is stopping.
    ServerRestarting = "server_restarting", Some(1012);
    /// 1002
    ProtocolError(&'static str) = "protocol_error", Some(1002);
    /// 1003
    BinaryMessage = "binary_message", Some(1003);
    /// 1007
    InvalidUtf8 = "invalid_utf8", Some(1007);
    /// 1009
    MessageTooBig { limit: usize } = "message_too_big", Some(1009);
    /// 4000–4999, at the request of an admin session.
    Disconnected { code: u16, reason: Box<str> } = "disconnected", None;
    /// 4100: "outbox over N bytes (M bytes pending)"
    SlowConsumer { limit: usize, pending: usize } = "slow_consumer", Some(4100);
    /// 4101
    OverCapacity { limit: usize } = "over_capacity", Some(4101);
    /// 4102
    RateLimited(Pace) = "rate_limited", Some(4102);
    /// 4201
    PongTimeout { timeout_s: u32 } = "pong_timeout", Some(4201);
    /// 4202
    Silent { timeout_s: u32, is_reading: bool } = "silent", Some(4202);
    /// The upgrade was not finished in time; no frame.
    HandshakeTimeout = "handshake_timeout", None;
    /// The upgrade was refused with an HTTP error; no frame.
    UpgradeRefused = "upgrade_refused", None;
    /// The TLS session or its handshake failed; an alert, no frame.
    TlsFailed = "tls_failed", None;
    /// Its address has too many connections: HTTP 429, or no answer.
    AddressConnections { limit: u32 } = "address_connections", None;
    /// Its address connects too often: HTTP 429, or no answer.
    AddressUpgrades { limit: u32 } = "address_upgrades", None;
    /// A trusted proxy did not send a valid PROXY header; no frame.
    ProxyHeaderMalformed = "proxy_header_malformed", None;
    /// 1012: the server is being drained.
    Drained { retry_after_ms: u32 } = "drained", Some(1012);
    /// 1012: the operator sheds connections.
    Shed { retry_after_ms: u32 } = "shed", Some(1012);
    /// 1012: the connection has reached its maximum age.
    TooOld { retry_after_ms: u32 } = "too_old", Some(1012);
    /// 4100: all outboxes together hold too much, and this one holds the most. `pending`: the memory that it keeps.
    OutboxMemory { limit: usize, pending: usize } = "outbox_memory", Some(4100);
    /// 4001, 4005 to 4007: the request of a Pusher client was not valid.
    PusherRefused(handshake::Refusal) = "pusher_refused", None;
    /// 4009: a Pusher client neither signed in nor showed a signature in time.
    NotAuthorized = "not_authorized", Some(4009);
}

/// The rate limit that a connection exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pace {
    Messages { per_second: u32 },
    Bytes { per_second: u32 },
}

impl CloseReason {
    /// An operator closes the connection.
    pub fn by_operator(code: Option<u16>, reason: Option<&str>) -> CloseReason {
        let reason = reason.unwrap_or("disconnected by the server's operator").into();
        CloseReason::Disconnected { code: code.unwrap_or(4000), reason }
    }

    /// Close code and text to send; `None`: no frame is sent. A client's close frame without a code is answered with 1000.
    pub fn frame(&self, dialect: Dialect) -> Option<(u16, String)> {
        let text = match self {
            CloseReason::ClientClosed { .. } => String::new(),
            CloseReason::PongTimeout { timeout_s } if dialect.is_pusher() => {
                format!("no pong within {timeout_s} s of the ping")
            }
            CloseReason::Silent { timeout_s, is_reading: true } if dialect.is_pusher() => {
                format!("nothing arrived for {timeout_s} s: send pusher:ping")
            }
            CloseReason::OverCapacity { .. } if dialect.is_pusher() => "Over capacity".into(),
            _ => self.to_string(),
        };
        Some((self.code(dialect)?, text))
    }

    /// Whether the client ended the connection, by leaving or by what it sent.
    pub fn is_of_client(&self) -> bool {
        matches!(
            self,
            CloseReason::ClientClosed { .. }
                | CloseReason::ClientGone
                | CloseReason::ProtocolError(_)
                | CloseReason::BinaryMessage
                | CloseReason::InvalidUtf8
                | CloseReason::MessageTooBig { .. }
                | CloseReason::TlsFailed
        )
    }

    /// Whether the connection read too slowly: what waits for it is dropped, and it gets no more replies.
    pub fn is_slow(&self) -> bool {
        matches!(self, CloseReason::SlowConsumer { .. } | CloseReason::OutboxMemory { .. })
    }

    /// The code of the close frame that ended the connection, from either side; `None`: no frame, or a frame without a
    /// code.
    pub fn close_code(&self, dialect: Dialect) -> Option<u16> {
        match self {
            CloseReason::ClientClosed { code } => *code,
            _ => self.code(dialect),
        }
    }

    fn code(&self, dialect: Dialect) -> Option<u16> {
        let code = match self {
            CloseReason::ClientClosed { code } => return Some(code.unwrap_or(1000)),
            CloseReason::Disconnected { code, .. } => Some(*code),
            CloseReason::PusherRefused(refusal) => Some(refusal.code()),
            _ => self.code_of_kind(),
        };
        if dialect.is_pusher() { code.map(|code| self.pusher_code(code)) } else { code }
    }

    /// The code for Pusher's clients, which do what its range means: they give up on 4000 to 4099, come back after a second on
    /// 4100 to 4199, and at once on 4200 to 4299.
    fn pusher_code(&self, code: u16) -> u16 {
        match self {
            // To pusher-js, 4000 means that it must come back over TLS.
            CloseReason::Disconnected { .. } if code == 4000 => 4009,
            // The port may be closed for a moment: a client that tries at once would then wait for 15 s.
            CloseReason::ServerRestarting => 1001,
            CloseReason::Drained { .. } | CloseReason::Shed { .. } | CloseReason::TooOld { .. } => 4200,
            CloseReason::OverCapacity { .. } | CloseReason::RateLimited(_) => 4100,
            _ => code,
        }
    }
}

/// For people: the text in the close frame and in the log.
impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::ClientClosed { .. } => f.write_str("the client closed the connection"),
            CloseReason::ClientGone => f.write_str("the connection ended without a close frame"),
            CloseReason::ServerRestarting => f.write_str("the server is restarting: reconnect"),
            CloseReason::ProtocolError(what) => f.write_str(what),
            CloseReason::BinaryMessage => f.write_str("binary message: send text messages"),
            CloseReason::InvalidUtf8 => f.write_str("a text message was not valid UTF-8"),
            CloseReason::MessageTooBig { limit } => write!(f, "message over {limit} bytes: send smaller messages"),
            CloseReason::Disconnected { reason, .. } => f.write_str(reason),
            CloseReason::SlowConsumer { limit, pending } => {
                write!(f, "outbox over {limit} bytes ({pending} bytes pending)")
            }
            CloseReason::OutboxMemory { limit, pending } => {
                write!(f, "all outboxes over {limit} bytes ({pending} bytes pending here, the most)")
            }
            CloseReason::OverCapacity { limit } => write!(f, "over {limit} connections: try again later"),
            CloseReason::RateLimited(Pace::Messages { per_second }) => {
                write!(f, "over {per_second} messages a second for too long: send fewer")
            }
            CloseReason::RateLimited(Pace::Bytes { per_second }) => {
                write!(f, "over {per_second} bytes a second for too long: send less")
            }
            CloseReason::PongTimeout { timeout_s } => write!(f, "no socket:pong within {timeout_s} s of the ping"),
            CloseReason::Silent { timeout_s, is_reading: true } => {
                write!(f, "nothing arrived for {timeout_s} s: send socket:ping")
            }
            CloseReason::Silent { timeout_s, is_reading: false } => {
                write!(f, "the client took no reply for {timeout_s} s: read what the server sends")
            }
            CloseReason::HandshakeTimeout => f.write_str("the upgrade was not finished in time"),
            CloseReason::UpgradeRefused => f.write_str("the upgrade was refused"),
            CloseReason::TlsFailed => f.write_str("the TLS session failed"),
            CloseReason::AddressConnections { limit } => write!(f, "over {limit} connections from one address"),
            CloseReason::AddressUpgrades { limit } => write!(f, "over {limit} connections a second from one address"),
            CloseReason::PusherRefused(refusal) => refusal.fmt(f),
            CloseReason::NotAuthorized => f.write_str("Connection not authorized within timeout"),
            CloseReason::ProxyHeaderMalformed => f.write_str("a trusted proxy sent no valid PROXY header"),
            // Clients parse this text: they wait at least that long.
            CloseReason::Drained { retry_after_ms }
            | CloseReason::Shed { retry_after_ms }
            | CloseReason::TooOld { retry_after_ms } => write!(f, "retry after {retry_after_ms} ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<CloseReason> {
        vec![
            CloseReason::ClientClosed { code: None },
            CloseReason::ClientGone,
            CloseReason::ServerRestarting,
            CloseReason::ProtocolError("reserved bits set"),
            CloseReason::BinaryMessage,
            CloseReason::InvalidUtf8,
            CloseReason::MessageTooBig { limit: usize::MAX },
            CloseReason::Disconnected { code: 4000, reason: "banned".into() },
            CloseReason::SlowConsumer { limit: usize::MAX, pending: usize::MAX },
            CloseReason::OverCapacity { limit: usize::MAX },
            CloseReason::RateLimited(Pace::Messages { per_second: u32::MAX }),
            CloseReason::PongTimeout { timeout_s: u32::MAX },
            CloseReason::Silent { timeout_s: u32::MAX, is_reading: false },
            CloseReason::HandshakeTimeout,
            CloseReason::UpgradeRefused,
            CloseReason::TlsFailed,
            CloseReason::AddressConnections { limit: u32::MAX },
            CloseReason::AddressUpgrades { limit: u32::MAX },
            CloseReason::ProxyHeaderMalformed,
            CloseReason::Drained { retry_after_ms: u32::MAX },
            CloseReason::Shed { retry_after_ms: u32::MAX },
            CloseReason::TooOld { retry_after_ms: u32::MAX },
            CloseReason::OutboxMemory { limit: usize::MAX, pending: usize::MAX },
            CloseReason::PusherRefused(handshake::Refusal::UnknownKey("k".repeat(500).into())),
            CloseReason::NotAuthorized,
        ]
    }

    #[track_caller]
    fn check(reason: CloseReason, frame: Option<(u16, &str)>) {
        assert_eq!(reason.frame(Dialect::Native), frame.map(|(code, text)| (code, text.to_owned())), "{reason:?}");
    }

    #[test]
    fn each_reason_has_its_code_and_text() {
        let disconnected = |code| CloseReason::Disconnected { code, reason: "banned".into() };
        check(CloseReason::ClientClosed { code: None }, Some((1000, "")));
        check(CloseReason::ClientClosed { code: Some(3001) }, Some((3001, "")));
        check(CloseReason::ClientGone, None);
        check(CloseReason::ServerRestarting, Some((1012, "the server is restarting: reconnect")));
        check(CloseReason::ProtocolError("mask missing"), Some((1002, "mask missing")));
        check(CloseReason::BinaryMessage, Some((1003, "binary message: send text messages")));
        check(CloseReason::InvalidUtf8, Some((1007, "a text message was not valid UTF-8")));
        let text = "message over 65536 bytes: send smaller messages";
        check(CloseReason::MessageTooBig { limit: 65_536 }, Some((1009, text)));
        check(disconnected(4000), Some((4000, "banned")));
        check(disconnected(4999), Some((4999, "banned")));
        let text = "outbox over 1048576 bytes (1068576 bytes pending)";
        let slow = CloseReason::SlowConsumer { limit: 1_048_576, pending: 1_068_576 };
        check(slow, Some((4100, text)));
        let text = "all outboxes over 67108864 bytes (90000 bytes pending here, the most)";
        check(CloseReason::OutboxMemory { limit: 64 << 20, pending: 90_000 }, Some((4100, text)));
        let text = "over 100000 connections: try again later";
        check(CloseReason::OverCapacity { limit: 100_000 }, Some((4101, text)));
        let text = "over 10 messages a second for too long: send fewer";
        let pace = Pace::Messages { per_second: 10 };
        check(CloseReason::RateLimited(pace), Some((4102, text)));
        let text = "over 1024 bytes a second for too long: send less";
        check(CloseReason::RateLimited(Pace::Bytes { per_second: 1024 }), Some((4102, text)));
        let text = "no socket:pong within 25 s of the ping";
        check(CloseReason::PongTimeout { timeout_s: 25 }, Some((4201, text)));
        let text = "nothing arrived for 55 s: send socket:ping";
        check(CloseReason::Silent { timeout_s: 55, is_reading: true }, Some((4202, text)));
        let text = "the client took no reply for 55 s: read what the server sends";
        check(CloseReason::Silent { timeout_s: 55, is_reading: false }, Some((4202, text)));
        check(CloseReason::HandshakeTimeout, None);
        check(CloseReason::UpgradeRefused, None);
        check(CloseReason::TlsFailed, None);
        check(CloseReason::AddressConnections { limit: 10 }, None);
        check(CloseReason::AddressUpgrades { limit: 10 }, None);
        check(CloseReason::ProxyHeaderMalformed, None);
        let retry_after_ms = 1234;
        for asked_to_leave in [
            CloseReason::Drained { retry_after_ms },
            CloseReason::Shed { retry_after_ms },
            CloseReason::TooOld { retry_after_ms },
        ] {
            check(asked_to_leave, Some((1012, "retry after 1234 ms")));
        }
    }

    #[test]
    fn pushers_clients_do_what_the_code_means() {
        let code = |reason: CloseReason| reason.frame(Dialect::Pusher(handshake::Version::V7)).map(|(code, _)| code);
        let disconnected = |code| CloseReason::Disconnected { code, reason: "banned".into() };
        for (named, sent) in [(4000, 4009), (4001, 4001), (4199, 4199), (4999, 4999)] {
            assert_eq!(code(disconnected(named)), Some(sent));
        }
        assert_eq!(code(CloseReason::ServerRestarting), Some(1001));
        for reason in [
            CloseReason::Drained { retry_after_ms: 1 },
            CloseReason::Shed { retry_after_ms: 1 },
            CloseReason::TooOld { retry_after_ms: 1 },
        ] {
            assert_eq!(code(reason), Some(4200));
        }
        for reason in [
            CloseReason::SlowConsumer { limit: 1, pending: 2 },
            CloseReason::OutboxMemory { limit: 1, pending: 2 },
            CloseReason::OverCapacity { limit: 1 },
            CloseReason::RateLimited(Pace::Messages { per_second: 1 }),
        ] {
            assert_eq!(code(reason), Some(4100));
        }
        assert_eq!(code(CloseReason::PongTimeout { timeout_s: 1 }), Some(4201));
        assert_eq!(code(CloseReason::Silent { timeout_s: 1, is_reading: true }), Some(4202));
        assert_eq!(code(CloseReason::BinaryMessage), Some(1003));
        assert_eq!(code(CloseReason::NotAuthorized), Some(4009));
        assert_eq!(code(CloseReason::PusherRefused(handshake::Refusal::PathNotFound)), Some(4005));
        assert_eq!(code(CloseReason::ClientClosed { code: Some(4000) }), Some(4000), "an echo");
    }

    #[test]
    fn a_close_without_a_code_has_no_close_code() {
        let code = |reason: CloseReason| reason.close_code(Dialect::Native);
        assert_eq!(code(CloseReason::ClientClosed { code: None }), None);
        assert_eq!(code(CloseReason::ClientClosed { code: Some(1001) }), Some(1001));
        assert_eq!(code(CloseReason::ServerRestarting), Some(1012));
        assert_eq!(code(CloseReason::ClientGone), None);
    }

    #[test]
    fn each_kind_has_its_own_line_in_the_table() {
        let kinds: Vec<usize> = every_kind().iter().map(CloseReason::kind).collect();
        assert_eq!(kinds, (0..CloseReason::KINDS).collect::<Vec<_>>());
    }

    #[test]
    fn labels_are_unique_and_snake_case() {
        let mut labels = CloseReason::LABELS.to_vec();
        assert!(labels.iter().all(|label| !label.is_empty()));
        assert!(
            labels.iter().all(|label| { label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) })
        );
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::KINDS);
    }

    #[test]
    fn every_text_fits_a_close_frame() {
        for reason in every_kind() {
            assert!(reason.to_string().len() <= 123, "{reason}");
        }
    }
}
