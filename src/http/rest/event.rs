//! Converts events from Pusher's libraries to messages to publish. Pure.

use super::Refused;
use super::info::Info;
use crate::api::publish::{More, check_channel, check_channels, check_data, check_event, check_socket_id};
use crate::api::{Publish, Refusal};
use crate::protocol::channel::{NAME_BYTES_MAX, USER};
use crate::protocol::json::{Document, JsonString, Members, Reader, Value};
use crate::protocol::pusher::data::Data;
use smallvec::SmallVec;
use std::borrow::Cow;

/// The body of `POST /events`, and each element of a batch. Unknown members are ignored, because libraries add some.
#[derive(Debug)]
pub struct Event<'a> {
    /// The event's name.
    pub name: JsonString<'a>,
    /// What subscribers receive.
    pub data: Data<'a>,
    /// The member `data`, as written.
    pub written: &'a str,
    /// The member `channel`, if given.
    pub channel: Option<Cow<'a, str>>,
    /// The member `channels`, if given.
    pub channels: Option<Vec<Cow<'a, str>>>,
    /// The connection that does not receive the message, in either spelling of a socket_id.
    pub socket_id: Option<Cow<'a, str>>,
    /// Attributes to return, separated by commas.
    pub info: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The channels to publish to, those of users included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.channel.iter().chain(self.channels.iter().flatten()).map(AsRef::as_ref)
    }

    /// The attributes that the answer must hold.
    pub fn info(&self) -> Result<Info, Refused> {
        Info::parse(self.info.as_deref())
    }

    /// The event as messages to publish: one for its channels, and one for its users. The checks are those of the admin
    /// socket.
    pub fn messages(&self) -> Result<Vec<Publish<'static>>, Refused> {
        let (mut channels, mut users) = (SmallVec::new(), Vec::new());
        let mut add = |name: &str| -> Result<(), Refused> {
            match name.strip_prefix(USER) {
                Some(id) => users.push(Cow::Owned(user(id)?.to_owned())),
                None => channels.push(Cow::Owned(check_channel(Cow::Borrowed(name))?.into_owned())),
            }
            Ok(())
        };
        match (&self.channel, &self.channels) {
            (Some(_), Some(_)) => return Err("channel and channels are both given".into()),
            (None, None) => return Err(Refusal::MissingMember("channel").into()),
            (Some(channel), None) => add(channel)?,
            (None, Some(channels)) => {
                check_channels(channels.len())?;
                for (index, name) in channels.iter().enumerate() {
                    add(name).map_err(|refused| refused.within("channels", index))?;
                }
            }
        };
        check_event(self.name.raw, &self.name.value)?;
        check_data(Some(self.written))?;
        let message = |channels, users| -> Result<Publish<'static>, Refused> {
            Ok(Publish {
                channels,
                event: self.name.raw.to_owned().into(),
                data: Some(self.data.value.to_string().into()),
                exclude: check_socket_id(self.socket_id.as_deref(), "socket_id")?,
                is_list: self.channels.is_some(),
                more: More { users, text: self.data.text.clone(), ..More::default() }.boxed(),
            })
        };
        let mut messages = Vec::new();
        if !channels.is_empty() {
            messages.push(message(channels, Vec::new())?);
        }
        if !users.is_empty() {
            messages.push(message(SmallVec::new(), users)?);
        }
        Ok(messages)
    }
}

/// Checks the id of a user, which may be longer here than elsewhere. A user whose id is longer than [`USER_ID_BYTES_MAX`] cannot
/// sign in, so it has no connections.
///
/// [`USER_ID_BYTES_MAX`]: crate::config::USER_ID_BYTES_MAX
pub fn user(id: &str) -> Result<&str, &'static str> {
    (1..=NAME_BYTES_MAX).contains(&id.len()).then_some(id).ok_or("the id of a user is 1 to 200 bytes of any text")
}

/// Reads bodies. Error texts name members, and never quote the data.
#[derive(Default)]
pub struct Bodies {
    body: Reader,
    /// Reads the text of `data`, which may be JSON.
    data: Reader,
}

impl Bodies {
    /// The body of `POST /events`.
    pub fn event<'a>(&mut self, body: &'a [u8]) -> Result<Event<'a>, Refused> {
        let document = self.body.read(text(body)?).ok_or(NOT_JSON)?;
        event(document, document.object().ok_or("the body must be a JSON object")?, &mut self.data)
    }

    /// The body of `POST /batch_events`.
    pub fn batch<'a>(&mut self, body: &'a [u8]) -> Result<Vec<Event<'a>>, Refused> {
        let document = self.body.read(text(body)?).ok_or(NOT_JSON)?;
        let [batch] = document.object().ok_or("the body must be a JSON object")?.named(["batch"]);
        let events = batch.and_then(|batch| document.elements(batch)).ok_or("batch must be an array of events")?;
        events
            .enumerate()
            .map(|(index, value)| {
                let members = document.members(value).ok_or(Refused::from("an event must be a JSON object"));
                let event = members.and_then(|members| event(document, members, &mut self.data));
                event.map_err(|refused| refused.within("batch", index))
            })
            .collect()
    }
}

