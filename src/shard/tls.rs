//! One TLS session: ciphertext on its socket, plain bytes for the rest of the shard.
//!
//! rustls is used through its unbuffered API, which borrows the shard's buffers for the time of a call. An idle session holds
//! its keys and no buffer, and no decrypted bytes are left inside. What remains between turns is a record that has partly
//! arrived, and ciphertext that the kernel did not take.

use crate::hub::audience::pages::Pages;
use crate::shard::output::outbox::{Outbox, Written};
use mio::net::TcpStream;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{HandshakeKind, ServerConfig};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

/// The server's end of a session; behind a pointer that is null for a plain connection.
pub struct Session {
    tls: UnbufferedServerConnection,
    /// The record that has partly arrived, and in a handshake the message; at most [`INCOMING_BYTES_MAX`].
    incoming: Vec<u8>,
    /// Ciphertext that waits for room in the socket: a handshake's flight, or at most [`SCRATCH_BYTES`] of records.
    outgoing: Vec<u8>,
    /// The session failed: only `outgoing` is still sent.
    has_failed: bool,
    /// Input is discarded: the session failed, or one side has said that it sends no more.
    discards_input: bool,
    has_sent_close_notify: bool,
}

/// The result of a read.
pub struct Arrival {
    /// Bytes of ciphertext; none: the peer's end of the stream.
    pub bytes: usize,
    /// The buffer was filled: there may be more.
    pub is_full: bool,
    /// What the session made of it.
    pub progress: Progress,
}

/// The state of a session.
#[derive(Debug)]
pub enum Progress {
    /// The handshake goes on, or is complete and both sides may send.
    Going,
    /// The peer says that it sends no more.
    Ended,
    /// The peer broke the protocol, or supports no version that the server supports.
    Failed(String),
}

impl Session {
    /// A session whose client has sent nothing yet.
    ///
    /// # Errors
    /// None with a configuration that could be loaded.
    pub fn new(config: &Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        let tls = UnbufferedServerConnection::new(config.clone())?;
        Ok(Session {
            tls,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            has_failed: false,
            discards_input: false,
            has_sent_close_notify: false,
        })
    }

    /// Whether the handshake is under way.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking() && !self.has_failed
    }

    /// Whether the handshake is over and both sides may send.
    pub fn is_established(&self) -> bool {
        !self.tls.is_handshaking() && !self.has_failed
    }

    /// Whether the handshake resumed an earlier session, which spares both sides the expensive part.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Bytes of ciphertext that wait for room in the socket.
    pub fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// One read from the socket. What it decrypts to is appended to `plain`: never more than `buffer` holds.
    ///
    /// # Errors
    /// Those of the socket. A peer that breaks the protocol is not an error but [`Progress::Failed`].
    pub fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8], plain: &mut Vec<u8>) -> io::Result<Arrival> {
        let held = self.incoming.len();
        let bytes = socket.read(&mut buffer[held..])?;
        let is_full = held + bytes == buffer.len();
        if bytes == 0 || self.discards_input {
            return Ok(Arrival { bytes, is_full, progress: Progress::Going });
        }
        buffer[..held].copy_from_slice(&self.incoming);
        let progress = self.process(&mut buffer[..held + bytes], plain);
        self.has_failed = matches!(progress, Progress::Failed(_));
        self.discards_input = !matches!(progress, Progress::Going);
        Ok(Arrival { bytes, is_full, progress })
    }

    /// Takes records while they are whole, and keeps the rest.
    fn process(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Progress {
        let mut at = 0;
        let state = loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut bytes[at..]);
            let done = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            plain.extend_from_slice(record.payload);
                            discard += record.discard;
                        }
                        Some(Err(error)) => break Some(Progress::Failed(error.to_string())),
                        None => break None,
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, &mut self.outgoing);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Some(Progress::Going),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(Progress::Ended),
                Ok(_) => Some(Progress::Failed("early data, which is not offered".into())),
                Err(error) => Some(Progress::Failed(error.to_string())),
            };
            at += discard;
            if let Some(state) = done {
                break state;
            }
        };
        let rest = &bytes[at..];
        let state = match state {
            Progress::Going if rest.len() > INCOMING_BYTES_MAX => {
                Progress::Failed(format!("a handshake message over {INCOMING_BYTES_MAX} bytes"))
            }
            state => state,
        };
        match state {
            Progress::Going if !rest.is_empty() => {
                self.incoming.clear();
                self.incoming.extend_from_slice(rest);
            }
            _ => self.incoming = Vec::new(),
        }
        if let Progress::Failed(_) = state {
            self.take_alert();
        }
        state
    }

    /// The alert that says why it failed, if rustls has one to send.
    fn take_alert(&mut self) {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.outgoing),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                _ => break,
            }
        }
    }

    /// Writes what waits, and encrypts what waits in the outbox, until the kernel takes no more. Returns that, the plain
    /// bytes taken from the outbox and the system calls made.
    ///
    /// # Errors
    /// Those of the socket, and a session that can send no more.
    pub fn write(
        &mut self,
        socket: &mut TcpStream,
        outbox: &mut Outbox,
        pages: &mut Pages,
        scratch: &mut [u8],
    ) -> io::Result<(Written, usize, usize)> {
        let mut calls = 0;
        if !self.flush(socket, &mut calls)? {
            return Ok((Written::Blocked, 0, calls));
        }
        if outbox.is_empty() {
            return Ok((Written::All, 0, calls));
        }
        let Session { tls, incoming, outgoing, .. } = self;
        let Ok(ConnectionState::WriteTraffic(traffic)) = tls.process_tls_records(incoming).state else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut records = Records { traffic, scratch, filled: 0, outgoing, socket, calls };
        let (written, taken, _) = outbox.write(pages, &mut records)?;
        calls = records.calls;
        let written = if self.outgoing.is_empty() { written } else { Written::Blocked };
        Ok((written, taken, calls))
    }

    /// Sends close_notify, once: nothing more is sent. After that, input is discarded, because rustls must not be made to send
    /// an alert. Returns whether all of it was written; if not, the poll reports when the socket has room.
    pub fn send_close_notify(&mut self, socket: &mut TcpStream) -> bool {
        if !std::mem::replace(&mut self.has_sent_close_notify, true)
            && !self.has_failed
            && let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                self.tls.process_tls_records(&mut self.incoming).state
        {
            let mut alert = [0; 64];
            let len = traffic.queue_close_notify(&mut alert).unwrap_or(0);
            self.outgoing.extend_from_slice(&alert[..len]);
            self.discards_input = true;
        }
        // A socket that is broken has nothing to wait for.
        self.flush(socket, &mut 0).unwrap_or(true)
    }

    /// Returns whether nothing waits any more.
    fn flush(&mut self, socket: &mut TcpStream, calls: &mut usize) -> io::Result<bool> {
        if self.outgoing.is_empty() {
            return Ok(true);
        }
        let sent = send(socket, &self.outgoing, calls)?;
        if sent == self.outgoing.len() {
            self.outgoing = Vec::new();
            return Ok(true);
        }
        self.outgoing.drain(..sent);
        Ok(false)
    }
}

