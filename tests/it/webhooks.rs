//! Webhooks: the events that a backend is sent, and what happens to them while it does not take them.

use crate::client_events::join;
use crate::harness::{
    Admin, Client, LONG, Options, RawClient, Server, TempDir, eventually, for_shards, second_spelling, subscribe,
    text_frame, unsubscribe,
};
use crate::http::metric;
use crate::transport::{Pair, authority};
use hmac::{Hmac, KeyInit, Mac};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::Sha256;
use socket2::{Domain, Socket, Type};
use std::collections::{HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

for_shards!(
    occupied_and_vacated_channels_are_posted,
    a_page_reload_is_not_posted,
    connections_are_posted_if_configured,
    members_are_posted_between_their_channel,
    client_events_are_posted_as_texts,
    a_cache_miss_is_posted_once_in_three_seconds,
    subscription_counts_are_posted_if_they_are_on,
    a_reload_begins_and_ends_what_is_posted,
);

/// A backend that receives events.
struct Backend {
    address: SocketAddr,
    /// Status of the responses from now on; 0: no response.
    status: Arc<AtomicU16>,
    /// How long it takes to answer.
    delay_ms: Arc<AtomicU64>,
    requests: Receiver<Request>,
    /// Events of requests that have been read.
    events: Mutex<VecDeque<Value>>,
}

struct Request {
    head: String,
    body: String,
}

impl Backend {
    fn start() -> Backend {
        Backend::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), None)
    }

    fn on(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Backend {
        let address = listener.local_addr().expect("an address");
        let status = Arc::new(AtomicU16::new(200));
        let (seen, requests) = channel();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let manner = (status.clone(), delay_ms.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, seen, tls) = (manner.clone(), seen.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &manner, &seen),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).expect("a configuration");
                        serve(StreamOwned::new(session, stream), &manner, &seen);
                    }
                });
            }
        });
        Backend { address, status, delay_ms, requests, events: Mutex::default() }
    }

    fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The next request, signed with the key `app`.
    #[track_caller]
    fn request(&self) -> Request {
        let request = self.requests.recv_timeout(LONG).expect("a request");
        request.check("app", "hunter2");
        request
    }

    /// The next event.
    #[track_caller]
    fn event(&self) -> Value {
        loop {
            if let Some(event) = self.events.lock().expect("no panic").pop_front() {
                return event;
            }
            let events = self.request().events();
            self.events.lock().expect("no panic").extend(events);
        }
    }

    /// Expects these events of these channels next, in this order.
    #[track_caller]
    fn expect(&self, expected: &[(&str, &str)]) {
        for (name, channel) in expected {
            assert_eq!(self.event(), json!({"name": name, "channel": channel}));
        }
    }

    /// Expects this event next of this channel; events of others are skipped.
    #[track_caller]
    fn expect_of(&self, channel: &str, name: &str) {
        let event = std::iter::repeat_with(|| self.event()).find(|event| event["channel"] == channel);
        assert_eq!(event, Some(json!({"name": name, "channel": channel})));
    }

    /// Expects the first channel as occupied, possibly repeated because of retries, and then the second.
    #[track_caller]
    fn expect_at_last(&self, first: &str, second: &str) {
        self.expect(&[(OCCUPIED, first)]);
        let next = std::iter::repeat_with(|| self.event()).find(|event| event["channel"] != first);
        assert_eq!(next, Some(json!({"name": OCCUPIED, "channel": second})));
    }
}

fn serve(stream: impl Read + Write, manner: &(Arc<AtomicU16>, Arc<AtomicU64>), seen: &Sender<Request>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !stream.read_line(&mut head).is_ok_and(|read| read > 0) {
                return;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).expect("a body");
        let status = manner.0.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(manner.1.load(Ordering::SeqCst)));
        if seen.send(Request { head, body: String::from_utf8(body).expect("UTF-8") }).is_err() {
            return;
        }
        if status == 0 {
            let _ = stream.read_line(&mut String::new());
            return;
        }
        let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\nok");
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        });
        value.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    #[track_caller]
    fn check(&self, key: &str, secret: &str) {
        assert_eq!(self.header("X-Pusher-Key"), key);
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
        mac.update(self.body.as_bytes());
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.header("X-Pusher-Signature"), hex);
        assert_eq!(self.header("Content-Type"), "application/json");
    }

    fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        assert!(body["time_ms"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{body}");
        body["events"].as_array().expect("a list").clone()
    }
}

