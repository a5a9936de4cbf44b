//! The stream of events: an admin session that is asked once and then only read.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use tokio::io::AsyncReadExt;

/// One session.
pub struct Stream {
    socket: tokio::net::UnixStream,
    /// What came and is not yet a whole line.
    input: Vec<u8>,
}

impl Stream {
    /// Sends the request, which is small and the first thing on its socket. Called on the runtime.
    pub fn open(socket: UnixStream, request: &str) -> io::Result<Stream> {
        (&socket).write_all(format!("{request}\n").as_bytes())?;
        socket.set_nonblocking(true)?;
        Ok(Stream { socket: tokio::net::UnixStream::from_std(socket)?, input: Vec::new() })
    }

    /// Reads what there is; 0: the end. Whoever stops waiting has lost nothing.
    pub async fn read(&mut self) -> io::Result<usize> {
        if self.input.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "a line is too long"));
        }
        self.input.reserve(READ_BYTES);
        self.socket.read_buf(&mut self.input).await
    }

    /// Hands over the lines that are whole, until one is not liked.
    pub fn lines<E>(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut start = 0;
        while let Some(len) = memchr::memchr(b'\n', &self.input[start..]) {
            each(&self.input[start..start + len])?;
            start += len + 1;
        }
        self.input.drain(..start);
        Ok(())
    }
}

/// Bytes of a line: names of channels are bounded, and so are the rest.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// What is read at once.
const READ_BYTES: usize = 64 * 1024;
