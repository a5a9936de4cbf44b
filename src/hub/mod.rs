//! Who hears what: the state machine of one shard's share of publish/subscribe. Pure: what happens goes in, effects come
//! out through [`Port`], and a whole cluster of hubs runs inside one test.
//!
//! A hub plays two parts. For its own connections it keeps the memberships ([`subscribers`], [`member`]) and lays what
//! they are sent into the turn's pages ([`pages`]). For the channels that it owns it counts members and gives every
//! publish its place ([`directory`]). The parts talk by [`Mail`], also when both are this hub.

pub mod directory;
pub mod identity;
pub mod mail;
pub mod member;
pub mod outgoing;
pub mod pages;
pub mod subscribers;

#[cfg(test)]
mod simulation;

use crate::config::{Key, Limits};
use crate::metrics::Counters;
use crate::protocol::auth::{Failure, KeyRing};
use crate::protocol::channel::{Channel, ChannelName, Kind};
use crate::protocol::close::CloseReason;
use crate::protocol::command::{Auth, Command, Parser, Unreadable};
use crate::protocol::event::{self, ErrorCode};
use crate::protocol::json::JsonString;
use crate::protocol::socket_id::SocketId;
use ahash::RandomState;
use directory::{Directory, total};
use identity::Identities;
use mail::{Answer, Asker, Cause, ConnKey, Exclusion, Fence, Frame, Mail, Membership, Publish, Question, Settled};
use mail::{ShardId, Slot};
use member::{Member, NOT_LIVE, Subscription};
use pages::{Chunk, PageId, Pages};
use smallvec::SmallVec;
use std::collections::VecDeque;
use subscribers::{Subscriber, Subscribers};

/// What a hub asks of the shard around it.
pub trait Port {
    /// `chunk` is next on the wire of a connection. Whoever keeps it holds its page.
    fn lay(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, urgency: Urgency);
    /// Sends a letter to another shard.
    fn mail(&mut self, to: ShardId, mail: Mail);
    /// Sends a letter, to any shard, once all that was sent before to each shard of `after` has been taken by its inbox.
    fn mail_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail);
    /// A question that only the owner of sockets can answer.
    fn ask(&mut self, asker: Asker, question: Question);
    /// An answer for an admin session of this shard.
    fn answer(&mut self, asker: Asker, answer: Answer);
    /// A part of a publish of an admin session of this shard is settled.
    fn settle(&mut self, asker: Asker, settled: Settled);
    /// The connection broke a limit. Can be said again before [`Hub::disconnect`] is called, and within that call.
    fn close(&mut self, slot: Slot, reason: CloseReason);
}

/// Whether output goes before bulk when there is more than one turn can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Replies, heartbeats, and messages of channels with few subscribers here.
    Soon,
    /// Messages of channels with many.
    Bulk,
}

/// What a text message means to the shard's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// `socket:pong`: answers the server's ping.
    Pong,
    /// Anything else.
    Other,
}

/// What makes one hub different from another, and what all of a process share.
pub struct Identity {
    /// This shard.
    pub shard: ShardId,
    /// How many there are.
    pub shards: usize,
    /// The same for all shards of a process: places channels and keys socket ids.
    pub seed: [u64; 4],
}

/// One shard's share of publish/subscribe.
pub struct Hub {
    shard: ShardId,
    shards: usize,
    hasher: RandomState,
    identities: Identities,
    /// Bytes that connections are sent.
    pub pages: Pages,
    members: Vec<Member>,
    subscribers: Subscribers,
    directory: Directory,
    /// The page that this turn's replies are laid out in.
    reply_page: Option<PageId>,
    /// Letters from this hub to itself.
    own_mail: VecDeque<Mail>,
    /// Bytes of messages laid out since [`Hub::end_turn`]; the shard's budget.
    pub laid_bytes: usize,
    /// Replies `subscribed` that are ready and held back. While there is none, delivery skips the look.
    holding: usize,
    fences: [usize; 2],
    parser: Parser,
    keys: KeyRing,
    limits: Limits,
    /// What this shard counted.
    pub counters: Counters,
}

