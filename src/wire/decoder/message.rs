//! Messages of clients, and violations of the protocol.

use crate::wire::frame::Opcode;

/// A client's message: complete, unmasked and validated.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message, reassembled; valid UTF-8.
    Text(&'a str),
    /// A binary message, reassembled.
    Binary(&'a [u8]),
    /// A ping, which must be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer closes, with a code and a reason; `None`: without a code. Nothing is decoded afterwards.
    Close(Option<(u16, &'a str)>),
}

/// Why a connection must be failed, RFC 6455 §7.1.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// 1002, with the fault.
    Protocol(&'static str),
    /// 1007.
    InvalidUtf8,
    /// 1009.
    TooBig,
}

impl<'a> Message<'a> {
    /// The message with an unmasked payload. `opcode` is that of the whole message, so it is not a continuation.
    #[inline]
    pub(super) fn of(opcode: Opcode, payload: &'a [u8]) -> Result<Message<'a>, Violation> {
        Ok(match opcode {
            Opcode::Text => Message::Text(str::from_utf8(payload).map_err(|_| Violation::InvalidUtf8)?),
            Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
            Opcode::Ping => Message::Ping(payload),
            Opcode::Pong => Message::Pong(payload),
            Opcode::Close => Message::Close(close(payload)?),
        })
    }
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
    // IANA registers 1012 to 1014; 1004 to 1006 and 1015 are never sent; libraries and applications may use 3000 to 4999.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("close code that must not be sent"));
    }
    let reason = str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
    Ok(Some((code, reason)))
}
