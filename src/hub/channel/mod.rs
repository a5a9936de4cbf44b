//! As owner of channels: who subscribes to each, in which shards, and the order of what is published.

pub mod directory;
