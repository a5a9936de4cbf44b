//! Replies of the admin socket → lines. Pure. Each function appends one line, newline included.

use crate::admin::request::Refusal;
use crate::protocol::{channel, json};
use std::io::Write;

/// `{"id":…,"ok":false,"code":"…","error":"…"}`
pub fn refused(out: &mut Vec<u8>, id: &str, refusal: &Refusal) {
    let _ = write!(out, r#"{{"id":{id},"ok":false,"code":"{}","error":""#, refusal.code());
    refusal.text_into(out);
    out.extend_from_slice(b"\"}\n");
}

/// `{"id":…,"ok":true}`
pub fn done(out: &mut Vec<u8>, id: &str) {
    let _ = writeln!(out, r#"{{"id":{id},"ok":true}}"#);
}

/// `{"id":…,"ok":true,"subscribers":N}`
pub fn published(out: &mut Vec<u8>, id: &str, subscribers: u64) {
    let _ = writeln!(out, r#"{{"id":{id},"ok":true,"subscribers":{subscribers}}}"#);
}

impl Refusal {
    /// What programs read (PROTOCOL.md, The admin socket).
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::MalformedRequest(_) => "malformed_request",
            Refusal::UnknownCommand => "unknown_command",
            Refusal::MissingMember(_) => "missing_member",
            Refusal::InvalidChannel => "invalid_channel",
            Refusal::ReservedEvent => "reserved_event",
            Refusal::NotFound(_) => "not_found",
            Refusal::TooLarge { .. } => "too_large",
        }
    }

    /// Appends what people read, as it stands between quotes.
    fn text_into(&self, out: &mut Vec<u8>) {
        let text = match self {
            Refusal::MalformedRequest(text) | Refusal::NotFound(text) => text,
            Refusal::UnknownCommand => {
                "unknown command: there are publish, channels, channel, connections, connection, disconnect, unsubscribe, \
                 stats and ping"
            }
            Refusal::MissingMember(name) => {
                json::escape_into(out, name);
                " is missing"
            }
            Refusal::InvalidChannel => channel::RULE,
            Refusal::ReservedEvent => "event names starting with socket: are reserved",
            Refusal::TooLarge { what, limit } => {
                let _ = write!(out, "over the limit of {limit} ");
                json::escape_into(out, what);
                ": send less at once"
            }
        };
        json::escape_into(out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(append: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = b"what was there\n".to_vec();
        append(&mut out);
        let line = std::str::from_utf8(&out)
            .unwrap()
            .strip_prefix("what was there\n")
            .unwrap();
        assert_eq!(line.strip_suffix('\n'), Some(expected));
        serde_json::from_str::<serde::de::IgnoredAny>(line).unwrap();
    }

    #[test]
    fn good_news() {
        check(|out| done(out, "null"), r#"{"id":null,"ok":true}"#);
        check(
            |out| done(out, r#"{"a": "\u0062"}"#),
            r#"{"id":{"a": "\u0062"},"ok":true}"#,
        );
        check(|out| published(out, "1", 3), r#"{"id":1,"ok":true,"subscribers":3}"#);
        check(
            |out| published(out, "\"é\"", u64::MAX),
            r#"{"id":"é","ok":true,"subscribers":18446744073709551615}"#,
        );
    }

    #[test]
    fn bad_news() {
        let check = |refusal: Refusal, code: &str, error: &str| {
            check(
                |out| refused(out, "2", &refusal),
                &format!(r#"{{"id":2,"ok":false,"code":"{code}","error":"{error}"}}"#),
            );
        };
        check(
            Refusal::ReservedEvent,
            "reserved_event",
            "event names starting with socket: are reserved",
        );
        check(
            Refusal::MalformedRequest("no \"JSON\""),
            "malformed_request",
            r#"no \"JSON\""#,
        );
        check(
            Refusal::NotFound("no such connection"),
            "not_found",
            "no such connection",
        );
        check(Refusal::MissingMember("event"), "missing_member", "event is missing");
        let error = "over the limit of 262144 bytes of data: send less at once";
        check(
            Refusal::TooLarge {
                what: "bytes of data",
                limit: 262_144,
            },
            "too_large",
            error,
        );
        let error = "unknown command: there are publish, channels, channel, connections, connection, disconnect, \
                     unsubscribe, stats and ping";
        check(Refusal::UnknownCommand, "unknown_command", error);
        let error = "a channel name is 1 to 200 bytes of A-Z a-z 0-9 _ - = @ , . ; : / \
                     (no : after private-; presence- does not exist yet)";
        check(Refusal::InvalidChannel, "invalid_channel", error);
    }
}
