//! Users: sign-in, and messages to a user.

use super::client::{Pusher, error, message, options, refused, signed_in, succeeded};
use crate::auth;
use crate::harness::{Admin, eventually, for_shards};
use crate::http::{Http, signed};
use crate::users::connect_as;
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    a_sign_in_echoes_what_the_backend_signed,
    a_sign_in_that_is_refused_leaves_the_connection,
    messages_to_a_user_reach_all_of_its_connections,
    only_the_user_may_subscribe_to_its_channel,
    the_channel_of_a_user_is_not_listed,
);

fn a_sign_in_echoes_what_the_backend_signed(shards: usize) {
    let server = options(shards).start();
    for user_data in [
        r#"{"id":"7"}"#,
        r#"{"id":"12345","user_info":{"name":"A"},"watchlist":[]}"#,
        " {\"user_info\" : [ 1 ], \"id\":\"é\\\"\\n\" }\n",
        r#"{"id":"auth0|7","id":"a@b.example"}"#,
    ] {
        for version in [4, 7] {
            let mut client = Pusher::speaking(&server, version);
            let text = client.sign_in_text(user_data);
            for _ in 0..3 {
                client.send(&text);
            }
            (0..3).for_each(|_| client.expect(&signed_in(user_data)));
            client.expect_nothing();
        }
    }
}

