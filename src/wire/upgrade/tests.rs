use super::*;
use crate::config::Origin;
use proptest::prelude::*;

const REQUEST_BYTES_MAX: usize = 8 * 1024;

const PLAIN: &str = "GET /live?token=1 HTTP/1.1\r\nHost: a\r\n\r\n";
/// The request of RFC 6455 §1.2, with headers that browsers add.
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

fn date() -> HttpDate {
    "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap()
}

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
        match upgrade(input, &Access::default(), false, date(), &mut out) {
            Upgrade::Accepted { request_len, .. } => assert_eq!(request_len, request.len()),
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&out)),
        }
        assert_eq!(String::from_utf8_lossy(&out), RESPONSE);
    }
}

/// Access to these paths from these origins.
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
    match upgrade(request.as_ref(), &access, false, date(), &mut out) {
        Upgrade::Refused { refusal: found, .. } => assert_eq!(found.why, refusal.why),
        other => panic!("{other:?}"),
    }
    let response = String::from_utf8(out).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert_eq!(head.lines().next(), Some(&*format!("HTTP/1.1 {}", refusal.status)));
    for line in refusal
        .headers
        .lines()
        .chain(["Content-Type: text/plain; charset=utf-8", "Date: Thu, 01 Jan 1970 00:00:00 GMT"])
    {
        assert!(head.lines().any(|it| it == line), "{line} in {head}");
    }
    assert!(head.contains("\r\nConnection: close"), "{head}");
    let text = refusal.text.replace("{limit}", "8192");
    assert!(head.contains(&format!("\r\nContent-Length: {}", text.len())), "{head}");
    let text_of_request = String::from_utf8_lossy(request.as_ref());
    let is_head = text_of_request.trim_start_matches("\r\n").starts_with("HEAD ");
    assert_eq!(body, if is_head { "" } else { &text });
}

