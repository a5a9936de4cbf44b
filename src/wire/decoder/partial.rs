//! The state of a frame or message that has arrived only in part.

use super::header::{HEADER_BYTES_MAX, Header};
use super::message::Violation;
use crate::wire::frame::Opcode;

/// An incomplete frame or message.
#[derive(Debug, Default)]
pub struct Partial {
    pub stage: Stage,
    /// The data message that is arriving, in one frame or in fragments.
    pub message: Option<Assembly>,
    /// Payload of the control frame that is arriving; it may come between the fragments of `message`.
    pub control: Vec<u8>,
}

#[derive(Debug)]
pub enum Stage {
    /// Waiting for the rest of a header; `bytes[..have]` have arrived.
    Header { bytes: [u8; HEADER_BYTES_MAX], have: u8 },
    /// Waiting for the rest of a payload.
    Payload(Payload),
    /// A message is lent to the caller; the next call frees it.
    Yielded(Opcode),
    /// After a close or a violation.
    Finished,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Header { bytes: [0; HEADER_BYTES_MAX], have: 0 }
    }
}

/// A frame's payload with bytes missing.
#[derive(Debug)]
pub struct Payload {
    pub opcode: Opcode,
    fin: bool,
    /// The mask, rotated to the next missing byte.
    pub mask: [u8; 4],
    pub missing: usize,
}

impl Partial {
    pub fn expect_payload(&mut self, header: Header) {
        if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(Assembly { opcode: header.opcode, bytes: Vec::new(), utf8_len: 0 });
        }
        let Header { opcode, fin, mask, payload_len, .. } = header;
        self.stage = Stage::Payload(Payload { opcode, fin, mask, missing: payload_len });
    }

    /// Takes unmasked payload. Returns the opcode of the message that it completes, if any; [`Partial::kept`] is its payload.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<Option<Opcode>, Violation> {
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
    pub fn kept(&self, opcode: Opcode) -> &[u8] {
        if opcode.is_control() { &self.control } else { self.message.as_ref().map_or(&[], |message| &message.bytes) }
    }

    pub fn buffer_bytes(&self) -> usize {
        self.control.capacity() + self.message.as_ref().map_or(0, |message| message.bytes.capacity())
    }
}

/// A data message that is arriving. The buffer grows with the bytes that arrive, not with the length that a header
/// claims.
#[derive(Debug)]
pub struct Assembly {
    /// Text or binary.
    opcode: Opcode,
    pub bytes: Vec<u8>,
    /// Length of the part of a text that is known to be valid UTF-8: all of it except an incomplete last character.
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
