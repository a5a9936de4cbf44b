//! Positions in requests for a channel's history, and the messages of the reply.

use super::member::{Given, Member, Written};
use super::refusal::Refusal;
use super::value::raw_json;
use crate::protocol::json::Reader;
use crate::protocol::position::{OFFSET_MAX, Position, read_epoch};
use crate::protocol::pusher::data::OwnedText;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A position as a client writes it: in a member an object, in a cursor and on the command line `EPOCH:OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The life of the log. Any text is allowed, because an epoch means nothing to clients.
    pub epoch: Box<str>,
    /// The place in the log.
    pub offset: u64,
}

impl Since {
    /// The epoch as a number; `None`: it is not an epoch of any corecast.
    pub fn epoch(&self) -> Option<u64> {
        read_epoch(&self.epoch)
    }

    /// Reads the JSON object `{"epoch": "…", "offset": N}`, which has no other members.
    fn read(json: &str) -> Option<Since> {
        let mut reader = Reader::default();
        let document = reader.read(json)?;
        let (mut epoch, mut offset) = (None, None);
        for (key, value) in document.object()? {
            match &*key.text()? {
                "epoch" => epoch = Some(value.text()?),
                "offset" => offset = Some(value.raw.parse().ok().filter(|offset| *offset <= OFFSET_MAX)?),
                _ => return None,
            }
        }
        Some(Since { epoch: epoch?.into(), offset: offset? })
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Since, String> {
        let (epoch, offset) = text.rsplit_once(':').ok_or("must be EPOCH:OFFSET")?;
        match offset.parse() {
            Ok(number) if number <= OFFSET_MAX && !offset.starts_with('+') => {
                Ok(Since { epoch: epoch.into(), offset: number })
            }
            _ => Err(format!("OFFSET must be an integer from 0 to {OFFSET_MAX}")),
        }
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl Written for Since {
    fn written(&self) -> Option<Given<'_>> {
        let epoch = serde_json::Value::from(&*self.epoch);
        Some(Given::Json(format!(r#"{{"epoch":{epoch},"offset":{}}}"#, self.offset).into()))
    }
}

/// An optional position.
pub(super) fn since(member: Member<'_>) -> Result<Option<Since>, Refusal> {
    let since = match member.given() {
        None => return Ok(None),
        Some(Given::Json(json)) => Since::read(json),
        Some(Given::Word(text)) => text.parse().ok(),
        Some(_) => None,
    };
    let what = || format!(r#"{{"epoch": a string, "offset": an integer from 0 to {OFFSET_MAX}}}"#);
    since.map(Some).ok_or_else(|| member.must_be(what()))
}

/// The `next` of a page of a history: where the following page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub Since);

impl Written for Cursor {
    fn written(&self) -> Option<Given<'_>> {
        Some(Given::Text(self.0.to_string().into()))
    }
}

/// An optional cursor.
pub(super) fn cursor(member: Member<'_>) -> Result<Option<Cursor>, Refusal> {
    let cursor = match member.given() {
        None => return Ok(None),
        Some(Given::Text(text) | Given::Word(text)) => text.parse().ok(),
        Some(_) => None,
    };
    cursor.map(|since| Some(Cursor(since))).ok_or_else(|| member.must_be("the next of an earlier reply"))
}

/// A page of a channel's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryPage {
    /// The channel's newest message; `None`: the channel has no history.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// Whether nothing is missing of what was asked for.
    pub complete: bool,
    /// The messages: oldest first, or newest first.
    pub messages: Vec<Kept>,
    /// The last message of this page, if there are more.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_cursor")]
    pub next: Option<Position>,
}

impl HistoryPage {
    /// The answer for a channel that has no history.
    pub fn without_history(has_since: bool) -> HistoryPage {
        HistoryPage { position: None, complete: !has_since, messages: Vec::new(), next: None }
    }
}

/// A message in a channel's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place.
    pub offset: u64,
    /// The event's name as written between the quotes.
    pub event: Box<str>,
    /// Raw JSON of its data.
    pub data: Option<Box<str>>,
}

/// The newest message that a channel keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The message.
    pub message: Kept,
    /// How the text that Pusher's clients receive differs from the JSON of its data. Replies do not show it.
    pub text: OwnedText,
    /// Seconds for which it is still kept.
    pub ttl_s: u64,
}

impl Kept {
    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("event", raw_json(&format!("\"{}\"", self.event))?)?;
        if let Some(data) = &self.data {
            map.serialize_entry("data", raw_json(data)?)?;
        }
        Ok(())
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.entries(&mut map)?;
        map.end()
    }
}

impl Serialize for Newest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.message.entries(&mut map)?;
        map.serialize_entry("ttl_s", &self.ttl_s)?;
        map.end()
    }
}

fn as_cursor<S: Serializer>(next: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    next.map(|Position { epoch, offset }| format!("{epoch:016x}:{offset}")).serialize(serializer)
}

/// Most messages of one page.
pub const MESSAGES_MAX: usize = 1000;
/// Bytes of events and data after which a page ends. It has at least one message.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for text in ["9f3c2d01ab45ef67:1005", ":0", "a:b:9007199254740991"] {
            let since: Since = text.parse().expect(text);
            assert_eq!(since.to_string(), text);
            let Some(Given::Json(json)) = since.written() else { panic!("{text}") };
            assert_eq!(Since::read(&json), Some(since));
        }
        for text in ["", "7", "a:", "a:-1", "a:+1", "a:1.0", "a:9007199254740992"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }
}
