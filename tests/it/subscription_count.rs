//! How many subscribers a channel has, as Pusher's clients are told.

use crate::harness::{Admin, Client, Server, for_shards};
use crate::pusher_peer::{Pusher, connect, options};
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    every_subscriber_is_told_each_change,
    the_cached_event_precedes_the_count,
    beyond_a_hundred_the_count_is_told_now_and_then,
    presence_channels_and_servers_without_the_option_tell_nothing,
);

fn with_counts(shards: usize) -> Server {
    options(shards).arg("--pusher-subscription-count", "on").start()
}

#[track_caller]
fn expect_count(client: &mut Client, channel: &str, count: usize) {
    let data = client.expect_event("pusher_internal:subscription_count", Some(channel));
    assert_eq!(data, json!({"subscription_count": count}));
}

fn every_subscriber_is_told_each_change(shards: usize) {
    let server = with_counts(shards);
    let mut clients: Vec<Client> = Vec::new();
    for n in 1..=6 {
        let mut client = connect(&server);
        client.ask_to_subscribe("news");
        client.expect(r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}"#);
        clients.push(client);
        clients.iter_mut().for_each(|client| expect_count(client, "news", n));
    }
    let mut native = Client::connect(&server);
    native.subscribe("news");
    clients.iter_mut().for_each(|client| expect_count(client, "news", 7));
    let mut left = clients.swap_remove(0);
    left.leave("news");
    clients.iter_mut().for_each(|client| expect_count(client, "news", 6));
    left.expect_silence();
    drop(clients.swap_remove(1));
    clients.iter_mut().for_each(|client| expect_count(client, "news", 5));
    native.unsubscribe("news");
    clients.iter_mut().for_each(|client| expect_count(client, "news", 4));
    native.expect_nothing_before_pong();
    let stats = server.stats();
    assert_eq!(stats["subscription_counts"], 10);
}

fn the_cached_event_precedes_the_count(shards: usize) {
    let server = with_counts(shards);
    let mut first = connect(&server);
    first.join("cache-a");
    first.expect(r#"{"event":"pusher:cache_miss","channel":"cache-a","data":"{}"}"#);
    expect_count(&mut first, "cache-a", 1);
    assert_eq!(Admin::connect(&server).publish("cache-a", "e", json!(7)), 1);
    assert_eq!(first.expect_event("e", Some("cache-a")), json!(7));
    let mut second = connect(&server);
    second.join("cache-a");
    assert_eq!(second.expect_event("e", Some("cache-a")), json!(7));
    expect_count(&mut second, "cache-a", 2);
    expect_count(&mut first, "cache-a", 2);
}

fn beyond_a_hundred_the_count_is_told_now_and_then(shards: usize) {
    let server = with_counts(shards);
    let mut first = connect(&server);
    first.join("news");
    let mut natives: Vec<Client> = (0..100).map(|_| Client::connect(&server)).collect();
    natives.iter_mut().for_each(|client| client.subscribe("news"));
    (1..=101).for_each(|n| expect_count(&mut first, "news", n));
    let mut late: Vec<Client> = (0..3).map(|_| connect(&server)).collect();
    for (n, client) in late.iter_mut().enumerate() {
        client.join("news");
        expect_count(client, "news", 102 + n);
    }
    // Told of all three at once, unless they took longer than the pause.
    let mut told: Vec<Value> = Vec::new();
    while told.last() != Some(&json!({"subscription_count": 104})) {
        told.push(first.expect_event("pusher_internal:subscription_count", Some("news")));
    }
    assert!(told.len() < 3, "{told:?}");
}

fn presence_channels_and_servers_without_the_option_tell_nothing(shards: usize) {
    let server = with_counts(shards);
    let mut client = connect(&server);
    client.sign_in(r#"{"id":"7"}"#);
    let auth = crate::auth::auth(&client.socket_id, "presence-a", None);
    client.send(&json!({"event": "pusher:subscribe", "data": {"channel": "presence-a", "auth": auth}}).to_string());
    client.expect_event("pusher_internal:subscription_succeeded", Some("presence-a"));
    client.expect_silence();
    let server = options(shards).start();
    let mut client = connect(&server);
    client.join("news");
    client.expect_silence();
    let stats = server.stats();
    assert_eq!((&stats["subscription_counts"], &stats["deliveries_late"]), (&json!(0), &json!(0)));
}
