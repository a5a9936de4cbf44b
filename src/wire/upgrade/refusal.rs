//! Refusals of upgrade requests: HTTP responses.

use super::without_empty_lines;
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
        if !without_empty_lines(request).starts_with(b"HEAD ") {
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Index in [`REFUSALS`], for counters.
    pub fn kind(&self) -> usize {
        REFUSALS.iter().position(|refusal| refusal.why == self.why).unwrap_or_default()
    }
}

/// Declares the refusals: name, [`Refusal::why`], status, further header lines, and the text of the body.
macro_rules! refusals {
    ($($(#[$about:meta])* $visible:vis $name:ident: $why:literal, $status:literal, $headers:literal, $text:literal;)*) => {
        $(
            $(#[$about])*
            $visible const $name: Refusal =
                Refusal { why: $why, status: $status, headers: $headers, text: concat!($text, "\n") };
        )*

        /// All refusals.
        pub const REFUSALS: [&Refusal; [$($why),*].len()] = [$(&$name),*];
    };
}

refusals! {
    pub(super) MALFORMED: "malformed_request", "400 Bad Request", "",
        "This is not an HTTP/1.1 request. For TLS, connect through the proxy that terminates it.";
    pub(super) BODY: "request_body", "400 Bad Request", "",
        "A WebSocket upgrade request has no body.";
    pub(super) BAD_HOST: "bad_host", "400 Bad Request", "",
        "A request needs exactly one Host header, with a host and perhaps a port.";
    pub(super) BAD_KEY: "bad_key", "400 Bad Request", "",
        "A WebSocket upgrade needs one Sec-WebSocket-Key: 16 bytes in base64.";
    pub(super) ORIGIN_NOT_ALLOWED: "origin_not_allowed", "403 Forbidden", "",
        "Pages of this origin may not connect to this server.";
    pub(super) PATH_NOT_SERVED: "path_not_served", "404 Not Found", "",
        "This path is not a WebSocket endpoint.";
    pub(super) METHOD_NOT_GET: "method_not_get", "405 Method Not Allowed", "Allow: GET\r\n",
        "This is a WebSocket endpoint: the method must be GET.";
    pub(super) NOT_AN_UPGRADE: "not_an_upgrade", "426 Upgrade Required", "Upgrade: websocket\r\n",
        "This is a WebSocket endpoint: connect with a WebSocket client.";
    pub(super) WEBSOCKET_VERSION: "websocket_version", "426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "This server supports only version 13 of the WebSocket protocol.";
    /// The address has the maximum number of connections.
    pub TOO_MANY_CONNECTIONS: "address_connections", "429 Too Many Requests", "Retry-After: 10\r\n",
        "There are too many connections from your address: close some, or try again later.";
    /// The address exceeds the rate of new connections.
    pub TOO_MANY_UPGRADES: "address_upgrades", "429 Too Many Requests", "Retry-After: 1\r\n",
        "Your address connects too often: try again later.";
    pub(super) TOO_LARGE: "request_too_large", "431 Request Header Fields Too Large", "",
        "The request line and headers are over {limit} bytes.";
    pub(super) TOO_MANY_HEADERS: "too_many_headers", "431 Request Header Fields Too Large", "",
        "The request has more than 124 headers.";
    pub(super) HTTP_VERSION: "http_version", "505 HTTP Version Not Supported", "",
        "A WebSocket upgrade needs HTTP/1.1.";
}
