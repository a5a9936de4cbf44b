//! Presence channels: members, their order, grace, limits.

use super::client::{Pusher, error, message, options, refused};
use crate::auth;
use crate::harness::{Admin, Options, eventually, for_shards};
use crate::http::{Http, signed};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

for_shards!(
    and_over_tls,
    members_come_and_go_by_user,
    a_user_that_is_back_within_the_grace_is_not_removed,
    a_user_is_removed_after_the_grace,
    ids_are_strings_and_every_id_has_a_hash,
    channel_data_must_name_a_user,
    a_sign_in_stands_for_channel_data,
    a_full_channel_takes_members_that_are_present,
    sizes_are_limited,
    a_member_sees_nothing_of_itself,
    a_public_count_is_not_told,
);

fn without_grace(shards: usize) -> Options {
    options(shards).arg("--presence-grace", 0)
}

fn added(user: &str, info: &str) -> String {
    message(
        "pusher_internal:member_added",
        "presence-a",
        &format!(r#"{{"user_id":{},"user_info":{info}}}"#, Value::from(user)),
    )
}

fn removed(user: &str) -> String {
    message("pusher_internal:member_removed", "presence-a", &json!({"user_id": user}).to_string())
}

fn members_come_and_go_by_user(shards: usize) {
    let server = without_grace(shards).start();
    let mut first = Pusher::connect(&server);
    let text = first.subscribe_text("presence-a", Some(r#"{"user_id":"11","user_info":{"name":"A"}}"#));
    first.send(&text);
    first.expect(&message(
        "pusher_internal:subscription_succeeded",
        "presence-a",
        r#"{"presence":{"count":1,"ids":["11"],"hash":{"11":{"name":"A"}}}}"#,
    ));
    let mut second = Pusher::connect(&server);
    second.send(&second.subscribe_text("presence-a", Some(r#"{"user_id":"12"}"#)));
    second.expect(&message(
        "pusher_internal:subscription_succeeded",
        "presence-a",
        r#"{"presence":{"count":2,"ids":["11","12"],"hash":{"11":{"name":"A"},"12":{}}}}"#,
    ));
    first.expect(&added("12", "{}"));
    // More connections of a user: no event, and the first user_info holds.
    let mut again: Vec<Pusher> = (0..4).map(|_| Pusher::connect(&server)).collect();
    for client in &mut again {
        client.send(&client.subscribe_text("presence-a", Some(r#"{"user_id":"12","user_info":"other"}"#)));
        let members = client.members("presence-a");
        assert_eq!(members, json!({"count": 2, "ids": ["11", "12"], "hash": {"11": {"name": "A"}, "12": {}}}));
    }
    second.unsubscribe("presence-a");
    drop(second);
    again.drain(..2);
    again[0].unsubscribe("presence-a");
    let mut admin = Admin::connect(&server);
    eventually("two connections are left", || admin.subscribers("presence-a") == 2);
    admin.publish("presence-a", "fence", json!(1));
    first.expect(&message("fence", "presence-a", "1"));
    drop(again);
    first.expect(&removed("12"));
    let mut third = Pusher::connect(&server);
    assert_eq!(third.join("presence-a", "12")["ids"], json!(["11", "12"]));
    first.expect(&added("12", "{}"));
    third.unsubscribe("presence-a");
    first.expect(&removed("12"));
    first.expect_nothing();
    third.expect_nothing();
}

fn a_user_that_is_back_within_the_grace_is_not_removed(shards: usize) {
    let server = options(shards).arg("--presence-grace", 3600).start();
    let mut first = Pusher::connect(&server);
    first.join("presence-a", "11");
    let mut second = Pusher::connect(&server);
    second.join("presence-a", "12");
    first.expect(&added("12", "{}"));
    let mut admin = Admin::connect(&server);
    for _ in 0..3 {
        drop(second);
        eventually("it has left", || admin.subscribers("presence-a") == 1);
        second = Pusher::connect(&server);
        let members = second.join("presence-a", "12");
        assert_eq!(members, json!({"count": 2, "ids": ["11", "12"], "hash": {"11": {}, "12": {}}}));
        second.unsubscribe("presence-a");
        second.join("presence-a", "12");
    }
    admin.publish("presence-a", "fence", json!(1));
    first.expect(&message("fence", "presence-a", "1"));
    let answer = Http::connect(&server).get(&signed("GET", "/apps/1/channels/presence-a/users", &[], ""));
    assert_eq!(answer.body, r#"{"users":[{"id":"11"},{"id":"12"}]}"#);
}

fn a_user_is_removed_after_the_grace(shards: usize) {
    // The default is 3 s.
    let server = options(shards).start();
    let (mut first, mut second) = (Pusher::connect(&server), Pusher::connect(&server));
    first.join("presence-a", "11");
    second.join("presence-a", "12");
    first.expect(&added("12", "{}"));
    let begin = Instant::now();
    drop(second);
    first.expect(&removed("12"));
    assert!(begin.elapsed() > Duration::from_millis(2500), "{:?}", begin.elapsed());
    first.expect_nothing();
}

fn ids_are_strings_and_every_id_has_a_hash(shards: usize) {
    let server = without_grace(shards).start();
    let mut first = Pusher::connect(&server);
    first.join("presence-a", "11");
    for (channel_data, id, info) in [
        (r#"{"user_id":10}"#, "10", "{}"),
        (r#"{"user_id":1.50e3,"user_info":true}"#, "1.50e3", "true"),
        (r#"{"user_id":18446744073709551616,"user_info":null}"#, "18446744073709551616", "null"),
        (r#"{"user_info":{"user_id":"x","a":[1e999]},"user_id":"é\"\\ "}"#, "é\"\\ ", r#"{"user_id":"x","a":[1e999]}"#),
        (r#"{"user_id":"\",\"user_info\":","other":1}"#, "\",\"user_info\":", "{}"),
        (r#"{"user_id":"a\u0062","user_info":"text"}"#, "ab", "\"text\""),
    ] {
        let mut client = Pusher::connect(&server);
        client.send(&client.subscribe_text("presence-a", Some(channel_data)));
        let hash = format!(r#"{{"11":{{}},{}:{info}}}"#, Value::from(id));
        let ids = json!(["11", id]);
        let data = format!(r#"{{"presence":{{"count":2,"ids":{ids},"hash":{hash}}}}}"#);
        client.expect(&message("pusher_internal:subscription_succeeded", "presence-a", &data));
        first.expect(&added(id, info));
        drop(client);
        first.expect(&removed(id));
    }
    // A number and the string of its digits are one user.
    let (mut number, mut string) = (Pusher::connect(&server), Pusher::connect(&server));
    number.send(&number.subscribe_text("presence-a", Some(r#"{"user_id":10}"#)));
    number.members("presence-a");
    first.expect(&added("10", "{}"));
    assert_eq!(string.join("presence-a", "10")["count"], 2);
    drop((number, string));
    first.expect(&removed("10"));
    first.expect_nothing();
}

fn channel_data_must_name_a_user(shards: usize) {
    let server = options(shards).start();
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        let no_member = "channel_data must hold a JSON object with a user_id";
        let no_id = "user_id in channel_data must be a number or a string of Unicode text, of 1 to 128 bytes";
        for (channel_data, why) in [
            ("", no_member),
            ("{x", no_member),
            ("5", no_member),
            ("null", no_member),
            (r#"["11"]"#, no_member),
            ("{}", no_id),
            (r#"{"user_id":""}"#, no_id),
            (r#"{"user_id":null}"#, no_id),
            (r#"{"user_id":true}"#, no_id),
            (r#"{"user_id":{"a":1}}"#, no_id),
            (r#"{"user_id":["11"]}"#, no_id),
            (r#"{"user_id":"\ud83d"}"#, no_id),
            (r#"{"id":"11"}"#, no_id),
        ] {
            client.send(&client.subscribe_text("presence-a", Some(channel_data)));
            for expected in refused(version, "presence-a", "InvalidData", 400, why) {
                assert_eq!(client.text(), expected, "{channel_data}");
            }
        }
        // The signature is judged before what it signs.
        let data = json!({"channel": "presence-a", "auth": format!("{}:00", auth::KEY), "channel_data": "{x"});
        client.send(&json!({"event": "pusher:subscribe", "data": data}).to_string());
        assert!(client.text().contains(r#"\"type\":\"AuthError\""#));
        (0..if version == 5 { 2 } else { 1 }).for_each(|_| drop(client.text()));
        client.send(&client.subscribe_text("presence-a", None));
        let why = "presence-a is a presence channel and subscription must include channel_data";
        refused(version, "presence-a", "AuthError", 401, why).iter().for_each(|expected| client.expect(expected));
        client.join("presence-a", "11");
    }
}

fn a_sign_in_stands_for_channel_data(shards: usize) {
    let server = options(shards).start();
    let (mut client, mut other) = (Pusher::connect(&server), Pusher::connect(&server));
    other.join("presence-a", "11");
    client.send(&client.sign_in_text(r#"{"id":"12","user_info":[1]}"#));
    // At once: the sign-in is under way.
    client.send(&client.subscribe_text("presence-a", None));
    client.expect(&super::client::signed_in(r#"{"id":"12","user_info":[1]}"#));
    assert_eq!(client.members("presence-a"), json!({"count": 2, "ids": ["11", "12"], "hash": {"11": {}, "12": [1]}}));
    other.expect(&added("12", "[1]"));
    client.unsubscribe("presence-a");
    // A channel_data wins.
    assert_eq!(client.join("presence-b", "13")["ids"], json!(["13"]));
}

fn a_full_channel_takes_members_that_are_present(shards: usize) {
    let server = without_grace(shards).start();
    let mut clients: Vec<Pusher> = (0..100).map(|_| Pusher::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.join("presence-a", &n.to_string())["count"], n + 1);
    }
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        client.send(&client.subscribe_text("presence-a", Some(r#"{"user_id":"x"}"#)));
        let why = "the channel has 100 members, the limit: subscribe again later";
        refused(version, "presence-a", "LimitReached", 403, why).iter().for_each(|expected| client.expect(expected));
        // It was not subscribed, and may be now as another user.
        assert_eq!(client.join("presence-a", "7")["count"], 100);
        // The signature is judged before the limit.
        let mut wrong = Pusher::connect(&server);
        let data = json!({"channel": "presence-a", "auth": "nope:00", "channel_data": r#"{"user_id":"x"}"#});
        wrong.send(&json!({"event": "pusher:subscribe", "data": data}).to_string());
        assert!(wrong.text().contains(r#"\"status\":401"#));
    }
    drop(clients.pop());
    let mut client = Pusher::connect(&server);
    eventually("there is room", || {
        client.send(&client.subscribe_text("presence-a", Some(r#"{"user_id":"x"}"#)));
        let is_in = client.text().contains("subscription_succeeded");
        if !is_in {
            client.expect_error(None);
        }
        is_in
    });
}

fn sizes_are_limited(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    let data = |id: usize, info: usize| {
        format!(r#"{{"user_id":"{}","user_info":"{}"}}"#, "x".repeat(id), "y".repeat(info - 2))
    };
    client.send(&client.subscribe_text("presence-a", Some(&data(129, 10))));
    let why = "user_id in channel_data must be a number or a string of Unicode text, of 1 to 128 bytes";
    refused(7, "presence-a", "InvalidData", 400, why).iter().for_each(|expected| client.expect(expected));
    client.send(&client.subscribe_text("presence-a", Some(&data(128, 1025))));
    let why = "user_info has 1025 bytes, over the limit of 1024: the backend must sign less";
    refused(7, "presence-a", "LimitReached", 403, why).iter().for_each(|expected| client.expect(expected));
    client.send(&client.subscribe_text("presence-a", Some(&data(128, 1024))));
    assert_eq!(client.members("presence-a")["count"], 1);
}

fn a_member_sees_nothing_of_itself(shards: usize) {
    let server = without_grace(shards).start();
    let mut clients: Vec<Pusher> = (0..3).map(|_| Pusher::connect(&server)).collect();
    for client in &mut clients {
        assert_eq!(client.join("presence-a", "11")["count"], 1);
    }
    let mut other = Pusher::connect(&server);
    other.join("presence-a", "12");
    clients.iter_mut().for_each(|client| client.expect(&added("12", "{}")));
    // The messages of the channel follow the list of members.
    let mut admin = Admin::connect(&server);
    admin.publish("presence-a", "e", json!(1));
    clients.iter_mut().for_each(|client| client.expect(&message("e", "presence-a", "1")));
    other.expect(&message("e", "presence-a", "1"));
    let text = clients[0].subscribe_text("presence-a", Some(r#"{"user_id":"13"}"#));
    clients[0].send(&text);
    clients[0].expect(&error(None, "Existing subscription to channel presence-a"));
    clients.iter_mut().for_each(Pusher::expect_nothing);
    other.expect_nothing();
}

fn a_public_count_is_not_told(shards: usize) {
    let server = options(shards).config("[[channel]]\nmatch = \"counted\"\npresence = \"count\"\n").start();
    let mut client = Pusher::connect(&server);
    client.subscribe("counted");
    let mut native = crate::harness::Client::connect(&server);
    native.send(&crate::harness::subscribe("counted"));
    native.expect(r#"{"event":"socket:subscribed","channel":"counted","data":{"presence":{"count":2}}}"#);
    let _third = {
        let mut third = crate::harness::Client::connect(&server);
        third.send(&crate::harness::subscribe("counted"));
        third.text();
        third
    };
    native.expect(r#"{"event":"socket:presence","channel":"counted","data":{"count":3}}"#);
    client.expect_nothing();
}
