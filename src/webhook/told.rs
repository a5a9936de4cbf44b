//! What the stream has sent so far, and what a piece of it adds: events that the URLs are told. Pure.
//!
//! Events change sets: adding a known member does nothing, and neither does removing an unknown one. A snapshot replaces the
//! sets, and the difference is told.

use super::client_event;
use super::event::{Event, Member, Subject};
use crate::admin::link::Sent;
use crate::api::Reply;
use crate::api::operation::{ALSO, Events};
use crate::api::value::written;
use crate::hub::observe::piece::Piece;
use crate::hub::observe::reports::Happening;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::CloseReason;
use crate::protocol::socket_id::SocketId;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// The channels in use, their members and the connections.
#[derive(Default)]
pub struct Known {
    tracked: Tracked,
    /// Each with the tick in which it became known.
    subjects: HashMap<Subject, u32>,
    /// Seconds, as [`Known::tick`] counts them.
    ticks: u32,
    /// A snapshot that has begun: its entries so far.
    snapshot: Option<HashSet<Subject>>,
    /// The last event that was applied.
    position: Option<Position>,
}

struct Position {
    /// The run of the server.
    epoch: u64,
    number: u64,
}

/// The kinds of events that are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    events: Vec<&'static str>,
}

impl Tracked {
    /// These.
    pub fn of(events: &[&'static str]) -> Tracked {
        Tracked { events: events.to_vec() }
    }

    fn tells(&self, event: &str) -> bool {
        self.events.contains(&event)
    }

    /// An event that is not a change in a body; empty where this kind is not told.
    fn text_of_extra(&self, what: &Happening) -> Arc<str> {
        match what {
            Happening::ClientEvent(event) if self.tells("client_event") => client_event::text(event).into(),
            Happening::CacheMiss { channel } => {
                self.text(&Told { name: "cache_miss", channel: channel.as_channel().as_str(), ..Told::default() })
            }
            Happening::SubscriptionCount { channel, subscribers } => self.text(&Told {
                name: "subscription_count",
                channel: channel.as_channel().as_str(),
                subscription_count: Some(*subscribers),
                ..Told::default()
            }),
            _ => "".into(),
        }
    }

    /// The event in a body; empty where this kind is not told.
    fn text(&self, told: &Told<'_>) -> Arc<str> {
        if !self.tells(told.name) {
            return "".into();
        }
        serde_json::to_string(told).expect("texts and numbers are JSON").into()
    }

    /// What the stream is asked for beside changes.
    fn extras(&self) -> Vec<Box<str>> {
        ALSO.into_iter().filter(|event| self.tells(event)).map(Box::from).collect()
    }

    /// Whether an event of this kind is told, so that all subjects of the kind have to be known.
    fn follows(&self, kind: &Kind) -> bool {
        kind.iter().any(|event| self.tells(event))
    }
}

impl Known {
    /// Tells these kinds from now on. Returns whether that needs another stream.
    pub fn track(&mut self, tracked: Tracked) -> bool {
        let old = std::mem::replace(&mut self.tracked, tracked);
        let tracked = &self.tracked;
        self.subjects.retain(|subject, _| tracked.follows(kind(subject)));
        self.subjects.shrink_to_fit();
        let needs_snapshot = KINDS.iter().any(|kind| tracked.follows(kind) && !old.follows(kind));
        if needs_snapshot || !KINDS.iter().any(|kind| tracked.follows(kind)) {
            self.position = None;
        }
        needs_snapshot || tracked.extras() != old.extras()
    }

    /// What the next stream is asked for: to continue where the last one ended, or to begin with a snapshot. A stream that
    /// ended within a snapshot left it incomplete, so another is needed.
    pub fn request(&mut self) -> Events {
        if self.snapshot.take().is_some() {
            self.position = None;
        }
        let position = self.position.as_ref();
        Events {
            since: position.map(|position| position.number),
            epoch: position.map(|position| format!("{:016x}", position.epoch).into()),
            also: self.tracked.extras(),
        }
    }

    /// A second has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
    }

    /// What a new URL is told: all that is known.
    pub fn each(&self, tell: impl FnMut(Event)) {
        self.subjects().map(|(subject, _)| self.event(subject)).for_each(tell);
    }

