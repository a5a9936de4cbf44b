//! Signatures of Pusher's HTTP API, version 1.0. Pure, except for [`now_s`].
//!
//! `auth_signature` is an HMAC-SHA256 in hex. It covers the method, the path and the other query parameters, sorted by
//! name and decoded, joined as `METHOD\nPATH\na=1&b=2`. The body is signed through its MD5 in `body_md5`.

use crate::protocol::auth::{Failure, KeyRing};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Query parameters, decoded, in the order of their names.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the text behind the `?`. Names are converted to lower case, as they are signed.
    pub fn parse(text: &str) -> Query {
        let pairs = form_urlencoded::parse(text.as_bytes());
        let mut pairs: Vec<(String, String)> =
            pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        Query(pairs)
    }

    /// The text that a client signs: everything but the signature.
    pub fn signed_text(&self, method: &str, path: &str) -> String {
        let mut text = format!("{method}\n{path}\n");
        let mut separator = "";
        for (name, value) in self.0.iter().filter(|(name, _)| name != "auth_signature") {
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{name}={value}");
            separator = "&";
        }
        text
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Why a request is answered with 401. The text is sent to the client, and reveals nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// A required parameter is missing.
    Missing(&'static str),
    /// `auth_version` is not `1.0`.
    Version,
    /// `auth_timestamp` is not a number, or is too far from the current time.
    Timestamp,
    /// The key is unknown, or the signature is not 64 hexadecimal digits.
    Signature(Failure),
    /// The signature is that of another request, or was made with another secret.
    WrongSignature {
        /// The text that must be signed.
        text: String,
        /// The signature that was sent.
        sent: String,
    },
    /// The body is not the one that was signed.
    Body,
    /// The request was accepted before.
    Repeated,
}

/// Identifies a signed request. Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// `auth_timestamp`.
    pub timestamp_s: u64,
    /// The first half of `auth_signature`.
    pub signature: u128,
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsigned::Missing(name) => write!(f, "the query parameter {name} is missing"),
            Unsigned::Version => f.write_str("auth_version is not 1.0"),
            Unsigned::Timestamp => {
                write!(f, "auth_timestamp is not within {TIMESTAMP_RANGE_S} s of this server's clock: set both by NTP")
            }
            Unsigned::Signature(Failure::UnknownKey) => f.write_str("auth_key is not one of this server's"),
            Unsigned::Signature(Failure::NoKeyConfigured) => f.write_str("this server has no key configured"),
            Unsigned::Signature(_) => f.write_str("auth_signature is not 64 hexadecimal digits"),
            Unsigned::WrongSignature { text, sent } => write!(
                f,
                "auth_signature is not that of this request: it must be the HMAC-SHA256 of {text:?} by the secret of auth_key, in hex, and not {sent:?}"
            ),
            Unsigned::Body => f.write_str("body_md5 is not the MD5 of the body"),
            Unsigned::Repeated => write!(
                f,
                "this signature was used before, and its auth_timestamp or its first use is {REPETITION_S} s old or older: sign each request anew"
            ),
        }
    }
}

/// Checks everything except the body.
pub fn verify(keys: &KeyRing, method: &str, path: &str, query: &Query, now_s: u64) -> Result<Stamp, Unsigned> {
    let get = |name| query.get(name).ok_or(Unsigned::Missing(name));
    let (key, signature) = (get("auth_key")?, get("auth_signature")?);
    if get("auth_version")? != "1.0" {
        return Err(Unsigned::Version);
    }
    let timestamp: u64 = get("auth_timestamp")?.parse().map_err(|_| Unsigned::Timestamp)?;
    if timestamp.abs_diff(now_s) > TIMESTAMP_RANGE_S {
        return Err(Unsigned::Timestamp);
    }
    let verify = |path: &str| keys.verify_text(key, &query.signed_text(method, path), signature);
    // Some libraries sign the escaped path that they send, others the path before it was escaped.
    let verified = verify(path).or_else(|failure| match percent_decode_str(path).decode_utf8() {
        Ok(decoded) if decoded != path => verify(&decoded),
        _ => Err(failure),
    });
    verified.map_err(|failure| match failure {
        Failure::WrongSignature => {
            Unsigned::WrongSignature { text: query.signed_text(method, path), sent: signature.to_owned() }
        }
        failure => Unsigned::Signature(failure),
    })?;
    // The signature is verified, so it has 64 hexadecimal digits. Their case does not matter.
    let half = signature.get(..32).and_then(|half| u128::from_str_radix(half, 16).ok());
    let signature = half.ok_or(Unsigned::Signature(Failure::NotHex))?;
    Ok(Stamp { timestamp_s: timestamp, signature })
}

/// Checks the body against the verified query. An empty body need not be signed.
pub fn verify_body(query: &Query, body: &[u8]) -> Result<(), Unsigned> {
    let expected = match query.get("body_md5") {
        Some(expected) => expected,
        None if body.is_empty() => return Ok(()),
        None => return Err(Unsigned::Missing("body_md5")),
    };
    let mut hex = String::with_capacity(32);
    for byte in Md5::digest(body) {
        let _ = write!(hex, "{byte:02x}");
    }
    // The client knows both values, so the comparison need not take constant time.
    if hex.eq_ignore_ascii_case(expected) { Ok(()) } else { Err(Unsigned::Body) }
}

