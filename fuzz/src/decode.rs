//! A client's message: the server reads the same members as serde_json, and refuses a message for the right reason.

use super::json;
use corecast::protocol::command::{Auth, Command, Parser, Unreadable};

/// Panics where they differ.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parser = Parser::default();
    let found = parser.command(text);
    let is_called_malformed_json = matches!(found, Err(Unreadable::Malformed(why)) if why.contains("not valid JSON"));
    assert_eq!(is_called_malformed_json, !json::is_json(text), "{found:?}");
    assert_eq!(parser.command(text), found, "the parser kept something of the message");
    if is_called_malformed_json {
        return;
    }
    let members = json::members(text);
    let event = members.as_ref().and_then(|members| json::string(members.get("event")?));
    let data = members.as_ref().and_then(|members| json::members(members.get("data")?)).unwrap_or_default();
    let text_of = |name| data.get(name).copied().and_then(json::string);
    match (event.as_deref(), &found) {
        (Some("socket:subscribe"), Ok(Command::Subscribe { channel, auth, channel_data })) => {
            assert_eq!(Some(&*channel.value), text_of("channel").as_deref());
            assert_eq!(json::string(&format!("\"{}\"", channel.raw)).as_deref(), Some(&*channel.value));
            assert_eq!(channel_data.as_ref().map(|it| it.value.to_string()), text_of("channel_data"));
            let is_data_legal = data.contains_key("channel_data") == channel_data.is_some();
            match auth {
                Auth::Absent => assert!(!data.contains_key("auth")),
                Auth::Text(auth) => assert_eq!((Some(auth.to_string()), is_data_legal), (text_of("auth"), true)),
                Auth::NotString => {
                    assert!(data.contains_key("auth") && (text_of("auth").is_none() || !is_data_legal));
                }
            }
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
        (Some("socket:pong"), Ok(Command::Pong)) | (None, Err(Unreadable::Malformed(_))) => {}
        (Some(event), Err(Unreadable::UnknownEvent)) => {
            assert!(
                !["subscribe", "unsubscribe", "ping", "pong"].map(|it| format!("socket:{it}")).contains(&event.into())
            );
        }
        (event, found) => panic!("{event:?} is read as {found:?}"),
    }
}

/// PROTOCOL: a number or a string of at most 64 bytes as written, quotes not counted.
fn is_ping_id(raw: &str) -> bool {
    match raw.as_bytes()[0] {
        b'"' => raw.len() <= 64 + 2,
        b'-' | b'0'..=b'9' => raw.len() <= 64,
        _ => false,
    }
}