/// Output that follows a request: replies wait in [`member::Replies`] while an earlier request of the connection waits.
impl Hub {
    /// An empty hub.
    pub fn new(identity: Identity, keys: &[Key], limits: Limits) -> Hub {
        let Identity { shard, shards, seed } = identity;
        let [a, b, c, d] = seed;
        Hub {
            shard,
            shards,
            hasher: RandomState::with_seeds(b, a, d, c),
            identities: Identities::new(seed),
            pages: Pages::default(),
            members: Vec::new(),
            subscribers: Subscribers::default(),
            directory: Directory::default(),
            reply_page: None,
            own_mail: VecDeque::new(),
            laid_bytes: 0,
            holding: 0,
            fences: [0; 2],
            parser: Parser::default(),
            keys: KeyRing::new(keys),
            limits,
            counters: Counters::default(),
        }
    }

    // ---- connections of this shard

    /// A connection is open: it may be spoken to, first with `socket:connected`.
    pub fn connect(&mut self, slot: Slot, port: &mut impl Port) {
        let at = slot as usize;
        if at >= self.members.len() {
            self.members.resize_with(at + 1, Member::default);
        }
        self.members[at].is_live = true;
        let id = self.socket_id(slot);
        let (interval, timeout) = (self.limits.heart_interval_s, self.limits.heart_timeout_s);
        self.say_now(slot, port, |out| event::connected(out, id, interval, timeout));
    }

    /// The connection is over, or is to hear nothing more than what it has been sent so far.
    pub fn disconnect(&mut self, slot: Slot, port: &mut impl Port) {
        let Some(key) = self.live_key(slot) else { return };
        while let Some(&Subscription { local, position, is_wanted, .. }) =
            self.members[slot as usize].subscriptions.last()
        {
            if position != NOT_LIVE {
                self.remove_live(slot, local, port);
            }
            if is_wanted {
                let entry = self.subscribers.get(local);
                let (channel, hash) = (entry.name.clone(), entry.hash);
                let membership = Membership { member: key, local, cause: Cause::Left };
                self.post(self.owner(hash), Mail::Unsubscribe { channel, hash, membership }, port);
            }
            self.members[slot as usize].subscriptions.pop();
            self.lose_interest(local);
        }
        let member = &mut self.members[slot as usize];
        if let Some(replies) = member.replies.take() {
            self.holding -= replies.held_count();
        }
        member.subscriptions = SmallVec::new();
        member.is_live = false;
        member.generation = (member.generation + 1) & ((1 << identity::GENERATION_BITS) - 1);
        self.settle_own(port);
    }

    /// A text message came in.
    pub fn hear(&mut self, slot: Slot, text: &str, port: &mut impl Port) -> Heard {
        let mut heard = Heard::Other;
        match self.parser.command(text) {
            Ok(Command::Ping { id }) => {
                self.counters.pings_answered += 1;
                self.say(slot, port, |out| event::pong(out, id));
            }
            Ok(Command::Pong) => heard = Heard::Pong,
            Ok(Command::Subscribe { channel, auth, channel_data }) => {
                if let Err(code) = self.subscribe(slot, &channel, &auth, &channel_data, port) {
                    self.counters.requests_refused += 1;
                    self.say(slot, port, |out| event::subscribe_error(out, channel.raw, code));
                }
            }
            Ok(Command::Unsubscribe { channel }) => {
                if let Err(code) = self.unsubscribe(slot, &channel, port) {
                    self.counters.requests_refused += 1;
                    self.say(slot, port, |out| event::unsubscribe_error(out, channel.raw, code));
                }
            }
            Err(unreadable) => {
                self.counters.requests_refused += 1;
                let code = match unreadable {
                    Unreadable::Malformed(what) => ErrorCode::MalformedMessage(what),
                    Unreadable::UnknownEvent => ErrorCode::UnknownEvent,
                };
                self.say(slot, port, |out| event::error(out, code));
            }
        }
        self.settle_own(port);
        heard
    }

