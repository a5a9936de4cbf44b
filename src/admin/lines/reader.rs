//! Reads lines of the admin socket as requests. Pure.
//!
//! [`api`](crate::api) declares the members of each request. A member that the operation does not have is refused first.
//! Otherwise the first wrong member, in the order of the declaration, decides the refusal.

use crate::api::declare::Declaration;
use crate::api::member::{Given, Members};
use crate::api::operation::declaration;
use crate::api::publish::{DATA_BYTES_MAX, DEDUPE_BYTES_MAX, EVENT_BYTES_MAX, KEY_BYTES_MAX, PUBLISH};
use crate::api::publish::{More, check_dedupe, check_key, check_user, check_users};
use crate::api::publish::{check_channel, check_channels, check_data, check_event, check_socket_id};
use crate::api::{Command, Publish, Refusal, Request};
use crate::protocol::channel::Channel;
use crate::protocol::event::reserved_prefix;
use crate::protocol::json::{Document, Reader, Value, scan};
use smallvec::SmallVec;
use std::borrow::Cow;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// `id` as written, any JSON value; `null` if it is missing, or if the line is not a JSON object.
    pub id: &'a str,
    /// The request, or why it is refused.
    pub command: Result<Command<'a>, Refusal>,
}

/// Reads lines. Owns the buffers of the JSON reader.
#[derive(Default)]
pub struct Parser {
    reader: Reader,
}

impl Parser {
    /// Reads one line (without its newline).
    pub fn request<'a>(&mut self, line: &'a [u8]) -> Line<'a> {
        let Ok(line) = std::str::from_utf8(line) else {
            return refused("the line is not valid UTF-8");
        };
        plain_publish(line).unwrap_or_else(|| self.parsed(line))
    }

    fn parsed<'a>(&mut self, line: &'a str) -> Line<'a> {
        let Some(document) = self.reader.read(line) else {
            return refused("the line is not valid JSON");
        };
        let Some(object) = Object::of(document) else {
            return refused("the line is not a JSON object");
        };
        object.line(Object::command)
    }

    /// Reads the members of this operation, without `id` and `command`, from the body of an HTTP request.
    pub fn members<'a>(&mut self, operation: &Declaration, body: &'a [u8]) -> Result<Command<'a>, Refusal> {
        self.object(body)?.operation(operation, &[])
    }

    /// Reads a request of this operation, without `command`, from the body of an HTTP request.
    pub fn body<'a>(&mut self, operation: &Declaration, body: &'a [u8]) -> Line<'a> {
        match self.object(body) {
            Ok(object) => object.line(|object| object.operation(operation, &["id"])),
            Err(refusal) => Line { id: "null", command: Err(refusal) },
        }
    }

    fn object<'a>(&mut self, body: &'a [u8]) -> Result<Object<'_, 'a>, Refusal> {
        let text = std::str::from_utf8(body).map_err(|_| Refusal::malformed("the body is not valid UTF-8"))?;
        let document = self.reader.read(text).ok_or(Refusal::malformed("the body is not valid JSON"))?;
        Object::of(document).ok_or(Refusal::malformed("the body is not a JSON object"))
    }
}

fn refused<'a>(why: &'static str) -> Line<'a> {
    Line { id: "null", command: Err(Refusal::malformed(why)) }
}

/// The fast path, by [`scan`], for a publish to one channel with only the usual members. `None` does not decide
/// anything: the parser reads every other line, and produces every refusal.
fn plain_publish(line: &str) -> Option<Line<'_>> {
    let [mut id, mut command, mut channel, mut event, mut data, mut dedupe, mut key] = [None; 7];
    scan::members(line, |name, value| {
        let member = match name {
            b"id" => &mut id,
            b"command" => &mut command,
            b"channel" => &mut channel,
            b"event" => &mut event,
            b"data" => &mut data,
            b"dedupe" => &mut dedupe,
            b"key" => &mut key,
            _ => return None,
        };
        *member = Some(value);
        Some(())
    })?;
    let channel = unquoted(channel?)?;
    let event = unquoted(event?)?;
    let dedupe = short(dedupe, DEDUPE_BYTES_MAX)?;
    let key = short(key, KEY_BYTES_MAX)?;
    let is_plain = command? == r#""publish""#
        && Channel::parse(channel).is_some()
        && (1..=EVENT_BYTES_MAX).contains(&event.len())
        && !event.contains('\\')
        && reserved_prefix(event).is_none()
        && data.map_or(0, str::len) <= DATA_BYTES_MAX
        && id.map_or(0, str::len) <= ID_BYTES_MAX;
    if !is_plain {
        return None;
    }
    let publish = Publish {
        channels: SmallVec::from_buf([channel.into()]),
        is_list: false,
        event: event.into(),
        data: data.map(Cow::Borrowed),
        exclude: None,
        more: match (dedupe, key) {
            (None, None) => None,
            _ => More { dedupe: dedupe.map(Cow::Borrowed), key: key.map(Cow::Borrowed), ..More::default() }.boxed(),
        },
    };
    Some(Line { id: id.unwrap_or("null"), command: Ok(Command::Publish(publish)) })
}

