//! A publish, from its entry point to the audiences of every shard. There is one path for all entry points and any number of
//! shards. The channel's owner sequences the message; the [`Audiences`](super::audience) of each shard encode it.

use super::channel::directory::{Sequenced, total};
use super::mail::{Exclusion, Mail, Publish, Settled};
use super::message::{Message, Payload};
use super::{Hub, Port};
use crate::ids::{Asker, ConnKey, ShardId};
use crate::protocol::channel::Channel;
use smallvec::SmallVec;

/// A message on its way to a channel's subscribers, borrowed from the publisher's line or from a letter.
pub(super) struct Publication<'a> {
    pub channel: Channel<'a>,
    /// Hash of the channel's name.
    pub hash: u64,
    /// Number of the channel among those of the request.
    pub index: u8,
    pub message: Message<'a>,
    /// The connection that does not receive it.
    pub exclude: Option<ConnKey>,
    /// Time at which the message was read from its publisher: see [`Hub::begin_turn`].
    pub read_at: u32,
}

impl Hub {
    /// Publishes a message to each of the channels. Returns the parts of the count that are settled at once;
    /// [`Port::settle`] is called for the others.
    pub fn publish<'a>(
        &mut self,
        channels: impl IntoIterator<Item = Channel<'a>>,
        message: Message<'_>,
        exclude: Option<ConnKey>,
        asker: Asker,
        port: &mut impl Port,
    ) -> Settled {
        let mut settled = Settled::default();
        // Made for the first letter, and shared by all.
        let mut payload = None;
        for (index, channel) in (0..).zip(channels) {
            let hash = self.hash(channel);
            let publication = Publication { channel, hash, index, message, exclude, read_at: self.turn_us };
            let owner = self.owner(hash);
            if owner != self.shard() {
                let payload = payload.get_or_insert_with(|| Payload::new(message, &mut self.scratch)).clone();
                let publish =
                    Publish { channel: channel.into(), hash, index, payload, exclude, asker, read_at: self.turn_us };
                port.mail(owner, Mail::Publish(Box::new(publish)));
                continue;
            }
            let part = self.sequence(&publication, asker, &mut payload, port);
            match part.placed {
                // A sum holds one place.
                Some(_) if settled.placed.is_some() => port.settle(asker, part),
                _ => settled.add(part),
            }
        }
        settled
    }

    /// As the channel's owner: sequences a publish of another shard.
    pub(super) fn sequence_letter(&mut self, publish: Publish, port: &mut impl Port) {
        let Publish { channel, hash, index, payload, exclude, asker, read_at } = publish;
        let (channel, message) = (channel.as_channel(), payload.message());
        let publication = Publication { channel, hash, index, message, exclude, read_at };
        self.sequence(&publication, asker, &mut Some(payload.clone()), port);
    }

    /// As the channel's owner: sequences the message, and sends it to every shard with subscribers. The order of these calls
    /// is the channel's order. Returns the owner's part of the count if it is settled at once. Otherwise a letter settles it
    /// after those shards have taken the message.
    fn sequence(
        &mut self,
        publication: &Publication<'_>,
        asker: Asker,
        payload: &mut Option<Payload>,
        port: &mut impl Port,
    ) -> Settled {
        let &Publication { channel, hash, index, message, exclude, read_at } = publication;
        let here = self.shard();
        self.counters.publishes += 1;
        let Sequenced { name, counts } = self.directory.sequence(channel, hash);
        let subscribers = total(counts);
        let mut has_subscribers_here = false;
        let mut others: SmallVec<[ShardId; 8]> = SmallVec::new();
        for &(shard, _) in counts {
            let Some(name) = name.filter(|_| shard != here) else {
                has_subscribers_here = true;
                continue;
            };
            others.push(shard);
            let exclude = exclude.filter(|member| member.shard == shard);
            let exclude = exclude.map(|member| Box::new(Exclusion { member, asker }));
            let payload = payload.get_or_insert_with(|| Payload::new(message, &mut self.scratch)).clone();
            port.mail(shard, Mail::Deliver { channel: name.clone(), hash, payload, exclude, read_at });
        }
        if self.observers.is_watched() {
            self.observers.see_publish(channel, message, subscribers, self.now);
        }
        let was_excluded = has_subscribers_here && self.deliver(publication, port);
        // If the excluded connection's shard receives the message by letter, it settles its own part.
        let is_settled_here = exclude.is_some_and(|member| !others.contains(&member.shard));
        let subscribers = subscribers as i64 - i64::from(was_excluded);
        let settled = Settled { parts: 1 + u32::from(is_settled_here), subscribers, index, placed: None };
        if others.is_empty() && asker.shard == here {
            return settled;
        }
        port.mail_after(&others, asker.shard, Mail::Settled(asker, settled));
        Settled::default()
    }

    /// Delivers a message that the owner has sent for the subscribers of this shard.
    pub(super) fn deliver_letter(&mut self, publication: &Publication<'_>, asker: Option<Asker>, port: &mut impl Port) {
        let was_excluded = self.deliver(publication, port);
        if let Some(asker) = asker {
            let settled = Settled { parts: 1, subscribers: -i64::from(was_excluded), ..Settled::default() };
            self.post(asker.shard, Mail::Settled(asker, settled), port);
        }
    }

    /// Delivers a message to the audiences of this shard. Returns whether the excluded connection is a subscriber.
    fn deliver(&mut self, publication: &Publication<'_>, port: &mut impl Port) -> bool {
        let &Publication { channel, hash, message, exclude, read_at, .. } = publication;
        let delivered = self.audiences.deliver(channel, hash, message, exclude, port);
        if delivered.subscribers == 0 {
            self.counters.deliveries_late += 1;
            return false;
        }
        self.laid.bytes += delivered.bytes;
        self.laid.fan_out_bytes += delivered.fan_out_bytes;
        self.laid.bulk_bytes += delivered.bulk_bytes;
        self.laid.read_at(read_at, self.turn_us);
        self.counters.deliveries += delivered.subscribers as u64 - u64::from(delivered.was_excluded);
        delivered.was_excluded
    }
}
