//! The operations: name, help line and members of each, which shard answers it, and what it answers.

use super::declare::{Column, Declaration, operations, rows};
use super::history::{Cursor, HistoryPage, MESSAGES_MAX, Newest, Since, cursor, since};
use super::member::{Given, Member, Members as Source, Written};
use super::member::{flag, integer, required, short_text, text, word, words};
use super::publish::{PUBLISH, Publish, Published, user};
use super::refusal::Refusal;
use super::value::{By, Operation, Share, address, hexadecimal, optional_json};
use crate::config::{Difference, Explained};
use crate::metrics;
use crate::protocol::socket_id::SocketId;
use crate::protocol::{self, channel::ChannelName};
use serde::Serialize;
use std::net::SocketAddr;

operations! {
    /// List the channels that have subscribers
    "channels" Channels {
        /// Only channels whose names start with this.
        prefix: Option<Box<str>> = text(),
        /// Entries of the reply.
        limit: Option<usize> = integer(1..=PAGE_MAX),
        /// The `next` of the previous page.
        after: Option<Box<str>> = text(),
    }

    /// Show how many subscribers one channel has
    "channel" Channel {
        /// Name of the channel.
        channel: Box<str> = required(),
        /// Whether to show the newest message that the channel keeps.
        newest: bool = flag(),
    }

    /// List the connections that are subscribed to one channel
    "subscribers" Subscribers {
        /// Name of the channel.
        channel: Box<str> = required(),
        /// Entries of the reply.
        limit: Option<usize> = integer(1..=PAGE_MAX),
        /// The `next` of the previous page.
        after: Option<Box<str>> = text(),
    }

    /// Read the messages that a channel keeps
    "history" History {
        /// Name of the channel.
        channel: Box<str> = required(),
        /// Only messages after this position.
        since: Option<Since> = since(),
        /// Messages of the reply; 0: none, only the channel's position.
        limit: Option<usize> = integer(0..=MESSAGES_MAX),
        /// Newest first.
        reverse: bool = flag(),
        /// The `next` of the previous page.
        after: Option<Cursor> = cursor(),
    }

    /// List the members of a presence channel
    "members" Members {
        /// Name of the channel.
        channel: Box<str> = required(),
    }

    /// List the client connections
    "connections" Connections {
        /// Entries of the reply.
        limit: Option<usize> = integer(1..=PAGE_MAX),
        /// The `next` of the previous page.
        after: Option<Box<str>> = text(),
    }

    /// Show one connection and what it is subscribed to
    "connection" Connection {
        /// The connection, in either spelling.
        socket_id: Box<str> = required(),
    }

    /// Close one connection, or all connections of a user
    "disconnect" Disconnect {
        /// The connection, in either spelling.
        socket_id: Option<Box<str>> = text(),
        /// Or the user, by id.
        user: Option<Box<str>> = user(),
        /// Close code.
        code: Option<u16> = integer(4000..=4999),
        /// Text for the close frame.
        reason: Option<Box<str>> = short_text(REASON_BYTES_MAX, "bytes of reason"),
    }

    /// End one subscription of a connection, and tell the client
    "unsubscribe" Unsubscribe {
        /// The connection, in either spelling.
        socket_id: Box<str> = required(),
        /// Name of the channel.
        channel: Box<str> = required(),
    }

    /// Watch channels come into use and connections come and go, an event a line
    "events" Events {
        /// Only events after this number, if the server still has them; otherwise a snapshot comes first.
        since: Option<u64> = integer(0..=u64::MAX),
        /// The run of the server that the number belongs to.
        epoch: Option<Box<str>> = text(),
        /// Also these kinds of events, which are not changes.
        also: Vec<Box<str>> = words(&ALSO),
    }

    /// Watch what the server sees and decides, as it happens
    "tail" Tail {
        /// Only channels whose names match; `*` stands for any text.
        channel: Option<Box<str>> = short_text(PATTERN_BYTES_MAX, "bytes of channel"),
        /// Only clients of this network, or of this address.
        address: Option<Box<str>> = text(),
        /// Only these kinds of sightings.
        events: Vec<Box<str>> = words(&KINDS),
        /// One in this many sightings.
        sample: Option<u32> = integer(1..=u32::MAX),
        /// At most this many sightings per second from each shard.
        rate: Option<u32> = integer(1..=RATE_MAX),
        /// Bytes of published data that are shown.
        data: Option<u16> = integer(0..=SHOWN_BYTES_MAX),
    }

    /// List the channels with the most subscribers or messages, and the addresses with the most connections
    "busiest" Busiest {
        /// What makes a channel busy.
        by: By = word(&By::WORDS),
        /// Entries of each list.
        limit: Option<usize> = integer(1..=PAGE_MAX),
    }

    /// Show which rule a channel has, and where the value of each key comes from
    "rule" Rule {
        /// Name of the channel.
        channel: Box<str> = required(),
    }

    /// Show the server's counters, in total and by shard
    "stats" Stats {}

    /// Read the configuration again and show what changed
    "reload" Reload {}

    /// Close all connections over a time, then stop the server
    "drain" Drain {
        /// Milliseconds.
        over_ms: Option<u64> = integer(0..=OVER_MS_MAX),
    }

    /// Close a part of the connections over a time; the server goes on
    "shed" Shed {
        /// Per cent of all connections.
        percent: Option<u8> = integer(0..=100),
        /// Or the number of connections.
        connections: Option<usize> = integer(0..=usize::MAX),
        /// Milliseconds.
        over_ms: Option<u64> = integer(0..=OVER_MS_MAX),
    }

    /// Make a token that opens the console once, within 60 s
    "console_token" ConsoleToken {
        /// Whether the console may only look.
        read_only: bool = flag(),
    }

    /// Check whether the server is alive
    "ping" Ping {}
}

