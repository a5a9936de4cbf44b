//! Replies to requests: sent at once, or queued behind the replies of earlier requests that wait for a channel's owner.

use super::super::{Port, Urgency};
use super::Audiences;
use super::delivery::FEW;
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::wire::frame;
use std::collections::VecDeque;

impl Audiences {
    /// Sends the connection a frame at once, ahead of replies that wait.
    pub fn send_now(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        let chunk = self.pages.append_single(write);
        // Empty if Pusher's dialect has no such message.
        if !chunk.is_empty() {
            port.append(&mut self.pages, slot, chunk, Urgency::Soon);
        }
    }

    /// Answers the request that was just read: at once, or after the replies that wait.
    pub fn answer(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(replies) = self.members[slot as usize].replies.as_mut().filter(|replies| !replies.is_empty()) else {
            return self.send_now(slot, port, write);
        };
        let mut reply = Vec::new();
        write(&mut reply);
        replies.push(reply);
    }

    /// Sends connections a frame, each after the replies that wait for it. Those that are ending do not get it. Returns the
    /// number of bytes.
    pub fn tell(&mut self, slots: &[Slot], port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let chunk = self.pages.append_single(write);
        let urgency = if slots.len() <= FEW { Urgency::Soon } else { Urgency::Bulk };
        for &slot in slots {
            let member = &mut self.members[slot as usize];
            if !member.is_live() || member.is_muted() {
                continue;
            }
            let Some(replies) = member.replies.as_mut().filter(|replies| !replies.is_empty()) else {
                port.append(&mut self.pages, slot, chunk, urgency);
                continue;
            };
            replies.tell(self.pages.bytes(chunk).to_vec());
            let pending = replies.held_bytes();
            if pending > self.outbox_bytes_max {
                port.close(slot, CloseReason::SlowConsumer { limit: self.outbox_bytes_max, pending });
            }
        }
        slots.len() * self.pages.bytes(chunk).len()
    }

    /// Sends a frame about an audience that does not answer a request. It must not overtake the audience's `subscribed`.
    pub(super) fn notify(&mut self, slot: Slot, audience: u32, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        match self.members[slot as usize].replies.as_mut().and_then(|replies| replies.held(audience)) {
            Some(held) => write(held),
            None => self.send_now(slot, port, write),
        }
    }

    /// Reserves a place in the order of the connection's replies.
    pub(super) fn reserve(&mut self, slot: Slot) -> u32 {
        self.members[slot as usize].replies.get_or_insert_default().reserve()
    }

    /// Fills a reserved place, and sends the replies that no longer wait. `opens`: the audience whose messages must follow the
    /// reply.
    pub fn reply(
        &mut self,
        slot: Slot,
        request: u32,
        opens: Option<u32>,
        port: &mut impl Port,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(mut replies) = self.members[slot as usize].replies.take() else {
            return;
        };
        if replies.len() == 1 && !replies.awaits_welcome {
            return self.send_now(slot, port, write);
        }
        let held_before = replies.held_count();
        let mut reply = Vec::new();
        write(&mut reply);
        replies.fill(request, reply, opens);
        while let Some(ready) = replies.pop_ready() {
            self.send_now(slot, port, |out| out.extend_from_slice(&ready));
        }
        self.held_back = self.held_back - held_before + replies.held_count();
        if !replies.is_empty() || replies.awaits_welcome {
            self.members[slot as usize].replies = Some(replies);
        }
    }

    /// Sets whether the connection must make no request that may have a long reply.
    pub(super) fn set_wait(&mut self, slot: Slot, awaits_welcome: bool) {
        let replies = &mut self.members[slot as usize].replies;
        if let Some(replies) = replies {
            replies.awaits_welcome = awaits_welcome;
        }
        if replies.as_ref().is_some_and(|replies| replies.is_empty() && !replies.awaits_welcome) {
            *replies = None;
        }
    }

    /// Replies of the connection that wait for an owner, or behind one that does.
    pub fn waiting_replies(&self, slot: Slot) -> usize {
        self.members.get(slot as usize).and_then(|member| member.replies.as_ref()).map_or(0, |replies| replies.len())
    }
}

/// The replies of one connection that wait, in request order. The first waits for an owner, the others for the first.
#[derive(Default)]
pub(super) struct Replies {
    /// Number of the first request in the queue.
    first: u32,
    queue: VecDeque<Reply>,
    /// One of those that wait may be long, or other shards have not taken what they were told because of the last one.
    pub awaits_welcome: bool,
}

/// Heap bytes of a waiting reply, without its text.
pub const REPLY_BYTES: usize = size_of::<Reply>();

enum Reply {
    /// The owner has not answered.
    Waiting,
    /// Whole frames, to be sent once no earlier reply waits.
    Ready {
        bytes: Vec<u8>,
        /// The audience whose `subscribed` this is. The audience's next messages are appended to it.
        opens: Option<u32>,
    },
    /// Whole frames that answer no request, to be sent once no earlier reply waits.
    Told(Vec<u8>),
}

