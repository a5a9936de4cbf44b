//! Messages to clients. Each function appends one whole, unmasked WebSocket text frame to `out`. `channel` arguments
//! are put between quotes unchanged: they are legal names, or the client's own spelling.

use crate::protocol::socket_id::SocketId;
use crate::protocol::{channel, json};
use crate::wire::frame::{Opcode, encode_header};
use std::io::Write;

/// Why a request was refused; the text is for people, the code for programs (PROTOCOL.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorCode {
    AlreadySubscribed,
    NotSubscribed,
    InvalidChannel,
    AuthRequired,
    AuthInvalid,
    TooManySubscriptions {
        max: usize,
    },
    MalformedMessage(&'static str),
    UnknownEvent,
    RateLimited,
    /// Subscribes and unsubscribes.
    TooManyChanges {
        per_second: u32,
    },
}

/// `socket:connected`
pub fn connected(out: &mut Vec<u8>, socket_id: SocketId, heart_interval_s: u32, heart_timeout_s: u32) {
    measured(out, |out| {
        out.extend_from_slice(br#"{"event":"socket:connected","data":{"socket_id":""#);
        out.extend_from_slice(&socket_id.uuid());
        let _ = write!(out, r#"","heart":{{"interval":{heart_interval_s},"timeout":{heart_timeout_s}}}}}}}"#);
    });
}

/// `socket:subscribed`
pub fn subscribed(out: &mut Vec<u8>, channel: &str) {
    text(out, [r#"{"event":"socket:subscribed","channel":""#, channel, r#""}"#]);
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

/// `socket:error`
pub fn error(out: &mut Vec<u8>, code: ErrorCode) {
    refusal(out, "socket:error", None, code);
}

/// A business message. `event` is the name as the publisher wrote it between the quotes; `data` is raw JSON.
pub fn message(out: &mut Vec<u8>, channel: &str, event: &str, data: Option<&str>) {
    text(out, message_parts(channel, event, data));
}

/// Number of bytes that [`message`] appends.
pub fn message_len(channel: &str, event: &str, data: Option<&str>) -> usize {
    let payload_len = len(&message_parts(channel, event, data));
    // RFC 6455 §5.2: the length takes 7, 16 or 64 bits.
    let header_len = match payload_len {
        ..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    header_len + payload_len
}

fn message_parts<'a>(channel: &'a str, event: &'a str, data: Option<&'a str>) -> [&'a str; 7] {
    let (before, data, after) = data.map_or((r#""}"#, "", ""), |data| (r#"","data":"#, data, "}"));
    [r#"{"event":""#, event, r#"","channel":""#, channel, before, data, after]
}

impl ErrorCode {
    /// The code, for programs.
    pub fn code(self) -> &'static str {
        match self {
            ErrorCode::AlreadySubscribed => "already_subscribed",
            ErrorCode::NotSubscribed => "not_subscribed",
            ErrorCode::InvalidChannel => "invalid_channel",
            ErrorCode::AuthRequired => "auth_required",
            ErrorCode::AuthInvalid => "auth_invalid",
            ErrorCode::TooManySubscriptions { .. } => "too_many_subscriptions",
            ErrorCode::MalformedMessage(_) => "malformed_message",
            ErrorCode::UnknownEvent => "unknown_event",
            ErrorCode::RateLimited | ErrorCode::TooManyChanges { .. } => "rate_limited",
        }
    }
    /// Appends the text for people, escaped for a JSON string.
    fn text_into(self, out: &mut Vec<u8>) {
        let text = match self {
            ErrorCode::AlreadySubscribed => "the connection is already subscribed to the channel",
            ErrorCode::NotSubscribed => "the connection is not subscribed to the channel",
            ErrorCode::InvalidChannel => channel::RULE,
            ErrorCode::AuthRequired => "auth is missing: a private channel needs a signature from the backend",
            ErrorCode::AuthInvalid => {
                "auth is not a signature of this socket_id, channel and channel_data: request one from the backend"
            }
            ErrorCode::TooManySubscriptions { max } => {
                let _ =
                    write!(out, "the connection has {max} subscriptions, the limit: unsubscribe from a channel first");
                return;
            }
            ErrorCode::TooManyChanges { per_second } => {
                let _ = write!(
                    out,
                    "the connection subscribes and unsubscribes more than {per_second} times a second: try again later"
                );
                return;
            }
            ErrorCode::MalformedMessage(text) => text,
            ErrorCode::UnknownEvent => {
                "unknown event: a client may send socket:subscribe, socket:unsubscribe, socket:ping and socket:pong"
            }
            ErrorCode::RateLimited => {
                "the rate limit was exceeded and the message was not processed: send it again later, and fewer per second"
            }
        };
        json::escape_into(out, text);
    }
}

fn refusal(out: &mut Vec<u8>, event: &str, channel: Option<&str>, code: ErrorCode) {
    measured(out, |out| {
        extend(out, &[r#"{"event":""#, event]);
        if let Some(channel) = channel {
            extend(out, &[r#"","channel":""#, channel]);
        }
        extend(out, &[r#"","data":{"error":""#]);
        code.text_into(out);
        extend(out, &[r#"","code":""#, code.code(), r#""}}"#]);
    });
}

/// Appends a frame with the payload `parts`, concatenated.
fn text<const N: usize>(out: &mut Vec<u8>, parts: [&str; N]) {
    encode_header(out, Opcode::Text, len(&parts));
    extend(out, &parts);
}

/// Appends a frame whose payload `write` appends. For rare messages: the payload is moved to make room for the header.
fn measured(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let payload_len = out.len() - start;
    encode_header(out, Opcode::Text, payload_len);
    let header_len = out.len() - start - payload_len;
    out[start..].rotate_right(header_len);
}

fn extend(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn len(parts: &[&str]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOCKET_ID: SocketId = SocketId { high: 0x1ba1_b6cb_0127_48f8, low: 0xb5a5_9fd7_9a7c_68a6 };

    /// The payload of the only frame in `frame`, read independently of the code under test.
    fn payload(frame: &[u8]) -> &str {
        assert_eq!(frame[0], 0x81, "final text frame");
        let (header_len, payload_len) = match frame[1] {
            126 => (4, u64::from(u16::from_be_bytes(frame[2..4].try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(frame[2..10].try_into().unwrap())),
            len => (2, u64::from(len)),
        };
        assert_eq!(payload_len, (frame.len() - header_len) as u64, "the length is wrong, or the frame is masked");
        std::str::from_utf8(&frame[header_len..]).unwrap()
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
        check(|out| subscribed(out, "user:13"), r#"{"event":"socket:subscribed","channel":"user:13"}"#);
        check(|out| unsubscribed(out, "user:13"), r#"{"event":"socket:unsubscribed","channel":"user:13"}"#);
        check(ping, r#"{"event":"socket:ping"}"#);
        check(|out| pong(out, b"1"), r#"{"event":"socket:pong","data":{"reply":1}}"#);
        check(|out| pong(out, br#""a\u0062""#), r#"{"event":"socket:pong","data":{"reply":"a\u0062"}}"#);
        check(|out| pong(out, b"-1.0E+999"), r#"{"event":"socket:pong","data":{"reply":-1.0E+999}}"#);
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
            (ErrorCode::AuthInvalid, "auth_invalid"),
            (ErrorCode::TooManySubscriptions { max: 128 }, "too_many_subscriptions"),
            (ErrorCode::MalformedMessage("a \"quoted\" \\ text\n"), "malformed_message"),
            (ErrorCode::UnknownEvent, "unknown_event"),
            (ErrorCode::RateLimited, "rate_limited"),
            (ErrorCode::TooManyChanges { per_second: 128 }, "rate_limited"),
        ] {
            let mut out = Vec::new();
            error(&mut out, error_code);
            let value: serde_json::Value = serde_json::from_str(payload(&out)).unwrap();
            assert_eq!(value["event"], "socket:error");
            assert_eq!(value["data"]["code"], code);
            assert_eq!(value.as_object().unwrap().len(), 2);
            assert_eq!(value["data"].as_object().unwrap().len(), 2);
            match error_code {
                ErrorCode::MalformedMessage(text) => assert_eq!(value["data"]["error"], text),
                ErrorCode::TooManySubscriptions { .. } | ErrorCode::TooManyChanges { .. } => {
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
        let check = |event, data, expected| check(|out| message(out, "user:13", event, data), expected);
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
    fn the_length_is_known_beforehand_on_both_sides_of_every_header() {
        let empty = message_len("c", "e", Some("")) - 2;
        for payload_len in [empty, 124, 125, 126, 127, 65_534, 65_535, 65_536, 65_537, 300_000] {
            let data = " ".repeat(payload_len - empty);
            let mut out = Vec::new();
            message(&mut out, "c", "e", Some(&data));
            assert_eq!(payload(&out).len(), payload_len);
            assert_eq!(out.len(), message_len("c", "e", Some(&data)));
        }
    }

    proptest! {
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
