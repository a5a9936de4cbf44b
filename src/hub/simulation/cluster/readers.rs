//! Consumers of events. A consumer that applies the snapshot and the events must have the state of the cluster.

use super::{Cluster, READER};
use crate::api::{ConnectionInfo, Request, Rows};
use crate::hub::mail::{Answer, Question};
use crate::hub::observe::extras::Extras;
use crate::hub::observe::follower::{Follower, Update};
use crate::hub::observe::journal::JOURNAL;
use crate::hub::observe::piece::Piece;
use crate::hub::observe::reports::Happening;
use crate::ids::{Asker, ShardId, Slot};
use crate::protocol::channel::ChannelName;
use std::collections::{BTreeMap, BTreeSet};

/// One consumer, and the state that it has built.
pub struct Reader {
    asker: Asker,
    follower: Follower,
    extras: Extras,
    epoch: Option<u64>,
    /// Number of the last event.
    number: u64,
    is_gone: bool,
    channels: BTreeSet<String>,
    /// Channel and user id of each.
    members: BTreeSet<String>,
    connections: BTreeSet<String>,
    /// By channel and connection: whether the last event says that it exists.
    last_events: BTreeMap<String, bool>,
}

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// Adds a consumer, which resumes from the state of an earlier one or starts anew; or removes one.
    pub(super) fn follow_or_leave(&mut self) {
        let open: Vec<usize> = self.open_readers().collect();
        if open.len() >= READERS_MAX || !open.is_empty() && self.choices.one_in(3) {
            let reader = self.choices.of(&open);
            self.readers[reader].is_gone = true;
            let asker = self.readers[reader].asker;
            self.on(usize::from(asker.shard), |hub, port| hub.ask(JOURNAL, asker, Question::Unfollow, port));
            return;
        }
        // A consumer whose snapshot was incomplete cannot be resumed.
        let resumable: Vec<usize> = (0..self.readers.len())
            .filter(|&reader| self.readers[reader].is_gone && self.readers[reader].follower.is_live())
            .collect();
        let earlier =
            if resumable.is_empty() || self.choices.one_in(3) { None } else { Some(self.choices.of(&resumable)) };
        let shard = self.choices.below(self.shards.len());
        let asker = self.asker(shard, READER, self.readers.len());
        let (mut number, mut epoch) = (0, None);
        let (mut channels, mut members, mut connections) = Default::default();
        if let Some(earlier) = earlier {
            let earlier = &self.readers[earlier];
            (number, epoch) = (earlier.number, earlier.epoch);
            (channels, members) = (earlier.channels.clone(), earlier.members.clone());
            connections = earlier.connections.clone();
        }
        // Every other consumer asks for all events.
        let asks = self.readers.len().is_multiple_of(2);
        let extras = Extras { client_events: asks, cache_misses: asks, subscription_counts: asks };
        let follower = Follower::new(self.shards.len());
        let question = Question::Follow { since: earlier.map(|_| number), epoch, extras, is_own: false };
        let last_events = BTreeMap::new();
        let is_gone = false;
        let reader =
            Reader { asker, follower, extras, epoch, number, is_gone, channels, members, connections, last_events };
        self.readers.push(reader);
        self.on(shard, |hub, port| hub.ask(JOURNAL, asker, question, port));
    }

    /// Lets a consumer ask its next question.
    pub(super) fn read_more(&mut self) {
        let open: Vec<usize> = self.open_readers().collect();
        if !open.is_empty() {
            let reader = self.choices.of(&open);
            self.ask_on(reader);
        }
    }

    fn ask_on(&mut self, reader: usize) -> bool {
        let asker = self.readers[reader].asker;
        let Some((of, question)) = self.readers[reader].follower.ask() else { return false };
        self.on(usize::from(asker.shard), |hub, port| hub.ask(of, asker, question, port));
        true
    }

    /// Reports at the end of a turn, some ticks after the previous one.
    pub(super) fn report(&mut self, shard: usize) {
        let passed = self.choices.of(&[0, 0, 1, 10, 40]);
        self.shards[shard].hub.now += passed;
        self.on(shard, |hub, port| hub.tell_presence(port));
        self.on(shard, |hub, port| hub.report(|| 0, port));
    }

    /// Takes an answer for a consumer, which may be gone.
    pub(super) fn take_answer(&mut self, asker: Asker, answer: Answer) {
        let reader = &mut self.readers[asker.request as usize];
        if reader.is_gone {
            return;
        }
        let Update { begins, pieces } = reader.follower.take_answer(answer);
        if let Some((epoch, number)) = begins {
            assert!(reader.epoch.is_none_or(|known| known == epoch), "the epoch changed within one run");
            let is_snapshot = matches!(pieces[..], [Piece::Snapshot { .. }]);
            assert!(number >= reader.number && (is_snapshot || number == reader.number));
            (reader.epoch, reader.number) = (Some(epoch), number);
        }
        pieces.into_iter().for_each(|piece| reader.take(piece));
        // A later consumer may resume from its state.
        reader.is_gone = reader.follower.is_over();
        if self.are_readers_eager {
            self.ask_on(asker.request as usize);
        }
    }

    /// A page of the shard's connections, if the question asks for it.
    pub(super) fn connections_asked(&self, shard: usize, question: &Question) -> Option<Answer> {
        let Question::Page { request: Request::Connections(_), after, .. } = *question else { return None };
        let wires = &self.shards[shard].wires;
        let mut connections = Vec::new();
        let is_open = |slot: &usize| wires[*slot].client.is_some_and(|client| !self.clients[client].is_muted);
        let mut slots = (after as usize..wires.len()).filter(is_open);
        for slot in slots.by_ref().take(PAGE) {
            connections.push(ConnectionInfo {
                socket_id: self.shards[shard].hub.socket_id(slot as Slot),
                address: None,
                dialect: "native",
                shard: shard as ShardId,
                age_s: 0,
                subscriptions: 0,
                outbox_bytes: 0,
            });
        }
        Some(Answer::Page { rows: Rows::Connections(connections), next: slots.next().map(|slot| slot as u32) })
    }

    /// At rest, once everything is reported and read, every consumer has the open connections and the occupied channels.
    pub(super) fn check_readers(&mut self) {
        if self.open_readers().next().is_none() {
            return;
        }
        self.read_all();
        let mut occupied = BTreeSet::new();
        for shard in &self.shards {
            let (page, next) = shard.hub.directory.page_occupied(usize::MAX, 0);
            assert!(next.is_none());
            occupied.extend(page.iter().map(|row| row.channel.as_channel().as_str().to_owned()));
        }
        let mut members = BTreeSet::new();
        for shard in &self.shards {
            let mut after = Some(0);
            while let Some(from) = after {
                let (page, next) = shard.hub.directory.page_of_members(2, from);
                members.extend(page.iter().map(|(channel, user_id)| member(channel, user_id)));
                after = next;
            }
        }
        let live = self.clients.iter().filter(|client| client.is_live);
        let live: BTreeSet<String> = live.map(|client| client.socket_id.clone()).collect();
        let subscribed: BTreeSet<String> = (self.history.channels[..self.named].iter().enumerate())
            .filter(|(channel, _)| self.clients.iter().any(|client| client.is_live && client.wanted[*channel]))
            .map(|(_, channel)| channel.name.clone())
            .collect();
        assert!(occupied.is_superset(&subscribed), "a channel with subscribers is not listed");
        for reader in self.open_readers().map(|reader| &self.readers[reader]) {
            // The last events may be some that it has not asked for.
            let asks_for_all = reader.extras != Extras::default();
            let number = self.shards[0].hub.observers.journal.number();
            assert!(reader.number == number || !asks_for_all, "an event has not reached the consumer");
            assert_eq!(reader.channels, occupied);
            assert_eq!(reader.connections, live);
            // After the fence, users that leave are not reported.
            assert!(reader.members == members || self.shards.iter().any(|shard| shard.is_fenced));
        }
        // Let the time pass after which members are removed and vacant channels are reported.
        for _ in 0..2 {
            self.pass(40);
            self.read_all();
        }
        for reader in self.open_readers().map(|reader| &self.readers[reader]) {
            assert_eq!(reader.channels, subscribed, "a vacated channel was not reported");
        }
    }

    /// All clients have disconnected: every consumer receives the remaining events, then the end.
    pub(super) fn finish_readers(&mut self) {
        let open: Vec<usize> = self.open_readers().collect();
        for shard in 0..self.shards.len() {
            self.on(shard, |hub, port| hub.report_last(|| 0, port));
        }
        self.read_all();
        for reader in open {
            let Reader { is_gone, follower, connections, .. } = &self.readers[reader];
            assert!(*is_gone && follower.is_over(), "a consumer has not ended");
            // A consumer that fell behind has ended before.
            let was_served = self.readers[reader].number == self.shards[0].hub.observers.journal.number();
            assert!(!was_served || connections.is_empty(), "a disconnect was not reported");
        }
        assert_eq!(self.shards[0].hub.observers.journal.followers(), 0);
    }

    /// Reports and reads until no event is left.
    fn read_all(&mut self) {
        loop {
            self.rest();
            for shard in 0..self.shards.len() {
                self.on(shard, |hub, port| hub.report(|| 0, port));
            }
            for reader in self.open_readers().collect::<Vec<_>>() {
                self.ask_on(reader);
            }
            self.rest();
            let is_reported = self.shards.iter().all(|shard| shard.hub.observers.waiting_reports() == 0);
            if is_reported && !self.open_readers().any(|reader| self.readers[reader].follower.is_ready()) {
                return;
            }
        }
    }

    fn open_readers(&self) -> impl Iterator<Item = usize> {
        (0..self.readers.len()).filter(|&reader| !self.readers[reader].is_gone)
    }
}

