//! Requests of this shard's clients: from their text messages to the letters to channels' owners.

use super::admission::bucket::Rate;
use super::channel::presence::user::User;
use super::mail::{self, Cause, Mail, Membership, Welcome, Wish};
use super::observe::sighting::Client;
use super::{ENVELOPE_BYTES, Handled, Hub, Notice, Port, REPLAY_SHARE};
use crate::api::publish::{DATA_BYTES_MAX, EVENT_BYTES_MAX};
use crate::config::{Limits, OnSubscribe, Presence};
use crate::ids::Slot;
use crate::protocol::auth::{Attempt, Failure};
use crate::protocol::channel::{Channel, Kind, NAME_BYTES_MAX};
use crate::protocol::command::{Auth, Command, Since, Unreadable};
use crate::protocol::dialect::Dialect;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::json::JsonString;
use crate::protocol::socket_id::SocketId;
use crate::protocol::user::{self, SignedUser};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a client shows for a channel that needs a signature.
struct Proof<'a> {
    auth: Auth<'a>,
    channel_data: Option<JsonString<'a>>,
}

impl Proof<'_> {
    fn attempt<'a>(&'a self, id: SocketId, channel: &'a str) -> Option<Attempt<'a>> {
        let Auth::Text(auth) = &self.auth else { return None };
        Some(Attempt::of_channel(id, auth, channel, self.channel_data.as_ref().map(|data| &*data.value)))
    }
}

impl Hub {
    /// Opens a connection, and sends it its first message. `address` is needed only if events are reported
    /// ([`Hub::is_listened_to`]) or a tap is open ([`Hub::is_watched`]).
    pub fn connect(&mut self, slot: Slot, dialect: Dialect, address: Option<SocketAddr>, port: &mut impl Port) {
        self.audiences.connect(slot, dialect, self.now);
        let id = self.socket_id(slot);
        self.observers.connected(Client { socket_id: id, address, dialect }, self.now);
        let limits = &self.limits;
        self.audiences.send_now(slot, port, |out| dialect.connected(out, id, limits));
    }

    /// Answers a ping; `id` is raw JSON.
    pub fn answer_ping(&mut self, slot: Slot, id: &[u8], port: &mut impl Port) {
        self.counters.pings_answered += 1;
        let dialect = self.audiences.dialect(slot);
        self.audiences.answer(slot, port, |out| dialect.pong(out, id));
    }

    /// Handles a text message of a client.
    pub fn handle(&mut self, slot: Slot, text: &str, port: &mut impl Port) -> Handled {
        let dialect = self.audiences.dialect(slot);
        let mut held = String::new();
        let command = dialect.read(&mut self.reader, text, &mut held);
        if command.as_ref().is_ok_and(|command| self.must_wait(slot, command, port)) {
            return Handled::Later;
        }
        match command {
            Ok(Command::Ping { id }) => self.answer_ping(slot, id.as_bytes(), port),
            Ok(Command::Pong) => return Handled::Pong,
            Ok(Command::Subscribe { channel, auth, channel_data, since }) => {
                let proof = Proof { auth, channel_data };
                let subscribed = self.subscribe(slot, &channel, &proof, since, port);
                if self.observers.is_watched() && (subscribed.is_err() || !may_be_full(&channel.value)) {
                    self.see_request("subscribe", slot, &channel.value, subscribed.err(), port);
                }
                if let Err(code) = subscribed {
                    let attempt = proof.attempt(self.socket_id(slot), &channel.value);
                    let attempt = attempt.as_ref();
                    self.refuse_request(slot, port, |out| dialect.subscribe_error(out, channel.raw, code, attempt));
                }
            }
            Ok(Command::Unsubscribe { channel }) => {
                let unsubscribed = self.unsubscribe(slot, &channel, port);
                if self.observers.is_watched() {
                    self.see_request("unsubscribe", slot, &channel.value, unsubscribed.err(), port);
                }
                if let Err(code) = unsubscribed {
                    self.refuse_request(slot, port, |out| dialect.unsubscribe_error(out, channel.raw, code));
                }
            }
            Ok(Command::SignIn { auth, user_data }) => {
                if let Err(code) = self.sign_in(slot, &auth, user_data.as_ref(), port) {
                    let id = self.socket_id(slot);
                    let attempt = match (&auth, &user_data) {
                        (Auth::Text(auth), Some(user_data)) => Some(Attempt::of_user(id, auth, &user_data.value)),
                        _ => None,
                    };
                    if dialect.is_pusher() {
                        port.notice(slot, Notice::SignInRefused { why: &code.text() });
                    }
                    self.refuse_request(slot, port, |out| dialect.signin_error(out, code, attempt.as_ref()));
                }
            }
            Ok(Command::ClientEvent { event, channel, data }) => {
                if let Err(code) = self.send_client_event(slot, &event, &channel, data, port) {
                    self.refuse_request(slot, port, |out| dialect.client_event_error(out, channel.raw, code));
                }
            }
            Err(why) => {
                if let Some(notice) = of_other_dialect(dialect, &why) {
                    port.notice(slot, notice);
                }
                self.refuse_request(slot, port, |out| dialect.unreadable(out, &why));
            }
        }
        self.settle_own(port);
        Handled::Other
    }

