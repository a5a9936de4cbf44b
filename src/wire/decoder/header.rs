//! The header of a client's frame.

use super::message::Violation;
use crate::wire::frame::{CONTROL_BYTES_MAX, FIN, LEN_16_BITS, LEN_64_BITS, MASKED, Opcode, RESERVED};

/// A frame's header, RFC 6455 §5.2.
pub struct Header {
    pub opcode: Opcode,
    pub fin: bool,
    pub mask: [u8; 4],
    pub payload_len: usize,
    /// Length of the header itself, in bytes.
    pub len: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None`: it is incomplete. `assembled`: the bytes so far of an unfinished
    /// fragmented message, if there is one. A fault is found as soon as its byte has arrived.
    #[inline]
    pub fn parse(
        bytes: &[u8],
        assembled: Option<usize>,
        message_bytes_max: usize,
    ) -> Result<Option<Header>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (opcode, fin) = kind(first, assembled.is_some())?;
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
        check_length(short_len, payload_len)?;
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

    /// Whether the frame is a complete message by itself.
    #[inline]
    pub fn is_message(&self) -> bool {
        self.fin && self.opcode != Opcode::Continuation
    }
}

/// The first byte: opcode, and whether the frame is the last of its message.
#[inline]
fn kind(first: u8, is_in_message: bool) -> Result<(Opcode, bool), Violation> {
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
    } else if (opcode == Opcode::Continuation) != is_in_message {
        return Err(Violation::Protocol(match opcode {
            Opcode::Continuation => "continuation of no message",
            _ => "new message inside a fragmented one",
        }));
    }
    Ok((opcode, fin))
}

#[inline]
fn check_length(short_len: u8, payload_len: u64) -> Result<(), Violation> {
    let is_shortest = match short_len {
        LEN_16_BITS => payload_len >= u64::from(LEN_16_BITS),
        LEN_64_BITS => payload_len > u64::from(u16::MAX),
        _ => true,
    };
    if !is_shortest {
        return Err(Violation::Protocol("length is not in its shortest form"));
    }
    if payload_len >> 63 != 0 {
        return Err(Violation::Protocol("length over 63 bits"));
    }
    Ok(())
}

/// Two bytes, eight of length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;
