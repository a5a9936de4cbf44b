//! What the URLs have been told so far, and what a line of the stream adds to it. Pure.
//!
//! Events are taken as of sets: who is known to be there comes no second time, who is not known does not go. A snapshot
//! takes the place of what was known, and what differs is told.

use super::queue::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;

/// Who is there, as far as anybody was told.
#[derive(Default)]
pub struct Known {
    tracked: Tracked,
    channels: HashSet<Box<str>>,
    /// By socket_id.
    connections: HashSet<Box<str>>,
    /// A snapshot that has begun: who is in it so far.
    snapshot: Option<Snapshot>,
    /// The last line that counts, to go on behind it.
    place: Option<Place>,
    is_answered: bool,
}

#[derive(Default)]
struct Snapshot {
    channels: HashSet<Box<str>>,
    connections: HashSet<Box<str>>,
}

struct Place {
    /// Of the run of the server.
    epoch: String,
    number: u64,
}

/// What is told.
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

    fn follows_channels(&self) -> bool {
        CHANNELS.iter().any(|event| self.tells(event))
    }

    fn follows_connections(&self) -> bool {
        CONNECTIONS.iter().any(|event| self.tells(event))
    }
}

impl Known {
    /// Tells of these from now on. Whether a snapshot is needed for it.
    pub fn track(&mut self, tracked: Tracked) -> bool {
        let old = std::mem::replace(&mut self.tracked, tracked);
        let (channels, connections) = (self.tracked.follows_channels(), self.tracked.follows_connections());
        if !channels {
            self.channels = HashSet::new();
        }
        if !connections {
            self.connections = HashSet::new();
        }
        let needs_snapshot = channels && !old.follows_channels() || connections && !old.follows_connections();
        if needs_snapshot || !channels && !connections {
            self.place = None;
        }
        needs_snapshot
    }

    /// What a stream is asked for: to go on where the last one ended, or from a snapshot on, which one that ended in a
    /// snapshot has still to bring.
    pub fn request(&mut self) -> String {
        self.is_answered = false;
        if self.snapshot.take().is_some() {
            self.place = None;
        }
        let (epoch, since) = match &self.place {
            Some(Place { epoch, number }) => (Some(epoch.as_str()), Some(*number)),
            None => (None, None),
        };
        encode(&Request { id: 1, command: "events", since, epoch })
    }

    /// What somebody who knows nothing yet has to be told.
    pub fn each(&self, mut tell: impl FnMut(Event)) {
        if self.tracked.tells(OCCUPIED) {
            self.channels.iter().for_each(|channel| tell(told(Told::channel(OCCUPIED, channel))));
        }
        if self.tracked.tells(CONNECTED) {
            self.connections.iter().for_each(|id| tell(told(Told::connection(CONNECTED, id))));
        }
    }

    /// Takes a line, and tells what it adds. The error says why the stream is of no more use.
    pub fn hear(&mut self, line: &[u8], mut tell: impl FnMut(Event)) -> Result<(), String> {
        if !self.is_answered {
            return self.hear_answer(line);
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| format!("a line of it: {error}"))?;
        let Some(number) = line.number else {
            return Err(format!("{}: {}", line.event, line.error.unwrap_or_default()));
        };
        let place = self.place.as_mut().ok_or("it has no place")?;
        match &mut self.snapshot {
            // Its lines have its number.
            Some(_) => place.number = number,
            None if line.event == "snapshot" => (place.number, self.snapshot) = (number, Some(Snapshot::default())),
            None if number == place.number + 1 => place.number = number,
            None => {
                let expected = place.number + 1;
                self.place = None;
                return Err(format!("{number} came where {expected} was next"));
            }
        }
        self.apply(&line, &mut tell);
        Ok(())
    }

    fn hear_answer(&mut self, line: &[u8]) -> Result<(), String> {
        let answer: Answer = serde_json::from_slice(line).map_err(|error| format!("its first line: {error}"))?;
        let (Some(epoch), Some(number)) = (answer.epoch, answer.number) else {
            return Err(answer.error.unwrap_or_else(|| "it was refused".into()));
        };
        self.is_answered = true;
        // Where it goes on, the next number is the one behind ours; a snapshot says its own.
        let number = self.place.as_ref().filter(|place| place.epoch == epoch).map_or(number, |place| place.number);
        self.place = Some(Place { epoch, number });
        Ok(())
    }

