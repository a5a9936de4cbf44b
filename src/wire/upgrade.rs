//! The HTTP upgrade, by tungstenite's handshake pieces.

use crate::config::{Access, Endpoint};
use crate::wire::forwarded;
use memchr::memmem;
use std::net::SocketAddr;
use tungstenite::{
    Error,
    error::{CapacityError, ProtocolError},
    handshake::{derive_accept_key, machine::TryParse, server::Request},
    http::{HeaderMap, header},
};

/// What became of the bytes received so far.
#[derive(Debug)]
pub enum Upgrade {
    /// The request is not whole yet.
    Partial,
    /// Accepted: `request_len` bytes were the request, the rest belongs to the first frames.
    Accepted {
        /// Bytes of the request.
        request_len: usize,
        /// Where its path leads.
        endpoint: Endpoint,
        /// Whose request the proxies say it is; only where the caller says that they are believed.
        forwarded_for: Option<SocketAddr>,
    },
    /// Refused: the response written to `out` is to be sent, then the connection closed.
    Refused(&'static Refusal),
}

/// Reads an upgrade request from `input` (everything received so far) and appends the whole HTTP response to `out`.
/// `is_proxied`: it came from a proxy that is trusted.
///
/// RFC 6455 §4.2. Extensions and sub-protocols that a client offers are not negotiated. Until the empty line that ends a
/// request is there, a call costs a search for it and no parsing, so that a client may send byte by byte.
pub fn upgrade(input: &[u8], access: &Access, is_proxied: bool, out: &mut Vec<u8>) -> Upgrade {
    match read(input, access, is_proxied) {
        Ok(None) => Upgrade::Partial,
        Ok(Some(Accepted { request_len, endpoint, accept_key, forwarded_for })) => {
            out.extend_from_slice(SWITCHING_PROTOCOLS);
            out.extend_from_slice(accept_key.as_bytes());
            out.extend_from_slice(b"\r\n\r\n");
            Upgrade::Accepted { request_len, endpoint, forwarded_for }
        }
        Err(refusal) => {
            refusal.respond(out, access, !input.starts_with(b"HEAD "));
            Upgrade::Refused(refusal)
        }
    }
}

struct Accepted {
    request_len: usize,
    endpoint: Endpoint,
    accept_key: String,
    forwarded_for: Option<SocketAddr>,
}

fn read(input: &[u8], access: &Access, is_proxied: bool) -> Result<Option<Accepted>, &'static Refusal> {
    let limit = access.request_bytes_max;
    let within_limit = &input[..input.len().min(limit)];
    // RFC 9112 §2.2: empty lines before the request line are to be ignored.
    let mut request = within_limit;
    while let Some(rest) = request.strip_prefix(b"\r\n") {
        request = rest;
    }
    // So that a TLS client, say, need not wait for the handshake deadline.
    if request.first().is_some_and(|&first| first != b'\r' && !first.is_ascii_alphabetic()) {
        return Err(&MALFORMED);
    }
    let Some(last_line_end) = memmem::find(request, b"\r\n\r\n") else {
        return if within_limit.len() < limit { Ok(None) } else { Err(&TOO_LARGE) };
    };
    let skipped = within_limit.len() - request.len();
    match Request::try_parse(&request[..last_line_end + 4]) {
        // A parser that takes a bare line feed for a line's end may see the request end earlier.
        Ok(Some((request_len, _))) if request_len < last_line_end + 4 => Err(&MALFORMED),
        Ok(Some((request_len, request))) => {
            let (endpoint, accept_key) = check(&request, access)?;
            let forwarded_for = if is_proxied { forwarded_for(request.headers(), access) } else { None };
            Ok(Some(Accepted { request_len: skipped + request_len, endpoint, accept_key, forwarded_for }))
        }
        Ok(None) => Err(&MALFORMED),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => Err(&METHOD_NOT_GET),
        Err(Error::Protocol(ProtocolError::WrongHttpVersion)) => Err(&HTTP_VERSION),
        Err(Error::Capacity(CapacityError::TooManyHeaders)) => Err(&TOO_MANY_HEADERS),
        Err(_) => Err(&MALFORMED),
    }
}

