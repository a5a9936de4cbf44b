//! Lifecycle events: a consumer receives a snapshot and the events after it, in order and without a gap.

use crate::client_events::join;
use crate::harness::{Admin, Client, RawClient, Server, eventually, for_shards, opcode, output, subscribe};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::process::Stdio;

for_shards!(
    a_snapshot_then_everything_in_order,
    a_channel_is_vacated_only_if_no_subscriber_returns,
    every_disconnect_has_a_reason,
    a_consumer_resumes_after_a_known_number,
    snapshot_and_events_agree_with_the_listings,
    consumers_are_told_that_the_server_stops,
    a_consumer_that_does_not_read_delays_no_other,
    a_consumer_that_leaves_is_removed,
    events_that_are_not_changes_must_be_asked_for,
    a_consumer_that_ends_its_input_gets_earlier_answers,
    input_of_a_consumer_is_not_read,
    the_number_of_consumers_is_limited,
    the_command_prints_a_line_per_event,
);

/// A consumer that keeps the state that it receives.
struct Consumer {
    admin: Admin,
    epoch: String,
    /// Number of the last line.
    number: u64,
    channels: BTreeSet<String>,
    connections: BTreeSet<String>,
}

impl Consumer {
    /// Starts with a snapshot, and reads it to its end.
    #[track_caller]
    fn start(server: &Server) -> Consumer {
        let mut consumer = Consumer::ask(server, json!({"id": 1, "command": "events"}));
        consumer.snapshot();
        consumer
    }

    #[track_caller]
    fn ask(server: &Server, request: Value) -> Consumer {
        let mut admin = Admin::connect(server);
        let reply = admin.ok(request);
        let epoch = reply["epoch"].as_str().expect("an epoch").to_owned();
        let number = reply["number"].as_u64().expect("a number");
        assert_eq!(reply, json!({"id": 1, "ok": true, "epoch": epoch, "number": number}));
        assert_eq!(epoch.len(), 16);
        Consumer { admin, epoch, number, channels: BTreeSet::new(), connections: BTreeSet::new() }
    }

    #[track_caller]
    fn snapshot(&mut self) {
        assert_eq!(self.value(), json!({"number": self.number, "event": "snapshot"}));
        let (mut channels, mut connections) = (0, 0); // and no members: see presence.rs
        loop {
            let line = self.value();
            assert_eq!(line["number"], self.number, "{line}");
            assert_eq!(line["time_ms"], Value::Null, "{line}");
            match line["event"].as_str() {
                Some("channel_occupied") => channels += 1,
                Some("connected") => connections += 1,
                _ => {
                    let counts = json!({"number": self.number, "event": "snapshot_end", "channels": channels, "members": 0, "connections": connections});
                    return assert_eq!(line, counts);
                }
            }
            self.apply(&line);
        }
    }

    /// The next event, which has the next number.
    #[track_caller]
    fn next(&mut self) -> Value {
        let line = self.value();
        assert_eq!(line["number"], self.number + 1, "{line}");
        assert!(line["time_ms"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000), "{line}");
        self.number += 1;
        self.apply(&line);
        line
    }

    /// Expects this event next, at any time.
    #[track_caller]
    fn expect(&mut self, mut event: Value) {
        let line = self.next();
        event["number"] = line["number"].clone();
        event["time_ms"] = line["time_ms"].clone();
        assert_eq!(line, event);
    }

    /// Reads events until this one.
    #[track_caller]
    fn until(&mut self, event: &str, member: &str, value: &str) -> Value {
        loop {
            let line = self.next();
            if line["event"] == event && line[member] == value {
                return line;
            }
        }
    }

    #[track_caller]
    fn value(&mut self) -> Value {
        let line = self.admin.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
    }

    fn apply(&mut self, line: &Value) {
        let name = |member: &str| line[member].as_str().unwrap_or_else(|| panic!("{member} of {line}")).to_owned();
        match line["event"].as_str() {
            Some("channel_occupied") => self.channels.insert(name("channel")),
            Some("channel_vacated") => self.channels.remove(&name("channel")),
            Some("connected") => self.connections.insert(name("socket_id")),
            Some("disconnected") => self.connections.remove(&name("socket_id")),
            _ => panic!("an unknown event: {line}"),
        };
    }
}

