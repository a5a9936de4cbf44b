//! RFC 6455 frames: opcodes, header bits, masking, and the encoding of the server's own frames. Clients' frames are read by
//! [`decoder`](super::decoder).

use std::ops::Range;

/// Frame opcodes, RFC 6455 §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    /// The opcode in the low four bits of a frame's first byte; `None`: RFC 6455 reserves it.
    pub(super) fn of(first_byte: u8) -> Option<Opcode> {
        match first_byte & 0x0F {
            0x0 => Some(Opcode::Continuation),
            0x1 => Some(Opcode::Text),
            0x2 => Some(Opcode::Binary),
            0x8 => Some(Opcode::Close),
            0x9 => Some(Opcode::Ping),
            0xA => Some(Opcode::Pong),
            _ => None,
        }
    }

    /// Whether it is a close, ping or pong. Those are never fragmented, have at most [`CONTROL_BYTES_MAX`], and may
    /// come between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// Appends the header of an unmasked, final frame (RFC 6455 §5.2: the shortest encoding of the length that fits).
#[inline]
pub fn encode_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    let first = FIN | opcode as u8;
    if payload_len < LEN_16_BITS as usize {
        out.extend_from_slice(&[first, payload_len as u8]);
    } else if let Ok(len) = u16::try_from(payload_len) {
        let [high, low] = len.to_be_bytes();
        out.extend_from_slice(&[first, LEN_16_BITS, high, low]);
    } else {
        let mut header = [first, LEN_64_BITS, 0, 0, 0, 0, 0, 0, 0, 0];
        header[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
        out.extend_from_slice(&header);
    }
}

/// Appends a text frame whose payload `write` appends. For rare messages: the payload is moved to make room for the header.
pub fn append_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let payload_len = out.len() - start;
    encode_header(out, Opcode::Text, payload_len);
    let header_len = out.len() - start - payload_len;
    out[start..].rotate_right(header_len);
}

/// Appends a whole close frame; `reason` is cut to 123 bytes at a character boundary.
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    encode_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Length, header included, of the unmasked frame at the start of `bytes`, or `None` if the header is incomplete.
#[inline]
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(1)? & !MASKED {
        LEN_16_BITS => Some(4 + usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        LEN_64_BITS => {
            let len = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            Some(usize::try_from(len).unwrap_or(usize::MAX).saturating_add(10))
        }
        len => Some(2 + usize::from(len)),
    }
}

/// The place of the payload in `input`, and its mask, if `input` starts with a client's text message in one complete
/// frame with a length of 7 bits. `None`: anything else, which the [`Decoder`](super::decoder::Decoder) reads.
#[inline]
pub fn short_text(input: &[u8]) -> Option<(Range<usize>, [u8; 4])> {
    let [first, second, a, b, c, d, ..] = *input else { return None };
    let payload = 6..6 + usize::from(second ^ MASKED);
    let is_short_text = first == FIN | Opcode::Text as u8 && second & MASKED != 0 && second & !MASKED < LEN_16_BITS;
    (is_short_text && payload.end <= input.len()).then_some((payload, [a, b, c, d]))
}

/// Removes the mask, RFC 6455 §5.3, eight bytes at a time. The last eight may overlap the words before them, so they
/// are read first. Masking twice restores the bytes.
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

/// The payload of the first of the server's frames, which must be text, and the bytes behind that frame (RFC 6455 §5.2). For
/// tests: it does not share code with what they test.
#[cfg(any(test, fuzzing))]
pub fn split_text(bytes: &[u8]) -> (&str, &[u8]) {
    assert_eq!(bytes[0], 0x81, "not a text frame");
    let (len, header) = match bytes[1] {
        126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        127 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize, 10),
        len => (usize::from(len), 2),
    };
    let (frame, rest) = bytes.split_at(header + len);
    (std::str::from_utf8(&frame[header..]).unwrap(), rest)
}

/// Longest payload of a control frame, RFC 6455 §5.5.
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// First byte: the last fragment of a message.
pub(super) const FIN: u8 = 0x80;
/// First byte: bits for extensions; none is ever negotiated.
pub(super) const RESERVED: u8 = 0x70;
/// Second byte: the payload is masked.
pub(super) const MASKED: u8 = 0x80;
/// Second byte, in place of a length: two bytes of length follow.
pub(super) const LEN_16_BITS: u8 = 126;
/// Second byte, in place of a length: eight bytes of length follow.
pub(super) const LEN_64_BITS: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_the_shortest_form_and_frame_len_reads_them_back() {
        #[track_caller]
        fn check(payload_len: usize, expected: &[u8]) {
            let mut out = Vec::new();
            encode_header(&mut out, Opcode::Text, payload_len);
            assert_eq!(out, expected);
            assert_eq!(frame_len(&out), Some(out.len() + payload_len));
            for cut in 0..out.len() {
                assert_eq!(frame_len(&out[..cut]), None, "cut at {cut}");
            }
        }
        check(0, &[0x81, 0]);
        check(125, &[0x81, 125]);
        check(126, &[0x81, 126, 0, 126]);
        check(65_535, &[0x81, 126, 0xFF, 0xFF]);
        check(65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(frame_len(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]), Some(usize::MAX));
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        #[track_caller]
        fn check(reason: &str, expected: &str) {
            let mut out = Vec::new();
            encode_close(&mut out, 1012, reason);
            assert_eq!(out[..2], [0x88, 2 + expected.len() as u8]);
            assert_eq!(out[2..4], 1012u16.to_be_bytes());
            assert_eq!(&out[4..], expected.as_bytes());
        }
        check("", "");
        check("going down", "going down");
        check(&"x".repeat(124), &"x".repeat(123));
        check(&"语".repeat(60), &"语".repeat(41));
        check(&format!("x{}", "语".repeat(60)), &format!("x{}", "语".repeat(40)));
    }

    #[test]
    fn opcodes_are_read_back() {
        for opcode in [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong] {
            assert_eq!(Opcode::of(FIN | opcode as u8), Some(opcode));
            assert_eq!(opcode.is_control(), opcode as u8 >= 8);
        }
        assert_eq!(Opcode::of(0x3), None);
        assert_eq!(Opcode::of(0xB), None);
    }

    #[test]
    fn unmasking_is_right_at_every_length_and_phase() {
        let mask = [0x9A, 0x00, 0xFF, 0x31];
        for len in 0..40usize {
            let plain: Vec<u8> = (0..len as u8).collect();
            let mut expected: Vec<u8> = plain.clone();
            for (index, byte) in expected.iter_mut().enumerate() {
                *byte ^= mask[index % 4];
            }
            let mut masked = plain;
            unmask(&mut masked, mask);
            assert_eq!(masked, expected);
        }
    }
}