/// A server with a key that posts events to these backends.
fn server_with_webhooks(shards: usize, backends: &[&Backend]) -> Options {
    let options = Server::options(shards).arg("--key", "app:hunter2");
    backends.iter().fold(options, |options, backend| options.arg("--webhook", backend.url()))
}

const OCCUPIED: &str = "channel_occupied";
const VACATED: &str = "channel_vacated";

fn occupied_and_vacated_channels_are_posted(shards: usize) {
    let backend = Backend::start();
    let server = server_with_webhooks(shards, &[&backend]).start();
    let (mut first, mut second) = (Client::connect(&server), Client::connect(&server));
    first.subscribe("a");
    backend.expect(&[(OCCUPIED, "a")]);
    second.subscribe("a");
    second.subscribe("b");
    backend.expect(&[(OCCUPIED, "b")]);
    first.unsubscribe("a");
    second.unsubscribe("b");
    backend.expect(&[(VACATED, "b")]);
    drop(second);
    backend.expect(&[(VACATED, "a")]);
}

fn a_page_reload_is_not_posted(shards: usize) {
    let backend = Backend::start();
    let server = server_with_webhooks(shards, &[&backend]).start();
    let mut admin = Admin::connect(&server);
    let mut reload = |page: &str| {
        let mut client = Client::connect(&server);
        client.subscribe(page);
        backend.expect_of(page, OCCUPIED);
        let left = Instant::now();
        drop(client);
        eventually("the channel has no subscribers", || admin.subscribers(page) == 0);
        let mut client = Client::connect(&server);
        client.subscribe(page);
        (left.elapsed() < Duration::from_secs(3)).then_some(client)
    };
    // Another page, if this machine stalled for longer than a reload may take.
    let mut client = (0..5).find_map(|page| reload(&format!("page:{page}"))).expect("a reload in time");
    // An event of the reloaded page would come before the event of the channel that is left later.
    client.subscribe("later");
    client.unsubscribe("later");
    backend.expect(&[(OCCUPIED, "later"), (VACATED, "later")]);
}

fn connections_are_posted_if_configured(shards: usize) {
    let backend = Backend::start();
    let server = server_with_webhooks(shards, &[&backend]).arg("--webhook-events", "connected, disconnected").start();
    let mut clients = Vec::new();
    // Events about the first connections of a server that has just started may lack the time.
    let connected = loop {
        clients.push(Client::connect(&server));
        let connected = backend.event();
        if !connected["time_ms"].is_null() {
            break connected;
        }
    };
    let mut client = clients.pop().expect("the connection that was reported");
    client.subscribe("a");
    let address = client.address().to_string();
    let time_ms = connected["time_ms"].clone();
    assert!(time_ms.as_u64().is_some_and(|time| time > 1_700_000_000_000), "{connected}");
    assert_eq!(
        connected,
        json!({
            "name": "connected", "channel": "", "socket_id": client.socket_id, "address": address, "time_ms": time_ms
        })
    );
    Admin::connect(&server).ok(json!({
        "id": 1, "command": "disconnect", "socket_id": client.socket_id, "code": 4000, "reason": "go"
    }));
    client.expect_close(4000);
    let gone = backend.event();
    assert_eq!((&gone["name"], &gone["socket_id"]), (&json!("disconnected"), &json!(client.socket_id)), "{gone}");
    assert_eq!((&gone["reason"], &gone["code"]), (&json!("disconnected"), &json!(4000)), "{gone}");
    assert_eq!(gone["channel"], "", "{gone}");
}

const CLIENT_EVENTS: &str = "[[channel]]\nmatch = \"*\"\nclient-events = \"members\"\n";

/// The same, with the key of [`join`], and client events in private and presence channels.
fn server_with_events(shards: usize, backend: &Backend, events: &str) -> Options {
    let options = server_with_webhooks(shards, &[backend]).arg("--key", crate::auth::key());
    options.config(CLIENT_EVENTS).arg("--webhook-events", events)
}

