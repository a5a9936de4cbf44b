//! Events as Pusher's libraries send them → messages that may be published. Pure.

use crate::api::publish::{check_channel, check_channels, check_data, check_event, check_exclude};
use crate::api::{Publish, Refusal};
use crate::protocol::json::{Document, JsonString, Members, Reader, Value};
use smallvec::SmallVec;
use std::borrow::Cow;

/// What `POST /events` holds, and each element of a batch. Members that it does not know are ignored: libraries add some.
#[derive(Debug)]
pub struct Event<'a> {
    /// The event.
    pub name: JsonString<'a>,
    /// The JSON value that subscribers get: the value that the text of `data` holds, or else `data` itself, a string.
    pub data: Cow<'a, str>,
    /// The only channel, if this member was there.
    pub channel: Option<Cow<'a, str>>,
    /// The channels, if this member was there.
    pub channels: Option<Vec<Cow<'a, str>>>,
    /// The connection that gets no copy, in either spelling of a socket_id.
    pub socket_id: Option<Cow<'a, str>>,
    /// Attributes to answer with, separated by commas.
    pub info: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The channels that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.channel.iter().chain(self.channels.iter().flatten()).map(AsRef::as_ref)
    }

    /// Whether the answer is to tell how many subscribe.
    pub fn wants_counts(&self) -> bool {
        self.info.iter().any(|info| info.split(',').any(|attribute| attribute == COUNT))
    }

    /// The same as a message that may be published. The checks are those of the admin socket.
    pub fn publish(&self) -> Result<Publish<'static>, Refusal> {
        let channels = match (&self.channel, &self.channels) {
            (Some(_), Some(_)) => return Err(Refusal::malformed("channel and channels are both given")),
            (None, None) => return Err(Refusal::MissingMember("channel")),
            (Some(channel), None) => SmallVec::from_elem(legal(channel)?, 1),
            (None, Some(channels)) => {
                check_channels(channels.len())?;
                channels.iter().map(|name| legal(name)).collect::<Result<_, _>>()?
            }
        };
        check_event(self.name.raw, &self.name.value)?;
        check_data(Some(&self.data))?;
        Ok(Publish {
            channels,
            event: self.name.raw.to_owned().into(),
            data: Some(self.data.to_string().into()),
            exclude: check_exclude(self.socket_id.as_deref())?,
        })
    }
}

fn legal(name: &str) -> Result<Cow<'static, str>, Refusal> {
    check_channel(Cow::Borrowed(name)).map(|name| Cow::Owned(name.into_owned()))
}

/// Reads bodies. The errors name members and hold nothing of the data.
#[derive(Default)]
pub struct Bodies {
    body: Reader,
    /// Judges the text of `data`.
    data: Reader,
}

impl Bodies {
    /// The body of `POST /events`.
    pub fn event<'a>(&mut self, body: &'a [u8]) -> Result<Event<'a>, &'static str> {
        let document = self.body.read(text(body)?).ok_or(NOT_JSON)?;
        event(document, document.object().ok_or("the body must be a JSON object")?, &mut self.data)
    }

    /// The body of `POST /batch_events`.
    pub fn batch<'a>(&mut self, body: &'a [u8]) -> Result<Vec<Event<'a>>, &'static str> {
        let document = self.body.read(text(body)?).ok_or(NOT_JSON)?;
        let [batch] = document.object().ok_or("the body must be a JSON object")?.named(["batch"]);
        let events = batch.and_then(|batch| document.elements(batch)).ok_or("batch must be an array of events")?;
        events
            .map(|value| {
                let members = document.members(value).ok_or("batch must be an array of events")?;
                event(document, members, &mut self.data)
            })
            .collect()
    }
}

fn text(body: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(body).map_err(|_| "the body is not valid UTF-8")
}

fn event<'a>(
    document: Document<'_, 'a>,
    members: Members<'_, 'a>,
    reader: &mut Reader,
) -> Result<Event<'a>, &'static str> {
    let [name, data, channel, channels, socket_id, info] =
        members.named(["name", "data", "channel", "channels", "socket_id", "info"]);
    let channels = match given(channels) {
        Some(channels) => {
            let names = document.elements(channels).ok_or(CHANNELS)?;
            Some(names.map(|name| name.text().ok_or(CHANNELS)).collect::<Result<_, _>>()?)
        }
        None => None,
    };
    Ok(Event {
        name: name.and_then(Value::string).ok_or("name must be a string of Unicode text")?,
        data: published(data.filter(|data| data.is_string()).ok_or("data must be a string")?, reader),
        channel: string(channel, "channel must be a string of Unicode text")?,
        channels,
        socket_id: string(socket_id, "socket_id must be a string of Unicode text")?,
        info: string(info, "info must be a string of Unicode text")?,
    })
}