fn a_sign_in_that_is_refused_leaves_the_connection(shards: usize) {
    let server = options(shards).start();
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        let id = client.socket_id.clone();
        let good = r#"{"id":"7"}"#;
        let auth = auth::auth_of_user(&id, good);
        let wrong = |signed: &str, got: &str| {
            Some(format!("Invalid signature: Expected HMAC SHA256 hex digest of {id}::user::{signed}, but got {got}"))
        };
        let signature = &auth[auth::KEY.len() + 1..];
        let of = |user_data: &str| json!({"auth": auth::auth_of_user(&id, user_data), "user_data": user_data});
        let cases = [
            (json!({}), None),
            (json!({"user_data": good}), None),
            (json!({"auth": auth}), None),
            (json!({"auth": null, "user_data": good}), None),
            (json!({"auth": 7, "user_data": good}), None),
            (json!({"auth": auth, "user_data": {"id": "7"}}), None),
            (
                json!({"auth": "nope:00", "user_data": good}),
                Some("Invalid key in subscription auth data: 'nope'".into()),
            ),
            (json!({"auth": format!("{}:00", auth::KEY), "user_data": good}), wrong(good, "00")),
            (json!({"auth": auth, "user_data": r#"{"id":"8"}"#}), wrong(r#"{"id":"8"}"#, signature)),
            (json!({"auth": auth::auth(&id, "private-a", None), "user_data": good}), None),
            (of("{x"), None),
            (of(r#"{"id":5}"#), None),
            (of(r#"{"id":""}"#), None),
            (of(r#"{"id":null}"#), None),
            (of(r#"{"user_id":"7"}"#), None),
            (of(&format!(r#"{{"id":"{}"}}"#, "x".repeat(129))), None),
        ];
        for (data, message) in cases {
            client.send(&json!({"event": "pusher:signin", "data": data}).to_string());
            client.expect_error(message.as_deref());
        }
        client.expect_nothing();
        client.sign_in(good);
        client.send(&client.sign_in_text(r#"{"id":"8"}"#));
        client
            .expect(&error(None, "the connection is signed in as another user: open another connection for this user"));
        client.sign_in(good);
        let reply = Admin::connect(&server).ok(json!({"command": "publish", "user": "7", "event": "e"}));
        assert_eq!(reply["subscribers"], 1);
        client.expect(&message_to("e", "7", "null"));
        client.expect_nothing();
        drop(client);
        let mut admin = Admin::connect(&server);
        eventually("the user has left", || {
            admin.ok(json!({"command": "publish", "user": "7", "event": "e"}))["subscribers"] == 0
        });
    }
}

fn message_to(event: &str, id: &str, data: &str) -> String {
    let channel = Value::from(format!("#server-to-user-{id}"));
    format!(r#"{{"event":"{event}","channel":{channel},"data":{}}}"#, Value::from(data))
}

fn messages_to_a_user_reach_all_of_its_connections(shards: usize) {
    let server = options(shards).start();
    let ids = ["12", "auth0|7", "a@b.example", "é \"\\\n/:"];
    let mut clients: Vec<(usize, Pusher)> = (0..8).map(|n| (n % 4, Pusher::connect(&server))).collect();
    for (of, client) in &mut clients {
        client.sign_in(&json!({"id": ids[*of]}).to_string());
    }
    let mut natives: Vec<_> = ids.iter().map(|id| connect_as(&server, id)).collect();
    let mut other = Pusher::connect(&server);
    other.subscribe("a");
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    for (at, id) in ids.iter().enumerate() {
        let reply = admin.ok(json!({"command": "publish", "user": id, "event": "note", "data": {"a": 1}}));
        assert_eq!(reply["subscribers"], 3);
        let event = json!({"name": "note", "channels": [format!("#server-to-user-{id}")], "data": "{\"a\": 1}"});
        assert_eq!(http.publish(&event.to_string()).status, 200);
        let event = json!({"batch": [{"name": "text", "channel": format!("#server-to-user-{id}"), "data": "17"}]});
        assert_eq!(http.publish_batch(&event.to_string()).status, 200);
        for (_, client) in clients.iter_mut().filter(|(of, _)| *of == at) {
            client.expect(&message_to("note", id, r#"{"a":1}"#));
            client.expect(&message_to("note", id, "{\"a\": 1}"));
            client.expect(&message_to("text", id, "17"));
        }
        natives[at].expect(r#"{"event":"note","data":{"a":1}}"#);
        natives[at].expect(r#"{"event":"note","data":{"a": 1}}"#);
        natives[at].expect(r#"{"event":"text","data":17}"#);
    }
    let exclude = clients[0].1.socket_id.clone();
    let event = json!({"name": "both", "channels": ["a", "#server-to-user-12"], "data": "1", "socket_id": exclude});
    assert_eq!(http.publish(&event.to_string()).status, 200);
    other.expect(&message("both", "a", "1"));
    clients[4].1.expect(&message_to("both", "12", "1"));
    clients.iter_mut().for_each(|(_, client)| client.expect_nothing());
    other.expect_nothing();
}

fn only_the_user_may_subscribe_to_its_channel(shards: usize) {
    let server = options(shards).start();
    for version in [5, 7] {
        let (mut client, mut other) = (Pusher::speaking(&server, version), Pusher::speaking(&server, version));
        other.sign_in(r#"{"id":"8"}"#);
        let name = "#server-to-user-7";
        let why = "the channel belongs to a user: sign in as that user first";
        for client in [&mut client, &mut other] {
            let channel = Value::from(name);
            for auth in [
                r#","auth":"""#.to_owned(),
                String::new(),
                format!(r#","auth":"{}""#, auth::auth(&client.socket_id, name, None)),
            ] {
                client.send(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":{channel}{auth}}}}}"#));
                refused(version, name, "AuthError", 401, why).iter().for_each(|expected| client.expect(expected));
            }
            client.send(r##"{"event":"pusher:subscribe","data":{"channel":"#server-to-user-"}}"##);
            assert!(client.text().contains("subscription_error"));
            (0..if version == 5 { 2 } else { 1 }).for_each(|_| drop(client.text()));
            client.send(&json!({"event": "client-e", "channel": name, "data": 1}).to_string());
            client.expect_error(None);
        }
        let reply = Admin::connect(&server).ok(json!({"command": "publish", "user": "7", "event": "e"}));
        assert_eq!(reply["subscribers"], 0);
        client.sign_in(r#"{"id":"7"}"#);
        for auth in [r#","auth":"""#, "", r#","auth":null"#] {
            client.send(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}"{auth}}}}}"#));
            client.expect(&succeeded(name));
        }
        // Leaving it changes nothing.
        client.unsubscribe(name);
        let reply = Admin::connect(&server).ok(json!({"command": "publish", "user": "7", "event": "e", "data": 1}));
        assert_eq!(reply["subscribers"], 1);
        client.expect(&message_to("e", "7", "1"));
        client.send(&json!({"event": "client-e", "channel": name, "data": 1}).to_string());
        client.expect_error(None);
        other.expect_nothing();
        client.expect_nothing();
        drop(client);
        let mut admin = Admin::connect(&server);
        eventually("the user has left", || {
            admin.ok(json!({"command": "publish", "user": "7", "event": "e"}))["subscribers"] == 0
        });
    }
}

fn the_channel_of_a_user_is_not_listed(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    client.sign_in(r#"{"id":"7"}"#);
    client.send(r##"{"event":"pusher:subscribe","data":{"channel":"#server-to-user-7"}}"##);
    client.expect(&succeeded("#server-to-user-7"));
    client.subscribe("a");
    let answer = Http::connect(&server).get(&signed("GET", "/apps/1/channels", &[], ""));
    assert_eq!(answer.body, r#"{"channels":{"a":{}}}"#);
    let reply = Admin::connect(&server).ok(json!({"command": "connection", "socket_id": client.socket_id}));
    assert_eq!((&reply["channels"], &reply["subscriptions"]), (&json!(["a"]), &json!(1)));
}
