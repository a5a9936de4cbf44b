//! Webhooks: the URLs to which lifecycle events are posted, and the events.

use hyper::Uri;
use std::fmt;

/// The webhooks of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// In the order of the configuration; each once, at most [`WEBHOOKS_MAX`].
    pub urls: Vec<WebhookUrl>,
    /// Names of [`WEBHOOK_EVENTS`].
    pub events: Vec<&'static str>,
    /// How long a batch that was not delivered is retried, milliseconds.
    pub retry_ms: u64,
}

/// `http` or `https`, a host, and perhaps a port, a path and a query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebhookUrl(Uri);

impl WebhookUrl {
    /// Reads one. Not legal: other schemes, user names and passwords (they would appear in logs), fragments, and hosts that
    /// are neither a name nor an address.
    pub fn parse(text: &str) -> Option<WebhookUrl> {
        // The library cuts a fragment off silently.
        let uri: Uri = Some(text).filter(|text| !text.contains('#'))?.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_http && super::host::authority(uri.authority()?.as_str(), None).is_ok()).then_some(WebhookUrl(uri))
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

/// Events that can be posted, by their names in the stream of events. All but the last two are Pusher's, too.
pub const WEBHOOK_EVENTS: [&str; 9] = [
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
    "connected",
    "disconnected",
];
/// The largest number of webhooks. Each has a queue and a connection.
pub const WEBHOOKS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_supported_scheme_and_a_host() {
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
            "http://*.example.com/",
            "http://127.1/",
            "http://256.0.0.1/",
            "http://[fe80::1%25eth0]/",
        ] {
            assert!(WebhookUrl::parse(refused).is_none(), "{refused}");
        }
    }
}
