//! The hub's state of one connection.

use super::replies::Replies;
use smallvec::SmallVec;

/// One connection: 40 bytes, plus heap memory for more than one subscription or for waiting replies.
#[derive(Default)]
pub struct Member {
    /// Number of connections that the slot had before this one.
    pub(super) generation: u32,
    /// Whether the slot has an open connection.
    pub(super) is_live: bool,
    /// It receives no messages: it is ending, or it has ended and still has subscriptions.
    pub(super) is_muted: bool,
    /// Channels that it is subscribed to, or is about to enter or leave. There are few, so a search is linear.
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
    /// Whether the last request is to enter the channel, not to leave it.
    pub(super) is_wanted: bool,
    /// Number of changes that the owner has not acknowledged.
    pub(super) pending: u16,
}

/// [`Subscription::position`] while the owner does not count the connection.
pub(super) const NOT_LIVE: u32 = u32::MAX;

impl Member {
    /// The subscription to the audience of this index.
    pub(super) fn subscription(&mut self, audience: u32) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.audience == audience)
    }

    /// Number of channels whose last request is to enter.
    pub(super) fn wanted(&self) -> usize {
        self.subscriptions.iter().filter(|subscription| subscription.is_wanted).count()
    }
}

impl Subscription {
    /// Whether the owner counts the connection, so that it receives the channel's messages.
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
