//! The HTTP listener: health, limits, and how it begins and ends.

use crate::harness::{LONG, RawClient, Server, eventually};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A keep-alive connection to a server's HTTP listener.
pub struct Http {
    stream: TcpStream,
    input: Vec<u8>,
}

/// A response, whole.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Http {
    pub fn connect(server: &Server) -> Http {
        let stream = TcpStream::connect(server.http()).expect("the HTTP listener accepts");
        stream.set_read_timeout(Some(LONG)).expect("socket option");
        stream.set_nodelay(true).expect("socket option");
        Http { stream, input: Vec::new() }
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, "");
        self.response()
    }

    pub fn post(&mut self, path: &str, body: &str) -> Response {
        self.send("POST", path, body);
        self.response()
    }

    pub fn send(&mut self, method: &str, path: &str, body: &str) {
        let length = body.len();
        self.write(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"));
    }

    pub fn write(&mut self, text: &str) {
        // A server that has refused may have closed already: what it said is read below.
        let _ = self.stream.write_all(text.as_bytes());
    }

    pub fn response(&mut self) -> Response {
        let response = self.try_response();
        response.unwrap_or_else(|| panic!("no response, but {:?}", String::from_utf8_lossy(&self.input)))
    }

    /// `None`: the connection ended first.
    pub fn try_response(&mut self) -> Option<Response> {
        let head_len = loop {
            if let Some(at) = self.input.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            self.read()?;
        };
        let head = String::from_utf8(self.input.drain(..head_len).collect()).expect("a head in ASCII");
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while self.input.len() < length {
            self.read()?;
        }
        let body = String::from_utf8(self.input.drain(..length).collect()).expect("a body in UTF-8");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Some(Response { status, head, body })
    }

    fn read(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        self.input.extend_from_slice(&buffer[..read]);
        Some(())
    }
}

fn start() -> Server {
    Server::options(2).arg("--http", "127.0.0.1:0").start()
}

#[test]
fn health_is_told_over_one_connection() {
    let server = start();
    let mut http = Http::connect(&server);
    let live = http.get("/live");
    assert_eq!((live.status, live.body.as_str()), (200, "live\n"));
    let ready = http.get("/ready");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    assert_eq!(http.get("/nowhere").status, 404);
    let wrong = http.post("/live", "");
    assert_eq!(wrong.status, 405);
    assert!(wrong.head.to_ascii_lowercase().contains("allow: get"), "{}", wrong.head);
    assert_eq!(http.get("/live?x=1").status, 200);
}

#[test]
fn a_server_that_is_stopping_is_not_ready() {
    let mut server = Server::options(1).arg("--http", "127.0.0.1:0").arg("--shutdown-timeout", "60").start();
    let mut http = Http::connect(&server);
    assert_eq!(http.get("/ready").status, 200);
    // A client that does not answer the close keeps the server from ending.
    let mut client = RawClient::connect(&server);
    server.signal(Signal::TERM);
    client.expect_close(1012);
    let stopping = http.get("/ready");
    assert_eq!((stopping.status, stopping.body.as_str()), (503, "stopping\n"));
    assert!(stopping.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", stopping.head);
    assert_eq!(http.get("/live").status, 200);
    drop(client);
    assert!(server.wait().success());
    assert!(http.try_response().is_none(), "the connection ends with the server");
}

#[test]
fn heads_are_bounded() {
    let server = start();
    for head in [
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)),
    ] {
        let mut http = Http::connect(&server);
        http.write(&head);
        let status = http.response().status;
        assert!(status == 431 || status == 414, "{status}");
        assert!(http.try_response().is_none());
    }
    let mut http = Http::connect(&server);
    http.write("no HTTP at all\r\n\r\n");
    assert_eq!(http.response().status, 400);
}

#[test]
fn connections_are_bounded() {
    let server = start();
    let mut open: Vec<Http> = (0..256).map(|_| Http::connect(&server)).collect();
    assert_eq!(open[255].get("/live").status, 200);
    let mut refused = Http::connect(&server);
    assert_eq!(refused.response().status, 503);
    drop(open);
    eventually("room again", || {
        let mut http = Http::connect(&server);
        http.send("GET", "/live", "");
        http.try_response().is_some_and(|response| response.status == 200)
    });
}

#[test]
fn a_default_that_is_taken_is_done_without() {
    // Whoever has it, it is taken now.
    let _other = TcpListener::bind("127.0.0.1:9001");
    let server = Server::options(1).with_default_http().start();
    assert!(server.stderr().contains("http off"), "{}", server.stderr());
    assert!(server.stderr().contains("no HTTP: 127.0.0.1:9001"), "{}", server.stderr());
}

#[test]
fn a_named_address_that_is_taken_is_an_error() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address: SocketAddr = other.local_addr().expect("an address");
    let (status, stderr) = Server::options(1).arg("--http", address).fail();
    assert!(!status.success());
    assert!(stderr.contains(&format!("cannot speak HTTP on {address}")) && stderr.contains("--http"), "{stderr}");
}
