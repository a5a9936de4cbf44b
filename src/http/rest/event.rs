//! Converts events of Pusher's libraries to messages that may be published. Pure.

use super::Refused;
use crate::api::publish::{check_channel, check_channels, check_data, check_event, check_exclude};
use crate::api::{Publish, Refusal};
use crate::protocol::json::{Document, JsonString, Members, Reader, Value};
use smallvec::SmallVec;
use std::borrow::Cow;

/// The body of `POST /events`, and each element of a batch. Unknown members are ignored, because libraries add some.
#[derive(Debug)]
pub struct Event<'a> {
    /// The event's name.
    pub name: JsonString<'a>,
    /// The JSON value that subscribers receive: the value in the text of `data`, or `data` itself as a string.
    pub data: Cow<'a, str>,
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
    /// The channels to publish to.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.channel.iter().chain(self.channels.iter().flatten()).map(AsRef::as_ref)
    }

    /// Whether the answer must hold the number of subscribers.
    pub fn wants_counts(&self) -> Result<bool, Refused> {
        wants_counts(self.info.as_deref())
    }

    /// The event as a message that may be published. The checks are those of the admin socket.
    pub fn publish(&self) -> Result<Publish<'static>, Refused> {
        let channels = match (&self.channel, &self.channels) {
            (Some(_), Some(_)) => return Err("channel and channels are both given".into()),
            (None, None) => return Err(Refusal::MissingMember("channel").into()),
            (Some(channel), None) => SmallVec::from_elem(legal(channel)?, 1),
            (None, Some(channels)) => {
                check_channels(channels.len())?;
                let named = channels.iter().enumerate();
                let legal = named.map(|(index, name)| legal(name).map_err(|refused| refused.within("channels", index)));
                legal.collect::<Result<_, _>>()?
            }
        };
        check_event(self.name.raw, &self.name.value)?;
        check_data(Some(&self.data))?;
        Ok(Publish {
            channels,
            event: self.name.raw.to_owned().into(),
            data: Some(self.data.to_string().into()),
            exclude: check_exclude(self.socket_id.as_deref())?,
            is_list: self.channels.is_some(),
            ..Publish::default()
        })
    }
}

fn legal(name: &str) -> Result<Cow<'static, str>, Refused> {
    check_implemented(name)?;
    Ok(Cow::Owned(check_channel(Cow::Borrowed(name))?.into_owned()))
}

/// Refuses names that belong to parts of Pusher's API that this server does not have.
pub fn check_implemented(channel: &str) -> Result<(), Refused> {
    match channel {
        name if name.starts_with("presence-") => Err(Refused::NotImplemented(PRESENCE.into())),
        name if name.starts_with("#server-to-user-") => {
            Err(Refused::NotImplemented("sendToUser is not implemented: this server knows no users".into()))
        }
        _ => Ok(()),
    }
}

/// Whether `info`, attributes separated by commas, asks for `subscription_count`, the only attribute of this server.
pub fn wants_counts(info: Option<&str>) -> Result<bool, Refused> {
    let mut wants_counts = false;
    for attribute in info.unwrap_or_default().split(',').filter(|attribute| !attribute.is_empty()) {
        match attribute {
            "subscription_count" => wants_counts = true,
            "user_count" => return Err("info: user_count needs presence channels, which are not implemented".into()),
            _ => return Err("info: the only attribute is subscription_count".into()),
        }
    }
    Ok(wants_counts)
}

/// Reads bodies. Error texts name members, and never quote the data.
#[derive(Default)]
pub struct Bodies {
    body: Reader,
    /// Checks whether the text of `data` is JSON.
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
    Ok(Event {
        name: name.and_then(Value::string).ok_or("name must be a string of Unicode text")?,
        data: published(data.filter(|data| data.is_string()).ok_or("data must be a string")?, reader),
        channel: string(channel, "channel must be a string of Unicode text")?,
        channels,
        socket_id: string(socket_id, "socket_id must be a string of Unicode text")?,
        info: string(info, "info must be a string of Unicode text")?,
    })
}

/// The value in the text of a string if that text is JSON, otherwise the string itself.
fn published<'a>(data: Value<'a>, reader: &mut Reader) -> Cow<'a, str> {
    let held = match data.text() {
        Some(Cow::Borrowed(text)) => reader.read(text).map(|document| Cow::Borrowed(document.value().raw)),
        Some(Cow::Owned(text)) => reader.read(&text).map(|document| Cow::Owned(document.value().raw.to_owned())),
        None => None,
    };
    held.unwrap_or(Cow::Borrowed(data.raw))
}

/// An optional member, which may also be `null`.
fn given(member: Option<Value<'_>>) -> Option<Value<'_>> {
    member.filter(|value| value.raw != "null")
}

fn string<'a>(member: Option<Value<'a>>, otherwise: &'static str) -> Result<Option<Cow<'a, str>>, &'static str> {
    given(member).map(|value| value.text().ok_or(otherwise)).transpose()
}

/// The refusal of requests about presence channels.
pub const PRESENCE: &str = "presence channels are not implemented";

const NOT_JSON: &str = "the body is not valid JSON";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::lines::reader::Parser;
    use crate::api::Command;

    /// `expected` is the equivalent line of the admin socket.
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
        // An unpaired surrogate in the JSON text of `data`, and in `data` itself.
        check(r#""\"\\ud83c\"""#, r#""\ud83c""#);
        check(r#""\ud83c""#, r#""\ud83c""#);
        check(r#""\"\ud83c\"""#, r#""\"\ud83c\"""#);
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
        for data in ["", r#","data":1"#, r#","data":null"#, r#","data":{}"#] {
            check(format!(r#"{{"name":"e","channel":"c"{data}}}"#), "data must be a string");
        }
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
            (r#"{"batch":[{"name":"e","data":"1"},{"name":"e"}]}"#, "batch[1]: data must be a string"),
        ] {
            let found = Bodies::default().batch(batch.as_bytes()).expect_err("refused");
            assert_eq!(found, Refused::from(expected), "{batch}");
        }
    }

    #[test]
    fn the_only_attribute_is_the_number_of_subscriptions() {
        let check = |info, expected: Option<bool>| assert_eq!(wants_counts(info).ok(), expected, "{info:?}");
        check(None, Some(false));
        check(Some(""), Some(false));
        check(Some("subscription_count"), Some(true));
        for unknown in ["user_count", "subscription_count,cache", "Subscription_count", " subscription_count"] {
            check(Some(unknown), None);
        }
    }
}
