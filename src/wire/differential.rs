//! The decoder gives the same result as tungstenite's for the same bytes, however they are divided into inputs.

use super::decoder::{self, Decoder, Violation};
use super::frame::{Opcode, encode_header};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::io;
use tungstenite::{
    Error,
    protocol::{Message, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn legal_streams_decode_as_tungstenite_does(stream in legal_stream(40), cuts in cuts()) {
        let ours = check_all_cuttings(&stream, &cuts);
        prop_assert_eq!(ours.violation, None);
        prop_assert_eq!(ours, theirs(&stream));
    }

    #[test]
    fn large_messages_decode_as_tungstenite_does(stream in legal_stream(3000), cuts in cuts()) {
        let ours = decode(&pieces(&stream, &cuts));
        prop_assert_eq!(&ours, &decode(&[&stream]));
        prop_assert_eq!(ours, theirs(&stream));
    }

    #[test]
    fn one_fault_is_the_violation_that_tungstenite_sees(
        before in legal_stream(20),
        fault in fault(),
        after in legal_stream(20),
        cuts in cuts(),
    ) {
        let stream = [before, fault, after].concat();
        let ours = check_all_cuttings(&stream, &cuts);
        let closed_before = matches!(ours.messages.last(), Some(Message::Close(_)));
        prop_assert_eq!(ours.violation.is_some(), !closed_before);
        prop_assert_eq!(ours, theirs(&stream));
    }

    /// RFC 6455 §8.1: invalid UTF-8 is found at its first byte, before the end of the frame or of the message.
    #[test]
    fn an_invalid_text_fails_with_the_byte_that_makes_it_so(
        text in "\\PC{0,20}",
        tail in vec(prop_oneof![any::<u8>(), 0x80u8..0xC0, 0xE0u8..], 0..12),
        cuts in cuts(),
        between in control_frame(),
    ) {
        let payload = [text.as_bytes(), &tail].concat();
        let invalid_at = (0..payload.len()).find(|&last| {
            str::from_utf8(&payload[..=last]).is_err_and(|error| error.error_len().is_some())
        });
        let mut decoder = Decoder::default();
        let fragments = pieces(&payload, &cuts);
        let mut arrived = 0;
        for (index, fragment) in fragments.iter().enumerate() {
            let first = if index == 0 { TEXT } else { CONTINUATION };
            let frame = masked(first, fragment, 0x9A00_FF31);
            let header = frame.len() - fragment.len();
            for (at, &byte) in frame.iter().enumerate() {
                arrived += usize::from(at >= header);
                let mut byte = [byte];
                let outcome = decoder.next(&mut byte, &mut 0, MESSAGE_BYTES_MAX, &mut 0);
                if at >= header && invalid_at == Some(arrived - 1) {
                    prop_assert_eq!(outcome, Err(Violation::InvalidUtf8));
                    return Ok(());
                }
                prop_assert_eq!(outcome, Ok(None));
            }
            let mut between = between.clone();
            let mut at = 0;
            while decoder.next(&mut between, &mut at, MESSAGE_BYTES_MAX, &mut 0).expect("control frames are legal").is_some() {}
        }
        prop_assert_eq!(invalid_at, None);
    }

    #[test]
    fn a_damaged_stream_fails_no_later_than_in_tungstenite(
        stream in legal_stream(40),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cuts in cuts(),
    ) {
        let mut stream = stream;
        for (at, value) in damage {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = value;
            }
        }
        check_damaged(&stream, &cuts)?;
    }

    #[test]
    fn noise_fails_no_later_than_in_tungstenite(noise in vec(any::<u8>(), 0..200), cuts in cuts()) {
        check_damaged(&noise, &cuts)?;
    }
}

/// The result of decoding a stream.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    messages: Vec<Message>,
    violation: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Protocol,
    InvalidUtf8,
    TooBig,
    /// tungstenite accepts a length that is not in its shortest form, and refuses close code 1014.
    TheyDiffer,
}

/// If one frame has several faults, the decoders may report different ones. Ours reports the first in the order of the
/// bytes, as soon as it arrives. tungstenite checks a frame once it is complete.
fn check_damaged(stream: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let ours = check_all_cuttings(stream, cuts);
    let theirs = theirs(stream);
    match (ours.violation, theirs.violation) {
        (Some(Kind::TheyDiffer), _) => prop_assert!(theirs.messages.starts_with(&ours.messages)),
        (Some(_), None) => {
            prop_assert_eq!(ours.messages, theirs.messages, "tungstenite waits for the rest of the frame")
        }
        (Some(Kind::Protocol), Some(_)) => prop_assert_eq!(ours.messages, theirs.messages),
        _ if is_code_1014(&ours) => {}
        _ => prop_assert_eq!(ours, theirs),
    }
    Ok(())
}

