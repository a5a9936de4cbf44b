//! A subscriber of a conflated channel that reads when it is told to, and keeps the last message of each key.

use std::io;
use std::net::TcpStream;

use super::frame_reader::FrameReader;
use crate::stamp;

/// Number n of the publishes has the key n modulo the number of keys.
pub struct KeyedReader {
    /// The socket.
    pub socket: FrameReader,
    stamps: stamp::Reader,
    /// By key: the number of its last message.
    last: Vec<Option<u32>>,
    newest: Option<u32>,
    /// Messages so far.
    pub received: u64,
    /// Messages that arrived after a later one, or twice.
    pub out_of_order: u64,
}

impl KeyedReader {
    /// A reader that is subscribed and has received no message.
    pub fn new(stream: TcpStream, keys: u32) -> io::Result<KeyedReader> {
        Ok(KeyedReader {
            socket: FrameReader::new(stream)?,
            stamps: stamp::Reader::default(),
            last: vec![None; keys as usize],
            newest: None,
            received: 0,
            out_of_order: 0,
        })
    }

    /// Reads at most `limit` bytes, without waiting. Returns how many.
    pub fn read(&mut self, limit: usize) -> io::Result<usize> {
        self.socket.read(limit, |frame| {
            let Some((number, _)) = self.stamps.read(frame.payload) else { return };
            let key = number as usize % self.last.len();
            self.last[key] = self.last[key].max(Some(number));
            self.out_of_order += u64::from(self.newest >= Some(number));
            self.newest = self.newest.max(Some(number));
            self.received += 1;
        })
    }

    /// Keys whose last value is missing, of so many publishes.
    pub fn missing(&self, published: u32) -> usize {
        let keys = self.last.len() as u32;
        let expected = |key: u32| published.checked_sub(key + 1).map(|behind| published - 1 - behind % keys);
        (0..keys).filter(|&key| self.last[key as usize] != expected(key)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn the_last_value_of_each_key_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut reader = KeyedReader::new(stream, 3).unwrap();
        let mut send = |reader: &mut KeyedReader, numbers: &[u32]| {
            for &number in numbers {
                let (mut payload, mut frame) = (Vec::new(), Vec::new());
                stamp::push_payload(&mut payload, number, 0, 64);
                wire::push_unmasked(&mut frame, wire::TEXT, &payload);
                let target = reader.socket.bytes + frame.len() as u64;
                server.write_all(&frame).unwrap();
                while reader.socket.bytes < target {
                    // Some bytes at a time, so that frames are cut.
                    reader.read(7).unwrap();
                }
            }
        };
        assert_eq!([0, 1, 2, 5].map(|published| reader.missing(published)), [0, 1, 2, 3]);
        send(&mut reader, &[0, 1, 2]);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|published| reader.missing(published)), [3, 2, 1, 0, 1, 2, 3]);
        // Of 0 to 9, message 9 is the last of key 0, 7 that of key 1 and 8 that of key 2.
        send(&mut reader, &[4, 7, 8, 9]);
        assert_eq!(
            (reader.missing(10), reader.received, reader.out_of_order, reader.socket.is_closed),
            (0, 7, 0, false)
        );
        send(&mut reader, &[9, 5]);
        assert_eq!((reader.missing(10), reader.out_of_order), (0, 2));
        drop(server);
        while !reader.socket.is_closed {
            reader.read(7).unwrap();
        }
    }
}
