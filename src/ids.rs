//! Names of things that live in one shard, as every shard uses them.

/// Index of a shard, below [`SHARDS_MAX`].
pub type ShardId = u16;
/// Index of a connection in its shard's slab.
pub type Slot = u32;
/// Slots that each table of a shard's connections has room for from the start. The system provides memory for them as they are
/// used. A table that grew by doubling would copy what it holds, and leave its old memory to the allocator.
pub const SLOTS_RESERVED: usize = 1 << 16;

/// More shards than this do not fit into a [`SocketId`](crate::protocol::socket_id::SocketId).
pub const SHARDS_MAX: usize = 256;

/// A connection, for as long as it lives: a slot is used again, a generation is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// The shard that accepted it.
    pub shard: ShardId,
    /// Its slot there.
    pub slot: Slot,
    /// How many connections the slot has had before.
    pub generation: u32,
}

/// A request of an admin connection: where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    /// Shard that serves the admin connection.
    pub shard: ShardId,
    /// Its session there.
    pub session: u32,
    /// Generation of that session's slot.
    pub generation: u32,
    /// Number of the request within the session.
    pub request: u64,
}
