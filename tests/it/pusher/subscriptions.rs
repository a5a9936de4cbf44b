//! Subscriptions: signatures, refusals, duplicates, limits.

use super::client::{Pusher, error, message, options, refused, succeeded};
use crate::auth::{self, KEY};
use crate::harness::{Admin, Server, eventually, for_shards};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

for_shards!(
    and_over_tls,
    prefixes_count_at_the_start_of_a_name_and_whole,
    a_signature_is_accepted_in_either_spelling_and_case,
    what_is_not_signed_is_refused,
    names_that_are_not_legal_are_refused,
    a_second_subscription_is_refused_and_the_first_stays,
    a_channel_may_be_left_and_entered_again_at_once,
    a_connection_has_a_limited_number_of_subscriptions,
    too_many_changes_wait,
    an_operator_unsubscribes_without_a_word,
    many_subscriptions_come_back_at_once,
);

fn prefixes_count_at_the_start_of_a_name_and_whole(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    let longest = "x".repeat(200);
    for channel in [
        "news",
        "my-private-x",
        "privateer",
        "private",
        "presence",
        "presences-x",
        "my-presence-x",
        "Private-x",
        "cached",
        "my-cache-x",
        "a:b/c@d,e.f;g=h_i-J9",
        &longest,
    ] {
        for auth in [r#","auth":"""#, "", r#","auth":"k:nonsense""#, r#","auth":7,"channel_data":{}"#] {
            client.send(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"{auth}}}}}"#));
            client.expect(&succeeded(channel));
            client.unsubscribe(channel);
        }
    }
    for channel in ["private-x", "presence-x", "private-encrypted-x", "private-cache-x", "presence-cache-x", "private-"]
    {
        client.send(&json!({"event": "pusher:subscribe", "data": {"channel": channel}}).to_string());
        assert!(client.text().contains(r#"\"type\":\"AuthError\""#), "{channel}");
        assert!(client.text().starts_with(r#"{"event":"pusher:error""#));
    }
    client.expect_nothing();
}

fn a_signature_is_accepted_in_either_spelling_and_case(shards: usize) {
    let server = options(shards).arg("--key", "second:another-secret-1").start();
    let mut client = Pusher::connect(&server);
    let (high, low) = client.socket_id.split_once('.').expect("two numbers");
    let bits = u128::from(high.parse::<u64>().expect("a number")) << 64 | u128::from(low.parse::<u64>().expect("one"));
    let hex = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
    let uuid = parts.join("-");
    for channel in ["private-a", "private-encrypted-a", "private-a;b,c@d"] {
        let dotted = auth::auth(&client.socket_id, channel, None);
        let (key, signature) = dotted.split_once(':').expect("a colon");
        for auth in [
            dotted.clone(),
            format!("{key}:{}", signature.to_uppercase()),
            auth::auth(&uuid, channel, None),
            auth::auth_by("second", "another-secret-1", &client.socket_id, channel, None),
        ] {
            client.send(&json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth}}).to_string());
            client.expect(&succeeded(channel));
            client.unsubscribe(channel);
        }
        for channel_data in ["", "any text", r#"{"user_id":"1"}"#] {
            let text = client.subscribe_text(channel, Some(channel_data));
            client.send(&text);
            client.expect(&succeeded(channel));
            client.unsubscribe(channel);
        }
    }
}

fn what_is_not_signed_is_refused(shards: usize) {
    let server = options(shards).start();
    for version in 4..=7 {
        let mut client = Pusher::speaking(&server, version);
        let id = client.socket_id.clone();
        let good = auth::auth(&id, "private-a", None);
        let (_, signature) = good.split_once(':').expect("a colon");
        let wrong = |signed: &str, got: &str| {
            format!("Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {got}")
        };
        let missing = "auth is missing: a private channel needs a signature from the backend";
        let not_text =
            "auth is not a signature of this socket_id, channel and channel_data: request one from the backend";
        let other_channel = auth::auth(&id, "private-b", None);
        let other_socket = auth::auth("1.2", "private-a", None);
        let cases = [
            (json!({}), missing.to_owned()),
            (json!({"auth": null}), missing.to_owned()),
            (json!({"auth": 7}), not_text.to_owned()),
            (json!({"auth": good, "channel_data": {"user_id": "1"}}), not_text.to_owned()),
            (json!({"auth": format!("nope:{signature}")}), "Invalid key in subscription auth data: 'nope'".to_owned()),
            (json!({"auth": format!("{KEY}:00")}), wrong(&format!("{id}:private-a"), "00")),
            (json!({"auth": ""}), wrong(&format!("{id}:private-a"), "")),
            (json!({"auth": other_channel}), wrong(&format!("{id}:private-a"), &other_channel[KEY.len() + 1..])),
            (json!({"auth": other_socket}), wrong(&format!("{id}:private-a"), &other_socket[KEY.len() + 1..])),
            (json!({"auth": good, "channel_data": "x\"y"}), wrong(&format!("{id}:private-a:x\"y"), signature)),
        ];
        for (members, text) in cases {
            let mut data = members.clone();
            data["channel"] = "private-a".into();
            client.send(&json!({"event": "pusher:subscribe", "data": data}).to_string());
            for expected in refused(version, "private-a", "AuthError", 401, &text) {
                assert_eq!(client.text(), expected, "{members}");
            }
        }
        client.subscribe("private-a");
        client.expect_nothing();
    }
}

fn names_that_are_not_legal_are_refused(shards: usize) {
    let server = options(shards).start();
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        let long = "x".repeat(201);
        for channel in ["a b", &long, "", "#x", "presence-a:b", "private-a:b", "é", "a\"b\\c", "a\nb"] {
            let text = client.subscribe_text(channel, None);
            client.send(&text);
            let first = client.text();
            let data: Value = serde_json::from_str(&first).expect("JSON");
            let data: Value = serde_json::from_str(data["data"].as_str().expect("a string")).expect("JSON");
            let why = data["error"].as_str().expect("a text");
            let expected = refused(version, channel, "InvalidChannel", 400, why);
            assert_eq!(first, expected[0]);
            expected[1..].iter().for_each(|expected| client.expect(expected));
        }
        client.expect_nothing();
    }
}

fn a_second_subscription_is_refused_and_the_first_stays(shards: usize) {
    let server = options(shards).start();
    let mut admin = Admin::connect(&server);
    for version in [4, 7] {
        let mut client = Pusher::speaking(&server, version);
        for channel in ["news", "private-a", "cache-a"] {
            let text = client.subscribe_text(channel, None);
            // Together: the second comes while the first is under way.
            for _ in 0..3 {
                client.send(&text);
            }
            client.expect(&succeeded(channel));
            if channel == "cache-a" && version == 4 {
                client.expect(&message("pusher:cache_miss", channel, "{}"));
            } else if channel == "cache-a" {
                client.expect(&message("e", channel, "1"));
            }
            for _ in 0..2 {
                client.expect(&error(None, &format!("Existing subscription to channel {channel}")));
            }
            assert_eq!(admin.publish(channel, "e", json!(1)), 1);
            client.expect(&message("e", channel, "1"));
        }
        client.join("presence-a", "1");
        let text = client.subscribe_text("presence-a", Some(r#"{"user_id":"2"}"#));
        client.send(&text);
        client.expect(&error(None, "Existing subscription to channel presence-a"));
        client.expect_nothing();
        for channel in ["news", "private-a", "cache-a", "presence-a"] {
            client.unsubscribe(channel);
        }
        drop(client);
        eventually("the channels are empty", || admin.subscribers("presence-a") == 0);
    }
}

fn a_channel_may_be_left_and_entered_again_at_once(shards: usize) {
    const ROUNDS: usize = 100;
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    let text = client.subscribe_text("private-a", None);
    for _ in 0..ROUNDS {
        client.send(&text);
        client.send(r#"{"event":"pusher:unsubscribe","data":{"channel":"private-a"}}"#);
    }
    client.send(&text);
    (0..=ROUNDS).for_each(|_| client.expect(&succeeded("private-a")));
    let mut admin = Admin::connect(&server);
    for n in 0..10 {
        assert_eq!(admin.publish("private-a", "e", json!(n)), 1);
    }
    (0..10).for_each(|n| client.expect(&message("e", "private-a", &n.to_string())));
    client.expect_nothing();
}

fn a_connection_has_a_limited_number_of_subscriptions(shards: usize) {
    let server = options(shards).arg("--max-subscriptions", 2).start();
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        // The channel of its user is not counted.
        client.sign_in(r#"{"id":"7"}"#);
        client.send(r##"{"event":"pusher:subscribe","data":{"auth":"","channel":"#server-to-user-7"}}"##);
        client.expect(&succeeded("#server-to-user-7"));
        client.subscribe("a");
        client.subscribe("private-b");
        let text = client.subscribe_text("c", None);
        client.send(&text);
        let why = "the connection has 2 subscriptions, the limit: unsubscribe from a channel first";
        refused(version, "c", "LimitReached", 403, why).iter().for_each(|expected| client.expect(expected));
        client.unsubscribe("a");
        client.subscribe("c");
    }
}

fn too_many_changes_wait(shards: usize) {
    // Ten at once, then five a second.
    let server = options(shards).arg("--max-subscribes-per-second", 1).arg("--max-subscriptions", 20).start();
    let mut client = Pusher::connect(&server);
    let begin = Instant::now();
    for n in 0..10 {
        client.send(&client.subscribe_text(&format!("c{n}"), None));
        client.send(&json!({"event": "pusher:unsubscribe", "data": {"channel": format!("c{n}")}}).to_string());
    }
    for n in 0..3 {
        client.send(&client.subscribe_text(&format!("d{n}"), None));
    }
    client.send(r#"{"event":"pusher:ping"}"#);
    (0..10).for_each(|n| client.expect(&succeeded(&format!("c{n}"))));
    (0..3).for_each(|n| client.expect(&succeeded(&format!("d{n}"))));
    client.expect(super::client::PONG);
    assert!(begin.elapsed() > Duration::from_millis(1500), "nothing waited: {:?}", begin.elapsed());
    let stats = server.stats();
    assert_eq!(stats["subscribes_rate_limited"], 0);
}

fn an_operator_unsubscribes_without_a_word(shards: usize) {
    let server = options(shards).arg("--presence-grace", 3600).start();
    let (mut client, mut other) = (Pusher::connect(&server), Pusher::connect(&server));
    client.join("presence-a", "1");
    other.join("presence-a", "2");
    assert!(client.text().contains("member_added"));
    let mut admin = Admin::connect(&server);
    admin.ok(json!({"command": "unsubscribe", "socket_id": client.socket_id, "channel": "presence-a"}));
    assert_eq!(admin.publish("presence-a", "e", json!(1)), 1);
    other.expect(&message("e", "presence-a", "1"));
    client.expect_nothing();
    client.join("presence-a", "1");
}

/// Replies that may be long are sent one at a time: the other requests wait, also those of a client that connected a moment
/// ago.
fn many_subscriptions_come_back_at_once(shards: usize) {
    let server: Server = options(shards).start();
    let names: Vec<String> = (0..50)
        .map(|n| match n % 5 {
            0 => format!("public-{n}"),
            1 => format!("private-{n}"),
            2 => format!("presence-{n}"),
            3 => format!("cache-{n}"),
            _ => format!("private-encrypted-{n}"),
        })
        .collect();
    for _ in 0..5 {
        let mut client = Pusher::connect(&server);
        for name in &names {
            let channel_data = name.starts_with("presence-").then_some(r#"{"user_id":"7"}"#);
            let text = client.subscribe_text(name, channel_data);
            client.send(&text);
        }
        for name in &names {
            if name.starts_with("presence-") {
                assert_eq!(client.members(name), json!({"count": 1, "ids": ["7"], "hash": {"7": {}}}));
                continue;
            }
            client.expect(&succeeded(name));
            if name.starts_with("cache-") {
                client.expect(&message("pusher:cache_miss", name, "{}"));
            }
        }
        client.expect_nothing();
    }
}