fn is_code_1014(outcome: &Outcome) -> bool {
    matches!(outcome.messages.last(), Some(Message::Close(Some(close))) if u16::from(close.code) == 1014)
}

/// Our result. It must be the same for the whole stream, for every cut in two, byte by byte, and with `cuts`.
fn check_all_cuttings(stream: &[u8], cuts: &[Index]) -> Outcome {
    let whole = decode(&[stream]);
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        assert_eq!(decode(&[head, tail]), whole, "cut at {cut}");
    }
    assert_eq!(decode(&stream.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    assert_eq!(decode(&pieces(stream, cuts)), whole, "cut at random");
    whole
}

fn decode(pieces: &[&[u8]]) -> Outcome {
    let mut decoder = Decoder::default();
    let mut outcome = Outcome { messages: Vec::new(), violation: None };
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            let message = match decoder.next(&mut input, &mut at, MESSAGE_BYTES_MAX, &mut 0) {
                Ok(None) => break,
                Ok(Some(message)) => message,
                Err(violation) => {
                    assert_eq!(outcome.violation, None, "nothing is decoded after a violation");
                    outcome.violation = Some(match violation {
                        Violation::Protocol(why) if why.contains("shortest") => Kind::TheyDiffer,
                        Violation::Protocol(_) => Kind::Protocol,
                        Violation::InvalidUtf8 => Kind::InvalidUtf8,
                        Violation::TooBig => Kind::TooBig,
                    });
                    continue;
                }
            };
            outcome.messages.push(match message {
                decoder::Message::Text(text) => Message::text(text),
                decoder::Message::Binary(bytes) => Message::binary(bytes.to_vec()),
                decoder::Message::Ping(bytes) => Message::Ping(bytes.to_vec().into()),
                decoder::Message::Pong(bytes) => Message::Pong(bytes.to_vec().into()),
                decoder::Message::Close(None) => Message::Close(None),
                decoder::Message::Close(Some((code, reason))) => {
                    Message::Close(Some(tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() }))
                }
            });
        }
        assert_eq!(at, input.len());
    }
    outcome
}

fn theirs(stream: &[u8]) -> Outcome {
    let limits = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut context = WebSocketContext::new(Role::Server, Some(limits));
    let mut stream = Pipe(stream);
    let mut outcome = Outcome { messages: Vec::new(), violation: None };
    loop {
        match context.read(&mut stream) {
            // tungstenite replaces an illegal code with a close code of its own.
            Ok(Message::Close(Some(close)))
                if close.code == CloseCode::Protocol && close.reason.as_str() == "Protocol violation" =>
            {
                outcome.violation = Some(Kind::Protocol);
                return outcome;
            }
            Ok(message @ Message::Close(_)) => {
                outcome.messages.push(message);
                return outcome;
            }
            Ok(message) => outcome.messages.push(message),
            Err(Error::Io(_)) => return outcome,
            Err(error) => {
                outcome.violation = Some(match error {
                    Error::Protocol(_) => Kind::Protocol,
                    Error::Utf8(_) => Kind::InvalidUtf8,
                    Error::Capacity(_) => Kind::TooBig,
                    other => panic!("{other}"),
                });
                return outcome;
            }
        }
    }
}

/// Reads from a slice, and reports that it would block at its end; discards writes.
struct Pipe<'a>(&'a [u8]);

impl io::Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl io::Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Messages, some in fragments with control frames between them, and sometimes a close; payloads up to `bytes_max`.
fn legal_stream(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
    let close = prop_oneof![
        4 => Just(Vec::new()),
        1 => Just(masked(CLOSE, &[], 0)),
        1 => (prop_oneof![1000u16..=1003, 1007u16..=1013, 3000u16..=4999], "\\PC{0,30}", any::<u32>())
            .prop_map(|(code, reason, mask)| masked(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat(), mask)),
    ];
    (vec(prop_oneof![3 => data_message(bytes_max), 1 => control_frame()], 0..6), close)
        .prop_map(|(frames, close)| [frames.concat(), close].concat())
}

fn data_message(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
    let text = vec(
        prop_oneof![4 => any::<u8>().prop_map(|byte| char::from(byte & 0x7F)), 1 => any::<char>()],
        0..bytes_max / 2,
    )
    .prop_map(|text| (TEXT, String::from_iter(text).into_bytes()));
    let binary = vec(any::<u8>(), 0..bytes_max).prop_map(|bytes| (BINARY, bytes));
    let between = vec(prop_oneof![2 => Just(Vec::new()), 1 => control_frame()], 3);
    (prop_oneof![text, binary], vec(any::<Index>(), 0..4), between, any::<u32>()).prop_map(
        |((opcode, payload), cuts, between, mask)| {
            let fragments = pieces(&payload, &cuts);
            let last = fragments.len() - 1;
            let mut stream = Vec::new();
            for (index, fragment) in fragments.iter().enumerate() {
                let opcode = if index == 0 { opcode } else { CONTINUATION };
                let fin = if index == last { FIN } else { 0 };
                stream.extend(masked(fin | opcode, fragment, mask.wrapping_mul(index as u32 + 1)));
                if index < last {
                    stream.extend(&between[index % between.len()]);
                }
            }
            stream
        },
    )
}

