//! A client's frames: the decoder gives the same result as a simple reader of the whole stream, for any division of the stream
//! into inputs, and holds no more memory than has arrived.

use corecast::wire::decoder::{Decoder, Message, Violation};

/// The first byte selects the limit and the division; the rest is the stream. Panics where two results differ.
pub fn check(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else { return };
    let limit = [1 << 20, 1000, 130, 128][usize::from(choice & 3)];
    let expected = plainly(stream, limit);
    assert_eq!(decode([stream], limit), expected, "whole");
    assert_eq!(decode(stream.chunks(1), limit), expected, "byte by byte");
    let stride = usize::from(choice >> 2) + 2;
    assert_eq!(decode(stream.chunks(stride), limit), expected, "{stride} at a time");
    let (head, tail) = stream.split_at(stream.len().min(stride));
    assert_eq!(decode([head, tail], limit), expected, "cut at {stride}");
}

/// The result of a stream.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    messages: Vec<(u8, Vec<u8>)>,
    violation: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Protocol,
    InvalidUtf8,
    TooBig,
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Outcome {
    let mut decoder = Decoder::default();
    let mut outcome = Outcome::default();
    let mut arrived = 0;
    for piece in pieces {
        let mut piece = piece.to_vec();
        arrived += piece.len();
        let mut at = 0;
        loop {
            match decoder.next(&mut piece, &mut at, limit, &mut 0) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    assert_eq!(outcome.violation, None, "a message after a violation");
                    outcome.messages.push(match message {
                        Message::Text(text) => (TEXT, text.as_bytes().to_vec()),
                        Message::Binary(bytes) => (BINARY, bytes.to_vec()),
                        Message::Ping(bytes) => (PING, bytes.to_vec()),
                        Message::Pong(bytes) => (PONG, bytes.to_vec()),
                        Message::Close(None) => (CLOSE, Vec::new()),
                        Message::Close(Some((code, reason))) => {
                            (CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
                        }
                    });
                }
                Err(violation) => {
                    let kind = match violation {
                        Violation::Protocol(_) => Kind::Protocol,
                        Violation::InvalidUtf8 => Kind::InvalidUtf8,
                        Violation::TooBig => Kind::TooBig,
                    };
                    assert_eq!(outcome.violation.replace(kind), None, "two violations");
                }
            }
        }
        assert_eq!(at, piece.len(), "input is left");
        // A vector doubles as it grows.
        assert!(decoder.held_bytes() <= 256 + 2 * arrived.min(limit + 256), "{} bytes held", decoder.held_bytes());
    }
    outcome
}

/// RFC 6455 §5, read from the whole stream at once.
fn plainly(stream: &[u8], limit: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut rest = stream;
    // The message that has begun: its opcode and the payload that has arrived.
    let mut begun: Option<(u8, Vec<u8>)> = None;
    outcome.violation = loop {
        let header = match header(rest, begun.as_ref().map(|(_, bytes)| bytes.len()), limit) {
            Ok(Some(header)) => header,
            Ok(None) => break None,
            Err(fault) => break Some(fault),
        };
        let Header { fin, opcode, len, mask } = header;
        let all = &rest[header.bytes()..];
        let came = &all[..all.len().min(len as usize)];
        let is_whole = came.len() as u64 == len;
        let payload: Vec<u8> = came.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        rest = &all[came.len()..];
        if opcode & 8 != 0 {
            if !is_whole {
                break None;
            }
            if opcode == CLOSE {
                match close_fault(&payload) {
                    None => outcome.messages.push((CLOSE, payload)),
                    fault => break fault,
                }
                break None;
            }
            outcome.messages.push((opcode, payload));
            continue;
        }
        let (kind, bytes) = begun.get_or_insert((opcode, Vec::new()));
        bytes.extend(payload);
        let is_end = is_whole && fin;
        let fault = std::str::from_utf8(bytes).err().filter(|error| is_end || error.error_len().is_some());
        if *kind == TEXT && fault.is_some() {
            break Some(Kind::InvalidUtf8);
        }
        if !is_whole {
            break None;
        }
        if is_end {
            outcome.messages.extend(begun.take());
        }
    };
    outcome
}

struct Header {
    fin: bool,
    opcode: u8,
    len: u64,
    mask: [u8; 4],
}

impl Header {
    /// Bytes of the header itself: lengths are in their shortest form.
    fn bytes(&self) -> usize {
        match self.len {
            0..126 => 6,
            126..0x1_0000 => 8,
            _ => 14,
        }
    }
}

/// The header at the start of `rest`; `None`: it is incomplete. `begun`: bytes of the message that has begun.
fn header(rest: &[u8], begun: Option<usize>, limit: usize) -> Result<Option<Header>, Kind> {
    let Some(&first) = rest.first() else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
    let is_control = opcode & 8 != 0;
    let is_legal = first & 0x70 == 0
        && match opcode {
            0 => begun.is_some(),
            TEXT | BINARY => begun.is_none(),
            CLOSE | PING | PONG => fin,
            _ => false,
        };
    if !is_legal {
        return Err(Kind::Protocol);
    }
    let Some(&second) = rest.get(1) else { return Ok(None) };
    if second & 0x80 == 0 || is_control && second & 0x7F > 125 {
        return Err(Kind::Protocol);
    }
    let (width, least) = match second & 0x7F {
        126 => (2, 126),
        127 => (8, 1 << 16),
        _ => (0, 0),
    };
    let Some(extended) = rest.get(2..2 + width) else { return Ok(None) };
    let extended = extended.iter().fold(0, |len, &byte| len << 8 | u64::from(byte));
    let len = if width == 0 { u64::from(second & 0x7F) } else { extended };
    if len < least || len >> 63 != 0 {
        return Err(Kind::Protocol);
    }
    if !is_control && len > (limit - begun.unwrap_or(0)) as u64 {
        return Err(Kind::TooBig);
    }
    let mask = rest.get(2 + width..).and_then(|rest| rest.first_chunk().copied());
    Ok(mask.map(|mask| Header { fin, opcode, len, mask }))
}

fn close_fault(payload: &[u8]) -> Option<Kind> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return (!payload.is_empty()).then_some(Kind::Protocol);
    };
    match u16::from_be_bytes(*code) {
        1000..=1003 | 1007..=1014 | 3000..=4999 => std::str::from_utf8(reason).err().map(|_| Kind::InvalidUtf8),
        _ => Some(Kind::Protocol),
    }
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
