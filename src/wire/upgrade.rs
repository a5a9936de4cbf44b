//! The HTTP upgrade. Uses tungstenite's parts of the handshake.

mod refusal;
#[cfg(test)]
mod tests;

pub use refusal::{REFUSALS, Refusal, TOO_MANY_CONNECTIONS, TOO_MANY_UPGRADES};

use crate::config::{Access, Endpoint};
use crate::wire::{forwarded, host};
use httpdate::HttpDate;
use memchr::memmem;
use refusal::{
    BAD_HOST, BAD_KEY, BODY, HTTP_VERSION, MALFORMED, METHOD_NOT_GET, NOT_AN_UPGRADE, ORIGIN_NOT_ALLOWED,
    PATH_NOT_SERVED, TOO_LARGE, TOO_MANY_HEADERS, WEBSOCKET_VERSION,
};
use std::net::SocketAddr;
use std::ops::Range;
use tungstenite::{
    Error,
    error::{CapacityError, ProtocolError},
    handshake::{derive_accept_key, machine::TryParse, server::Request},
    http::{HeaderMap, header},
};

/// The verdict on the bytes received so far.
#[derive(Debug)]
pub enum Upgrade {
    /// The request is incomplete.
    Partial,
    /// Accepted: `request_len` bytes were the request; the rest belongs to the first frames.
    Accepted {
        /// Bytes of the request.
        request_len: usize,
        /// The endpoint that its path names.
        endpoint: Endpoint,
        /// Of [`Endpoint::Pusher`]: the path and the query.
        target: Box<str>,
        /// The client that the proxies name; only if `is_proxied`.
        forwarded_for: Option<SocketAddr>,
    },
    /// Refused: send the response in `out`, then close the connection.
    Refused {
        /// What was wrong.
        refusal: &'static Refusal,
        /// As above. `None` also if the end of the request has not come.
        forwarded_for: Option<SocketAddr>,
    },
}

/// Reads an upgrade request from `input` (everything received so far) and appends the whole HTTP response to `out`.
/// `is_proxied`: the connection is a trusted proxy's. `date` is the Date header of a refusal.
///
/// RFC 6455 §4.2. Extensions that a client offers are not negotiated. The only sub-protocol that is chosen is Pusher's. A call
/// does not parse an incomplete request, but only searches for the empty line that ends it. So a client may send byte by byte.
pub fn upgrade(input: &[u8], access: &Access, is_proxied: bool, date: HttpDate, out: &mut Vec<u8>) -> Upgrade {
    let (head, judged) = match find_head(input, access.request_bytes_max) {
        Ok(None) => return Upgrade::Partial,
        Ok(Some(head)) => (head.clone(), judge(&input[head], access)),
        Err(refusal) => (0..0, Err(refusal)),
    };
    let trusts = |address| access.trusts(address);
    let forwarded_for = if is_proxied { forwarded::client_of_head(&input[head.clone()], trusts) } else { None };
    match judged {
        Ok(Accepted { endpoint, accept_key, target, sub_protocol }) => {
            out.extend_from_slice(SWITCHING_PROTOCOLS);
            out.extend_from_slice(accept_key.as_bytes());
            if let Some(name) = sub_protocol {
                out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
                out.extend_from_slice(name.as_bytes());
            }
            out.extend_from_slice(b"\r\n\r\n");
            Upgrade::Accepted { request_len: head.end, endpoint, target, forwarded_for }
        }
        Err(refusal) => {
            refusal.respond(input, out, access, date);
            Upgrade::Refused { refusal, forwarded_for }
        }
    }
}

/// RFC 9112 §2.2: empty lines before the request line are ignored.
fn without_empty_lines(mut request: &[u8]) -> &[u8] {
    while let Some(rest) = request.strip_prefix(b"\r\n") {
        request = rest;
    }
    request
}

/// Where the head of the request is, from the request line to the empty line; `None`: it is incomplete.
fn find_head(input: &[u8], limit: usize) -> Result<Option<Range<usize>>, &'static Refusal> {
    let within_limit = &input[..input.len().min(limit)];
    let request = without_empty_lines(within_limit);
    // Refused early, so that a TLS client, for example, does not wait for the handshake deadline.
    if request.first().is_some_and(|&first| first != b'\r' && !first.is_ascii_alphabetic()) {
        return Err(&MALFORMED);
    }
    let skipped = within_limit.len() - request.len();
    match memmem::find(request, b"\r\n\r\n") {
        Some(last_line_end) => Ok(Some(skipped..skipped + last_line_end + 4)),
        None if within_limit.len() < limit => Ok(None),
        None => Err(&TOO_LARGE),
    }
}

