//! Malicious or faulty clients and operators, and what the server must withstand.

use crate::harness::{
    Admin, RawClient, Server, TempDir, UPGRADE_REQUEST, assert_refused, eventually, for_shards, frame, opcode, output,
    over_tls, shortened, subscribe, subscribed, text_frame, unsubscribe, unsubscribed,
};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

for_shards!(
    pipelined_requests_are_all_answered,
    requests_before_a_line_over_the_limit_are_answered,
    every_ending_is_counted_once,
    a_half_closed_admin_connection_is_answered
);
over_tls!(pipelined_requests_are_all_answered, every_ending_is_counted_once);

/// A parser that accepts a bare line feed as the end of a line sees such a request end before the server does.
#[test]
fn a_request_of_bare_line_feeds_is_refused() {
    let server = Server::start(1);
    let mut client = RawClient::tcp(&server);
    client.write(format!("{}and more", UPGRADE_REQUEST.replace("\r\n", "\n")).as_bytes());
    // Until the first part has been read: the server answers each connection in turn.
    RawClient::connect(&server);
    client.write(b"\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 400 "));
    RawClient::connect(&server);
}

#[test]
fn an_admin_connection_too_many_is_told_why() {
    let server = Server::start(1);
    raise_descriptors();
    let mut admins: Vec<Admin> = (0..1024).map(|_| Admin::connect(&server)).collect();
    let refused = server.run(&["ping"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("too_many: there are already 1024 admin connections"),
        "{refused:?}"
    );
    admins.truncate(1000);
    eventually("there is room again", || server.run(&["ping"]).status.success());
}

/// One write has so many requests that the connection is not read until replies are sent. Each request is answered, although no
/// other event wakes the server.
fn pipelined_requests_are_all_answered(shards: usize) {
    const REQUESTS: usize = 5000;
    let server = Server::options(shards).arg("--max-subscribes-per-second", 0).start();
    for channel in 0..2 * shards {
        let channel = format!("c{channel}");
        let mut client = RawClient::connect(&server);
        let pair = [text_frame(&subscribe(&channel)), text_frame(&unsubscribe(&channel))].concat();
        client.write(&pair.repeat(REQUESTS / 2));
        for _ in 0..REQUESTS / 2 {
            client.expect(&subscribed(&channel));
            client.expect(&unsubscribed(&channel));
        }
    }
}

/// A channel with more subscribers in each shard than a turn writes to, and an outbox limit that a few messages reach: for some
/// turns the shards take no mail. Mail that came meanwhile must not wait for another event.
#[test]
fn mail_is_taken_once_output_is_no_longer_behind() {
    let shards = 2;
    let server = Server::options(shards).arg("--handshake-timeout", 3600);
    let server = server.arg("--outbox-limit", 4096).start();
    let _subscribers = subscribers(&server, "c", 1100 * shards);
    let mut admins: Vec<Admin> = (0..2 * shards).map(|_| Admin::connect(&server)).collect();
    let publish = json!({"id": 1, "command": "publish", "channel": "c", "event": "e", "data": "x".repeat(700)});
    for round in 0..300 {
        let at = round % admins.len();
        let messages = 1 + round % 3;
        admins[at].write(format!("{publish}\n").repeat(messages));
        for _ in 0..messages {
            admins[at].line();
        }
        // The only timer, the handshake's, is due much later: a shard that is not woken does not answer.
        let at = (round + 1) % admins.len();
        admins[at].ok(json!({"id": 2, "command": "stats"}));
    }
}

/// Requests before a line over the limit are answered, and so is that line, even if the answer comes from another shard.
fn requests_before_a_line_over_the_limit_are_answered(shards: usize) {
    let server = Server::options(shards).arg("--admin-line-limit", 1024).start();
    for channel in 0..2 * shards {
        let mut admin = Admin::connect(&server);
        let request = json!({"id": channel, "command": "channel", "channel": format!("c{channel}")});
        admin.write(format!("{request}\n{}\n", "x".repeat(1025)));
        let answer = format!(r#"{{"id":{channel},"ok":true,"channel":"c{channel}","subscribers":0}}"#);
        assert_eq!(admin.line(), answer);
        assert_refused("a long line", &admin.line(), json!(null), "too_large");
        assert_eq!(admin.try_line(), None);
    }
}

/// A session requests the longest reply thousands of times and reads none. The shard holds a few of them, and goes on serving
/// others.
#[test]
fn lists_are_walked_as_they_are_read() {
    const REQUESTS: usize = 1500;
    let server = Server::start(1);
    let _connections = subscribers(&server, "c", 150);
    let (mut writer, mut reader) = Admin::connect(&server).split();
    let list = "{\"id\":1,\"command\":\"connections\",\"limit\":1000}\n";
    let asking = thread::spawn(move || writer.write_all(list.repeat(REQUESTS).as_bytes()).map(|()| writer));
    let mut admin = Admin::connect(&server);
    eventually("the session is not read", || admin.stat("admin_pauses") > 0);
    let requests = admin.stats()["admin_requests"].as_u64();
    assert!(requests < Some(500), "{requests:?} requests were read, although no reply was read");

    let mut line = String::new();
    for _ in 0..REQUESTS {
        line.clear();
        reader.read_line(&mut line).expect("a reply");
        assert!(line.starts_with(r#"{"id":1,"ok":true,"connections":["#), "{}", shortened(&line));
    }
    asking.join().expect("the writer ends").expect("every request is taken");
}

/// In a burst of connections, as many are admitted as there are places. The excess does not keep all of them out.
#[test]
fn a_burst_of_connections_fills_every_place() {
    const PLACES: usize = 5;
    let server = Server::options(2).arg("--max-connections", PLACES).start();
    // Half-open ones take no place.
    let _idle: Vec<RawClient> = (0..2 * PLACES).map(|_| RawClient::tcp(&server)).collect();
    let mut storm: Vec<RawClient> = (0..4 * PLACES).map(|_| RawClient::tcp(&server)).collect();
    storm.iter_mut().for_each(|client| client.write(UPGRADE_REQUEST.as_bytes()));
    let is_in = |client: &mut RawClient| {
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        client.frame().0 == opcode::TEXT
    };
    let inside = storm.iter_mut().map(is_in).filter(|&is_in| is_in).count();
    assert_eq!(inside, PLACES);
    drop(storm);
    let mut admin = Admin::connect(&server);
    eventually("the places are free again", || {
        let stats = admin.stats();
        stats["connections"] == 0 && stats["connections_closing"] == 0
    });
    let _inside: Vec<RawClient> = (0..PLACES).map(|_| RawClient::connect(&server)).collect();
}

/// A server that stood still for longer than its heartbeats allow reads what came meanwhile before it closes silent clients.
/// There are more connections than one poll reports, and every one of them has written.
#[test]
fn a_stall_of_the_server_is_not_the_clients_silence() {
    const CLIENTS: usize = 1500;
    // The clients may stall for less than that.
    const SILENCE_S: u32 = 16;
    let server = Server::options(1).heart(1, SILENCE_S - 1).arg("--server-ping", "off").start();
    let ping = text_frame(r#"{"event":"socket:ping","data":{"id":1}}"#);
    let write = |clients: &mut Vec<TcpStream>| {
        clients.iter_mut().for_each(|client| client.write_all(&ping).expect("the server takes bytes"));
    };
    let (mut clients, mut written) = (Vec::new(), 0);
    while clients.len() < CLIENTS {
        clients.extend(subscribers(&server, "c", CLIENTS / 15));
        write(&mut clients);
        written += CLIENTS / 15 + clients.len();
    }
    let mut admin = Admin::connect(&server);
    eventually("every message is read", || admin.stats()["messages_in"] == written);
    server.signal(Signal::STOP);
    // What is written while threads still run may be read before the stall, and the stall is longer than the silence allowed.
    eventually("all threads stand still", || server.is_stopped());
    write(&mut clients);
    thread::sleep(Duration::from_secs(u64::from(SILENCE_S)) + Duration::from_millis(500));
    server.signal(Signal::CONT);
    // Some turns later.
    RawClient::connect(&server);
    let stats = admin.stats();
    assert_eq!(stats["closes_silent"], 0);
    assert_eq!(stats["subscriptions"], CLIENTS);
}

/// A client that has ended its sending side may still read: both before a close and during one.
#[test]
fn half_closed_clients_get_what_waits_for_them() {
    let server = Server::options(1).arg("--outbox-limit", "8MiB").start();
    // The server waits three seconds after a close, so not each time if this machine stalls.
    for is_disconnected in [false, true] {
        assert!((0..3).any(|_| gets_what_waits(&server, is_disconnected)), "disconnected: {is_disconnected}");
    }
}

/// Whether a client that has ended its sending side gets every message.
fn gets_what_waits(server: &Server, is_disconnected: bool) -> bool {
    let mut admin = Admin::connect(server);
    let mut slow = RawClient::tcp_with_small_buffer(server);
    let connected = slow.upgrade();
    let published = publish_until_blocked(&mut admin, &mut slow, 256 * 1024);
    let ends = if is_disconnected { "closes_disconnected" } else { "closes_client_gone" };
    let before = admin.stat(ends);
    if is_disconnected {
        admin.ok(json!({"id": 1, "command": "disconnect", "socket_id": connected["data"]["socket_id"]}));
    }
    slow.finish_writing();
    eventually("the server has seen the end", || admin.stat(ends) > before);
    thread::sleep(Duration::from_millis(200));
    for _ in 0..published {
        match slow.try_frame() {
            Some((opcode, _)) => assert_eq!(opcode, opcode::TEXT),
            None => return false,
        }
    }
    if !is_disconnected {
        slow.expect_end();
        return true;
    }
    slow.try_frame()
        .is_some_and(|(opcode, payload)| (opcode, &payload[..2]) == (opcode::CLOSE, &4000_u16.to_be_bytes()[..]))
}

/// A subscriber that reads, but slowly, has the whole shutdown timeout, and not only the time of a close handshake.
#[test]
fn a_slow_reader_gets_what_was_acknowledged_before_a_shutdown() {
    let mut server = Server::options(1).arg("--shutdown-timeout", 3600).arg("--outbox-limit", "8MiB").start();
    let mut slow = RawClient::tcp_with_small_buffer(&server);
    slow.upgrade();
    let mut admin = Admin::connect(&server);
    let published = publish_until_blocked(&mut admin, &mut slow, 1024 * 1024);
    server.signal(Signal::TERM);
    // What the kernel holds keeps the reader busy for longer than the handshake's three seconds.
    thread::sleep(Duration::from_millis(4500));
    for _ in 0..published {
        assert_eq!(slow.frame().0, opcode::TEXT);
    }
    slow.expect_close(1012);
    drop(slow);
    assert!(server.wait().success());
}

/// A server that could only refuse connections does not start, and says why.
#[test]
fn too_few_descriptors_are_an_error() {
    let dir = TempDir::new();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_corecast"), "serve"]);
    command
        .args(["--listen", "127.0.0.1:0", "--shards", "1", "--http", "off", "--admin-socket"])
        .arg(dir.path().join("admin.sock"));
    let output = output(command, b"");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("64 descriptors leave none for connections"), "{stderr}");
}

/// Clients disconnect in every possible way, in the midst of requests, while others publish. Afterwards every connection is
/// accounted for, and nothing is held for closed ones.
fn every_ending_is_counted_once(shards: usize) {
    const CLIENTS: usize = 90;
    let server = Server::options(shards).arg("--outbox-limit", "64KiB").start();
    let mut admin = Admin::connect(&server);
    for number in 0..CLIENTS {
        let channel = format!("c{}", number % 3);
        let requests = [text_frame(&subscribe(&channel)), text_frame(&unsubscribe(&channel))].concat().repeat(number);
        let mut client = RawClient::tcp_with_small_buffer(&server);
        if number % 9 == 0 {
            client.write(b"GET / HTTP/1.1\r\n");
            continue;
        }
        client.write(UPGRADE_REQUEST.as_bytes());
        client.write(&requests);
        client.write(&text_frame(&subscribe(&channel)));
        client.write_anyway(&match number % 9 {
            1 => frame(opcode::CLOSE, &1000u16.to_be_bytes()),
            2 => [frame(opcode::CLOSE, b""), requests].concat(),
            3 => frame(opcode::BINARY, b"x"),
            4 => frame(0x3, b"x"),
            5 => text_frame("half a frame")[..5].to_vec(),
            6 => frame(opcode::PING, &[b'x'; 125]).repeat(5000),
            _ => Vec::new(),
        });
        if number % 2 == 0 {
            client.finish_writing();
        }
        admin.publish(&channel, "e", json!("x".repeat(20_000)));
    }
    eventually("all connections have gone", || {
        let stats = admin.stats();
        let count = |name: &str| stats[name].as_u64().expect("a number");
        let held = ["connections", "connections_upgrading", "connections_closing", "subscriptions", "channels"];
        held.into_iter().all(|name| count(name) == 0)
    });
    let stats = admin.stats();
    let members = stats.as_object().expect("an object").iter();
    let closes = members.filter(|(name, _)| name.starts_with("closes_")).map(|(_, count)| count.as_u64()).sum();
    assert_eq!((stats["accepts"].as_u64(), closes), (Some(CLIENTS as u64), Some(CLIENTS as u64)), "{stats}");
    assert_eq!(stats["outbox_bytes"], 0);
    // At most what the pools keep.
    assert!(stats["page_bytes"].as_u64() <= Some(4 * 1024 * 1024 * shards as u64), "{stats}");
}

/// An operator's pipe: requests, the last of them cut off, then the end of the input. Every reply comes, in order, then the end.
fn a_half_closed_admin_connection_is_answered(shards: usize) {
    const REQUESTS: u64 = 3000;
    let server = Server::start(shards);
    let _subscribers = subscribers(&server, "c1", 10);
    let (mut writer, reader) = Admin::connect(&server).split();
    let asking = thread::spawn(move || {
        for id in 0..REQUESTS {
            let channel = format!("c{}", id % 7);
            let request = json!({"id": id, "command": "publish", "channel": channel, "event": "e", "data": id});
            writer.write_all(format!("{request}\n").as_bytes()).expect("a request is taken");
        }
        writer.write_all(b"{\"command\":\"pi").expect("half a line is taken");
        writer.shutdown(Shutdown::Write).expect("an open connection");
    });
    let mut replies =
        reader.lines().map(|line| -> Value { serde_json::from_str(&line.expect("a line")).expect("JSON") });
    for id in 0..REQUESTS {
        let reply = replies.next().expect("a reply to each request");
        assert_eq!((&reply["id"], &reply["subscribers"]), (&json!(id), &json!(if id % 7 == 1 { 10 } else { 0 })));
    }
    let refusal = replies.next().expect("a reply to half a line");
    assert_eq!((&refusal["id"], &refusal["code"]), (&Value::Null, &json!("malformed_request")), "{refusal}");
    assert!(replies.next().is_none());
    asking.join().expect("the writer ends");
}

/// Subscribes and publishes until this many bytes wait for the client. Returns the number of messages.
pub fn publish_until_blocked(admin: &mut Admin, client: &mut RawClient, bytes: u64) -> usize {
    client.write(&text_frame(&subscribe("blocked")));
    client.expect(&subscribed("blocked"));
    let mut published = 0;
    while admin.stat("outbox_bytes") < bytes {
        admin.publish("blocked", "e", json!("x".repeat(100_000)));
        published += 1;
    }
    published
}

fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
}

/// Many connections that are subscribed to a channel and read nothing more.
fn subscribers(server: &Server, channel: &str, count: usize) -> Vec<TcpStream> {
    raise_descriptors();
    let subscriber = || {
        let mut client = RawClient::connect(server);
        client.write(&text_frame(&subscribe(channel)));
        client.expect(&subscribed(channel));
        client.into_stream()
    };
    std::iter::repeat_with(subscriber).take(count).collect()
}
