//! Positions in channels with a history.

/// A place in the log of a channel with history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the log. Written as 16 hexadecimal digits.
    pub epoch: u64,
    /// At most [`OFFSET_MAX`].
    pub offset: u64,
}

/// Reads an epoch as the server writes it: 16 hexadecimal digits in lower case. To clients an epoch is opaque, so another
/// spelling is another epoch.
pub fn read_epoch(text: &str) -> Option<u64> {
    let is_epoch = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_epoch { u64::from_str_radix(text, 16).ok() } else { None }
}

/// Largest offset: 2^53 - 1, the largest integer that JavaScript counts to exactly.
pub const OFFSET_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_sixteen_hexadecimal_digits_in_lower_case() {
        assert_eq!(read_epoch("00000000000000ff"), Some(255));
        assert_eq!(read_epoch("ffffffffffffffff"), Some(u64::MAX));
        for other in ["", "ff", "00000000000000Ff", "+0000000000000ff", "00000000000000fg", "000000000000000ff", "é"] {
            assert_eq!(read_epoch(other), None, "{other}");
        }
    }
}
