//! Access to the data of the console: a request carries the token of a session, or the console's key. Where a request
//! comes from gives no rights: a proxy or a tunnel makes every client local.
//!
//! Browsers do not send such a token by themselves, so other pages cannot use it. Requests that another page sends are
//! refused all the same.
//!
//! An address may try ten wrong tokens or keys at once, then one per second. While an address is over the limit, the right
//! key is refused too. Otherwise an attacker could still test keys at full speed. The token of a session cannot be
//! guessed, so it is always accepted: guesses behind the same address do not lock out an operator.

use super::super::Face;
use super::super::bearer::{self, Digest};
use super::super::reply::Refused;
use super::super::serving::Peer;
use super::data::Shown;
use super::tokens::{Rights, Tokens};
use crate::config::Console;
use crate::hub::admission::addresses::Address;
use crate::hub::admission::bucket::{Bucket, Rate, TICKS_PER_S};
use crate::wire::upgrade::forwarded_for;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The settings for access.
pub struct Door {
    is_on: bool,
    key: Option<Digest>,
}

impl Door {
    /// The door of this configuration.
    pub fn new(console: &Console) -> Door {
        Door { is_on: console.is_on, key: console.key.as_ref().map(|key| Digest::of(key.secret.as_bytes())) }
    }

    /// Why the console is off; `None`: it is on.
    pub fn closed(&self) -> Option<&'static str> {
        if self.is_on { None } else { Some("the console is off: --console on starts it") }
    }

    /// The token or key of a request that may have one.
    fn token(&self, headers: &HeaderMap) -> Result<Digest, Refused> {
        if let Some(why) = self.closed() {
            return Err(Refused::new(StatusCode::NOT_FOUND, "no_console", why));
        }
        if is_foreign(headers) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "foreign_origin", "requests of other pages are refused"));
        }
        let why = "the console needs a token: `corecast console` prints a link with one";
        let given = bearer::token(headers).ok_or(Refused::new(StatusCode::UNAUTHORIZED, "token_required", why))?;
        Ok(Digest::of(given))
    }
}

/// The state of access: tokens that are valid, and addresses that sent wrong ones.
pub struct Guard {
    tokens: Arc<Mutex<Tokens>>,
    tries: Mutex<Tries>,
    begun: Instant,
}

impl Guard {
    /// No address has sent a wrong token yet.
    pub fn new(tokens: Arc<Mutex<Tokens>>, now: Instant) -> Guard {
        Guard { tokens, tries: Mutex::default(), begun: now }
    }

    /// The tokens.
    pub fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rights of a request.
    fn admit(&self, door: &Door, headers: &HeaderMap, from: IpAddr, now: Instant) -> Result<Rights, Refused> {
        let token = door.token(headers)?;
        let session = self.tokens().rights(&token, now);
        session.map_or_else(|| self.judge((door.key.as_ref() == Some(&token)).then_some(Rights::All), from, now), Ok)
    }

    /// Begins a session for a request that carries the token of a link.
    fn exchange(
        &self,
        door: &Door,
        headers: &HeaderMap,
        from: IpAddr,
        now: Instant,
    ) -> Result<(String, Rights), Refused> {
        let token = door.token(headers)?;
        let session = self.tokens().exchange(&token, now);
        session.map_or_else(|| self.judge(None, from, now), Ok)
    }

    /// Judges what could be a guess; `None`: it is wrong.
    fn judge<T>(&self, right: Option<T>, from: IpAddr, now: Instant) -> Result<T, Refused> {
        let tick = (now.saturating_duration_since(self.begun).as_millis() / 100) as u32;
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.may(from, tick)?;
        right.ok_or_else(|| {
            tries.failed(from, tick);
            let why =
                "the token is wrong or used, or it has expired: `corecast console` prints a link with another one";
            Refused::new(StatusCode::UNAUTHORIZED, "token_invalid", why)
        })
    }
}

/// Lets requests for data pass, or refuses them.
pub async fn admit(State(face): State<Arc<Face>>, mut request: Request, next: Next) -> Response {
    let from = client(&face, &request);
    let admitted = face.guard.admit(&face.held().door, request.headers(), from, Instant::now());
    match admitted {
        Ok(Rights::Read) if request.method() != Method::GET => {
            let why = "this session is read-only: `corecast console` without --read-only prints a link for all actions";
            Refused::new(StatusCode::FORBIDDEN, "read_only", why).into_response()
        }
        Ok(rights) => {
            request.extensions_mut().insert(Peer(from));
            request.extensions_mut().insert(rights);
            next.run(request).await
        }
        Err(refused) => refuse(&face, from, refused),
    }
}

