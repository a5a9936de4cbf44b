//! Subscriptions: the requests of clients, the acknowledgements of channels' owners, and the lists of subscribers.

use super::member::{NOT_LIVE, Subscription};
use super::table::Subscriber;
use super::{Audiences, Kind, Port};
use crate::config::{Slow, is_cache};
use crate::hub::admission::bucket::Rate;
use crate::hub::mail::{Cause, Change, Membership, Welcome};
use crate::ids::{Asker, ConnKey, Slot};
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::event::Subscribed;
use crate::protocol::pusher;

impl Audiences {
    /// Whether the connection's last request for the channel is to enter it.
    pub fn wants(&mut self, slot: Slot, channel: Channel<'_>, hash: u64) -> bool {
        self.wanted_audience(slot, channel, hash).is_some()
    }

    /// Number of channels whose last request is to enter.
    pub fn wanted(&self, slot: Slot) -> usize {
        self.members[slot as usize].wanted()
    }

    /// Whether a request to enter or leave a channel would be within this rate.
    pub fn may_change(&self, slot: Slot, rate: Rate, now: u32) -> bool {
        let mut changes = self.members[slot as usize].changes;
        changes.take_one(rate, now)
    }

    /// Counts a request to enter or leave a channel. Returns whether it is within this rate.
    pub fn take_change(&mut self, slot: Slot, rate: Rate, now: u32) -> bool {
        self.members[slot as usize].changes.take_one(rate, now)
    }

    /// Notes a client's request to enter a channel. [`Audiences::wants`] must be false. `is_long`: whether the reply may be
    /// long. `slow`: of the channel's rule. Returns the change for the owner to count.
    pub fn enter(&mut self, slot: Slot, channel: Channel<'_>, hash: u64, is_long: bool, slow: Slow) -> Change {
        let (audience, request) = self.want(slot, channel, hash, slow);
        if is_long {
            self.set_wait(slot, true);
        }
        self.change(slot, audience, Cause::Client { request, is_long })
    }

    /// Notes a client's sign-in: its request to enter the channel of a user.
    pub fn sign_in(&mut self, slot: Slot, channel: Channel<'_>, hash: u64) -> Change {
        let (audience, request) = self.want(slot, channel, hash, Slow::Disconnect);
        self.change(slot, audience, Cause::SignIn { request })
    }

    /// Notes a request to enter a channel. Returns the audience and the place of the reply.
    fn want(&mut self, slot: Slot, channel: Channel<'_>, hash: u64, slow: Slow) -> (u32, u32) {
        let audience = self.table.find_or_enter(channel, hash, self.kind(slot), slow);
        if self.members[slot as usize].want(audience) {
            self.table.add_interest(audience);
        }
        (audience, self.reserve(slot))
    }

    /// Whether the owner counts the connection as a subscriber of the channel.
    pub fn is_subscribed(&mut self, slot: Slot, channel: Channel<'_>, hash: u64) -> bool {
        let audience = self.table.find(channel, hash, self.kind(slot));
        let member = &mut self.members[slot as usize];
        audience.and_then(|audience| member.subscription(audience)).is_some_and(|subscription| subscription.is_live())
    }

    /// The connections of this shard that the owner counts as subscribers of the channel.
    pub fn subscribers(&self, channel: Channel<'_>, hash: u64) -> Vec<Slot> {
        let audiences = Kind::ALL.into_iter().filter_map(|kind| self.table.find(channel, hash, kind));
        let slots = |audience| (0..self.table.get(audience).len() as u32).map(move |at| (audience, at));
        audiences.flat_map(slots).map(|(audience, at)| self.table.get(audience).subscriber(at).slot).collect()
    }

    /// Whether a reply of this many bytes may be added to those that wait for a connection: half of its outbox stays free for
    /// messages. One for which nothing waits may be sent a reply of any size.
    pub fn has_room(&self, waiting: usize, bytes: usize) -> bool {
        waiting == 0 || waiting + bytes <= self.outbox_bytes_max / 2
    }

    /// Whether the connection's next request with a long reply must wait: such a reply is under way, replies that no outbox
    /// counts wait behind one, or other shards have not yet taken what they were told about the last one.
    pub fn awaits_welcome(&self, slot: Slot) -> bool {
        let member = self.members.get(slot as usize);
        let replies = member.and_then(|member| member.replies.as_ref());
        replies.is_some_and(|replies| replies.awaits_welcome || replies.held_bytes() > 0)
    }

