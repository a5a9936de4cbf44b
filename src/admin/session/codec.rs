//! The values that a session and its peer exchange.

use crate::api::operation::ChannelCount;
use crate::api::publish::Placed;
use crate::api::{ConnectionInfo, Published, Refusal, Reply};
use crate::hub::observe::reports::Event;
use crate::hub::observe::sighting::Sighting;
use crate::ids::ShardId;
use crate::protocol::channel::ChannelName;
use std::sync::Arc;

/// The encoding between a session and its peer.
pub trait Codec {
    /// Identifies the request that a reply answers.
    type Tag<'a>: Copy;
    /// The tag while the reply waits.
    type Kept;
    /// Replies that are ready to be sent.
    type Output: Default;

    /// Keeps a tag.
    fn keep(tag: Self::Tag<'_>) -> Self::Kept;
    /// Restores a kept tag.
    fn tag(kept: &Self::Kept) -> Self::Tag<'_>;
    /// Appends a reply.
    fn reply(output: &mut Self::Output, tag: Self::Tag<'_>, reply: Result<Reply, Refusal>);
    /// Appends the reply to a publish to one channel. Apart from the others because it is the most frequent.
    fn published(output: &mut Self::Output, tag: Self::Tag<'_>, subscribers: u64, placed: Option<Placed>) {
        let published = Published { placed, ..Published::to(subscribers) };
        Self::reply(output, tag, Ok(Reply::Published(published)));
    }
    /// Appends a piece of a stream.
    fn tell(output: &mut Self::Output, piece: Piece);
    /// Appends output that was made earlier.
    fn append(output: &mut Self::Output, more: Self::Output);
    /// Bytes of memory that the output uses.
    fn bytes(output: &Self::Output) -> usize;
}

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
