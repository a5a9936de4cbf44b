use super::*;
use crate::wire::frame::{MASKED, encode_header};
use Violation::{InvalidUtf8, Protocol, TooBig};

const MAX: usize = 1000;
const MASK: [u8; 4] = [0x9A, 0x00, 0xFF, 0x31];

/// A masked frame, as a client sends it.
fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = Vec::new();
    encode_header(&mut bytes, Opcode::Text, payload.len());
    bytes[0] = first;
    bytes[1] |= MASKED;
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Everything decoded from `pieces`, as text; calls `held` with the number of bytes held after each piece.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mut held: impl FnMut(usize)) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            match decoder.next(&mut input, &mut at, MAX, &mut 0) {
                Ok(Some(message)) => seen.push(format!("{message:?}")),
                Ok(None) => break,
                Err(violation) => seen.push(format!("{violation:?}")),
            }
        }
        assert_eq!(at, input.len());
        held(decoder.held_bytes());
    }
    seen
}

/// `input` decodes to `expected`, whether whole, cut in two anywhere, or byte by byte.
#[track_caller]
fn check(input: &[Vec<u8>], expected: &[&str]) {
    let input = input.concat();
    assert_eq!(decode([&input[..]], |_| ()), expected, "whole");
    assert_eq!(decode(input.chunks(1), |_| ()), expected, "byte by byte");
    for cut in 0..=input.len() {
        let (head, tail) = input.split_at(cut);
        assert_eq!(decode([head, tail], |_| ()), expected, "cut at {cut}");
    }
}

#[track_caller]
fn check_violation(input: &[Vec<u8>], expected: Violation) {
    // Input after a violation is discarded.
    let input = [input, &[frame(0x81, "after")]].concat();
    check(&input, &[&format!("{expected:?}")]);
}

#[test]
fn data_frames_are_counted_as_they_become_whole() {
    let input = [
        frame(0x81, "one"),
        frame(0x01, "a"),
        frame(0x80, ""),
        frame(0x02, "b"),
        frame(0x00, ""),
        frame(0x89, "ping"),
        frame(0x00, "c"),
        frame(0x80, ""),
        frame(0x8a, ""),
        frame(0x88, ""),
    ];
    for piece in 1..20 {
        let (mut decoder, mut frames) = (Decoder::default(), 0);
        for bytes in input.concat().chunks(piece) {
            let (mut bytes, mut at) = (bytes.to_vec(), 0);
            while decoder.next(&mut bytes, &mut at, MAX, &mut frames).unwrap().is_some() {}
        }
        assert_eq!(frames, 7, "in pieces of {piece} bytes");
    }
}

