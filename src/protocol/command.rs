//! What a client asks for.

use crate::protocol::json::JsonString;

/// A client's message, read. Fields borrow from the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `socket:subscribe`
    Subscribe {
        /// `data.channel`; any string, legality not yet checked.
        channel: JsonString<'a>,
        /// `data.auth`.
        auth: Auth<'a>,
        /// `data.channel_data`.
        channel_data: ChannelData<'a>,
    },
    /// `socket:unsubscribe`
    Unsubscribe {
        /// `data.channel`; any string.
        channel: JsonString<'a>,
    },
    /// `socket:ping`
    Ping {
        /// `data.id` exactly as written, quotes included where it is a string.
        id: &'a str,
    },
    /// `socket:pong`
    Pong,
}

/// `auth` as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth<'a> {
    /// No such member.
    Absent,
    /// Present, and no string: never verifies.
    NotString,
    /// A string, unescaped.
    Text(std::borrow::Cow<'a, str>),
}

/// `channel_data` as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelData<'a> {
    /// No such member.
    Absent,
    /// Present, and no string: no signature over it verifies.
    NotString,
    /// A string, unescaped.
    Text(std::borrow::Cow<'a, str>),
}

/// Why a message is answered with `socket:error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// `malformed_message`, with the text for people.
    Malformed(&'static str),
    /// `unknown_event`.
    UnknownEvent,
}

/// Reads messages; owns the tape and the copy that simd-json works on, reused from message to message.
#[derive(Default)]
pub struct Parser {}

impl Parser {
    /// Reads one text message.
    pub fn command<'a>(&mut self, text: &'a str) -> Result<Command<'a>, Unreadable> {
        let _ = text;
        Err(Unreadable::UnknownEvent)
    }
}
