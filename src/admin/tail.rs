//! A stream of what the server sees and decides: which shards are to be asked for more, and the lines of what they saw.
//! Pure.

use crate::hub::addresses;
use crate::hub::mail::{Question, ShardId};
use crate::hub::taps::{Filter, Sight, Sighting};
use crate::hub::watching::TAPS;
use crate::protocol::close::CloseReason;
use crate::protocol::json;
use crate::protocol::socket_id::SocketId;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

/// Which shards have been asked.
pub struct Tail {
    filter: Arc<Filter>,
    shards: Vec<Place>,
    /// Shards that do not watch yet.
    blind: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It does not know of the tap.
    Unasked,
    /// It shows what it sees next.
    Asked,
    /// It has shown something, and shows more once it is asked to.
    Ready,
}

impl Tail {
    /// Asks the shard that says how many there may be; the others are asked once it has agreed.
    pub fn new(filter: Filter, shards: usize) -> (Tail, Question) {
        let filter = Arc::new(filter);
        let mut places = vec![Place::Unasked; shards];
        places[usize::from(TAPS)] = Place::Asked;
        (Tail { filter: filter.clone(), shards: places, blind: shards }, Question::Tap { filter })
    }

    /// What to ask next, and whom.
    pub fn ask(&mut self) -> Option<(ShardId, Question)> {
        let shard = self.shards.iter().position(|place| *place != Place::Asked)?;
        let question = match std::mem::replace(&mut self.shards[shard], Place::Asked) {
            Place::Unasked => Question::Tap { filter: self.filter.clone() },
            _ => Question::MoreSeen,
        };
        Some((shard as ShardId, question))
    }

    /// Whether there is somebody to ask.
    pub fn is_ready(&self) -> bool {
        self.shards.iter().any(|place| *place != Place::Asked)
    }

    /// A shard watches. Returns whether all do.
    pub fn begin(&mut self) -> bool {
        self.blind -= 1;
        self.blind == 0
    }

    /// A shard has shown something.
    pub fn hear(&mut self, shard: ShardId) {
        self.shards[usize::from(shard)] = Place::Ready;
    }

    /// The shards that are to forget the tap.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        0..self.shards.len() as ShardId
    }
}