/// Where the request leads and its accept key, if it is a WebSocket upgrade that is served. (tungstenite's own check looks at the first
/// `Connection` header only, and proxies send several.)
fn check(request: &Request, access: &Access) -> Result<(Endpoint, String), &'static Refusal> {
    let headers = request.headers();
    let has_body = headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_body || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(&BODY);
    }
    if only(headers, header::HOST).is_none() {
        return Err(&BAD_HOST);
    }
    let endpoint = access.endpoint(request.uri().path()).ok_or(&PATH_NOT_SERVED)?;
    if !lists(headers, header::UPGRADE, b"websocket") || !lists(headers, header::CONNECTION, b"upgrade") {
        return Err(&NOT_AN_UPGRADE);
    }
    if only(headers, header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(&WEBSOCKET_VERSION);
    }
    // Browsers always send one, and only browsers can be made to connect by a page that their user happens to visit.
    if headers.contains_key(header::ORIGIN) && !only(headers, header::ORIGIN).is_some_and(|it| access.admits(it)) {
        return Err(&ORIGIN_NOT_ALLOWED);
    }
    match only(headers, header::SEC_WEBSOCKET_KEY) {
        Some(key) if is_key(key) => Ok((endpoint, derive_accept_key(key))),
        _ => Err(&BAD_KEY),
    }
}

/// Whose request a trusted proxy passes on, by its X-Forwarded-For; `None`: it does not say.
pub fn forwarded_for(headers: &HeaderMap, access: &Access) -> Option<SocketAddr> {
    let values: Vec<_> = headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
    forwarded::client(values.into_iter(), |address| access.trusts(address))
}

/// The value of a header that is there exactly once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { Some(value.as_bytes()) }
}

/// Whether a header that holds a comma-separated list, perhaps over several lines, has `token` in it.
fn lists(headers: &HeaderMap, name: header::HeaderName, token: &[u8]) -> bool {
    let mut lines = headers.get_all(name).iter();
    lines.any(|line| line.as_bytes().split(|&byte| byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(token)))
}

/// Base64 of 16 bytes: 22 digits, of which the last holds two bits, and padding (RFC 6455 §4.2.1, RFC 4648 §4).
fn is_key(key: &[u8]) -> bool {
    let Some(([digits @ .., last], b"==")) = key.split_last_chunk::<2>() else {
        return false;
    };
    let are_digits = digits.iter().all(|&digit| digit.is_ascii_alphanumeric() || digit == b'+' || digit == b'/');
    digits.len() == 21 && are_digits && b"AQgw".contains(last)
}

/// A way to say no.
#[derive(Debug)]
pub struct Refusal {
    /// Metric label and log text.
    pub why: &'static str,
    status: &'static str,
    /// Header lines beside those that every refusal has.
    headers: &'static str,
    /// For a person who reads it in a browser or a terminal.
    text: &'static str,
}