fn control_frame() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![Just(PING), Just(PONG)], prop_oneof![vec(any::<u8>(), 0..8), vec(any::<u8>(), 125)], any::<u32>())
        .prop_map(|(first, payload, mask)| masked(first, &payload, mask))
}

/// Frames with exactly one fault, which follow legal frames.
fn fault() -> impl Strategy<Value = Vec<u8>> {
    let reserved_bits = (1u8..8, prop_oneof![Just(FIN | TEXT), Just(FIN | BINARY), Just(PING), Just(CLOSE)])
        .prop_map(|(bits, first)| masked(first | bits << 4, b"", 1));
    let reserved_opcode =
        prop_oneof![3u8..8, 11u8..16].prop_map(|opcode| masked(FIN | opcode, b"payload", 0x1234_5678));
    let unmasked = (prop_oneof![Just(FIN | TEXT), Just(PING)], 0u8..100)
        .prop_map(|(first, len)| [vec![first, len], vec![b'x'; usize::from(len)]].concat());
    let fragmented_control =
        prop_oneof![Just(PING), Just(PONG), Just(CLOSE)].prop_map(|first| masked(first & !FIN, b"", 7));
    let long_control = (prop_oneof![Just(PING), Just(PONG), Just(CLOSE)], 126usize..MESSAGE_BYTES_MAX)
        .prop_map(|(first, len)| masked(first, &vec![3; len], 7));
    let lone_continuation = any::<bool>().prop_map(|fin| masked(if fin { FIN } else { 0 }, b"x", 9));
    let message_inside = (prop_oneof![Just(TEXT), Just(BINARY)], any::<bool>()).prop_map(|(opcode, fin)| {
        [masked(TEXT, b"x", 9), masked(if fin { FIN | opcode } else { opcode }, b"y", 9)].concat()
    });
    let invalid_text =
        ("\\PC{0,20}", prop::sample::select(INVALID_UTF8), any::<bool>()).prop_map(|(text, invalid, split)| {
            let payload = [text.as_bytes(), invalid].concat();
            if split {
                let (head, tail) = payload.split_at(payload.len() / 2);
                [masked(TEXT, head, 5), masked(FIN | CONTINUATION, tail, 6)].concat()
            } else {
                masked(FIN | TEXT, &payload, 5)
            }
        });
    let too_big =
        (MESSAGE_BYTES_MAX + 1..MESSAGE_BYTES_MAX + 300).prop_map(|len| masked(FIN | TEXT, &vec![b'x'; len], 3));
    let fragments_too_big = (1usize..300).prop_map(|over| {
        let first = masked(BINARY, &[1; MESSAGE_BYTES_MAX - 100], 3);
        [first, masked(FIN | CONTINUATION, &vec![2; 100 + over], 4)].concat()
    });
    let bad_close = prop_oneof![
        Just(vec![3]),
        prop_oneof![0u16..1000, 1004u16..=1006, 1015u16..3000, 5000u16..].prop_map(|code| code.to_be_bytes().to_vec()),
        prop::sample::select(INVALID_UTF8).prop_map(|invalid| [&[3, 232], invalid].concat()),
    ]
    .prop_map(|payload| masked(CLOSE, &payload, 0xABCD_EF01));
    prop_oneof![
        reserved_bits,
        reserved_opcode,
        unmasked,
        fragmented_control,
        long_control,
        lone_continuation,
        message_inside,
        invalid_text,
        too_big,
        fragments_too_big,
        bad_close,
    ]
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..8)
}

/// `bytes` cut at `cuts`; some pieces may be empty.
fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    cuts.into_iter().map(|to| &bytes[std::mem::replace(&mut from, to)..to]).collect()
}

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8], mask: u32) -> Vec<u8> {
    let mask = mask.to_be_bytes();
    let mut bytes = Vec::new();
    encode_header(&mut bytes, Opcode::Text, payload.len());
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const MESSAGE_BYTES_MAX: usize = 2000;
const INVALID_UTF8: &[&[u8]] =
    &[&[0xFF], &[0xC0, 0x80], &[0xED, 0xA0, 0x80], &[0xF4, 0x90, 0x80, 0x80], &[0xE8, 0xAF], &[0x80]];
const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
