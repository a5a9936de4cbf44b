//! WebSocket bytes on the client's side: the upgrade, unmasked frames in, masked frames out (RFC 6455 §4, §5). Pure.

/// Opcode of a text message.
pub const TEXT: u8 = 1;
/// Opcode of a binary message.
pub const BINARY: u8 = 2;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a WebSocket-level ping.
pub const PING: u8 = 9;
/// Opcode of a WebSocket-level pong.
pub const PONG: u8 = 10;

/// One frame at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The opcode.
    pub opcode: u8,
    /// The payload. Masked payloads stay masked: only the floor peer reads them, and it unmasks what it needs.
    pub payload: &'a [u8],
    /// The mask key, on frames from clients.
    pub mask: Option<[u8; 4]>,
    /// Bytes of header and payload together: where the next frame starts.
    pub len: usize,
}

/// The frame at the beginning of `bytes`, or `None` while it is incomplete.
#[inline]
pub fn next_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (size, mut head) = match second & 0x7f {
        126 => (u16::from_be_bytes(*rest.first_chunk()?) as usize, 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
        size => (size as usize, 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(*bytes.get(head..)?.first_chunk()?);
        head += 4;
    }
    let len = head.checked_add(size)?;
    Some(Frame { opcode: first & 0x0f, payload: bytes.get(head..len)?, mask, len })
}

/// Appends a frame as a client sends it: masked with a random key, so that the server has to unmask it.
pub fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    let mask = fastrand::u32(..).to_ne_bytes();
    push_header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Appends a frame as a server sends it.
pub fn push_unmasked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

fn push_header(out: &mut Vec<u8>, opcode: u8, len: usize, masked: u8) {
    out.push(0x80 | opcode);
    match len {
        0..=125 => out.push(masked | len as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// The request that opens a WebSocket. Every connection uses the key of RFC 6455 §1.3: the
/// server's work does not depend on it, and the answer is known.
pub fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {SAMPLE_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// The state of an upgrade.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// The response is incomplete.
    Partial,
    /// The connection is upgraded; the frames start at this offset.
    Done(usize),
    /// The upgrade was refused with this status line.
    Refused(String),
}

/// Reads the server's answer to [`upgrade_request`].
pub fn upgrade_response(bytes: &[u8]) -> Upgrade {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > 16_384 {
            Upgrade::Refused("the response head is longer than 16 KiB".into())
        } else {
            Upgrade::Partial
        };
    };
    let head = &bytes[..end];
    if head.starts_with(b"HTTP/1.1 101") && memchr::memmem::find(head, SAMPLE_ACCEPT.as_bytes()).is_some() {
        return Upgrade::Done(end + 4);
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    Upgrade::Refused(String::from_utf8_lossy(line).into_owned())
}

const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_whatever_the_cuts() {
        let payloads: Vec<Vec<u8>> =
            [0, 1, 125, 126, 127, 65_535, 65_536, 3].iter().map(|&len| vec![b'a'; len]).collect();
        let mut stream = Vec::new();
        for payload in &payloads {
            push_unmasked(&mut stream, TEXT, payload);
        }
        for cut in [1, 2, 3, 7, 100, 4096, 70_000, stream.len()] {
            let (mut pending, mut seen) = (Vec::new(), Vec::new());
            for piece in stream.chunks(cut) {
                pending.extend_from_slice(piece);
                let mut at = 0;
                while let Some(frame) = next_frame(&pending[at..]) {
                    seen.push(frame.payload.to_vec());
                    at += frame.len;
                }
                pending.drain(..at);
            }
            assert_eq!(seen, payloads, "cut every {cut} bytes");
            assert!(pending.is_empty());
        }
    }

    #[test]
    fn masked_frames_unmask_to_what_was_sent() {
        let mut out = Vec::new();
        push_masked(&mut out, BINARY, b"hello, server");
        let frame = next_frame(&out).unwrap();
        let mask = frame.mask.unwrap();
        let plain: Vec<u8> = frame.payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k).collect();
        assert_eq!((frame.opcode, frame.len), (BINARY, out.len()));
        assert_eq!(plain, b"hello, server");
    }

    #[test]
    fn a_length_beyond_memory_is_never_complete() {
        let mut bytes = vec![0x81, 127];
        bytes.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(next_frame(&bytes), None);
    }

    #[test]
    fn upgrades_are_judged() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {SAMPLE_ACCEPT}\r\n\r\nrest");
        assert_eq!(upgrade_response(good.as_bytes()), Upgrade::Done(good.len() - 4));
        assert_eq!(upgrade_response(&good.as_bytes()[..40]), Upgrade::Partial);
        let refused = upgrade_response(b"HTTP/1.1 503 Busy\r\n\r\n");
        assert_eq!(refused, Upgrade::Refused("HTTP/1.1 503 Busy".into()));
        assert_eq!(tungstenite::handshake::derive_accept_key(SAMPLE_KEY.as_bytes()), SAMPLE_ACCEPT);
    }
}
