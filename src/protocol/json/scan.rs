//! Scans the grammar of RFC 8259 in one pass, without simd-json's tape. It has two uses. [`members`] reads the publish
//! lines of the admin socket with fewer instructions than the reader. [`is_json`] checks texts that simd-json refuses.

/// Calls `each` with every member of the object that `text` is: its key as written between the quotes, and its value as
/// written. `Some`: the text is one JSON object, and the members are those that the [reader](super::Reader) finds.
/// `None` does not decide anything: the text may not be an object, one of its own keys may contain an escape, or `each`
/// returned `None`.
pub fn members<'a>(text: &'a str, mut each: impl FnMut(&'a [u8], &'a str) -> Option<()>) -> Option<()> {
    let bytes = text.as_bytes();
    let scanner = Scanner { bytes };
    let mut at = scanner.space(scanner.expect(scanner.space(0), b'{')?);
    if scanner.byte(at)? == b'}' {
        return scanner.end(at + 1);
    }
    loop {
        let key = scanner.expect(at, b'"')?;
        let key_end = scanner.run(key);
        let value = scanner.colon(scanner.expect(key_end, b'"')?)?;
        let value_end = scanner.value(value)?;
        each(bytes.get(key..key_end)?, text.get(value..value_end)?)?;
        at = scanner.space(value_end);
        match scanner.byte(at)? {
            b',' => at = scanner.space(at + 1),
            b'}' => return scanner.end(at + 1),
            _ => return None,
        }
    }
}

/// Whether `text` is one JSON value.
#[cold]
pub fn is_json(text: &str) -> bool {
    let scanner = Scanner { bytes: text.as_bytes() };
    scanner.value(scanner.space(0)).and_then(|at| scanner.end(at)).is_some()
}

/// Each method scans from a position, and returns the position after what it scanned. They are passed by value, so that they
/// stay in registers.
#[derive(Clone, Copy)]
struct Scanner<'a> {
    bytes: &'a [u8],
}

