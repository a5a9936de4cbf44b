//! A server process, clients of three kinds, and the waits between them.

use crate::transport::{self, Pair, Transport};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use tungstenite::WebSocket;
use tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};

/// Turns each `fn script(shards: usize)` into three tests, so that a failure names the shard count. `and_over_tls` adds a
/// fourth, whose server has two shards and speaks TLS.
macro_rules! for_shards {
    (and_over_tls, $($script:ident),+ $(,)?) => {
        $crate::harness::for_shards!($($script),+);
        $crate::harness::over_tls!($($script),+);
    };
    ($($script:ident),+ $(,)?) => {
        mod with_1_shard { $(#[test] fn $script() { super::$script(1); })+ }
        mod with_2_shards { $(#[test] fn $script() { super::$script(2); })+ }
        mod with_4_shards { $(#[test] fn $script() { super::$script(4); })+ }
    };
}
pub(crate) use for_shards;

/// Only the fourth test, over TLS.
macro_rules! over_tls {
    ($($script:ident),+ $(,)?) => {
        mod over_tls { $(#[test] fn $script() { $crate::transport::over_tls(|| super::$script(2)); })+ }
    };
}
pub(crate) use over_tls;

/// A running server. Killed on drop; a failing test prints what it wrote to stderr.
pub struct Server {
    child: Child,
    stderr: Arc<Stderr>,
    pub address: SocketAddr,
    pub admin_path: PathBuf,
    /// Its configuration file, if it was given a text for one.
    config: Option<PathBuf>,
    /// Its certificate and key, if it speaks TLS.
    pub pair: Option<Pair>,
    dirs: Vec<TempDir>,
}

/// How to start a server; see [`Server::options`].
#[derive(Clone)]
pub struct Options {
    shards: usize,
    listen: String,
    admin_path: Option<PathBuf>,
    args: Vec<String>,
    /// The text of its configuration file.
    config: Option<String>,
    env: Vec<(String, PathBuf)>,
    /// Sockets to pass as a service manager does, with their names.
    passed: Vec<(Arc<Socket>, String)>,
    leaves_pin: bool,
    is_secure: bool,
    leaves_http: bool,
}

impl Server {
    /// A server with this many shards and otherwise the documented defaults, but that it sends no heartbeats, and closes no client
    /// for its silence within the time of a test.
    pub fn start(shards: usize) -> Server {
        Server::options(shards).start()
    }

    /// The options of [`Server::start`], to which a test can add.
    pub fn options(shards: usize) -> Options {
        Options {
            shards,
            listen: "127.0.0.1:0".into(),
            admin_path: None,
            args: Vec::new(),
            config: None,
            env: Vec::new(),
            passed: Vec::new(),
            leaves_pin: false,
            is_secure: transport::is_over_tls(),
            leaves_http: false,
        }
    }

    /// Its counters and gauges, of all shards together.
    #[track_caller]
    pub fn stats(&self) -> Value {
        Admin::connect(self).stats()
    }

    /// One of them.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        Admin::connect(self).stat(name)
    }

    /// The address of its HTTP listener.
    pub fn http(&self) -> SocketAddr {
        let stderr = self.stderr();
        let (_, rest) = stderr.split_once(", http ").expect("the line that says where the server listens");
        rest.split(')').next().and_then(|address| address.parse().ok()).expect("an address of HTTP")
    }

    /// Reserves the port after the server has closed it, until the result is dropped. Connections to the port are refused
    /// meanwhile.
    pub fn keep_port(&self) -> Socket {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("socket option");
        socket.set_reuse_port(true).expect("socket option");
        socket.bind(&self.address.into()).expect("a port that is shared");
        socket
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        self.config.as_deref().expect("a configuration file")
    }

    /// The directory of its configuration file.
    pub fn config_dir(&self) -> &Path {
        self.config().parent().expect("the file's directory")
    }

    /// Replaces the text of its configuration file.
    pub fn write_config(&self, text: impl AsRef<str>) {
        std::fs::write(self.config(), text.as_ref()).expect("a temporary file");
    }

    /// What the server has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the server still runs");
    }

    /// Whether every thread has been stopped by a signal (proc_pid_stat(5): state `T`, behind the name in parentheses).
    pub fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the server still runs");
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
        })
    }

    /// CPU time of the process, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("/proc of the server");
        // Behind the name in parentheses: the state, ten numbers, then the time in user and in system mode (proc(5)).
        let (_, numbers) = stat.rsplit_once(") ").expect("a name");
        numbers.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// Resident memory of the process.
    pub fn memory_bytes(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// Descriptors that the kernel's table has places for.
    pub fn descriptor_places(&self) -> u64 {
        self.status("FDSize:")
    }

    /// A number of proc_pid_status(5).
    fn status(&self, name: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the server still runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for the end of the process and of its stderr, at most [`LONG`].
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_child(&mut self.child).unwrap_or_else(|| panic!("the server did not end within {LONG:?}"));
        assert!(self.stderr.wait_for_end(), "the server has ended, and its stderr has not");
        status
    }

    /// Runs a client subcommand against this server's admin socket.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, b"")
    }

    /// As [`Server::run`], with bytes on its stdin.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = corecast(args);
        command.arg("--admin-socket").arg(&self.admin_path);
        output(command, input)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.stderr.wait_for_end();
            eprintln!("--- stderr of the server ---\n{}--- end of stderr ---", self.stderr());
        }
        transport::speaks_no_more(self.address);
        self.dirs.clear();
    }
}

impl Options {
    /// Adds a flag and its value.
    pub fn arg(mut self, flag: &str, value: impl ToString) -> Options {
        self.args.push(flag.into());
        self.args.push(value.to_string());
        self
    }

    /// Gives it a configuration file with this text, which [`Server::write_config`] replaces.
    pub fn config(mut self, text: impl Into<String>) -> Options {
        self.config = Some(text.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &Path) -> Options {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Passes it a listening socket, as a service manager does: one or two, since a process is started with its stdin and stdout.
    pub fn pass(mut self, socket: &Arc<Socket>, name: &str) -> Options {
        self.passed.push((socket.clone(), name.into()));
        self
    }

    /// Leaves `--pin` to other sources; otherwise shards are not pinned, so that servers side by side share the cores.
    pub fn without_pin(mut self) -> Options {
        self.leaves_pin = true;
        self
    }

    /// Speaks TLS, with a certificate of its own.
    pub fn secure(mut self) -> Options {
        self.is_secure = true;
        self
    }

    /// Leaves `--http` to its default; otherwise HTTP is off unless a test gives an address, so that servers side by side
    /// do not compete for the default.
    pub fn with_default_http(mut self) -> Options {
        self.leaves_http = true;
        self
    }

    /// Sets the listening address.
    pub fn listen(mut self, listen: impl ToString) -> Options {
        self.listen = listen.to_string();
        self
    }

    /// Sets the path of the admin socket, which otherwise lies in a directory of its own.
    pub fn admin_socket(mut self, path: impl Into<PathBuf>) -> Options {
        self.admin_path = Some(path.into());
        self
    }

    /// Sets `heart.interval` and `heart.timeout`, seconds.
    pub fn heart(self, interval: u32, timeout: u32) -> Options {
        self.arg("--heart-interval", interval).arg("--heart-timeout", timeout)
    }

    /// The command line of `serve`.
    fn command(&self, admin_path: &Path) -> Command {
        let shards = self.shards.to_string();
        let mut command = corecast(&["serve", "--listen", &self.listen, "--shards", &shards]);
        if !self.leaves_pin {
            command.args(["--pin", "none"]);
        }
        command.arg("--admin-socket").arg(admin_path);
        if !self.leaves_http && !self.args.iter().any(|arg| arg == "--http") {
            command.args(["--http", "off"]);
        }
        if !self.args.iter().any(|arg| arg == "--server-ping") {
            command.args(["--server-ping", "off"]);
        }
        let has_heart = |text: &String| text.contains("heart-");
        if !self.args.iter().chain(&self.config).any(has_heart) {
            command.args(["--heart-interval", "3600", "--heart-timeout", "3600"]);
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts this command with its stderr piped, and passes it the sockets.
    fn spawn(&self, command: Command) -> Child {
        let mut command = match self.passed.len() {
            0 => command,
            count => exec_with_sockets(&command, count),
        };
        let stdio = |(socket, _): &(Arc<Socket>, String)| Stdio::from(OwnedFd::from(socket.try_clone().expect("fd")));
        command.stdin(self.passed.first().map_or_else(Stdio::null, stdio));
        command.stdout(self.passed.get(1).map_or_else(Stdio::null, stdio));
        let names: Vec<&str> = self.passed.iter().map(|(_, name)| name.as_str()).collect();
        command.env("LISTEN_FDNAMES", names.join(":"));
        command.stderr(Stdio::piped()).spawn().expect("the server's binary starts")
    }

    /// Starts the server and waits for its line `listening on ADDR:PORT`.
    pub fn start(self) -> Server {
        let mut dirs = Vec::new();
        let mut directory = || {
            dirs.push(TempDir::new());
            dirs[dirs.len() - 1].path().to_owned()
        };
        let admin_path = self.admin_path.clone().unwrap_or_else(|| directory().join("admin.sock"));
        let mut command = self.command(&admin_path);
        let config = self.config.as_ref().map(|text| (directory().join("corecast.toml"), text));
        if let Some((path, text)) = &config {
            std::fs::write(path, text).expect("a temporary file");
            command.arg("--config").arg(path);
        }
        let config = config.map(|(path, _)| path);
        let pair = self.is_secure.then(|| Pair::make(&directory()));
        if let Some(pair) = &pair {
            command.arg("--tls-cert").arg(&pair.cert).arg("--tls-key").arg(&pair.key);
        }
        let line = format!("{command:?}");
        let mut child = self.spawn(command);
        let stderr = Stderr::drain(child.stderr.take().expect("stderr is piped"));
        let Some(address) = stderr.wait_for_address() else {
            let _ = child.kill();
            let status = child.wait();
            panic!(
                "no line with `listening on ADDR:PORT` within {LONG:?} from {line}\nstatus: {status:?}\nstderr:\n{}",
                stderr.text()
            );
        };
        if pair.is_some() {
            transport::speaks_tls(address);
        }
        Server { child, stderr, address, admin_path, config, pair, dirs }
    }

    /// Runs a server that is expected to end by itself at once: its exit status and stderr.
    pub fn fail(self) -> (ExitStatus, String) {
        let dir = TempDir::new();
        let admin_path = self.admin_path.clone().unwrap_or_else(|| dir.path().join("admin.sock"));
        let mut child = self.spawn(self.command(&admin_path));
        let stderr = Stderr::drain(child.stderr.take().expect("stderr is piped"));
        let status = wait_child(&mut child);
        if status.is_none() {
            let _ = child.kill();
        }
        assert!(stderr.wait_for_end());
        (status.unwrap_or_else(|| panic!("it did not end within {LONG:?}: {}", stderr.text())), stderr.text())
    }
}

/// The command, in a shell that moves its stdin and stdout to the descriptors of passed sockets (sd_listen_fds(3)).
fn exec_with_sockets(command: &Command, count: usize) -> Command {
    let moves = ["exec 3<&0", "exec 3<&0 4<&1"][count - 1];
    let script =
        format!("{moves} </dev/null >/dev/null; LISTEN_FDS=${{LISTEN_FDS:-{count}}} LISTEN_PID=$$ exec \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// The binary under test with arguments, without the caller's environment.
pub fn corecast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CORECAST") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// Runs a command to its end, at most [`LONG`].
pub fn output(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        let out = scope.spawn(move || read_all(&mut stdout));
        let err = scope.spawn(move || read_all(&mut stderr));
        let status = wait_child(&mut child);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (out.join().expect("reader"), err.join().expect("reader"));
        let status = status.unwrap_or_else(|| {
            panic!(
                "{command:?} did not end within {LONG:?}\nstdout:\n{}\nstderr:\n{}",
                String::from_utf8_lossy(&stdout),
                String::from_utf8_lossy(&stderr)
            )
        });
        Output { status, stdout, stderr }
    })
}

/// Writes an executable script. A child does it: other threads of this process start programs too, and these would inherit a descriptor
/// that is open for writing, with which the script cannot be run ("Text file busy", `execve(2)`).
pub fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path);
    let written = output(shell, text.as_bytes());
    assert!(written.status.success(), "{written:?}");
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

fn wait_child(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < LONG {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        thread::sleep(POLL);
    }
    None
}

/// The lines of a server's stderr, read by a thread until the end.
pub struct Stderr {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    text: String,
    ended: bool,
}

impl Stderr {
    pub fn drain(from: impl Read + Send + 'static) -> Arc<Stderr> {
        let stderr = Arc::new(Stderr { seen: Mutex::default(), changed: Condvar::new() });
        let writer = Arc::clone(&stderr);
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                writer.lock().text.push_str(&String::from_utf8_lossy(&line));
                writer.changed.notify_all();
                line.clear();
            }
            writer.lock().ended = true;
            writer.changed.notify_all();
        });
        stderr
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// The address of the first line that holds `listening on ADDR:PORT`.
    pub fn wait_for_address(&self) -> Option<SocketAddr> {
        self.wait_for(|text| text.lines().find_map(address_in))
    }

    /// Waits until `find` finds something in the text, at most [`LONG`].
    pub fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + LONG;
        let mut seen = self.lock();
        loop {
            if let Some(found) = find(&seen.text) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            if seen.ended {
                return None;
            }
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// Whether it has ended, after at most [`LONG`].
    pub fn wait_for_end(&self) -> bool {
        let deadline = Instant::now() + LONG;
        let mut seen = self.lock();
        while !seen.ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let rest = &line[line.find("listening on ")? + "listening on ".len()..];
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A directory that is removed when its owner is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("corecast-it-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A well-behaved client: tungstenite, blocking, [`LONG`] for every read.
pub struct Client {
    socket: WebSocket<Transport>,
    pub socket_id: String,
}

impl Client {
    /// Connects and reads `socket:connected`.
    pub fn connect(server: &Server) -> Client {
        Client::connect_to(server.address)
    }

    /// As [`Client::connect`], if the server is owned elsewhere.
    pub fn connect_to(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).expect("the server accepts"))
    }

    /// As [`Client::connect`], over a TCP connection already made.
    pub fn over(stream: TcpStream) -> Client {
        let mut client = Client::upgrade(stream);
        let connected = client.text();
        let value: Value = serde_json::from_str(&connected).expect("socket:connected is JSON");
        assert_eq!(value["event"], "socket:connected", "first frame: {connected}");
        client.socket_id = value["data"]["socket_id"].as_str().expect("socket_id is a string").to_owned();
        client
    }

    /// Finishes the upgrade and reads nothing; `socket_id` stays empty.
    pub fn upgrade(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(LONG)).expect("socket option");
        stream.set_write_timeout(Some(LONG)).expect("socket option");
        stream.set_nodelay(true).expect("socket option");
        Client::upgrade_over(Transport::over(stream))
    }

    /// As [`Client::upgrade`], over a session of the caller's own.
    pub fn upgrade_over(transport: Transport) -> Client {
        Client::upgrade_for("/", transport)
    }

    /// As [`Client::upgrade_over`], for this path.
    pub fn upgrade_for(path: &str, transport: Transport) -> Client {
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1{path}"), transport).expect("the server upgrades");
        Client { socket, socket_id: String::new() }
    }

    /// The client's own address, as the server sees it.
    pub fn address(&self) -> SocketAddr {
        self.socket.get_ref().socket().local_addr().expect("a connected socket has an address")
    }

    /// Sends one text message.
    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap_or_else(|error| panic!("sending {text}: {error}"));
    }

    /// Sends one text message to a server that may already have closed.
    pub fn try_send(&mut self, text: &str) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::text(text))
    }

    /// Sends one message of any kind.
    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("sent");
    }

    /// The next message of any kind.
    pub fn message(&mut self) -> Message {
        self.socket.read().unwrap_or_else(|error| panic!("waiting for a message: {error}"))
    }

    /// The next message, or how the connection ended.
    pub fn try_message(&mut self) -> Result<Message, tungstenite::Error> {
        self.socket.read()
    }

    /// The next message, which is text.
    pub fn text(&mut self) -> String {
        match self.message() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("waiting for a text message, got {other:?}"),
        }
    }

    /// The next message is exactly this text.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.text(), text);
    }

    /// The next message is a close frame with this code; its reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        match self.message() {
            Message::Close(Some(CloseFrame { code: found, reason })) => {
                assert_eq!(u16::from(found), code, "close code; reason: {reason}");
                reason.as_str().to_owned()
            }
            other => panic!("waiting for close {code}, got {other:?}"),
        }
    }

    /// Subscribes and waits for the reply.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) {
        self.send(&subscribe(channel));
        self.expect(&subscribed(channel));
    }

    /// Unsubscribes and waits for the reply.
    #[track_caller]
    pub fn unsubscribe(&mut self, channel: &str) {
        self.send(&unsubscribe(channel));
        self.expect(&unsubscribed(channel));
    }

    /// Asserts that no other frame was on its way: the next one is the reply to this ping.
    #[track_caller]
    pub fn expect_nothing_before_pong(&mut self) {
        self.send(r#"{"event":"socket:ping","data":{"id":"fence"}}"#);
        self.expect(r#"{"event":"socket:pong","data":{"reply":"fence"}}"#);
    }

    /// Sends a close frame with this code.
    pub fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.socket.close(Some(frame)).expect("close is sent");
        let _ = self.socket.flush();
    }
}