#[track_caller]
fn check_partial(input: impl AsRef<[u8]>) {
    let mut out = Vec::new();
    let upgrade = upgrade(input.as_ref(), &Access::default(), false, date(), &mut out);
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
fn the_query_does_not_matter_to_the_path() {
    #[track_caller]
    fn check(target: &str, paths: &[&str], expected: Option<Endpoint>) {
        let access = Access { echo_path: Some("/echo".into()), ..access(paths, &[]) };
        let upgrade = upgrade(with("/live?token=1", target).as_bytes(), &access, false, date(), &mut Vec::new());
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
    check("/app", &["/app", "/live"], channels);
    check("http://a/live?x", &["/live"], channels);
    check("/live/", &["/live"], None);
    check("/", &["/live"], None);
    check("/echo", &[], echo);
    check("/echo?case=1", &["/live"], echo);
    check("/echo/", &[], channels);
    check("/echo/", &["/live"], None);
}

#[test]
fn pushers_clients_connect_behind_each_served_path() {
    #[track_caller]
    fn check(target: &str, paths: &[&str], expected: Option<&str>) {
        for pusher in [true, false] {
            let access = Access { pusher, ..access(paths, &[]) };
            let upgrade = upgrade(with("/live?token=1", target).as_bytes(), &access, false, date(), &mut Vec::new());
            let found = match upgrade {
                Upgrade::Accepted { endpoint: Endpoint::Pusher, target: found, .. } => Some(found),
                _ => None,
            };
            let found = found.as_deref().map(|target| access.pusher_target(target));
            assert_eq!(found, expected.filter(|_| pusher), "{target} of {paths:?}");
        }
    }
    for target in ["/app/key?protocol=7", "/app", "/app/", "/app/key/x", "/x/app", "/app/app"] {
        check(target, &[], Some(target));
    }
    check("/a/b/app/key", &[], Some("/app/key"));
    check("/app/x/app/key?a=/b", &[], Some("/app/key?a=/b"));
    for target in ["/apps/key", "/live", "/", "/xapp/key", "/application", "/app/key/x/y", "/my/app/rooms/7/live"] {
        check(target, &[], None);
    }
    for rest in ["/app/key", "/app", "/app/", "/app/key/x", "/app/x/app/key", "/app/key?a=b"] {
        check(&format!("/live{rest}"), &["/live", "/x/"], Some(rest));
        check(&format!("/x{rest}"), &["/live", "/x/"], Some(rest));
    }
    for target in ["/app/key", "/live/apps/key", "/live/x/app/key", "/livex/app/key", "/live"] {
        check(target, &["/live"], None);
    }
    check("/app/key", &["/"], Some("/app/key"));
    check("/app/key", &["/app"], None);
    check("/app/app/key", &["/app"], Some("/app/key"));
}

#[test]
fn the_sub_protocol_of_pushers_clients_is_chosen() {
    #[track_caller]
    fn check(target: &str, offered: &str, expected: Option<&str>) {
        let request = with("/live?token=1", target).replace("chat, superchat", offered);
        let mut out = Vec::new();
        upgrade(request.as_bytes(), &Access::default(), false, date(), &mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("HTTP/1.1 101 ") && out.ends_with("\r\n\r\n"), "{out}");
        assert_eq!(out.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: ")), expected);
    }
    let seven = Some("pusher-channels-protocol-7");
    check("/app/k", "pusher-channels-protocol-7", seven);
    check("/app/k", "chat\r\nSec-WebSocket-Protocol: x, pusher-channels-protocol-7,y", seven);
    check("/app/k", "pusher-channels-protocol-, pusher-channels-protocol-7x, chat", None);
    check("/live", "pusher-channels-protocol-7", None);
}

#[test]
fn browsers_connect_from_allowed_origins() {
    #[track_caller]
    fn check(origin: &str, origins: &[&str], expected: bool) {
        let request = with("Origin: http://example.com\r\n", origin);
        let upgrade = upgrade(request.as_bytes(), &access(&[], origins), false, date(), &mut Vec::new());
        assert_eq!(matches!(upgrade, Upgrade::Accepted { .. }), expected, "{upgrade:?}");
    }
    let origins = ["https://example.com", "https://*.example.com"];
    check("Origin: https://example.com\r\n", &origins, true);
    check("Origin: https://www.example.com\r\n", &origins, true);
    check("Origin: http://example.com\r\n", &origins, false);
    check("Origin: null\r\n", &origins, false);
    check("Origin:\r\n", &origins, false);
    check("Origin: null\r\n", &[], true);
    // Without an Origin it is not a browser. A client that can omit the header can also forge it.
    check("", &origins, true);
    check("Origin: https://example.com\r\nOrigin: https://example.com\r\n", &origins, false);
}

#[test]
fn trusted_proxies_name_the_client() {
    #[track_caller]
    fn check(request: &str, is_proxied: bool, expected: Option<&str>) {
        let access = Access { trusted: vec!["10.0.0.0/8".parse().expect("a network")], ..access(&["/live"], &[]) };
        let (Upgrade::Accepted { forwarded_for, .. } | Upgrade::Refused { forwarded_for, .. }) =
            upgrade(request.as_bytes(), &access, is_proxied, date(), &mut Vec::new())
        else {
            panic!("{request} is not complete");
        };
        assert_eq!(forwarded_for.map(|it| it.ip().to_string()).as_deref(), expected, "{request}");
    }
    let with_headers = |headers: &str| with("Origin: http://example.com\r\n", headers);
    let named = with_headers("X-Forwarded-For: 203.0.113.7\r\n");
    check(&named, true, Some("203.0.113.7"));
    check(&named, false, None);
    let twice = "x-forwarded-for: 6.6.6.6\r\nX-FORWARDED-FOR:203.0.113.7, 10.1.1.1\r\n";
    check(&with_headers(twice), true, Some("203.0.113.7"));
    check(&with_headers("X-Forwarded-For: not-an-address\r\n"), true, None);
    check(&with_headers(""), true, None);
    // Whatever the request is refused for.
    for (part, wrong) in [
        ("/live", "/other"),
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Host: ", "Bad Header: "),
        ("Host: ", &"A: b\r\n".repeat(125)),
    ] {
        check(&named.replacen(part, wrong, 1), true, Some("203.0.113.7"));
        check(&named.replacen(part, wrong, 1), false, None);
    }
    // A proxy may have named another client in the part that has not come.
    check(&named.replacen("Host: ", &format!("A: {}\r\n", "x".repeat(REQUEST_BYTES_MAX)), 1), true, None);
    // What follows the head does not count, whichever way its lines end.
    check("GET /live HTTP/1.1\n\nX-Forwarded-For: 6.6.6.6\r\n\r\n", true, None);
}

#[test]
fn each_fault_has_its_refusal() {
    check_refused(with("GET", "POST"), &METHOD_NOT_GET);
    check_refused(with("GET", "HEAD"), &METHOD_NOT_GET);
    check_refused(with("GET", "\r\n\r\nHEAD"), &METHOD_NOT_GET);
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
    check_refused(with("Host: server.example.com", "Host: a b"), &BAD_HOST);
    for target in ["*", "foo", "x:80", "server.example.com:80"] {
        check_refused(with("/live?token=1", target), &MALFORMED);
    }
    check_refused(with("Origin: http://example.com", "Content-Length: 5"), &BODY);
    check_refused(with("Origin: http://example.com", "Transfer-Encoding: chunked"), &BODY);
    check_refused(with("Origin", "Bad Header"), &MALFORMED);
    check_refused(with("HTTP/1.1", "HTTP/2.0"), &MALFORMED);
    check_refused("hello\r\n\r\n", &MALFORMED);
    check_refused(with("GET", "\t\nHEAD"), &MALFORMED);
    check_refused(with("GET", "\rHEAD"), &MALFORMED);
    check_refused(with("GET", "\r\n\nHEAD"), &MALFORMED);
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
    // Every legal last digit.
    for good in
        ["AAAAAAAAAAAAAAAAAAAAAA==", "+/+/+/+/+/+/+/+/+/+/+Q==", "zzzzzzzzzzzzzzzzzzzzzg==", "999999999999999999999w=="]
    {
        assert!(is_key(good.as_bytes()), "{good}");
    }
}

#[test]
fn a_large_request_is_refused_at_the_limit() {
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
fn each_refusal_has_its_own_label() {
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
    fn any_bytes_are_answered_once_or_incomplete(noise in prop::collection::vec(any::<u8>(), 0..300), begins in any::<bool>()) {
        let input = [if begins { &b"GET / HTTP/1.1\r\n"[..] } else { b"" }, &noise, b"\r\n\r\n"].concat();
        let mut out = Vec::new();
        let upgrade = upgrade(&input, &Access::default(), true, date(), &mut out);
        prop_assert_eq!(matches!(upgrade, Upgrade::Partial), out.is_empty());
    }

    #[test]
    fn a_damaged_request_is_answered_once_or_incomplete(at in 0..BROWSER.len(), value in any::<u8>()) {
        let mut input = BROWSER.as_bytes().to_vec();
        input[at] = value;
        let mut out = Vec::new();
        let upgrade = upgrade(&input, &Access::default(), true, date(), &mut out);
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