impl Scanner<'_> {
    #[inline]
    fn byte(self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    #[inline]
    fn expect(self, at: usize, byte: u8) -> Option<usize> {
        (self.byte(at)? == byte).then_some(at + 1)
    }

    #[inline]
    fn space(self, mut at: usize) -> usize {
        while matches!(self.byte(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    #[inline(always)]
    fn colon(self, at: usize) -> Option<usize> {
        Some(self.space(self.expect(self.space(at), b':')?))
    }

    /// `Some`: the text ends there, after white space.
    #[inline]
    fn end(self, at: usize) -> Option<()> {
        (self.space(at) == self.bytes.len()).then_some(())
    }

    #[inline(always)]
    fn value(self, at: usize) -> Option<usize> {
        match self.byte(at)? {
            b'{' | b'[' => self.container(at),
            _ => self.scalar(at),
        }
    }

    #[inline(always)]
    fn scalar(self, at: usize) -> Option<usize> {
        match self.byte(at)? {
            b'"' => self.string(at),
            b't' => self.word(at, b"true"),
            b'f' => self.word(at, b"false"),
            b'n' => self.word(at, b"null"),
            _ => self.number(at),
        }
    }

    /// Scans an object or an array. Bits record whether each enclosing container is an object, so nothing recurses.
    fn container(self, mut at: usize) -> Option<usize> {
        // `are_objects` has the innermost containers, up to 64; `outer` has those around them, 64 per entry.
        let (mut are_objects, mut outer) = (0u64, Vec::new());
        let mut depth = 0usize;
        loop {
            match self.byte(at)? {
                open @ (b'{' | b'[') => {
                    at = self.space(at + 1);
                    let is_object = open == b'{';
                    if self.byte(at)? == if is_object { b'}' } else { b']' } {
                        at += 1;
                    } else {
                        if depth > 0 && depth.is_multiple_of(64) {
                            outer.push(are_objects);
                        }
                        are_objects = are_objects << 1 | u64::from(is_object);
                        depth += 1;
                        if is_object {
                            at = self.colon(self.string(at)?)?;
                        }
                        continue;
                    }
                }
                _ => at = self.scalar(at)?,
            }
            // A value has ended, and perhaps the containers in which it comes last.
            loop {
                if depth == 0 {
                    return Some(at);
                }
                at = self.space(at);
                let is_object = are_objects & 1 == 1;
                match self.byte(at)? {
                    b',' => {
                        at = self.space(at + 1);
                        if is_object {
                            at = self.colon(self.string(at)?)?;
                        }
                        break;
                    }
                    b'}' if is_object => at += 1,
                    b']' if !is_object => at += 1,
                    _ => return None,
                }
                are_objects >>= 1;
                depth -= 1;
                if depth > 0 && depth.is_multiple_of(64) {
                    are_objects = outer.pop()?;
                }
            }
        }
    }

    fn string(self, at: usize) -> Option<usize> {
        let mut at = self.expect(at, b'"')?;
        loop {
            at = self.run(at);
            match self.byte(at)? {
                b'"' => return Some(at + 1),
                b'\\' => match self.byte(at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                    b'u' => {
                        let digits = self.bytes.get(at + 2..)?.first_chunk::<4>()?;
                        digits.iter().all(u8::is_ascii_hexdigit).then(|| at += 6)?;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// To the next quote, backslash or control character. Names of members are short: they end within the first eight bytes.
    #[inline(always)]
    fn run(self, at: usize) -> usize {
        match self.bytes.get(at..).and_then(<[u8]>::first_chunk) {
            Some(word) => match special_bytes(u64::from_le_bytes(*word)) {
                0 => self.long_run(at + 8),
                special => at + special.trailing_zeros() as usize / 8,
            },
            None => self.long_run(at),
        }
    }

    /// The same, 32 bytes at a time, then eight.
    #[inline(never)]
    fn long_run(self, at: usize) -> usize {
        let mut rest = self.bytes.get(at..).unwrap_or_default();
        while let Some((chunk, after)) = rest.split_first_chunk::<32>()
            && chunk.iter().fold(0, |specials, &byte| specials | is_special(byte)) == 0
        {
            rest = after;
        }
        while let Some((word, after)) = rest.split_first_chunk() {
            let special = special_bytes(u64::from_le_bytes(*word));
            if special != 0 {
                return self.bytes.len() - rest.len() + special.trailing_zeros() as usize / 8;
            }
            rest = after;
        }
        let end = rest.iter().position(|&byte| is_special(byte) != 0);
        self.bytes.len() - rest.len() + end.unwrap_or(rest.len())
    }

    fn word(self, at: usize, word: &[u8]) -> Option<usize> {
        self.bytes.get(at..)?.starts_with(word).then_some(at + word.len())
    }

    fn number(self, mut at: usize) -> Option<usize> {
        if self.byte(at)? == b'-' {
            at += 1;
        }
        at = match self.byte(at)? {
            b'0' => at + 1,
            _ => self.digits(at)?,
        };
        if self.byte(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if matches!(self.byte(at), Some(b'e' | b'E')) {
            let has_sign = matches!(self.byte(at + 1), Some(b'+' | b'-'));
            at = self.digits(at + 1 + usize::from(has_sign))?;
        }
        Some(at)
    }

    /// At least one.
    #[inline]
    fn digits(self, at: usize) -> Option<usize> {
        let mut end = at;
        while self.byte(end).is_some_and(|byte| byte.is_ascii_digit()) {
            end += 1;
        }
        (end > at).then_some(end)
    }
}

/// Not zero for a quote, a backslash or a control character. Without short-circuit evaluation, so that the compiler
/// makes vector instructions of 32 calls.
#[inline]
fn is_special(byte: u8) -> u8 {
    u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20)
}

/// Sets the high bit of every byte that is a quote, a backslash or a control character. Bytes above the lowest such
/// byte may be marked wrongly, because a borrow propagates upwards.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let is_zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let quotes = is_zero(word ^ (ONES * b'"' as u64));
    let backslashes = is_zero(word ^ (ONES * b'\\' as u64));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | backslashes | controls) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Reader;
    use crate::protocol::json::tests::{mutated, serde_says_json, slips, written_json};
    use proptest::prelude::*;

    fn scanned(text: &str) -> Option<Vec<(&str, &str)>> {
        let mut found = Vec::new();
        members(text, |key, value| {
            found.push((std::str::from_utf8(key).unwrap(), value));
            Some(())
        })?;
        Some(found)
    }

    /// The verdict and the members are those of the reader; the verdict is also that of serde_json.
    #[track_caller]
    fn agree(text: &str) {
        assert_eq!(is_json(text), serde_says_json(text), "{text:?}");
        let mut reader = Reader::default();
        let document = reader.read(text);
        assert_eq!(document.is_some(), is_json(text), "{text:?}");
        let object = document.and_then(|document| document.object());
        let expected: Option<Vec<_>> =
            object.map(|object| object.map(|(key, value)| (&key.raw[1..key.raw.len() - 1], value.raw)).collect());
        match scanned(text) {
            found @ Some(_) => assert_eq!(found, expected, "{text:?}"),
            None => {
                let has_escaped_key = expected.iter().flatten().any(|(key, _)| key.contains('\\'));
                assert!(expected.is_none() || has_escaped_key, "declined: {text:?}");
            }
        }
    }

    #[test]
    fn members_are_cut_as_they_were_written() {
        let text = " { \"a\" :\t\"b\\n\\\"\\ud800\" , \"c\":[1, {\"x\\t\":-0.5E+9},[ ],{ } ]\n,\"\": null,\"a\":true ,\"é\":0}\r\n";
        let expected = [
            ("a", r#""b\n\"\ud800""#),
            ("c", r#"[1, {"x\t":-0.5E+9},[ ],{ } ]"#),
            ("", "null"),
            ("a", "true"),
            ("é", "0"),
        ];
        assert_eq!(scanned(text).unwrap(), expected);
        assert_eq!(scanned("{ }"), Some(Vec::new()));
    }

    #[test]
    fn members_declines_escaped_keys_and_anything_but_an_object() {
        for text in [r#"{"\n":1}"#, r#"{"\u0041":1}"#, "[]", "1", "", " "] {
            assert_eq!(scanned(text), None, "{text}");
        }
        assert_eq!(scanned(r#"{"a":{"\u0041":"\udc00"}}"#).unwrap(), [("a", r#"{"\u0041":"\udc00"}"#)]);
        assert_eq!(members(r#"{"a":1,"b":2}"#, |key, _| (key != b"b").then_some(())), None);
    }

    #[test]
    fn containers_of_every_depth_close_in_order() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 192, 60_000] {
            // Objects and arrays in a pattern that does not repeat every 64 levels.
            let is_object = |level: usize| level.is_multiple_of(3) || level.is_multiple_of(7);
            let open: String = (0..depth).map(|level| if is_object(level) { "{\"k\":" } else { "[" }).collect();
            let close: String = (0..depth).rev().map(|level| if is_object(level) { '}' } else { ']' }).collect();
            assert!(is_json(&format!("{open}1{close}")), "{depth}");
            assert!(!is_json(&format!("{open}1{}", &close[1..])), "{depth}");
            for wrong in [0, depth / 2, depth - 1] {
                let other = if &close[wrong..=wrong] == "]" { "}" } else { "]" };
                let close = format!("{}{other}{}", &close[..wrong], &close[wrong + 1..]);
                assert!(!is_json(&format!("{open}1{close}")), "{depth}, {wrong}");
            }
        }
    }

    #[test]
    fn every_byte_everywhere_gets_the_verdict_of_serde_json() {
        let text = "{ \"a\" : [ true,-1.5e+3 ,null,0] ,\"b\":false, \"c\" :\"\\n\\ud8aF\",\"d\":{},\"e\":{\"f\":[[]]}}";
        for at in 0..=text.len() {
            for byte in 0..128u8 {
                for inserted in [0, 1] {
                    if let Some(tail) = text.get(at + 1 - inserted..) {
                        agree(&format!("{}{}{tail}", &text[..at], char::from(byte)));
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_ends_at_the_first_special_byte() {
        let bytes = [0, 1, 0x1f, 0x20, 0x21, b'"', b'#', b'[', b'\\', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff];
        for len in 1..100 {
            for at in 0..len {
                for byte in bytes {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    text[len - 1] = b'"';
                    let first = text.iter().position(|&byte| matches!(byte, b'"' | b'\\' | ..0x20));
                    assert_eq!(Some(Scanner { bytes: &text }.run(0)), first, "{byte} at {at} of {len}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_reader(
            value in written_json(),
            slips in prop::collection::vec(slips(), 0..3),
        ) {
            agree(&value);
            let text = slips.iter().fold(format!("{{\"top\":{value}}}"), |text, (at, len, with)| mutated(&text, *at, *len, with));
            agree(&text);
        }

        #[test]
        fn any_text_is_judged_without_panic(text in "\\PC{0,100}") {
            agree(&text);
            agree(&format!("{{\"{text}\":\"{text}\"}}"));
        }
    }
}
