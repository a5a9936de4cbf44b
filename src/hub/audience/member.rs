//! The hub's state of one connection.

use super::replies::Replies;
use crate::hub::admission::bucket::SmallBucket;
use crate::protocol::dialect::Dialect;
use std::collections::HashMap;
use std::ops::Deref;

/// One connection: 40 bytes, plus heap memory for more than one subscription or for waiting replies.
#[derive(Default)]
pub struct Member {
    /// Number of connections that the slot had before this one.
    pub(super) generation: u32,
    pub(super) standing: Standing,
    /// The dialect of the slot's open connection; `None`: it has none.
    pub(super) open: Option<Dialect>,
    /// Channels that it is in, or is about to enter or leave.
    pub(super) subscriptions: Subscriptions,
    /// Number of channels whose last request is to enter.
    wanted: u32,
    /// How many subscribes and unsubscribes it may send.
    pub(super) changes: SmallBucket,
    /// Requests that wait for an owner's acknowledgement, and the replies behind them.
    pub(super) replies: Option<Box<Replies>>,
}

/// Whether a connection is authorized, and whether it still receives messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has shown no signature.
    #[default]
    New,
    /// It has signed in, or has shown a signature for a channel.
    Authorized,
    /// It receives no messages: it is ending, or it has ended and still has subscriptions.
    Muted,
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
    /// Whether the slot has an open connection.
    pub(super) fn is_live(&self) -> bool {
        self.open.is_some()
    }

    /// Whether it receives no messages.
    pub(super) fn is_muted(&self) -> bool {
        self.standing == Standing::Muted
    }

    /// The subscription to the audience of this index.
    pub(super) fn subscription(&mut self, audience: u32) -> Option<&mut Subscription> {
        let at = self.subscriptions.find(audience)?;
        self.subscriptions.get_mut(at)
    }

    /// Notes that the last request is to enter the channel. Returns whether the subscription is new.
    pub(super) fn want(&mut self, audience: u32) -> bool {
        self.wanted += 1;
        match self.subscription(audience) {
            Some(subscription) => {
                subscription.is_wanted = true;
                subscription.pending += 1;
                false
            }
            None => {
                self.subscriptions.push(Subscription { audience, position: NOT_LIVE, is_wanted: true, pending: 1 });
                true
            }
        }
    }

    /// Notes that the last request is to leave the channel, which the connection wanted to be in.
    pub(super) fn give_up(&mut self, audience: u32) {
        if let Some(subscription) = self.subscription(audience) {
            subscription.is_wanted = false;
            subscription.pending += 1;
            self.wanted -= 1;
        }
    }

    /// The owner refuses a request to enter the channel. Returns whether the subscription was removed: not if the client has
    /// left the channel meanwhile, because that is still to be acknowledged.
    pub(super) fn refuse(&mut self, audience: u32) -> bool {
        let Some(at) = self.subscriptions.find(audience) else { return false };
        let Some(subscription) = self.subscriptions.get_mut(at) else { return false };
        subscription.pending -= 1;
        if subscription.pending > 0 {
            return false;
        }
        self.subscriptions.swap_remove(at);
        self.wanted -= 1;
        true
    }

    /// Removes the newest subscription.
    pub(super) fn pop(&mut self) {
        if let Some(subscription) = self.subscriptions.pop() {
            self.wanted -= u32::from(subscription.is_wanted);
        }
    }

    /// Number of channels whose last request is to enter.
    pub(super) fn wanted(&self) -> usize {
        self.wanted as usize
    }
}

/// The subscriptions of one connection. 16 bytes while there is at most one.
#[derive(Default)]
pub struct Subscriptions(Held);

#[derive(Default)]
enum Held {
    #[default]
    None,
    One(Subscription),
    Many(Box<Many>),
}

struct Many {
    list: Vec<Subscription>,
    /// Positions in the list, by audience, while there are more than [`SEARCHED_MAX`].
    #[expect(clippy::box_collection, reason = "64 bytes, which most connections do without")]
    index: Option<Box<HashMap<u32, u32, ahash::RandomState>>>,
}

impl Subscriptions {
    /// Where the subscription to the audience of this index is.
    pub(super) fn find(&self, audience: u32) -> Option<usize> {
        if let Held::Many(many) = &self.0
            && let Some(index) = &many.index
        {
            return index.get(&audience).map(|&at| at as usize);
        }
        self.iter().position(|subscription| subscription.audience == audience)
    }

