//! A request to a URL of the backend, and what became of it.

use crate::config::WebhookUrl;
use hyper::StatusCode;
use hyper::body::Bytes;
use std::fmt;

/// Sends requests to their URLs.
pub trait Post: Clone + Send + Sync + 'static {
    /// Ends when the URL has accepted the request, or with the reason why not, in bounded time.
    fn post(&self, request: Signed) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A signed request: its receiver can check that this server sent it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Where it goes.
    pub url: WebhookUrl,
    /// ID of the key.
    pub key: String,
    /// HMAC-SHA256 of the body by the key's secret, in hex.
    pub signature: String,
    /// JSON.
    pub body: Bytes,
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer other than 200 to 299. Redirects are not followed: their targets are not configured.
    Status(StatusCode),
    /// No answer in time.
    Timeout,
    /// No connection, a connection that broke before the answer, or an answer that is not HTTP.
    Connection(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(status) => write!(f, "answered with {status}"),
            Failure::Timeout => f.write_str("no answer in time"),
            Failure::Connection(why) => f.write_str(why),
        }
    }
}
