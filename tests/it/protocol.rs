//! The wire protocol: messages, frames and upgrade requests, valid and invalid, and the server's answers.

use crate::harness::opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};
use crate::harness::{
    Admin, Client, RawClient, Server, UPGRADE_REQUEST, already_subscribed, assert_error, eventually, for_shards, frame,
    frame_bytes, not_subscribed, shortened, subscribe, subscribed, text_frame, unsubscribe, unsubscribed,
};
use serde_json::{Value, json};
use tungstenite::protocol::Message;

for_shards!(
    and_over_tls,
    malformed_messages_are_answered,
    unknown_events_are_answered,
    members_may_come_in_any_order_and_spelling,
    ids_are_echoed_as_written,
    values_that_are_not_ids_are_refused,
    fragmented_messages_are_reassembled,
    binary_closes_with_1003,
    invalid_utf8_closes_with_1007,
    too_big_closes_with_1009,
    protocol_errors_close_with_1002,
    frames_of_every_length_encoding_are_read,
    websocket_pings_are_answered,
    close_is_echoed,
    nothing_is_read_after_a_close,
    illegal_names_are_refused,
    legal_names_are_accepted,
    presence_is_refused,
    too_many_subscriptions,
    default_subscription_limit,
    pipelined_requests_are_answered_in_order,
    requests_in_the_upgrades_own_segment,
    bytes_split_at_every_boundary,
    upgrade_on_any_path,
    upgrade_on_configured_paths_only,
    upgrade_answers_as_rfc_6455_says,
    bad_upgrade_requests_get_http_errors,
);

