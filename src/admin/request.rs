//! Lines of the admin socket → requests. Pure.

use crate::protocol::channel::Channel;
use crate::protocol::socket_id::SocketId;
use smallvec::SmallVec;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// `id` as it was written; `null` where there was none.
    pub id: &'a str,
    /// What is asked, or why the line is refused.
    pub command: Result<Command<'a>, Refusal>,
}

/// A command of the admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command<'a> {
    Publish(Publish<'a>),
    Channels {
        prefix: std::borrow::Cow<'a, str>,
        limit: Option<usize>,
        after: Option<std::borrow::Cow<'a, str>>,
    },
    Channel {
        channel: std::borrow::Cow<'a, str>,
    },
    Connections {
        limit: Option<usize>,
        after: Option<std::borrow::Cow<'a, str>>,
    },
    Connection {
        socket_id: Option<SocketId>,
    },
    Disconnect {
        socket_id: Option<SocketId>,
        code: u16,
        reason: std::borrow::Cow<'a, str>,
    },
    Unsubscribe {
        socket_id: Option<SocketId>,
        channel: std::borrow::Cow<'a, str>,
    },
    Stats,
    Ping,
}

/// `publish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// 1 to 100 legal names.
    pub channels: SmallVec<[std::borrow::Cow<'a, str>; 1]>,
    /// What stands between the quotes of `event`, as written.
    pub event: &'a str,
    /// Raw JSON of `data`, byte for byte.
    pub data: Option<&'a str>,
    /// Who is left out.
    pub exclude: Option<SocketId>,
}

/// Why a request is refused: code for programs, text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refusal {
    MalformedRequest(&'static str),
    UnknownCommand,
    MissingMember(&'static str),
    InvalidChannel,
    ReservedEvent,
    NotFound(&'static str),
    TooLarge { what: &'static str, limit: usize },
}

/// Reads lines; owns the tape and the copy that simd-json works on.
#[derive(Default)]
pub struct Parser {}

impl Parser {
    /// Reads one line (without its newline).
    pub fn request<'a>(&mut self, line: &'a [u8]) -> Request<'a> {
        let _ = line;
        let _: Option<Channel<'a>> = None;
        Request {
            id: "null",
            command: Err(Refusal::UnknownCommand),
        }
    }
}
