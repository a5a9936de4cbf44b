//! Clients that speak Pusher's dialect. Their requests are translated on the way to the hub, and what they receive on the way
//! to the model, which knows the native dialect. So both kinds are held to one model: one order, equal values, one list of
//! members.
//!
//! This dialect answers no unsubscribe. A ping follows each, and its pong stands for the answer.

use super::model::{History, Reply};
use crate::protocol::socket_id::SocketId;
use serde_json::{Value, json};
use std::collections::VecDeque;

pub struct Translator {
    /// As the model knows it.
    socket_id: String,
    /// Whether `data` of requests is a string that holds the object.
    quotes_data: bool,
    /// What the next pongs stand for.
    pongs: VecDeque<String>,
    /// The first message of a refused subscription: its channel and its data.
    refusal: Option<(String, Value)>,
}

impl Translator {
    pub fn new(socket_id: String, quotes_data: bool) -> Translator {
        Translator { socket_id, quotes_data, pongs: VecDeque::new(), refusal: None }
    }

    /// What is sent for a native request, to which the model expects this reply.
    pub fn requests(&mut self, text: &str, reply: Option<&Reply>) -> Vec<String> {
        let Ok(mut request) = serde_json::from_str::<Value>(text) else { return vec![text.into()] };
        let event = request["event"].as_str().unwrap_or_default().to_owned();
        let Some(name) = event.strip_prefix("socket:") else { return vec![text.into()] };
        request["event"] = format!("pusher:{name}").into();
        if self.quotes_data && name != "ping" {
            request["data"] = request["data"].to_string().into();
        }
        let mut requests = vec![request.to_string()];
        match (name, reply) {
            ("ping", Some(reply)) => self.pongs.push_back(native(reply)),
            ("unsubscribe", Some(reply)) => {
                self.pongs.push_back(native(reply));
                requests.push(r#"{"event":"pusher:ping"}"#.into());
            }
            _ => {}
        }
        requests
    }

    /// The native frame for a message, where the model expects this reply next; `None`: the native dialect has none.
    pub fn message(&mut self, payload: &str, reply: Option<&Reply>, history: &History) -> Option<String> {
        let message: Value = serde_json::from_str(payload).expect("JSON");
        let event = message["event"].as_str().expect("a name");
        let channel = message["channel"].as_str();
        if event == "pusher:error" {
            return Some(self.error(&message["data"], reply));
        }
        assert!(self.refusal.is_none() || event == "pusher_internal:subscription_error", "{payload}");
        let data = message["data"].as_str().unwrap_or_else(|| panic!("data is not a string: {payload}"));
        let parsed = || serde_json::from_str::<Value>(data).expect("JSON");
        Some(match event {
            "pusher:connection_established" => {
                let socket_id = SocketId::parse(&self.socket_id).expect("an id");
                assert_eq!(parsed()["socket_id"], socket_id.dotted().to_string());
                format!(r#"{{"event":"socket:connected","data":"{}"}}"#, self.socket_id)
            }
            "pusher:pong" => self.pongs.pop_front().unwrap_or_else(|| panic!("a pong without a ping")),
            "pusher:cache_miss" => {
                assert_eq!(data, "{}");
                return None;
            }
            "pusher_internal:subscription_count" => {
                assert!(parsed()["subscription_count"].as_u64() > Some(0), "{payload}");
                assert!(!channel.expect("a channel").starts_with("presence-"), "{payload}");
                return None;
            }
            "pusher_internal:watchlist_events" => return None,
            "pusher:subscription_error" | "pusher_internal:subscription_error" => {
                let refusal = (channel.expect("a channel").to_owned(), parsed());
                assert!(self.refusal.is_none() || event.starts_with("pusher_internal:"));
                assert!(self.refusal.as_ref().is_none_or(|earlier| *earlier == refusal), "{payload}");
                self.refusal = Some(refusal);
                return None;
            }
            "pusher_internal:subscription_succeeded" => {
                let channel = channel.expect("a channel");
                match subscribed(&parsed()) {
                    Some(data) => format!(r#"{{"event":"socket:subscribed","channel":"{channel}","data":{data}}}"#),
                    None => format!(r#"{{"event":"socket:subscribed","channel":"{channel}"}}"#),
                }
            }
            "pusher_internal:member_added" | "pusher_internal:member_removed" => {
                let name = event.replace("pusher_internal:", "socket:");
                let mut data = parsed();
                if data["user_info"] == json!({}) {
                    data.as_object_mut().expect("an object").remove("user_info");
                }
                format!(r#"{{"event":"{name}","channel":"{}","data":{data}}}"#, channel.expect("a channel"))
            }
            "pusher:signin_success" => {
                let user_data: Value =
                    serde_json::from_str(parsed()["user_data"].as_str().expect("text")).expect("JSON");
                format!(r#"{{"event":"socket:signed_in","data":{{"user_id":{}}}}}"#, user_data["id"])
            }
            _ => published(event, channel, data, message["user_id"].as_str(), history),
        })
    }

    /// `pusher:error`, which ends a refused subscription, or is a refusal by itself.
    fn error(&mut self, data: &Value, reply: Option<&Reply>) -> String {
        let text = data["message"].as_str().expect("a text");
        assert_eq!(data["code"], Value::Null, "{data}");
        if let Some((channel, refusal)) = self.refusal.take() {
            assert_eq!(refusal["error"], text);
            return refused("socket:subscribe.error", Some(&channel), code_of(&refusal));
        }
        if let Some(channel) = text.strip_prefix("Existing subscription to channel ") {
            return refused("socket:subscribe.error", Some(channel), "already_subscribed");
        }
        let code = match text {
            _ if text.starts_with("Unsupported event received on socket: ") => "unknown_event",
            _ if text.contains("client event") => "client_event_refused",
            _ if text.starts_with("Invalid signature: ") => "auth_invalid",
            _ if text.starts_with("the connection is signed in as another user") => "already_signed_in",
            _ => "malformed_message",
        };
        match code {
            "auth_invalid" | "already_signed_in" => refused("socket:signin.error", None, code),
            // The native refusal names the channel.
            "client_event_refused" => refused("socket:error", reply.and_then(|reply| reply.channel.as_deref()), code),
            _ => refused("socket:error", None, code),
        }
    }
}

/// The users of `pusher_internal:watchlist_events`, and whether each is online; `None`: it is another message.
pub fn watched(payload: &str) -> Option<Vec<(String, bool)>> {
    let message: Value = serde_json::from_str(payload).expect("JSON");
    (message["event"] == "pusher_internal:watchlist_events").then(|| {
        let told: Watched = serde_json::from_str(message["data"].as_str().expect("text")).expect("events");
        let of_event = |event: WatchedEvent| {
            assert!(["online", "offline"].contains(&&*event.name) && !event.user_ids.is_empty(), "{payload}");
            event.user_ids.into_iter().map(move |id| (id, event.name == "online"))
        };
        told.events.into_iter().flat_map(of_event).collect()
    })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Watched {
    events: Vec<WatchedEvent>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchedEvent {
    name: String,
    user_ids: Vec<String>,
}

/// The native frame that is this reply.
fn native(Reply { event, channel, detail }: &Reply) -> String {
    match (*event, channel, detail) {
        ("socket:pong", _, Some(id)) => format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#),
        (event, channel, Some(code)) => refused(event, channel.as_deref(), code),
        (event, Some(channel), None) => format!(r#"{{"event":"{event}","channel":"{channel}"}}"#),
        (event, None, None) => panic!("{event} is not a reply"),
    }
}

fn refused(event: &str, channel: Option<&str>, code: &str) -> String {
    let channel = channel.map_or(String::new(), |channel| format!(r#","channel":"{channel}""#));
    format!(r#"{{"event":"{event}"{channel},"data":{{"error":"","code":"{code}"}}}}"#)
}

/// The native code of a refused subscription.
fn code_of(refusal: &Value) -> &'static str {
    let (kind, status) = (refusal["type"].as_str().expect("a type"), refusal["status"].as_u64());
    let text = refusal["error"].as_str().expect("a text");
    match (kind, status) {
        ("AuthError", Some(401)) if text.starts_with("auth is missing") => "auth_required",
        ("AuthError", Some(401)) if text.starts_with("Invalid ") => "auth_invalid",
        ("InvalidChannel", Some(400)) => "invalid_channel",
        ("LimitReached", Some(403)) if text.starts_with("the channel has") => "presence_full",
        ("LimitReached", Some(403)) if text.starts_with("the connection has") => "too_many_subscriptions",
        _ => panic!("{refusal}"),
    }
}

/// The native `data` of a subscription that succeeded.
fn subscribed(data: &Value) -> Option<Value> {
    let Some(presence) = data.get("presence") else {
        assert_eq!(*data, json!({}));
        return None;
    };
    let ids = presence["ids"].as_array().expect("a list");
    let hash = presence["hash"].as_object().expect("an object");
    assert_eq!(hash.len(), ids.len());
    let member = |id: &Value| match &hash[id.as_str().expect("an id")] {
        info if *info == json!({}) => json!({"user_id": id}),
        info => json!({"user_id": id, "user_info": info}),
    };
    let members: Vec<Value> = ids.iter().map(member).collect();
    Some(json!({"presence": {"count": presence["count"], "members": members}}))
}

/// The native frame of a message: its value is what the text holds.
fn published(event: &str, channel: Option<&str>, data: &str, user_id: Option<&str>, history: &History) -> String {
    let mut frame = format!(r#"{{"event":"{event}""#);
    // A message to a user has no channel.
    if let Some(channel) = channel.filter(|name| !name.starts_with("#server-to-user-")) {
        frame += &format!(r#","channel":"{channel}""#);
    }
    // No message of a run has null as its value.
    if data != "null" {
        frame += &format!(r#","data":{data}"#);
    }
    if let Some(user_id) = user_id {
        frame += &format!(r#","user_id":"{user_id}""#);
    }
    if let Some(offset) = history.offset_of(event) {
        frame += &format!(r#","offset":{offset}"#);
    }
    frame + "}"
}
