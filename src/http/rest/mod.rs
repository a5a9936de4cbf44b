//! Publishing for backends on other machines with Pusher's HTTP API, so that every Pusher server library works unchanged:
//! `POST /apps/ID/events` and `/batch_events`, `GET /apps/ID/channels`, `/channels/NAME` and `/channels/NAME/users`,
//! `POST /apps/ID/users/USER_ID/terminate_connections`.
//!
//! [`signature`] checks the signature, and [`repetition`] that it was not used before. [`event`] reads events, [`info`] answers
//! attributes of channels, and [`listing`] the list of all channels. A request is checked completely, as on the admin socket,
//! before any part of it goes to the shards.

pub mod event;
pub mod info;
pub mod listing;
pub mod repetition;
pub mod signature;

use super::body::{self, Unread};
use super::shards::Unavailable;
use super::{Face, JSON, NO_SUCH_PATH};
use crate::api::operation::{self, Disconnect, Members, PresentUser};
use crate::api::{Publish, Refusal, Reply};
use crate::protocol::channel::{self, Channel, Kind};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use info::Info;
use serde_json::{Map, Value, json};
use signature::{Query, Stamp, Unsigned};
use std::sync::{Arc, PoisonError};

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
    /// The path does not exist.
    NoSuchPath,
    /// The shards do not accept requests now.
    Unavailable(Unavailable),
}

type Answer = Result<Json, Refused>;

/// The answer to a request.
pub struct Json(Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, JSON)], self.0.to_string()).into_response()
    }
}

/// `POST /apps/ID/events`
pub async fn events(State(face): State<Arc<Face>>, Path(app_id): Path<String>, request: Request) -> Answer {
    let body = signed_body(&face, Some(&app_id), request).await?;
    let event = face.readers().rest.event(&body)?;
    let info = event.info()?;
    publish(&face, event.messages()?).await?;
    if info.is_empty() {
        return Ok(Json(json!({})));
    }
    let mut channels = Map::new();
    for name in event.names() {
        channels.insert(name.to_owned(), attributes(&face, name, info).await?.into());
    }
    Ok(Json(json!({"channels": channels})))
}

/// `POST /apps/ID/batch_events`
pub async fn batch_events(State(face): State<Arc<Face>>, Path(app_id): Path<String>, request: Request) -> Answer {
    let body = signed_body(&face, Some(&app_id), request).await?;
    let batch = face.readers().rest.batch(&body)?;
    if batch.len() > BATCH_MAX {
        return Err(Refused::Malformed(format!("a batch holds at most {BATCH_MAX} events")));
    }
    let mut wanted = Vec::new();
    let mut messages = Vec::new();
    for (index, event) in batch.iter().enumerate() {
        let within = |refused: Refused| refused.within("batch", index);
        wanted.push(event.info().map_err(within)?);
        messages.append(&mut event.messages().map_err(within)?);
    }
    publish(&face, messages).await?;
    if wanted.iter().all(|info| info.is_empty()) {
        return Ok(Json(json!({})));
    }
    let mut each = Vec::new();
    for (event, info) in batch.iter().zip(wanted) {
        each.push(match event.names().next() {
            Some(name) if !info.is_empty() => attributes(&face, name, info).await?,
            _ => Map::new(),
        });
    }
    Ok(Json(json!({"batch": each})))
}

