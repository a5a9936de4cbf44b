//! Native and Pusher's clients on one channel: one order, one list of members, equal values.

use super::client::{Pusher, message, options};
use crate::client_events::join;
use crate::harness::{Admin, Client, Server, eventually, for_shards, subscribe, unsubscribe};
use crate::http::{Http, signed};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::thread;

for_shards!(
    and_over_tls,
    publishers_of_all_kinds_have_one_order,
    both_dialects_see_one_list_of_members,
    a_user_may_speak_both_dialects,
    a_greeting_is_in_the_words_of_its_reader,
);

/// Connections until each shard has at least two.
fn on_every_shard(server: &Server, shards: usize) -> Vec<Pusher> {
    let mut clients: Vec<Pusher> = Vec::new();
    let mut admin = Admin::connect(server);
    loop {
        clients.push(Pusher::speaking(server, 4 + (clients.len() % 4) as u8));
        let reply = admin.ok(json!({"command": "connections"}));
        let of_shard = |shard: usize| {
            reply["connections"].as_array().expect("a list").iter().filter(|it| it["shard"] == shard).count()
        };
        if (0..shards).all(|shard| of_shard(shard) >= 2) {
            return clients;
        }
        assert!(clients.len() < 200, "a shard without connections: {reply}");
    }
}

/// A number as data, in either dialect.
fn number(text: &str) -> u64 {
    let value: Value = serde_json::from_str(text).expect("JSON");
    let number = value["data"].as_u64().or_else(|| value["data"].as_str()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {text}"))
}

fn publishers_of_all_kinds_have_one_order(shards: usize) {
    const EACH: u64 = 250;
    let server = options(shards).start();
    let mut clients = on_every_shard(&server, shards);
    clients.iter_mut().for_each(|client| client.subscribe("private-a"));
    let mut native = join(&server, "private-a", None);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut admin = Admin::connect(&server);
            (0..EACH).for_each(|n| _ = admin.publish("private-a", "e", json!(n)));
        });
        scope.spawn(|| {
            let mut http = Http::connect(&server);
            for n in EACH..2 * EACH {
                let event = json!({"name": "e", "channel": "private-a", "data": n.to_string()}).to_string();
                assert_eq!(http.publish(&event).status, 200);
            }
        });
        scope.spawn(|| {
            let mut http = Http::connect(&server);
            for from in (2 * EACH..4 * EACH).step_by(10) {
                let event = |n: u64| json!({"name": "e", "channel": "private-a", "data": n.to_string()});
                let batch: Vec<Value> = (from..from + 10).map(event).collect();
                assert_eq!(http.publish_batch(&json!({"batch": batch}).to_string()).status, 200);
            }
        });
    });
    let order: Vec<u64> = (0..4 * EACH).map(|_| number(&native.text())).collect();
    assert_eq!(order.iter().collect::<HashSet<_>>().len() as u64, 4 * EACH, "a double");
    for part in [0..EACH, EACH..2 * EACH, 2 * EACH..4 * EACH] {
        let of_one: Vec<u64> = order.iter().copied().filter(|n| part.contains(n)).collect();
        assert!(of_one.is_sorted(), "of one publisher");
    }
    for client in &mut clients {
        let found: Vec<u64> = (0..4 * EACH).map(|_| number(&client.text())).collect();
        assert_eq!(found, order);
        client.expect_nothing();
    }
    native.expect_nothing_before_pong();
}

