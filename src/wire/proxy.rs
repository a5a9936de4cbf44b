//! The PROXY protocol, versions 1 and 2: the header in which a load balancer that forwards bytes names the client.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. The header comes first on a connection, before TLS
//! and HTTP. Connections from trusted networks must begin with one, and others must not. The server never guesses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The result of reading the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The header is incomplete.
    Partial,
    /// `len` bytes were the header.
    Whole {
        /// Bytes of the header.
        len: usize,
        /// The client that connected to the proxy. `None`: the header has no IP address. The connection is the proxy's
        /// own (a health check), or belongs to another address family, or the proxy does not know the client.
        source: Option<SocketAddr>,
    },
    /// The bytes are not a header; the fault.
    Malformed(&'static str),
}

/// Longest header in bytes. Version 1 allows 107. Version 2 allows 65 551, nearly all of them extensions, which are
/// skipped.
pub const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Reads a header at the start of `input`.
pub fn read(input: &[u8]) -> Header {
    let begins = |signature: &[u8]| {
        let len = input.len().min(signature.len());
        input[..len] == signature[..len]
    };
    if begins(V2_SIGNATURE) {
        read_v2(input).unwrap_or(Header::Partial)
    } else if begins(V1_SIGNATURE) {
        read_v1(input)
    } else {
        Header::Malformed("not a PROXY header")
    }
}

/// §2.1: `PROXY TCP4 source destination source-port destination-port` in ASCII, single spaces between.
fn read_v1(input: &[u8]) -> Header {
    let within_limit = &input[..input.len().min(V1_BYTES_MAX)];
    let Some(end) = memchr::memmem::find(within_limit, b"\r\n") else {
        return if within_limit.len() < V1_BYTES_MAX { Header::Partial } else { Header::Malformed("no line end") };
    };
    let len = end + 2;
    let mut words = input[V1_SIGNATURE.len()..end].split(|&byte| byte == b' ');
    let source = match words.next() {
        // §2.1: the rest of the line is ignored.
        Some(b"UNKNOWN") => return Header::Whole { len, source: None },
        Some(b"TCP4") => v1_addresses::<Ipv4Addr>(words),
        Some(b"TCP6") => v1_addresses::<Ipv6Addr>(words),
        _ => None,
    };
    match source {
        Some(source) => Header::Whole { len, source: Some(source) },
        None => Header::Malformed("not two addresses and two ports of one family"),
    }
}

