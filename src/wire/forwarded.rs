//! `X-Forwarded-For`: the header in which an HTTP proxy names the client of a request.
//!
//! Every proxy appends the address that connected to it, but clients may send the header too. So it is read from the
//! right, and only as far as each hop is trusted. A peer that is not trusted may have written anything further left.

use memchr::memchr;
use std::net::{IpAddr, SocketAddr};

/// The address that a request came from: the right-most untrusted one, or the left-most one if all are trusted. `None`:
/// the header is missing, or the entry is not an address. `values` are the values of all such headers, in order of
/// arrival. The port is 0 if the entry has none.
pub fn client<'a>(
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let mut client = None;
    for entry in values.rev().flat_map(|value| value.rsplit(|&byte| byte == b',')) {
        let address = address(entry.trim_ascii())?;
        client = Some(address);
        if !is_trusted(address.ip()) {
            break;
        }
    }
    client
}

/// As [`client`], for the head of a request, which need not be valid. Its lines are those that an HTTP parser finds.
pub fn client_of_head(head: &[u8], is_trusted: impl Fn(IpAddr) -> bool) -> Option<SocketAddr> {
    let lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let values = lines.skip(1).take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_at(memchr(b':', line)?);
        name.eq_ignore_ascii_case(b"x-forwarded-for").then_some(&value[1..])
    });
    client(values.collect::<Vec<_>>().into_iter(), is_trusted)
}

/// Reads an address as proxies write it: bare or in brackets, with or without a port.
fn address(entry: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Option<&str>) {
        // 10.0.0.0/8 and fd00::/16 are trusted.
        let is_trusted = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 10,
            IpAddr::V6(ip) => ip.segments()[0] == 0xfd00,
        };
        let found = client(headers.iter().map(|header| header.as_bytes()), is_trusted);
        assert_eq!(found, expected.map(|address| address.parse().expect("an address")), "{headers:?}");
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_counts() {
        check(&["203.0.113.7"], Some("203.0.113.7:0"));
        check(&["198.51.100.1, 203.0.113.7"], Some("203.0.113.7:0"));
        check(&["198.51.100.1,203.0.113.7 , 10.0.0.2,\t10.0.0.3"], Some("203.0.113.7:0"));
        check(&["198.51.100.1", "203.0.113.7", "10.0.0.2"], Some("203.0.113.7:0"));
        check(&["10.0.0.9", "10.0.0.2"], Some("10.0.0.9:0"));
        check(&["2001:db8::7, fd00::1"], Some("[2001:db8::7]:0"));
        check(&["::ffff:203.0.113.7"], Some("203.0.113.7:0"));
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        check(&["203.0.113.7:5000"], Some("203.0.113.7:5000"));
        check(&["[2001:db8::7]"], Some("[2001:db8::7]:0"));
        check(&["[2001:db8::7]:5000"], Some("[2001:db8::7]:5000"));
    }

    #[test]
    fn an_entry_that_is_not_an_address_names_no_client() {
        check(&[], None);
        for garbage in
            ["", " ", "unknown", "_hidden", "203.0.113", "203.0.113.7:x", "[203.0.113.7", "a.example.com", "\u{e9}"]
        {
            check(&[garbage], None);
            check(&[&format!("203.0.113.7, {garbage}")], None);
            check(&[&format!("203.0.113.7, {garbage}, 10.0.0.1")], None);
            // Left of an address that is not trusted.
            check(&[&format!("{garbage}, 203.0.113.7")], Some("203.0.113.7:0"));
        }
    }
}
