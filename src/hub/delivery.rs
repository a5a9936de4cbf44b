//! From a publish to the wire of every subscriber: its place in the order, the turn's page, and who gets which part.

use super::directory::total;
use super::mail::{Asker, ConnKey, Exclusion, Frame, Mail, Publish, Settled, ShardId, Slot};
use super::member::NOT_LIVE;
use super::pages::Chunk;
use super::subscribers::Subscriber;
use super::{Hub, Port, Urgency};
use crate::protocol::channel::Channel;
use crate::protocol::close::CloseReason;
use crate::protocol::event;
use smallvec::SmallVec;

impl Hub {
    /// Publishes one message. What it says at once of the count is returned; the rest comes by [`Port::settle`].
    /// Encoded here, and not by the owner, because its bytes have to be copied here once in any case.
    pub fn publish(
        &mut self,
        channel: Channel<'_>,
        event: &str,
        data: Option<&str>,
        exclude: Option<ConnKey>,
        asker: Asker,
        port: &mut impl Port,
    ) -> Option<Settled> {
        let hash = self.hash(channel);
        let owner = self.owner(hash);
        if owner == self.shard
            && exclude.is_none()
            && let Some(subscribers) = self.directory.sequence_for(self.shard, channel, hash)
        {
            // The common case of one shard: straight into the page.
            self.counters.publishes += 1;
            if self.taps.is_open() {
                self.see_publish(channel, event, data, subscribers);
            }
            if subscribers > 0 {
                let len = event::message_len(channel.as_str(), event, data);
                self.deliver(
                    channel,
                    hash,
                    len,
                    |out| event::message(out, channel.as_str(), event, data),
                    None,
                    self.turn_us,
                    port,
                );
            }
            return Some(Settled { parts: 1, subscribers: subscribers as i64 });
        }
        let mut frame = Vec::with_capacity(event::message_len(channel.as_str(), event, data));
        event::message(&mut frame, channel.as_str(), event, data);
        let publish =
            Publish { channel: channel.into(), hash, frame: frame.into(), exclude, asker, read_at: self.turn_us };
        self.post(owner, Mail::Publish(Box::new(publish)), port);
        self.settle_own(port);
        None
    }

    /// As the owner: the message's place in the order is here and now.
    pub(super) fn sequence(&mut self, publish: Publish, port: &mut impl Port) {
        let Publish { channel, hash, frame, exclude, asker, read_at } = publish;
        self.counters.publishes += 1;
        let counts = self.directory.sequence(channel.as_channel(), hash);
        let subscribers = total(counts) as i64;
        let concerned: SmallVec<[ShardId; 8]> = counts.iter().map(|&(shard, _)| shard).collect();
        let excluded_shard = exclude.filter(|member| concerned.contains(&member.shard)).map(|member| member.shard);
        if self.taps.is_open()
            && let Some((event, data)) = event::read_message(&frame, channel.as_channel().as_str())
        {
            self.see_publish(channel.as_channel(), event, data, subscribers as u64);
        }
        for &shard in &concerned {
            let exclude =
                exclude.filter(|_| Some(shard) == excluded_shard).map(|member| Box::new(Exclusion { member, asker }));
            if shard == self.shard {
                self.deliver_frame(channel.as_channel(), hash, &frame, exclude, read_at, port);
            } else {
                let (channel, frame) = (channel.clone(), frame.clone());
                port.mail(shard, Mail::Deliver { channel, hash, frame, exclude, read_at });
            }
        }
        let parts = if exclude.is_some() && excluded_shard.is_none() { 2 } else { 1 };
        let others: SmallVec<[ShardId; 8]> = concerned.into_iter().filter(|&shard| shard != self.shard).collect();
        let settled = Mail::Settled(asker, Settled { parts, subscribers });
        if others.is_empty() {
            self.post(asker.shard, settled, port);
        } else {
            port.mail_after(&others, asker.shard, settled);
        }
    }

    pub(super) fn deliver_frame(
        &mut self,
        channel: Channel<'_>,
        hash: u64,
        frame: &Frame,
        exclude: Option<Box<Exclusion>>,
        read_at: u32,
        port: &mut impl Port,
    ) {
        let excluded = exclude.as_ref().map(|exclusion| exclusion.member);
        let was_live =
            self.deliver(channel, hash, frame.len(), |out| out.extend_from_slice(frame), excluded, read_at, port);
        if let Some(Exclusion { asker, .. }) = exclude.as_deref() {
            let settled = Settled { parts: 1, subscribers: -i64::from(was_live) };
            self.post(asker.shard, Mail::Settled(*asker, settled), port);
        }
    }

