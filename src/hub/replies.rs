//! What a connection is answered, and when: at once, or behind the replies of earlier requests that wait for an owner.

use super::mail::Slot;
use super::{Hub, Port, Urgency};

impl Hub {
    /// Something to send that answers no request, now.
    pub fn say_now(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        let chunk = self.pages.append_single(write);
        port.lay(&mut self.pages, slot, chunk, Urgency::Soon);
    }

    /// Answers the request that is being heard: at once, or behind those that wait.
    pub(super) fn say(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(replies) = &mut self.members[slot as usize].replies else {
            return self.say_now(slot, port, write);
        };
        let mut reply = Vec::new();
        write(&mut reply);
        replies.push(reply);
    }

    /// Something about a channel that answers no request, but must not overtake the channel's `subscribed`.
    pub(super) fn say_unasked(
        &mut self,
        slot: Slot,
        local: u32,
        port: &mut impl Port,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        match self.members[slot as usize].replies.as_mut().and_then(|replies| replies.held(local)) {
            Some(held) => write(held),
            None => self.say_now(slot, port, write),
        }
    }

    /// Takes a place in the order of the connection's replies.
    pub(super) fn reserve(&mut self, slot: Slot) -> u32 {
        self.members[slot as usize].replies.get_or_insert_default().reserve()
    }

    /// Fills a reserved place, and sends what no longer waits. `opens`: see [`super::member::Replies::fill`].
    pub(super) fn reply(
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
        if replies.len() == 1 {
            return self.say_now(slot, port, write);
        }
        let held_before = replies.held_count();
        let mut reply = Vec::new();
        write(&mut reply);
        replies.fill(request, reply, opens);
        while let Some(ready) = replies.pop_ready() {
            self.say_now(slot, port, |out| out.extend_from_slice(&ready));
        }
        self.holding = self.holding - held_before + replies.held_count();
        if !replies.is_empty() {
            self.members[slot as usize].replies = Some(replies);
        }
    }
}
