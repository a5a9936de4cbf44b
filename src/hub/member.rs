//! What the hub knows of one connection: its subscriptions, and the replies that wait for their turn.

use smallvec::SmallVec;
use std::collections::VecDeque;

/// One connection. 40 bytes while it has at most one subscription and no reply under way.
#[derive(Default)]
pub struct Member {
    /// How many connections the slot has had before this one.
    pub generation: u32,
    /// Whether a connection lives in the slot.
    pub is_live: bool,
    /// Channels it is in, or is about to enter or leave. Searched from end to end: there are few.
    pub subscriptions: SmallVec<[Subscription; 1]>,
    /// Requests that wait for an owner's acknowledgement, and the replies behind them.
    pub replies: Option<Box<Replies>>,
}

/// One channel of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// The channel's index in this shard.
    pub local: u32,
    /// Place among the channel's live subscribers, or [`NOT_LIVE`].
    pub position: u32,
    /// What the client asked for last: to be in the channel, or out of it.
    pub is_wanted: bool,
    /// Changes that the owner has not acknowledged.
    pub pending: u16,
}

/// [`Subscription::position`] of a member that is not among the live subscribers.
pub const NOT_LIVE: u32 = u32::MAX;

impl Member {
    /// The subscription to the channel of this index.
    pub fn subscription(&mut self, local: u32) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.local == local)
    }

    /// Subscriptions that the client asked for and has not given up.
    pub fn wanted(&self) -> usize {
        self.subscriptions.iter().filter(|subscription| subscription.is_wanted).count()
    }
}

/// Replies in request order: the first one waits (otherwise it would have been sent).
#[derive(Default)]
pub struct Replies {
    /// Number of the first request in the queue.
    first: u32,
    queue: VecDeque<Reply>,
}

/// Heap bytes of a reply that waits, without its text.
pub const REPLY_BYTES: usize = size_of::<Reply>();

enum Reply {
    /// The owner has not answered.
    Waiting,
    /// Whole frames, to be sent as soon as nothing waits before them.
    Ready {
        bytes: Vec<u8>,
        /// The channel that this reply tells the client it is subscribed to: what the channel says next follows here.
        opens: Option<u32>,
    },
}

impl Replies {
    /// Takes a place in the order; the number names it.
    pub fn reserve(&mut self) -> u32 {
        self.queue.push_back(Reply::Waiting);
        self.first.wrapping_add(self.queue.len() as u32 - 1)
    }

    /// Fills a reserved place. `opens`: the channel, by its index, whose messages must follow this reply.
    pub fn fill(&mut self, request: u32, bytes: Vec<u8>, opens: Option<u32>) {
        if let Some(place) = self.queue.get_mut(request.wrapping_sub(self.first) as usize) {
            *place = Reply::Ready { bytes, opens };
        }
    }

    /// Adds a reply that is ready, behind everything.
    pub fn push(&mut self, bytes: Vec<u8>) {
        self.queue.push_back(Reply::Ready { bytes, opens: None });
    }

    /// The `subscribed` of this channel that is held back, if one is: what the channel says next is appended to it. Any
    /// later place would be too late, because the channel's `unsubscribed` may be waiting in between.
    pub fn held(&mut self, local: u32) -> Option<&mut Vec<u8>> {
        self.queue.iter_mut().rev().find_map(|reply| match reply {
            Reply::Ready { bytes, opens } if *opens == Some(local) => Some(bytes),
            _ => None,
        })
    }

    /// Channels whose `subscribed` is held back.
    pub fn held_count(&self) -> usize {
        let is_held = |reply: &&Reply| matches!(reply, Reply::Ready { opens: Some(_), .. });
        self.queue.iter().filter(is_held).count()
    }

    /// The first reply, if it is ready.
    pub fn pop_ready(&mut self) -> Option<Vec<u8>> {
        match self.queue.pop_front()? {
            Reply::Ready { bytes, .. } => {
                self.first = self.first.wrapping_add(1);
                Some(bytes)
            }
            waiting => {
                self.queue.push_front(waiting);
                None
            }
        }
    }

    /// Replies that wait or are held back.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes held back.
    pub fn held_bytes(&self) -> usize {
        let bytes = |reply: &Reply| match reply {
            Reply::Ready { bytes, .. } => bytes.len(),
            Reply::Waiting => 0,
        };
        self.queue.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_sent(replies: &mut Replies, expected: &[&str]) {
        let sent = std::iter::from_fn(|| replies.pop_ready());
        let sent: Vec<String> = sent.map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        assert_eq!(sent, expected);
    }

    #[test]
    fn replies_leave_in_request_order_whatever_is_answered_first() {
        let mut replies = Replies::default();
        let (first, second) = (replies.reserve(), replies.reserve());
        replies.push("pong".into());
        replies.fill(second, "second".into(), None);
        check_sent(&mut replies, &[]);
        replies.fill(first, "first".into(), None);
        check_sent(&mut replies, &["first", "second", "pong"]);
        assert!(replies.is_empty());

        let third = replies.reserve();
        replies.fill(first, "an answer that comes twice".into(), None);
        check_sent(&mut replies, &[]);
        replies.fill(third, "third".into(), None);
        check_sent(&mut replies, &["third"]);
    }

    #[test]
    fn numbers_of_requests_wrap() {
        let mut replies = Replies { first: u32::MAX, ..Replies::default() };
        let (last, zero) = (replies.reserve(), replies.reserve());
        assert_eq!((last, zero), (u32::MAX, 0));
        replies.fill(zero, "zero".into(), None);
        replies.fill(last, "last".into(), None);
        check_sent(&mut replies, &["last", "zero"]);
    }

    #[test]
    fn only_the_channel_that_a_held_reply_opens_waits_behind_it() {
        const A: u32 = 5;
        let mut replies = Replies::default();
        let first = replies.reserve();
        let subscribe = replies.reserve();
        let unsubscribe = replies.reserve();
        replies.push("pong".into());
        assert!(replies.held(A).is_none(), "a is not answered yet");
        replies.fill(subscribe, "subscribed".into(), Some(A));
        assert!(replies.held(A + 1).is_none());
        replies.held(A).unwrap().extend_from_slice(b" message");
        assert_eq!((replies.held_count(), replies.held_bytes()), (1, "subscribed message pong".len() - 1));
        replies.fill(unsubscribe, "unsubscribed".into(), None);
        replies.fill(first, "first".into(), None);
        check_sent(&mut replies, &["first", "subscribed message", "unsubscribed", "pong"]);
        assert_eq!(replies.held_count(), 0);
    }

    #[test]
    fn a_channel_opened_twice_waits_behind_the_last() {
        let mut replies = Replies::default();
        let requests = [replies.reserve(), replies.reserve(), replies.reserve()];
        replies.fill(requests[1], "one".into(), Some(5));
        replies.fill(requests[2], "two".into(), Some(5));
        assert_eq!(replies.held(5).unwrap(), b"two");
    }

    #[test]
    fn a_member_without_subscriptions_is_small() {
        assert!(size_of::<Member>() <= 40, "{} bytes", size_of::<Member>());
    }
}