/// What the two kinds of clients are told of a member that comes.
fn expect_added(id: &str, pushers: &mut [Pusher], natives: &mut [Client]) {
    let data = json!({"user_id": id, "user_info": {}}).to_string();
    pushers.iter_mut().for_each(|client| client.expect(&message("pusher_internal:member_added", "presence-a", &data)));
    let native = format!(r#"{{"event":"socket:member_added","channel":"presence-a","data":{{"user_id":"{id}"}}}}"#);
    natives.iter_mut().for_each(|client| client.expect(&native));
}

fn both_dialects_see_one_list_of_members(shards: usize) {
    let server = options(shards).arg("--presence-grace", 0).start();
    let (mut pushers, mut natives): (Vec<Pusher>, Vec<Client>) = (Vec::new(), Vec::new());
    let mut ids: Vec<String> = Vec::new();
    for n in 0..8 {
        ids.push(format!("u{n}"));
        if n % 2 == 0 {
            let mut client = Pusher::connect(&server);
            let members = client.join("presence-a", &ids[n]);
            assert_eq!((&members["ids"], &members["count"]), (&json!(ids), &json!(n + 1)));
            assert_eq!(members["hash"].as_object().map(|hash| hash.len()), Some(n + 1));
            expect_added(&ids[n], &mut pushers, &mut natives);
            pushers.push(client);
        } else {
            let mut client = Client::connect(&server);
            let channel_data = json!({"user_id": ids[n]}).to_string();
            let auth = crate::auth::auth(&client.socket_id, "presence-a", Some(&channel_data));
            let data = json!({"channel": "presence-a", "auth": auth, "channel_data": channel_data});
            client.send(&json!({"event": "socket:subscribe", "data": data}).to_string());
            let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
            let members: Vec<Value> = ids.iter().map(|id| json!({"user_id": id})).collect();
            assert_eq!(reply["data"]["presence"], json!({"count": n + 1, "members": members}));
            expect_added(&ids[n], &mut pushers, &mut natives);
            natives.push(client);
        }
    }
    let listed = Admin::connect(&server).ok(json!({"command": "members", "channel": "presence-a"}));
    let listed: Vec<&Value> =
        listed["members"].as_array().expect("a list").iter().map(|member| &member["user_id"]).collect();
    assert_eq!(json!(listed), json!(ids));
    let answer = Http::connect(&server).get(&signed("GET", "/apps/1/channels/presence-a/users", &[], ""));
    let expected: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
    assert_eq!(serde_json::from_str::<Value>(&answer.body).expect("JSON"), json!({"users": expected}));
    // One of each kind leaves.
    drop(pushers.remove(0));
    let removed = message("pusher_internal:member_removed", "presence-a", r#"{"user_id":"u0"}"#);
    let native =
        |id: &str| format!(r#"{{"event":"socket:member_removed","channel":"presence-a","data":{{"user_id":"{id}"}}}}"#);
    pushers.iter_mut().for_each(|client| client.expect(&removed));
    natives.iter_mut().for_each(|client| client.expect(&native("u0")));
    drop(natives.remove(0));
    pushers.iter_mut().for_each(|client| client.expect(&removed.replace("u0", "u1")));
    natives.iter_mut().for_each(|client| client.expect(&native("u1")));
}

fn a_user_may_speak_both_dialects(shards: usize) {
    let server = options(shards).arg("--presence-grace", 0).start();
    let mut watcher = Pusher::connect(&server);
    watcher.join("presence-a", "w");
    let mut pusher = Pusher::connect(&server);
    pusher.join("presence-a", "u");
    assert!(watcher.text().contains("member_added"));
    let mut native = join(&server, "presence-a", Some("u"));
    // One member, whose connections hear nothing of each other.
    watcher.expect_nothing();
    pusher.expect_nothing();
    native.expect_nothing_before_pong();
    pusher.send(r#"{"event":"client-e","channel":"presence-a","data":{"a": 1}}"#);
    native.expect(r#"{"event":"client-e","channel":"presence-a","data":{"a": 1},"user_id":"u"}"#);
    watcher.expect(r#"{"event":"client-e","channel":"presence-a","data":"{\"a\": 1}","user_id":"u"}"#);
    drop(pusher);
    let mut admin = Admin::connect(&server);
    eventually("one has left", || admin.subscribers("presence-a") == 2);
    watcher.expect_nothing();
    drop(native);
    watcher.expect(&message("pusher_internal:member_removed", "presence-a", r#"{"user_id":"u"}"#));
}

/// A native client comes and goes, and one of Pusher's comes, in the same turn of a shard.
fn a_greeting_is_in_the_words_of_its_reader(shards: usize) {
    let server = options(shards).start();
    let mut admin = Admin::connect(&server);
    admin.publish("cache-a", "e", json!({"a": 1}));
    for _ in 0..3 {
        let mut natives: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
        let mut pushers: Vec<Pusher> = (0..4).map(|_| Pusher::connect(&server)).collect();
        server.signal(Signal::STOP);
        eventually("the server is stopped", || server.is_stopped());
        for client in &mut natives {
            client.send(&subscribe("cache-a"));
            client.send(&unsubscribe("cache-a"));
        }
        for client in &mut pushers {
            client.send(&client.subscribe_text("cache-a", None));
        }
        server.signal(Signal::CONT);
        for client in &mut natives {
            assert!(client.text().starts_with(r#"{"event":"socket:subscribed","channel":"cache-a""#));
            assert!(client.text().starts_with(r#"{"event":"e","channel":"cache-a","data":{"a":1},"offset":"#));
            client.expect(&crate::harness::unsubscribed("cache-a"));
        }
        for client in &mut pushers {
            client.expect(&super::client::succeeded("cache-a"));
            client.expect(&message("e", "cache-a", r#"{"a":1}"#));
            client.expect_nothing();
        }
        drop((natives, pushers));
        eventually("all have left", || admin.subscribers("cache-a") == 0);
    }
}
