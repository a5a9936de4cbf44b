//! The dialects: reads and writes messages in the words of a connection's client.

use super::auth::Attempt;
use super::command::{Command, Unreadable};
use super::error_code::ErrorCode;
use super::event::Subscribed;
use super::json::Reader;
use super::pusher::handshake::Version;
use super::socket_id::SocketId;
use super::{native, pusher};
use crate::config::{Limits, PRESENCE};
use serde::{Deserialize, Serialize};

/// The dialect that a connection speaks, for life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// `socket:` events.
    #[default]
    Native,
    /// `pusher:` events.
    Pusher(Version),
}

impl Dialect {
    /// Reads a message of a client. `held` must be kept for as long as the command, which may borrow from it.
    pub fn read<'a>(
        self,
        reader: &mut Reader,
        text: &'a str,
        held: &'a mut String,
    ) -> Result<Command<'a>, Unreadable<'a>> {
        match self {
            Dialect::Native => native::command::command(reader, text),
            Dialect::Pusher(_) => pusher::command::command(reader, text, held),
        }
    }
}

/// Replies, and what else one connection is told.
impl Dialect {
    /// Its name, for people and for labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Native => "native",
            Dialect::Pusher(_) => "pusher",
        }
    }

    /// Whether it is Pusher's.
    pub fn is_pusher(self) -> bool {
        self != Dialect::Native
    }

    /// Whether a message must precede a close frame with this code, because the client ignores the frame: clients of protocol 6
    /// and earlier do, and all clients until their first message. `was_open`: whether that was sent.
    pub fn announces_close(self, code: u16, was_open: bool) -> bool {
        match self {
            Dialect::Native => false,
            Dialect::Pusher(version) => (4000..5000).contains(&code) && (version <= Version::V6 || !was_open),
        }
    }

    /// The first message.
    pub fn connected(self, out: &mut Vec<u8>, socket_id: SocketId, limits: &Limits) {
        match self {
            Dialect::Native => {
                native::event::connected(out, socket_id, limits.heart_interval_s, limits.heart_timeout_s)
            }
            Dialect::Pusher(_) => pusher::event::connection_established(out, socket_id, limits.activity_timeout_s),
        }
    }

    /// Answers a ping; `id` is raw JSON, and empty in Pusher's dialect.
    #[inline]
    pub fn pong(self, out: &mut Vec<u8>, id: &[u8]) {
        match self {
            Dialect::Native => native::event::pong(out, id),
            Dialect::Pusher(_) => pusher::event::pong(out),
        }
    }

    /// The connection is subscribed.
    pub fn subscribed(self, out: &mut Vec<u8>, channel: &str, with: &Subscribed<'_>) {
        match self {
            Dialect::Native => native::event::subscribed(out, channel, with),
            Dialect::Pusher(_) => {
                // Counts are of the native dialect.
                let members = with.presence.filter(|_| channel.starts_with(PRESENCE));
                pusher::event::subscription_succeeded(out, channel, members);
            }
        }
    }

    /// A subscribe is refused. `attempt`: the signature, if it is not valid.
    pub fn subscribe_error(self, out: &mut Vec<u8>, channel: &str, code: ErrorCode, attempt: Option<&Attempt<'_>>) {
        match self {
            Dialect::Native => native::event::subscribe_error(out, channel, code),
            Dialect::Pusher(version) => pusher::event::subscribe_error(out, version, channel, code, attempt),
        }
    }

    /// Confirms an unsubscribe. Pusher's protocol has no such message.
    pub fn unsubscribed(self, out: &mut Vec<u8>, channel: &str) {
        if self == Dialect::Native {
            native::event::unsubscribed(out, channel);
        }
    }

    /// An unsubscribe is refused. Pusher's clients are not told.
    pub fn unsubscribe_error(self, out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
        if self == Dialect::Native {
            native::event::unsubscribe_error(out, channel, code);
        }
    }

    /// The connection is signed in. `user_data`: what the backend signed.
    pub fn signed_in(self, out: &mut Vec<u8>, user_id: &str, user_data: &str) {
        match self {
            Dialect::Native => native::event::signed_in(out, user_id),
            Dialect::Pusher(_) => pusher::event::signin_success(out, user_data),
        }
    }

    /// A sign-in is refused. `attempt`: as in [`Dialect::subscribe_error`].
    pub fn signin_error(self, out: &mut Vec<u8>, code: ErrorCode, attempt: Option<&Attempt<'_>>) {
        match self {
            Dialect::Native => native::event::signin_error(out, code),
            Dialect::Pusher(_) => pusher::event::request_error(out, code, attempt),
        }
    }

    /// A client event is refused.
    pub fn client_event_error(self, out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
        match self {
            Dialect::Native => native::event::channel_error(out, channel, code),
            Dialect::Pusher(_) => pusher::event::client_event_error(out, channel, code),
        }
    }

    /// A message cannot be read as a request.
    pub fn unreadable(self, out: &mut Vec<u8>, why: &Unreadable<'_>) {
        match (self, why) {
            (Dialect::Native, Unreadable::UnknownEvent { .. }) => native::event::error(out, ErrorCode::UnknownEvent),
            (Dialect::Native, Unreadable::Malformed(what)) => {
                native::event::error(out, ErrorCode::MalformedMessage(what))
            }
            (Dialect::Pusher(_), Unreadable::UnknownEvent { event }) => pusher::event::unsupported_event(out, event),
            (Dialect::Pusher(_), Unreadable::Malformed(what)) => pusher::event::error(out, None, None, what),
        }
    }

    /// A message is refused without being handled, for its rate for example.
    pub fn error(self, out: &mut Vec<u8>, code: ErrorCode) {
        match self {
            Dialect::Native => native::event::error(out, code),
            Dialect::Pusher(_) => pusher::event::request_error(out, code, None),
        }
    }
}