/// `GET /apps/ID/channels`
pub async fn channels(
    State(face): State<Arc<Face>>,
    Path(app_id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    // Before the first await, because a request is not `Sync`.
    let query = signed(&face, &app_id, &request)?;
    listing::list(&face, &query).await
}

/// `GET /apps/ID/channels/NAME`
pub async fn channel(
    State(face): State<Arc<Face>>,
    Path((app_id, name)): Path<(String, String)>,
    request: Request,
) -> Answer {
    // Before the first await, because a request is not `Sync`.
    let query = signed(&face, &app_id, &request)?;
    let info = Info::parse(query.get("info"))?;
    let channel = Channel::parse(&name).ok_or(channel::RULE)?;
    let state = state(&face, channel, info).await?;
    info.check(channel, &state)?;
    let mut attributes = info.of(channel, &state);
    attributes.insert("occupied".into(), (state.count.subscribers > 0).into());
    Ok(Json(attributes.into()))
}

/// `GET /apps/ID/channels/NAME/users`
pub async fn users(
    State(face): State<Arc<Face>>,
    Path((app_id, name)): Path<(String, String)>,
    request: Request,
) -> Answer {
    signed(&face, &app_id, &request)?;
    let channel = Channel::parse(&name).ok_or(channel::RULE)?;
    if channel.kind() != Kind::Presence {
        return Err("only presence channels have users".into());
    }
    let Reply::Members { members, .. } = face.shards()?.ask(Members { channel: name.into() }.into()).await?? else {
        return Err(Unavailable::Closed.into());
    };
    let user = |user: &PresentUser| json!({"id": &*user.user_id});
    Ok(Json(json!({"users": members.iter().map(user).collect::<Vec<_>>()})))
}

/// `POST /apps/ID/users/USER_ID/terminate_connections`. The id may contain any character, `/` included.
pub async fn terminate(
    State(face): State<Arc<Face>>,
    Path((app_id, rest)): Path<(String, String)>,
    request: Request,
) -> Answer {
    end_user(&face, Some(&app_id), &rest, request).await
}

/// `POST /users/USER_ID/terminate_connections`: the path that Pusher's library for Python requests and signs.
pub async fn terminate_without_app(
    State(face): State<Arc<Face>>,
    Path(rest): Path<String>,
    request: Request,
) -> Answer {
    end_user(&face, None, &rest, request).await
}

/// Closes the connections that are signed in as a user. `rest` is what follows `/users/` in the path.
async fn end_user(face: &Face, app_id: Option<&str>, rest: &str, request: Request) -> Answer {
    let id = rest.strip_suffix("/terminate_connections").ok_or(Refused::NoSuchPath)?;
    signed_body(face, app_id, request).await?;
    let (user, reason) = (Some(event::user(id)?.into()), Some("terminated by the backend".into()));
    face.shards()?.ask(Disconnect { user, reason, ..Disconnect::default() }.into()).await??;
    Ok(Json(json!({})))
}

/// The query of a request whose signature is valid.
fn signed(face: &Face, app_id: &str, request: &Request<Body>) -> Result<Query, Refused> {
    stamped(face, Some(app_id), request).map(|(query, _)| query)
}

/// `app_id`: the app that the path names, if it names one.
fn stamped(face: &Face, app_id: Option<&str>, request: &Request<Body>) -> Result<(Query, Stamp), Refused> {
    if app_id.is_some_and(|app_id| app_id != face.app_id) {
        return Err(Refused::OtherApp);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let held = face.held();
    let now_s = signature::now_s();
    let stamp = signature::verify(&held.keys, request.method().as_str(), request.uri().path(), &query, now_s);
    Ok((query, stamp.map_err(|why| unsigned(face, why))?))
}

/// The body of a request, read only after its signature has been verified. Repetitions are refused.
async fn signed_body(face: &Face, app_id: Option<&str>, request: Request) -> Result<Bytes, Refused> {
    let (query, stamp) = stamped(face, app_id, &request)?;
    let body = body::read(request).await.map_err(|unread| match unread {
        Unread::TooLarge => Refused::TooLarge(unread.to_string()),
        Unread::Broken => Refused::Malformed(unread.to_string()),
    })?;
    signature::verify_body(&query, &body).map_err(|why| unsigned(face, why))?;
    let admitted = face.seen.lock().unwrap_or_else(PoisonError::into_inner).admit(stamp, signature::now_s());
    let has_forgotten = admitted.map_err(|why| unsigned(face, why))?;
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

/// The attributes of a channel that was published to.
async fn attributes(face: &Face, name: &str, info: Info) -> Result<Map<String, Value>, Refused> {
    match Channel::parse(name) {
        Some(channel) => Ok(info.of(channel, &state(face, channel, info).await?)),
        // A user has no attributes.
        None => Ok(Map::new()),
    }
}

async fn state(face: &Face, channel: Channel<'_>, info: Info) -> Result<info::State, Refused> {
    let request = operation::Channel { channel: channel.as_str().into(), newest: info.cache };
    match face.shards()?.ask(request.into()).await?? {
        Reply::Channel { count, history, newest } => Ok(info::State { count, has_history: history.is_some(), newest }),
        _ => Err(Unavailable::Closed.into()),
    }
}

/// Counts and logs a request without a valid signature.
fn unsigned(face: &Face, why: Unsigned) -> Refused {
    face.count(|counters| counters.http_auth_failures += 1);
    tracing::debug!(%why, "the signature of a request over HTTP is not valid");
    Refused::Unsigned(why)
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Refused::Unavailable(unavailable) => return unavailable.into_response(),
            Refused::Unsigned(why) => (StatusCode::UNAUTHORIZED, why.to_string()),
            Refused::OtherApp => (StatusCode::NOT_FOUND, "unknown app: --app-id sets the ID of the only one".into()),
            Refused::Malformed(why) => (StatusCode::BAD_REQUEST, why),
            Refused::TooLarge(why) => (StatusCode::PAYLOAD_TOO_LARGE, why),
            Refused::NoSuchPath => return (StatusCode::NOT_FOUND, NO_SUCH_PATH).into_response(),
        };
        (status, text + "\n").into_response()
    }
}

impl Refused {
    /// The same refusal for an element of a list; the text names the element.
    fn within(self, list: &str, index: usize) -> Refused {
        let named = |why: String| format!("{list}[{index}]: {why}");
        match self {
            Refused::Malformed(why) => Refused::Malformed(named(why)),
            Refused::TooLarge(why) => Refused::TooLarge(named(why)),
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

/// Most events of one batch, as at Pusher.
const BATCH_MAX: usize = 10;
