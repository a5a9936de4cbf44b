//! The admin socket: every command, every reply member, every refusal.

use crate::harness::{
    Admin, Client, LONG, RawClient, Server, assert_refused, eventually, for_shards, is_end, not_subscribed,
    second_spelling, shortened, subscribe, subscribed, text_frame, unsubscribe, unsubscribed,
};
use rustix::process::Signal;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Instant;

for_shards!(
    ids_are_echoed,
    publish_counts_and_delivers,
    publish_without_data,
    data_arrives_byte_for_byte,
    event_names_arrive_as_published,
    publish_to_several_channels,
    an_excluded_connection_does_not_receive_the_message,
    malformed_requests,
    unknown_members_are_refused,
    unknown_commands,
    missing_members,
    invalid_channels,
    reserved_events,
    not_found,
    too_large,
    channel_counts,
    channels_by_pages,
    connections_by_pages,
    subscribers_by_pages,
    connection_tells_everything,
    disconnect_closes,
    unsubscribe_by_the_admin,
    the_busiest_channels,
    stats_of_the_server_and_each_shard,
    gauges_equal_the_sum_of_the_listing,
    bad_lines_are_answered_and_the_next_is_read,
    lines_split_anywhere,
    a_line_beyond_the_limit_closes,
    a_last_line_without_its_newline_is_answered,
    requests_of_several_connections_do_not_mix,
    ten_thousand_pipelined_publishes,
    only_the_owner_may_connect,
);