fn text(body: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(body).map_err(|_| "the body is not valid UTF-8")
}

fn event<'a>(document: Document<'_, 'a>, members: Members<'_, 'a>, reader: &mut Reader) -> Result<Event<'a>, Refused> {
    let [name, data, channel, channels, socket_id, info] =
        members.named(["name", "data", "channel", "channels", "socket_id", "info"]);
    let channels = match given(channels) {
        Some(channels) => {
            let names = document.elements(channels).ok_or("channels must be an array")?.enumerate();
            let text = |(index, name): (usize, Value<'a>)| {
                let why = "a channel must be a string of Unicode text";
                name.text().ok_or_else(|| Refused::from(why).within("channels", index))
            };
            Some(names.map(text).collect::<Result<_, _>>()?)
        }
        None => None,
    };
    let data = data.ok_or("data is missing")?;
    Ok(Event {
        name: name.and_then(Value::string).ok_or("name must be a string of Unicode text")?,
        data: Data::read(data, reader),
        written: data.raw,
        channel: string(channel, "channel must be a string of Unicode text")?,
        channels,
        socket_id: string(socket_id, "socket_id must be a string of Unicode text")?,
        info: string(info, "info must be a string of Unicode text")?,
    })
}

/// An optional member, which may also be `null`.
fn given(member: Option<Value<'_>>) -> Option<Value<'_>> {
    member.filter(|value| value.raw != "null")
}

fn string<'a>(member: Option<Value<'a>>, otherwise: &'static str) -> Result<Option<Cow<'a, str>>, &'static str> {
    given(member).map(|value| value.text().ok_or(otherwise)).transpose()
}