impl Reader {
    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Snapshot { .. } => {
                self.channels.clear();
                self.members.clear();
                self.connections.clear();
            }
            Piece::Channels { channels, .. } => {
                self.channels.extend(channels.iter().map(|count| count.channel.as_channel().as_str().to_owned()));
            }
            Piece::Members { members, .. } => {
                self.members.extend(members.iter().map(|(channel, user_id)| member(channel, user_id)));
            }
            Piece::Connections { connections, .. } => {
                self.connections.extend(connections.iter().map(|connection| connection.socket_id.to_string()));
            }
            Piece::Events { events } => {
                assert!(!events.is_empty());
                for event in &events {
                    // Only events that were not asked for are left out.
                    let is_next = event.number == self.number + 1;
                    let may_miss = self.extras == Extras::default() && event.number > self.number;
                    assert!(is_next || may_miss, "{event:?} came after {}", self.number);
                    self.number = event.number;
                    self.apply(&event.what);
                }
            }
            Piece::SnapshotEnd { .. } | Piece::FellBehind { .. } => {}
            Piece::Seen { .. } => panic!("{piece:?} is not an event"),
        }
    }

    fn apply(&mut self, what: &Happening) {
        assert!(what.is_for(self.extras), "{what:?} was not asked for");
        let (known, name, exists) = match what {
            Happening::Occupied { channel } => (&mut self.channels, channel.as_channel().as_str().to_owned(), true),
            Happening::Vacated { channel } => (&mut self.channels, channel.as_channel().as_str().to_owned(), false),
            Happening::MemberAdded { channel, user_id } => (&mut self.members, member(channel, user_id), true),
            Happening::MemberRemoved { channel, user_id } => (&mut self.members, member(channel, user_id), false),
            Happening::Connected { socket_id, .. } => (&mut self.connections, socket_id.to_string(), true),
            Happening::Disconnected { socket_id, .. } => (&mut self.connections, socket_id.to_string(), false),
            Happening::ClientEvent(_) | Happening::CacheMiss { .. } | Happening::SubscriptionCount { .. } => return,
        };
        assert_ne!(self.last_events.insert(name.clone(), exists), Some(exists), "reported twice: {what:?}");
        match exists {
            true => known.insert(name),
            false => known.remove(&name),
        };
    }
}

fn member(channel: &ChannelName, user_id: &str) -> String {
    format!("{} {user_id}", channel.as_channel().as_str())
}

const READERS_MAX: usize = 3;
/// Most connections of one page.
const PAGE: usize = 2;
