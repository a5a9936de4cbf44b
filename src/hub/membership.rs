//! Who is in a channel: requests to enter and leave, the owner's acknowledgements, and this shard's lists.

use super::mail::{Answer, Cause, Mail, Membership, Slot};
use super::member::{NOT_LIVE, Subscription};
use super::subscribers::Subscriber;
use super::{Hub, Port};
use crate::api::Reply;
use crate::protocol::auth::Failure;
use crate::protocol::channel::{Channel, Kind};
use crate::protocol::command::Auth;
use crate::protocol::event::{self, ErrorCode};
use crate::protocol::json::JsonString;

impl Hub {
    pub(super) fn subscribe(
        &mut self,
        slot: Slot,
        channel: &JsonString<'_>,
        auth: &Auth<'_>,
        channel_data: &Option<JsonString<'_>>,
        port: &mut impl Port,
    ) -> Result<(), ErrorCode> {
        let channel = Channel::parse(&channel.value).ok_or(ErrorCode::InvalidChannel)?;
        let hash = self.hash(channel);
        let found = self.subscribers.find(channel, hash);
        let member = &mut self.members[slot as usize];
        if found.and_then(|local| member.subscription(local)).is_some_and(|subscription| subscription.is_wanted) {
            return Err(ErrorCode::AlreadySubscribed);
        }
        if channel.kind() == Kind::Private {
            self.authorize(slot, channel, auth, channel_data)?;
        }
        let member = &mut self.members[slot as usize];
        if member.wanted() >= self.limits.subscriptions_max {
            return Err(ErrorCode::TooManySubscriptions { max: self.limits.subscriptions_max });
        }
        let local = self.subscribers.find_or_enter(channel, hash);
        match member.subscription(local) {
            Some(subscription) => {
                subscription.is_wanted = true;
                subscription.pending += 1;
            }
            None => {
                let new = Subscription { local, position: NOT_LIVE, is_wanted: true, pending: 1 };
                member.subscriptions.push(new);
                self.subscribers.get_mut(local).interest += 1;
            }
        }
        let membership = Membership { member: self.key(slot), local, cause: Cause::Client(self.reserve(slot)) };
        let channel = self.subscribers.get(local).name.clone();
        self.post(self.owner(hash), Mail::Subscribe { channel, hash, membership }, port);
        Ok(())
    }

    fn authorize(
        &mut self,
        slot: Slot,
        channel: Channel<'_>,
        auth: &Auth<'_>,
        channel_data: &Option<JsonString<'_>>,
    ) -> Result<(), ErrorCode> {
        let id = self.socket_id(slot);
        let verdict = match auth {
            Auth::Absent => {
                self.counters.auth_failures += 1;
                return Err(ErrorCode::AuthRequired);
            }
            Auth::NotString => Err(Failure::NotString),
            Auth::Text(auth) => {
                self.keys.verify(auth, id, channel.as_str(), channel_data.as_ref().map(|data| &*data.value))
            }
        };
        verdict.map_err(|failure| {
            self.counters.auth_failures += 1;
            tracing::debug!(socket_id = %id, channel = channel.as_str(), ?failure, "subscription not authorized");
            ErrorCode::AuthInvalid
        })
    }

    pub(super) fn unsubscribe(
        &mut self,
        slot: Slot,
        channel: &JsonString<'_>,
        port: &mut impl Port,
    ) -> Result<(), ErrorCode> {
        let channel = Channel::parse(&channel.value).ok_or(ErrorCode::NotSubscribed)?;
        let hash = self.hash(channel);
        let local = self.wanted_local(slot, channel, hash).ok_or(ErrorCode::NotSubscribed)?;
        let cause = Cause::Client(self.reserve(slot));
        self.ask_to_leave(slot, local, cause, port);
        Ok(())
    }

    /// The channel's index, if the connection wants to be in it.
    pub(super) fn wanted_local(&mut self, slot: Slot, channel: Channel<'_>, hash: u64) -> Option<u32> {
        let local = self.subscribers.find(channel, hash)?;
        self.members[slot as usize].subscription(local)?.is_wanted.then_some(local)
    }

    pub(super) fn ask_to_leave(&mut self, slot: Slot, local: u32, cause: Cause, port: &mut impl Port) {
        if let Some(subscription) = self.members[slot as usize].subscription(local) {
            subscription.is_wanted = false;
            subscription.pending += 1;
        }
        let entry = self.subscribers.get(local);
        let (channel, hash) = (entry.name.clone(), entry.hash);
        let membership = Membership { member: self.key(slot), local, cause };
        self.post(self.owner(hash), Mail::Unsubscribe { channel, hash, membership }, port);
    }

    pub(super) fn subscribed(&mut self, membership: Membership, port: &mut impl Port) {
        let Membership { member, local, cause } = membership;
        if !self.is_live(member) {
            return;
        }
        self.counters.subscribes += 1;
        let entry = self.subscribers.get(local);
        let from = entry.page.map_or(0, |page| self.pages.page_len(page));
        let name = entry.name.clone();
        let position = self.subscribers.add(local, Subscriber { slot: member.slot, from });
        if let Some(subscription) = self.members[member.slot as usize].subscription(local) {
            subscription.position = position;
            subscription.pending -= 1;
        }
        if let Cause::Client(request) = cause {
            self.reply(member.slot, request, Some(local), port, |out| {
                event::subscribed(out, name.as_channel().as_str())
            });
        }
    }

    pub(super) fn unsubscribed(&mut self, membership: Membership, port: &mut impl Port) {
        let Membership { member, local, cause } = membership;
        if self.is_live(member) {
            self.counters.unsubscribes += 1;
            self.remove_live(member.slot, local, port);
            let name = self.subscribers.get(local).name.clone();
            let subscriptions = &mut self.members[member.slot as usize].subscriptions;
            if let Some(at) = subscriptions.iter().position(|subscription| subscription.local == local) {
                let subscription = &mut subscriptions[at];
                subscription.pending -= 1;
                if subscription.pending == 0 && !subscription.is_wanted {
                    subscriptions.swap_remove(at);
                    self.lose_interest(local);
                }
            }
            let write = |out: &mut Vec<u8>| event::unsubscribed(out, name.as_channel().as_str());
            match cause {
                Cause::Client(request) => self.reply(member.slot, request, None, port, write),
                Cause::Admin(_) | Cause::Left => self.say_unasked(member.slot, local, port, write),
            }
        }
        if let Cause::Admin(asker) = cause {
            self.post(asker.shard, Mail::Answer(asker, Box::new(Answer::Reply(Ok(Reply::Done {})))), port);
        }
    }

    /// Takes a connection out of the channel's live subscribers; what it has of the turn's page becomes its own.
    pub(super) fn remove_live(&mut self, slot: Slot, local: u32, port: &mut impl Port) {
        let Some(subscription) = self.members[slot as usize].subscription(local) else {
            return;
        };
        let position = std::mem::replace(&mut subscription.position, NOT_LIVE);
        if position == NOT_LIVE {
            return;
        }
        self.cut(local, position, port);
        if let Some(moved) = self.subscribers.remove(local, position)
            && let Some(subscription) = self.members[moved as usize].subscription(local)
        {
            subscription.position = position;
        }
    }

    pub(super) fn lose_interest(&mut self, local: u32) {
        self.subscribers.get_mut(local).interest -= 1;
        self.subscribers.forget_if_idle(local);
    }
}
