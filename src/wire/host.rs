//! The `Host` header, RFC 9112 §3.2.

use std::net::Ipv6Addr;

/// Whether a value is valid: a host, and perhaps a port (RFC 3986 §3.2). The host may be empty.
pub fn is_valid(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let (is_host, rest) = match text.strip_prefix('[') {
        Some(text) => match text.split_once(']') {
            Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
            None => return false,
        },
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (is_registered_name(&text[..end]), &text[end..])
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    is_host && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// `*( unreserved / pct-encoded / sub-delims )`, which includes IPv4 addresses.
fn is_registered_name(name: &str) -> bool {
    let mut parts = name.split('%');
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte));
    let begins_with_two_digits =
        |text: &str| text.as_bytes().first_chunk::<2>().is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
    parts.next().is_some_and(is_plain) && parts.all(|part| begins_with_two_digits(part) && is_plain(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for valid in [
            "",
            "a",
            "example.com",
            "example.com:",
            "example.com:8080",
            "127.0.0.1:9000",
            "[::1]",
            "[2001:db8::7]:443",
            "xn--bcher-kva.example",
            "a_b",
            "a%20b",
            "UPPER",
        ] {
            assert!(is_valid(valid.as_bytes()), "{valid:?}");
        }
        for invalid in [
            "a b",
            " a",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "user@a:80",
            "a:b",
            "a:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[a]",
            "[]",
            "a%2",
            "a%zzb",
            "a\\b",
            "a\"b",
            "é",
            "a\u{7f}",
        ] {
            assert!(!is_valid(invalid.as_bytes()), "{invalid:?}");
        }
        assert!(!is_valid(b"\xff"));
    }
}