fn unquoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// The text of an optional string without escapes, of 1 to `bytes_max` bytes.
fn short(value: Option<&str>, bytes_max: usize) -> Option<Option<&str>> {
    let Some(value) = value else { return Some(None) };
    let text = unquoted(value)?;
    let is_plain = (1..=bytes_max).contains(&text.len()) && !text.contains('\\');
    is_plain.then_some(Some(text))
}

/// The members of a JSON object.
struct Object<'r, 'a> {
    document: Document<'r, 'a>,
    members: SmallVec<[(Cow<'a, str>, Value<'a>); 8]>,
}

impl Members for Object<'_, '_> {
    fn given(&self, name: &str) -> Option<Given<'_>> {
        self.find(name).map(|value| self.value(value))
    }
}

impl<'r, 'a> Object<'r, 'a> {
    fn of(document: Document<'r, 'a>) -> Option<Self> {
        let name = |key: Value<'a>| match key.raw.contains('\\') {
            true => key.text().unwrap_or(Cow::Borrowed(key.raw)),
            false => Cow::Borrowed(unquoted(key.raw).unwrap_or_default()),
        };
        let members = document.object()?.map(|(key, value)| (name(key), value)).collect();
        Some(Object { document, members })
    }

    /// The request, with its `id`.
    fn line(&self, command: impl FnOnce(&Self) -> Result<Command<'a>, Refusal>) -> Line<'a> {
        match self.find("id") {
            Some(id) if id.raw.len() > ID_BYTES_MAX => refused("id is longer than 256 bytes"),
            id => Line { id: id.map_or("null", |id| id.raw), command: command(self) },
        }
    }

    /// The value of the last member with this name.
    fn find(&self, name: &str) -> Option<Value<'a>> {
        self.members.iter().rev().find(|(given, _)| given == name).map(|(_, value)| *value)
    }

    fn value(&self, value: Value<'a>) -> Given<'a> {
        match value.raw.as_bytes().first() {
            Some(b'"') => value.text().map_or(Given::Other, Given::Text),
            Some(b'-' | b'0'..=b'9') => Given::Number(Cow::Borrowed(value.raw)),
            Some(b'[') => Given::Texts(self.document.elements(value).into_iter().flatten().map(Value::text).collect()),
            Some(b't' | b'f') => Given::Flag(value.raw == "true"),
            _ => Given::Json(Cow::Borrowed(value.raw)),
        }
    }

    fn command(&self) -> Result<Command<'a>, Refusal> {
        let command = self.find("command").ok_or(Refusal::MissingMember("command"))?;
        let command = command.text().ok_or(Refusal::malformed("command must be a string"))?;
        let operation = declaration(&command)?;
        self.operation(operation, &["id", "command"])
    }

    /// `common`: members that every request has at this entry point.
    fn operation(&self, operation: &Declaration, common: &[&'static str]) -> Result<Command<'a>, Refusal> {
        let is_known = |name: &str| operation.members.contains(&name) || common.contains(&name);
        if let Some((name, _)) = self.members.iter().find(|(name, _)| !is_known(name)) {
            return Err(Refusal::unknown_member(name, operation, common));
        }
        match operation.name {
            name if name == PUBLISH.name => self.publish().map(Command::Publish),
            name => Request::read(name, self).map(Command::Request),
        }
    }

    fn publish(&self) -> Result<Publish<'a>, Refusal> {
        let (to, users) = self.recipients()?;
        let event = self.find("event").ok_or(Refusal::MissingMember("event"))?;
        let event = event.string().ok_or(Refusal::malformed("event must be a string"))?;
        check_event(event.raw, &event.value)?;
        let data = self.find("data").map(|data| data.raw);
        check_data(data)?;
        let exclude = self.text("exclude")?;
        Ok(Publish {
            event: Cow::Borrowed(event.raw),
            data: data.map(Cow::Borrowed),
            exclude: check_socket_id(exclude.as_deref(), "exclude")?,
            more: More {
                users,
                dedupe: self.text("dedupe")?.map(check_dedupe).transpose()?,
                key: self.text("key")?.map(check_key).transpose()?,
                ..More::default()
            }
            .boxed(),
            ..to
        })
    }

    /// An optional string.
    fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        self.find(name).map(|value| string(value, name)).transpose()
    }

    /// The channels or users of a publish; the other members are not set.
    fn recipients(&self) -> Result<(Publish<'a>, Vec<Cow<'a, str>>), Refusal> {
        let mut given = RECIPIENTS.into_iter().filter_map(|name| Some((name, self.find(name)?)));
        let (name, value) = given.next().ok_or(Refusal::MissingMember("channel"))?;
        if let Some((other, _)) = given.next() {
            return Err(Refusal::malformed(format!("{name} and {other} are both given")));
        }
        let (mut publish, mut users) = (Publish::default(), Vec::new());
        match name {
            "channel" => publish.channels.push(check_channel(string(value, name)?)?),
            "user" => users.push(check_user(string(value, name)?)?),
            "channels" => publish.channels.extend(self.list(name, value, check_channels, check_channel)?),
            _ => users = self.list(name, value, check_users, check_user)?,
        }
        publish.is_list = matches!(name, "channels" | "users");
        Ok((publish, users))
    }

    fn list(
        &self,
        name: &'static str,
        value: Value<'a>,
        check_count: impl FnOnce(usize) -> Result<(), Refusal>,
        check: impl Fn(Cow<'a, str>) -> Result<Cow<'a, str>, Refusal>,
    ) -> Result<Vec<Cow<'a, str>>, Refusal> {
        let elements = || self.document.elements(value);
        let count =
            elements().ok_or_else(|| Refusal::malformed(format!("{name} must be an array of strings")))?.count();
        check_count(count)?;
        let checked = |element: Value<'a>| check(element.text().ok_or(Refusal::malformed("must be a string"))?);
        let each = elements().into_iter().flatten().map(checked).enumerate();
        each.map(|(index, result)| result.map_err(|why| why.within(name, index))).collect()
    }
}

