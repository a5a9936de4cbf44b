//! Heartbeats, rates, and the close code of every reason.

use super::client::{PONG, Pusher, beating, error, message, options, succeeded};
use crate::harness::{Admin, Client, RawClient, Server, eventually, for_shards, frame, opcode, text_frame};
use crate::http::{Http, signed};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

for_shards!(
    and_over_tls,
    an_operator_closes_with_4009_or_its_own_code,
    a_user_is_terminated_with_4009,
    a_server_that_stops_says_1001,
    those_who_are_moved_on_come_back_at_once,
    a_client_that_closes_is_echoed,
    a_client_is_pinged_by_frames_and_any_byte_answers,
    a_client_that_answers_no_ping_is_closed_with_4201,
    control_frames_are_no_messages,
    a_message_over_the_rate_is_refused_and_a_flood_ends_the_connection,
);
// Each needs much memory or a small receive buffer: not over TLS.
mod slow {
    crate::harness::for_shards!(a_reader_that_is_too_slow_comes_back_later, a_reader_of_no_replies_is_silent);
    use super::{a_reader_of_no_replies_is_silent, a_reader_that_is_too_slow_comes_back_later};
}

/// The connection is closed with this code, after a message if its version needs one. Returns the text.
#[track_caller]
fn expect_end(client: &mut Pusher, version: u8, code: u16) -> String {
    match version <= 6 && code >= 4000 {
        true => client.expect_announced_close(code),
        false => client.expect_close(code),
    }
}

fn an_operator_closes_with_4009_or_its_own_code(shards: usize) {
    let server = options(shards).start();
    let mut admin = Admin::connect(&server);
    for version in 4..=7 {
        for (code, sent) in [
            (None, 4009),
            (Some(4000), 4009),
            (Some(4001), 4001),
            (Some(4099), 4099),
            (Some(4100), 4100),
            (Some(4250), 4250),
            (Some(4999), 4999),
        ] {
            let mut client = Pusher::speaking(&server, version);
            client.subscribe("a");
            let mut request = json!({"command": "disconnect", "socket_id": client.socket_id, "reason": "why \"é\""});
            if let Some(code) = code {
                request["code"] = code.into();
            }
            assert_eq!(admin.publish("a", "e", json!(1)), 1);
            admin.ok(request);
            client.expect(&message("e", "a", "1"));
            assert_eq!(expect_end(&mut client, version, sent), "why \"é\"");
            eventually("it has left", || admin.subscribers("a") == 0);
        }
    }
}

