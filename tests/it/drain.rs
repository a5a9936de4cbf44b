//! Draining and shedding: connections are served until they are asked to leave, and they do not all leave at once.

use crate::harness::{
    Admin, Client, RawClient, Server, UPGRADE_REQUEST, eventually, for_shards, opcode, over_tls, text_frame,
};
use crate::http::Http;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tungstenite::protocol::Message;

for_shards!(
    sigterm_spreads_the_closes_over_the_drain_timeout,
    everything_else_goes_on_while_draining,
    every_connection_is_closed_whatever_it_is_doing,
    drain_answers_when_it_begins_and_ends_the_server,
    a_drain_without_connections_ends_at_once,
    a_drain_while_draining_is_a_new_plan,
    a_signal_while_draining_shortens_it,
    connections_in_the_backlog_are_told_to_reconnect,
    shed_closes_as_many_as_it_says_and_the_server_goes_on,
    a_shed_while_shedding_is_a_new_plan_and_a_drain_ends_it,
    no_client_misses_a_message_before_it_is_shed_or_because_others_are,
    connections_are_closed_before_they_are_too_old,
);

over_tls!(sigterm_spreads_the_closes_over_the_drain_timeout, every_connection_is_closed_whatever_it_is_doing);

/// How a client's connection ended.
struct Left {
    code: u16,
    after: Duration,
    wait_ms: u64,
    /// The last number that it received.
    heard: Option<u64>,
}

