//! The publisher: pipelines publishes into one stream and counts the answers.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::stamp;
use crate::target::{BODY, Publish, Target};
use crate::template::{Fill, Template};
use crate::wire;

/// One stream of publishes.
pub struct Publisher {
    stream: Stream,
    kind: Kind,
    body: Template,
    data_bytes: usize,
    out: Vec<u8>,
    written: usize,
    scratch: (Vec<u8>, Vec<u8>, Vec<u8>),
    input: Vec<u8>,
    /// The end of the last read, where an answer's mark may have been cut.
    tail: Vec<u8>,
    /// Publishes answered.
    pub answered: u64,
    /// Publishes refused.
    pub refused: u64,
    /// The server hung up.
    pub is_closed: bool,
}

enum Stream {
    Unix(mio::net::UnixStream),
    Tcp(mio::net::TcpStream),
}

enum Kind {
    Lines(Template),
    WebSocket(Template),
    Http { path: Template, host: String },
}

impl Publisher {
    /// Connects, and says hello where the target wants that. `admin`: the Unix socket for targets that publish by lines
    /// there; without it lines go to `publish_to`, and everything else to the server's own address.
    pub fn connect(
        target: &Target,
        address: SocketAddr,
        publish_to: Option<SocketAddr>,
        admin: Option<&Path>,
        data_bytes: usize,
    ) -> anyhow::Result<Publisher> {
        let (stream, kind) = match &target.publish {
            Publish::Nowhere => bail!("the target {} has no way to publish", target.name),
            Publish::Lines { hello, template } => {
                let stream = match (admin, publish_to) {
                    (Some(path), _) => {
                        let stream = std::os::unix::net::UnixStream::connect(path)
                            .with_context(|| format!("cannot publish through {}", path.display()))?;
                        stream.set_nonblocking(true)?;
                        Stream::Unix(mio::net::UnixStream::from_std(stream))
                    }
                    (None, Some(address)) => Stream::Tcp(connect_tcp(address, hello.as_ref())?),
                    (None, None) => bail!("where to publish? give --admin-socket PATH or --publish-to ADDR:PORT"),
                };
                (stream, Kind::Lines(template.clone()))
            }
            Publish::WebSocket { template } => {
                let path = target.path_of(0);
                let request = String::from_utf8(wire::upgrade_request(&address.to_string(), &path))?;
                let stream = connect_tcp(address, Some(&(request, "\r\n\r\n".into())))?;
                (Stream::Tcp(stream), Kind::WebSocket(template.clone()))
            }
            Publish::Http { path } => {
                let stream = connect_tcp(publish_to.unwrap_or(address), None)?;
                (Stream::Tcp(stream), Kind::Http { path: path.clone(), host: address.to_string() })
            }
        };
        Ok(Publisher {
            stream,
            kind,
            body: BODY.into(),
            data_bytes,
            out: Vec::with_capacity(1 << 20),
            written: 0,
            scratch: Default::default(),
            input: vec![0; 64 * 1024],
            tail: Vec::new(),
            answered: 0,
            refused: 0,
            is_closed: false,
        })
    }

    /// Whether publishes are answered, so that the next one can wait for it.
    pub fn is_answered(&self) -> bool {
        !matches!(self.kind, Kind::WebSocket(_))
    }

    /// Registers the stream with an event loop.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match &mut self.stream {
            Stream::Unix(stream) => stream.register(registry, token, interest),
            Stream::Tcp(stream) => stream.register(registry, token, interest),
        }
    }

    /// Puts one publish in line; [`Publisher::flush`] sends what stands there.
    pub fn push(&mut self, sequence: u32, time_ns: u64, channel: u32) {
        let (data, body, text) = &mut self.scratch;
        data.clear();
        body.clear();
        text.clear();
        stamp::push_payload(data, sequence, time_ns, self.data_bytes);
        let fill = Fill { channel, data, number: u64::from(sequence), ..Fill::default() };
        self.body.push(body, fill);
        match &self.kind {
            Kind::Lines(template) => template.push(&mut self.out, Fill { body, ..fill }),
            Kind::WebSocket(template) => {
                template.push(text, Fill { body, ..fill });
                wire::push_masked(&mut self.out, wire::TEXT, text);
            }
            Kind::Http { path, host } => {
                self.out.extend_from_slice(b"POST ");
                path.push(&mut self.out, fill);
                let head = format!(" HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
                self.out.extend_from_slice(head.as_bytes());
                self.out.extend_from_slice(body);
            }
        }
    }

    /// Bytes in line that the server did not take yet.
    pub fn pending(&self) -> usize {
        self.out.len() - self.written
    }

    /// Sends what the stream takes.
    pub fn flush(&mut self) {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            let result = match &mut self.stream {
                Stream::Unix(stream) => stream.write(rest),
                Stream::Tcp(stream) => stream.write(rest),
            };
            match result {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.written > 1 << 20 {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    return;
                }
                Err(_) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
        self.out.clear();
        self.written = 0;
    }

    /// Reads and counts the answers that have come.
    pub fn read_answers(&mut self) {
        loop {
            let result = match &mut self.stream {
                Stream::Unix(stream) => stream.read(&mut self.input),
                Stream::Tcp(stream) => stream.read(&mut self.input),
            };
            match result {
                Ok(0) => {
                    self.is_closed = true;
                    return;
                }
                Ok(got) => self.count(got),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_closed |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    fn count(&mut self, got: usize) {
        let (answer, refusal): (&[u8], &[u8]) = match self.kind {
            Kind::Lines(_) => (b"\n", b"\"ok\":false"),
            Kind::WebSocket(_) => return,
            Kind::Http { .. } => (b"HTTP/1.1 ", b"HTTP/1.1 4"),
        };
        let input = &self.input[..got];
        self.tail.extend_from_slice(&input[..got.min(16)]);
        let cut = |mark: &[u8], tail: &[u8], head: usize| {
            // Marks that lie across the two reads: in `tail`, but in neither part alone.
            let (before, after) = tail.split_at(tail.len() - head);
            let count = |bytes: &[u8]| memchr::memmem::find_iter(bytes, mark).count() as u64;
            count(tail) - count(before) - count(after)
        };
        let head = got.min(16);
        let answers = memchr::memmem::find_iter(input, answer).count() as u64 + cut(answer, &self.tail, head);
        let refusals = memchr::memmem::find_iter(input, refusal).count() as u64 + cut(refusal, &self.tail, head);
        self.answered += answers;
        self.refused += refusals;
        self.tail.clear();
        self.tail.extend_from_slice(&input[got - head..]);
    }
}

fn connect_tcp(address: SocketAddr, hello: Option<&(String, String)>) -> anyhow::Result<mio::net::TcpStream> {
    let mut stream =
        std::net::TcpStream::connect(address).with_context(|| format!("cannot connect the publisher to {address}"))?;
    stream.set_nodelay(true)?;
    if let Some((hello, answer)) = hello {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(hello.as_bytes())?;
        let mut seen = Vec::new();
        while memchr::memmem::find(&seen, answer.as_bytes()).is_none() {
            let mut piece = [0; 1024];
            match stream.read(&mut piece)? {
                0 => bail!("the server closed the publisher's connection"),
                got => seen.extend_from_slice(&piece[..got]),
            }
        }
    }
    stream.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(stream))
}