fn a_snapshot_then_everything_in_order(shards: usize) {
    let server = Server::start(shards);
    let mut early = Client::connect(&server);
    early.subscribe("early");
    let mut consumer = Consumer::start(&server);
    assert_eq!(consumer.number, 1);
    assert_eq!(consumer.channels, BTreeSet::from(["early".to_owned()]));
    assert_eq!(consumer.connections, BTreeSet::from([early.socket_id.clone()]));

    let late = Client::connect(&server);
    let connected = consumer.next();
    let shard = connected["shard"].as_u64().expect("a shard");
    assert!(shard < shards as u64);
    let event = json!({"number": 2, "time_ms": connected["time_ms"], "event": "connected",
        "socket_id": late.socket_id, "address": late.address().to_string(), "shard": shard});
    assert_eq!(connected, event);
    early.subscribe("second");
    consumer.expect(json!({"event": "channel_occupied", "channel": "second"}));
    let mut late = late;
    late.subscribe("second");
    late.subscribe("third");
    consumer.expect(json!({"event": "channel_occupied", "channel": "third"}));
    late.close(1000);
    consumer
        .expect(json!({"event": "disconnected", "socket_id": late.socket_id, "reason": "client_closed", "code": 1000}));
    consumer.expect(json!({"event": "channel_vacated", "channel": "third"}));

    // Another consumer sees the same, under the same numbers.
    let other = Consumer::start(&server);
    assert_eq!((other.number, &other.epoch), (consumer.number, &consumer.epoch));
    assert_eq!((other.channels, other.connections), (consumer.channels, consumer.connections));
}

fn a_channel_is_vacated_only_if_no_subscriber_returns(shards: usize) {
    let server = Server::start(shards);
    let mut consumer = Consumer::start(&server);
    let mut client = Client::connect(&server);
    client.subscribe("page");
    client.unsubscribe("page");
    client.subscribe("page");
    client.subscribe("fence");
    consumer.until("channel_occupied", "channel", "page");
    // The short vacancy caused no event; a consumer that starts now gets the channel as occupied.
    consumer.expect(json!({"event": "channel_occupied", "channel": "fence"}));
    client.unsubscribe("page");
    let other = Consumer::start(&server);
    assert_eq!(other.channels, BTreeSet::from(["fence".to_owned(), "page".to_owned()]));
    let mut admin = Admin::connect(&server);
    let listed = admin.ok(json!({"id": 1, "command": "channels"}));
    assert_eq!(
        listed["channels"],
        json!([{"channel": "fence", "subscribers": 1}]),
        "the other channel has no subscribers"
    );
    assert_eq!(admin.stat("channels"), 1);
    consumer.expect(json!({"event": "channel_vacated", "channel": "page"}));
    client.subscribe("page");
    consumer.expect(json!({"event": "channel_occupied", "channel": "page"}));
}

fn every_disconnect_has_a_reason(shards: usize) {
    let server = Server::options(shards).arg("--outbox-limit", 65536).start();
    let mut consumer = Consumer::start(&server);
    let mut admin = Admin::connect(&server);
    let mut ended = |id: &str| {
        let mut line = consumer.until("disconnected", "socket_id", id);
        let told = line.as_object_mut().expect("an object");
        told.retain(|member, _| member == "reason" || member == "code");
        line
    };

    let client = Client::connect(&server);
    let id = client.socket_id.clone();
    drop(client);
    assert_eq!(ended(&id), json!({"reason": "client_gone"}));

    let client = Client::connect(&server);
    admin.ok(json!({"id": 1, "command": "disconnect", "socket_id": client.socket_id, "code": 4242}));
    assert_eq!(ended(&client.socket_id), json!({"reason": "disconnected", "code": 4242}));

    let mut raw = RawClient::tcp(&server);
    let connected = raw.upgrade();
    let id = connected["data"]["socket_id"].as_str().expect("an id");
    raw.write(&crate::harness::frame(opcode::BINARY, b"?"));
    assert_eq!(ended(id), json!({"reason": "binary_message", "code": 1003}));

    let mut slow = RawClient::tcp_with_small_buffer(&server);
    let connected = slow.upgrade();
    let id = connected["data"]["socket_id"].as_str().expect("an id");
    slow.write(&crate::harness::text_frame(&crate::harness::subscribe("flood")));
    slow.expect(&crate::harness::subscribed("flood"));
    while admin.publish("flood", "e", "x".repeat(10_000).into()) > 0 {}
    assert_eq!(ended(id), json!({"reason": "slow_consumer", "code": 4100}));
}