    /// Notes a client's request to leave a channel. Returns the change for the owner to count; `None` if the client has not
    /// asked to enter.
    pub fn leave(&mut self, slot: Slot, channel: Channel<'_>, hash: u64) -> Option<Change> {
        let audience = self.wanted_audience(slot, channel, hash)?;
        let cause = Cause::Client { request: self.reserve(slot), is_long: false };
        Some(self.give_up(slot, audience, cause))
    }

    /// Like [`Audiences::leave`], for the request of an admin session.
    pub fn expel(&mut self, slot: Slot, channel: Channel<'_>, hash: u64, asker: Asker) -> Option<Change> {
        let audience = self.wanted_audience(slot, channel, hash)?;
        Some(self.give_up(slot, audience, Cause::Admin(asker)))
    }

    /// The owner counts the connection now: it receives the messages from here on, and is sent the reply. Returns the
    /// number of messages that follow the reply; `None` if the connection has ended.
    pub fn subscribed(
        &mut self,
        membership: Membership,
        welcome: Option<&Welcome>,
        port: &mut impl Port,
    ) -> Option<usize> {
        let Membership { member, audience, cause } = membership;
        if !self.is_live(member) {
            return None;
        }
        let is_muted = self.is_muted(member.slot);
        let entry = self.table.get(audience);
        let from = entry.page().map_or(0, |page| self.pages.page_len(page));
        let name = entry.name().clone();
        if entry.slow() != Slow::Disconnect && !is_muted {
            port.keep_fresh(member.slot);
        }
        let position = match is_muted {
            true => NOT_LIVE,
            false => self.table.add(audience, Subscriber { slot: member.slot, from }),
        };
        if let Some(subscription) = self.members[member.slot as usize].subscription(audience) {
            subscription.position = position;
            subscription.pending -= 1;
        }
        if let Cause::Client { request, is_long } = cause {
            let opens = (!is_muted).then_some(audience);
            let dialect = self.dialect(member.slot);
            let is_miss = dialect.is_pusher() && is_cache_miss(&name, welcome);
            let told = welcome.map_or_else(Subscribed::default, |welcome| Subscribed {
                position: welcome.position,
                recovered: welcome.recovered,
                presence: welcome.presence.as_deref(),
            });
            if is_long {
                self.set_wait(member.slot, welcome.is_some_and(|welcome| welcome.waits));
            }
            self.reply(member.slot, request, opens, port, |out| {
                dialect.subscribed(out, name.as_channel().as_str(), &told);
                if is_miss {
                    pusher::event::cache_miss(out, name.as_channel().as_str());
                }
            });
        }
        let Some(welcome) = welcome.filter(|_| !is_muted) else { return Some(0) };
        let mut replayed = 0;
        if let Welcome { replay: Some(replay), recovered, earlier, .. } = welcome {
            // A connection that is greeted as a newcomer also receives what it has published itself.
            let not_for = [member, earlier.unwrap_or(member)];
            let not_for = if *recovered == Some(true) { &not_for[..] } else { &[] };
            replayed = self.replay(member.slot, audience, replay, not_for, port);
        }
        if let Some(count) = welcome.subscription_count.filter(|_| self.dialect(member.slot).is_pusher()) {
            let name = name.as_channel().as_str();
            self.notify(member.slot, audience, port, |out| pusher::event::subscription_count(out, name, count));
        }
        Some(replayed)
    }

    /// The other shards have taken what they were told about the connection.
    pub fn welcomed(&mut self, member: ConnKey) {
        if self.is_live(member) {
            self.set_wait(member.slot, false);
        }
    }

    /// The owner refuses to count the connection, which is sent the reason. Returns the channel; `None` if the connection has
    /// ended.
    pub fn refused(&mut self, membership: Membership, code: ErrorCode, port: &mut impl Port) -> Option<ChannelName> {
        let Membership { member, audience, cause } = membership;
        if !self.is_live(member) {
            return None;
        }
        let name = self.table.get(audience).name().clone();
        if self.members[member.slot as usize].refuse(audience) {
            self.table.remove_interest(audience);
        }
        if let Cause::Client { request, is_long } = cause {
            if is_long {
                self.set_wait(member.slot, false);
            }
            let dialect = self.dialect(member.slot);
            let write = |out: &mut Vec<u8>| dialect.subscribe_error(out, name.as_channel().as_str(), code, None);
            self.reply(member.slot, request, None, port, write);
        }
        Some(name)
    }

