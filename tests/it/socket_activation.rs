//! Socket activation: the tests hold listening sockets as a service manager does, and pass them to server after server.

use crate::harness::{
    Admin, Client, LONG, Options, RawClient, Server, TempDir, UPGRADE_REQUEST, eventually, for_shards, over_tls,
};
use crate::http::Http;
use crate::transport::Transport;
use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

for_shards!(
    no_connect_is_refused_and_no_upgrade_fails_during_restarts,
    connections_that_come_during_a_drain_wait_for_the_next_server,
    another_server_on_the_same_socket_gets_those_that_drain,
);
over_tls!(
    no_connect_is_refused_and_no_upgrade_fails_during_restarts,
    another_server_on_the_same_socket_gets_those_that_drain,
);

/// A listening socket of a free port.
fn hold() -> (Arc<Socket>, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("socket option");
    hold_at(socket, ([127, 0, 0, 1], 0).into())
}

fn hold_at(socket: Socket, address: SocketAddr) -> (Arc<Socket>, SocketAddr) {
    socket.bind(&address.into()).expect("a free port");
    socket.listen(1024).expect("a bound socket");
    let address = socket.local_addr().expect("a bound socket").as_socket().expect("an IP address");
    (Arc::new(socket), address)
}

fn hold_path(path: &Path) -> Arc<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::unix(path).expect("a path")).expect("a free path");
    socket.listen(16).expect("a bound socket");
    Arc::new(socket)
}

/// Connects, upgrades and reads the first message. A refused connection fails the test. Returns whether the rest succeeded.
fn attempt(address: SocketAddr) -> Result<(), String> {
    let stream = TcpStream::connect_timeout(&address, LONG).expect("no connection is refused");
    stream.set_read_timeout(Some(LONG)).expect("socket option");
    let upgraded = tungstenite::client("ws://127.0.0.1/", Transport::over(stream)).map_err(|error| error.to_string());
    let (mut socket, _) = upgraded?;
    socket.read().map(drop).map_err(|error| error.to_string())
}

fn no_connect_is_refused_and_no_upgrade_fails_during_restarts(shards: usize) {
    let (socket, address) = hold();
    let options = || Server::options(shards).pass(&socket, "clients");
    // Servers that have ended are kept: clients use TLS while one of them is there.
    let mut servers = vec![options().start()];
    assert_eq!(servers[0].address, address);
    let (is_done, connected) = (AtomicBool::new(false), AtomicU32::new(0));
    let connect = || {
        while !is_done.load(SeqCst) {
            let begin = Instant::now();
            match attempt(address) {
                Ok(()) => drop(connected.fetch_add(1, SeqCst)),
                // A server that stops waits half a second for an upgrade: only a client that stalls takes longer.
                Err(_) if begin.elapsed() > UPGRADE_TIME => {}
                Err(error) => panic!("after {:?}: {error}", begin.elapsed()),
            }
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(connect)).collect();
        let goes_on = || {
            let before = connected.load(SeqCst);
            let is_over = || clients.iter().any(|client| client.is_finished());
            eventually("clients connect", || connected.load(SeqCst) > before + 10 || is_over());
        };
        for _ in 0..4 {
            goes_on();
            assert_eq!(servers.last_mut().expect("a server").terminate().code(), Some(0));
            servers.push(options().start());
        }
        goes_on();
        is_done.store(true, SeqCst);
    });
}

/// Connections with an upgrade request sent.
fn request_upgrades(address: SocketAddr, count: usize) -> Vec<RawClient> {
    let request = |_| {
        let mut client = RawClient::over(TcpStream::connect(address).expect("no connection is refused"));
        client.write(UPGRADE_REQUEST.as_bytes());
        client
    };
    (0..count).map(request).collect()
}

fn expect_upgrades(clients: &mut [RawClient]) {
    for client in clients {
        assert!(client.head().starts_with("HTTP/1.1 101"));
        client.expect_connected();
    }
}

fn begin_drain(server: &Server) {
    server.signal(Signal::TERM);
    eventually("it drains", || server.stderr().contains("draining"));
}

fn connections_that_come_during_a_drain_wait_for_the_next_server(shards: usize) {
    let (socket, address) = hold();
    let options = || Server::options(shards).arg("--drain-timeout", 1).pass(&socket, "clients");
    let mut first = options().start();
    let mut staying: Vec<Client> = (0..10).map(|_| Client::connect(&first)).collect();
    begin_drain(&first);
    let mut early = request_upgrades(address, 5);
    assert_eq!(first.wait().code(), Some(0));
    staying.iter_mut().for_each(|client| drop(client.expect_close(1012)));
    let mut late = request_upgrades(address, 5);
    let mut second = options().start();
    expect_upgrades(&mut early);
    expect_upgrades(&mut late);
    assert_eq!(second.terminate().code(), Some(0));
}

fn another_server_on_the_same_socket_gets_those_that_drain(shards: usize) {
    let (socket, address) = hold();
    let options = || Server::options(shards).arg("--drain-timeout", 2).pass(&socket, "clients");
    let (mut first, second) = (options().start(), options().start());
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect_to(address)).collect();
    let mut admin = Admin::connect(&second);
    let mut served = || {
        let stats = admin.stats();
        stats["connections"].as_u64().expect("a number") as usize
    };
    let before = served();
    begin_drain(&first);
    let moved: Vec<Client> = (0..20).map(|_| Client::connect_to(address)).collect();
    assert_eq!(served(), before + moved.len());
    assert_eq!(first.wait().code(), Some(0));
    let is_closed = |client: &mut Client| {
        let _ = client.try_send(r#"{"event":"socket:ping"}"#);
        client.message().is_close()
    };
    let closed = clients.iter_mut().map(is_closed).filter(|is_closed| *is_closed).count();
    assert_eq!(closed, clients.len() - before);
}