fn a_consumer_resumes_after_a_known_number(shards: usize) {
    let server = Server::start(shards);
    let mut consumer = Consumer::start(&server);
    let mut client = Client::connect(&server);
    consumer.next();
    let (number, epoch) = (consumer.number, consumer.epoch.clone());
    drop(consumer);
    client.subscribe("meanwhile");
    client.subscribe("later");
    let request = |since: u64, epoch: &str| json!({"id": 1, "command": "events", "since": since, "epoch": epoch});
    let mut back = Consumer::ask(&server, request(number, &epoch));
    assert_eq!(back.number, number);
    // Two shards may own the channels, so their events come in either order.
    while back.channels.len() < 2 {
        back.next();
    }
    assert_eq!(back.channels, BTreeSet::from(["later".to_owned(), "meanwhile".to_owned()]));
    let now = back.number;
    for (since, epoch) in [(number, "0123456789abcdef"), (number, "nonsense"), (0, &epoch), (now + 1, &epoch)] {
        let mut anew = Consumer::ask(&server, request(since, epoch));
        assert_eq!(anew.number, now, "{since} {epoch}");
        anew.snapshot();
        assert_eq!(anew.channels.len(), 2);
    }
    // Without an epoch the number alone decides.
    let mut back = Consumer::ask(&server, json!({"id": 1, "command": "events", "since": now - 1}));
    back.next();
    for (line, code) in [
        (r#"{"id":1,"command":"events","since":-1}"#, "malformed_request"),
        (r#"{"id":1,"command":"events","since":"1"}"#, "malformed_request"),
        (r#"{"id":1,"command":"events","epoch":7}"#, "malformed_request"),
    ] {
        Admin::connect(&server).refused(line, 1.into(), code);
    }
}

/// Many clients connect and leave while consumers start, some of them in the middle of it.
fn snapshot_and_events_agree_with_the_listings(shards: usize) {
    let server = Server::start(shards);
    let mut consumers = vec![Consumer::start(&server)];
    let mut clients = Vec::new();
    for n in 0..120 {
        let mut client = Client::connect(&server);
        client.subscribe(&format!("own:{n}"));
        client.subscribe(&format!("shared:{}", n % 7));
        clients.push(client);
        if n % 3 == 0 {
            clients.swap_remove(clients.len() / 2);
        }
        if n % 40 == 0 {
            consumers.push(Consumer::ask(&server, json!({"id": 1, "command": "events"})));
        }
    }
    for consumer in &mut consumers[1..] {
        consumer.snapshot();
    }
    // The last events of each shard and of each owner.
    let fences: Vec<String> = (0..64).map(|n| format!("fence:{n}")).collect();
    for fence in &fences {
        clients[0].subscribe(fence);
    }
    let ids: BTreeSet<String> = clients.iter().map(|client| client.socket_id.clone()).collect();
    let mut admin = Admin::connect(&server);
    eventually("connections that left are gone", || {
        let gone = |admin: &mut Admin| admin.stat("connections") == clients.len() as u64;
        gone(&mut admin)
    });
    let mut listed = BTreeSet::new();
    let mut after = Value::Null;
    loop {
        let mut request = json!({"id": 1, "command": "channels", "limit": 1000});
        if !after.is_null() {
            request["after"] = after;
        }
        let page = admin.ok(request);
        let names = page["channels"].as_array().expect("a page").iter();
        listed.extend(names.map(|channel| channel["channel"].as_str().expect("a name").to_owned()));
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    for consumer in &mut consumers {
        while consumer.channels != listed || consumer.connections != ids {
            consumer.next();
        }
    }
}

fn consumers_are_told_that_the_server_stops(shards: usize) {
    let mut server = Server::start(shards);
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(&server)).collect();
    let mut consumers: Vec<Consumer> = (0..3).map(|_| Consumer::start(&server)).collect();
    // Two consumers that stop reading, one of them in the middle of its snapshot.
    let mut stalled = Consumer::start(&server);
    let _opened = Consumer::ask(&server, json!({"id": 1, "command": "events"}));
    clients[0].subscribe("seen");
    stalled.until("channel_occupied", "channel", "seen");
    let ids: BTreeSet<String> = clients.iter().map(|client| client.socket_id.clone()).collect();
    let reading = std::thread::spawn(move || {
        for client in &mut clients {
            client.expect_close(1012);
        }
    });
    server.signal(rustix::process::Signal::TERM);
    for consumer in &mut consumers {
        assert_eq!(consumer.connections, ids);
        consumer.expect(json!({"event": "channel_occupied", "channel": "seen"}));
        while !consumer.connections.is_empty() {
            let line = consumer.next();
            assert_eq!((&line["reason"], &line["code"]), (&json!("server_restarting"), &json!(1012)), "{line}");
        }
        assert_eq!(consumer.admin.try_line(), None, "nothing follows");
    }
    assert!(server.wait().success());
    reading.join().expect("no panic");
}

/// A consumer that never reads does not delay others, nor the stop of the server. Once its next event has been discarded, it
/// is sent the reason, and ended.
fn a_consumer_that_does_not_read_delays_no_other(shards: usize) {
    let mut server = Server::options(shards).arg("--max-subscribes-per-second", 0).start();
    let mut asleep = Consumer::start(&server);
    let mut awake = Consumer::start(&server);
    let mut admin = Admin::connect(&server);
    let mut client = Client::connect(&server);
    // Each occupied channel is an event. Its name has the maximum length, so that the journal is soon full.
    let before = admin.stat("event_consumers");
    assert_eq!(before, 2);
    let mut n = 0u64;
    while admin.stat("event_consumers_too_slow") == 0 {
        for _ in 0..500 {
            let name = format!("{n:0>200}");
            client.send(&crate::harness::subscribe(&name));
            client.send(&crate::harness::unsubscribe(&name));
            n += 1;
        }
        for _ in 0..1000 {
            client.text();
        }
        while awake.number < n {
            awake.next();
        }
        assert!(n < 300_000, "the journal is bounded");
    }
    assert_eq!(admin.stat("event_consumers"), 1);
    assert!(admin.stat("event_journal_bytes") <= 16 << 20);
    let last = loop {
        let line = asleep.value();
        if line["event"] == "error" {
            break line;
        }
        assert_eq!(line["number"], asleep.number + 1, "the lines sent before are complete");
        asleep.number += 1;
    };
    assert_eq!(last["code"], "too_slow", "{last}");
    assert_eq!(asleep.admin.try_line(), None);
    drop(awake);
    assert!(server.terminate().success());
}

fn events_that_are_not_changes_must_be_asked_for(shards: usize) {
    let options = Server::options(shards).config("[[channel]]\nmatch = \"*\"\nclient-events = \"members\"\n");
    let server = options.arg("--key", crate::auth::key()).arg("--pusher-subscription-count", "on").start();
    let mut sender = join(&server, "presence-a", Some("1\"2"));
    let mut plain = Consumer::ask(&server, json!({"id": 1, "command": "events"}));
    let also = ["client_event", "cache_miss", "subscription_count"];
    let mut all = Consumer::ask(&server, json!({"id": 1, "command": "events", "also": also}));
    for consumer in [&mut plain, &mut all] {
        while consumer.value()["event"] != "snapshot_end" {}
    }
    let event = |consumer: &mut Consumer| {
        let mut value = consumer.value();
        let members = value.as_object_mut().expect("an object");
        assert!(members.remove("time_ms").is_some());
        (members.remove("number").and_then(|number| number.as_u64()).expect("a number"), value)
    };
    sender.send("{\"event\":\"client-\\u0065\",\"channel\":\"presence-a\",\"data\":[1,\n2]}");
    let expected = json!({
        "event": "client_event", "channel": "presence-a", "name": "client-e", "data": [1, 2],
        "socket_id": sender.socket_id, "user_id": "1\"2"
    });
    let (first, value) = event(&mut all);
    assert_eq!(value, expected);
    sender.subscribe("a");
    assert_eq!(event(&mut all), (first + 1, json!({"event": "channel_occupied", "channel": "a"})));
    let count = json!({"event": "subscription_count", "channel": "a", "subscribers": 1});
    assert_eq!(event(&mut all), (first + 2, count));
    sender.send(&subscribe("cache-a"));
    sender.text();
    let mut of_cache: Vec<Value> = (0..3).map(|_| event(&mut all).1).collect();
    of_cache.iter_mut().for_each(|value| assert_eq!(value["channel"].take(), "cache-a"));
    let names: Vec<&Value> = of_cache.iter().map(|value| &value["event"]).collect();
    assert_eq!(names, ["channel_occupied", "cache_miss", "subscription_count"]);
    // The other consumer has the same numbers, without those events.
    assert_eq!(event(&mut plain), (first + 1, json!({"event": "channel_occupied", "channel": "a"})));
    assert_eq!(event(&mut plain).1, json!({"event": "channel_occupied", "channel": "cache-a"}));
    let refused = r#"{"id":1,"command":"events","also":["colour"]}"#;
    Admin::connect(&server).refused(refused, 1.into(), "malformed_request");
}

fn a_consumer_that_leaves_is_removed(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let consumers: Vec<Consumer> = (0..5).map(|_| Consumer::start(&server)).collect();
    assert_eq!(admin.stat("event_consumers"), 5);
    drop(consumers);
    eventually("consumers that left are removed without an event", || admin.stat("event_consumers") == 0);
    eventually("their connections are closed", || admin.stat("admin_connections") == 1);
}

/// The end of a consumer's input ends its stream, but requests before it are still answered.
fn a_consumer_that_ends_its_input_gets_earlier_answers(shards: usize) {
    let server = Server::start(shards);
    for _ in 0..20 {
        let (mut writer, reader) = Admin::connect(&server).split();
        for id in 0..20 {
            let channel = format!("c{id}");
            let request = json!({"id": id, "command": "publish", "channel": channel, "event": "e", "data": null});
            writeln!(writer, "{request}").expect("the admin socket takes bytes");
        }
        writeln!(writer, "{}", json!({"id": 20, "command": "stats"})).expect("the admin socket takes bytes");
        writeln!(writer, "{}", json!({"id": 21, "command": "events"})).expect("the admin socket takes bytes");
        writer.shutdown(Shutdown::Write).expect("it is connected");
        let lines = reader.lines().map(|line| serde_json::from_str::<Value>(&line.expect("an end")).expect("JSON"));
        let ids: Vec<u64> = lines.filter_map(|line| line["id"].as_u64()).collect();
        assert!(ids.iter().copied().eq(0..=21), "{ids:?}");
    }
    let mut admin = Admin::connect(&server);
    eventually("the consumers are removed", || admin.stat("event_consumers") == 0);
}

fn input_of_a_consumer_is_not_read(shards: usize) {
    let server = Server::start(shards);
    let mut consumer = Consumer::start(&server);
    consumer.admin.send(r#"{"id":2,"command":"ping"}"#);
    consumer.admin.write(vec![b'x'; 3 << 20]);
    let client = Client::connect(&server);
    assert_eq!(consumer.next()["socket_id"], client.socket_id.as_str());
    // Requests before it are answered first.
    let mut admin = Admin::connect(&server);
    admin.send("{\"id\":1,\"command\":\"stats\"}\n{\"id\":2,\"command\":\"events\"}\n{\"id\":3,\"command\":\"ping\"}");
    let ids = [(); 2].map(|()| serde_json::from_str::<Value>(&admin.line()).expect("JSON")["id"].clone());
    assert_eq!(ids, [1, 2]);
    assert!(admin.line().ends_with(r#""event":"snapshot"}"#));
}

fn the_number_of_consumers_is_limited(shards: usize) {
    let server = Server::start(shards);
    let mut consumers: Vec<Consumer> = (0..64).map(|_| Consumer::start(&server)).collect();
    let mut admin = Admin::connect(&server);
    admin.refused(r#"{"id":1,"command":"events"}"#, 1.into(), "too_many");
    assert_eq!(
        admin.ok(json!({"id": 2, "command": "ping"})),
        json!({"id": 2, "ok": true}),
        "the session is still usable"
    );
    consumers.pop();
    eventually("one consumer has left, and another is accepted", || {
        admin.ask(r#"{"id":1,"command":"events"}"#).starts_with(r#"{"id":1,"ok":true,"#)
    });
}

fn the_command_prints_a_line_per_event(shards: usize) {
    let mut server = Server::start(shards);
    let mut command = crate::harness::corecast(&["events", "--admin-socket"]);
    command.arg(&server.admin_path);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        line
    };
    assert!(line().starts_with("after number 1 of epoch "));
    assert!(line().ends_with("snapshot         what follows is the state at this number\n"));
    assert!(line().ends_with("snapshot_end     0 channels, 0 members, 0 connections\n"));
    let mut client = Client::connect(&server);
    let told = line();
    assert!(told.contains(&client.socket_id) && told.contains(&client.address().to_string()), "{told}");
    client.subscribe("user:13");
    assert!(line().ends_with("channel_occupied user:13\n"));

    let mut command = crate::harness::corecast(&["events", "--since", "1", "--json", "--admin-socket"]);
    command.arg(&server.admin_path);
    let reading = std::thread::spawn(move || output(command, b""));
    let mut admin = Admin::connect(&server);
    eventually("the command has started", || admin.stat("event_consumers") == 2);
    assert!(server.terminate().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the rest");
    assert!(rest.contains(&format!("disconnected     {} server_restarting (1012)\n", client.socket_id)), "{rest}");
    assert!(child.wait().expect("a child").success());
    let output = reading.join().expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(&line.expect("text")).expect("JSON")).collect();
    let numbers: Vec<u64> = lines.iter().map(|line| line["number"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}
