//! Which connections may come in: limits of addresses, which hold for all shards together, and rates.

pub mod addresses;
pub mod arrivals;
pub mod bucket;