    fn refuse_request(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        self.counters.requests_refused += 1;
        self.audiences.answer(slot, port, write);
    }

    /// Refuses a text message that exceeds the client's rate limit. It has no other effect.
    #[cold]
    pub fn refuse(&mut self, slot: Slot, text: &str, port: &mut impl Port) -> Handled {
        let code = ErrorCode::RateLimited;
        if self.observers.is_watched() {
            self.see_limit(slot, port);
        }
        let dialect = self.audiences.dialect(slot);
        let mut held = String::new();
        match dialect.read(&mut self.reader, text, &mut held) {
            Ok(Command::Pong) => return Handled::Pong,
            // Pusher's clients would not subscribe again after such a reply.
            _ if dialect.is_pusher() => self.refuse_request(slot, port, |out| dialect.error(out, code)),
            Ok(Command::Subscribe { channel, .. }) => {
                self.refuse_request(slot, port, |out| dialect.subscribe_error(out, channel.raw, code, None));
            }
            Ok(Command::Unsubscribe { channel }) => {
                self.refuse_request(slot, port, |out| dialect.unsubscribe_error(out, channel.raw, code));
            }
            Ok(Command::SignIn { .. }) => {
                self.refuse_request(slot, port, |out| dialect.signin_error(out, code, None));
            }
            Ok(Command::ClientEvent { channel, .. }) => {
                self.refuse_request(slot, port, |out| dialect.client_event_error(out, channel.raw, code));
            }
            Ok(Command::Ping { .. }) | Err(_) => self.refuse_request(slot, port, |out| dialect.error(out, code)),
        }
        Handled::Other
    }

    /// Whether a request must wait before it is handled.
    fn must_wait(&self, slot: Slot, command: &Command<'_>, port: &impl Port) -> bool {
        match command {
            Command::Subscribe { .. } | Command::Unsubscribe { .. } | Command::SignIn { .. }
                if self.awaits_allowance(slot) =>
            {
                true
            }
            Command::Subscribe { channel, since, .. } => self.lacks_room(slot, channel, *since, port),
            Command::ClientEvent { .. } => self.has_too_many_events(slot),
            _ => false,
        }
    }

    /// Whether a Pusher client must not subscribe or unsubscribe yet. It is not refused, because it would not try again.
    fn awaits_allowance(&self, slot: Slot) -> bool {
        let Some(rate) = self.rate_of_changes().filter(|_| self.audiences.dialect(slot).is_pusher()) else {
            return false;
        };
        !self.audiences.may_change(slot, rate, self.now)
    }

    /// Whether a subscribe may have a long reply, for which the connection has no room yet. It waits for one such reply at a
    /// time, so that coming back to many channels cannot fill its outbox.
    fn lacks_room(&self, slot: Slot, channel: &JsonString<'_>, since: Since, port: &impl Port) -> bool {
        let bytes = self.long_reply_bytes_max(slot, &channel.value, matches!(since, Since::Position { .. }));
        bytes > 0 && (self.audiences.awaits_welcome(slot) || !self.audiences.has_room(port.waiting(slot), bytes))
    }

