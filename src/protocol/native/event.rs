//! Messages to clients. Each function appends one whole, unmasked WebSocket text frame to `out`. `channel` arguments
//! are put between quotes unchanged: they are legal names, or the client's own spelling.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::event::{Envelope, Subscribed};
use crate::protocol::json;
use crate::protocol::position::Position;
use crate::protocol::socket_id::SocketId;
use crate::wire::frame::{Opcode, append_text, encode_header};
use std::io::Write;

/// `socket:connected`
pub fn connected(out: &mut Vec<u8>, socket_id: SocketId, heart_interval_s: u32, heart_timeout_s: u32) {
    append_text(out, |out| {
        out.extend_from_slice(br#"{"event":"socket:connected","data":{"socket_id":""#);
        out.extend_from_slice(&socket_id.uuid());
        let _ = write!(out, r#"","heart":{{"interval":{heart_interval_s},"timeout":{heart_timeout_s}}}}}}}"#);
    });
}

/// `socket:subscribed`
pub fn subscribed(out: &mut Vec<u8>, channel: &str, with: &Subscribed<'_>) {
    const BEFORE: &str = r#"{"event":"socket:subscribed","channel":""#;
    let &Subscribed { position, recovered, presence } = with;
    if position.is_none() && recovered.is_none() && presence.is_none() {
        return text(out, [BEFORE, channel, r#""}"#]);
    }
    append_text(out, |out| {
        extend(out, &[BEFORE, channel, r#"","data":{"#]);
        if let Some(Position { epoch, offset }) = position {
            let _ = write!(out, r#""epoch":"{epoch:016x}","offset":{offset},"#);
        }
        if let Some(recovered) = recovered {
            let _ = write!(out, r#""recovered":{recovered},"#);
        }
        if let Some(presence) = presence {
            extend(out, &[r#""presence":"#, presence, ","]);
        }
        // The comma behind the last member.
        out.pop();
        extend(out, &["}}"]);
    });
}

/// `socket:subscribe.error`
pub fn subscribe_error(out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
    refusal(out, "socket:subscribe.error", Some(channel), code);
}

/// `socket:unsubscribed`
pub fn unsubscribed(out: &mut Vec<u8>, channel: &str) {
    text(out, [r#"{"event":"socket:unsubscribed","channel":""#, channel, r#""}"#]);
}

/// `socket:unsubscribe.error`
pub fn unsubscribe_error(out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
    refusal(out, "socket:unsubscribe.error", Some(channel), code);
}

/// `socket:ping`
pub fn ping(out: &mut Vec<u8>) {
    text(out, [r#"{"event":"socket:ping"}"#]);
}

/// `socket:pong`; `reply` is raw JSON.
pub fn pong(out: &mut Vec<u8>, reply: &[u8]) {
    // Written by hand, so that the constant parts compile to a few stores.
    const BEFORE: &[u8] = br#"{"event":"socket:pong","data":{"reply":"#;
    const AFTER: &[u8] = b"}}";
    encode_header(out, Opcode::Text, BEFORE.len() + reply.len() + AFTER.len());
    out.extend_from_slice(BEFORE);
    out.extend_from_slice(reply);
    out.extend_from_slice(AFTER);
}

/// `socket:signed_in`
pub fn signed_in(out: &mut Vec<u8>, user_id: &str) {
    append_text(out, |out| {
        extend(out, &[r#"{"event":"socket:signed_in","data":{"user_id":""#]);
        json::escape_into(out, user_id);
        extend(out, &[r#""}}"#]);
    });
}

/// `socket:signin.error`
pub fn signin_error(out: &mut Vec<u8>, code: ErrorCode) {
    refusal(out, "socket:signin.error", None, code);
}

/// `socket:error` about a message to a channel.
pub fn channel_error(out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
    refusal(out, "socket:error", Some(channel), code);
}

/// `socket:error`
pub fn error(out: &mut Vec<u8>, code: ErrorCode) {
    refusal(out, "socket:error", None, code);
}

/// A business message.
#[inline]
pub fn message(out: &mut Vec<u8>, envelope: &Envelope<'_>) {
    if envelope.offset.is_none() && envelope.user_id.is_none() {
        return text(out, parts(envelope, "}"));
    }
    message_with_end(out, envelope);
}

/// Appends a message that has members after `data`.
#[inline(never)]
fn message_with_end(out: &mut Vec<u8>, envelope: &Envelope<'_>) {
    let mut digits = itoa::Buffer::new();
    let [before_offset, offset] = envelope.offset.map_or([""; 2], |offset| [OFFSET, digits.format(offset.get())]);
    let [before_id, user_id, after_id] = envelope.user_id.map_or([""; 3], |user_id| [USER_ID, user_id, r#"""#]);
    let end = [before_offset, offset, before_id, user_id, after_id, "}"];
    encode_header(out, Opcode::Text, len(&parts(envelope, "")) + len(&end));
    extend(out, &parts(envelope, ""));
    extend(out, &end);
}

/// The payload, with `end` behind `data`.
#[inline]
fn parts<'a>(envelope: &Envelope<'a>, end: &'a str) -> [&'a str; 7] {
    let (before, channel) = envelope.channel.map_or(("", ""), |channel| (r#"","channel":""#, channel));
    let (middle, data) = envelope.data.map_or((r#"""#, ""), |data| (r#"","data":"#, data));
    [r#"{"event":""#, envelope.event, before, channel, middle, data, end]
}

fn refusal(out: &mut Vec<u8>, event: &str, channel: Option<&str>, code: ErrorCode) {
    append_text(out, |out| {
        extend(out, &[r#"{"event":""#, event]);
        if let Some(channel) = channel {
            extend(out, &[r#"","channel":""#, channel]);
        }
        extend(out, &[r#"","data":{"error":""#]);
        json::escape_into(out, &code.text());
        extend(out, &[r#"","code":""#, code.code(), r#""}}"#]);
    });
}

/// Appends a frame with the payload `parts`, concatenated.
#[inline]
fn text<const N: usize>(out: &mut Vec<u8>, parts: [&str; N]) {
    encode_header(out, Opcode::Text, len(&parts));
    extend(out, &parts);
}

#[inline]
fn extend(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[inline]
fn len(parts: &[&str]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

const OFFSET: &str = r#","offset":"#;
const USER_ID: &str = r#","user_id":""#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::auth::Failure;
    use crate::protocol::position::OFFSET_MAX;
    use crate::wire::frame::split_text;
    use proptest::prelude::*;
    use std::num::NonZeroU64;

    const SOCKET_ID: SocketId = SocketId { high: 0x1ba1_b6cb_0127_48f8, low: 0xb5a5_9fd7_9a7c_68a6 };

    /// The payload of the only frame in `frame`.
    fn payload(frame: &[u8]) -> &str {
        let (payload, rest) = split_text(frame);
        assert!(rest.is_empty(), "more than one frame");
        payload
    }

    fn envelope<'a>(channel: &'a str, event: &'a str, data: Option<&'a str>) -> Envelope<'a> {
        Envelope { channel: Some(channel), event, data, offset: None, user_id: None }
    }

    #[track_caller]
    fn check(append: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = b"earlier bytes".to_vec();
        append(&mut out);
        let payload = payload(out.strip_prefix(b"earlier bytes").unwrap());
        assert_eq!(payload, expected);
        serde_json::from_str::<serde::de::IgnoredAny>(payload).unwrap();
    }

    #[test]
    fn system_events_have_the_founding_documents_members() {
        let data = r#"{"socket_id":"1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6","heart":{"interval":30,"timeout":25}}"#;
        check(|out| connected(out, SOCKET_ID, 30, 25), &format!(r#"{{"event":"socket:connected","data":{data}}}"#));
        check(
            |out| subscribed(out, "user:13", &Subscribed::default()),
            r#"{"event":"socket:subscribed","channel":"user:13"}"#,
        );
        check(|out| unsubscribed(out, "user:13"), r#"{"event":"socket:unsubscribed","channel":"user:13"}"#);
        check(ping, r#"{"event":"socket:ping"}"#);
        check(|out| pong(out, b"1"), r#"{"event":"socket:pong","data":{"reply":1}}"#);
        check(|out| pong(out, br#""a\u0062""#), r#"{"event":"socket:pong","data":{"reply":"a\u0062"}}"#);
        check(|out| pong(out, b"-1.0E+999"), r#"{"event":"socket:pong","data":{"reply":-1.0E+999}}"#);
    }

    #[test]
    fn subscribed_has_the_data_that_there_is() {
        let check = |position, recovered, presence, data: &str| {
            let with = Subscribed { position, recovered, presence };
            let expected = format!(r#"{{"event":"socket:subscribed","channel":"a","data":{data}}}"#);
            check(|out| subscribed(out, "a", &with), &expected);
        };
        let position = Some(Position { epoch: 255, offset: OFFSET_MAX });
        let presence = Some(r#"{"count":2}"#);
        check(position, None, None, r#"{"epoch":"00000000000000ff","offset":9007199254740991}"#);
        check(None, Some(false), None, r#"{"recovered":false}"#);
        check(None, None, presence, r#"{"presence":{"count":2}}"#);
        let start = Some(Position { epoch: u64::MAX, offset: 0 });
        let all = r#"{"epoch":"ffffffffffffffff","offset":0,"recovered":true,"presence":{"count":2}}"#;
        check(start, Some(true), presence, all);
    }

    #[test]
    fn replies_to_sign_ins_and_client_events_have_their_members() {
        check(|out| signed_in(out, "12"), r#"{"event":"socket:signed_in","data":{"user_id":"12"}}"#);
        check(|out| signed_in(out, "é\"\n"), r#"{"event":"socket:signed_in","data":{"user_id":"é\"\n"}}"#);
        check(
            |out| signin_error(out, ErrorCode::InvalidData("why")),
            r#"{"event":"socket:signin.error","data":{"error":"why","code":"invalid_data"}}"#,
        );
        check(
            |out| channel_error(out, "a", ErrorCode::ClientEventRefused("why")),
            r#"{"event":"socket:error","channel":"a","data":{"error":"why","code":"client_event_refused"}}"#,
        );
    }

    #[test]
    fn the_founding_documents_error_texts_are_exact() {
        check(
            |out| subscribe_error(out, "user:13", ErrorCode::AlreadySubscribed),
            r#"{"event":"socket:subscribe.error","channel":"user:13","data":{"error":"the connection is already subscribed to the channel","code":"already_subscribed"}}"#,
        );
        check(
            |out| unsubscribe_error(out, "user:13", ErrorCode::NotSubscribed),
            r#"{"event":"socket:unsubscribe.error","channel":"user:13","data":{"error":"the connection is not subscribed to the channel","code":"not_subscribed"}}"#,
        );
    }

    #[test]
    fn every_error_is_well_formed_and_its_code_fixed() {
        for (error_code, code) in [
            (ErrorCode::AlreadySubscribed, "already_subscribed"),
            (ErrorCode::NotSubscribed, "not_subscribed"),
            (ErrorCode::InvalidChannel, "invalid_channel"),
            (ErrorCode::AuthRequired, "auth_required"),
            (ErrorCode::AuthInvalid(Failure::NoColon), "auth_invalid"),
            (ErrorCode::TooManySubscriptions { max: 128 }, "too_many_subscriptions"),
            (ErrorCode::MalformedMessage("a \"quoted\" \\ text\n"), "malformed_message"),
            (ErrorCode::UnknownEvent, "unknown_event"),
            (ErrorCode::RateLimited, "rate_limited"),
            (ErrorCode::TooManyChanges { per_second: 128 }, "rate_limited"),
            (ErrorCode::SignInAuthRequired, "auth_required"),
            (ErrorCode::SignInAuthInvalid(Failure::NoColon), "auth_invalid"),
            (ErrorCode::AlreadySignedIn, "already_signed_in"),
            (ErrorCode::OtherUser, "auth_required"),
            (ErrorCode::InvalidData("why"), "invalid_data"),
            (ErrorCode::UserInfoTooLarge { bytes: 129, max: 128 }, "invalid_data"),
            (ErrorCode::MalformedSince, "malformed_since"),
            (ErrorCode::PresenceFull { max: 128 }, "presence_full"),
            (ErrorCode::ClientEventRefused("why"), "client_event_refused"),
            (ErrorCode::Unavailable, "unavailable"),
        ] {
            let mut out = Vec::new();
            error(&mut out, error_code);
            let value: serde_json::Value = serde_json::from_str(payload(&out)).unwrap();
            assert_eq!(value["event"], "socket:error");
            assert_eq!(value["data"]["code"], code);
            assert_eq!(value.as_object().unwrap().len(), 2);
            assert_eq!(value["data"].as_object().unwrap().len(), 2);
            match error_code {
                ErrorCode::MalformedMessage(text)
                | ErrorCode::InvalidData(text)
                | ErrorCode::ClientEventRefused(text) => assert_eq!(value["data"]["error"], text),
                ErrorCode::TooManySubscriptions { .. }
                | ErrorCode::TooManyChanges { .. }
                | ErrorCode::UserInfoTooLarge { .. }
                | ErrorCode::PresenceFull { .. } => {
                    assert!(value["data"]["error"].as_str().unwrap().contains("128"))
                }
                _ => assert!(!value["data"]["error"].as_str().unwrap().is_empty()),
            }
        }
    }

    #[test]
    fn an_illegal_channel_is_echoed_in_the_clients_spelling() {
        let mut out = Vec::new();
        subscribe_error(&mut out, r#"a\u0062 \"c\""#, ErrorCode::InvalidChannel);
        let payload = payload(&out);
        assert!(
            payload.starts_with(r#"{"event":"socket:subscribe.error","channel":"a\u0062 \"c\"","data":{"error":""#)
        );
        assert!(payload.ends_with(r#"","code":"invalid_channel"}}"#));
    }

    #[test]
    fn data_reaches_subscribers_byte_for_byte() {
        let check = |event, data, expected| check(|out| message(out, &envelope("user:13", event, data)), expected);
        check("order.paid", Some(r#"{"id":42}"#), r#"{"event":"order.paid","channel":"user:13","data":{"id":42}}"#);
        check(
            "order.paid",
            Some("{ \"id\" :\t1e999 }"),
            "{\"event\":\"order.paid\",\"channel\":\"user:13\",\"data\":{ \"id\" :\t1e999 }}",
        );
        check("order.paid", Some("null"), r#"{"event":"order.paid","channel":"user:13","data":null}"#);
        check("order.paid", None, r#"{"event":"order.paid","channel":"user:13"}"#);
        check(r#"\u6d88息\n"#, None, r#"{"event":"\u6d88息\n","channel":"user:13"}"#);
    }

    #[test]
    fn an_envelope_holds_what_its_channel_has() {
        let plain = envelope("prices:eur", "tick", Some("1.07"));
        let check = |envelope: Envelope<'_>, expected| check(|out| message(out, &envelope), expected);
        let (offset, user_id) = (NonZeroU64::new(1006), Some(r#"1\"1"#));
        check(Envelope { offset, ..plain }, r#"{"event":"tick","channel":"prices:eur","data":1.07,"offset":1006}"#);
        check(Envelope { offset, data: None, ..plain }, r#"{"event":"tick","channel":"prices:eur","offset":1006}"#);
        check(Envelope { channel: None, ..plain }, r#"{"event":"tick","data":1.07}"#);
        check(Envelope { channel: None, data: None, ..plain }, r#"{"event":"tick"}"#);
        check(Envelope { user_id, ..plain }, r#"{"event":"tick","channel":"prices:eur","data":1.07,"user_id":"1\"1"}"#);
        check(
            Envelope { user_id, offset, ..plain },
            r#"{"event":"tick","channel":"prices:eur","data":1.07,"offset":1006,"user_id":"1\"1"}"#,
        );
    }

    #[test]
    fn a_payload_of_any_length_is_one_frame() {
        let mut empty = Vec::new();
        message(&mut empty, &envelope("c", "e", Some("")));
        let empty = payload(&empty).len();
        for payload_len in [empty, 124, 125, 126, 127, 65_534, 65_535, 65_536, 65_537, 300_000] {
            let data = " ".repeat(payload_len - empty);
            let mut out = Vec::new();
            message(&mut out, &envelope("c", "e", Some(&data)));
            assert_eq!(payload(&out).len(), payload_len);
        }
    }

    proptest! {
        #[test]
        fn a_message_is_one_frame_with_any_members(
            channel in prop::option::of("[a-z]{0,60}"), data in prop::option::of("[1-9]{1,60}"),
            offset in prop::option::of(0u32..64), user_id in prop::option::of("[a-zé]{0,30}"),
        ) {
            let offset = offset.and_then(|shift| NonZeroU64::new(u64::MAX >> shift));
            let (channel, data, user_id) = (channel.as_deref(), data.as_deref(), user_id.as_deref());
            let envelope = Envelope { channel, event: "e", data, offset, user_id };
            let mut out = Vec::new();
            message(&mut out, &envelope);
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(payload(&out)).is_ok());
        }

        #[test]
        fn connected_is_one_frame_with_any_values(high: u64, low: u64, interval: u32, timeout: u32) {
            let mut out = Vec::new();
            connected(&mut out, SocketId { high, low }, interval, timeout);
            let value: serde_json::Value = serde_json::from_str(payload(&out)).unwrap();
            prop_assert_eq!(&value["data"]["socket_id"], &SocketId { high, low }.to_string());
            prop_assert_eq!(&value["data"]["heart"]["interval"], interval);
            prop_assert_eq!(&value["data"]["heart"]["timeout"], timeout);
        }
    }
}
