//! The phase of the server's life, which its parts tell each other.

/// The phase of the server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The shards have not started.
    Starting,
    /// The server serves clients.
    Serving,
    /// It accepts no connections and closes the existing ones over a time. Publishers and monitoring are still served.
    Draining,
    /// It closes its connections and refuses new work.
    Stopping,
    /// The shards have ended.
    Ended,
}
