//! The shard as owner of channels: the subscribers of each channel per shard, and the order of its messages.

pub mod directory;