/// The connections of each shard.
fn of_each_shard(server: &Server) -> Vec<u64> {
    let body = Http::connect(server).get("/metrics").body;
    let lines = body.lines().filter_map(|line| line.strip_prefix("corecast_connections{"));
    lines.map(|line| line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")).collect()
}

/// Connects clients, slowly, until each shard has some.
#[track_caller]
fn check_spread(server: &Server) {
    let mut clients = Vec::new();
    while clients.len() < 1200 {
        for _ in 0..200 {
            clients.push(Client::connect(server));
            thread::sleep(Duration::from_millis(1));
        }
        let mut counts = Vec::new();
        // The HTTP thread asks the shards at most twice a second.
        eventually("all are counted", || {
            counts = of_each_shard(server);
            counts.iter().sum::<u64>() == clients.len() as u64
        });
        if counts.iter().all(|count| *count >= 20) {
            return;
        }
    }
    panic!("{:?}", of_each_shard(server));
}

#[test]
fn clients_of_a_shared_socket_are_spread_over_the_shards() {
    let (socket, _) = hold();
    check_spread(&Server::options(4).arg("--http", "127.0.0.1:0").pass(&socket, "clients").start());
}

#[test]
fn each_shard_can_have_a_socket_of_its_own() {
    let (first, address) = hold();
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    other.set_reuse_port(true).expect("socket option");
    let (second, _) = hold_at(other, address);
    let options = |shards| Server::options(shards).pass(&first, "clients").pass(&second, "clients");
    check_spread(&options(2).arg("--http", "127.0.0.1:0").start());
    let (status, said) = options(4).fail();
    assert!(!status.success() && said.contains("2 sockets for clients, and the server has 4 shards"), "{said}");
}

#[test]
fn http_and_the_admin_socket_can_be_passed_too() {
    let dir = TempDir::new();
    let path = dir.path().join("passed.sock");
    let (admin, (http, http_address)) = (hold_path(&path), hold());
    let options = || Server::options(1).admin_socket(&path).pass(&http, "http").pass(&admin, "x.socket");
    let mut first = options().arg("--http", "127.0.0.1:0").start();
    assert_eq!(first.http(), http_address);
    assert_eq!(Http::connect(&first).get("/live").status, 200);
    // The last line of the start.
    eventually("the start is logged", || first.stderr().contains("the console is at"));
    let said = first.stderr();
    assert!(
        said.contains("--listen: no socket was passed") && said.contains("--http 127.0.0.1:0 is not used"),
        "{said}"
    );
    assert!(said.contains("every user of this machine may use the admin socket") == is_open_to_all(&path), "{said}");
    Admin::connect(&first).publish("c", "e", json!(1));
    first.terminate();
    // While no server runs, publishers and HTTP clients wait.
    let mut publisher = Admin::connect_to(&path);
    publisher.send(r#"{"id":1,"command":"publish","channel":"c","event":"e","data":1}"#);
    let client = thread::spawn(move || {
        let stream = TcpStream::connect(http_address).expect("the socket is held");
        Http::over(stream).get("/live").status
    });
    let mut second = options().arg("--http", http_address).start();
    assert_eq!(publisher.line(), r#"{"id":1,"ok":true,"subscribers":0}"#);
    assert_eq!(client.join().expect("an answer"), 200);
    drop(publisher);
    second.terminate();
    assert!(path.exists());
    let unused = dir.path().join("unused.sock");
    let third = Server::options(1).admin_socket(&unused).pass(&admin, "admin").start();
    let said = third.stderr();
    assert!(said.contains(&format!("admin socket {}, http", path.display())), "{said}");
    assert!(!unused.exists());
}

fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("a socket").permissions().mode() & 2 != 0
}

#[test]
fn sockets_that_fit_no_option_are_refused() {
    let (tcp, address) = hold();
    let dir = TempDir::new();
    let unix = hold_path(&dir.path().join("other.sock"));
    let datagram = Arc::new(Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket"));
    let idle = Arc::new(Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket"));
    let check = |options: Options, expected: &str| {
        let (status, said) = options.fail();
        assert!(status.code() == Some(1) && said.contains(expected), "not {expected:?}: {said}");
    };
    let options = || Server::options(1);
    check(options().pass(&tcp, "web"), &format!("\"web\" at {address}: no option has this address"));
    check(options().pass(&unix, ""), "no option has this address");
    check(options().pass(&unix, "clients"), "must be an address and a port");
    check(options().pass(&tcp, "admin"), "must be a path");
    check(options().pass(&tcp, "http"), "--http is off");
    check(options().pass(&unix, "admin").pass(&unix, "admin"), "second one for the admin socket");
    check(options().pass(&datagram, "clients"), "ListenStream= is the only kind");
    check(options().pass(&idle, "clients"), "Accept= must be off");
    for count in ["one", "-1", "1 ", "99999999999"] {
        let options = options().pass(&tcp, "clients").env("LISTEN_FDS", Path::new(count));
        check(options, &format!("LISTEN_FDS is {count:?}"));
    }
}

#[test]
fn sockets_of_another_process_are_left_alone() {
    let server = Server::options(1).env("LISTEN_PID", Path::new("1")).env("LISTEN_FDS", Path::new("1")).start();
    eventually("a warning", || server.stderr().contains("LISTEN_PID is 1, but this process is "));
    Client::connect(&server);
}

/// A part of the time that a server that stops gives to upgrades.
const UPGRADE_TIME: Duration = Duration::from_millis(300);