    /// All that is known, and whether it has lasted: longer than an empty channel is kept. Channels come before their members.
    pub fn subjects(&self) -> impl Iterator<Item = (Subject, bool)> {
        let of_kind = |meant: &'static Kind| self.subjects.iter().filter(move |(subject, _)| kind(subject) == meant);
        let is_lasting = |since: u32| self.ticks - since > LASTING_TICKS;
        KINDS.iter().flat_map(of_kind).map(move |(subject, since)| (subject.clone(), is_lasting(*since)))
    }

    /// Whether this is known.
    pub fn has(&self, subject: &Subject) -> bool {
        self.subjects.contains_key(subject)
    }

    /// The event that tells what holds of it. Why a connection ended is not known.
    pub fn event(&self, subject: Subject) -> Event {
        let is_there = self.has(&subject);
        let mut told = Told::of(&subject, is_there);
        told.reason = (told.name == DISCONNECTED).then_some("unknown");
        let text = self.tracked.text(&told);
        Event { subject: Some(subject), is_there, text }
    }

    /// Takes an output of the stream, and tells what it adds. The error says why the stream is of no more use.
    pub fn take(&mut self, sent: Sent, mut tell: impl FnMut(Event)) -> Result<(), String> {
        match sent {
            Sent::Reply(Ok(Reply::Following { epoch, number })) => {
                // A stream that continues begins behind our position; a snapshot has its own number.
                let known = self.position.as_ref().filter(|position| position.epoch == epoch);
                self.position = Some(Position { epoch, number: known.map_or(number, |position| position.number) });
                Ok(())
            }
            Sent::Reply(Ok(reply)) => Err(format!("the reply is not that of a stream: {reply:?}")),
            Sent::Reply(Err(refusal)) => Err(refusal.text().into_owned()),
            Sent::Piece(piece) => self.apply(piece, &mut tell),
        }
    }

    fn apply(&mut self, piece: Piece, tell: &mut impl FnMut(Event)) -> Result<(), String> {
        let position = self.position.as_mut().ok_or("the stream has no position")?;
        match piece {
            Piece::Snapshot { number } => (position.number, self.snapshot) = (number, Some(HashSet::new())),
            Piece::Channels { channels, .. } => {
                for count in channels {
                    self.happened(&Happening::Occupied { channel: count.channel }, None, tell);
                }
            }
            Piece::Members { members, .. } => {
                for (channel, user_id) in members {
                    self.happened(&Happening::MemberAdded { channel, user_id }, None, tell);
                }
            }
            Piece::Connections { connections, .. } => {
                for connection in connections {
                    let (socket_id, address) = (connection.socket_id, connection.address);
                    self.happened(&Happening::Connected { socket_id, address }, None, tell);
                }
            }
            Piece::SnapshotEnd { .. } => self.reconcile(tell),
            Piece::Events { events } => {
                for event in &events {
                    self.advance(event.number)?;
                    self.happened(&event.what, Some(event.time_ms), tell);
                }
            }
            Piece::FellBehind { missing } => return Err(format!("{missing} unread events were discarded")),
            Piece::Seen { .. } => {}
        }
        Ok(())
    }

    /// The next event has this number. Numbers have gaps where events lie that were not asked for.
    fn advance(&mut self, number: u64) -> Result<(), String> {
        let known = self.position.as_ref().map(|position| position.number);
        match &mut self.position {
            Some(position) if number > position.number => position.number = number,
            _ => {
                self.position = None;
                return Err(format!("event {number} came after {known:?}"));
            }
        }
        Ok(())
    }

    fn happened(&mut self, what: &Happening, time_ms: Option<u64>, tell: &mut impl FnMut(Event)) {
        let Some((subject, is_there)) = subject(what) else {
            return tell(Event::once(self.tracked.text_of_extra(what)));
        };
        if !self.tracked.follows(kind(&subject)) {
            return;
        }
        if let Happening::MemberAdded { channel, .. } = what {
            // A snapshot may have been asked for its channels before this one was occupied, and for its members after.
            self.happened(&Happening::Occupied { channel: channel.clone() }, time_ms, tell);
        }
        if is_there && let Some(snapshot) = &mut self.snapshot {
            snapshot.insert(subject.clone());
        }
        let is_new = match is_there {
            true => self.add(&subject),
            false => self.subjects.remove(&subject).is_some(),
        };
        if !is_new {
            return;
        }
        let mut told = Told::of(&subject, is_there);
        match what {
            Happening::Connected { address, .. } => (told.address, told.time_ms) = (*address, time_ms),
            Happening::Disconnected { kind, code, .. } => {
                told.reason = CloseReason::LABELS.get(usize::from(*kind)).copied();
                (told.code, told.time_ms) = (*code, time_ms);
            }
            _ => {}
        }
        let text = self.tracked.text(&told);
        tell(Event { subject: Some(subject), is_there, text });
    }

