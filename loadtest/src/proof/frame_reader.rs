//! A client's socket that is read when the proof says so, and never waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::wire::{self, Frame};

/// A connection after its upgrade.
pub struct FrameReader {
    stream: TcpStream,
    /// The beginning of a frame whose rest was not read.
    rest: Vec<u8>,
    /// Bytes read so far.
    pub bytes: u64,
    /// The server closed the connection.
    pub is_closed: bool,
}

impl FrameReader {
    /// Nothing of a frame may have been read yet.
    pub fn new(stream: TcpStream) -> io::Result<FrameReader> {
        stream.set_nonblocking(true)?;
        Ok(FrameReader { stream, rest: Vec::new(), bytes: 0, is_closed: false })
    }

    /// Lets the kernel receive more at once.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(bytes)
    }

    /// Bytes that wait in the receive buffer.
    pub fn waiting(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.stream)?)
    }

    /// Reads at most `limit` bytes, and hands over each frame that is complete. Returns how many bytes.
    pub fn read(&mut self, limit: usize, mut take: impl FnMut(&Frame<'_>)) -> io::Result<usize> {
        let start = self.rest.len();
        self.rest.resize(start + limit, 0);
        let result = self.stream.read(&mut self.rest[start..]);
        let is_end = limit > 0 && matches!(result, Ok(0));
        let result = self.moved(result);
        self.rest.truncate(start + *result.as_ref().unwrap_or(&0));
        let got = result?;
        self.is_closed |= is_end;
        self.bytes += got as u64;
        let mut at = 0;
        while let Some(frame) = wire::next_frame(&self.rest[at..]) {
            at += frame.len;
            self.is_closed |= frame.opcode == wire::CLOSE;
            take(&frame);
        }
        self.rest.drain(..at);
        Ok(got)
    }

    /// Writes what the kernel takes. Returns how many bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.stream.write(bytes);
        self.moved(result)
    }

    /// Bytes that were moved: none if the call would have waited, or if the server has closed the connection.
    fn moved(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        match result.as_ref().map_err(io::Error::kind) {
            Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                self.is_closed = true;
                Ok(0)
            }
            _ => result,
        }
    }
}
