//! The JSON reader: checks a whole text, then returns raw parts of it, byte for byte as they were written.
//!
//! It checks the grammar of RFC 8259. Numbers may have any size, and `\u` escapes may be unpaired surrogates.
//! Containers may be nested as deeply as the length of the text allows, because nothing here recurses. Only a string
//! that the server must understand has to be Unicode ([`Value::text`]). If a key occurs twice in an object, the last
//! one counts ([`Members::named`]).
//!
//! [`Reader::read`] lets simd-json parse a copy, because it unescapes in place. It keeps the result of simd-json's
//! first stage: the offset of every brace, bracket, colon and comma, and of every value's first byte. Walking those
//! offsets gives the parts of the original text, so no byte of a string or number is read twice. simd-json refuses
//! valid texts that its own types cannot hold. [`scan`] checks those: it knows the whole grammar, and tests show that
//! it otherwise agrees with simd-json.

pub mod scan;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use text::{JsonString, escape_into, escape_required_into, is_unseen, show_into, well_formed};

use simd_json::tape::Tape;
use std::borrow::Cow;

/// Reads texts. Owns the copy, the tape and the offsets, and reuses them.
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
    /// Reads a text; `None`: it is not one JSON value.
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
        // simd-json also refuses numbers beyond its types, unpaired surrogates, and nesting beyond its stack. Its first
        // stage finds the offsets and fails only if the text is not JSON. So the offsets are valid either way.
        if verdict.is_err() && !scan::is_json(text) {
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
    /// Index of its first structural character.
    index: usize,
}

impl<'r, 'a> Document<'r, 'a> {
    /// The value, without the white space around it.
    pub fn value(self) -> Value<'a> {
        Value { raw: self.text.trim_matches([' ', '\t', '\n', '\r']), index: 0 }
    }

    /// The members of the text's object; `None`: the text is not an object.
    pub fn object(self) -> Option<Members<'r, 'a>> {
        (self.byte(0)?.1 == b'{').then_some(Members { document: self, index: 1 })
    }

    /// The members of `value`; `None`: it is not an object.
    pub fn members(self, value: Value<'a>) -> Option<Members<'r, 'a>> {
        value.raw.starts_with('{').then_some(Members { document: self, index: value.index + 1 })
    }

    /// The elements of `value`; `None`: it is not an array.
    pub fn elements(self, value: Value<'a>) -> Option<Elements<'r, 'a>> {
        value.raw.starts_with('[').then_some(Elements { document: self, index: value.index + 1 })
    }

    /// Offset and byte of a structural character.
    fn byte(self, index: usize) -> Option<(usize, u8)> {
        let at = *self.structurals.get(index)? as usize;
        Some((at, *self.text.as_bytes().get(at)?))
    }

    /// The container that a structural character opens, and the index of the next structural character.
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

/// The scalar that starts at `start`, without the white space before the next structural character, which is at `before`.
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
    /// The value, if it is a string of Unicode text. `None` also for a string with an unpaired surrogate.
    pub fn string(self) -> Option<JsonString<'a>> {
        JsonString::read(self.raw.strip_prefix('"')?.strip_suffix('"')?)
    }

    /// The text of the value, if it is a string of Unicode text. `None` also for a string with an unpaired surrogate.
    pub fn text(self) -> Option<Cow<'a, str>> {
        self.string().map(|string| string.value)
    }

    /// Whether the value is a string, Unicode or not.
    pub fn is_string(self) -> bool {
        self.raw.starts_with('"')
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
    /// The values under these names. If several members have a name, the last one counts. Keys are compared unescaped.
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

/// The slow path, for keys with escapes. No name that is searched contains a backslash, so other keys were compared as
/// written.
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
        // A member has at least four: the quote of its key, its colon, the start of its value, and the
        // comma or brace behind it.
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

/// A tape that grew beyond this many nodes (24 bytes each) is freed before the next text: one admin line of a million
/// brackets would otherwise hold 25 MB for good. A message of 64 KiB, the default limit, never grows it that far.
const NODES_KEPT_MAX: usize = 128 * 1024;
/// Bytes of a node of the tape, which has at most one for each byte of the text.
pub const NODE_BYTES: usize = 24;