/// Makes records of the bytes that it is given and sends them each time the scratch buffer is full, so that at most one such
/// buffer waits when the kernel takes no more.
struct Records<'a> {
    traffic: WriteTraffic<'a, ServerConnectionData>,
    scratch: &'a mut [u8],
    filled: usize,
    outgoing: &'a mut Vec<u8>,
    socket: &'a mut TcpStream,
    calls: usize,
}

impl Records<'_> {
    fn encrypt(&mut self, piece: &[u8]) -> io::Result<()> {
        match self.traffic.encrypt(piece, &mut self.scratch[self.filled..]) {
            Ok(len) => {
                self.filled += len;
                Ok(())
            }
            // TLS 1.2 after 2^24 records and more; 1.3 changes its keys.
            Err(EncryptError::EncryptExhausted) => {
                Err(io::Error::other("the session's keys have reached their limit of records"))
            }
            Err(EncryptError::InsufficientSize(error)) => Err(io::Error::other(format!("a record of {error:?}"))),
        }
    }

    /// Returns whether the kernel took all.
    fn send(&mut self) -> io::Result<bool> {
        let filled = std::mem::take(&mut self.filled);
        let sent = send(self.socket, &self.scratch[..filled], &mut self.calls)?;
        self.outgoing.extend_from_slice(&self.scratch[sent..filled]);
        Ok(sent == filled)
    }
}

impl Write for Records<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// Takes all, or as much as the kernel has room for and a scratch buffer more.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.outgoing.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for piece in slices.iter().flat_map(|slice| slice.chunks(RECORD_BYTES_MAX)) {
            if self.scratch.len() - self.filled < piece.len() + RECORD_OVERHEAD_MAX && !self.send()? {
                return Ok(taken);
            }
            self.encrypt(piece)?;
            taken += piece.len();
        }
        self.send()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until all is taken or the kernel has no room. Returns how much it took.
fn send(socket: &mut TcpStream, bytes: &[u8], calls: &mut usize) -> io::Result<usize> {
    loop {
        *calls += 1;
        match socket.write(bytes) {
            // A short write: the kernel has no room, and the socket will report when it has.
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(sent) => return Ok(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    let at = out.len();
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        out.resize(at + needed.required_size, 0);
        let len = data.encode(&mut out[at..]).unwrap_or(0);
        out.truncate(at + len);
    }
}

/// Plain bytes of one record (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What a record adds to them: 22 to 29 bytes, and once in a while a change of keys before it.
const RECORD_OVERHEAD_MAX: usize = 256;
/// The buffer in which a shard encrypts: one full record.
pub const SCRATCH_BYTES: usize = RECORD_BYTES_MAX + RECORD_OVERHEAD_MAX;
/// What an idle session holds: its keys, and no buffer. Measured: 3 570 to 3 598 bytes.
pub const SESSION_BYTES: usize = 3600;
/// A record at its longest (RFC 5246 §6.2.3), so that no record is refused, and no client hello that fits in one.
pub const INCOMING_BYTES_MAX: usize = 5 + RECORD_BYTES_MAX + 2048;
