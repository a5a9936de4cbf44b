//! How far the server is, as its parts tell each other.

/// How far the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The shards do not turn yet.
    Starting,
    /// It serves.
    Serving,
    /// It accepts no more connections and closes those that it has over a time; publishers and monitoring are still served.
    Draining,
    /// It closes its connections; new work must go elsewhere.
    Stopping,
    /// The shards have ended.
    Ended,
}
