//! The pieces of a stream of lifecycle events or sightings.

use super::reports::Event;
use super::sighting::Sighting;
use crate::api::ConnectionInfo;
use crate::api::operation::ChannelCount;
use crate::ids::ShardId;
use crate::protocol::channel::ChannelName;
use std::sync::Arc;

/// A piece of a stream.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the words of their variant's sentence")]
pub enum Piece {
    /// A snapshot begins: the state at this number.
    Snapshot { number: u64 },
    /// Occupied channels of the snapshot with this number.
    Channels { number: u64, channels: Vec<ChannelCount> },
    /// Members of presence channels of the snapshot with this number: channel and user id.
    Members { number: u64, members: Vec<(ChannelName, Arc<str>)> },
    /// Connections of the snapshot with this number.
    Connections { number: u64, connections: Vec<ConnectionInfo> },
    /// The end of the snapshot, with its totals.
    SnapshotEnd { number: u64, channels: u64, members: u64, connections: u64 },
    /// Events, with their numbers.
    Events { events: Box<[Event]> },
    /// The last piece: the next `missing` events were discarded.
    FellBehind { missing: u64 },
    /// The sightings of a shard, and the number that it dropped. `time_ms` is the time of `at_us`.
    Seen { shard: ShardId, at_us: u64, time_ms: u64, sightings: Vec<Sighting>, dropped: u64 },
}
