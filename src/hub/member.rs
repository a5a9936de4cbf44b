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
        self.subscriptions
            .iter_mut()
            .find(|subscription| subscription.local == local)
    }

    /// Subscriptions that the client asked for and has not given up.
    pub fn wanted(&self) -> usize {
        self.subscriptions
            .iter()
            .filter(|subscription| subscription.is_wanted)
            .count()
    }
}

/// Replies in request order: the first one waits (otherwise it would have been sent).
#[derive(Default)]
pub struct Replies {
    /// Number of the first request in the queue.
    first: u32,
    queue: VecDeque<Reply>,
}

enum Reply {
    /// The owner has not answered.
    Waiting,
    /// Whole frames, to be sent as soon as nothing waits before them.
    Ready(Vec<u8>),
}

impl Replies {
    /// Takes a place in the order; the number names it.
    pub fn reserve(&mut self) -> u32 {
        self.queue.push_back(Reply::Waiting);
        self.first.wrapping_add(self.queue.len() as u32 - 1)
    }

    /// Fills a reserved place.
    pub fn fill(&mut self, request: u32, reply: Vec<u8>) {
        if let Some(place) = self.queue.get_mut(request.wrapping_sub(self.first) as usize) {
            *place = Reply::Ready(reply);
        }
    }

    /// Adds a reply that is ready, behind everything.
    pub fn push(&mut self, reply: Vec<u8>) {
        self.queue.push_back(Reply::Ready(reply));
    }

    /// The last reply that is ready and held back by one that waits. What follows it on the wire is appended to it.
    pub fn last_held(&mut self) -> Option<&mut Vec<u8>> {
        self.queue.iter_mut().rev().find_map(|reply| match reply {
            Reply::Ready(bytes) => Some(bytes),
            Reply::Waiting => None,
        })
    }

    /// The first reply, if it is ready.
    pub fn pop_ready(&mut self) -> Option<Vec<u8>> {
        match self.queue.front()? {
            Reply::Waiting => None,
            Reply::Ready(_) => {
                self.first = self.first.wrapping_add(1);
                match self.queue.pop_front()? {
                    Reply::Ready(bytes) => Some(bytes),
                    Reply::Waiting => None,
                }
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
        self.queue
            .iter()
            .map(|reply| {
                if let Reply::Ready(bytes) = reply {
                    bytes.len()
                } else {
                    0
                }
            })
            .sum()
    }
}
