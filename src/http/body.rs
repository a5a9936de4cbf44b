//! Reads bodies of requests, which are bounded.

use axum::extract::Request;
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Why a body could not be read.
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
            Unread::Broken => f.write_str("the body is incomplete"),
        }
    }
}

/// Shared by the request and its connection: whether the body has yet to be read.
#[derive(Clone)]
pub struct Rest(Arc<AtomicBool>);

impl Rest {
    /// Marks the request with the state of its body, which [`read`] updates.
    pub fn of(request: &mut Request) -> Rest {
        let rest = Rest(Arc::new(AtomicBool::new(!request.body().is_end_stream())));
        request.extensions_mut().insert(rest.clone());
        rest
    }

    /// Whether the body was not read to its end.
    pub fn is_unread(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Reads the body of a request.
pub async fn read(request: Request) -> Result<Bytes, Unread> {
    let rest = request.extensions().get::<Rest>().cloned();
    let body = Limited::new(request.into_body(), BYTES_MAX).collect().await;
    if let Some(Rest(is_unread)) = rest.filter(|_| body.is_ok()) {
        is_unread.store(false, Relaxed);
    }
    body.map(Collected::to_bytes).map_err(|error| match error.is::<LengthLimitError>() {
        true => Unread::TooLarge,
        false => Unread::Broken,
    })
}

/// Most bytes of a body. `data` can more than double when it is escaped within a string.
pub const BYTES_MAX: usize = 1024 * 1024;
