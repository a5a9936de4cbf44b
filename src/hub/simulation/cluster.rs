//! A cluster of hubs with its clients, publishers, operators and consumers of events; the steps of a run, and its checks.

mod arrivals;
mod presence;
mod readers;
mod reloads;
mod returns;
mod senders;
mod slow;

use super::choices::Choices;
use super::mesh::{Effect, Mesh, TestPort, Wire};
use super::model::{Change, ChannelHistory, Client, Entry, History, Message, Position, Reply};
use super::pusher::Translator;
use crate::api::operation::{self, Channels, Unsubscribe};
use crate::api::publish::Placed;
use crate::api::{self, By, Refusal};
use crate::config::{Key, Limits, Presence, Rules};
use crate::hub::mail::{self, Answer, Cause, Mail, Question, Settled};
use crate::hub::message;
use crate::hub::observe::best::{Best, BusyChannel};
use crate::hub::observe::journal::JOURNAL;
use crate::hub::outgoing::Outgoing;
use crate::hub::{Handled, Hub, Identity, Submission};
use crate::ids::{Asker, ConnKey, ShardId, Slot};
use crate::protocol::auth;
use crate::protocol::channel::Channel;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::pusher::handshake::Version;
use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

pub struct Cluster<I> {
    choices: Choices<I>,
    shards: Vec<Shard>,
    mesh: Mesh,
    history: History,
    clients: Vec<Client>,
    publications: Vec<Publication>,
    inquiries: Vec<Inquiry>,
    /// Consumers of events.
    readers: Vec<readers::Reader>,
    effects: Vec<Effect>,
    /// The action for each value of a step's byte. An action with more entries happens more often.
    actions: Vec<Action>,
    keys: Vec<Key>,
    limits: Limits,
    rules: Arc<Rules>,
    /// The clock of all shards.
    now_us: u64,
    /// The sender and the receiver whose letters are overtaken by many others.
    slow: (usize, usize),
    /// About how many letters overtake each of them.
    overtaking: usize,
    /// Whether consumers of events ask for more as soon as they have an answer.
    are_readers_eager: bool,
    /// The tick of arriving connections.
    now: u32,
    subscriptions_max: usize,
    clients_max: usize,
    /// Number of channels that clients name; those of users follow.
    named: usize,
    /// Most unsettled publishes of a shard's publisher.
    window: usize,
    has_large_messages: bool,
}

struct Shard {
    hub: Hub,
    outgoing: Outgoing,
    wires: Vec<Wire>,
    generations: Vec<u32>,
    free: Vec<Slot>,
    unsettled: usize,
    counted: arrivals::CountedConnections,
    is_fenced: bool,
}

struct Publication {
    messages: std::ops::Range<usize>,
    shard: usize,
    parts_due: u32,
    parts: u32,
    subscribers: i64,
    /// The exact count of subscribers, if the cluster was at rest.
    expected: Option<i64>,
}

struct Inquiry {
    about: About,
    /// The expected answer, if it is known.
    expected: Option<Expected>,
    is_answered: bool,
}

#[derive(Clone, Copy)]
enum About {
    Count,
    Page,
    Busiest,
    Stats,
    /// To unsubscribe this client from this channel.
    Unsubscribe {
        client: usize,
        channel: usize,
    },
}

enum Expected {
    Done,
    NotFound,
    Count(u64),
    /// These channels with their subscribers. The number of messages is known if all have been counted.
    Busiest(Vec<(String, u64, Option<u64>)>),
}

#[derive(Clone, Copy)]
enum Action {
    Connect,
    Disconnect,
    SendRequests,
    Publish,
    ClientEvent,
    SignIn,
    ComeBack,
    OperatorUnsubscribes,
    Inquire,
    ArriveOrDepart,
    Follow,
    Read,
    Report,
    Deliver,
    DeliverMany,
    EndTurn,
    Retry,
    Write,
    FallBehind,
    Compact,
    Turn,
    Wait,
    Reload,
    Rest,
}