impl Refusal {
    /// Appends the response.
    #[cold]
    pub fn respond(&self, out: &mut Vec<u8>, access: &Access, with_text: bool) {
        let Refusal { status, headers, text, .. } = self;
        let text = text.replace("{limit}", &access.request_bytes_max.to_string());
        let connection = if headers.contains("Upgrade: ") { "close, Upgrade" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status}\r\n\
             Connection: {connection}\r\n\
             {headers}\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             \r\n",
            text.len()
        );
        out.extend_from_slice(head.as_bytes());
        // The response to HEAD tells the length of a body that it does not have.
        if with_text {
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Index in [`REFUSALS`], for counters.
    pub fn kind(&self) -> usize {
        REFUSALS.iter().position(|refusal| refusal.why == self.why).unwrap_or_default()
    }
}

/// Every way to say no.
pub const REFUSALS: [&Refusal; 14] = [
    &MALFORMED,
    &BODY,
    &BAD_HOST,
    &BAD_KEY,
    &ORIGIN_NOT_ALLOWED,
    &PATH_NOT_SERVED,
    &METHOD_NOT_GET,
    &NOT_AN_UPGRADE,
    &WEBSOCKET_VERSION,
    &TOO_MANY_CONNECTIONS,
    &TOO_MANY_UPGRADES,
    &TOO_LARGE,
    &TOO_MANY_HEADERS,
    &HTTP_VERSION,
];

const SWITCHING_PROTOCOLS: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: ";

const MALFORMED: Refusal = Refusal {
    why: "malformed_request",
    status: "400 Bad Request",
    headers: "",
    text: "This is not an HTTP/1.1 request. For TLS, connect through the proxy that ends it.\n",
};
const BODY: Refusal = Refusal {
    why: "request_body",
    status: "400 Bad Request",
    headers: "",
    text: "A WebSocket upgrade request has no body.\n",
};
const BAD_HOST: Refusal = Refusal {
    why: "bad_host",
    status: "400 Bad Request",
    headers: "",
    text: "A request needs exactly one Host header.\n",
};
const BAD_KEY: Refusal = Refusal {
    why: "bad_key",
    status: "400 Bad Request",
    headers: "",
    text: "A WebSocket upgrade needs one Sec-WebSocket-Key: 16 bytes in base64.\n",
};
const ORIGIN_NOT_ALLOWED: Refusal = Refusal {
    why: "origin_not_allowed",
    status: "403 Forbidden",
    headers: "",
    text: "Pages of this origin may not connect here.\n",
};
const PATH_NOT_SERVED: Refusal = Refusal {
    why: "path_not_served",
    status: "404 Not Found",
    headers: "",
    text: "There is no WebSocket endpoint at this path.\n",
};
const METHOD_NOT_GET: Refusal = Refusal {
    why: "method_not_get",
    status: "405 Method Not Allowed",
    headers: "Allow: GET\r\n",
    text: "This is a WebSocket endpoint: the method must be GET.\n",
};
const NOT_AN_UPGRADE: Refusal = Refusal {
    why: "not_an_upgrade",
    status: "426 Upgrade Required",
    headers: "Upgrade: websocket\r\n",
    text: "This is a WebSocket endpoint: connect with a WebSocket client.\n",
};
const WEBSOCKET_VERSION: Refusal = Refusal {
    why: "websocket_version",
    status: "426 Upgrade Required",
    headers: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    text: "Only version 13 of the WebSocket protocol is spoken here.\n",
};
/// For those whose address has as many connections as one address may have.
pub const TOO_MANY_CONNECTIONS: Refusal = Refusal {
    why: "address_connections",
    status: "429 Too Many Requests",
    headers: "Retry-After: 10\r\n",
    text: "There are too many connections from your address: close some, or try again later.\n",
};
/// For those whose address connects more often than one address may.
pub const TOO_MANY_UPGRADES: Refusal = Refusal {
    why: "address_upgrades",
    status: "429 Too Many Requests",
    headers: "Retry-After: 1\r\n",
    text: "Your address connects too often: try again later.\n",
};
const TOO_LARGE: Refusal = Refusal {
    why: "request_too_large",
    status: "431 Request Header Fields Too Large",
    headers: "",
    text: "The request line and headers are over {limit} bytes.\n",
};
const TOO_MANY_HEADERS: Refusal = Refusal {
    why: "too_many_headers",
    status: "431 Request Header Fields Too Large",
    headers: "",
    text: "The request has more than 124 headers.\n",
};
const HTTP_VERSION: Refusal = Refusal {
    why: "http_version",
    status: "505 HTTP Version Not Supported",
    headers: "",
    text: "A WebSocket upgrade needs HTTP/1.1.\n",
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use proptest::prelude::*;

    const REQUEST_BYTES_MAX: usize = 8 * 1024;

    const PLAIN: &str = "GET /live?token=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    /// RFC 6455 §1.2, with what browsers add.
    const BROWSER: &str = "GET /live?token=1 HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Connection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\n\
        Origin: http://example.com\r\n\
        Sec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
        \r\n";
    const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        \r\n";

    /// The browser's request with one part replaced.
    fn with(part: &str, replacement: &str) -> String {
        assert!(BROWSER.contains(part));
        BROWSER.replacen(part, replacement, 1)
    }

    #[track_caller]
    fn check_accepted(request: impl AsRef<[u8]>) {
        let request = request.as_ref();
        let mut input = request.to_vec();
        input.extend_from_slice(b"\x81\x80\r\n\r\n");
        for input in [request, &input] {
            let mut out = Vec::new();
            match upgrade(input, &Access::default(), false, &mut out) {
                Upgrade::Accepted { request_len, .. } => assert_eq!(request_len, request.len()),
                other => panic!("{other:?}: {}", String::from_utf8_lossy(&out)),
            }
            assert_eq!(String::from_utf8_lossy(&out), RESPONSE);
        }
    }

    /// Access to these paths, and from these origins.
    fn access(paths: &[&str], origins: &[&str]) -> Access {
        Access {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            origins: origins.iter().map(|origin| Origin::parse(origin).expect("an origin")).collect(),
            ..Access::default()
        }
    }

    #[track_caller]
    fn check_refused(request: impl AsRef<[u8]>, refusal: &Refusal) {
        let mut out = Vec::new();
        let access = access(&["/live", "/"], &["http://example.com"]);
        match upgrade(request.as_ref(), &access, false, &mut out) {
            Upgrade::Refused(found) => assert_eq!(found.why, refusal.why),
            other => panic!("{other:?}"),
        }
        let response = String::from_utf8(out).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.lines().next(), Some(&*format!("HTTP/1.1 {}", refusal.status)));
        for line in refusal.headers.lines().chain(["Content-Type: text/plain; charset=utf-8"]) {
            assert!(head.lines().any(|it| it == line), "{line} in {head}");
        }
        assert!(head.contains("\r\nConnection: close"), "{head}");
        let text = refusal.text.replace("{limit}", "8192");
        assert!(head.contains(&format!("\r\nContent-Length: {}", text.len())), "{head}");
        assert_eq!(body, if request.as_ref().starts_with(b"HEAD") { "" } else { &text });
    }

