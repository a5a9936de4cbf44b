//! The HTTP listener: publishing, limits, start and end. The module `health` tests connections and heads.

use crate::harness::{Admin, Client, LONG, Options, RawClient, Server, TempDir, eventually, for_shards};
use crate::hostile::publish_until_blocked;
use corecast::protocol::socket_id::SocketId;
use hmac::{Hmac, KeyInit, Mac};
use md5::Digest;
use rustix::process::Signal;
use sha2::Sha256;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

/// A keep-alive connection to a server's HTTP listener.
pub struct Http {
    pub stream: TcpStream,
    input: Vec<u8>,
}

/// A complete response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Http {
    pub fn connect(server: &Server) -> Http {
        Http::over(TcpStream::connect(server.http()).expect("the HTTP listener accepts"))
    }

    /// Over a TCP connection already made.
    pub fn over(stream: TcpStream) -> Http {
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
        // A server that refuses a request may have closed already. Its answer is read below.
        let _ = self.stream.write_all(text.as_bytes());
    }

    pub fn response(&mut self) -> Response {
        let response = self.try_response();
        response.unwrap_or_else(|| panic!("no response, but {:?}", String::from_utf8_lossy(&self.input)))
    }

    /// `None`: the connection ended before a response.
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
        let read = loop {
            match self.stream.read(&mut buffer) {
                // See `Transport`.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.ok().filter(|read| *read > 0)?,
            }
        };
        self.input.extend_from_slice(&buffer[..read]);
        Some(())
    }
}

