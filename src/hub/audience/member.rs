//! What the hub knows of one connection.

use super::replies::Replies;
use smallvec::SmallVec;

/// One connection. 40 bytes while it has at most one subscription and no reply under way.
#[derive(Default)]
pub struct Member {
    /// How many connections the slot has had before this one.
    pub(super) generation: u32,
    /// Whether a connection lives in the slot.
    pub(super) is_live: bool,
    /// It gets no more messages: it is ending, or it is over and its subscriptions are not all removed.
    pub(super) is_muted: bool,
    /// Channels that it is in, or is about to enter or leave. Searched from end to end: there are few.
    pub(super) subscriptions: SmallVec<[Subscription; 1]>,
    /// Requests that wait for an owner's acknowledgement, and the replies behind them.
    pub(super) replies: Option<Box<Replies>>,
}

/// One channel of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// The audience's index in this shard.
    pub(super) audience: u32,
    /// Position among the audience's subscribers, or [`NOT_LIVE`].
    pub(super) position: u32,
    /// What the client asked for last: to be in the channel, or out of it.
    pub(super) is_wanted: bool,
    /// Changes that the owner has not acknowledged.
    pub(super) pending: u16,
}

/// [`Subscription::position`] while the owner has not counted the connection in.
pub(super) const NOT_LIVE: u32 = u32::MAX;

impl Member {
    /// The subscription to the audience of this index.
    pub(super) fn subscription(&mut self, audience: u32) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.audience == audience)
    }

    /// Subscriptions that the client asked for and has not given up.
    pub(super) fn wanted(&self) -> usize {
        self.subscriptions.iter().filter(|subscription| subscription.is_wanted).count()
    }
}

impl Subscription {
    /// Whether the owner has counted the connection in: it receives what is published.
    pub(super) fn is_live(&self) -> bool {
        self.position != NOT_LIVE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_without_subscriptions_is_small() {
        assert!(size_of::<Member>() <= 40, "{} bytes", size_of::<Member>());
    }
}
