//! Delivery of a message: it is encoded once per audience, and sent to subscribers as part of the turn's page.

use super::pages::{Chunk, PageId};
use super::table::Subscriber;
use super::{Audiences, Kind, Port};
use crate::config::Slow;
use crate::hub::Urgency;
use crate::hub::message::Message;
use crate::ids::{ConnKey, Slot};
use crate::protocol::channel::Channel;
use crate::protocol::close::CloseReason;
use crate::protocol::pusher;

/// What delivering a message to one audience has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivered {
    /// Subscribers, the excluded one included.
    pub subscribers: u32,
    /// Bytes of the frame.
    pub bytes: u32,
    /// Whether the excluded connection is a subscriber.
    pub was_excluded: bool,
}

impl Delivered {
    /// Bytes of the frames of all subscribers.
    pub fn fan_out_bytes(self) -> usize {
        self.bytes as usize * self.subscribers as usize
    }

    /// Whether the audience is bulk.
    pub fn is_bulk(self) -> bool {
        self.subscribers as usize > FEW
    }
}

impl Audiences {
    /// Whether the channel has subscribers of Pusher's dialect.
    #[inline]
    pub fn has_pusher(&self) -> bool {
        self.table.has_pusher()
    }

    /// Encodes a message into the turn's page of the channel's native audience, for all subscribers except `exclude`.
    pub fn deliver(
        &mut self,
        channel: (Channel<'_>, u64),
        message: &Message<'_>,
        exclude: Option<ConnKey>,
        port: &mut impl Port,
    ) -> Delivered {
        self.deliver_to(Kind::Native, channel, message, exclude, port)
    }

    /// The same for the audience of Pusher's dialect. Apart, so that each path is optimized for its kind.
    #[inline(never)]
    pub fn deliver_in_pusher(
        &mut self,
        channel: (Channel<'_>, u64),
        message: &Message<'_>,
        exclude: Option<ConnKey>,
        port: &mut impl Port,
    ) -> Delivered {
        match pusher::event::has_name(message.event) {
            true => self.deliver_to(Kind::Pusher, channel, message, exclude, port),
            false => Delivered::default(),
        }
    }

    #[inline(always)]
    fn deliver_to(
        &mut self,
        kind: Kind,
        (channel, hash): (Channel<'_>, u64),
        message: &Message<'_>,
        exclude: Option<ConnKey>,
        port: &mut impl Port,
    ) -> Delivered {
        let Some(audience) = self.table.find(channel, hash, kind) else { return Delivered::default() };
        let entry = self.table.get(audience);
        let (subscribers, slow) = (entry.len(), entry.slow());
        if subscribers == 0 {
            return Delivered::default();
        }
        let page = match entry.page() {
            Some(page) if !self.pages.is_full_for(page, kind.frame_bytes(channel, message)) => page,
            Some(_) => self.turn_page(audience, port),
            None => self.table.page(audience, &mut self.pages),
        };
        let excluded = exclude.and_then(|member| self.live_position(member, audience));
        if let Some(position) = excluded {
            self.cut(audience, position, port);
        }
        let chunk = self.pages.append(page, |out| kind.encode(out, channel, message));
        if slow != Slow::Disconnect {
            self.mark(audience, slow, chunk, message);
        }
        if let Some(position) = excluded {
            self.table.get_mut(audience).start_at(position, chunk.end);
        }
        Delivered { subscribers: subscribers as u32, bytes: chunk.len() as u32, was_excluded: excluded.is_some() }
    }

    /// Sends the content of the audience's full page, and opens another page.
    #[cold]
    fn turn_page(&mut self, audience: u32, port: &mut impl Port) -> PageId {
        self.fan_out(audience, port);
        let page = self.pages.open();
        self.table.get_mut(audience).set_page(page);
        page
    }

    /// The position of a connection in the audience, if it is open and a subscriber.
    fn live_position(&mut self, key: ConnKey, audience: u32) -> Option<u32> {
        if !self.is_live(key) {
            return None;
        }
        let subscription = self.members[key.slot as usize].subscription(audience)?;
        subscription.is_live().then_some(subscription.position)
    }

    /// Sends a subscriber its part of the page so far, so that the caller's next output follows it. The caller must then
    /// remove the subscriber, or set the start of its next part.
    pub(super) fn cut(&mut self, audience: u32, position: u32, port: &mut impl Port) {
        let entry = self.table.get(audience);
        let Some(page) = entry.page() else { return };
        let Subscriber { slot, from: start } = entry.subscriber(position);
        let end = self.pages.page_len(page);
        if start == end {
            return;
        }
        let part = Chunk { page, start, end };
        match entry.slow() {
            Slow::Disconnect => self.emit(slot, audience, part, Urgency::Soon, port),
            _ => {
                let mut log = self.take_log(audience);
                self.emit_or_hold(slot, (audience, &mut log), part, Urgency::Soon, port);
                self.put_log(audience, log, false, port);
            }
        }
    }

    /// Sends every subscriber its part of the audience's page, and closes the page.
    pub(super) fn fan_out(&mut self, audience: u32, port: &mut impl Port) {
        let Some((page, mut subscribers)) = self.table.get_mut(audience).take_for_fan_out() else {
            return;
        };
        let end = self.pages.page_len(page);
        let urgency = if subscribers.len() <= FEW { Urgency::Soon } else { Urgency::Bulk };
        let mut log = (self.table.get(audience).slow() != Slow::Disconnect).then(|| self.take_log(audience));
        for subscriber in &mut subscribers {
            let start = std::mem::take(&mut subscriber.from);
            if start == end {
                continue;
            }
            let part = Chunk { page, start, end };
            match &mut log {
                Some(log) => self.emit_or_hold(subscriber.slot, (audience, log), part, urgency, port),
                None => self.emit(subscriber.slot, audience, part, urgency, port),
            }
        }
        if let Some(log) = log {
            self.put_log(audience, log, true, port);
        }
        self.table.get_mut(audience).put_subscribers(subscribers);
        self.pages.release(page);
    }

    /// Sends a connection a chunk of an audience's page. If the audience's `subscribed` is held back, the chunk follows it.
    pub(super) fn emit(&mut self, slot: Slot, audience: u32, chunk: Chunk, urgency: Urgency, port: &mut impl Port) {
        if self.held_back | self.muted > 0 && self.keeps_back(slot, audience, chunk, port) {
            return;
        }
        port.append(&mut self.pages, slot, chunk, urgency);
    }

    /// Whether a chunk must not be sent now: the connection is muted, or the chunk was appended to a reply that is held back.
    #[cold]
    pub(super) fn keeps_back(&mut self, slot: Slot, audience: u32, chunk: Chunk, port: &mut impl Port) -> bool {
        let member = &mut self.members[slot as usize];
        if member.is_muted() {
            return true;
        }
        let Some(replies) = &mut member.replies else { return false };
        let Some(held) = replies.held(audience) else { return false };
        held.extend_from_slice(self.pages.bytes(chunk));
        let pending = replies.held_bytes();
        if pending > self.outbox_bytes_max {
            port.close(slot, CloseReason::SlowConsumer { limit: self.outbox_bytes_max, pending });
        }
        true
    }
}

/// An audience with more subscribers is bulk.
pub(super) const FEW: usize = 64;