const NOT_JSON: &str = "the body is not valid JSON";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::lines::reader::Parser;
    use crate::api::Command;
    use crate::protocol::pusher::data::OwnedText;

    /// `expected` is the equivalent line of the admin socket, which has no text beside the value.
    #[track_caller]
    fn check(event: &str, expected: &str) {
        let (mut bodies, mut parser) = (Bodies::default(), Parser::default());
        let Ok(Command::Publish(expected)) = parser.request(expected.as_bytes()).command else { panic!("{expected}") };
        let expected = expected.into_owned();
        let messages = |event: &Event<'_>| {
            let mut messages = event.messages().expect("legal");
            for message in &mut messages {
                let more = message.more.take().map(|more| More { text: OwnedText::Json, ..*more });
                message.more = more.and_then(More::boxed);
            }
            messages
        };
        let event_messages = messages(&bodies.event(event.as_bytes()).expect("an event"));
        assert_eq!(event_messages, vec![expected.clone()]);
        let batch = format!(r#"{{"batch":[{event}, {event} ]}}"#);
        let batch = bodies.batch(batch.as_bytes()).expect("a batch");
        let expected = vec![expected];
        assert_eq!(batch.iter().map(messages).collect::<Vec<_>>(), vec![expected.clone(), expected]);
    }

    #[test]
    fn texts_go_along() {
        let check = |data: &str, expected: OwnedText| {
            for target in ["c", "#server-to-user-1"] {
                let event = format!(r#"{{"name":"e","channel":"{target}","data":{data}}}"#);
                let messages = Bodies::default().event(event.as_bytes()).expect("an event").messages().expect("legal");
                let text = messages[0].more.as_ref().map(|more| more.text.clone()).unwrap_or_default();
                assert_eq!(text, expected, "{data}");
            }
        };
        check(r#""hello""#, OwnedText::Content);
        check(r#""{\"a\": 1}""#, OwnedText::Json);
        check(r#"" [1]\n""#, OwnedText::Padded(" [1]\n".into()));
        check("17", OwnedText::Json);
    }

    #[test]
    fn data_is_the_value_that_it_holds_or_else_the_string_that_it_is() {
        let check = |data: &str, expected: &str| {
            let event = format!(r#"{{"name":"e","channel":"c","data":{data}}}"#);
            check(&event, &format!(r#"{{"command":"publish","channel":"c","event":"e","data":{expected}}}"#));
        };
        check(r#""{\"id\":42}""#, r#"{"id":42}"#);
        check(r#"" [1,\n 2]\r\n""#, "[1,\n 2]");
        check(r#""hello""#, r#""hello""#);
        check(r#""\"hello\"""#, r#""hello""#);
        check(r#""a\nb""#, r#""a\nb""#);
        check(r#""17""#, "17");
        check(r#"" 17 ""#, "17");
        check(r#""\u0031""#, "1");
        check(r#""""#, r#""""#);
        check(r#""{\"a\":1} x""#, r#""{\"a\":1} x""#);
        check(r#""h\u00e9llo\/""#, r#""h\u00e9llo\/""#);
        // An unpaired surrogate in the JSON text of `data`, and in `data` itself.
        check(r#""\"\\ud83c\"""#, r#""\ud83c""#);
        check(r#""\ud83c""#, r#""\ud83c""#);
        check(r#""\"\ud83c\"""#, r#""\"\ud83c\"""#);
        // Data that is not a string.
        for data in ["null", "17", "{\"a\" : [1]}", "[ ]", "true"] {
            check(data, data);
        }
    }

    #[test]
    fn channels_and_users_are_published_to_separately() {
        let event = r##"{"name":"e","data":"1","channels":["a","#server-to-user-auth0|7","b","#server-to-user-#"]}"##;
        let event = Bodies::default().event(event.as_bytes()).expect("an event").messages().expect("legal");
        let named = |message: &Publish<'_>| [message.channels.join(" "), message.users().join(" ")];
        assert_eq!(event.iter().map(named).collect::<Vec<_>>(), [["a b", ""], ["", "auth0|7 #"]]);
        let check = |id: &str, is_legal: bool| {
            let event = format!(r##"{{"name":"e","data":"1","channel":"#server-to-user-{id}"}}"##);
            let messages = Bodies::default().event(event.as_bytes()).expect("an event").messages();
            assert_eq!(messages.map(|messages| messages.len()).ok(), is_legal.then_some(1), "{id}");
        };
        check("", false);
        check(&"é".repeat(100), true);
        check(&"é".repeat(101), false);
    }

    #[test]
    fn data_is_bounded_as_it_is_written() {
        let check = |data: &str, is_legal: bool| {
            let event = format!(r#"{{"name":"e","channel":"c","data":{data}}}"#);
            let messages = Bodies::default().event(event.as_bytes()).expect("an event").messages();
            assert_eq!(messages.is_ok(), is_legal, "{} bytes", data.len());
        };
        let quotes = |count: usize| format!("\"{}\"", r#"\""#.repeat(count));
        check(&quotes(131_071), true);
        check(&quotes(131_072), false);
        // The value is shorter than its text.
        check(&format!(r#""[{}1]""#, r"\n".repeat(131_072)), false);
        check(&format!("[{}1]", "\n".repeat(262_141)), true);
        check(&format!("[{}1]", "\n".repeat(262_142)), false);
    }

    #[test]
    fn channels_and_exclusions_go_along() {
        check(
            r#"{"name":"e","channels":["a"],"data":"1","socket_id":"1.2","other":[1]}"#,
            r#"{"command":"publish","channels":["a"],"event":"e","data":1,"exclude":"1.2"}"#,
        );
        check(
            r#"{"name":"e\n","channel":null,"channels":["a","b"],"data":"1","socket_id":null}"#,
            r#"{"command":"publish","channels":["a","b"],"event":"e\n","data":1}"#,
        );
        check(
            r#"{"name":"x","name":"e","channel":1,"ch\u0061nnel":"a","data":"1"}"#,
            r#"{"command":"publish","channel":"a","event":"e","data":1}"#,
        );
    }

    #[test]
    fn a_body_that_cannot_be_read_is_refused_by_name() {
        #[track_caller]
        fn check(body: impl AsRef<[u8]>, expected: &str) {
            assert_eq!(Bodies::default().event(body.as_ref()).expect_err("refused"), Refused::from(expected));
        }
        for body in ["", "{", "{}x", "\u{feff}{}", "{\"name\":\"\\u12\"}"] {
            check(body, NOT_JSON);
        }
        check(b"\xff", "the body is not valid UTF-8");
        check("[]", "the body must be a JSON object");
        for name in ["", r#""name":1,"#, r#""name":null,"#, r#""name":"\ud83c","#] {
            check(format!(r#"{{{name}"channel":"c","data":"1"}}"#), "name must be a string of Unicode text");
        }
        check(r#"{"name":"e","channel":"c"}"#, "data is missing");
        for (member, value) in [("channel", "1"), ("socket_id", r#""\udc00""#), ("info", "[]")] {
            let expected = format!("{member} must be a string of Unicode text");
            check(format!(r#"{{"name":"e","data":"1","{member}":{value}}}"#), &expected);
        }
        for (channels, expected) in [
            ("1", "channels must be an array"),
            (r#""a""#, "channels must be an array"),
            ("[1]", "channels[0]: a channel must be a string of Unicode text"),
            (r#"["a","\ud83c"]"#, "channels[1]: a channel must be a string of Unicode text"),
        ] {
            check(format!(r#"{{"name":"e","data":"1","channels":{channels}}}"#), expected);
        }
        for (batch, expected) in [
            ("{}", "batch must be an array of events"),
            (r#"{"batch":{}}"#, "batch must be an array of events"),
            (r#"{"batch":[1]}"#, "batch[0]: an event must be a JSON object"),
            (r#"{"batch":[{"name":"e","data":"1"},{"name":"e"}]}"#, "batch[1]: data is missing"),
        ] {
            let found = Bodies::default().batch(batch.as_bytes()).expect_err("refused");
            assert_eq!(found, Refused::from(expected), "{batch}");
        }
    }
}
