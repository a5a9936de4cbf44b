//! Admission of connections: limits per address, which apply to all shards together, and rates.

pub mod addresses;
pub mod arrivals;
pub mod bucket;
