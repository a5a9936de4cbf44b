//! Templates: a subscribe, a ping or a publish in the format of a server.
//!
//! The holes are `{channel}`, `{data}`, `{body}` (the whole business message), `{len}` (its length) and `{n}` (a number
//! that counts up). Every other brace is literal, so JSON needs no escaping.

use serde::{Deserialize, Serialize};

/// A template, cut at its holes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Channel,
    Data,
    Body,
    Len,
    Number,
}

/// The values of the holes.
#[derive(Default, Clone, Copy)]
pub struct Fill<'a> {
    /// `{channel}`: the number of the channel; its name is `c` and this.
    pub channel: u32,
    /// `{data}`.
    pub data: &'a [u8],
    /// `{body}`, and `{len}` is its length.
    pub body: &'a [u8],
    /// `{n}`.
    pub number: u64,
}

impl Template {
    /// Appends the text with its holes filled.
    pub fn push(&self, out: &mut Vec<u8>, fill: Fill<'_>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Channel => {
                    out.push(b'c');
                    push_number(out, u64::from(fill.channel));
                }
                Part::Data => out.extend_from_slice(fill.data),
                Part::Body => out.extend_from_slice(fill.body),
                Part::Len => push_number(out, fill.body.len() as u64),
                Part::Number => push_number(out, fill.number),
            }
        }
    }

    /// The text, for a channel and a number.
    pub fn text(&self, channel: u32, number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        self.push(&mut out, Fill { channel, number, ..Fill::default() });
        out
    }
}

impl From<&str> for Template {
    fn from(source: &str) -> Template {
        let mut parts = Vec::new();
        let mut rest = source;
        while !rest.is_empty() {
            let next = HOLES.iter().filter_map(|(hole, part)| Some((rest.find(hole)?, hole, part))).min_by_key(|h| h.0);
            let Some((at, hole, part)) = next else {
                parts.push(Part::Text(rest.into()));
                break;
            };
            if at > 0 {
                parts.push(Part::Text(rest[..at].into()));
            }
            parts.push(part.clone());
            rest = &rest[at + hole.len()..];
        }
        Template { source: source.into(), parts }
    }
}

impl From<String> for Template {
    fn from(source: String) -> Template {
        Template::from(source.as_str())
    }
}

impl From<Template> for String {
    fn from(template: Template) -> String {
        template.source
    }
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

const HOLES: [(&str, Part); 5] = [
    ("{channel}", Part::Channel),
    ("{data}", Part::Data),
    ("{body}", Part::Body),
    ("{len}", Part::Len),
    ("{n}", Part::Number),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: &str) {
        let mut out = Vec::new();
        let fill = Fill { channel: 7, data: b"\"x\"", body: b"whole", number: 1203 };
        Template::from(template).push(&mut out, fill);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn holes_are_filled_and_other_braces_stay() {
        check(r#"{"id":{n},"channel":"{channel}","data":{data}}"#, r#"{"id":1203,"channel":"c7","data":"x"}"#);
        check("PUB {channel} {len}\r\n{body}\r\n", "PUB c7 5\r\nwhole\r\n");
        check("plain", "plain");
        check("", "");
    }
}