fn malformed_messages_are_answered(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let deep_array = "[".repeat(30_000);
    let deep_object = r#"{"a":"#.repeat(10_000);
    for text in [
        "",
        " ",
        "{",
        "}",
        "nonsense",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":1}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":1}}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":1}} x",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":1}}{\"event\":\"socket:ping\",\"data\":{\"id\":2}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":1,}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":01}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":1.}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":.5}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":+1}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":-}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":1e}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":NaN}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":\"a\nb\"}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":\"\\x\"}}",
        "{\"event\":\"socket:ping\",\"data\":{\"id\":\"\\u12\"}}",
        "{'event':'socket:ping','data':{'id':1}}",
        "{event:\"socket:ping\",data:{id:1}}",
        "{\"event\" \"socket:ping\"}",
        "[]",
        "[{\"event\":\"socket:ping\",\"data\":{\"id\":1}}]",
        "\"socket:ping\"",
        "1",
        "null",
        "true",
        "{}",
        "{\"data\":{\"id\":1}}",
        "{\"event\":1}",
        "{\"event\":null}",
        "{\"event\":{\"event\":\"socket:ping\"}}",
        "{\"event\":\"socket:subscribe\"}",
        "{\"event\":\"socket:subscribe\",\"channel\":\"user:13\"}",
        "{\"event\":\"socket:subscribe\",\"data\":null}",
        "{\"event\":\"socket:subscribe\",\"data\":\"user:13\"}",
        "{\"event\":\"socket:subscribe\",\"data\":[\"user:13\"]}",
        "{\"event\":\"socket:subscribe\",\"data\":{}}",
        "{\"event\":\"socket:subscribe\",\"data\":{\"channel\":13}}",
        "{\"event\":\"socket:subscribe\",\"data\":{\"channel\":null}}",
        "{\"event\":\"socket:subscribe\",\"data\":{\"channel\":[\"user:13\"]}}",
        "{\"event\":\"socket:unsubscribe\"}",
        "{\"event\":\"socket:unsubscribe\",\"data\":{}}",
        "{\"event\":\"socket:unsubscribe\",\"data\":{\"channel\":13}}",
        "{\"event\":\"socket:ping\"}",
        "{\"event\":\"socket:ping\",\"id\":1}",
        "{\"event\":\"socket:ping\",\"data\":1}",
        "{\"event\":\"socket:ping\",\"data\":{}}",
        deep_array.as_str(),
        deep_object.as_str(),
    ] {
        client.send(text);
        let reply = client.text();
        eprintln!("{} → {reply}", shortened(text)); // shown if the next line fails
        assert_error(&reply, "socket:error", None, "malformed_message");
    }
    // The connection stays, and nothing else changed.
    client.expect_nothing_before_pong();
    assert_eq!(Admin::connect(&server).subscribers("user:13"), 0);

    // Valid, and nested deeply.
    let deep =
        format!(r#"{{"event":"socket:ping","data":{{"id":1,"deep":{}{}}}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    client.send(&deep);
    client.expect(r#"{"event":"socket:pong","data":{"reply":1}}"#);
    client.expect_nothing_before_pong();
}

fn unknown_events_are_answered(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for event in [
        "",
        "order.paid",
        "socket:",
        "socket:nope",
        "socket:connected",
        "socket:subscribed",
        "socket:subscribe.error",
        "socket:error",
        "SOCKET:PING",
        "socket:ping ",
        "ping",
        "pusher:ping",
    ] {
        client
            .send(&json!({"event": event, "channel": "user:13", "data": {"channel": "user:13", "id": 1}}).to_string());
        let reply = client.text();
        eprintln!("{event} → {reply}"); // shown if the next line fails
        assert_error(&reply, "socket:error", None, "unknown_event");
    }
    client.send(r#"{"event":"order.paid"}"#);
    assert_error(&client.text(), "socket:error", None, "unknown_event");
    client.expect_nothing_before_pong();
}

fn members_may_come_in_any_order_and_spelling(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let pong = r#"{"event":"socket:pong","data":{"reply":1}}"#;
    for ping in [
        r#"{"data":{"id":1},"event":"socket:ping"}"#,
        "\t\r\n { \"event\" :\t\"socket:ping\" ,\r\n \"data\" : { \"id\" : 1 } } \n",
        r#"{"event":"socket:\u0070ing","data":{"id":1}}"#,
        r#"{"\u0065vent":"socket:ping","d\u0061ta":{"\u0069d":1}}"#,
        r#"{"more":[{"event":"socket:pong","data":{"id":2}}],"event":"socket:ping","data":{"more":{"id":2},"id":1},"channel":"c"}"#,
        r#"{"event":"socket:ping","data":{"more":1e999,"id":1,"big":123456789012345678901234567890}}"#,
        r#"{"event":"socket:ping","data":{"text":"{\"id\":2}","id":1,"emoji":"😀\ud83d\ude00"}}"#,
    ] {
        client.send(ping);
        let reply = client.text();
        assert_eq!(reply, pong, "{ping}");
    }
    client.send(r#"{"data":{"more":null,"channel":"user:\u0031\u0033"},"event":"socket:subscribe"}"#);
    let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!(reply, json!({"event": "socket:subscribed", "channel": "user:13"}));
    assert_eq!(Admin::connect(&server).subscribers("user:13"), 1);
    client.send(r#"{"event":"socket:subscribe","data":{"channel":"user:13"}}"#);
    client.expect(&already_subscribed("user:13"));
}

fn ids_are_echoed_as_written(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut ids: Vec<String> = [
        "0",
        "-0",
        "1",
        "1.0",
        "-1.50",
        "1e999",
        "1E+5",
        "-1e-999",
        "0.1e00",
        "9007199254740993",
        "18446744073709551616",
        "-9223372036854775809",
        "3.14159265358979323846264338327950288419716939937510",
        r#""""#,
        r#""a""#,
        r#""1""#,
        r#""null""#,
        r#""a b\tc\n\"\\\/""#,
        r#""\u0000\u00e9\ud83d\ude00""#,
        r#""\uD83D\uDE00\u00C9""#,
        r#""é😀""#,
        "\"\u{7f}\u{2028}\"",
        r#""}],{\"id\":2}""#,
    ]
    .map(str::to_owned)
    .into();
    ids.push("7".repeat(64));
    ids.push(format!("-{}", "1".repeat(63)));
    ids.push(format!("\"{}\"", "x".repeat(64)));
    ids.push(format!("\"{}\"", "é".repeat(32)));
    ids.push(format!("\"{}wxyz\"", r"\u0041".repeat(10)));
    for id in &ids {
        client.send(&format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#));
        client.expect(&format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#));
        client.send(&format!("{{\"data\":{{\"x\":0,\"id\" :\t{id} \n, \"y\":{id}}},\"event\":\"socket:ping\"}}"));
        client.expect(&format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#));
    }
}

fn values_that_are_not_ids_are_refused(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut ids: Vec<String> = ["null", "true", "false", "{}", "[]", "[1]", r#"{"id":1}"#].map(str::to_owned).into();
    ids.push("7".repeat(65));
    ids.push("7".repeat(100));
    ids.push(format!("-{}", "1".repeat(64)));
    ids.push(format!("\"{}\"", "x".repeat(65)));
    ids.push(format!("\"{}x\"", "é".repeat(32)));
    ids.push(format!("\"{}vwxyz\"", r"\u0041".repeat(10)));
    for id in &ids {
        client.send(&format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#));
        let reply = client.text();
        eprintln!("{id} → {reply}"); // shown if the next line fails
        assert_error(&reply, "socket:error", None, "malformed_message");
    }
    client.expect_nothing_before_pong();
}

/// A ping with `id`, padded with spaces to `len` bytes.
fn ping_of(id: usize, len: usize) -> String {
    let mut text = format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#);
    text.push_str(&" ".repeat(len.saturating_sub(text.len())));
    text
}

fn ping(id: usize) -> String {
    ping_of(id, 0)
}

fn pong(id: usize) -> String {
    format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#)
}

fn fragmented_messages_are_reassembled(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    let text = r#"{"event":"socket:ping","data":{"id":"é😀"}}"#;
    let reply = r#"{"event":"socket:pong","data":{"reply":"é😀"}}"#;
    // Cut at every byte, also within a character, with a control frame in between.
    for at in 0..=text.len() {
        let (head, tail) = text.as_bytes().split_at(at);
        let mut bytes = frame_bytes(TEXT, head, true);
        bytes.extend(frame(PING, b"between"));
        bytes.extend(frame_bytes(0x80 | CONTINUATION, tail, true));
        client.write(&bytes);
        assert_eq!(client.frame(), (PONG, b"between".to_vec()));
        client.expect(reply);
    }
    // One byte per fragment, and empty fragments, in one write.
    let mut bytes = frame_bytes(TEXT, b"", true);
    for byte in text.as_bytes() {
        bytes.extend(frame_bytes(CONTINUATION, &[*byte], true));
        bytes.extend(frame_bytes(CONTINUATION, b"", true));
    }
    bytes.extend(frame_bytes(0x80 | CONTINUATION, b"", true));
    client.write(&bytes);
    client.expect(reply);
    // As many bytes as a message may have.
    let text = ping_of(7, 65_536);
    let (head, tail) = text.as_bytes().split_at(40_000);
    client.write(&frame_bytes(TEXT, head, true));
    client.write(&frame_bytes(0x80 | CONTINUATION, tail, true));
    client.expect(&pong(7));
}

fn binary_closes_with_1003(shards: usize) {
    let server = Server::start(shards);
    let text = ping(1);
    for (case, bytes) in [
        ("whole", frame(BINARY, text.as_bytes())),
        ("empty", frame(BINARY, b"")),
        ("no UTF-8", frame(BINARY, b"\xff\xfe")),
        ("fragmented", [frame_bytes(BINARY, b"a", true), frame_bytes(0x80 | CONTINUATION, b"b", true)].concat()),
    ] {
        eprintln!("{case}"); // shown if the next lines fail
        let mut client = RawClient::connect(&server);
        client.write(&bytes);
        client.expect_close(1003);
    }
    let mut client = Client::connect(&server);
    client.send_message(Message::binary(text.into_bytes()));
    client.expect_close(1003);
}

fn invalid_utf8_closes_with_1007(shards: usize) {
    let server = Server::start(shards);
    for payload in [
        &b"\xff"[..],
        b"{\"event\":\"socket:ping\",\"data\":{\"id\":\"\xc3\x28\"}}",
        b"{\"event\":\"socket:ping\",\"data\":{\"id\":\"\xed\xa0\x80\"}}",
        b"{\"event\":\"socket:ping\",\"data\":{\"id\":\"\xf0\x9f\x98\"}}",
        b"{\"event\":\"socket:ping\",\"data\":{\"id\":\"\xc0\xaf\"}}",
        b"\xe2\x82",
    ] {
        eprintln!("{}", payload.escape_ascii()); // shown if the next lines fail
        let mut client = RawClient::connect(&server);
        client.write(&frame(TEXT, payload));
        client.expect_close(1007);
        let mut client = RawClient::connect(&server);
        let (head, tail) = payload.split_at(payload.len() - 1);
        client.write(&frame_bytes(TEXT, head, true));
        // The server may refuse the first fragment already.
        client.write_anyway(&frame_bytes(0x80 | CONTINUATION, tail, true));
        client.expect_close(1007);
    }
}

fn too_big_closes_with_1009(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    client.write(&text_frame(&ping_of(1, 65_536)));
    client.expect(&pong(1));
    client.write(&text_frame(&ping_of(2, 65_537)));
    client.expect_close(1009);

    // The limit holds for the sum of the fragments.
    let mut client = RawClient::connect(&server);
    let text = ping_of(1, 65_537);
    let (head, tail) = text.as_bytes().split_at(65_000);
    client.write(&frame_bytes(TEXT, head, true));
    client.write_anyway(&frame_bytes(0x80 | CONTINUATION, tail, true));
    client.expect_close(1009);

    // The declared length is enough.
    let mut client = RawClient::connect(&server);
    client.write(&[0x80 | TEXT, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
    client.expect_close(1009);
}

fn protocol_errors_close_with_1002(shards: usize) {
    let server = Server::start(shards);
    let text = ping(1);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("unmasked text", frame_bytes(0x80 | TEXT, text.as_bytes(), false)),
        ("unmasked ping", frame_bytes(0x80 | PING, b"", false)),
        ("unmasked close", frame_bytes(0x80 | CLOSE, &1000_u16.to_be_bytes(), false)),
        ("RSV1", frame_bytes(0x80 | 0x40 | TEXT, text.as_bytes(), true)),
        ("RSV2", frame_bytes(0x80 | 0x20 | TEXT, text.as_bytes(), true)),
        ("RSV3", frame_bytes(0x80 | 0x10 | TEXT, text.as_bytes(), true)),
        ("opcode 3", frame(0x3, text.as_bytes())),
        ("opcode 7", frame(0x7, b"")),
        ("opcode 11", frame(0xB, b"")),
        ("opcode 15", frame(0xF, b"")),
        ("fragmented ping", frame_bytes(PING, b"x", true)),
        ("fragmented close", frame_bytes(CLOSE, &1000_u16.to_be_bytes(), true)),
        ("ping of 126 bytes", frame(PING, &[b'x'; 126])),
        ("pong of 126 bytes", frame(PONG, &[b'x'; 126])),
        ("close of 126 bytes", frame(CLOSE, &[[3, 232].as_slice(), &[b'x'; 124]].concat())),
        ("continuation of nothing", frame(CONTINUATION, text.as_bytes())),
        ("open continuation of nothing", frame_bytes(CONTINUATION, text.as_bytes(), true)),
        ("text within text", [frame_bytes(TEXT, b"{", true), frame(TEXT, text.as_bytes())].concat()),
        ("close of one byte", frame(CLOSE, &[3])),
        ("close 0", frame(CLOSE, &0_u16.to_be_bytes())),
        ("close 999", frame(CLOSE, &999_u16.to_be_bytes())),
        ("close 1004", frame(CLOSE, &1004_u16.to_be_bytes())),
        ("close 1005", frame(CLOSE, &1005_u16.to_be_bytes())),
        ("close 1006", frame(CLOSE, &1006_u16.to_be_bytes())),
        ("close 1015", frame(CLOSE, &1015_u16.to_be_bytes())),
        ("close 5000", frame(CLOSE, &5000_u16.to_be_bytes())),
    ];
    for (case, bytes) in cases {
        eprintln!("{case}"); // shown if the next lines fail
        let mut client = RawClient::connect(&server);
        // What came before is answered; what comes after is not read.
        client.write(&[text_frame(&ping(7)), bytes, text_frame(&ping(8))].concat());
        client.expect(&pong(7));
        client.expect_close(1002);
    }
    // Other connections can still be made.
    Client::connect(&server).expect_nothing_before_pong();
}

fn frames_of_every_length_encoding_are_read(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    for (id, len) in [0, 124, 125, 126, 127, 128, 255, 256, 4095, 4096, 65_534, 65_535, 65_536].into_iter().enumerate()
    {
        client.write(&text_frame(&ping_of(id, len)));
        client.expect(&pong(id));
    }
}

fn websocket_pings_are_answered(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    for payload in [&b""[..], b"x", b"\xff\x00 any bytes", &[b'p'; 125]] {
        client.write(&frame(PING, payload));
        assert_eq!(client.frame(), (PONG, payload.to_vec()));
    }
    // An unsolicited pong has no effect.
    client.write(&frame(PONG, b"unasked"));
    client.write(&text_frame(&ping(1)));
    client.expect(&pong(1));
    // In order with everything else.
    client.write(&[text_frame(&ping(2)), frame(PING, b"mid"), text_frame(&ping(3))].concat());
    client.expect(&pong(2));
    assert_eq!(client.frame(), (PONG, b"mid".to_vec()));
    client.expect(&pong(3));
}

fn close_is_echoed(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    for code in [1000, 1001, 1003, 1007, 1008, 1011, 3000, 4000, 4999_u16] {
        eprintln!("{code}"); // shown if the next lines fail
        let mut client = RawClient::connect(&server);
        client.write(&text_frame(&subscribe("closing")));
        client.expect(&subscribed("closing"));
        client.write(&frame(CLOSE, &[code.to_be_bytes().as_slice(), "bye, é".as_bytes()].concat()));
        client.expect_close(code);
        eventually("the closed connection is not a subscriber", || admin.subscribers("closing") == 0);
    }
    let mut client = RawClient::connect(&server);
    client.write(&frame(CLOSE, b""));
    let (opcode, payload) = client.frame();
    assert_eq!(opcode, CLOSE);
    assert!(payload.is_empty() || payload[..2] == 1000_u16.to_be_bytes(), "echo of a close without code: {payload:?}");
    client.expect_end();

    // tungstenite's own closing handshake.
    let mut client = Client::connect(&server);
    client.close(1000);
    client.expect_close(1000);
    assert!(
        matches!(client.try_message(), Err(tungstenite::Error::ConnectionClosed)),
        "the server closes the TCP side"
    );
}

fn nothing_is_read_after_a_close(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    client.write(
        &[
            text_frame(&ping(1)),
            frame(CLOSE, &1000_u16.to_be_bytes()),
            text_frame(&subscribe("late")),
            text_frame(&ping(2)),
        ]
        .concat(),
    );
    client.expect(&pong(1));
    client.expect_close(1000);
    assert_eq!(Admin::connect(&server).subscribers("late"), 0);
}

/// Names that PROTOCOL.md does not allow.
fn illegal_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        "user 13",
        " user",
        "user ",
        "user\n",
        "user\t13",
        "user\"13",
        "user\\13",
        "üser",
        "用户",
        "user#13",
        "user*",
        "user?",
        "user+",
        "user!",
        "user%20",
        "user&",
        "user'",
        "(user)",
        "[user]",
        "{user}",
        "<user>",
        "~user",
        "user|13",
        "user$",
        "user^",
        "user`",
        "\u{0}",
        "\u{7f}",
        "😀",
        "private-:",
        "private-user:13",
        "private-a:b:c",
    ]
    .map(str::to_owned)
    .into();
    names.push("a".repeat(201));
    names.push("a".repeat(1000));
    names.push(format!("private-{}", "a".repeat(193)));
    names
}

fn illegal_names_are_refused(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for name in illegal_names() {
        client.send(&json!({"event": "socket:subscribe", "data": {"channel": name, "auth": "a:b"}}).to_string());
        assert_error(&client.text(), "socket:subscribe.error", Some(&name), "invalid_channel");
        client.send(&unsubscribe(&name));
        let reply = client.text();
        assert_error(&reply, "socket:unsubscribe.error", Some(&name), "not_subscribed");
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        assert_eq!(reply["data"]["error"], "the connection is not subscribed to the channel");
    }
    // The client's own escapes are echoed with the same meaning.
    client.send(r#"{"event":"socket:subscribe","data":{"channel":"\u00fcser\/\"\n\ud83d\ude00"}}"#);
    assert_error(&client.text(), "socket:subscribe.error", Some("üser/\"\n😀"), "invalid_channel");
    client.expect_nothing_before_pong();
}

fn legal_names_are_accepted(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut admin = Admin::connect(&server);
    let longest = "a".repeat(200);
    for name in [
        "a",
        "0",
        "-",
        ":",
        "/",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;:/",
        "private",
        "private:a",
        "Private-a:b",
        "PRIVATE-a",
        "a-private-b",
        "presence",
        "presence:a",
        "Presence-a",
        "socket:ping",
        longest.as_str(),
    ] {
        client.subscribe(name);
        assert_eq!(admin.publish(name, "e", json!(name)), 1, "{name}");
        client.expect(&format!(r#"{{"event":"e","channel":"{name}","data":"{name}"}}"#));
        client.unsubscribe(name);
        client.send(&unsubscribe(name));
        client.expect(&not_subscribed(name));
    }
    client.send(&subscribe("private-"));
    assert_error(&client.text(), "socket:subscribe.error", Some("private-"), "auth_required");
}

fn presence_is_refused(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for name in ["presence-", "presence-a", "presence-private-a"] {
        client.send(&subscribe(name));
        assert_error(&client.text(), "socket:subscribe.error", Some(name), "invalid_channel");
        client.send(&json!({"event": "socket:subscribe", "data": {"channel": name, "auth": "a:b"}}).to_string());
        assert_error(&client.text(), "socket:subscribe.error", Some(name), "invalid_channel");
    }
}

fn too_many_subscriptions(shards: usize) {
    let server = Server::options(shards).arg("--max-subscriptions", 3).start();
    let mut client = RawClient::connect(&server);
    // In one write: pending subscriptions count.
    client.write(&["a", "b", "c", "d", "e"].map(|name| text_frame(&subscribe(name))).concat());
    for name in ["a", "b", "c"] {
        client.expect(&subscribed(name));
    }
    for name in ["d", "e"] {
        assert_error(&client.text(), "socket:subscribe.error", Some(name), "too_many_subscriptions");
    }
    // Ended subscriptions do not.
    client.write(&[unsubscribe("b"), subscribe("d"), subscribe("e")].map(|text| text_frame(&text)).concat());
    client.expect(&unsubscribed("b"));
    client.expect(&subscribed("d"));
    assert_error(&client.text(), "socket:subscribe.error", Some("e"), "too_many_subscriptions");
    // The limit is per connection.
    let mut other = Client::connect(&server);
    for name in ["a", "b", "c"] {
        other.subscribe(name);
    }
    let mut admin = Admin::connect(&server);
    let counts = ["a", "b", "c", "d", "e"].map(|name| admin.subscribers(name));
    assert_eq!(counts, [2, 1, 2, 1, 0]);
}

fn default_subscription_limit(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for n in 0..128 {
        client.subscribe(&format!("channel-{n}"));
    }
    client.send(&subscribe("channel-128"));
    assert_error(&client.text(), "socket:subscribe.error", Some("channel-128"), "too_many_subscriptions");
}

/// The expected reply to a request.
enum Reply {
    Exactly(String),
    Error(&'static str, Option<&'static str>, &'static str),
}

fn pipelined_requests_are_answered_in_order(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    let channels: Vec<String> = (0..7).map(|n| format!("channel-{n}")).collect();
    let mut live = [false; 7];
    let mut requests = Vec::new();
    let mut replies = Vec::new();
    let mut random: u32 = 0x2545_F491;
    for n in 0..200 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let at = random as usize / 16 % channels.len();
        let channel = &channels[at];
        let was_live = live[at];
        let (request, reply) = match random % 8 {
            0..3 => {
                live[at] = true;
                let reply = if was_live { already_subscribed(channel) } else { subscribed(channel) };
                (subscribe(channel), Reply::Exactly(reply))
            }
            3..5 => {
                live[at] = false;
                let reply = if was_live { unsubscribed(channel) } else { not_subscribed(channel) };
                (unsubscribe(channel), Reply::Exactly(reply))
            }
            5 => (r#"{"event":"socket:nope"}"#.to_owned(), Reply::Error("socket:error", None, "unknown_event")),
            6 => {
                let reply = Reply::Error("socket:subscribe.error", Some("private-x"), "auth_required");
                (subscribe("private-x"), reply)
            }
            _ => (ping(n), Reply::Exactly(pong(n))),
        };
        requests.extend(text_frame(&request));
        replies.push(reply);
    }
    client.write(&requests);
    for (n, reply) in replies.into_iter().enumerate() {
        let found = client.text();
        match reply {
            Reply::Exactly(text) => assert_eq!(found, text, "reply {n}"),
            Reply::Error(event, channel, code) => assert_error(&found, event, channel, code),
        }
    }
    let mut admin = Admin::connect(&server);
    for (channel, live) in channels.iter().zip(live) {
        assert_eq!(admin.subscribers(channel), u64::from(live), "{channel}");
    }
}

fn requests_in_the_upgrades_own_segment(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::tcp(&server);
    let requests = [text_frame(&subscribe("a")), text_frame(&ping(1)), text_frame(&unsubscribe("a"))].concat();
    client.write(&[UPGRADE_REQUEST.as_bytes(), &requests].concat());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.expect_connected();
    client.expect(&subscribed("a"));
    client.expect(&pong(1));
    client.expect(&unsubscribed("a"));
}

fn bytes_split_at_every_boundary(shards: usize) {
    let server = Server::start(shards);
    // The upgrade request: in two writes, and in one-byte writes.
    for at in 1..UPGRADE_REQUEST.len() {
        let (head, tail) = UPGRADE_REQUEST.as_bytes().split_at(at);
        let mut client = RawClient::tcp(&server);
        client.write(head);
        client.write(tail);
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "split at {at}: {head}");
        client.expect_connected();
    }
    let mut client = RawClient::tcp(&server);
    for byte in [UPGRADE_REQUEST.as_bytes(), &text_frame(&ping(1))].concat() {
        client.write(&[byte]);
    }
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    client.expect_connected();
    client.expect(&pong(1));

    // Frames: the pong to a ping before the first half proves that the server has read that half separately.
    let mut client = RawClient::connect(&server);
    let small = text_frame(&ping(2));
    let medium = text_frame(&ping_of(3, 300));
    let large = text_frame(&ping_of(4, 65_536));
    let fragments =
        [frame_bytes(TEXT, &ping(5).as_bytes()[..20], true), frame(CONTINUATION, &ping(5).as_bytes()[20..])].concat();
    let two = [text_frame(&ping(6)), text_frame(&ping(7))].concat();
    for (bytes, ids) in [(&small, &[2][..]), (&medium, &[3]), (&large, &[4]), (&fragments, &[5]), (&two, &[6, 7])] {
        let step = 1 + bytes.len() / 500;
        for at in (1..bytes.len()).filter(|at| *at < 20 || at % step == 0 || at + 3 > bytes.len()) {
            let (head, tail) = bytes.split_at(at);
            client.write(&[&frame(PING, b"first half"), head].concat());
            assert_eq!(client.frame(), (PONG, b"first half".to_vec()), "split at {at}");
            client.write(tail);
            for id in ids {
                client.expect(&pong(*id));
            }
        }
    }
}

/// The upgrade request with another request line.
fn upgrade_request_for(path: &str) -> String {
    UPGRADE_REQUEST.replace("/chat", path)
}

/// The status code that an upgrade request is answered with.
fn status_of(server: &Server, request: &str) -> (RawClient, String) {
    let mut client = RawClient::tcp(server);
    client.write(request.as_bytes());
    let head = client.head();
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
    let status = status.to_owned();
    assert!(!status.is_empty(), "no HTTP response to {}: {head:?}", shortened(request));
    (client, status)
}

fn upgrade_on_any_path(shards: usize) {
    let server = Server::start(shards);
    for path in ["/", "/ws", "/app/278d425bdf160c739803?protocol=7&client=js", "/a/b/c%20d/", "/?", "/?a=/b"] {
        let (mut client, status) = status_of(&server, &upgrade_request_for(path));
        assert_eq!(status, "101", "{path}");
        client.expect_connected();
    }
}

fn upgrade_on_configured_paths_only(shards: usize) {
    let server = Server::options(shards).arg("--path", "/ws").arg("--path", "/app/one").start();
    for path in ["/ws", "/ws?token=1", "/app/one"] {
        let (mut client, status) = status_of(&server, &upgrade_request_for(path));
        assert_eq!(status, "101", "{path}");
        client.expect_connected();
    }
    for path in ["/", "/w", "/wss", "/ws/x", "/app", "/app/two", "/WS", "/?/ws"] {
        let (_, status) = status_of(&server, &upgrade_request_for(path));
        assert_eq!(status, "404", "{path}");
    }
}

fn upgrade_answers_as_rfc_6455_says(shards: usize) {
    let server = Server::start(shards);
    let extra = "Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
        Cookie: a=b\r\n\r\n";
    for request in [
        UPGRADE_REQUEST.to_owned(),
        format!("{}{extra}", UPGRADE_REQUEST.strip_suffix("\r\n").expect("ends with an empty line")),
        UPGRADE_REQUEST.replace("Upgrade: websocket", "upgrade: WebSocket"),
        UPGRADE_REQUEST.replace("Connection: Upgrade", "connection: keep-alive, Upgrade"),
    ] {
        let mut client = RawClient::tcp(&server);
        client.write(request.as_bytes());
        let head = client.head();
        let lines: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
        assert!(head.starts_with("HTTP/1.1 101 "), "{request}{head}");
        assert!(lines.iter().any(|line| line == "upgrade: websocket"), "{head}");
        assert!(lines.iter().any(|line| line == "connection: upgrade"), "{head}");
        // The accept key of RFC 6455's own example.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(!lines.iter().any(|line| line.starts_with("sec-websocket-extensions")), "{head}");
        assert!(!lines.iter().any(|line| line.starts_with("sec-websocket-protocol")), "{head}");
        client.expect_connected();
    }
}

fn bad_upgrade_requests_get_http_errors(shards: usize) {
    let server = Server::start(shards);
    let padding = format!("X-Padding: {}\r\n\r\n", "x".repeat(20_000));
    let cases = [
        ("not HTTP", "NONSENSE\r\n\r\n".to_owned(), None),
        ("POST", UPGRADE_REQUEST.replace("GET", "POST"), None),
        ("HTTP/1.0", UPGRADE_REQUEST.replace("HTTP/1.1", "HTTP/1.0"), None),
        ("plain GET", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), None),
        ("no Upgrade", UPGRADE_REQUEST.replace("Upgrade: websocket\r\n", ""), None),
        ("another Upgrade", UPGRADE_REQUEST.replace("Upgrade: websocket", "Upgrade: h2c"), None),
        ("no Connection", UPGRADE_REQUEST.replace("Connection: Upgrade\r\n", ""), None),
        ("no key", UPGRADE_REQUEST.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), None),
        ("no version", UPGRADE_REQUEST.replace("Sec-WebSocket-Version: 13\r\n", ""), None),
        ("version 8", UPGRADE_REQUEST.replace("Version: 13", "Version: 8"), None),
        ("header without colon", UPGRADE_REQUEST.replace("Origin: ", "Origin "), None),
        ("beyond the limit", UPGRADE_REQUEST.replace("\r\n\r\n", &format!("\r\n{padding}")), Some("431")),
    ];
    for (case, request, expected) in cases {
        let mut client = RawClient::tcp(&server);
        client.write_anyway(request.as_bytes());
        let head = client.head();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        assert!(status.starts_with(['4', '5']), "{case}: {head:?}");
        assert!(expected.is_none_or(|expected| expected == status), "{case}: {head:?}");
        // The connection ends; only a body may follow.
        let rest = client.rest();
        assert!(!rest.starts_with(&[0x81]), "{case}: a frame follows: {}", rest.escape_ascii());
    }
    Client::connect(&server).expect_nothing_before_pong();
}
