//! Describes requests that cannot be served, and says what to change. For the log. Pure.

use crate::config::Access;
use crate::protocol::pusher::handshake;
use crate::wire::upgrade::Refusal;
use std::borrow::Cow;

/// A short description of a request: its method and path. The query may hold secrets and is left out.
pub fn looks(request: &[u8]) -> Cow<'_, str> {
    match form(request) {
        Form::Tls => "a TLS handshake".into(),
        Form::ProxyHeader => "a PROXY header".into(),
        Form::Http2 => "HTTP/2".into(),
        Form::Http1 => {
            let line = request_line(request);
            let end = memchr::memchr2(b'?', b'#', line).unwrap_or(line.len());
            let line = String::from_utf8_lossy(&line[..end]);
            match line {
                Cow::Borrowed(line) => shortened(line).into(),
                Cow::Owned(line) => shortened(&line).to_owned().into(),
            }
        }
    }
}

/// What to change so that such a request is served.
pub fn of_refusal(refusal: &Refusal, request: &[u8], access: &Access) -> Cow<'static, str> {
    let path = path(request);
    match refusal.why {
        "malformed_request" if form(request) == Form::Tls => TLS.into(),
        "malformed_request" if form(request) == Form::ProxyHeader => PROXY_HEADER.into(),
        "path_not_served" | "not_an_upgrade" | "method_not_get" | "request_body" if is_of_http(path) => HTTP.into(),
        "path_not_served" if has_app(path) && !access.pusher => PUSHER_OFF.into(),
        "path_not_served" if has_app(path) => {
            let paths = access.paths.iter().map(|served| format!("{}/app/KEY", served.trim_end_matches('/')));
            format!("Pusher's clients are served on {}: set the client's wsPath, or --path", listed(paths)).into()
        }
        "path_not_served" => {
            let paths = access.paths.iter().chain(&access.echo_path).cloned();
            format!("the paths that are served are {}: correct the client's URL, or set --path", listed(paths)).into()
        }
        "not_an_upgrade" => NOT_AN_UPGRADE.into(),
        "origin_not_allowed" => match header(request, b"origin") {
            Some(origin) => format!("--allow-origin {} lets pages of this origin connect", shortened(&origin)).into(),
            None => "--allow-origin lists the origins that may connect".into(),
        },
        _ => refusal.text(access).trim_end().to_owned().into(),
    }
}

/// What to change so that a Pusher client is served. `has_keys`: whether the server has key pairs.
pub fn of_pusher_refusal(refusal: &handshake::Refusal, has_keys: bool) -> &'static str {
    match refusal {
        handshake::Refusal::PathNotFound => {
            "the path must end in /app/KEY: check the client's key and wsPath, and whether a proxy in front changes the path"
        }
        handshake::Refusal::UnknownKey(_) if has_keys => {
            "the client's app key must be the ID of a key pair: correct the client, or see --key-file and `corecast reload`"
        }
        handshake::Refusal::UnknownKey(_) => {
            "the server has no key pair: set --key-file, and the ID of a pair in the client"
        }
        handshake::Refusal::VersionMalformed | handshake::Refusal::VersionUnsupported => {
            "protocol in the query must be 4, 5, 6 or 7: use a library of Pusher Channels"
        }
    }
}

/// Whether a request has the path of a Pusher client.
pub fn is_of_pusher(request: &[u8]) -> bool {
    has_app(path(request))
}

/// The beginning of a client's text.
pub fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Tls,
    ProxyHeader,
    Http2,
    Http1,
}

fn form(request: &[u8]) -> Form {
    match request {
        [0x16, 0x03, ..] => Form::Tls,
        _ if request.starts_with(b"PROXY ") || request.starts_with(b"\r\n\r\n\0\r\nQUIT\n") => Form::ProxyHeader,
        _ if request.starts_with(b"PRI * HTTP/2") => Form::Http2,
        _ => Form::Http1,
    }
}

/// The first line that is not empty.
fn request_line(request: &[u8]) -> &[u8] {
    request.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty()).unwrap_or_default()
}

/// The path of the request line, without the query.
fn path(request: &[u8]) -> &[u8] {
    let target = request_line(request).split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    target.split(|&byte| byte == b'?').next().unwrap_or_default()
}

/// The value of a header, named in lower case.
fn header<'a>(request: &'a [u8], name: &[u8]) -> Option<Cow<'a, str>> {
    request.split(|&byte| byte == b'\n').find_map(|line| {
        let at = memchr::memchr(b':', line)?;
        line[..at].eq_ignore_ascii_case(name).then(|| String::from_utf8_lossy(line[at + 1..].trim_ascii()))
    })
}