    fn subscribe(
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

    fn unsubscribe(&mut self, slot: Slot, channel: &JsonString<'_>, port: &mut impl Port) -> Result<(), ErrorCode> {
        let channel = Channel::parse(&channel.value).ok_or(ErrorCode::NotSubscribed)?;
        let hash = self.hash(channel);
        let local = self.wanted_local(slot, channel, hash).ok_or(ErrorCode::NotSubscribed)?;
        let cause = Cause::Client(self.reserve(slot));
        self.ask_to_leave(slot, local, cause, port);
        Ok(())
    }

    /// The channel's index, if the connection wants to be in it.
    fn wanted_local(&mut self, slot: Slot, channel: Channel<'_>, hash: u64) -> Option<u32> {
        let local = self.subscribers.find(channel, hash)?;
        self.members[slot as usize].subscription(local)?.is_wanted.then_some(local)
    }

    fn ask_to_leave(&mut self, slot: Slot, local: u32, cause: Cause, port: &mut impl Port) {
        if let Some(subscription) = self.members[slot as usize].subscription(local) {
            subscription.is_wanted = false;
            subscription.pending += 1;
        }
        let entry = self.subscribers.get(local);
        let (channel, hash) = (entry.name.clone(), entry.hash);
        let membership = Membership { member: self.key(slot), local, cause };
        self.post(self.owner(hash), Mail::Unsubscribe { channel, hash, membership }, port);
    }

    /// Replies of the connection that wait for an owner, or behind one that does.
    pub fn waiting_replies(&self, slot: Slot) -> usize {
        self.members.get(slot as usize).and_then(|member| member.replies.as_ref()).map_or(0, |replies| replies.len())
    }

    /// The connection's socket id.
    pub fn socket_id(&self, slot: Slot) -> SocketId {
        self.identities.socket_id(self.key(slot))
    }

    /// The connection that a socket id names, dead or alive.
    pub fn key_of(&self, id: SocketId) -> Option<ConnKey> {
        self.identities.key(id).filter(|key| usize::from(key.shard) < self.shards)
    }

    /// Whether the connection lives in this shard.
    pub fn is_live(&self, key: ConnKey) -> bool {
        key.shard == self.shard && self.live_key(key.slot) == Some(key)
    }

    /// Live subscriptions of a connection.
    pub fn channels_of(&self, slot: Slot) -> impl Iterator<Item = &ChannelName> {
        let live = |subscription: &&Subscription| subscription.position != NOT_LIVE;
        let member = self.members.get(slot as usize);
        let subscriptions = member.map_or(&[][..], |member| &member.subscriptions);
        subscriptions.iter().filter(live).map(|subscription| &self.subscribers.get(subscription.local).name)
    }

    // ---- publishing

    /// Where a channel lives, for [`Hub::publish`] and [`Question`]s.
    pub fn hash(&self, channel: Channel<'_>) -> u64 {
        self.hasher.hash_one(channel.as_str())
    }

    /// The shard that owns the channel of this hash.
    pub fn owner(&self, hash: u64) -> ShardId {
        // The high bits place, the low bits and the top seven are the tables'.
        (((hash >> 16 & 0xffff_ffff) * self.shards as u64) >> 32) as ShardId
    }

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
        if owner == self.shard && self.is_heard_only_here(channel, hash) && exclude.is_none() {
            // The common case of one shard: straight into the page.
            self.counters.publishes += 1;
            let subscribers = total(self.directory.counts(channel, hash));
            if subscribers > 0 {
                let len = event::message_len(channel.as_str(), event, data);
                self.deliver(channel, hash, len, |out| event::message(out, channel.as_str(), event, data), None, port);
            }
            return Some(Settled { parts: 1, subscribers: subscribers as i64 });
        }
        let mut frame = Vec::with_capacity(event::message_len(channel.as_str(), event, data));
        event::message(&mut frame, channel.as_str(), event, data);
        let publish = Publish { channel: channel.into(), hash, frame: frame.into(), exclude, asker };
        self.post(owner, Mail::Publish(Box::new(publish)), port);
        self.settle_own(port);
        None
    }

