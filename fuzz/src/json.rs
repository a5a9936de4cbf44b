//! serde_json's opinion, as far as it is needed.

use serde_json::value::RawValue;
use std::collections::HashMap;

/// Whether a text is JSON: the grammar, and that every string is Unicode. Without recursion, as deep as it may be.
pub fn is_json(text: &str) -> bool {
    if serde_json::from_str::<&RawValue>(text).is_err() {
        return false;
    }
    // In valid JSON, quotes outside of strings begin strings.
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(|&byte| byte == b'"').map(|found| at + found) {
        let mut end = start + 1;
        while bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        at = end + 1;
        if serde_json::from_str::<String>(&text[start..at]).is_err() {
            return false;
        }
    }
    true
}

/// The members of an object, the last of a name; `None`: no object.
pub fn members(text: &str) -> Option<HashMap<String, &str>> {
    let members: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    Some(members.into_iter().map(|(name, raw)| (name, raw.get())).collect())
}

/// The value of a string.
pub fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}
