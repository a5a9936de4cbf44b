//! What clients send: requests in every form, and messages that are not requests.

use super::client::{PONG, Pusher, error, options, signed_in, succeeded};
use crate::auth;
use crate::harness::{Admin, for_shards, frame, opcode};
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    pings_are_answered_whatever_their_data,
    members_come_in_any_order_and_others_are_ignored,
    data_may_be_a_string_that_holds_an_object,
    null_counts_as_absent,
    messages_that_are_not_requests_are_answered_and_the_connection_stays,
    an_unsubscribe_is_never_answered,
    binary_and_long_messages_end_the_connection,
);

fn pings_are_answered_whatever_their_data(shards: usize) {
    let server = options(shards).start();
    for version in 4..=7 {
        let mut client = Pusher::speaking(&server, version);
        for data in
            ["", r#","data":{}"#, r#","data":"""#, r#","data":null"#, r#","data":[1,{}]"#, r#","data":"\ud83d""#]
        {
            client.send(&format!(r#"{{"event":"pusher:ping"{data}}}"#));
            client.expect(PONG);
            client.send(&format!(r#"{{"event":"pusher:pong"{data}}}"#));
        }
        client.send(r#"{"event":"pusher:\u0070ing"}"#);
        client.expect(PONG);
        client.expect_nothing();
    }
}

fn members_come_in_any_order_and_others_are_ignored(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    for (n, text) in [
        r#"{"data":{"channel":"news-0"},"channel":"x","event":"pusher:subscribe"}"#,
        r#"{"channel":"x","event":"pusher:subscribe","data":{"auth":"","channel":"news-1"}}"#,
        r#" { "event" : "pusher:subscribe" , "id" : 7 , "data" : { "a" : [ ] , "channel" : "news-2" } } "#,
        r#"{"event":"foo","data":1,"event":"pusher:subscribe","data":{"channel":"x","channel":"news-3"}}"#,
        r#"{"\u0065vent":"pusher\u003asubscribe","data":{"channel":"news\u002d4"}}"#,
    ]
    .into_iter()
    .enumerate()
    {
        client.send(text);
        client.expect(&succeeded(&format!("news-{n}")));
    }
    client.expect_nothing();
}

fn data_may_be_a_string_that_holds_an_object(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    let as_string = |text: &str| {
        let mut request: Value = serde_json::from_str(text).expect("JSON");
        request["data"] = request["data"].to_string().into();
        request.to_string()
    };
    client.send(r#"{"event":"pusher:subscribe","data":"{\"channel\":\"n\"}"}"#);
    client.expect(&succeeded("n"));
    let text = as_string(&client.subscribe_text("private-a", None));
    client.send(&text);
    client.expect(&succeeded("private-a"));
    let text = as_string(&client.subscribe_text("presence-a", Some(r#"{"user_id":"é\""}"#)));
    client.send(&text);
    assert_eq!(client.members("presence-a")["ids"], json!(["é\""]));
    let text = as_string(&client.sign_in_text(r#"{"id":"7"}"#));
    client.send(&text);
    client.expect(&signed_in(r#"{"id":"7"}"#));
    client.send(r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"n\"}"}"#);
    client.expect_nothing();
    let mut admin = Admin::connect(&server);
    assert_eq!((admin.subscribers("n"), admin.subscribers("private-a")), (0, 1));
}

fn null_counts_as_absent(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"n","auth":null,"channel_data":null}}"#);
    client.expect(&succeeded("n"));
    let auth = auth::auth(&client.socket_id, "private-a", None);
    client.send(
        &json!({"event": "pusher:subscribe", "data": {"channel": "private-a", "auth": auth, "channel_data": null}})
            .to_string(),
    );
    client.expect(&succeeded("private-a"));
}

fn messages_that_are_not_requests_are_answered_and_the_connection_stays(shards: usize) {
    let server = options(shards).start();
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        client.send(r#"{"event":"foo"}"#);
        client.expect(&error(None, "Unsupported event received on socket: 'foo'"));
        for event in
            ["pusher:", "pusher:subscribed", "pusher_internal:member_added", "socket:subscribe", "Client-x", ""]
        {
            client.send(&json!({"event": event, "data": {"channel": "n"}, "channel": "n"}).to_string());
            client.expect_error(Some(&format!("Unsupported event received on socket: '{event}'")));
        }
        for text in [
            "",
            "{",
            "nothing",
            "null",
            "17",
            "[]",
            r#""pusher:ping""#,
            "{}",
            r#"{"event":null}"#,
            r#"{"event":5}"#,
            r#"{"event":{"a":1},"data":{}}"#,
            r#"{"event":"\ud83d"}"#,
            r#"{"event":"pusher:subscribe"}"#,
            r#"{"event":"pusher:subscribe","data":{}}"#,
            r#"{"event":"pusher:subscribe","data":null}"#,
            r#"{"event":"pusher:subscribe","data":[]}"#,
            r#"{"event":"pusher:subscribe","data":"n"}"#,
            r#"{"event":"pusher:subscribe","data":"{\"channel\":"}"#,
            r#"{"event":"pusher:subscribe","data":"\"{}\""}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":null}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":["n"]}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"\ud83d"}}"#,
            r#"{"event":"pusher:unsubscribe","data":"{}"}"#,
            r#"{"event":"pusher:unsubscribe","data":{"channel":1}}"#,
            r#"{"event":"pusher:signin","data":"\\"}"#,
            r#"{"event":"pusher:signin","data":{}}"#,
            r#"{"event":"client-x"}"#,
            r#"{"event":"client-x","channel":null,"data":1}"#,
        ] {
            client.send(text);
            client.expect_error(None);
        }
        client.subscribe("n");
        client.expect_nothing();
    }
}

fn an_unsubscribe_is_never_answered(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    for channel in ["news", "private-a", "presence-a", "a b", "", "#server-to-user-7", &"x".repeat(300)] {
        client.unsubscribe(channel);
    }
    client.subscribe("news");
    client.unsubscribe("news");
    client.unsubscribe("news");
    let mut admin = Admin::connect(&server);
    assert_eq!(admin.publish("news", "e", json!(1)), 0);
    client.expect_nothing();
    client.subscribe("news");
    assert_eq!(admin.publish("news", "e", json!(2)), 1);
    client.expect(r#"{"event":"e","channel":"news","data":"2"}"#);
}

fn binary_and_long_messages_end_the_connection(shards: usize) {
    let server = options(shards).arg("--max-message", 2048).start();
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        client.raw.write(&frame(opcode::BINARY, br#"{"event":"pusher:ping"}"#));
        client.expect_close(1003);
        let mut client = Pusher::speaking(&server, version);
        let ping = |len: usize| format!(r#"{{"event":"pusher:ping","data":"{}"}}"#, "x".repeat(len - 33));
        client.send(&ping(2048));
        client.expect(PONG);
        client.send(&ping(2049));
        client.expect_close(1009);
        let mut client = Pusher::speaking(&server, version);
        client.raw.write(&frame(opcode::TEXT, b"{\"event\":\"\xFF\"}"));
        client.expect_close(1007);
    }
}
