//! Channels with memory: offsets, recovery from a position, greetings, and what happens to all of them at the limits.

use crate::auth::{self, auth};
use crate::harness::{
    Admin, Client, Server, assert_error, eventually, for_shards, over_tls, second_spelling, subscribe,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;

for_shards!(
    rules_and_names_decide_what_a_channel_keeps,
    offsets_grow_and_name_one_message_each,
    a_client_that_comes_back_misses_nothing,
    recovery_is_everything_or_nothing,
    malformed_positions_are_refused,
    what_was_not_for_the_earlier_connection_is_left_out,
    a_replay_is_bounded_by_number,
    a_replay_is_bounded_by_bytes,
    newcomers_are_greeted,
    a_greeting_is_bounded_too,
    messages_expire,
    a_channel_keeps_so_many_bytes,
    beyond_the_memory_histories_are_evicted,
    a_reload_gives_trims_and_takes_histories,
    a_restart_ends_the_epoch,
    a_repetition_is_answered_and_not_sent,
    of_racing_repetitions_one_is_sent,
    positions_are_those_of_the_list_as_written,
    a_history_is_read_in_pages,
    what_a_page_of_a_history_holds_is_bounded,
);

over_tls!(a_client_that_comes_back_misses_nothing);

/// The rules of most tests here.
const RULES: &str = r#"
[[channel]]
match = "h*"
history = 100
[[channel]]
match = "short*"
history = 3
[[channel]]
match = "last*"
history = 100
history-bytes = "1MiB"
on-subscribe = "last"
[[channel]]
match = "all*"
history = 2000
history-bytes = "8MiB"
on-subscribe = "all"
[[channel]]
match = "long*"
history = 2000
history-bytes = "8MiB"
"#;

/// A place in a channel's order, as the server tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    epoch: String,
    offset: u64,
}

impl Position {
    /// Of an object with the members `epoch` and `offset`.
    #[track_caller]
    fn of(object: &Value) -> Position {
        let epoch = object["epoch"].as_str().unwrap_or_else(|| panic!("no epoch in {object}")).to_owned();
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(epoch.len() == 16 && epoch.bytes().all(is_digit), "{epoch}");
        let offset = object["offset"].as_u64().unwrap_or_else(|| panic!("no offset in {object}"));
        assert!(offset < 1 << 53);
        Position { epoch, offset }
    }

    fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch.clone(), offset }
    }

    /// As the value of `since`.
    fn since(&self) -> Value {
        json!({"epoch": self.epoch, "offset": self.offset})
    }

    /// As in `data` of `socket:subscribed`, with `recovered` if there is one.
    fn told(&self, recovered: Option<bool>) -> String {
        let recovered = recovered.map_or(String::new(), |recovered| format!(r#","recovered":{recovered}"#));
        format!(r#"{{"epoch":"{}","offset":{}{recovered}}}"#, self.epoch, self.offset)
    }
}

/// A server with these rules.
fn start(shards: usize) -> Server {
    Server::options(shards).config(RULES).start()
}

/// Names with this beginning: so many that every shard owns some.
fn names(beginning: &str) -> impl Iterator<Item = String> {
    (0..12).map(move |number| format!("{beginning}:{number}"))
}

/// Publishes, and returns the position of the message.
#[track_caller]
fn publish(admin: &mut Admin, channel: &str, data: Value) -> Position {
    let request = json!({"id": 1, "command": "publish", "channel": channel, "event": "e", "data": data});
    Position::of(&admin.ok(request))
}

/// The text of a subscribe with a position.
fn subscribe_since(channel: &str, since: &Value) -> String {
    json!({"event": "socket:subscribe", "data": {"channel": channel, "since": since}}).to_string()
}

/// The reply to a subscribe that succeeded, with `data`.
fn subscribed_with(channel: &str, data: &str) -> String {
    format!(r#"{{"event":"socket:subscribed","channel":"{channel}","data":{data}}}"#)
}

/// A message of event `e`, as subscribers receive it.
fn message(channel: &str, data: impl ToString, offset: u64) -> String {
    format!(r#"{{"event":"e","channel":"{channel}","data":{},"offset":{offset}}}"#, data.to_string())
}

/// The next messages are those of `sent` with these numbers, which are their data.
#[track_caller]
fn expect_numbers(client: &mut Client, channel: &str, sent: &[Position], numbers: Range<usize>) {
    for (number, position) in sent.iter().enumerate().take(numbers.end).skip(numbers.start) {
        client.expect(&message(channel, number, position.offset));
    }
}

/// Subscribes without a position. Returns the position that it is told.
#[track_caller]
fn enter(client: &mut Client, channel: &str) -> Position {
    client.send(&subscribe(channel));
    let reply = client.text();
    let value: Value = serde_json::from_str(&reply).expect("JSON");
    let position = Position::of(&value["data"]);
    assert_eq!(reply, subscribed_with(channel, &position.told(None)));
    position
}

/// Subscribes with a position, and expects this reply.
#[track_caller]
fn come_back(client: &mut Client, channel: &str, since: &Position, told: &Position, recovered: bool) {
    client.send(&subscribe_since(channel, &since.since()));
    client.expect(&subscribed_with(channel, &told.told(Some(recovered))));
}

/// The answer to `history` of a channel, with further members.
#[track_caller]
fn history(admin: &mut Admin, channel: &str, members: Value) -> Value {
    let mut request = json!({"id": 1, "command": "history", "channel": channel});
    for (name, value) in members.as_object().expect("an object") {
        request[name] = value.clone();
    }
    admin.ok(request)
}

fn rules_and_names_decide_what_a_channel_keeps(shards: usize) {
    let rules = "[[channel]]\nmatch = \"h:plain*\"\n[[channel]]\nmatch = \"h*\"\nhistory = 5\n\
                 [[channel]]\nmatch = \"cache-not*\"\nhistory = 0\n";
    let options = Server::options(shards).config(rules);
    let server = options.arg("--key", format!("{}:{}", auth::KEY, auth::SECRET)).start();
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    // As ever, byte for byte.
    for plain in ["a", "h:plain", "cache-not", "cache", "Cache-a", "my-cache-a", "a-cache-"] {
        client.subscribe(plain);
        assert_eq!(admin.publish(plain, "e", json!(1)), 1);
        client.expect(&format!(r#"{{"event":"e","channel":"{plain}","data":1}}"#));
    }
    for name in names("h") {
        let position = enter(&mut client, &name);
        let first = publish(&mut admin, &name, json!({"a": 1}));
        assert!(first.epoch == position.epoch && first.offset > position.offset);
        client.expect(&message(&name, r#"{"a":1}"#, first.offset));
        let reply = admin.ok(json!({"id": 1, "command": "publish", "channel": name, "event": "bare"}));
        client.expect(&format!(r#"{{"event":"bare","channel":"{name}","offset":{}}}"#, reply["offset"]));
    }
    for name in ["cache-a", "private-cache-a", "private-encrypted-cache-a"] {
        let auth = |client: &Client| auth(&client.socket_id, name, None);
        publish(&mut admin, name, json!(1));
        let kept = publish(&mut admin, name, json!(2));
        let mut newcomer = Client::connect(&server);
        let auth = auth(&newcomer);
        newcomer.send(&json!({"event": "socket:subscribe", "data": {"channel": name, "auth": auth}}).to_string());
        newcomer.expect(&subscribed_with(name, &kept.at(kept.offset - 1).told(None)));
        newcomer.expect(&message(name, 2, kept.offset));
        newcomer.expect_nothing_before_pong();
    }
}

fn offsets_grow_and_name_one_message_each(shards: usize) {
    let server = start(shards);
    let mut admins: Vec<Admin> = (0..4).map(|_| Admin::connect(&server)).collect();
    let mut client = Client::connect(&server);
    let names: Vec<String> = names("h").collect();
    let mut last: BTreeMap<&str, Position> = names.iter().map(|name| (&**name, enter(&mut client, name))).collect();
    assert_eq!(last.values().map(|position| &position.epoch).collect::<std::collections::BTreeSet<_>>().len(), 1);
    for number in 0..100 {
        let name = &*names[number % 7 % names.len()];
        let position = publish(&mut admins[number % 4], name, json!(number));
        client.expect(&message(name, number, position.offset));
        assert!(position.offset > last[name].offset && position.epoch == last[name].epoch);
        last.insert(name, position);
    }
    // A newcomer is told the offset of the newest message, and so is a reader of the history.
    let mut other = Client::connect(&server);
    for (name, position) in last {
        assert_eq!(enter(&mut other, name), position);
        assert_eq!(Position::of(&history(&mut admins[0], name, json!({"limit": 0}))), position);
    }
}

fn a_client_that_comes_back_misses_nothing(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    for name in names("h") {
        let mut client = Client::connect(&server);
        let start = enter(&mut client, &name);
        let first = publish(&mut admin, &name, json!("first"));
        client.expect(&message(&name, "\"first\"", first.offset));
        client.close(1000);
        let missed: Vec<Position> = (0..3).map(|number| publish(&mut admin, &name, json!(number))).collect();
        let last = &missed[2];
        // From the last message that it has, from the beginning, and from the newest.
        for (since, from) in [(&first, 0), (last, 3), (&missed[1], 2)] {
            let mut client = Client::connect(&server);
            come_back(&mut client, &name, since, last, true);
            expect_numbers(&mut client, &name, &missed, from..3);
            client.expect_nothing_before_pong();
        }
        let mut client = Client::connect(&server);
        come_back(&mut client, &name, &start, last, true);
        client.expect(&message(&name, "\"first\"", first.offset));
        expect_numbers(&mut client, &name, &missed, 0..3);
        let live = publish(&mut admin, &name, json!("live"));
        client.expect(&message(&name, "\"live\"", live.offset));
    }
    assert_eq!(admin.stat("recoveries"), 4 * 12);
    assert_eq!(admin.stat("messages_replayed"), (3 + 1 + 4) * 12);
    assert_eq!(admin.stat("recoveries_failed"), 0);
}

fn recovery_is_everything_or_nothing(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    for name in names("short") {
        let mut client = Client::connect(&server);
        let start = enter(&mut client, &name);
        let sent: Vec<Position> = (0..5).map(|number| publish(&mut admin, &name, json!(number))).collect();
        let last = &sent[4];
        let other_epoch = format!("{:016x}", u64::from_str_radix(&last.epoch, 16).expect("hex") ^ 1);
        let strange = |epoch: &str| Position { epoch: epoch.to_owned(), offset: last.offset };
        let lost = [start, sent[0].clone(), last.at(last.offset + 1), last.at((1 << 53) - 1), last.at(0)];
        let upper = last.epoch.to_uppercase();
        let upper = if upper == last.epoch { "".into() } else { upper };
        let unknown = [&*other_epoch, "", "0", "not one of ours", "é\"\n", &upper].map(strange);
        for since in lost.iter().chain(&unknown) {
            let mut client = Client::connect(&server);
            come_back(&mut client, &name, since, last, false);
            client.expect_nothing_before_pong();
        }
        // The last position from which everything is kept.
        let mut client = Client::connect(&server);
        come_back(&mut client, &name, &sent[1], last, true);
        expect_numbers(&mut client, &name, &sent, 2..5);
        client.expect_nothing_before_pong();
        let plain = name.replace("short", "plain");
        client.send(&subscribe_since(&plain, &last.since()));
        client.expect(&subscribed_with(&plain, r#"{"recovered":false}"#));
    }
    assert_eq!(admin.stat("recoveries"), 12);
    assert_eq!(admin.stat("recoveries_failed"), 12 * 12);
}

fn malformed_positions_are_refused(shards: usize) {
    let server = start(shards);
    let mut client = Client::connect(&server);
    let malformed = [
        "null",
        "1",
        "true",
        "\"a\"",
        "[]",
        "{}",
        "[\"a\",1]",
        r#"{"epoch":"a"}"#,
        r#"{"offset":1}"#,
        r#"{"epoch":1,"offset":1}"#,
        r#"{"epoch":null,"offset":1}"#,
        r#"{"epoch":["a"],"offset":1}"#,
        r#"{"epoch":"a","offset":null}"#,
        r#"{"epoch":"a","offset":"1"}"#,
        r#"{"epoch":"a","offset":[1]}"#,
        r#"{"epoch":"a","offset":-1}"#,
        r#"{"epoch":"a","offset":1.0}"#,
        r#"{"epoch":"a","offset":1e3}"#,
        r#"{"epoch":"a","offset":9007199254740992}"#,
        r#"{"epoch":"a","offset":18446744073709551617}"#,
        r#"{"epoch":"a","offset":1,"socket_id":null}"#,
        r#"{"epoch":"a","offset":1,"socket_id":1}"#,
        r#"{"epoch":"a","offset":1,"socket_id":1.1}"#,
        r#"{"epoch":"a","offset":1,"socket_id":""}"#,
        r#"{"epoch":"a","offset":1,"socket_id":"1234"}"#,
        r#"{"epoch":"a","offset":1,"socket_id":{}}"#,
    ];
    for channel in ["plain", "h:1", "last:1", "cache-a"] {
        for since in malformed {
            client.send(&format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{channel}","since":{since}}}}}"#));
            assert_error(&client.text(), "socket:subscribe.error", Some(channel), "malformed_since");
        }
    }
    // Nothing has changed: the channels can be subscribed to. Unknown members of a position are ignored.
    let strange = json!({"epoch": "a", "offset": 9007199254740991_u64, "later": {"x": []}});
    client.send(&subscribe_since("plain", &strange));
    client.expect(&subscribed_with("plain", r#"{"recovered":false}"#));
    client.send(&subscribe_since("plain", &json!(1)));
    assert_error(&client.text(), "socket:subscribe.error", Some("plain"), "malformed_since");
    client.send(&subscribe_since("no name", &strange));
    assert_error(&client.text(), "socket:subscribe.error", Some("no name"), "invalid_channel");
    enter(&mut client, "h:1");
}

fn what_was_not_for_the_earlier_connection_is_left_out(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    for name in names("h") {
        let mut client = Client::connect(&server);
        let start = enter(&mut client, &name);
        let earlier = [client.socket_id.clone(), second_spelling(&client.socket_id)];
        client.close(1000);
        let mut offsets = Vec::new();
        for number in 0..6 {
            let exclude = if number % 3 == 1 { json!(earlier[number / 3]) } else { json!("1234.1234") };
            let reply = admin.ok(json!({"id": 1, "command": "publish", "channel": name, "event": "e", "data": number, "exclude": exclude}));
            offsets.push(Position::of(&reply));
        }
        let last = &offsets[5];
        let cases = [(None, true), (Some(&earlier[0]), false), (Some(&earlier[1]), false)];
        let unknown = "00000000-0000-0000-0000-000000000001".to_owned();
        for (socket_id, is_sent) in cases.into_iter().chain([(Some(&unknown), true)]) {
            let mut client = Client::connect(&server);
            let mut since = start.since();
            if let Some(socket_id) = socket_id {
                since["socket_id"] = json!(socket_id);
            }
            client.send(&subscribe_since(&name, &since));
            client.expect(&subscribed_with(&name, &last.told(Some(true))));
            for number in (0..6).filter(|number| is_sent || number % 3 != 1) {
                client.expect(&message(&name, number, offsets[number].offset));
            }
            client.expect_nothing_before_pong();
        }
    }
}

/// Publishes this many messages with equal data, as fast as the server takes them. Returns their positions.
fn publish_many(admin: &mut Admin, channel: &str, data: &str, count: usize) -> Vec<Position> {
    let line =
        json!({"id": 1, "command": "publish", "channel": channel, "event": "e", "data": data}).to_string() + "\n";
    let mut positions = Vec::new();
    while positions.len() < count {
        let window = (count - positions.len()).min(16);
        admin.write(line.repeat(window));
        let answers = (0..window).map(|_| serde_json::from_str::<Value>(&admin.line()).expect("JSON"));
        positions.extend(answers.map(|answer| Position::of(&answer)).collect::<Vec<_>>());
    }
    positions
}

/// Comes back from a position to a channel whose messages have equal data: all of `sent` are replayed.
#[track_caller]
fn expect_replay(client: &mut Client, channel: &str, since: &Position, data: &str, sent: &[Position]) {
    come_back(client, channel, since, sent.last().unwrap_or(since), true);
    for position in sent {
        client.expect(&message(channel, json!(data), position.offset));
    }
    client.expect_nothing_before_pong();
}

fn a_replay_is_bounded_by_number(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    let sent = publish_many(&mut admin, "long", "", 1001);
    let mut client = Client::connect(&server);
    expect_replay(&mut client, "long", &sent[0], "", &sent[1..]);
    let mut client = Client::connect(&server);
    come_back(&mut client, "long", &sent[0].at(sent[0].offset - 1), &sent[1000], false);
    client.expect_nothing_before_pong();
}

fn a_replay_is_bounded_by_bytes(shards: usize) {
    // A quarter of the outbox limit, 1 MiB.
    const QUARTER: usize = 256 * 1024;
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    let data = "x".repeat(QUARTER / 5 - 200);
    let sent = publish_many(&mut admin, "long", &data, 7);
    let mut client = Client::connect(&server);
    expect_replay(&mut client, "long", &sent[1], &data, &sent[2..]);
    let mut client = Client::connect(&server);
    come_back(&mut client, "long", &sent[0], &sent[6], false);
    client.expect_nothing_before_pong();
    // What is left out of a replay counts towards its bounds.
    let mut excluded = json!({"id": 1, "command": "publish", "channel": "long", "event": "e", "data": data});
    excluded["exclude"] = json!("1234.1234");
    let last = Position::of(&admin.ok(excluded));
    let mut since = sent[1].since();
    since["socket_id"] = json!("1234.1234");
    client = Client::connect(&server);
    client.send(&subscribe_since("long", &since));
    client.expect(&subscribed_with("long", &last.told(Some(false))));
    // A message larger than a replay.
    let large = "x".repeat(QUARTER - 20);
    let sent = publish_many(&mut admin, "long:large", &large, 1);
    let mut client = Client::connect(&server);
    come_back(&mut client, "long:large", &sent[0].at(sent[0].offset - 1), &sent[0], false);
    client.expect_nothing_before_pong();
}

fn newcomers_are_greeted(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    for (name, kept) in names("last").map(|name| (name, 1)).chain(names("all").map(|name| (name, 4))) {
        let mut client = Client::connect(&server);
        let empty = enter(&mut client, &name);
        client.expect_nothing_before_pong();
        let sent: Vec<Position> = (0..4).map(|number| publish(&mut admin, &name, json!(number))).collect();
        let greeting = 4 - kept..4;
        // One less than the offset of the greeting's first message.
        let position = sent[greeting.start].at(sent[greeting.start].offset - 1);
        let greet = |client: &mut Client, told: &str| {
            client.expect(&subscribed_with(&name, told));
            expect_numbers(client, &name, &sent, greeting.clone());
            client.expect_nothing_before_pong();
        };
        let mut newcomer = Client::connect(&server);
        newcomer.send(&subscribe(&name));
        greet(&mut newcomer, &position.told(None));
        // A client that takes the reply's position as its own receives the greeting after a reconnect, too.
        let mut early = Client::connect(&server);
        early.send(&subscribe_since(&name, &position.since()));
        greet(&mut early, &sent[3].told(Some(true)));
        // One that was not recovered is greeted as a newcomer is.
        let mut lost = Client::connect(&server);
        lost.send(&subscribe_since(&name, &Position { epoch: "other".into(), offset: 1 }.since()));
        greet(&mut lost, &position.told(Some(false)));
        // One that was recovered is not greeted.
        let mut current = Client::connect(&server);
        come_back(&mut current, &name, &sent[3], &sent[3], true);
        current.expect_nothing_before_pong();
        let mut oldest = Client::connect(&server);
        come_back(&mut oldest, &name, &empty, &sent[3], true);
        expect_numbers(&mut oldest, &name, &sent, 0..4);
        oldest.expect_nothing_before_pong();
    }
}

fn a_greeting_is_bounded_too(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    let greeted = |channel: &str, data: &str, sent: &[Position]| {
        let mut client = Client::connect(&server);
        client.send(&subscribe(channel));
        client.expect(&subscribed_with(channel, &sent[0].at(sent[0].offset - 1).told(None)));
        sent.iter().for_each(|position| client.expect(&message(channel, json!(data), position.offset)));
        client.expect_nothing_before_pong();
    };
    let sent = publish_many(&mut admin, "all", "", 1500);
    greeted("all", "", &sent[500..]);
    let data = "x".repeat(50_000);
    let sent = publish_many(&mut admin, "all:large", &data, 9);
    greeted("all:large", &data, &sent[4..]);
    // The newest message alone has no bound, but "all" has.
    let large = "x".repeat(256 * 1024 - 2);
    let sent = publish_many(&mut admin, "last:large", &large, 1);
    greeted("last:large", &large, &sent);
    let sent = publish_many(&mut admin, "all:larger", &large, 1);
    let mut client = Client::connect(&server);
    assert_eq!(enter(&mut client, "all:larger"), sent[0]);
    client.expect_nothing_before_pong();
}

fn messages_expire(shards: usize) {
    let rules = "[[channel]]\nmatch = \"h*\"\nhistory = 9\nhistory-ttl = 1\n";
    let server = Server::options(shards).config(rules).start();
    let mut admin = Admin::connect(&server);
    let sent: Vec<(String, Position)> =
        names("h").map(|name| (name.clone(), publish(&mut admin, &name, json!(1)))).collect();
    for (name, position) in sent {
        eventually("the message is too old", || {
            history(&mut admin, &name, json!({}))["messages"].as_array().expect("a list").is_empty()
        });
        assert_eq!(history(&mut admin, &name, json!({}))["complete"], true, "the rule keeps no more");
        let mut client = Client::connect(&server);
        come_back(&mut client, &name, &position, &position, true);
        let mut client = Client::connect(&server);
        come_back(&mut client, &name, &position.at(position.offset - 1), &position, false);
    }
    eventually("their memory is freed", || {
        let kept = |name: String| {
            admin.ok(json!({"id": 1, "command": "channel", "channel": name}))["history"]["bytes"]
                .as_u64()
                .expect("bytes")
        };
        names("h").map(kept).sum::<u64>() == 0
    });
}

fn a_channel_keeps_so_many_bytes(shards: usize) {
    let rules = "[[channel]]\nmatch = \"h*\"\nhistory = 1000\nhistory-bytes = \"16KiB\"\n";
    let server = Server::options(shards).config(rules).start();
    let mut admin = Admin::connect(&server);
    let sent = publish_many(&mut admin, "h", &"x".repeat(1000), 100);
    let reply = admin.ok(json!({"id": 1, "command": "channel", "channel": "h"}));
    let (messages, bytes) = (&reply["history"]["messages"], &reply["history"]["bytes"]);
    let count = messages.as_u64().expect("a number") as usize;
    assert!((13..17).contains(&count) && bytes.as_u64().expect("a number") <= 16 * 1024, "{reply}");
    let page = history(&mut admin, "h", json!({}));
    assert_eq!(page["complete"], true, "the rule keeps no more");
    let offsets: Vec<u64> = page["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|kept| kept["offset"].as_u64().expect("a number"))
        .collect();
    assert!(offsets.iter().eq(sent[100 - count..].iter().map(|position| &position.offset)));
    // A message that does not fit is sent and not kept, nor is anything before it.
    let large = publish_many(&mut admin, "h", &"x".repeat(17_000), 1);
    let page = history(&mut admin, "h", json!({}));
    assert_eq!((Position::of(&page), &page["messages"]), (large[0].clone(), &json!([])));
    let mut client = Client::connect(&server);
    come_back(&mut client, "h", &sent[99], &large[0], false);
}

fn beyond_the_memory_histories_are_evicted(shards: usize) {
    let server = Server::options(shards).config(RULES).arg("--history-memory", "64KiB").start();
    let mut admin = Admin::connect(&server);
    let data = "x".repeat(2000);
    let mut sent = BTreeMap::new();
    for number in 0..100 {
        let name = format!("h:{number}");
        sent.insert(number, publish_many(&mut admin, &name, &data, 2));
    }
    let evicted = admin.stat("histories_evicted");
    // 200 messages of more than 2 000 bytes, of which 64 KiB are kept.
    assert!((168..200).contains(&evicted), "{evicted}");
    assert!(admin.stat("history_bytes") <= 64 * 1024);
    let (mut recovered, mut lost) = (Vec::new(), Vec::new());
    // All of them stay: a channel that loses its last subscriber takes memory, so that others are evicted.
    let mut clients = Vec::new();
    for (number, sent) in &sent {
        let name = format!("h:{number}");
        let page = history(&mut admin, &name, json!({}));
        let mut client = Client::connect(&server);
        client.send(&subscribe_since(&name, &sent[0].since()));
        let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
        let is_recovered = reply["data"]["recovered"].as_bool().expect("a bool");
        assert!(is_recovered || page["complete"] == false, "{name}: {page}");
        assert_eq!(page["messages"].as_array().expect("a list").len(), if is_recovered { 2 } else { 0 });
        if is_recovered {
            assert_eq!(Position::of(&reply["data"]), sent[1]);
            client.expect(&message(&name, json!(data), sent[1].offset));
            recovered.push(*number);
        } else {
            lost.push(*number);
        }
        client.expect_nothing_before_pong();
        clients.push(client);
    }
    assert!(recovered.contains(&99) && lost.contains(&0), "recovered {recovered:?}, lost {lost:?}");
    // An evicted channel keeps what comes next.
    let start = Position::of(&history(&mut admin, "h:0", json!({"limit": 0})));
    let next = publish_many(&mut admin, "h:0", &data, 1);
    let mut client = Client::connect(&server);
    expect_replay(&mut client, "h:0", &start, &data, &next);
}

fn a_reload_gives_trims_and_takes_histories(shards: usize) {
    let rule = |history: usize| format!("[[channel]]\nmatch = \"r*\"\nhistory = {history}\n");
    let server = Server::options(shards).config("").start();
    let mut admin = Admin::connect(&server);
    // Half of the channels have a subscriber throughout.
    let mut client = Client::connect(&server);
    let live: Vec<String> = names("r:live").collect();
    let all: Vec<String> = live.iter().cloned().chain(names("r:idle")).collect();
    live.iter().for_each(|name| client.subscribe(name));
    let come_back_to = |name: &str, since: &Position| {
        let mut client = Client::connect(&server);
        client.send(&subscribe_since(name, &since.since()));
        let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
        assert_eq!(reply["event"], "socket:subscribed", "{reply}");
        (client, reply["data"].clone())
    };
    server.changes(&rule(10));
    let mut sent: BTreeMap<&str, Vec<Position>> = BTreeMap::new();
    for name in &all {
        let start = Position::of(&history(&mut admin, name, json!({"limit": 0})));
        let positions: Vec<Position> = (0..5).map(|number| publish(&mut admin, name, json!(number))).collect();
        if live.contains(name) {
            expect_numbers(&mut client, name, &positions, 0..5);
        }
        let (mut newcomer, data) = come_back_to(name, &start);
        assert_eq!((&data["recovered"], Position::of(&data)), (&json!(true), positions[4].clone()));
        expect_numbers(&mut newcomer, name, &positions, 0..5);
        sent.insert(name, positions);
    }
    server.changes(&rule(2));
    for name in &all {
        let sent = &sent[&**name];
        let (_, data) = come_back_to(name, &sent[1]);
        assert_eq!((&data["recovered"], Position::of(&data)), (&json!(false), sent[4].clone()));
        let (mut newcomer, data) = come_back_to(name, &sent[2]);
        assert_eq!(data["recovered"], true);
        expect_numbers(&mut newcomer, name, sent, 3..5);
    }
    server.changes("");
    for name in &all {
        let subscribers = u64::from(live.contains(name));
        eventually("the newcomers have left", || admin.subscribers(name) == subscribers);
        assert_eq!(admin.publish(name, "e", json!(5)), subscribers);
        if live.contains(name) {
            client.expect(&format!(r#"{{"event":"e","channel":"{name}","data":5}}"#));
        }
        let (_, data) = come_back_to(name, &sent[&**name][4]);
        assert_eq!(data, json!({"recovered": false}));
    }
    eventually("the memory is freed", || admin.stat("history_bytes") == 0);
    server.changes(&rule(10));
    for name in &all {
        // What was published without a history is missing.
        let (mut newcomer, data) = come_back_to(name, &sent[&**name][4]);
        assert_eq!(data["recovered"], false, "{name}");
        let position = Position::of(&data);
        assert!(position.epoch == sent[&**name][4].epoch && position.offset > sent[&**name][4].offset);
        let next = publish(&mut admin, name, json!(6));
        newcomer.expect(&message(name, 6, next.offset));
        let (mut newcomer, data) = come_back_to(name, &position);
        assert_eq!((&data["recovered"], Position::of(&data)), (&json!(true), next.clone()));
        newcomer.expect(&message(name, 6, next.offset));
    }
}

fn a_restart_ends_the_epoch(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    let sent: Vec<(String, Position)> =
        names("last").map(|name| (name.clone(), publish(&mut admin, &name, json!(1)))).collect();
    drop(server);
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    for (name, since) in sent {
        let mut client = Client::connect(&server);
        client.send(&subscribe_since(&name, &since.since()));
        let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
        let position = Position::of(&reply["data"]);
        assert_eq!((&reply["data"]["recovered"], reply["channel"].as_str()), (&json!(false), Some(&*name)));
        assert!(position.epoch != since.epoch);
        let page = history(&mut admin, &name, json!({"since": since.since()}));
        assert_eq!((&page["complete"], &page["messages"], Position::of(&page)), (&json!(false), &json!([]), position));
    }
}

fn a_repetition_is_answered_and_not_sent(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    let mut other = Admin::connect(&server);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    for name in names("h").chain(names("plain")) {
        let has_history = name.starts_with('h');
        for client in &mut clients {
            client.send(&subscribe(&name));
            assert!(client.text().starts_with(r#"{"event":"socket:subscribed""#));
        }
        let publish = |admin: &mut Admin, dedupe: &str, data: u64, exclude: Option<&str>| {
            let mut request =
                json!({"id": 1, "command": "publish", "channel": name, "event": "e", "data": data, "dedupe": dedupe});
            if let Some(exclude) = exclude {
                request["exclude"] = json!(exclude);
            }
            admin.ok(request)
        };
        let excluded = clients[3].socket_id.clone();
        let first = [publish(&mut admin, "a", 1, None), publish(&mut admin, "b", 2, Some(&excluded))];
        assert_eq!((&first[0]["subscribers"], &first[1]["subscribers"]), (&json!(4), &json!(3)));
        for (first, (dedupe, exclude)) in first.iter().zip([("a", None), ("b", Some(&*excluded))]) {
            assert_eq!((first.get("duplicate"), first.get("offset").is_some()), (None, has_history));
            let mut repeated = first.clone();
            repeated["duplicate"] = json!(true);
            assert_eq!(publish(&mut other, dedupe, 7, exclude), repeated);
            assert_eq!(publish(&mut admin, dedupe, 7, exclude), repeated);
        }
        // Every byte counts, and the channel.
        let third = publish(&mut other, "A", 3, None);
        assert_eq!(third.get("duplicate"), None);
        for (number, client) in clients.iter_mut().enumerate() {
            for (data, answer) in [(1, &first[0]), (2, &first[1]), (3, &third)] {
                if (number, data) == (3, 2) {
                    continue;
                }
                match has_history {
                    true => client.expect(&message(&name, data, answer["offset"].as_u64().expect("a number"))),
                    false => client.expect(&format!(r#"{{"event":"e","channel":"{name}","data":{data}}}"#)),
                }
            }
            client.expect_nothing_before_pong();
        }
    }
    assert_eq!(admin.stat("publishes_repeated"), 24 * 4);
    for (dedupe, code) in
        [(json!("x".repeat(65)), "too_large"), (json!(1), "malformed_request"), (json!(""), "malformed_request")]
    {
        let line = json!({"id": 1, "command": "publish", "channel": "h", "event": "e", "dedupe": dedupe}).to_string();
        admin.refused(&line, json!(1), code);
    }
}

fn of_racing_repetitions_one_is_sent(shards: usize) {
    let server = start(shards);
    let mut client = Client::connect(&server);
    let names: Vec<String> = names("h").collect();
    names.iter().for_each(|name| _ = enter(&mut client, name));
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let publish = |number: usize| {
            let (names, server) = (&names, &server);
            scope.spawn(move || {
                let mut admin = Admin::connect(server);
                let request = |name| {
                    json!({"id": 1, "command": "publish", "channel": name, "event": "e", "data": number, "dedupe": "once"})
                };
                names.iter().map(|name| admin.ok(request(name))).collect::<Vec<Value>>()
            })
        };
        let threads: Vec<_> = (0..8).map(publish).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a publisher")).collect()
    });
    let firsts: Vec<&Value> = answers.iter().filter(|answer| answer.get("duplicate").is_none()).collect();
    assert_eq!((answers.len(), firsts.len()), (8 * names.len(), names.len()));
    let mut received: Vec<Value> =
        names.iter().map(|_| serde_json::from_str::<Value>(&client.text()).expect("JSON")["offset"].clone()).collect();
    client.expect_nothing_before_pong();
    let mut expected: Vec<Value> = firsts.iter().map(|answer| answer["offset"].clone()).collect();
    let key = |offset: &Value| offset.as_u64().expect("a number");
    received.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(received, expected);
    assert!(answers.iter().all(|answer| received.contains(&answer["offset"]) && answer["subscribers"] == 1));
}

fn positions_are_those_of_the_list_as_written(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    let names: Vec<String> = names("h").collect();
    let starts: Vec<Position> = names.iter().map(|name| enter(&mut client, name)).collect();
    client.subscribe("plain");
    // Twice in other orders, and a channel without history in between.
    let written: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .chain(["plain"])
        .chain(names.iter().rev().map(String::as_str))
        .chain(["plain"])
        .collect();
    let request = json!({"id": 1, "command": "publish", "channels": written, "event": "e", "data": 1, "dedupe": "d"});
    let answer = admin.ok(request.clone());
    assert_eq!((&answer["subscribers"], answer.get("offset")), (&json!(13), None), "{answer}");
    let positions = answer["positions"].as_array().expect("a list");
    assert_eq!(positions.len(), written.len());
    let mut received: BTreeMap<String, Value> = BTreeMap::new();
    for _ in 0..13 {
        let message: Value = serde_json::from_str(&client.text()).expect("JSON");
        let channel = message["channel"].as_str().expect("a name").to_owned();
        assert!(received.insert(channel, message["offset"].clone()).is_none(), "{message} came twice");
    }
    client.expect_nothing_before_pong();
    for (name, position) in written.iter().zip(positions) {
        let expected = match *name {
            "plain" => Value::Null,
            name => json!({"epoch": starts[0].epoch, "offset": received[name]}),
        };
        assert_eq!(*position, expected, "{name}");
    }
    // Each place has its own `duplicate`; the one channel that is new to the key gets the message.
    let mut repeated = request;
    repeated["channels"] = json!([names[0], "plain", "h:new", names[0]]);
    let answer = Admin::connect(&server).ok(repeated);
    let positions = answer["positions"].as_array().expect("a list");
    let first = json!({"epoch": starts[0].epoch, "offset": received[&names[0]], "duplicate": true});
    assert_eq!((&positions[0], &positions[1], &positions[3]), (&first, &json!({"duplicate": true}), &first));
    assert_eq!((positions.len(), positions[2].get("duplicate")), (4, None));
    Position::of(&positions[2]);
    client.expect_nothing_before_pong();
    // Channels without a history have no positions.
    let plain = admin.ok(json!({"id": 1, "command": "publish", "channels": ["plain", "other"], "event": "e"}));
    assert_eq!(plain, json!({"id": 1, "ok": true, "subscribers": 1}));
}

fn a_history_is_read_in_pages(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    for name in names("h") {
        let start = Position::of(&history(&mut admin, &name, json!({})));
        let sent: Vec<u64> = (0..10).map(|number| publish(&mut admin, &name, json!({"n": number})).offset).collect();
        let mut read = |members: Value| {
            let (mut offsets, mut pages, mut after) = (Vec::new(), 0, None);
            loop {
                let mut members = members.clone();
                if let Some(after) = after {
                    members["after"] = after;
                }
                let page = history(&mut admin, &name, members);
                assert_eq!((Position::of(&page).offset, &page["complete"]), (sent[9], &json!(true)), "{page}");
                for kept in page["messages"].as_array().expect("a list") {
                    offsets.push(kept["offset"].as_u64().expect("a number"));
                    let number = sent.iter().position(|offset| Some(offset) == offsets.last()).expect("a message");
                    assert_eq!(*kept, json!({"offset": sent[number], "event": "e", "data": {"n": number}}));
                }
                pages += 1;
                after = page.get("next").cloned();
                if after.is_none() {
                    return (offsets, pages);
                }
            }
        };
        let reversed = |offsets: &[u64]| offsets.iter().rev().copied().collect::<Vec<u64>>();
        let since = start.at(sent[3]).since();
        assert_eq!(read(json!({})), (sent.clone(), 1));
        assert_eq!(read(json!({"limit": 3})), (sent.clone(), 4));
        assert_eq!(read(json!({"limit": 4, "reverse": true})), (reversed(&sent), 3));
        assert_eq!(read(json!({"since": since})), (sent[4..].to_vec(), 1));
        assert_eq!(read(json!({"since": since, "limit": 2})), (sent[4..].to_vec(), 3));
        assert_eq!(read(json!({"since": since, "limit": 5, "reverse": true})), (reversed(&sent[4..]), 2));
        assert_eq!(read(json!({"since": start.at(sent[9]).since()})), (vec![], 1));
        assert_eq!(read(json!({"limit": 0})), (vec![], 1));
        // Not complete: another epoch, or a position of the future.
        for since in [json!({"epoch": "x", "offset": sent[3]}), start.at(sent[9] + 1).since()] {
            assert_eq!(history(&mut admin, &name, json!({"since": since, "limit": 0}))["complete"], false);
        }
    }
}

fn what_a_page_of_a_history_holds_is_bounded(shards: usize) {
    let server = start(shards);
    let mut admin = Admin::connect(&server);
    // Channels without a history have no position.
    let plain = history(&mut admin, "plain", json!({}));
    assert_eq!(plain, json!({"id": 1, "ok": true, "complete": true, "messages": []}));
    let since = json!({"epoch": "x", "offset": 1});
    assert_eq!(history(&mut admin, "plain", json!({"since": since}))["complete"], false);
    // A page ends when it holds 1 MiB.
    publish_many(&mut admin, "long", &"x".repeat(200_000), 12);
    let first = history(&mut admin, "long", json!({}));
    let count = |page: &Value| page["messages"].as_array().expect("a list").len();
    let second = history(&mut admin, "long", json!({"after": first["next"]}));
    let third = history(&mut admin, "long", json!({"after": second["next"]}));
    assert_eq!((count(&first), count(&second), count(&third), third.get("next")), (5, 5, 2, None));
    let malformed = [
        r#""limit":1001"#,
        r#""limit":-1"#,
        r#""limit":"1""#,
        r#""since":1"#,
        r#""since":{"epoch":"x"}"#,
        r#""reverse":1"#,
        r#""after":1"#,
    ];
    for members in malformed {
        let line = format!(r#"{{"id":1,"command":"history","channel":"h",{members}}}"#);
        admin.refused(&line, json!(1), "malformed_request");
    }
    admin.refused(r#"{"id":1,"command":"history","channel":"h h"}"#, json!(1), "invalid_channel");
    admin.refused(r#"{"id":1,"command":"history"}"#, json!(1), "missing_member");
}
