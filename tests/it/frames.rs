//! WebSocket frames (RFC 6455): fragments, lengths, control frames, violations, and bytes that arrive in any division.

use crate::harness::opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};
use crate::harness::{
    Admin, Client, RawClient, Server, UPGRADE_REQUEST, eventually, for_shards, frame, frame_bytes, subscribe,
    subscribed, text_frame,
};
use crate::protocol::{ping, ping_of, pong};
use tungstenite::protocol::Message;

for_shards!(
    and_over_tls,
    fragmented_messages_are_reassembled,
    binary_closes_with_1003,
    invalid_utf8_closes_with_1007,
    too_big_closes_with_1009,
    protocol_errors_close_with_1002,
    frames_of_every_length_encoding_are_read,
    websocket_pings_are_answered,
    close_is_echoed,
    nothing_is_read_after_a_close,
    bytes_split_at_every_boundary,
);

fn fragmented_messages_are_reassembled(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    let text = r#"{"event":"socket:ping","data":{"id":"é😀"}}"#;
    let reply = r#"{"event":"socket:pong","data":{"reply":"é😀"}}"#;
    // Cut at every byte, also within a character, with a control frame between the parts.
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
    // The longest allowed message.
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
        // The server may refuse the first fragment before the second is written.
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

    // The limit applies to the sum of the fragments.
    let mut client = RawClient::connect(&server);
    let text = ping_of(1, 65_537);
    let (head, tail) = text.as_bytes().split_at(65_000);
    client.write(&frame_bytes(TEXT, head, true));
    client.write_anyway(&frame_bytes(0x80 | CONTINUATION, tail, true));
    client.expect_close(1009);

    // The declared length alone exceeds the limit.
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
        // Earlier messages are answered; later input is not read.
        client.write(&[text_frame(&ping(7)), bytes, text_frame(&ping(8))].concat());
        client.expect(&pong(7));
        client.expect_close(1002);
    }
    // The server still accepts connections.
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
    // Pongs are in order with all other replies.
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
        eventually("the closed connection has left the channel", || admin.subscribers("closing") == 0);
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
        "the server does not close the TCP connection"
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

    // Frames: a pong between the halves proves that the server has read the first half separately.
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