    fn get_mut(&mut self, at: usize) -> Option<&mut Subscription> {
        match &mut self.0 {
            Held::None => None,
            Held::One(subscription) => (at == 0).then_some(subscription),
            Held::Many(many) => many.list.get_mut(at),
        }
    }

    fn push(&mut self, subscription: Subscription) {
        match &mut self.0 {
            Held::None => self.0 = Held::One(subscription),
            Held::One(first) => {
                self.0 = Held::Many(Box::new(Many { list: vec![*first, subscription], index: None }));
            }
            Held::Many(many) => {
                many.list.push(subscription);
                match &mut many.index {
                    Some(index) => _ = index.insert(subscription.audience, many.list.len() as u32 - 1),
                    None if many.list.len() > SEARCHED_MAX => {
                        let places = many.list.iter().zip(0..);
                        many.index =
                            Some(Box::new(places.map(|(subscription, at)| (subscription.audience, at)).collect()));
                    }
                    None => {}
                }
            }
        }
    }

    fn pop(&mut self) -> Option<Subscription> {
        let last = self.len().checked_sub(1)?;
        Some(self.swap_remove(last))
    }

    /// Removes the subscription at this place. The last one takes the place. Panics if there is none.
    pub(super) fn swap_remove(&mut self, at: usize) -> Subscription {
        match std::mem::take(&mut self.0) {
            Held::None => panic!("the member has no subscription"),
            Held::One(subscription) => subscription,
            Held::Many(mut many) => {
                let removed = many.list.swap_remove(at);
                if let Some(index) = &mut many.index {
                    index.remove(&removed.audience);
                    if let Some(moved) = many.list.get(at) {
                        index.insert(moved.audience, at as u32);
                    }
                }
                if !many.list.is_empty() {
                    self.0 = Held::Many(many);
                }
                removed
            }
        }
    }
}

impl Deref for Subscriptions {
    type Target = [Subscription];

    fn deref(&self) -> &[Subscription] {
        match &self.0 {
            Held::None => &[],
            Held::One(subscription) => std::slice::from_ref(subscription),
            Held::Many(many) => &many.list,
        }
    }
}

impl Subscription {
    /// Whether the owner counts the connection, so that it receives the channel's messages.
    pub(super) fn is_live(&self) -> bool {
        self.position != NOT_LIVE
    }
}

/// A list of this length is searched faster than an index, and takes less memory.
const SEARCHED_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list, with and without an index: it is built above 64 and kept below.
        #[test]
        fn subscriptions_behave_as_a_list(steps in prop::collection::vec((0_u8..8, 0_u32..200), 0..600)) {
            let (mut member, mut model) = (Member::default(), Vec::<(u32, bool)>::new());
            for (what, audience) in steps {
                let place = model.iter().position(|(known, _)| *known == audience);
                prop_assert_eq!(member.subscriptions.find(audience), place);
                match (what, place) {
                    (0..5, None) => {
                        prop_assert!(member.want(audience));
                        model.push((audience, true));
                    }
                    (0..5, Some(at)) if !model[at].1 => {
                        prop_assert!(!member.want(audience));
                        model[at].1 = true;
                    }
                    (5, Some(at)) if model[at].1 => {
                        member.give_up(audience);
                        model[at].1 = false;
                    }
                    (6, Some(at)) if !model[at].1 => {
                        prop_assert_eq!(member.subscriptions.swap_remove(at).audience, audience);
                        model.swap_remove(at);
                    }
                    (7, _) => {
                        member.pop();
                        model.pop();
                    }
                    _ => {}
                }
                prop_assert_eq!(member.wanted(), model.iter().filter(|(_, is_wanted)| *is_wanted).count());
                let audiences = member.subscriptions.iter().map(|subscription| subscription.audience);
                prop_assert!(audiences.eq(model.iter().map(|(audience, _)| *audience)));
            }
        }
    }

    #[test]
    fn more_than_64_subscriptions_have_an_index() {
        let mut member = Member::default();
        for audience in 0..65 {
            let has_index = matches!(&member.subscriptions.0, Held::Many(many) if many.index.is_some());
            assert!(!has_index, "{audience} subscriptions");
            member.want(audience);
        }
        assert!(matches!(&member.subscriptions.0, Held::Many(many) if many.index.is_some()));
        assert_eq!(size_of::<Subscriptions>(), 16);
    }

    #[test]
    fn a_member_without_subscriptions_is_small() {
        assert!(size_of::<Member>() <= 40, "{} bytes", size_of::<Member>());
    }
}
