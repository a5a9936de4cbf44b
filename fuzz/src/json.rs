//! JSON by serde_json, as an opinion that is independent of the server's reader.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Whether a text is JSON by the grammar of RFC 8259. Without recursion, at any depth.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// A key; `None`: it holds an unpaired surrogate.
#[derive(PartialEq, Eq, Hash)]
struct Key(Option<String>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Key(string(raw.get())))
    }
}

/// The members of an object whose names are text, the last of a name; `None`: not an object.
pub fn members(text: &str) -> Option<HashMap<String, &str>> {
    let members: HashMap<Key, &RawValue> = serde_json::from_str(text).ok()?;
    Some(members.into_iter().filter_map(|(key, raw)| Some((key.0?, raw.get()))).collect())
}

/// The text of a string; `None`: another value, or an unpaired surrogate.
pub fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}