/// A number of `/metrics`, by the start of its line.
#[track_caller]
pub fn metric(server: &Server, name: &str) -> u64 {
    let metrics = Http::connect(server).get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

pub fn start() -> Server {
    Server::options(2).arg("--http", "127.0.0.1:0").start()
}

#[test]
fn health_is_answered_over_one_connection() {
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
    let client = stop_behind(&server, &mut http);
    let stopping = http.get("/ready");
    assert_eq!((stopping.status, stopping.body.as_str()), (503, "stopping\n"));
    assert!(stopping.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", stopping.head);
    assert_eq!(http.get("/live").status, 200);
    assert_eq!(http.get("/metrics").status, 503);
    drop(client);
    assert!(server.wait().success());
    assert!(http.try_response().is_none(), "the connection outlives the server");
}

/// Begins the stop of a server with a long shutdown timeout. It does not end before the client, which reads nothing, has left.
fn stop_behind(server: &Server, http: &mut Http) -> RawClient {
    let mut client = RawClient::tcp_with_small_buffer(server);
    client.upgrade();
    publish_until_blocked(&mut Admin::connect(server), &mut client, 256 * 1024);
    server.signal(Signal::TERM);
    eventually("it stops", || http.get("/ready").status == 503);
    client
}

#[test]
fn a_half_closed_client_is_answered() {
    let server = start_with_key();
    let body = r#"{"name":"e","channel":"a","data":"1"}"#;
    for (method, path, body) in
        [("GET", "/ready".into(), ""), ("POST", signed("POST", "/apps/1/events", &[], body), body)]
    {
        let mut http = Http::connect(&server);
        http.send(method, &path, body);
        http.stream.shutdown(Shutdown::Write).expect("a connected socket");
        assert_eq!(http.response().status, 200, "{path}");
        assert!(http.try_response().is_none());
    }
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
    let counted = |name: &str, count: u64| format!("\ncorecast_http_{name}_total {count}\n");
    let expected = [counted("requests", 4), counted("client_errors", 3)];
    let mut http = Http::connect(&server);
    let metrics = http.get("/metrics").body;
    assert!(expected.iter().all(|line| metrics.contains(line)), "{metrics}");
}

#[test]
fn the_server_starts_without_http_if_the_default_port_is_in_use() {
    // From here on the port is in use, by this server or by another program.
    let _other = TcpListener::bind("127.0.0.1:9001");
    let server = Server::options(1).with_default_http().start();
    assert!(server.stderr().contains("http off"), "{}", server.stderr());
    eventually("a warning", || server.stderr().contains("no HTTP: 127.0.0.1:9001"));
}

#[test]
fn a_configured_address_in_use_is_an_error() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address: SocketAddr = other.local_addr().expect("an address");
    let (status, stderr) = Server::options(1).arg("--http", address).fail();
    assert!(!status.success());
    assert!(stderr.contains(&format!("cannot serve HTTP on {address}")) && stderr.contains("--http"), "{stderr}");
}

pub fn start_with_key() -> Server {
    Server::options(2).arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").start()
}

/// HMAC-SHA256 by the secret of [`start_with_key`], in hex.
pub fn hmac_hex(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"hunter2").expect("any key");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

pub fn md5_hex(text: &str) -> String {
    hex(&md5::Md5::digest(text.as_bytes()))
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// The path with a signed query, for this body.
pub fn signed(method: &str, path: &str, parameters: &[(&str, &str)], body: &str) -> String {
    signed_before(0, method, path, parameters, body)
}

/// The same, with a signature that is this many seconds old.
fn signed_before(age_s: i64, method: &str, path: &str, parameters: &[(&str, &str)], body: &str) -> String {
    let (now, digest) = (now_s().saturating_add_signed(-age_s).to_string(), md5_hex(body));
    let mut query = vec![("auth_key", "app"), ("auth_timestamp", now.as_str()), ("auth_version", "1.0")];
    if method == "POST" {
        query.push(("body_md5", &digest));
    }
    query.extend(parameters);
    query.sort_unstable();
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = query.join("&");
    let signature = hmac_hex(&format!("{method}\n{path}\n{query}"));
    format!("{path}?{query}&auth_signature={signature}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Http {
    pub fn publish(&mut self, body: &str) -> Response {
        self.post(&signed("POST", "/apps/1/events", &[], body), body)
    }

    pub fn publish_batch(&mut self, body: &str) -> Response {
        self.post(&signed("POST", "/apps/1/batch_events", &[], body), body)
    }
}

#[test]
fn events_reach_subscribers() {
    let server = start_with_key();
    let (mut first, mut second) = (Client::connect(&server), Client::connect(&server));
    for client in [&mut first, &mut second] {
        client.subscribe("a");
        client.subscribe("b");
    }
    let mut http = Http::connect(&server);
    let published = http.publish(r#"{"name":"e","channels":["a"],"data":"{\"id\": 42}"}"#);
    assert_eq!((published.status, published.body.as_str()), (200, "{}"));
    for client in [&mut first, &mut second] {
        client.expect(r#"{"event":"e","channel":"a","data":{"id": 42}}"#);
    }
    // A channel that is named twice gets one message.
    let published = http.publish(r#"{"name":"e","channels":["a","a"],"data":"1","info":"subscription_count"}"#);
    assert_eq!((published.status, published.body.as_str()), (200, r#"{"channels":{"a":{"subscription_count":2}}}"#));
    for client in [&mut first, &mut second] {
        client.expect(r#"{"event":"e","channel":"a","data":1}"#);
        client.expect_nothing_before_pong();
    }
    // Data that is not JSON, with an excluded connection, and with counts in the answer.
    let exclude = SocketId::parse(&first.socket_id).expect("a UUID").dotted();
    let body =
        format!(r#"{{"name":"e","channel":"b","data":"so","socket_id":"{exclude}","info":"subscription_count"}}"#);
    let published = http.publish(&body);
    assert_eq!((published.status, published.body.as_str()), (200, r#"{"channels":{"b":{"subscription_count":2}}}"#));
    second.expect(r#"{"event":"e","channel":"b","data":"so"}"#);
    first.expect_nothing_before_pong();

    let body = r#"{"batch":[{"name":"1","channel":"a","data":"1"},{"name":"2","channel":"a","data":"2","info":"subscription_count"}]}"#;
    let published = http.publish_batch(body);
    assert_eq!((published.status, published.body.as_str()), (200, r#"{"batch":[{},{"subscription_count":2}]}"#));
    for client in [&mut first, &mut second] {
        client.expect(r#"{"event":"1","channel":"a","data":1}"#);
        client.expect(r#"{"event":"2","channel":"a","data":2}"#);
    }

    let listed = http.get(&signed("GET", "/apps/1/channels", &[("info", "subscription_count")], ""));
    let expected = r#"{"channels":{"a":{"subscription_count":2},"b":{"subscription_count":2}}}"#;
    assert_eq!((listed.status, listed.body.as_str()), (200, expected));
    let listed = http.get(&signed("GET", "/apps/1/channels", &[("filter_by_prefix", "b")], ""));
    assert_eq!(listed.body, r#"{"channels":{"b":{}}}"#);
    let one = http.get(&signed("GET", "/apps/1/channels/a", &[("info", "subscription_count")], ""));
    assert_eq!(one.body, r#"{"occupied":true,"subscription_count":2}"#);
    assert_eq!(http.get(&signed("GET", "/apps/1/channels/c", &[], "")).body, r#"{"occupied":false}"#);
}

#[test]
fn unread_lists_are_bounded() {
    const CHANNELS: usize = 20_000;
    let server = Server::options(1)
        .arg("--http", "127.0.0.1:0")
        .arg("--key", "app:hunter2")
        .arg("--max-subscriptions", CHANNELS)
        .start();
    let mut client = Client::connect(&server);
    for first in (0..CHANNELS).step_by(100) {
        let names = (first..first + 100).map(|number| format!("{number:0200}"));
        names.clone().for_each(|name| client.send(&crate::harness::subscribe(&name)));
        names.for_each(|name| client.expect(&crate::harness::subscribed(&name)));
    }
    let target = || signed("GET", "/apps/1/channels", &[], "");
    let unread = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("socket option");
        socket.connect(&server.http().into()).expect("the HTTP listener accepts");
        let mut http = Http { stream: socket.into(), input: Vec::new() };
        http.send("GET", &target(), "");
        let mut status = [0; 12];
        http.stream.read_exact(&mut status).expect("the start of an answer");
        assert_eq!(&status, b"HTTP/1.1 200");
        http
    };
    let lists: Vec<Http> = std::iter::repeat_with(unread).take(8).collect();
    let mut http = Http::connect(&server);
    let refused = http.get(&target());
    assert_eq!((refused.status, refused.body.as_str()), (503, "too many requests are outstanding\n"));
    drop(lists);
    eventually("there is room again", || http.get(&target()).status == 200);
}

#[test]
fn invalid_requests_publish_nothing() {
    let server = start_with_key();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    for (status, body) in [
        (400, r#"{"name":"socket:e","channel":"a","data":"1"}"#),
        (400, r#"{"name":"pusher:e","channel":"a","data":"1"}"#),
        (400, r#"{"name":"pusher_internal\u003ae","channel":"a","data":"1"}"#),
        (400, r#"{"name":"e","channels":["a","a b"],"data":"1"}"#),
        (400, r#"{"name":"e","channel":"a","data":"1","info":"subscription_count,colour"}"#),
        (400, r#"{"name":"e","channels":["a","presence-b:c"],"data":"1"}"#),
        (400, r##"{"name":"e","channels":["a","#server-to-user-"],"data":"1"}"##),
        (400, r##"{"name":"e","channels":["a","#a"],"data":"1"}"##),
        (400, r#"{"name":"e","channels":[],"data":"1"}"#),
        (400, r#"{"name":"e","data":"1"}"#),
        (400, r#"{"name":"e","channel":"a"}"#),
        (400, r#"{"name":"e","channel":"a","data":"1","socket_id":"none"}"#),
        (400, "no JSON"),
        (413, &format!(r#"{{"name":"e","channel":"a","data":"{}"}}"#, "x".repeat(256 * 1024))),
    ] {
        let refused = http.publish(body);
        assert_eq!(refused.status, status, "{:.100}: {}", body, refused.body);
    }
    let body = r#"{"batch":[{"name":"1","channel":"a","data":"1"},{"name":"2","channel":"a b","data":"2"}]}"#;
    assert_eq!(http.post(&signed("POST", "/apps/1/batch_events", &[], body), body).status, 400);
    let good = r#"{"name":"e","channel":"a","data":"1"}"#;
    let body = format!(r#"{{"batch":[{}]}}"#, [good; 11].join(","));
    assert_eq!(http.post(&signed("POST", "/apps/1/batch_events", &[], &body), &body).status, 400);
    for (status, path) in [
        (404, signed("POST", "/apps/2/events", &[], good)),
        (401, "/apps/1/events".to_owned()),
        (401, signed("GET", "/apps/1/events", &[], good)),
        (401, signed("POST", "/apps/1/events", &[], "other")),
        (401, signed("POST", "/apps/1/events", &[], good).replace("auth_key=app", "auth_key=other")),
        (405, signed("GET", "/apps/1/channels", &[], good)),
    ] {
        // A body that is not read ends the connection, so each request has its own.
        let refused = Http::connect(&server).post(&path, good);
        assert_eq!(refused.status, status, "{path}: {}", refused.body);
        assert!(!refused.body.contains("hunter2"));
    }
    client.expect_nothing_before_pong();
    assert!(!server.stderr().contains("hunter2"), "{}", server.stderr());
    assert_eq!(Http::connect(&server).publish(good).status, 200);
    client.expect(r#"{"event":"e","channel":"a","data":1}"#);
}

#[test]
fn an_unread_body_is_answered_with_connection_close() {
    let server = start_with_key();
    let body = r#"{"name":"e","channel":"a","data":"1"}"#;
    for (method, path, body, ends) in [
        ("POST", "/apps/1/events", body, true),
        ("POST", "/nowhere", body, true),
        ("GET", "/apps/1/channels", "", false),
        ("POST", "/live", "", false),
    ] {
        let mut http = Http::connect(&server);
        http.send(method, path, body);
        let refused = http.response();
        assert!((400..500).contains(&refused.status), "{path}: {}", refused.status);
        assert_eq!(refused.head.to_ascii_lowercase().contains("connection: close"), ends, "{path}: {}", refused.head);
        if ends {
            assert!(http.try_response().is_none(), "{path}");
        } else {
            assert_eq!(http.get("/live").status, 200, "{path}");
        }
    }
}

#[test]
fn an_encoded_body_is_refused_and_publishes_nothing() {
    let dir = TempDir::new();
    let server = with_token(Server::options(1).arg("--key", "app:hunter2"), &dir).arg("--http", "127.0.0.1:0").start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let rest = signed("POST", "/apps/1/events", &[], r#"{"name":"e","channel":"a","data":"1"}"#);
    for (path, body) in
        [(&*rest, r#"{"name":"e","channel":"a","data":"1"}"#), ("/publish", r#"{"channel":"a","event":"e","data":1}"#)]
    {
        for (coding, status) in [("gzip", 415), ("identity", 200)] {
            let (mut http, length) = (Http::connect(&server), body.len());
            let head =
                format!("Authorization: Bearer {TOKEN}\r\nContent-Encoding: {coding}\r\nContent-Length: {length}");
            http.write(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}"));
            let answer = http.response();
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
            assert_eq!(answer.head.contains("accept-encoding: identity"), status == 415, "{}", answer.head);
        }
        client.expect(r#"{"event":"e","channel":"a","data":1}"#);
    }
    client.expect_nothing_before_pong();
}

#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let server = start_with_key();
    let body = "x".repeat(1024 * 1024 + 1);
    assert_eq!(Http::connect(&server).publish(&body).status, 413);
}

#[test]
fn metrics_count_requests_and_events() {
    let server = start_with_key();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    assert_eq!(http.publish(r#"{"name":"e","channel":"a","data":"1"}"#).status, 200);
    client.text();
    eventually("counted and written", || {
        let metrics = http.get("/metrics");
        assert_eq!(metrics.status, 200);
        assert!(metrics.head.contains("text/plain; version=0.0.4"), "{}", metrics.head);
        let sum = |name: &str| -> f64 {
            let lines = metrics.body.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(['{', ' ']));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        assert!(sum("corecast_turn_duration_seconds_count") >= 1.0);
        assert!(sum("process_start_time_seconds") > 1e9 && sum("process_resident_memory_bytes") > 1e6);
        sum("corecast_connections") == 1.0
            && sum("corecast_publishes_total") == 1.0
            && sum("corecast_deliveries_total") == 1.0
            && sum("corecast_http_publishes_total") == 1.0
            && sum("corecast_publish_written_seconds_count") >= 1.0
    });
}

#[test]
fn a_refusal_names_the_element_of_a_list() {
    let server = start_with_key();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    let good = r#"{"name":"e","channel":"a","data":"1"}"#;
    for (bad, status, place) in [
        ("1", 400, "batch[1]: "),
        (r#"{"name":"e","channel":"a"}"#, 400, "batch[1]: data "),
        (r#"{"name":"e","channel":"a b","data":"1"}"#, 400, "batch[1]: a channel name "),
        (r#"{"name":"e","channels":["a","b",7],"data":"1"}"#, 400, "batch[1]: channels[2]: "),
        (r#"{"name":"e","channels":["a","a b"],"data":"1"}"#, 400, "batch[1]: channels[1]: a channel name "),
        (r#"{"name":"e","channel":"a","data":"1","info":"colour"}"#, 400, "batch[1]: info: "),
        (r#"{"name":"e","channel":"a","data":"1","socket_id":"1"}"#, 400, "batch[1]: socket_id "),
        (
            r##"{"name":"e","channels":["a","#server-to-user-"],"data":"1"}"##,
            400,
            "batch[1]: channels[1]: the id of a user ",
        ),
        (&format!(r#"{{"name":"e","channel":"a","data":"{}"}}"#, "x".repeat(256 * 1024)), 413, "batch[1]: "),
    ] {
        let refused = http.publish_batch(&format!(r#"{{"batch":[{good},{bad}]}}"#));
        assert_eq!(refused.status, status, "{bad:.100}: {}", refused.body);
        assert!(refused.body.starts_with(place), "{bad:.100}: {}", refused.body);
    }
    client.expect_nothing_before_pong();
}

#[test]
fn an_unknown_attribute_is_refused_everywhere() {
    let server = start_with_key();
    let mut http = Http::connect(&server);
    for attributes in ["colour", "subscription_count,colour", "usercount"] {
        for path in ["/apps/1/channels", "/apps/1/channels/a"] {
            assert_eq!(http.get(&signed("GET", path, &[("info", attributes)], "")).status, 400, "{path} {attributes}");
        }
        let event = format!(r#"{{"name":"e","channel":"a","data":"1","info":"{attributes}"}}"#);
        assert_eq!(http.publish(&event).status, 400, "{attributes}");
        assert_eq!(http.publish_batch(&format!(r#"{{"batch":[{event}]}}"#)).status, 400, "{attributes}");
    }
}

#[test]
fn a_signed_request_cannot_be_repeated_later() {
    let server = start_with_key();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    let event = r#"{"name":"e","channel":"a","data":"1"}"#;
    let batch = format!(r#"{{"batch":[{event}]}}"#);
    for (path, body) in [("/apps/1/events", event), ("/apps/1/batch_events", &batch)] {
        let target = signed_before(60, "POST", path, &[], body);
        assert_eq!(http.post(&target, body).status, 200);
        client.expect(r#"{"event":"e","channel":"a","data":1}"#);
        let (query, signature) = target.rsplit_once('=').expect("a signature");
        for target in [target.clone(), format!("{query}={}", signature.to_uppercase())] {
            let refused = http.post(&target, body);
            assert_eq!(refused.status, 401, "{}", refused.body);
            assert!(refused.body.contains("sign each request anew"), "{}", refused.body);
        }
        // A refused request with another body does not use up the signature.
        let target = signed_before(59, "POST", path, &[], body);
        assert_eq!(http.post(&target, "{}").status, 401);
        assert_eq!(http.post(&target, body).status, 200);
        client.expect(r#"{"event":"e","channel":"a","data":1}"#);
    }
    // Equal publishes within a second have the same signature. The timestamp is in the future, so a stall does not age
    // it.
    let target = signed_before(-60, "POST", "/apps/1/events", &[], event);
    assert_eq!([http.post(&target, event).status, http.post(&target, event).status], [200; 2]);
    for _ in 0..2 {
        client.expect(r#"{"event":"e","channel":"a","data":1}"#);
    }
    // A GET request may be repeated.
    let target = signed_before(60, "GET", "/apps/1/channels", &[], "");
    assert_eq!([http.get(&target).status, http.get(&target).status], [200; 2]);
    client.expect_nothing_before_pong();
}

const TOKEN: &str = "a-token-of-some-length";

impl Http {
    /// Sends `POST /publish` with these header lines.
    fn publish_plain(&mut self, head: &str, body: &str) -> Response {
        let length = body.len();
        self.write(&format!("POST /publish HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {length}\r\n\r\n{body}"));
        self.response()
    }

    pub fn publish_with_token(&mut self, body: &str) -> Response {
        self.publish_plain(&format!("Authorization: Bearer {TOKEN}\r\n"), body)
    }
}

fn start_with_token(shards: usize, dir: &TempDir, address: impl Into<IpAddr>) -> Server {
    let http = SocketAddr::new(address.into(), 0);
    let options = Server::options(shards).arg("--http", http).arg("--key", "app:hunter2-hunter2-hunter2");
    with_token(options, dir).arg("--shutdown-timeout", "60").start()
}

/// A server that accepts the token of [`Http::publish_with_token`].
pub fn with_token(options: Options, dir: &TempDir) -> Options {
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("a temporary file");
    options.arg("--publish-token-file", file.display())
}

/// An address of this machine that is not a loopback address, if it has one. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// On a machine without another address, the unit tests of `http::publish` are all there is.
#[test]
fn a_token_is_accepted_from_loopback_only() {
    let Some(address) = own_address() else { return };
    let dir = TempDir::new();
    let server = start_with_token(1, &dir, address);
    let refused = Http::connect(&server).publish_with_token(r#"{"channel":"a","event":"e"}"#);
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.starts_with(r#"{"id":null,"ok":false,"code":"not_local","error":""#), "{}", refused.body);
    assert_eq!(metric(&server, "corecast_http_publishes_total"), 0);
}

for_shards!(a_plain_publish_is_answered_like_the_admin_command);

fn a_plain_publish_is_answered_like_the_admin_command(shards: usize) {
    let dir = TempDir::new();
    let server = start_with_token(shards, &dir, [127, 0, 0, 1]);
    let (mut first, mut second) = (Client::connect(&server), Client::connect(&server));
    for client in [&mut first, &mut second] {
        client.subscribe("a");
        client.subscribe("b");
    }
    let mut http = Http::connect(&server);
    let exclude = first.socket_id.clone();
    let body =
        format!(r#"{{"id":[1, "x"],"channels":["a","b"],"event":"e","data":{{"id": 42}},"exclude":"{exclude}"}}"#);
    let published = http.publish_with_token(&body);
    assert_eq!((published.status, &*published.body), (200, "{\"id\":[1, \"x\"],\"ok\":true,\"subscribers\":2}\n"));
    assert!(published.head.to_ascii_lowercase().contains("content-type: application/json"), "{}", published.head);
    let mut received = [second.text(), second.text()];
    received.sort();
    assert_eq!(received, ["a", "b"].map(|name| format!(r#"{{"event":"e","channel":"{name}","data":{{"id": 42}}}}"#)));
    first.expect_nothing_before_pong();
    let published = http.publish_with_token(r#"{"channel":"c","event":"e"}"#);
    assert_eq!((published.status, &*published.body), (200, "{\"id\":null,\"ok\":true,\"subscribers\":0}\n"));
}

#[test]
fn a_plain_publish_that_is_refused_says_why() {
    let dir = TempDir::new();
    let server = start_with_token(2, &dir, [127, 0, 0, 1]);
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    let large = format!(r#"{{"channel":"a","event":"e","data":"{}"}}"#, "x".repeat(256 * 1024));
    for (body, status, id, code) in [
        ("no JSON", 400, "null", "malformed_request"),
        (r#"{"id":7,"channel":"a","event":"e","exlude":"1.1"}"#, 400, "7", "malformed_request"),
        (r#"{"id":7,"command":"publish","channel":"a","event":"e"}"#, 400, "7", "malformed_request"),
        (r#"{"id":7,"event":"e"}"#, 400, "7", "missing_member"),
        (r#"{"channel":"a b","event":"e"}"#, 400, "null", "invalid_channel"),
        (r#"{"channel":"a","event":"socket:e"}"#, 400, "null", "reserved_event"),
        (&large, 413, "null", "too_large"),
    ] {
        let refused = http.publish_with_token(body);
        assert_eq!(refused.status, status, "{:.100}: {}", body, refused.body);
        let start = format!(r#"{{"id":{id},"ok":false,"code":"{code}","error":""#);
        assert!(refused.body.starts_with(&start), "{:.100}: {}", body, refused.body);
        assert_eq!(
            refused.body.contains("the nearest is \\\"exclude\\\""),
            body.contains("exlude"),
            "{}",
            refused.body
        );
    }
    assert_eq!(Http::connect(&server).publish_with_token(&"x".repeat(1024 * 1024 + 1)).status, 413);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for (head, status, code) in [
        (String::new(), 401, "token_required"),
        ("Authorization: Bearer app:hunter2-hunter2-hunter2\r\n".into(), 401, "token_invalid"),
        ("Authorization: Bearer hunter2-hunter2-hunter2\r\n".into(), 401, "token_invalid"),
        (format!("{bearer}X-Forwarded-For: 127.0.0.1\r\n"), 403, "not_local"),
        (format!("{bearer}x-forwarded-proto: https\r\n"), 403, "not_local"),
        (format!("{bearer}Forwarded: for=127.0.0.1\r\n"), 403, "not_local"),
        (format!("{bearer}Via: 1.1 nginx\r\n"), 403, "not_local"),
    ] {
        // A body that is not read ends the connection.
        let refused = Http::connect(&server).publish_plain(&head, r#"{"channel":"a","event":"e"}"#);
        assert_eq!(refused.status, status, "{head}: {}", refused.body);
        assert!(refused.body.contains(&format!(r#""code":"{code}""#)), "{head}: {}", refused.body);
        let challenges = refused.head.to_ascii_lowercase().contains("www-authenticate: bearer");
        assert_eq!(challenges, status == 401, "{}", refused.head);
    }
    assert_eq!(metric(&server, "corecast_http_auth_failures_total"), 3);
    assert_eq!(http.get("/publish").status, 405);
    client.expect_nothing_before_pong();
    assert!(!server.stderr().contains(TOKEN));
}

#[test]
fn a_stopping_server_refuses_a_plain_publish() {
    let dir = TempDir::new();
    let mut server = start_with_token(1, &dir, [127, 0, 0, 1]);
    let mut http = Http::connect(&server);
    assert_eq!(http.get("/ready").status, 200);
    let client = stop_behind(&server, &mut http);
    let refused = http.publish_with_token(r#"{"id":7,"channel":"a","event":"e"}"#);
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.starts_with(r#"{"id":7,"ok":false,"code":"going_down""#), "{}", refused.body);
    drop(client);
    assert!(server.wait().success());
}

#[test]
fn a_plain_publish_needs_a_token_which_a_reload_can_add() {
    let dir = TempDir::new();
    let (file, token) = (dir.path().join("corecast.toml"), dir.path().join("token"));
    let write = |path: &std::path::Path, text: &str| std::fs::write(path, text).expect("a temporary file");
    write(&file, "");
    let server = Server::options(1).arg("--http", "127.0.0.1:0").arg("--config", file.display()).start();
    let publish = || Http::connect(&server).publish_with_token(r#"{"channel":"a","event":"e"}"#);
    let refused = publish();
    assert_eq!(refused.status, 404, "{}", refused.body);
    assert!(refused.body.contains("--publish-token-file"), "{}", refused.body);
    let reload = |keys: &str| {
        write(&file, &format!("publish-token-file = {token:?}\n{keys}"));
        let reloaded = server.run(&["reload"]);
        String::from_utf8_lossy(&[reloaded.stdout, reloaded.stderr].concat()).into_owned()
    };
    write(&token, TOKEN);
    assert!(reload("").contains("publish-token-file: none → "));
    assert_eq!(publish().status, 200);
    write(&token, "another-token-of-some-length");
    assert!(reload("").contains("(another key)"));
    assert_eq!(publish().status, 401);
    // A signing key cannot serve as a token.
    for keys in ["key = \"app:another-token-of-some-length\"", "key = \"another:token-of-some-length\""] {
        write(&token, keys.split('"').nth(1).and_then(|key| key.strip_prefix("app:").or(Some(key))).expect("a key"));
        let refused = reload(keys);
        assert!(refused.contains("holds the signing key"), "{refused}");
    }
    assert_eq!(publish().status, 401);
}
