//! The program against targets that are closed, silent, refuse, or deliver nothing: every run ends with a report, and its
//! exit status and `--expect` tell what was lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tungstenite::{Message, Utf8Bytes};

/// A run that takes longer than this is taken for endless. The longest takes about 10 s.
const ENDLESS: Duration = Duration::from_secs(120);

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn finish(child: Child, args: &[&str]) -> Output {
    let pid = child.id();
    let (ended, is_ended) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if is_ended.recv_timeout(ENDLESS).is_err() {
            signal(pid, "KILL");
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = ended.send(());
    watchdog.join().unwrap();
    assert!(output.status.code().is_some(), "does not end: {args:?}");
    output
}

fn load(args: &[&str]) -> Output {
    finish(start(args), args)
}

fn signal(pid: u32, name: &str) {
    Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How a target handles a connection.
#[derive(Clone, Copy)]
enum Target {
    /// Accepts it and sends nothing.
    Silent,
    /// Answers the upgrade with 503.
    Refusing,
    /// Upgrades one connection every half second.
    Slow,
    /// Confirms subscriptions, and delivers and answers nothing else.
    Deaf,
}

impl Target {
    /// Listens until the test ends.
    fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if matches!(self, Target::Slow) {
                    thread::sleep(Duration::from_millis(500));
                }
                thread::spawn(move || self.serve(stream));
            }
        });
        address
    }

    fn serve(self, mut stream: TcpStream) {
        match self {
            Target::Silent => drop(stream.read_to_end(&mut Vec::new())),
            Target::Refusing => {
                let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
                while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
            }
            Target::Slow | Target::Deaf => {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                let mut say = |text: &'static str| socket.send(Message::Text(Utf8Bytes::from_static(text)));
                if say(r#"{"event":"socket:connected"}"#).is_err() {
                    return;
                }
                while let Ok(message) = socket.read() {
                    if message.to_text().is_ok_and(|text| text.contains("socket:subscribe")) {
                        let _ = socket.send(Message::Text(Utf8Bytes::from_static(r#"{"event":"socket:subscribed"}"#)));
                    }
                }
            }
        }
    }
}

/// The path of a Unix socket, removed when dropped.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> SocketPath {
        SocketPath(std::env::temp_dir().join(format!("loadtest-faults-{}-{name}.sock", std::process::id())))
    }

    fn as_str(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A socket for publishers. Each line is answered, or none is.
fn admin_socket(name: &str, is_answered: bool) -> SocketPath {
    let path = SocketPath::new(name);
    let listener = UnixListener::bind(&path.0).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    if line.is_err() || is_answered && stream.write_all(b"{\"ok\":true}\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    path
}

/// A socket whose address refuses connections: it is bound, so that nothing else gets the port, and does not listen.
fn closed_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

#[test]
fn a_run_that_needs_too_many_processes_is_refused() {
    for args in [
        &["idle", "-n", "99999999"][..],
        &["fanout", "-n", "99999999", "--admin-socket", "/nonexistent"],
        &["connect", "--in-flight", "99999999"],
        &["ping", "-n", "10", "--processes", "100000"],
    ] {
        let output = load(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains("the limit is 64 processes"), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn every_scenario_ends_with_a_report_whatever_its_target_does() {
    let closed = closed_port();
    let refused = closed.local_addr().unwrap().as_socket().unwrap().to_string();
    let targets = [refused, Target::Silent.start(), Target::Refusing.start(), Target::Deaf.start()];
    let no_socket = ["--admin-socket", "/nonexistent"];
    let scenarios = [
        [&["fanout", "-n", "4"][..], &no_socket].concat(),
        [&["fanout", "-n", "4", "-r", "100", "--processes", "2"][..], &no_socket].concat(),
        [&["churn", "-n", "4"][..], &no_socket].concat(),
        vec!["ping", "-n", "4"],
        vec!["idle", "-n", "4"],
        vec!["connect", "--in-flight", "4"],
        vec!["connect", "--in-flight", "4", "--hold", "8"],
    ];
    thread::scope(|scope| {
        for target in &targets {
            let is_stalled = *target == targets[3];
            for scenario in &scenarios {
                // A target that only upgrades is enough for these.
                if is_stalled && ["idle", "connect"].contains(&scenario[0]) {
                    continue;
                }
                let args =
                    [&scenario[..], &["--connect", target, "-d", "0.3", "--warmup", "0", "--setup", "1"]].concat();
                scope.spawn(move || {
                    let output = load(&args);
                    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stderr));
                    let report = text(&output.stdout);
                    assert!(report.contains("everything was lost"), "{args:?}: {report}");
                });
            }
        }
    });
}

#[test]
fn the_first_interrupt_ends_setting_up_with_a_report() {
    let target = Target::Slow.start();
    for processes in ["1", "3"] {
        let args = ["idle", "-n", "3000", "--connect", &target, "--processes", processes, "--setup", "3000"];
        let mut child = start(&args);
        let mut stderr = child.stderr.take().unwrap();
        // It handles signals before it connects.
        while connections_to(&target) == 0 {
            thread::sleep(Duration::from_millis(10));
        }
        signal(child.id(), "INT");
        let output = finish(child, &args);
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert!(text(&output.stdout).contains("interrupted: these are the results so far"), "{processes}: {said}");
    }
}

/// Established connections to a local address, as the kernel lists them.
fn connections_to(address: &str) -> usize {
    let port = address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let remote = format!(":{port:04X} 01 ");
    std::fs::read_to_string("/proc/net/tcp").unwrap().lines().filter(|line| line.contains(&remote)).count()
}

#[test]
fn setting_up_ends_at_its_deadline() {
    let target = Target::Slow.start();
    let output =
        load(&["idle", "-n", "3000", "--connect", &target, "--setup", "2", "-d", "0.3", "--expect", "unconnected=0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("of 3000 connections were opened"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("unconnected=0"), "{}", text(&output.stderr));
}

#[test]
fn expectations_see_every_kind_of_loss() {
    let target = Target::Deaf.start();
    let (answers, silence) = (admin_socket("answers", true), admin_socket("silence", false));
    let (answers, silence) = (answers.as_str(), silence.as_str());
    let cases: [(&[&str], &str, &str); 6] = [
        (&["fanout", "-n", "2", "-w", "1"], answers, "lost=0"),
        (&["fanout", "-n", "2", "-r", "100"], answers, "lost=0"),
        // The second process does not publish, and sees nothing at all.
        (&["fanout", "-n", "2", "-r", "100", "--processes", "2"], answers, "lost=0"),
        (&["fanout", "-n", "2", "-r", "100"], silence, "unanswered=0"),
        (&["ping", "-n", "2"], silence, "unanswered=0"),
        (&["ping", "-n", "2"], silence, "p99<1s"),
    ];
    thread::scope(|scope| {
        for (scenario, socket, expect) in cases {
            let target = &target;
            scope.spawn(move || {
                let options = ["--connect", target, "--admin-socket", socket, "-d", "2", "--expect", expect];
                let args = [scenario, &options].concat();
                let output = load(&args);
                assert_eq!(output.status.code(), Some(1), "{args:?}");
                assert!(
                    text(&output.stderr).contains(&format!("✗ expected {expect}")),
                    "{args:?}: {}",
                    text(&output.stderr)
                );
            });
        }
    });
}

#[test]
fn a_target_may_be_given_by_name() {
    let socket = SocketPath::new("floor");
    let socket = socket.as_str();
    let mut floor = start(&["peer", "floor", "--listen", "127.0.0.1:0", "--admin-socket", socket]);
    let mut line = String::new();
    BufReader::new(floor.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().rsplit(':').next().unwrap();
    let name = format!("localhost:{port}");
    let output =
        load(&["fanout", "--target", "floor", "--connect", &name, "--admin-socket", socket, "-n", "2", "-d", "2"]);
    floor.kill().unwrap();
    floor.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn options_that_a_run_cannot_use_are_refused() {
    for args in [
        &["fanout", "-r", "0"][..],
        &["fanout", "-r", "nan"],
        &["fanout", "-c", "0"],
        &["fanout", "--channels-each", "0"],
        &["fanout", "-s", "27"],
        &["fanout", "-s", "99999999999"],
        &["fanout", "-d", "nan"],
        &["fanout", "-c", "5", "--first-channel", "4294967295"],
        &["fanout", "--target", "corecast-both", "--pusher-share", "2"],
        &["ping", "-d", "0"],
        &["ping", "--depth", "0"],
        &["ping", "--setup=-1"],
        &["ping", "--heartbeat", "inf"],
        &["connect", "--in-flight", "0"],
        &["churn", "-c", "0"],
        &["churn", "--reconnect", "1.5"],
        &["fanout", "--start", "--connect", "127.0.0.1:9000"],
        &["fanout", "--start", "--admin-socket", "/nonexistent"],
        &["fanout", "--start", "--server-pid", "1"],
        &["mixed", "--duration", "0"],
        &["mixed", "--pingers", "0"],
        &["slow", "-n", "0"],
        &["storm", "-c", "0"],
        &["storm", "--slower-max", "nan"],
        &["depart", "-n", "0"],
        &["recover", "--away=-1"],
        &["presence", "-r", "nan"],
        &["conflate", "--reads", "0"],
        &["soak", "-d", "0"],
        &["compare", "--seconds", "0"],
    ] {
        let output = load(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("invalid value") || said.contains("cannot be used with"), "{args:?}: {said}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_run() {
    for (scenario, option) in [
        (&["idle", "--connect", "127.0.0.1:1"][..], "--report"),
        (&["mixed"], "--report"),
        (&["compare", "--against", env!("CARGO_BIN_EXE_loadtest")], "--json-out"),
        (&["compare", "--peers", "floor", "--json-out", "/dev/null"], "--chart-out"),
    ] {
        let output = load(&[scenario, &[option, "/nonexistent/file"]].concat());
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
        assert!(text(&output.stderr).contains(&format!("{option} /nonexistent/file: No such file")), "{output:?}");
    }
}

#[test]
fn results_that_cannot_be_printed_are_an_error() {
    let target = Target::Deaf.start();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for json in [&[][..], &["--json"]] {
        let args = [&["idle", "-n", "1", "-d", "0.3", "--warmup", "0", "--connect", &target][..], json].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        let child = command.args(&args).stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let output = finish(child, &args);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("loadtest: the results cannot be written to standard output: No space left"), "{said}");
    }
}
