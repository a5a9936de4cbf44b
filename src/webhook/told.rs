//! What the stream has sent so far, and what a piece of it adds: events that the URLs are told. Pure.
//!
//! Events change sets: adding a known member does nothing, and neither does removing an unknown one. A snapshot replaces the
//! sets, and the difference is told.

use super::event::{Event, Subject};
use crate::admin::link::Sent;
use crate::admin::session::codec::Piece;
use crate::api::Reply;
use crate::api::operation::Events;
use crate::api::value::written;
use crate::hub::observe::reports::Happening;
use crate::protocol::close::CloseReason;
use crate::protocol::socket_id::SocketId;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

/// The channels in use and the connections, each with the tick in which it became known.
#[derive(Default)]
pub struct Known {
    tracked: Tracked,
    channels: HashMap<Arc<str>, u32>,
    connections: HashMap<SocketId, u32>,
    /// Seconds, as [`Known::tick`] counts them.
    ticks: u32,
    /// A snapshot that has begun: its entries so far.
    snapshot: Option<Snapshot>,
    /// The last event that was applied.
    position: Option<Position>,
}

#[derive(Default)]
struct Snapshot {
    channels: HashSet<Arc<str>>,
    connections: HashSet<SocketId>,
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

    /// The event in a body; empty where this kind is not told.
    fn text(&self, told: &Told<'_>) -> Arc<str> {
        if !self.tells(told.name) {
            return "".into();
        }
        serde_json::to_string(told).expect("texts and numbers are JSON").into()
    }

    fn follows_channels(&self) -> bool {
        CHANNELS.iter().any(|event| self.tells(event))
    }

    fn follows_connections(&self) -> bool {
        CONNECTIONS.iter().any(|event| self.tells(event))
    }
}

impl Known {
    /// Tells these kinds from now on. Returns whether that needs a snapshot.
    pub fn track(&mut self, tracked: Tracked) -> bool {
        let old = std::mem::replace(&mut self.tracked, tracked);
        let (channels, connections) = (self.tracked.follows_channels(), self.tracked.follows_connections());
        if !channels {
            self.channels = HashMap::new();
        }
        if !connections {
            self.connections = HashMap::new();
        }
        let needs_snapshot = channels && !old.follows_channels() || connections && !old.follows_connections();
        if needs_snapshot || !channels && !connections {
            self.position = None;
        }
        needs_snapshot
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

    /// All that is known, and whether it has lasted: longer than an empty channel is kept.
    pub fn subjects(&self) -> impl Iterator<Item = (Subject, bool)> {
        let is_lasting = |since: &u32| self.ticks - since > LASTING_TICKS;
        let channels =
            self.channels.iter().map(move |(name, since)| (Subject::Channel(name.clone()), is_lasting(since)));
        let connections = self.connections.iter().map(move |(id, since)| (Subject::Connection(*id), is_lasting(since)));
        channels.chain(connections)
    }

    /// Whether this is known.
    pub fn has(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Channel(name) => self.channels.contains_key(name),
            Subject::Connection(id) => self.connections.contains_key(id),
        }
    }

