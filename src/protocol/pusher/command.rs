//! Reads the messages of Pusher's clients: the text of a message becomes a [`Command`].

use crate::protocol::command::{Auth, Command, Since, Unreadable};
use crate::protocol::command::{NO_CHANNEL, NO_CHANNEL_BESIDE, NO_EVENT, NOT_JSON, NOT_OBJECT};
use crate::protocol::json::{Members, Reader, Value};
use std::borrow::Cow;

/// Reads a client's message. `data` may be an object, or a string that holds one; `held` keeps the latter alive.
pub fn command<'a>(reader: &mut Reader, text: &'a str, held: &'a mut String) -> Result<Command<'a>, Unreadable<'a>> {
    let document = reader.read(text).ok_or(NOT_JSON)?;
    let [event, data, channel] = document.object().ok_or(NOT_OBJECT)?.named(["event", "data", "channel"]);
    let event = event.and_then(Value::string).ok_or(NO_EVENT)?;
    let request = match &*event.value {
        "pusher:ping" => return Ok(Command::Ping { id: "" }),
        "pusher:pong" => return Ok(Command::Pong),
        "pusher:subscribe" => subscribe,
        "pusher:unsubscribe" => unsubscribe,
        "pusher:signin" => sign_in,
        name if name.starts_with("client-") => {
            let channel = channel.and_then(Value::string).ok_or(NO_CHANNEL_BESIDE)?;
            return Ok(Command::ClientEvent { event, channel, data });
        }
        _ => return Err(Unreadable::UnknownEvent { event: event.raw }),
    };
    match data {
        Some(data) if data.is_string() => {
            let inner: &'a str = match data.text() {
                Some(Cow::Borrowed(inner)) => inner,
                Some(Cow::Owned(inner)) => {
                    *held = inner;
                    held
                }
                None => return Err(NO_DATA),
            };
            request(reader.read(inner).and_then(|document| document.object()).ok_or(NO_DATA)?)
        }
        Some(data) => request(document.members(data).ok_or(NO_DATA)?),
        None => Err(NO_DATA),
    }
}

fn subscribe<'a>(data: Members<'_, 'a>) -> Result<Command<'a>, Unreadable<'a>> {
    let [channel, auth, channel_data] = data.named(["channel", "auth", "channel_data"]);
    let channel = channel.and_then(Value::string).ok_or(NO_CHANNEL)?;
    let channel_data = given(channel_data).map(Value::string);
    let auth = Auth::read(given(auth)).beside(&channel_data);
    Ok(Command::Subscribe { channel, auth, channel_data: channel_data.flatten(), since: Since::Absent })
}

fn unsubscribe<'a>(data: Members<'_, 'a>) -> Result<Command<'a>, Unreadable<'a>> {
    let [channel] = data.named(["channel"]);
    Ok(Command::Unsubscribe { channel: channel.and_then(Value::string).ok_or(NO_CHANNEL)? })
}

fn sign_in<'a>(data: Members<'_, 'a>) -> Result<Command<'a>, Unreadable<'a>> {
    let [auth, user_data] = data.named(["auth", "user_data"]);
    Ok(Command::SignIn { auth: Auth::read(given(auth)), user_data: user_data.and_then(Value::string) })
}

