//! Access to the data of the console.
//!
//! Without a key the console trusts this machine. But a browser on it sends requests for any page that it shows. So a
//! request must use a loopback name (DNS rebinding puts the attacker's name into `Host`), must not come from another
//! page (`Origin`, `Sec-Fetch-Site`), and must carry a custom header, which a page cannot send to another origin
//! without permission. Browsers do not send a key by themselves: the console's page adds it to each request.
//!
//! An address may try ten wrong keys at once, then one per second; a right key does not count. While an address is over
//! the limit, a right key is refused too. Otherwise an attacker could still test keys at full speed.

use super::super::Face;
use super::super::serving::Peer;
use super::data::Refused;
use crate::config::Console;
use crate::hub::admission::addresses::Address;
use crate::hub::admission::bucket::{Bucket, Rate, TICKS_PER_S};
use crate::wire::upgrade::forwarded_for;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use hyper::body::Bytes;
use sha2::Sha256;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

/// The access rules of the console.
pub enum Door {
    /// The console is off; the reason, for people.
    Closed(&'static str),
    /// Only for clients on this machine.
    Local,
    /// For clients that send the key with this digest.
    Keyed(Bytes),
}

impl Door {
    /// `is_local`: only this machine can reach the listener.
    pub fn new(console: &Console, is_local: bool) -> Door {
        match (&console.key, is_local) {
            _ if !console.is_on => Door::Closed("the console is off: --console on starts it"),
            (Some(key), _) => {
                Door::Keyed(Bytes::copy_from_slice(&digest(key.secret.as_bytes()).finalize().into_bytes()))
            }
            (None, true) => Door::Local,
            (None, false) => Door::Closed(
                "the console is off: HTTP is not on a loopback address, so it needs a key. `corecast keygen > FILE` makes \
                 one, --console-key-file FILE turns the console on",
            ),
        }
    }

    /// Why the console is off; `None`: it is on.
    pub fn closed(&self) -> Option<&'static str> {
        match self {
            Door::Closed(why) => Some(why),
            Door::Local | Door::Keyed(_) => None,
        }
    }

    /// Whether clients must send a key.
    pub fn asks_for_key(&self) -> bool {
        matches!(self, Door::Keyed(_))
    }

    fn judge(&self, headers: &HeaderMap, tries: &mut Tries, from: IpAddr, now: u32) -> Result<(), Refused> {
        let expected = match self {
            Door::Closed(why) => return Err(Refused::new(StatusCode::NOT_FOUND, "no_console", *why)),
            Door::Local => None,
            Door::Keyed(expected) => Some(expected),
        };
        if !headers.contains_key(MARK) {
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                "header_missing",
                "the header corecast-console is missing",
            ));
        }
        let host = text(headers, HOST.as_str()).unwrap_or_default();
        if is_foreign(headers, host, self.asks_for_key()) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "foreign_origin", "requests of other pages are refused"));
        }
        match expected {
            None if is_loopback(host) => Ok(()),
            None => Err(Refused::new(
                StatusCode::FORBIDDEN,
                "not_local",
                "without a key the console answers only to a loopback name: localhost, 127.0.0.1 or [::1]. To use \
                 another name, or a proxy, start the server with --console-key-file",
            )),
            Some(expected) => {
                tries.may(from, now)?;
                let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
                let given = given.and_then(|value| value.strip_prefix(b"Bearer "));
                let Some(given) = given else {
                    return Err(Refused::new(StatusCode::UNAUTHORIZED, "key_required", "the console needs its key"));
                };
                digest(given).verify_slice(expected).map_err(|_| {
                    tries.failed(from, now);
                    Refused::new(StatusCode::UNAUTHORIZED, "key_invalid", "that is not the console's key")
                })
            }
        }
    }
}

