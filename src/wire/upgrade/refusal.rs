//! Refusals of upgrade requests: HTTP responses.

use crate::config::Access;
use httpdate::HttpDate;

/// An answer to a request that is not upgraded.
#[derive(Debug)]
pub struct Refusal {
    /// The metric label, also used in the log.
    pub why: &'static str,
    pub(super) status: &'static str,
    /// Header lines in addition to those of every refusal.
    pub(super) headers: &'static str,
    /// The body, for people.
    pub(super) text: &'static str,
}

impl Refusal {
    /// The body, for people.
    pub fn text(&self, access: &Access) -> String {
        self.text.replace("{limit}", &access.request_bytes_max.to_string())
    }

    /// Appends the response to a request, which may be incomplete.
    #[cold]
    pub fn respond(&self, request: &[u8], out: &mut Vec<u8>, access: &Access, date: HttpDate) {
        let Refusal { status, headers, .. } = self;
        let text = self.text(access);
        let connection = if headers.contains("Upgrade: ") { "close, Upgrade" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status}\r\n\
             Date: {date}\r\n\
             Connection: {connection}\r\n\
             {headers}\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             \r\n",
            text.len()
        );
        out.extend_from_slice(head.as_bytes());
        // The response to HEAD gives the length of the body, but has no body.
        if !request.starts_with(b"HEAD ") {
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Index in [`REFUSALS`], for counters.
    pub fn kind(&self) -> usize {
        REFUSALS.iter().position(|refusal| refusal.why == self.why).unwrap_or_default()
    }
}

/// All refusals.
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

pub(super) const MALFORMED: Refusal = Refusal {
    why: "malformed_request",
    status: "400 Bad Request",
    headers: "",
    text: "This is not an HTTP/1.1 request. For TLS, connect through the proxy that terminates it.\n",
};
pub(super) const BODY: Refusal = Refusal {
    why: "request_body",
    status: "400 Bad Request",
    headers: "",
    text: "A WebSocket upgrade request has no body.\n",
};
pub(super) const BAD_HOST: Refusal = Refusal {
    why: "bad_host",
    status: "400 Bad Request",
    headers: "",
    text: "A request needs exactly one Host header, with a host and perhaps a port.\n",
};
pub(super) const BAD_KEY: Refusal = Refusal {
    why: "bad_key",
    status: "400 Bad Request",
    headers: "",
    text: "A WebSocket upgrade needs one Sec-WebSocket-Key: 16 bytes in base64.\n",
};
pub(super) const ORIGIN_NOT_ALLOWED: Refusal = Refusal {
    why: "origin_not_allowed",
    status: "403 Forbidden",
    headers: "",
    text: "Pages of this origin may not connect to this server.\n",
};
pub(super) const PATH_NOT_SERVED: Refusal = Refusal {
    why: "path_not_served",
    status: "404 Not Found",
    headers: "",
    text: "This path is not a WebSocket endpoint.\n",
};
pub(super) const METHOD_NOT_GET: Refusal = Refusal {
    why: "method_not_get",
    status: "405 Method Not Allowed",
    headers: "Allow: GET\r\n",
    text: "This is a WebSocket endpoint: the method must be GET.\n",
};
pub(super) const NOT_AN_UPGRADE: Refusal = Refusal {
    why: "not_an_upgrade",
    status: "426 Upgrade Required",
    headers: "Upgrade: websocket\r\n",
    text: "This is a WebSocket endpoint: connect with a WebSocket client.\n",
};
pub(super) const WEBSOCKET_VERSION: Refusal = Refusal {
    why: "websocket_version",
    status: "426 Upgrade Required",
    headers: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    text: "This server supports only version 13 of the WebSocket protocol.\n",
};
/// The address has the maximum number of connections.
pub const TOO_MANY_CONNECTIONS: Refusal = Refusal {
    why: "address_connections",
    status: "429 Too Many Requests",
    headers: "Retry-After: 10\r\n",
    text: "There are too many connections from your address: close some, or try again later.\n",
};
/// The address exceeds the rate of new connections.
pub const TOO_MANY_UPGRADES: Refusal = Refusal {
    why: "address_upgrades",
    status: "429 Too Many Requests",
    headers: "Retry-After: 1\r\n",
    text: "Your address connects too often: try again later.\n",
};
pub(super) const TOO_LARGE: Refusal = Refusal {
    why: "request_too_large",
    status: "431 Request Header Fields Too Large",
    headers: "",
    text: "The request line and headers are over {limit} bytes.\n",
};
pub(super) const TOO_MANY_HEADERS: Refusal = Refusal {
    why: "too_many_headers",
    status: "431 Request Header Fields Too Large",
    headers: "",
    text: "The request has more than 124 headers.\n",
};
pub(super) const HTTP_VERSION: Refusal = Refusal {
    why: "http_version",
    status: "505 HTTP Version Not Supported",
    headers: "",
    text: "A WebSocket upgrade needs HTTP/1.1.\n",
};