    /// Bytes of a list of members and of messages that may follow the reply to a subscribe. 0: the reply is short.
    fn long_reply_bytes_max(&self, slot: Slot, channel: &str, has_position: bool) -> usize {
        let (rule, limits) = (self.directory.rules().rule(channel), &self.limits);
        let members = match rule.presence {
            Presence::Members => limits.presence_members_max * limits.presence_member_bytes_max(),
            Presence::Off | Presence::Count => 0,
        };
        let messages = match rule.on_subscribe {
            OnSubscribe::Nothing if !has_position => 0,
            OnSubscribe::Last => LAST_BYTES_MAX,
            OnSubscribe::Nothing | OnSubscribe::All => limits.outbox_bytes_max / REPLAY_SHARE,
        };
        // Quotes are escaped.
        (members + messages) * if self.audiences.dialect(slot).is_pusher() { 2 } else { 1 }
    }

    /// Whether the connection's next request may have to wait: for a long reply of an owner, until owners have taken its client
    /// events, or for its rate limit.
    pub fn awaits(&self, slot: Slot) -> bool {
        self.audiences.awaits_welcome(slot) || self.has_too_many_events(slot) || self.awaits_allowance(slot)
    }

    fn subscribe(
        &mut self,
        slot: Slot,
        channel: &JsonString<'_>,
        proof: &Proof<'_>,
        since: Since,
        port: &mut impl Port,
    ) -> Result<(), ErrorCode> {
        self.count_change(slot)?;
        let dialect = self.audiences.dialect(slot);
        if let Some(id) = user::id_in_pusher(&channel.value).filter(|_| dialect.is_pusher()) {
            return self.subscribe_to_user(slot, id, channel, port);
        }
        let channel = Channel::parse(&channel.value).ok_or(ErrorCode::InvalidChannel)?;
        let since = match since {
            Since::Absent => None,
            Since::Malformed => return Err(ErrorCode::MalformedSince),
            Since::Position { epoch, offset, socket_id } => {
                let earlier = socket_id.and_then(|id| self.key_of(id));
                Some(mail::Since { epoch, offset, earlier })
            }
        };
        let hash = self.hash(channel);
        if self.audiences.wants(slot, channel, hash) {
            return Err(ErrorCode::AlreadySubscribed);
        }
        if channel.kind().needs_auth() {
            self.authorize(slot, channel, proof)?;
        }
        let user = match channel.kind() {
            Kind::Presence => Some(self.member(slot, proof)?),
            _ => None,
        };
        let max = self.limits.subscriptions_max;
        // The channel of its user does not count as a subscription.
        if self.audiences.wanted(slot) - usize::from(self.user_of(slot).is_some()) >= max {
            return Err(ErrorCode::TooManySubscriptions { max });
        }
        let is_long = self.long_reply_bytes_max(slot, channel.as_str(), since.is_some()) > 0;
        let slow = self.directory.rules().rule(channel.as_str()).slow;
        let mut change = self.audiences.enter(slot, channel, hash, is_long, slow);
        if channel.kind().needs_auth() {
            self.audiences.authorize(slot);
        }
        if since.is_some() || user.is_some() {
            change.wish = Some(Box::new(Wish { since, user, dialect }));
        }
        self.post(self.owner(hash), Mail::Subscribe(change), port);
        Ok(())
    }

    /// Counts a subscribe or unsubscribe against the connection's rate. Ten seconds' worth, and never less than the
    /// subscriptions that a connection may have, may come at once: a client subscribes to all of them when it connects.
    pub(super) fn count_change(&mut self, slot: Slot) -> Result<(), ErrorCode> {
        let Some(rate) = self.rate_of_changes() else { return Ok(()) };
        if self.audiences.take_change(slot, rate, self.now) {
            return Ok(());
        }
        self.counters.subscribes_rate_limited += 1;
        Err(ErrorCode::TooManyChanges { per_second: self.limits.subscribes_per_second_max })
    }

    fn rate_of_changes(&self) -> Option<Rate> {
        let Limits { subscribes_per_second_max: per_second, subscriptions_max, .. } = self.limits;
        (per_second > 0).then(|| Rate::new(per_second, subscriptions_max))
    }