/// `POST /token`: exchanges the token of a link for that of a session.
pub async fn exchange(State(face): State<Arc<Face>>, request: Request) -> Response {
    let from = client(&face, &request);
    match face.guard.exchange(&face.held().door, request.headers(), from, Instant::now()) {
        Ok((token, rights)) => {
            tracing::info!(%from, ?rights, "a session of the console has begun");
            Shown(json!({"token": token})).into_response()
        }
        Err(refused) => refuse(&face, from, refused),
    }
}

fn refuse(face: &Face, from: IpAddr, refused: Refused) -> Response {
    face.count(|counters| {
        counters.console_key_failures += u64::from(refused.code == "token_invalid");
        counters.console_throttled += u64::from(refused.code == "too_many_tries");
    });
    tracing::debug!(%from, code = refused.code, "a request to the console is refused");
    refused.into_response()
}

/// The address that wrong tokens count for, and that the log names. A trusted proxy names the address of its client.
fn client(face: &Face, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0);
    let access = &face.held().access;
    let named = if access.trusts(peer) { forwarded_for(request.headers(), access) } else { None };
    named.map_or(peer, |named| named.ip())
}

/// Addresses that sent a wrong token recently.
#[derive(Default)]
struct Tries(HashMap<Address, Bucket>);

impl Tries {
    /// Whether the address may try a token.
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
        "too many wrong tokens or keys from your address: wait a second",
    )
}

