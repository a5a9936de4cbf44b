//! Which upgrade requests are served, and which proxies are trusted.

use super::Config;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

/// What an upgrade request must satisfy, and the networks of trusted proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Request paths of [`Endpoint::Channels`]; empty: every path but the echo path.
    pub paths: Vec<String>,
    /// Request path whose messages are echoed.
    pub echo_path: Option<String>,
    /// Whether `/app/{key}` behind each served path is for Pusher's clients.
    pub pusher: bool,
    /// Origins that a browser may connect from; empty: all.
    pub origins: Vec<Origin>,
    /// Networks of proxies whose client addresses are trusted. No limit of addresses applies to them.
    pub trusted: Vec<IpNet>,
    /// Whether connections from trusted networks begin with a PROXY header.
    pub has_proxy_header: bool,
    /// Bytes of an upgrade request.
    pub request_bytes_max: usize,
}

/// The defaults of [`super::OPTIONS`].
impl Default for Access {
    fn default() -> Access {
        Config::of_defaults().live.access
    }
}

impl Access {
    /// The endpoint at this request path; `None`: it is not served.
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        if self.echo_path.as_deref() == Some(path) {
            return Some(Endpoint::Echo);
        }
        if self.paths.iter().any(|served| served == path) {
            return Some(Endpoint::Channels);
        }
        if self.pusher && self.pusher_path(path).is_some() {
            return Some(Endpoint::Pusher);
        }
        self.paths.is_empty().then_some(Endpoint::Channels)
    }

    /// The path of a Pusher client behind the prefix, well formed or not; `None`: the path is not that of a Pusher client.
    /// Without [`Access::paths`], `/app/{key}` may follow any prefix, and at most one more segment may follow it.
    pub fn pusher_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.paths.is_empty() {
            let last_two = path.rmatch_indices('/').nth(1).map(|(at, _)| &path[at..]);
            let is_of_pusher = path.rsplit('/').take(3).any(|segment| segment == "app");
            return last_two.filter(|path| path.starts_with("/app/")).or(is_of_pusher.then_some(path));
        }
        let behind = |served: &String| path.strip_prefix(served.trim_end_matches('/'));
        let is_of_pusher =
            |path: &&str| path.strip_prefix("/app").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.paths.iter().filter_map(behind).find(is_of_pusher)
    }

    /// The path behind the prefix, and the query, of the request of a Pusher client.
    pub fn pusher_target<'a>(&self, target: &'a str) -> &'a str {
        let path = target.split('?').next().unwrap_or_default();
        let prefix_len = self.pusher_path(path).map_or(0, |behind| path.len() - behind.len());
        &target[prefix_len..]
    }

    /// Whether a browser may connect from a page of this origin.
    pub fn admits(&self, origin: &[u8]) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|admitted| admitted.matches(origin))
    }

    /// Whether this address is a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// What a request path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Publish/subscribe, in the native dialect.
    Channels,
    /// Publish/subscribe, in Pusher's dialect.
    Pusher,
    /// Messages are echoed.
    Echo,
}

/// The origin of a page (RFC 6454 §6.2): `https://example.com`, or every name below a host: `https://*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Up to the host, or to the `*`.
    start: String,
    /// After the `*`.
    end: Option<String>,
}

impl Origin {
    /// Reads `scheme://host`, `scheme://host:port`, either with `*.` before the host, or `file://`, and brings it into the
    /// spelling of browsers. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Origin, &'static str> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://").ok_or("the scheme, such as https://, is missing")?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return Err("the scheme is not letters, digits, +, - and .");
        }
        let is_web = matches!(scheme, "http" | "https");
        let default_port = match scheme {
            "ws" | "wss" => return Err("an origin is that of a page: http:// or https://"),
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let start = format!("{scheme}://");
        if let Some(host) = authority.strip_prefix("*.") {
            let host = super::host::authority(host, default_port)?;
            if host.starts_with('[') || host.split(':').next().is_some_and(|host| host.parse::<Ipv4Addr>().is_ok()) {
                return Err("an IP address cannot have subdomains");
            }
            return Ok(Origin { start, end: Some(format!(".{host}")) });
        }
        // Pages from files (Cordova, Electron) have no host; those of an application's own scheme may have any.
        let is_bare = !is_web && (authority == "." || scheme == "file" && authority.is_empty());
        let host = if is_bare { authority.to_owned() } else { super::host::authority(authority, default_port)? };
        Ok(Origin { start: start + &host, end: None })
    }

    /// Whether an `Origin` header names this origin.
    pub fn matches(&self, header: &[u8]) -> bool {
        let header = header.to_ascii_lowercase();
        match &self.end {
            None => header == self.start.as_bytes(),
            Some(end) => {
                let rest = header.strip_prefix(self.start.as_bytes());
                let below = rest.and_then(|rest| rest.strip_suffix(end.as_bytes()));
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                below.is_some_and(|below| !below.is_empty() && below.iter().all(|&byte| is_name(byte)))
            }
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Origin { start, end } = self;
        match end {
            Some(end) => write!(f, "{start}*{end}"),
            None => f.write_str(start),
        }
    }
}

