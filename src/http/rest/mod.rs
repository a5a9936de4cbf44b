//! Publishing for backends on other machines with Pusher's HTTP API, so that every Pusher server library works unchanged:
//! `POST /apps/ID/events` and `/batch_events`, `GET /apps/ID/channels` and `/channels/NAME`.
//!
//! [`signature`] checks the signature, [`repetition`] that it was not used before, and [`event`] reads events. A
//! request is checked completely, as on the admin socket, before any part of it goes to the shards.

pub mod event;
pub mod repetition;
pub mod signature;

use super::body::{self, Unread};
use super::shards::Unavailable;
use super::{Face, JSON, walk};
use crate::api::operation::{self, Channels};
use crate::api::{Publish, Refusal, Reply, Rows};
use crate::protocol::channel::{self, Channel};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use signature::{Query, Stamp, Unsigned};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The signature is missing or wrong.
    Unsigned(Unsigned),
    /// The path names another app ID.
    OtherApp,
    /// The request is malformed; the text for people.
    Malformed(String),
    /// A limit is exceeded; the text for people.
    TooLarge(String),
    /// A part of Pusher's API that this server does not have; the text for people.
    NotImplemented(String),
    /// The shards do not accept requests now.
    Unavailable(Unavailable),
}

type Answer = Result<Value, Refused>;

/// `POST /apps/ID/events`
pub async fn events(State(face): State<Arc<Face>>, Path(app_id): Path<String>, request: Request) -> Response {
    let answer = async {
        let body = signed_body(&face, &app_id, request).await?;
        let event = face.readers().rest.event(&body)?;
        let names: Vec<String> = event.names().map(str::to_owned).collect();
        let wants_counts = event.wants_counts()?;
        publish(&face, vec![event.publish()?]).await?;
        if !wants_counts {
            return Ok(json!({}));
        }
        let mut channels = Map::new();
        for name in names {
            let count = subscribers(&face, &name).await?;
            channels.insert(name, json!({"subscription_count": count}));
        }
        Ok(json!({"channels": channels}))
    };
    respond(&face, answer.await)
}

/// `POST /apps/ID/batch_events`
pub async fn batch_events(State(face): State<Arc<Face>>, Path(app_id): Path<String>, request: Request) -> Response {
    let answer = async {
        let body = signed_body(&face, &app_id, request).await?;
        let batch = face.readers().rest.batch(&body)?;
        if batch.len() > BATCH_MAX {
            return Err(Refused::Malformed(format!("a batch holds at most {BATCH_MAX} events")));
        }
        let mut wanted = Vec::new();
        let mut messages = Vec::new();
        for (index, event) in batch.iter().enumerate() {
            let within = |refused: Refused| refused.within("batch", index);
            let wants_counts = event.wants_counts().map_err(within)?;
            wanted.push(event.names().next().filter(|_| wants_counts).map(str::to_owned));
            messages.push(event.publish().map_err(within)?);
        }
        publish(&face, messages).await?;
        if wanted.iter().all(Option::is_none) {
            return Ok(json!({}));
        }
        let mut each = Vec::new();
        for name in wanted {
            each.push(match name {
                Some(name) => json!({"subscription_count": subscribers(&face, &name).await?}),
                None => json!({}),
            });
        }
        Ok(json!({"batch": each}))
    };
    respond(&face, answer.await)
}

/// `GET /apps/ID/channels`
pub async fn channels(State(face): State<Arc<Face>>, Path(app_id): Path<String>, request: Request) -> Response {
    // Before the first await, because a request is not `Sync`.
    let query = signed(&face, &app_id, &request);
    let answer = async {
        let query = query?;
        let wants_counts = event::wants_counts(query.get("info"))?;
        let prefix = query.get("filter_by_prefix").unwrap_or_default();
        let place = face.listings.clone().try_acquire_owned().map_err(|_| Unavailable::Overloaded)?;
        let mut channels = BTreeMap::new();
        // Only one walk through the tables at a time, so that publishers wait for at most one.
        let _walk = face.walks.acquire().await;
        let (prefix, limit) = (Some(prefix.into()), Some(walk::PAGE));
        let mut request = Channels { prefix, limit, after: None };
        loop {
            let Reply::Page { rows: Rows::Channels(rows), next } = face.shards()?.ask(request.clone().into()).await??
            else {
                return Err(Unavailable::Closed.into());
            };
            for row in rows {
                let listed = Listed { subscription_count: wants_counts.then_some(row.subscribers) };
                channels.insert(row.channel.as_channel().as_str().to_owned(), listed);
            }
            if channels.len() > walk::CHANNELS_MAX {
                let limit = walk::CHANNELS_MAX;
                return Err(Refused::TooLarge(format!("over {limit} channels: ask with filter_by_prefix")));
            }
            match next {
                Some(next) => request.after = Some(next.into()),
                None => break,
            }
        }
        let text = serde_json::to_vec(&Listing { channels }).map_err(|error| Refused::Malformed(error.to_string()))?;
        Ok(([(CONTENT_TYPE, JSON)], Bytes::from_owner(Unsent { text, _place: place })).into_response())
    };
    answer.await.unwrap_or_else(|refused| respond(&face, Err(refused)))
}