const ACTIONS: [(Action, usize); 23] = [
    (Action::Connect, 12),
    (Action::Disconnect, 8),
    (Action::SendRequests, 24),
    (Action::Publish, 24),
    (Action::ClientEvent, 16),
    (Action::SignIn, 6),
    (Action::ComeBack, 4),
    (Action::OperatorUnsubscribes, 4),
    (Action::Inquire, 3),
    (Action::ArriveOrDepart, 12),
    (Action::Follow, 2),
    (Action::Read, 12),
    (Action::Report, 12),
    (Action::Deliver, 48),
    (Action::DeliverMany, 16),
    (Action::EndTurn, 16),
    (Action::Retry, 12),
    (Action::Write, 12),
    (Action::FallBehind, 4),
    (Action::Compact, 3),
    (Action::Turn, 12),
    (Action::Wait, 2),
    (Action::Rest, 1),
];

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// A cluster and its spies. The first bytes decide its size, its limits, and how often each action happens.
    #[expect(clippy::too_many_lines, reason = "each line is one choice")]
    pub fn new(mut choices: Choices<I>) -> Cluster<I> {
        let shards = choices.of(&[1, 2, 2, 3, 3, 4, 5, 8]);
        let seed = [1, 2, 3, choices.below(256) as u64];
        // Those that begin with h, g, k and cache- keep a history, and so do some of those with presence.
        let names = choices.of(&[
            ["a", "b:/2", "private-c", "d", "e@e", "private-f"],
            ["h:1", "b:/2", "private-h", "cache-d", "greets", "h:2"],
            ["presence-a", "b:/2", "counted:1", "presence-h", "h:1", "presence-cache-b"],
            ["latest:1", "keyed:1", "private-c", "keyed:2", "h:1", "presence-a"],
        ]);
        let names = &names[..1 + choices.below(names.len())];
        let subscriptions_max = names.len().max(2) - usize::from(choices.one_in(4));
        let limits = Limits {
            activity_timeout_s: 120,
            pusher_client_events: true,
            pusher_watchlist: true,
            server_ping: false,
            outbox_bytes_max: choices.of(match names[0] {
                // Messages are held back from half of it on.
                "latest:1" => &[700, 1500, 3000, 1 << 20],
                _ => &[700, 1 << 20, 1 << 20, 1 << 20],
            }),
            subscriptions_max,
            // Runs last longer than an allowance, and hardly any time passes.
            subscribes_per_second_max: 0,
            connections_per_address_max: Some(choices.of(&[1, 2, 4])),
            upgrades_per_address_max: choices.of(&[0, 0, 1]),
            history_bytes_max: choices.of(&[2000, 1 << 20, 1 << 20]),
            presence_members_max: choices.of(&[1, 2, 3, 100]),
            presence_grace_ms: choices.of(&[0, 1000, 3000]),
            subscription_count: true,
            client_events_per_second_max: 1 << 20,
            ..Limits::default()
        };
        let rules = rules(choices.of(&[2, 5, 1000]));
        let keys = vec![Key { id: "key".into(), secret: "secret".into() }];
        let capacities = choices.of(&[1, 2, 8, 1000]);
        let mut cluster = Cluster {
            shards: (0..shards)
                .map(|shard| Shard {
                    hub: hub(Identity { shard: shard as ShardId, shards, seed }, &keys, &limits, &rules),
                    outgoing: Outgoing::new(shards),
                    wires: Vec::new(),
                    generations: Vec::new(),
                    free: Vec::new(),
                    unsettled: 0,
                    counted: arrivals::CountedConnections::default(),
                    is_fenced: false,
                })
                .collect(),
            mesh: Mesh::new(shards, || 1 + choices.below(capacities)),
            history: History {
                forgets: limits.history_bytes_max.min(limits.outbox_bytes_max) < 1 << 20,
                ..History::default()
            },
            now_us: 0,
            rules,
            clients: Vec::new(),
            publications: Vec::new(),
            inquiries: Vec::new(),
            readers: Vec::new(),
            effects: Vec::new(),
            actions: Vec::new(),
            keys,
            limits,
            // Often the shard that sends most letters.
            slow: (choices.of(&[usize::from(JOURNAL), usize::from(JOURNAL), shards - 1]), choices.below(shards)),
            overtaking: 256,
            are_readers_eager: choices.one_in(2),
            now: 0,
            subscriptions_max,
            clients_max: choices.of(&[2, 4, 8, 16]),
            named: names.len(),
            window: choices.of(&[1, 2, 8, 32]),
            has_large_messages: choices.one_in(8),
            choices,
        };
        cluster.history.forgets |= cluster.has_large_messages;
        // Sometimes so small that events are dropped before a consumer has read them.
        let journal_bytes_max = cluster.choices.of(&[1000, 10_000, 1 << 20, 1 << 20]);
        cluster.shards[0].hub.observers.set_journal_bytes_max(journal_bytes_max);
        // Sometimes so small that changes are dropped before they are reported.
        let happenings_max = cluster.choices.of(&[3, 1 << 16, 1 << 16, 1 << 16]);
        cluster.shards.iter_mut().for_each(|shard| shard.hub.observers.set_happenings_max(happenings_max));
        for (action, weight) in ACTIONS {
            // In each run some actions happen often and some never.
            let weight = weight * cluster.choices.of(&[0, 1, 1, 2]);
            cluster.actions.extend(std::iter::repeat_n(action, weight));
        }
        cluster.actions.push(Action::Turn);
        // In few runs, because less is known of histories afterwards.
        if cluster.choices.one_in(8) {
            cluster.actions.extend([Action::Reload; 2]);
        }
        for name in names {
            cluster.add_channel(name);
        }
        if cluster.choices.one_in(2) {
            cluster.add_users();
        }
        cluster.place_spies();
        // The journal starts once per run. In many runs it starts first, so that any action can come in between.
        for _ in 0..cluster.choices.of(&[0, 1, 2, 3]) {
            cluster.follow_or_leave();
        }
        cluster
    }

    fn add_channel(&mut self, name: &str) {
        let hub = &self.shards[0].hub;
        let hash = hub.hash(Channel::of_legal(name));
        let spied_before = self.history.channels.iter().filter(|channel| channel.is_spied).count();
        let channel = ChannelHistory {
            name: name.into(),
            hash,
            owner: usize::from(hub.owner(hash)),
            needs_auth: name.starts_with("private-") || name.starts_with("presence-"),
            // A spy may not be refused.
            is_spied: spied_before < self.subscriptions_max
                && !name.starts_with("presence-")
                && !name.starts_with('#')
                && self.choices.one_in(2),
            rule: self.rules.rule(name),
            seen: HashSet::new(),
            order: Vec::new(),
        };
        self.history.channels.push(channel);
    }

    /// Connects a spy in each shard: a client that is subscribed to every spied channel from the start to the end.
    fn place_spies(&mut self) {
        for shard in 0..self.shards.len() {
            let spy = self.connect(shard);
            self.clients[spy].is_spy = true;
            for channel in 0..self.history.channels.len() {
                if self.history.channels[channel].is_spied {
                    // A long reply must have room.
                    self.write(shard, self.clients[spy].key.slot as usize);
                    self.subscribe(spy, channel, true);
                    self.rest();
                }
            }
        }
        self.rest();
    }

    /// One step of the run. Returns false after the last byte.
    pub fn step(&mut self) -> bool {
        let Some(byte) = self.choices.step() else { return false };
        let action = self.actions[usize::from(byte) % self.actions.len()];
        match action {
            Action::Connect => {
                if self.clients.iter().filter(|client| client.is_live).count() < self.shards.len() + self.clients_max {
                    let shard = self.choices.below(self.shards.len());
                    self.connect(shard);
                }
            }
            Action::Disconnect => {
                if let Some(client) = self.some_client() {
                    match self.choices.one_in(2) {
                        true => self.mute(client),
                        false => self.disconnect(client),
                    }
                }
            }
            Action::SendRequests => self.send_requests(),
            Action::Publish => self.publish(),
            Action::ClientEvent => self.send_client_event(),
            Action::SignIn => self.sign_in(),
            Action::ComeBack => self.come_back(),
            Action::OperatorUnsubscribes => self.operator_unsubscribes(),
            Action::Inquire => self.inquire(),
            Action::ArriveOrDepart => self.arrive_or_depart(),
            Action::Follow => self.follow_or_leave(),
            Action::Read => self.read_more(),
            Action::Report => {
                let shard = self.some_shard();
                self.report(shard);
            }
            Action::Deliver => self.deliver_one(),
            Action::DeliverMany => (0..self.choices.below(32)).for_each(|_| self.deliver_one()),
            Action::EndTurn => {
                let shard = self.some_shard();
                self.remove_departed(shard);
                self.on(shard, |hub, port| hub.end_turn(port));
            }
            Action::Retry => {
                let shard = self.some_shard();
                self.retry(shard);
            }
            Action::Write => {
                let shard = self.some_shard();
                self.write_something(shard);
            }
            Action::FallBehind => self.fall_behind(),
            Action::Compact => self.compact(),
            Action::Turn => self.turn(),
            Action::Wait => self.wait(),
            Action::Reload => self.reload(),
            Action::Rest => {
                self.rest();
                self.check_at_rest();
            }
        }
        self.end_muted();
        self.check_bounds();
        true
    }

    /// Ends the run. No message may be lost, and nothing may remain in the hubs.
    pub fn finish(&mut self) {
        if self.choices.one_in(2) {
            self.shut_down();
        }
        self.rest();
        self.check_at_rest();
        while let Some(client) = self.some_of(|client| client.is_live) {
            self.disconnect(client);
            for _ in 0..self.choices.below(4) {
                self.deliver_one();
            }
        }
        self.clear_arrivals();
        self.pass(40);
        self.check_no_members();
        self.finish_readers();
        for shard in &self.shards {
            assert_eq!(shard.hub.directory.occupied(), 0, "a channel without subscribers is kept");
            assert!(shard.hub.audiences.is_empty(), "an audience without members is kept");
            assert_eq!(shard.hub.pages().held_count(), 0, "a page is still referred to");
            let gauges = shard.hub.gauges();
            assert_eq!((gauges.subscriptions, gauges.channels), (0, 0));
        }
    }

    /// Number of messages published so far.
    pub fn published(&self) -> usize {
        self.history.messages.len()
    }

    // ---- connections

    fn connect(&mut self, shard: usize) -> usize {
        let Shard { hub, wires, generations, free, .. } = &mut self.shards[shard];
        let departed: Vec<usize> = (0..free.len()).filter(|&at| hub.has_departed(free[at])).collect();
        let slot = match departed[..] {
            [] => {
                wires.push(Wire::default());
                generations.push(0);
                wires.len() - 1
            }
            // A slab reuses the last freed slot; another order must work too.
            [first, ..] if self.choices.one_in(4) => free.swap_remove(first) as usize,
            [.., last] => free.remove(last) as usize,
        };
        let key = ConnKey { shard: shard as ShardId, slot: slot as Slot, generation: generations[slot] };
        let socket_id = hub.identities.socket_id(key);
        let number = self.clients.len();
        assert!(wires[slot].client.replace(number).is_none() && wires[slot].queue.is_empty());
        let channels = self.history.channels.len();
        self.clients.push(Client::new(number, key, socket_id.to_string(), channels));
        let dialect = self.some_dialect(number);
        self.on(shard, |hub, port| hub.connect(slot as Slot, dialect, None, port));
        let hub = &self.shards[shard].hub;
        assert!(hub.is_live(key) && hub.key_of(socket_id) == Some(key));
        number
    }

    /// About every second client speaks Pusher's dialect.
    fn some_dialect(&mut self, client: usize) -> Dialect {
        if self.choices.one_in(2) {
            return Dialect::Native;
        }
        let version = self.choices.of(&[Version::V4, Version::V5, Version::V6, Version::V7]);
        let client = &mut self.clients[client];
        client.pusher = Some(Translator::new(client.socket_id.clone(), version == Version::V6));
        Dialect::Pusher(version)
    }

    /// The client begins to end. Replies to its requests may still follow.
    fn mute(&mut self, client: usize) {
        let ConnKey { shard, slot, .. } = self.clients[client].key;
        self.clients[client].is_muted = true;
        self.on(usize::from(shard), |hub, port| hub.mute(slot, &CloseReason::BinaryMessage, port));
    }

    /// Disconnects the ending clients that have all their replies. Returns whether there were any.
    fn end_muted(&mut self) -> bool {
        let mut ended = false;
        for client in 0..self.clients.len() {
            let Client { is_live, is_muted, key, .. } = self.clients[client];
            if is_live && is_muted && self.shards[usize::from(key.shard)].hub.waiting_replies(key.slot) == 0 {
                assert!(self.clients[client].replies.is_empty(), "a reply is missing at the end");
                self.disconnect(client);
                ended = true;
            }
        }
        ended
    }

    fn remove_departed(&mut self, shard: usize) {
        let most = self.choices.of(&[1, 2, 100]);
        self.shards[shard].hub.set_departures_per_turn(most);
        self.on(shard, |hub, port| hub.remove_departed(port));
    }

    fn disconnect(&mut self, client: usize) {
        let ConnKey { shard, slot, .. } = self.clients[client].key;
        let shard = usize::from(shard);
        self.clients[client].is_live = false;
        self.on(shard, |hub, port| hub.disconnect(slot, &CloseReason::ClientGone, port));
        let Shard { hub, wires, generations, free, .. } = &mut self.shards[shard];
        let wire = &mut wires[slot as usize];
        while !wire.queue.is_empty() {
            wire.write(hub.pages_mut());
        }
        (wire.client, wire.is_lagging) = (None, false);
        generations[slot as usize] += 1;
        free.push(slot);
        assert!(!hub.is_live(self.clients[client].key));
    }

    // ---- requests

    /// A client sends a few messages at once.
    fn send_requests(&mut self) {
        let Some(client) = self.some_client() else { return };
        for _ in 0..=self.choices.below(5) {
            let ConnKey { shard, slot, .. } = self.clients[client].key;
            if !self.clients[client].is_live || self.shards[usize::from(shard)].hub.waiting_replies(slot) > 24 {
                return;
            }
            let channel = self.choices.below(self.named);
            match self.choices.below(12) {
                0..5 => {
                    let is_signed = !self.choices.one_in(3);
                    self.subscribe(client, channel, is_signed);
                }
                5..9 => self.unsubscribe(client, channel),
                9 => self.send_invalid(client),
                _ => self.ping(client),
            }
        }
    }

    fn subscribe(&mut self, client: usize, channel: usize, is_signed: bool) {
        let has_positions = !self.clients[client].is_spy && self.clients[client].pusher.is_none();
        let since = if has_positions { self.some_position(channel) } else { None };
        let since_text = since.map_or(String::new(), |Position { epoch, offset, earlier }| {
            let earlier = earlier
                .map_or(String::new(), |earlier| format!(r#","socket_id":"{}""#, self.clients[earlier].socket_id));
            format!(r#","since":{{"epoch":"{epoch:016x}","offset":{offset}{earlier}}}"#)
        });
        self.note_refusals(client);
        let ChannelHistory { name, needs_auth, rule, .. } = &self.history.channels[channel];
        let has_members = rule.presence == Presence::Members;
        // Without channel_data it is the user that has signed in.
        let signed_in = self.clients[client].user.filter(|_| has_members && self.choices.one_in(2));
        let user = signed_in.or_else(|| has_members.then(|| self.choices.below(4))).map(|user| format!("u{user}"));
        let channel_data = user.as_ref().filter(|_| signed_in.is_none());
        let channel_data = channel_data.map(|user| format!(r#"{{"user_id":"{user}","user_info":{}}}"#, client % 100));
        let asking = &mut self.clients[client];
        let (mut auth, refusal) = match (needs_auth, is_signed) {
            (false, _) => (String::new(), None),
            (true, true) => {
                let auth = auth::sign(&self.keys[0], &asking.socket_id, name, channel_data.as_deref());
                (format!(r#","auth":"{auth}""#), None)
            }
            (true, false) if self.choices.one_in(2) => (String::new(), Some("auth_required")),
            (true, false) => (format!(r#","auth":"key:{:064}""#, 7), Some("auth_invalid")),
        };
        if let Some(channel_data) = channel_data {
            auth += &format!(r#","channel_data":{}"#, serde_json::Value::from(channel_data));
        }
        let wanted = asking.wanted[..self.named].iter().filter(|&&wanted| wanted).count();
        let refusal = match refusal {
            _ if asking.wanted[channel] => Some("already_subscribed"),
            None if wanted >= self.subscriptions_max => Some("too_many_subscriptions"),
            refusal => refusal,
        };
        let text = format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{name}"{auth}{since_text}}}}}"#);
        if refusal.is_none() {
            asking.wanted[channel] = true;
            asking.changes[channel].push_back(Change::Subscribe { since, user, entry: None });
        }
        asking.replies.push_back(Reply {
            event: refusal.map_or("socket:subscribed", |_| "socket:subscribe.error"),
            channel: Some(name.clone()),
            detail: refusal.map(String::from),
        });
        if refusal.is_none() {
            self.enter_own(client, channel);
        }
        if self.send(client, &text) == Handled::Later {
            // It had no effect. This client does not try again.
            let asking = &mut self.clients[client];
            asking.replies.pop_back();
            if refusal.is_none() {
                asking.wanted[channel] = false;
                asking.changes[channel].pop_back();
            }
        }
    }

    /// A position that some client had, or one that the server has never told.
    fn some_position(&mut self, channel: usize) -> Option<Position> {
        let epoch = self.shards[0].hub.directory.epoch();
        match self.choices.below(7) {
            0 => None,
            1 => Some(Position { epoch: epoch ^ 1, offset: self.choices.below(9) as u64, earlier: None }),
            2 => Some(Position { epoch, offset: self.choices.below(300) as u64, earlier: None }),
            // The position of a recent message, as its publisher was told it.
            3 => {
                let recent = self.history.channels[channel].order.iter().rev().take(8);
                let offsets: Vec<u64> = recent.filter_map(|&number| self.history.messages[number].offset).collect();
                let offset = (!offsets.is_empty()).then(|| self.choices.of(&offsets))?;
                Some(Position { epoch, offset, earlier: None })
            }
            _ => {
                let known: Vec<Position> = self.clients.iter().filter_map(|client| client.positions[channel]).collect();
                let position = (!known.is_empty()).then(|| self.choices.of(&known))?;
                Some(Position { earlier: position.earlier.filter(|_| self.choices.one_in(2)), ..position })
            }
        }
    }

    /// The owner may have refused subscribes of the client, which is told later if it waits for other replies.
    fn note_refusals(&mut self, client: usize) {
        let Client { key, is_live, wanted, .. } = &mut self.clients[client];
        let hub = &mut self.shards[usize::from(key.shard)].hub;
        for (topic, wanted) in self.history.channels.iter().zip(wanted) {
            if topic.rule.presence == Presence::Members {
                *wanted &= *is_live && hub.audiences.wants(key.slot, topic.channel(), topic.hash);
            }
        }
    }

    fn unsubscribe(&mut self, client: usize, channel: usize) {
        self.note_refusals(client);
        let ChannelHistory { name, order, owner, .. } = &self.history.channels[channel];
        let asking = &mut self.clients[client];
        let refusal = (!asking.wanted[channel]).then_some("not_subscribed");
        let text = format!(r#"{{"event":"socket:unsubscribe","data":{{"channel":"{name}"}}}}"#);
        if refusal.is_none() {
            asking.wanted[channel] = false;
            let until = order.len();
            let end = (*owner == usize::from(asking.key.shard)).then_some(until);
            asking.changes[channel].push_back(Change::Unsubscribe { until, is_asked: true, end });
        }
        asking.replies.push_back(Reply {
            event: refusal.map_or("socket:unsubscribed", |_| "socket:unsubscribe.error"),
            channel: Some(name.clone()),
            detail: refusal.map(String::from),
        });
        self.send(client, &text);
    }

    fn ping(&mut self, client: usize) {
        let id = self.choices.of(&["1", r#""a""#, "-2.50e3"]);
        self.expect(client, "socket:pong", None, id);
        self.send(client, &format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#));
    }

    fn send_invalid(&mut self, client: usize) {
        match self.choices.below(7) {
            0 => {
                self.expect(client, "socket:error", None, "malformed_message");
                _ = self.send(client, "nonsense");
            }
            1 => {
                self.expect(client, "socket:error", None, "unknown_event");
                _ = self.send(client, r#"{"event":"order.paid","channel":"a","data":1}"#);
            }
            2 => {
                self.expect(client, "socket:error", None, "malformed_message");
                _ = self.send(client, r#"{"event":"socket:subscribe","data":{"auth":"a"}}"#);
            }
            3 => {
                self.expect(client, "socket:subscribe.error", Some("no name"), "invalid_channel");
                _ = self.send(client, r#"{"event":"socket:subscribe","data":{"channel":"no name"}}"#);
            }
            4 => {
                self.expect(client, "socket:unsubscribe.error", Some("no name"), "not_subscribed");
                _ = self.send(client, r#"{"event":"socket:unsubscribe","data":{"channel":"no name"}}"#);
            }
            5 => {
                self.expect(client, "socket:unsubscribe.error", Some("never"), "not_subscribed");
                _ = self.send(client, r#"{"event":"socket:unsubscribe","data":{"channel":"never"}}"#);
            }
            _ => _ = self.send(client, r#"{"event":"socket:pong"}"#),
        }
    }

    fn expect(&mut self, client: usize, event: &'static str, channel: Option<&str>, detail: &str) {
        self.clients[client].replies.push_back(Reply {
            event,
            channel: channel.map(String::from),
            detail: Some(detail.into()),
        });
    }

    fn send(&mut self, client: usize, text: &str) -> Handled {
        let asking = &mut self.clients[client];
        let ConnKey { shard, slot, .. } = asking.key;
        let requests = match &mut asking.pusher {
            None => vec![text.to_owned()],
            Some(pusher) => pusher.requests(text, asking.replies.back()),
        };
        let mut requests = requests.iter();
        let first = requests.next().expect("a request");
        let handled = self.on(usize::from(shard), |hub, port| hub.handle(slot, first, port));
        for text in requests {
            if !self.clients[client].is_live {
                // It was too slow.
                break;
            }
            let handled = self.on(usize::from(shard), |hub, port| hub.handle(slot, text, port));
            assert_eq!(handled, Handled::Other);
        }
        handled
    }

    // ---- publishers and operators

    fn publish(&mut self) {
        let shard = self.choices.below(self.shards.len());
        if self.shards[shard].is_fenced || self.shards[shard].unsettled >= self.window {
            return;
        }
        let channels: Vec<usize> =
            (0..self.choices.of(&[1, 1, 1, 2, 3])).map(|_| self.choices.below(self.history.channels.len())).collect();
        let exclude = if self.choices.one_in(3) { self.some_key() } else { None };
        self.publish_to(shard, &channels, exclude, None);
    }

    fn publish_to(&mut self, shard: usize, channels: &[usize], exclude: Option<ConnKey>, expected: Option<i64>) {
        let request = self.publications.len();
        let first = self.history.messages.len();
        let excluded = exclude.and_then(|key| self.clients.iter().position(|client| client.key == key));
        self.shards[shard].unsettled += 1;
        self.publications.push(Publication {
            messages: first..first + channels.len(),
            shard,
            parts_due: channels.len() as u32 * if exclude.is_some() { 2 } else { 1 },
            parts: 0,
            subscribers: 0,
            expected,
        });
        for &channel in channels {
            let data = self.some_data();
            // Two messages of one publish to the same channel are two publishes here.
            let dedupe = (expected.is_none() && self.choices.one_in(6)).then(|| self.choices.below(20) as u8);
            let key = self.choices.of(&[None, None, Some("a"), Some("b"), Some("c")]);
            let data = data.clone();
            self.history.messages.push(Message { channel, data, key, exclude: excluded, dedupe, ..Message::default() });
            self.mesh.unaccepted.push(0);
        }
        let asker = self.asker(shard, PUBLISHER, request);
        for (number, &channel) in (first..).zip(channels) {
            if self.history.channels[channel].owner == shard {
                self.history.sequence(number);
            }
            let name = self.history.channels[channel].name.clone();
            let data = self.history.messages[number].data.clone();
            let event = format!("m{number}");
            let channel = Channel::of_legal(&name);
            let key = self.history.messages[number].key;
            let message = message::Message { event: &event, data: data.as_deref(), key, ..message::Message::default() };
            let dedupe = self.history.messages[number].dedupe.map(|key| key.to_string());
            let submission = Submission { message, exclude, dedupe: dedupe.as_deref() };
            let settled = self.publish_now(shard, number, &submission, channel, asker);
            if settled.parts > 0 {
                self.settle(request, settled);
            }
        }
    }

    /// Publishes, and notes the offset before any client reads the message.
    fn publish_now(
        &mut self,
        shard: usize,
        number: usize,
        submission: &Submission<'_>,
        channel: Channel<'_>,
        asker: Asker,
    ) -> Settled {
        let Shard { hub, outgoing, wires, .. } = &mut self.shards[shard];
        let mut port =
            TestPort { shard: shard as ShardId, mesh: &mut self.mesh, outgoing, wires, effects: &mut self.effects };
        let settled = hub.publish(&[channel], submission, asker, &mut port);
        self.note_offset(number);
        self.absorb(shard);
        settled
    }

    /// Notes the offset that the owner has given to a message.
    fn note_offset(&mut self, number: usize) {
        let message = &mut self.history.messages[number];
        let topic = &self.history.channels[message.channel];
        if topic.rule.history.is_none() || message.place.is_none() || message.is_client_event {
            return;
        }
        let last = self.shards[topic.owner].hub.directory.last_offset();
        message.offset = Some(last);
    }

    fn settle(&mut self, request: usize, settled: Settled) {
        if let Some(placed) = settled.placed {
            self.check_placed(request, placed);
        }
        let publication = &mut self.publications[request];
        publication.parts += settled.parts;
        publication.subscribers += settled.subscribers;
        assert!(publication.parts <= publication.parts_due, "more parts are settled than the publish has");
        if publication.parts < publication.parts_due {
            return;
        }
        self.shards[publication.shard].unsettled -= 1;
        for number in publication.messages.clone() {
            let message = &self.history.messages[number];
            assert!(message.place.is_some() || message.is_repetition, "m{number} is settled and not sequenced");
            assert_eq!(self.mesh.unaccepted[number], 0, "m{number} is settled, and an inbox has not taken it");
        }
        if let Some(expected) = publication.expected {
            assert_eq!(publication.subscribers, expected, "the count is wrong");
        }
        let spied = publication
            .messages
            .clone()
            .filter(|&number| self.history.channels[self.history.messages[number].channel].is_spied);
        let has_repetitions = publication.messages.clone().any(|number| self.history.messages[number].dedupe.is_some());
        assert!(has_repetitions || publication.subscribers >= (spied.count() * self.shards.len()) as i64);
    }

    /// Checks what a publisher is told about the place of its message.
    fn check_placed(&self, request: usize, placed: Placed) {
        let messages = &self.history.messages[self.publications[request].messages.clone()];
        let is_of = |message: &Message| {
            let topic = &self.history.channels[message.channel];
            match placed.is_duplicate {
                false => message.offset == placed.offset.map(NonZeroU64::get) && message.place.is_some(),
                true => {
                    let is_first = |&&number: &&usize| self.history.messages[number].dedupe == message.dedupe;
                    let first = topic.order.iter().find(is_first).map(|&number| self.history.messages[number].offset);
                    message.is_repetition && first == Some(placed.offset.map(NonZeroU64::get))
                }
            }
        };
        assert!(messages.iter().any(is_of), "{placed:?} is not the place of a message of the publish");
        assert_eq!(placed.epoch, self.shards[0].hub.directory.epoch());
    }

    fn operator_unsubscribes(&mut self) {
        let shard = self.choices.below(self.shards.len());
        // The client may have ended.
        let client = self.choices.below(self.clients.len());
        // Pusher's clients are not told when they are unsubscribed.
        if self.clients[client].is_spy || self.clients[client].pusher.is_some() {
            return;
        }
        let channel = self.choices.below(self.named);
        let member = self.clients[client].key;
        let topic = &self.history.channels[channel];
        let request = Unsubscribe { socket_id: "".into(), channel: topic.name.as_str().into() }.into();
        let question = Question::OfConnection { request, member };
        self.ask(shard, usize::from(member.shard), About::Unsubscribe { client, channel }, None, question);
    }

    /// The member's shard is about to serve the request to unsubscribe it.
    fn consider(&mut self, inquiry: usize) {
        let About::Unsubscribe { client, channel } = self.inquiries[inquiry].about else {
            return;
        };
        self.note_refusals(client);
        let member = &mut self.clients[client];
        let is_subscribed = member.is_live && member.wanted[channel];
        if is_subscribed {
            member.wanted[channel] = false;
            let until = self.history.channels[channel].order.len();
            member.changes[channel].push_back(Change::Unsubscribe { until, is_asked: false, end: None });
        }
        let expected = if is_subscribed { Expected::Done } else { Expected::NotFound };
        self.inquiries[inquiry].expected = Some(expected);
    }

    fn inquire(&mut self) {
        let shard = self.choices.below(self.shards.len());
        let of = self.choices.below(self.shards.len());
        match self.choices.below(4) {
            0 => {
                let channel = self.choices.below(self.history.channels.len());
                self.ask_count(shard, channel, None);
            }
            1 => {
                let question = Question::Page { request: Channels::default().into(), limit: 2, after: 0 };
                self.ask(shard, of, About::Page, None, question);
            }
            2 => {
                let by = self.choices.of(&[By::Subscribers, By::Messages]);
                self.ask(shard, of, About::Busiest, None, Question::Busiest { by, limit: 2 });
            }
            _ => self.ask(shard, of, About::Stats, None, Question::Stats),
        }
    }

    fn ask_count(&mut self, shard: usize, channel: usize, expected: Option<u64>) {
        let topic = &self.history.channels[channel];
        let request = operation::Channel { channel: topic.name.as_str().into(), newest: false }.into();
        let question = Question::OfChannel { request, channel: topic.channel().into(), hash: topic.hash };
        let owner = topic.owner;
        self.ask(shard, owner, About::Count, expected.map(Expected::Count), question);
    }

    fn ask(&mut self, shard: usize, of: usize, about: About, expected: Option<Expected>, question: Question) {
        let number = self.inquiries.len();
        self.inquiries.push(Inquiry { about, expected, is_answered: false });
        if shard == of {
            self.consider(number);
        }
        let asker = self.asker(shard, OPERATOR, number);
        self.on(shard, |hub, port| hub.ask(of as ShardId, asker, question, port));
    }

    fn answered(&mut self, asker: Asker, answer: &Answer) {
        let inquiry = &mut self.inquiries[asker.request as usize];
        assert!(!std::mem::replace(&mut inquiry.is_answered, true), "answered twice");
        let is_right = match (&inquiry.about, &inquiry.expected, answer) {
            (About::Unsubscribe { .. }, Some(Expected::Done), Answer::Reply(Ok(api::Reply::Done {}))) => true,
            (About::Unsubscribe { .. }, Some(Expected::NotFound), Answer::Reply(Err(Refusal::NotFound(_)))) => true,
            (About::Count, None, Answer::Reply(Ok(api::Reply::Channel { .. }))) => true,
            (About::Count, Some(Expected::Count(expected)), Answer::Reply(Ok(api::Reply::Channel { count, .. }))) => {
                count.subscribers == *expected
            }
            (About::Page, None, Answer::Page { rows, .. }) => rows.len() <= 2,
            (About::Busiest, None, Answer::Busiest { .. }) => true,
            (About::Busiest, Some(Expected::Busiest(expected)), Answer::Busiest { channels, .. }) => {
                is_ranked(channels, expected)
            }
            (About::Stats, None, Answer::Reply(Ok(api::Reply::Done {}))) => true,
            _ => false,
        };
        assert!(is_right, "wrong answer: {answer:?}");
    }

    // ---- letters and effects

    /// Calls a hub, then processes its effects.
    fn on<R>(&mut self, shard: usize, act: impl FnOnce(&mut Hub, &mut TestPort<'_>) -> R) -> R {
        let Shard { hub, outgoing, wires, .. } = &mut self.shards[shard];
        let mut test_port =
            TestPort { shard: shard as ShardId, mesh: &mut self.mesh, outgoing, wires, effects: &mut self.effects };
        let result = act(hub, &mut test_port);
        self.absorb(shard);
        result
    }

    fn absorb(&mut self, shard: usize) {
        let mut closed = Vec::new();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Appended(slot, bytes) => {
                    let client = self.shards[shard].wires[slot as usize].client;
                    let client = client.expect("bytes for a slot without a client");
                    self.clients[client].read(&bytes, &self.history);
                }
                Effect::Settled(asker, settled) => self.settle(asker.request as usize, settled),
                Effect::Answered(asker, answer) if asker.session == READER => self.take_answer(asker, *answer),
                Effect::Answered(asker, answer) => self.answered(asker, &answer),
                Effect::Asked(asker, question) => {
                    let answer =
                        self.connections_asked(shard, &question).unwrap_or(Answer::Reply(Ok(api::Reply::Done {})));
                    self.on(shard, |hub, port| hub.answer_admin(asker, answer, port));
                }
                Effect::Admitted(arrival, verdict) => self.admitted(shard, arrival, verdict),
                Effect::HeldBack(slot, waiting) => self.held_back(shard, slot, waiting),
                Effect::Closed(slot) => closed.extend(self.shards[shard].wires[slot as usize].client),
            }
        }
        for client in closed {
            if self.clients[client].is_live {
                self.disconnect(client);
            }
        }
    }

    fn deliver_one(&mut self) {
        let to = self.some_shard();
        self.deliver_to(to);
    }

    /// Delivers a letter to this shard, unless there is none or it is to be overtaken.
    fn deliver_to(&mut self, to: usize) {
        let senders = self.mesh.senders(to);
        if senders.is_empty() {
            return;
        }
        let from = self.choices.of(&senders);
        if (from, to) != self.slow || self.choices.one_in(self.overtaking) {
            self.deliver(from, to);
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some(mail) = self.mesh.take(from, to) else { return };
        match &mail {
            Mail::Publish(publish) => {
                let number = super::model::message_of(&publish.payload).expect("a published message");
                self.history.sequence(number);
                let Shard { hub, outgoing, wires, .. } = &mut self.shards[to];
                let mut port = TestPort {
                    shard: to as ShardId,
                    mesh: &mut self.mesh,
                    outgoing,
                    wires,
                    effects: &mut self.effects,
                };
                hub.receive(mail, &mut port);
                self.note_offset(number);
                return self.absorb(to);
            }
            Mail::ClientEvent(event) => {
                let number = super::model::message_of(&event.payload).expect("a client event");
                self.history.sequence(number);
            }
            Mail::Ask(asker, _) if asker.session == OPERATOR => self.consider(asker.request as usize),
            Mail::Subscribe(change) => {
                if let Some((client, channel)) = self.concerned(change) {
                    self.enter(client, channel);
                }
            }
            Mail::Unsubscribe(change) if matches!(change.membership.cause, Cause::Client { .. }) => {
                if let Some((client, channel)) = self.concerned(change) {
                    self.clients[client].leaves(channel, self.history.channels[channel].order.len());
                }
            }
            _ => {}
        }
        self.on(to, |hub, port| hub.receive(mail, port));
    }

    /// The client that a letter to an owner is about, if it is connected, and the channel.
    fn concerned(&self, change: &mail::Change) -> Option<(usize, usize)> {
        let is_of = |client: &Client| client.is_live && client.key == change.membership.member;
        let client = self.clients.iter().position(is_of)?;
        let channels = &self.history.channels;
        Some((client, channels.iter().position(|topic| topic.channel() == change.channel.as_channel())?))
    }

    /// A client subscribes to a channel, which its own shard decides at once if it is the owner.
    fn enter_own(&mut self, client: usize, channel: usize) {
        if self.history.channels[channel].owner == usize::from(self.clients[client].key.shard) {
            self.enter(client, channel);
        }
    }

    /// The owner of a channel is about to decide about a subscribe of a client.
    fn enter(&mut self, client: usize, channel: usize) {
        let topic = &self.history.channels[channel];
        let (_, members) = self.shards[topic.owner].hub.directory.members(topic.channel(), topic.hash);
        let is_new = |user: &str| members.iter().all(|member| *member.user_id != *user);
        // Users in their grace make room.
        let surplus = (members.len() + 1).saturating_sub(self.limits.presence_members_max);
        let leaving = members.iter().filter(|member| member.connections == 0).count();
        let is_full = self.clients[client].enters_as(channel).is_some_and(is_new) && leaving < surplus;
        self.clients[client].enters(channel, Entry { at: topic.order.len(), is_full });
    }

    fn retry(&mut self, shard: usize) {
        let outgoing = &mut self.shards[shard].outgoing;
        outgoing.retry(&mut self.mesh.inboxes(shard as ShardId));
    }

    fn write(&mut self, shard: usize, slot: usize) {
        self.write_some(shard, slot, usize::MAX);
    }

    pub(super) fn write_some(&mut self, shard: usize, slot: usize, chunks: usize) {
        let Shard { hub, wires, .. } = &mut self.shards[shard];
        let wire = &mut wires[slot];
        (0..chunks.min(wire.queue.len())).for_each(|_| wire.write(hub.pages_mut()));
        if wire.queue.is_empty() {
            self.catch_up(shard, slot);
        }
    }

    /// Copies the chunks of slow connections out of pages of which they keep too much alive.
    fn compact(&mut self) {
        let shard = self.some_shard();
        let Shard { hub, wires, .. } = &mut self.shards[shard];
        for (chunk, _) in wires.iter_mut().flat_map(|wire| &mut wire.queue) {
            if hub.pages().pins_too_much(*chunk) {
                let copy = hub.pages_mut().copy(*chunk);
                hub.pages_mut().release(chunk.page);
                *chunk = copy;
            }
        }
    }

    /// Time passes, so that kept messages become too old.
    fn wait(&mut self) {
        self.history.forgets = true;
        self.now_us += self.choices.below(20) as u64 * 1_000_000;
        for shard in &mut self.shards {
            shard.hub.begin_turn(self.now_us);
        }
    }

    /// Runs a whole turn of one shard.
    fn turn(&mut self) {
        let shard = self.some_shard();
        self.retry(shard);
        for _ in 0..8 {
            self.deliver_to(shard);
        }
        let entries = 1 + self.choices.below(8);
        self.on(shard, |hub, port| hub.survey(entries, port));
        self.remove_departed(shard);
        self.on(shard, |hub, port| hub.end_turn(port));
        self.report(shard);
        for slot in 0..self.shards[shard].wires.len() {
            self.write(shard, slot);
        }
    }

    /// Delivers letters, in random order, until none is under way.
    fn rest(&mut self) {
        loop {
            for shard in 0..self.shards.len() {
                while self.shards[shard].hub.is_surveying() {
                    self.on(shard, |hub, port| hub.survey(3, port));
                }
                while self.shards[shard].hub.has_departures() {
                    self.remove_departed(shard);
                }
            }
            let receivers: Vec<usize> =
                (0..self.shards.len()).filter(|&to| !self.mesh.senders(to).is_empty()).collect();
            if receivers.is_empty() {
                if self.shards.iter().all(|shard| shard.outgoing.waiting() == 0) {
                    if self.end_muted() {
                        continue;
                    }
                    break;
                }
                let waiting =
                    |cluster: &Self| cluster.shards.iter().map(|shard| shard.outgoing.waiting()).sum::<usize>();
                let before = waiting(self);
                (0..self.shards.len()).for_each(|shard| self.retry(shard));
                let moved = (0..self.shards.len()).any(|to| !self.mesh.senders(to).is_empty());
                assert!(moved || waiting(self) < before, "a letter is never delivered");
                continue;
            }
            let to = self.choices.of(&receivers);
            let senders = self.mesh.senders(to);
            let from = self.choices.of(&senders);
            self.deliver(from, to);
            if self.choices.one_in(8) {
                let shard = self.choices.below(self.shards.len());
                self.retry(shard);
            }
        }
        for shard in 0..self.shards.len() {
            self.on(shard, |hub, port| hub.end_turn(port));
        }
    }

    /// Shuts down: publishers stop and the fences pass, while clients connect, send requests and leave as before.
    fn shut_down(&mut self) {
        // The fences wait for the slow letters too.
        self.overtaking = 8;
        let mut unfenced: Vec<usize> = (0..self.shards.len()).collect();
        // Whether a fenced shard still reads its clients. If not, every request must be answered at the end.
        let reads_on = self.choices.one_in(2);
        let mut rounds = 0;
        while !self.shards.iter().all(|shard| shard.hub.is_fenced()) {
            rounds += 1;
            assert!(rounds < 1_000_000, "the fences never arrive");
            match self.choices.below(16) {
                0 if !unfenced.is_empty() => {
                    let at = self.choices.below(unfenced.len());
                    let shard = unfenced.swap_remove(at);
                    self.shards[shard].is_fenced = true;
                    self.on(shard, |hub, port| hub.fence(port));
                }
                1 => self.publish(),
                2 => {
                    let shard = self.some_shard();
                    self.on(shard, |hub, port| hub.end_turn(port));
                }
                3 => self.operator_unsubscribes(),
                6 => self.arrive_or_depart(),
                4 if reads_on || unfenced.len() == self.shards.len() => self.send_requests(),
                5 => {
                    let shard = self.choices.below(self.shards.len());
                    self.retry(shard);
                }
                _ => self.deliver_one(),
            }
        }
        for shard in 0..self.shards.len() {
            self.on(shard, |hub, port| hub.end_turn(port));
        }
        assert!(self.history.messages.iter().all(|message| message.place.is_some() || message.is_repetition));
        self.catch_up_all();
        (0..self.clients.len()).for_each(|client| self.note_refusals(client));
        for client in self.clients.iter().filter(|client| client.is_live) {
            assert!(reads_on || client.replies.is_empty(), "the fence overtook an answer");
            if client.replies.is_empty() && !client.is_muted {
                client.check_complete(&self.history);
            }
        }
    }

    // ---- checks

    /// Checks the cluster when nothing is under way: all requests answered, all messages received, all counts exact.
    fn check_at_rest(&mut self) {
        self.catch_up_all();
        (0..self.clients.len()).for_each(|client| self.note_refusals(client));
        for client in self.clients.iter().filter(|client| client.is_live) {
            assert!(client.is_answered(), "a request was never answered");
            client.check_complete(&self.history);
        }
        for publication in &self.publications {
            assert_eq!(publication.parts, publication.parts_due, "a publish never settled");
        }
        self.check_arrivals();
        assert!(self.inquiries.iter().all(|inquiry| inquiry.is_answered), "an answer is missing");
        let sequenced: u64 = self.shards.iter().map(|shard| shard.hub.counters.publishes).sum();
        let repeated: u64 = self.shards.iter().map(|shard| shard.hub.counters.publishes_repeated).sum();
        let repetitions = self.history.messages.iter().filter(|message| message.is_repetition).count() as u64;
        let published = self.history.messages.iter().filter(|message| !message.is_client_event).count() as u64;
        assert_eq!((sequenced + repeated, repeated), (published, repetitions));
        self.check_presence();
        for client in self.clients.iter().filter(|client| client.is_live) {
            self.check_member(client);
        }
        for shard in 0..self.shards.len() {
            let hub = &self.shards[shard].hub;
            hub.audiences.check();
            assert_eq!(hub.audiences.held_back(), 0);
            assert!(hub.own_mail.is_empty());
        }
        for channel in 0..self.history.channels.len() {
            self.check_counts(channel);
        }
        self.check_pages();
        self.check_readers();
        self.check_busiest();
    }

    /// Publishes, and asks for the count of subscribers, which is known at rest.
    fn check_counts(&mut self, channel: usize) {
        let is_member = |client: &&Client| client.is_live && client.wanted[channel];
        let members = self.clients.iter().filter(is_member).count();
        let shard = self.choices.below(self.shards.len());
        self.ask_count(shard, channel, Some(members as u64));
        if !self.shards[shard].is_fenced {
            let exclude = if self.choices.one_in(2) { self.some_key() } else { None };
            let is_excluded = |client: &Client| Some(client.key) == exclude && client.is_live && client.wanted[channel];
            let excluded = self.clients.iter().any(is_excluded);
            let expected = members as i64 - i64::from(excluded);
            self.publish_to(shard, &[channel], exclude, Some(expected));
        }
        self.rest();
        let asked = self.inquiries.last().is_none_or(|inquiry| inquiry.is_answered);
        let settled = self.publications.last().is_none_or(|last| last.parts == last.parts_due);
        assert!(asked && settled);
        self.catch_up_all();
        for client in self.clients.iter().filter(|client| client.is_live) {
            client.check_complete(&self.history);
        }
    }

    /// The shards must list exactly the channels with subscribers.
    fn check_pages(&self) {
        let mut listed = Vec::new();
        for shard in &self.shards {
            let mut after = Some(0);
            while let Some(from) = after {
                let (page, next) = shard.hub.directory.page("", 2, from);
                listed.extend(page.iter().map(|row| (row.channel.as_channel().as_str().to_owned(), row.subscribers)));
                after = next;
            }
        }
        let count = |channel: usize| {
            let members = self.clients.iter().filter(|client| client.is_live && client.wanted[channel]);
            members.count() as u64
        };
        let channels = self.history.channels[..self.named].iter().enumerate();
        let mut occupied: Vec<_> = channels
            .map(|(channel, topic)| (topic.name.clone(), count(channel)))
            .filter(|&(_, count)| count > 0)
            .collect();
        listed.sort();
        occupied.sort();
        assert_eq!(listed, occupied);
    }

    /// Each shard must rank the channels that it owns by their subscribers.
    fn check_busiest(&mut self) {
        let asking = self.choices.below(self.shards.len());
        for of in 0..self.shards.len() {
            let occupied = |(channel, topic): (usize, &ChannelHistory)| {
                let members = self.clients.iter().filter(|client| client.is_live && client.wanted[channel]).count();
                // A spy was subscribed before the first message, so all have been counted.
                let is_counted = topic.is_spied || topic.rule.history.is_some() && !self.history.forgets;
                let is_published = |number: &&usize| !self.history.messages[**number].is_client_event;
                let messages = is_counted.then(|| topic.order.iter().filter(is_published).count() as u64);
                (topic.owner == of && members > 0).then(|| (topic.name.clone(), members as u64, messages))
            };
            let expected = self.history.channels[..self.named].iter().enumerate().filter_map(occupied).collect();
            let question = Question::Busiest { by: By::Subscribers, limit: 1000 };
            self.ask(asking, of, About::Busiest, Some(Expected::Busiest(expected)), question);
        }
        self.rest();
        assert!(self.inquiries.iter().all(|inquiry| inquiry.is_answered), "a survey has no answer");
    }

    /// At rest a client has exactly the subscriptions that it wants.
    fn check_member(&self, client: &Client) {
        let ConnKey { shard, slot, .. } = client.key;
        let hub = &self.shards[usize::from(shard)].hub;
        let channels = self.history.channels[..self.named].iter().zip(&client.wanted);
        let mut wanted: Vec<&str> =
            channels.filter(|(_, wanted)| **wanted).map(|(channel, _)| &*channel.name).collect();
        let mut live: Vec<&str> = hub.channels_of(slot).map(|name| name.as_channel().as_str()).collect();
        wanted.sort_unstable();
        live.sort_unstable();
        assert_eq!(live, wanted);
        assert_eq!((hub.waiting_replies(slot), hub.awaits(slot)), (0, false));
        let (subscriptions, pending) = hub.audiences.subscriptions_of(slot);
        assert_eq!(
            (subscriptions, pending),
            (wanted.len() + usize::from(client.user.is_some()), 0),
            "an ended subscription or an acknowledged change is kept"
        );
    }

    /// The letters that wait are limited by the publishers' windows.
    fn check_bounds(&mut self) {
        let unsettled: usize = self.shards.iter().map(|shard| shard.unsettled).sum();
        let bound = unsettled * CHANNELS_MAX * self.shards.len() + self.client_events_max();
        assert!(self.mesh.unaccepted_total <= bound, "{} letters wait", self.mesh.unaccepted_total);
        let shard = self.choices.below(self.shards.len());
        self.shards[shard].hub.audiences.check();
    }

    // ---- choices

    /// A random shard; the first ones more often than the last.
    fn some_shard(&mut self) -> usize {
        let first = self.choices.below(self.shards.len());
        let bound = if self.choices.one_in(2) { first + 1 } else { self.shards.len() };
        self.choices.below(bound)
    }

    fn some_client(&mut self) -> Option<usize> {
        self.some_of(|client| client.is_live && !client.is_muted && !client.is_spy)
    }

    fn some_of(&mut self, is_meant: impl Fn(&Client) -> bool) -> Option<usize> {
        let meant: Vec<usize> = (0..self.clients.len()).filter(|&client| is_meant(&self.clients[client])).collect();
        (!meant.is_empty()).then(|| self.choices.of(&meant))
    }

    /// The key of a client that is not a spy, connected or not; or a key that was never assigned.
    fn some_key(&mut self) -> Option<ConnKey> {
        match self.choices.below(8) {
            0 => Some(ConnKey {
                shard: self.choices.below(self.shards.len()) as ShardId,
                slot: self.choices.of(&[0, 1, 100_000]),
                generation: 1 << 29,
            }),
            1..3 => self.some_of(|client| !client.is_spy).map(|client| self.clients[client].key),
            _ => self.some_client().map(|client| self.clients[client].key),
        }
    }

    fn some_data(&mut self) -> Option<String> {
        let len = match self.choices.below(8) {
            0 => return None,
            1 => 100 + self.choices.below(400),
            2 if self.has_large_messages => 1000 + self.choices.below(70_000),
            _ => return Some("1".into()),
        };
        Some(format!("\"{}\"", "x".repeat(len)))
    }

    fn asker(&self, shard: usize, session: u32, request: usize) -> Asker {
        Asker { shard: shard as ShardId, session, generation: 0, request: request as u64 }
    }
}

/// Whether these are the expected channels, the busiest first.
fn is_ranked(channels: &Best<BusyChannel>, expected: &[(String, u64, Option<u64>)]) -> bool {
    let ranked: Vec<BusyChannel> = channels.clone().ranked(|busy| busy.channel.as_channel().as_str()).collect();
    let is_as_expected = |busy: &BusyChannel| {
        let is_meant = |(name, ..): &&(String, u64, Option<u64>)| *name == busy.channel.as_channel().as_str();
        expected.iter().find(is_meant).is_some_and(|&(_, subscribers, messages)| {
            busy.subscribers == subscribers && messages.is_none_or(|messages| busy.messages == messages)
        })
    };
    ranked.len() == expected.len()
        && ranked.iter().all(is_as_expected)
        && ranked.is_sorted_by(|a, b| a.subscribers >= b.subscribers)
}

fn hub(identity: Identity, keys: &[Key], limits: &Limits, rules: &Arc<Rules>) -> Hub {
    let mut hub = Hub::new(identity, keys, limits.clone());
    hub.set_rules(rules);
    hub
}

/// Rules by which some channels keep up to this many messages.
fn rules(history: usize) -> Arc<Rules> {
    let rule =
        |pattern, more| format!("[[channel]]\nmatch = \"{pattern}\"\nhistory = {history}\nhistory-ttl = 60\n{more}\n");
    let text = [
        rule("h:*", ""),
        rule("private-h", "on-subscribe = \"last\"\nclient-events = \"members\""),
        rule("greets", "on-subscribe = \"all\""),
        rule("presence-h", "client-events = \"members\""),
        "[[channel]]\nmatch = \"counted:*\"\npresence = \"count\"\n".into(),
        rule("keyed:*", "slow = \"latest-by-key\""),
        "[[channel]]\nmatch = \"latest:*\"\nslow = \"latest\"\n".into(),
        "[[channel]]\nmatch = \"private-c\"\nclient-events = \"members\"\n".into(),
        "[[channel]]\nmatch = \"presence-a\"\nclient-events = \"members\"\n".into(),
    ];
    Arc::new(Rules::parse(&text.concat()))
}

const PUBLISHER: u32 = 0;
const OPERATOR: u32 = 1;
const READER: u32 = 2;
const CHANNELS_MAX: usize = 3;