    #[track_caller]
    fn check_partial(input: impl AsRef<[u8]>) {
        let mut out = Vec::new();
        let upgrade = upgrade(input.as_ref(), &Access::default(), false, &mut out);
        assert!(matches!(upgrade, Upgrade::Partial), "{upgrade:?} for {} bytes", input.as_ref().len());
        assert!(out.is_empty());
    }

    #[test]
    fn upgrades_are_accepted() {
        check_accepted(BROWSER);
        check_accepted(format!("\r\n\r\n{BROWSER}"));
        check_accepted(with("Upgrade: websocket", "UPGRADE:WebSocket"));
        check_accepted(with("Upgrade: websocket", "Upgrade: h2c, websocket"));
        check_accepted(with("keep-alive, Upgrade", "keep-alive\r\nConnection:\tupgrade"));
        check_accepted(with("/live?token=1", "http://server.example.com/live"));
        check_accepted(with("Origin: http://example.com", "Content-Length: 0"));
    }

    #[test]
    fn a_path_is_served_whatever_its_query() {
        #[track_caller]
        fn check(target: &str, paths: &[&str], expected: Option<Endpoint>) {
            let access = Access { echo_path: Some("/echo".into()), ..access(paths, &[]) };
            let upgrade = upgrade(with("/live?token=1", target).as_bytes(), &access, false, &mut Vec::new());
            let endpoint = match upgrade {
                Upgrade::Accepted { endpoint, .. } => Some(endpoint),
                _ => None,
            };
            assert_eq!(endpoint, expected, "{target} of {paths:?}");
        }
        let (channels, echo) = (Some(Endpoint::Channels), Some(Endpoint::Echo));
        check("/anything", &[], channels);
        check("/live", &["/live"], channels);
        check("/live?x=/y", &["/app", "/live"], channels);
        check("http://a/live?x", &["/live"], channels);
        check("/live/", &["/live"], None);
        check("/", &["/live"], None);
        check("/echo", &[], echo);
        check("/echo?case=1", &["/live"], echo);
        check("/echo/", &[], channels);
        check("/echo/", &["/live"], None);
    }

