//! Bodies of requests: whole, and no longer than they may be.

use axum::extract::Request;
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use hyper::body::Bytes;
use std::fmt;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Over [`BYTES_MAX`].
    TooLarge,
    /// The client did not send all of it.
    Broken,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::TooLarge => write!(f, "a body holds at most {BYTES_MAX} bytes"),
            Unread::Broken => f.write_str("the body did not come whole"),
        }
    }
}

/// Reads it.
pub async fn read(request: Request) -> Result<Bytes, Unread> {
    let body = Limited::new(request.into_body(), BYTES_MAX).collect().await;
    body.map(Collected::to_bytes).map_err(|error| match error.is::<LengthLimitError>() {
        true => Unread::TooLarge,
        false => Unread::Broken,
    })
}

/// Bytes of a body. Escaped within a string, `data` can take more than twice what it is.
pub const BYTES_MAX: usize = 1024 * 1024;
