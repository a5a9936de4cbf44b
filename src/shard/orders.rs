//! What the supervisor and the shards send each other: calls up, orders down. Rare, and so outside the mail: an order is
//! carried out in the next turn, whatever waits in the inbox. Neither channel needs a bound. A session has a handful of
//! operations outstanding at most, and every order answers a call or a signal, or brings one of a few sessions.

use crate::admin::link::Seat;
use crate::api::Operation;
use crate::config::Live;
use crate::hub::mail::Answer;
use crate::ids::{Asker, ShardId};
use crossbeam_channel::Sender;
use std::sync::Arc;

/// To a shard.
pub enum Order {
    /// Apply these settings from this turn on.
    Apply {
        /// The same for all shards.
        live: Arc<Live>,
        /// Gets a message once the settings apply. A shard that has stopped drops it unsent.
        done: Sender<()>,
    },
    /// For an admin session of this shard.
    Answer(Asker, Answer),
    /// Accept no further connections, and close all over a time. During a drain: close the rest over this time.
    Drain {
        /// Milliseconds.
        over_ms: u64,
        /// Gets the number of connections, once no further one can come and the first may leave.
        begun: Sender<usize>,
    },
    /// Report the shard's number, and how many of its connections could be asked to leave.
    Count(Sender<(ShardId, usize)>),
    /// Close this many connections over a time, in place of what is left of an earlier order of this kind.
    Shed {
        /// How many; all, if there are fewer.
        count: usize,
        /// Milliseconds.
        over_ms: u64,
        /// Gets the number of connections that are to leave.
        begun: Sender<usize>,
    },
    /// Serve this admin session of another thread of this process.
    Adopt(Seat),
}

/// To the supervisor.
pub enum Call {
    /// An operator's request, over an admin connection.
    Operate(Asker, Operation),
    /// SIGHUP.
    Reload,
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// A shard that was to drain has asked all connections to leave.
    Drained,
}