    #[test]
    fn browsers_connect_from_the_origins_allowed() {
        #[track_caller]
        fn check(origin: &str, origins: &[&str], expected: bool) {
            let request = with("Origin: http://example.com\r\n", origin);
            let upgrade = upgrade(request.as_bytes(), &access(&[], origins), false, &mut Vec::new());
            assert_eq!(matches!(upgrade, Upgrade::Accepted { .. }), expected, "{upgrade:?}");
        }
        let origins = ["https://example.com", "https://*.example.com"];
        check("Origin: https://example.com\r\n", &origins, true);
        check("Origin: https://www.example.com\r\n", &origins, true);
        check("Origin: http://example.com\r\n", &origins, false);
        check("Origin: null\r\n", &origins, false);
        check("Origin:\r\n", &origins, false);
        check("Origin: null\r\n", &[], true);
        // No browser: whoever can leave the header out can also make it up.
        check("", &origins, true);
        check("Origin: https://example.com\r\nOrigin: https://example.com\r\n", &origins, false);
    }

    #[test]
    fn trusted_proxies_say_whose_request_it_is() {
        #[track_caller]
        fn check(headers: &str, is_proxied: bool, expected: Option<&str>) {
            let access = Access { trusted: vec!["10.0.0.0/8".parse().expect("a network")], ..Access::default() };
            let request = with("Origin: http://example.com\r\n", headers);
            match upgrade(request.as_bytes(), &access, is_proxied, &mut Vec::new()) {
                Upgrade::Accepted { forwarded_for, .. } => {
                    assert_eq!(forwarded_for.map(|it| it.ip().to_string()).as_deref(), expected, "{headers}");
                }
                other => panic!("{other:?}"),
            }
        }
        check("X-Forwarded-For: 203.0.113.7\r\n", true, Some("203.0.113.7"));
        check("X-Forwarded-For: 203.0.113.7\r\n", false, None);
        check("x-forwarded-for: 6.6.6.6\r\nX-FORWARDED-FOR: 203.0.113.7, 10.1.1.1\r\n", true, Some("203.0.113.7"));
        check("X-Forwarded-For: who knows\r\n", true, None);
        check("", true, None);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        check_refused(with("GET", "POST"), &METHOD_NOT_GET);
        check_refused(with("GET", "HEAD"), &METHOD_NOT_GET);
        check_refused(with("HTTP/1.1", "HTTP/1.0"), &HTTP_VERSION);
        check_refused(with("/live", "/other"), &PATH_NOT_SERVED);
        check_refused(with("http://example.com", "http://evil.example"), &ORIGIN_NOT_ALLOWED);
        check_refused(PLAIN, &NOT_AN_UPGRADE);
        check_refused(with("Upgrade: websocket", "Upgrade: h2c"), &NOT_AN_UPGRADE);
        check_refused(with("keep-alive, Upgrade", "keep-alive"), &NOT_AN_UPGRADE);
        check_refused(with("Version: 13", "Version: 8"), &WEBSOCKET_VERSION);
        check_refused(with("Sec-WebSocket-Version: 13\r\n", ""), &WEBSOCKET_VERSION);
        check_refused(with("Host: server.example.com\r\n", ""), &BAD_HOST);
        check_refused(with("Host: ", "Host: a\r\nHost: "), &BAD_HOST);
        check_refused(with("Origin: http://example.com", "Content-Length: 5"), &BODY);
        check_refused(with("Origin: http://example.com", "Transfer-Encoding: chunked"), &BODY);
        check_refused(with("Origin", "Bad Header"), &MALFORMED);
        check_refused(with("HTTP/1.1", "HTTP/2.0"), &MALFORMED);
        check_refused("hello\r\n\r\n", &MALFORMED);
        check_refused(BROWSER.replace("\r\n", "\n") + "\r\n\r\n", &MALFORMED);
        check_refused(b"\x16\x03\x01\x02\x00", &MALFORMED);
    }