/// The system clock, in seconds since the Unix epoch.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Largest difference between the clocks of backend and server.
pub const TIMESTAMP_RANGE_S: u64 = 600;
/// Age of `auth_timestamp` from which on a repetition is refused.
pub const REPETITION_S: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;
    use crate::protocol::auth;

    const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const NOW_S: u64 = 1_353_088_179;
    const SIGNED: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&\
        body_md5=ec365a775a4cd0599faeb73354201b6f&\
        auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

    fn ring() -> KeyRing {
        KeyRing::new(&[Key { id: "278d425bdf160c739803".into(), secret: "7ad3773142a6692b25b8".into() }])
    }

    fn check(method: &str, path: &str, query: &str, now_s: u64) -> Result<(), Unsigned> {
        let query = Query::parse(query);
        verify(&ring(), method, path, &query, now_s)?;
        verify_body(&query, BODY)
    }

    /// Pusher's published example.
    #[test]
    fn the_published_example_verifies() {
        assert_eq!(check("POST", "/apps/3/events", SIGNED, NOW_S), Ok(()));
        let shuffled: Vec<&str> = SIGNED.rsplit('&').collect();
        assert_eq!(check("POST", "/apps/3/events", &shuffled.join("&"), NOW_S + 600), Ok(()));
        assert_eq!(check("POST", "/apps/3/events", &SIGNED.replace("auth_", "Auth%5F"), NOW_S - 600), Ok(()));
    }

    #[test]
    fn everything_that_is_signed_counts() {
        for (method, path, query) in [
            ("GET", "/apps/3/events", SIGNED.to_owned()),
            ("POST", "/apps/4/events", SIGNED.to_owned()),
            ("POST", "/apps/3/events", format!("{SIGNED}&info=x")),
            ("POST", "/apps/3/events", SIGNED.replace("ec365a", "ec365b")),
        ] {
            let wrong = check(method, path, &query, NOW_S).expect_err("refused");
            let text = format!(r"{method}\n{path}\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179&");
            let is_named = wrong.to_string().contains(&text) && wrong.to_string().contains("da454824c97ba181");
            assert!(is_named, "{wrong}");
        }
        for (change, to, expected) in [
            ("auth_key=2", "auth_key=3", Unsigned::Signature(Failure::UnknownKey)),
            ("auth_key", "other", Unsigned::Missing("auth_key")),
            ("auth_signature", "other", Unsigned::Missing("auth_signature")),
            ("auth_version=1.0", "auth_version=2.0", Unsigned::Version),
            ("auth_timestamp=1", "auth_timestamp=x", Unsigned::Timestamp),
            ("7e6c", "", Unsigned::Signature(Failure::WrongLength)),
            ("7e6c", "7e6x", Unsigned::Signature(Failure::NotHex)),
        ] {
            assert_eq!(check("POST", "/apps/3/events", &SIGNED.replace(change, to), NOW_S), Err(expected), "{to}");
        }
        for now_s in [NOW_S - 601, NOW_S + 601] {
            assert_eq!(check("POST", "/apps/3/events", SIGNED, now_s), Err(Unsigned::Timestamp));
        }
        let query = Query::parse(SIGNED);
        assert_eq!(verify_body(&query, b"other"), Err(Unsigned::Body));
        assert_eq!(verify_body(&Query::parse(""), BODY), Err(Unsigned::Missing("body_md5")));
        assert_eq!(verify_body(&Query::parse(""), b""), Ok(()));
        assert_eq!(verify_body(&query, b""), Err(Unsigned::Body));
    }

    #[test]
    fn a_path_is_signed_as_it_was_sent_or_unescaped() {
        let key = Key { id: "app".into(), secret: "secret".into() };
        let ring = KeyRing::new(std::slice::from_ref(&key));
        let check = |signed: &str, sent: &str, is_valid: bool| {
            let parameters = format!("auth_key=app&auth_timestamp={NOW_S}&auth_version=1.0");
            let signature = auth::sign_text(&key, &format!("POST\n{signed}\n{parameters}"));
            let query = Query::parse(&format!("{parameters}&auth_signature={signature}"));
            assert_eq!(verify(&ring, "POST", sent, &query, NOW_S).is_ok(), is_valid, "{signed} {sent}");
        };
        let sent = "/apps/1/users/auth0%7Ca%20b/terminate_connections";
        check(sent, sent, true);
        check("/apps/1/users/auth0|a b/terminate_connections", sent, true);
        check("/apps/1/users/auth0|a%20b/terminate_connections", sent, false);
        check("/a", "/a", true);
        check("/b", "/a", false);
        check("/%FF", "/%FF", true);
        check("/x", "/%FF", false);
    }
}
