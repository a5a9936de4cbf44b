//! Client events: messages of a subscriber to the other subscribers of a channel. They have a place in the channel's order, so
//! they go to its owner like a publish, but they are not kept and have no offset.

use super::admission::bucket::{Bucket, Rate};
use super::channel::directory::total;
use super::mail::{ClientEvent, Delivery, Exclusion, Mail};
use super::message::{Message, Payload};
use super::observe::extras;
use super::{Hub, Port};
use crate::config::may_take_client_events;
use crate::ids::{ConnKey, Slot};
use crate::protocol::channel::Channel;
use crate::protocol::client_event::{self, NOT_SUBSCRIBED};
use crate::protocol::dialect::Dialect;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::json::{JsonString, Value};
use crate::protocol::pusher::data::{Data, Text};

/// The state of a connection that has sent client events.
pub(super) struct Sender {
    bucket: Bucket,
    /// Events that the owners of their channels have not taken yet.
    waiting: u32,
}

impl Hub {
    /// Whether so many client events of the connection wait for owners that its next one may not be read.
    pub(super) fn has_too_many_events(&self, slot: Slot) -> bool {
        self.senders.get(&slot).is_some_and(|sender| sender.waiting >= WAITING_MAX)
    }

    /// Sends a client event to the channel's owner.
    pub(super) fn send_client_event(
        &mut self,
        slot: Slot,
        event: &JsonString<'_>,
        channel: &JsonString<'_>,
        data: Option<Value<'_>>,
        port: &mut impl Port,
    ) -> Result<(), ErrorCode> {
        let dialect = self.audiences.dialect(slot);
        let channel = Channel::parse(&channel.value).ok_or(NOT_SUBSCRIBED)?;
        let hash = self.hash(channel);
        if !self.audiences.is_subscribed(slot, channel, hash) {
            return Err(NOT_SUBSCRIBED);
        }
        if !self.takes_client_events(channel.as_str(), dialect) {
            return Err(NOT_TAKEN);
        }
        client_event::check(event.raw, data.map(|data| data.raw))?;
        let (now, per_second) = (self.now, self.limits.client_events_per_second_max);
        let rate = Rate::without_burst(per_second);
        let sender = self.senders.entry(slot).or_insert_with(|| Sender { bucket: Bucket::full(rate, now), waiting: 0 });
        if !sender.bucket.take_one(rate, now) {
            return Err(ErrorCode::RateLimited);
        }
        sender.waiting += 1;
        self.counters.client_events += 1;
        let read;
        let (data, text) = match (data, dialect) {
            (Some(data), Dialect::Pusher(_)) => {
                read = Data::read(data, &mut self.reader);
                (Some(&*read.value), read.text.as_text())
            }
            (data, _) => (data.map(|data| data.raw), Text::Json),
        };
        let message = Message { event: event.raw, data, text, ..Message::default() };
        let payload = Payload::new(&message, &mut self.scratch);
        let (channel, sender, read_at) = (channel.into(), self.audiences.key(slot), self.turn_us);
        let event = ClientEvent { channel, hash, sender, payload, read_at };
        self.post(self.owner(hash), Mail::ClientEvent(Box::new(event)), port);
        Ok(())
    }

    /// Whether a client may send client events to this channel. From Pusher's clients they are taken
    /// unless a rule says otherwise.
    fn takes_client_events(&self, channel: &str, dialect: Dialect) -> bool {
        let rules = self.directory.rules();
        let is_default = dialect.is_pusher() && self.limits.pusher_client_events && !rules.names_client_events(channel);
        rules.rule(channel).client_events || is_default && may_take_client_events(channel)
    }

    /// As the channel's owner: sends a client event to all subscribers except its sender. On a presence channel it names the
    /// sender's user.
    pub(super) fn sequence_client_event(&mut self, event: ClientEvent, port: &mut impl Port) {
        let ClientEvent { channel, hash, sender, payload, read_at } = event;
        let payload = match self.directory.user_of(&channel, hash, sender) {
            Some(user) => {
                let message = Message { user_id: Some(user.escaped_id()), ..payload.message(None) };
                Payload::new(&message, &mut self.scratch)
            }
            None => payload,
        };
        let shards = self.shards_with(&channel, hash);
        if self.observers.is_watched() {
            let subscribers = total(self.directory.counts(channel.as_channel(), hash)).saturating_sub(1);
            self.observers.see_publish(channel.as_channel(), &payload.message(None), subscribers, self.now);
        }
        if self.observers.extras().client_events {
            let (channel, payload) = (channel.clone(), payload.clone());
            let sender = self.identities.socket_id(sender);
            self.observers.client_event(extras::ClientEvent { channel, sender, payload });
        }
        for &shard in &shards {
            let exclude =
                (shard == sender.shard).then(|| Box::new(Exclusion { member: sender, asker: None, dedupe: None }));
            let (channel, payload) = (channel.clone(), payload.clone());
            let delivery = Delivery { channel, hash, payload, offset: None, exclude, read_at };
            self.post(shard, Mail::Deliver(delivery), port);
        }
        // Backpressure: the sender is read again once all shards have taken its events.
        self.post_after(&shards, sender.shard, Mail::ClientEventTaken(sender), port);
    }

    /// All shards have taken a client event of this connection.
    pub(super) fn client_event_taken(&mut self, sender: ConnKey) {
        if self.audiences.is_live(sender)
            && let Some(state) = self.senders.get_mut(&sender.slot)
        {
            state.waiting = state.waiting.saturating_sub(1);
        }
    }
}

const NOT_TAKEN: ErrorCode = ErrorCode::ClientEventRefused(
    "the channel takes no client events: a private- or presence- channel does if its rule has client-events = members",
);
/// Client events of one connection that may wait for owners. With as many, reading from it pauses.
const WAITING_MAX: u32 = 10;
