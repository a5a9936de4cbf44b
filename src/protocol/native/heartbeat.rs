//! The fast path for heartbeats. It recognises, byte for byte in the frame, the spelling that nearly all clients use.
//! Nine of ten messages on a quiet connection are heartbeats. The [`Decoder`](crate::wire::decoder::Decoder) and the
//! [parser](super::command) read every other spelling and incomplete frames, with the same result. A ping
//! with its pong takes 620 instructions on the fast path.

use crate::wire::frame;

/// The text of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat<'a>(&'a [u8]);

impl<'a> Heartbeat<'a> {
    /// The heartbeat in the frame at the start of `input`, unmasked in place, and the length of that frame. `None`: it
    /// is another message, and `input` is unchanged.
    #[inline]
    pub fn read(input: &'a mut [u8]) -> Option<(Heartbeat<'a>, usize)> {
        let (payload, mask) = frame::short_text(input)?;
        let len = payload.len();
        if len != PONG.len() && !(PING_BYTES_MIN..=PING_BYTES_MAX).contains(&len) {
            return None;
        }
        frame::unmask(&mut input[payload.clone()], mask);
        if !is_heartbeat(&input[payload.clone()]) {
            // Restores the mask, which the decoder expects.
            frame::unmask(&mut input[payload], mask);
            return None;
        }
        let frame_len = payload.end;
        Some((Heartbeat(&input[payload]), frame_len))
    }

    /// `data.id` of a `socket:ping`, as written; `None`: it is a `socket:pong`.
    #[inline]
    pub fn ping_id(self) -> Option<&'a [u8]> {
        // A pong is shorter than the beginning of a ping.
        let (_, rest) = self.0.split_first_chunk::<{ PING.len() }>()?;
        rest.split_last_chunk::<{ PING_END.len() }>().map(|(id, _)| id)
    }

    /// The whole message.
    pub fn text(self) -> &'a str {
        std::str::from_utf8(self.0).unwrap_or_default()
    }
}

#[inline]
fn is_heartbeat(text: &[u8]) -> bool {
    let Some((start, rest)) = text.split_first_chunk() else { return text == PONG };
    is_start_of_ping(start)
        && match rest {
            [b'0', b'}', b'}'] => true,
            [b'1'..=b'9', digits @ .., b'}', b'}'] => digits.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

/// Compares word by word, because `start == PING` compiles to a call of memcmp.
#[inline]
fn is_start_of_ping(start: &[u8; PING.len()]) -> bool {
    let ((words, rest), (expected, expected_rest)) = (start.as_chunks::<8>(), PING.as_chunks::<8>());
    let differ = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
    words.iter().zip(expected).map(differ).fold(0, |all, word| all | word) == 0 && rest == expected_rest
}

const PING: &[u8; 36] = br#"{"event":"socket:ping","data":{"id":"#;
const PING_END: &[u8; 2] = b"}}";
const PONG: &[u8; 23] = br#"{"event":"socket:pong"}"#;
const PING_BYTES_MIN: usize = PING.len() + 1 + PING_END.len();
/// An id of 20 digits, the most that 64 bits need.
const PING_BYTES_MAX: usize = PING.len() + 20 + PING_END.len();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::command::Command;
    use crate::protocol::json::Reader;
    use crate::protocol::native::command::command;
    use crate::wire::decoder::{Decoder, Message};
    use proptest::prelude::*;

    /// A masked text frame.
    fn frame_of(text: &str) -> Vec<u8> {
        let mask = [0x9A, 0x00, 0xFF, 0x31];
        let mut frame = vec![0x81, 0x80 | text.len() as u8];
        frame.extend(mask);
        frame.extend(text.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// The result of the parser; `None`: not a heartbeat.
    fn by_parser(text: &str) -> Option<Option<String>> {
        match command(&mut Reader::default(), text) {
            Ok(Command::Ping { id }) => Some(Some(id.into())),
            Ok(Command::Pong) => Some(None),
            _ => None,
        }
    }

    fn by_heartbeat(input: &mut [u8]) -> Option<(Option<String>, usize)> {
        let (heartbeat, len) = Heartbeat::read(input)?;
        Some((heartbeat.ping_id().map(|id| String::from_utf8(id.to_vec()).expect("digits")), len))
    }

    #[test]
    fn heartbeats_are_recognised_and_the_next_frame_is_untouched() {
        for id in ["0", "1", "42", "18446744073709551615", "99999999999999999999"] {
            let text = format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#);
            let frame = frame_of(&text);
            let mut input = [&frame[..], &frame].concat();
            assert_eq!(by_heartbeat(&mut input), Some((Some(id.into()), frame.len())));
            assert_eq!(input[frame.len()..], frame);
            assert_eq!(Heartbeat::read(&mut frame.clone()).map(|(heartbeat, _)| heartbeat.text()), Some(&*text));
        }
        let frame = frame_of(r#"{"event":"socket:pong"}"#);
        assert_eq!(by_heartbeat(&mut frame.clone()), Some((None, frame.len())));
    }

    #[test]
    fn other_messages_are_left_unchanged() {
        let whole = frame_of(r#"{"event":"socket:ping","data":{"id":12}}"#);
        let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
        // In turn: not final, binary, with a reserved bit, not masked, and with a wrong length.
        let headers = [(0, 0x01), (0, 0x82), (0, 0xC1), (1, 40), (1, 0x80 | 41), (1, 0xFE), (1, 0xFF)];
        let damaged = headers.into_iter().map(|(at, byte)| {
            let mut frame = whole.clone();
            frame[at] = byte;
            frame
        });
        let texts = [
            r#"{"event":"socket:ping","data":{"id":}}     "#,
            r#"{"event":"socket:ping","data":{"id":012}}"#,
            r#"{"event":"socket:ping","data":{"id":-12}}"#,
            r#"{"event":"socket:ping","data":{"id":1e2}}"#,
            r#"{"event":"socket:ping","data":{"id":12}} "#,
            r#"{"event":"socket:ping","data":{"id":"12"}}"#,
            r#"{"event":"socket:ping","data":{"id":123456789012345678901}}"#,
            r#"{"event":"socket:pong" }"#,
            r#"{"event":"socket:pang"}"#,
            "",
        ];
        for input in cut.chain(damaged).chain(texts.map(frame_of)) {
            let mut left = input.clone();
            assert_eq!(by_heartbeat(&mut left), None, "{input:?}");
            assert_eq!(left, input);
        }
    }

    proptest! {
        /// Recognised or not, the result is that of the parser.
        #[test]
        fn it_means_what_the_parser_says(
            text in prop_oneof![
                r#"\{"event":"socket:ping","data":\{"id":[0-9]{1,21}\}\}"#,
                r#"\{"event":"socket:p[ion]ng"(,"data":\{"id":-?[0-9.]{0,20}\})?\}"#,
            ],
            at in any::<prop::sample::Index>(),
            byte in prop::option::of(" -~"),
        ) {
            let mut text = text;
            if let Some(byte) = byte {
                let at = at.index(text.len());
                text.replace_range(at..=at, &byte);
            }
            let mut input = frame_of(&text);
            let expected = by_parser(&text);
            if let Some((said, len)) = by_heartbeat(&mut input) {
                prop_assert_eq!((Some(said), len), (expected, input.len()));
            } else {
                let mut decoder = Decoder::default();
                let message = decoder.next(&mut input, &mut 0, 1000, &mut 0);
                prop_assert_eq!(message, Ok(Some(Message::Text(&text))));
            }
        }
    }
}
