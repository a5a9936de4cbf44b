//! A message of a Pusher client: the server reads the same members as serde_json, and whatever it answers is a message that
//! the clients can read.

use super::json;
use corecast::protocol::auth::{Attempt, Failure};
use corecast::protocol::channel::Channel;
use corecast::protocol::client_event::NOT_SUBSCRIBED;
use corecast::protocol::command::{Auth, Command, Unreadable};
use corecast::protocol::dialect::Dialect;
use corecast::protocol::error_code::ErrorCode;
use corecast::protocol::event::{Envelope, Subscribed};
use corecast::protocol::json::{JsonString, Reader, Value};
use corecast::protocol::pusher::command::command;
use corecast::protocol::pusher::data::{Data, unpadded};
use corecast::protocol::pusher::event::message;
use corecast::protocol::pusher::handshake::Version;
use corecast::protocol::socket_id::SocketId;
use corecast::protocol::user::NO_CHANNEL_DATA;
use corecast::wire::frame::frame_len;

/// Panics where they differ, or an answer is not readable.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (mut reader, mut held, mut again) = (Reader::default(), String::new(), String::new());
    let found = command(&mut reader, text, &mut held);
    assert_eq!(command(&mut reader, text, &mut again), found, "the reader kept something of the message");
    let is_called_malformed_json = matches!(found, Err(Unreadable::Malformed(why)) if why.contains("not valid JSON"));
    assert_eq!(is_called_malformed_json, !json::is_json(text), "{found:?}");
    assert_eq!(seen(&found), expected(text), "{found:?}");
    for version in [Version::V4, Version::V5, Version::V6, Version::V7] {
        check_answers(&found, Dialect::Pusher(version));
    }
    if let Ok(Command::ClientEvent { event, channel, data }) = &found {
        check_delivery(event, channel, *data, &mut reader);
    }
}

/// A request: its kind and its members. A member that is absent or of another type is `None`; the outer one of a pair says
/// whether it was given at all.
#[derive(Debug, PartialEq)]
enum Seen {
    Refused,
    Unsupported(String),
    Ping,
    Pong,
    Subscribe { channel: String, auth: Option<Option<String>>, channel_data: Option<String> },
    Unsubscribe(String),
    SignIn { auth: Option<Option<String>>, user_data: Option<String> },
    ClientEvent { event: String, channel: String, data: Option<String> },
}

fn seen(found: &Result<Command<'_>, Unreadable<'_>>) -> Seen {
    let text = |it: &JsonString<'_>| {
        assert_eq!(json::string(&format!("\"{}\"", it.raw)).as_deref(), Some(&*it.value), "as written");
        it.value.to_string()
    };
    let auth_of = |auth: &Auth<'_>| match auth {
        Auth::Absent => None,
        Auth::NotString => Some(None),
        Auth::Text(auth) => Some(Some(auth.to_string())),
    };
    match found {
        Err(Unreadable::Malformed(_)) => Seen::Refused,
        Err(Unreadable::UnknownEvent { event }) => {
            Seen::Unsupported(json::string(&format!("\"{event}\"")).expect("text"))
        }
        Ok(Command::Ping { id }) => {
            assert_eq!(*id, "");
            Seen::Ping
        }
        Ok(Command::Pong) => Seen::Pong,
        Ok(Command::Subscribe { channel, auth, channel_data, .. }) => Seen::Subscribe {
            channel: text(channel),
            auth: auth_of(auth),
            channel_data: channel_data.as_ref().map(text),
        },
        Ok(Command::Unsubscribe { channel }) => Seen::Unsubscribe(text(channel)),
        Ok(Command::SignIn { auth, user_data }) => {
            Seen::SignIn { auth: auth_of(auth), user_data: user_data.as_ref().map(text) }
        }
        Ok(Command::ClientEvent { event, channel, data }) => {
            Seen::ClientEvent { event: text(event), channel: text(channel), data: data.map(|data| data.raw.to_owned()) }
        }
    }
}

/// PUSHER, section 3, read by serde_json.
fn expected(text: &str) -> Seen {
    read(text).unwrap_or(Seen::Refused)
}

fn read(text: &str) -> Option<Seen> {
    let members = json::members(text)?;
    let event = json::string(members.get("event")?)?;
    match event.as_str() {
        "pusher:ping" => return Some(Seen::Ping),
        "pusher:pong" => return Some(Seen::Pong),
        "pusher:subscribe" | "pusher:unsubscribe" | "pusher:signin" => {}
        name if name.starts_with("client-") => {
            let channel = json::string(members.get("channel")?)?;
            return Some(Seen::ClientEvent { event, channel, data: members.get("data").map(|raw| raw.to_string()) });
        }
        _ => return Some(Seen::Unsupported(event)),
    }
    let raw = members.get("data")?;
    let data = if raw.starts_with('"') { json::string(raw)? } else { raw.to_string() };
    let data = json::members(&data)?;
    let text_of = |name| data.get(name).copied().and_then(json::string);
    // null counts as absent.
    let given = |name: &str| data.get(name).copied().filter(|raw| *raw != "null");
    let auth = given("auth").map(json::string);
    Some(match event.as_str() {
        "pusher:subscribe" => {
            let channel_data = text_of("channel_data");
            // A signature, if there is one, never verifies beside a channel_data that is not a string.
            let is_data_legal = given("channel_data").is_some() == channel_data.is_some();
            let auth = auth.map(|auth| auth.filter(|_| is_data_legal));
            Seen::Subscribe { channel: text_of("channel")?, auth, channel_data }
        }
        "pusher:unsubscribe" => Seen::Unsubscribe(text_of("channel")?),
        _ => Seen::SignIn { auth, user_data: text_of("user_data") },
    })
}

