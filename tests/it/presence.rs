//! Presence: who is in a channel, how subscribers learn of changes, and the limits.

use crate::auth::auth;
use crate::harness::{
    Admin, Client, Options, Server, assert_error, corecast, eventually, for_shards, not_subscribed, output, subscribe,
    subscribed, unsubscribe, unsubscribed,
};
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    a_newcomer_is_sent_the_list_and_the_others_an_event,
    a_user_with_several_connections_is_one_member,
    a_user_is_removed_after_its_grace,
    a_user_that_returns_within_its_grace_is_not_removed,
    without_a_grace_a_user_is_removed_at_once,
    a_full_channel_refuses_new_users,
    a_user_in_its_grace_makes_room,
    a_refused_subscriber_is_not_counted,
    a_wrong_channel_data_is_refused,
    a_channel_with_history_has_both_in_its_reply,
    events_have_a_place_in_the_channels_order,
    counts_are_told_once_a_second,
    operators_see_the_count,
    a_reload_decides_whether_counts_are_told,
    operators_see_the_members,
    members_are_events,
);

const ROOM: &str = "presence-room";

fn options(shards: usize) -> Options {
    Server::options(shards).arg("--key", crate::auth::key())
}

/// The data of a subscribe as this user.
fn data(client: &Client, channel: &str, channel_data: &str) -> String {
    let auth = auth(&client.socket_id, channel, Some(channel_data));
    json!({"event": "socket:subscribe", "data": {"channel": channel, "auth": auth, "channel_data": channel_data}})
        .to_string()
}

fn user(id: &str) -> String {
    json!({"user_id": id}).to_string()
}