    #[test]
    fn keys_are_base64_of_16_bytes() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        check_refused(with(&format!("Sec-WebSocket-Key: {key}\r\n"), ""), &BAD_KEY);
        check_refused(with(key, &format!("{key}\r\nSec-WebSocket-Key: {key}")), &BAD_KEY);
        for bad in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ!!",
            "dGhlIHNhbXBsZSBub25jZR==",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            check_refused(with(key, bad), &BAD_KEY);
        }
        // Every last digit that is legal.
        for good in [
            "AAAAAAAAAAAAAAAAAAAAAA==",
            "+/+/+/+/+/+/+/+/+/+/+Q==",
            "zzzzzzzzzzzzzzzzzzzzzg==",
            "999999999999999999999w==",
        ] {
            assert!(is_key(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_at_the_limit() {
        let padded = |len: usize| with("Origin: http://example.com", &format!("X: {}", "x".repeat(len)));
        let fits = REQUEST_BYTES_MAX - padded(0).len();
        check_accepted(padded(fits));
        check_partial(&padded(fits)[..REQUEST_BYTES_MAX - 1]);
        check_refused(padded(fits + 1), &TOO_LARGE);
        check_refused(&padded(fits + 1)[..REQUEST_BYTES_MAX], &TOO_LARGE);
        check_refused("\r\n".repeat(REQUEST_BYTES_MAX), &TOO_LARGE);
        check_refused(with("Origin: http://example.com", "X: y\r\n".repeat(124).trim_end()), &TOO_MANY_HEADERS);
    }

    #[test]
    fn each_refusal_has_a_label_of_its_own() {
        for (kind, refusal) in REFUSALS.iter().enumerate() {
            assert_eq!(refusal.kind(), kind, "{}", refusal.why);
        }
    }

    #[test]
    fn every_prefix_is_partial() {
        for request in [BROWSER, PLAIN, &format!("\r\n{BROWSER}")] {
            for len in 0..request.len() {
                check_partial(&request[..len]);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_outcome(noise in prop::collection::vec(any::<u8>(), 0..300), begins in any::<bool>()) {
            let input = [if begins { &b"GET / HTTP/1.1\r\n"[..] } else { b"" }, &noise, b"\r\n\r\n"].concat();
            let mut out = Vec::new();
            let upgrade = upgrade(&input, &Access::default(), true, &mut out);
            prop_assert_eq!(matches!(upgrade, Upgrade::Partial), out.is_empty());
        }

        #[test]
        fn a_damaged_request_has_an_outcome(at in 0..BROWSER.len(), value in any::<u8>()) {
            let mut input = BROWSER.as_bytes().to_vec();
            input[at] = value;
            let mut out = Vec::new();
            let upgrade = upgrade(&input, &Access::default(), true, &mut out);
            prop_assert_eq!(matches!(upgrade, Upgrade::Partial), out.is_empty());
        }

        #[test]
        fn every_prefix_of_a_request_is_partial(
            headers in prop::collection::vec(("X-[A-Za-z]{1,10}", "[!-~]{0,20}"), 0..10),
            path in "/[a-z/]{0,20}",
        ) {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let request = with("/live?token=1", &path).replacen("Origin: http://example.com\r\n", &headers, 1);
            for len in 0..request.len() {
                check_partial(&request[..len]);
            }
            check_accepted(&request);
        }
    }
}
