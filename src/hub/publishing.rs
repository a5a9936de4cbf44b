//! A publish, from its entry point to the audiences of every shard. There is one path for all entry points and any number of
//! shards. The channel's owner sequences the message; the [`Audiences`](super::audience) of each shard encode it.

use super::audience::Delivered;
use super::channel::dedupe::First;
use super::channel::directory::{Sequenced, total};
use super::mail::{Delivery, Exclusion, Mail, Publish, Settled};
use super::message::{Message, Payload};
use super::{Hub, Port};
use crate::api::publish::Placed;
use crate::ids::{Asker, ConnKey, ShardId};
use crate::protocol::channel::Channel;
use smallvec::SmallVec;

/// What a publisher asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Submission<'a> {
    /// The message.
    pub message: Message<'a>,
    /// The connection that does not receive it.
    pub exclude: Option<ConnKey>,
    /// A second publish to a channel with the same name here is not sent.
    pub dedupe: Option<&'a str>,
}

/// A message on its way to a channel's subscribers, borrowed from the publisher's line or from a letter.
struct Publication<'a> {
    channel: Channel<'a>,
    /// Hash of the channel's name.
    hash: u64,
    submission: &'a Submission<'a>,
    /// Time at which the message was read from its publisher: see [`Hub::begin_turn`].
    read_at: u32,
    /// Position of the channel among those of the publish.
    index: u8,
    /// Whether the message goes to further channels.
    goes_on: bool,
}