    fn apply(&mut self, line: &Line, tell: &mut impl FnMut(Event)) {
        let Known { tracked, channels, connections, snapshot, .. } = self;
        let event = line.event.as_str();
        let is_followed = match event {
            OCCUPIED | VACATED => tracked.follows_channels(),
            CONNECTED | DISCONNECTED => tracked.follows_connections(),
            _ => true,
        };
        if !is_followed {
            return;
        }
        let is_new = match (event, line.channel.as_deref(), line.socket_id.as_deref()) {
            (OCCUPIED, Some(channel), _) => {
                snapshot.iter_mut().for_each(|snapshot| _ = snapshot.channels.insert(channel.into()));
                channels.insert(channel.into())
            }
            (VACATED, Some(channel), _) => channels.remove(channel),
            (CONNECTED, _, Some(id)) => {
                snapshot.iter_mut().for_each(|snapshot| _ = snapshot.connections.insert(id.into()));
                connections.insert(id.into())
            }
            (DISCONNECTED, _, Some(id)) => connections.remove(id),
            ("snapshot_end", ..) => return self.reconcile(tell),
            _ => false,
        };
        if is_new && let Some(name) = tracked.events.iter().find(|name| **name == event) {
            tell(told(Told { name, ..Told::of(line) }));
        }
    }

    /// The snapshot is whole: who is not in it is gone.
    fn reconcile(&mut self, tell: &mut impl FnMut(Event)) {
        let Some(snapshot) = self.snapshot.take() else { return };
        if self.tracked.tells(VACATED) {
            let gone = self.channels.difference(&snapshot.channels);
            gone.for_each(|channel| tell(told(Told::channel(VACATED, channel))));
        }
        if self.tracked.tells(DISCONNECTED) {
            let gone = self.connections.difference(&snapshot.connections);
            gone.for_each(|id| tell(told(Told { reason: Some("unknown"), ..Told::connection(DISCONNECTED, id) })));
        }
        self.channels = snapshot.channels;
        self.connections = snapshot.connections;
    }
}

#[derive(Serialize)]
struct Request<'a> {
    id: u64,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    epoch: Option<String>,
    number: Option<u64>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    number: Option<u64>,
    time_ms: Option<u64>,
    event: String,
    channel: Option<String>,
    socket_id: Option<String>,
    address: Option<String>,
    reason: Option<String>,
    /// Of a close it is a number, of an error a word.
    code: Option<Value>,
    error: Option<String>,
}

/// What stands in a body. Of channels it is what Pusher sends.
#[derive(Default, Serialize)]
struct Told<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<u64>,
}

impl<'a> Told<'a> {
    fn of(line: &'a Line) -> Told<'a> {
        Told {
            name: &line.event,
            channel: line.channel.as_deref(),
            socket_id: line.socket_id.as_deref(),
            address: line.address.as_deref(),
            reason: line.reason.as_deref(),
            code: line.code.as_ref(),
            // Pusher's have none.
            time_ms: line.time_ms.filter(|_| line.channel.is_none()),
        }
    }

    fn channel(name: &'a str, channel: &'a str) -> Told<'a> {
        Told { name, channel: Some(channel), ..Told::default() }
    }

    fn connection(name: &'a str, socket_id: &'a str) -> Told<'a> {
        Told { name, socket_id: Some(socket_id), ..Told::default() }
    }
}

fn told(told: Told<'_>) -> Event {
    encode(&told).into()
}

