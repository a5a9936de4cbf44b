use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

/// An independent verdict: serde_json's `RawValue` checks the grammar and nothing else.
pub(crate) fn serde_says_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The text of a string, read by serde_json; `None`: it is another value, or has an unpaired surrogate.
fn serde_text(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// The members of an object as serde_json reads them, duplicates included.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

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

/// Random JSON with odd white space, escapes, unpaired surrogates, duplicate keys, and numbers of every size.
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
        let member = (space, key, space, inner.clone()).prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
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
        1 => "\\\\u[dD][89abcdefABCDEF][0-9a-fA-F]{2}",
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// A string without escapes.
pub(crate) fn plain(text: &str) -> JsonString<'_> {
    JsonString { raw: text, value: Cow::Borrowed(text) }
}

/// `text` with a range of characters replaced.
pub(crate) fn mutated(text: &str, at: usize, len: usize, with: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let at = at % (chars.len() + 1);
    let end = (at + len).min(chars.len());
    chars.splice(at..end, with.chars());
    chars.into_iter().collect()
}

/// Replacements for [`mutated`] that matter to a JSON parser.
pub(crate) fn slips() -> impl Strategy<Value = (usize, usize, String)> {
    let with = prop::sample::select(vec![
        "", "\"", "\\", "{", "}", "[", "]", ":", ",", " ", "0", "-", "+", ".", "e", "1e999", "\u{0}", "\u{1f}",
        "\u{c}", "\u{b}", "\u{85}", "\u{a0}", "\u{feff}", "\\ud800", "\\udc00", "\\u12", "\\x", "nul", "true", "NaN",
        "//", "'", "é",
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
    for text in
        ["", " ", "\u{feff}{}", "{}{}", "{} x", "{}\0", "nul", "True", "01", "-", "+1", "1.", ".5", "1e", "0x1", "1 2"]
    {
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
fn an_unpaired_surrogate_is_json_and_not_text() {
    #[track_caller]
    fn check(inside: &str, text: Option<&str>) {
        for document in [format!(" \"{inside}\"\n"), format!("[\"{inside}\"]"), format!("{{\"{inside}\":1e999}}")] {
            super::tests::check(&document, true);
            super::tests::check(&document.replace("\\u", "\\U"), !inside.contains("\\u"));
        }
        let mut reader = Reader::default();
        let quoted = format!("\"{inside}\"");
        let value = reader.read(&quoted).unwrap().value();
        assert_eq!((value.raw, value.is_string()), (&*quoted, true));
        assert_eq!(value.text().as_deref(), text, "{inside}");
        assert_eq!(serde_text(&quoted).as_deref(), text, "{inside}");
    }
    for unpaired in [
        r"\ud800",
        r"\udc00",
        r"\ud800\ud800",
        r"\ud800x",
        r"\udbff\n",
        r"\ud83d\\ude00",
        r"\uDFFF\uD800",
        r"\ud83c\u0041",
    ] {
        check(unpaired, None);
    }
    check(r"\ud83d\ude00", Some("😀"));
    check(r"\\\ud83d\uDE00\\ud800", Some(r"\😀\ud800"));
    check(r"\ud7ff\ue000é", Some("\u{d7ff}\u{e000}é"));
    check(r#"\"\\\/\b\f\n\r\t\u0000"#, Some("\"\\/\u{8}\u{c}\n\r\t\0"));
}

#[test]
fn containers_may_be_nested_as_deep_as_the_text_is_long() {
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
fn spans_are_cut_from_texts_that_simd_json_refuses() {
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let text = format!("{{\"a\":1e999,\"b\":{deep},\"c\":\"\\\"\\ud800\"}}");
    let mut reader = Reader::default();
    let members: Vec<_> = reader.read(&text).unwrap().object().unwrap().map(|(_, value)| value.raw).collect();
    assert_eq!(members, ["1e999", &deep, "\"\\\"\\ud800\""]);
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
            assert_eq!((key.raw, key.text()), (expected_key.get(), serde_text(expected_key.get()).map(Cow::Owned)));
            same_spans(document, value, expected);
        }
    } else if let Some(elements) = document.elements(value) {
        let elements: Vec<_> = elements.collect();
        let expected: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap();
        assert_eq!(elements.len(), expected.len());
        for (value, expected) in elements.into_iter().zip(expected) {
            same_spans(document, value, expected);
        }
    } else if value.is_string() {
        assert_eq!(value.text().map(Cow::into_owned), serde_text(raw.get()));
    } else {
        assert_eq!(value.text(), None);
        assert_eq!(value.is_number(), !matches!(raw.get(), "true" | "false" | "null"));
    }
}

#[test]
fn json_is_shown_on_one_line_without_control_characters() {
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
        // The shift moves everything across the borders of simd-json's blocks of 64 bytes.
        let text = format!("{{{}\"top\":{text}}}", " ".repeat(shift));
        let mut reader = Reader::default();
        let document = reader.read(&text).unwrap();
        same_spans(document, document.value(), serde_json::from_str(&text).unwrap());
    }

    #[test]
    fn any_text_is_judged_without_panic(text in "\\PC{0,200}") {
        prop_assert_eq!(Reader::default().read(&text).is_some(), serde_says_json(&text));
    }

    #[test]
    fn a_string_becomes_well_formed_and_otherwise_stays_as_it_is(
        parts in prop::collection::vec("\\\\u(d83c|df00|dc00|d800|0041|D83C|DF00)|\\\\\\\\|\\\\n|\\\\\"|u|é|00", 0..12),
    ) {
        let written = format!("\"{}\"", parts.concat());
        let text = well_formed(&written);
        let read = serde_json::from_str::<String>(&written);
        prop_assert_eq!(read.is_ok(), text == written, "{}", text);
        prop_assert!(serde_json::from_str::<String>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn escaped_text_reads_as_the_original(text in any::<String>()) {
        let mut out = vec![b'"'];
        escape_into(&mut out, &text);
        out.push(b'"');
        prop_assert!(!std::str::from_utf8(&out).unwrap().contains(is_unseen));
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
