//! What the libraries of other languages send and wait for, as their sources have it: pusher-js (and Laravel Echo), Java (and
//! Android under Flutter and React Native), Swift (and iOS under both), .NET, Pysher, and dart_pusher_channels.

use super::client::{PONG, Pusher, message, options, refused, signed_in, succeeded};
use crate::auth::{self, KEY};
use crate::harness::{Server, for_shards, frame, opcode};
use serde_json::{Value, json};

for_shards!(and_over_tls, each_library_is_answered_in_what_it_waits_for, all_libraries_meet_in_one_room,);

struct Library {
    name: &'static str,
    version: u8,
    query: &'static str,
    /// More header lines of its upgrade request.
    lines: &'static str,
    /// Its heartbeat; `None`: WebSocket pings.
    ping: Option<&'static str>,
    /// Writes a request with this event and data.
    request: fn(&str, &Value) -> String,
    /// Writes a client event of this channel.
    client_event: fn(&str, &Value) -> String,
}

const LIBRARIES: [Library; 6] = [
    Library {
        name: "pusher-js",
        version: 7,
        query: "?protocol=7&client=js&version=8.6.0&flash=false",
        lines: "Origin: https://example.com\r\n",
        ping: Some(r#"{"event":"pusher:ping","data":{}}"#),
        request: event_first,
        client_event: |channel, data| format!(r#"{{"event":"client-typing","data":{data},"channel":"{channel}"}}"#),
    },
    Library {
        name: "Java",
        version: 5,
        query: "?client=java-client&protocol=5&version=2.4.4",
        lines: "",
        ping: Some(r#"{"event": "pusher:ping"}"#),
        request: event_first,
        // Its data is a string.
        client_event: |channel, data| {
            let text = Value::from(data.to_string());
            format!(r#"{{"event":"client-typing","channel":"{channel}","data":{text}}}"#)
        },
    },
    Library {
        name: "Swift",
        version: 7,
        query: "?client=pusher-websocket-swift&version=10.1.10&protocol=7",
        lines: "Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n",
        ping: None,
        // Its dictionaries have no order, and slashes are escaped.
        request: |event, data| format!(r#"{{"data":{data},"event":"{event}"}}"#).replace('/', r"\/"),
        client_event: |channel, data| {
            format!(r#"{{"data":{data},"channel":"{channel}","event":"client-typing"}}"#).replace('/', r"\/")
        },
    },
    Library {
        name: ".NET",
        version: 5,
        query: "?protocol=5&client=pusher-dotnet-client&version=2.3.0",
        lines: "",
        ping: None,
        request: event_first,
        client_event: |channel, data| format!(r#"{{"channel":"{channel}","event":"client-typing","data":{data}}}"#),
    },
    Library {
        name: "Pysher",
        version: 6,
        query: "?client=Pysher&version=0.6.0&protocol=6",
        lines: "",
        ping: Some(r#"{"event": "pusher:ping", "data": ""}"#),
        request: |event, data| format!(r#"{{"event": "{event}", "data": {data}}}"#),
        client_event: |channel, data| {
            format!(r#"{{"event": "client-typing", "data": {data}, "channel": "{channel}"}}"#)
        },
    },
    Library {
        name: "dart_pusher_channels",
        version: 7,
        query: "?client=dart&version=0.8.0&protocol=7",
        lines: "",
        ping: Some(r#"{"event":"pusher:ping","data":{}}"#),
        request: event_first,
        client_event: |channel, data| format!(r#"{{"event":"client-typing","data":{data},"channel":"{channel}"}}"#),
    },
];

fn event_first(event: &str, data: &Value) -> String {
    format!(r#"{{"event":"{event}","data":{data}}}"#)
}

impl Library {
    #[track_caller]
    fn connect(&self, server: &Server) -> Pusher {
        let (head, client) = Pusher::upgrade(server, &format!("/app/{KEY}{}", self.query), self.lines);
        assert!(head.starts_with("HTTP/1.1 101 "), "{}: {head}", self.name);
        client.established()
    }

    /// pusher-js sends an empty `auth` for public channels, the others none.
    fn subscribe(&self, client: &mut Pusher, channel: &str, auth: Option<&str>, channel_data: Option<&str>) {
        let mut data = json!({"channel": channel});
        if let Some(auth) = auth.or((self.name == "pusher-js").then_some("")) {
            data["auth"] = auth.into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        client.send(&(self.request)("pusher:subscribe", &data));
    }

    #[track_caller]
    fn beat(&self, client: &mut Pusher) {
        match self.ping {
            Some(ping) => {
                client.send(ping);
                client.expect(PONG);
            }
            None => {
                client.raw.write(&frame(opcode::PING, b"beat"));
                assert_eq!(client.raw.frame(), (opcode::PONG, b"beat".to_vec()), "{}", self.name);
            }
        }
    }
}

fn each_library_is_answered_in_what_it_waits_for(shards: usize) {
    let server = options(shards).start();
    for library in &LIBRARIES {
        let mut client = library.connect(&server);
        library.beat(&mut client);
        library.subscribe(&mut client, "a/b:c", None, None);
        client.expect(&succeeded("a/b:c"));
        let auth = auth::auth(&client.socket_id, "private-a", None);
        library.subscribe(&mut client, "private-a", Some(&auth), None);
        client.expect(&succeeded("private-a"));
        // .NET waits for an event of its own, and otherwise for its timeout.
        library.subscribe(&mut client, "private-b", Some("nope:00"), None);
        let why = "Invalid key in subscription auth data: 'nope'";
        let expected = refused(library.version, "private-b", "AuthError", 401, why);
        assert_eq!(expected.len(), if library.version <= 5 { 3 } else { 2 });
        expected.iter().for_each(|expected| client.expect(expected));
        let user_data = r#"{"id":"7","user_info":{"name":"A/B"}}"#;
        let auth = auth::auth_of_user(&client.socket_id, user_data);
        client.send(&(library.request)("pusher:signin", &json!({"auth": auth, "user_data": user_data})));
        client.expect(&signed_in(user_data));
        client.send(&(library.request)("pusher:unsubscribe", &json!({"channel": "a/b:c"})));
        library.beat(&mut client);
        library.subscribe(&mut client, "a/b:c", None, None);
        client.expect(&succeeded("a/b:c"));
    }
}

fn all_libraries_meet_in_one_room(shards: usize) {
    let server = options(shards).arg("--presence-grace", 0).start();
    let mut room: Vec<(&Library, Pusher)> = Vec::new();
    let mut hash = serde_json::Map::new();
    for (n, library) in LIBRARIES.iter().enumerate() {
        let mut client = library.connect(&server);
        let channel_data = json!({"user_id": n.to_string(), "user_info": {"name": library.name}}).to_string();
        let auth = auth::auth(&client.socket_id, "presence-room", Some(&channel_data));
        library.subscribe(&mut client, "presence-room", Some(&auth), Some(&channel_data));
        hash.insert(n.to_string(), json!({"name": library.name}));
        let ids: Vec<String> = (0..=n).map(|n| n.to_string()).collect();
        assert_eq!(client.members("presence-room"), json!({"count": n + 1, "ids": ids, "hash": hash}));
        let added = format!(r#"{{"user_id":"{n}","user_info":{{"name":"{}"}}}}"#, library.name);
        let added = message("pusher_internal:member_added", "presence-room", &added);
        room.iter_mut().for_each(|(_, client)| client.expect(&added));
        room.push((library, client));
    }
    let data = json!({"text": "a/b \"é\""});
    for at in 0..room.len() {
        let (library, sender) = &mut room[at];
        let text = (library.client_event)("presence-room", &data);
        sender.send(&text);
        for n in (0..room.len()).filter(|n| *n != at) {
            let found: Value = serde_json::from_str(&room[n].1.text()).expect("JSON");
            // All of them read a string here, and the user beside it.
            let text = found["data"].as_str().expect("a string").replace(r"\/", "/");
            assert_eq!(text, data.to_string());
            let user_id = at.to_string();
            let expected = json!({"event": "client-typing", "channel": "presence-room", "data": found["data"], "user_id": user_id});
            assert_eq!(found, expected);
        }
    }
    let (library, mut leaver) = room.pop().expect("a client");
    leaver.send(&(library.request)("pusher:unsubscribe", &json!({"channel": "presence-room"})));
    let removed = message("pusher_internal:member_removed", "presence-room", r#"{"user_id":"5"}"#);
    room.iter_mut().for_each(|(_, client)| client.expect(&removed));
    library.beat(&mut leaver);
    room.iter_mut().for_each(|(library, client)| library.beat(client));
}
