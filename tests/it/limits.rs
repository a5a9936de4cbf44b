//! Limits: slow readers, slow handshakes, silent connections, and the number of connections.

use crate::harness::opcode::{BINARY, CLOSE, PING, TEXT};
use crate::harness::{
    Admin, Client, LONG, RawClient, Server, UPGRADE_REQUEST, assert_error, eventually, for_shards, frame, subscribe,
    subscribed, text_frame,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use tungstenite::protocol::Message;

for_shards!(
    a_subscriber_that_does_not_read_is_closed_and_counted,
    outboxes_together_are_limited,
    requests_wait_while_their_replies_are_not_read,
    an_unfinished_handshake_is_closed,
    max_connections,
    a_place_is_free_before_the_close_frame_is_written,
    a_silent_connection_is_closed_with_4202,
    a_missing_pong_closes_with_4201,
    pongs_keep_a_connection,
);

/// The sum of the counters of slow consumers.
fn slow_consumers(stats: &Value) -> f64 {
    let counters: Vec<f64> = stats
        .as_object()
        .expect("an object")
        .iter()
        .filter(|(name, _)| name.contains("slow"))
        .map(|(_, value)| value.as_f64().expect("a number"))
        .collect();
    assert!(!counters.is_empty(), "no counter of slow consumers among {stats}");
    counters.iter().sum()
}

fn a_subscriber_that_does_not_read_is_closed_and_counted(shards: usize) {
    const BYTES: usize = 64 * 1024;
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut slow = RawClient::tcp_with_small_buffer(&server);
    slow.upgrade();
    slow.write(&text_frame(r#"{"event":"socket:subscribe","data":{"channel":"c"}}"#));
    slow.expect(r#"{"event":"socket:subscribed","channel":"c"}"#);
    let mut others: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    for other in &mut others {
        other.subscribe("c");
    }
    assert_eq!(slow_consumers(&admin.stats()), 0.0);

    // All others get every message before, during and after.
    let padding = "x".repeat(BYTES);
    let mut sent = 0;
    let mut publish = |admin: &mut Admin, others: &mut [Client]| {
        let data = format!("{sent}:{padding}");
        let subscribers = admin.publish("c", "e", json!(data));
        let expected = format!(r#"{{"event":"e","channel":"c","data":"{data}"}}"#);
        for other in others {
            let found = other.text();
            assert!(found == expected, "message {sent} arrived as {:.100}", found);
        }
        sent += 1;
        subscribers
    };
    let mut subscribers = 5;
    for _ in 0..500 {
        subscribers = publish(&mut admin, &mut others);
        if subscribers == 4 {
            break;
        }
    }
    assert_eq!(subscribers, 4, "a connection that reads nothing is still subscribed after {} B", sent * BYTES);
    for _ in 0..10 {
        assert_eq!(publish(&mut admin, &mut others), 4);
    }
    let counted = admin.stats();
    assert!(slow_consumers(&counted) > 0.0, "{counted}");

    // What arrived before has no gap. The close frame arrives if the socket had room for it.
    let mut next = 0;
    while let Some((opcode, payload)) = slow.try_frame() {
        if opcode == CLOSE {
            assert_eq!(payload[..2], 4100_u16.to_be_bytes(), "close code");
            let reason = String::from_utf8(payload[2..].to_vec()).expect("the reason is UTF-8");
            assert!(!reason.is_empty(), "the reason names the limit");
            slow.expect_end();
            break;
        }
        assert_eq!(opcode, TEXT);
        let start = format!(r#"{{"event":"e","channel":"c","data":"{next}:"#);
        assert!(payload.starts_with(start.as_bytes()), "message {next} is missing: {:?}", payload.get(..60));
        next += 1;
    }
    assert!(next < sent, "the slow reader received every message");
    eventually("the slow connection is gone", || {
        let reply = admin.ok(json!({"id": 1, "command": "connections"}));
        reply["connections"].as_array().is_some_and(|connections| connections.len() == 4)
    });
}

/// Many clients read too slowly, each within its own limit. Together they exceed the memory of outboxes.
fn outboxes_together_are_limited(shards: usize) {
    const MIB: u64 = 1 << 20;
    let memory = 4 * MIB * shards as u64;
    let server = Server::options(shards).arg("--outbox-memory", memory).arg("--outbox-limit", "64MiB").start();
    let mut admin = Admin::connect(&server);
    let channels: Vec<String> = (0..20 * shards).map(|number| format!("slow{number}")).collect();
    let subscribe = |channel: &String| {
        let mut slow = RawClient::tcp_with_small_buffer(&server);
        let id = slow.upgrade()["data"]["socket_id"].clone();
        slow.write(&text_frame(&format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{channel}"}}}}"#)));
        slow.expect(&format!(r#"{{"event":"socket:subscribed","channel":"{channel}"}}"#));
        (id, slow)
    };
    let mut slow: Vec<(Value, RawClient)> = channels.iter().map(subscribe).collect();
    let mut reader = Client::connect(&server);
    reader.subscribe("read");

    let data = json!("x".repeat(60_000));
    // Until the kernel's buffers are full, too.
    let are_closed = (0..500).any(|_| {
        let publish = json!({"id": 1, "command": "publish", "channels": channels, "event": "e", "data": data});
        admin.ok(publish);
        admin.publish("read", "e", json!(1));
        assert_eq!(reader.text(), r#"{"event":"e","channel":"read","data":1}"#);
        let stats = admin.stats();
        // Beyond the limit: what a turn adds, and the pool of pages.
        assert!(stats["page_bytes"].as_u64() < Some(memory + 8 * MIB * shards as u64), "{stats}");
        stats["closes_outbox_memory"].as_u64() > Some(2)
    });
    assert!(are_closed, "{}", admin.stats());
    let counted = admin.stats();
    assert_eq!(counted["closes_slow_consumer"], 0);
    assert!(counted["connections"].as_u64() > Some(3 * shards as u64), "more are closed than necessary: {counted}");
    let open = admin.ok(json!({"id": 1, "command": "connections"}))["connections"].clone();
    let open: Vec<&Value> = open.as_array().expect("a list").iter().map(|row| &row["socket_id"]).collect();
    // One that takes its last bytes before the close timeout is told why.
    for (_, closed) in slow.iter_mut().filter(|(id, _)| !open.contains(&id)) {
        while let Some((opcode, payload)) = closed.try_frame() {
            if opcode == CLOSE {
                assert_eq!(payload[..2], 4100_u16.to_be_bytes());
                assert!(payload[2..].starts_with(b"all outboxes over 4194304 bytes"), "{payload:?}");
                break;
            }
            assert_eq!((opcode, payload.starts_with(b"{\"event\":\"e\"")), (TEXT, true));
        }
    }
}

/// The server stops reading a client whose replies wait, instead of storing them until the client counts as slow.
fn requests_wait_while_their_replies_are_not_read(shards: usize) {
    // Their replies do not fit into the send buffer, at most 4 MiB, and the receive buffer.
    const REQUESTS: usize = 50_000;
    const RECEIVE_BYTES: usize = 64 << 10;
    let server = Server::options(shards).start();
    let mut admin = Admin::connect(&server);
    let mut client = RawClient::tcp_with_buffer(&server, RECEIVE_BYTES);
    client.upgrade();
    let (mut reader, mut writer) = client.split();
    let writing = thread::spawn(move || writer.write_anyway(&text_frame("{}").repeat(REQUESTS)));
    // Each reply to `stats` is a turn in which the server could have read requests. Before so many replies wait, it is the
    // writer that pauses.
    let (mut read, mut waiting, mut unchanged) = (0, 0, 0);
    eventually("the server reads no more", || {
        let stats = admin.stats();
        assert_eq!(slow_consumers(&stats), 0.0);
        let before = read;
        [read, waiting] = ["messages_in", "outbox_bytes"].map(|name| stats[name].as_u64().expect("a number"));
        unchanged = if waiting > 64 << 10 && read == before { unchanged + 1 } else { 0 };
        unchanged == 50
    });
    assert!(waiting < 256 << 10, "{waiting} bytes after {read} requests");
    for _ in 0..REQUESTS {
        assert_error(&reader.text(), "socket:error", None, "malformed_message");
    }
    assert!(writing.join().expect("no panic"));
}

/// The turn in which the server notices 80 resets does not remove all of their subscriptions: other clients would wait.
#[test]
fn connections_that_are_reset_together_leave_over_several_turns() {
    const SUBSCRIPTIONS: usize = 80 * 128;
    let server = Server::options(1).start();
    let mut admin = Admin::connect(&server);
    let mut clients: Vec<RawClient> = (0..80).map(|_| RawClient::connect(&server)).collect();
    let requests: Vec<u8> = (0..128).flat_map(|n| text_frame(&subscribe(&format!("c{n}")))).collect();
    clients.iter_mut().for_each(|client| client.write(&requests));
    eventually("everything is subscribed", || admin.stats()["subscriptions"] == SUBSCRIPTIONS);
    // Connections of the last second wait for each other.
    eventually("they are two seconds old", || {
        let listed = admin.ok(json!({"id": 1, "command": "connections"}));
        let connections = listed["connections"].as_array().expect("a list").clone();
        connections.len() == 80 && connections.iter().all(|connection| connection["age_s"].as_u64() >= Some(2))
    });
    // One poll reports all resets, and the request.
    server.signal(Signal::STOP);
    eventually("all threads are stopped", || server.is_stopped());
    clients.into_iter().for_each(RawClient::reset);
    admin.write("{\"id\":1,\"command\":\"stats\"}\n");
    server.signal(Signal::CONT);
    let answer: Value = serde_json::from_str(&admin.line()).expect("JSON");
    let left = answer["stats"]["subscriptions"].as_u64().expect("a number");
    assert!(left > 0, "no subscription is left after one turn");
    eventually("all subscriptions are removed", || admin.stats()["subscriptions"] == 0);
}

/// A subscription costs the same however many the connection has. Measured in CPU time, which does not pass in a stall.
#[test]
fn the_cost_of_a_subscription_does_not_grow() {
    const PART: usize = 6_000;
    let server = Server::options(1).arg("--max-subscriptions", 1_000_000).arg("--max-subscribes-per-second", 0).start();
    let mut client = RawClient::connect(&server);
    let mut subscribe_part = |part: usize| {
        let before = server.cpu_ticks();
        for start in (part * PART..(part + 1) * PART).step_by(200) {
            let names: Vec<String> = (start..start + 200).map(|n| format!("c{n}")).collect();
            client.write(&names.iter().flat_map(|name| text_frame(&subscribe(name))).collect::<Vec<u8>>());
            names.iter().for_each(|name| client.expect(&subscribed(name)));
        }
        server.cpu_ticks() - before
    };
    let ticks: Vec<u64> = (0..8).map(&mut subscribe_part).collect();
    // Other programs can make a part of them slow, but not the second half, where all would be if the cost grew.
    let least = ticks[4..].iter().min().expect("parts");
    assert!(*least < 3 * ticks[0] + 5, "{ticks:?} hundredths of a second for {PART} subscriptions each");
}

fn an_unfinished_handshake_is_closed(shards: usize) {
    let server = Server::options(shards).config("handshake-timeout = 3600\n").start();
    let mut finished = Client::connect(&server);
    assert_eq!(server.changes("handshake-timeout = 1\n").len(), 1);
    let start = Instant::now();
    let mut silent = RawClient::tcp(&server);
    let mut half = RawClient::tcp(&server);
    half.write(&UPGRADE_REQUEST.as_bytes()[..UPGRADE_REQUEST.len() - 2]);
    // Sending byte by byte does not extend the deadline.
    let address = server.address;
    let drip = thread::spawn(move || {
        use std::io::Write;
        let mut stream = TcpStream::connect(address).expect("the server accepts");
        let start = Instant::now();
        stream.write_all(&UPGRADE_REQUEST.as_bytes()[..UPGRADE_REQUEST.len() - 2]).expect("the server takes bytes");
        while stream.write_all(b"X-Drip: drop\r\n").is_ok() {
            assert!(start.elapsed() < LONG, "a dripping handshake is still open after {:?}", start.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        start.elapsed()
    });
    silent.rest();
    half.rest();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700), "closed after {took:?}, before the deadline");
    assert!(drip.join().expect("the dripping client") >= Duration::from_millis(700), "closed before the deadline");
    // The connection that finished in time stays.
    finished.expect_nothing_before_pong();
    assert_eq!(server.changes("").len(), 1);
    Client::connect(&server).expect_nothing_before_pong();
}

fn max_connections(shards: usize) {
    let server = Server::options(shards).arg("--max-connections", 3).start();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    for _ in 0..5 {
        assert!(!gets_in(&server));
    }
    for client in &mut clients {
        client.expect_nothing_before_pong();
    }
    drop(clients.pop());
    eventually("there is room again once one has left", || gets_in(&server));
}

/// A client that has read its close frame can connect again, although it has not answered yet.
fn a_place_is_free_before_the_close_frame_is_written(shards: usize) {
    for limit in ["--max-connections", "--max-connections-per-address"] {
        let server = Server::options(shards).arg(limit, 1).start();
        let mut admin = Admin::connect(&server);
        let mut unanswered = Vec::new();
        for round in 0..20 {
            let mut client = RawClient::tcp(&server);
            let connected = client.upgrade();
            match round % 3 {
                0 => {
                    let socket_id = &connected["data"]["socket_id"];
                    admin.ok(json!({"id": 1, "command": "disconnect", "socket_id": socket_id}));
                }
                1 => client.write(&frame(CLOSE, &1000_u16.to_be_bytes())),
                _ => client.write(&frame(BINARY, b"binary")),
            }
            let (opcode, _) = client.frame();
            assert_eq!(opcode, CLOSE, "{limit}");
            unanswered.push(client);
        }
    }
}

/// Whether a new connection is admitted. If not, it is refused with HTTP 503 or a close code from 4100 to 4199.
fn gets_in(server: &Server) -> bool {
    let mut client = RawClient::tcp(server);
    client.write_anyway(UPGRADE_REQUEST.as_bytes());
    let head = client.head();
    if !head.starts_with("HTTP/1.1 101 ") {
        assert!(head.starts_with("HTTP/1.1 503 "), "refused with {head:?}");
        return false;
    }
    let (opcode, payload) = client.frame();
    match opcode {
        CLOSE => {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            assert!((4100..4200).contains(&code), "refused with {code}");
            client.expect_end();
            false
        }
        _ => {
            assert!(payload.starts_with(br#"{"event":"socket:connected","#), "{}", payload.escape_ascii());
            true
        }
    }
}

fn a_silent_connection_is_closed_with_4202(shards: usize) {
    let server = Server::options(shards).heart(1, 1).arg("--server-ping", "off").start();
    let mut admin = Admin::connect(&server);
    let start = Instant::now();
    let mut silent = RawClient::tcp(&server);
    let mut subscriber = RawClient::tcp(&server);
    silent.write(UPGRADE_REQUEST.as_bytes());
    // Together, so that a client that stalls in between is not silent.
    subscriber.write(&[UPGRADE_REQUEST.as_bytes(), &text_frame(&subscribe("c"))].concat());
    for client in [&mut silent, &mut subscriber] {
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        assert!(client.text().starts_with(r#"{"event":"socket:connected""#));
    }
    subscriber.expect(&subscribed("c"));
    // Messages of the server do not count as a sign of life.
    let (took, payload) = loop {
        admin.publish("c", "e", json!(1));
        match subscriber.frame() {
            (CLOSE, payload) => break (start.elapsed(), payload),
            (_, text) => assert_eq!(text, br#"{"event":"e","channel":"c","data":1}"#),
        }
        thread::sleep(Duration::from_millis(100));
        assert!(start.elapsed() < LONG, "still open after {:?}", start.elapsed());
    };
    assert_eq!(payload[..2], 4202_u16.to_be_bytes());
    assert!(took >= Duration::from_millis(1500), "closed after {took:?}, before interval + timeout");
    silent.expect_close(4202);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1500), "closed after {took:?}, before interval + timeout");
}

/// The clients may stall for less than the heartbeats allow, so it takes long, and is not repeated for each number of shards.
#[test]
fn any_input_keeps_a_connection() {
    let server = Server::options(2).heart(1, 14).arg("--server-ping", "off").start();
    let mut by_event = Client::connect(&server);
    let mut by_websocket_ping = RawClient::connect(&server);
    let mut by_pong = Client::connect(&server);
    let mut by_bytes = RawClient::connect(&server);
    // One byte of a frame at a time.
    let trickle = text_frame(r#"{"event":"socket:ping","data":{"id":"trickle"}}"#);
    let start = Instant::now();
    // The last of them is sent later than a client may be silent.
    for byte in trickle.chunks(trickle.len().div_ceil(20)) {
        by_event.expect_nothing_before_pong();
        by_websocket_ping.write(&frame(PING, b"alive"));
        assert_eq!(by_websocket_ping.frame().1, b"alive");
        by_pong.send(r#"{"event":"socket:pong"}"#);
        by_bytes.write(byte);
        thread::sleep(Duration::from_millis(900));
    }
    assert!(start.elapsed() > Duration::from_secs(16), "the test was shorter than the timeout");
    by_bytes.expect(r#"{"event":"socket:pong","data":{"reply":"trickle"}}"#);
    by_pong.expect_nothing_before_pong();
}

/// As [`any_input_keeps_a_connection`].
#[test]
fn a_server_that_stood_still_does_not_close_its_clients() {
    let server = Server::options(4).heart(1, 14).arg("--server-ping", "on").start();
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(&server)).collect();
    server.signal(Signal::STOP);
    eventually("the server is stopped", || server.is_stopped());
    // Longer than a connection may be silent.
    thread::sleep(Duration::from_secs(17));
    server.signal(Signal::CONT);
    for client in &mut clients {
        client.expect(r#"{"event":"socket:ping"}"#);
        client.send(r#"{"event":"socket:pong"}"#);
    }
    for client in &mut clients {
        client.expect(r#"{"event":"socket:ping"}"#);
    }
}

fn a_missing_pong_closes_with_4201(shards: usize) {
    let server = Server::options(shards).heart(1, 1).arg("--server-ping", "on").start();
    let start = Instant::now();
    let mut quiet = Client::connect(&server);
    let mut busy = Client::connect(&server);
    quiet.expect(r#"{"event":"socket:ping"}"#);
    // Only a socket:pong is an answer.
    let _ = busy.try_send(r#"{"event":"socket:ping","data":{"id":1}}"#);
    let mut pings = 0;
    let code = loop {
        match busy.message() {
            Message::Text(text) if text.as_str() == r#"{"event":"socket:ping"}"# => pings += 1,
            Message::Text(text) => {
                assert_eq!(text.as_str(), r#"{"event":"socket:pong","data":{"reply":1}}"#);
                thread::sleep(Duration::from_millis(50));
                // The connection may be closed by now; the next read shows it.
                let _ = busy.try_send(r#"{"event":"socket:ping","data":{"id":1}}"#);
            }
            Message::Close(Some(frame)) => break u16::from(frame.code),
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(code, 4201);
    assert!(pings >= 1, "closed without a ping");
    quiet.expect_close(4201);
    // Half a second at least until the ping, and then the timeout.
    assert!(start.elapsed() >= Duration::from_millis(1300), "closed after {:?}", start.elapsed());
}

fn pongs_keep_a_connection(shards: usize) {
    // The server sends the next ping after the pong only.
    let server = Server::options(shards).heart(1, 15).arg("--server-ping", "on").start();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
    for _ in 0..4 {
        for client in &mut clients {
            client.expect(r#"{"event":"socket:ping"}"#);
            client.send(r#"{"event":"socket:pong"}"#);
        }
    }
    for client in &mut clients {
        client.send(r#"{"event":"socket:ping","data":{"id":1}}"#);
        let mut reply = client.text();
        if reply == r#"{"event":"socket:ping"}"# {
            reply = client.text();
        }
        assert_eq!(reply, r#"{"event":"socket:pong","data":{"reply":1}}"#);
    }
}
