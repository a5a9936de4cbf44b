//! Who may connect, and who is believed about where a connection comes from.

use ipnet::IpNet;
use std::net::IpAddr;

/// What an upgrade request has to satisfy, and the networks whose word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Request paths of [`Endpoint::Channels`]; empty: every path that leads nowhere else.
    pub paths: Vec<String>,
    /// Request path whose connections get back what they send.
    pub echo_path: Option<String>,
    /// Origins that a browser may connect from; empty: all.
    pub origins: Vec<Origin>,
    /// Networks of proxies that are believed, and held to no limit of addresses themselves.
    pub trusted: Vec<IpNet>,
    /// Whether connections from trusted networks begin with a PROXY header.
    pub has_proxy_header: bool,
    /// Bytes of an upgrade request.
    pub request_bytes_max: usize,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            paths: Vec::new(),
            echo_path: None,
            origins: Vec::new(),
            trusted: Vec::new(),
            has_proxy_header: false,
            request_bytes_max: 8 * 1024,
        }
    }
}

impl Access {
    /// Where this request path leads; `None`: nowhere.
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        if self.echo_path.as_deref() == Some(path) {
            return Some(Endpoint::Echo);
        }
        let is_served = self.paths.is_empty() || self.paths.iter().any(|served| served == path);
        is_served.then_some(Endpoint::Channels)
    }

    /// Whether a browser may connect from a page of this origin.
    pub fn admits(&self, origin: &[u8]) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|admitted| admitted.matches(origin))
    }

    /// Whether what this address says about others is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// What is behind a request path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Publish/subscribe.
    Channels,
    /// Every message comes back.
    Echo,
}

/// Where a page came from (RFC 6454 §6.2): `https://example.com`, or every name below one: `https://*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Up to the host, or to the `*`.
    start: String,
    /// Behind the `*`.
    end: Option<String>,
}

impl Origin {
    /// Reads `scheme://host`, `scheme://host:port`, or either with `*.` before the host. A port that goes without saying is
    /// left out, because browsers leave it out.
    pub fn parse(text: &str) -> Option<Origin> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let host = authority.strip_prefix("*.").unwrap_or(authority);
        let default_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => ":",
        };
        let host = host.strip_suffix(default_port).unwrap_or(host);
        let is_host = !host.is_empty()
            && !host.starts_with([':', '.'])
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
        if !is_scheme || !is_host {
            return None;
        }
        Some(match authority.starts_with("*.") {
            true => Origin { start: format!("{scheme}://"), end: Some(format!(".{host}")) },
            false => Origin { start: format!("{scheme}://{host}"), end: None },
        })
    }

    /// Whether an `Origin` header says this origin.
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

/// Reads a network in CIDR notation, or one address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    Some(IpNet::trunc(&network))
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
        check("capacitor://localhost", "capacitor://localhost", true);
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
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "*",
            "null",
            "example.com",
            "https://",
            "://example.com",
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://example.com/",
            "https://example.com/app",
            "https://u@example.com",
            "https://exa mple.com",
            "https://:443",
        ] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
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
        for text in ["", "10.0.0.0/33", "10.0.0/8", "localhost"] {
            assert_eq!(network(text), None, "{text}");
        }
    }
}