/// Any request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `publish`.
    Publish(Publish<'a>),
    /// Any other operation.
    Request(Request),
}

/// Which shard answers a request.
#[derive(Debug)]
pub enum Route<'a> {
    /// The shard that has the session.
    Here,
    /// The shard that owns the channel.
    Owner(&'a str),
    /// The shard of the connection with this socket_id.
    Connection(&'a str),
    /// The shard that owns the channel of the user with this id.
    User(&'a str),
    /// Each shard in turn, from the end of the previous page on, until the page is full.
    Pages {
        /// Entries of the page.
        limit: Option<usize>,
        /// The `next` of the previous page.
        after: Option<&'a str>,
    },
    /// All shards; the session adds up their numbers.
    Stats,
    /// All shards; the session ranks their answers.
    Busiest(&'a Busiest),
    /// The session becomes a stream of events.
    Events(&'a Events),
    /// The session becomes a stream of sightings.
    Tail(&'a Tail),
    /// The supervisor, because the operation concerns the whole server.
    Server(Operation),
}

impl Request {
    /// The shard that answers. Also checks what the declaration cannot express.
    pub fn route(&self) -> Result<Route<'_>, Refusal> {
        Ok(match self {
            Request::Ping(_) => Route::Here,
            Request::Channel(Channel { channel, .. })
            | Request::History(History { channel, .. })
            | Request::Members(Members { channel }) => Route::Owner(channel),
            Request::Disconnect(disconnect) => disconnect.route()?,
            Request::Connection(Connection { socket_id }) | Request::Unsubscribe(Unsubscribe { socket_id, .. }) => {
                Route::Connection(socket_id)
            }
            Request::Subscribers(Subscribers { channel, limit, after }) => {
                protocol::channel::Channel::parse(channel).ok_or(Refusal::InvalidChannel)?;
                Route::Pages { limit: *limit, after: after.as_deref() }
            }
            Request::Channels(Channels { limit, after, .. }) | Request::Connections(Connections { limit, after }) => {
                Route::Pages { limit: *limit, after: after.as_deref() }
            }
            Request::Stats(_) => Route::Stats,
            Request::Busiest(busiest) => Route::Busiest(busiest),
            Request::Events(events) => Route::Events(events),
            Request::Tail(tail) => Route::Tail(tail),
            Request::Rule(Rule { channel }) => {
                let channel = protocol::channel::Channel::parse(channel).ok_or(Refusal::InvalidChannel)?;
                Route::Server(Operation::Rule { channel: channel.into() })
            }
            Request::Reload(_) => Route::Server(Operation::Reload),
            Request::Drain(Drain { over_ms }) => {
                Route::Server(Operation::Drain { over_ms: over_ms.unwrap_or(OVER_MS_DEFAULT) })
            }
            Request::Shed(shed) => {
                let over_ms = shed.over_ms.unwrap_or(OVER_MS_DEFAULT);
                Route::Server(Operation::Shed { share: shed.share()?, over_ms })
            }
            Request::ConsoleToken(ConsoleToken { read_only }) => {
                Route::Server(Operation::ConsoleToken { read_only: *read_only })
            }
        })
    }
}

impl Disconnect {
    fn route(&self) -> Result<Route<'_>, Refusal> {
        match (&self.socket_id, &self.user) {
            (Some(socket_id), None) => Ok(Route::Connection(socket_id)),
            (None, Some(user)) => Ok(Route::User(user)),
            (Some(_), Some(_)) => Err(Refusal::malformed("socket_id and user are both given")),
            (None, None) => Err(Refusal::MissingMember("socket_id or user")),
        }
    }
}

impl Shed {
    /// The part of all connections to close.
    pub fn share(&self) -> Result<Share, Refusal> {
        match (self.percent, self.connections) {
            (Some(percent), None) => Ok(Share::Percent(percent)),
            (None, Some(connections)) => Ok(Share::Count(connections)),
            (Some(_), Some(_)) => Err(Refusal::malformed("percent and connections are both given")),
            (None, None) => Err(Refusal::MissingMember("percent or connections")),
        }
    }

    /// The members that specify a part of all connections.
    pub fn of(share: Share, over_ms: u64) -> Shed {
        let (percent, connections) = match share {
            Share::Percent(percent) => (Some(percent), None),
            Share::Count(count) => (None, Some(count)),
        };
        Shed { percent, connections, over_ms: Some(over_ms) }
    }
}

/// The declaration of the operation of this name.
pub fn declaration(name: &str) -> Result<&'static Declaration, Refusal> {
    OPERATIONS.iter().find(|operation| operation.name == name).ok_or(Refusal::UnknownCommand(OPERATIONS))
}

/// The content of a reply, besides `id` and `ok`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the fields are the members of the reply")]
pub enum Reply {
    /// The operation is done. No content.
    Done {},
    /// To `publish`.
    Published(Published),
    /// To an operation that lists: one page.
    Page {
        #[serde(flatten)]
        rows: Rows,
        /// Start of the next page; `None`: this is the last page.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// To `channel`.
    Channel {
        #[serde(flatten)]
        count: ChannelCount,
        /// `None`: the channel has no history.
        #[serde(skip_serializing_if = "Option::is_none")]
        history: Option<KeptCount>,
        /// `None`: it was not asked for, or the channel keeps no message.
        #[serde(skip_serializing_if = "Option::is_none")]
        newest: Option<Box<Newest>>,
    },
    /// To `history`.
    History(Box<HistoryPage>),
    /// To `members`: the users in order of joining, and their number; of a channel whose connections are counted without
    /// names, the number of connections.
    Members { count: u64, members: Vec<PresentUser> },
    /// To `disconnect` of a user: the number of its connections.
    Disconnected { connections: u64 },
    /// To `connection`.
    Connection {
        #[serde(flatten)]
        connection: ConnectionInfo,
        channels: Vec<ChannelName>,
    },
    /// To `stats`.
    Stats {
        /// The totals.
        stats: Box<metrics::Stats>,
        /// The numbers of each shard.
        shards: Vec<metrics::Stats>,
    },
    /// To `busiest`: the busiest first.
    Busiest { channels: Vec<BusyChannel>, addresses: Vec<BusyAddress> },
    /// To `rule`.
    Rule {
        channel: ChannelName,
        #[serde(flatten)]
        explained: Box<Explained>,
    },
    /// To `reload`.
    Reloaded(Box<Difference>),
    /// To `drain` and `shed`, which have begun: the number of connections to close, and the time.
    Leaving { connections: usize, over_ms: u64 },
    /// To `console_token`: the token, and the URL that it opens as `URL#token=TOKEN`.
    ConsoleToken { token: String, url: String },
    /// To `events`: the stream continues after this number of this run of the server.
    Following {
        #[serde(serialize_with = "hexadecimal")]
        epoch: u64,
        number: u64,
    },
}

rows! {
    /// A channel in use.
    "channels" Channels(ChannelCount {
        /// Its name.
        channel: ChannelName,
        /// Subscribers of all shards.
        subscribers: u64,
        /// Users that are members, of a presence channel.
        #[serde(skip_serializing_if = "Option::is_none")]
        users: Option<u64>,
    })

    /// A subscriber of a channel.
    "subscribers" Subscribers(SubscriberInfo {
        /// Its socket_id.
        socket_id: SocketId,
        /// The client's address, as a trusted proxy names it or else the socket; port 0: the proxy named none.
        #[serde(serialize_with = "address")]
        address: Option<SocketAddr>,
        /// The dialect that it speaks: `native` or `pusher`.
        dialect: &'static str,
        /// Seconds since the connection was accepted.
        age_s: u64,
    })

    /// An open connection.
    "connections" Connections(ConnectionInfo {
        /// Its socket_id.
        socket_id: SocketId,
        /// The client's address, as a trusted proxy names it or else the socket; port 0: the proxy named none.
        #[serde(serialize_with = "address")]
        address: Option<SocketAddr>,
        /// The dialect that it speaks: `native` or `pusher`.
        dialect: &'static str,
        /// Its shard.
        shard: u16,
        /// Seconds since it was accepted.
        age_s: u64,
        /// Live subscriptions.
        subscriptions: usize,
        /// Bytes that wait to be sent to it.
        outbox_bytes: usize,
    })
}

/// What a channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KeptCount {
    /// Messages.
    pub messages: usize,
    /// Their bytes in memory.
    pub bytes: usize,
}

/// A member of a presence channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PresentUser {
    /// The user's id.
    pub user_id: Box<str>,
    /// Raw JSON of its first connection's `user_info`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_json")]
    pub user_info: Option<Box<str>>,
    /// Its connections that are subscribed to the channel.
    pub connections: u64,
}

/// A channel among the busiest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BusyChannel {
    /// Its name.
    pub channel: ChannelName,
    /// Subscribers of all shards.
    pub subscribers: u64,
    /// Messages since the channel became occupied.
    pub messages: u64,
}

