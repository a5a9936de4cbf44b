//! Messages to Pusher's clients. Each function appends whole, unmasked WebSocket text frames to `out`. `channel` arguments
//! are put between quotes unchanged: they are legal names, or the client's own spelling.
//!
//! The clients need three things. `data` is a JSON string, except in `pusher:error`, where it is an object. Only `code` may be
//! `null`. The `code` of an error that does not close the connection is `null` or at least 4300: some clients
//! reconnect, or give up, when they read another one.

use super::data::{Text, write_text};
use super::handshake::Version;
use crate::protocol::auth::{Attempt, Failure};
use crate::protocol::client_event::NOT_SUBSCRIBED;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::event::Envelope;
use crate::protocol::json::escape_required_into;
use crate::protocol::socket_id::SocketId;
use crate::protocol::user::NO_CHANNEL_DATA;
use crate::wire::frame::append_text;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;

/// `pusher:connection_established`, the first message.
pub fn connection_established(out: &mut Vec<u8>, socket_id: SocketId, activity_timeout_s: u32) {
    append_text(out, |out| {
        let socket_id = socket_id.dotted();
        let _ = write!(
            out,
            r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{socket_id}\",\"activity_timeout\":{activity_timeout_s}}}"}}"#
        );
    });
}

/// `pusher:pong`.
pub fn pong(out: &mut Vec<u8>) {
    append_text(out, |out| out.extend_from_slice(br#"{"event":"pusher:pong","data":"{}"}"#));
}

/// `pusher_internal:subscription_succeeded`. `presence`: the JSON of [`presence`].
pub fn subscription_succeeded(out: &mut Vec<u8>, channel: &str, presence: Option<&str>) {
    of_channel(out, "pusher_internal:subscription_succeeded", channel, presence.unwrap_or("{}"));
}

/// `pusher:cache_miss`: the channel has no message for a new subscriber.
pub fn cache_miss(out: &mut Vec<u8>, channel: &str) {
    of_channel(out, "pusher:cache_miss", channel, "{}");
}

/// `pusher_internal:subscription_count`, for one subscriber.
pub fn subscription_count(out: &mut Vec<u8>, channel: &str, count: u64) {
    of_channel(out, SUBSCRIPTION_COUNT, channel, &text_of_subscription_count(count));
}

/// The data of a `pusher_internal:subscription_count`.
pub fn text_of_subscription_count(count: u64) -> String {
    format!(r#"{{"subscription_count":{count}}}"#)
}

/// A refused subscription. `pusher:subscription_error` is what pusher-js and Swift understand, `pusher:error` what the other
/// clients show; those of protocol 5 and earlier wait for `pusher_internal:subscription_error`.
pub fn subscribe_error(
    out: &mut Vec<u8>,
    version: Version,
    channel: &str,
    code: ErrorCode,
    attempt: Option<&Attempt<'_>>,
) {
    if code == ErrorCode::AlreadySubscribed {
        return error(out, None, None, &format!("Existing subscription to channel {}", shortened(channel)));
    }
    let (kind, status) = kind_and_status(code);
    let text = match code {
        NO_CHANNEL_DATA => {
            let channel = shortened(channel);
            format!("{channel} is a presence channel and subscription must include channel_data").into()
        }
        _ => text_of(code, attempt),
    };
    let mut data = format!(r#"{{"type":"{kind}","error":""#).into_bytes();
    escape_required_into(&mut data, &text);
    let _ = write!(data, r#"","status":{status}}}"#);
    let data = String::from_utf8_lossy(&data);
    of_channel(out, "pusher:subscription_error", channel, &data);
    if version <= Version::V5 {
        of_channel(out, "pusher_internal:subscription_error", channel, &data);
    }
    error(out, None, None, &text);
}

/// `pusher:signin_success`, with the text that the backend signed.
pub fn signin_success(out: &mut Vec<u8>, user_data: &str) {
    let mut data = br#"{"user_data":""#.to_vec();
    escape_required_into(&mut data, user_data);
    data.extend_from_slice(br#""}"#);
    append_text(out, |out| {
        out.extend_from_slice(br#"{"event":"pusher:signin_success","data":""#);
        escape_required_into(out, &String::from_utf8_lossy(&data));
        out.extend_from_slice(br#""}"#);
    });
}

/// `pusher_internal:watchlist_events`: users that are online, and users that are not. One of the lists is not empty.
pub fn watchlist_events(out: &mut Vec<u8>, online: &[&str], offline: &[&str]) {
    let mut data = br#"{"events":["#.to_vec();
    for (name, ids) in [("online", online), ("offline", offline)].into_iter().filter(|(_, ids)| !ids.is_empty()) {
        data.extend_from_slice(if data.ends_with(b"[") { b"" } else { b"," });
        let _ = write!(data, r#"{{"name":"{name}","user_ids":["#);
        for (at, id) in ids.iter().enumerate() {
            data.extend_from_slice(if at > 0 { br#",""# } else { br#"""# });
            escape_required_into(&mut data, id);
            data.push(b'"');
        }
        data.extend_from_slice(b"]}");
    }
    data.extend_from_slice(b"]}");
    append_text(out, |out| {
        out.extend_from_slice(br#"{"event":"pusher_internal:watchlist_events","data":""#);
        escape_required_into(out, &String::from_utf8_lossy(&data));
        out.extend_from_slice(br#""}"#);
    });
}

/// A refused request that is not a subscription.
pub fn request_error(out: &mut Vec<u8>, code: ErrorCode, attempt: Option<&Attempt<'_>>) {
    error(out, None, None, &text_of(code, attempt));
}

/// A refused client event.
pub fn client_event_error(out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
    match code {
        ErrorCode::RateLimited => {
            error(out, Some(4301), Some(channel), "Client event rejected due to rate limit");
        }
        NOT_SUBSCRIBED => {
            let channel = shortened(channel);
            let text = format!("Cannot broadcast client event (connection not subscribed to channel {channel})");
            error(out, None, None, &text);
        }
        _ => error(out, None, None, &text_of(code, None)),
    }
}

/// A message with an event that clients may not send. `event`: as written.
pub fn unsupported_event(out: &mut Vec<u8>, event: &str) {
    error(out, None, None, &format!("Unsupported event received on socket: '{}'", shortened(event)));
}

/// `pusher:error`. `channel`: as written.
pub fn error(out: &mut Vec<u8>, code: Option<u16>, channel: Option<&str>, text: &str) {
    append_text(out, |out| {
        out.extend_from_slice(br#"{"event":"pusher:error","#);
        if let Some(channel) = channel {
            let _ = write!(out, r#""channel":"{channel}","#);
        }
        out.extend_from_slice(br#""data":{"code":"#);
        match code {
            Some(code) => drop(write!(out, "{code}")),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","message":""#);
        escape_required_into(out, text);
        out.extend_from_slice(br#""}}"#);
    });
}

/// A message of a channel, or a change of its members. `text`: see [`Text`].
pub fn message(out: &mut Vec<u8>, envelope: &Envelope<'_>, text: Text<'_>) {
    let &Envelope { channel, event, data, offset: _, user_id } = envelope;
    let (event, data) = match system_name(event) {
        Some(name) => (name, data.map(|data| of_member(name, data))),
        None => (event, data.map(Cow::Borrowed)),
    };
    append_text(out, |out| {
        extend(out, &[r#"{"event":""#, event]);
        if let Some(channel) = channel {
            extend(out, &[r#"","channel":""#, channel]);
        }
        extend(out, &[r#"","data":""#]);
        write_text(out, data.as_deref(), text);
        if let Some(user_id) = user_id {
            extend(out, &[r#"","user_id":""#, user_id]);
        }
        extend(out, &[r#""}"#]);
    });
}

/// Whether this dialect has a name for an event.
pub fn has_name(event: &str) -> bool {
    !event.starts_with("socket:") || system_name(event).is_some()
}

/// The name of one of the server's own events.
fn system_name(event: &str) -> Option<&'static str> {
    match event {
        "socket:member_added" => Some(MEMBER_ADDED),
        "socket:member_removed" => Some("pusher_internal:member_removed"),
        _ => None,
    }
}

/// The data of a change of members. Clients expect a `user_info` where a member is added.
fn of_member<'a>(name: &str, data: &'a str) -> Cow<'a, str> {
    // An id cannot contain these characters, because its quotes are escaped.
    match data.strip_suffix('}') {
        Some(without_end) if name == MEMBER_ADDED && !data.contains(r#"","user_info":"#) => {
            format!(r#"{without_end},"user_info":{{}}}}"#).into()
        }
        _ => data.into(),
    }
}

/// `data` of [`subscription_succeeded`] on a presence channel: the members in the order in which they joined, each as the id
/// between quotes, escaped, and raw JSON about the user.
pub fn presence<'a>(members: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone) -> String {
    let mut data = String::from(r#"{"presence":{"count":"#);
    let _ = write!(data, r#"{},"ids":["#, members.clone().count());
    for (at, (id, _)) in members.clone().enumerate() {
        let _ = write!(data, r#"{}"{id}""#, if at > 0 { "," } else { "" });
    }
    data.push_str(r#"],"hash":{"#);
    for (at, (id, info)) in members.enumerate() {
        let _ = write!(data, r#"{}"{id}":{}"#, if at > 0 { "," } else { "" }, info.unwrap_or("{}"));
    }
    data.push_str("}}}");
    data
}

fn of_channel(out: &mut Vec<u8>, event: &str, channel: &str, data: &str) {
    append_text(out, |out| {
        extend(out, &[r#"{"event":""#, event, r#"","channel":""#, channel, r#"","data":""#]);
        escape_required_into(out, data);
        extend(out, &[r#""}"#]);
    });
}

fn extend(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn kind_and_status(code: ErrorCode) -> (&'static str, u16) {
    match code {
        ErrorCode::AuthRequired | ErrorCode::AuthInvalid(_) | ErrorCode::OtherUser | NO_CHANNEL_DATA => {
            ("AuthError", 401)
        }
        ErrorCode::InvalidChannel => ("InvalidChannel", 400),
        ErrorCode::PresenceFull { .. }
        | ErrorCode::TooManySubscriptions { .. }
        | ErrorCode::UserInfoTooLarge { .. } => ("LimitReached", 403),
        _ => ("InvalidData", 400),
    }
}

/// The text of a refusal. For an invalid signature it also shows the string to sign, which is not secret.
fn text_of(code: ErrorCode, attempt: Option<&Attempt<'_>>) -> Cow<'static, str> {
    match (code, attempt) {
        (ErrorCode::AuthInvalid(failure) | ErrorCode::SignInAuthInvalid(failure), Some(attempt)) => {
            let (key, signature) = attempt.auth.rsplit_once(':').unwrap_or(("", attempt.auth));
            match failure {
                Failure::NoKeyConfigured | Failure::UnknownKey => {
                    format!("Invalid key in subscription auth data: '{}'", shortened(key)).into()
                }
                _ => {
                    let (signed, signature) = (attempt.signed(), shortened(signature));
                    let signed = shortened(&signed);
                    format!("Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {signature}")
                        .into()
                }
            }
        }
        _ => code.text(),
    }
}

/// The beginning of a client's own text.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(QUOTED_BYTES_MAX)]
}

/// The event that tells how many subscribers a channel has.
pub const SUBSCRIPTION_COUNT: &str = "pusher_internal:subscription_count";
const MEMBER_ADDED: &str = "pusher_internal:member_added";
/// Bytes of a client's text that an error quotes.
const QUOTED_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::split_text;

    /// The payloads of the frames in `out`, each valid JSON.
    fn payloads(mut out: &[u8]) -> Vec<&str> {
        let mut payloads = Vec::new();
        while !out.is_empty() {
            let (payload, rest) = split_text(out);
            serde_json::from_str::<serde::de::IgnoredAny>(payload).unwrap();
            payloads.push(payload);
            out = rest;
        }
        payloads
    }

    #[track_caller]
    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &[&str]) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(payloads(&out), expected);
    }

    #[test]
    fn system_events_have_strings_as_data() {
        let id = SocketId { high: 14090984045319045532, low: 11841623731988042621 };
        check(
            |out| connection_established(out, id, 120),
            &[
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"14090984045319045532.11841623731988042621\",\"activity_timeout\":120}"}"#,
            ],
        );
        check(pong, &[r#"{"event":"pusher:pong","data":"{}"}"#]);
        check(
            |out| subscription_succeeded(out, "news", None),
            &[r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}"#],
        );
        check(|out| cache_miss(out, "cache-C"), &[r#"{"event":"pusher:cache_miss","channel":"cache-C","data":"{}"}"#]);
        check(
            |out| subscription_count(out, "C", 3),
            &[r#"{"event":"pusher_internal:subscription_count","channel":"C","data":"{\"subscription_count\":3}"}"#],
        );
        check(
            |out| signin_success(out, r#"{"id":"7"}"#),
            &[r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"7\\\"}\"}"}"#],
        );
        check(
            |out| error(out, Some(4001), None, "App key \"x\" does not exist"),
            &[r#"{"event":"pusher:error","data":{"code":4001,"message":"App key \"x\" does not exist"}}"#],
        );
        check(
            |out| unsupported_event(out, r"fo\u006f"),
            &[
                r#"{"event":"pusher:error","data":{"code":null,"message":"Unsupported event received on socket: 'fo\\u006f'"}}"#,
            ],
        );
    }

    #[test]
    fn watched_users_are_listed_by_their_state() {
        check(
            |out| watchlist_events(out, &["7"], &["8"]),
            &[
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"7\"]},{\"name\":\"offline\",\"user_ids\":[\"8\"]}]}"}"#,
            ],
        );
        check(
            |out| watchlist_events(out, &[], &["a\"", "b"]),
            &[
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"offline\",\"user_ids\":[\"a\\\"\",\"b\"]}]}"}"#,
            ],
        );
    }

    #[test]
    fn members_are_listed_by_id_and_in_order() {
        let members = [("11", Some(r#"{"name":"A"}"#)), ("12", None), (r#"a\""#, Some("true"))];
        let data = presence(members.into_iter());
        assert_eq!(
            data,
            r#"{"presence":{"count":3,"ids":["11","12","a\""],"hash":{"11":{"name":"A"},"12":{},"a\"":true}}}"#
        );
        check(
            |out| subscription_succeeded(out, "presence-C", Some(r#"{"presence":{"count":0,"ids":[],"hash":{}}}"#)),
            &[
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-C","data":"{\"presence\":{\"count\":0,\"ids\":[],\"hash\":{}}}"}"#,
            ],
        );
        assert_eq!(presence(std::iter::empty()), r#"{"presence":{"count":0,"ids":[],"hash":{}}}"#);
    }

    #[test]
    fn a_refused_subscription_is_told_to_each_kind_of_client() {
        let error = r#"{"event":"pusher:subscription_error","channel":"a b","data":"{\"type\":\"InvalidChannel\",\"error\":\"TEXT\",\"status\":400}"}"#;
        let internal = error.replace("pusher:subscription_error", "pusher_internal:subscription_error");
        let last = r#"{"event":"pusher:error","data":{"code":null,"message":"TEXT"}}"#;
        let text = ErrorCode::InvalidChannel.text();
        let [error, internal, last] = [error, &internal, last].map(|frame| frame.replace("TEXT", &text));
        let refuse =
            |version| move |out: &mut Vec<u8>| subscribe_error(out, version, "a b", ErrorCode::InvalidChannel, None);
        check(refuse(Version::V7), &[&error, &last]);
        check(refuse(Version::V6), &[&error, &last]);
        check(refuse(Version::V5), &[&error, &internal, &last]);
        check(
            |out| subscribe_error(out, Version::V7, "news", ErrorCode::AlreadySubscribed, None),
            &[r#"{"event":"pusher:error","data":{"code":null,"message":"Existing subscription to channel news"}}"#],
        );
    }

    #[test]
    fn a_wrong_signature_is_told_beside_what_was_to_be_signed() {
        let socket_id = SocketId { high: 1, low: 2 };
        let attempt = Attempt::of_channel(socket_id, "k:beef", "private-a", Some("{\"x\":1}"));
        let text = |failure| text_of(ErrorCode::AuthInvalid(failure), Some(&attempt)).into_owned();
        assert_eq!(text(Failure::UnknownKey), "Invalid key in subscription auth data: 'k'");
        assert_eq!(
            text(Failure::WrongSignature),
            r#"Invalid signature: Expected HMAC SHA256 hex digest of 1.2:private-a:{"x":1}, but got beef"#
        );
        let long = "é".repeat(5000);
        let attempt = Attempt::of_user(socket_id, &long, &long);
        let text = text_of(ErrorCode::SignInAuthInvalid(Failure::NoColon), Some(&attempt));
        assert!(text.contains("1.2::user::éé") && text.len() < 2200, "{}", text.len());
    }

    #[test]
    fn client_events_that_are_refused() {
        check(
            |out| client_event_error(out, "private-a", ErrorCode::RateLimited),
            &[
                r#"{"event":"pusher:error","channel":"private-a","data":{"code":4301,"message":"Client event rejected due to rate limit"}}"#,
            ],
        );
        check(
            |out| client_event_error(out, "private-a", NOT_SUBSCRIBED),
            &[
                r#"{"event":"pusher:error","data":{"code":null,"message":"Cannot broadcast client event (connection not subscribed to channel private-a)"}}"#,
            ],
        );
        check(
            |out| client_event_error(out, "private-a", ErrorCode::ClientEventRefused("why")),
            &[r#"{"event":"pusher:error","data":{"code":null,"message":"why"}}"#],
        );
    }

    #[test]
    fn messages_have_a_text_as_data() {
        let envelope = |event, data| Envelope { channel: Some("C"), event, data, offset: None, user_id: None };
        let check = |envelope: Envelope<'_>, text, expected| check(|out| message(out, &envelope, text), &[expected]);
        check(
            envelope("order.paid", Some(r#"{"id":42}"#)),
            Text::Json,
            r#"{"event":"order.paid","channel":"C","data":"{\"id\":42}"}"#,
        );
        check(envelope("e", Some(r#""hello""#)), Text::Content, r#"{"event":"e","channel":"C","data":"hello"}"#);
        check(envelope("e", Some("{}")), Text::Padded(" {}\n"), r#"{"event":"e","channel":"C","data":" {}\n"}"#);
        check(envelope("e", None), Text::Json, r#"{"event":"e","channel":"C","data":"null"}"#);
        check(
            Envelope { user_id: Some("12"), ..envelope("client-x", Some("1")) },
            Text::Json,
            r#"{"event":"client-x","channel":"C","data":"1","user_id":"12"}"#,
        );
    }

    #[test]
    fn members_that_come_and_go() {
        let check = |event, data, expected| {
            let envelope = Envelope { channel: Some("C"), event, data: Some(data), offset: None, user_id: None };
            check(|out| message(out, &envelope, Text::Json), &[expected]);
        };
        check(
            "socket:member_added",
            r#"{"user_id":"1","user_info":true}"#,
            r#"{"event":"pusher_internal:member_added","channel":"C","data":"{\"user_id\":\"1\",\"user_info\":true}"}"#,
        );
        check(
            "socket:member_added",
            r#"{"user_id":"\",\"user_info\":"}"#,
            r#"{"event":"pusher_internal:member_added","channel":"C","data":"{\"user_id\":\"\\\",\\\"user_info\\\":\",\"user_info\":{}}"}"#,
        );
        check(
            "socket:member_removed",
            r#"{"user_id":"1"}"#,
            r#"{"event":"pusher_internal:member_removed","channel":"C","data":"{\"user_id\":\"1\"}"}"#,
        );
        assert!(has_name("order") && has_name("socket:member_added") && !has_name("socket:presence"));
    }
}
