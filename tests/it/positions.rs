//! Positions, repetitions and histories: what backends and operators are told about channels with memory, at every entry
//! point for requests.

use crate::harness::{Admin, Client, Options, Server, TempDir, assert_refused, for_shards};
use crate::http::{Http, with_token};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;

for_shards!(
    a_publish_names_its_position,
    a_list_has_a_position_for_each_element,
    without_history_replies_are_as_ever,
    a_repetition_publishes_nothing,
    a_repetition_in_a_list_is_told_for_each_channel,
    a_history_is_read_by_pages,
    a_history_is_read_from_a_position,
    a_page_of_a_history_ends_at_a_mebibyte,
    answers_to_pipelined_requests_keep_their_order,
    the_command_line_shows_positions_and_histories,
);

/// A server on which channels named `h:…` keep 100 messages, and those named `few:…` keep 2.
fn start(shards: usize) -> (Server, TempDir) {
    let dir = TempDir::new();
    (options(shards, &dir).start(), dir)
}

fn options(shards: usize, dir: &TempDir) -> Options {
    let rules = "[[channel]]\nmatch = \"h:*\"\nhistory = 100\nhistory-bytes = \"16MiB\"\n\
                 [[channel]]\nmatch = \"few:*\"\nhistory = 2\n";
    let file = dir.path().join("corecast.toml");
    std::fs::write(&file, rules).expect("a temporary file");
    let options = Server::options(shards).arg("--config", file.display()).arg("--http", "127.0.0.1:0");
    with_token(options.arg("--key", "app:hunter2-hunter2-hunter2"), dir)
}

/// The offset in this answer or position, after a check of the other members.
#[track_caller]
fn offset(position: &Value, epoch: &Value) -> u64 {
    assert_eq!(position["epoch"], *epoch, "{position}");
    position["offset"].as_u64().unwrap_or_else(|| panic!("no offset: {position}"))
}

/// The epoch of the server.
#[track_caller]
fn epoch(admin: &mut Admin) -> Value {
    let epoch = admin.ok(json!({"command": "history", "channel": "h:epoch", "limit": 0}))["epoch"].clone();
    let text = epoch.as_str().expect("a string");
    assert!(text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{text}");
    epoch
}

fn publish(channel: &str, data: usize) -> Value {
    json!({"command": "publish", "channel": channel, "event": "e", "data": data})
}

/// The data of the messages in this page.
fn data(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["data"].as_u64().expect("a number")).collect()
}