fn encode(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

/// Bytes of one who is known, beside the name.
pub const ENTRY_BYTES: usize = size_of::<Box<str>>();
/// To tell either of these, channels have to be known.
pub const CHANNELS: [&str; 2] = [OCCUPIED, VACATED];
/// To tell either of these, connections have to be known.
pub const CONNECTIONS: [&str; 2] = [CONNECTED, DISCONNECTED];
const OCCUPIED: &str = "channel_occupied";
const VACATED: &str = "channel_vacated";
const CONNECTED: &str = "connected";
const DISCONNECTED: &str = "disconnected";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WEBHOOK_EVENTS;

    const ANSWER: &str = r#"{"id":1,"ok":true,"epoch":"9f3c000000000000","number":41}"#;

    fn known(events: &[&'static str]) -> Known {
        let mut known = Known::default();
        assert!(known.track(Tracked::of(events)));
        known
    }

    /// Hears lines after a request, each to be liked; gives what is told.
    #[track_caller]
    fn hear(known: &mut Known, lines: &[&str]) -> Vec<String> {
        let mut told = Vec::new();
        for line in lines {
            let heard = known.hear(line.as_bytes(), |event| told.push(event.to_string()));
            assert_eq!(heard, Ok(()), "{line}");
        }
        told
    }

    fn open(known: &mut Known, lines: &[&str]) -> Vec<String> {
        known.request();
        hear(known, &[&[ANSWER], lines].concat())
    }

    fn occupied(channel: &str) -> String {
        format!(r#"{{"name":"channel_occupied","channel":"{channel}"}}"#)
    }

    fn vacated(channel: &str) -> String {
        format!(r#"{{"name":"channel_vacated","channel":"{channel}"}}"#)
    }

    #[test]
    fn what_happens_is_told_as_pusher_tells_it() {
        let mut known = known(&["channel_occupied", "channel_vacated"]);
        assert_eq!(known.request(), r#"{"id":1,"command":"events"}"#);
        let told = hear(
            &mut known,
            &[
                ANSWER,
                r#"{"number":41,"event":"snapshot","channels":0,"connections":0}"#,
                r#"{"number":41,"event":"snapshot_end"}"#,
                r#"{"number":42,"time_ms":1764100000000,"event":"channel_occupied","channel":"user:13"}"#,
                r#"{"number":43,"time_ms":1764100000000,"event":"connected","socket_id":"a","address":"1.2.3.4:5","shard":0}"#,
                r#"{"number":44,"time_ms":1764100000000,"event":"something_new","what":1}"#,
                r#"{"number":45,"time_ms":1764100000000,"event":"channel_vacated","channel":"user:13"}"#,
            ],
        );
        assert_eq!(told, [occupied("user:13"), vacated("user:13")]);
    }

    #[test]
    fn connections_are_told_with_what_is_known_of_them() {
        let mut known = known(&["connected", "disconnected"]);
        let told = open(
            &mut known,
            &[
                r#"{"number":41,"event":"snapshot","channels":1,"connections":1}"#,
                r#"{"number":41,"event":"channel_occupied","channel":"c"}"#,
                r#"{"number":41,"event":"connected","socket_id":"early","address":"[::1]:5","shard":0}"#,
                r#"{"number":41,"event":"snapshot_end"}"#,
                r#"{"number":42,"time_ms":7,"event":"connected","socket_id":"late","address":"1.2.3.4:5","shard":1}"#,
                r#"{"number":43,"time_ms":8,"event":"disconnected","socket_id":"late","reason":"slow_consumer","code":4100}"#,
                r#"{"number":44,"time_ms":9,"event":"disconnected","socket_id":"nobody","reason":"client_gone"}"#,
            ],
        );
        assert_eq!(
            told,
            [
                r#"{"name":"connected","socket_id":"early","address":"[::1]:5"}"#,
                r#"{"name":"connected","socket_id":"late","address":"1.2.3.4:5","time_ms":7}"#,
                r#"{"name":"disconnected","socket_id":"late","reason":"slow_consumer","code":4100,"time_ms":8}"#,
            ]
        );
    }

    #[test]
    fn a_stream_that_breaks_off_goes_on_where_it_ended() {
        let mut known = known(&["channel_occupied", "channel_vacated"]);
        let told = open(&mut known, &[r#"{"number":42,"time_ms":1,"event":"channel_occupied","channel":"a"}"#]);
        assert_eq!(told, [occupied("a")]);
        let error = r#"{"event":"error","code":"too_slow","error":"too much waits"}"#;
        assert_eq!(known.hear(error.as_bytes(), |_| panic!()), Err("error: too much waits".into()));
        assert_eq!(known.request(), r#"{"id":1,"command":"events","since":42,"epoch":"9f3c000000000000"}"#);
        let told = hear(
            &mut known,
            &[
                r#"{"id":1,"ok":true,"epoch":"9f3c000000000000","number":42}"#,
                r#"{"number":43,"time_ms":1,"event":"channel_occupied","channel":"b"}"#,
            ],
        );
        assert_eq!(told, [occupied("b")]);
    }

    #[test]
    fn of_a_snapshot_what_differs_is_told() {
        let mut known = known(&WEBHOOK_EVENTS);
        open(
            &mut known,
            &[
                r#"{"number":42,"time_ms":1,"event":"channel_occupied","channel":"stays"}"#,
                r#"{"number":43,"time_ms":1,"event":"channel_occupied","channel":"goes"}"#,
                r#"{"number":44,"time_ms":1,"event":"connected","socket_id":"goes","address":"a","shard":0}"#,
            ],
        );
        let snapshot = [
            r#"{"number":90,"event":"snapshot","channels":2,"connections":0}"#,
            r#"{"number":90,"event":"channel_occupied","channel":"stays"}"#,
            r#"{"number":90,"event":"channel_occupied","channel":"comes"}"#,
            r#"{"number":90,"event":"snapshot_end"}"#,
        ];
        let gone = r#"{"name":"disconnected","socket_id":"goes","reason":"unknown"}"#;
        assert_eq!(open(&mut known, &snapshot), [occupied("comes"), vacated("goes"), gone.into()]);
        // Once more: nothing differs.
        assert_eq!(open(&mut known, &snapshot), [""; 0]);
        let told = hear(&mut known, &[r#"{"number":91,"time_ms":1,"event":"channel_vacated","channel":"comes"}"#]);
        assert_eq!(told, [vacated("comes")]);
    }

    #[test]
    fn a_snapshot_that_breaks_off_takes_nothing_away() {
        let mut known = known(&["channel_occupied", "channel_vacated"]);
        open(&mut known, &[r#"{"number":42,"time_ms":1,"event":"channel_occupied","channel":"a"}"#]);
        let begun = [r#"{"number":50,"event":"snapshot","channels":2,"connections":0}"#];
        assert_eq!(open(&mut known, &begun), [""; 0]);
        assert_eq!(known.request(), r#"{"id":1,"command":"events"}"#, "what was still to come comes with no event");
        let whole = [
            r#"{"number":51,"event":"snapshot","channels":1,"connections":0}"#,
            r#"{"number":51,"event":"channel_occupied","channel":"a"}"#,
            r#"{"number":51,"event":"snapshot_end"}"#,
        ];
        assert_eq!(open(&mut known, &whole), [""; 0]);
    }

    #[test]
    fn a_gap_is_a_loss_and_a_snapshot_is_asked_for() {
        let mut known = known(&["channel_occupied"]);
        open(&mut known, &[r#"{"number":42,"time_ms":1,"event":"connected","socket_id":"a","address":"a","shard":0}"#]);
        let late = r#"{"number":44,"time_ms":1,"event":"channel_occupied","channel":"a"}"#;
        assert_eq!(known.hear(late.as_bytes(), |_| panic!()), Err("44 came where 43 was next".into()));
        assert_eq!(known.request(), r#"{"id":1,"command":"events"}"#);
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for line in ["", "{}", "[]", r#"{"id":1,"ok":false,"code":"unknown_command","error":"no such command"}"#] {
            let mut known = known(&["connected"]);
            known.request();
            assert!(known.hear(line.as_bytes(), |_| panic!()).is_err(), "{line}");
        }
        for line in ["", "{}", "[]", r#"{"number":42}"#, r#"{"number":-1,"event":"connected"}"#] {
            let mut known = known(&["connected"]);
            open(&mut known, &[]);
            assert!(known.hear(line.as_bytes(), |_| panic!()).is_err(), "{line}");
        }
    }

    #[test]
    fn whoever_is_new_is_told_what_there_is() {
        let mut known = known(&["channel_occupied", "disconnected"]);
        open(
            &mut known,
            &[
                r#"{"number":42,"time_ms":1,"event":"channel_occupied","channel":"a"}"#,
                r#"{"number":43,"time_ms":1,"event":"connected","socket_id":"a","address":"a","shard":0}"#,
            ],
        );
        let mut told = Vec::new();
        known.each(|event| told.push(event.to_string()));
        assert_eq!(told, [occupied("a")]);
        assert!(!known.track(Tracked::of(&["channel_vacated", "connected"])), "both are followed already");
        assert!(!known.track(Tracked::of(&["channel_vacated"])));
        assert!(known.track(Tracked::of(&["channel_vacated", "connected"])), "connections were not");
        assert_eq!(known.request(), r#"{"id":1,"command":"events"}"#);
    }
}
