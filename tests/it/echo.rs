//! The echo path: complete RFC 6455 over the same codec, event loop and outbox as other connections.

use crate::harness::opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};
use crate::harness::{
    Admin, LONG, Options, RawClient, Server, UPGRADE_REQUEST, eventually, for_shards, frame, frame_bytes, subscribe,
};
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

for_shards!(every_message_comes_back);

const PATH: &str = "/echo";

fn echoing(shards: usize) -> Options {
    Server::options(shards).arg("--echo-path", PATH)
}

/// Upgrades a connection on the echo path, without reading anything else.
fn connect(server: &Server) -> RawClient {
    upgraded(RawClient::tcp(server))
}

fn upgraded(mut client: RawClient) -> RawClient {
    client.write(request(PATH).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

fn request(path: &str) -> String {
    UPGRADE_REQUEST.replace("/chat", path)
}

#[track_caller]
fn check_echo(client: &mut RawClient, opcode: u8, payload: &[u8]) {
    client.write(&frame(opcode, payload));
    let (came, echoed) = client.frame();
    assert_eq!(came, opcode);
    assert!(echoed == payload, "{} bytes came back for {}", echoed.len(), payload.len());
}

/// Each message comes back with its opcode in one frame. The server sends no greeting, and does not interpret requests.
fn every_message_comes_back(shards: usize) {
    let server = echoing(shards).start();
    let mut clients: Vec<RawClient> = (0..2 * shards).map(|_| connect(&server)).collect();
    for client in &mut clients {
        check_echo(client, TEXT, subscribe("c").as_bytes());
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            check_echo(client, TEXT, &vec![b'*'; len]);
            check_echo(client, BINARY, &vec![0xFE; len]);
        }
        client.write(&[frame_bytes(TEXT, "语".as_bytes(), true), frame(PING, b"between")].concat());
        assert_eq!(client.frame(), (PONG, b"between".into()));
        client.write(&[frame_bytes(CONTINUATION, b"", true), frame(CONTINUATION, "言".as_bytes())].concat());
        client.expect("语言");
    }
    let stats = server.stats();
    assert_eq!(stats["connections"], 2 * shards);
    assert_eq!(stats["connections_echoing"], 2 * shards);
    assert_eq!(stats["echo_messages"], 2 * shards * 16);
    assert_eq!([&stats["messages_in"], &stats["subscriptions"]], [0, 0]);
    let listed = Admin::connect(&server).ok(json!({"id": 1, "command": "connections"}));
    assert_eq!(listed["connections"], json!([]), "echo connections are not listed");
    for client in &mut clients {
        client.write(&frame(CLOSE, b"\x0F\xA0bye"));
        client.expect_close(4000);
    }
}

#[test]
fn the_longest_message_comes_back_and_a_longer_one_does_not() {
    const MAX: usize = 16 * 1024 * 1024;
    let server = echoing(1).arg("--max-message", MAX).start();
    let mut client = connect(&server);
    check_echo(&mut client, BINARY, &vec![7; MAX]);
    client.write(&frame(TEXT, b"x")[..1]);
    client.write(&[0xFF, 0, 0, 0, 0, 1, 0, 0, 1]);
    client.expect_close(1009);
}

/// Neither the frame nor the message has ended when the close arrives, and the client sends nothing more.
#[test]
fn an_invalid_byte_closes_the_connection_at_once() {
    let server = echoing(1).start();
    for len in [4, 5, 100, 1000, 65_000] {
        let mut client = connect(&server);
        let payload = [b"ok \xFF", &vec![b'.'; len - 4][..]].concat();
        let fragment = frame_bytes(TEXT, &payload, true);
        let header = fragment.len() - payload.len();
        client.write(&fragment[..header + 4]);
        client.expect_close(1007);
    }
}

#[test]
fn echo_is_off_by_default() {
    let status = |server: &Server, path| {
        let mut client = RawClient::tcp(server);
        client.write(request(path).as_bytes());
        client.head()[9..12].to_owned()
    };
    let server = Server::options(1).arg("--path", "/live").start();
    assert_eq!(status(&server, PATH), "404");
    let server = echoing(1).arg("--path", "/live").start();
    assert_eq!(
        ["/live", "/echo", "/echo?case=7", "/echo/"].map(|path| status(&server, path)),
        ["101", "101", "101", "404"]
    );
    let server = echoing(1).start();
    RawClient::connect(&server);
}

/// Far more data than the outbox may hold waits in the sender's socket, and nothing is lost.
#[test]
fn a_connection_that_does_not_read_is_paused() {
    const MESSAGES: u32 = 150;
    let server = echoing(1).arg("--outbox-limit", 4096).start();
    let payload = |number: u32| [&number.to_be_bytes()[..], &[b'x'; 60_000]].concat();
    let client = upgraded(RawClient::tcp_with_small_buffer(&server));
    let (mut writer, mut client) = client.split();
    let sending = thread::spawn(move || {
        for number in 0..MESSAGES {
            writer.write(&frame(BINARY, &payload(number)));
        }
        writer
    });
    eventually("the connection is paused", || server.stat("echo_pauses") > 0);
    let waiting = server.stats()["outbox_bytes"].as_u64();
    assert!(waiting <= Some(2 * 64 * 1024), "{waiting:?} bytes wait for one connection");
    // Other connections are not affected.
    check_echo(&mut connect(&server), TEXT, b"me");
    for number in 0..MESSAGES {
        assert!(client.frame() == (BINARY, payload(number)), "message {number}");
    }
    sending.join().expect("all is sent").write(&frame(CLOSE, &[]));
    assert_eq!(client.frame(), (CLOSE, vec![]));
    client.expect_end();
}

/// A client whose input is not read still receives the server's close frame, and can answer it. The server then ends at once.
#[test]
fn a_paused_connection_receives_the_servers_close() {
    // Once in five times is enough: a server that waits for the handshake of a close waits every time.
    let is_at_once = || end_of_a_paused_connection() < Duration::from_secs(3);
    assert!((0..5).any(|_| is_at_once()), "the server waited although the connection had ended");
}

/// Returns how long the server takes to end after the connection has ended.
fn end_of_a_paused_connection() -> Duration {
    let mut server = echoing(1).start();
    let client = upgraded(RawClient::tcp_with_small_buffer(&server));
    let (mut writer, mut client) = client.split();
    let sending = thread::spawn(move || while writer.write_anyway(&frame(TEXT, &[b'x'; 60_000])) {});
    eventually("the connection is paused", || server.stat("echo_pauses") > 0);
    server.signal(rustix::process::Signal::TERM);
    loop {
        let (opcode, payload) = client.frame();
        if opcode == CLOSE {
            assert_eq!(payload[..2], 1012u16.to_be_bytes());
            break;
        }
        assert_eq!((opcode, payload.len()), (TEXT, 60_000));
    }
    client.finish_writing();
    client.expect_end();
    sending.join().expect("the writer ends");
    let start = Instant::now();
    assert!(server.wait().success());
    start.elapsed()
}

#[test]
fn echo_connections_are_not_pinged_and_silence_ends() {
    // The pinging client may stall for less than the sum.
    let server = echoing(1).heart(1, 14).arg("--server-ping", "on").start();
    let mut pinging = connect(&server);
    let start = Instant::now();
    let mut silent = connect(&server);
    silent.set_patience(2 * LONG);
    let ending = thread::spawn(move || {
        silent.expect_close(4202);
        start.elapsed()
    });
    while !ending.is_finished() {
        pinging.write(&frame(PING, b""));
        assert_eq!(pinging.frame(), (PONG, vec![]));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(ending.join().expect("it was closed") >= Duration::from_millis(14_800));
    check_echo(&mut pinging, TEXT, b"still here");
    assert_eq!(server.stats()["closes_silent"], 1);
}

/// A client that reads its output, however slowly, is not silent, although the server does not read from it meanwhile.
#[test]
fn reading_output_is_a_sign_of_life() {
    const BYTES: usize = 15 << 20;
    // Longer than a client may be silent. The reader may stall for nearly as long, because it catches up then: the server learns of
    // every megabyte or so that is read.
    const SLOWLY: Duration = Duration::from_secs(16);
    let server = echoing(1).heart(1, 14).arg("--max-message", BYTES).start();
    // With a smaller buffer the kernel repeats segments, at intervals that grow to many seconds in a stall.
    let mut client = upgraded(RawClient::tcp_with_buffer(&server, 64 << 10));
    client.write(&frame(BINARY, &vec![7; BYTES]));
    let start = Instant::now();
    let (mut read, whole) = (0, BYTES + 10);
    while read < whole {
        thread::sleep(Duration::from_millis(20));
        let part = start.elapsed().as_secs_f64() / SLOWLY.as_secs_f64();
        let due = (whole as f64 * part.min(1.0)) as usize;
        client.discard(due - read);
        read = due;
    }
    check_echo(&mut client, TEXT, b"still here");
}
