//! Values, names and sizes, from every publisher to the subscribers of both dialects.

use super::client::{Pusher, event_of_a, in_both_dialects, message, options};
use crate::harness::{Admin, Client, eventually, for_shards};
use crate::http::Http;
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    values_of_operators_arrive_as_their_json,
    client_events_have_equal_values_in_both_dialects,
    event_names_are_any_text_but_the_systems,
    ciphertexts_arrive_as_they_came,
    a_message_may_be_twice_as_long_as_its_value,
    a_channel_that_is_named_twice_gets_one_message,
    a_connection_is_excluded_by_either_spelling,
);

fn values_of_operators_arrive_as_their_json(shards: usize) {
    let server = options(shards).start();
    let (mut client, mut native) = in_both_dialects(&server);
    let mut admin = Admin::connect(&server);
    for (value, data) in [
        (r#"{"a":1}"#, r#""{\"a\":1}""#),
        (r#"{"a" : [ 1e999, -0 ]}"#, r#""{\"a\" : [ 1e999, -0 ]}""#),
        ("17", r#""17""#),
        (r#""x""#, r#""\"x\"""#),
        (r#""{\"a\":1}""#, r#""\"{\\\"a\\\":1}\"""#),
        (r#""\u00e9 \ud83c é""#, r#""\"\\u00e9 \\ud83c é\"""#),
        ("null", r#""null""#),
        ("true", r#""true""#),
        ("[]", r#""[]""#),
        (r#""""#, r#""\"\"""#),
        ("\"\u{2028}\"", "\"\\\"\u{2028}\\\"\""),
    ] {
        let reply = admin.ask(&format!(r#"{{"command":"publish","channel":"a","event":"e","data":{value}}}"#));
        assert!(reply.contains(r#""subscribers":2"#), "{reply}");
        client.expect(&event_of_a(data));
        native.expect(&event_of_a(value));
    }
    admin.ok(json!({"command": "publish", "channel": "a", "event": "e"}));
    client.expect(&event_of_a(r#""null""#));
    native.expect(r#"{"event":"e","channel":"a"}"#);
    client.expect_nothing();
}

fn client_events_have_equal_values_in_both_dialects(shards: usize) {
    let server = options(shards).start();
    let (mut sender, mut client) = (Pusher::connect(&server), Pusher::connect(&server));
    sender.subscribe("private-a");
    client.subscribe("private-a");
    let mut native = crate::client_events::join(&server, "private-a", None);
    for (data, text, value) in [
        (r#","data":{"a": 1}"#, r#""{\"a\": 1}""#, r#","data":{"a": 1}"#),
        (r#","data":17"#, r#""17""#, r#","data":17"#),
        (r#","data":null"#, r#""null""#, r#","data":null"#),
        (r#","data":"{\"a\": 1}""#, r#""{\"a\": 1}""#, r#","data":{"a": 1}"#),
        (r#","data":" 17""#, r#"" 17""#, r#","data":17"#),
        (r#","data":"hello""#, r#""hello""#, r#","data":"hello""#),
        (r#","data":"\ud83c""#, r#""\ud83c""#, r#","data":"\ud83c""#),
        ("", r#""null""#, ""),
    ] {
        sender.send(&format!(r#"{{"event":"client-e"{data},"channel":"private-a"}}"#));
        client.expect(&format!(r#"{{"event":"client-e","channel":"private-a","data":{text}}}"#));
        native.expect(&format!(r#"{{"event":"client-e","channel":"private-a"{value}}}"#));
    }
    sender.expect_nothing();
}

fn event_names_are_any_text_but_the_systems(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    client.subscribe("a");
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let long = "é".repeat(512);
    for event in [r"App\Events\Paid", "a\"b", "é\n", "pusher", "Pusher:x", "client-x", &long] {
        let expected = format!(r#"{{"event":{},"channel":"a","data":"1"}}"#, Value::from(event));
        admin.publish("a", event, json!(1));
        client.expect(&expected);
        let answer = http.publish(&json!({"name": event, "channel": "a", "data": "1"}).to_string());
        assert_eq!(answer.status, 200, "{event}: {}", answer.body);
        client.expect(&expected);
    }
    for event in ["pusher:x", "pusher:", "pusher_internal:member_added", "socket:x", r"pusher\u003ax"] {
        let line = format!(r#"{{"id":1,"command":"publish","channel":"a","event":"{event}"}}"#);
        admin.refused(&line, json!(1), "reserved_event");
        let event = format!(r#"{{"name":"{event}","channel":"a","data":"1"}}"#);
        assert_eq!(http.publish(&event).status, 400, "{event}");
        assert_eq!(http.publish_batch(&format!(r#"{{"batch":[{event}]}}"#)).status, 400, "{event}");
    }
    client.expect_nothing();
}

fn ciphertexts_arrive_as_they_came(shards: usize) {
    let server = options(shards).start();
    let mut client = Pusher::connect(&server);
    client.subscribe("private-encrypted-a");
    let mut native = crate::client_events::join(&server, "private-encrypted-a", None);
    let text = r#"{"nonce":"4sVYwy4j/8dCcjyxtPCWyk19GaaViaW9","ciphertext":"/GMESnFGlbNn01BuBjp31XYa3i9vZsGKR8fgR9EDhXKx3lzGiUD501A="}"#;
    let event = json!({"name": "e", "channel": "private-encrypted-a", "data": text}).to_string();
    assert_eq!(Http::connect(&server).publish(&event).status, 200);
    client.expect(&message("e", "private-encrypted-a", text));
    native.expect(&format!(r#"{{"event":"e","channel":"private-encrypted-a","data":{text}}}"#));
    // Clients cannot encrypt, so they must not send.
    client.send(r#"{"event":"client-e","channel":"private-encrypted-a","data":{}}"#);
    client.expect_error(None);
    native.expect_nothing_before_pong();
}

fn a_message_may_be_twice_as_long_as_its_value(shards: usize) {
    let server = options(shards).arg("--outbox-limit", "2MiB").start();
    let (mut client, mut native) = in_both_dialects(&server);
    // 256 KiB, as written.
    let value = format!("\"{}\"", r#"\""#.repeat(131_071));
    let mut admin = Admin::connect(&server);
    let reply = admin.ask(&format!(r#"{{"command":"publish","channel":"a","event":"e","data":{value}}}"#));
    assert!(reply.contains(r#""subscribers":2"#), "{reply}");
    let data = format!(r#""\"{}\"""#, r#"\\\""#.repeat(131_071));
    assert!(client.text() == event_of_a(&data), "the value in a string");
    assert!(native.text() == event_of_a(&value), "the value");

    let event = |quotes: usize| json!({"name": "e", "channel": "a", "data": "\"".repeat(quotes)}).to_string();
    assert_eq!(Http::connect(&server).publish(&event(131_072)).status, 413);
    client.expect_nothing();
}

fn a_channel_that_is_named_twice_gets_one_message(shards: usize) {
    let server = options(shards).start();
    let mut names: Vec<String> = (0..99).map(|n| format!("c{n}")).collect();
    names.push("c7".into());
    let mut clients: Vec<Pusher> = (0..3).map(|_| Pusher::connect(&server)).collect();
    for client in &mut clients {
        names[..99].iter().for_each(|name| client.subscribe(name));
    }
    let event = json!({"name": "e", "channels": names, "data": "1"}).to_string();
    assert_eq!(Http::connect(&server).publish(&event).status, 200);
    for client in &mut clients {
        let mut found: Vec<String> = (0..99).map(|_| client.text()).collect();
        found.sort();
        let mut expected: Vec<String> = names[..99].iter().map(|name| message("e", name, "1")).collect();
        expected.sort();
        assert_eq!(found, expected);
        client.expect_nothing();
    }
    names.push("c100".into());
    let event = json!({"name": "e", "channels": names, "data": "1"}).to_string();
    assert_eq!(Http::connect(&server).publish(&event).status, 400);
}

fn a_connection_is_excluded_by_either_spelling(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<Pusher> = (0..4).map(|_| Pusher::connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("a"));
    let mut native = Client::connect(&server);
    native.subscribe("a");
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let dotted = clients[0].socket_id.clone();
    let uuid = admin.ok(json!({"command": "connection", "socket_id": dotted}))["socket_id"].clone();
    assert_ne!(uuid, dotted);
    let mut n = 0;
    for exclude in [json!(dotted), uuid] {
        let reply =
            admin.ok(json!({"command": "publish", "channel": "a", "event": "e", "data": n, "exclude": exclude}));
        assert_eq!(reply["subscribers"], 4);
        let event = json!({"name": "e", "channel": "a", "data": (n + 1).to_string(), "socket_id": exclude});
        assert_eq!(http.publish(&event.to_string()).status, 200);
        for number in [n, n + 1] {
            clients[1..].iter_mut().for_each(|client| client.expect(&message("e", "a", &number.to_string())));
            native.expect(&format!(r#"{{"event":"e","channel":"a","data":{number}}}"#));
        }
        clients[0].expect_nothing();
        n += 2;
    }
    // A native connection is excluded, too.
    let event = json!({"name": "e", "channel": "a", "data": "70", "socket_id": native.socket_id});
    assert_eq!(http.publish(&event.to_string()).status, 200);
    clients.iter_mut().for_each(|client| client.expect(&message("e", "a", "70")));
    native.expect_nothing_before_pong();
    // One that has left, and one that never was: no subscriber is left out.
    let gone = clients.pop().expect("a client").socket_id;
    eventually("it has left", || admin.subscribers("a") == 4);
    for exclude in [gone.as_str(), "1.2", "14090984045319045532.11841623731988042621"] {
        let event = json!({"name": "e", "channel": "a", "data": "80", "socket_id": exclude});
        assert_eq!(http.publish(&event.to_string()).status, 200, "{exclude}");
        clients.iter_mut().for_each(|client| client.expect(&message("e", "a", "80")));
        native.expect(r#"{"event":"e","channel":"a","data":80}"#);
    }
    for exclude in [json!("1"), json!("1.2.3"), json!("a.b"), json!(""), json!(7), json!("1.18446744073709551616")] {
        let event = json!({"name": "e", "channel": "a", "data": "90", "socket_id": exclude});
        assert_eq!(Http::connect(&server).publish(&event.to_string()).status, 400, "{exclude}");
    }
    clients.iter_mut().for_each(Pusher::expect_nothing);
}