fn members_are_posted_between_their_channel(shards: usize) {
    let backend = Backend::start();
    let events = "channel_occupied,channel_vacated,member_added,member_removed";
    let configuration = |grace: u32| format!("presence-grace = {grace}\n{CLIENT_EVENTS}");
    let server = server_with_events(shards, &backend, events).config(configuration(3600)).start();
    let room = "presence-a";
    let event = |name: &str, user_id: &str| json!({"name": name, "channel": room, "user_id": user_id});
    let first = join(&server, room, Some("11"));
    backend.expect(&[(OCCUPIED, room)]);
    assert_eq!(backend.event(), event("member_added", "11"));
    let second = join(&server, room, Some("1\"2"));
    assert_eq!(backend.event(), event("member_added", "1\"2"));
    // A second connection of a user, and a reload of its page, are not posted.
    let again = join(&server, room, Some("11"));
    drop(first);
    drop(second);
    let mut admin = Admin::connect(&server);
    eventually("one connection is left", || admin.subscribers(room) == 1);
    let second = join(&server, room, Some("1\"2"));
    server.write_config(configuration(3));
    admin.ok(json!({"id": 1, "command": "reload"}));
    let removed = Instant::now();
    drop(again);
    assert_eq!(backend.event(), event("member_removed", "11"));
    assert!(removed.elapsed() > Duration::from_secs(2), "{:?}", removed.elapsed());
    drop(second);
    assert_eq!(backend.event(), event("member_removed", "1\"2"));
    backend.expect(&[(VACATED, room)]);
}