/// The reply to a subscribe of a channel with these members.
fn welcome(members: &[&str]) -> String {
    let (count, members) = (members.len(), members.join(","));
    let presence = format!(r#"{{"presence":{{"count":{count},"members":[{members}]}}}}"#);
    format!(r#"{{"event":"socket:subscribed","channel":"{ROOM}","data":{presence}}}"#)
}

fn added(user: &str) -> String {
    format!(r#"{{"event":"socket:member_added","channel":"{ROOM}","data":{user}}}"#)
}

fn removed(id: &str) -> String {
    format!(r#"{{"event":"socket:member_removed","channel":"{ROOM}","data":{{"user_id":"{id}"}}}}"#)
}

/// Connects, and asks to subscribe to the room.
fn ask(server: &Server, channel_data: &str) -> Client {
    let mut client = Client::connect(server);
    client.send(&data(&client, ROOM, channel_data));
    client
}

/// Connects, and subscribes to the room as this user, which makes `count` members.
#[track_caller]
fn join(server: &Server, id: &str, count: usize) -> Client {
    let mut client = ask(server, &user(id));
    let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!((&reply["event"], &reply["data"]["presence"]["count"]), (&json!("socket:subscribed"), &json!(count)));
    client
}

fn a_newcomer_is_sent_the_list_and_the_others_an_event(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<Client> = Vec::new();
    let mut members: Vec<String> = Vec::new();
    for (channel_data, member) in [
        (
            r#"{"user_id":"11","user_info":{"name" : "Ä\u00e9", "n":1e999}}"#,
            r#"{"user_id":"11","user_info":{"name" : "Ä\u00e9", "n":1e999}}"#,
        ),
        (r#"{"user_id":12}"#, r#"{"user_id":"12"}"#),
        (r#"{"user_info":null,"user_id":"a\"b"}"#, r#"{"user_id":"a\"b","user_info":null}"#),
        (r#"{"user_id":"\u0031"}"#, r#"{"user_id":"1"}"#),
    ] {
        members.push(member.to_owned());
        let mut client = ask(&server, channel_data);
        client.expect(&welcome(&members.iter().map(String::as_str).collect::<Vec<_>>()));
        clients.iter_mut().for_each(|client| client.expect(&added(member)));
        clients.push(client);
    }
    clients.iter_mut().for_each(Client::expect_nothing_before_pong);
    assert_eq!((server.stat("presence_joins"), server.stat("presence_members")), (4, 4));
}

fn a_user_with_several_connections_is_one_member(shards: usize) {
    let server = options(shards).arg("--presence-grace", "0").start();
    let mut watcher = join(&server, "watcher", 1);
    let first = r#"{"user_id":"11","user_info":1}"#;
    let list = [r#"{"user_id":"watcher"}"#, first];
    let mut connections: Vec<Client> = (0..4)
        .map(|n| {
            // Another user_info, and another spelling of the id: the first connection's counts.
            let mut client = ask(&server, if n == 0 { first } else { r#"{"user_id":11,"user_info":2}"# });
            client.expect(&welcome(&list));
            client
        })
        .collect();
    watcher.expect(&added(first));
    while let Some(mut last) = connections.pop() {
        watcher.expect_nothing_before_pong();
        last.unsubscribe(ROOM);
        connections.iter_mut().for_each(Client::expect_nothing_before_pong);
        last.expect_nothing_before_pong();
    }
    watcher.expect(&removed("11"));
}

fn a_user_is_removed_after_its_grace(shards: usize) {
    let server = &options(shards).config("presence-grace = 3600\n").start();
    let mut watcher = join(server, "watcher", 1);
    let mut client = join(server, "11", 2);
    watcher.expect(&added(&user("11")));
    client.unsubscribe(ROOM);
    // It is still a member.
    let other = join(server, "12", 3);
    watcher.expect(&added(&user("12")));
    watcher.expect_nothing_before_pong();
    // Applies also to users that have left.
    server.changes("presence-grace = 0.3\n");
    watcher.expect(&removed("11"));
    drop(other);
    watcher.expect(&removed("12"));
    client.expect_nothing_before_pong();
    assert_eq!((server.stat("presence_leaves"), server.stat("presence_members")), (2, 1));
    client.send(&data(&client, ROOM, &user("11")));
    client.expect(&welcome(&[&user("watcher"), &user("11")]));
}

fn a_user_that_returns_within_its_grace_is_not_removed(shards: usize) {
    let server = options(shards).arg("--presence-grace", "600").start();
    let mut watcher = join(&server, "watcher", 1);
    for n in 0..3 {
        let client = join(&server, "11", 2);
        if n == 0 {
            watcher.expect(&added(&user("11")));
        }
        drop(client);
        let left = || Admin::connect(&server).subscribers(ROOM) == 1;
        eventually("the end of the connection", left);
    }
    watcher.expect_nothing_before_pong();
    assert_eq!((server.stat("presence_joins"), server.stat("presence_leaves")), (2, 0));
}

fn without_a_grace_a_user_is_removed_at_once(shards: usize) {
    let server = options(shards).arg("--presence-grace", "0").start();
    let mut watcher = join(&server, "watcher", 1);
    let mut client = Client::connect(&server);
    for _ in 0..5 {
        client.send(&data(&client, ROOM, &user("11")));
        client.send(&unsubscribe(ROOM));
        client.expect(&welcome(&[&user("watcher"), &user("11")]));
        client.expect(&unsubscribed(ROOM));
        watcher.expect(&added(&user("11")));
        watcher.expect(&removed("11"));
    }
    client.expect_nothing_before_pong();
}

fn a_full_channel_refuses_new_users(shards: usize) {
    let server = options(shards).arg("--presence-members", 2).start();
    let mut first = join(&server, "11", 1);
    let second = join(&server, "12", 2);
    first.expect(&added(&user("12")));
    let mut third = ask(&server, &user("13"));
    assert_error(&third.text(), "socket:subscribe.error", Some(ROOM), "presence_full");
    join(&server, "12", 2);
    // Another channel has room.
    let other = "presence-other";
    third.send(&data(&third, other, &user("13")));
    third.expect(&welcome(&[&user("13")]).replace(ROOM, other));
    [first, second].iter_mut().for_each(Client::expect_nothing_before_pong);
    assert_eq!((server.stat("presence_full"), server.stat("presence_evicted_early")), (1, 0));
}

fn a_user_in_its_grace_makes_room(shards: usize) {
    let server = options(shards).arg("--presence-members", 3).arg("--presence-grace", "600").start();
    let mut watcher = join(&server, "watcher", 1);
    let mut leavers = [join(&server, "11", 2), join(&server, "12", 3)];
    for id in ["11", "12"] {
        watcher.expect(&added(&user(id)));
    }
    leavers[1].expect_nothing_before_pong();
    leavers[1].unsubscribe(ROOM);
    leavers[0].expect(&added(&user("12")));
    leavers[0].unsubscribe(ROOM);
    // The one that left first.
    let mut newcomer = ask(&server, &user("13"));
    newcomer.expect(&welcome(&[&user("watcher"), &user("11"), &user("13")]));
    watcher.expect(&removed("12"));
    watcher.expect(&added(&user("13")));
    // A user in its grace gets in.
    join(&server, "11", 3);
    watcher.expect_nothing_before_pong();
    assert_eq!((server.stat("presence_full"), server.stat("presence_evicted_early")), (0, 1));
}

fn a_refused_subscriber_is_not_counted(shards: usize) {
    let server = options(shards).arg("--presence-members", 1).arg("--presence-grace", "0").start();
    let mut member = join(&server, "11", 1);
    let mut client = Client::connect(&server);
    for _ in 0..3 {
        client.send(&data(&client, ROOM, &user("12")));
        assert_error(&client.text(), "socket:subscribe.error", Some(ROOM), "presence_full");
        client.send(&unsubscribe(ROOM));
        client.expect(&not_subscribed(ROOM));
    }
    // Requests that were sent before the refusal.
    client.send(&data(&client, ROOM, &user("12")));
    client.send(&unsubscribe(ROOM));
    assert_error(&client.text(), "socket:subscribe.error", Some(ROOM), "presence_full");
    let reply = client.text();
    assert!(reply == unsubscribed(ROOM) || reply == not_subscribed(ROOM), "{reply}");
    assert_eq!(Admin::connect(&server).publish(ROOM, "e", json!(1)), 1);
    member.expect(&format!(r#"{{"event":"e","channel":"{ROOM}","data":1}}"#));
    // A refused connection ends, and another: the member is still counted.
    let mut refused = ask(&server, &user("12"));
    assert_error(&refused.text(), "socket:subscribe.error", Some(ROOM), "presence_full");
    drop((refused, ask(&server, &user("12"))));
    drop(client);
    eventually("the end of all connections but one", || server.stat("connections") == 1);
    assert_eq!(Admin::connect(&server).subscribers(ROOM), 1);
    member.unsubscribe(ROOM);
    join(&server, "12", 1);
}

fn a_wrong_channel_data_is_refused(shards: usize) {
    let server = options(shards).start();
    let mut client = Client::connect(&server);
    let longest = "x".repeat(128);
    let refused = [
        "",
        "[]",
        "{}",
        r#"{"user_id":""}"#,
        r#"{"user_id":null}"#,
        r#"{"user_id":true}"#,
        &format!(r#"{{"user_id":"{longest}x"}}"#),
        &format!(r#"{{"user_id":"1","user_info":"{}"}}"#, "x".repeat(1023)),
    ];
    for channel_data in refused {
        client.send(&data(&client, ROOM, channel_data));
        let reply = client.text();
        assert_error(&reply, "socket:subscribe.error", Some(ROOM), "invalid_data");
    }
    // Without channel_data the signature is that of a private channel, and valid.
    let private = json!({"channel": ROOM, "auth": auth(&client.socket_id, ROOM, None)});
    for (data, code) in [
        (private, "invalid_data"),
        (json!({"channel": ROOM, "channel_data": user("11")}), "auth_required"),
        (json!({"channel": ROOM, "auth": "a:b", "channel_data": user("11")}), "auth_invalid"),
        (
            json!({"channel": ROOM, "auth": auth(&client.socket_id, ROOM, Some(&user("12"))), "channel_data": user("11")}),
            "auth_invalid",
        ),
        (json!({"channel": "presence-a:b", "auth": "", "channel_data": user("11")}), "invalid_channel"),
    ] {
        client.send(&json!({"event": "socket:subscribe", "data": data}).to_string());
        let reply = client.text();
        assert_error(&reply, "socket:subscribe.error", data["channel"].as_str(), code);
    }
    let largest = format!(r#"{{"user_id":"{longest}","user_info":"{}"}}"#, "x".repeat(1022));
    client.send(&data(&client, ROOM, &largest));
    client.expect(&welcome(&[&largest]));
}

fn a_channel_with_history_has_both_in_its_reply(shards: usize) {
    let server = options(shards).start();
    let channel = "presence-cache-room";
    let mut first = Client::connect(&server);
    let reply = |client: &mut Client, id: &str| -> Value {
        client.send(&data(client, channel, &user(id)));
        serde_json::from_str(&client.text()).expect("JSON")
    };
    let before = reply(&mut first, "11");
    Admin::connect(&server).publish(channel, "e", json!(7));
    let message: Value = serde_json::from_str(&first.text()).expect("JSON");
    let mut second = Client::connect(&server);
    let reply = reply(&mut second, "12");
    let presence = json!({"count": 2, "members": [{"user_id": "11"}, {"user_id": "12"}]});
    assert_eq!(reply["data"]["presence"], presence);
    assert_eq!(reply["data"]["epoch"], before["data"]["epoch"]);
    assert_eq!(reply["data"]["offset"].as_u64().map(|offset| offset + 1), message["offset"].as_u64());
    assert_eq!(serde_json::from_str::<Value>(&second.text()).expect("JSON"), message, "the greeting");
    // Events have no offset, and are not kept.
    first.expect(&added(&user("12")).replace(ROOM, channel));
    let mut third = Client::connect(&server);
    third.send(&data(&third, channel, &user("13")));
    let reply: Value = serde_json::from_str(&third.text()).expect("JSON");
    assert_eq!(reply["data"]["presence"]["count"], 3);
    assert_eq!(serde_json::from_str::<Value>(&third.text()).expect("JSON"), message);
    third.expect_nothing_before_pong();
}

/// Several connections of users that come and go while messages are published: all see the same order.
fn events_have_a_place_in_the_channels_order(shards: usize) {
    let server = options(shards).arg("--presence-grace", "0").start();
    let mut watchers: Vec<Client> = (0..4).map(|n| join(&server, &format!("watcher{n}"), n + 1)).collect();
    for (n, watcher) in watchers.iter_mut().enumerate() {
        (n + 1..4).for_each(|other| watcher.expect(&added(&user(&format!("watcher{other}")))));
    }
    let mut guests: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    let mut admin = Admin::connect(&server);
    for round in 0..10 {
        for (n, guest) in guests.iter_mut().enumerate() {
            guest.send(&data(guest, ROOM, &user(&format!("guest{n}"))));
            guest.send(&unsubscribe(ROOM));
        }
        admin.publish(ROOM, "e", json!(round));
    }
    let seen: Vec<Vec<String>> = watchers.iter_mut().map(|watcher| (0..90).map(|_| watcher.text()).collect()).collect();
    assert!(seen.iter().all(|order| *order == seen[0]), "subscribers see different orders");
    for n in 0..4 {
        let id = format!("guest{n}");
        let events: Vec<_> = seen[0].iter().filter(|text| text.contains(&id)).map(String::as_str).collect();
        let expected = [added(&user(&id)), removed(&id)];
        let expected: Vec<_> = expected.iter().map(String::as_str).cycle().take(20).collect();
        assert_eq!(events, expected);
    }
    watchers.iter_mut().for_each(Client::expect_nothing_before_pong);
}

fn counts_are_told_once_a_second(shards: usize) {
    let server = Server::options(shards).config("[[channel]]\nmatch = \"room:*\"\npresence = \"count\"\n").start();
    let reply = |count: usize| {
        let data = format!(r#"{{"presence":{{"count":{count}}}}}"#);
        format!(r#"{{"event":"socket:subscribed","channel":"room:1","data":{data}}}"#)
    };
    let told = |count: usize| format!(r#"{{"event":"socket:presence","channel":"room:1","data":{{"count":{count}}}}}"#);
    let mut clients: Vec<Client> = Vec::new();
    for n in 1..=10 {
        let mut client = Client::connect(&server);
        client.send(&subscribe("room:1"));
        // The counts of a second ago may come before the subscribe.
        client.expect(&reply(n));
        clients.push(client);
    }
    // Each is told the final count, and each count at most once.
    for client in &mut clients {
        let counts: Vec<String> =
            std::iter::repeat_with(|| client.text()).take_while(|text| *text != told(10)).collect();
        assert!(counts.is_sorted() && counts.len() < 9, "{counts:?}");
    }
    clients.truncate(3);
    for client in &mut clients {
        let last = std::iter::repeat_with(|| client.text()).find(|text| *text == told(3));
        assert!(last.is_some());
        client.expect_nothing_before_pong();
    }
    // A public channel that no rule names.
    clients[0].subscribe("other");
    clients[1].subscribe("other");
    clients[0].expect_nothing_before_pong();
}

const COUNTED: &str = "[[channel]]\nmatch = \"room:*\"\npresence = \"count\"\n";

fn told(count: usize) -> String {
    format!(r#"{{"event":"socket:presence","channel":"room:1","data":{{"count":{count}}}}}"#)
}

/// Of a channel that only counts: the connections, and no names.
fn operators_see_the_count(shards: usize) {
    let server = Server::options(shards).config(COUNTED).start();
    let mut admin = Admin::connect(&server);
    let mut check = |channel: &str, count: usize| {
        let reply = admin.ok(json!({"command": "members", "channel": channel}));
        assert_eq!(reply, json!({"id": null, "ok": true, "count": count, "members": []}));
    };
    check("room:1", 0);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&subscribe("room:1"));
        let reply = std::iter::repeat_with(|| client.text()).find(|text| text.contains("socket:subscribed"));
        assert!(reply.is_some_and(|reply| reply.contains(&format!(r#"{{"presence":{{"count":{}}}}}"#, n + 1))));
        check("room:1", n + 1);
        // A count may come before the reply.
        client.send(&subscribe("other"));
        let reply = std::iter::repeat_with(|| client.text()).find(|text| *text == subscribed("other"));
        assert!(reply.is_some());
    }
    check("other", 0);
    clients[0].send(&unsubscribe("room:1"));
    let left = std::iter::repeat_with(|| clients[0].text()).find(|text| *text == unsubscribed("room:1"));
    assert!(left.is_some());
    check("room:1", 4);
    let shown = server.run(&["members", "room:1"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "4 connections without names\n");
}

/// Subscribers that are there are told the count from the reload on, and no longer after the next one.
fn a_reload_decides_whether_counts_are_told(shards: usize) {
    let server = Server::options(shards).config("").start();
    let mut clients: Vec<Client> = (0..2 * shards + 1).map(|_| Client::connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("room:1"));
    let count = clients.len();
    assert_eq!(server.changes(COUNTED).len(), 1);
    clients.iter_mut().for_each(|client| client.expect(&told(count)));
    let mut late = Client::connect(&server);
    late.send(&subscribe("room:1"));
    let data = format!(r#"{{"presence":{{"count":{}}}}}"#, count + 1);
    late.expect(&format!(r#"{{"event":"socket:subscribed","channel":"room:1","data":{data}}}"#));
    clients.iter_mut().for_each(|client| client.expect(&told(count + 1)));
    let mut admin = Admin::connect(&server);
    let members = |admin: &mut Admin| admin.ok(json!({"command": "members", "channel": "room:1"}))["count"].take();
    assert_eq!(members(&mut admin), count + 1);

    assert_eq!(server.changes("").len(), 1);
    // A reload applies to a channel some turns later.
    eventually("it is not counted any more", || members(&mut admin) == 0);
    let mut last = Client::connect(&server);
    last.send(&subscribe("room:1"));
    last.expect(&subscribed("room:1"));
    drop(late);
    eventually("the end of the connection", || admin.subscribers("room:1") == count as u64 + 1);
    // Longer than the pause between two counts.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    clients.iter_mut().for_each(Client::expect_nothing_before_pong);
    last.expect_nothing_before_pong();
}

fn operators_see_the_members(shards: usize) {
    let server = options(shards).arg("--presence-grace", "600").start();
    let mut admin = Admin::connect(&server);
    let members = |admin: &mut Admin| admin.ok(json!({"command": "members", "channel": ROOM}));
    assert_eq!(members(&mut admin), json!({"id": null, "ok": true, "count": 0, "members": []}));
    let mut first = ask(&server, r#"{"user_id":"11","user_info":{"a": [1]}}"#);
    first.text();
    let mut second = join(&server, "12", 2);
    join(&server, "11", 2).unsubscribe(ROOM);
    let again = join(&server, "11", 2);
    second.unsubscribe(ROOM);
    let reply = members(&mut admin);
    let expected = json!([
        {"user_id": "11", "user_info": {"a": [1]}, "connections": 2},
        {"user_id": "12", "connections": 0},
    ]);
    assert_eq!((&reply["count"], &reply["members"]), (&json!(2), &expected));
    drop(again);
    // An operator ends a subscription: the client is told, and its user is in its grace.
    admin.ok(json!({"command": "unsubscribe", "socket_id": first.socket_id, "channel": ROOM}));
    first.expect(&added(&user("12")));
    first.expect(&unsubscribed(ROOM));
    eventually("the end of the other connection", || members(&mut admin)["members"][0]["connections"] == 0);
    assert_eq!(members(&mut admin)["count"], 2);
    assert_eq!(admin.ok(json!({"command": "members", "channel": "public"}))["count"], 0);
}

fn members_are_events(shards: usize) {
    let server = options(shards).arg("--presence-grace", "0.2").start();
    let _early = join(&server, "early", 1);
    let mut admin = Admin::connect(&server);
    admin.ok(json!({"command": "events"}));
    let mut next = || -> Value {
        let line: Value = serde_json::from_str(&admin.line()).expect("JSON");
        line
    };
    let mut snapshot = Vec::new();
    loop {
        let line = next();
        snapshot.push(line.clone());
        if line["event"] == "snapshot_end" {
            assert_eq!(line["members"], 1);
            break;
        }
    }
    let place = |event: &str| snapshot.iter().position(|line| line["event"] == event).expect(event);
    assert!(place("channel_occupied") < place("member_added"), "{snapshot:?}");
    assert_eq!(snapshot[place("member_added")]["user_id"], "early");
    let mut of_channels =
        || std::iter::repeat_with(&mut next).find(|line| !line["channel"].is_null()).expect("an event");
    let mut expect = |event: &str, channel: &str, user_id: Option<&str>| {
        let line = of_channels();
        let found = (line["event"].as_str(), line["channel"].as_str(), line["user_id"].as_str());
        assert_eq!(found, (Some(event), Some(channel), user_id), "{line}");
    };
    drop(join(&server, "a\"b", 2));
    expect("member_added", ROOM, Some("a\"b"));
    expect("member_removed", ROOM, Some("a\"b"));
    // A channel is occupied before its first member is added, and vacated after its last one was removed.
    let mut client = Client::connect(&server);
    client.send(&data(&client, "presence-b", &user("11")));
    client.text();
    expect("channel_occupied", "presence-b", None);
    expect("member_added", "presence-b", Some("11"));
    drop(client);
    expect("member_removed", "presence-b", Some("11"));
    expect("channel_vacated", "presence-b", None);
}

#[test]
fn the_command_line_subscribes_as_a_user() {
    let server = options(2).start();
    let url = format!("ws://{}", server.address);
    let subscribe = |args: &[&str]| {
        let key = crate::auth::key();
        output(corecast(&[&["subscribe", ROOM, "--url", &url, "--key", &key, "--count", "1"], args].concat()), b"")
    };
    let refused = subscribe(&["--user-id", "11", "--user-info", "no JSON"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--user-info is not valid JSON"), "{refused:?}");
    let refused = subscribe(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("invalid_data"), "{refused:?}");
    std::thread::scope(|scope| {
        let subscriber = scope.spawn(|| subscribe(&["--user-id", "1\"1", "--user-info", r#" {"a" : 1} "#]));
        eventually("it has subscribed", || Admin::connect(&server).subscribers(ROOM) == 1);
        let mut other = ask(&server, &user("12"));
        other.expect(&welcome(&[r#"{"user_id":"1\"1","user_info":{"a" : 1}}"#, &user("12")]));
        Admin::connect(&server).publish(ROOM, "e", json!(1));
        let printed = subscriber.join().expect("no panic");
        let message = format!(r#"{{"event":"e","channel":"{ROOM}","data":1}}"#);
        assert_eq!(String::from_utf8_lossy(&printed.stdout), format!("{}\n{message}\n", added(&user("12"))));
    });
}

/// What an operator sees of a subscribe that the owner decides.
#[test]
fn a_tail_shows_whether_the_owner_let_a_user_in() {
    let server = options(4).arg("--presence-members", 1).start();
    let mut tail = Admin::connect(&server);
    tail.ok(json!({"command": "tail", "events": ["subscribe"]}));
    let mut result = || {
        let line: Value = serde_json::from_str(&tail.line()).expect("JSON");
        (line["channel"].as_str().map(str::to_owned), line["result"].as_str().map(str::to_owned))
    };
    let _member = join(&server, "11", 1);
    assert_eq!(result(), (Some(ROOM.into()), Some("ok".into())));
    let mut refused = ask(&server, &user("12"));
    refused.text();
    assert_eq!(result(), (Some(ROOM.into()), Some("presence_full".into())));
    refused.send(&json!({"event": "socket:subscribe", "data": {"channel": ROOM}}).to_string());
    refused.text();
    assert_eq!(result(), (Some(ROOM.into()), Some("auth_required".into())));
}