impl Hub {
    /// Publishes a message to each of the channels, at most 256. Returns the parts of the answer that are settled at once;
    /// [`Port::settle`] is called for the others.
    pub fn publish(
        &mut self,
        channels: &[Channel<'_>],
        submission: &Submission<'_>,
        asker: Asker,
        port: &mut impl Port,
    ) -> Settled {
        let mut settled = Settled::default();
        // Made for the first letter or history, and shared by all.
        let mut payload = None;
        for (index, &channel) in channels.iter().enumerate() {
            let (index, goes_on) = (index as u8, index + 1 < channels.len());
            let hash = self.hash(channel);
            let owner = self.owner(hash);
            if owner != self.shard() {
                let &Submission { ref message, exclude, dedupe } = submission;
                let payload = payload.get_or_insert_with(|| Payload::new(message, &mut self.scratch)).clone();
                let (dedupe, read_at) = (dedupe.map(Box::from), self.turn_us);
                let publish =
                    Publish { channel: channel.into(), hash, payload, exclude, dedupe, asker, read_at, index };
                port.mail(owner, Mail::Publish(Box::new(publish)));
                continue;
            }
            let publication = Publication { channel, hash, submission, read_at: self.turn_us, index, goes_on };
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
        let Publish { channel, hash, payload, exclude, dedupe, asker, read_at, index } = publish;
        let submission = &Submission { message: payload.message(None), exclude, dedupe: dedupe.as_deref() };
        let channel = channel.as_channel();
        let publication = Publication { channel, hash, submission, read_at, index, goes_on: false };
        let settled = self.sequence(&publication, asker, &mut Some(payload.clone()), port);
        debug_assert_eq!(settled.parts, 0, "the asker is on another shard");
    }

    /// As the channel's owner: sequences the message, and sends it to every shard with subscribers. The order of these calls
    /// is the channel's order. Returns the owner's part of the answer if it is settled at once. Otherwise a letter settles it
    /// after those shards have taken the message.
    fn sequence(
        &mut self,
        publication: &Publication<'_>,
        asker: Asker,
        payload: &mut Option<Payload>,
        port: &mut impl Port,
    ) -> Settled {
        let &Publication { channel, hash, submission, read_at, index, goes_on } = publication;
        let &Submission { ref message, exclude, dedupe } = submission;
        if let Some(key) = dedupe
            && let Some(first) = self.dedupe.first(channel, key, self.now)
        {
            return self.answer_duplicate(first, publication, asker, port);
        }
        let here = self.shard();
        self.counters.publishes += 1;
        let scratch = &mut self.scratch;
        // A history takes the payload, and only what else needs it takes a copy.
        let keep = || payload.take().unwrap_or_else(|| Payload::new(message, scratch));
        let Sequenced { name, counts, offset, kept } = self.directory.sequence(channel, hash, exclude, keep);
        if goes_on && let Some(kept) = kept {
            *payload = Some(kept.clone());
        }
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
            let first = dedupe.map(|_| self.dedupe.next());
            let exclude = exclude.map(|member| Box::new(Exclusion { member, asker: Some(asker), dedupe: first }));
            let make = || kept.cloned().unwrap_or_else(|| Payload::new(message, &mut self.scratch));
            let payload = payload.get_or_insert_with(make).clone();
            let delivery = Delivery { channel: name.clone(), hash, payload, offset, exclude, read_at };
            port.mail(shard, Mail::Deliver(delivery));
        }
        if self.observers.is_watched() {
            self.observers.see_publish(channel, message, subscribers, self.now);
        }
        let was_excluded = has_subscribers_here && {
            let numbered = offset.map(|_| Message { offset, ..*message });
            let message = numbered.as_ref().unwrap_or(message);
            self.deliver((channel, hash), message, exclude, read_at, port)
        };
        // If the excluded connection's shard receives the message by letter, it settles its own part.
        let is_settled_here = exclude.is_some_and(|member| !others.contains(&member.shard));
        let mut settled = Settled::new(1 + u32::from(is_settled_here), subscribers as i64 - i64::from(was_excluded));
        if let Some(key) = dedupe {
            let first = First { subscribers: settled.subscribers, offset };
            self.dedupe.add(channel, key, first, self.now);
            self.counters.dedupe_forgotten = self.dedupe.forgotten;
        }
        if offset.is_some() {
            settled.index = index;
            settled.placed = Some(Placed { epoch: self.directory.epoch(), offset, is_duplicate: false });
        }
        if others.is_empty() && asker.shard == here {
            return settled;
        }
        port.mail_after(&others, asker.shard, Mail::Settled(asker, settled));
        Settled::default()
    }

    /// As the channel's owner: answers a publish that is a repetition, and does nothing else. Returns what is settled at once.
    fn answer_duplicate(
        &mut self,
        first: First,
        publication: &Publication<'_>,
        asker: Asker,
        port: &mut impl Port,
    ) -> Settled {
        self.counters.publishes_repeated += 1;
        let First { subscribers, offset } = first;
        let mut settled = Settled::new(1 + u32::from(publication.submission.exclude.is_some()), subscribers);
        settled.index = publication.index;
        settled.placed = Some(Placed { epoch: self.directory.epoch(), offset, is_duplicate: true });
        if asker.shard == self.shard() {
            return settled;
        }
        port.mail(asker.shard, Mail::Settled(asker, settled));
        Settled::default()
    }

    /// Delivers a message that the owner has sent for the subscribers of this shard.
    pub(super) fn deliver_letter(&mut self, delivery: &Delivery, port: &mut impl Port) {
        let Delivery { channel, hash, payload, offset, exclude, read_at } = delivery;
        let member = exclude.as_deref().map(|exclusion| exclusion.member);
        let message = payload.message(*offset);
        let channel = (channel.as_channel(), *hash);
        let was_excluded = self.deliver(channel, &message, member, *read_at, port);
        let Some(&Exclusion { asker: Some(asker), dedupe, .. }) = exclude.as_deref() else { return };
        let settled = Mail::Settled(asker, Settled::new(1, -i64::from(was_excluded)));
        match dedupe.filter(|_| was_excluded) {
            // A repetition that is sent after this answer must find the same count.
            Some(first) => {
                let owner = self.owner(*hash);
                port.mail(owner, Mail::Excluded(first));
                port.mail_after(&[owner], asker.shard, settled);
            }
            None => self.post(asker.shard, settled, port),
        }
    }

    /// Delivers a message to the audiences of this shard. Returns whether the excluded connection is a subscriber.
    fn deliver(
        &mut self,
        channel: (Channel<'_>, u64),
        message: &Message<'_>,
        exclude: Option<ConnKey>,
        read_at: u32,
        port: &mut impl Port,
    ) -> bool {
        let native = self.audiences.deliver(channel, message, exclude, port);
        self.count_delivered(native);
        let (mut subscribers, mut was_excluded) = (native.subscribers, native.was_excluded);
        if self.audiences.has_pusher() {
            let of_pusher = self.audiences.deliver_in_pusher(channel, message, exclude, port);
            self.count_delivered(of_pusher);
            subscribers += of_pusher.subscribers;
            was_excluded |= of_pusher.was_excluded;
        }
        match subscribers {
            0 => self.counters.deliveries_late += 1,
            _ => self.turn_output.read_at(read_at, self.turn_us),
        }
        was_excluded
    }

    /// Delivers an event that only Pusher's clients know.
    pub(super) fn deliver_to_pusher(&mut self, delivery: &Delivery, port: &mut impl Port) {
        if self.audiences.has_pusher() {
            let Delivery { channel, hash, payload, .. } = delivery;
            let channel = (channel.as_channel(), *hash);
            let delivered = self.audiences.deliver_in_pusher(channel, &payload.message(None), None, port);
            self.count_delivered(delivered);
        }
    }

    fn count_delivered(&mut self, delivered: Delivered) {
        let fan_out_bytes = delivered.fan_out_bytes();
        self.turn_output.bytes += delivered.bytes as usize;
        self.turn_output.fan_out_bytes += fan_out_bytes;
        self.turn_output.bulk_bytes += if delivered.is_bulk() { fan_out_bytes } else { 0 };
        self.counters.deliveries += u64::from(delivered.subscribers) - u64::from(delivered.was_excluded);
    }
}