    /// Returns whether it is new.
    fn add(&mut self, subject: &Subject) -> bool {
        let is_new = !self.subjects.contains_key(subject);
        if is_new {
            self.subjects.insert(subject.clone(), self.ticks);
        }
        is_new
    }

    /// The snapshot is complete: what is not in it has gone. Members go before their channels.
    fn reconcile(&mut self, tell: &mut impl FnMut(Event)) {
        let Some(snapshot) = self.snapshot.take() else { return };
        let mut gone: Vec<Subject> =
            self.subjects.extract_if(|subject, _| !snapshot.contains(subject)).map(|(subject, _)| subject).collect();
        gone.sort_by_key(|subject| [&MEMBERS, &CHANNELS, &CONNECTIONS].iter().position(|of| *of == kind(subject)));
        gone.into_iter().for_each(|subject| tell(self.event(subject)));
    }
}

/// The subject of a change, and whether it is there from now on; `None`: it is not a change.
fn subject(what: &Happening) -> Option<(Subject, bool)> {
    let member = |channel: &ChannelName, user_id: &Arc<str>| {
        Subject::Member(Arc::new(Member { channel: channel.shared(), user_id: user_id.clone() }))
    };
    Some(match what {
        Happening::Occupied { channel } => (Subject::Channel(channel.shared()), true),
        Happening::Vacated { channel } => (Subject::Channel(channel.shared()), false),
        Happening::MemberAdded { channel, user_id } => (member(channel, user_id), true),
        Happening::MemberRemoved { channel, user_id } => (member(channel, user_id), false),
        Happening::Connected { socket_id, .. } => (Subject::Connection(*socket_id), true),
        Happening::Disconnected { socket_id, .. } => (Subject::Connection(*socket_id), false),
        Happening::ClientEvent(_) | Happening::CacheMiss { .. } | Happening::SubscriptionCount { .. } => return None,
    })
}

/// An event in a body. Those of channels and members are what Pusher sends, which has no time.
#[derive(Default, Serialize)]
struct Told<'a> {
    name: &'static str,
    /// Pusher's library for PHP fails on an event without it.
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<SocketId>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "address")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<u64>,
}

impl<'a> Told<'a> {
    /// What is told of the beginning or the end of anything of its kind.
    fn of(subject: &'a Subject, is_there: bool) -> Told<'a> {
        let told = Told { name: kind(subject)[usize::from(!is_there)], ..Told::default() };
        match subject {
            Subject::Channel(channel) => Told { channel, ..told },
            Subject::Member(member) => Told { channel: &member.channel, user_id: Some(&member.user_id), ..told },
            Subject::Connection(id) => Told { socket_id: Some(*id), ..told },
        }
    }
}

fn address<S: serde::Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.map(written).serialize(serializer)
}

fn kind(subject: &Subject) -> &'static Kind {
    match subject {
        Subject::Channel(_) => &CHANNELS,
        Subject::Member(_) => &MEMBERS,
        Subject::Connection(_) => &CONNECTIONS,
    }
}

