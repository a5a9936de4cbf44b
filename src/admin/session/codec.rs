//! What a session and its peer exchange.

use crate::api::operation::ChannelCount;
use crate::api::{ConnectionInfo, Refusal, Reply};
use crate::hub::observe::reports::Event;
use crate::hub::observe::sighting::Sighting;
use crate::ids::ShardId;

/// How a session and its peer understand each other.
pub trait Codec {
    /// What the peer finds the reply by.
    type Tag<'a>: Copy;
    /// The same, kept while the reply waits.
    type Kept;
    /// Replies, ready to be sent.
    type Output: Default;

    /// Keeps a tag.
    fn keep(tag: Self::Tag<'_>) -> Self::Kept;
    /// The tag that was kept.
    fn tag(kept: &Self::Kept) -> Self::Tag<'_>;
    /// Appends a reply.
    fn reply(output: &mut Self::Output, tag: Self::Tag<'_>, reply: Result<Reply, Refusal>);
    /// Appends a piece of a stream.
    fn tell(output: &mut Self::Output, piece: Piece);
    /// Appends what was made earlier.
    fn append(output: &mut Self::Output, more: Self::Output);
    /// Bytes of memory that the output takes.
    fn bytes(output: &Self::Output) -> usize;
}

/// A piece of a stream.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the words of their variant's sentence")]
pub enum Piece {
    /// A snapshot begins: the state at this number.
    Snapshot { number: u64 },
    /// Channels in use, of the snapshot with this number.
    Channels { number: u64, channels: Vec<ChannelCount> },
    /// Connections, likewise.
    Connections { number: u64, connections: Vec<ConnectionInfo> },
    /// The snapshot had this many of each.
    SnapshotEnd { number: u64, channels: u64, connections: u64 },
    /// Consecutive events, the first of which has this number.
    Events { number: u64, events: Box<[Event]> },
    /// The last piece: what would be next is no longer kept, and `missing` events with it.
    FellBehind { missing: u64 },
    /// What a shard saw, and how much it did not show. `time_ms` is the time of `at_us`.
    Seen { shard: ShardId, at_us: u64, time_ms: u64, sightings: Vec<Sighting>, dropped: u64 },
}
