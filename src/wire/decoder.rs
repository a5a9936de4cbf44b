//! The inbound half of RFC 6455: bytes as they arrive → messages.
//!
//! A message that lies whole in the input, in one frame, is unmasked where it lies and lent to the caller: no copy, no
//! allocation. Everything else — a header cut in two, a payload still arriving, the fragments of a message — is kept in a
//! [`Partial`], which exists only as long as something is half arrived.

use super::frame::{CONTROL_BYTES_MAX, FIN, LEN_16_BITS, LEN_64_BITS, MASKED, Message, Opcode, RESERVED, Violation};
use std::ops::Range;

/// Inbound state of one connection; one pointer while no frame or message is half arrived.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

impl Decoder {
    /// Takes the next message from `input[*at..]`, advancing `at`. `Ok(None)`: all input was consumed (`*at == input.len()`)
    /// and no further message is complete; what was half arrived is kept inside.
    ///
    /// Call until `Ok(None)`: a message that was assembled inside is only then freed. After a close or a violation
    /// everything that follows is swallowed.
    ///
    /// A message over `message_bytes_max`, all its fragments together, is refused when a header shows its length. Where a
    /// stream is cut makes no difference to what is decoded: faults are looked for in the order of the bytes.
    #[inline]
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Message<'a>>, Violation> {
        self.next_counted(input, at, message_bytes_max, &mut 0)
    }

    /// As [`Decoder::next`]. Adds to `frames` how many data frames have become whole: the fragments of a message one by one, as
    /// they arrive, control frames never.
    #[inline]
    pub fn next_counted<'a>(
        &'a mut self,
        input: &'a mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
        frames: &mut u32,
    ) -> Result<Option<Message<'a>>, Violation> {
        let whole = match self.find(input, at, message_bytes_max, frames) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(None),
            Err(violation) => {
                self.finish();
                *at = input.len();
                return Err(violation);
            }
        };
        match whole {
            Whole::Lent(opcode, range) => match message(opcode, &input[range]) {
                Ok(message) => {
                    if opcode == Opcode::Close {
                        self.finish();
                    }
                    Ok(Some(message))
                }
                Err(violation) => {
                    self.finish();
                    *at = input.len();
                    Err(violation)
                }
            },
            // A text was checked as it arrived; a close may still turn out illegal, but its stage is `Finished` already.
            Whole::Kept(opcode) => match self.partial.as_deref() {
                Some(partial) => message(opcode, partial.kept(opcode)).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Whether the next byte begins a message.
    #[inline]
    pub fn is_between_messages(&self) -> bool {
        self.partial.is_none()
    }

    /// Heap bytes of what is half arrived, without its payload: that grows by doubling, up to twice the limit.
    pub const PARTIAL_BYTES: usize = size_of::<Partial>();

    /// Bytes of heap memory held for what is half arrived.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.buffer_bytes())
    }

    /// Where the next whole message lies.
    #[inline]
    fn find(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
        frames: &mut u32,
    ) -> Result<Option<Whole>, Violation> {
        if self.partial.is_some() {
            return self.resume(input, at, message_bytes_max, frames);
        }
        let Some(header) = Header::parse(&input[*at..], None, message_bytes_max)? else {
            return self.resume(input, at, message_bytes_max, frames);
        };
        let payload_at = *at + header.len;
        if header.is_message() && header.payload_len <= input.len() - payload_at {
            let range = payload_at..payload_at + header.payload_len;
            unmask(&mut input[range.clone()], header.mask);
            *at = range.end;
            *frames += u32::from(!header.opcode.is_control());
            return Ok(Some(Whole::Lent(header.opcode, range)));
        }
        self.resume(input, at, message_bytes_max, frames)
    }

    /// The same as `find`, for everything that is not simply one whole frame.
    fn resume(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
        frames: &mut u32,
    ) -> Result<Option<Whole>, Violation> {
        self.drop_yielded();
        while *at < input.len() {
            let partial = self.partial.get_or_insert_default();
            match &mut partial.stage {
                Stage::Header { bytes, have } => {
                    let had = usize::from(*have);
                    let taken = (HEADER_BYTES_MAX - had).min(input.len() - *at);
                    bytes[had..had + taken].copy_from_slice(&input[*at..*at + taken]);
                    let assembled = partial.message.as_ref().map(|message| message.bytes.len());
                    let Some(header) = Header::parse(&bytes[..had + taken], assembled, message_bytes_max)? else {
                        *have += taken as u8;
                        *at += taken;
                        continue;
                    };
                    *at += header.len - had;
                    if header.is_message() && header.payload_len <= input.len() - *at {
                        let range = *at..*at + header.payload_len;
                        unmask(&mut input[range.clone()], header.mask);
                        *at = range.end;
                        partial.stage = Stage::default();
                        *frames += u32::from(!header.opcode.is_control());
                        self.drop_if_idle();
                        return Ok(Some(Whole::Lent(header.opcode, range)));
                    }
                    partial.expect_payload(header);
                }
                Stage::Payload(_) | Stage::Yielded(_) => {}
                Stage::Finished => *at = input.len(),
            }
            if let Stage::Payload(payload) = &mut partial.stage {
                let taken = payload.missing.min(input.len() - *at);
                let bytes = &mut input[*at..*at + taken];
                *at += taken;
                unmask(bytes, payload.mask);
                payload.mask.rotate_left(taken % 4);
                payload.missing -= taken;
                *frames += u32::from(payload.missing == 0 && !payload.opcode.is_control());
                if let Some(opcode) = partial.keep(bytes)? {
                    return Ok(Some(Whole::Kept(opcode)));
                }
            }
        }
        self.drop_if_idle();
        Ok(None)
    }
}