    fn authorize(
        &mut self,
        slot: Slot,
        channel: Channel<'_>,
        Proof { auth, channel_data }: &Proof<'_>,
    ) -> Result<(), ErrorCode> {
        let id = self.socket_id(slot);
        let verdict = match auth {
            Auth::Absent => {
                self.counters.auth_failures += 1;
                return Err(ErrorCode::AuthRequired);
            }
            Auth::NotString => Err(Failure::NotString),
            Auth::Text(auth) => {
                let channel_data = channel_data.as_ref().map(|data| &*data.value);
                self.keys.verify(&Attempt::of_channel(id, auth, channel.as_str(), channel_data))
            }
        };
        verdict.map_err(|failure| {
            self.counters.auth_failures += 1;
            tracing::debug!(socket_id = %id, channel = channel.as_str(), ?failure, "subscription not authorized");
            ErrorCode::AuthInvalid(failure)
        })
    }

    /// The user that a subscribe to a presence channel names; without `channel_data`, the user that has signed in.
    fn member(&mut self, slot: Slot, proof: &Proof<'_>) -> Result<Arc<User>, ErrorCode> {
        let Some(channel_data) = &proof.channel_data else {
            return self.user_of(slot).cloned().ok_or(user::NO_CHANNEL_DATA);
        };
        let info_bytes_max = self.limits.presence_info_bytes_max;
        let user = SignedUser::of_member(&channel_data.value, info_bytes_max, &mut self.reader)?;
        Ok(Arc::new(User::new(&user.id, user.info)))
    }

    /// The owner of a channel has counted a subscriber.
    pub(super) fn on_subscribed(&mut self, membership: Membership, welcome: Option<&Welcome>, port: &mut impl Port) {
        let Some(replayed) = self.audiences.subscribed(membership, welcome, port) else { return };
        if let Cause::SignIn { request } = membership.cause {
            return self.signed_in(&membership, request, port);
        }
        self.counters.subscribes += 1;
        self.counters.messages_replayed += replayed as u64;
        match welcome.and_then(|welcome| welcome.recovered) {
            Some(true) => self.counters.recoveries += 1,
            Some(false) => self.counters.recoveries_failed += 1,
            None => {}
        }
        if self.observers.is_watched() {
            let name = self.audiences.name(membership.audience).clone();
            if may_be_full(name.as_channel().as_str()) {
                self.see_request("subscribe", membership.member.slot, name.as_channel().as_str(), None, port);
            }
        }
    }

    /// The owner of a channel has refused a subscribe.
    pub(super) fn on_refused(&mut self, membership: Membership, code: ErrorCode, port: &mut impl Port) {
        if let Some(channel) = self.audiences.refused(membership, code, port) {
            self.counters.requests_refused += 1;
            if self.observers.is_watched() {
                self.see_request("subscribe", membership.member.slot, channel.as_channel().as_str(), Some(code), port);
            }
        }
    }

    fn unsubscribe(&mut self, slot: Slot, channel: &JsonString<'_>, port: &mut impl Port) -> Result<(), ErrorCode> {
        self.count_change(slot)?;
        let channel = Channel::parse(&channel.value).ok_or(ErrorCode::NotSubscribed)?;
        let hash = self.hash(channel);
        let change = self.audiences.leave(slot, channel, hash).ok_or(ErrorCode::NotSubscribed)?;
        self.post(self.owner(hash), Mail::Unsubscribe(change), port);
        Ok(())
    }
}

/// Whether a message is in the words of the other dialect.
fn of_other_dialect<'a>(dialect: Dialect, why: &Unreadable<'a>) -> Option<Notice<'a>> {
    let &Unreadable::UnknownEvent { event } = why else { return None };
    match dialect {
        Dialect::Native if event.starts_with("pusher:") => Some(Notice::PusherOnNative { event }),
        Dialect::Pusher(_) if event.starts_with("socket:") => Some(Notice::NativeOnPusher { event }),
        _ => None,
    }
}

/// Whether the owner of this channel may refuse a subscribe that is otherwise valid.
fn may_be_full(name: &str) -> bool {
    Channel::parse(name).is_some_and(|channel| channel.kind() == Kind::Presence)
}

/// Bytes of the newest message, which is sent whatever its size.
const LAST_BYTES_MAX: usize = DATA_BYTES_MAX + EVENT_BYTES_MAX + NAME_BYTES_MAX + ENVELOPE_BYTES;