fn string<'a>(value: Value<'a>, name: &str) -> Result<Cow<'a, str>, Refusal> {
    value.text().ok_or_else(|| Refusal::malformed(format!("{name} must be a string")))
}

/// The members that say to which channels or users a publish goes. A publish has exactly one of them.
const RECIPIENTS: [&str; 4] = ["channel", "channels", "user", "users"];
/// Longest `id`, as written. It is limited because replies repeat it.
pub const ID_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::operation::{
        self, Busiest, Channels, Connection, Connections, Disconnect, Drain, Events, Ping, Reload, Shed, Stats, Tail,
        Unsubscribe,
    };
    use crate::api::{By, Share};
    use crate::protocol::json::tests::{mutated, serde_says_json, slips, written_json};
    use crate::protocol::socket_id::SocketId;
    use proptest::prelude::*;

    const MALFORMED: &str = "malformed_request";

    /// The code of the refusal, or "ok".
    fn verdict<T>(result: &Result<T, Refusal>) -> &'static str {
        result.as_ref().map_or_else(Refusal::code, |_| "ok")
    }

    #[track_caller]
    fn check<'a>(line: &'a str, expected: Command<'a>) {
        assert_eq!(Parser::default().request(line.as_bytes()), Line { id: "1", command: Ok(expected) }, "{line}");
    }

    #[track_caller]
    fn check_code(line: impl AsRef<[u8]>, id: &str, code: &str) {
        let (mut parser, shown) =
            (Parser::default(), String::from_utf8_lossy(&line.as_ref()[..line.as_ref().len().min(200)]));
        let request = parser.request(line.as_ref());
        assert_eq!((request.id, verdict(&request.command)), (id, code), "{shown}: {:?}", request.command);
    }

    fn with<'a>(more: More<'a>, channels: &[&'a str]) -> Publish<'a> {
        Publish { more: more.boxed(), ..publish(channels, "e", None) }
    }

    fn publish<'a>(channels: &[&'a str], event: &'a str, data: Option<&'a str>) -> Publish<'a> {
        let channels = channels.iter().map(|name| Cow::Borrowed(*name)).collect();
        Publish { channels, event: event.into(), data: data.map(Cow::Borrowed), ..Publish::default() }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_operation_is_read() {
        let check = |line: &str, expected: Request| check(line, Command::Request(expected));
        check(r#"{"id":1,"command":"stats"}"#, Stats {}.into());
        check(r#"{"id":1,"command":"reload"}"#, Reload {}.into());
        check(r#"{"id":1,"command":"drain"}"#, Drain { over_ms: None }.into());
        check(r#"{"id":1,"command":"drain","over_ms":0}"#, Drain { over_ms: Some(0) }.into());
        check(
            r#"{"id":1,"command":"shed","percent":20}"#,
            Shed { percent: Some(20), connections: None, over_ms: None }.into(),
        );
        check(r#"{"id":1,"command":"shed","connections":500,"over_ms":1}"#, Shed::of(Share::Count(500), 1).into());
        for (read_only, flag) in [("", false), (r#","read_only":false"#, false), (r#","read_only":true"#, true)] {
            let line = format!(r#"{{"id":1,"command":"console_token"{read_only}}}"#);
            check(&line, operation::ConsoleToken { read_only: flag }.into());
        }
        for wrong in ["null", "1", r#""true""#, "[]"] {
            check_code(format!(r#"{{"id":1,"command":"console_token","read_only":{wrong}}}"#), "1", MALFORMED);
        }
        check(r#"{"id":1,"command":"tail"}"#, Tail::default().into());
        let publishes = Tail {
            channel: Some("a*".into()),
            events: vec!["publish".into()],
            sample: Some(9),
            rate: Some(7),
            data: Some(5),
            ..Tail::default()
        };
        check(
            r#"{"id":1,"command":"tail","channel":"a*","events":["publish"],"sample":9,"rate":7,"data":5}"#,
            publishes.into(),
        );
        for wrong in [r#""events":["shut"]"#, r#""events":"close""#, r#""sample":0"#, r#""rate":0"#, r#""data":1025"#] {
            check_code(format!(r#"{{"id":1,"command":"tail",{wrong}}}"#), "1", MALFORMED);
        }
        check_code(format!(r#"{{"id":1,"command":"tail","channel":"{}"}}"#, "*".repeat(257)), "1", "too_large");
        check(r#"{"id":1,"command":"events"}"#, Events::default().into());
        check(
            r#"{"id":1,"command":"events","since":41,"epoch":"00000000000000Ff"}"#,
            Events { since: Some(41), epoch: Some("00000000000000Ff".into()), also: Vec::new() }.into(),
        );
        check(
            r#"{"id":1,"command":"events","also":["cache_miss","client_event"]}"#,
            Events { also: vec!["cache_miss".into(), "client_event".into()], ..Events::default() }.into(),
        );
        check_code(r#"{"id":1,"command":"events","also":["connected"]}"#, "1", MALFORMED);
        check(r#"{"id":1,"command":"busiest"}"#, Busiest::default().into());
        let busiest = Busiest { by: By::Messages, limit: Some(20) };
        check(r#"{"id":1,"command":"busiest","by":"messages","limit":20}"#, busiest.into());
        check(r#"{"id":1,"command":"busiest","by":"s\u0075bscribers"}"#, Busiest::default().into());
        check(r#"{"id":1,"command":"p\u0069ng"}"#, Ping {}.into());
        check(r#"{"id":1,"command":"channels"}"#, Channels::default().into());
        check(
            r#"{"id":1,"command":"channels","prefix":"user:","limit":1000,"after":"user:7"}"#,
            Channels { prefix: Some("user:".into()), limit: Some(1000), after: Some("user:7".into()) }.into(),
        );
        check(
            r#"{"id":1,"command":"channel","channel":"user:13"}"#,
            operation::Channel { channel: "user:13".into(), newest: false }.into(),
        );
        check(r#"{"id":1,"command":"connections"}"#, Connections::default().into());
        check(
            r#"{"id":1,"command":"connections","limit":1,"after":""}"#,
            Connections { limit: Some(1), after: Some("".into()) }.into(),
        );
        check(
            r#"{"id":1,"command":"connection","socket_id":"12.34"}"#,
            Connection { socket_id: "12.34".into() }.into(),
        );
        check(
            r#"{"id":1,"command":"disconnect","socket_id":"12.34"}"#,
            Disconnect { socket_id: Some("12.34".into()), ..Disconnect::default() }.into(),
        );
        check(
            r#"{"id":1,"command":"disconnect","socket_id":"1.2","code":4999,"reason":"b\u0061nned"}"#,
            Disconnect {
                socket_id: Some("1.2".into()),
                code: Some(4999),
                reason: Some("banned".into()),
                ..Disconnect::default()
            }
            .into(),
        );
        check(
            r#"{"id":1,"command":"unsubscribe","socket_id":"12.34","channel":"not a legal name"}"#,
            Unsubscribe { socket_id: "12.34".into(), channel: "not a legal name".into() }.into(),
        );
    }

    #[test]
    fn an_unknown_member_is_refused_and_the_nearest_is_named() {
        let check = |members: &str, text: &str| {
            let line = format!(r#"{{"id":1,{members}}}"#);
            let Err(refusal) = Parser::default().request(line.as_bytes()).command else { panic!("{line}") };
            assert_eq!((refusal.code(), &*refusal.text()), (MALFORMED, text), "{line}");
        };
        for (name, nearest) in [("exlude", "exclude"), ("chanel", "channel"), ("Data", "data"), ("comand", "command")] {
            let members = format!(r#""command":"publish","channel":"a","event":"e","{name}":1"#);
            check(&members, &format!("publish has no member \"{name}\"; the nearest is \"{nearest}\""));
        }
        // This check comes before all others.
        check(r#""command":"channel","chanel":"a""#, r#"channel has no member "chanel"; the nearest is "channel""#);
        check(r#""command":"ping","idd":1e999"#, r#"ping has no member "idd"; the nearest is "id""#);
        check(r#""command":"ping","\u0069d\"":1"#, r#"ping has no member "id\""; the nearest is "id""#);
        check_code(r#"{"id":1,"command":"pong","x":1}"#, "1", "unknown_command");
    }

    #[test]
    fn a_body_is_a_request_without_its_command() {
        let check = |body: &str, id: &str, expected: &str| {
            let mut parser = Parser::default();
            let Line { id: found, command } = parser.body(&PUBLISH, body.as_bytes());
            let text = command.map_or_else(|refusal| refusal.text().into_owned(), |_| "ok".into());
            assert_eq!((found, text.as_str()), (id, expected), "{body}");
        };
        check(r#"{"channel":"a","event":"e","id":[1, "x"]}"#, r#"[1, "x"]"#, "ok");
        check(r#"{"channels":["a"],"event":"e","data":1,"exclude":"1.1"}"#, "null", "ok");
        let unknown = r#"publish has no member "idd"; the nearest is "id""#;
        check(r#"{"channel":"a","event":"e","idd":1}"#, "null", unknown);
        let command = r#"{"id":1,"command":"publish","channel":"a","event":"e"}"#;
        check(command, "1", r#"publish has no member "command"; the nearest is "channel""#);
        let long = format!(r#"{{"id":"{}","channel":"a","event":"e"}}"#, "x".repeat(ID_BYTES_MAX));
        check(&long, "null", "id is longer than 256 bytes");
        check("[]", "null", "the body is not a JSON object");
    }

    #[test]
    fn the_fields_of_a_body_are_those_of_its_operation() {
        let read = |text: &str| {
            let mut parser = Parser::default();
            let command = parser.members(&PUBLISH, text.as_bytes());
            verdict(&command)
        };
        assert_eq!(read(r#"{"channel":"a","event":"e"}"#), "ok");
        for wrong in
            ["", "[]", r#"{"channel":"a","event":"e","id":1}"#, r#"{"channel":"a","event":"e","command":"publish"}"#]
        {
            assert_eq!(read(wrong), MALFORMED, "{wrong}");
        }
    }

    #[test]
    fn a_publish_keeps_event_and_data_as_written() {
        let check = |members: &str, expected: Publish<'_>| {
            let line = format!(r#"{{"id":1,"command":"publish",{members}}}"#);
            let Ok(Command::Publish(read)) = Parser::default().request(line.as_bytes()).command else {
                panic!("{line}")
            };
            assert_eq!(format!("{read:?}"), format!("{expected:?}"));
        };
        check(
            r#""channel":"user:13","event":"order.paid","data":{"id": 42}"#,
            publish(&["user:13"], "order.paid", Some(r#"{"id": 42}"#)),
        );
        check(r#""channel":"user:13","event":"order.paid""#, publish(&["user:13"], "order.paid", None));
        check(r#""channel":"a","event":"e","data":null"#, publish(&["a"], "e", Some("null")));
        check(r#""channel":"a","event":"e","data": -1E+999 "#, publish(&["a"], "e", Some("-1E+999")));
        check(
            r#""channel":"a\u002fb","event":"\u0065\"","data":"\ud83d\ude00""#,
            publish(&["a/b"], r#"\u0065\""#, Some(r#""\ud83d\ude00""#)),
        );
        let list = Publish { is_list: true, ..publish(&["a", "b", "a"], "e", None) };
        check(r#""channels":["a", "b","a"],"event":"e""#, list);
        check(
            r#""event":"x","channel":"a","event":"e","data":1,"d\u0061ta":[ 2 ]"#,
            publish(&["a"], "e", Some("[ 2 ]")),
        );
        let exclude = Some(SocketId { high: 12, low: 34 });
        check(r#""channel":"a","event":"e","exclude":"12.34""#, Publish { exclude, ..publish(&["a"], "e", None) });
    }

    #[test]
    fn a_line_that_is_not_a_json_object_is_answered_with_id_null() {
        for line in ["", " ", "{", "[]", "1", "null", "\"publish\"", r#"{"id":1}x"#, r#"[{"id":1}]"#] {
            check_code(line, "null", MALFORMED);
        }
        check_code(
            b"{\"id\":1,\"command\":\"publish\",\"channel\":\"a\",\"event\":\"e\",\"data\":\"\xFF\"}",
            "null",
            MALFORMED,
        );
        check_code(b"{\"id\":1,\"command\":\"ping\",\"x\":\"\xED\xA0\x80\"}", "null", MALFORMED);
        check_code(format!("{{\"id\":1,\"data\":{}", "[".repeat(60_000)), "null", MALFORMED);
    }

    #[test]
    fn any_id_is_echoed_as_written_up_to_256_bytes() {
        for id in [
            "\"\\ud83c\"",
            "{\"\\udc00\":1}",
            "null",
            "0",
            "-1.50e+999",
            "\"a\\u0062\"",
            "[1, {\"a\" :2}]",
            "{ }",
            "false",
        ] {
            check_code(format!("{{\"id\" : {id} , \"command\":\"ping\"}}"), id, "ok");
            check_code(format!("{{\"id\" : {id} , \"command\":\"pong\"}}"), id, "unknown_command");
        }
        check_code(r#"{"id":1,"id":2,"command":"ping"}"#, "2", "ok");
        check_code(r#"{"command":"ping"}"#, "null", "ok");
        let longest = "7".repeat(256);
        check_code(format!("{{\"id\":{longest},\"command\":\"ping\"}}"), &longest, "ok");
        check_code(format!("{{\"id\":{longest}7,\"command\":\"ping\"}}"), "null", MALFORMED);
    }

    #[test]
    fn each_wrong_member_has_its_code() {
        let check = |members: &str, code| check_code(format!("{{\"id\":1{members}}}"), "1", code);
        check("", "missing_member");
        check(r#","command":"""#, "unknown_command");
        check(r#","command":"Ping""#, "unknown_command");
        for value in ["null", "1", "[]", "{}", "true"] {
            check(&format!(r#","command":{value}"#), MALFORMED);
            for (command, member) in [
                ("channels", "prefix"),
                ("channels", "after"),
                ("channel", "channel"),
                ("connections", "after"),
                ("busiest", "by"),
            ] {
                check(&format!(r#","command":"{command}","{member}":{value}"#), MALFORMED);
            }
            for command in ["connection", "disconnect", "unsubscribe"] {
                check(&format!(r#","command":"{command}","socket_id":{value}"#), MALFORMED);
            }
            check(&format!(r#","command":"unsubscribe","socket_id":"1.1","channel":{value}"#), MALFORMED);
            check(&format!(r#","command":"disconnect","socket_id":"1.1","reason":{value}"#), MALFORMED);
        }
        for (command, members) in [
            ("channel", ""),
            ("connection", ""),
            ("unsubscribe", r#","channel":"a""#),
            ("unsubscribe", r#","socket_id":"1.1""#),
        ] {
            check(&format!(r#","command":"{command}"{members}"#), "missing_member");
        }
    }

    #[test]
    fn data_may_hold_an_unpaired_surrogate_and_names_may_not() {
        for data in [r#""\ud83c""#, r#"{"\udc00":["\ud83c\ud83c"]}"#] {
            for rest in ["", r#","exclude":"1.1""#] {
                let line =
                    format!(r#"{{"id":"\ud83c","command":"publish","channel":"a","event":"e","data":{data}{rest}}}"#);
                let mut parser = Parser::default();
                let request = parser.request(line.as_bytes());
                let Ok(Command::Publish(publish)) = request.command else { panic!("{line}") };
                assert_eq!((request.id, publish.data.as_deref()), (r#""\ud83c""#, Some(data)));
            }
        }
        let publish = r#""command":"publish","channel":"a","event":"e""#;
        for (member, value) in [
            ("command", r#""publish\ud83c""#),
            ("channel", r#""a\udc00""#),
            ("event", r#""\ud83ce""#),
            ("channels", r#"["\ud800\ud800"]"#),
            ("exclude", r#""1.1\ud83c""#),
        ] {
            check_code(format!(r#"{{"id":7,{publish},"{member}":{value}}}"#), "7", MALFORMED);
        }
        check_code(r#"{"id":7,"command":"connection","socket_id":"\ud83c"}"#, "7", MALFORMED);
    }

    #[test]
    fn numbers_are_integers_within_their_range() {
        let check = |member: &str, number: &str, code| {
            check_code(format!(r#"{{"id":1,"command":"channels","{member}":{number}}}"#), "1", code);
        };
        for limit in
            ["0", "-1", "-0", "1001", "1.0", "1e2", "null", "\"1\"", "1e999", "99999999999999999999", "true", "[1]"]
        {
            check("limit", limit, MALFORMED);
        }
        for limit in ["1", "1000"] {
            check("limit", limit, "ok");
        }
        let check = |code: &str, verdict| {
            check_code(format!(r#"{{"id":1,"command":"disconnect","socket_id":"1.1","code":{code}}}"#), "1", verdict);
        };
        for code in ["3999", "5000", "1000", "-4000", "4000.0", "4e3", "\"4000\"", "null", "69536"] {
            check(code, MALFORMED);
        }
        for code in ["4000", "4123", "4999"] {
            check(code, "ok");
        }
        let check = |over_ms: &str, verdict| {
            check_code(format!(r#"{{"id":1,"command":"drain","over_ms":{over_ms}}}"#), "1", verdict);
        };
        for over_ms in ["-1", "3600001", "1.0", "1e3", "\"1\"", "null", "\"60s\""] {
            check(over_ms, MALFORMED);
        }
        for over_ms in ["0", "1", "3600000"] {
            check(over_ms, "ok");
        }
        let check =
            |members: &str, verdict| check_code(format!(r#"{{"id":1,"command":"shed"{members}}}"#), "1", verdict);
        for members in [
            r#","percent":101"#,
            r#","percent":"20%""#,
            r#","percent":2.5"#,
            r#","connections":-1"#,
            r#","connections":null"#,
        ] {
            check(members, MALFORMED);
        }
        check(r#","percent":0"#, "ok");
        check(r#","connections":0"#, "ok");
    }

    #[test]
    fn a_reason_fits_a_close_frame() {
        let check = |reason: &str, verdict| {
            check_code(
                format!(r#"{{"id":1,"command":"disconnect","socket_id":"1.1","reason":"{reason}"}}"#),
                "1",
                verdict,
            );
        };
        check("", "ok");
        check(&"x".repeat(123), "ok");
        check(&"x".repeat(124), "too_large");
        check(&"é".repeat(62), "too_large");
        check(&"\\u0041".repeat(123), "ok");
    }

    #[test]
    fn a_publish_is_refused_by_its_first_wrong_member() {
        let check = |members: &str, code| check_code(format!(r#"{{"id":1,"command":"publish"{members}}}"#), "1", code);
        check("", "missing_member");
        check(r#","event":"e""#, "missing_member");
        check(r#","channel":"a""#, "missing_member");
        check(r#","channel":"a","channels":["a"],"event":"e""#, MALFORMED);
        check(r#","channel":null,"channels":["a"],"event":"e""#, MALFORMED);
        for channel in ["null", "1", "[\"a\"]", "{}"] {
            check(&format!(r#","channel":{channel},"event":"e""#), MALFORMED);
        }
        for channels in ["null", "1", "\"a\"", "{}", "[]", "[1]", "[null]", "[[\"a\"]]", r#"["a",1]"#] {
            check(&format!(r#","channels":{channels},"event":"e""#), MALFORMED);
        }
        check(r#","channel":"","event":"e""#, "invalid_channel");
        check(r#","channel":"presence-a:b","event":"e""#, "invalid_channel");
        check(r#","channel":"presence-a","event":"e""#, "ok");
        check(r#","channels":["a","b c"],"event":"e""#, "invalid_channel");
        check(r#","channel":"a b","event":"socket:ping""#, "invalid_channel");
        for event in ["null", "1", "[]", r#""""#] {
            check(&format!(r#","channel":"a","event":{event}"#), MALFORMED);
        }
        for event in [
            "socket:ping",
            "socket:",
            "socket:anything",
            "\\u0073ocket:ping",
            "socket\\u003a",
            "pusher:a",
            "pusher_internal:a",
            "pusher\\u003a",
        ] {
            check(&format!(r#","channel":"a","event":"{event}","data":1"#), "reserved_event");
        }
        for event in ["socket", "Socket:ping", " socket:ping", "sockets:ping", "pusher", "pusher_a:", "client-a"] {
            check(&format!(r#","channel":"a","event":"{event}""#), "ok");
        }
        for exclude in ["null", "1", "\"\"", "\"none\"", "[]"] {
            check(&format!(r#","channel":"a","event":"e","exclude":{exclude}"#), MALFORMED);
        }
    }

    #[test]
    fn keys_and_names_of_messages_and_users_are_unescaped() {
        let check = |members: &str, expected: Publish<'_>| {
            let line = format!(r#"{{"id":1,"command":"publish","event":"e",{members}}}"#);
            let mut parser = Parser::default();
            let Ok(Command::Publish(read)) = parser.request(line.as_bytes()).command else { panic!("{line}") };
            assert_eq!(format!("{read:?}"), format!("{expected:?}"), "{line}");
        };
        let (dedupe, key) = (Some("order-42".into()), Some("é\"".into()));
        let expected = with(More { dedupe: dedupe.clone(), key: key.clone(), ..More::default() }, &["a"]);
        check(r#""channel":"a","dedupe":"order\u002d42","key":"\u00e9\"""#, expected);
        let expected = with(More { dedupe, ..More::default() }, &["a"]);
        check(r#""channel":"a","dedupe":"x","dedupe":"order-42""#, expected);
        let users = |users: &[&'static str]| users.iter().map(|user| Cow::Borrowed(*user)).collect();
        check(r#""user":"\u0031 é""#, with(More { users: users(&["1 é"]), ..More::default() }, &[]));
        let expected =
            Publish { is_list: true, ..with(More { users: users(&["1", "2", "1"]), ..More::default() }, &[]) };
        check(r#""users":["1","2","\u0031"]"#, expected);
    }

    #[test]
    fn a_refusal_names_the_element_of_a_list() {
        let check = |members: &str, code: &str, text: &str| {
            let line = format!(r#"{{"command":"publish","event":"e",{members}}}"#);
            let Err(refusal) = Parser::default().request(line.as_bytes()).command else { panic!("{line}") };
            assert_eq!((refusal.code(), refusal.text().starts_with(text)), (code, true), "{line}: {refusal:?}");
        };
        check(r#""channels":["a","b c",1]"#, "invalid_channel", "channels[1]: a channel name is");
        check(r#""channels":[1,"b c"]"#, MALFORMED, "channels[0]: must be a string");
        check(r#""users":["a","b",""]"#, MALFORMED, "users[2]: user is empty");
        let long = "é".repeat(65);
        check(&format!(r#""users":["a","{long}"]"#), "too_large", "users[1]: over the limit of 128 bytes of user");
    }

    #[test]
    fn a_publish_is_bounded() {
        let check = |members: &str, code| check_code(format!(r#"{{"id":1,"command":"publish"{members}}}"#), "1", code);
        let channels = |count: usize| format!(r#","channels":["a"{}],"event":"e""#, r#","a""#.repeat(count - 1));
        check(&channels(100), "ok");
        check(&channels(101), "too_large");
        check(&format!(r#","channels":[{}1],"event":"e""#, "1,".repeat(100)), "too_large");
        let data = |len: usize| format!(r#","channel":"a","event":"e","data":"{}""#, "x".repeat(len - 2));
        check(&data(262_144), "ok");
        check(&data(262_145), "too_large");
        let event = |len| format!(r#","channel":"a","event":"{}""#, "x".repeat(len));
        check(&event(1024), "ok");
        check(&event(1025), "too_large");
        check(&format!(r#","channel":"a","event":"socket:{}""#, "x".repeat(2000)), "reserved_event");
    }

    /// Lines that are nearly valid, so that replacements hit the parts that matter.
    fn nearly_requests() -> impl Strategy<Value = String> {
        let command = prop::sample::select(vec![
            "publish",
            "channels",
            "channel",
            "history",
            "members",
            "connections",
            "disconnect",
            "unsubscribe",
            "ping",
        ]);
        let key = prop::sample::select(vec![
            "id",
            "channel",
            "channels",
            "event",
            "data",
            "exclude",
            "dedupe",
            "key",
            "user",
            "users",
            "since",
            "reverse",
            "limit",
            "code",
            "reason",
            "socket_id",
        ]);
        let value = prop_oneof![
            written_json(),
            Just("\"1.1\"".to_owned()),
            Just("{\"epoch\":\"0f\",\"offset\":7}".to_owned()),
            Just("[\"a\",\"b\"]".to_owned()),
            Just("4000".to_owned())
        ];
        (command, prop::collection::vec((key, value), 0..5)).prop_map(|(command, members)| {
            let members: String = members.iter().map(|(key, value)| format!(",\"{key}\":{value}")).collect();
            format!(r#"{{"command":"{command}","channel":"a","event":"e"{members}}}"#)
        })
    }

    #[test]
    fn a_plain_publish_goes_around_the_parser() {
        for line in [
            r#"{"id":1,"command":"publish","channel":"user:13","event":"order.paid","data":{"id":42}}"#,
            r#"{"id": 1, "command": "publish", "channel": "user:13", "event": "order.paid", "data": {"a": "\n"}}"#,
            r#"{"channel":"a","event":"e","command":"publish"}"#,
            r#"{"command":"publish","channel":"a","event":"e","key":"é","dedupe":"order-42"}"#,
        ] {
            assert_eq!(plain_publish(line), Some(Parser::default().parsed(line)), "{line}");
        }
        for line in [
            r#"{"command":"publish","channel":"a","event":"e","exclude":"12.34"}"#,
            r#"{"command":"publish","channels":["a"],"event":"e"}"#,
            r#"{"command":"publish","user":"a","event":"e"}"#,
            r#"{"command":"publish","channel":"a","event":"e","key":""}"#,
            r#"{"command":"publish","channel":"a","event":"e","key":1}"#,
            r#"{"command":"publish","channel":"a","event":"e","dedupe":"\u0061"}"#,
            r#"{"command":"publish","channel":"a b","event":"e"}"#,
            r#"{"command":"publish","channel":"a","event":"socket:e"}"#,
            r#"{"command":"publish","channel":"a","event":"\\"}"#,
            r#"{"command":"publish","channel":"a","event":""}"#,
            r#"{"command":"publish","channel":"a","event":1}"#,
            r#"{"command":"publish","channel":"a","event":"e"} 1"#,
            r#"{"command":"ping","channel":"a","event":"e"}"#,
            r#"{"channel":"a","event":"e"}"#,
        ] {
            assert_eq!(plain_publish(line), None, "{line}");
        }
    }

    /// Publishes of every spelling, most of them plain.
    fn publishes() -> impl Strategy<Value = String> {
        let member = prop_oneof![
            8 => written_json().prop_map(|data| format!("\"data\":{data}")),
            2 => written_json().prop_map(|id| format!("\"id\" :{id}")),
            1 => Just("\"id\":17".to_owned()),
            1 => "[a-z:\\\\\"]{0,9}".prop_map(|event| format!("\"event\": \"{event}\"")),
            1 => "[a-z:-]{0,9}".prop_map(|channel| format!("\"channel\":\"{channel}\"")),
            1 => Just("\"event\":\"socket:x\"".to_owned()),
            2 => ("key|dedupe", "[a-zé\\\\\"]{0,4}").prop_map(|(name, text)| format!("\"{name}\": \"{text}\"")),
            1 => ("key|dedupe", 62..67usize).prop_map(|(name, len)| format!("\"{name}\":\"{}\"", "x".repeat(len))),
            1 => ("key|dedupe", written_json()).prop_map(|(name, value)| format!("\"{name}\":{value}")),
        ];
        let fixed = [r#""command":"publish""#, r#""channel":"a""#, r#""event":"e""#].map(str::to_owned).to_vec();
        prop::collection::vec(member, 0..4)
            .prop_flat_map(move |members| Just([members, fixed.clone()].concat()).prop_shuffle())
            .prop_map(|members| format!("{{{}}}", members.join(",")))
    }

    proptest! {
        #[test]
        fn a_plain_publish_is_what_the_parser_reads(
            line in publishes(),
            slips in prop::collection::vec(slips(), 0..2),
        ) {
            let line = slips.iter().fold(line, |line, (at, len, with)| mutated(&line, *at, *len, with));
            if let Some(plain) = plain_publish(&line) {
                prop_assert_eq!(plain, Parser::default().parsed(&line), "{:?}", line);
            }
        }

        #[test]
        fn any_bytes_are_answered(line in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Parser::default().request(&line).command.is_err());
        }

        #[test]
        fn what_is_not_json_is_malformed_and_what_is_read_is_echoed(
            line in nearly_requests(),
            slips in prop::collection::vec(slips(), 0..3),
        ) {
            let line = slips.iter().fold(line, |line, (at, len, with)| mutated(&line, *at, *len, with));
            let mut parser = Parser::default();
            let request = parser.request(line.as_bytes());
            let is_object = serde_says_json(&line) && line.trim_start().starts_with('{');
            prop_assert!(is_object || (request.id, verdict(&request.command)) == ("null", MALFORMED), "{:?}", line);
            if let Ok(Command::Publish(publish)) = request.command {
                type Raw<'a> = std::collections::HashMap<String, &'a serde_json::value::RawValue>;
                let members: Raw<'_> = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(publish.data.as_deref(), members.get("data").map(|raw| raw.get()));
                prop_assert_eq!(request.id, members.get("id").map_or("null", |raw| raw.get()));
                prop_assert_eq!(format!("\"{}\"", publish.event), members["event"].get());
            }
        }
    }
}