/// An address among the busiest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BusyAddress {
    /// An IPv4 address, or an IPv6 network.
    pub address: String,
    /// Its connections on all shards.
    pub connections: u32,
}

/// The columns of the list of this operation, if it is one.
pub fn columns(operation: &str) -> Option<&'static [Column]> {
    COLUMNS.iter().find(|(list, _)| *list == operation).map(|(_, columns)| *columns)
}

/// The kinds of events that a consumer receives only if it asks for them.
pub const ALSO: [&str; 3] = ["client_event", "cache_miss", "subscription_count"];
/// The kinds of sightings of a tail.
pub const KINDS: [&str; 7] = ["connect", "refuse", "subscribe", "unsubscribe", "publish", "close", "limit"];
/// Most entries of one reply.
pub const PAGE_MAX: usize = 1000;
/// Bytes of `reason`, unescaped: the longest text that fits into a close frame (RFC 6455 §5.5).
pub const REASON_BYTES_MAX: usize = 123;
/// The longest time for closing connections: an hour.
pub const OVER_MS_MAX: u64 = 3_600_000;
/// The default time for closing connections.
pub const OVER_MS_DEFAULT: u64 = 60_000;
/// Most sightings per second and shard.
pub const RATE_MAX: u32 = 100_000;
/// Longest channel pattern of a tail, in bytes.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Most bytes of published data that a tail shows.
pub const SHOWN_BYTES_MAX: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shed_names_one_part() {
        let route = |percent, connections| {
            let request = Request::Shed(Shed { percent, connections, over_ms: None });
            match request.route() {
                Ok(Route::Server(Operation::Shed { share, over_ms })) => Ok((share, over_ms)),
                Ok(route) => panic!("{route:?}"),
                Err(refusal) => Err(refusal.code()),
            }
        };
        assert_eq!(route(Some(20), None), Ok((Share::Percent(20), OVER_MS_DEFAULT)));
        assert_eq!(route(None, Some(7)), Ok((Share::Count(7), OVER_MS_DEFAULT)));
        assert_eq!(route(Some(1), Some(1)), Err("malformed_request"));
        assert_eq!(route(None, None), Err("missing_member"));
    }

    #[test]
    fn a_disconnect_names_a_connection_or_a_user() {
        let route = |socket_id: Option<&str>, user: Option<&str>| {
            let (socket_id, user) = (socket_id.map(Box::from), user.map(Box::from));
            let request = Request::Disconnect(Disconnect { socket_id, user, ..Disconnect::default() });
            match request.route() {
                Ok(Route::Connection(id) | Route::User(id)) => Ok(id.to_owned()),
                Ok(route) => panic!("{route:?}"),
                Err(refusal) => Err(refusal.code()),
            }
        };
        assert_eq!(route(Some("1.2"), None), Ok("1.2".into()));
        assert_eq!(route(None, Some("12")), Ok("12".into()));
        assert_eq!(route(Some("1.2"), Some("12")), Err("malformed_request"));
        assert_eq!(route(None, None), Err("missing_member"));
    }

    #[test]
    fn names_and_words_are_distinct() {
        let mut names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPERATIONS.len());
        for operation in OPERATIONS {
            assert!(operation.help.len() < 120 && !operation.help.ends_with('.'), "{operation:?}");
        }
        assert_eq!(By::Messages.written(), Some(Given::Text("messages".into())));
    }
}