fn has_app(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|segment| segment == b"app")
}

/// Whether the path is one that the HTTP listener serves.
fn is_of_http(path: &[u8]) -> bool {
    path.starts_with(b"/apps/")
        || path.starts_with(b"/console")
        || [&b"/metrics"[..], b"/live", b"/ready", b"/publish"].contains(&path)
}

fn listed(paths: impl Iterator<Item = String>) -> String {
    let mut paths: Vec<String> = paths.collect();
    let more = paths.len().saturating_sub(PATHS_MAX);
    paths.truncate(PATHS_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    paths.join(", ") + &more
}

const TLS: &str = "the client speaks TLS, and this port does not: set --tls-cert and --tls-key, let a proxy terminate TLS, or use \
                   ws://";
const PROXY_HEADER: &str =
    "a proxy sends PROXY headers: set --proxy-protocol on, and --trust-proxy with the address of the proxy";
const HTTP: &str = "this port is for WebSocket clients: health checks, metrics and publishing over HTTP are on --http";
const PUSHER_OFF: &str = "this looks like a Pusher client: --pusher on serves Pusher's clients";
const NOT_AN_UPGRADE: &str = "this port is for WebSocket clients: HTTP is on --http. A proxy in front must pass on the headers \
                              Upgrade and Connection";
/// Most bytes of a client's text in a line.
const TEXT_BYTES_MAX: usize = 200;
/// Most paths in a line.
const PATHS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::upgrade::{Upgrade, upgrade};
    use std::time::UNIX_EPOCH;

    fn request(line: &str) -> String {
        format!(
            "{line} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://page.example\r\n\r\n"
        )
    }

    #[track_caller]
    fn check(request: &[u8], access: &Access, looks_like: &str, part: &str) {
        let mut out = Vec::new();
        let Upgrade::Refused { refusal, .. } = upgrade(request, access, false, UNIX_EPOCH.into(), &mut out) else {
            panic!("{looks_like} is not refused")
        };
        let advice = of_refusal(refusal, request, access);
        assert_eq!(looks(request), looks_like);
        assert!(advice.contains(part), "{looks_like}: {advice}");
        assert!(!advice.contains('\n'));
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        let open = Access::default();
        let narrow = Access { paths: vec!["/ws".into(), "/x/".into()], ..Access::default() };
        let off = Access { pusher: false, ..narrow.clone() };
        let check_line = |line: &str, access, part| {
            let looks_like = line.split('?').next().unwrap_or(line);
            let looks_like = if looks_like == line { format!("{line} HTTP/1.1") } else { looks_like.to_owned() };
            check(request(line).as_bytes(), access, &looks_like, part);
        };
        check_line("GET /other?token=secret", &narrow, "served are /ws, /x/:");
        check_line("GET /app/key?protocol=7", &narrow, "served on /ws/app/KEY, /x/app/KEY:");
        check_line("GET /app/key?protocol=7", &off, "--pusher on");
        check_line("GET /metrics", &narrow, "--http");
        check_line("POST /apps/1/events?auth_key=a", &open, "--http");
        check_line("DELETE /", &open, "the method must be GET");
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &open, "GET / HTTP/1.1", "pass on the headers");
        check(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n", &open, "GET /live HTTP/1.1", "--http");
        check(b"\x16\x03\x01\x02\0", &open, "a TLS handshake", "--tls-cert");
        check(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\n\r\n", &open, "a PROXY header", "--proxy-protocol");
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &open, "HTTP/2", "");
        let origins = vec![crate::config::Origin::parse("https://example.com").expect("an origin")];
        let origins = Access { origins, ..Access::default() };
        check_line("GET /?a=b", &origins, "--allow-origin http://page.example ");
    }

    #[test]
    fn long_and_strange_requests_are_shown_in_part() {
        let long = format!("GET /{}", "é".repeat(5000));
        assert!(looks(long.as_bytes()).len() <= TEXT_BYTES_MAX);
        assert_eq!(looks(b"\r\n\xff\xfe"), "\u{fffd}\u{fffd}");
        for bytes in [&b""[..], b"\r\n", b" ", b"?", b"GET", b"GET  ", b"\n:\n"] {
            let _ = (looks(bytes), path(bytes), header(bytes, b"origin"));
        }
        assert_eq!(listed((0..7).map(|n| n.to_string())), "0, 1, 2, 3, 4 and 2 more");
        assert!(is_of_pusher(b"GET /x/app/k?a HTTP/1.1\r\n") && !is_of_pusher(b"GET /apps/1?/app/ HTTP/1.1\r\n"));
    }
}