/// An optional member, for which `null` counts as absent.
fn given(member: Option<Value<'_>>) -> Option<Value<'_>> {
    member.filter(|value| value.raw != "null")
}

const NO_DATA: Unreadable<'_> = Unreadable::Malformed("data must be a JSON object, or a string that holds one");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::tests::{mutated, plain, slips};
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Command<'_>, Unreadable<'_>>) {
        let (mut reader, mut held) = (Reader::default(), String::new());
        assert_eq!(command(&mut reader, text, &mut held), expected, "{text}");
    }

    fn subscribe<'a>(channel: &'a str, auth: Option<&'a str>, channel_data: Option<&'a str>) -> Command<'a> {
        let auth = auth.map_or(Auth::Absent, |auth| Auth::Text(auth.into()));
        let channel_data = channel_data.map(plain);
        Command::Subscribe { channel: plain(channel), auth, channel_data, since: Since::Absent }
    }

    #[test]
    fn subscribes_as_the_clients_write_them() {
        // pusher-js: public, private, presence.
        check(
            r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"news"}}"#,
            Ok(subscribe("news", Some(""), None)),
        );
        check(
            r#"{"event":"pusher:subscribe","data":{"auth":"k:s","channel":"private-a"}}"#,
            Ok(subscribe("private-a", Some("k:s"), None)),
        );
        // Java, Swift: no auth; members in any order; others are ignored.
        check(r#"{"data":{"channel":"news"},"x":[1],"event":"pusher:subscribe"}"#, Ok(subscribe("news", None, None)));
        // null counts as absent.
        check(
            r#"{"event":"pusher:subscribe","data":{"auth":null,"channel":"news","channel_data":null}}"#,
            Ok(subscribe("news", None, None)),
        );
        check(
            r#"{"event":"pusher:subscribe","data":{"auth":7,"channel":"news"}}"#,
            Ok(Command::Subscribe {
                channel: plain("news"),
                auth: Auth::NotString,
                channel_data: None,
                since: Since::Absent,
            }),
        );
        // The same in both dialects.
        check(
            r#"{"event":"pusher:subscribe","data":{"channel":"private-a","channel_data":7}}"#,
            Ok(subscribe("private-a", None, None)),
        );
    }

    #[test]
    fn data_may_be_a_string_that_holds_an_object() {
        check(
            r#"{"event":"pusher:subscribe","data":"{\"channel\":\"news\",\"auth\":\"k:s\",\"channel_data\":\"{}\"}"}"#,
            Ok(subscribe("news", Some("k:s"), Some("{}"))),
        );
        check(
            r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"news\"}"}"#,
            Ok(Command::Unsubscribe { channel: plain("news") }),
        );
        for data in [r#""""#, r#""{""#, r#""[]""#, r#""\ud83c""#, "[]", "17", "null", r#""\"{}\"""#] {
            check(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#), Err(NO_DATA));
        }
        check(r#"{"event":"pusher:subscribe"}"#, Err(NO_DATA));
        check(r#"{"event":"pusher:subscribe","data":{}}"#, Err(NO_CHANNEL));
        check(r#"{"event":"pusher:unsubscribe","data":{"channel":5}}"#, Err(NO_CHANNEL));
    }

    #[test]
    fn pings_and_pongs_may_have_any_data() {
        for data in ["", r#","data":"""#, r#","data":{}"#, r#","data":null"#, r#","data":[1]"#] {
            check(&format!(r#"{{"event":"pusher:ping"{data}}}"#), Ok(Command::Ping { id: "" }));
            check(&format!(r#"{{"event":"pusher:pong"{data}}}"#), Ok(Command::Pong));
        }
    }

    #[test]
    fn sign_ins_and_client_events() {
        check(
            r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{}"}}"#,
            Ok(Command::SignIn { auth: Auth::Text("k:s".into()), user_data: Some(plain("{}")) }),
        );
        check(
            r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":5}}"#,
            Ok(Command::SignIn { auth: Auth::Text("k:s".into()), user_data: None }),
        );
        let text = r#"{"event":"client-x","channel":"private-a","data":{"a": 1}}"#;
        let (mut reader, mut held) = (Reader::default(), String::new());
        let Ok(Command::ClientEvent { event, channel, data }) = command(&mut reader, text, &mut held) else {
            panic!("{text}")
        };
        assert_eq!((event, channel), (plain("client-x"), plain("private-a")));
        assert_eq!(data.map(|data| data.raw), Some(r#"{"a": 1}"#));
        check(r#"{"event":"client-x"}"#, Err(NO_CHANNEL_BESIDE));
    }

    #[test]
    fn other_messages_are_refused() {
        for text in ["", "{", "nothing", "{}x"] {
            check(text, Err(NOT_JSON));
        }
        for text in ["[]", "17", "null", r#""x""#] {
            check(text, Err(NOT_OBJECT));
        }
        for text in ["{}", r#"{"event":5}"#, r#"{"event":"\ud83c"}"#] {
            check(text, Err(NO_EVENT));
        }
        for event in ["foo", "socket:ping", "pusher:", "pusher_internal:member_added", "Client-x", ""] {
            check(&format!(r#"{{"event":"{event}"}}"#), Err(Unreadable::UnknownEvent { event }));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics((at, len, with) in slips()) {
            let text = r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\"}","channel":"b"}"#;
            let _ = command(&mut Reader::default(), &mutated(text, at, len, &with), &mut String::new());
        }
    }
}