fn v1_addresses<'a, A>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<SocketAddr>
where
    A: std::str::FromStr + Into<std::net::IpAddr>,
{
    let mut address = || std::str::from_utf8(words.next()?).ok()?.parse::<A>().ok();
    let (source, _) = (address()?, address()?);
    let mut port = || {
        let text = std::str::from_utf8(words.next()?).ok()?;
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (source_port, _) = (port()?, port()?);
    words.next().is_none().then(|| SocketAddr::new(source.into(), source_port))
}

/// §2.2: signature, version and command, family, length, addresses, extensions. `None`: incomplete.
fn read_v2(input: &[u8]) -> Option<Header> {
    let rest = &input[V2_SIGNATURE.len().min(input.len())..];
    let (&command, rest) = rest.split_first()?;
    if command != V2_LOCAL && command != V2_PROXY {
        return Some(Header::Malformed("neither LOCAL nor PROXY in version 2"));
    }
    let (&family, rest) = rest.split_first()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let body_len = usize::from(u16::from_be_bytes(*len));
    let len = V2_SIGNATURE.len() + 4 + body_len;
    if len > HEADER_BYTES_MAX {
        return Some(Header::Malformed("over 8192 bytes"));
    }
    let body = rest.get(..body_len)?;
    // LOCAL is the proxy's own connection. Its addresses are skipped, as are those of datagrams and Unix sockets.
    let source = match (command, family) {
        (V2_LOCAL, _) | (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        (_, 0x11) => match body {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                Some(SocketAddr::new([*a, *b, *c, *d].into(), u16::from_be_bytes([*high, *low])))
            }
            _ => return Some(Header::Malformed("too short for IPv4 addresses")),
        },
        (_, 0x21) => match (body.first_chunk::<16>(), body.get(32..36)) {
            (Some(source), Some(&[high, low, ..])) => {
                Some(SocketAddr::new((*source).into(), u16::from_be_bytes([high, low])))
            }
            _ => return Some(Header::Malformed("too short for IPv6 addresses")),
        },
        _ => return Some(Header::Malformed("unknown address family")),
    };
    Some(Header::Whole { len, source })
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// Longest header of version 1, including the end of its line.
const V1_BYTES_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [V2_SIGNATURE, &[command, family], &len, body].concat()
    }

    /// The header is complete, whatever follows it, and every shorter prefix is incomplete.
    #[track_caller]
    fn check(header: impl AsRef<[u8]>, source: Option<&str>) {
        let header = header.as_ref();
        let source = source.map(|source| source.parse().expect("an address"));
        for rest in [&b""[..], b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\r\n"] {
            let input = [header, rest].concat();
            assert_eq!(read(&input), Header::Whole { len: header.len(), source }, "{header:?}");
        }
        for len in 0..header.len() {
            assert_eq!(read(&header[..len]), Header::Partial, "{len} bytes of {header:?}");
        }
    }

    #[track_caller]
    fn check_malformed(input: impl AsRef<[u8]>) {
        let header = read(input.as_ref());
        assert!(matches!(header, Header::Malformed(_)), "{header:?} of {:?}", input.as_ref());
    }

    #[test]
    fn version_1_is_a_line() {
        check("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", Some("203.0.113.7:56324"));
        check("PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n", Some("[2001:db8::7]:0"));
        check("PROXY UNKNOWN\r\n", None);
        check("PROXY UNKNOWN a b, 1 2 3\r\n", None);
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(longest.len(), V1_BYTES_MAX);
        check(longest, None);
    }

    #[test]
    fn version_1_is_parsed_strictly() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "proxy UNKNOWN\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 2 3\r\n",
            "PROXY TCP4 203.0.113.7  192.0.2.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 2 \r\n",
            "PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 65536 2\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 01 2\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n\r\n",
        ] {
            check_malformed(line);
        }
        check_malformed([b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat());
        check_malformed(b"PROXY TCP4 \xff 192.0.2.1 1 2\r\n");
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = [203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 0x04, 0x01, 0xbb];
        check(v2(0x21, 0x11, &v4), Some("203.0.113.7:56324"));
        let v6 =
            [&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[9; 16], &[0, 80, 1, 187]].concat();
        check(v2(0x21, 0x21, &v6), Some("[2001:db8::7]:80"));
        // Extensions (TLVs) are skipped.
        check(v2(0x21, 0x11, &[&v4[..], &[0x04, 0, 1, 9], &[0xff; 300]].concat()), Some("203.0.113.7:56324"));
        check(v2(0x20, 0x00, b""), None);
        check(v2(0x20, 0x11, &v4), None);
        check(v2(0x20, 0xee, b"anything"), None);
        check(v2(0x21, 0x00, b"unspecified"), None);
        for others in [0x12, 0x22, 0x31, 0x32] {
            check(v2(0x21, others, &[1; 216]), None);
        }
        check(v2(0x21, 0x00, &[0; HEADER_BYTES_MAX - 16]), None);
    }

    #[test]
    fn version_2_is_parsed_strictly() {
        check_malformed(v2(0x11, 0x11, &[0; 12]));
        check_malformed(v2(0x22, 0x11, &[0; 12]));
        check_malformed(v2(0x21, 0x10, &[0; 12]));
        check_malformed(v2(0x21, 0x41, &[0; 216]));
        check_malformed(v2(0x21, 0x11, &[0; 11]));
        check_malformed(v2(0x21, 0x21, &[0; 35]));
        check_malformed(b"\r\n\r\nGET / HTTP/1.1\r\n");
        // Refused because of its declared length, before the body arrives.
        check_malformed(&v2(0x21, 0x00, &[0; HEADER_BYTES_MAX - 15])[..16]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_once(
            noise in prop::collection::vec(any::<u8>(), 0..300),
            begins in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", V2_SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
        ) {
            let input = [begins, &noise].concat();
            match read(&input) {
                Header::Whole { len, .. } => {
                    prop_assert!(len <= input.len());
                    prop_assert_eq!(read(&input[..len]), read(&input));
                    prop_assert_eq!(read(&input[..len - 1]), Header::Partial);
                }
                Header::Partial => prop_assert!(input.len() < HEADER_BYTES_MAX),
                // More bytes do not make it valid.
                Header::Malformed(_) => {
                    let longer = [&input[..], b"\r\n"].concat();
                    prop_assert!(matches!(read(&longer), Header::Malformed(_)));
                }
            }
        }

        #[test]
        fn headers_of_a_proxy_are_read(source: SocketAddr, ours: SocketAddr) {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = match (source, ours) {
                (SocketAddr::V6(from), to) if to.is_ipv4() => (SocketAddr::V6(from), "[2001:db8::1]:443".parse().unwrap()),
                (from, to) if to.is_ipv6() && from.is_ipv4() => (from, "192.0.2.1:443".parse().unwrap()),
                both => both,
            };
            let line = format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
            let expected = SocketAddr::new(from.ip(), from.port());
            prop_assert_eq!(read(line.as_bytes()), Header::Whole { len: line.len(), source: Some(expected) });
        }
    }
}
