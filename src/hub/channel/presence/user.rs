//! A user of a presence channel, in the words that subscribers receive.

use crate::protocol::json::escape_into;
use std::sync::Arc;

/// A user. The text is written once, when it joins, and copied into lists and events.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    id: Arc<str>,
    /// `{"user_id":"11","user_info":{…}}`.
    text: Box<str>,
    /// Length of `{"user_id":"11"` in `text`.
    id_len: usize,
}

impl User {
    /// A user with this id, and with raw JSON about it, which is kept byte for byte.
    pub fn new(id: &str, info: Option<&str>) -> User {
        let mut text = BEFORE.as_bytes().to_vec();
        escape_into(&mut text, id);
        text.push(b'"');
        let id_len = text.len();
        if let Some(info) = info {
            text.extend_from_slice(INFO.as_bytes());
            text.extend_from_slice(info.as_bytes());
        }
        text.push(b'}');
        let text = String::from_utf8(text).expect("parts of UTF-8 strings at their boundaries");
        User { id: id.into(), text: text.into(), id_len }
    }

    /// The id, unescaped.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id, shared.
    pub fn shared_id(&self) -> Arc<str> {
        self.id.clone()
    }

    /// Raw JSON about the user.
    pub fn info(&self) -> Option<&str> {
        self.text[self.id_len..self.text.len() - 1].strip_prefix(INFO)
    }

    /// The id as it stands between the quotes of a JSON string.
    pub fn escaped_id(&self) -> &str {
        &self.text[BEFORE.len()..self.id_len - 1]
    }

    /// The user as a JSON object: an element of the list, and the data of `member_added`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The user without its `user_info`: the data of `member_removed`.
    pub fn text_of_id(&self) -> String {
        format!("{}}}", &self.text[..self.id_len])
    }
}

const BEFORE: &str = r#"{"user_id":""#;
const INFO: &str = r#","user_info":"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_the_id_escaped_and_the_info_byte_for_byte() {
        let check = |id: &str, info: Option<&str>, text: &str, text_of_id: &str| {
            let user = User::new(id, info);
            assert_eq!((user.id(), user.info(), user.text(), &*user.text_of_id()), (id, info, text, text_of_id));
            assert_eq!(text_of_id, format!(r#"{{"user_id":"{}"}}"#, user.escaped_id()));
            serde_json::from_str::<serde::de::IgnoredAny>(text).expect("JSON");
        };
        check("11", None, r#"{"user_id":"11"}"#, r#"{"user_id":"11"}"#);
        check(
            "é",
            Some("{ \"name\" :\t1e999 }"),
            "{\"user_id\":\"é\",\"user_info\":{ \"name\" :\t1e999 }}",
            r#"{"user_id":"é"}"#,
        );
        check("a\"}\\\n", Some("null"), r#"{"user_id":"a\"}\\\n","user_info":null}"#, r#"{"user_id":"a\"}\\\n"}"#);
        check(
            r#"1","user_info":7"#,
            None,
            r#"{"user_id":"1\",\"user_info\":7"}"#,
            r#"{"user_id":"1\",\"user_info\":7"}"#,
        );
    }
}
