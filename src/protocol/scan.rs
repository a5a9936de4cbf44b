//! One pass over a JSON object in its plain spelling: verdict and raw spans at once. It does not have the last word: what it
//! does not know, it does not judge, and [`crate::protocol::json`] reads the text instead.

/// Calls `each` with every member of the object that `text` is: what stands between the quotes of its key, and its value as
/// written. `Some` only where the text is one JSON object (RFC 8259) whose strings are Unicode. `None` means nothing: the
/// text may be no JSON; it may hold a `\u` escape, an escape in a key, or containers nested deeper than 64; or `each` gave up.
pub fn members<'a>(text: &'a str, mut each: impl FnMut(&'a str, &'a str) -> Option<()>) -> Option<()> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    scanner.space();
    scanner.expect(b'{')?;
    scanner.space();
    if scanner.peek()? == b'}' {
        scanner.at += 1;
    } else {
        loop {
            let key = scanner.at + 1;
            scanner.expect(b'"')?;
            scanner.run();
            let key = text.get(key..scanner.at)?;
            scanner.expect(b'"')?;
            scanner.colon()?;
            let value = scanner.at;
            scanner.value()?;
            each(key, text.get(value..scanner.at)?)?;
            scanner.space();
            match scanner.next()? {
                b',' => scanner.space(),
                b'}' => break,
                _ => return None,
            }
        }
    }
    scanner.space();
    (scanner.at == text.len()).then_some(())
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    #[inline]
    fn colon(&mut self) -> Option<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    /// Any value. The kinds of the containers around are bits, so nothing recurses.
    fn value(&mut self) -> Option<()> {
        let (mut are_objects, mut depth) = (0u64, 0);
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    self.space();
                    let is_object = open == b'{';
                    if self.peek()? == if is_object { b'}' } else { b']' } {
                        self.at += 1;
                    } else if depth == u64::BITS {
                        return None;
                    } else {
                        are_objects = are_objects << 1 | u64::from(is_object);
                        depth += 1;
                        if is_object {
                            self.string()?;
                            self.colon()?;
                        }
                        continue;
                    }
                }
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            // A value ended, and perhaps the containers that it is the last of.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.space();
                let is_object = are_objects & 1 == 1;
                match self.next()? {
                    b',' => {
                        self.space();
                        if is_object {
                            self.string()?;
                            self.colon()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                are_objects >>= 1;
                depth -= 1;
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.run();
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    // `\u` may be half of a surrogate pair.
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// Skips to the next quote, backslash or control character: what is short eight bytes at a time, what is long 32.
    #[inline]
    fn run(&mut self) {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        while let Some((word, after)) = rest.split_first_chunk() {
            let special = special_bytes(u64::from_le_bytes(*word));
            if special != 0 {
                self.at = self.bytes.len() - rest.len() + special.trailing_zeros() as usize / 8;
                return;
            }
            rest = after;
            while let Some((chunk, after)) = rest.split_first_chunk::<32>()
                && chunk.iter().fold(0, |specials, &byte| specials | is_special(byte)) == 0
            {
                rest = after;
            }
        }
        let end = rest.iter().position(|&byte| is_special(byte) != 0);
        self.at = self.bytes.len() - rest.len() + end.unwrap_or(rest.len());
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// Not zero for a quote, a backslash or a control character. Numbers and no short circuit, so that 32 at a time become
/// vector instructions.
#[inline]
fn is_special(byte: u8) -> u8 {
    u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20)
}

/// The high bit of every byte that is a quote, a backslash or a control character. Bytes above the lowest such byte may be
/// marked in error: a borrow runs upwards.
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
            found.push((key, value));
            Some(())
        })?;
        Some(found)
    }

    /// What is judged is judged as serde_json does and cut as [`crate::protocol::json`] does, and what holds no backslash is
    /// judged.
    #[track_caller]
    fn agree(text: &str) {
        let is_object = serde_says_json(text) && text.trim_start().starts_with('{');
        let Some(found) = scanned(text) else {
            assert!(!is_object || text.contains('\\') || text.contains(&"[".repeat(60)), "given up on {text:?}");
            return;
        };
        assert!(is_object, "{text:?}");
        let mut reader = Reader::default();
        let object = reader.read(text).unwrap().object().unwrap();
        let expected: Vec<_> = object.map(|(key, value)| (&key.raw[1..key.raw.len() - 1], value.raw)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn members_are_cut_as_they_were_written() {
        let text =
            " { \"a\" :\t\"b\\n\\\"\" , \"c\":[1, {\"x\\t\":-0.5E+9},[ ],{ } ]\n,\"\": null,\"a\":true ,\"é\":0}\r\n";
        let expected =
            [("a", r#""b\n\"""#), ("c", r#"[1, {"x\t":-0.5E+9},[ ],{ } ]"#), ("", "null"), ("a", "true"), ("é", "0")];
        assert_eq!(scanned(text).unwrap(), expected);
        assert_eq!(scanned("{ }"), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_plain_is_not_judged() {
        for text in [r#"{"a":"\u0041"}"#, r#"{"\n":1}"#, r#"{"\u0041":1}"#, r#"{"a":{"\u0041":1}}"#, "[]", "1", "", " "]
        {
            assert_eq!(scanned(text), None, "{text}");
        }
        for (depth, is_judged) in [(64, true), (65, false), (60_000, false)] {
            for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
                let text = format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth));
                assert_eq!(scanned(&text).is_some(), is_judged, "{depth}");
            }
        }
        assert_eq!(members(r#"{"a":1,"b":2}"#, |key, _| (key != "b").then_some(())), None);
    }

    #[test]
    fn every_byte_everywhere_gets_the_verdict_of_serde_json() {
        let text = "{ \"a\" : [ true,-1.5e+3 ,null,0] ,\"b\":false, \"c\" :\"\\n\",\"d\":{},\"e\":{\"f\":[[]]}}";
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
    fn a_run_ends_at_the_first_special_byte_wherever_it_lies() {
        let bytes = [0, 1, 0x1f, 0x20, 0x21, b'"', b'#', b'[', b'\\', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff];
        for len in 1..100 {
            for at in 0..len {
                for byte in bytes {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    text[len - 1] = b'"';
                    let mut scanner = Scanner { bytes: &text, at: 0 };
                    scanner.run();
                    let first = text.iter().position(|&byte| matches!(byte, b'"' | b'\\' | ..0x20));
                    assert_eq!(Some(scanner.at), first, "{byte} at {at} of {len}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_json_is_judged_as_serde_json_does(
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
