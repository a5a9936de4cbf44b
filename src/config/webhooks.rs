//! Where lifecycle events are posted, and which.

use hyper::Uri;
use std::fmt;

/// The webhooks of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// Who is told, in the order of the configuration; each once, at most [`WEBHOOKS_MAX`].
    pub urls: Vec<WebhookUrl>,
    /// Of what: names of [`WEBHOOK_EVENTS`].
    pub events: Vec<&'static str>,
    /// How long a batch that its URL does not take is offered again, milliseconds.
    pub retry_ms: u64,
}

/// `http` or `https`, a host, and perhaps a port, a path and a query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebhookUrl(Uri);

impl WebhookUrl {
    /// Reads one. Not legal: other schemes, user names and passwords (they would stand in logs), fragments.
    pub fn parse(text: &str) -> Option<WebhookUrl> {
        // A fragment is cut off without a word.
        let uri: Uri = Some(text).filter(|text| !text.contains('#'))?.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?;
        // `host:` is legal there, and so is a port of 99999, which is then not seen.
        let has_legal_port = match authority.as_str().strip_prefix(authority.host())? {
            "" => true,
            port => port.strip_prefix(':').is_some_and(|port| matches!(port.parse::<u16>(), Ok(1..))),
        };
        (is_http && !authority.host().is_empty() && has_legal_port).then_some(WebhookUrl(uri))
    }

    /// For the client.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What can be told: by the names that the stream of events has for it, the first two of which are Pusher's too.
pub const WEBHOOK_EVENTS: [&str; 4] = ["channel_occupied", "channel_vacated", "connected", "disconnected"];
/// Each has a queue and a connection.
pub const WEBHOOKS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_scheme_that_is_spoken_and_a_host() {
        for legal in [
            "http://127.0.0.1:8080/hooks",
            "https://example.com",
            "https://example.com/",
            "http://[::1]:1/a/b?c=d",
            "HTTPS://Example.com/x",
        ] {
            assert!(WebhookUrl::parse(legal).is_some(), "{legal}");
        }
        for refused in [
            "",
            "example.com",
            "/hooks",
            "ftp://example.com/",
            "ws://example.com/",
            "http://",
            "http:///hooks",
            "http://user:secret@example.com/",
            "http://user@example.com/",
            "http://example.com/#part",
            "http://example.com:/",
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://example.com:x/",
            "http://exa mple.com/",
            "http://exämple.com/",
        ] {
            assert!(WebhookUrl::parse(refused).is_none(), "{refused}");
        }
    }
}