/// Lets requests for data pass, or refuses them. Behind a trusted proxy the peer becomes the address that the proxy
/// names.
pub async fn admit(State(face): State<Arc<Face>>, mut request: Request, next: Next) -> Response {
    let held = face.held();
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0);
    let named = if held.access.trusts(peer) { forwarded_for(request.headers(), &held.access) } else { None };
    let from = named.map_or(peer, |named| named.ip());
    request.extensions_mut().insert(Peer(from));
    let now = (face.begun.elapsed().as_millis() / 100) as u32;
    let judged = {
        let mut tries = face.tries.lock().unwrap_or_else(PoisonError::into_inner);
        held.door.judge(request.headers(), &mut tries, from, now)
    };
    match judged {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            face.count(|counters| {
                counters.console_key_failures += u64::from(refused.code == "key_invalid");
                counters.console_throttled += u64::from(refused.code == "too_many_tries");
            });
            tracing::debug!(%from, code = refused.code, "a request to the console is refused");
            refused.into_response()
        }
    }
}

/// Addresses that sent a wrong key recently.
#[derive(Default)]
pub struct Tries(HashMap<Address, Bucket>);

impl Tries {
    /// Whether the address may try a key.
    fn may(&self, from: IpAddr, now: u32) -> Result<(), Refused> {
        match self.0.get(&Address::of(from)) {
            Some(bucket) if !{ *bucket }.take_one(rate(), now) => Err(too_many()),
            _ => Ok(()),
        }
    }

    /// When the table is full, addresses that have waited long enough are removed. If there are none, a new address is not
    /// counted: a key has at least 16 characters.
    fn failed(&mut self, from: IpAddr, now: u32) {
        let address = Address::of(from);
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&address) {
            self.0.retain(|_, bucket| !bucket.is_full(now));
            if self.0.len() >= ADDRESSES_MAX {
                return;
            }
        }
        self.0.entry(address).or_insert_with(|| Bucket::full(rate(), now)).take_one(rate(), now);
    }
}

fn too_many() -> Refused {
    Refused::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_tries",
        "too many wrong keys from your address: wait a second",
    )
}

/// One try per second.
fn rate() -> Rate {
    Rate::new(1, 0)
}