impl Replies {
    /// Reserves the next place in the order. Returns its number.
    pub fn reserve(&mut self) -> u32 {
        self.queue.push_back(Reply::Waiting);
        self.first.wrapping_add(self.queue.len() as u32 - 1)
    }

    /// Fills a reserved place. `opens`: the audience whose messages must follow this reply.
    pub fn fill(&mut self, request: u32, bytes: Vec<u8>, opens: Option<u32>) {
        if let Some(place) = self.queue.get_mut(request.wrapping_sub(self.first) as usize) {
            *place = Reply::Ready { bytes, opens };
        }
    }

    /// Appends a reply that is ready.
    pub fn push(&mut self, bytes: Vec<u8>) {
        self.queue.push_back(Reply::Ready { bytes, opens: None });
    }

    /// Appends frames that answer no request.
    pub fn tell(&mut self, bytes: Vec<u8>) {
        self.queue.push_back(Reply::Told(bytes));
    }

    /// The `subscribed` of this audience that is held back, if there is one. The audience's next messages are appended to it,
    /// not to a later reply, because the channel's `unsubscribed` may wait in between.
    pub fn held(&mut self, audience: u32) -> Option<&mut Vec<u8>> {
        self.queue.iter_mut().rev().find_map(|reply| match reply {
            Reply::Ready { bytes, opens } if *opens == Some(audience) => Some(bytes),
            _ => None,
        })
    }

    /// Drops what answers no request: messages that were appended to `subscribed` replies, and what the connection is told.
    /// Later messages are not appended.
    pub fn drop_messages(&mut self) {
        for reply in &mut self.queue {
            match reply {
                Reply::Ready { bytes, opens } => {
                    if opens.take().is_some() {
                        bytes.truncate(frame::frame_len(bytes).unwrap_or(bytes.len()));
                    }
                }
                // Its place remains, because requests are numbered by it.
                Reply::Told(bytes) => bytes.clear(),
                Reply::Waiting => {}
            }
        }
    }

    /// Number of `subscribed` replies that are held back.
    pub fn held_count(&self) -> usize {
        let is_held = |reply: &&Reply| matches!(reply, Reply::Ready { opens: Some(_), .. });
        self.queue.iter().filter(is_held).count()
    }

    /// The first reply, if it is ready.
    pub fn pop_ready(&mut self) -> Option<Vec<u8>> {
        match self.queue.pop_front()? {
            Reply::Ready { bytes, .. } | Reply::Told(bytes) => {
                self.first = self.first.wrapping_add(1);
                Some(bytes)
            }
            Reply::Waiting => {
                self.queue.push_front(Reply::Waiting);
                None
            }
        }
    }

    /// Number of replies that wait or are held back.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no reply waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that are held back.
    pub fn held_bytes(&self) -> usize {
        let bytes = |reply: &Reply| match reply {
            Reply::Ready { bytes, .. } | Reply::Told(bytes) => bytes.len(),
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
    fn replies_are_sent_in_request_order() {
        let mut replies = Replies::default();
        let (first, second) = (replies.reserve(), replies.reserve());
        replies.push("pong".into());
        replies.fill(second, "second".into(), None);
        check_sent(&mut replies, &[]);
        replies.fill(first, "first".into(), None);
        check_sent(&mut replies, &["first", "second", "pong"]);
        assert!(replies.is_empty());

        let third = replies.reserve();
        replies.fill(first, "a second reply to a request".into(), None);
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
    fn messages_of_a_channel_wait_behind_its_subscribed_only() {
        const A: u32 = 5;
        let mut replies = Replies::default();
        let first = replies.reserve();
        let subscribe = replies.reserve();
        let unsubscribe = replies.reserve();
        replies.push("pong".into());
        assert!(replies.held(A).is_none(), "the request for a has no reply yet");
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
    fn what_answers_no_request_is_dropped_at_the_end() {
        let mut replies = Replies::default();
        let (first, second) = (replies.reserve(), replies.reserve());
        replies.tell("told".into());
        replies.push("pong".into());
        let last = replies.reserve();
        replies.drop_messages();
        assert_eq!(replies.held_bytes(), "pong".len());
        for (request, reply) in [(last, "last"), (first, "first"), (second, "second")] {
            replies.fill(request, reply.into(), None);
        }
        check_sent(&mut replies, &["first", "second", "", "pong", "last"]);
    }

    #[test]
    fn messages_wait_behind_the_last_subscribed_of_their_channel() {
        let mut replies = Replies::default();
        let requests = [replies.reserve(), replies.reserve(), replies.reserve()];
        replies.fill(requests[1], "one".into(), Some(5));
        replies.fill(requests[2], "two".into(), Some(5));
        assert_eq!(replies.held(5).unwrap(), b"two");
    }
}
