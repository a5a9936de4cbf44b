//! JSON as this server needs it: a verdict on a whole text, then raw spans of it, byte for byte as they were written.
//!
//! [`Reader::read`] has simd-json judge a copy (it unescapes in place) and keeps what its first stage found on the way: the
//! offset of every brace, bracket, colon and comma, and of every value's first byte. The spans are cut from the untouched
//! text by walking those offsets, so no byte of a string or number is looked at twice.
//!
//! Where a key stands twice in an object, the last one wins ([`Members::named`]).

use serde::de::IgnoredAny;
use simd_json::tape::Tape;
use std::borrow::Cow;
use std::io::Write;

/// A JSON string as it was written and as it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonString<'a> {
    /// Between the quotes, as written: may be put between quotes again, byte for byte.
    pub raw: &'a str,
    /// Unescaped.
    pub value: Cow<'a, str>,
}

/// Judges texts; owns the copy, the tape and the offsets, reused from text to text.
pub struct Reader {
    copy: Vec<u8>,
    buffers: simd_json::Buffers,
    tape: Tape<'static>,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { copy: Vec::new(), buffers: simd_json::Buffers::default(), tape: Tape(Vec::new()) }
    }
}

impl Reader {
    /// `None`: not one JSON value (RFC 8259), or one with a string that is no Unicode (a lone surrogate escape).
    /// Numbers may have any size and containers any depth.
    pub fn read<'r, 'a>(&'r mut self, text: &'a str) -> Option<Document<'r, 'a>> {
        if self.tape.0.capacity() > NODES_KEPT_MAX {
            *self = Reader::default();
        }
        self.copy.clear();
        self.copy.extend_from_slice(text.as_bytes());
        self.copy.resize(text.len() + simd_json::INPUT_PADDING, b' ');
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let verdict = simd_json::fill_tape_padded(&mut self.copy, text.len(), &mut self.buffers, &mut tape);
        self.tape = tape.reset();
        // simd-json also refuses numbers beyond its types and nesting beyond its stack. Its first stage, which finds the
        // offsets, fails only where the text is no JSON, so they can be relied on either way.
        if verdict.is_err() && !is_json(text) {
            return None;
        }
        Some(Document { text, structurals: self.buffers.structural_indexes() })
    }
}

/// A text that is one JSON value.
#[derive(Clone, Copy)]
pub struct Document<'r, 'a> {
    text: &'a str,
    /// Offset of each of `{}[]:,` outside strings and of each value's first byte.
    structurals: &'r [u32],
}

/// A value inside a [`Document`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The value as it was written, without white space around it.
    pub raw: &'a str,
    /// Index of its first structural.
    index: usize,
}

impl<'r, 'a> Document<'r, 'a> {
    /// The members of the object that the text is; `None`: it is something else.
    pub fn object(self) -> Option<Members<'r, 'a>> {
        (self.byte(0)?.1 == b'{').then_some(Members { document: self, index: 1 })
    }

    /// The members of `value`; `None`: it is no object.
    pub fn members(self, value: Value<'a>) -> Option<Members<'r, 'a>> {
        value.raw.starts_with('{').then_some(Members { document: self, index: value.index + 1 })
    }

    /// The elements of `value`; `None`: it is no array.
    pub fn elements(self, value: Value<'a>) -> Option<Elements<'r, 'a>> {
        value.raw.starts_with('[').then_some(Elements { document: self, index: value.index + 1 })
    }

    /// Offset and byte of a structural.
    fn byte(self, index: usize) -> Option<(usize, u8)> {
        let at = *self.structurals.get(index)? as usize;
        Some((at, *self.text.as_bytes().get(at)?))
    }

    /// The container that a structural opens, and the structural behind it.
    fn container(self, index: usize) -> Option<(Value<'a>, usize)> {
        let bytes = self.text.as_bytes();
        let structurals = self.structurals.get(index..)?;
        let mut depth = 0usize;
        let last = structurals.iter().position(|&at| {
            match bytes.get(at as usize) {
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                _ => {}
            }
            depth == 0
        })?;
        let raw = self.text.get(*structurals.first()? as usize..=*structurals.get(last)? as usize)?;
        Some((Value { raw, index }, index + last + 1))
    }
}

/// The scalar that starts at an offset, in front of the structural at another.
#[inline]
fn span(text: &str, start: u32, before: u32) -> Option<&str> {
    let mut end = before as usize;
    let bytes = text.as_bytes();
    while matches!(bytes.get(end.wrapping_sub(1)), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        end -= 1;
    }
    text.get(start as usize..end)
}