/// The text that a publish arrives as.
fn message(event: &str, channel: &str, data: &str) -> String {
    format!(r#"{{"event":"{event}","channel":"{channel}","data":{data}}}"#)
}

const UNKNOWN_ID: &str = "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6";

fn ids_are_echoed(shards: usize) {
    #[derive(serde::Deserialize)]
    struct Reply {
        id: Box<RawValue>,
        ok: bool,
    }
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let long = "7".repeat(100);
    for id in ["1", "0", "-1", "1.0", "1e999", "-0", &long, r#""a""#, r#""""#, r#""\u0041\n\"é😀""#, "null"] {
        for request in [
            format!(r#"{{"id":{id},"command":"ping"}}"#),
            format!(r#"{{"command":"ping","id": {id} }}"#),
            format!(r#"{{"id":{id},"command":"publish","channel":"c","event":"e"}}"#),
        ] {
            let line = admin.ask(&request);
            let reply: Reply =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{request} → {line}: {error}"));
            assert!(reply.ok, "{request} → {line}");
            assert_eq!(reply.id.get(), id, "{request} → {line}");
        }
        let line = admin.ask(&format!(r#"{{"id":{id},"command":"nope"}}"#));
        let reply: Reply = serde_json::from_str(&line).expect("JSON");
        assert!(!reply.ok, "{line}");
        assert_eq!(reply.id.get(), id, "{line}");
    }
    assert_eq!(admin.request(json!({"command": "ping"})), json!({"id": null, "ok": true}));
    assert_eq!(admin.request(json!({"id": 7, "command": "ping"})), json!({"id": 7, "ok": true}));
}

fn publish_counts_and_delivers(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe("user:13");
        // Exact as soon as `subscribed` was sent.
        assert_eq!(admin.publish("user:13", "joined", json!(n)), n as u64 + 1);
    }
    let request =
        json!({"id": 1, "command": "publish", "channel": "user:13", "event": "order.paid", "data": {"id": 42}});
    assert_eq!(admin.request(request), json!({"id": 1, "ok": true, "subscribers": 12}));
    for (n, client) in clients.iter_mut().enumerate() {
        for joined in n..12 {
            client.expect(&message("joined", "user:13", &joined.to_string()));
        }
        client.expect(&message("order.paid", "user:13", r#"{"id":42}"#));
    }
    // Exact as soon as `unsubscribed` was sent; connections that remain receive the messages after each departure.
    for n in 0..clients.len() {
        clients[n].unsubscribe("user:13");
        assert_eq!(admin.publish("user:13", "left", json!(n)), 11 - n as u64);
        for client in &mut clients[n + 1..] {
            client.expect(&message("left", "user:13", &n.to_string()));
        }
    }
    for client in &mut clients {
        client.expect_nothing_before_pong();
    }
}

fn publish_without_data(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    admin.ok(json!({"id": 1, "command": "publish", "channel": "user:13", "event": "tick"}));
    client.expect(r#"{"event":"tick","channel":"user:13"}"#);
    admin.ok(json!({"id": 1, "command": "publish", "channel": "user:13", "event": "tick", "data": null}));
    client.expect(r#"{"event":"tick","channel":"user:13","data":null}"#);
}

fn data_arrives_byte_for_byte(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let digits = "9".repeat(100);
    let sizes = [124, 125, 126, 127, 65_535, 65_536, 200_000].map(|len| format!("\"{}\"", "x".repeat(len)));
    let mut all = vec![
        "0",
        "-0",
        "1.0",
        "1.50",
        "1e999",
        "-1E-999",
        "0.10e+01",
        "18446744073709551616",
        &digits,
        "true",
        "false",
        "null",
        r#""""#,
        r#""text""#,
        r#""\u00e9\ud83d\ude00\/\b\f\n\r\t\"\\""#,
        r#""\u0000\u001f""#,
        "\"é😀\u{7f}\u{2028}\"",
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "{ \"a\" :\t1 ,\r \"b\":[ 1 ,2,\t3 ] }",
        r#"{"a":1,"a":2}"#,
        r#"{"b":1,"a":2,"":3}"#,
        r#"{"data":{"data":"data"},"event":"socket:ping","channel":"other"}"#,
        r#""}],\"data\":2,{[""#,
        r#"["\\","\\\""]"#,
        r#"{"\u0064ata":"\u0064"}"#,
        &deep,
    ];
    all.extend(sizes.iter().map(String::as_str));
    for data in all {
        let expected = message("e", "user:13", data);
        for line in [
            format!(r#"{{"id":1,"command":"publish","channel":"user:13","event":"e","data":{data}}}"#),
            format!(
                "{{ \"data\" :\t {data} \r, \"event\":\"e\",\"command\" : \"publish\",\"id\":1,\"channel\":\"user:13\" }} \r"
            ),
        ] {
            assert_eq!(admin.ask(&line), r#"{"id":1,"ok":true,"subscribers":1}"#, "{}", shortened(&line));
            let found = client.text();
            assert!(found == expected, "{} arrived as {}", shortened(&expected), shortened(&found));
        }
    }
}

fn event_names_arrive_as_published(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    for event in
        ["order.paid", "order paid", "订单", "😀", "a\"b\\c\nd", "socket", "Socket:ping", " socket:ping", "client-x"]
    {
        assert_eq!(admin.publish("user:13", event, json!(1)), 1);
        let found: Value = serde_json::from_str(&client.text()).expect("JSON");
        assert_eq!(found, json!({"event": event, "channel": "user:13", "data": 1}));
    }
    admin.ask(r#"{"id":1,"command":"publish","channel":"user:13","event":"\u006frder"}"#);
    let found: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!(found, json!({"event": "order", "channel": "user:13"}));
}

fn publish_to_several_channels(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        for channel in ["a", "b", "c"].iter().skip(n) {
            client.subscribe(channel);
        }
    }
    // a: 1, b: 2, c: 3, d: none.
    let publish =
        |channels: &[&str]| json!({"id": 1, "command": "publish", "channels": channels, "event": "e", "data": 1});
    assert_eq!(admin.request(publish(&["a", "b", "c", "d"])), json!({"id": 1, "ok": true, "subscribers": 6}));
    assert_eq!(admin.request(publish(&["d"])), json!({"id": 1, "ok": true, "subscribers": 0}));
    assert_eq!(admin.request(publish(&["b"])), json!({"id": 1, "ok": true, "subscribers": 2}));
    for (n, client) in clients.iter_mut().enumerate() {
        // The order of messages of different channels is not defined, so the last of "b" may precede one of "c".
        let channels = &["a", "b", "b", "c"][[0, 1, 3][n]..];
        let mut found: Vec<String> = channels.iter().map(|_| client.text()).collect();
        found.sort();
        let expected: Vec<String> = channels.iter().map(|channel| message("e", channel, "1")).collect();
        assert_eq!(found, expected);
        client.expect_nothing_before_pong();
    }

    // A channel that is named twice gets one message.
    assert_eq!(admin.ok(publish(&["c", "a", "c", "c"]))["subscribers"], 4);
    for (client, channels) in clients.iter_mut().zip([&["a", "c"][..], &["c"], &["c"]]) {
        let mut found: Vec<String> = channels.iter().map(|_| client.text()).collect();
        found.sort();
        let expected: Vec<String> = channels.iter().map(|channel| message("e", channel, "1")).collect();
        assert_eq!(found, expected);
        client.expect_nothing_before_pong();
    }
    admin.refused(&publish(&["c"; 101]).to_string(), json!(1), "too_large");

    // A hundred are allowed, and one bad name publishes nothing.
    let hundred: Vec<String> = (0..100).map(|n| format!("h-{n}")).collect();
    for channel in &hundred[..10] {
        clients[0].subscribe(channel);
    }
    let hundred: Vec<&str> = hundred.iter().map(String::as_str).collect();
    assert_eq!(admin.ok(publish(&hundred))["subscribers"], 10);
    for _ in 0..10 {
        assert!(clients[0].text().starts_with(r#"{"event":"e","channel":"h-"#));
    }
    admin.refused(&publish(&["a", "b", "bad name", "c"]).to_string(), json!(1), "invalid_channel");
    admin.refused(&publish(&["a", "b", "presence-x:1"]).to_string(), json!(1), "invalid_channel");
    for client in &mut clients {
        client.expect_nothing_before_pong();
    }
}

fn an_excluded_connection_does_not_receive_the_message(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("user:13");
    }
    let mut other = Client::connect(&server);
    other.subscribe("user:14");
    let mut publish = |channels: Value, exclude: &str, data: u64| {
        let request = json!({"id": 1, "command": "publish", "channels": channels, "event": "e", "data": data, "exclude": exclude});
        admin.ok(request)["subscribers"].as_u64().expect("a number")
    };
    let mut data = 0;
    for excluded in 0..clients.len() {
        for spelling in [clients[excluded].socket_id.clone(), second_spelling(&clients[excluded].socket_id)] {
            data += 1;
            assert_eq!(publish(json!(["user:13"]), &spelling, data), 5);
            for (n, client) in clients.iter_mut().enumerate() {
                if n != excluded {
                    client.expect(&message("e", "user:13", &data.to_string()));
                }
            }
        }
    }
    // Connected and not subscribed; unknown; and after it has left the channel.
    for spelling in [other.socket_id.clone(), second_spelling(&other.socket_id), UNKNOWN_ID.into()] {
        data += 1;
        assert_eq!(publish(json!(["user:13"]), &spelling, data), 6);
        for client in &mut clients {
            client.expect(&message("e", "user:13", &data.to_string()));
        }
    }
    // It is excluded from each of several channels to which it is subscribed.
    let id = clients[0].socket_id.clone();
    assert_eq!(publish(json!(["user:13", "user:14"]), &id, 100), 6);
    other.expect(&message("e", "user:14", "100"));
    for client in &mut clients[1..] {
        client.expect(&message("e", "user:13", "100"));
    }
    clients[0].unsubscribe("user:13");
    assert_eq!(publish(json!(["user:13"]), &id, 101), 5);
    for client in &mut clients[1..] {
        client.expect(&message("e", "user:13", "101"));
    }
    for client in clients.iter_mut().chain([&mut other]) {
        client.expect_nothing_before_pong();
    }
    // Excluded messages among others, pipelined: only they are missing.
    let mut client = Client::connect(&server);
    client.subscribe("mixed");
    for n in 0..100 {
        let exclude = if n % 3 == 0 { format!(r#","exclude":"{}""#, client.socket_id) } else { String::new() };
        admin.send(&format!(r#"{{"id":{n},"command":"publish","channel":"mixed","event":"e","data":{n}{exclude}}}"#));
    }
    for n in 0..100 {
        assert_eq!(admin.line(), format!(r#"{{"id":{n},"ok":true,"subscribers":{}}}"#, u8::from(n % 3 != 0)));
    }
    for n in (0..100).filter(|n| n % 3 != 0) {
        client.expect(&message("e", "mixed", &n.to_string()));
    }
    client.expect_nothing_before_pong();
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn malformed_requests(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    // Not a JSON object: the reply has no id to echo.
    for line in [
        "",
        " ",
        "nonsense",
        "{",
        "}",
        "[]",
        "[{}]",
        "1",
        "null",
        "\"ping\"",
        "{} {}",
        "{\"id\":1,\"command\":\"ping\"",
        "{\"id\":1,\"command\":\"ping\"}}",
        "{\"id\":1,\"command\":\"ping\",}",
        "{\"id\":01,\"command\":\"ping\"}",
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":tru}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":nullx}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":01}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":1.}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":-}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":1e+}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":"\x"}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":"\u12"}"#,
        "{\"id\":1,\"command\":\"publish\",\"channel\":\"c\",\"event\":\"e\",\"data\":\"\t\"}",
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":[1,]}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":[1}}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":1 2}"#,
        r#"{"id":1,"command":"publish","channel":"c","event":"e","data":{a:1}}"#,
    ] {
        eprintln!("{line}"); // shown where the next line fails
        admin.refused(line, json!(null), "malformed_request");
    }
    for bytes in [
        &b"\xff\n"[..],
        b"{\"id\":1,\"command\":\"publish\",\"channel\":\"c\",\"event\":\"e\",\"data\":\"\xff\"}\n",
        b"{\"id\":1,\"command\":\"publish\",\"channel\":\"c\",\"event\":\"e\",\"data\":\"\xed\xa0\x80\"}\n",
        b"{\"id\":1,\"command\":\"publish\",\"channel\":\"c\",\"event\":\"\xc3\"}\n",
    ] {
        admin.write(bytes);
        let reply = admin.line();
        assert_refused(&bytes.escape_ascii().to_string(), &reply, json!(null), "malformed_request");
    }
    // An object, with a member that is not what it should be.
    for line in [
        r#"{"id":1,"command":5}"#.to_owned(),
        r#"{"id":1,"command":null}"#.to_owned(),
        r#"{"id":1,"command":"publish","channel":"c","event":5}"#.to_owned(),
        r#"{"id":1,"command":"publish","channel":5,"event":"e"}"#.to_owned(),
        r#"{"id":1,"command":"publish","channels":"c","event":"e"}"#.to_owned(),
        r#"{"id":1,"command":"publish","channels":["c",5],"event":"e"}"#.to_owned(),
        r#"{"id":1,"command":"channels","limit":"7"}"#.to_owned(),
        r#"{"id":1,"command":"channels","limit":-1}"#.to_owned(),
        r#"{"id":1,"command":"channels","prefix":5}"#.to_owned(),
        r#"{"id":1,"command":"busiest","by":"bytes"}"#.to_owned(),
        r#"{"id":1,"command":"busiest","by":5}"#.to_owned(),
        r#"{"id":1,"command":"busiest","limit":1001}"#.to_owned(),
        r#"{"id":1,"command":"connections","limit":1.5}"#.to_owned(),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","code":3999}}"#, client.socket_id),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","code":5000}}"#, client.socket_id),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","code":1000}}"#, client.socket_id),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","code":-4000}}"#, client.socket_id),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","code":69536}}"#, client.socket_id),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","code":"4000"}}"#, client.socket_id),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","code":4000.5}}"#, client.socket_id),
        format!(r#"{{"id":1,"command":"disconnect","socket_id":"{}","reason":5}}"#, client.socket_id),
    ] {
        eprintln!("{line}"); // shown where the next line fails
        admin.refused(&line, json!(1), "malformed_request");
    }
    // Nothing was published, and the client is still connected.
    client.expect_nothing_before_pong();
}

fn unknown_members_are_refused(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    let id = &client.socket_id;
    for (request, nearest) in [
        (json!({"command": "publish", "channel": "c", "event": "e", "exlude": id}), "exclude"),
        (json!({"command": "publish", "chanel": "c", "event": "e"}), "channel"),
        (json!({"command": "disconnect", "socket_id": id, "resaon": "x"}), "reason"),
        (json!({"command": "channels", "channel": "c"}), "command"),
        (json!({"command": "ping", "idd": 1}), "id"),
    ] {
        let line = admin.ask(&request.to_string());
        let reply: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(reply["code"], "malformed_request", "{request} → {line}");
        let text = reply["error"].as_str().expect("a text");
        assert!(text.contains(&format!("the nearest is {nearest:?}")), "{request} → {text}");
    }
    client.expect_nothing_before_pong();
}

fn unknown_commands(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    for command in ["", "nope", "PING", "ping ", "socket:ping", "shutdown"] {
        admin.refused(&json!({"id": "x", "command": command}).to_string(), json!("x"), "unknown_command");
    }
}

fn missing_members(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    for request in [
        json!({}),
        json!({"channel": "c", "event": "e"}),
        json!({"command": "publish"}),
        json!({"command": "publish", "channel": "c"}),
        json!({"command": "publish", "channel": "c", "data": 1}),
        json!({"command": "publish", "channels": ["c"]}),
        json!({"command": "publish", "event": "e", "data": 1}),
        json!({"command": "channel"}),
        json!({"command": "connection"}),
        json!({"command": "disconnect"}),
        json!({"command": "disconnect", "code": 4000}),
        json!({"command": "unsubscribe"}),
        json!({"command": "unsubscribe", "channel": "c"}),
        json!({"command": "unsubscribe", "socket_id": UNKNOWN_ID}),
    ] {
        admin.refused(&request.to_string(), json!(null), "missing_member");
        let mut request = request;
        request["id"] = json!(9);
        admin.refused(&request.to_string(), json!(9), "missing_member");
    }
}

fn invalid_channels(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    for channel in ["", "a b", "ü", "a#b", "a\"b", "*", "#a", "presence-a:b", "private-a:b", &"a".repeat(201)] {
        let request = json!({"id": 1, "command": "publish", "channel": channel, "event": "e"});
        admin.refused(&request.to_string(), json!(1), "invalid_channel");
    }
    for channel in ["a", ":", "private-a", &"a".repeat(200)] {
        assert_eq!(admin.publish(channel, "e", json!(1)), 0);
    }
}

fn reserved_events(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    let line = r#"{"id": 2, "command": "publish", "channel": "user:13", "event": "socket:ping"}"#;
    let reply: Value = serde_json::from_str(&admin.ask(line)).expect("JSON");
    assert_eq!(
        reply,
        json!({"id": 2, "ok": false, "code": "reserved_event", "error": "event names starting with socket: are reserved"})
    );
    for event in [r"socket:", r"socket:x", r"socket:\u0070ing", r"\u0073ocket:ping", r"socket\u003aping"] {
        let line = format!(r#"{{"id":1,"command":"publish","channel":"user:13","event":"{event}"}}"#);
        admin.refused(&line, json!(1), "reserved_event");
        let line = format!(r#"{{"id":1,"command":"publish","channels":["user:13","b"],"event":"{event}"}}"#);
        admin.refused(&line, json!(1), "reserved_event");
    }
    for prefix in ["pusher:", "pusher_internal:"] {
        let line = json!({"id": 1, "command": "publish", "channel": "user:13", "event": format!("{prefix}a")});
        let reply: Value = serde_json::from_str(&admin.ask(&line.to_string())).expect("JSON");
        let error = format!("event names starting with {prefix} are reserved");
        assert_eq!(reply, json!({"id": 1, "ok": false, "code": "reserved_event", "error": error}));
    }
    client.expect_nothing_before_pong();
}

fn not_found(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    for id in [
        UNKNOWN_ID,
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "1.2",
        "nonsense",
        "",
    ] {
        for request in [
            json!({"id": 1, "command": "connection", "socket_id": id}),
            json!({"id": 1, "command": "disconnect", "socket_id": id}),
            json!({"id": 1, "command": "unsubscribe", "socket_id": id, "channel": "c"}),
        ] {
            admin.refused(&request.to_string(), json!(1), "not_found");
        }
    }
    let request = json!({"id": 1, "command": "unsubscribe", "socket_id": client.socket_id, "channel": "d"});
    admin.refused(&request.to_string(), json!(1), "not_found");
    client.expect_nothing_before_pong();
    assert_eq!(admin.subscribers("c"), 1);
}

fn too_large(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    client.subscribe("h-0");
    let channels: Vec<String> = (0..101).map(|n| format!("h-{n}")).collect();
    let request = json!({"id": 1, "command": "publish", "channels": channels, "event": "e"});
    admin.refused(&request.to_string(), json!(1), "too_large");
    for len in [256 * 1024 + 1, 1_000_000] {
        let data = "x".repeat(len);
        let request = json!({"id": 1, "command": "publish", "channel": "c", "event": "e", "data": data});
        admin.refused(&request.to_string(), json!(1), "too_large");
    }
    client.expect_nothing_before_pong();
    let data = "x".repeat(255 * 1024);
    assert_eq!(admin.publish("c", "e", json!(data)), 1);
    assert_eq!(client.text().len(), message("e", "c", "\"\"").len() + data.len());
}

fn channel_counts(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let request = json!({"id": 1, "command": "channel", "channel": "user:13"});
    assert_eq!(admin.request(request.clone()), json!({"id": 1, "ok": true, "channel": "user:13", "subscribers": 0}));
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe("user:13");
        assert_eq!(admin.subscribers("user:13"), n as u64 + 1);
    }
    assert_eq!(admin.request(request), json!({"id": 1, "ok": true, "channel": "user:13", "subscribers": 10}));
    for n in (0..10).rev() {
        drop(clients.pop());
        eventually("a connection that is gone is not counted", || admin.subscribers("user:13") == n);
    }
}

/// Follows `next` to the end and gives all items; every page has at most `limit`.
fn pages(admin: &mut Admin, request: &Value, member: &str, limit: usize) -> Vec<Value> {
    let mut items = Vec::new();
    let mut request = request.clone();
    request["limit"] = limit.into();
    loop {
        let reply = admin.ok(request.clone());
        let page = reply[member].as_array().unwrap_or_else(|| panic!("no {member} in {reply}"));
        assert!(page.len() <= limit, "{} items where {limit} were asked for: {reply}", page.len());
        let known = ["id", "ok", member, "next"];
        assert!(reply.as_object().expect("an object").keys().all(|key| known.contains(&key.as_str())), "{reply}");
        items.extend(page.iter().cloned());
        assert!(items.len() < 10_000, "pages without end: {reply}");
        match reply.get("next") {
            Some(next) => request["after"] = next.clone(),
            None => return items,
        }
    }
}

fn channels_by_pages(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    assert_eq!(admin.request(json!({"id": 1, "command": "channels"})), json!({"id": 1, "ok": true, "channels": []}));
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
    let mut expected = BTreeMap::new();
    for n in 0..40 {
        let channel = format!("{}:{n}", if n % 4 == 0 { "room" } else { "user" });
        let subscribers = 1 + n % 5;
        for client in &mut clients[..subscribers] {
            client.subscribe(&channel);
        }
        expected.insert(channel, subscribers);
    }
    clients[0].subscribe("left");
    clients[0].unsubscribe("left");
    let check = |items: Vec<Value>, prefix: &str, limit: usize| {
        let mut found = BTreeMap::new();
        for item in items {
            let channel = item["channel"].as_str().unwrap_or_else(|| panic!("no channel in {item}"));
            let subscribers = item["subscribers"].as_u64().unwrap_or_else(|| panic!("no subscribers in {item}"));
            assert_eq!(item, json!({"channel": channel, "subscribers": subscribers}));
            let twice = found.insert(channel.to_owned(), subscribers as usize);
            assert!(twice.is_none(), "{channel} came twice (prefix {prefix:?}, limit {limit})");
        }
        let expected: BTreeMap<String, usize> =
            expected.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(name, n)| (name.clone(), *n)).collect();
        assert_eq!(found, expected, "prefix {prefix:?}, limit {limit}");
    };
    for limit in [1, 2, 3, 7, 39, 40, 41, 1000] {
        check(pages(&mut admin, &json!({"id": 1, "command": "channels"}), "channels", limit), "", limit);
        for prefix in ["", "room:", "user:1", "user:13", "unused"] {
            let request = json!({"id": 1, "command": "channels", "prefix": prefix});
            check(pages(&mut admin, &request, "channels", limit), prefix, limit);
        }
    }
}

fn assert_describes(item: &Value, client: &Client, shards: usize, subscriptions: usize) {
    assert_eq!(item["socket_id"], client.socket_id, "{item}");
    assert_eq!(item["address"], client.address().to_string(), "{item}");
    assert!(item["shard"].as_u64().is_some_and(|shard| shard < shards as u64), "{item}");
    assert!(item["age_s"].as_f64().is_some_and(|age| (0.0..300.0).contains(&age)), "{item}");
    assert_eq!(item["subscriptions"], subscriptions, "{item}");
    assert_eq!(item["outbox_bytes"], 0, "{item}");
}

const CONNECTION_MEMBERS: [&str; 7] =
    ["address", "age_s", "dialect", "outbox_bytes", "shard", "socket_id", "subscriptions"];

fn members(value: &Value) -> Vec<&str> {
    let mut members: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

fn connections_by_pages(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let request = json!({"id": 1, "command": "connections"});
    assert_eq!(admin.request(request.clone()), json!({"id": 1, "ok": true, "connections": []}));
    let mut clients: Vec<Client> = (0..25).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        for channel in 0..n % 4 {
            client.subscribe(&format!("channel-{channel}"));
        }
    }
    for limit in [1, 2, 6, 24, 25, 26, 1000] {
        let items = pages(&mut admin, &request, "connections", limit);
        assert_eq!(items.len(), clients.len(), "limit {limit}: every connection once");
        for (n, client) in clients.iter().enumerate() {
            let item = items.iter().find(|item| item["socket_id"] == client.socket_id);
            let item = item.unwrap_or_else(|| panic!("limit {limit}: {} is missing", client.socket_id));
            assert_eq!(members(item), CONNECTION_MEMBERS, "{item}");
            assert_describes(item, client, shards, n % 4);
        }
    }
    clients.truncate(10);
    eventually("connections that are gone are not listed", || {
        pages(&mut admin, &request, "connections", 6).len() == clients.len()
    });
}

fn subscribers_by_pages(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let request = json!({"id": 1, "command": "subscribers", "channel": "user:13"});
    let mut admin_pages = |limit| pages(&mut admin, &request, "subscribers", limit);
    assert!(admin_pages(10).is_empty(), "an unused channel has no subscribers");
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe("other");
        if n % 2 == 0 {
            client.subscribe("user:13");
        }
    }
    let stable: BTreeMap<String, String> =
        clients.iter().step_by(4).map(|client| (client.socket_id.clone(), client.address().to_string())).collect();
    for limit in [1, 3, 20, 1000] {
        let items = admin_pages(limit);
        assert_eq!(items.len(), 20, "limit {limit}");
        for item in &items {
            assert_eq!(members(item), ["address", "age_s", "dialect", "socket_id"], "{item}");
            assert!(item["age_s"].as_u64().is_some_and(|age| age < 300), "{item}");
        }
    }
    // Between the pages, other subscribers come and go.
    let (mut request, mut seen) = (request.clone(), Vec::new());
    request["limit"] = 3.into();
    for n in (2..).step_by(4) {
        let reply = admin.ok(request.clone());
        seen.extend(reply["subscribers"].as_array().expect("an array").clone());
        let Some(next) = reply.get("next") else { break };
        request["after"] = next.clone();
        if let Some(client) = clients.get_mut(n) {
            client.unsubscribe("user:13");
        }
        clients.push(Client::connect(&server));
        clients.last_mut().expect("the new client").subscribe("user:13");
        assert!(n < 4000, "pages without end");
    }
    for (socket_id, address) in &stable {
        let found: Vec<&Value> = seen.iter().filter(|item| item["socket_id"] == **socket_id).collect();
        assert_eq!(found.len(), 1, "{socket_id} in {seen:?}");
        assert_eq!(found[0]["address"], **address);
    }
    let illegal = json!({"id": 1, "command": "subscribers", "channel": "not legal"});
    admin.refused(&illegal.to_string(), json!(1), "invalid_channel");
}

fn connection_tells_everything(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    let connection = |admin: &mut Admin, id: &str| admin.ok(json!({"id": 5, "command": "connection", "socket_id": id}));
    let reply = connection(&mut admin, &client.socket_id);
    assert_describes(&reply, &client, shards, 0);
    assert_eq!(reply["channels"], json!([]), "{reply}");
    let mut expected = CONNECTION_MEMBERS.to_vec();
    expected.extend(["channels", "id", "ok"]);
    expected.sort_unstable();
    assert_eq!(members(&reply), expected, "{reply}");

    for channel in ["b", "a", "c"] {
        client.subscribe(channel);
    }
    client.unsubscribe("b");
    let id = client.socket_id.clone();
    for spelling in [id.clone(), second_spelling(&id)] {
        let reply = connection(&mut admin, &spelling);
        assert_describes(&reply, &client, shards, 2);
        let mut channels: Vec<&str> =
            reply["channels"].as_array().expect("an array").iter().map(|name| name.as_str().expect("a name")).collect();
        channels.sort_unstable();
        assert_eq!(channels, ["a", "c"], "{reply}");
    }
    drop(client);
    eventually("a connection that is gone is not found", || !admin.knows(&id));
}

fn disconnect_closes(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut bystander = Client::connect(&server);
    bystander.subscribe("c");
    for (members, code, reason) in [
        (json!({}), 4000, None),
        (json!({"code": 4000}), 4000, None),
        (json!({"code": 4999, "reason": "go away"}), 4999, Some("go away")),
        (json!({"code": 4321, "reason": ""}), 4321, Some("")),
        (json!({"reason": "é😀 \"quoted\""}), 4000, Some("é😀 \"quoted\"")),
    ] {
        let mut client = Client::connect(&server);
        client.subscribe("c");
        assert_eq!(admin.publish("c", "e", json!(1)), 2);
        let mut request = json!({"id": 3, "command": "disconnect", "socket_id": client.socket_id});
        for (name, value) in members.as_object().expect("an object") {
            request[name] = value.clone();
        }
        assert_eq!(admin.request(request), json!({"id": 3, "ok": true}));
        // Messages published before arrive before the close.
        client.expect(&message("e", "c", "1"));
        let found = client.expect_close(code);
        assert!(reason.is_none_or(|reason| reason == found), "reason {found:?} instead of {reason:?}");
        let id = client.socket_id.clone();
        drop(client);
        eventually("a disconnected connection is not found", || !admin.knows(&id));
        eventually("a disconnected connection is not a subscriber", || admin.subscribers("c") == 1);
        let again = json!({"id": 3, "command": "disconnect", "socket_id": id});
        admin.refused(&again.to_string(), json!(3), "not_found");
        bystander.expect(&message("e", "c", "1"));
    }
    let mut client = Client::connect(&server);
    let spelling = second_spelling(&client.socket_id);
    admin.ok(json!({"id": 3, "command": "disconnect", "socket_id": spelling}));
    client.expect_close(4000);
    bystander.expect_nothing_before_pong();
}

fn unsubscribe_by_the_admin(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    for round in 0..20 {
        client.subscribe("user:13");
        client.subscribe("user:14");
        let spelling = if round % 2 == 0 { client.socket_id.clone() } else { second_spelling(&client.socket_id) };
        let request = json!({"id": 4, "command": "unsubscribe", "socket_id": spelling, "channel": "user:13"});
        assert_eq!(admin.request(request.clone()), json!({"id": 4, "ok": true}));
        // No message arrives after its reply.
        assert_eq!(admin.publish("user:13", "e", json!(1)), 0);
        assert_eq!(admin.publish("user:14", "e", json!(2)), 1);
        client.expect(&unsubscribed("user:13"));
        client.expect(&message("e", "user:14", "2"));
        client.expect_nothing_before_pong();
        admin.refused(&request.to_string(), json!(4), "not_found");
        client.send(&unsubscribe("user:13"));
        client.expect(&not_subscribed("user:13"));
        client.unsubscribe("user:14");
    }
}

fn the_busiest_channels(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let nothing = json!({"id": 1, "ok": true, "channels": [], "addresses": []});
    assert_eq!(admin.request(json!({"id": 1, "command": "busiest"})), nothing);
    // Of channel n, n + 1 subscribers, and the fewer messages the more they are.
    let mut clients: Vec<Client> = (0..30).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        (0..=n).for_each(|channel| client.subscribe(&format!("c{:02}", 29 - channel)));
    }
    let messages = |n: u64| if n == 0 { 60 } else { 30 - n };
    for n in (0..30).rev() {
        for _ in 0..messages(n) {
            admin.publish(&format!("c{n:02}"), "e", json!(1));
        }
        admin.publish("unused", "e", json!(1));
    }
    let mut busiest = |request: Value, range: Vec<u64>| {
        let item = |n| json!({"channel": format!("c{n:02}"), "subscribers": n + 1, "messages": messages(n)});
        let channels: Vec<Value> = range.into_iter().map(item).collect();
        let reply = json!({"id": 1, "ok": true, "channels": channels, "addresses": []});
        assert_eq!(admin.request(request), reply);
    };
    busiest(json!({"id": 1, "command": "busiest"}), (10..30).rev().collect());
    busiest(json!({"id": 1, "command": "busiest", "by": "subscribers", "limit": 1}), vec![29]);
    busiest(json!({"id": 1, "command": "busiest", "limit": 1000}), (0..30).rev().collect());
    // The channel with most messages had the last one too, so the decay of recent messages does not matter.
    busiest(json!({"id": 1, "command": "busiest", "by": "messages", "limit": 1}), vec![0]);
}

/// Connections from this machine are counted if the limit applies to them.
#[test]
fn the_busiest_addresses() {
    let server = Server::options(2).arg("--max-connections-per-address", 100).start();
    let mut admin = Admin::connect(&server);
    let mut expected = Vec::new();
    let mut clients = Vec::new();
    for (host, connections) in [(7, 3), (8, 1), (9, 5), (10, 4)] {
        let connect = || {
            let mut client = RawClient::tcp_from(&server, [127, 0, 0, host]);
            client.upgrade();
            client
        };
        clients.extend(std::iter::repeat_with(connect).take(connections));
        expected.push(json!({"address": format!("127.0.0.{host}"), "connections": connections}));
    }
    expected.sort_by_key(|item| std::cmp::Reverse(item["connections"].as_u64()));
    assert_eq!(admin.ok(json!({"id": 1, "command": "busiest"}))["addresses"], json!(expected));
    expected.truncate(2);
    assert_eq!(admin.ok(json!({"id": 1, "command": "busiest", "limit": 2}))["addresses"], json!(expected));
}

fn stats_of_the_server_and_each_shard(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    admin.publish("c", "e", json!(1));
    let reply = admin.ok(json!({"id": 1, "command": "stats"}));
    assert_eq!(members(&reply), ["id", "ok", "shards", "stats"], "{reply}");
    let names = members(&reply["stats"]);
    assert!(!names.is_empty(), "{reply}");
    let each = reply["shards"].as_array().unwrap_or_else(|| panic!("shards is not an array: {reply}"));
    assert_eq!(each.len(), shards, "{reply}");
    for object in each.iter().chain([&reply["stats"]]) {
        assert_eq!(members(object), names, "the same names everywhere: {reply}");
        assert!(object.as_object().expect("an object").values().all(Value::is_number), "{reply}");
    }
    let again = admin.stats();
    assert_eq!(members(&again), names, "names stay the same");
}

/// The totals that a shard keeps, beside each connection asked one by one.
fn gauges_equal_the_sum_of_the_listing(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let check = |admin: &mut Admin, upgrading: u64| {
        eventually("the gauges are what the listing adds up to", || {
            let items = pages(admin, &json!({"id": 1, "command": "connections"}), "connections", 1000);
            let sum = |member: &str| items.iter().map(|item| item[member].as_u64().expect("a number")).sum::<u64>();
            let listed = [items.len() as u64, upgrading, 0, sum("subscriptions"), sum("outbox_bytes")];
            let stats = admin.stats();
            let names =
                ["connections", "connections_upgrading", "connections_closing", "subscriptions", "outbox_bytes"];
            names.map(|name| stats[name].as_u64().expect("a number")) == listed
        });
    };
    let mut clients: Vec<Client> = (0..25).map(|_| Client::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        (0..n % 4).for_each(|channel| client.subscribe(&format!("channel-{channel}")));
    }
    check(&mut admin, 0);
    let mut slow = RawClient::tcp_with_small_buffer(&server);
    let id = slow.upgrade()["data"]["socket_id"].clone();
    slow.write(&text_frame(&subscribe("slow")));
    slow.expect(&subscribed("slow"));
    while admin.ok(json!({"id": 1, "command": "connection", "socket_id": id}))["outbox_bytes"] == 0 {
        admin.publish("slow", "e", json!("x".repeat(200_000)));
    }
    let half = RawClient::tcp(&server);
    check(&mut admin, 1);
    clients[3].unsubscribe("channel-0");
    clients.truncate(11);
    check(&mut admin, 1);
    drop((half, slow, clients));
    eventually("all connections have ended", || admin.stat("connections") == 0);
    check(&mut admin, 0);
    assert_eq!(admin.stat("outbox_bytes"), 0);
}

fn bad_lines_are_answered_and_the_next_is_read(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    admin.write(
        b"nonsense\n{\"id\":1,\"command\":\"ping\"}\n\xff\xfe\n\n[]\n{\"id\":2,\"command\":\"nope\"}\r\n{\"id\":3}\n{\"id\":4,\"command\":\"ping\"}\n",
    );
    assert_refused("nonsense", &admin.line(), json!(null), "malformed_request");
    assert_eq!(admin.line(), r#"{"id":1,"ok":true}"#);
    assert_refused("no UTF-8", &admin.line(), json!(null), "malformed_request");
    assert_refused("empty", &admin.line(), json!(null), "malformed_request");
    assert_refused("[]", &admin.line(), json!(null), "malformed_request");
    assert_refused("nope", &admin.line(), json!(2), "unknown_command");
    assert_refused("no command", &admin.line(), json!(3), "missing_member");
    assert_eq!(admin.line(), r#"{"id":4,"ok":true}"#);
}

fn lines_split_anywhere(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    let line = "{\"id\":1,\"command\":\"publish\",\"channel\":\"c\",\"event\":\"e\",\"data\":\"é\"}\n";
    for at in 1..line.len() {
        // The reply to what precedes the first half proves that the server has seen that half by itself.
        let (head, tail) = line.as_bytes().split_at(at);
        admin.write([b"{\"id\":0,\"command\":\"ping\"}\n".as_slice(), head].concat());
        assert_eq!(admin.line(), r#"{"id":0,"ok":true}"#);
        admin.write(tail);
        assert_eq!(admin.line(), r#"{"id":1,"ok":true,"subscribers":1}"#);
        client.expect(&message("e", "c", "\"é\""));
    }
    for byte in line.as_bytes() {
        admin.write([*byte]);
    }
    assert_eq!(admin.line(), r#"{"id":1,"ok":true,"subscribers":1}"#);
    client.expect(&message("e", "c", "\"é\""));
}

fn a_line_beyond_the_limit_closes(shards: usize) {
    let server = Server::start(shards);
    let mut other = Admin::connect(&server);
    // Just below 1 MiB: read, answered, and the connection stays.
    let mut admin = Admin::connect(&server);
    let mut line = r#"{"id":1,"command":"ping"}"#.to_owned();
    line.push_str(&" ".repeat(1024 * 1024 - 1 - line.len()));
    assert_eq!(admin.ask(&line), r#"{"id":1,"ok":true}"#);
    for end in ["", "\n{\"id\":2,\"command\":\"ping\"}\n"] {
        let mut admin = Admin::connect(&server);
        admin.write_anyway(format!("{{\"id\":1,\"command\":\"ping\"}}\n{}{end}", "x".repeat(2 * 1024 * 1024)));
        assert_eq!(admin.line(), r#"{"id":1,"ok":true}"#);
        // The server may send the reason before it closes.
        if let Some(reply) = admin.try_line() {
            assert_refused("a line of 2 MiB", &reply, json!(null), "too_large");
            assert_eq!(admin.try_line(), None, "the connection is closed");
        }
    }
    assert_eq!(admin.ask(r#"{"id":3,"command":"ping"}"#), r#"{"id":3,"ok":true}"#);
    assert_eq!(other.ask(r#"{"id":4,"command":"ping"}"#), r#"{"id":4,"ok":true}"#);
}

/// Whether the end comes with the line or after it, and however many requests wait before it.
fn a_last_line_without_its_newline_is_answered(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    admin.ok(json!({"id": 1, "command": "ping"}));
    server.signal(Signal::STOP);
    eventually("all threads are stopped", || server.is_stopped());
    admin.write(r#"{"id":2,"command":"ping"}"#);
    admin.shut();
    server.signal(Signal::CONT);
    assert_eq!(admin.line(), r#"{"id":2,"ok":true}"#);
    assert_eq!(admin.try_line(), None);

    let mut admin = Admin::connect(&server);
    admin.write("{\"id\":1,\"command\":\"ping\"}\n{\"id\":2,\"command\":\"ping\"}\r");
    assert_eq!(admin.line(), r#"{"id":1,"ok":true}"#);
    admin.shut();
    assert_eq!(admin.line(), r#"{"id":2,"ok":true}"#);
    assert_eq!(admin.try_line(), None);

    let mut admin = Admin::connect(&server);
    let publish = |id: usize| format!(r#"{{"id":{id},"command":"publish","channel":"c{id}","event":"e"}}"#);
    let lines: Vec<String> = (0..2000).map(publish).collect();
    admin.write(lines.join("\n"));
    admin.shut();
    (0..2000).for_each(|id| assert_eq!(admin.line(), format!(r#"{{"id":{id},"ok":true,"subscribers":0}}"#)));
    assert_eq!(admin.try_line(), None);

    let mut admin = Admin::connect(&server);
    let cut = &publish(1)[..40];
    admin.write(cut);
    admin.shut();
    assert_refused(cut, &admin.line(), json!(null), "malformed_request");
    assert_eq!(admin.try_line(), None);
}

fn requests_of_several_connections_do_not_mix(shards: usize) {
    let server = Server::start(shards);
    let path = server.admin_path.as_path();
    thread::scope(|scope| {
        for admin_number in 0..4 {
            scope.spawn(move || {
                let mut admin = Admin::connect_to(path);
                for round in 0..10 {
                    let first = round * 100;
                    for n in first..first + 100 {
                        let id = format!("{admin_number}-{n}");
                        admin.send(&match n % 4 {
                            0 => format!(r#"{{"id":"{id}","command":"publish","channel":"c{n}","event":"e"}}"#),
                            1 => format!(r#"{{"id":"{id}","command":"channel","channel":"c{n}"}}"#),
                            2 => format!(r#"{{"id":"{id}","command":"ping"}}"#),
                            _ => format!(r#"{{"id":"{id}","command":"channels","limit":10}}"#),
                        });
                    }
                    for n in first..first + 100 {
                        let reply = admin.line();
                        let start = format!(r#"{{"id":"{admin_number}-{n}","ok":true"#);
                        assert!(reply.starts_with(&start), "{reply} where {start} was due");
                    }
                }
            });
        }
    });
}

fn ten_thousand_pipelined_publishes(shards: usize) {
    const COUNT: usize = 10_000;
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    let (mut writer, mut replies) = Admin::connect(&server).split();
    thread::scope(|scope| {
        let subscriber = scope.spawn(|| {
            for n in 0..COUNT {
                client.expect(&message("e", "c", &n.to_string()));
            }
            client.expect_nothing_before_pong();
        });
        let start = Instant::now();
        for n in 0..COUNT {
            let line =
                format!("{{\"id\":{n},\"command\":\"publish\",\"channel\":\"c\",\"event\":\"e\",\"data\":{n}}}\n");
            writer.write_all(line.as_bytes()).unwrap_or_else(|error| {
                panic!("line {n} of {COUNT} is not taken while no reply is read, after {:?}: {error}", start.elapsed())
            });
        }
        let reader = scope.spawn(move || {
            let mut line = String::new();
            for n in 0..COUNT {
                line.clear();
                let read = replies.read_line(&mut line).unwrap_or_else(|error| {
                    let why =
                        if is_end(&error) { "the connection ended".into() } else { format!("{error} in {LONG:?}") };
                    panic!("no reply {n} of {COUNT}: {why}")
                });
                assert!(read > 0, "the connection ended before reply {n}");
                assert_eq!(line.trim_end(), format!(r#"{{"id":{n},"ok":true,"subscribers":1}}"#));
            }
        });
        reader.join().expect("every publish is answered, in order");
        subscriber.join().expect("the subscriber sees every publish, in order");
    });
}

fn only_the_owner_may_connect(shards: usize) {
    let server = Server::start(shards);
    let mode = std::fs::metadata(&server.admin_path).expect("the socket exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "mode {:o}", mode & 0o777);
}
