//! The load generator of corecast.
fn main() {}
