//! A client's message: the server reads the same members as serde_json, and refuses a message for the right reason.

use super::json;
use corecast::protocol::command::{Auth, Command, Since, Unreadable};
use corecast::protocol::json::Reader;
use corecast::protocol::native::command::command;
use corecast::protocol::socket_id::SocketId;

/// Panics where they differ.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut reader = Reader::default();
    let found = command(&mut reader, text);
    let is_called_malformed_json = matches!(found, Err(Unreadable::Malformed(why)) if why.contains("not valid JSON"));
    assert_eq!(is_called_malformed_json, !json::is_json(text), "{found:?}");
    assert_eq!(command(&mut reader, text), found, "the reader kept something of the message");
    if is_called_malformed_json {
        return;
    }
    let members = json::members(text);
    let event = members.as_ref().and_then(|members| json::string(members.get("event")?));
    let data = members.as_ref().and_then(|members| json::members(members.get("data")?)).unwrap_or_default();
    let text_of = |name| data.get(name).copied().and_then(json::string);
    match (event.as_deref(), &found) {
        (Some("socket:subscribe"), Ok(Command::Subscribe { channel, auth, channel_data, since })) => {
            assert_eq!(Some(&*channel.value), text_of("channel").as_deref());
            assert_eq!(json::string(&format!("\"{}\"", channel.raw)).as_deref(), Some(&*channel.value));
            assert_eq!(channel_data.as_ref().map(|it| it.value.to_string()), text_of("channel_data"));
            assert_eq!(
                *since,
                data.get("since").map_or(Since::Absent, |raw| position(raw).unwrap_or(Since::Malformed))
            );
            let is_data_legal = data.contains_key("channel_data") == channel_data.is_some();
            check_auth(auth, data.get("auth").copied(), is_data_legal);
        }
        (Some("socket:unsubscribe"), Ok(Command::Unsubscribe { channel })) => {
            assert_eq!(Some(&*channel.value), text_of("channel").as_deref());
        }
        (Some("socket:subscribe" | "socket:unsubscribe"), Err(Unreadable::Malformed(_))) => {
            assert_eq!(text_of("channel"), None);
        }
        (Some("socket:ping"), Ok(Command::Ping { id })) => {
            assert_eq!(data.get("id"), Some(id));
            assert!(is_ping_id(id), "{id}");
        }
        (Some("socket:ping"), Err(Unreadable::Malformed(_))) => {
            assert!(data.get("id").is_none_or(|id| !is_ping_id(id)));
        }
        (Some("socket:signin"), Ok(Command::SignIn { auth, user_data })) => {
            assert_eq!(user_data.as_ref().map(|it| it.value.to_string()), text_of("user_data"));
            check_auth(auth, data.get("auth").copied(), true);
        }
        (Some(name), Ok(Command::ClientEvent { event, channel, data })) => {
            let beside = |name| members.as_ref().and_then(|members| members.get(name).copied());
            assert!(name.starts_with("client-") && *name == event.value);
            assert_eq!(Some(&*channel.value), beside("channel").and_then(json::string).as_deref());
            assert_eq!(data.map(|data| data.raw), beside("data"));
        }
        (Some(name), Err(Unreadable::Malformed(_))) if name.starts_with("client-") => {
            assert_eq!(members.as_ref().and_then(|members| json::string(members.get("channel")?)), None);
        }
        (Some("socket:pong"), Ok(Command::Pong)) | (None, Err(Unreadable::Malformed(_))) => {}
        (Some(event), Err(Unreadable::UnknownEvent { .. })) => {
            let known = ["subscribe", "unsubscribe", "ping", "pong", "signin"].map(|it| format!("socket:{it}"));
            assert!(!known.contains(&event.into()) && !event.starts_with("client-"));
        }
        (event, found) => panic!("{event:?} is read as {found:?}"),
    }
}

/// `auth` as it was read, and as it was written. It never verifies beside a `channel_data` that is not a string.
fn check_auth(auth: &Auth<'_>, raw: Option<&str>, is_data_legal: bool) {
    let text = raw.and_then(json::string);
    match auth {
        Auth::Absent => assert_eq!(raw, None),
        Auth::Text(auth) => assert_eq!((Some(auth.to_string()), is_data_legal), (text, true)),
        Auth::NotString => assert!(raw.is_some() && (text.is_none() || !is_data_legal)),
    }
}

/// PROTOCOL, Channels with memory: a `since` of the right shape.
fn position(raw: &str) -> Option<Since> {
    let members = json::members(raw)?;
    let string = |name| members.get(name).filter(|raw| raw.starts_with('"')).map(|raw| json::string(raw));
    // Epochs are written by format!("{:016x}").
    let epoch = string("epoch")?.and_then(|text| {
        let epoch = u64::from_str_radix(&text, 16).ok()?;
        (format!("{epoch:016x}") == text).then_some(epoch)
    });
    let offset = serde_json::from_str::<u64>(members.get("offset")?).ok().filter(|offset| *offset < 1 << 53)?;
    let socket_id = match members.contains_key("socket_id") {
        true => Some(SocketId::parse(&string("socket_id")??)?),
        false => None,
    };
    Some(Since::Position { epoch, offset, socket_id })
}

/// PROTOCOL: a number or a string of at most 64 bytes as written, quotes not counted.
fn is_ping_id(raw: &str) -> bool {
    match raw.as_bytes()[0] {
        b'"' => raw.len() <= 64 + 2,
        b'-' | b'0'..=b'9' => raw.len() <= 64,
        _ => false,
    }
}
