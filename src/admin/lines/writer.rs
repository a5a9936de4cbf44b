//! Writes replies as lines of the admin socket. Pure. Each function appends one line, newline included.

use crate::api::publish::Placed;
use crate::api::value::epoch_digits;
use crate::api::{Published, Refusal, Reply};
use crate::protocol::json;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use std::io::{self, Write};

/// `{"id":…,"ok":true,…}`
pub fn reply(out: &mut Vec<u8>, id: &str, reply: &Reply) {
    members(out, id, reply);
}

fn members(out: &mut Vec<u8>, id: &str, reply: &impl Serialize) {
    let _ = write!(out, r#"{{"id":{id},"ok":true"#);
    let start = out.len();
    object(out, reply);
    // The members of the reply follow these two.
    match &out[start..] {
        b"{}" => _ = out.remove(start),
        _ => out[start] = b',',
    }
    out.push(b'\n');
}

/// `{"id":…,"ok":true,"subscribers":N,…}`
pub fn published(out: &mut Vec<u8>, id: &str, published: &Published) {
    match published.positions.is_empty() {
        true => published_to_one(out, id, published.subscribers, published.placed),
        false => members(out, id, published),
    }
}

/// The same, for a publish to one channel. Written without serde_json, because this reply is sent hundreds of thousands of
/// times a second.
pub fn published_to_one(out: &mut Vec<u8>, id: &str, subscribers: u64, placed: Option<Placed>) {
    for part in [r#"{"id":"#, id, r#","ok":true,"subscribers":"#, itoa::Buffer::new().format(subscribers)] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(Placed { epoch, offset, is_duplicate }) = placed {
        if let Some(offset) = offset {
            let mut position = *br#","epoch":"0123456789abcdef","offset":"#;
            position[10..26].copy_from_slice(&epoch_digits(epoch));
            out.extend_from_slice(&position);
            out.extend_from_slice(itoa::Buffer::new().format(offset.get()).as_bytes());
        }
        if is_duplicate {
            out.extend_from_slice(br#","duplicate":true"#);
        }
    }
    out.extend_from_slice(b"}\n");
}

/// `{"id":…,"ok":false,"code":"…","error":"…"}`
pub fn refused(out: &mut Vec<u8>, id: &str, refusal: &Refusal) {
    error(out, id, refusal.code(), &refusal.text());
}

/// The same, for a code and a text.
pub fn error(out: &mut Vec<u8>, id: &str, code: &str, text: &str) {
    let _ = write!(out, r#"{{"id":{id},"ok":false,"code":"{code}","error":""#);
    json::escape_into(out, text);
    out.extend_from_slice(b"\"}\n");
}

/// Writes JSON on one line. Characters that a terminal does not show are escaped.
pub fn object(out: &mut Vec<u8>, value: &impl Serialize) {
    // Replies hold only values that can be serialized, and writing to a Vec cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(out, Visible));
}

/// Escapes the characters that [`json::is_unseen`] selects.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.chars().any(json::is_unseen) {
            let mut escaped = Vec::new();
            json::escape_into(&mut escaped, fragment);
            return writer.write_all(&escaped);
        }
        CompactFormatter.write_string_fragment(writer, fragment)
    }

    /// JSON that was published keeps its bytes, but for the line breaks between its tokens.
    fn write_raw_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for line in fragment.split_inclusive(['\n', '\r']) {
            match line.strip_suffix(['\n', '\r']) {
                Some(line) => write!(writer, "{line} ")?,
                None => writer.write_all(line.as_bytes())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::history::{HistoryPage, Kept};
    use crate::api::operation::{BusyAddress, BusyChannel, OPERATIONS, PresentUser};
    use crate::config::{Change, Difference};
    use crate::protocol::channel::Channel;
    use crate::protocol::channel::ChannelName;
    use crate::protocol::position::Position;
    use std::num::NonZeroU64;

    #[track_caller]
    fn check(append: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = b"what was there\n".to_vec();
        append(&mut out);
        let line = std::str::from_utf8(&out).unwrap().strip_prefix("what was there\n").unwrap();
        assert_eq!(line.strip_suffix('\n'), Some(expected));
        serde_json::from_str::<serde::de::IgnoredAny>(line).unwrap();
    }

    #[track_caller]
    fn check_reply(id: &str, answer: &Reply, expected: &str) {
        check(|out| reply(out, id, answer), expected);
    }

    #[test]
    fn replies_carry_the_id_as_written_and_their_members() {
        let done = Reply::Done {};
        check_reply("null", &done, r#"{"id":null,"ok":true}"#);
        check_reply(r#"{"a": "\u0062"}"#, &done, r#"{"id":{"a": "\u0062"},"ok":true}"#);
        let following = Reply::Following { epoch: 255, number: 41 };
        check_reply("1", &following, r#"{"id":1,"ok":true,"epoch":"00000000000000ff","number":41}"#);
        let leaving = Reply::Leaving { connections: 3, over_ms: 60_000 };
        check_reply("1", &leaving, r#"{"id":1,"ok":true,"connections":3,"over_ms":60000}"#);
    }

    #[test]
    fn a_publish_is_answered_with_its_places() {
        let check = |id: &str, answer: Published, expected: &str| {
            check(|out| published(out, id, &answer), expected);
            check_reply(id, &Reply::Published(answer), expected);
        };
        check("1", Published::to(3), r#"{"id":1,"ok":true,"subscribers":3}"#);
        check("\"é\"", Published::to(u64::MAX), r#"{"id":"é","ok":true,"subscribers":18446744073709551615}"#);
        let at = |offset, is_duplicate| Some(Placed { epoch: 255, offset: NonZeroU64::new(offset), is_duplicate });
        let one = |placed| Published { placed, ..Published::to(3) };
        check("1", one(at(7, false)), r#"{"id":1,"ok":true,"subscribers":3,"epoch":"00000000000000ff","offset":7}"#);
        let duplicate = r#"{"id":1,"ok":true,"subscribers":3,"epoch":"00000000000000ff","offset":7,"duplicate":true}"#;
        check("1", one(at(7, true)), duplicate);
        let placed =
            Some(Placed { epoch: 0x0123_4567_89ab_cdef, offset: NonZeroU64::new(1234567890), is_duplicate: false });
        let all_digits = r#"{"id":1,"ok":true,"subscribers":3,"epoch":"0123456789abcdef","offset":1234567890}"#;
        check("1", one(placed), all_digits);
        check("1", one(at(0, true)), r#"{"id":1,"ok":true,"subscribers":3,"duplicate":true}"#);
        let positions = vec![at(7, false), None, at(9, true), at(0, true)];
        let expected = r#"{"id":1,"ok":true,"subscribers":3,"positions":[{"epoch":"00000000000000ff","offset":7},null,{"epoch":"00000000000000ff","offset":9,"duplicate":true},{"duplicate":true}]}"#;
        check("1", Published { positions, ..Published::to(3) }, expected);
    }

    #[test]
    fn a_history_holds_its_messages_as_they_were_published() {
        let kept =
            |offset, event: &str, data: Option<&str>| Kept { offset, event: event.into(), data: data.map(Box::from) };
        let position = |offset| Some(Position { epoch: 255, offset });
        let messages =
            vec![kept(3, r"\u0065\ud83d\ude00", Some("{\"a\":\r\n[1e999,\t\"\\ud83c\u{7f}\"]\n}")), kept(5, "e", None)];
        let page = HistoryPage { position: position(7), complete: false, messages, next: position(5) };
        let expected = "{\"id\":1,\"ok\":true,\"epoch\":\"00000000000000ff\",\"offset\":7,\"complete\":false,\"messages\":[\
                        {\"offset\":3,\"event\":\"\\u0065\\ud83d\\ude00\",\"data\":{\"a\":  [1e999,\t\"\\ud83c\u{7f}\"] }},\
                        {\"offset\":5,\"event\":\"e\"}],\"next\":\"00000000000000ff:5\"}";
        check_reply("1", &Reply::History(Box::new(page)), expected);
        let nothing = HistoryPage { position: None, complete: true, messages: Vec::new(), next: None };
        check_reply("1", &Reply::History(Box::new(nothing)), r#"{"id":1,"ok":true,"complete":true,"messages":[]}"#);
    }

    #[test]
    fn members_are_listed_with_their_info_as_it_was_signed() {
        let user = |user_id: &str, user_info: Option<&str>, connections| PresentUser {
            user_id: user_id.into(),
            user_info: user_info.map(Box::from),
            connections,
        };
        let members = vec![user("1\u{9b}\"", Some("{\"name\" : \"é\"}"), 2), user("12", None, 1)];
        let expected = r#"{"id":1,"ok":true,"count":2,"members":[{"user_id":"1\u009b\"","user_info":{"name" : "é"},"connections":2},{"user_id":"12","connections":1}]}"#;
        check_reply("1", &Reply::Members { count: 2, members }, expected);
        check_reply("1", &Reply::Disconnected { connections: 2 }, r#"{"id":1,"ok":true,"connections":2}"#);
    }

    #[test]
    fn the_busiest_are_two_lists() {
        let channel: ChannelName = Channel::parse("b:1").unwrap().into();
        let channels = vec![BusyChannel { channel, subscribers: 20, messages: 0 }];
        let addresses = vec![BusyAddress { address: "2001:db8::/64".into(), connections: 4 }];
        let expected = r#"{"id":1,"ok":true,"channels":[{"channel":"b:1","subscribers":20,"messages":0}],"addresses":[{"address":"2001:db8::/64","connections":4}]}"#;
        check_reply("1", &Reply::Busiest { channels, addresses }, expected);
        let nothing = r#"{"id":1,"ok":true,"channels":[],"addresses":[]}"#;
        check_reply("1", &Reply::Busiest { channels: Vec::new(), addresses: Vec::new() }, nothing);
    }

    #[test]
    fn a_reload_reports_what_it_changed_and_what_it_could_not() {
        let change = |option, old: &str, new: &str| Change { option, old: old.into(), new: new.into() };
        let difference = Difference {
            changes: vec![change("key", "a\"b", "c\u{202e}\u{9b}"), change("log", "info", "warn")],
            restart: vec![change("shards", "1", "2")],
        };
        check_reply(
            "1",
            &Reply::Reloaded(Box::new(difference)),
            r#"{"id":1,"ok":true,"changes":[{"option":"key","old":"a\"b","new":"c\u202e\u009b"},{"option":"log","old":"info","new":"warn"}],"restart":[{"option":"shards","old":"1","new":"2"}]}"#,
        );
        let nothing = Reply::Reloaded(Box::default());
        check_reply("1", &nothing, r#"{"id":1,"ok":true,"changes":[],"restart":[]}"#);
    }

    #[test]
    fn a_reply_is_small_for_the_sake_of_publishes() {
        assert!(size_of::<Result<Reply, Refusal>>() <= 128, "{}", size_of::<Result<Reply, Refusal>>());
    }

    #[test]
    fn refusals_have_a_code_and_a_text() {
        let check = |refusal: Refusal, code: &str, error: &str| {
            check(
                |out| refused(out, "2", &refusal),
                &format!(r#"{{"id":2,"ok":false,"code":"{code}","error":"{error}"}}"#),
            );
        };
        check(Refusal::ReservedEvent("socket:"), "reserved_event", "event names starting with socket: are reserved");
        check(Refusal::malformed("no \"JSON\""), "malformed_request", r#"no \"JSON\""#);
        check(Refusal::GoingDown, "going_down", "the server is going down");
        check(Refusal::NotFound("no such connection"), "not_found", "no such connection");
        check(Refusal::MissingMember("event"), "missing_member", "event is missing");
        let error = "over the limit of 262144 bytes of data: send less at once";
        check(Refusal::TooLarge { what: "bytes of data", limit: 262_144 }, "too_large", error);
        let error = "over the limit of 123 bytes of reason: use a shorter one";
        check(Refusal::TooLarge { what: "bytes of reason", limit: 123 }, "too_large", error);
        let error = "there are already 64 consumers of events, the limit: end one first";
        check(Refusal::TooMany { what: "consumers of events", limit: 64 }, "too_many", error);
        let error = "unknown command; the commands are publish, channels, channel, subscribers, history, members, connections, \
                     connection, disconnect, unsubscribe, events, tail, busiest, rule, stats, reload, drain, shed, console_token, ping";
        check(Refusal::UnknownCommand(OPERATIONS), "unknown_command", error);
        let error = "a channel name is 1 to 200 bytes of A-Z a-z 0-9 _ - = @ , . ; : / \
                     (no : after private- or presence-)";
        check(Refusal::InvalidChannel, "invalid_channel", error);
    }
}