impl Decoder {
    /// Nothing more is decoded.
    #[cold]
    fn finish(&mut self) {
        self.partial = Some(Box::new(Partial { stage: Stage::Finished, ..Partial::default() }));
    }

    /// Frees what the last call lent from `Partial`.
    fn drop_yielded(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        if let Stage::Yielded(opcode) = partial.stage {
            if opcode.is_control() {
                partial.control = Vec::new();
            } else {
                partial.message = None;
            }
            partial.stage = Stage::default();
            self.drop_if_idle();
        }
    }

    fn drop_if_idle(&mut self) {
        if let Some(partial) = &self.partial
            && let Stage::Header { have: 0, .. } = partial.stage
            && partial.message.is_none()
        {
            self.partial = None;
        }
    }
}

/// Where a whole message lies.
enum Whole {
    /// In the caller's input, unmasked.
    Lent(Opcode, Range<usize>),
    /// In `Partial`, until the next call.
    Kept(Opcode),
}

/// What is half arrived.
#[derive(Debug, Default)]
struct Partial {
    stage: Stage,
    /// The data message whose fragments, or whose only frame, are arriving.
    message: Option<Assembly>,
    /// Payload of the control frame that is arriving; it may come between the fragments of `message`.
    control: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// Waiting for the rest of a header, `bytes[..have]` of which are here.
    Header { bytes: [u8; HEADER_BYTES_MAX], have: u8 },
    /// Waiting for the rest of a payload.
    Payload(Payload),
    /// A message was lent to the caller; to be dropped by the next call.
    Yielded(Opcode),
    /// After a close or a violation.
    Finished,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Header { bytes: [0; HEADER_BYTES_MAX], have: 0 }
    }
}

/// A frame's payload on its way.
#[derive(Debug)]
struct Payload {
    opcode: Opcode,
    fin: bool,
    /// The mask, rotated to the next byte that is missing.
    mask: [u8; 4],
    missing: usize,
}

impl Partial {
    fn expect_payload(&mut self, header: Header) {
        if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(Assembly { opcode: header.opcode, bytes: Vec::new(), utf8_len: 0 });
        }
        let Header { opcode, fin, mask, payload_len, .. } = header;
        self.stage = Stage::Payload(Payload { opcode, fin, mask, missing: payload_len });
    }

    /// Takes unmasked payload; returns the opcode of the message that it completes, if any, which then lies in [`Partial::kept`].
    fn keep(&mut self, bytes: &[u8]) -> Result<Option<Opcode>, Violation> {
        let Stage::Payload(Payload { opcode, fin, missing, .. }) = self.stage else {
            return Ok(None);
        };
        if opcode.is_control() {
            self.control.extend_from_slice(bytes);
            if missing > 0 {
                return Ok(None);
            }
            self.stage = if opcode == Opcode::Close { Stage::Finished } else { Stage::Yielded(opcode) };
            return Ok(Some(opcode));
        }
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        message.extend(bytes)?;
        if missing > 0 {
            return Ok(None);
        }
        self.stage = Stage::default();
        if !fin {
            return Ok(None);
        }
        message.check_whole()?;
        self.stage = Stage::Yielded(message.opcode);
        Ok(Some(message.opcode))
    }

    /// Payload of the message that `keep` completed.
    fn kept(&self, opcode: Opcode) -> &[u8] {
        if opcode.is_control() { &self.control } else { self.message.as_ref().map_or(&[], |message| &message.bytes) }
    }

    fn buffer_bytes(&self) -> usize {
        self.control.capacity() + self.message.as_ref().map_or(0, |message| message.bytes.capacity())
    }
}

