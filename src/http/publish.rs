//! `POST /publish`: the admin command `publish` over HTTP. The body is the request without `command`; the answer is the
//! reply.
//!
//! Access needs the token of `--publish-token-file`. This HTTP listener has no TLS, so it accepts a token only from
//! loopback, and not through a proxy on this machine.

use super::Face;
use super::bearer::{self, Digest};
use super::body;
use super::reply::{Refused, uncached};
use super::serving::Peer;
use super::shards::Unavailable;
use crate::admin::lines::reader::Line;
use crate::admin::lines::writer;
use crate::api::publish::PUBLISH;
use crate::api::{Command, Published};
use axum::extract::{Request, State};
use axum::http::header::{FORWARDED, VIA};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;

/// `POST /publish`
pub async fn publish(State(face): State<Arc<Face>>, request: Request) -> Response {
    let from = request.extensions().get::<Peer>().map(|peer| peer.0);
    if let Err(refused) = judge(face.held().publish_token.as_ref(), from, request.headers()) {
        face.count(|counters| counters.http_auth_failures += u64::from(refused.status == StatusCode::UNAUTHORIZED));
        tracing::debug!(code = refused.code, "a request to /publish is refused");
        return respond("null", Err(refused));
    }
    let body = match body::read(request).await {
        Ok(body) => body,
        Err(unread) => return respond("null", Err(unread.into())),
    };
    let Line { id, command } = face.readers().members.body(&PUBLISH, &body);
    let answer = async {
        let Command::Publish(publish) = command? else { return Err(Unavailable::Closed.into()) };
        let published = face.shards()?.publish(publish.into_owned()).await??;
        face.count(|counters| counters.http_publishes += 1);
        Ok(published)
    };
    respond(id, answer.await)
}

fn judge(token: Option<&Digest>, from: Option<IpAddr>, headers: &HeaderMap) -> Result<(), Refused> {
    let Some(token) = token else {
        let why = "POST /publish needs a token: --publish-token-file names its file";
        return Err(Refused::new(StatusCode::NOT_FOUND, "no_token_file", why));
    };
    let is_local = from.is_some_and(|from| from.to_canonical().is_loopback());
    if !is_local || is_forwarded(headers) {
        let why = "over plain HTTP, POST /publish is accepted from this machine only, and not through a proxy";
        return Err(Refused::new(StatusCode::FORBIDDEN, "not_local", why));
    }
    match bearer::token(headers) {
        Some(given) if *token == Digest::of(given) => Ok(()),
        Some(_) => Err(Refused::new(StatusCode::UNAUTHORIZED, "token_invalid", "the token is wrong")),
        None => {
            let why = "the header Authorization: Bearer TOKEN is missing";
            Err(Refused::new(StatusCode::UNAUTHORIZED, "token_required", why))
        }
    }
}

/// Whether a header shows that a proxy forwards the request.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name == FORWARDED || name == VIA || name.as_str().starts_with("x-forwarded-"))
}

/// A reply line of the admin socket as a response with this status.
fn respond(id: &str, answer: Result<Published, Refused>) -> Response {
    let mut line = Vec::new();
    let status = match answer {
        Ok(published) => {
            writer::published(&mut line, id, &published);
            StatusCode::OK
        }
        Err(Refused { status, code, error }) => {
            writer::error(&mut line, id, code, &error);
            status
        }
    };
    uncached(status, line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::RETRY_AFTER;
    use axum::http::{HeaderName, HeaderValue};

    #[test]
    fn the_token_is_accepted_from_loopback_only() {
        let token = Digest::of(b"a-token-of-some-length");
        let bearer = ("authorization", "Bearer a-token-of-some-length");
        let check = |token: Option<&Digest>, from: &str, given: &[(&'static str, &'static str)], expected: &str| {
            let from = from.parse().expect("an address");
            let judged = judge(token, Some(from), &headers(given));
            let verdict =
                judged.map_or_else(|refused| format!("{} {}", refused.status.as_u16(), refused.code), |()| "ok".into());
            assert_eq!(verdict, expected, "{from} {given:?}");
        };
        for from in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            check(Some(&token), from, &[bearer], "ok");
            check(Some(&token), from, &[bearer, ("via", "1.1 x")], "403 not_local");
            check(Some(&token), from, &[], "401 token_required");
            check(Some(&token), from, &[("authorization", "Bearer x")], "401 token_invalid");
            check(None, from, &[bearer], "404 no_token_file");
        }
        for from in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"] {
            check(Some(&token), from, &[bearer], "403 not_local");
        }
    }

    #[test]
    fn an_overload_is_429_and_a_stop_is_503() {
        let check = |why: Unavailable, status: u16| {
            let response = respond("7", Err(why.into()));
            assert_eq!(
                (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
                (status, &HeaderValue::from_static("1"))
            );
        };
        check(Unavailable::Overloaded, 429);
        check(Unavailable::Closed, 503);
    }

    #[track_caller]
    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        given.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_a_proxy_adds_is_noticed() {
        let check = |name, expected| assert_eq!(is_forwarded(&headers(&[(name, "")])), expected, "{name}");
        for name in ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-"] {
            check(name, true);
        }
        check("host", false);
        check("x-forward", false);
    }
}
