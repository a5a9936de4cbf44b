//! JSON values: the reader, the scanner and serde_json give one verdict, and find the same members.

use super::json;
use corecast::protocol::json::{Reader, scan};

/// Panics where they differ.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_json = json::is_json(text);
    assert_eq!(scan::is_json(text), is_json, "the scanner");
    let mut reader = Reader::default();
    let document = reader.read(text);
    assert_eq!(document.is_some(), is_json, "the reader");
    let object = document.and_then(|document| document.object());
    let members: Option<Vec<_>> = object.map(|object| object.map(|(key, value)| (key.raw, value.raw)).collect());
    let mut scanned = Vec::new();
    let is_scanned = scan::members(text, |key, value| {
        scanned.push((key, value));
        Some(())
    });
    match (&members, is_scanned) {
        (Some(members), Some(())) => {
            assert!(members.iter().map(|(key, value)| (&key.as_bytes()[1..key.len() - 1], *value)).eq(scanned));
        }
        (Some(members), None) => assert!(members.iter().any(|(key, _)| key.contains('\\')), "declined without reason"),
        (None, is_scanned) => assert_eq!(is_scanned, None, "members of something else"),
    }
    let expected = json::members(text);
    assert_eq!(expected.is_some(), members.is_some());
    for (name, value) in expected.into_iter().flatten() {
        let mut reader = Reader::default();
        let [found] = reader.read(text).and_then(|document| document.object()).expect("an object").named([&name]);
        let found = found.expect("a member");
        assert_eq!((found.raw, found.text().map(String::from)), (value, json::string(value)));
    }
}
