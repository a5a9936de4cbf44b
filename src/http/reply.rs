//! Replies of the console and of `POST /publish`: JSON that no cache keeps. A refusal has a code for programs and a text for
//! people.

use super::JSON;
use super::body::Unread;
use super::shards::Unavailable;
use crate::api::Refusal;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::borrow::Cow;

/// Why a request is refused.
#[derive(Debug)]
pub struct Refused {
    /// The status of the response.
    pub status: StatusCode,
    /// The code, for programs.
    pub code: &'static str,
    /// The text, for people.
    pub error: Cow<'static, str>,
}

impl Refused {
    /// A refusal with this status and code.
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<Cow<'static, str>>) -> Refused {
        Refused { status, code, error: error.into() }
    }

    /// A refusal of a request that cannot be read.
    pub fn malformed(why: impl Into<Cow<'static, str>>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, "malformed_request", why)
    }
}

impl From<Unread> for Refused {
    fn from(unread: Unread) -> Refused {
        match unread {
            Unread::TooLarge => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", unread.to_string()),
            Unread::Broken => Refused::malformed(unread.to_string()),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let status = match refusal {
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::GoingDown => StatusCode::SERVICE_UNAVAILABLE,
            _ if refusal.is_too_large() => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Refused::new(status, refusal.code(), refusal.text().into_owned())
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Refused {
        match unavailable {
            Unavailable::Overloaded => {
                Refused::new(StatusCode::TOO_MANY_REQUESTS, "unavailable", "too many requests are outstanding")
            }
            Unavailable::Closed => Refusal::GoingDown.into(),
        }
    }
}

/// A response with this JSON.
pub fn uncached(status: StatusCode, json: impl Into<Body>) -> Response {
    let headers = [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")];
    let mut response = (status, headers, json.into()).into_response();
    let more = match status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    response.headers_mut().extend(more.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