/// A data message as it grows. The buffer grows with the bytes that came, never by the length that a header claims.
#[derive(Debug)]
struct Assembly {
    /// Text or binary.
    opcode: Opcode,
    bytes: Vec<u8>,
    /// How much of a text is known to be valid UTF-8; all of it but for a character that is not whole.
    utf8_len: usize,
}

impl Assembly {
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.bytes.extend_from_slice(bytes);
        if self.opcode == Opcode::Text {
            match str::from_utf8(&self.bytes[self.utf8_len..]) {
                Ok(text) => self.utf8_len += text.len(),
                Err(error) if error.error_len().is_none() => self.utf8_len += error.valid_up_to(),
                Err(_) => return Err(Violation::InvalidUtf8),
            }
        }
        Ok(())
    }

    fn check_whole(&self) -> Result<(), Violation> {
        if self.opcode == Opcode::Text && self.utf8_len < self.bytes.len() {
            return Err(Violation::InvalidUtf8);
        }
        Ok(())
    }
}

/// A frame's header, RFC 6455 §5.2.
struct Header {
    opcode: Opcode,
    fin: bool,
    mask: [u8; 4],
    payload_len: usize,
    /// Of the header itself, in bytes.
    len: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None`: it is not whole. `assembled`: bytes of the fragmented message that
    /// has begun, if one has.
    #[inline]
    fn parse(bytes: &[u8], assembled: Option<usize>, message_bytes_max: usize) -> Result<Option<Header>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Violation::Protocol("reserved bits are set"));
        }
        let fin = first & FIN != 0;
        let Some(opcode) = Opcode::of(first) else {
            return Err(Violation::Protocol("reserved opcode"));
        };
        if opcode.is_control() {
            if !fin {
                return Err(Violation::Protocol("fragmented control frame"));
            }
        } else if (opcode == Opcode::Continuation) != assembled.is_some() {
            return Err(Violation::Protocol(match opcode {
                Opcode::Continuation => "continuation of no message",
                _ => "new message inside a fragmented one",
            }));
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & MASKED == 0 {
            return Err(Violation::Protocol("frame is not masked"));
        }
        let short_len = second & !MASKED;
        if opcode.is_control() && usize::from(short_len) > CONTROL_BYTES_MAX {
            return Err(Violation::Protocol("control frame over 125 bytes"));
        }
        let (payload_len, mask_at) = match short_len {
            LEN_16_BITS => match bytes[2..].first_chunk() {
                Some(&len) => (u64::from(u16::from_be_bytes(len)), 4),
                None => return Ok(None),
            },
            LEN_64_BITS => match bytes[2..].first_chunk() {
                Some(&len) => (u64::from_be_bytes(len), 10),
                None => return Ok(None),
            },
            len => (u64::from(len), 2),
        };
        let minimal = match short_len {
            LEN_16_BITS => payload_len >= u64::from(LEN_16_BITS),
            LEN_64_BITS => payload_len > u64::from(u16::MAX),
            _ => true,
        };
        if !minimal {
            return Err(Violation::Protocol("length is not in its shortest form"));
        }
        if payload_len >> 63 != 0 {
            return Err(Violation::Protocol("length over 63 bits"));
        }
        if !opcode.is_control() {
            let room = message_bytes_max.saturating_sub(assembled.unwrap_or(0));
            if payload_len > room as u64 {
                return Err(Violation::TooBig);
            }
        }

        let Some(&mask) = bytes[mask_at..].first_chunk() else {
            return Ok(None);
        };
        Ok(Some(Header { opcode, fin, mask, payload_len: payload_len as usize, len: mask_at + 4 }))
    }

    /// The frame is a whole message by itself.
    #[inline]
    fn is_message(&self) -> bool {
        self.fin && self.opcode != Opcode::Continuation
    }
}

/// Undoes the mask, RFC 6455 §5.3, eight bytes at a time: the last eight, too, which may overlap the ones before them, as they
/// were read. Twice is as if never.
#[inline]
pub fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide_mask = u64::from_le_bytes([a, b, c, d, a, b, c, d]);
    let phase = bytes.len() as u32 % 4;
    let last = bytes.last_chunk().map(|&last| u64::from_le_bytes(last) ^ wide_mask.rotate_right(8 * phase));
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ wide_mask).to_le_bytes();
    }
    match last {
        None => rest.iter_mut().zip([a, b, c, d, a, b, c]).for_each(|(byte, mask)| *byte ^= mask),
        Some(last) => bytes.last_chunk_mut().into_iter().for_each(|to| *to = last.to_le_bytes()),
    }
}

/// What an unmasked payload says. `opcode` is that of the whole message, so never a continuation.
#[inline]
fn message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Message::Text(str::from_utf8(payload).map_err(|_| Violation::InvalidUtf8)?),
        Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Pong => Message::Pong(payload),
        Opcode::Close => Message::Close(close(payload)?),
    })
}

/// Code and reason of a close frame, RFC 6455 §5.5.1 and §7.4.
fn close(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(Violation::Protocol("close frame of one byte")),
        };
    };
    let code = u16::from_be_bytes(code);
    // 1012–1014 are registered with IANA; 1004–1006 and 1015 never travel; 3000–4999 are free for libraries and applications.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("close code that must not be sent"));
    }
    let reason = str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
    Ok(Some((code, reason)))
}

/// Two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use Violation::{InvalidUtf8, Protocol, TooBig};

    const MAX: usize = 1000;
    const MASK: [u8; 4] = [0x9A, 0x00, 0xFF, 0x31];

    /// A masked frame, as a client sends it.
    fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let payload = payload.as_ref();
        let mut bytes = Vec::new();
        super::super::frame::encode_header(&mut bytes, Opcode::Text, payload.len());
        bytes[0] = first;
        bytes[1] |= MASKED;
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Everything decoded from `pieces`, as text; `held` is told what is held after each piece.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mut held: impl FnMut(usize)) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for piece in pieces {
            let mut input = piece.to_vec();
            let mut at = 0;
            loop {
                match decoder.next(&mut input, &mut at, MAX) {
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

    /// `input` decodes to `expected`, whole and however it is cut in two, and byte by byte.
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
        // What follows a violation is swallowed.
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
                while decoder.next_counted(&mut bytes, &mut at, MAX, &mut frames).unwrap().is_some() {}
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
        check(
            &[frame(0x81, "a"), frame(0x81, "b"), frame(0x82, "c")],
            &[r#"Text("a")"#, r#"Text("b")"#, "Binary([99])"],
        );
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
    fn headers_that_break_the_protocol() {
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
        const LONG_WINDED: Violation = Protocol("length is not in its shortest form");
        check_violation(&[vec![0x81, 0xFE, 0, 125, 0, 0, 0, 0], vec![0; 125]], LONG_WINDED);
        check_violation(&[vec![0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]], LONG_WINDED);
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
        // A frame of which only the invalid beginning has come.
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
    fn unmasking_is_right_at_every_length_and_phase() {
        for len in 0..40usize {
            let plain: Vec<u8> = (0..len as u8).collect();
            let mut expected: Vec<u8> = plain.clone();
            for (index, byte) in expected.iter_mut().enumerate() {
                *byte ^= MASK[index % 4];
            }
            let mut masked = plain;
            unmask(&mut masked, MASK);
            assert_eq!(masked, expected);
        }
    }

    #[test]
    fn nothing_is_held_while_nothing_is_half_arrived() {
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
    fn memory_grows_with_what_came_not_with_what_was_claimed() {
        let mut decoder = Decoder::default();
        let mut input = frame(0x82, [7; 900]);
        input.truncate(18);
        let mut at = 0;
        assert_eq!(decoder.next(&mut input, &mut at, MAX), Ok(None));
        assert!((1..200).contains(&decoder.held_bytes()), "{} bytes held", decoder.held_bytes());
    }
}
