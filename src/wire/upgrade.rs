//! The HTTP upgrade, by tungstenite's handshake pieces.

/// What became of the bytes received so far.
#[derive(Debug)]
pub enum Upgrade {
    /// The request is not whole yet.
    Partial,
    /// Accepted: `request_len` bytes were the request, the rest belongs to the first frames.
    Accepted {
        /// Bytes of the request.
        request_len: usize,
    },
    /// Refused: the response written to `out` is to be sent, then the connection closed.
    Refused {
        /// Metric label and log text.
        why: &'static str,
    },
}

/// Bytes of the request line and headers beyond which a request is refused with 431.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Reads an upgrade request from `input` (everything received so far) and appends the whole HTTP response to `out`.
/// `paths`: the request paths served, without query; empty means all.
pub fn upgrade(input: &[u8], paths: &[String], out: &mut Vec<u8>) -> Upgrade {
    let _ = (input, paths, out);
    Upgrade::Partial
}