fn a_user_is_terminated_with_4009(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<(u8, Pusher)> = (4..=7).map(|version| (version, Pusher::speaking(&server, version))).collect();
    clients.iter_mut().for_each(|(_, client)| client.sign_in(r#"{"id":"7"}"#));
    let (mut member, mut other) = (Pusher::connect(&server), Pusher::connect(&server));
    member.join("presence-a", "7");
    other.sign_in(r#"{"id":"8"}"#);
    let path = "/apps/1/users/7/terminate_connections";
    assert_eq!(Http::connect(&server).post(&signed("POST", path, &[], "{}"), "{}").status, 200);
    for (version, client) in &mut clients {
        expect_end(client, *version, 4009);
    }
    member.expect_nothing();
    other.expect_nothing();
    Admin::connect(&server).ok(json!({"command": "disconnect", "user": "8"}));
    other.expect_close(4009);
}

fn a_server_that_stops_says_1001(shards: usize) {
    let mut server = options(shards).start();
    let mut clients: Vec<(u8, Pusher)> = (4..=7).map(|version| (version, Pusher::speaking(&server, version))).collect();
    clients.iter_mut().for_each(|(_, client)| client.subscribe("presence"));
    let mut native = Client::connect(&server);
    server.signal(Signal::TERM);
    for (version, client) in &mut clients {
        assert_eq!(expect_end(client, *version, 1001), "the server is restarting: reconnect");
    }
    native.expect_close(1012);
    drop((clients, native));
    assert!(server.wait().success());
}

fn those_who_are_moved_on_come_back_at_once(shards: usize) {
    let mut server = options(shards).start();
    let mut admin = Admin::connect(&server);
    for request in
        [json!({"command": "shed", "percent": 100, "over_ms": 100}), json!({"command": "drain", "over_ms": 100})]
    {
        let mut clients: Vec<(u8, Pusher)> =
            (0..8).map(|n| (4 + n % 4, Pusher::speaking(&server, 4 + n % 4))).collect();
        let mut native = Client::connect(&server);
        admin.ok(request);
        for (version, client) in &mut clients {
            let text = expect_end(client, *version, 4200);
            assert!(text.starts_with("retry after "), "{text}");
        }
        native.expect_close(1012);
    }
    assert!(server.wait().success());

    let server = options(shards).arg("--connection-age-max", 1).start();
    for version in [6, 7] {
        let mut client = Pusher::speaking(&server, version);
        expect_end(&mut client, version, 4200);
    }
}

fn a_client_that_closes_is_echoed(shards: usize) {
    let server = options(shards).start();
    for version in 4..=7 {
        for code in [1000_u16, 1001, 3000, 4000, 4200] {
            let mut client = Pusher::speaking(&server, version);
            client.raw.write(&frame(opcode::CLOSE, &code.to_be_bytes()));
            assert_eq!(client.expect_close(code), "");
        }
        let mut client = Pusher::speaking(&server, version);
        client.raw.write(&frame(opcode::CLOSE, b""));
        assert_eq!(client.frame(), (opcode::CLOSE, Vec::new()));
        client.raw.expect_end();
    }
}

/// The option of native heartbeats does not matter: the server of a test has it off.
fn a_client_is_pinged_by_frames_and_any_byte_answers(shards: usize) {
    let server = beating(shards, 1, 15).start();
    let begin = Instant::now();
    let mut client = Pusher::connect(&server);
    for (number, answer) in (0..).zip([
        frame(opcode::PONG, b""),
        frame(opcode::PONG, b"other"),
        frame(opcode::PING, b"x"),
        text_frame(r#"{"event":"pusher:pong"}"#),
        text_frame(r#"{"event":"pusher:ping"}"#),
        text_frame("nonsense"),
        // The first byte of a frame.
        vec![0x81],
    ]) {
        let (opcode, payload) = client.raw.frame();
        assert_eq!((opcode, payload.as_slice()), (opcode::PING, &b""[..]));
        // The first after half a second at least, and each a second after the one before, whenever that was answered.
        assert!(begin.elapsed() > Duration::from_millis(300 + 900 * number), "{number}: {:?}", begin.elapsed());
        client.raw.write(&answer);
        if answer[0] == 0x89 {
            assert_eq!(client.raw.frame(), (opcode::PONG, b"x".to_vec()));
        } else if answer == text_frame(r#"{"event":"pusher:ping"}"#) {
            client.raw.expect(PONG);
        } else if answer == text_frame("nonsense") {
            assert!(client.raw.text().starts_with(r#"{"event":"pusher:error""#));
        }
    }
    // One more: the last answer counted, too.
    assert_eq!(client.raw.frame().0, opcode::PING);
}

fn a_client_that_answers_no_ping_is_closed_with_4201(shards: usize) {
    // The clients may stall for less than that before they join.
    let server = beating(shards, 1, 9).arg("--presence-grace", 0).start();
    thread::scope(|scope| {
        scope.spawn(|| answer_no_ping(&server, 5));
        scope.spawn(|| answer_no_ping(&server, 7));
    });
}

/// A client of this version answers nothing, and what the server sends does not count.
fn answer_no_ping(server: &Server, version: u8) {
    let begin = Instant::now();
    let channel = format!("presence-{version}");
    let mut client = Pusher::speaking(server, version);
    client.join(&channel, "11");
    let mut admin = Admin::connect(server);
    let mut close = loop {
        admin.publish(&channel, "e", json!(1));
        match client.raw.frame() {
            (opcode::PING, _) => {}
            (_, payload) if payload == message("e", &channel, "1").as_bytes() => {}
            frame => break frame,
        }
        thread::sleep(Duration::from_millis(10));
    };
    let why = "no pong within 9 s of the ping";
    if version == 5 {
        assert_eq!(close.1, error(Some(4201), why).into_bytes());
        close = client.raw.frame();
    }
    assert_eq!(close, (opcode::CLOSE, [&4201_u16.to_be_bytes(), why.as_bytes()].concat()));
    assert!(begin.elapsed() > Duration::from_millis(9300), "{:?}", begin.elapsed());
    eventually("the user has left", || admin.ok(json!({"command": "members", "channel": channel}))["count"] == 0);
}

fn control_frames_are_no_messages(shards: usize) {
    let server = options(shards).arg("--max-messages-per-second", 1).start();
    let mut client = Pusher::connect(&server);
    for n in 0..100_u8 {
        client.raw.write(&frame(opcode::PING, &[n]));
        assert_eq!(client.raw.frame(), (opcode::PONG, vec![n]));
        client.raw.write(&frame(opcode::PONG, &[n]));
    }
    client.subscribe("a");
}

fn a_message_over_the_rate_is_refused_and_a_flood_ends_the_connection(shards: usize) {
    let server = options(shards).arg("--max-messages-per-second", 2).start();
    for version in [5, 7] {
        let mut client = Pusher::speaking(&server, version);
        let begin = Instant::now();
        // Twenty at once are within the rate.
        client.raw.write(&text_frame(r#"{"event":"pusher:ping"}"#).repeat(20));
        (0..20).for_each(|_| client.expect(PONG));
        let text =
            "the rate limit was exceeded and the message was not processed: send it again later, and fewer per second";
        let subscribe = text_frame(r#"{"event":"pusher:subscribe","data":{"channel":"a"}}"#);
        client.raw.write(&subscribe.repeat(10));
        let replies: Vec<String> = (0..10).map(|_| client.text()).collect();
        let is_over = |reply: &String| *reply == error(None, text);
        // As many as the time since then allows, of which the first subscribes.
        let over = replies.iter().filter(|reply| is_over(reply)).count();
        let allowed = 3 + 2 * begin.elapsed().as_secs() as usize;
        assert!(over + allowed >= 10, "{over} of 10 refused: {replies:?}");
        let others = replies.iter().filter(|reply| !is_over(reply));
        let existing = error(None, "Existing subscription to channel a");
        others.for_each(|reply| assert!([succeeded("a"), existing.clone()].contains(reply), "{reply}"));
        // Another burst ends the connection: whatever is answered until then are refusals.
        client.raw.write_anyway(&subscribe.repeat(200));
        let close = loop {
            match client.frame() {
                (opcode::TEXT, payload) if payload.starts_with(br#"{"event":"pusher:error","data":{"code":4100,"#) => {
                    assert_eq!(version, 5, "{}", String::from_utf8_lossy(&payload));
                }
                (opcode::TEXT, _) => {}
                (_, payload) => break payload,
            }
        };
        assert_eq!(close[..2], 4100_u16.to_be_bytes());
    }
}

fn a_reader_that_is_too_slow_comes_back_later(shards: usize) {
    let server = options(shards).arg("--outbox-limit", "256KiB").start();
    let mut admin = Admin::connect(&server);
    for version in [5, 7] {
        let mut raw = RawClient::tcp_with_small_buffer(&server);
        raw.write(super::client::request(&format!("/app/{}?protocol={version}", crate::auth::KEY), "").as_bytes());
        assert!(raw.head().starts_with("HTTP/1.1 101 "));
        let mut client = Pusher { raw, socket_id: String::new() }.established();
        client.subscribe("a");
        let data = "x".repeat(16 * 1024);
        let mut sent = 0;
        while admin.publish("a", "e", json!(format!("{sent} {data}"))) > 0 {
            sent += 1;
            assert!(sent < 4000, "it is still subscribed after {sent} messages");
        }
        // What arrives has no gap. Then the client is told, if there was room for it.
        let (mut next, mut was_told) = (0, false);
        while let Some((opcode, payload)) = client.raw.try_frame() {
            let text = String::from_utf8_lossy(&payload);
            match opcode {
                opcode::TEXT if text.starts_with(r#"{"event":"pusher:error""#) => {
                    assert!(version == 5 && text.contains(r#"{"code":4100,"message":"outbox over "#), "{text}");
                    was_told = true;
                }
                opcode::TEXT => {
                    assert!(
                        !was_told && text.starts_with(&format!(r#"{{"event":"e","channel":"a","data":"\"{next} x"#))
                    );
                    next += 1;
                }
                opcode::CLOSE => {
                    assert_eq!(payload[..2], 4100_u16.to_be_bytes());
                    assert_eq!(was_told, version == 5);
                }
                _ => {}
            }
        }
        assert!(next < sent, "{next} of {sent} arrived");
    }
    let stats = admin.stats();
    assert_eq!(stats["closes_slow_consumer"], 2);
}

fn a_reader_of_no_replies_is_silent(shards: usize) {
    let server: Server = beating(shards, 1, 1).start();
    let begin = Instant::now();
    let (mut writer, mut raw) = RawClient::tcp_with_small_buffer(&server).split();
    // It writes from the start on, so that it is not silent if it stalls.
    writer.write(super::client::request(&format!("/app/{}", crate::auth::KEY), "").as_bytes());
    let flood = thread::spawn(move || {
        let pings = text_frame(r#"{"event":"foo"}"#).repeat(1000);
        while writer.write_anyway(&pings) {}
    });
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    let _reader = Pusher { raw, socket_id: String::new() }.established();
    let mut admin = Admin::connect(&server);
    let mut stats: Value = json!(null);
    eventually("it is closed", || {
        stats = admin.stats();
        // The kernel gives up after the same time.
        stats["closes_silent"] == 1 || stats["closes_client_gone"] == 1
    });
    assert_eq!(stats["closes_pong_timeout"], 0);
    assert!(begin.elapsed() > Duration::from_millis(1000), "{:?}", begin.elapsed());
    drop(server);
    flood.join().expect("no panic");
}