    /// Lays one message out for this shard's subscribers; `read_at` as in [`Publish`]. Returns whether the excluded connection was one of them.
    #[allow(clippy::too_many_arguments)]
    fn deliver(
        &mut self,
        channel: Channel<'_>,
        hash: u64,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
        exclude: Option<ConnKey>,
        read_at: u32,
        port: &mut impl Port,
    ) -> bool {
        let Some(local) = self.subscribers.find(channel, hash) else {
            self.counters.deliveries_late += 1;
            return false;
        };
        let subscribers = self.subscribers.get(local).subscribers.len() as u64;
        if subscribers == 0 {
            self.counters.deliveries_late += 1;
            return false;
        }
        if self.subscribers.get(local).page.is_some_and(|page| self.pages.is_full_for(page, len)) {
            self.lay_out(local, port);
            self.subscribers.get_mut(local).page = Some(self.pages.open());
        }
        let page = self.subscribers.page(local, &mut self.pages);
        let excluded = exclude.and_then(|member| self.live_position(member, local));
        if let Some(position) = excluded {
            self.cut(local, position, port);
        }
        let chunk = self.pages.append(page, write);
        if let Some(position) = excluded {
            self.subscribers.get_mut(local).subscribers[position as usize].from = chunk.end;
        }
        self.laid.bytes += len;
        self.laid.read_at(read_at, self.turn_us);
        self.laid.fan_out_bytes += len * subscribers as usize;
        if subscribers > FEW as u64 {
            self.laid.bulk_bytes += len * subscribers as usize;
        }
        self.counters.deliveries += subscribers - u64::from(excluded.is_some());
        excluded.is_some()
    }

    /// Place among the live subscribers of a channel, if the connection lives and is one.
    fn live_position(&mut self, key: ConnKey, local: u32) -> Option<u32> {
        if !self.is_live(key) {
            return None;
        }
        let position = self.members[key.slot as usize].subscription(local)?.position;
        (position != NOT_LIVE).then_some(position)
    }

    /// Sends a subscriber its part of the page so far, so that what comes next on its wire comes after it.
    pub(super) fn cut(&mut self, local: u32, position: u32, port: &mut impl Port) {
        let entry = self.subscribers.get_mut(local);
        let Some(page) = entry.page else { return };
        let end = self.pages.page_len(page);
        let Subscriber { slot, from } = entry.subscribers[position as usize];
        entry.subscribers[position as usize].from = end;
        if from < end {
            self.emit(slot, local, Chunk { page, start: from, end }, Urgency::Soon, port);
        }
    }

    /// Sends every subscriber its part of the channel's page, and closes the page.
    pub(super) fn lay_out(&mut self, local: u32, port: &mut impl Port) {
        let Some(page) = self.subscribers.get_mut(local).page.take() else {
            return;
        };
        let end = self.pages.page_len(page);
        let mut subscribers = std::mem::take(&mut self.subscribers.get_mut(local).subscribers);
        let urgency = if subscribers.len() <= FEW { Urgency::Soon } else { Urgency::Bulk };
        for subscriber in &mut subscribers {
            let start = std::mem::take(&mut subscriber.from);
            if start < end {
                self.emit(subscriber.slot, local, Chunk { page, start, end }, urgency, port);
            }
        }
        self.subscribers.get_mut(local).subscribers = subscribers;
        self.pages.release(page);
    }

    /// Puts a chunk of a channel on a connection's wire, behind the channel's `subscribed` if that is held back.
    pub(super) fn emit(&mut self, slot: Slot, local: u32, chunk: Chunk, urgency: Urgency, port: &mut impl Port) {
        if self.holding > 0
            && let Some(replies) = &mut self.members[slot as usize].replies
            && let Some(held) = replies.held(local)
        {
            held.extend_from_slice(self.pages.bytes(chunk));
            let pending = replies.held_bytes();
            if pending > self.limits.outbox_bytes_max {
                port.close(slot, CloseReason::SlowConsumer { limit: self.limits.outbox_bytes_max, pending });
            }
            return;
        }
        port.lay(&mut self.pages, slot, chunk, urgency);
    }
}

/// A channel with at most this many subscribers in a shard is not bulk.
const FEW: usize = 64;