/// Writes every answer that the request may get.
fn check_answers(found: &Result<Command<'_>, Unreadable<'_>>, dialect: Dialect) {
    let mut out = Vec::new();
    match found {
        Err(why) => dialect.unreadable(&mut out, why),
        Ok(Command::Ping { id }) => dialect.pong(&mut out, id.as_bytes()),
        Ok(Command::Pong | Command::Unsubscribe { .. }) => return,
        Ok(Command::Subscribe { channel, auth, channel_data, .. }) => {
            for code in
                [ErrorCode::InvalidChannel, ErrorCode::AuthRequired, ErrorCode::AlreadySubscribed, NO_CHANNEL_DATA]
            {
                dialect.subscribe_error(&mut out, channel.raw, code, None);
            }
            if let Auth::Text(auth) = auth {
                let channel_data = channel_data.as_ref().map(|data| &*data.value);
                let attempt = Attempt::of_channel(SOCKET_ID, auth, &channel.value, channel_data);
                for failure in FAILURES {
                    let code = ErrorCode::AuthInvalid(failure);
                    dialect.subscribe_error(&mut out, channel.raw, code, Some(&attempt));
                }
            }
            if let Some(channel) = Channel::parse(&channel.value) {
                dialect.subscribed(&mut out, channel.as_str(), &Subscribed::default());
            }
        }
        Ok(Command::SignIn { auth, user_data }) => {
            dialect.signin_error(&mut out, ErrorCode::AlreadySignedIn, None);
            let Some(user_data) = user_data else { return };
            if let Auth::Text(auth) = auth {
                let attempt = Attempt::of_user(SOCKET_ID, auth, &user_data.value);
                for failure in FAILURES {
                    dialect.signin_error(&mut out, ErrorCode::SignInAuthInvalid(failure), Some(&attempt));
                }
            }
            dialect.signed_in(&mut out, "id", &user_data.value);
        }
        Ok(Command::ClientEvent { channel, .. }) => {
            for code in [ErrorCode::RateLimited, NOT_SUBSCRIBED, ErrorCode::ClientEventRefused("why")] {
                dialect.client_event_error(&mut out, channel.raw, code);
            }
        }
    }
    assert!(!out.is_empty());
    payloads(&out).into_iter().for_each(check_message);
}

/// PUSHER, section 1: what each message holds, so that all clients can read it.
fn check_message(payload: &str) {
    let members = json::members(payload).expect("an object");
    let event = json::string(members["event"]).expect("event is a string");
    assert!(members.get("channel").is_none_or(|raw| json::string(raw).is_some()), "{payload}");
    assert!(members.keys().all(|name| ["event", "channel", "data"].contains(&name.as_str())), "{payload}");
    let data = members["data"];
    if event != "pusher:error" {
        assert!(data.starts_with('"'), "{payload}");
        return;
    }
    let data = json::members(data).expect("data of an error is an object");
    assert!(json::string(data["message"]).is_some_and(|text| !text.is_empty()), "{payload}");
    let code = data["code"];
    assert!(code == "null" || code.parse::<u16>().is_ok_and(|code| code >= 4300), "{payload}");
}

/// What the subscribers of both dialects get of a client event.
fn check_delivery(event: &JsonString<'_>, channel: &JsonString<'_>, data: Option<Value<'_>>, reader: &mut Reader) {
    let read = data.map(|data| Data::read(data, reader));
    let text = read.as_ref().map(|read| read.text.as_text()).unwrap_or_default();
    let value = read.as_ref().map(|read| &*read.value);
    assert!(value.is_none_or(json::is_json), "the value of native subscribers");
    let envelope = Envelope { channel: Some(channel.raw), event: event.raw, data: value, offset: None, user_id: None };
    let mut out = Vec::new();
    message(&mut out, &envelope, text);
    let payloads = payloads(&out);
    let [payload] = payloads[..] else { panic!("{payloads:?}") };
    check_message(payload);
    let found = json::members(payload).expect("an object")["data"];
    let Some(raw) = data.map(|data| data.raw) else { return assert_eq!(found, r#""null""#) };
    if !raw.starts_with('"') {
        // The JSON of the value, byte for byte.
        return assert_eq!((json::string(found).as_deref(), value), (Some(raw), Some(raw)));
    }
    // The text as it came.
    let Some(text) = json::string(raw) else { return assert_eq!((found, value), (raw, Some(raw))) };
    assert_eq!(json::string(found).as_ref(), Some(&text));
    assert_eq!(value, Some(if json::is_json(&text) { unpadded(&text) } else { raw }));
}

/// The payloads of text frames.
fn payloads(mut out: &[u8]) -> Vec<&str> {
    let mut payloads = Vec::new();
    while !out.is_empty() {
        let len = frame_len(out).expect("a whole frame");
        let header_len = match out[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        assert_eq!(out[0], 0x81, "a final text frame");
        payloads.push(std::str::from_utf8(&out[header_len..len]).expect("text"));
        out = &out[len..];
    }
    payloads
}

const SOCKET_ID: SocketId = SocketId { high: 1, low: 2 };
const FAILURES: [Failure; 3] = [Failure::NoColon, Failure::UnknownKey, Failure::WrongSignature];
