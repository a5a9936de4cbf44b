//! Watchlists of Pusher's clients: which of their users are online, and each change.

use crate::harness::{Client, Server, for_shards};
use crate::pusher_peer::{Pusher, connect, options};
use crate::users::connect_as;
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    a_client_is_told_who_is_online_and_each_change,
    a_list_of_more_than_a_hundred_is_cut,
    a_user_that_is_back_in_time_makes_no_event,
    watchlists_can_be_off,
);

fn user_data(id: &str, watchlist: Value) -> String {
    json!({"id": id, "watchlist": watchlist}).to_string()
}

fn watch(server: &Server, id: &str, watchlist: Value) -> Client {
    let mut client = connect(server);
    client.sign_in(&user_data(id, watchlist));
    client
}

#[track_caller]
fn expect_events(client: &mut Client, events: Value) {
    let data = client.expect_event("pusher_internal:watchlist_events", None);
    assert_eq!(data, json!({"events": events}));
}

fn a_client_is_told_who_is_online_and_each_change(shards: usize) {
    let server = options(shards).arg("--presence-grace", 0).start();
    let native = connect_as(&server, "7");
    let mut watchers: Vec<Client> =
        (0..6).map(|n| watch(&server, &format!("w{n}"), json!(["8", "7", "a|é"]))).collect();
    for client in &mut watchers {
        let first = json!([{"name": "online", "user_ids": ["7"]}, {"name": "offline", "user_ids": ["8", "a|é"]}]);
        expect_events(client, first);
        client.expect_silence();
    }
    let of_8 = watch(&server, "8", json!([]));
    let second = watch(&server, "8", json!(["8"]));
    let of_text = watch(&server, "a|é", json!([]));
    let mut in_turn = |events: Value| watchers.iter_mut().for_each(|client| expect_events(client, events.clone()));
    in_turn(json!([{"name": "online", "user_ids": ["8"]}]));
    in_turn(json!([{"name": "online", "user_ids": ["a|é"]}]));
    drop(of_8);
    drop(of_text);
    in_turn(json!([{"name": "offline", "user_ids": ["a|é"]}]));
    drop(native);
    in_turn(json!([{"name": "offline", "user_ids": ["7"]}]));
    drop(second);
    in_turn(json!([{"name": "offline", "user_ids": ["8"]}]));
    watchers.iter_mut().for_each(|client| client.expect_silence());
    let stats = server.stats();
    assert_eq!(stats["watches"], 18, "{}", stats);
    assert_eq!(stats["watchlist_events"], 6 * 6 + 1);
}

fn a_list_of_more_than_a_hundred_is_cut(shards: usize) {
    let server = options(shards).start();
    let ids: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let mut client = watch(&server, "7", json!(ids));
    let error: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!((&error["event"], &error["data"]["code"]), (&json!("pusher:error"), &json!(4302)));
    let rest: Vec<&String> = ids[..100].iter().filter(|id| **id != "7").collect();
    expect_events(&mut client, json!([{"name": "online", "user_ids": ["7"]}, {"name": "offline", "user_ids": rest}]));
    client.sign_in(&user_data("7", json!(["8"])));
    client.expect_silence();
}

fn a_user_that_is_back_in_time_makes_no_event(shards: usize) {
    let server = &options(shards).config("presence-grace = 3600\n").start();
    let first = watch(server, "8", json!([]));
    let mut client = watch(server, "7", json!(["8"]));
    expect_events(&mut client, json!([{"name": "online", "user_ids": ["8"]}]));
    drop(first);
    let second = watch(server, "8", json!([]));
    // No other user of the list comes: what follows is the end of the grace.
    let mut late = watch(server, "9", json!(["8"]));
    expect_events(&mut late, json!([{"name": "online", "user_ids": ["8"]}]));
    client.expect_silence();
    server.changes("presence-grace = 1\n");
    drop(second);
    expect_events(&mut client, json!([{"name": "offline", "user_ids": ["8"]}]));
}

fn watchlists_can_be_off(shards: usize) {
    let server = options(shards).arg("--pusher-watchlist", "off").start();
    let mut client = watch(&server, "7", json!(["7", "8"]));
    client.expect_silence();
}