/// Reads a network in CIDR notation, or one address. IPv4 addresses that are written as IPv6 become IPv4, because that is
/// how addresses are compared.
pub fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped(),
        IpNet::V4(_) => None,
    };
    match mapped {
        // A prefix below 96 means more than the IPv4 addresses, as which mapped ones are looked up.
        Some(address) => Some(Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok()?.trunc().into()),
        None => Some(network.trunc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(allowed: &str, origin: &str, expected: bool) {
        let allowed = Origin::parse(allowed).expect("an origin");
        assert_eq!(allowed.matches(origin.as_bytes()), expected, "{allowed} and {origin}");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        check("https://example.com", "https://example.com", true);
        check("https://example.com", "HTTPS://Example.com", true);
        check("https://Example.com:443", "https://example.com", true);
        check("http://example.com:80", "http://example.com", true);
        check("http://[::1]:8080", "http://[::1]:8080", true);
        check("https://example.com:0443", "https://example.com", true);
        check("https://example.com:08443", "https://example.com:8443", true);
        check("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080", true);
        check("http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]", true);
        check("capacitor://localhost", "capacitor://localhost", true);
        check("file://", "file://", true);
        check("app://.", "app://.", true);
        check("file://", "https://example.com", false);
        check("file://", "null", false);
        check("https://example.com", "http://example.com", false);
        check("https://example.com", "https://example.com:8443", false);
        check("https://example.com", "https://www.example.com", false);
        check("https://example.com", "https://example.com.evil.net", false);
        check("https://example.com", "null", false);
        check("https://example.com", "", false);
    }

    #[test]
    fn a_star_stands_for_names_below() {
        check("https://*.example.com", "https://a.example.com", true);
        check("https://*.example.com", "https://a.b.example.com", true);
        check("https://*.example.com:443", "https://a.example.com", true);
        check("https://*.example.com:8443", "https://a.example.com:8443", true);
        check("https://*.example.com", "https://example.com", false);
        check("https://*.example.com", "https://.example.com", false);
        check("https://*.example.com", "https://evilexample.com", false);
        check("https://*.example.com", "https://a.example.com:8443", false);
        check("https://*.example.com", "http://a.example.com", false);
        check("https://*.example.com", "https://evil.net/.example.com", false);
        check("https://*.example.com", "https://evil.net:1.example.com", false);
        check("https://*.example.com", "https://u@a.example.com", false);
    }

    #[test]
    fn origins_that_no_browser_sends_are_refused() {
        for text in [
            "",
            "*",
            "null",
            "example.com",
            "https://",
            "file:///",
            "://example.com",
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://*.192.0.2.7",
            "https://*.[::1]",
            "https://.",
            "https://example.com/",
            "https://example.com/app",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:",
            "https://u@example.com",
            "https://exa mple.com",
            "https://exämple.com",
            "https://:443",
            "http://127.1",
            "http://::1",
            "ws://example.com",
            "wss://example.com",
        ] {
            assert!(Origin::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn networks_hold_addresses_in_either_spelling() {
        let trusted =
            ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"].map(|text| network(text).expect("a network")).to_vec();
        let access = Access { trusted, ..Access::default() };
        let check = |address: &str, expected| {
            assert_eq!(access.trusts(address.parse().expect("an address")), expected, "{address}");
        };
        check("10.255.0.1", true);
        check("::ffff:10.255.0.1", true);
        check("11.0.0.1", false);
        check("192.0.2.7", true);
        check("192.0.2.8", false);
        check("2001:db8:ffff::1", true);
        check("2001:db9::1", false);
        assert!(network("10.0.0.1/8").is_some_and(|it| it.to_string() == "10.0.0.0/8"));
        for (text, canonical) in
            [("::ffff:192.0.2.7", "192.0.2.7/32"), ("::ffff:10.0.0.1/104", "10.0.0.0/8"), ("::/0", "::/0")]
        {
            assert!(network(text).is_some_and(|it| it.to_string() == canonical), "{text}");
        }
        for text in
            ["", "fe80::1%2", "[::1]", "127.0.0.1:1", "10.0.0.0/33", "10.0.0/8", "localhost", "::ffff:10.0.0.0/90"]
        {
            assert_eq!(network(text), None, "{text}");
        }
    }
}
