//! Events as Pusher's libraries send them → lines of the admin socket. Pure.

use crate::protocol::json::{Document, JsonString, Members, Reader, Value};
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

    /// The `publish` that says the same. What the admin socket would refuse is still in it.
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.data.len() + OVERHEAD_BYTES);
        // In the order and spelling of PROTOCOL.md's example, which is the one that is parsed fastest.
        line.extend_from_slice(br#"{"command":"publish""#);
        if let Some(channel) = &self.channel {
            member(&mut line, "channel", channel);
        }
        if let Some(channels) = &self.channels {
            match &channels[..] {
                [channel] if self.channel.is_none() => member(&mut line, "channel", channel),
                channels => member(&mut line, "channels", channels),
            }
        }
        line.extend([r#","event":""#, self.name.raw, r#"","data":"#].concat().bytes());
        // Outside strings a line break is white space, and inside there is none: a line stays a line.
        line.extend(self.data.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        if let Some(socket_id) = &self.socket_id {
            member(&mut line, "exclude", socket_id);
        }
        line.push(b'}');
        line
    }
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

fn member(line: &mut Vec<u8>, name: &str, value: &(impl serde::Serialize + ?Sized)) {
    line.extend([",\"", name, "\":"].concat().bytes());
    // Strings and lists of them can be written, and a Vec takes them.
    let _ = serde_json::to_writer(line, value);
}

/// The one attribute of a channel that there is to ask for.
pub const COUNT: &str = "subscription_count";
/// Names, quotes and commas, roughly.
const OVERHEAD_BYTES: usize = 128;

const NOT_JSON: &str = "the body is not valid JSON";
const CHANNELS: &str = "channels must be an array of strings of Unicode text";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::lines::reader::Parser;
    use crate::api::Command;

    #[track_caller]
    fn check(event: &str, expected: &str) {
        let mut bodies = Bodies::default();
        let line = bodies.event(event.as_bytes()).expect("an event").line();
        assert_eq!(String::from_utf8_lossy(&line), expected);
        assert!(matches!(Parser::default().request(&line).command, Ok(Command::Publish(_))), "{expected}");
        let batch = format!(r#"{{"batch":[{event}, {event} ]}}"#);
        let batch = bodies.batch(batch.as_bytes()).expect("a batch");
        assert_eq!(batch.iter().map(Event::line).collect::<Vec<_>>(), [line.clone(), line]);
    }

    #[test]
    fn data_is_the_value_that_it_holds_or_else_the_string_that_it_is() {
        let check = |data: &str, expected: &str| {
            let event = format!(r#"{{"name":"e","channel":"c","data":{data}}}"#);
            check(&event, &format!(r#"{{"command":"publish","channel":"c","event":"e","data":{expected}}}"#));
        };
        check(r#""{\"id\":42}""#, r#"{"id":42}"#);
        check(r#"" [1,\n 2]\r\n""#, "[1,  2]");
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