/// A socket_id's second spelling: the UUID's two 64-bit halves in decimal, joined by a dot.
pub fn second_spelling(socket_id: &str) -> String {
    let bits = u128::from_str_radix(&socket_id.replace('-', ""), 16).expect("a UUID");
    format!("{}.{}", bits >> 64, bits & u128::from(u64::MAX))
}

/// The text of a subscribe to a public channel.
pub fn subscribe(channel: &str) -> String {
    json!({"event": "socket:subscribe", "data": {"channel": channel}}).to_string()
}

/// The text of an unsubscribe.
pub fn unsubscribe(channel: &str) -> String {
    json!({"event": "socket:unsubscribe", "data": {"channel": channel}}).to_string()
}

/// The reply to a subscribe that succeeded.
pub fn subscribed(channel: &str) -> String {
    format!(r#"{{"event":"socket:subscribed","channel":"{channel}"}}"#)
}

/// The reply to an unsubscribe that succeeded.
pub fn unsubscribed(channel: &str) -> String {
    format!(r#"{{"event":"socket:unsubscribed","channel":"{channel}"}}"#)
}

/// The reply to a subscribe of a channel already subscribed.
pub fn already_subscribed(channel: &str) -> String {
    format!(
        r#"{{"event":"socket:subscribe.error","channel":"{channel}","data":{{"error":"the connection is already subscribed to the channel","code":"already_subscribed"}}}}"#
    )
}

/// The reply to an unsubscribe of a channel not subscribed.
pub fn not_subscribed(channel: &str) -> String {
    format!(
        r#"{{"event":"socket:unsubscribe.error","channel":"{channel}","data":{{"error":"the connection is not subscribed to the channel","code":"not_subscribed"}}}}"#
    )
}

/// Asserts that `text` is an error event with this code: its members, their order, a text for people, and nothing more.
#[track_caller]
pub fn assert_error(text: &str, event: &str, channel: Option<&str>, code: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
    let error = value["data"]["error"].as_str().unwrap_or_default();
    assert!(!error.is_empty(), "no data.error for people: {text}");
    let mut expected = json!({"event": event, "data": {"error": error, "code": code}});
    if let Some(channel) = channel {
        expected["channel"] = channel.into();
    }
    assert_eq!(value, expected, "{text}");
    let places = ["\"event\":", "\"channel\":", "\"data\":", "\"error\":", "\"code\":"].map(|member| text.find(member));
    let places: Vec<usize> = places.into_iter().flatten().collect();
    assert!(places.is_sorted(), "members out of order: {text}");
    assert!(text.starts_with(&format!(r#"{{"event":"{event}","#)), "white space between members: {text}");
}

/// A client that may send any bytes, and reads frames.
pub struct RawClient {
    received: BufReader<Transport>,
}

/// Opcodes, RFC 6455 §5.2.
pub mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xA;
}

impl RawClient {
    /// A TCP connection, nothing sent.
    pub fn tcp(server: &Server) -> RawClient {
        RawClient::over(TcpStream::connect(server.address).expect("the server accepts"))
    }

    /// A TCP connection whose receive buffer is as small as the kernel makes it.
    pub fn tcp_with_small_buffer(server: &Server) -> RawClient {
        RawClient::tcp_with_buffer(server, 4096)
    }

    /// A TCP connection whose receive buffer does not grow beyond twice this size.
    pub fn tcp_with_buffer(server: &Server, bytes: usize) -> RawClient {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("socket option");
        socket.connect(&server.address.into()).expect("the server accepts");
        RawClient::over(socket.into())
    }

    /// A TCP connection from this address of the loopback network.
    pub fn tcp_from(server: &Server, address: [u8; 4]) -> RawClient {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of this machine");
        socket.connect(&server.address.into()).expect("the server accepts");
        RawClient::over(socket.into())
    }

    /// Over a TCP connection already made.
    pub fn over(stream: TcpStream) -> RawClient {
        stream.set_read_timeout(Some(LONG)).expect("socket option");
        stream.set_write_timeout(Some(LONG)).expect("socket option");
        stream.set_nodelay(true).expect("socket option");
        RawClient::over_transport(Transport::over(stream))
    }

    /// Over a session of the caller's own; nothing is sent.
    pub fn over_transport(transport: Transport) -> RawClient {
        RawClient { received: BufReader::new(transport) }
    }

    /// What carries its bytes.
    pub fn transport(&mut self) -> &mut Transport {
        self.received.get_mut()
    }

    /// An upgraded connection, `socket:connected` read.
    pub fn connect(server: &Server) -> RawClient {
        let mut client = RawClient::tcp(server);
        client.upgrade();
        client
    }

    /// Upgrades and reads `socket:connected`, which it returns.
    pub fn upgrade(&mut self) -> Value {
        self.write(UPGRADE_REQUEST.as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "reply to a valid upgrade request: {head}");
        self.expect_connected()
    }

    /// The next frame is `socket:connected`.
    #[track_caller]
    pub fn expect_connected(&mut self) -> Value {
        let text = self.text();
        assert!(text.starts_with(r#"{"event":"socket:connected","#), "first frame: {text}");
        serde_json::from_str(&text).expect("socket:connected is JSON")
    }

    /// Writes bytes.
    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.received.get_mut().write_all(bytes).expect("the server takes bytes");
    }

    /// Writes bytes to a server that may already have closed.
    pub fn write_anyway(&mut self, bytes: &[u8]) -> bool {
        self.received.get_mut().write_all(bytes).is_ok()
    }

    /// An HTTP head, up to and with the empty line; empty if the server closed.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.received.read_line(&mut head) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("waiting for an HTTP response: {error}; so far: {head:?}"),
            }
        }
        head
    }

    /// All bytes until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.received.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("waiting for the end of the connection: {error}"),
        }
        rest
    }

    /// The next frame, opcode and payload; `None`: the connection ended before it was whole.
    pub fn try_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 2];
        self.read_exact(&mut header)?;
        assert_eq!(header[0] & 0x70, 0, "reserved bits are clear");
        assert_ne!(header[0] & 0x80, 0, "the server never fragments");
        assert_eq!(header[1] & 0x80, 0, "the server never masks");
        let len = match header[1] {
            126 => {
                let mut len = [0; 2];
                self.read_exact(&mut len)?;
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                self.read_exact(&mut len)?;
                usize::try_from(u64::from_be_bytes(len)).expect("a length in memory")
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.read_exact(&mut payload)?;
        Some((header[0] & 0x0F, payload))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.received.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if is_end(&error) => None,
            Err(error) => panic!("waiting for a frame: {error}"),
        }
    }

    /// The next frame, opcode and payload.
    #[track_caller]
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        self.try_frame().expect("a frame before the end of the connection")
    }

    /// The next frame, which is text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        text_of(self.frame())
    }

    /// The next frame is exactly this text.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.text(), text);
    }

    /// Reads and discards this many bytes.
    #[track_caller]
    pub fn discard(&mut self, bytes: usize) {
        let discarded = std::io::copy(&mut (&mut self.received).take(bytes as u64), &mut std::io::sink());
        assert_eq!(discarded.expect("bytes"), bytes as u64);
    }

    /// A second handle on the same connection, to write and read in different threads. Only one of them may read.
    pub fn split(self) -> (RawClient, RawClient) {
        (RawClient::over(self.received.get_ref().socket().try_clone().expect("a second handle")), self)
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        let socket = self.into_stream();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("socket option");
    }

    /// Whether the server has closed, or does so soon.
    pub fn ends_within(&mut self, timeout: Duration) -> bool {
        self.set_patience(timeout);
        let read = self.received.read(&mut [0; 64]);
        self.set_patience(LONG);
        match read {
            Ok(read) => read == 0,
            Err(error) => is_end(&error),
        }
    }

    /// How long a read waits: [`LONG`], if nothing else is set.
    pub fn set_patience(&mut self, timeout: Duration) {
        self.received.get_ref().socket().set_read_timeout(Some(timeout)).expect("socket option");
    }

    /// Sends no more; the other direction stays open.
    pub fn finish_writing(&mut self) {
        self.received.get_mut().finish_writing();
    }

    /// The bare socket: one descriptor, for tests that open many connections.
    pub fn into_stream(self) -> TcpStream {
        self.received.into_inner().into_socket()
    }

    /// The next frame closes with this code, and the connection ends after it.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, opcode::CLOSE, "waiting for close {code}, got {:?}", String::from_utf8_lossy(&payload));
        assert!(payload.len() >= 2, "a close frame without a code; expected {code}");
        let found = u16::from_be_bytes([payload[0], payload[1]]);
        assert_eq!(found, code, "close code; reason: {}", String::from_utf8_lossy(&payload[2..]));
        std::str::from_utf8(&payload[2..]).expect("the reason is UTF-8");
        self.expect_end();
    }

    /// The server has closed: no further bytes come.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = [0; 64];
        match self.received.read(&mut rest) {
            Ok(0) => {}
            Ok(read) => panic!("bytes where the connection should end: {:?}", &rest[..read]),
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("waiting for the end of the connection: {error}"),
        }
    }
}

