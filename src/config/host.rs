//! Hosts of URLs and origins, in the one spelling that clients use for each (WHATWG URL, "host parsing").

use std::net::{Ipv4Addr, Ipv6Addr};

/// `host`, or `host:port` with a port from 1 to 65535, in lower case: an IPv6 address in its shortest form, and without the
/// default port of its scheme. The error says what is wrong.
pub(super) fn authority(text: &str, default_port: Option<u16>) -> Result<String, &'static str> {
    let text = text.to_ascii_lowercase();
    let end = text.find(']').map_or(0, |bracket| bracket + 1);
    let (name, port) = match text[end..].split_once(':') {
        Some((rest, port)) => (&text[..end + rest.len()], Some(port)),
        None => (&*text, None),
    };
    let host = host(name)?;
    let Some(port) = port else {
        return Ok(host);
    };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port =
        port.parse().ok().filter(|port| is_number && *port > 0).ok_or("the port is not a number from 1 to 65535")?;
    Ok(if default_port == Some(port) { host } else { format!("{host}:{port}") })
}

fn host(name: &str) -> Result<String, &'static str> {
    if let Some(address) = name.strip_prefix('[') {
        let address: Option<Ipv6Addr> = address.strip_suffix(']').and_then(|address| address.parse().ok());
        return Ok(match address.ok_or("it is not an IPv6 address without a zone")? {
            // Rust writes these with a dotted end, clients do not.
            mapped if mapped.to_ipv4_mapped().is_some() => {
                let [.., high, low] = mapped.segments();
                format!("[::ffff:{high:x}:{low:x}]")
            }
            address => format!("[{address}]"),
        });
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_name) {
        return Err("the host is not a name or an IP address, in ASCII");
    }
    // Clients treat a host with a number as its last part as an IPv4 address, and normalize it.
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_address = hex || !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    if is_address && name.parse::<Ipv4Addr>().is_err() {
        return Err("the host is not an IPv4 address of four decimal numbers");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        let check =
            |text: &str, expected: &str| assert_eq!(authority(text, Some(443)).as_deref(), Ok(expected), "{text}");
        check("Example.com", "example.com");
        check("example.com:443", "example.com");
        check("example.com:0443", "example.com");
        check("example.com:08443", "example.com:8443");
        check("example.com.", "example.com.");
        check("192.0.2.7:80", "192.0.2.7:80");
        check("[2001:DB8:0:0:0:0:0:1]:8443", "[2001:db8::1]:8443");
        check("[::ffff:192.0.2.7]", "[::ffff:c000:207]");
        check("a_b.example.com", "a_b.example.com");
    }

    #[test]
    fn hosts_that_no_client_sends_are_refused() {
        for refused in [
            "",
            ".",
            ".example.com",
            "*",
            "*.example.com",
            "exämple.com",
            "a b",
            "a,b",
            "u@example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:x",
            "example.com:+1",
            "a:1:2",
            ":443",
            "::1",
            "[::1",
            "[]",
            "[fe80::1%2]",
            "[fe80::1%25eth0]",
            "[::1]x",
            "127.1",
            "010.0.0.1",
            "256.0.0.1",
            "1.2.3.4.5",
            "0x7f.1",
            "127.0.0.0x1",
        ] {
            assert!(authority(refused, None).is_err(), "{refused}");
        }
    }
}
