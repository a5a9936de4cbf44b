//! A client that speaks Pusher's protocol, for the tests of what the server does beyond it.

use crate::auth::{KEY, auth, auth_of_user, key};
use crate::harness::{Client, LONG, Options, Server};
use crate::transport::Transport;
use serde_json::{Value, json};
use std::net::TcpStream;

/// A server with the key pair of the tests.
pub fn options(shards: usize) -> Options {
    Server::options(shards).arg("--key", key())
}

/// An open connection; its first message is read.
pub fn connect(server: &Server) -> Client {
    let mut client = upgrade(server, &format!("/app/{KEY}?protocol=7"));
    let first: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!(first["event"], "pusher:connection_established", "{first}");
    let data: Value = serde_json::from_str(first["data"].as_str().expect("a string")).expect("JSON");
    client.socket_id = data["socket_id"].as_str().expect("a string").to_owned();
    client
}

/// A connection whose upgrade for this path is done.
pub fn upgrade(server: &Server, path: &str) -> Client {
    let stream = TcpStream::connect(server.address).expect("the server accepts");
    stream.set_read_timeout(Some(LONG)).expect("socket option");
    stream.set_write_timeout(Some(LONG)).expect("socket option");
    stream.set_nodelay(true).expect("socket option");
    Client::upgrade_for(path, Transport::over(stream))
}

/// Requests, and the frames that answer them.
pub trait Pusher {
    /// Subscribes, with a signature where the channel needs one.
    fn ask_to_subscribe(&mut self, channel: &str);
    /// Subscribes to a channel without members, and waits for the success.
    fn join(&mut self, channel: &str);
    /// Asks to leave a channel, which is not answered.
    fn leave(&mut self, channel: &str);
    /// Asks to sign in.
    fn ask_to_sign_in(&mut self, user_data: &str);
    /// Signs in, and waits for the success.
    fn sign_in(&mut self, user_data: &str);
    /// The next message is this event of this channel; its data, parsed.
    fn expect_event(&mut self, event: &str, channel: Option<&str>) -> Value;
    /// The next message is the reply to this ping.
    fn expect_silence(&mut self);
}

impl Pusher for Client {
    fn ask_to_subscribe(&mut self, channel: &str) {
        let mut data = json!({"channel": channel});
        if channel.starts_with("private-") {
            data["auth"] = auth(&self.socket_id, channel, None).into();
        }
        self.send(&json!({"event": "pusher:subscribe", "data": data}).to_string());
    }

    #[track_caller]
    fn join(&mut self, channel: &str) {
        self.ask_to_subscribe(channel);
        assert_eq!(self.expect_event("pusher_internal:subscription_succeeded", Some(channel)), json!({}));
    }

    fn leave(&mut self, channel: &str) {
        self.send(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}).to_string());
    }

    fn ask_to_sign_in(&mut self, user_data: &str) {
        let auth = auth_of_user(&self.socket_id, user_data);
        self.send(&json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}}).to_string());
    }

    #[track_caller]
    fn sign_in(&mut self, user_data: &str) {
        self.ask_to_sign_in(user_data);
        assert_eq!(self.expect_event("pusher:signin_success", None), json!({"user_data": user_data}));
    }

    #[track_caller]
    fn expect_event(&mut self, event: &str, channel: Option<&str>) -> Value {
        let text = self.text();
        let message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((message["event"].as_str(), message["channel"].as_str()), (Some(event), channel), "{text}");
        serde_json::from_str(message["data"].as_str().expect("data is a string")).expect("data holds JSON")
    }

    #[track_caller]
    fn expect_silence(&mut self) {
        self.send(r#"{"event":"pusher:ping","data":{}}"#);
        self.expect(r#"{"event":"pusher:pong","data":"{}"}"#);
    }
}
