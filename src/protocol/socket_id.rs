//! Socket ids: the public id of a connection, a UUID with a second spelling as two decimal numbers.

use std::fmt;

/// 128 bits: printed as a UUID, or as its two 64-bit halves in decimal joined by a dot (PROTOCOL.md, Authorization).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// First 64 bits.
    pub high: u64,
    /// Last 64 bits.
    pub low: u64,
}

impl SocketId {
    /// Reads either spelling, as [`SocketId`] and [`SocketId::dotted`] print them. Hexadecimal digits may have either
    /// case.
    pub fn parse(text: &str) -> Option<SocketId> {
        match text.split_once('.') {
            Some((high, low)) => Some(SocketId { high: decimal(high)?, low: decimal(low)? }),
            None => uuid(text.as_bytes()),
        }
    }

    /// The second spelling, `digits.digits`.
    pub fn dotted(self) -> Dotted {
        Dotted(self)
    }

    /// The UUID spelling, lower case, without allocation.
    pub fn uuid(self) -> [u8; UUID_BYTES] {
        let bits = u128::from(self.high) << 64 | u128::from(self.low);
        let mut digits = (0..32).rev().map(|digit| HEX[(bits >> (4 * digit)) as usize & 15]);
        std::array::from_fn(|at| if HYPHENS.contains(&at) { b'-' } else { digits.next().unwrap_or(b'-') })
    }
}

/// The UUID spelling, lower case.
impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.uuid()).map_err(|_| fmt::Error)?)
    }
}

/// Prints the second spelling of a [`SocketId`].
#[derive(Clone, Copy, Debug)]
pub struct Dotted(SocketId);

impl fmt::Display for Dotted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.high, self.0.low)
    }
}

/// Reads digits without leading zeros, so that a number has only one spelling.
fn decimal(text: &str) -> Option<u64> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_canonical { text.parse().ok() } else { None }
}

fn uuid(text: &[u8]) -> Option<SocketId> {
    if text.len() != UUID_BYTES {
        return None;
    }
    let mut bits = 0u128;
    for (at, &byte) in text.iter().enumerate() {
        if HYPHENS.contains(&at) {
            if byte != b'-' {
                return None;
            }
        } else {
            bits = bits << 4 | u128::from(char::from(byte).to_digit(16)?);
        }
    }
    Some(SocketId { high: (bits >> 64) as u64, low: bits as u64 })
}

/// Length of the UUID spelling.
pub const UUID_BYTES: usize = 36;

const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(u64, u64)>) {
        assert_eq!(SocketId::parse(text).map(|id| (id.high, id.low)), expected, "{text:?}");
    }

    #[test]
    fn both_spellings_are_read() {
        let halves = Some((0x1ba1_b6cb_0127_48f8, 0xb5a5_9fd7_9a7c_68a6));
        check("1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6", halves);
        check("1BA1B6CB-0127-48f8-B5A5-9FD79A7C68A6", halves);
        check("1991073493288438008.13089043640380844198", halves);
        check("1234.1234", Some((1234, 1234)));
        check("0.0", Some((0, 0)));
        check("18446744073709551615.18446744073709551615", Some((u64::MAX, u64::MAX)));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "", ".", "1.", ".1", "1", "1.2.3", "01.1", "1.00", "+1.1", "1.-1", " 1.1", "1.1 ", "1e1.1", "１.1", "0x1.1",
        ] {
            check(text, None);
        }
        check("18446744073709551616.1", None);
        for text in [
            "1ba1b6cb012748f8b5a59fd79a7c68a6",
            "{1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6}",
            "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a",
            "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6 ",
            "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68ag",
            "1ba1b6cb-0127-48f8-b5a59-fd79a7c68a6",
            "1ba1b6cb+0127-48f8-b5a5-9fd79a7c68a6",
            "+ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6",
            "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68é",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn printed_ids_are_read_back(high: u64, low: u64, shift in 0u32..64) {
            let id = SocketId { high: high >> shift, low: low >> (63 - shift) };
            let uuid = id.to_string();
            prop_assert_eq!(SocketId::parse(&uuid), Some(id));
            prop_assert_eq!(SocketId::parse(&id.dotted().to_string()), Some(id));
            prop_assert_eq!(uuid.replace('-', ""), format!("{:016x}{:016x}", id.high, id.low));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}|[0-9a-f.-]{30,40}") {
            if let Some(id) = SocketId::parse(&text) {
                prop_assert!(id.to_string() == text.to_lowercase() || id.dotted().to_string() == text);
            }
        }
    }
}
