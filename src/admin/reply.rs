//! Replies of the admin socket → lines. Pure. Each function appends one line, newline included.

use crate::admin::request::Refusal;
use crate::config::{Change, Difference};
use crate::hub::addresses;
use crate::hub::mail::ConnectionInfo;
use crate::hub::survey::{Best, BusyAddress, BusyChannel};
use crate::metrics::Stats;
use crate::protocol::channel::{self, Channel, ChannelName};
use crate::protocol::json;
use std::io::Write;

/// `{"id":…,"ok":false,"code":"…","error":"…"}`
pub fn refused(out: &mut Vec<u8>, id: &str, refusal: &Refusal) {
    let _ = write!(out, r#"{{"id":{id},"ok":false,"code":"{}","error":""#, refusal.code());
    refusal.text_into(out);
    out.extend_from_slice(b"\"}\n");
}

/// `{"id":…,"ok":true}`
pub fn done(out: &mut Vec<u8>, id: &str) {
    let _ = writeln!(out, r#"{{"id":{id},"ok":true}}"#);
}

/// `{"id":…,"ok":true,"subscribers":N}`
pub fn published(out: &mut Vec<u8>, id: &str, subscribers: u64) {
    // The one reply that comes by the hundred thousand a second.
    for part in [r#"{"id":"#, id, r#","ok":true,"subscribers":"#, itoa::Buffer::new().format(subscribers), "}\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// `{"id":…,"ok":true,"channel":"…","subscribers":N}`
pub fn channel(out: &mut Vec<u8>, id: &str, channel: Channel<'_>, subscribers: u64) {
    let _ = writeln!(out, r#"{{"id":{id},"ok":true,"channel":"{}","subscribers":{subscribers}}}"#, channel.as_str());
}

/// `{"id":…,"ok":true,"<member>":[…],"next":"…"}`; `items` were written by [`channel_item`] or [`connection_item`].
pub fn page(out: &mut Vec<u8>, id: &str, member: &str, items: &[u8], next: Option<&str>) {
    let _ = write!(out, r#"{{"id":{id},"ok":true,"{member}":["#);
    out.extend_from_slice(items);
    out.push(b']');
    if let Some(next) = next {
        let _ = write!(out, r#","next":"{next}""#);
    }
    out.extend_from_slice(b"}\n");
}

/// One channel of a page.
pub fn channel_item(items: &mut Vec<u8>, channel: Channel<'_>, subscribers: u64) {
    separate(items);
    let _ = write!(items, r#"{{"channel":"{}","subscribers":{subscribers}}}"#, channel.as_str());
}

/// One connection of a page.
pub fn connection_item(items: &mut Vec<u8>, connection: &ConnectionInfo) {
    separate(items);
    items.push(b'{');
    connection_members(items, connection);
    items.push(b'}');
}

/// `{"id":…,"ok":true,"socket_id":"…",…,"channels":["…"]}`
pub fn connection(out: &mut Vec<u8>, id: &str, connection: &ConnectionInfo, channels: &[ChannelName]) {
    let _ = write!(out, r#"{{"id":{id},"ok":true,"#);
    connection_members(out, connection);
    out.extend_from_slice(br#","channels":["#);
    for (at, name) in channels.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}"{}""#, name.as_channel().as_str());
    }
    out.extend_from_slice(b"]}\n");
}

/// `{"id":…,"ok":true,"changes":[{"option":"…","old":"…","new":"…"}],"restart":[…]}`
pub fn reloaded(out: &mut Vec<u8>, id: &str, difference: &Difference) {
    let _ = write!(out, r#"{{"id":{id},"ok":true,"changes":["#);
    changes(out, &difference.changes);
    out.extend_from_slice(br#"],"restart":["#);
    changes(out, &difference.restart);
    out.extend_from_slice(b"]}\n");
}

/// `{"id":…,"ok":true,"connections":N,"over_ms":N}`
pub fn leaving(out: &mut Vec<u8>, id: &str, connections: usize, over_ms: u64) {
    let _ = writeln!(out, r#"{{"id":{id},"ok":true,"connections":{connections},"over_ms":{over_ms}}}"#);
}

fn changes(out: &mut Vec<u8>, changes: &[Change]) {
    for (at, Change { option, old, new }) in changes.iter().enumerate() {
        let _ = write!(out, r#"{}{{"option":"{option}","old":""#, if at == 0 { "" } else { "," });
        json::escape_into(out, old);
        out.extend_from_slice(br#"","new":""#);
        json::escape_into(out, new);
        out.extend_from_slice(b"\"}");
    }
}

/// `{"id":…,"ok":true,"epoch":"…","number":N}`: the lines of a stream follow, and go on from this number.
pub fn following(out: &mut Vec<u8>, id: &str, epoch: u64, number: u64) {
    let _ = writeln!(out, r#"{{"id":{id},"ok":true,"epoch":"{epoch:016x}","number":{number}}}"#);
}

/// `{"id":…,"ok":true,"channels":[{"channel":"…","subscribers":N,"messages":N}],"addresses":[{"address":"…","connections":N}]}`
pub fn busiest(out: &mut Vec<u8>, id: &str, channels: Best<BusyChannel>, addresses: Best<BusyAddress>) {
    let _ = write!(out, r#"{{"id":{id},"ok":true,"channels":["#);
    let mut items = Vec::new();
    for BusyChannel { channel, subscribers, messages } in channels.ranked(|busy| busy.channel.as_channel().as_str()) {
        separate(&mut items);
        let name = channel.as_channel().as_str();
        let _ = write!(items, r#"{{"channel":"{name}","subscribers":{subscribers},"messages":{messages}}}"#);
    }
    out.append(&mut items);
    out.extend_from_slice(br#"],"addresses":["#);
    for BusyAddress { address, connections } in addresses.ranked(|busy| &busy.address) {
        separate(&mut items);
        let _ = write!(items, r#"{{"address":"{address}","connections":{connections}}}"#);
    }
    out.append(&mut items);
    out.extend_from_slice(b"]}\n");
}

/// `{"id":…,"ok":true,"stats":{…},"shards":[{…}]}`
pub fn stats(out: &mut Vec<u8>, id: &str, shards: &[Stats]) {
    let mut sum = Stats::default();
    shards.iter().for_each(|stats| sum.add(stats));
    let _ = write!(out, r#"{{"id":{id},"ok":true,"stats":"#);
    numbers(out, &sum);
    out.extend_from_slice(br#","shards":["#);
    for (at, stats) in shards.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        numbers(out, stats);
    }
    out.extend_from_slice(b"]}\n");
}

fn numbers(out: &mut Vec<u8>, stats: &Stats) {
    for (at, (name, value)) in stats.values().enumerate() {
        let _ = write!(out, r#"{}"{name}":{value}"#, if at == 0 { '{' } else { ',' });
    }
    out.push(b'}');
}

fn connection_members(out: &mut Vec<u8>, connection: &ConnectionInfo) {
    let ConnectionInfo { socket_id, address, shard, age_s, subscriptions, outbox_bytes } = connection;
    let _ = write!(out, r#""socket_id":"{socket_id}","address":"#);
    let _ = match address {
        Some(address) => write!(out, r#""{}""#, addresses::written(*address)),
        None => write!(out, "null"),
    };
    let _ = write!(
        out,
        r#","shard":{shard},"age_s":{age_s},"subscriptions":{subscriptions},"outbox_bytes":{outbox_bytes}"#
    );
}

fn separate(items: &mut Vec<u8>) {
    if !items.is_empty() {
        items.push(b',');
    }
}

impl Refusal {
    /// What programs read (PROTOCOL.md, The admin socket).
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::MalformedRequest(_) => "malformed_request",
            Refusal::UnknownCommand => "unknown_command",
            Refusal::MissingMember(_) => "missing_member",
            Refusal::InvalidChannel => "invalid_channel",
            Refusal::ReservedEvent => "reserved_event",
            Refusal::NotFound(_) => "not_found",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::TooMany { .. } => "too_many",
            Refusal::InvalidConfiguration(_) => "invalid_configuration",
            Refusal::GoingDown => "going_down",
        }
    }

    /// What people read.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        self.text_into(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Appends what people read, as it stands between quotes.
    fn text_into(&self, out: &mut Vec<u8>) {
        let text = match self {
            Refusal::MalformedRequest(text) | Refusal::NotFound(text) => text,
            Refusal::UnknownCommand => {
                "unknown command: there are publish, channels, channel, connections, connection, disconnect, unsubscribe, \
                 events, tail, busiest, stats, reload, drain, shed and ping"
            }
            Refusal::MissingMember(name) => {
                json::escape_into(out, name);
                " is missing"
            }
            Refusal::InvalidChannel => channel::RULE,
            Refusal::ReservedEvent => "event names starting with socket: are reserved",
            Refusal::TooLarge { what, limit } => {
                let _ = write!(out, "over the limit of {limit} ");
                json::escape_into(out, what);
                ": send less at once"
            }
            Refusal::TooMany { what, limit } => {
                let _ = write!(out, "there are {limit} {what}, and may not be more: end one first");
                return;
            }
            Refusal::InvalidConfiguration(text) => text,
            Refusal::GoingDown => "the server is going down",
        };
        json::escape_into(out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(append: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = b"what was there\n".to_vec();
        append(&mut out);
        let line = std::str::from_utf8(&out).unwrap().strip_prefix("what was there\n").unwrap();
        assert_eq!(line.strip_suffix('\n'), Some(expected));
        serde_json::from_str::<serde::de::IgnoredAny>(line).unwrap();
    }

    #[test]
    fn good_news() {
        check(|out| done(out, "null"), r#"{"id":null,"ok":true}"#);
        check(|out| following(out, "1", 255, 41), r#"{"id":1,"ok":true,"epoch":"00000000000000ff","number":41}"#);
        check(|out| done(out, r#"{"a": "\u0062"}"#), r#"{"id":{"a": "\u0062"},"ok":true}"#);
        check(|out| published(out, "1", 3), r#"{"id":1,"ok":true,"subscribers":3}"#);
        check(|out| leaving(out, "1", 3, 60_000), r#"{"id":1,"ok":true,"connections":3,"over_ms":60000}"#);
        check(|out| published(out, "\"é\"", u64::MAX), r#"{"id":"é","ok":true,"subscribers":18446744073709551615}"#);
    }

    #[test]
    fn the_busiest_come_first() {
        let (mut channels, mut addresses) = (Best::new(5), Best::new(5));
        for (name, subscribers, messages) in [("a", 1, 7), ("b:1", 20, 0)] {
            let channel = Channel::parse(name).unwrap().into();
            channels.offer((subscribers, 0), || BusyChannel { channel, subscribers, messages });
        }
        for (ip, connections) in [("192.0.2.7", 3), ("2001:db8::7", 4)] {
            let address = addresses::Address::of(ip.parse().unwrap());
            addresses.offer((u64::from(connections), 0), || BusyAddress { address, connections });
        }
        check(
            |out| busiest(out, "1", channels, addresses),
            r#"{"id":1,"ok":true,"channels":[{"channel":"b:1","subscribers":20,"messages":0},{"channel":"a","subscribers":1,"messages":7}],"addresses":[{"address":"2001:db8::/64","connections":4},{"address":"192.0.2.7","connections":3}]}"#,
        );
        let nothing = r#"{"id":1,"ok":true,"channels":[],"addresses":[]}"#;
        check(|out| busiest(out, "1", Best::new(1), Best::new(1)), nothing);
    }

    #[test]
    fn a_reload_reports_what_it_changed_and_what_it_could_not() {
        let change = |option, old: &str, new: &str| Change { option, old: old.into(), new: new.into() };
        let difference = Difference {
            changes: vec![change("key", "a\"b", "c"), change("log", "info", "warn")],
            restart: vec![change("shards", "1", "2")],
        };
        check(
            |out| reloaded(out, "1", &difference),
            r#"{"id":1,"ok":true,"changes":[{"option":"key","old":"a\"b","new":"c"},{"option":"log","old":"info","new":"warn"}],"restart":[{"option":"shards","old":"1","new":"2"}]}"#,
        );
        check(|out| reloaded(out, "1", &Difference::default()), r#"{"id":1,"ok":true,"changes":[],"restart":[]}"#);
    }

    #[test]
    fn bad_news() {
        let check = |refusal: Refusal, code: &str, error: &str| {
            check(
                |out| refused(out, "2", &refusal),
                &format!(r#"{{"id":2,"ok":false,"code":"{code}","error":"{error}"}}"#),
            );
        };
        check(Refusal::ReservedEvent, "reserved_event", "event names starting with socket: are reserved");
        check(Refusal::MalformedRequest("no \"JSON\""), "malformed_request", r#"no \"JSON\""#);
        check(Refusal::GoingDown, "going_down", "the server is going down");
        check(Refusal::NotFound("no such connection"), "not_found", "no such connection");
        check(Refusal::MissingMember("event"), "missing_member", "event is missing");
        let error = "over the limit of 262144 bytes of data: send less at once";
        check(Refusal::TooLarge { what: "bytes of data", limit: 262_144 }, "too_large", error);
        let error = "there are 64 consumers of events, and may not be more: end one first";
        check(Refusal::TooMany { what: "consumers of events", limit: 64 }, "too_many", error);
        let error = "unknown command: there are publish, channels, channel, connections, connection, disconnect, \
                     unsubscribe, events, tail, busiest, stats, reload, drain, shed and ping";
        check(Refusal::UnknownCommand, "unknown_command", error);
        let error = "a channel name is 1 to 200 bytes of A-Z a-z 0-9 _ - = @ , . ; : / \
                     (no : after private-, and presence- is reserved)";
        check(Refusal::InvalidChannel, "invalid_channel", error);
    }
}
