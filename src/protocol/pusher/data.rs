//! `data` in Pusher's dialect: a text, in a JSON string. A message is a JSON value, so each direction has a rule.
//!
//! * To subscribers: the text is the JSON of the value, unless the message came as a text ([`Text`]).
//! * From Pusher's libraries: if the text is JSON, the message is the value that it holds. Otherwise it is the text itself, as a
//!   JSON string.

use crate::protocol::json::{Reader, Value, escape_required_into};
use std::borrow::Cow;

/// The text that Pusher's clients receive for a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Text<'a> {
    /// The JSON of the value, byte for byte.
    #[default]
    Json,
    /// The content of the value, which is a string.
    Content,
    /// This text: the JSON of the value with white space around it.
    Padded(&'a str),
}

/// A value, and the text that it came as.
#[derive(Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Raw JSON.
    pub value: Cow<'a, str>,
    /// How the text differs from the JSON of the value.
    pub text: OwnedText,
}

/// [`Text`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OwnedText {
    #[default]
    Json,
    Content,
    Padded(Box<str>),
}

impl From<Text<'_>> for OwnedText {
    fn from(text: Text<'_>) -> OwnedText {
        match text {
            Text::Json => OwnedText::Json,
            Text::Content => OwnedText::Content,
            Text::Padded(text) => OwnedText::Padded(text.into()),
        }
    }
}

impl OwnedText {
    /// The borrowed form.
    pub fn as_text(&self) -> Text<'_> {
        match self {
            OwnedText::Json => Text::Json,
            OwnedText::Content => Text::Content,
            OwnedText::Padded(text) => Text::Padded(text),
        }
    }
}

impl<'a> Data<'a> {
    /// Reads `data` of a request: a string is read as a text, and any other value is taken as it is.
    pub fn read(data: Value<'a>, reader: &mut Reader) -> Data<'a> {
        let held = match data.text().filter(|_| data.is_string()) {
            Some(Cow::Borrowed(text)) => reader.read(text).map(|held| Data::padded(text, held.value().raw.into())),
            Some(Cow::Owned(text)) => {
                let held = reader.read(&text).map(|held| held.value().raw.to_owned());
                held.map(|value| Data::padded(&text, value.into()))
            }
            None => None,
        };
        let text = if data.is_string() { OwnedText::Content } else { OwnedText::Json };
        held.unwrap_or(Data { value: data.raw.into(), text })
    }

    fn padded(text: &str, value: Cow<'a, str>) -> Data<'a> {
        let text = if text.len() == value.len() { OwnedText::Json } else { OwnedText::Padded(text.into()) };
        Data { value, text }
    }
}

/// The JSON value in a text that has white space around it.
pub fn unpadded(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

/// Appends the text for a value, as it stands between the quotes of a JSON string.
pub fn write_text(out: &mut Vec<u8>, value: Option<&str>, text: Text<'_>) {
    match (value, text) {
        (None, _) => out.extend_from_slice(b"null"),
        (Some(_), Text::Padded(text)) => escape_required_into(out, text),
        (Some(value), Text::Content) if value.len() >= 2 && value.starts_with('"') => {
            out.extend_from_slice(&value.as_bytes()[1..value.len() - 1]);
        }
        (Some(value), Text::Content | Text::Json) => escape_required_into(out, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text, as it stands in a JSON string; the value that it is; and the text that Pusher's clients receive.
    #[track_caller]
    fn check(data: &str, value: &str, text: &str) {
        let (mut outer, mut inner) = (Reader::default(), Reader::default());
        let document = outer.read(data).expect("valid JSON");
        let read = Data::read(document.value(), &mut inner);
        assert_eq!(read.value, value);
        let mut written = Vec::new();
        write_text(&mut written, Some(&read.value), read.text.as_text());
        assert_eq!(String::from_utf8(written).unwrap(), text);
        if let OwnedText::Padded(text) = &read.text {
            assert_eq!(unpadded(text), value, "a payload keeps only the text");
        }
    }

    #[test]
    fn a_text_that_holds_json_is_that_value() {
        check(r#""{\"id\":42}""#, r#"{"id":42}"#, r#"{\"id\":42}"#);
        check(r#""17""#, "17", "17");
        check(r#""null""#, "null", "null");
        check(r#""\"x\"""#, r#""x""#, r#"\"x\""#);
        check(r#"" { } ""#, "{ }", " { } ");
        check(r#""[\n 1]\n""#, "[\n 1]", r"[\n 1]\n");
    }

    #[test]
    fn a_text_that_holds_none_is_a_string() {
        check(r#""hello""#, r#""hello""#, "hello");
        check(r#""""#, r#""""#, "");
        check(r#""a\u00e9\"\ud83c""#, r#""a\u00e9\"\ud83c""#, r#"a\u00e9\"\ud83c"#);
        check(r#""{x""#, r#""{x""#, "{x");
    }

    #[test]
    fn other_values_are_their_json() {
        check(r#"{"id":42}"#, r#"{"id":42}"#, r#"{\"id\":42}"#);
        check("17", "17", "17");
        check("null", "null", "null");
        let mut out = Vec::new();
        write_text(&mut out, None, Text::Json);
        write_text(&mut out, Some("\"x\""), Text::Json);
        assert_eq!(out, br#"null\"x\""#);
    }
}
