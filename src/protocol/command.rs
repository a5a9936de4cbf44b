//! What a client may ask for, in any dialect.

use crate::protocol::json::{JsonString, Value};
use crate::protocol::socket_id::SocketId;
use std::borrow::Cow;

/// A client's message, read. Fields borrow from the message. Members are those of either dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Subscribe to a channel.
    Subscribe {
        /// `data.channel`; any string, legality not yet checked.
        channel: JsonString<'a>,
        /// `data.auth`.
        auth: Auth<'a>,
        /// `data.channel_data`; `None`: it is absent or not a string. If it is not a string, `auth` is
        /// [`Auth::NotString`].
        channel_data: Option<JsonString<'a>>,
        /// `data.since`. Only the native dialect has it.
        since: Since,
    },
    /// Leave a channel.
    Unsubscribe {
        /// `data.channel`; any string.
        channel: JsonString<'a>,
    },
    /// Answer with a pong.
    Ping {
        /// `data.id` exactly as written, with its quotes if it is a string. Empty in Pusher's dialect.
        id: &'a str,
    },
    /// The answer to the server's ping.
    Pong,
    /// Sign in as a user.
    SignIn {
        /// `data.auth`.
        auth: Auth<'a>,
        /// `data.user_data`; `None`: it is absent or not a string.
        user_data: Option<JsonString<'a>>,
    },
    /// An event whose name starts with `client-`.
    ClientEvent {
        /// The name; its length is not yet checked.
        event: JsonString<'a>,
        /// `channel`; any string, legality not yet checked.
        channel: JsonString<'a>,
        /// `data`, raw; `null` is data too. Its length is not yet checked.
        data: Option<Value<'a>>,
    },
}

/// `data.since`: the position after which a subscriber wants the channel's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The member is absent.
    Absent,
    /// It has another shape (PROTOCOL.md, Channels with memory).
    Malformed,
    /// A position.
    Position {
        /// The epoch; `None`: a string that is not an epoch of this server.
        epoch: Option<u64>,
        /// At most [`OFFSET_MAX`](crate::protocol::position::OFFSET_MAX).
        offset: u64,
        /// The id of the client's earlier connection.
        socket_id: Option<SocketId>,
    },
}

/// `data.auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth<'a> {
    /// The member is absent.
    Absent,
    /// It is present (`null` counts), but it or the `channel_data` beside it is not a string. It never verifies.
    NotString,
    /// A string, unescaped.
    Text(Cow<'a, str>),
}

impl<'a> Auth<'a> {
    /// Reads the member.
    pub fn read(auth: Option<Value<'a>>) -> Auth<'a> {
        auth.map_or(Auth::Absent, |auth| auth.text().map_or(Auth::NotString, Auth::Text))
    }

    /// Beside a `channel_data`, which is `Some(None)` if it is not a string.
    pub fn beside(self, channel_data: &Option<Option<JsonString<'_>>>) -> Auth<'a> {
        match (self, channel_data) {
            (Auth::Text(_), Some(None)) => Auth::NotString,
            (auth, _) => auth,
        }
    }
}

/// Why a message is answered with `socket:error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable<'a> {
    /// `malformed_message`, with the text for people.
    Malformed(&'static str),
    /// `unknown_event`.
    UnknownEvent {
        /// Its name, as written between the quotes.
        event: &'a str,
    },
}

/// The message is not JSON.
pub const NOT_JSON: Unreadable<'_> = Unreadable::Malformed("the message is not valid JSON");
/// It is another value than an object.
pub const NOT_OBJECT: Unreadable<'_> = Unreadable::Malformed("the message must be a JSON object");
/// It has no event.
pub const NO_EVENT: Unreadable<'_> = Unreadable::Malformed("event must be a string of Unicode text");
/// A request has no channel.
pub const NO_CHANNEL: Unreadable<'_> = Unreadable::Malformed("data.channel must be a string of Unicode text");
/// A client event has no channel.
pub const NO_CHANNEL_BESIDE: Unreadable<'_> =
    Unreadable::Malformed("channel, beside event, must be a string of Unicode text: the channel of the client event");
