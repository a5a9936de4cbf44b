//! Events as Pusher's libraries send them → lines of the admin socket. Pure.

use crate::protocol::json::Reader;
use serde::Deserialize;
use std::borrow::Cow;
use std::io::Write;

/// What `POST /events` holds, and each element of a batch.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// The event.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// A string that holds JSON, or any other text.
    #[serde(borrow)]
    pub data: Cow<'a, str>,
    /// Where to: this one,
    #[serde(default)]
    pub channel: Option<String>,
    /// or these.
    #[serde(default)]
    pub channels: Option<Vec<String>>,
    /// Who is left out, in either spelling of a socket_id.
    #[serde(default)]
    pub socket_id: Option<String>,
    /// Attributes to answer with, separated by commas.
    #[serde(default)]
    pub info: Option<String>,
}

/// What `POST /batch_events` holds.
#[derive(Debug, Deserialize)]
pub struct Batch<'a> {
    /// In order.
    #[serde(borrow)]
    pub batch: Vec<Event<'a>>,
}

impl Event<'_> {
    /// The channels that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.channel.iter().chain(self.channels.iter().flatten()).map(String::as_str)
    }

    /// Whether the answer is to tell how many subscribe.
    pub fn wants_counts(&self) -> bool {
        self.info.iter().any(|info| info.split(',').any(|attribute| attribute == COUNT))
    }
}

/// Writes lines; owns what judging `data` needs.
#[derive(Default)]
pub struct Lines {
    reader: Reader,
}

impl Lines {
    /// The `publish` that says the same. Subscribers get the value that `data` holds where it is JSON, else the string that
    /// it is. What the admin socket would refuse is still in it.
    pub fn of(&mut self, event: &Event<'_>) -> Vec<u8> {
        let mut line = Vec::with_capacity(event.data.len() + OVERHEAD_BYTES);
        // In the order and spelling of PROTOCOL.md's example, which is the one that is parsed fastest.
        line.extend_from_slice(br#"{"command":"publish""#);
        if let Some(channel) = &event.channel {
            member(&mut line, "channel", channel);
        }
        if let Some(channels) = &event.channels {
            match &channels[..] {
                [channel] if event.channel.is_none() => member(&mut line, "channel", channel),
                channels => member(&mut line, "channels", channels),
            }
        }
        member(&mut line, "event", &event.name);
        match self.reader.read(&event.data) {
            Some(_) => {
                line.extend_from_slice(br#","data":"#);
                // Outside strings a newline is white space, and inside there is none: a line stays a line.
                let byte = |byte: u8| if byte == b'\n' || byte == b'\r' { b' ' } else { byte };
                line.extend(event.data.trim_ascii().bytes().map(byte));
            }
            None => member(&mut line, "data", &event.data),
        }
        if let Some(socket_id) = &event.socket_id {
            member(&mut line, "exclude", socket_id);
        }
        line.push(b'}');
        line
    }
}

fn member(line: &mut Vec<u8>, name: &str, value: &(impl serde::Serialize + ?Sized)) {
    let _ = write!(line, r#","{name}":"#);
    // Strings and lists of them can be written, and a Vec takes them.
    let _ = serde_json::to_writer(line, value);
}

/// The one attribute of a channel that there is to ask for.
pub const COUNT: &str = "subscription_count";
/// Names, quotes and commas, roughly.
const OVERHEAD_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::request::{Command, Parser};

    #[track_caller]
    fn check(event: &str, expected: &str) {
        let event: Event<'_> = serde_json::from_str(event).unwrap();
        let line = Lines::default().of(&event);
        assert_eq!(String::from_utf8_lossy(&line), expected);
        assert!(matches!(Parser::default().request(&line).command, Ok(Command::Publish(_))), "{expected}");
    }

    #[test]
    fn data_is_the_value_that_it_holds_or_else_the_string_that_it_is() {
        let check = |data: &str, expected: &str| {
            let data = serde_json::to_string(data).unwrap();
            let event = format!(r#"{{"name":"e","channel":"c","data":{data}}}"#);
            check(&event, &format!(r#"{{"command":"publish","channel":"c","event":"e","data":{expected}}}"#));
        };
        check(r#"{"id":42}"#, r#"{"id":42}"#);
        check(" [1,\n 2]\r\n", "[1,  2]");
        check("hello", r#""hello""#);
        check("\"hello\"", r#""hello""#);
        check("a\nb", r#""a\nb""#);
        check("17", "17");
        check("", r#""""#);
        check("\"\\ud800\"", r#""\"\\ud800\"""#);
        check("{\"a\":1} x", r#""{\"a\":1} x""#);
    }

    #[test]
    fn channels_and_exclusions_go_along() {
        check(
            r#"{"name":"e","channels":["a"],"data":"1","socket_id":"1.2","other":[1]}"#,
            r#"{"command":"publish","channel":"a","event":"e","data":1,"exclude":"1.2"}"#,
        );
        check(
            r#"{"name":"e\n","channels":["a","b"],"data":"1","socket_id":null}"#,
            r#"{"command":"publish","channels":["a","b"],"event":"e\n","data":1}"#,
        );
    }
}