fn client_events_are_posted_as_texts(shards: usize) {
    let backend = Backend::start();
    let server = server_with_events(shards, &backend, "channel_occupied,client_event").start();
    let (mut sender, mut other) = (join(&server, "private-a", None), join(&server, "private-a", None));
    backend.expect(&[(OCCUPIED, "private-a")]);
    let socket_id = second_spelling(&sender.socket_id);
    for (data, text) in [
        (r#","data":{"a" : [1.50]}"#, r#"{"a" : [1.50]}"#),
        (r#","data":"{\"a\":1}""#, r#""{\"a\":1}""#),
        (r#","data":"hello""#, r#""hello""#),
        (r#","data":17"#, "17"),
        (r#","data":null"#, "null"),
        ("", "null"),
    ] {
        sender.send(&format!(r#"{{"event":"client-é\"","channel":"private-a","user_id":"me"{data}}}"#));
        assert!(other.text().contains("client-é"));
        let expected = json!({
            "name": "client_event", "channel": "private-a", "event": "client-é\"", "data": text, "socket_id": socket_id
        });
        assert_eq!(backend.event(), expected);
    }
    // Only the channel's own subscribers can send, and what is refused is not posted.
    let mut outside = Client::connect(&server);
    outside.send(r#"{"event":"client-e","channel":"private-a","data":1}"#);
    assert!(outside.text().contains("client_event_refused"));
    let member = join(&server, "presence-a", Some("1\"2"));
    backend.expect(&[(OCCUPIED, "presence-a")]);
    let mut member = member;
    member.send(r#"{"event":"client-e","channel":"presence-a","data":{}}"#);
    let expected = json!({
        "name": "client_event", "channel": "presence-a", "event": "client-e", "data": "{}",
        "socket_id": second_spelling(&member.socket_id), "user_id": "1\"2"
    });
    assert_eq!(backend.event(), expected);
}

fn a_cache_miss_is_posted_once_in_three_seconds(shards: usize) {
    let backend = Backend::start();
    let server = server_with_events(shards, &backend, "channel_occupied,cache_miss").start();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    let begin = Instant::now();
    clients[0].subscribe("plain");
    backend.expect(&[(OCCUPIED, "plain")]);
    let subscribed = |client: &mut Client| assert!(client.text().starts_with(r#"{"event":"socket:subscribed""#));
    let mut subscribe_all = |channel: &str| {
        let begin = Instant::now();
        clients.iter_mut().for_each(|client| client.send(&subscribe(channel)));
        clients.iter_mut().for_each(subscribed);
        begin.elapsed() < Duration::from_secs(3)
    };
    // Another channel, if this machine stalled for longer than misses count as one.
    let names = ["cache-a", "cache-a2", "cache-a3", "cache-a4", "cache-a5"];
    let missed = names.into_iter().find(|channel| subscribe_all(channel)).expect("three subscribes in time");
    let mut admin = Admin::connect(&server);
    backend.expect_of(missed, OCCUPIED);
    backend.expect(&[("cache_miss", missed)]);
    // A miss of another kind of cache, which follows at once.
    let _sealed = join(&server, "private-encrypted-cache-a", None);
    backend.expect(&[(OCCUPIED, "private-encrypted-cache-a"), ("cache_miss", "private-encrypted-cache-a")]);
    // After three seconds it is posted again, unless there is a message.
    let mut late = Client::connect(&server);
    let mut posted = None;
    eventually("it is posted again", || {
        late.send(&subscribe(missed));
        subscribed(&mut late);
        late.unsubscribe(missed);
        posted = backend.requests.recv_timeout(Duration::from_millis(100)).ok();
        posted.is_some()
    });
    assert!(begin.elapsed() > Duration::from_millis(2800), "{:?}", begin.elapsed());
    assert_eq!(posted.expect("a request").events(), [json!({"name": "cache_miss", "channel": missed})]);
    admin.publish("cache-b", "e", json!(1));
    late.send(&subscribe("cache-b"));
    subscribed(&mut late);
    late.text();
    backend.expect(&[(OCCUPIED, "cache-b")]);
    late.subscribe("last");
    backend.expect(&[(OCCUPIED, "last")]);
}

fn subscription_counts_are_posted_if_they_are_on(shards: usize) {
    let backend = Backend::start();
    let events = "channel_occupied,channel_vacated,subscription_count";
    let server = server_with_events(shards, &backend, events).arg("--pusher-subscription-count", "on").start();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    clients[0].subscribe("first");
    backend.expect(&[(OCCUPIED, "first")]);
    let count = |channel: &str, count: u64| {
        let expected = json!({"name": "subscription_count", "channel": channel, "subscription_count": count});
        let event = std::iter::repeat_with(|| backend.event()).find(|event| event["channel"] == channel);
        assert_eq!(event, Some(expected));
    };
    clients[0].subscribe("a");
    backend.expect_of("a", OCCUPIED);
    count("a", 1);
    for (number, client) in (2..).zip(&mut clients[1..]) {
        client.subscribe("a");
        count("a", number);
    }
    clients[0].unsubscribe("a");
    count("a", 2);
    drop(clients);
    count("a", 1);
    count("a", 0);
    backend.expect_of("a", VACATED);
    // Presence channels have members instead.
    let mut member = join(&server, "presence-a", Some("1"));
    backend.expect_of("presence-a", OCCUPIED);
    member.subscribe("b");
    backend.expect_of("b", OCCUPIED);
    count("b", 1);
}

fn a_reload_begins_and_ends_what_is_posted(shards: usize) {
    let backend = Backend::start();
    let config = |events: &str| {
        let options = format!("webhook = [{:?}]\nwebhook-events = \"channel_occupied{events}\"\n", backend.url());
        let rules = "[[channel]]\nmatch = \"*\"\nclient-events = \"members\"\n";
        options + rules
    };
    let options = Server::options(shards).arg("--key", "app:hunter2").arg("--key", crate::auth::key());
    let server = options.arg("--client-events-per-second", 1000).config(config("")).start();
    let mut reader = join(&server, "private-a", None);
    let mut sender = join(&server, "private-a", None);
    backend.expect(&[(OCCUPIED, "private-a")]);
    let mut say = |name: &str| {
        sender.send(&format!(r#"{{"event":"client-{name}","channel":"private-a"}}"#));
        assert!(reader.text().contains(name));
    };
    say("unheard");
    server.write_config(config(",client_event"));
    Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    // The stream is asked for again, and nothing says when it is there.
    let heard = std::iter::repeat_with(|| {
        say("heard");
        thread::sleep(Duration::from_millis(150));
        backend.requests.try_recv().ok()
    });
    let events = heard.flatten().next().expect("a request").events();
    assert!(events.iter().all(|event| event["event"] == "client-heard"), "{events:?}");
    server.write_config(config(""));
    Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    let mut client = Client::connect(&server);
    for number in 0.. {
        // Until the stream no longer has client events, some more may come.
        let channel = format!("c{number}");
        say("again");
        client.subscribe(&channel);
        let mut said = 0;
        while backend.event()["channel"] != channel.as_str() {
            said += 1;
        }
        if said == 0 {
            return;
        }
    }
}

#[test]
fn a_refused_request_is_retried_in_order() {
    let backend = Backend::start();
    backend.answers(500);
    let server = server_with_webhooks(2, &[&backend]).arg("--http", "127.0.0.1:0").start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let first = backend.request();
    client.subscribe("b");
    let second = backend.request();
    assert_eq!(first.events(), second.events());
    backend.answers(204);
    backend.expect_at_last("a", "b");
    eventually("the events are counted", || metric(&server, "corecast_webhook_events_total") == 2);
    assert!(metric(&server, "corecast_webhook_failures_total") >= 2);
    assert_eq!(metric(&server, "corecast_webhook_waiting_events"), 0);
    assert_eq!(metric(&server, "corecast_webhook_waiting_bytes"), 0);
    eventually("the failure is logged", || server.stderr().contains(&backend.url()) && server.stderr().contains("500"));
}

#[test]
fn a_backend_that_starts_later_receives_the_events() {
    // The bound socket reserves the port. Without a listener, connections to it are refused.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a free port");
    let port = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address").port();
    let url = format!("http://localhost:{port}/");
    let server = Server::options(1).arg("--key", "app:hunter2").arg("--webhook", url).start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    eventually("the first attempt is refused", || server.stderr().contains("refused"));
    socket.listen(8).expect("it listens");
    let backend = Backend::on(socket.into(), None);
    assert_eq!(backend.event(), json!({"name": OCCUPIED, "channel": "a"}));
}

#[test]
fn a_backend_that_does_not_answer_delays_no_other() {
    let (silent, good) = (Backend::start(), Backend::start());
    silent.answers(0);
    let server = server_with_webhooks(2, &[&silent, &good]).start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    silent.expect(&[(OCCUPIED, "a")]);
    for channel in ["b", "c", "d"] {
        client.subscribe(channel);
    }
    // Events of channels that different shards own have no order among them.
    let mut told: Vec<String> = (0..4).map(|_| good.event()["channel"].as_str().expect("a channel").into()).collect();
    told.sort();
    assert_eq!(told, ["a", "b", "c", "d"]);
}

#[test]
fn events_not_taken_in_time_are_dropped_counted_and_logged() {
    let backend = Backend::start();
    backend.answers(500);
    let server =
        server_with_webhooks(1, &[&backend]).arg("--http", "127.0.0.1:0").arg("--webhook-retry", "0.1").start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    eventually("the event is dropped", || {
        metric(&server, "corecast_webhook_dropped_events_total{reason=\"expired\"}") >= 1
    });
    eventually("the loss is logged", || server.stderr().contains("expired"));
    // The URL may have received the batch or not, so it is told once more.
    backend.requests.try_iter().for_each(drop);
    backend.answers(200);
    client.subscribe("b");
    let mut told = Told::default();
    eventually("both are told", || {
        told.take(&backend);
        told.occupied.len() == 2
    });
    assert_eq!(metric(&server, "corecast_webhook_dropped_events_total{reason=\"queue_full\"}"), 0);
}

/// The channels that a backend takes for occupied.
#[derive(Default)]
struct Told {
    occupied: HashSet<String>,
    events: usize,
}

impl Told {
    /// Applies what has come.
    fn take(&mut self, backend: &Backend) {
        for event in backend.requests.try_iter().flat_map(|request| request.events()) {
            let channel = event["channel"].as_str().expect("a channel").to_owned();
            self.events += 1;
            match event["name"] == OCCUPIED {
                true => _ = self.occupied.insert(channel),
                false => _ = self.occupied.remove(&channel),
            }
        }
    }
}

/// Subscribes to ever new channels and leaves them, until it is told to stop.
fn flood(server: &Server, stops: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (mut reader, mut writer) = RawClient::connect(server).split();
    thread::spawn(move || while reader.try_frame().is_some() {});
    thread::spawn(move || {
        for start in (0..).step_by(100) {
            let channels = (start..start + 100).map(|number: u64| format!("flood:{number}"));
            let frames = channels.flat_map(|channel| [subscribe(&channel), unsubscribe(&channel)]);
            let bytes: Vec<u8> = frames.flat_map(|frame| text_frame(&frame)).collect();
            if stops.load(Ordering::SeqCst) || !writer.write_anyway(&bytes) {
                break;
            }
        }
        writer.finish_writing();
    })
}

#[test]
fn a_flood_of_channels_does_not_hide_the_channels_of_other_clients() {
    let backend = Backend::start();
    backend.delay_ms.store(50, Ordering::SeqCst);
    let server =
        server_with_webhooks(2, &[&backend]).arg("--http", "127.0.0.1:0").arg("--max-subscribes-per-second", 0).start();
    let stops = Arc::<AtomicBool>::default();
    let flood = flood(&server, stops.clone());
    let dropped = || metric(&server, "corecast_webhook_dropped_events_total{reason=\"queue_full\"}");
    let mut told = Told::default();
    // On a busy machine the flood may be too slow to fill the queue; what follows holds then, too.
    let start = Instant::now();
    while dropped() == 0 && start.elapsed() < Duration::from_secs(15) {
        told.take(&backend);
        thread::sleep(Duration::from_millis(10));
    }
    let others: HashSet<String> = (0..20).map(|number| format!("other:{number}")).collect();
    let mut client = Client::connect(&server);
    others.iter().for_each(|channel| client.subscribe(channel));
    let start = Instant::now();
    while !others.is_subset(&told.occupied) {
        assert!(start.elapsed() < 4 * LONG, "{} events were told", told.events);
        told.take(&backend);
        thread::sleep(Duration::from_millis(10));
    }
    stops.store(true, Ordering::SeqCst);
    flood.join().expect("no panic");
    let start = Instant::now();
    while told.occupied != others {
        assert!(start.elapsed() < 4 * LONG, "{} channels are told", told.occupied.len());
        told.take(&backend);
        thread::sleep(Duration::from_millis(10));
    }
    let warnings = server.stderr().lines().filter(|line| line.contains("events are dropped")).count();
    assert!(warnings <= 4, "more than one a minute: {warnings}");
}

#[test]
fn a_reload_changes_the_urls_and_the_key() {
    let (first, second) = (Backend::start(), Backend::start());
    let dir = TempDir::new();
    let (file, keys) = (dir.path().join("corecast.toml"), dir.path().join("keys"));
    let write = |webhooks: &[&Backend], key: &str| {
        let urls: Vec<String> = webhooks.iter().map(|backend| backend.url()).collect();
        std::fs::write(&file, format!("webhook = {urls:?}\nkey-file = {keys:?}\n")).expect("a file");
        std::fs::write(&keys, key).expect("a file");
    };
    write(&[], "app:hunter2\n");
    let server = Server::options(2).arg("--config", file.display()).start();
    let reload = || Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    let mut client = Client::connect(&server);
    client.subscribe("a");

    write(&[&first], "app:hunter2\n");
    let changes = reload()["changes"].clone();
    assert_eq!(changes, json!([{"option": "webhook", "old": "none", "new": first.url()}]));
    first.expect(&[(OCCUPIED, "a")]);
    client.subscribe("b");
    first.expect(&[(OCCUPIED, "b")]);

    // The new backend is sent the current state; the other has it.
    write(&[&second, &first], "app:hunter2\n");
    reload();
    let mut received = [second.event(), second.event()].map(|event| event["channel"].to_string());
    received.sort();
    assert_eq!(received, ["\"a\"", "\"b\""]);
    client.subscribe("c");
    first.expect(&[(OCCUPIED, "c")]);
    second.expect(&[(OCCUPIED, "c")]);

    write(&[&second], "new:2\napp:hunter2\n");
    reload();
    client.subscribe("d");
    let request = second.requests.recv_timeout(LONG).expect("a request");
    request.check("new", "2");
    assert_eq!(request.events(), [json!({"name": OCCUPIED, "channel": "d"})]);
    assert!(first.requests.try_recv().is_err(), "a removed URL receives no more events");

    write(&[&second], "");
    let refused = Admin::connect(&server).request(json!({"id": 1, "command": "reload"}));
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("signed with a key pair")), "{refused}");
    assert!(!server.stderr().contains("hunter2"), "{}", server.stderr());
}

/// The limit of event consumers does not apply to the server's own.
#[test]
fn the_limit_of_consumers_does_not_exclude_webhooks() {
    let backend = Backend::start();
    let server = Server::options(1).config("key = [\"app:hunter2\"]\n").start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut consumers: Vec<Admin> = (0..64).map(|_| Admin::connect(&server)).collect();
    consumers.iter_mut().for_each(|consumer| _ = consumer.ok(json!({"id": 1, "command": "events"})));
    server.write_config(format!("key = [\"app:hunter2\"]\nwebhook = [{:?}]\n", backend.url()));
    Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    backend.expect(&[(OCCUPIED, "a")]);
    Admin::connect(&server).refused(r#"{"id":1,"command":"events"}"#, 1.into(), "too_many");
}

/// A backend that fails delays the shutdown by two seconds at most.
#[test]
fn waiting_events_are_tried_once_more_at_shutdown() {
    let is_delayed = || delay_of_a_shutdown_by_webhooks() >= Duration::from_secs(8);
    // Once in three times is enough: one without that limit is delayed every time.
    assert!(!(0..3).all(|_| is_delayed()), "the shutdown is delayed");
}

fn delay_of_a_shutdown_by_webhooks() -> Duration {
    let (backend, dead) = (Backend::start(), Backend::start());
    backend.answers(503);
    dead.answers(0);
    let mut server = server_with_webhooks(2, &[&backend, &dead]).start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    assert_eq!(backend.request().events(), [json!({"name": OCCUPIED, "channel": "a"})]);
    eventually("the server waits for a retry", || server.stderr().contains("503"));
    client.subscribe("b");
    backend.answers(200);
    let start = Instant::now();
    server.signal(Signal::TERM);
    client.expect_close(1012);
    drop(client);
    assert!(server.wait().success());
    let delay = start.elapsed();
    backend.expect_at_last("a", "b");
    eventually("the loss is logged", || {
        server.stderr().lines().any(|line| line.contains("why=\"stopped\"") && line.contains(&dead.url()))
    });
    delay
}

/// The last reports of the shards are posted too.
#[test]
fn connections_closed_at_shutdown_are_posted() {
    // A machine that stalls for two seconds at the end loses events, which is logged; then another try counts.
    assert!((0..3).any(|_| are_last_closes_posted()), "the events are lost each time");
}

/// Stops a server. Returns whether it says nothing of lost events, and then all must have come.
fn are_last_closes_posted() -> bool {
    let backend = Backend::start();
    let mut server = server_with_webhooks(4, &[&backend]).arg("--webhook-events", "disconnected,connected").start();
    let clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
    let mut ids: Vec<String> = clients.iter().map(|client| client.socket_id.clone()).collect();
    ids.sort_unstable();
    let told = |name: &str| {
        let events = (0..8).map(|_| backend.event());
        let mut ids: Vec<String> = events
            .map(|event| {
                assert_eq!(event["name"], name, "{event}");
                event["socket_id"].as_str().expect("an ID").to_owned()
            })
            .collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(told("connected"), ids);
    server.signal(Signal::TERM);
    clients.into_iter().for_each(|mut client| _ = client.expect_close(1012));
    assert!(server.wait().success());
    let is_lost = server.stderr().contains("why=\"stopped\"");
    if !is_lost {
        assert_eq!(told("disconnected"), ids);
    }
    !is_lost
}

#[test]
fn an_https_backend_needs_a_valid_certificate() {
    let dir = TempDir::new();
    let pair = Pair::make(dir.path());
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, authority().pem()).expect("a file");
    let tls = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&pair.cert).expect("a certificate")],
            PrivateKeyDer::from_pem_file(&pair.key).expect("a key"),
        )
        .expect("a pair");
    let backend = Backend::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), Some(tls.into()));
    let url = format!("https://localhost:{}/", backend.address.port());
    let options = || Server::options(1).arg("--key", "app:hunter2").arg("--webhook", &url);
    let server = options().env("SSL_CERT_FILE", &roots).start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    backend.expect(&[(OCCUPIED, "a")]);

    // Signed by an unknown authority.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&roots, other.cert.pem()).expect("a file");
    let server = options().env("SSL_CERT_FILE", &roots).start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    eventually("the certificate is refused", || server.stderr().contains("invalid peer certificate"));
    assert!(backend.requests.try_recv().is_err(), "nothing was sent");
}