    /// The owner no longer counts the connection: it receives no messages from here on, and is sent the reply. Returns whether
    /// the connection is still open.
    pub fn unsubscribed(&mut self, membership: Membership, port: &mut impl Port) -> bool {
        let Membership { member, audience, cause } = membership;
        if !self.is_live(member) {
            return false;
        }
        let was_subscribed = self.remove_subscriber(member.slot, audience, port);
        let name = self.table.get(audience).name().clone();
        let entry = &mut self.members[member.slot as usize];
        if let Some(subscription) = entry.subscription(audience) {
            subscription.pending -= 1;
            if subscription.pending == 0
                && !subscription.is_wanted
                && let Some(at) = entry.subscriptions.find(audience)
            {
                entry.subscriptions.swap_remove(at);
                self.table.remove_interest(audience);
            }
        }
        let dialect = self.dialect(member.slot);
        let write = |out: &mut Vec<u8>| dialect.unsubscribed(out, name.as_channel().as_str());
        match cause {
            Cause::Client { request, .. } => self.reply(member.slot, request, None, port, write),
            // An ending connection receives only replies to its requests. One that the owner has refused was not subscribed.
            _ if self.is_muted(member.slot) || !was_subscribed => {}
            _ => self.notify(member.slot, audience, port, write),
        }
        true
    }

    /// Whether the connection has subscriptions, live or under way.
    pub fn has_subscriptions(&self, slot: Slot) -> bool {
        !self.members[slot as usize].subscriptions.is_empty()
    }

    /// Sends a connection its parts of the turn's pages so far.
    pub fn send_parts(&mut self, slot: Slot, port: &mut impl Port) {
        for at in 0..self.members[slot as usize].subscriptions.len() {
            let subscription = self.members[slot as usize].subscriptions[at];
            if subscription.is_live() {
                self.cut(subscription.audience, subscription.position, port);
            }
        }
    }

    /// Removes the newest subscription of an ended connection. Returns the change for the owner to count, if it counts the
    /// connection.
    pub fn remove_subscription(&mut self, slot: Slot, port: &mut impl Port) -> Option<Change> {
        let &Subscription { audience, is_wanted, .. } = self.members[slot as usize].subscriptions.last()?;
        self.remove_subscriber(slot, audience, port);
        let change = is_wanted.then(|| self.change(slot, audience, Cause::Left));
        self.members[slot as usize].pop();
        self.table.remove_interest(audience);
        change
    }

    fn wanted_audience(&mut self, slot: Slot, channel: Channel<'_>, hash: u64) -> Option<u32> {
        let audience = self.table.find(channel, hash, self.kind(slot))?;
        self.members[slot as usize].subscription(audience)?.is_wanted.then_some(audience)
    }

    fn kind(&self, slot: Slot) -> Kind {
        self.dialect(slot).into()
    }

    fn give_up(&mut self, slot: Slot, audience: u32, cause: Cause) -> Change {
        self.members[slot as usize].give_up(audience);
        self.change(slot, audience, cause)
    }

    fn change(&self, slot: Slot, audience: u32, cause: Cause) -> Change {
        let entry = self.table.get(audience);
        let membership = Membership { member: self.key(slot), audience, cause };
        Change { channel: entry.name().clone(), hash: entry.hash(), membership, wish: None }
    }

    /// Removes a connection from the audience's subscribers, after sending its part of the turn's page so far. Returns whether
    /// it was one.
    fn remove_subscriber(&mut self, slot: Slot, audience: u32, port: &mut impl Port) -> bool {
        let Some(subscription) = self.members[slot as usize].subscription(audience) else {
            return false;
        };
        let position = std::mem::replace(&mut subscription.position, NOT_LIVE);
        if position == NOT_LIVE {
            return false;
        }
        self.cut(audience, position, port);
        self.drop_held_of(slot, audience);
        if let Some(moved) = self.table.remove(audience, position)
            && let Some(subscription) = self.members[moved as usize].subscription(audience)
        {
            subscription.position = position;
        }
        true
    }
}

/// Whether a channel that keeps its newest message has none for a new subscriber.
fn is_cache_miss(channel: &ChannelName, welcome: Option<&Welcome>) -> bool {
    let Some(welcome) = welcome.filter(|_| is_cache(channel.as_channel().as_str())) else { return false };
    let is_kept = welcome.position.is_some();
    is_kept && welcome.replay.as_ref().is_none_or(|replay| replay.messages.len() <= replay.start)
}
