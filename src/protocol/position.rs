//! Positions in channels with a history.

/// A place in the log of a channel with history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the log. Written as 16 hexadecimal digits.
    pub epoch: u64,
    /// At most [`OFFSET_MAX`].
    pub offset: u64,
}

/// Largest offset: 2^53 - 1, the largest integer that JavaScript counts to exactly.
pub const OFFSET_MAX: u64 = (1 << 53) - 1;