impl<'a> Value<'a> {
    /// The value, if it is a string.
    pub fn string(self) -> Option<JsonString<'a>> {
        let raw = self.raw.strip_prefix('"')?.strip_suffix('"')?;
        Some(JsonString { raw, value: unescape(self.raw, raw)? })
    }

    /// The text of the value, if it is a string.
    pub fn text(self) -> Option<Cow<'a, str>> {
        self.string().map(|string| string.value)
    }

    /// Whether the value is a number.
    pub fn is_number(self) -> bool {
        self.raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
    }
}

/// Keys and values of an object, in the order in which they were written. A key is a string.
pub struct Members<'r, 'a> {
    document: Document<'r, 'a>,
    index: usize,
}

impl<'a> Members<'_, 'a> {
    /// The values under these names; of several under one name, the last. Keys are compared unescaped.
    pub fn named<const N: usize>(self, names: [&str; N]) -> [Option<Value<'a>>; N] {
        let mut found = [None; N];
        for (key, value) in self {
            let raw = key.raw.get(1..key.raw.len() - 1).unwrap_or_default();
            let position = names.iter().position(|name| *name == raw).or_else(|| position_unescaped(key, &names));
            if let Some(position) = position {
                found[position] = Some(value);
            }
        }
        found
    }
}

/// Apart, since no name asked for holds a backslash: what was written as it reads is found without looking for one.
#[cold]
fn position_unescaped(key: Value<'_>, names: &[&str]) -> Option<usize> {
    let text = key.raw.contains('\\').then(|| key.text())??;
    names.iter().position(|name| *name == text)
}

impl<'a> Iterator for Members<'_, 'a> {
    type Item = (Value<'a>, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Document { text, structurals } = self.document;
        // A member has at least these four: the quote of its key, its colon, the start of its value and what ends that.
        let &[key, colon, value, after, ..] = structurals.get(self.index..)? else {
            return None;
        };
        if text.as_bytes().get(key as usize) != Some(&b'"') {
            return None;
        }
        let key = Value { raw: span(text, key, colon)?, index: self.index };
        let index = self.index + 2;
        let (value, next) = match text.as_bytes().get(value as usize) {
            Some(b'{' | b'[') => self.document.container(index)?,
            _ => (Value { raw: span(text, value, after)?, index }, index + 1),
        };
        self.index = next + usize::from(self.document.byte(next)?.1 == b',');
        Some((key, value))
    }
}

/// Elements of an array.
pub struct Elements<'r, 'a> {
    document: Document<'r, 'a>,
    index: usize,
}

impl<'a> Iterator for Elements<'_, 'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let Document { text, structurals } = self.document;
        let &[element, after, ..] = structurals.get(self.index..)? else {
            return None;
        };
        let (value, next) = match text.as_bytes().get(element as usize)? {
            b']' => return None,
            b'{' | b'[' => self.document.container(self.index)?,
            _ => (Value { raw: span(text, element, after)?, index: self.index }, self.index + 1),
        };
        self.index = next + usize::from(self.document.byte(next)?.1 == b',');
        Some(value)
    }
}

/// Appends `text` as it stands between the quotes of a JSON string. Also escapes what JSON does not ask for but people who
/// read lines in a terminal do: see [`is_unseen`].
pub fn escape_into(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            _ => push_seen(out, character),
        }
    }
}

/// Appends JSON, or what stands in a string of it: the same on one line, with what is [unseen](is_unseen) escaped.
pub fn show_into(out: &mut Vec<u8>, json: &str) {
    for character in json.chars() {
        match character {
            // Only between tokens.
            '\n' | '\r' | '\t' => out.push(b' '),
            _ => push_seen(out, character),
        }
    }
}

fn push_seen(out: &mut Vec<u8>, character: char) {
    if is_unseen(character) {
        // All of them have four digits.
        let _ = write!(out, "\\u{:04x}", character as u32);
    } else {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Whether a terminal shows no character for it but does something: obeys, writes what follows from right to left, or puts
/// nothing where something is.
pub fn is_unseen(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
    );
    character.is_control() || is_format
}

/// `quoted` is `raw` between its quotes. Nearly nothing that is read here was escaped: then nothing is copied.
fn unescape<'a>(quoted: &str, raw: &'a str) -> Option<Cow<'a, str>> {
    if raw.as_bytes().contains(&b'\\') {
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(raw))
    }
}

