//! Start and stop of the server, and what prevents either.

use crate::harness::{
    Admin, Client, RawClient, Server, Stderr, TempDir, corecast, eventually, for_shards, output, shortened, subscribe,
    subscribed, text_frame,
};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tungstenite::protocol::Message;

for_shards!(
    sigterm_closes_with_1012_and_exits_with_0,
    sigint_stops_the_server_like_sigterm,
    two_signals_for_one_ctrl_c_end_the_server_gracefully,
    what_was_acknowledged_arrives_before_the_close,
    unresponsive_clients_do_not_delay_the_stop,
    a_second_server_on_the_port_names_the_address,
    a_second_server_on_the_admin_socket_names_it,
    a_stale_admin_socket_is_replaced,
    the_admin_socket_is_removed_at_exit,
    a_client_that_disappeared_is_not_a_subscriber,
);

fn sigterm_closes_with_1012_and_exits_with_0(shards: usize) {
    let mut server = Server::start(shards);
    let _port = server.keep_port();
    let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("c");
    }
    let mut admin = Admin::connect(&server);
    assert_eq!(admin.publish("c", "e", json!("last")), 12);
    server.signal(Signal::TERM);
    for client in &mut clients {
        client.expect(r#"{"event":"e","channel":"c","data":"last"}"#);
        client.expect_close(1012);
        assert!(matches!(client.try_message(), Err(tungstenite::Error::ConnectionClosed)));
    }
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(admin.try_line(), None, "the admin connection ends with the server");
    assert!(std::net::TcpStream::connect(server.address).is_err(), "the port is closed");
}

fn sigint_stops_the_server_like_sigterm(shards: usize) {
    let mut server = Server::start(shards);
    let mut client = Client::connect(&server);
    server.signal(Signal::INT);
    client.expect_close(1012);
    drop(client);
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

/// A terminal signals a whole process group, and a wrapper forwards the signal.
fn two_signals_for_one_ctrl_c_end_the_server_gracefully(shards: usize) {
    let mut server = Server::start(shards);
    let mut client = Client::connect(&server);
    // Without a reply to its close frame the server still runs when the second signal comes.
    let _mute = RawClient::connect(&server);
    // Both are delivered together, however busy the machine is.
    server.signal(Signal::STOP);
    server.signal(Signal::INT);
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    client.expect_close(1012);
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn signals_at_the_start_are_neither_lost_nor_fatal() {
    for signals in [&[Signal::HUP][..], &[Signal::TERM], &[Signal::INT], &[Signal::HUP, Signal::TERM]] {
        // The server waits 10 s for its configuration; a machine that stalls for so long gets another try.
        let stalled = |text: &str| text.contains("not read within 10s");
        let text = (0..5).map(|_| start_with(signals)).find(|text| !stalled(text));
        assert!(text.is_some(), "{signals:?}: the machine stalled in each try");
    }
}

/// Signals a server that reads its configuration from a FIFO, so that the test decides how long its start takes. Returns its
/// stderr.
fn start_with(signals: &[Signal]) -> String {
    let dir = TempDir::new();
    let fifo = dir.path().join("corecast.toml");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).expect("a FIFO");
    let mut command = corecast(&["serve", "--listen", "127.0.0.1:0", "--http", "off", "--shards", "1"]);
    command.args(["--pin", "none", "--config"]).arg(&fifo).arg("--admin-socket").arg(dir.path().join("admin.sock"));
    let mut server = command.stderr(Stdio::piped()).spawn().expect("the server's binary starts");
    let stderr = Stderr::drain(server.stderr.take().expect("stderr is piped"));
    let signal = |signal| kill_process(Pid::from_child(&server), signal).expect("the server still runs");
    // The FIFO can be opened for writing once the server reads it.
    let mut writer = None;
    let write = OFlags::WRONLY | OFlags::NONBLOCK;
    eventually("the server reads its configuration", || {
        writer = rustix::fs::open(&fifo, write, Mode::empty()).ok();
        writer.is_some() || stderr.text().contains("error: ")
    });
    signals.iter().copied().for_each(signal);
    drop(writer);
    if stderr.wait_for_address().is_some() {
        if signals == [Signal::HUP] {
            let reloaded = |text: &str| text.contains("the configuration stays as it was").then_some(());
            assert!(stderr.wait_for(reloaded).is_some(), "the reload is done: {}", stderr.text());
            signal(Signal::TERM);
        }
        assert!(stderr.wait_for_end(), "{signals:?}: it does not end: {}", stderr.text());
        assert_eq!(server.wait().expect("a child can be waited for").code(), Some(0), "{signals:?}: {}", stderr.text());
    } else {
        let status = server.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(2), "{signals:?}: it does not start: {status}: {}", stderr.text());
    }
    stderr.text()
}

