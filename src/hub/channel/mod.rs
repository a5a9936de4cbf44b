//! The shard as owner of channels: the subscribers of each channel per shard, the order of its messages, those that it keeps,
//! and its members.

pub mod dedupe;
pub mod directory;
pub mod history;
pub mod memory;
pub mod presence;
pub mod subscription_count;
