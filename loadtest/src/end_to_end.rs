//! The whole client against the floor, and against a server that sends in small pieces: it must count what was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::engine::{Ended, Handler, Net};
use crate::floor;
use crate::measure::Tally;
use crate::plan::{Churn, Connect, Departure, Flood, Idle, Ping, Plan, Recover, Scenario};
use crate::server::free_address;
use crate::target::{App, Target};
use crate::wire;
use crate::workers::{self, Controls};

#[test]
fn every_message_is_delivered_once_and_in_order() {
    let cases =
        [(1, 1, 1, 1), (1, 1, 64, 1), (7, 1, 16, 1), (30, 1, 16, 1), (3, 1, 16, 2), (7, 3, 16, 1), (4, 4, 32, 2)];
    for (channels, channels_each, window, threads) in cases {
        let flood = Flood {
            subscribers: 30,
            channels,
            channels_each,
            window,
            pingers: 5,
            ping_every_ns: 5_000_000,
            ..Flood::default()
        };
        let tally = run(Scenario::Flood(flood), threads);
        check_faultless(&tally);
        assert_eq!(tally.connected, 35);
        assert!(tally.publishes > 0 && tally.events > 0, "{channels} channels: nothing arrived");
        assert!(tally.latencies["last"].count() > 0 && tally.latencies["ping"].count() > 0);
        assert!(tally.latencies["last"].max() >= tally.latencies["receipt"].quantile(0.5));
    }
}

#[test]
fn an_open_loop_sends_what_is_due() {
    let flood = Flood { subscribers: 10, rate: Some(500.0), ..Flood::default() };
    let tally = run(Scenario::Flood(flood), 1);
    check_faultless(&tally);
    assert!(tally.publishes.abs_diff(tally.owed) <= 1 + tally.owed / 20, "{} of {}", tally.publishes, tally.owed);
}

/// Latencies count from the time at which a publish was due, so they are those of the server only if it is sent on time.
#[test]
fn a_slow_open_loop_sends_on_time() {
    let flood = Flood { subscribers: 1, rate: Some(50.0), ..Flood::default() };
    // On a busy machine some are late. A timer that does not know when they are due is late with all of them.
    let least = (0..8).map(|_| run(Scenario::Flood(flood.clone()), 1).latencies["late"].quantile(0.0)).min().unwrap();
    assert!(least < 1_000_000, "all publishes are at least {least} ns late");
}

#[test]
fn publishes_without_subscribers_are_complete_when_answered() {
    let flood = Flood { window: 8, ..Flood::default() };
    let tally = run(Scenario::Flood(flood), 1);
    assert!(tally.events > 0);
    assert_eq!(tally.events, tally.publishes);
}

#[test]
fn signed_requests_are_answered_on_connections_that_stay_and_on_those_that_do_not() {
    for (batch, pipeline, requests_each, header) in
        [(1, 1, MANY, ""), (1, 4, MANY, ""), (10, 1, MANY, ""), (1, 1, 1, CLOSE), (10, 1, 1, CLOSE)]
    {
        let (address, requests) = http_server(requests_each, header);
        let flood = Flood { window: 30, ..Flood::default() };
        let target = Target::with_app("pusher", App { batch, pipeline, ..App::default() }).unwrap();
        let tally = measure(target, address, None, Scenario::Flood(flood), 1);
        assert!(tally.events > 0, "batch {batch}, pipeline {pipeline}, {requests_each} each: {:?}", tally.notes);
        check_faultless(&tally);
        let requests = requests.load(SeqCst);
        let published = tally.published as usize;
        assert!(requests >= published.div_ceil(batch) && requests <= published, "{requests} for {published}");
        assert!(batch == 1 || requests < published, "{requests} for {published}");
    }
}

const MANY: usize = usize::MAX;
const CLOSE: &str = "Connection: close\r\n";