/// `GET /apps/ID/channels/NAME`
pub async fn channel(
    State(face): State<Arc<Face>>,
    Path((app_id, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    // Before the first await, because a request is not `Sync`.
    let query = signed(&face, &app_id, &request);
    let answer = async {
        let query = query?;
        let wants_counts = event::wants_counts(query.get("info"))?;
        event::check_implemented(&name)?;
        if Channel::parse(&name).is_none() {
            return Err(Refused::Malformed(channel::RULE.into()));
        }
        let count = subscribers(&face, &name).await?;
        Ok(match wants_counts {
            true => json!({"occupied": count > 0, "subscription_count": count}),
            false => json!({"occupied": count > 0}),
        })
    };
    respond(&face, answer.await)
}

/// `GET /apps/ID/channels/NAME/users`
pub async fn users(
    State(face): State<Arc<Face>>,
    Path((app_id, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    let answer = signed(&face, &app_id, &request);
    respond(&face, answer.and_then(|_| Err(Refused::NotImplemented(event::PRESENCE.into()))))
}

/// `POST /apps/ID/users/USER_ID/terminate_connections`
pub async fn terminate(
    State(face): State<Arc<Face>>,
    Path((app_id, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    let answer = signed_body(&face, &app_id, request).await;
    let why = "terminate_connections is not implemented: this server knows no users";
    respond(&face, answer.and_then(|_| Err(Refused::NotImplemented(why.into()))))
}

/// The query of a request whose signature is valid.
fn signed(face: &Face, app_id: &str, request: &Request<Body>) -> Result<Query, Refused> {
    stamped(face, app_id, request).map(|(query, _)| query)
}

fn stamped(face: &Face, app_id: &str, request: &Request<Body>) -> Result<(Query, Stamp), Refused> {
    if app_id != face.app_id {
        return Err(Refused::OtherApp);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let held = face.held();
    let now_s = signature::now_s();
    let stamp = signature::verify(&held.keys, request.method().as_str(), request.uri().path(), &query, now_s);
    Ok((query, stamp.map_err(Refused::Unsigned)?))
}

/// The body of a request, read only after its signature has been verified. Repetitions are refused.
async fn signed_body(face: &Face, app_id: &str, request: Request) -> Result<Bytes, Refused> {
    let (query, stamp) = stamped(face, app_id, &request)?;
    let body = body::read(request).await.map_err(|unread| match unread {
        Unread::TooLarge => Refused::TooLarge(unread.to_string()),
        Unread::Broken => Refused::Malformed(unread.to_string()),
    })?;
    signature::verify_body(&query, &body).map_err(Refused::Unsigned)?;
    let admitted = face.seen.lock().unwrap_or_else(PoisonError::into_inner).admit(stamp, signature::now_s());
    let has_forgotten = admitted.map_err(Refused::Unsigned)?;
    face.count(|counters| counters.http_signatures_forgotten += u64::from(has_forgotten));
    Ok(body)
}

/// Publishes all of the messages, or none.
async fn publish(face: &Face, messages: Vec<Publish<'static>>) -> Result<(), Refused> {
    let count = messages.len() as u64;
    face.shards()?.publish_all(messages).await??;
    face.count(|counters| counters.http_publishes += count);
    Ok(())
}

async fn subscribers(face: &Face, name: &str) -> Result<u64, Refused> {
    match face.shards()?.ask(operation::Channel { channel: name.into() }.into()).await?? {
        Reply::Channel { count, .. } => Ok(count.subscribers),
        _ => Err(Unavailable::Closed.into()),
    }
}

#[derive(Serialize)]
struct Listing {
    channels: BTreeMap<String, Listed>,
}

#[derive(Serialize)]
struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
}

/// A listing that keeps its permit until the kernel has taken its last byte, however slowly the client reads.
struct Unsent {
    text: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

fn respond(face: &Face, answer: Answer) -> Response {
    let (status, text) = match answer {
        Ok(value) => return ([(CONTENT_TYPE, JSON)], value.to_string()).into_response(),
        Err(Refused::Unavailable(unavailable)) => return unavailable.into_response(),
        Err(Refused::Unsigned(why)) => {
            face.count(|counters| counters.http_auth_failures += 1);
            tracing::debug!(%why, "the signature of a request over HTTP is not valid");
            (StatusCode::UNAUTHORIZED, why.to_string())
        }
        Err(Refused::OtherApp) => (StatusCode::NOT_FOUND, "unknown app: --app-id names the only one".into()),
        Err(Refused::Malformed(why)) => (StatusCode::BAD_REQUEST, why),
        Err(Refused::TooLarge(why)) => (StatusCode::PAYLOAD_TOO_LARGE, why),
        Err(Refused::NotImplemented(what)) => (StatusCode::NOT_IMPLEMENTED, what),
    };
    (status, text + "\n").into_response()
}

impl Refused {
    /// The same refusal for an element of a list; the text names the element.
    fn within(self, list: &str, index: usize) -> Refused {
        let named = |why: String| format!("{list}[{index}]: {why}");
        match self {
            Refused::Malformed(why) => Refused::Malformed(named(why)),
            Refused::TooLarge(why) => Refused::TooLarge(named(why)),
            Refused::NotImplemented(what) => Refused::NotImplemented(named(what)),
            other => other,
        }
    }
}

impl From<&str> for Refused {
    fn from(malformed: &str) -> Refused {
        Refused::Malformed(malformed.into())
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Refused {
        Refused::Unavailable(unavailable)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        match refusal {
            Refusal::TooLarge { what, .. } if what != "channels" => Refused::TooLarge(refusal.text().into_owned()),
            _ => Refused::Malformed(refusal.text().into_owned()),
        }
    }
}

/// Most events of one batch. The limit is Pusher's.
const BATCH_MAX: usize = 10;
