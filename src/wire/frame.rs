//! RFC 6455 frames on a borrowed buffer.

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

/// What a client sent, whole, unmasked and validated.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message, reassembled; valid UTF-8.
    Text(&'a str),
    /// A binary message, reassembled.
    Binary(&'a [u8]),
    /// A ping; to be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer closes; `None`: it gave no code. After it nothing more is decoded.
    Close(Option<(u16, &'a str)>),
}

/// Why a connection must be failed, RFC 6455 §7.1.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// 1002, with what was wrong.
    Protocol(&'static str),
    /// 1007.
    InvalidUtf8,
    /// 1009.
    TooBig,
}

/// Inbound state of one connection; one pointer while no frame or message is half arrived.
#[derive(Default)]
pub struct Decoder {}

impl Decoder {
    /// Takes the next message from `input[*at..]`, advancing `at`. `Ok(None)`: all input was consumed (`*at == input.len()`)
    /// and no further message is complete; what was half arrived is kept inside.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Message<'a>>, Violation> {
        let _ = (input, at, message_bytes_max);
        Ok(None)
    }
    /// Bytes of heap memory held for what is half arrived.
    pub fn held_bytes(&self) -> usize {
        0
    }
}

/// Appends the header of an unmasked, final frame.
pub fn encode_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    let _ = (out, opcode, payload_len);
}

/// Appends a whole close frame; `reason` is cut to 123 bytes at a character boundary.
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let _ = (out, code, reason);
}

/// Length, header included, of the unmasked frame at the start of `bytes`, or `None` if the header is not whole.
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let _ = bytes;
    None
}