/// The value that a string holds where its text is JSON, else the string.
fn published<'a>(data: Value<'a>, reader: &mut Reader) -> Cow<'a, str> {
    let held = match data.text() {
        Some(Cow::Borrowed(text)) => reader.read(text).map(|document| Cow::Borrowed(document.value().raw)),
        Some(Cow::Owned(text)) => reader.read(&text).map(|document| Cow::Owned(document.value().raw.to_owned())),
        None => None,
    };
    held.unwrap_or(Cow::Borrowed(data.raw))
}

/// A member that may be missing or `null`.
fn given(member: Option<Value<'_>>) -> Option<Value<'_>> {
    member.filter(|value| value.raw != "null")
}

fn string<'a>(member: Option<Value<'a>>, otherwise: &'static str) -> Result<Option<Cow<'a, str>>, &'static str> {
    given(member).map(|value| value.text().ok_or(otherwise)).transpose()
}

/// The one attribute of a channel that there is to ask for.
pub const COUNT: &str = "subscription_count";

const NOT_JSON: &str = "the body is not valid JSON";
const CHANNELS: &str = "channels must be an array of strings of Unicode text";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::lines::reader::Parser;
    use crate::api::Command;

    /// `expected` is the line of the admin socket that says the same.
    #[track_caller]
    fn check(event: &str, expected: &str) {
        let (mut bodies, mut parser) = (Bodies::default(), Parser::default());
        let Ok(Command::Publish(expected)) = parser.request(expected.as_bytes()).command else { panic!("{expected}") };
        let expected = expected.into_owned();
        let publish = bodies.event(event.as_bytes()).expect("an event").publish();
        assert_eq!(publish, Ok(expected.clone()));
        let batch = format!(r#"{{"batch":[{event}, {event} ]}}"#);
        let batch = bodies.batch(batch.as_bytes()).expect("a batch");
        assert_eq!(batch.iter().map(Event::publish).collect::<Vec<_>>(), [Ok(expected.clone()), Ok(expected)]);
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
        // An unpaired surrogate in the text that `data` holds, and in `data` itself.
        check(r#""\"\\ud83c\"""#, r#""\ud83c""#);
        check(r#""\ud83c""#, r#""\ud83c""#);
        check(r#""\"\ud83c\"""#, r#""\"\ud83c\"""#);
    }

    #[test]
    fn channels_and_exclusions_go_along() {
        check(
            r#"{"name":"e","channels":["a"],"data":"1","socket_id":"1.2","other":[1]}"#,
            r#"{"command":"publish","channel":"a","event":"e","data":1,"exclude":"1.2"}"#,
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
            assert_eq!(Bodies::default().event(body.as_ref()).expect_err("refused"), expected);
        }
        for body in ["", "{", "{}x", "\u{feff}{}", "{\"name\":\"\\u12\"}"] {
            check(body, NOT_JSON);
        }
        check(b"\xff", "the body is not valid UTF-8");
        check("[]", "the body must be a JSON object");
        for name in ["", r#""name":1,"#, r#""name":null,"#, r#""name":"\ud83c","#] {
            check(format!(r#"{{{name}"channel":"c","data":"1"}}"#), "name must be a string of Unicode text");
        }
        for data in ["", r#","data":1"#, r#","data":null"#, r#","data":{}"#] {
            check(format!(r#"{{"name":"e","channel":"c"{data}}}"#), "data must be a string");
        }
        for (member, value) in [("channel", "1"), ("socket_id", r#""\udc00""#), ("info", "[]")] {
            let expected = format!("{member} must be a string of Unicode text");
            check(format!(r#"{{"name":"e","data":"1","{member}":{value}}}"#), &expected);
        }
        for channels in ["1", r#""a""#, "[1]", r#"["a","\ud83c"]"#] {
            check(format!(r#"{{"name":"e","data":"1","channels":{channels}}}"#), CHANNELS);
        }
        for batch in ["{}", r#"{"batch":{}}"#, r#"{"batch":[1]}"#] {
            let found = Bodies::default().batch(batch.as_bytes()).expect_err("refused");
            assert_eq!(found, "batch must be an array of events");
        }
    }
}
