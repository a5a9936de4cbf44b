//! What the supervisor and the shards send each other: calls up, orders down. Rare, and so outside the mail: an order
//! is carried out in the next turn, whatever waits in the inbox. Neither channel has a bound of its own: a session has a handful of
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
        /// Told once it does. Dropped unsent by a shard that has stopped.
        done: Sender<()>,
    },
    /// For an admin session of this shard.
    Answer(Asker, Answer),
    /// Accept no connection any more, and close all over a time. While that is under way: close the rest over this time.
    Drain {
        /// Milliseconds.
        over_ms: u64,
        /// Told how many there are, once no connection comes any more and the first may go.
        begun: Sender<usize>,
    },
    /// Say how many connections there are that could be asked to leave, with the shard's number.
    Count(Sender<(ShardId, usize)>),
    /// Close so many connections over a time, in place of what is left of an earlier order of this kind.
    Shed {
        /// How many, if there are.
        count: usize,
        /// Milliseconds.
        over_ms: u64,
        /// Told how many are to leave.
        begun: Sender<usize>,
    },
    /// Serve this admin session of another thread of this process.
    Adopt(Seat),
}

/// To the supervisor.
pub enum Call {
    /// An operator asks, over an admin connection.
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