#[test]
fn whole_frames() {
    check(&[frame(0x81, "")], &[r#"Text("")"#]);
    check(&[frame(0x81, "hello")], &[r#"Text("hello")"#]);
    check(&[frame(0x81, "语言")], &[r#"Text("语言")"#]);
    check(&[frame(0x82, [1, 2, 255])], &["Binary([1, 2, 255])"]);
    check(&[frame(0x82, [])], &["Binary([])"]);
    check(&[frame(0x89, "p"), frame(0x8A, ""), frame(0x89, "")], &["Ping([112])", "Pong([])", "Ping([])"]);
    check(&[frame(0x81, "a"), frame(0x81, "b"), frame(0x82, "c")], &[r#"Text("a")"#, r#"Text("b")"#, "Binary([99])"]);
    let long = "x".repeat(500);
    check(&[frame(0x81, &long), frame(0x81, "y")], &[&format!("Text({long:?})"), r#"Text("y")"#]);
}

#[test]
fn fragments_with_control_frames_between_them() {
    check(&[frame(0x01, "he"), frame(0x00, ""), frame(0x80, "llo")], &[r#"Text("hello")"#]);
    check(&[frame(0x02, []), frame(0x80, [])], &["Binary([])"]);
    check(
        &[frame(0x01, "he"), frame(0x89, "1"), frame(0x8A, "22"), frame(0x80, "llo"), frame(0x81, "!")],
        &["Ping([49])", "Pong([50, 50])", r#"Text("hello")"#, r#"Text("!")"#],
    );
    let [first, second, third] = [&"语".as_bytes()[..1], &"语".as_bytes()[1..2], &"语".as_bytes()[2..]];
    check(&[frame(0x01, first), frame(0x00, second), frame(0x80, third)], &[r#"Text("语")"#]);
    check(&[frame(0x01, "a"), frame(0x88, [0x03, 0xE8]), frame(0x80, "b")], &[r#"Close(Some((1000, "")))"#]);
}

#[test]
fn nothing_is_decoded_after_a_close() {
    check(&[frame(0x88, []), frame(0x81, "late"), vec![0xFF]], &["Close(None)"]);
    check(&[frame(0x88, b"\x0F\xA0bye"), frame(0x89, [])], &[r#"Close(Some((4000, "bye")))"#]);
}

#[test]
fn headers_that_violate_the_protocol() {
    for bit in [0x40, 0x20, 0x10] {
        check_violation(&[frame(0x81 | bit, "x")], Protocol("reserved bits are set"));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check_violation(&[frame(0x80 | opcode, "x")], Protocol("reserved opcode"));
    }
    for opcode in [0x8, 0x9, 0xA] {
        check_violation(&[frame(opcode, "")], Protocol("fragmented control frame"));
        check_violation(&[frame(0x80 | opcode, [0; 126])], Protocol("control frame over 125 bytes"));
    }
    check_violation(&[vec![0x81, 0x01, b'x']], Protocol("frame is not masked"));
    check_violation(&[frame(0x80, "x")], Protocol("continuation of no message"));
    check_violation(&[frame(0x00, "x")], Protocol("continuation of no message"));
    check_violation(&[frame(0x01, "x"), frame(0x81, "y")], Protocol("new message inside a fragmented one"));
    check_violation(&[frame(0x01, "x"), frame(0x02, "y")], Protocol("new message inside a fragmented one"));
}

#[test]
fn lengths_not_in_their_shortest_form() {
    const NOT_SHORTEST: Violation = Protocol("length is not in its shortest form");
    check_violation(&[vec![0x81, 0xFE, 0, 125, 0, 0, 0, 0], vec![0; 125]], NOT_SHORTEST);
    check_violation(&[vec![0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]], NOT_SHORTEST);
    check_violation(&[vec![0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]], Protocol("length over 63 bits"));
}

#[test]
fn too_big_is_known_from_the_header() {
    let at_limit = "x".repeat(MAX);
    check(&[frame(0x81, &at_limit)], &[&format!("Text({at_limit:?})")]);
    check_violation(&[vec![0x81, 0xFE, 0x03, 0xE9]], TooBig);
    check_violation(&[vec![0x82, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0]], TooBig);
    check_violation(&[frame(0x01, [b'x'; 600]), frame(0x00, [b'x'; 400]), vec![0x80, 0x81]], TooBig);
    check_violation(&[frame(0x01, [b'x'; 600]), vec![0x80, 0xFE, 0x01, 0x91]], TooBig);
}

#[test]
fn text_is_checked_as_it_arrives() {
    check_violation(&[frame(0x81, [0xC0, 0x80])], InvalidUtf8);
    check_violation(&[frame(0x81, [b'a', 0xE8, 0xAF])], InvalidUtf8);
    check_violation(&[frame(0x01, [0xED, 0xA0, 0x80])], InvalidUtf8);
    check_violation(&[frame(0x01, [0xE8, 0xAF]), frame(0x80, "x")], InvalidUtf8);
    check_violation(&[frame(0x01, "ok"), frame(0x80, [0xE8, 0xAF])], InvalidUtf8);
    // Only the beginning of the frame, which is invalid, has arrived.
    let half = &frame(0x81, [&[b'a', 0xFF][..], &[b'b'; 90]].concat())[..10];
    check_violation(&[half.to_vec()], InvalidUtf8);
    check(&[frame(0x82, [0xFF])], &["Binary([255])"]);
}

#[test]
fn close_payloads() {
    check_violation(&[frame(0x88, [3])], Protocol("close frame of one byte"));
    check_violation(&[frame(0x88, b"\x03\xE8\xFF")], InvalidUtf8);
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        check(&[frame(0x88, code.to_be_bytes())], &[&format!("Close(Some(({code}, \"\")))")]);
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535] {
        check_violation(&[frame(0x88, code.to_be_bytes())], Protocol("close code that must not be sent"));
    }
}

#[test]
fn nothing_is_held_between_messages() {
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
    let input = [frame(0x01, "he"), frame(0x89, "ping"), frame(0x80, "llo"), frame(0x81, "whole")].concat();
    let message_end = input.len() - frame(0x81, "whole").len();
    let mut held_after = Vec::new();
    decode(input.chunks(1), |held| held_after.push(held));
    for (index, held) in held_after.into_iter().enumerate() {
        let idle = index + 1 == message_end || index + 1 == input.len();
        assert_eq!(held == 0, idle, "{held} bytes held after byte {index}");
    }
}

#[test]
fn memory_grows_with_the_bytes_that_arrive_not_with_the_claimed_length() {
    let mut decoder = Decoder::default();
    let mut input = frame(0x82, [7; 900]);
    input.truncate(18);
    let mut at = 0;
    assert_eq!(decoder.next(&mut input, &mut at, MAX, &mut 0), Ok(None));
    assert!((1..200).contains(&decoder.held_bytes()), "{} bytes held", decoder.held_bytes());
}
