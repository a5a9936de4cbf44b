//! Requests of the command line, as lines of the admin socket.

use crate::api::Request;
use crate::api::member::Given;
use crate::api::publish::{Draft, PUBLISH};
use crate::protocol::json::Reader;
use serde_json::Value;
use std::borrow::Cow;

/// A request in the order in which it is written: the command, then its members.
pub struct Call<'a> {
    pub(super) command: &'static str,
    members: Vec<(&'static str, Given<'a>)>,
}

impl<'a> From<&'a Request> for Call<'a> {
    fn from(request: &'a Request) -> Call<'a> {
        Call { command: request.name(), members: request.members() }
    }
}

impl<'a> From<&'a Draft> for Call<'a> {
    fn from(publish: &'a Draft) -> Call<'a> {
        Call { command: PUBLISH.name, members: publish.members() }
    }
}

impl Call<'_> {
    /// The request as one line.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{{\"command\":\"{}\"", self.command);
        let quoted = |text: &str| Value::from(text).to_string();
        for (name, given) in &self.members {
            line += &format!(",\"{name}\":");
            match given {
                Given::Text(text) | Given::Word(text) => line += &quoted(text),
                Given::Number(text) => line += text,
                Given::Json(text) => line += text,
                Given::Texts(texts) => {
                    let texts: Vec<String> = texts.iter().flatten().map(|text| quoted(text)).collect();
                    line += &format!("[{}]", texts.join(","));
                }
                Given::Flag(flag) => line += &flag.to_string(),
                Given::Other => line += "null",
            }
        }
        line + "}\n"
    }

    /// Changes this request to the one for the page after `next`. Returns false if it is the same page: a server that
    /// repeats a cursor would otherwise be asked for ever.
    pub(super) fn turn_page(&mut self, next: &str) -> bool {
        let next = Given::Text(Cow::Owned(next.to_owned()));
        match self.members.iter_mut().find(|(name, _)| *name == "after") {
            Some((_, after)) => std::mem::replace(after, next.clone()) != next,
            None => {
                self.members.push(("after", next));
                true
            }
        }
    }
}

/// Checks DATA of the command line: any JSON value, kept as written. A request is one line, so line breaks, which JSON
/// allows only between tokens, become spaces.
pub fn data(text: &str) -> Result<Box<str>, String> {
    match Reader::default().read(text) {
        Some(document) => Ok(document.value().raw.replace(['\n', '\r'], " ").into()),
        None => {
            let quoted = Value::String(text.into()).to_string().replace('\'', r"'\''");
            Err(format!("not valid JSON. A string needs its own quotes: '{quoted}'"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::history::{Cursor, Since};
    use crate::api::operation::{self, Channels, Disconnect, History, Shed, Tail};
    use crate::api::{By, Share};

    fn publish(channels: &[&str], data: Option<&str>, exclude: Option<&str>) -> Draft {
        Draft {
            channels: channels.iter().map(|channel| (*channel).into()).collect(),
            event: "e".into(),
            data: data.map(|text| super::data(text).expect("JSON")),
            exclude: exclude.map(Box::from),
            ..Draft::default()
        }
    }

    #[test]
    fn requests_are_written_as_the_protocol_has_them() {
        fn check<'a>(call: impl Into<Call<'a>>, expected: &str) {
            assert_eq!(call.into().line(), format!("{expected}\n"));
        }
        check(
            &publish(&["a", "b"], Some(" {\"x\":\n1.50} "), Some("1.2")),
            r#"{"command":"publish","channels":["a","b"],"event":"e","data":{"x": 1.50},"exclude":"1.2"}"#,
        );
        check(&publish(&["a"], None, None), r#"{"command":"publish","channel":"a","event":"e"}"#);
        check(&publish(&["a"], Some("null"), None), r#"{"command":"publish","channel":"a","event":"e","data":null}"#);
        let to_users = Draft {
            users: vec!["1\"2".into(), "é".into()],
            event: "e".into(),
            dedupe: Some("order-42".into()),
            key: Some("k".into()),
            ..Draft::default()
        };
        check(&to_users, r#"{"command":"publish","users":["1\"2","é"],"event":"e","dedupe":"order-42","key":"k"}"#);
        let to_user = Draft { users: vec!["12".into()], event: "e".into(), ..Draft::default() };
        check(&to_user, r#"{"command":"publish","user":"12","event":"e"}"#);
        let check = |request: Request, expected| check(&request, expected);
        let since = |text: &str| text.parse::<Since>().expect("a position");
        check(
            History {
                channel: "a".into(),
                since: Some(since("a\":b:7")),
                limit: Some(0),
                reverse: true,
                after: Some(Cursor(since("0f:9"))),
            }
            .into(),
            r#"{"command":"history","channel":"a","since":{"epoch":"a\":b","offset":7},"limit":0,"reverse":true,"after":"0f:9"}"#,
        );
        let history = History { channel: "a".into(), ..History::default() };
        check(history.into(), r#"{"command":"history","channel":"a"}"#);
        let of_user = Disconnect { user: Some("12".into()), ..Disconnect::default() };
        check(of_user.into(), r#"{"command":"disconnect","user":"12"}"#);
        let channels = Channels { prefix: Some("us\"er:".into()), limit: Some(5), after: Some("c".into()) };
        check(channels.into(), r#"{"command":"channels","prefix":"us\"er:","limit":5,"after":"c"}"#);
        check(operation::Connections::default().into(), r#"{"command":"connections"}"#);
        check(
            Disconnect { socket_id: Some("1.2".into()), code: Some(4001), ..Disconnect::default() }.into(),
            r#"{"command":"disconnect","socket_id":"1.2","code":4001}"#,
        );
        check(operation::Stats {}.into(), r#"{"command":"stats"}"#);
        check(operation::Drain { over_ms: Some(1500) }.into(), r#"{"command":"drain","over_ms":1500}"#);
        let shed = |share| Shed::of(share, 0).into();
        check(shed(Share::Percent(20)), r#"{"command":"shed","percent":20,"over_ms":0}"#);
        check(shed(Share::Count(500)), r#"{"command":"shed","connections":500,"over_ms":0}"#);
        let busiest = |limit| operation::Busiest { by: By::Messages, limit }.into();
        check(busiest(None), r#"{"command":"busiest","by":"messages"}"#);
        check(busiest(Some(7)), r#"{"command":"busiest","by":"messages","limit":7}"#);
        let tail = Tail { events: vec!["close".into(), "limit".into()], sample: Some(9), ..Tail::default() };
        check(tail.into(), r#"{"command":"tail","events":["close","limit"],"sample":9}"#);
    }

    #[test]
    fn data_that_is_not_json_is_refused_with_the_way_to_quote_it() {
        let check = |text: &str, hint: &str| {
            let error = data(text).expect_err("not JSON");
            assert!(error.contains(hint), "{error}");
        };
        check("hello", r#"'"hello"'"#);
        check("it's", r#"'"it'\''s"'"#);
        check("", r#"'""'"#);
        check("1 2", "not valid JSON");
        for legal in [
            "\"\\ud83c\"",
            " [\"\\udc00\"] ",
            "null",
            "-1e400",
            "123456789012345678901234567890",
            "\"\\u0000\"",
            "[1,\r\n2]",
        ] {
            assert!(!data(legal).expect(legal).contains('\n'));
        }
    }
}