/// What a shard did not show, and what it did. `time_ms` is the time of `at_us`.
pub fn lines(out: &mut Vec<u8>, shard: ShardId, at_us: u64, time_ms: u64, sightings: &[Sighting], dropped: u64) {
    for sighting in sightings {
        let age_ms = at_us.saturating_sub(sighting.at_us) / 1000;
        let _ = write!(out, r#"{{"time_ms":{},"shard":{shard},"#, time_ms.saturating_sub(age_ms));
        line(out, &sighting.sight);
    }
    if dropped > 0 {
        let _ = writeln!(out, r#"{{"time_ms":{time_ms},"shard":{shard},"event":"dropped","count":{dropped}}}"#);
    }
}

fn line(out: &mut Vec<u8>, sight: &Sight) {
    match sight {
        Sight::Connect { socket_id, address } => who(out, "connect", Some(*socket_id), *address),
        Sight::Refuse { address, why } => {
            who(out, "refuse", None, *address);
            let _ = write!(out, r#","why":"{why}""#);
        }
        Sight::Subscribe { socket_id, address, channel, error } => {
            who(out, "subscribe", Some(*socket_id), *address);
            result(out, channel, *error);
        }
        Sight::Unsubscribe { socket_id, address, channel, error } => {
            who(out, "unsubscribe", Some(*socket_id), *address);
            result(out, channel, *error);
        }
        Sight::Publish { channel, event, bytes, subscribers, data } => {
            let _ = write!(out, r#""event":"publish","channel":"{}","name":""#, channel.as_channel().as_str());
            // As it stood between quotes.
            json::show_into(out, event);
            let _ = write!(out, r#"","bytes":{bytes},"subscribers":{subscribers}"#);
            if let Some(data) = data {
                out.extend_from_slice(br#","data":""#);
                json::escape_into(out, data);
                out.push(b'"');
            }
        }
        Sight::Close { socket_id, address, kind, code } => {
            who(out, "close", *socket_id, *address);
            let reason = CloseReason::LABELS.get(usize::from(*kind)).copied().unwrap_or("unknown");
            let _ = write!(out, r#","reason":"{reason}""#);
            if let Some(code) = code {
                let _ = write!(out, r#","code":{code}"#);
            }
        }
        Sight::Limit { socket_id, address } => who(out, "limit", Some(*socket_id), *address),
    }
    out.extend_from_slice(b"}\n");
}

fn who(out: &mut Vec<u8>, event: &str, socket_id: Option<SocketId>, address: Option<SocketAddr>) {
    let _ = write!(out, r#""event":"{event}""#);
    if let Some(socket_id) = socket_id {
        let _ = write!(out, r#","socket_id":"{socket_id}""#);
    }
    if let Some(address) = address {
        let _ = write!(out, r#","address":"{}""#, addresses::written(address));
    }
}

fn result(out: &mut Vec<u8>, channel: &str, error: Option<&str>) {
    out.extend_from_slice(br#","channel":""#);
    json::escape_into(out, channel);
    let _ = write!(out, r#"","result":"{}""#, error.unwrap_or("ok"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::channel::Channel;

    #[track_caller]
    fn check(sight: Sight, expected: &str) {
        let mut out = Vec::new();
        lines(&mut out, 1, 5_000, 1_764_100_000_000, &[Sighting { at_us: 2_000, sight }], 0);
        let line = String::from_utf8_lossy(&out);
        assert_eq!(line, format!("{{\"time_ms\":1764099999997,\"shard\":1,{expected}}}\n"));
        serde_json::from_str::<serde::de::IgnoredAny>(&line).expect("JSON");
    }

    #[test]
    fn every_sight_has_its_line() {
        let socket_id = SocketId { high: 0, low: 1 };
        let id = "00000000-0000-0000-0000-000000000001";
        let address = "192.0.2.7:80".parse().ok();
        check(
            Sight::Connect { socket_id, address },
            &format!(r#""event":"connect","socket_id":"{id}","address":"192.0.2.7:80""#),
        );
        check(Sight::Refuse { address: None, why: "bad_method" }, r#""event":"refuse","why":"bad_method""#);
        check(
            Sight::Subscribe { socket_id, address: None, channel: "a\"b".into(), error: Some("invalid_channel") },
            &format!(r#""event":"subscribe","socket_id":"{id}","channel":"a\"b","result":"invalid_channel""#),
        );
        check(
            Sight::Unsubscribe { socket_id, address: None, channel: "a".into(), error: None },
            &format!(r#""event":"unsubscribe","socket_id":"{id}","channel":"a","result":"ok""#),
        );
        let channel = Channel::parse("a").expect("legal").into();
        check(
            Sight::Publish { channel, event: r"\u0065".into(), bytes: 9, subscribers: 3, data: Some("{\"a\"".into()) },
            r#""event":"publish","channel":"a","name":"\u0065","bytes":9,"subscribers":3,"data":"{\"a\"""#,
        );
        check(
            Sight::Subscribe { socket_id, address: None, channel: "\u{9b}31m\u{202e}".into(), error: None },
            &format!(r#""event":"subscribe","socket_id":"{id}","channel":"\u009b31m\u202e","result":"ok""#),
        );
        let channel = Channel::parse("a").expect("legal").into();
        check(
            Sight::Publish { channel, event: "\u{9d}0;".into(), bytes: 3, subscribers: 0, data: Some("\u{7f}".into()) },
            r#""event":"publish","channel":"a","name":"\u009d0;","bytes":3,"subscribers":0,"data":"\u007f""#,
        );
        check(
            Sight::Close { socket_id: None, address, kind: 8, code: Some(4100) },
            r#""event":"close","address":"192.0.2.7:80","reason":"slow_consumer","code":4100"#,
        );
        check(Sight::Limit { socket_id, address: None }, &format!(r#""event":"limit","socket_id":"{id}""#));
        let mut out = Vec::new();
        lines(&mut out, 0, 0, 7, &[], 5);
        assert_eq!(String::from_utf8_lossy(&out), "{\"time_ms\":7,\"shard\":0,\"event\":\"dropped\",\"count\":5}\n");
    }
}
