//! The inbound half of RFC 6455: converts bytes, as they arrive, to messages.
//!
//! A message that is complete in the input, in one frame, is unmasked in place and lent to the caller: no copy, no
//! allocation. Everything else (an incomplete header or payload, the fragments of a message) is kept in a `Partial`,
//! which exists only while something is incomplete.

mod header;
mod message;
mod partial;
#[cfg(test)]
mod tests;

pub use message::{Message, Violation};

use super::frame::{Opcode, unmask};
use header::{HEADER_BYTES_MAX, Header};
use partial::{Partial, Stage};
use std::ops::Range;

/// Inbound state of one connection; one pointer while no frame or message is incomplete.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

impl Decoder {
    /// Takes the next message from `input[*at..]`, advancing `at`. `Ok(None)`: all input was consumed (`*at == input.len()`)
    /// and no further message is complete; an incomplete one is kept inside.
    ///
    /// Call until it returns `Ok(None)`: only then is the memory of an assembled message freed. All input after a close
    /// or a violation is discarded.
    ///
    /// A message over `message_bytes_max`, the sum of its fragments, is refused when a header shows its length. The
    /// division of the stream into inputs does not change the result: faults are found in the order of the bytes.
    ///
    /// Adds to `frames` the number of data frames that have become whole: each fragment of a message as it arrives, and no
    /// control frame.
    #[inline]
    pub fn next<'a>(
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
            Whole::Lent(opcode, range) => match Message::of(opcode, &input[range]) {
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
            // The text was checked as it arrived. A close may still be illegal, but its stage is `Finished` already.
            Whole::Kept(opcode) => match self.partial.as_deref() {
                Some(partial) => Message::of(opcode, partial.kept(opcode)).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Whether the next byte begins a message.
    #[inline]
    pub fn is_between_messages(&self) -> bool {
        self.partial.is_none()
    }

    /// Heap bytes for an incomplete message, without its payload. The payload grows by doubling, up to twice the limit.
    pub const PARTIAL_BYTES: usize = size_of::<Partial>();

    /// Heap bytes held for an incomplete message.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.buffer_bytes())
    }

    /// Finds the next whole message.
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

    /// Like `find`, for everything except a message in one whole frame.
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

    /// Discards all further input.
    #[cold]
    fn finish(&mut self) {
        self.partial = Some(Box::new(Partial { stage: Stage::Finished, ..Partial::default() }));
    }

    /// Frees the message that the last call lent from `Partial`.
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

/// The place of a whole message.
enum Whole {
    /// In the caller's input, unmasked.
    Lent(Opcode, Range<usize>),
    /// In `Partial`, until the next call.
    Kept(Opcode),
}