/// The digest of a key. Comparing digests takes constant time.
fn digest(key: &[u8]) -> Hmac<Sha256> {
    let keyed = Hmac::<Sha256>::new_from_slice(b"corecast console");
    keyed.expect("HMAC takes keys of every length (RFC 2104)").chain_update(key)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether another page sent the request. If browsers trust the connection they send `Sec-Fetch-Site`, which has
/// priority over `Host`, because a proxy may change `Host`. Without a key both must agree.
fn is_foreign(headers: &HeaderMap, host: &str, has_key: bool) -> bool {
    match text(headers, "sec-fetch-site") {
        Some("same-origin") if has_key => return false,
        Some("same-origin") | None => {}
        Some(_) => return true,
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Whether this `Host` is a loopback name.
fn is_loopback(host: &str) -> bool {
    let has_port =
        |text: &str| text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if let Some(rest) = host.strip_prefix("[::1]") {
        return has_port(rest);
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    let is_name =
        name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback());
    is_name && has_port(port)
}

/// The header that each request must carry.
pub const MARK: &str = "corecast-console";
/// Most addresses that are counted.
const ADDRESSES_MAX: usize = 1024;
const _: () = assert!(TICKS_PER_S == 10, "`admit` counts in tenths of a second");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AccessKey;
    use crate::hub::admission::bucket::FILL_TICKS;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[track_caller]
    fn check(door: &Door, given: &[(&'static str, &str)], expected: &str) {
        let given = headers(&[&[(MARK, "1")], given].concat());
        let judged = door.judge(&given, &mut Tries::default(), IpAddr::from([127, 0, 0, 1]), 0);
        assert_eq!(judged.map_or_else(|refused| refused.code, |()| "ok"), expected, "{given:?}");
    }

    fn keyed() -> Door {
        let key = AccessKey { path: "/x".into(), secret: "a-key-of-some-length".into() };
        Door::new(&Console { is_on: true, key: Some(key) }, false)
    }

    #[test]
    fn without_a_key_only_loopback_names_are_accepted() {
        let door = Door::new(&Console { is_on: true, key: None }, true);
        for host in ["localhost", "LOCALHOST:9001", "127.0.0.1:9001", "127.8.8.8", "[::1]", "[::1]:9001"] {
            check(&door, &[("host", host)], "ok");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9001",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost:",
            "localhost:x",
            "[::1]x",
            "[::2]",
            "10.0.0.1:9001",
            "127.0.0.1@evil.example",
        ] {
            check(&door, &[("host", host)], "not_local");
        }
    }

    #[test]
    fn requests_of_other_pages_are_refused() {
        let local = Door::new(&Console { is_on: true, key: None }, true);
        let here = ("host", "localhost:9001");
        check(&local, &[here, ("origin", "http://localhost:9001")], "ok");
        check(&local, &[here, ("origin", "http://localhost:9001"), ("sec-fetch-site", "same-origin")], "ok");
        for origin in ["http://evil.example", "http://localhost:9002", "http://localhost", "null", ""] {
            check(&local, &[here, ("origin", origin)], "foreign_origin");
            check(&local, &[here, ("origin", origin), ("sec-fetch-site", "same-origin")], "foreign_origin");
        }
        for site in ["cross-site", "same-site", "none", "x"] {
            check(&local, &[here, ("sec-fetch-site", site)], "foreign_origin");
        }
        let key = ("authorization", "Bearer a-key-of-some-length");
        let behind_a_proxy = ("origin", "https://ops.example.com");
        check(&keyed(), &[here, key, behind_a_proxy], "foreign_origin");
        check(&keyed(), &[here, key, behind_a_proxy, ("sec-fetch-site", "same-origin")], "ok");
        check(&keyed(), &[here, key, behind_a_proxy, ("sec-fetch-site", "cross-site")], "foreign_origin");
    }

    #[test]
    fn a_key_is_asked_for_and_compared_whole() {
        let host = ("host", "ops.example.com");
        check(&keyed(), &[host, ("authorization", "Bearer a-key-of-some-length")], "ok");
        check(&keyed(), &[host], "key_required");
        for wrong in ["Basic a-key-of-some-length", "bearer a-key-of-some-length"] {
            check(&keyed(), &[host, ("authorization", wrong)], "key_required");
        }
        for wrong in ["Bearer ", "Bearer a-key-of-some-lengt", "Bearer a-key-of-some-length2", "Bearer  x"] {
            check(&keyed(), &[host, ("authorization", wrong)], "key_invalid");
        }
    }

    #[test]
    fn beyond_loopback_a_key_is_required() {
        for (is_on, is_local) in [(true, false), (false, true), (false, false)] {
            let door = Door::new(&Console { is_on, key: None }, is_local);
            assert!(door.closed().is_some());
            check(&door, &[("host", "localhost")], "no_console");
        }
    }

    #[test]
    fn an_address_that_tries_keys_waits() {
        let (door, mut tries) = (keyed(), Tries::default());
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut judge = |key: &str, from, now| {
            let given = headers(&[(MARK, "1"), ("host", "x"), ("authorization", &format!("Bearer {key}"))]);
            door.judge(&given, &mut tries, from, now).map_or_else(|refused| refused.code, |()| "ok")
        };
        assert!((0..10).all(|_| judge("wrong", guesser, 0) == "key_invalid"));
        assert_eq!(judge("wrong", guesser, 0), "too_many_tries");
        assert_eq!(judge("a-key-of-some-length", guesser, 9), "too_many_tries", "the key is not checked");
        assert_eq!(judge("a-key-of-some-length", other, 9), "ok");
        assert_eq!(judge("wrong", guesser, 10), "key_invalid");
        assert_eq!(judge("wrong", guesser, 10), "too_many_tries");
        assert_eq!(judge("a-key-of-some-length", guesser, 20), "ok");
        assert_eq!(judge("wrong", guesser, 20), "key_invalid", "a right key does not count");
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let mut tries = Tries::default();
        for n in 0..2 * ADDRESSES_MAX as u32 {
            tries.failed(IpAddr::from(n.to_be_bytes()), 0);
        }
        assert_eq!(tries.0.len(), ADDRESSES_MAX);
        tries.failed(IpAddr::from([192, 0, 2, 1]), FILL_TICKS);
        assert_eq!(tries.0.len(), 1);
    }
}