/// SIGTERM in the middle of a stream of publishes: every subscriber receives at least what was acknowledged, without a gap.
fn what_was_acknowledged_arrives_before_the_close(shards: usize) {
    const ENOUGH: usize = 500;
    // No deadline cuts anything off, however slow this machine is.
    let mut server = Server::options(shards).arg("--shutdown-timeout", 3600).start();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("c");
    }
    let (mut writer, replies) = Admin::connect(&server).split();
    let acknowledged = AtomicUsize::new(0);
    let heard: Vec<usize> = thread::scope(|scope| {
        let acknowledged = &acknowledged;
        let listeners: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let mut next = 0;
                    loop {
                        match client.message() {
                            Message::Text(text) => {
                                let expected = format!(r#"{{"event":"e","channel":"c","data":{next}}}"#);
                                assert_eq!(text.as_str(), expected, "a gap");
                                next += 1;
                            }
                            Message::Close(Some(frame)) => {
                                assert_eq!(u16::from(frame.code), 1012, "{frame}");
                                return next;
                            }
                            other => panic!("unexpected {other:?}"),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            for n in 0..10_000 {
                let line =
                    format!("{{\"id\":{n},\"command\":\"publish\",\"channel\":\"c\",\"event\":\"e\",\"data\":{n}}}\n");
                if writer.write_all(line.as_bytes()).is_err() {
                    break;
                }
            }
        });
        scope.spawn(move || {
            for (n, line) in replies.lines().map_while(Result::ok).enumerate() {
                // A refusal during the stop is not an acknowledgement.
                if line.starts_with(&format!(r#"{{"id":{n},"ok":true,"#)) {
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        eventually("publishes are acknowledged", || acknowledged.load(Ordering::SeqCst) >= ENOUGH);
        server.signal(Signal::TERM);
        listeners.into_iter().map(|thread| thread.join().expect("a listener")).collect()
    });
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    for heard in heard {
        assert!(heard >= acknowledged, "heard {heard} of {acknowledged} acknowledged publishes");
    }
}

fn unresponsive_clients_do_not_delay_the_stop(shards: usize) {
    let mut server = Server::start(shards);
    // One never answers the close frame, one is in mid-frame, one in mid-upgrade, one sent nothing; an admin is in mid-line.
    let mut mute = RawClient::connect(&server);
    let mut half = RawClient::connect(&server);
    half.write(&text_frame("{}")[..5]);
    let mut upgrading = RawClient::tcp(&server);
    upgrading.write(b"GET / HTTP/1.1\r\n");
    let silent = RawClient::tcp(&server);
    let mut admin = Admin::connect(&server);
    admin.write("{\"id\":1,");
    let status = server.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    let (_, payload) = mute.frame();
    assert_eq!(payload[..2], 1012_u16.to_be_bytes());
    drop((half, silent));
}

fn a_second_server_on_the_port_names_the_address(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let (status, stderr) = Server::options(shards).listen(server.address).fail();
    assert!(!status.success(), "{status}");
    assert!(stderr.contains(&server.address.to_string()), "stderr does not name {}:\n{stderr}", server.address);
    // The first server is not affected.
    client.expect_nothing_before_pong();
    for _ in 0..8 {
        Client::connect(&server).expect_nothing_before_pong();
    }
}

fn a_second_server_on_the_admin_socket_names_it(shards: usize) {
    let server = Server::start(shards);
    let (status, stderr) = Server::options(shards).admin_socket(&server.admin_path).fail();
    assert!(!status.success(), "{status}");
    let path = server.admin_path.display().to_string();
    assert!(stderr.contains(&path), "stderr does not name {path}:\n{stderr}");
    // The first server still serves the socket.
    let mut client = Client::connect(&server);
    client.subscribe("c");
    assert_eq!(Admin::connect(&server).publish("c", "e", json!(1)), 1);
}

fn a_stale_admin_socket_is_replaced(shards: usize) {
    let dir = TempDir::new();
    let path = dir.path().join("admin.sock");
    drop(UnixListener::bind(&path).expect("a socket file"));
    // A program that another thread starts meanwhile inherits the listener for a moment.
    eventually("the socket is stale", || UnixStream::connect(&path).is_err());
    let mut server = Server::options(shards).admin_socket(&path).start();
    assert_eq!(Admin::connect(&server).request(json!({"id": 1, "command": "ping"})), json!({"id": 1, "ok": true}));
    // A killed server leaves its socket behind.
    server.signal(Signal::KILL);
    server.wait();
    assert!(path.exists(), "a killed server removes nothing");
    let server = Server::options(shards).admin_socket(&path).start();
    assert_eq!(Admin::connect(&server).request(json!({"id": 2, "command": "ping"})), json!({"id": 2, "ok": true}));
}

fn the_admin_socket_is_removed_at_exit(shards: usize) {
    let dir = TempDir::new();
    let path = dir.path().join("admin.sock");
    let mut server = Server::options(shards).admin_socket(&path).start();
    assert!(path.exists());
    assert_eq!(server.terminate().code(), Some(0));
    assert!(!path.exists(), "{} is left behind", path.display());
}

fn a_client_that_disappeared_is_not_a_subscriber(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut stays = Client::connect(&server);
    stays.subscribe("c");
    for _ in 0..20 {
        // The client disappears in mid-frame, with unanswered subscribes.
        let mut client = RawClient::connect(&server);
        client.write(&text_frame(&subscribe("c")));
        client.expect(&subscribed("c"));
        client.write(&[text_frame(&subscribe("d")), text_frame(&subscribe("e")), vec![0x81]].concat());
    }
    eventually("no client that disappeared is counted", || {
        ["c", "d", "e"].map(|channel| admin.subscribers(channel)) == [1, 0, 0]
    });
    assert_eq!(admin.publish("c", "e", json!(1)), 1);
    stays.expect(r#"{"event":"e","channel":"c","data":1}"#);
}

/// The limit of processes counts threads. RLIMIT_NPROC does not hold for root, so the server runs as another user.
#[test]
fn without_threads_the_server_ends_with_an_error_and_not_with_a_panic() {
    if !rustix::process::getuid().is_root() {
        return eprintln!("SKIPPED: only root can start a process of another user");
    }
    // A user of this test's own: the processes of a user count together.
    let user = 100_000 + std::process::id() % 100_000;
    let dir = TempDir::new();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("our own directory");
    for limit in 1..=16 {
        let script = format!("ulimit -u {limit}; exec \"$@\"");
        let binary = env!("CARGO_BIN_EXE_corecast");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", binary, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.args([
            "--shards",
            "2",
            "--pin",
            "none",
            "--key",
            "a:0123456789abcdef",
            "--webhook",
            "http://localhost:1/",
        ]);
        command.arg("--admin-socket").arg(dir.path().join("admin.sock")).uid(user).stderr(Stdio::piped());
        let mut server = command.spawn().expect("the server's binary starts");
        let stderr = Stderr::drain(server.stderr.take().expect("stderr is piped"));
        let Some(address) = stderr.wait_for_address() else {
            let status = server.wait().expect("a child can be waited for");
            let text = stderr.text();
            assert!(!text.contains("panicked"), "{limit}: {text}");
            assert_eq!(status.code(), Some(1), "{limit}: {status}: {text}");
            assert!(text.contains("error: cannot start a thread; raise the limit of processes"), "{limit}: {text}");
            continue;
        };
        assert!(limit > 1, "one thread is not enough");
        // The webhook looks up a name.
        let mut client = Client::connect_to(address);
        client.subscribe("c");
        let failed = |text: &str| text.contains("localhost").then_some(());
        assert!(stderr.wait_for(failed).is_some(), "{limit}: {}", stderr.text());
        kill_process(Pid::from_child(&server), Signal::TERM).expect("the server still runs");
        client.expect_close(1012);
        drop(client);
        assert_eq!(server.wait().expect("a child can be waited for").code(), Some(0), "{limit}: {}", stderr.text());
        return;
    }
    panic!("the server does not start with 16 threads");
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let dir = TempDir::new();
    let path = dir.path().join("precious");
    std::fs::write(&path, "precious").expect("a file");
    let (status, stderr) = Server::options(1).admin_socket(&path).fail();
    assert!(!status.success(), "{status}");
    assert!(stderr.contains(&path.display().to_string()), "stderr does not name {}:\n{stderr}", path.display());
    assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), "precious");
}

#[test]
fn bad_usage_exits_with_2() {
    for args in [
        &["serve", "--listen", "nonsense"][..],
        &["serve", "--listen", "127.0.0.1"],
        &["serve", "--listen", "127.0.0.1:99999"],
        &["serve", "--shards", "many"],
        &["serve", "--server-ping", "perhaps"],
        &["serve", "--no-such-flag"],
        &["no-such-command"],
    ] {
        let output = output(corecast(args), b"");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}\n{stderr}", output.status);
        assert!(!stderr.trim().is_empty(), "{args:?} says nothing");
        let wrong = args.last().expect("an argument");
        assert!(stderr.contains(wrong), "{args:?} does not name {wrong}: {}", shortened(&stderr));
    }
}

/// If stderr is not read, lines are dropped and counted, and no shard waits.
#[test]
fn a_log_that_is_not_read_delays_no_shard() {
    let dir = TempDir::new();
    let path = dir.path().join("admin.sock");
    let mut command =
        corecast(&["serve", "--listen", "127.0.0.1:0", "--http", "off", "--log", "debug", "--shards", "2"]);
    let mut child = command
        .args(["--admin-socket".as_ref(), path.as_os_str()])
        .args(["--max-subscribes-per-second", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server's binary starts");
    let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
    let address = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("the log can be read") > 0, "the server has ended");
        if let Some((_, rest)) = line.split_once("listening on ") {
            break rest.split(' ').next().expect("an address").to_owned();
        }
    };
    let mut admin = Admin::connect_to(&path);
    // Each of these is a line at level debug; the pipe holds 64 KiB, and the queue has a limit, too.
    let mut client = RawClient::over(TcpStream::connect(&address).expect("the server accepts"));
    client.upgrade();
    let unsigned = text_frame(r#"{"event":"socket:subscribe","data":{"channel":"private-a","auth":"none:0"}}"#);
    let is_dropping = (0..60).any(|_| {
        client.write(&unsigned.repeat(500));
        let mut replies = (0..500).map(|_| client.text());
        assert!(replies.all(|reply| reply.contains(r#""code":"auth_invalid""#)));
        let stats = admin.stats();
        stats["log_lines_dropped"] != 0
    });
    assert!(is_dropping, "all of 30 000 lines are kept");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("the server still runs");
    let said = std::io::read_to_string(child.stdout.take().expect("a pipe")).expect("stdout can be read");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(said, "");
}

/// The server goes on even if its log cannot be written.
#[test]
fn a_full_disk_for_the_log_does_not_end_the_server() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let dir = TempDir::new();
    let path = dir.path().join("admin.sock");
    let mut command =
        corecast(&["serve", "--listen", "127.0.0.1:0", "--http", "off", "--log", "debug", "--shards", "1"]);
    let mut child = command.arg("--admin-socket").arg(&path).stderr(full).spawn().expect("the server's binary starts");
    eventually("the server answers", || UnixStream::connect(&path).is_ok());
    Admin::connect_to(&path).ok(json!({"id": 1, "command": "ping"}));
    assert!(child.try_wait().expect("a child can be waited for").is_none(), "the server has ended");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("the server still runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