/// One try per second.
fn rate() -> Rate {
    Rate::new(1, 0)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether another page sent the request. If browsers trust the connection they send `Sec-Fetch-Site`, which has
/// priority over `Origin`, because a proxy may change `Host`.
fn is_foreign(headers: &HeaderMap) -> bool {
    if let Some(site) = text(headers, "sec-fetch-site") {
        return site != "same-origin";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = text(headers, HOST.as_str()).unwrap_or_default();
    !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Most addresses that are counted.
const ADDRESSES_MAX: usize = 1024;
const _: () = assert!(TICKS_PER_S == 10, "`admit` counts in tenths of a second");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AccessKey;
    use crate::hub::admission::bucket::FILL_TICKS;
    use axum::http::{HeaderName, HeaderValue};
    use std::time::Duration;

    const KEY: &str = "a-key-of-some-length";
    const GUESSER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// A console, and a clock that the test sets.
    struct Trial {
        door: Door,
        guard: Guard,
        now: Instant,
    }

    impl Trial {
        fn new(key: Option<&str>) -> Trial {
            let key = key.map(|key| AccessKey { path: "/x".into(), secret: key.into() });
            let (door, now) = (Door::new(&Console { is_on: true, key }), Instant::now());
            Trial { door, guard: Guard::new(Arc::new(Mutex::new(Tokens::new([7; 4]))), now), now }
        }

        fn wait(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn link(&self, rights: Rights) -> String {
            self.guard.tokens().link(rights, self.now)
        }

        fn exchange(&self, token: &str, from: IpAddr) -> Result<(String, Rights), &'static str> {
            let session = self.guard.exchange(&self.door, &with(token), from, self.now);
            session.map_err(|refused| refused.code)
        }

        fn session(&self, rights: Rights) -> String {
            self.exchange(&self.link(rights), OTHER).expect("a session").0
        }

        fn admit(&self, token: &str, from: IpAddr) -> Result<Rights, &'static str> {
            self.judge(&with(token), from)
        }

        fn judge(&self, headers: &HeaderMap, from: IpAddr) -> Result<Rights, &'static str> {
            self.guard.admit(&self.door, headers, from, self.now).map_err(|refused| refused.code)
        }
    }

    fn with(token: &str) -> HeaderMap {
        headers(&[("host", "localhost:9001"), ("authorization", &format!("Bearer {token}"))])
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn nothing_but_a_token_gives_rights() {
        for key in [None, Some(KEY)] {
            let trial = Trial::new(key);
            for host in ["localhost", "localhost:9001", "127.0.0.1", "[::1]:9001", "ops.example.com"] {
                for (name, value) in [
                    ("x-forwarded-for", "127.0.0.1"),
                    ("forwarded", "for=127.0.0.1"),
                    ("x-real-ip", "::1"),
                    ("via", "1.1 x"),
                ] {
                    let given = headers(&[("host", host), (name, value)]);
                    assert_eq!(trial.judge(&given, [127, 0, 0, 1].into()), Err("token_required"), "{given:?}");
                }
            }
        }
    }

    #[test]
    fn requests_of_other_pages_are_refused() {
        let trial = Trial::new(Some(KEY));
        let bearer = ("authorization", "Bearer a-key-of-some-length");
        let check = |given: &[(&'static str, &str)], expected| {
            let given = headers(&[&[("host", "localhost:9001"), bearer], given].concat());
            assert_eq!(trial.judge(&given, OTHER), expected, "{given:?}");
        };
        let (own, foreign) = (Ok(Rights::All), Err("foreign_origin"));
        check(&[], own);
        check(&[("origin", "http://localhost:9001")], own);
        check(&[("origin", "http://localhost:9001"), ("sec-fetch-site", "same-origin")], own);
        for origin in ["http://evil.example", "http://localhost:9002", "http://localhost", "null", ""] {
            check(&[("origin", origin)], foreign);
        }
        for site in ["cross-site", "same-site", "none", "x"] {
            check(&[("sec-fetch-site", site)], foreign);
            check(&[("origin", "http://localhost:9001"), ("sec-fetch-site", site)], foreign);
        }
        let behind_a_proxy = ("origin", "https://ops.example.com");
        check(&[behind_a_proxy], foreign);
        check(&[behind_a_proxy, ("sec-fetch-site", "same-origin")], own);
    }

    #[test]
    fn a_link_opens_a_session_with_its_rights() {
        let mut trial = Trial::new(None);
        for rights in [Rights::Read, Rights::All] {
            let link = trial.link(rights);
            assert_eq!(trial.admit(&link, OTHER), Err("token_invalid"), "a link is not a session");
            let (session, given) = trial.exchange(&link, OTHER).expect("a session");
            assert_eq!((given, trial.admit(&session, OTHER)), (rights, Ok(rights)));
            assert_eq!(trial.exchange(&link, OTHER), Err("token_invalid"), "it works once");
            assert_eq!(trial.exchange(&session, OTHER), Err("token_invalid"));
        }
        let (late, session) = (trial.link(Rights::All), trial.session(Rights::All));
        trial.wait(60_000);
        assert_eq!(trial.exchange(&late, OTHER), Err("token_invalid"));
        trial.wait(12 * 3_600_000 - 60_001);
        assert_eq!(trial.admit(&session, OTHER), Ok(Rights::All));
        trial.wait(1);
        assert_eq!(trial.admit(&session, OTHER), Err("token_invalid"));
    }

    #[test]
    fn the_key_is_compared_whole_and_opens_no_session() {
        let trial = Trial::new(Some(KEY));
        assert_eq!(trial.admit(KEY, OTHER), Ok(Rights::All));
        assert_eq!(trial.exchange(KEY, OTHER), Err("token_invalid"));
        for wrong in ["", "a-key-of-some-lengt", "a-key-of-some-length2", " x"] {
            assert_eq!(trial.admit(wrong, OTHER), Err("token_invalid"), "{wrong:?}");
        }
        assert_eq!(Trial::new(None).admit(KEY, OTHER), Err("token_invalid"));
    }

    #[test]
    fn a_closed_console_has_no_sessions() {
        let mut trial = Trial::new(Some(KEY));
        let (link, session) = (trial.link(Rights::All), trial.session(Rights::All));
        trial.door = Door::new(&Console { is_on: false, key: None });
        assert!(trial.door.closed().is_some());
        for token in [&session, KEY] {
            assert_eq!(trial.admit(token, OTHER), Err("no_console"));
        }
        assert_eq!(trial.exchange(&link, OTHER), Err("no_console"));
    }

    #[test]
    fn an_address_that_guesses_waits_and_sessions_go_on() {
        let mut trial = Trial::new(Some(KEY));
        let (link, session) = (trial.link(Rights::All), trial.session(Rights::Read));
        assert!((0..5).all(|_| trial.admit("wrong", GUESSER) == Err("token_invalid")));
        assert!((0..5).all(|_| trial.exchange("wrong", GUESSER) == Err("token_invalid")));
        trial.wait(900);
        assert_eq!(trial.admit("wrong", GUESSER), Err("too_many_tries"));
        assert_eq!(trial.exchange("wrong", GUESSER), Err("too_many_tries"));
        assert_eq!(trial.admit(KEY, GUESSER), Err("too_many_tries"), "a key can be guessed, so it is not checked");
        assert_eq!(trial.admit(&session, GUESSER), Ok(Rights::Read));
        assert!(trial.exchange(&link, GUESSER).is_ok());
        assert_eq!(trial.admit(KEY, OTHER), Ok(Rights::All));
        trial.wait(100);
        assert_eq!(trial.admit("wrong", GUESSER), Err("token_invalid"));
        assert_eq!(trial.admit("wrong", GUESSER), Err("too_many_tries"));
        trial.wait(1000);
        assert_eq!(trial.admit(KEY, GUESSER), Ok(Rights::All));
        assert_eq!(trial.admit("wrong", GUESSER), Err("token_invalid"), "a right key does not count");
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