    fn is_heard_only_here(&self, channel: Channel<'_>, hash: u64) -> bool {
        self.directory.counts(channel, hash).iter().all(|&(shard, _)| shard == self.shard)
    }

    /// As the owner: the message's place in the order is here and now.
    fn sequence(&mut self, publish: Publish, port: &mut impl Port) {
        let Publish { channel, hash, frame, exclude, asker } = publish;
        self.counters.publishes += 1;
        let counts = self.directory.counts(channel.as_channel(), hash);
        let subscribers = total(counts) as i64;
        let concerned: SmallVec<[ShardId; 8]> = counts.iter().map(|&(shard, _)| shard).collect();
        let excluded_shard = exclude.filter(|member| concerned.contains(&member.shard)).map(|member| member.shard);
        for &shard in &concerned {
            let exclude =
                exclude.filter(|_| Some(shard) == excluded_shard).map(|member| Box::new(Exclusion { member, asker }));
            if shard == self.shard {
                self.deliver_frame(channel.as_channel(), hash, &frame, exclude, port);
            } else {
                let (channel, frame) = (channel.clone(), frame.clone());
                port.mail(shard, Mail::Deliver { channel, hash, frame, exclude });
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

    fn deliver_frame(
        &mut self,
        channel: Channel<'_>,
        hash: u64,
        frame: &Frame,
        exclude: Option<Box<Exclusion>>,
        port: &mut impl Port,
    ) {
        let excluded = exclude.as_ref().map(|exclusion| exclusion.member);
        let was_live = self.deliver(channel, hash, frame.len(), |out| out.extend_from_slice(frame), excluded, port);
        if let Some(Exclusion { asker, .. }) = exclude.as_deref() {
            let settled = Settled { parts: 1, subscribers: -i64::from(was_live) };
            self.post(asker.shard, Mail::Settled(*asker, settled), port);
        }
    }

    /// Lays one message out for this shard's subscribers. Returns whether the excluded connection was one of them.
    fn deliver(
        &mut self,
        channel: Channel<'_>,
        hash: u64,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
        exclude: Option<ConnKey>,
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
        write(self.pages.writer(page));
        if let Some(position) = excluded {
            self.subscribers.get_mut(local).subscribers[position as usize].from = self.pages.page_len(page);
        }
        self.laid_bytes += len;
        self.counters.deliveries += subscribers - u64::from(excluded.is_some());
        excluded.is_some()
    }

    // ---- the turn

    /// A letter from another shard.
    pub fn receive(&mut self, mail: Mail, port: &mut impl Port) {
        self.open(mail, port);
        self.settle_own(port);
    }

    /// Closes the turn's pages: every subscriber gets its part.
    pub fn end_turn(&mut self, port: &mut impl Port) {
        let touched = self.subscribers.take_touched();
        for &local in &touched {
            self.lay_out(local, port);
            self.subscribers.forget_if_idle(local);
        }
        self.subscribers.laid(touched);
        if let Some(page) = self.reply_page.take() {
            self.pages.release(page);
        }
        self.laid_bytes = 0;
    }

    /// Sends the first leg of the fence. Nothing may be published in this shard after it.
    pub fn fence(&mut self, port: &mut impl Port) {
        self.post_all(Fence::Publishers, port);
        self.settle_own(port);
    }

    /// Whether everything that was published before all shards' [`Hub::fence`] has been laid out here.
    pub fn is_fenced(&self) -> bool {
        self.fences[Fence::Owners as usize] == self.shards
    }

    /// Subscriptions and channels, for the gauges. Walks the tables.
    pub fn sizes(&self) -> (usize, usize) {
        (self.subscribers.live(), self.directory.len())
    }

    /// Something to send that answers no request, now.
    pub fn say_now(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(page) = self.reply_page
            && self.pages.is_full_for(page, 0)
        {
            self.pages.release(page);
            self.reply_page = None;
        }
        let page = *self.reply_page.get_or_insert_with(|| self.pages.open());
        let start = self.pages.page_len(page);
        write(self.pages.writer(page));
        let end = self.pages.page_len(page);
        port.lay(&mut self.pages, slot, Chunk { page, start, end }, Urgency::Soon);
    }

    /// Sends a letter to an owner or a peer, which may be this hub.
    fn post(&mut self, to: ShardId, mail: Mail, port: &mut impl Port) {
        if to == self.shard {
            self.own_mail.push_back(mail);
        } else {
            port.mail(to, mail);
        }
    }

    /// Asks a shard on behalf of an admin session of this one.
    pub fn ask(&mut self, of: ShardId, asker: Asker, question: Question, port: &mut impl Port) {
        self.post(of, Mail::Ask(asker, Box::new(question)), port);
        self.settle_own(port);
    }

    /// Answers what an admin session, here or elsewhere, asked of this shard.
    pub fn answer(&mut self, asker: Asker, answer: Answer, port: &mut impl Port) {
        self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
        self.settle_own(port);
    }

    fn post_all(&mut self, fence: Fence, port: &mut impl Port) {
        for shard in 0..self.shards {
            self.post(shard as ShardId, Mail::Fence(fence), port);
        }
    }

    fn settle_own(&mut self, port: &mut impl Port) {
        while let Some(mail) = self.own_mail.pop_front() {
            self.open(mail, port);
        }
    }

    fn open(&mut self, mail: Mail, port: &mut impl Port) {
        match mail {
            Mail::Deliver { channel, hash, frame, exclude } => {
                self.deliver_frame(channel.as_channel(), hash, &frame, exclude, port);
            }
            Mail::Publish(publish) => self.sequence(*publish, port),
            Mail::Subscribe { channel, hash, membership } => {
                self.directory.join(&channel, hash, membership.member.shard);
                self.post(membership.member.shard, Mail::Subscribed(membership), port);
            }
            Mail::Unsubscribe { channel, hash, membership } => {
                self.directory.leave(&channel, hash, membership.member.shard);
                if !matches!(membership.cause, Cause::Left) {
                    self.post(membership.member.shard, Mail::Unsubscribed(membership), port);
                }
            }
            Mail::Subscribed(membership) => self.subscribed(membership, port),
            Mail::Unsubscribed(membership) => self.unsubscribed(membership, port),
            Mail::Settled(asker, settled) => port.settle(asker, settled),
            Mail::Ask(asker, question) => self.consider(asker, *question, port),
            Mail::Answer(asker, answer) => port.answer(asker, *answer),
            Mail::Fence(fence) => {
                self.fences[fence as usize] += 1;
                if fence == Fence::Publishers && self.fences[fence as usize] == self.shards {
                    self.post_all(Fence::Owners, port);
                }
            }
        }
    }

    fn consider(&mut self, asker: Asker, question: Question, port: &mut impl Port) {
        let answer = match question {
            Question::Channel { channel, hash } => {
                Answer::Subscribers(total(self.directory.counts(channel.as_channel(), hash)))
            }
            Question::Channels { prefix, limit, after } => {
                let (channels, next) = self.directory.page(&prefix, limit, after);
                Answer::Channels { channels, next }
            }
            Question::Unsubscribe { member, channel, hash } => {
                let wanted = self.is_live(member).then(|| self.wanted_local(member.slot, channel.as_channel(), hash));
                match wanted.flatten() {
                    Some(local) => return self.ask_to_leave(member.slot, local, Cause::Admin(asker), port),
                    None => Answer::NotFound,
                }
            }
            other => return port.ask(asker, other),
        };
        self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
    }

    // ---- acknowledgements

    fn subscribed(&mut self, membership: Membership, port: &mut impl Port) {
        let Membership { member, local, cause } = membership;
        if !self.is_live(member) {
            return;
        }
        self.counters.subscribes += 1;
        let entry = self.subscribers.get_mut(local);
        let position = entry.subscribers.len() as u32;
        let from = entry.page.map_or(0, |page| self.pages.page_len(page));
        entry.subscribers.push(Subscriber { slot: member.slot, from });
        let name = entry.name.clone();
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

    fn unsubscribed(&mut self, membership: Membership, port: &mut impl Port) {
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
            self.post(asker.shard, Mail::Answer(asker, Box::new(Answer::Done)), port);
        }
    }

    /// Takes a connection out of the channel's live subscribers; what it has of the turn's page becomes its own.
    fn remove_live(&mut self, slot: Slot, local: u32, port: &mut impl Port) {
        let Some(subscription) = self.members[slot as usize].subscription(local) else {
            return;
        };
        let position = std::mem::replace(&mut subscription.position, NOT_LIVE);
        if position == NOT_LIVE {
            return;
        }
        self.cut(local, position, port);
        let subscribers = &mut self.subscribers.get_mut(local).subscribers;
        subscribers.swap_remove(position as usize);
        if let Some(moved) = subscribers.get(position as usize).map(|subscriber| subscriber.slot)
            && let Some(subscription) = self.members[moved as usize].subscription(local)
        {
            subscription.position = position;
        }
    }

    fn lose_interest(&mut self, local: u32) {
        self.subscribers.get_mut(local).interest -= 1;
        self.subscribers.forget_if_idle(local);
    }

    // ---- output

    /// Sends a subscriber its part of the page so far, so that what comes next on its wire comes after it.
    fn cut(&mut self, local: u32, position: u32, port: &mut impl Port) {
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
    fn lay_out(&mut self, local: u32, port: &mut impl Port) {
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
    fn emit(&mut self, slot: Slot, local: u32, chunk: Chunk, urgency: Urgency, port: &mut impl Port) {
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

    /// Answers the request that is being heard: at once, or behind those that wait.
    fn say(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(replies) = &mut self.members[slot as usize].replies else {
            return self.say_now(slot, port, write);
        };
        let mut reply = Vec::new();
        write(&mut reply);
        replies.push(reply);
    }

    /// Something about a channel that answers no request, but must not overtake the channel's `subscribed`.
    fn say_unasked(&mut self, slot: Slot, local: u32, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        match self.members[slot as usize].replies.as_mut().and_then(|replies| replies.held(local)) {
            Some(held) => write(held),
            None => self.say_now(slot, port, write),
        }
    }

    /// Takes a place in the order of the connection's replies.
    fn reserve(&mut self, slot: Slot) -> u32 {
        self.members[slot as usize].replies.get_or_insert_default().reserve()
    }

    /// Fills a reserved place, and sends what no longer waits. `opens`: see [`member::Replies::fill`].
    fn reply(
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

    // ---- keys

    fn key(&self, slot: Slot) -> ConnKey {
        ConnKey { shard: self.shard, slot, generation: self.members[slot as usize].generation }
    }

    fn live_key(&self, slot: Slot) -> Option<ConnKey> {
        self.members.get(slot as usize).filter(|member| member.is_live).map(|_| self.key(slot))
    }

    /// Place among the live subscribers of a channel, if the connection lives and is one.
    fn live_position(&mut self, key: ConnKey, local: u32) -> Option<u32> {
        if !self.is_live(key) {
            return None;
        }
        let position = self.members[key.slot as usize].subscription(local)?.position;
        (position != NOT_LIVE).then_some(position)
    }
}

/// A channel with at most this many subscribers in a shard is not bulk.
const FEW: usize = 64;