/// Answers requests, and closes each connection after so many of them. Returns its address and the number of requests.
fn http_server(requests_each: usize, header: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counter) = (BufReader::new(stream.unwrap()), Arc::clone(&counter));
            std::thread::spawn(move || {
                for _ in 0..requests_each {
                    let mut length = 0;
                    let mut line = String::new();
                    while line != "\r\n" {
                        line.clear();
                        if !stream.read_line(&mut line).is_ok_and(|got| got > 0) {
                            return;
                        }
                        length = line.strip_prefix("Content-Length: ").map_or(length, |it| it.trim().parse().unwrap());
                    }
                    stream.read_exact(&mut vec![0; length]).unwrap();
                    counter.fetch_add(1, SeqCst);
                    let answer = format!("HTTP/1.1 200 OK\r\n{header}Content-Length: 2\r\n\r\n{{}}");
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    (address, requests)
}

#[test]
fn every_other_scenario_runs_against_the_floor() {
    let pings = run(Scenario::Ping(Ping { connections: 10, depth: 4 }), 1);
    assert!(pings.events > 0 && pings.latencies["ping"].count() > 0);
    assert_eq!(pings.duplicated, 0);
    assert!(run(Scenario::Connect(Connect { in_flight: 4, hold: 0 }), 1).events > 0);
    assert!(run(Scenario::Connect(Connect { in_flight: 4, hold: 8 }), 1).latencies.contains_key("all back"));
    let idle = Idle { connections: 10, channels: 8, each: 4, departure: None };
    assert_eq!(run(Scenario::Idle(idle.clone()), 1).connected, 10);
    for departure in [Departure::Reset, Departure::Reconnect] {
        let tally = run(Scenario::Idle(Idle { departure: Some(departure), ..idle.clone() }), 1);
        assert_eq!((tally.connected, tally.events, tally.refused), (10, 10, 0));
        let back = if departure == Departure::Reset { [0, 0] } else { [10, 1] };
        assert_eq!(["back", "all back"].map(|name| tally.latencies[name].count()), back);
    }
    for since in [false, true] {
        let recover = Recover { connections: 10, since, away: 0.05, rate: 500.0, size: 64 };
        let recover = run(Scenario::Recover(recover), 1);
        check_faultless(&recover);
        assert_eq!((recover.connected, recover.events), (10, 10));
        // The floor keeps nothing.
        assert_eq!(recover.counts.get("not_recovered").copied().unwrap_or_default(), if since { 10 } else { 0 });
    }
    let churn = Churn { connections: 10, channels: 3, reconnect: 0.1, rate: 2_000.0, size: 64 };
    let churn = run(Scenario::Churn(churn), 1);
    assert!(churn.events > 0);
    check_faultless(&churn);
}

#[test]
fn frames_cut_anywhere_arrive_whole() {
    let messages: Vec<Vec<u8>> = [5, 125, 126, 400, 70_000, 3].iter().map(|&len| vec![b'm'; len]).collect();
    let mut stream = format!(
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        tungstenite::handshake::derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")
    )
    .into_bytes();
    wire::push_unmasked(&mut stream, wire::TEXT, b"socket:connected");
    for message in &messages {
        wire::push_unmasked(&mut stream, wire::TEXT, message);
    }
    for cut in [13, 977, 100_000] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = stream.clone();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_nodelay(true).unwrap();
            assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
            for piece in bytes.chunks(cut) {
                socket.write_all(piece).unwrap();
            }
        });
        let mut net = Net::new(address, Arc::new(Target::named("corecast").unwrap())).unwrap();
        let mut seen = Collector::default();
        net.open(0);
        while !seen.is_closed {
            net.turn(&mut seen, Some(Duration::from_secs(5))).unwrap();
        }
        server.join().unwrap();
        assert!(seen.messages == messages, "cut every {cut} bytes");
    }
}

#[derive(Default)]
struct Collector {
    messages: Vec<Vec<u8>>,
    is_closed: bool,
}

impl Handler for Collector {
    fn opened(&mut self, _net: &mut Net, _id: usize, _connect_ns: u64) {}

    fn frame(&mut self, _net: &mut Net, _id: usize, payload: &[u8], _now: u64) {
        self.messages.push(payload.to_vec());
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, why: Ended) {
        assert_eq!(why, Ended::Closed(None));
        self.is_closed = true;
    }
}

fn check_faultless(tally: &Tally) {
    let faults = [tally.lost(), tally.unanswered, tally.duplicated, tally.reordered, tally.invalid, tally.disconnected];
    assert_eq!(faults, [0; 6], "{:?}", tally.notes);
}

/// Runs a scenario briefly against a floor of its own, and checks every message.
fn run(scenario: Scenario, threads: usize) -> Tally {
    let address = free_address().unwrap();
    let admin = std::env::temp_dir().join(format!("loadtest-test-{}-{}.sock", std::process::id(), address.port()));
    let path = admin.clone();
    // The floor serves until the test process ends.
    std::thread::spawn(move || floor::serve(address, Some(&path), false).unwrap());
    while !admin.exists() || std::net::TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let tally = measure(Target::named("floor").unwrap(), address, Some(admin.clone()), scenario, threads);
    let _ = std::fs::remove_file(admin);
    tally
}

fn measure(
    target: Target,
    address: SocketAddr,
    admin_socket: Option<PathBuf>,
    scenario: Scenario,
    threads: usize,
) -> Tally {
    let plan = Plan {
        admin_socket,
        // The floor's pongs are all the same, so their ids cannot be checked.
        verify: !matches!(scenario, Scenario::Ping(_)),
        threads,
        warmup_ns: 50_000_000,
        ..Plan::new(target, address, scenario, 400_000_000)
    };
    let controls = Controls::default();
    controls.go.store(true, SeqCst);
    loop {
        let tally = workers::run(&plan, None, &controls, |_| {}).unwrap().tally;
        // Once more if a worker stood still for all of the measured time.
        if tally.window_ns.len() == threads {
            return tally;
        }
    }
}