/// Whether an error means that the peer has closed the connection.
pub fn is_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A masked final frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_bytes(0x80 | opcode, payload, true)
}

/// A masked final text frame.
pub fn text_frame(text: &str) -> Vec<u8> {
    frame(opcode::TEXT, text.as_bytes())
}

/// The payload of a frame, opcode and payload, which must be text.
#[track_caller]
pub fn text_of((opcode, payload): (u8, Vec<u8>)) -> String {
    let text = String::from_utf8_lossy(&payload).into_owned();
    assert_eq!(opcode, opcode::TEXT, "opcode of {text}");
    text
}

/// A frame whose first byte is given, masked or not.
pub fn frame_bytes(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut bytes = vec![first];
    let mask_bit = if masked { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => bytes.push(mask_bit | len as u8),
        len @ 126..65536 => {
            bytes.push(mask_bit | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(mask_bit | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    if masked {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        bytes.extend(key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// The example request of RFC 6455 §1.3.
pub const UPGRADE_REQUEST: &str = "GET /chat HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// A connection to the admin socket.
pub struct Admin {
    stream: UnixStream,
    received: BufReader<UnixStream>,
}

/// Publishes the numbers below `count` to `c0`, `c1` … in turn, as fast as the server takes them.
pub fn unreplied_publishes(mut writer: UnixStream, count: usize, channels: usize) {
    let mut lines = String::new();
    for number in 0..count {
        let channel = number % channels;
        lines +=
            &format!(r#"{{"id":{number},"command":"publish","channel":"c{channel}","event":"e","data":{number}}}"#);
        lines.push('\n');
        if lines.len() > 32 * 1024 || number + 1 == count {
            writer.write_all(lines.as_bytes()).expect("the admin socket takes bytes");
            lines.clear();
        }
    }
}

impl Admin {
    pub fn connect(server: &Server) -> Admin {
        Admin::connect_to(&server.admin_path)
    }

    /// As [`Admin::connect`], if the server is owned elsewhere.
    pub fn connect_to(path: &Path) -> Admin {
        let stream = UnixStream::connect(path).expect("the admin socket accepts");
        stream.set_read_timeout(Some(LONG)).expect("socket option");
        stream.set_write_timeout(Some(LONG)).expect("socket option");
        let received = BufReader::new(stream.try_clone().expect("a second handle"));
        Admin { stream, received }
    }

    /// Writes bytes.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the admin socket takes bytes");
    }

    /// Sends no more.
    pub fn shut(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a connected socket");
    }

    /// Writes bytes to a server that may already have closed.
    pub fn write_anyway(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends one line.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        self.write(format!("{line}\n"));
    }

    /// The next line, without its newline; `None`: the connection ended.
    pub fn try_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.received.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.strip_suffix('\n').unwrap_or_else(|| panic!("half a line: {line}")).to_owned()),
            Err(error) if is_end(&error) => None,
            Err(error) => panic!("waiting for an admin reply: {error}"),
        }
    }

    /// The next line, without its newline.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().expect("a reply before the end of the admin connection")
    }

    /// Sends a line. Returns the reply line.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line()
    }

    /// Sends a request. Returns the reply.
    #[track_caller]
    pub fn request(&mut self, request: Value) -> Value {
        let line = self.ask(&request.to_string());
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
    }

    /// Sends a request that succeeds. Returns the reply.
    #[track_caller]
    pub fn ok(&mut self, request: Value) -> Value {
        let reply = self.request(request.clone());
        assert_eq!(reply["ok"], true, "{request} → {reply}");
        reply
    }

    /// Sends a line that is refused with this code; checks every member of the reply, `id` as given.
    #[track_caller]
    pub fn refused(&mut self, line: &str, id: Value, code: &str) {
        let reply = self.ask(line);
        assert_refused(line, &reply, id, code);
    }

    /// Publishes and waits for the reply. Returns the number of subscribers.
    #[track_caller]
    pub fn publish(&mut self, channel: &str, event: &str, data: Value) -> u64 {
        let reply = self.ok(json!({"id": 1, "command": "publish", "channel": channel, "event": event, "data": data}));
        reply["subscribers"].as_u64().unwrap_or_else(|| panic!("no subscribers in {reply}"))
    }

    /// The counters and gauges, of all shards together.
    #[track_caller]
    pub fn stats(&mut self) -> Value {
        self.ok(json!({"id": 1, "command": "stats"}))["stats"].take()
    }

    /// One of them.
    #[track_caller]
    pub fn stat(&mut self, name: &str) -> u64 {
        self.stats()[name].as_u64().unwrap_or_else(|| panic!("no {name} in the stats"))
    }

    /// `subscribers` of a channel.
    #[track_caller]
    pub fn subscribers(&mut self, channel: &str) -> u64 {
        let reply = self.ok(json!({"id": 1, "command": "channel", "channel": channel}));
        assert_eq!(reply["channel"], channel, "{reply}");
        reply["subscribers"].as_u64().unwrap_or_else(|| panic!("no subscribers in {reply}"))
    }

    /// Whether the server knows the connection.
    #[track_caller]
    pub fn knows(&mut self, socket_id: &str) -> bool {
        let reply = self.request(json!({"id": 1, "command": "connection", "socket_id": socket_id}));
        assert!(reply["ok"] == true || reply["code"] == "not_found", "{reply}");
        reply["ok"] == true
    }

    /// The two halves, to write and read in different threads.
    pub fn split(self) -> (UnixStream, BufReader<UnixStream>) {
        (self.stream, self.received)
    }
}

/// Asserts that a reply line is a refusal with exactly these members.
#[track_caller]
pub fn assert_refused(line: &str, reply: &str, id: Value, code: &str) {
    let value: Value = serde_json::from_str(reply).unwrap_or_else(|error| panic!("no JSON ({error}): {reply}"));
    let error = value["error"].as_str().unwrap_or_default();
    assert!(!error.is_empty(), "no error for people: {} → {reply}", shortened(line));
    assert_eq!(value, json!({"id": id, "ok": false, "code": code, "error": error}), "{} → {reply}", shortened(line));
}

/// The start of a text, for messages.
pub fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Waits until `done` holds, at most [`LONG`]; for conditions that no frame announces.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::sleep(POLL);
    }
}

/// The longest wait for anything that should happen at once: longer than a busy machine stalls.
pub const LONG: Duration = Duration::from_secs(60);
/// Pause between two checks of a condition that no event announces.
const POLL: Duration = Duration::from_millis(10);