/// Receives numbers from 0 on, without a gap, until it is asked to leave.
fn listen(mut client: Client, since: Instant) -> Left {
    let mut heard = None;
    loop {
        match client.message() {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(text.as_str()).expect("JSON");
                let number = message["data"].as_u64().expect("a number");
                assert_eq!(number, heard.map_or(0, |heard| heard + 1), "a gap");
                heard = Some(number);
            }
            Message::Close(Some(frame)) => {
                let wait_ms = wait_ms(frame.reason.as_str());
                let left = Left { code: frame.code.into(), after: since.elapsed(), wait_ms, heard };
                // The next read sends the reply to the close, and finds the end.
                assert!(client.try_message().is_err());
                return left;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn wait_ms(reason: &str) -> u64 {
    let wait = reason.strip_prefix("retry after ").and_then(|rest| rest.strip_suffix(" ms"));
    wait.and_then(|wait| wait.parse().ok()).unwrap_or_else(|| panic!("no wait in {reason:?}"))
}

fn connect(server: &Server, count: usize, channel: &str) -> Vec<Client> {
    let connect = |_| {
        let mut client = Client::connect(server);
        client.subscribe(channel);
        client
    };
    (0..count).map(connect).collect()
}

fn drain(admin: &mut Admin, over_ms: u64) -> u64 {
    let reply = admin.ok(json!({"id": 1, "command": "drain", "over_ms": over_ms}));
    assert_eq!(reply["over_ms"], over_ms, "{reply}");
    reply["connections"].as_u64().unwrap_or_else(|| panic!("no connections in {reply}"))
}

/// The sums of `stats`; each accepted connection is open, or was closed and counted by reason.
fn stats(admin: &mut Admin) -> Value {
    let stats = admin.stats();
    let sum = |is_one: &dyn Fn(&str) -> bool| -> u64 {
        let all = stats.as_object().expect("an object").iter();
        all.filter(|(name, _)| is_one(name)).map(|(_, number)| number.as_u64().expect("a number")).sum()
    };
    let open = sum(&|name| ["connections", "connections_upgrading"].contains(&name));
    let closed = sum(&|name| name.starts_with("closes_"));
    assert_eq!(stats["accepts"], open + closed, "{stats}");
    stats
}

/// Publishes numbers to `c` until `done`. Returns the last one, which was acknowledged.
fn publish(admin: &mut Admin, done: &AtomicBool) -> u64 {
    for number in 0.. {
        admin.publish("c", "e", json!(number));
        if done.load(Ordering::SeqCst) {
            return number;
        }
        thread::sleep(Duration::from_millis(2));
    }
    unreachable!("an endless loop")
}

fn is_refused(server: &Server) -> bool {
    TcpStream::connect(server.address).is_err()
}

/// Publishes numbers to `c` until the server takes no more. Returns the last number after which a connection was still to be
/// asked to leave.
fn publish_to_the_end(admin: &mut Admin) -> Option<u64> {
    let mut ask = |request: Value| {
        let line = admin.write_anyway(format!("{request}\n")).then(|| admin.try_line())??;
        let reply: Value = serde_json::from_str(&line).expect("JSON");
        (reply["ok"] == true).then_some(reply)
    };
    let mut last = None;
    for number in 0_u64.. {
        let publish = json!({"id": 1, "command": "publish", "channel": "c", "event": "e", "data": number});
        let stats = json!({"id": 2, "command": "stats"});
        let Some(reply) = ask(publish).and_then(|_| ask(stats)) else { break };
        if reply["stats"]["connections_leaving"] != 0 {
            last = Some(number);
        }
        thread::sleep(Duration::from_millis(2));
    }
    last
}

/// No connection is asked to leave too early, however long this machine stalls.
fn sigterm_spreads_the_closes_over_the_drain_timeout(shards: usize) {
    // Once in three times is enough: a machine that stalls for nearly all of the drain makes it end at once.
    assert!((0..3).any(|_| are_closes_spread(shards)), "all closed at once");
}

/// Whether the first close came well before the last one, and something was published in between.
fn are_closes_spread(shards: usize) -> bool {
    const CLIENTS: usize = 60;
    const OVER: Duration = Duration::from_secs(3);
    let mut server = Server::options(shards).arg("--drain-timeout", OVER.as_secs()).start();
    let clients = connect(&server, CLIENTS, "c");
    let mut publisher = Admin::connect(&server);
    let since = Instant::now();
    let (mut left, published) = thread::scope(|scope| {
        let listeners: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || listen(client, since))).collect();
        let publishing = scope.spawn(|| publish_to_the_end(&mut publisher));
        server.signal(Signal::TERM);
        let left: Vec<Left> = listeners.into_iter().map(|thread| thread.join().expect("a listener")).collect();
        (left, publishing.join().expect("the publisher"))
    });
    assert_eq!(server.wait().code(), Some(0));
    left.sort_by_key(|left| left.after);
    for (before, left) in left.iter().enumerate() {
        // Each shard may be one ahead of its share, and time is measured in ticks of 100 ms.
        let share = (before + 1).saturating_sub(shards) as u32;
        let earliest = (OVER * share / CLIENTS as u32).saturating_sub(Duration::from_millis(200));
        assert!(left.after >= earliest, "{before} have left before {:?}, where {earliest:?} is early", left.after);
    }
    assert!(left.iter().all(|left| left.code == 1012));
    let waits: HashSet<u64> = left.iter().map(|left| left.wait_ms).collect();
    assert!(waits.len() > CLIENTS / 2, "all wait equally long: {waits:?}");
    assert!(waits.iter().all(|wait| (500..2500).contains(wait)), "{waits:?}");
    // A connection that left after the last publish has received it.
    assert!(left.iter().filter_map(|left| left.heard).max() >= published, "{published:?}");
    published.is_some() && left[CLIENTS - 1].after - left[0].after >= Duration::from_millis(500)
}

fn everything_else_goes_on_while_draining(shards: usize) {
    const CLIENTS: usize = 4;
    let options = Server::options(shards).arg("--drain-timeout", 3600).arg("--http", "127.0.0.1:0");
    let mut server = options.start();
    let _port = server.keep_port();
    let clients = connect(&server, CLIENTS, "c");
    let mut admin = Admin::connect(&server);
    let mut http = Http::connect(&server);
    assert_eq!(http.get("/ready").status, 200);
    server.signal(Signal::TERM);
    eventually("it is not ready", || http.get("/ready").status == 503);
    assert_eq!(http.get("/ready").body, "draining\n");
    eventually("no connection is accepted", || is_refused(&server));
    assert_eq!(http.get("/live").status, 200);
    assert_eq!(http.get("/metrics").status, 200);
    let sum = |numbers: &Value| {
        let names = ["connections_leaving", "closes_drained"];
        names.map(|name| numbers[name].as_u64().expect("a number")).iter().sum::<u64>()
    };
    // More, if the listener has accepted a probe of `is_refused`.
    eventually("all are to leave", || sum(&stats(&mut admin)) >= CLIENTS as u64);
    assert_eq!(stats(&mut admin)["is_draining"], shards);
    assert_eq!(admin.publish("c", "e", json!(0)), CLIENTS as u64);
    drain(&mut admin, 0);
    for client in clients {
        let left = listen(client, Instant::now());
        assert_eq!((left.code, left.heard), (1012, Some(0)));
    }
    assert_eq!(server.wait().code(), Some(0));
}

/// One connection never answers the close, one is in mid-frame, one in mid-upgrade. One has sent nothing, and one is on the
/// echo path. An admin is in mid-line.
fn every_connection_is_closed_whatever_it_is_doing(shards: usize) {
    let mut server = Server::options(shards).arg("--echo-path", "/echo").arg("--handshake-timeout", 3600).start();
    let mut mute = RawClient::connect(&server);
    let mut half = RawClient::connect(&server);
    half.write(&text_frame("{}")[..5]);
    let mut upgrading = RawClient::tcp(&server);
    upgrading.write(b"GET / HTTP/1.1\r\n");
    let silent = TcpStream::connect(server.address).expect("the server accepts");
    let mut echoing = RawClient::tcp(&server);
    echoing.write(UPGRADE_REQUEST.replace("/chat", "/echo").as_bytes());
    assert!(echoing.head().starts_with("HTTP/1.1 101"));
    echoing.write(&text_frame("before"));
    assert_eq!(echoing.text(), "before");
    let mut admin = Admin::connect(&server);
    let mut torn = Admin::connect(&server);
    torn.write("{\"id\":1,");
    eventually("all are accepted", || stats(&mut admin)["accepts"] == 5);
    assert_eq!(drain(&mut admin, 300), 5);
    for client in [&mut mute, &mut half, &mut echoing] {
        let (opcode, payload) = client.frame();
        assert_eq!((opcode, &payload[..2]), (opcode::CLOSE, &1012_u16.to_be_bytes()[..]));
        wait_ms(std::str::from_utf8(&payload[2..]).expect("UTF-8"));
    }
    upgrading.expect_end();
    assert_eq!(server.wait().code(), Some(0));
    drop(silent);
}

fn drain_answers_when_it_begins_and_ends_the_server(shards: usize) {
    let mut server = Server::start(shards);
    let clients = connect(&server, 6, "c");
    let output = server.run(&["drain", "--over", "400ms"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "closing 6 connections over 0.4 s\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let since = Instant::now();
    for client in clients {
        listen(client, since);
    }
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.admin_path.exists());
}

fn a_drain_without_connections_ends_at_once(shards: usize) {
    for has_had_some in [false, true] {
        let mut server = Server::start(shards);
        let mut admin = Admin::connect(&server);
        let clients = connect(&server, if has_had_some { 3 } else { 0 }, "c");
        assert_eq!(drain(&mut admin, 3_600_000), clients.len() as u64);
        // Clients that leave by themselves are not waited for either.
        clients.into_iter().for_each(|mut client| client.close(1000));
        assert_eq!(server.wait().code(), Some(0));
    }
}

fn a_drain_while_draining_is_a_new_plan(shards: usize) {
    let mut server = Server::start(shards);
    let _port = server.keep_port();
    let clients = connect(&server, 8, "c");
    let mut admin = Admin::connect(&server);
    assert_eq!(drain(&mut admin, 3_600_000), 8);
    assert_eq!(stats(&mut admin)["connections_leaving"], 8);
    assert!(is_refused(&server));
    assert_eq!(admin.publish("c", "e", json!(0)), 8);
    assert_eq!(drain(&mut admin, 0), 8);
    for client in clients {
        let left = listen(client, Instant::now());
        assert_eq!((left.code, left.heard), (1012, Some(0)));
    }
    assert_eq!(server.wait().code(), Some(0));
}

fn a_signal_while_draining_shortens_it(shards: usize) {
    let ends = |drain_timeout: f64, over_ms: u64, signal: Signal, reason: &str| {
        let mut server = Server::options(shards).arg("--drain-timeout", drain_timeout).start();
        let mut client = Client::connect(&server);
        drain(&mut Admin::connect(&server), over_ms);
        server.signal(signal);
        let close = client.expect_close(1012);
        assert!(close.starts_with(reason), "{close:?}");
        drop(client);
        assert_eq!(server.wait().code(), Some(0));
    };
    ends(0.2, 3_600_000, Signal::TERM, "retry after ");
    ends(3600.0, 1000, Signal::TERM, "retry after ");
    ends(0.0, 3_600_000, Signal::TERM, "the server is restarting");
    ends(3600.0, 3_600_000, Signal::INT, "the server is restarting");
}

/// The kernel has accepted these connections, the server has not. They get a close frame and not a reset.
fn connections_in_the_backlog_are_told_to_reconnect(shards: usize) {
    let mut server = Server::options(shards).arg("--drain-timeout", 0.2).start();
    server.signal(Signal::STOP);
    eventually("the server is stopped", || server.is_stopped());
    let mut clients: Vec<RawClient> = (0..20).map(|_| RawClient::tcp(&server)).collect();
    for client in &mut clients {
        client.write(UPGRADE_REQUEST.as_bytes());
    }
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for client in &mut clients {
        assert!(client.head().starts_with("HTTP/1.1 101"));
        client.expect_connected();
        client.expect_close(1012);
    }
    assert_eq!(server.wait().code(), Some(0));
}

fn shed_closes_as_many_as_it_says_and_the_server_goes_on(shards: usize) {
    let server = Server::options(shards).arg("--http", "127.0.0.1:0").arg("--echo-path", "/echo").start();
    let mut clients = connect(&server, 29, "c");
    let mut echoing = RawClient::tcp(&server);
    echoing.write(UPGRADE_REQUEST.replace("/chat", "/echo").as_bytes());
    assert!(echoing.head().starts_with("HTTP/1.1 101"));
    // Not upgraded, and so not asked to leave.
    let _upgrading = TcpStream::connect(server.address).expect("the server accepts");
    let mut admin = Admin::connect(&server);
    eventually("all are counted", || stats(&mut admin)["connections"] == 30);
    let output = server.run(&["shed", "20%", "--over", "200ms"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "closing 6 connections over 0.2 s\n");
    let has_shed = |admin: &mut Admin, count: u64| {
        let stats = stats(admin);
        assert_eq!(stats["is_draining"], 0);
        stats["closes_shed"].as_u64() >= Some(count) && stats["connections_leaving"] == 0
    };
    eventually("they are closed", || has_shed(&mut admin, 6));
    assert_eq!(Http::connect(&server).get("/ready").status, 200);
    // New connections stay; those that were not chosen have missed nothing.
    let reply = admin.ok(json!({"id": 1, "command": "shed", "connections": 4, "over_ms": 0}));
    assert_eq!((&reply["connections"], &reply["over_ms"]), (&json!(4), &json!(0)));
    eventually("four more are closed", || has_shed(&mut admin, 10));
    let mut late = connect(&server, 3, "c");
    admin.publish("c", "e", json!("all"));
    late.iter_mut().for_each(|client| client.expect(r#"{"event":"e","channel":"c","data":"all"}"#));
    let mut gone = 0;
    for client in &mut clients {
        match client.message() {
            Message::Text(text) => assert!(text.as_str().ends_with(r#""data":"all"}"#)),
            Message::Close(Some(frame)) => {
                gone += 1;
                wait_ms(frame.reason.as_str());
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    // One of the ten may have been the connection on the echo path.
    assert!((9..=10).contains(&gone), "{gone}");
    assert_eq!(stats(&mut admin)["closes_shed"], 10);
    // If more are asked for than there are, all are closed.
    let left = 30 - 10 + 3;
    let reply = admin.ok(json!({"id": 1, "command": "shed", "connections": 1000, "over_ms": 0}));
    assert_eq!(reply["connections"], left, "{reply}");
    eventually("all are closed", || has_shed(&mut admin, 10 + left));
    Client::connect(&server).expect_nothing_before_pong();
}

fn no_client_misses_a_message_before_it_is_shed_or_because_others_are(shards: usize) {
    const CLIENTS: u64 = 24;
    let server = Server::start(shards);
    let clients = connect(&server, CLIENTS as usize, "c");
    let socket_ids: Vec<String> = clients.iter().map(|client| client.socket_id.clone()).collect();
    let (mut publisher, mut admin) = (Admin::connect(&server), Admin::connect(&server));
    let is_over = AtomicBool::new(false);
    let (left, last) = thread::scope(|scope| {
        let is_over = &is_over;
        let since = Instant::now();
        let listeners: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || listen(client, since))).collect();
        let publishing = scope.spawn(move || publish(&mut publisher, is_over));
        let reply = admin.ok(json!({"id": 1, "command": "shed", "percent": 50, "over_ms": 300}));
        assert_eq!(reply["connections"], CLIENTS / 2);
        eventually("half of them are closed", || stats(&mut admin)["closes_shed"] == CLIENTS / 2);
        is_over.store(true, Ordering::SeqCst);
        let last = publishing.join().expect("the publisher");
        // Closes the connections that stayed, so that their threads end.
        for socket_id in &socket_ids {
            if admin.knows(socket_id) {
                admin.ok(json!({"id": 1, "command": "disconnect", "socket_id": socket_id, "code": 4200, "reason": "retry after 0 ms"}));
            }
        }
        let left: Vec<Left> = listeners.into_iter().map(|thread| thread.join().expect("a listener")).collect();
        (left, last)
    });
    let stayed: Vec<&Left> = left.iter().filter(|left| left.code == 4200).collect();
    assert_eq!(stayed.len() as u64, CLIENTS / 2);
    assert!(stayed.iter().all(|left| left.heard == Some(last)), "a client that stayed has missed the last message");
}

fn a_shed_while_shedding_is_a_new_plan_and_a_drain_ends_it(shards: usize) {
    let mut server = Server::start(shards);
    let clients = connect(&server, 8, "c");
    let mut admin = Admin::connect(&server);
    let shed = |admin: &mut Admin, percent: u64| {
        let reply = admin.ok(json!({"id": 1, "command": "shed", "percent": percent, "over_ms": 3_600_000}));
        let connections = reply["connections"].as_u64().expect("a number");
        assert_eq!(stats(admin)["connections_leaving"], connections);
        connections
    };
    assert_eq!([shed(&mut admin, 100), shed(&mut admin, 50), shed(&mut admin, 0)], [8, 4, 0]);
    assert_eq!(shed(&mut admin, 50), 4);
    assert_eq!(drain(&mut admin, 3_600_000), 8);
    admin.refused(r#"{"id":2,"command":"shed","percent":1}"#, json!(2), "going_down");
    assert_eq!(drain(&mut admin, 0), 8);
    for client in clients {
        listen(client, Instant::now());
    }
    assert_eq!(server.wait().code(), Some(0));
}

/// Each somewhere in its fourth second, or in the first one after a reload.
fn connections_are_closed_before_they_are_too_old(shards: usize) {
    const CLIENTS: usize = 40;
    let options = Server::options(shards).config("connection-age-max = 4\n").arg("--echo-path", "/echo");
    let server = options.heart(1, 15).arg("--server-ping", "on").start();
    let mut admin = Admin::connect(&server);
    let since = Instant::now();
    let mut echoing = RawClient::tcp(&server);
    echoing.write(UPGRADE_REQUEST.replace("/chat", "/echo").as_bytes());
    assert!(echoing.head().starts_with("HTTP/1.1 101"));
    let ends = |mut client: Client| loop {
        match client.message() {
            Message::Text(text) if text.as_str().contains("socket:ping") => {
                // The connection may have ended by now; the next read shows it.
                let _ = client.try_send(r#"{"event":"socket:pong"}"#);
            }
            Message::Close(Some(frame)) => {
                assert_eq!(u16::from(frame.code), 1012, "{frame}");
                wait_ms(frame.reason.as_str());
                break since.elapsed();
            }
            other => panic!("unexpected {other:?}"),
        }
    };
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(&server)).collect();
    let all_ends = |clients: Vec<Client>| -> Vec<Duration> {
        thread::scope(|scope| {
            let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| ends(client))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
        })
    };
    let ended = all_ends(clients);
    let first = ended.iter().min().expect("clients");
    assert!(*first >= Duration::from_millis(2900), "{first:?}");
    echoing.expect_close(1012);
    assert_eq!(stats(&mut admin)["closes_too_old"], CLIENTS as u64 + 1);

    server.write_config("connection-age-max = 0\n");
    admin.ok(json!({"id": 1, "command": "reload"}));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(&server)).collect();
    // They are older than the limit that comes into force now.
    let is_old = |age_s: &Value| age_s.as_u64() >= Some(1);
    let socket_id = clients[CLIENTS - 1].socket_id.clone();
    eventually("the connections are old", || {
        for client in &mut clients {
            client.send(r#"{"event":"socket:pong"}"#);
        }
        is_old(&admin.ok(json!({"id": 1, "command": "connection", "socket_id": socket_id}))["age_s"])
    });
    assert_eq!(stats(&mut admin)["closes_too_old"], CLIENTS as u64 + 1);
    server.write_config("connection-age-max = 1\n");
    let reply = admin.ok(json!({"id": 1, "command": "reload"}));
    assert_eq!(reply["changes"], json!([{"option": "connection-age-max", "old": "0", "new": "1"}]));
    all_ends(clients);
    assert_eq!(stats(&mut admin)["closes_too_old"], 2 * CLIENTS as u64 + 1);
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let mut server = Server::options(2).arg("--drain-timeout", 3600).start();
    let _port = server.keep_port();
    let _client = Client::connect(&server);
    server.signal(Signal::TERM);
    eventually("the drain has begun", || is_refused(&server));
    // Within a second of the first it would count as the first.
    thread::sleep(Duration::from_millis(1100));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1));
}

/// So a successor can be started before the last client has left.
#[test]
fn the_address_is_free_while_draining() {
    let mut server = Server::start(2);
    let _port = server.keep_port();
    // With so few connections, the first is asked to leave much later than a server takes to start.
    let mut clients = connect(&server, 2, "c");
    assert_eq!(drain(&mut Admin::connect(&server), 3_600_000), 2);
    let successor = Server::options(2).listen(server.address).start();
    Client::connect(&successor).expect_nothing_before_pong();
    clients.iter_mut().for_each(Client::expect_nothing_before_pong);
    drain(&mut Admin::connect(&server), 0);
    clients.iter_mut().for_each(|client| drop(client.expect_close(1012)));
    drop(clients);
    assert_eq!(server.wait().code(), Some(0));
    Client::connect(&successor).expect_nothing_before_pong();
}

#[test]
fn a_reload_changes_the_drain_timeout() {
    let mut server = Server::options(1).config("drain-timeout = 3600\n").start();
    server.write_config("drain-timeout = 0.2\n");
    let reply = Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    assert_eq!(reply["changes"], json!([{"option": "drain-timeout", "old": "3600", "new": "0.2"}]));
    let mut client = Client::connect(&server);
    server.signal(Signal::TERM);
    wait_ms(&client.expect_close(1012));
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

/// An admin client that sends requests and never reads its replies does not delay the end.
#[test]
fn an_admin_client_that_never_reads_does_not_delay_a_stop() {
    let mut server = Server::options(1).arg("--shutdown-timeout", 3600).start();
    let mut greedy = Admin::connect(&server);
    let mut admin = Admin::connect(&server);
    let requests = "{\"command\":\"stats\"}\n".repeat(100);
    eventually("its replies wait", || {
        greedy.write(&requests);
        admin.stat("admin_pauses") > 0
    });
    assert_eq!(server.terminate().code(), Some(0));
}