fn a_publish_names_its_position(shards: usize) {
    let (server, _dir) = start(shards);
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let epoch = epoch(&mut admin);
    let mut client = Client::connect(&server);
    for channel in ["h:a", "h:b", "cache-c", "private-cache-d"] {
        let first = admin.ask(&publish(channel, 1).to_string());
        let number = offset(&serde_json::from_str(&first).expect("JSON"), &epoch);
        let expected = format!(r#"{{"id":null,"ok":true,"subscribers":0,"epoch":{epoch},"offset":{number}}}"#);
        assert_eq!(first, expected);
        let body = format!(r#"{{"id":7,"channel":"{channel}","event":"e","key":"k"}}"#);
        let told = http.publish_with_token(&body);
        let second = offset(&serde_json::from_str(&told.body).expect("JSON"), &epoch);
        assert!(second > number, "{second} > {number}");
        let expected = format!("{{\"id\":7,\"ok\":true,\"subscribers\":0,\"epoch\":{epoch},\"offset\":{second}}}\n");
        assert_eq!((told.status, told.body), (200, expected));
    }
    // Subscribers see the offset that the publisher is told.
    client.send(r#"{"event":"socket:subscribe","data":{"channel":"h:a"}}"#);
    assert!(client.text().starts_with(r#"{"event":"socket:subscribed""#));
    let told = admin.ok(json!({"command": "publish", "channel": "h:a", "event": "e", "exclude": "1.1"}));
    let number = offset(&told, &epoch);
    assert_eq!(told["subscribers"], 1);
    client.expect(&format!(r#"{{"event":"e","channel":"h:a","offset":{number}}}"#));
}

fn a_list_has_a_position_for_each_element(shards: usize) {
    let (server, _dir) = start(shards);
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let epoch = epoch(&mut admin);
    // Enough channels for every shard to own some of each kind, and some are named twice.
    let mut channels: Vec<String> = (0..40).flat_map(|n| [format!("h:{n}"), format!("plain:{n}")]).collect();
    channels.extend((0..5).map(|n| format!("h:{}", 7 * n)));
    let request = json!({"channels": channels, "event": "e", "data": 1, "exclude": "1.1"});
    let mut over_admin = request.clone();
    over_admin["command"] = "publish".into();
    let over_http = http.publish_with_token(&request.to_string());
    assert_eq!(over_http.status, 200);
    for reply in [admin.ok(over_admin), serde_json::from_str(&over_http.body).expect("JSON")] {
        assert!(reply.get("epoch").is_none() && reply.get("duplicate").is_none(), "{reply}");
        let positions = reply["positions"].as_array().expect("positions");
        assert_eq!(positions.len(), channels.len());
        let mut offsets = BTreeMap::new();
        for (channel, position) in channels.iter().zip(positions) {
            if channel.starts_with("plain") {
                assert_eq!(position, &Value::Null);
                continue;
            }
            let number = offset(position, &epoch);
            assert_eq!(*offsets.entry(channel).or_insert(number), number, "named twice, published once");
        }
    }
    for channel in ["h:0", "h:7", "h:39"] {
        let page = admin.ok(json!({"command": "history", "channel": channel}));
        assert_eq!(data(&page), [1, 1], "{channel}");
    }
    // A list of one is a list.
    let one = admin.ok(json!({"command": "publish", "channels": ["h:0"], "event": "e"}));
    assert_eq!(one["positions"].as_array().map(Vec::len), Some(1), "{one}");
}

fn without_history_replies_are_as_ever(shards: usize) {
    let (server, _dir) = start(shards);
    let mut admin = Admin::connect(&server);
    let channels: Vec<String> = (0..20).map(|n| format!("plain:{n}")).collect();
    for (members, key) in [("", ""), (r#","dedupe":"d""#, ""), (r#","dedupe":"e""#, r#","key":"k""#)] {
        for to in [r#""channel":"plain:a""#.to_owned(), format!(r#""channels":{}"#, json!(channels))] {
            let line = format!(r#"{{"id":1,"command":"publish",{to},"event":"e"{members}{key}}}"#);
            assert_eq!(admin.ask(&line), r#"{"id":1,"ok":true,"subscribers":0}"#, "{line}");
        }
    }
    let nothing = r#"{"id":2,"ok":true,"complete":true,"messages":[]}"#;
    assert_eq!(admin.ask(r#"{"id":2,"command":"history","channel":"plain:a"}"#), nothing);
    let since = r#"{"epoch":"0123456789abcdef","offset":0}"#;
    let line = format!(r#"{{"id":2,"command":"history","channel":"plain:a","since":{since}}}"#);
    assert_eq!(admin.ask(&line), r#"{"id":2,"ok":true,"complete":false,"messages":[]}"#);
}

fn a_repetition_publishes_nothing(shards: usize) {
    let (server, _dir) = start(shards);
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let epoch = epoch(&mut admin);
    for channel in ["h:a", "plain:a"] {
        let mut client = Client::connect(&server);
        client.send(&format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{channel}"}}}}"#));
        client.text();
        let members = format!(r#""channel":"{channel}","event":"e","data":1,"dedupe":"order\u002d42""#);
        let first = admin.ask(&format!(r#"{{"id":1,"command":"publish",{members}}}"#));
        let position = match channel {
            "h:a" => {
                let number = offset(&serde_json::from_str(&first).expect("JSON"), &epoch);
                format!(r#","epoch":{epoch},"offset":{number}"#)
            }
            _ => String::new(),
        };
        assert_eq!(first, format!(r#"{{"id":1,"ok":true,"subscribers":1{position}}}"#));
        let again = format!(r#"{{"id":1,"ok":true,"subscribers":1{position},"duplicate":true}}"#);
        // From another session and other entry points, whatever else the message holds.
        let mut other = Admin::connect(&server);
        let line = format!(
            r#"{{"id":1,"command":"publish","channel":"{channel}","event":"x","exclude":"1.1","dedupe":"order-42"}}"#
        );
        assert_eq!(other.ask(&line), again);
        let told = http.publish_with_token(&format!(r#"{{"id":1,{members}}}"#));
        assert_eq!((told.status, told.body), (200, format!("{again}\n")));
        let run = server.run_with_input(&["publish", "--stdin", "--json"], format!("{{{members}}}\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&run.stdout), format!("{again}\n"));
        let run = server.run(&["publish", channel, "e", "1", "--dedupe", "order-42", "--json"]);
        assert_eq!(String::from_utf8_lossy(&run.stdout), format!("{}\n", again.replace("\"id\":1", "\"id\":null")));
        // Names are compared within a channel.
        let elsewhere = admin.ok(json!({"command": "publish", "channel": "b", "event": "e", "dedupe": "order-42"}));
        assert_eq!(elsewhere.get("duplicate").is_some(), channel == "plain:a", "{elsewhere}");
        let another = admin.ok(json!({"command": "publish", "channel": channel, "event": "f", "dedupe": "order-43"}));
        assert_eq!(another["subscribers"], 1);
        assert!(client.text().starts_with(&format!(r#"{{"event":"e","channel":"{channel}","data":1"#)));
        assert!(client.text().starts_with(r#"{"event":"f""#), "nothing between");
        client.expect_nothing_before_pong();
    }
}

fn a_repetition_in_a_list_is_told_for_each_channel(shards: usize) {
    let (server, _dir) = start(shards);
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let epoch = epoch(&mut admin);
    let first = admin.ok(json!({"command": "publish", "channel": "h:a", "event": "e", "dedupe": "d"}));
    let plain = admin.ok(json!({"command": "publish", "channel": "plain:a", "event": "e", "dedupe": "d"}));
    assert_eq!(plain["subscribers"], 0);
    let body = json!({"channels": ["h:b", "plain:a", "h:a", "plain:b", "h:a"], "event": "e", "dedupe": "d"});
    let told = http.publish_with_token(&body.to_string());
    let told: Value = serde_json::from_str(&told.body).expect("JSON");
    let again = json!({"epoch": epoch, "offset": first["offset"], "duplicate": true});
    let new = json!({"epoch": epoch, "offset": offset(&told["positions"][0], &epoch)});
    assert_eq!(told["positions"], json!([new, {"duplicate": true}, again, null, again]));
}

fn a_history_is_read_by_pages(shards: usize) {
    let (server, _dir) = start(shards);
    let mut admin = Admin::connect(&server);
    let epoch = epoch(&mut admin);
    let offsets: Vec<u64> = (0..5).map(|n| offset(&admin.ok(publish("h:a", n)), &epoch)).collect();
    for reverse in [false, true] {
        for limit in 1..=6 {
            let mut request = json!({"command": "history", "channel": "h:a", "limit": limit, "reverse": reverse});
            let mut found = Vec::new();
            loop {
                let page = admin.ok(request.clone());
                assert_eq!((&page["complete"], offset(&page, &epoch)), (&json!(true), offsets[4]), "{page}");
                let messages = page["messages"].as_array().expect("messages");
                assert!(messages.len() <= limit, "{page}");
                found.extend(messages.iter().map(|message| message["offset"].as_u64().expect("an offset")));
                match page.get("next") {
                    Some(next) => request["after"] = next.clone(),
                    None => break,
                }
                assert_eq!(messages.len(), limit, "{page}");
            }
            let mut expected = offsets.clone();
            if reverse {
                expected.reverse();
            }
            assert_eq!(found, expected, "limit {limit}, reverse {reverse}");
        }
    }
    let position = admin.ask(r#"{"id":1,"command":"history","channel":"h:a","limit":0}"#);
    assert!(position.ends_with(r#","complete":true,"messages":[]}"#), "{position}");
}

fn a_history_is_read_from_a_position(shards: usize) {
    let (server, _dir) = start(shards);
    let mut admin = Admin::connect(&server);
    let epoch = epoch(&mut admin);
    let offsets: Vec<u64> = (0..4).map(|n| offset(&admin.ok(publish("few:a", n)), &epoch)).collect();
    let mut read = |since: Value, reverse: bool| {
        let page = admin.ok(json!({"command": "history", "channel": "few:a", "since": since, "reverse": reverse}));
        (data(&page), page["complete"] == true)
    };
    let at = |offset: u64| json!({"epoch": epoch, "offset": offset});
    // The channel keeps two messages.
    assert_eq!(read(at(offsets[3]), false), (vec![], true));
    assert_eq!(read(at(offsets[2]), false), (vec![3], true));
    assert_eq!(read(at(offsets[1]), false), (vec![2, 3], true));
    assert_eq!(read(at(offsets[1]), true), (vec![3, 2], true));
    assert!(!read(at(offsets[0]), false).1, "a message is missing");
    for other in ["0123456789abcdef", "", "not an epoch", &epoch.as_str().expect("a string")[1..]] {
        assert!(!read(json!({"epoch": other, "offset": offsets[2]}), false).1, "{other}");
    }
    assert!(!read(at(offsets[3] + 1_000_000), false).1, "from the future");
    let page = admin.ok(json!({"command": "history", "channel": "few:a"}));
    assert_eq!((data(&page), &page["complete"]), (vec![2, 3], &json!(true)), "what the rule keeps is complete");
}

fn a_page_of_a_history_ends_at_a_mebibyte(shards: usize) {
    let (server, _dir) = start(shards);
    let mut admin = Admin::connect(&server);
    let data = "x".repeat(250 * 1024);
    for _ in 0..6 {
        admin.ok(json!({"command": "publish", "channel": "h:large", "event": "e", "data": data}));
    }
    let first = admin.ok(json!({"command": "history", "channel": "h:large"}));
    let count = |page: &Value| page["messages"].as_array().map_or(0, Vec::len);
    assert!((4..=5).contains(&count(&first)), "{} messages", count(&first));
    let last = admin.ok(json!({"command": "history", "channel": "h:large", "after": first["next"]}));
    assert_eq!((count(&first) + count(&last), last.get("next")), (6, None));
}

fn answers_to_pipelined_requests_keep_their_order(shards: usize) {
    let (server, _dir) = start(shards);
    let mut admin = Admin::connect(&server);
    let lines = (0..60).map(|n| {
        let channel = format!("h:{}", n % 7);
        let request = match n % 3 {
            0 => json!({"id": n, "command": "publish", "channel": channel, "event": "e", "data": n}),
            1 => json!({"id": n, "command": "history", "channel": channel}),
            _ => json!({"id": n, "command": "publish", "channels": [channel, "h:x"], "event": "e", "data": n}),
        };
        format!("{request}\n")
    });
    admin.write(lines.collect::<String>());
    for n in 0..60 {
        let reply: Value = serde_json::from_str(&admin.line()).expect("JSON");
        assert_eq!((&reply["id"], &reply["ok"]), (&json!(n), &json!(true)), "{reply}");
        let member = ["offset", "messages", "positions"][n % 3];
        assert!(reply.get(member).is_some(), "{reply}");
    }
}

#[test]
fn the_data_of_a_history_is_what_was_published() {
    let (server, _dir) = start(2);
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    for (published, kept) in [
        ("null", "null"),
        ("-1.50E+999", "-1.50E+999"),
        (r#""\ud83c\u0041\/\n""#, r#""\ud83c\u0041\/\n""#),
        ("\"é😀\u{7f}\u{2028}\u{feff}\"", "\"é😀\u{7f}\u{2028}\u{feff}\""),
        ("{ \"a\" :\r\n\t[1,\n2 ]}", "{ \"a\" :  \t[1, 2 ]}"),
        (&deep, &deep),
    ] {
        let body = format!(r#"{{"channel":"h:data","event":"\u0065\"\ud83d\ude00","data":{published}}}"#);
        let told: Value = serde_json::from_str(&http.publish_with_token(&body).body).expect("JSON");
        let expected =
            format!(r#""messages":[{{"offset":{},"event":"\u0065\"\ud83d\ude00","data":{kept}}}]"#, told["offset"]);
        let line = admin.ask(r#"{"command":"history","channel":"h:data","limit":1,"reverse":true}"#);
        assert!(line.contains(&expected), "{expected} is not in {line}");
        serde_json::from_str::<&RawValue>(&line).expect("one JSON value on one line");
        let run = server.run(&["history", "h:data", "--limit", "1", "--reverse"]);
        assert!(run.status.success(), "{run:?}");
    }
}

/// Members of a publish, the code of the refusal, and a part of its text.
fn refusals() -> Vec<(String, &'static str, String)> {
    let mut all = Vec::new();
    let mut add = |members: &str, code, text: &str| all.push((members.to_owned(), code, text.to_owned()));
    for (member, bytes_max) in [("dedupe", 64), ("key", 64), ("user", 128)] {
        let to = if member == "user" { "" } else { r#""channel":"h:a","# };
        for value in ["null", "1", "[]", "{}", "true", r#""\ud83c""#] {
            add(&format!(r#"{to}"{member}":{value}"#), "malformed_request", &format!("{member} must be a string"));
        }
        add(&format!(r#"{to}"{member}":"""#), "malformed_request", &format!("{member} is empty"));
        let limit = format!("over the limit of {bytes_max} bytes of {member}");
        let (long, wide) = ("x".repeat(bytes_max + 1), "é".repeat(bytes_max / 2) + "x");
        add(&format!(r#"{to}"{member}":"{long}""#), "too_large", &limit);
        add(&format!(r#"{to}"{member}":"{wide}""#), "too_large", &limit);
    }
    for (list, one, what) in
        [("channels", "channel", "over the limit of 100"), ("users", "user", "over the limit of 100")]
    {
        for value in ["null", r#""a""#, "{}", "1"] {
            add(&format!(r#""{list}":{value}"#), "malformed_request", &format!("{list} must be an array of strings"));
        }
        add(&format!(r#""{list}":[]"#), "malformed_request", &format!("{list} is empty"));
        add(&format!(r#""{list}":["a",1]"#), "malformed_request", &format!("{list}[1]: must be a string"));
        add(&format!(r#""{list}":["\ud83c"]"#), "malformed_request", &format!("{list}[0]: must be a string"));
        add(&format!(r#""{list}":[{}"a"]"#, r#""a","#.repeat(100)), "too_large", &format!("{what} {list}"));
        add(
            &format!(r#""{one}":"a","{list}":["a"]"#),
            "malformed_request",
            &format!("{one} and {list} are both given"),
        );
    }
    add(r#""channels":["a","b c"]"#, "invalid_channel", "channels[1]: a channel name is");
    add(r#""channels":["\u0023server-to-user-12"]"#, "invalid_channel", "channels[0]: a channel name is");
    let long = "x".repeat(129);
    add(&format!(r#""users":["a","b","{long}"]"#), "too_large", "users[2]: over the limit of 128 bytes of user");
    add(r#""users":["a",""]"#, "malformed_request", "users[1]: user is empty");
    for (one, other) in [("channel", "user"), ("channel", "users"), ("channels", "user"), ("channels", "users")] {
        let value = |name: &str| if name.ends_with('s') { r#"["a"]"# } else { r#""a""# };
        let members = format!(r#""{other}":{},"{one}":{}"#, value(other), value(one));
        add(&members, "malformed_request", &format!("{one} and {other} are both given"));
    }
    add(r#""dedupe":"d""#, "missing_member", "channel is missing");
    all
}

#[test]
fn members_of_a_publish_are_checked_at_every_entry_point() {
    let (server, _dir) = start(2);
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let mut page = crate::console::Page::open(&server);
    let refusals = refusals();
    for (members, code, text) in &refusals {
        let line = format!(r#"{{"id":7,"command":"publish","event":"e",{members}}}"#);
        let reply = admin.ask(&line);
        assert_refused(&line, &reply, json!(7), code);
        let error: Value = serde_json::from_str(&reply).expect("JSON");
        let error = error["error"].as_str().expect("a text");
        assert!(error.contains(text.as_str()), "{line:.200} → {error}");
        let body = format!(r#"{{"id":7,"event":"e",{members}}}"#);
        let told = http.publish_with_token(&body);
        let status = if *code == "too_large" { 413 } else { 400 };
        assert_eq!((told.status, told.body.trim_end()), (status, reply.as_str()), "{body:.200}");
        let told = page.tell_text("publish", &format!(r#"{{"event":"e",{members}}}"#));
        assert_eq!(told.status, status, "{}", told.body);
        let told: Value = serde_json::from_str(&told.body).expect("JSON");
        assert_eq!(told, json!({"code": code, "error": error}));
    }
    let input: String = refusals.iter().map(|(members, ..)| format!("{{\"event\":\"e\",{members}}}\n")).collect();
    let run = server.run_with_input(&["publish", "--stdin"], input.as_bytes());
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(told.starts_with(&format!("published 0 (0 deliveries), refused {}", refusals.len())), "{told}");
    let longest =
        json!({"command": "publish", "channel": "h:a", "event": "e", "dedupe": "é".repeat(32), "key": "x".repeat(64)});
    admin.ok(longest);
}

#[test]
fn requests_for_a_history_are_checked() {
    let (server, _dir) = start(2);
    let mut admin = Admin::connect(&server);
    let mut check = |members: &str, code: &str, text: &str| {
        let line = format!(r#"{{"id":7,"command":"history"{members}}}"#);
        let reply = admin.ask(&line);
        assert_refused(&line, &reply, json!(7), code);
        assert!(reply.contains(text), "{line} → {reply}");
    };
    check("", "missing_member", "channel is missing");
    check(r#","channel":1"#, "malformed_request", "channel must be a string");
    for name in ["", "a b", "#server-to-user-12", "private-a:b"] {
        check(&format!(r#","channel":"{name}""#), "invalid_channel", "a channel name is");
    }
    for limit in ["-1", "1001", "1.0", "1e2", r#""1""#, "null", "18446744073709551616"] {
        let text = "limit must be an integer from 0 to 1000";
        check(&format!(r#","channel":"a","limit":{limit}"#), "malformed_request", text);
    }
    for reverse in ["0", "null", r#""true""#, "[]"] {
        let text = "reverse must be true or false";
        check(&format!(r#","channel":"a","reverse":{reverse}"#), "malformed_request", text);
    }
    for since in [
        "1",
        "null",
        r#""0f:1""#,
        "[]",
        "{}",
        r#"{"epoch":"0f"}"#,
        r#"{"offset":1}"#,
        r#"{"epoch":1,"offset":1}"#,
        r#"{"epoch":"\ud83c","offset":1}"#,
        r#"{"epoch":"0f","offset":"1"}"#,
        r#"{"epoch":"0f","offset":-1}"#,
        r#"{"epoch":"0f","offset":1.0}"#,
        r#"{"epoch":"0f","offset":9007199254740992}"#,
        r#"{"epoch":"0f","offset":1,"socket_id":"1.1"}"#,
    ] {
        let text = "since must be {\\\"epoch\\\": a string, \\\"offset\\\": an integer from 0 to 9007199254740991}";
        check(&format!(r#","channel":"a","since":{since}"#), "malformed_request", text);
    }
    for after in ["1", "null", r#""""#, r#""7""#, r#""0f:""#, r#""0f:-1""#, r#""0f:x""#] {
        let text = "after must be the next of an earlier reply";
        check(&format!(r#","channel":"a","after":{after}"#), "malformed_request", text);
    }
    check(r#","channel":"a","sinse":1"#, "malformed_request", r#"the nearest is \"since\""#);
    let mut members = |members: &str, code: &str| {
        let line = format!(r#"{{"id":7,"command":"members"{members}}}"#);
        admin.refused(&line, json!(7), code);
    };
    members("", "missing_member");
    members(r#","channel":[]"#, "malformed_request");
    members(r#","channel":"a b""#, "invalid_channel");
}

fn the_command_line_shows_positions_and_histories(shards: usize) {
    let (server, _dir) = start(shards);
    let mut admin = Admin::connect(&server);
    let epoch = epoch(&mut admin);
    let epoch = epoch.as_str().expect("a string");
    let text = |args: &[&str]| {
        let run = server.run(args);
        assert!(run.status.success(), "{args:?}: {run:?}");
        String::from_utf8(run.stdout).expect("UTF-8")
    };
    let last = |admin: &mut Admin| {
        let page = admin.ok(json!({"command": "history", "channel": "few:a", "limit": 0}));
        page["offset"].as_u64().expect("an offset")
    };
    let published = text(&["publish", "few:a", "tick", "-1E-9", "--key", "k", "--dedupe", "d"]);
    let first = last(&mut admin);
    assert_eq!(published, format!("published to 0 subscribers; position: {epoch}:{first}\n"));
    let again = text(&["publish", "few:a", "tick", "1", "--dedupe", "d"]);
    assert_eq!(again, format!("published to 0 subscribers; position: {epoch}:{first} (published before)\n"));
    let list = text(&["publish", "few:a", "order.paid", r#"{"id": 1.50}"#, "--also", "plain"]);
    let second = last(&mut admin);
    assert_eq!(list, format!("published to 0 subscribers; position: {epoch}:{second}, no history\n"));
    let width = "OFFSET".len();
    let expected = format!(
        "OFFSET  EVENT       DATA\n{first:>width$}  tick        -1E-9\n{second:>width$}  order.paid  {{\"id\": 1.50}}\n\
         position {epoch}:{second}\n"
    );
    assert_eq!(text(&["history", "few:a"]), expected);
    // Columns are as wide as the rows of the pages so far.
    let by_one = text(&["history", "few:a", "--all", "--limit", "1"]);
    assert_eq!(by_one, expected.replace("EVENT       DATA", "EVENT  DATA").replace("tick        ", "tick   "));
    let page = text(&["history", "few:a", "--limit", "1", "--reverse"]);
    assert!(
        page.ends_with(&format!("position {epoch}:{second}\nmore: --after {epoch}:{second}, or --all\n")),
        "{page}"
    );
    let rest = text(&["history", "few:a", "--reverse", "--after", &format!("{epoch}:{second}")]);
    assert!(rest.contains("tick   -1E-9") && !rest.contains("order.paid"), "{rest}");
    let since = text(&["history", "few:a", "--since", &format!("{epoch}:{first}"), "--json"]);
    let since: Value = serde_json::from_str(&since).expect("JSON");
    assert_eq!(
        (&since["messages"][0]["offset"], since["messages"].as_array().map(Vec::len)),
        (&json!(second), Some(1))
    );
    text(&["publish", "few:a", "third"]);
    let incomplete = text(&["history", "few:a", "--since", &format!("{epoch}:{}", first - 1)]);
    assert!(incomplete.contains("\nincomplete: older messages were discarded\n"), "{incomplete}");
    assert_eq!(text(&["history", "few:a", "--limit", "0"]), format!("position {epoch}:{}\n", last(&mut admin)));
    assert_eq!(text(&["history", "plain"]), "the channel has no history\n");
    assert_eq!(text(&["members", "presence-a"]), "no members\n");
    for args in [["history", "a b"], ["members", "a b"]] {
        let run = server.run(&args);
        assert_eq!(run.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&run.stderr).contains("invalid_channel"), "{run:?}");
    }
    for args in [&["history", "a", "--since", "7"][..], &["disconnect"], &["publish", "--user", "12", "e", "hello"]] {
        assert_eq!(server.run(args).status.code(), Some(2), "{args:?}");
    }
}