/// The verdict where simd-json refused. serde_json skips numbers of any size, and containers of any depth without recursion,
/// but does not look at what a `\u` escape stands for.
#[cold]
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() && surrogates_are_paired(text)
}

/// Whether each surrogate escape of a valid JSON text is half of a pair.
fn surrogates_are_paired(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at..];
        let taken = match code_unit(rest) {
            Some(0xD800..=0xDBFF) => match rest.get(6..).and_then(code_unit) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => return false,
            },
            Some(0xDC00..=0xDFFF) => return false,
            Some(_) => 6,
            None => 2,
        };
        rest = &rest[taken..];
    }
    true
}

/// The UTF-16 code unit that a leading `\uXXXX` stands for.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// A tape that grew beyond this many nodes (24 bytes each) is let go before the next text: one admin line of a million
/// brackets would otherwise hold 25 MB for good. A message of 64 KiB, the default limit, never gets there.
const NODES_KEPT_MAX: usize = 128 * 1024;
/// Bytes of one: the parser makes at most one of each byte of a text.
pub const NODE_BYTES: usize = 24;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    /// An independent verdict, by serde_json alone: its `RawValue` checks the grammar, its `String` every escape.
    pub(crate) fn serde_says_json(text: &str) -> bool {
        fn strings_are_unicode(raw: &RawValue) -> bool {
            match raw.get().as_bytes()[0] {
                b'"' => serde_json::from_str::<String>(raw.get()).is_ok(),
                b'[' => serde_json::from_str::<Vec<&RawValue>>(raw.get())
                    .is_ok_and(|elements| elements.into_iter().all(strings_are_unicode)),
                b'{' => serde_json::from_str::<Pairs>(raw.get())
                    .is_ok_and(|pairs| pairs.0.into_iter().all(|(_, value)| strings_are_unicode(value))),
                _ => true,
            }
        }
        serde_json::from_str::<&RawValue>(text).is_ok_and(strings_are_unicode)
    }

    /// The members of an object as serde_json sees them, duplicates included.
    struct Pairs<'a>(Vec<(String, &'a RawValue)>);

    impl<'de> serde::Deserialize<'de> for Pairs<'de> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Pairs<'de>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }

    /// Random JSON as somebody might write it: odd white space, escapes, duplicate keys, numbers of every size.
    pub(crate) fn written_json() -> impl Strategy<Value = String> {
        let space = "[ \t\n\r]{0,3}";
        let scalar = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
            written_string(),
        ];
        let spaced = (space, scalar, space).prop_map(|(a, b, c)| a + &b + &c);
        spaced.prop_recursive(5, 40, 6, move |inner| {
            let key = prop_oneof![Just("\"event\"".to_owned()), Just("\"\\u0065vent\"".to_owned()), written_string()];
            let member =
                (space, key, space, inner.clone()).prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
            let array = prop::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(",")));
            let object = prop::collection::vec(member, 0..6).prop_map(|items| format!("{{{}}}", items.join(",")));
            (space, prop_oneof![array, object], space).prop_map(|(a, b, c)| a + &b + &c)
        })
    }

    fn written_string() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-z:{}\\[\\], ]{0,40}",
            1 => "\\PC{0,8}".prop_map(|text| text.replace(['\\', '"'], "/")),
            1 => "\\\\[\"\\\\/bfnrt]",
            1 => "\\\\u00[0-9a-fA-F]{2}",
            1 => Just("\\ud83d\\uDE00".to_owned()),
        ];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
    }

    /// One slip of the pen: a byte range replaced by something JSON is sensitive to.
    pub(crate) fn mutated(text: &str, at: usize, len: usize, with: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at % (chars.len() + 1);
        let end = (at + len).min(chars.len());
        chars.splice(at..end, with.chars());
        chars.into_iter().collect()
    }

    pub(crate) fn slips() -> impl Strategy<Value = (usize, usize, String)> {
        let with = prop::sample::select(vec![
            "", "\"", "\\", "{", "}", "[", "]", ":", ",", " ", "0", "-", "+", ".", "e", "1e999", "\u{0}", "\u{1f}",
            "\u{c}", "\u{b}", "\u{85}", "\u{a0}", "\u{feff}", "\\ud800", "\\udc00", "\\u12", "\\x", "nul", "true",
            "NaN", "//", "'", "é",
        ]);
        (0usize..500, 0usize..3, with.prop_map(str::to_owned))
    }

    #[track_caller]
    fn check(text: &str, is_json: bool) {
        let shown: String = text.chars().take(80).collect();
        assert_eq!(Reader::default().read(text).is_some(), is_json, "{shown:?}");
    }

    #[test]
    fn the_verdict_is_that_of_rfc_8259() {
        for text in ["1", "-0", "0.0e-0", "\"\"", "null", " [ ] ", "{}", "\t{\n}\r", "1e999", "-1e-999", "[1E+99999]"] {
            check(text, true);
        }
        check(&"9".repeat(100), true);
        check(&format!("{{\"a\":-{}.{}e{}}}", "9".repeat(100), "1".repeat(100), "7".repeat(100)), true);
        for text in [
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            r#"{"a":[1e400,{"b":"\ud83d\ude00"}]}"#,
        ] {
            check(text, true);
        }
        for text in [
            "",
            " ",
            "\u{feff}{}",
            "{}{}",
            "{} x",
            "{}\0",
            "nul",
            "True",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "0x1",
            "1 2",
        ] {
            check(text, false);
        }
        for text in
            [r#"{"a":1,}"#, "[1,]", "[,1]", r#"{a:1}"#, r#"{"a" 1}"#, r#"{"a":}"#, "{1:1}", "[1}", "{]", "[", "{", "]"]
        {
            check(text, false);
        }
        for text in
            ["\"", "\"\\", "\"\\\"", r#""\x""#, r#""\u12g4""#, r#""\u+123""#, "\"\n\"", "\"\u{1f}\"", "\"\0\"", "'a'"]
        {
            check(text, false);
        }
        for text in ["[1e999", "[1e999]]", "[1e999,]", "[1e999,01]", "[1e999,\"\n\"]", r#"[1e999,"\x"]"#, "1e999\0"] {
            check(text, false);
        }
    }

    #[test]
    fn a_lone_surrogate_is_refused_whoever_judges() {
        for lone in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x", r"\udbff\n", r"\ud83d\\ude00", r"\uDFFF\uD800"]
        {
            check(&format!("[\"{lone}\"]"), false);
            check(&format!("[1e999,\"{lone}\"]"), false);
        }
        for paired in [r"\ud83d\ude00", r"\\ud800", r"\\\\udc00", r"\ud7ff\ue000", r"\\\ud83d\uDE00"] {
            check(&format!("[\"{paired}\"]"), true);
            check(&format!("[1e999,\"{paired}\"]"), true);
        }
    }

    #[test]
    fn depth_is_no_error_and_no_overflow() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[[[{\"\":", "}]]]")] {
            for depth in [100, 1_023, 1_024, 1_025, 60_000] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                check(&text, true);
                check(&text[..text.len() - 1], false);
                check(&text[1..], false);
                check(&open.repeat(depth), false);
            }
        }
    }

    #[test]
    fn every_byte_everywhere_gets_the_verdict_of_serde_json() {
        let mut reader = Reader::default();
        let text = "{ \"a\\n\" : [ true,-1.5e+3 ,null] ,\"b\":false, \"c\" :\"\\u0041\",\"d\":{}}";
        for at in 0..=text.len() {
            for byte in 0..128u8 {
                for inserted in [0, 1] {
                    let Some(tail) = text.get(at + 1 - inserted..) else {
                        continue;
                    };
                    let mutant = format!("{}{}{tail}", &text[..at], char::from(byte));
                    assert_eq!(reader.read(&mutant).is_some(), serde_says_json(&mutant), "{mutant:?}");
                }
            }
        }
    }

    #[test]
    fn keys_are_compared_unescaped_and_values_stay_as_written() {
        let text = "{ \"\\u0065vent\" :\t\"a\\u0062\" , \"event\":{\"x\" : [1, 2 ]} ,\"n\": -0.0E-0\n,\"z\":[ ] }";
        let mut reader = Reader::default();
        let members: Vec<_> =
            reader.read(text).unwrap().object().unwrap().map(|(key, value)| (key.text().unwrap(), value.raw)).collect();
        let expected = [("event", r#""a\u0062""#), ("event", r#"{"x" : [1, 2 ]}"#), ("n", "-0.0E-0"), ("z", "[ ]")];
        assert_eq!(members, expected.map(|(key, raw)| (Cow::Borrowed(key), raw)));
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        let text = r#"{"b":0,"a":1,"\u0061":2,"aa":3,"":4,"c":5,"\u0063":6,"c":7}"#;
        let mut reader = Reader::default();
        let found = reader.read(text).unwrap().object().unwrap().named(["a", "", "c", "d"]);
        assert_eq!(found.map(|value| value.map(|value| value.raw)), [Some("2"), Some("4"), Some("7"), None]);
    }

    #[test]
    fn spans_can_be_cut_from_what_only_serde_json_accepts() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let text = format!("{{\"a\":1e999,\"b\":{deep},\"c\":\"\\\"\"}}");
        let mut reader = Reader::default();
        let members: Vec<_> = reader.read(&text).unwrap().object().unwrap().map(|(_, value)| value.raw).collect();
        assert_eq!(members, ["1e999", &deep, "\"\\\"\""]);
    }

    #[test]
    fn a_huge_tape_is_not_kept() {
        let mut reader = Reader::default();
        reader.read(&format!("[{}1]", "1,".repeat(NODES_KEPT_MAX))).unwrap();
        assert!(reader.tape.0.capacity() > NODES_KEPT_MAX);
        reader.read("{}").unwrap();
        assert!(reader.tape.0.capacity() <= NODES_KEPT_MAX);
    }

    #[test]
    fn warm_buffers_are_not_replaced() {
        let mut reader = Reader::default();
        let text = r#"{"event":"socket:ping","data":{"id":1}}"#;
        reader.read(text).unwrap();
        let (copy, tape) = (reader.copy.as_ptr(), reader.tape.0.as_ptr());
        reader.read(text).unwrap();
        assert_eq!((copy, tape), (reader.copy.as_ptr(), reader.tape.0.as_ptr()));
    }

    fn same_spans(document: Document<'_, '_>, value: Value<'_>, raw: &RawValue) {
        assert_eq!(value.raw, raw.get());
        if let Some(members) = document.members(value) {
            let members: Vec<_> = members.collect();
            let Pairs(pairs) = serde_json::from_str(raw.get()).unwrap();
            assert_eq!(members.len(), pairs.len());
            for ((key, value), (expected_key, expected)) in members.into_iter().zip(pairs) {
                assert_eq!(key.text().unwrap(), expected_key);
                same_spans(document, value, expected);
            }
        } else if let Some(elements) = document.elements(value) {
            let elements: Vec<_> = elements.collect();
            let expected: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap();
            assert_eq!(elements.len(), expected.len());
            for (value, expected) in elements.into_iter().zip(expected) {
                same_spans(document, value, expected);
            }
        } else if let Some(string) = value.string() {
            assert_eq!(string.value, serde_json::from_str::<String>(raw.get()).unwrap());
        } else {
            assert_eq!(value.is_number(), !matches!(raw.get(), "true" | "false" | "null"));
        }
    }

    #[test]
    fn what_is_shown_is_the_same_and_steers_no_terminal() {
        let mut out = Vec::new();
        show_into(&mut out, "{\"é\u{9b}31m\":\r[\"\u{7f}\\u001b\u{202e}中\"]}");
        assert_eq!(out, r#"{"é\u009b31m": ["\u007f\u001b\u202e中"]}"#.as_bytes());
    }

    proptest! {
        #[test]
        fn verdicts_equal_those_of_serde_json(text in written_json(), slips in prop::collection::vec(slips(), 0..3), shift in 0usize..130) {
            let text = format!("{}{text}", " ".repeat(shift));
            let mut reader = Reader::default();
            prop_assert!(reader.read(&text).is_some());
            let text = slips.iter().fold(text, |text, (at, len, with)| mutated(&text, *at, *len, with));
            prop_assert_eq!(reader.read(&text).is_some(), serde_says_json(&text), "{:?}", text);
        }

        #[test]
        fn spans_equal_those_of_serde_json(text in written_json(), shift in 0usize..130) {
            // The shift puts everything on every side of simd-json's 64-byte blocks.
            let text = format!("{{{}\"top\":{text}}}", " ".repeat(shift));
            let mut reader = Reader::default();
            let document = reader.read(&text).unwrap();
            let (_, value) = document.object().unwrap().next().unwrap();
            let raw: BTreeMap<String, &RawValue> = serde_json::from_str(&text).unwrap();
            same_spans(document, value, raw["top"]);
        }

        #[test]
        fn any_text_is_judged_without_panic(text in "\\PC{0,200}") {
            prop_assert_eq!(Reader::default().read(&text).is_some(), serde_says_json(&text));
        }

        #[test]
        fn what_is_escaped_reads_as_it_was(text in any::<String>()) {
            let mut out = vec![b'"'];
            escape_into(&mut out, &text);
            out.push(b'"');
            prop_assert!(!std::str::from_utf8(&out).unwrap().contains(is_unseen));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