    /// The event that tells what holds of it. Why a connection ended is not known.
    pub fn event(&self, subject: Subject) -> Event {
        let is_there = self.has(&subject);
        let told = match &subject {
            Subject::Channel(name) => Told::channel(if is_there { OCCUPIED } else { VACATED }, name),
            Subject::Connection(id) if is_there => Told::connection(CONNECTED, *id),
            Subject::Connection(id) => Told { reason: Some("unknown"), ..Told::connection(DISCONNECTED, *id) },
        };
        let text = self.tracked.text(&told);
        Event { subject, is_there, text }
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
            Piece::Snapshot { number } => (position.number, self.snapshot) = (number, Some(Snapshot::default())),
            Piece::Channels { channels, .. } => {
                for count in channels {
                    self.happened(&Happening::Occupied { channel: count.channel }, None, tell);
                }
            }
            Piece::Connections { connections, .. } => {
                for connection in connections {
                    let (socket_id, address) = (connection.socket_id, connection.address);
                    self.happened(&Happening::Connected { socket_id, address }, None, tell);
                }
            }
            Piece::SnapshotEnd { .. } => self.reconcile(tell),
            Piece::Events { number, events } => {
                if number != position.number + 1 {
                    let expected = position.number + 1;
                    self.position = None;
                    return Err(format!("{number} came where {expected} was next"));
                }
                position.number += events.len() as u64;
                for event in &events {
                    self.happened(&event.what, Some(event.time_ms), tell);
                }
            }
            Piece::FellBehind { missing } => return Err(format!("{missing} unread events are no longer kept")),
            Piece::Seen { .. } => {}
        }
        Ok(())
    }

    fn happened(&mut self, what: &Happening, time_ms: Option<u64>, tell: &mut impl FnMut(Event)) {
        let Known { tracked, channels, connections, ticks, snapshot, .. } = self;
        let (is_new, subject, told) = match what {
            Happening::Occupied { channel } if tracked.follows_channels() => {
                let text = channel.as_channel().as_str();
                let name = channels.get_key_value(text).map_or_else(|| text.into(), |(name, _)| name.clone());
                snapshot.iter_mut().for_each(|snapshot| _ = snapshot.channels.insert(name.clone()));
                let is_new = add(channels, name.clone(), *ticks);
                (is_new, Subject::Channel(name), Told::channel(OCCUPIED, text))
            }
            Happening::Vacated { channel } if tracked.follows_channels() => {
                let text = channel.as_channel().as_str();
                let Some((name, _)) = channels.remove_entry(text) else { return };
                (true, Subject::Channel(name), Told::channel(VACATED, text))
            }
            Happening::Connected { socket_id, address } if tracked.follows_connections() => {
                snapshot.iter_mut().for_each(|snapshot| _ = snapshot.connections.insert(*socket_id));
                let told = Told { address: *address, time_ms, ..Told::connection(CONNECTED, *socket_id) };
                (add(connections, *socket_id, *ticks), Subject::Connection(*socket_id), told)
            }
            Happening::Disconnected { socket_id, kind, code } if tracked.follows_connections() => {
                let reason = CloseReason::LABELS.get(usize::from(*kind)).copied();
                let told = Told { reason, code: *code, time_ms, ..Told::connection(DISCONNECTED, *socket_id) };
                (connections.remove(socket_id).is_some(), Subject::Connection(*socket_id), told)
            }
            _ => return,
        };
        if is_new {
            let is_there = matches!(told.name, OCCUPIED | CONNECTED);
            tell(Event { subject, is_there, text: tracked.text(&told) });
        }
    }

    /// The snapshot is complete: what is not in it has gone.
    fn reconcile(&mut self, tell: &mut impl FnMut(Event)) {
        let Some(snapshot) = self.snapshot.take() else { return };
        let mut gone = Vec::new();
        self.channels.retain(|name, _| {
            let stays = snapshot.channels.contains(name);
            gone.extend((!stays).then(|| Subject::Channel(name.clone())));
            stays
        });
        self.connections.retain(|id, _| {
            let stays = snapshot.connections.contains(id);
            gone.extend((!stays).then_some(Subject::Connection(*id)));
            stays
        });
        gone.into_iter().for_each(|subject| tell(self.event(subject)));
    }
}

/// Returns whether it is new.
fn add<K: Eq + Hash>(known: &mut HashMap<K, u32>, key: K, tick: u32) -> bool {
    let before = known.len();
    known.entry(key).or_insert(tick);
    known.len() > before
}

/// An event in a body. Those of channels are what Pusher sends, which has no time.
#[derive(Default, Serialize)]
struct Told<'a> {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<SocketId>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "address")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<u64>,
}

impl<'a> Told<'a> {
    fn channel(name: &'static str, channel: &'a str) -> Told<'a> {
        Told { name, channel: Some(channel), ..Told::default() }
    }

    fn connection(name: &'static str, socket_id: SocketId) -> Told<'a> {
        Told { name, socket_id: Some(socket_id), ..Told::default() }
    }
}

