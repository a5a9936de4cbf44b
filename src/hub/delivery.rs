//! From a publish to the wire of every subscriber: its place in the order, the turn's page, and which part each subscriber
//! is sent. There is one path, from every entry point and for any number of shards.

use super::directory::{Sequenced, total};
use super::mail::{Asker, ConnKey, Exclusion, Mail, Publish, Settled, ShardId, Slot};
use super::member::NOT_LIVE;
use super::message::{Message, Payload};
use super::pages::Chunk;
use super::subscribers::Subscriber;
use super::{Hub, Port, Urgency};
use crate::protocol::channel::Channel;
use crate::protocol::close::CloseReason;
use crate::protocol::event;
use smallvec::SmallVec;

/// A message on its way to a channel's subscribers, borrowed from the publisher's line or from a letter.
pub(super) struct Publication<'a> {
    pub channel: Channel<'a>,
    /// Hash of the channel's name.
    pub hash: u64,
    pub message: Message<'a>,
    /// The connection that does not receive it.
    pub exclude: Option<ConnKey>,
    /// When it was read from its publisher: see [`Hub::begin_turn`].
    pub read_at: u32,
}

impl Hub {
    /// Publishes a message to each of the channels. Returns the parts of the count that are settled at once; the rest
    /// comes by [`Port::settle`].
    pub fn publish<'a>(
        &mut self,
        channels: impl IntoIterator<Item = Channel<'a>>,
        message: Message<'_>,
        exclude: Option<ConnKey>,
        asker: Asker,
        port: &mut impl Port,
    ) -> Settled {
        let mut settled = Settled::default();
        // Made when the first letter needs it, and shared by all.
        let mut payload = None;
        for channel in channels {
            let hash = self.hash(channel);
            let publication = Publication { channel, hash, message, exclude, read_at: self.turn_us };
            let owner = self.owner(hash);
            if owner != self.shard {
                let payload = payload.get_or_insert_with(|| Payload::new(message, &mut self.scratch)).clone();
                let publish = Publish { channel: channel.into(), hash, payload, exclude, asker, read_at: self.turn_us };
                port.mail(owner, Mail::Publish(Box::new(publish)));
                continue;
            }
            let (part, others) = self.sequence(&publication, asker, &mut payload, port);
            if others.is_empty() {
                settled.add(part);
            } else {
                port.mail_after(&others, asker.shard, Mail::Settled(asker, part));
            }
        }
        settled
    }

    /// Another shard's publish has reached the owner of the channel.
    pub(super) fn sequence_letter(&mut self, publish: Publish, port: &mut impl Port) {
        let Publish { channel, hash, payload, exclude, asker, read_at } = publish;
        let (channel, message) = (channel.as_channel(), payload.message());
        let publication = Publication { channel, hash, message, exclude, read_at };
        let (part, others) = self.sequence(&publication, asker, &mut Some(payload.clone()), port);
        port.mail_after(&others, asker.shard, Mail::Settled(asker, part));
    }

    /// As the channel's owner: the message has its place in the channel's order here and now, and goes to every shard with
    /// subscribers. Returns the owner's part of the count, and the other shards: it is settled once they have taken the
    /// message.
    fn sequence(
        &mut self,
        publication: &Publication<'_>,
        asker: Asker,
        payload: &mut Option<Payload>,
        port: &mut impl Port,
    ) -> (Settled, SmallVec<[ShardId; 8]>) {
        let &Publication { channel, hash, message, exclude, read_at } = publication;
        self.counters.publishes += 1;
        let Sequenced { name, counts } = self.directory.sequence(channel, hash);
        let subscribers = total(counts);
        let others: SmallVec<[ShardId; 8]> =
            counts.iter().map(|&(shard, _)| shard).filter(|&shard| shard != self.shard).collect();
        let is_heard_here = others.len() < counts.len();
        for &to in &others {
            let Some(name) = name else { break };
            let exclude = exclude.filter(|member| member.shard == to);
            let exclude = exclude.map(|member| Box::new(Exclusion { member, asker }));
            let payload = payload.get_or_insert_with(|| Payload::new(message, &mut self.scratch)).clone();
            port.mail(to, Mail::Deliver { channel: name.clone(), hash, payload, exclude, read_at });
        }
        if self.taps.is_open() {
            self.see_publish(channel, message, subscribers);
        }
        let was_excluded = is_heard_here && self.deliver(publication, port);
        // Of an excluded connection, the shard that delivers to it settles a part of its own.
        let is_settled_here = exclude.is_some_and(|member| !others.contains(&member.shard));
        let parts = 1 + u32::from(is_settled_here);
        (Settled { parts, subscribers: subscribers as i64 - i64::from(was_excluded) }, others)
    }

    /// The owner has sent a message for the subscribers of this shard.
    pub(super) fn deliver_letter(&mut self, publication: &Publication<'_>, asker: Option<Asker>, port: &mut impl Port) {
        let was_excluded = self.deliver(publication, port);
        if let Some(asker) = asker {
            let settled = Settled { parts: 1, subscribers: -i64::from(was_excluded) };
            self.post(asker.shard, Mail::Settled(asker, settled), port);
        }
    }

    /// Encodes a message into the turn's page for the channel's subscribers here. Returns whether the excluded connection
    /// is one of them.
    fn deliver(&mut self, publication: &Publication<'_>, port: &mut impl Port) -> bool {
        let &Publication { channel, hash, message: Message { event, data }, exclude, read_at } = publication;
        let local = self.subscribers.find(channel, hash);
        let Some(local) = local.filter(|&local| !self.subscribers.get(local).subscribers.is_empty()) else {
            self.counters.deliveries_late += 1;
            return false;
        };
        let subscribers = self.subscribers.get(local).subscribers.len();
        let len = event::message_len(channel.as_str(), event, data);
        if self.subscribers.get(local).page.is_some_and(|page| self.pages.is_full_for(page, len)) {
            self.lay_out(local, port);
            self.subscribers.get_mut(local).page = Some(self.pages.open());
        }
        let page = self.subscribers.page(local, &mut self.pages);
        let excluded = exclude.and_then(|member| self.live_position(member, local));
        if let Some(position) = excluded {
            self.cut(local, position, port);
        }
        let chunk = self.pages.append(page, |out| event::message(out, channel.as_str(), event, data));
        if let Some(position) = excluded {
            self.subscribers.get_mut(local).subscribers[position as usize].from = chunk.end;
        }
        self.laid.bytes += len;
        self.laid.read_at(read_at, self.turn_us);
        self.laid.fan_out_bytes += len * subscribers;
        if subscribers > FEW {
            self.laid.bulk_bytes += len * subscribers;
        }
        self.counters.deliveries += subscribers as u64 - u64::from(excluded.is_some());
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
