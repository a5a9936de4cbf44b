//! JSON strings: unescaping, escaping, and display in a terminal.

use std::borrow::Cow;
use std::io::Write;

/// A JSON string as written, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonString<'a> {
    /// The text between the quotes, as written. It may be put between quotes again, byte for byte.
    pub raw: &'a str,
    /// Unescaped.
    pub value: Cow<'a, str>,
}

impl<'a> JsonString<'a> {
    /// Reads the text between the quotes of a valid JSON string; `None`: it contains an unpaired surrogate.
    pub(super) fn read(raw: &'a str) -> Option<JsonString<'a>> {
        // Nearly all strings contain no escapes, and are then not copied.
        let value = if raw.as_bytes().contains(&b'\\') { Cow::Owned(unescape(raw)?) } else { Cow::Borrowed(raw) };
        Some(JsonString { raw, value })
    }
}

#[cold]
fn unescape(raw: &str) -> Option<String> {
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        value.push_str(rest.get(..at)?);
        rest = rest.get(at..)?;
        let (character, len) = match rest.as_bytes().get(1)? {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => {
                let units = [code_unit(rest)?].into_iter().chain(rest.get(6..).and_then(code_unit));
                let character = char::decode_utf16(units).next()?.ok()?;
                (character, 6 * character.len_utf16())
            }
            &itself => (char::from(itself), 2),
        };
        value.push(character);
        rest = rest.get(len..)?;
    }
    value.push_str(rest);
    Some(value)
}

/// A JSON string as written, with `\ufffd` in place of each unpaired surrogate. Many JSON readers refuse a text with one.
pub fn well_formed(written: &str) -> Cow<'_, str> {
    if !written.contains("\\u") {
        return Cow::Borrowed(written);
    }
    let mut text = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        text.push_str(before);
        let units = code_unit(escape).into_iter().chain(escape.get(6..).and_then(code_unit));
        let len = match (code_unit(escape), char::decode_utf16(units).next()) {
            (None, _) => 2,
            (Some(_), Some(Ok(character))) => 6 * character.len_utf16(),
            (Some(_), _) => 0,
        };
        let (escape, after) = match len {
            0 => ("\\ufffd", escape.get(6..)),
            len => (escape.get(..len).unwrap_or(escape), escape.get(len..)),
        };
        text.push_str(escape);
        rest = after.unwrap_or_default();
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The UTF-16 code unit that a leading `\uXXXX` stands for.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// Appends `text` escaped for a JSON string. Beyond what JSON requires, it escapes characters that are
/// [unseen](is_unseen) in a terminal.
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

/// Appends `text` escaped for a JSON string: the characters that JSON requires, and no others.
pub fn escape_required_into(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            // Writing to a vector cannot fail.
            _ => drop(write!(out, "\\u{byte:04x}")),
        }
    }
    out.extend_from_slice(&bytes[start..]);
}

/// Appends JSON, or the inside of a JSON string, on one line: white space between tokens becomes spaces, and characters
/// that are [unseen](is_unseen) in a terminal are escaped.
pub fn show_into(out: &mut Vec<u8>, json: &str) {
    for character in json.chars() {
        match character {
            // These occur only between tokens.
            '\n' | '\r' | '\t' => out.push(b' '),
            _ => push_seen(out, character),
        }
    }
}

fn push_seen(out: &mut Vec<u8>, character: char) {
    if is_unseen(character) {
        // All of these have four hexadecimal digits.
        let _ = write!(out, "\\u{:04x}", character as u32);
    } else {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Whether a terminal shows nothing for the character: controls, direction marks, and characters of zero width.
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