fn address<S: serde::Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.map(written).serialize(serializer)
}

/// Bytes of a known channel, beside its name.
pub const CHANNEL_BYTES: usize = size_of::<(Arc<str>, u32)>();
/// Bytes of a known connection.
pub const CONNECTION_BYTES: usize = size_of::<(SocketId, u32)>();
/// Longer than the 3 s for which an empty channel counts as occupied: churn is never as old.
const LASTING_TICKS: u32 = 4;
/// To tell either of these, channels have to be known.
pub const CHANNELS: [&str; 2] = [OCCUPIED, VACATED];
/// To tell either of these, connections have to be known.
pub const CONNECTIONS: [&str; 2] = [CONNECTED, DISCONNECTED];
const OCCUPIED: &str = "channel_occupied";
const VACATED: &str = "channel_vacated";
const CONNECTED: &str = "connected";
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
        Sent::Piece(Piece::Events { number, events: [reports::Event { time_ms, shard: 0, what }].into() })
    }

    /// A channel has its first subscriber.
    pub fn occupied(number: u64, name: &str) -> Sent {
        event(number, 1, Happening::Occupied { channel: channel(name) })
    }

    fn vacated(number: u64, name: &str) -> Sent {
        event(number, 1, Happening::Vacated { channel: channel(name) })
    }

    fn connected(number: u64, time_ms: u64, socket_id: SocketId, address: &str) -> Sent {
        event(number, time_ms, Happening::Connected { socket_id, address: address.parse().ok() })
    }

    /// The pieces of a snapshot: its channels, and connections with their addresses.
    fn snapshot(number: u64, channels: &[&str], connections: &[(SocketId, &str)]) -> Vec<Sent> {
        let count = |name: &&str| ChannelCount { channel: channel(name), subscribers: 1 };
        let info = |(socket_id, address): &(SocketId, &str)| ConnectionInfo {
            socket_id: *socket_id,
            address: address.parse().ok(),
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
            Piece::SnapshotEnd { number, channels: 0, connections: 0 },
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

    const FROM_A_SNAPSHOT: Events = Events { since: None, epoch: None };

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
                format!(r#"{{"name":"connected","socket_id":"{early}","address":"[::1]:5"}}"#),
                format!(r#"{{"name":"connected","socket_id":"{late}","address":"1.2.3.4:5","time_ms":7}}"#),
                format!(
                    r#"{{"name":"disconnected","socket_id":"{late}","reason":"slow_consumer","code":4100,"time_ms":8}}"#
                ),
            ]
        );
    }

    #[test]
    fn a_stream_that_breaks_off_continues_where_it_ended() {
        let mut known = known(&["channel_occupied", "channel_vacated"]);
        assert_eq!(open(&mut known, [occupied(42, "a")]), [told_occupied("a")]);
        let behind = Sent::Piece(Piece::FellBehind { missing: 3 });
        assert_eq!(known.take(behind, |_| panic!()), Err("3 unread events are no longer kept".into()));
        assert_eq!(known.request(), Events { since: Some(42), epoch: Some("9f3c000000000000".into()) });
        assert_eq!(apply(&mut known, [following(42), occupied(43, "b")]), [told_occupied("b")]);
    }

    #[test]
    fn the_difference_to_a_snapshot_is_told() {
        let mut known = known(&WEBHOOK_EVENTS);
        open(&mut known, [occupied(42, "stays"), occupied(43, "goes"), connected(44, 1, id(7), "")]);
        let gone = format!(r#"{{"name":"disconnected","socket_id":"{}","reason":"unknown"}}"#, id(7));
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
    fn after_a_gap_a_snapshot_is_asked_for() {
        let mut known = known(&["channel_occupied"]);
        open(&mut known, [connected(42, 1, id(1), "")]);
        assert_eq!(known.take(occupied(44, "a"), |_| panic!()), Err("44 came where 43 was next".into()));
        assert_eq!(known.request(), FROM_A_SNAPSHOT);
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
