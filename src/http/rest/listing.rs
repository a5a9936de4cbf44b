//! `GET /apps/ID/channels`: the channels that have subscribers.

use super::info::Info;
use super::signature::Query;
use super::{Refused, Unavailable};
use crate::api::operation::Channels;
use crate::api::{Reply, Rows};
use crate::http::{Face, JSON, walk};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::sync::OwnedSemaphorePermit;

#[derive(Serialize)]
struct Listing {
    channels: BTreeMap<String, Listed>,
}

#[derive(Serialize)]
struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u64>,
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

/// The channels whose names start with `filter_by_prefix`, with the attributes of `info`.
pub(super) async fn list(face: &Face, query: &Query) -> Result<Response, Refused> {
    let info = Info::parse(query.get("info"))?;
    let prefix = query.get("filter_by_prefix").unwrap_or_default();
    info.check_list(prefix)?;
    let place = face.listings.clone().try_acquire_owned().map_err(|_| Unavailable::Overloaded)?;
    let channels = walk(face, prefix, info).await?;
    let text = serde_json::to_vec(&Listing { channels }).map_err(|error| Refused::Malformed(error.to_string()))?;
    Ok(([(CONTENT_TYPE, JSON)], Bytes::from_owner(Unsent { text, _place: place })).into_response())
}

async fn walk(face: &Face, prefix: &str, info: Info) -> Result<BTreeMap<String, Listed>, Refused> {
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
            let user_count = row.users.filter(|_| info.user_count);
            let subscription_count = info.subscription_count.then_some(row.subscribers);
            let name = row.channel.as_channel().as_str().to_owned();
            channels.insert(name, Listed { user_count, subscription_count });
        }
        if channels.len() > walk::CHANNELS_MAX {
            let limit = walk::CHANNELS_MAX;
            return Err(Refused::TooLarge(format!("over {limit} channels: ask with filter_by_prefix")));
        }
        match next {
            Some(next) => request.after = Some(next.into()),
            None => return Ok(channels),
        }
    }
}
