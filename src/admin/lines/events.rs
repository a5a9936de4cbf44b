//! Writes lifecycle events as lines of a stream. Pure. Each function appends whole lines.

use crate::api::ConnectionInfo;
use crate::api::operation::ChannelCount;
use crate::api::value::written;
use crate::hub::message::Message;
use crate::hub::observe::extras::ClientEvent;
use crate::hub::observe::reports::Event;
use crate::hub::observe::reports::Happening;
use crate::ids::ShardId;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::CloseReason;
use crate::protocol::json::{escape_into, show_into};
use crate::protocol::socket_id::SocketId;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

/// `{"number":…,"event":"snapshot"}`: the following state replaces the earlier one.
pub fn snapshot(out: &mut Vec<u8>, number: u64) {
    let _ = writeln!(out, r#"{{"number":{number},"event":"snapshot"}}"#);
}

/// Occupied channels of a snapshot.
pub fn channels(out: &mut Vec<u8>, number: u64, channels: &[ChannelCount]) {
    for ChannelCount { channel, .. } in channels {
        let _ = write!(out, r#"{{"number":{number},"#);
        of_channel(out, "channel_occupied", channel);
    }
}

/// Members of presence channels of a snapshot: channel and user id.
pub fn members(out: &mut Vec<u8>, number: u64, members: &[(ChannelName, Arc<str>)]) {
    for (channel, user_id) in members {
        let _ = write!(out, r#"{{"number":{number},"#);
        of_member(out, "member_added", channel, user_id);
    }
}

/// Connections of a snapshot.
pub fn connections(out: &mut Vec<u8>, number: u64, connections: &[ConnectionInfo]) {
    for connection in connections {
        let _ = write!(out, r#"{{"number":{number},"#);
        connected(out, connection.socket_id, connection.address, connection.shard);
    }
}

/// `{"number":…,"event":"snapshot_end","channels":…,"members":…,"connections":…}`
pub fn snapshot_end(out: &mut Vec<u8>, number: u64, [channels, members, connections]: [u64; 3]) {
    let _ = write!(out, r#"{{"number":{number},"event":"snapshot_end","#);
    let _ = writeln!(out, r#""channels":{channels},"members":{members},"connections":{connections}}}"#);
}

/// One event.
pub fn event(out: &mut Vec<u8>, event: &Event) {
    let Event { number, time_ms, shard, what } = event;
    let _ = write!(out, r#"{{"number":{number},"time_ms":{time_ms},"#);
    match what {
        Happening::Occupied { channel } => of_channel(out, "channel_occupied", channel),
        Happening::Vacated { channel } => of_channel(out, "channel_vacated", channel),
        Happening::MemberAdded { channel, user_id } => of_member(out, "member_added", channel, user_id),
        Happening::MemberRemoved { channel, user_id } => of_member(out, "member_removed", channel, user_id),
        Happening::ClientEvent(event) => client_event(out, event),
        Happening::CacheMiss { channel } => of_channel(out, "cache_miss", channel),
        Happening::SubscriptionCount { channel, subscribers } => {
            let channel = channel.as_channel().as_str();
            let _ =
                writeln!(out, r#""event":"subscription_count","channel":"{channel}","subscribers":{subscribers}}}"#);
        }
        Happening::Connected { socket_id, address } => connected(out, *socket_id, *address, *shard),
        Happening::Disconnected { socket_id, kind, code } => {
            let reason = CloseReason::LABELS.get(usize::from(*kind)).copied().unwrap_or("unknown");
            let _ = write!(out, r#""event":"disconnected","socket_id":"{socket_id}","reason":"{reason}""#);
            if let Some(code) = code {
                let _ = write!(out, r#","code":{code}"#);
            }
            out.extend_from_slice(b"}\n");
        }
    }
}

/// The last line for a consumer that reads too slowly.
pub fn too_slow(out: &mut Vec<u8>, missing: u64) {
    let _ = writeln!(
        out,
        r#"{{"event":"error","code":"too_slow","error":"{missing} unread events were discarded: read faster, and restart from a snapshot"}}"#
    );
}

fn of_channel(out: &mut Vec<u8>, event: &str, channel: &ChannelName) {
    let _ = writeln!(out, r#""event":"{event}","channel":"{}"}}"#, channel.as_channel().as_str());
}

fn of_member(out: &mut Vec<u8>, event: &str, channel: &ChannelName, user_id: &str) {
    let _ = write!(out, r#""event":"{event}","channel":"{}","user_id":""#, channel.as_channel().as_str());
    escape_into(out, user_id);
    out.extend_from_slice(b"\"}\n");
}

/// The members of a client event; `name`, `data` and `user_id` are JSON as it was written.
fn client_event(out: &mut Vec<u8>, event: &ClientEvent) {
    let ClientEvent { channel, sender, payload } = event;
    let Message { event, data, user_id, .. } = payload.message(None);
    let _ = write!(out, r#""event":"client_event","channel":"{}","name":""#, channel.as_channel().as_str());
    show_into(out, event);
    out.push(b'"');
    if let Some(data) = data {
        out.extend_from_slice(br#","data":"#);
        show_into(out, data);
    }
    let _ = write!(out, r#","socket_id":"{sender}""#);
    if let Some(user_id) = user_id {
        let _ = write!(out, r#","user_id":"{user_id}""#);
    }
    out.extend_from_slice(b"}\n");
}

fn connected(out: &mut Vec<u8>, socket_id: SocketId, address: Option<SocketAddr>, shard: ShardId) {
    let _ = write!(out, r#""event":"connected","socket_id":"{socket_id}","address":"#);
    let _ = match address {
        Some(address) => write!(out, r#""{}""#, written(address)),
        None => write!(out, "null"),
    };
    let _ = writeln!(out, r#","shard":{shard}}}"#);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::message::Payload;
    use crate::protocol::channel::Channel;
    use crate::protocol::dialect::Dialect;

    #[track_caller]
    fn check(what: Happening, expected: &str) {
        let mut line = Vec::new();
        event(&mut line, &Event { number: 7, time_ms: 1_764_100_000_000, shard: 3, what });
        assert_eq!(String::from_utf8_lossy(&line), format!("{expected}\n"));
        serde_json::from_slice::<serde::de::IgnoredAny>(&line).expect("JSON");
    }

    #[test]
    fn every_event_has_its_line() {
        let channel: ChannelName = Channel::parse("user:13").expect("a legal name").into();
        let socket_id = SocketId::parse("1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6").expect("an id");
        check(
            Happening::Occupied { channel: channel.clone() },
            r#"{"number":7,"time_ms":1764100000000,"event":"channel_occupied","channel":"user:13"}"#,
        );
        check(
            Happening::Vacated { channel: channel.clone() },
            r#"{"number":7,"time_ms":1764100000000,"event":"channel_vacated","channel":"user:13"}"#,
        );
        check(
            Happening::MemberAdded { channel: channel.clone(), user_id: "11".into() },
            r#"{"number":7,"time_ms":1764100000000,"event":"member_added","channel":"user:13","user_id":"11"}"#,
        );
        check(
            Happening::MemberRemoved { channel, user_id: "a\"\n".into() },
            r#"{"number":7,"time_ms":1764100000000,"event":"member_removed","channel":"user:13","user_id":"a\"\n"}"#,
        );
        let extra: ChannelName = Channel::parse("private-cache-a").expect("a legal name").into();
        check(
            Happening::CacheMiss { channel: extra.clone() },
            r#"{"number":7,"time_ms":1764100000000,"event":"cache_miss","channel":"private-cache-a"}"#,
        );
        check(
            Happening::SubscriptionCount { channel: extra.clone(), subscribers: 3 },
            r#"{"number":7,"time_ms":1764100000000,"event":"subscription_count","channel":"private-cache-a","subscribers":3}"#,
        );
        let message = Message {
            event: r#"client-\""#,
            data: Some("[1,\n\"\\ud83c\"]"),
            user_id: Some(r"1\n"),
            ..Message::default()
        };
        let payload = Payload::new(&message, &mut String::new());
        check(
            Happening::ClientEvent(Box::new(ClientEvent { channel: extra, sender: socket_id, payload })),
            r#"{"number":7,"time_ms":1764100000000,"event":"client_event","channel":"private-cache-a","name":"client-\"","data":[1, "\ud83c"],"socket_id":"1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6","user_id":"1\n"}"#,
        );
        check(
            Happening::Connected { socket_id, address: Some(([192, 0, 2, 7], 80).into()) },
            r#"{"number":7,"time_ms":1764100000000,"event":"connected","socket_id":"1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6","address":"192.0.2.7:80","shard":3}"#,
        );
        check(
            Happening::Connected { socket_id, address: None },
            r#"{"number":7,"time_ms":1764100000000,"event":"connected","socket_id":"1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6","address":null,"shard":3}"#,
        );
        check(
            Happening::disconnected(socket_id, Dialect::Native, &CloseReason::PongTimeout { timeout_s: 5 }),
            r#"{"number":7,"time_ms":1764100000000,"event":"disconnected","socket_id":"1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6","reason":"pong_timeout","code":4201}"#,
        );
        check(
            Happening::disconnected(socket_id, Dialect::Native, &CloseReason::ClientGone),
            r#"{"number":7,"time_ms":1764100000000,"event":"disconnected","socket_id":"1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6","reason":"client_gone"}"#,
        );
    }

    #[test]
    fn the_last_line_says_what_to_do() {
        let mut line = Vec::new();
        too_slow(&mut line, 3);
        let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!((&line["event"], &line["code"]), (&"error".into(), &"too_slow".into()));
    }
}
