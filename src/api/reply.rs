//! The replies, and the rows of lists.

use crate::config::{self, Difference};
use crate::metrics;
use crate::protocol::channel::ChannelName;
use crate::protocol::socket_id::SocketId;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::net::SocketAddr;

/// What answers a request, beside `id` and `ok`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the fields are the members of the reply")]
pub enum Reply {
    /// It is done.
    Done {},
    /// To `publish`: how many subscribers it goes to.
    Published { subscribers: u64 },
    /// To an operation that lists: one page.
    Page {
        #[serde(flatten)]
        rows: Rows,
        /// Where the next page begins; `None`: this is the last one.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// To `channel`.
    Channel(ChannelCount),
    /// To `connection`.
    Connection {
        #[serde(flatten)]
        connection: ConnectionInfo,
        channels: Vec<ChannelName>,
    },
    /// To `stats`.
    Stats {
        /// The sums.
        stats: Box<metrics::Stats>,
        /// Each shard's.
        shards: Vec<metrics::Stats>,
    },
    /// To `busiest`: the busiest first.
    Busiest { channels: Vec<BusyChannel>, addresses: Vec<BusyAddress> },
    /// To `reload`.
    Reloaded(Box<Difference>),
    /// To `drain` and `shed`, which have begun: how many connections will be closed, over what time.
    Leaving { connections: usize, over_ms: u64 },
    /// To `events`: the stream goes on from this number of this run of the server.
    Following {
        #[serde(serialize_with = "hexadecimal")]
        epoch: u64,
        number: u64,
    },
}

/// A member of a row.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name; `_s` and `_bytes` at its end are units.
    pub name: &'static str,
    kind: &'static str,
}

impl Column {
    /// Whether it holds a number.
    pub fn is_number(self) -> bool {
        matches!(self.kind, "u16" | "u32" | "u64" | "usize")
    }
}

/// The columns of the list of this operation, if it is one.
pub fn columns(operation: &str) -> Option<&'static [Column]> {
    COLUMNS.iter().find(|(list, _)| *list == operation).map(|(_, columns)| *columns)
}

/// Declares what lists hold: a struct for a row of each, and [`Rows`] for a page of any.
macro_rules! rows {
    ($($(#[$about:meta])* $list:literal $Rows:ident($Row:ident {
        $($(#[$attribute:meta])* $member:ident: $kind:ty,)+
    }))+) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
            pub struct $Row {
                $($(#[$attribute])* pub $member: $kind,)+
            }
        )+

        /// The rows of a page.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Rows {
            $($(#[$about])* $Rows(Vec<$Row>),)+
        }

        /// The member of the reply that holds the rows of each list, and the members of a row.
        pub const COLUMNS: &[(&str, &[Column])] =
            &[$(($list, &[$(Column { name: stringify!($member), kind: stringify!($kind) }),+])),+];

        impl Rows {
            /// How many there are.
            pub fn len(&self) -> usize {
                match self {
                    $(Rows::$Rows(rows) => rows.len(),)+
                }
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Adds those of another shard, of the same list.
            pub fn append(&mut self, more: Rows) {
                match (self, more) {
                    $((Rows::$Rows(rows), Rows::$Rows(mut more)) => rows.append(&mut more),)+
                    _ => {}
                }
            }
        }
    };
}

rows! {
    /// A channel in use.
    "channels" Channels(ChannelCount {
        /// Its name.
        channel: ChannelName,
        /// Subscribers of all shards.
        subscribers: u64,
    })

    /// An open connection.
    "connections" Connections(ConnectionInfo {
        /// Its public name.
        socket_id: SocketId,
        /// The client's address, as a trusted proxy names it or else the socket; port 0: the proxy named none.
        #[serde(serialize_with = "address")]
        address: Option<SocketAddr>,
        /// The shard that has it.
        shard: u16,
        /// Seconds since it was accepted.
        age_s: u64,
        /// Live subscriptions.
        subscriptions: usize,
        /// Bytes that wait for it.
        outbox_bytes: usize,
    })
}

/// A channel among the busiest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BusyChannel {
    /// Its name.
    pub channel: ChannelName,
    /// Subscribers of all shards.
    pub subscribers: u64,
    /// Messages since it has had subscribers.
    pub messages: u64,
}

/// An address among the busiest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BusyAddress {
    /// An IPv4 address, or an IPv6 network.
    pub address: String,
    /// Its connections, in all shards.
    pub connections: u32,
}

/// A client's address, for people: without a port where a proxy has named none.
pub fn written(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_string(),
        _ => address.to_string(),
    }
}

fn address<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.map(written).serialize(serializer)
}

fn hexadecimal<S: Serializer>(epoch: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{epoch:016x}"))
}

impl Serialize for ChannelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_channel().as_str())
    }
}

impl Serialize for SocketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Name → number.
impl Serialize for metrics::Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.values())
    }
}

impl Serialize for Difference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Change<'a> {
            option: &'a str,
            old: &'a str,
            new: &'a str,
        }
        fn of(changes: &[config::Change]) -> Vec<Change<'_>> {
            changes.iter().map(|change| Change { option: change.option, old: &change.old, new: &change.new }).collect()
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("changes", &of(&self.changes))?;
        map.serialize_entry("restart", &of(&self.restart))?;
        map.end()
    }
}
