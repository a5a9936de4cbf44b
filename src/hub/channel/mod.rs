//! The shard as owner of channels: the subscribers of each channel per shard, the order of its messages, and its members.

pub mod directory;
pub mod presence;