/// A request that is accepted.
struct Accepted {
    endpoint: Endpoint,
    accept_key: String,
    target: Box<str>,
    sub_protocol: Option<String>,
}

fn judge(head: &[u8], access: &Access) -> Result<Accepted, &'static Refusal> {
    match Request::try_parse(head) {
        // The parser accepts a bare line feed as the end of a line, so it may find an earlier end of the request.
        Ok(Some((request_len, _))) if request_len < head.len() => Err(&MALFORMED),
        Ok(Some((_, request))) => check(&request, access),
        Ok(None) => Err(&MALFORMED),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => Err(&METHOD_NOT_GET),
        Err(Error::Protocol(ProtocolError::WrongHttpVersion)) => Err(&HTTP_VERSION),
        Err(Error::Capacity(CapacityError::TooManyHeaders)) => Err(&TOO_MANY_HEADERS),
        Err(_) => Err(&MALFORMED),
    }
}

/// What a request is for, if it is a WebSocket upgrade for a served path. (tungstenite's own
/// check reads only the first `Connection` header, but proxies may send several.)
fn check(request: &Request, access: &Access) -> Result<Accepted, &'static Refusal> {
    let headers = request.headers();
    let has_body = headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_body || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(&BODY);
    }
    if !only(headers, header::HOST).is_some_and(host::is_valid) {
        return Err(&BAD_HOST);
    }
    // RFC 9112 §3.2: a path or an absolute URI. An authority alone is for CONNECT, and an asterisk for OPTIONS.
    let target = request.uri();
    if target.scheme().is_some() != target.authority().is_some() || !target.path().starts_with('/') {
        return Err(&MALFORMED);
    }
    let endpoint = access.endpoint(target.path()).ok_or(&PATH_NOT_SERVED)?;
    if !lists(headers, header::UPGRADE, b"websocket") || !lists(headers, header::CONNECTION, b"upgrade") {
        return Err(&NOT_AN_UPGRADE);
    }
    if only(headers, header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(&WEBSOCKET_VERSION);
    }
    // Browsers always send an Origin. Other clients need no check: only a browser connects on behalf of a page.
    if headers.contains_key(header::ORIGIN) && !only(headers, header::ORIGIN).is_some_and(|it| access.admits(it)) {
        return Err(&ORIGIN_NOT_ALLOWED);
    }
    let key = only(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or(&BAD_KEY)?;
    let accept_key = derive_accept_key(key);
    let (target, sub_protocol) = match endpoint {
        Endpoint::Channels | Endpoint::Echo => (Box::default(), None),
        Endpoint::Pusher => (target.path_and_query().map_or("", |it| it.as_str()).into(), pusher_protocol(headers)),
    };
    Ok(Accepted { endpoint, accept_key, target, sub_protocol })
}

/// The first sub-protocol of Pusher's clients that is offered: `pusher-channels-protocol-7`, or with another number.
fn pusher_protocol(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let offered = lines.flat_map(|line| line.split(',')).map(str::trim);
    let is_pusher = |name: &&str| {
        let number = name.strip_prefix("pusher-channels-protocol-");
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    offered.filter(is_pusher).map(str::to_owned).next()
}

/// The client of a request by the X-Forwarded-For of a trusted proxy; `None`: the header names none.
pub fn forwarded_for(headers: &HeaderMap, access: &Access) -> Option<SocketAddr> {
    let values: Vec<_> = headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
    forwarded::client(values.into_iter(), |address| access.trusts(address))
}

/// The value of a header that occurs exactly once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { Some(value.as_bytes()) }
}

/// Whether a header with a comma-separated list, possibly over several lines, contains `token`.
fn lists(headers: &HeaderMap, name: header::HeaderName, token: &[u8]) -> bool {
    let mut lines = headers.get_all(name).iter();
    lines.any(|line| line.as_bytes().split(|&byte| byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(token)))
}

/// Whether the text is base64 of 16 bytes: 22 digits, the last of which holds two bits, and padding (RFC 6455 §4.2.1,
/// RFC 4648 §4).
fn is_key(key: &[u8]) -> bool {
    let Some(([digits @ .., last], b"==")) = key.split_last_chunk::<2>() else {
        return false;
    };
    let are_digits = digits.iter().all(|&digit| digit.is_ascii_alphanumeric() || digit == b'+' || digit == b'/');
    digits.len() == 21 && are_digits && b"AQgw".contains(last)
}

const SWITCHING_PROTOCOLS: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: ";
