//! Writes the sightings of a tail as lines. Pure.

use crate::api::value::written;
use crate::hub::observe::sighting::{Client, Sight, Sighting};
use crate::ids::ShardId;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::json;
use crate::protocol::socket_id::SocketId;
use std::io::Write;
use std::net::SocketAddr;

/// The sightings of a shard, and the number that it dropped. `time_ms` is the time of `at_us`.
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
        Sight::Connect { client } => of_client(out, "connect", client),
        Sight::Refuse { address, why } => {
            of(out, "refuse", None, *address);
            let _ = write!(out, r#","why":"{why}""#);
        }
        Sight::Request { kind, client, channel, error } => {
            of_client(out, kind, client);
            out.extend_from_slice(br#","channel":""#);
            json::escape_into(out, channel);
            let _ = write!(out, r#"","result":"{}""#, error.unwrap_or("ok"));
        }
        Sight::Publish { channel, event, bytes, subscribers, data } => {
            let _ = write!(out, r#""event":"publish","channel":"{}","name":""#, channel.as_channel().as_str());
            // As written between the quotes.
            json::show_into(out, event);
            let _ = write!(out, r#"","bytes":{bytes},"subscribers":{subscribers}"#);
            if let Some(data) = data {
                out.extend_from_slice(br#","data":""#);
                json::escape_into(out, data);
                out.push(b'"');
            }
        }
        Sight::Close { opened, address, kind, code } => {
            of(out, "close", *opened, *address);
            let reason = CloseReason::LABELS.get(usize::from(*kind)).copied().unwrap_or("unknown");
            let _ = write!(out, r#","reason":"{reason}""#);
            if let Some(code) = code {
                let _ = write!(out, r#","code":{code}"#);
            }
        }
        Sight::Limit { client } => of_client(out, "limit", client),
    }
    out.extend_from_slice(b"}\n");
}

fn of_client(out: &mut Vec<u8>, event: &str, &Client { socket_id, address, dialect }: &Client) {
    of(out, event, Some((socket_id, dialect)), address);
}

fn of(out: &mut Vec<u8>, event: &str, opened: Option<(SocketId, Dialect)>, address: Option<SocketAddr>) {
    let _ = write!(out, r#""event":"{event}""#);
    if let Some((socket_id, _)) = opened {
        let _ = write!(out, r#","socket_id":"{socket_id}""#);
    }
    if let Some(address) = address {
        let _ = write!(out, r#","address":"{}""#, written(address));
    }
    if let Some((_, dialect)) = opened {
        let _ = write!(out, r#","dialect":"{}""#, dialect.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::channel::Channel;
    use crate::protocol::pusher::handshake::Version;

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
        let dialect = Dialect::Pusher(Version::V7);
        let of_pusher = Client { socket_id, address, dialect };
        let client = Client { socket_id, address: None, dialect: Dialect::Native };
        check(
            Sight::Connect { client: of_pusher },
            &format!(r#""event":"connect","socket_id":"{id}","address":"192.0.2.7:80","dialect":"pusher""#),
        );
        check(Sight::Refuse { address: None, why: "bad_method" }, r#""event":"refuse","why":"bad_method""#);
        check(
            Sight::Request { kind: "subscribe", client, channel: "a\"b".into(), error: Some("invalid_channel") },
            &format!(
                r#""event":"subscribe","socket_id":"{id}","dialect":"native","channel":"a\"b","result":"invalid_channel""#
            ),
        );
        check(
            Sight::Request { kind: "unsubscribe", client, channel: "a".into(), error: None },
            &format!(r#""event":"unsubscribe","socket_id":"{id}","dialect":"native","channel":"a","result":"ok""#),
        );
        let channel = Channel::parse("a").expect("legal").into();
        check(
            Sight::Publish { channel, event: r"\u0065".into(), bytes: 9, subscribers: 3, data: Some("{\"a\"".into()) },
            r#""event":"publish","channel":"a","name":"\u0065","bytes":9,"subscribers":3,"data":"{\"a\"""#,
        );
        check(
            Sight::Request { kind: "subscribe", client, channel: "\u{9b}31m\u{202e}".into(), error: None },
            &format!(
                r#""event":"subscribe","socket_id":"{id}","dialect":"native","channel":"\u009b31m\u202e","result":"ok""#
            ),
        );
        let channel = Channel::parse("a").expect("legal").into();
        check(
            Sight::Publish { channel, event: "\u{9d}0;".into(), bytes: 3, subscribers: 0, data: Some("\u{7f}".into()) },
            r#""event":"publish","channel":"a","name":"\u009d0;","bytes":3,"subscribers":0,"data":"\u007f""#,
        );
        check(
            Sight::Close { opened: None, address, kind: 8, code: Some(4100) },
            r#""event":"close","address":"192.0.2.7:80","reason":"slow_consumer","code":4100"#,
        );
        check(Sight::Limit { client }, &format!(r#""event":"limit","socket_id":"{id}","dialect":"native""#));
        let mut out = Vec::new();
        lines(&mut out, 0, 0, 7, &[], 5);
        assert_eq!(String::from_utf8_lossy(&out), "{\"time_ms\":7,\"shard\":0,\"event\":\"dropped\",\"count\":5}\n");
    }
}