/// The events of one kind of subjects: of its beginning, and of its end. To tell either, all of the kind have to be known.
pub type Kind = [&'static str; 2];
/// Bytes of a known channel, member or connection, beside its texts.
pub const SUBJECT_BYTES: usize = size_of::<(Subject, u32)>();
/// Bytes of a member's texts, which are shared, beside their characters: their counts, and what holds both.
pub const MEMBER_BYTES: usize = size_of::<Member>() + 6 * size_of::<usize>();
/// Longer than the 3 s for which an empty channel counts as occupied: churn is never as old.
const LASTING_TICKS: u32 = 4;
/// Of channels.
pub const CHANNELS: Kind = ["channel_occupied", "channel_vacated"];
/// Of members of presence channels.
pub const MEMBERS: Kind = ["member_added", "member_removed"];
/// Of connections.
pub const CONNECTIONS: Kind = ["connected", DISCONNECTED];
static KINDS: [Kind; 3] = [CHANNELS, MEMBERS, CONNECTIONS];
const DISCONNECTED: &str = "disconnected";

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::ConnectionInfo;
    use crate::api::operation::ChannelCount;
    use crate::config::WEBHOOK_EVENTS;
    use crate::hub::observe::reports;
    use crate::protocol::channel::{Channel, ChannelName};

    const EPOCH: u64 = 0x9f3c_0000_0000_0000;

    fn channel(name: &str) -> ChannelName {
        Channel::parse(name).expect("a legal name").into()
    }

    fn id(low: u64) -> SocketId {
        SocketId { high: 0, low }
    }

    fn sent(event: Event) -> Option<String> {
        Some(event.text.to_string()).filter(|text| !text.is_empty())
    }

    /// The reply that a stream begins with.
    pub fn following(number: u64) -> Sent {
        Sent::Reply(Ok(Reply::Following { epoch: EPOCH, number }))
    }

    /// One event.
    pub fn event(number: u64, time_ms: u64, what: Happening) -> Sent {
        Sent::Piece(Piece::Events { events: [reports::Event { number, time_ms, shard: 0, what }].into() })
    }

    /// A channel has its first subscriber.
    pub fn occupied(number: u64, name: &str) -> Sent {
        event(number, 1, Happening::Occupied { channel: channel(name) })
    }

    fn vacated(number: u64, name: &str) -> Sent {
        event(number, 1, Happening::Vacated { channel: channel(name) })
    }

    fn added(number: u64, user_id: &str) -> Sent {
        let channel = channel("room-a");
        event(number, 1, Happening::MemberAdded { channel, user_id: user_id.into() })
    }

    fn removed(number: u64, user_id: &str) -> Sent {
        let channel = channel("room-a");
        event(number, 1, Happening::MemberRemoved { channel, user_id: user_id.into() })
    }

    fn connected(number: u64, time_ms: u64, socket_id: SocketId, address: &str) -> Sent {
        event(number, time_ms, Happening::Connected { socket_id, address: address.parse().ok() })
    }

    /// The pieces of a snapshot: its channels, and connections with their addresses.
    fn snapshot(number: u64, channels: &[&str], connections: &[(SocketId, &str)]) -> Vec<Sent> {
        let count = |name: &&str| ChannelCount { channel: channel(name), subscribers: 1, users: None };
        let info = |(socket_id, address): &(SocketId, &str)| ConnectionInfo {
            socket_id: *socket_id,
            address: address.parse().ok(),
            dialect: "native",
            shard: 0,
            age_s: 0,
            subscriptions: 0,
            outbox_bytes: 0,
        };
        let (channels, connections) = (channels.iter().map(count).collect(), connections.iter().map(info).collect());
        let pieces = [
            Piece::Snapshot { number },
            Piece::Channels { number, channels },
            Piece::Connections { number, connections },
            Piece::SnapshotEnd { number, channels: 0, members: 0, connections: 0 },
        ];
        pieces.into_iter().map(Sent::Piece).collect()
    }

    fn known(events: &[&'static str]) -> Known {
        let mut known = Known::default();
        assert!(known.track(Tracked::of(events)));
        known
    }

    /// Takes what a stream sends after a request, all of which is accepted. Returns what is told.
    #[track_caller]
    pub fn apply(known: &mut Known, pieces: impl IntoIterator<Item = Sent>) -> Vec<String> {
        let mut told = Vec::new();
        for piece in pieces {
            assert_eq!(known.take(piece, |event| told.extend(sent(event))), Ok(()));
        }
        told
    }

    fn open(known: &mut Known, pieces: impl IntoIterator<Item = Sent>) -> Vec<String> {
        known.request();
        apply(known, [following(41)].into_iter().chain(pieces))
    }

    fn told_occupied(channel: &str) -> String {
        format!(r#"{{"name":"channel_occupied","channel":"{channel}"}}"#)
    }

    fn told_vacated(channel: &str) -> String {
        format!(r#"{{"name":"channel_vacated","channel":"{channel}"}}"#)
    }

    const FROM_A_SNAPSHOT: Events = Events { since: None, epoch: None, also: Vec::new() };

    #[test]
    fn events_are_told_as_pusher_tells_them() {
        let mut known = known(&["channel_occupied", "channel_vacated"]);
        assert_eq!(known.request(), FROM_A_SNAPSHOT);
        let pieces = [following(41)].into_iter().chain(snapshot(41, &[], &[])).chain([
            occupied(42, "user:13"),
            connected(43, 1, id(1), "192.0.2.7:80"),
            vacated(44, "user:13"),
        ]);
        assert_eq!(apply(&mut known, pieces), [told_occupied("user:13"), told_vacated("user:13")]);
    }

    #[test]
    fn members_are_told_as_pusher_tells_them() {
        let mut known = known(&["member_added", "member_removed"]);
        let told = open(
            &mut known,
            [occupied(42, "a"), added(43, "11"), added(44, "12\""), added(45, "11"), removed(46, "11")],
        );
        let expected = [
            r#"{"name":"member_added","channel":"room-a","user_id":"11"}"#,
            r#"{"name":"member_added","channel":"room-a","user_id":"12\""}"#,
            r#"{"name":"member_removed","channel":"room-a","user_id":"11"}"#,
        ];
        assert_eq!(told, expected);
        // The difference to a snapshot.
        let members = |users: &[&str]| users.iter().map(|user| (channel("room-a"), (*user).into())).collect();
        let mut pieces = snapshot(90, &["a"], &[]);
        pieces.insert(2, Sent::Piece(Piece::Members { number: 90, members: members(&["11"]) }));
        let expected = [
            r#"{"name":"member_added","channel":"room-a","user_id":"11"}"#,
            r#"{"name":"member_removed","channel":"room-a","user_id":"12\""}"#,
        ];
        assert_eq!(open(&mut known, pieces), expected);
    }

    #[test]
    fn members_come_after_their_channel_and_go_before_it() {
        let mut known = known(&WEBHOOK_EVENTS);
        open(
            &mut known,
            (42..52).flat_map(|n| [added(2 * n - 42, &n.to_string()), occupied(2 * n - 41, &n.to_string())]),
        );
        let names = |texts: Vec<String>| -> Vec<usize> {
            let of_channel = |text: &String| text.contains(r#""channel_"#);
            let is_mixed = texts.windows(2).filter(|pair| of_channel(&pair[0]) != of_channel(&pair[1])).count();
            vec![texts.iter().take_while(|text| of_channel(text)).count(), is_mixed]
        };
        let mut told = Vec::new();
        known.each(|event| told.extend(sent(event)));
        assert_eq!(names(told), [11, 1], "channels, then members");
        assert_eq!(names(open(&mut known, snapshot(90, &[], &[]))), [0, 1], "members, then channels");
    }

    #[test]
    fn a_channel_that_became_occupied_within_a_snapshot_comes_before_its_members() {
        let mut known = known(&["channel_occupied", "channel_vacated", "member_added"]);
        let mut pieces = snapshot(41, &["b"], &[]);
        pieces.insert(2, Sent::Piece(Piece::Members { number: 41, members: vec![(channel("room-a"), "11".into())] }));
        pieces.extend([occupied(42, "room-a"), added(43, "11")]);
        let member = r#"{"name":"member_added","channel":"room-a","user_id":"11"}"#.to_owned();
        assert_eq!(open(&mut known, pieces), [told_occupied("b"), told_occupied("room-a"), member]);
    }

    #[test]
    fn connections_are_told_with_their_members() {
        let mut known = known(&["connected", "disconnected"]);
        let [early, late] = [id(1), id(2)];
        let slow = Happening::Disconnected { socket_id: late, kind: 8, code: Some(4100) };
        let unknown = Happening::Disconnected { socket_id: id(3), kind: 0, code: None };
        let pieces = snapshot(41, &["c"], &[(early, "[::1]:5")]).into_iter().chain([
            connected(42, 7, late, "1.2.3.4:5"),
            event(43, 8, slow),
            event(44, 9, unknown),
        ]);
        assert_eq!(
            open(&mut known, pieces),
            [
                format!(r#"{{"name":"connected","channel":"","socket_id":"{early}","address":"[::1]:5"}}"#),
                format!(
                    r#"{{"name":"connected","channel":"","socket_id":"{late}","address":"1.2.3.4:5","time_ms":7}}"#
                ),
                format!(
                    r#"{{"name":"disconnected","channel":"","socket_id":"{late}","reason":"slow_consumer","code":4100,"time_ms":8}}"#
                ),
            ]
        );
    }

    #[test]
    fn a_stream_that_breaks_off_continues_where_it_ended() {
        let mut known = known(&["channel_occupied", "channel_vacated"]);
        assert_eq!(open(&mut known, [occupied(42, "a")]), [told_occupied("a")]);
        let behind = Sent::Piece(Piece::FellBehind { missing: 3 });
        assert_eq!(known.take(behind, |_| panic!()), Err("3 unread events were discarded".into()));
        assert_eq!(
            known.request(),
            Events { since: Some(42), epoch: Some("9f3c000000000000".into()), also: Vec::new() }
        );
        assert_eq!(apply(&mut known, [following(42), occupied(43, "b")]), [told_occupied("b")]);
    }

    #[test]
    fn the_difference_to_a_snapshot_is_told() {
        let mut known = known(&WEBHOOK_EVENTS);
        open(&mut known, [occupied(42, "stays"), occupied(43, "goes"), connected(44, 1, id(7), "")]);
        let gone = format!(r#"{{"name":"disconnected","channel":"","socket_id":"{}","reason":"unknown"}}"#, id(7));
        let expected = [told_occupied("comes"), told_vacated("goes"), gone];
        assert_eq!(open(&mut known, snapshot(90, &["stays", "comes"], &[])), expected);
        // Once more: nothing differs.
        assert_eq!(open(&mut known, snapshot(90, &["stays", "comes"], &[])), [""; 0]);
        assert_eq!(apply(&mut known, [vacated(91, "comes")]), [told_vacated("comes")]);
    }

    #[test]
    fn a_snapshot_that_breaks_off_removes_nothing() {
        let mut known = known(&["channel_occupied", "channel_vacated"]);
        open(&mut known, [occupied(42, "a")]);
        assert_eq!(open(&mut known, [Sent::Piece(Piece::Snapshot { number: 50 })]), [""; 0]);
        assert_eq!(known.request(), FROM_A_SNAPSHOT, "no event brings the rest of it");
        assert_eq!(open(&mut known, snapshot(51, &["a"], &[])), [""; 0]);
    }

    #[test]
    fn numbers_grow_and_otherwise_a_snapshot_is_asked_for() {
        let mut known = known(&["channel_occupied"]);
        let told = open(&mut known, [connected(42, 1, id(1), ""), occupied(45, "a")]);
        assert_eq!(told, [told_occupied("a")], "what lies between was not asked for");
        assert_eq!(known.take(occupied(45, "b"), |_| panic!()), Err("event 45 came after Some(45)".into()));
        assert_eq!(known.request(), FROM_A_SNAPSHOT);
    }

    #[test]
    fn what_happens_once_is_asked_for_and_told_each_time() {
        let all = ["channel_occupied", "cache_miss", "subscription_count", "client_event"];
        let mut known = known(&all);
        let also = ["client_event", "cache_miss", "subscription_count"].map(Box::from).to_vec();
        assert_eq!(known.request(), Events { also, ..FROM_A_SNAPSHOT });
        let miss = |number| event(number, 1, Happening::CacheMiss { channel: channel("cache-a") });
        let count = Happening::SubscriptionCount { channel: channel("a"), subscribers: 3 };
        let pieces = [following(41), miss(42), miss(43), event(44, 1, count)];
        let missed = r#"{"name":"cache_miss","channel":"cache-a"}"#;
        let counted = r#"{"name":"subscription_count","channel":"a","subscription_count":3}"#;
        assert_eq!(apply(&mut known, pieces), [missed, missed, counted]);
        // Another stream is needed, which continues.
        assert!(known.track(Tracked::of(&["channel_occupied", "cache_miss"])));
        assert_eq!(known.request().since, Some(44));
        assert!(!known.track(Tracked::of(&["cache_miss", "channel_occupied"])));
        assert!(known.track(Tracked::of(&["channel_occupied"])));
        assert_eq!(known.request().also, []);
    }

    #[test]
    fn replies_that_begin_no_stream_are_errors() {
        use crate::api::Refusal;
        let mut known = known(&["connected"]);
        known.request();
        for piece in [
            Sent::Reply(Err(Refusal::TooMany { what: "consumers of events", limit: 64 })),
            Sent::Reply(Ok(Reply::Done {})),
            occupied(42, "a"),
        ] {
            assert!(known.take(piece, |_| panic!()).is_err());
        }
    }

    #[test]
    fn a_new_url_is_told_what_is_known() {
        let mut known = known(&["channel_occupied", "disconnected"]);
        open(&mut known, [occupied(42, "a"), connected(43, 1, id(1), "")]);
        let mut told = Vec::new();
        known.each(|event| told.extend(sent(event)));
        assert_eq!(told, [told_occupied("a")]);
        assert!(!known.track(Tracked::of(&["channel_vacated", "connected"])), "both are followed already");
        assert!(!known.track(Tracked::of(&["channel_vacated"])));
        assert!(known.track(Tracked::of(&["channel_vacated", "connected"])), "connections were not");
        assert_eq!(known.request(), FROM_A_SNAPSHOT);
    }
}
