//! The request that opens a connection of this dialect: `/app/{key}?protocol=7&client=js&version=8.6.0`.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The version of the protocol that a client speaks. Clients of versions 4 to 6 need additional messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Version {
    V4,
    V5,
    V6,
    V7,
}

/// Why a request is refused, after the upgrade: by a message and a close frame with the same code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The path is not `/app/{key}` behind a served prefix.
    PathNotFound,
    /// No key pair has this id.
    UnknownKey(Box<str>),
    /// The version is not a number.
    VersionMalformed,
    /// The version is not one of [`Version`].
    VersionUnsupported,
}

/// Judges a request: its path behind the prefix, and its query.
pub fn version(target: &str, has_key: impl Fn(&str) -> bool) -> Result<Version, Refusal> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.strip_prefix("/app/").filter(|key| !key.is_empty() && !key.contains('/'));
    let key = percent_decode_str(key.ok_or(Refusal::PathNotFound)?).decode_utf8_lossy();
    if !has_key(&key) {
        return Err(Refusal::UnknownKey(key.into()));
    }
    match parameter(query, "protocol").as_deref() {
        // Pusher documents this as version 1, which is out of use.
        None => Ok(Version::V7),
        Some("4") => Ok(Version::V4),
        Some("5") => Ok(Version::V5),
        Some("6") => Ok(Version::V6),
        Some("7") => Ok(Version::V7),
        Some(text) if is_integer(text) => Err(Refusal::VersionUnsupported),
        Some(_) => Err(Refusal::VersionMalformed),
    }
}

/// Whether it is an integer of any size.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name).map(|(_, value)| value)
}

impl Refusal {
    /// The code of the message and of the close frame.
    pub fn code(&self) -> u16 {
        match self {
            Refusal::UnknownKey(_) => 4001,
            Refusal::PathNotFound => 4005,
            Refusal::VersionMalformed => 4006,
            Refusal::VersionUnsupported => 4007,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::PathNotFound => f.write_str("Path not found"),
            Refusal::UnknownKey(key) => {
                let key = &key[..key.floor_char_boundary(KEY_BYTES_SHOWN)];
                write!(f, "App key {key} does not exist")
            }
            Refusal::VersionMalformed => f.write_str("Invalid version string format"),
            Refusal::VersionUnsupported => f.write_str("Unsupported protocol version: 4 to 7 are supported"),
        }
    }
}

/// A close frame holds 123 bytes.
const KEY_BYTES_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, expected: Result<Version, (u16, &str)>) {
        let judged = version(target, |key| key == "k-1");
        let expected = expected.map_err(|(code, text)| (code, text.to_owned()));
        assert_eq!(judged.map_err(|refusal| (refusal.code(), refusal.to_string())), expected, "{target}");
    }

    #[test]
    fn versions_4_to_7_are_spoken() {
        check("/app/k-1", Ok(Version::V7));
        check("/app/k-1?", Ok(Version::V7));
        check("/app/k-1?protocol=7&client=js&version=8.6.0&flash=false", Ok(Version::V7));
        check("/app/k%2D1?client=java&protocol=5&version=2.4.0", Ok(Version::V5));
        check("/app/k-1?protocol=4", Ok(Version::V4));
        check("/app/k-1?x=protocol=7&protocol=6", Ok(Version::V6));
        for number in ["3", "8", "99", "-7", "0", "18446744073709551616"] {
            let unsupported = (4007, "Unsupported protocol version: 4 to 7 are supported");
            check(&format!("/app/k-1?protocol={number}"), Err(unsupported));
        }
        for text in ["x", "", "7.0", "7x", "%20", "-", "%2B7"] {
            check(&format!("/app/k-1?protocol={text}"), Err((4006, "Invalid version string format")));
        }
    }

    #[test]
    fn paths_and_keys_are_judged_first() {
        for path in ["/app", "/app/", "/app/k-1/", "/app/k-1/x", "/app//k-1", "/x/app/k-1", "/x"] {
            check(&format!("{path}?protocol=x"), Err((4005, "Path not found")));
        }
        check("/app/nope?protocol=x", Err((4001, "App key nope does not exist")));
        check("/app/K-1", Err((4001, "App key K-1 does not exist")));
        let long = format!("/app/{}", "é".repeat(200));
        let refusal = version(&long, |_| false).expect_err("an unknown key");
        assert!(refusal.to_string().len() <= 123);
    }
}
