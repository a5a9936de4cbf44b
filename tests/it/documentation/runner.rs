//! Runs the blocks of a page.

use super::likeness::{is_like, is_shown, shown_first};
use super::page::{Block, Kind};
use super::root;
use crate::harness::{Admin, Client, LONG, Stderr, TempDir, write_script};
use rustix::process::{Pid, Signal, kill_process_group};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The WebSocket connection of the `ws` blocks.
struct Talk {
    client: Client,
    /// The `socket_id` that the page shows.
    shown_id: String,
}

impl Talk {
    /// The next message. Heartbeats come when a page takes long, and are answered unless the page shows one here.
    fn next(&mut self, shown: &str) -> String {
        const PING: &str = r#"{"event":"socket:ping"}"#;
        loop {
            let came = self.client.text();
            if came != PING || shown == PING {
                return came;
            }
            self.client.send(r#"{"event":"socket:pong"}"#);
        }
    }
}

/// The directory, ports and programs of a page.
pub struct Runner {
    dir: TempDir,
    ports: Vec<(&'static str, String)>,
    server: Option<Running>,
    background: Option<Running>,
    talk: Option<Talk>,
    /// The output of the last block.
    printed: Option<Vec<String>>,
}

impl Runner {
    /// A runner for a page with this text.
    pub fn new(page: &str) -> Runner {
        let dir = TempDir::new();
        // A number that the page shows for another purpose is not used as a port.
        let mut free_ports = std::iter::repeat_with(free_port).filter(|port| !page.contains(port.as_str()));
        let ports: Vec<_> = SHOWN_PORTS.into_iter().zip(free_ports.by_ref()).collect();
        // `subscribe` has no configuration, so the script gives it the page's port.
        let script = format!(
            "#!/bin/sh\n\
             case \"$*\" in *--url*) ;; 'subscribe '*) shift; set -- subscribe --url ws://127.0.0.1:{} \"$@\";; esac\n\
             exec '{}' \"$@\"\n",
            ports[0].1,
            env!("CARGO_BIN_EXE_corecast")
        );
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("a directory");
        write_script(&bin.join("corecast"), &script);
        // Modules that are imported are found beside the page's files, as in a project; those that are required, by NODE_PATH.
        symlink(root().join(IMPORTED), dir.path().join("node_modules")).expect("a link");
        Runner { dir, ports, server: None, background: None, talk: None, printed: None }
    }

    /// Runs a block as its info string says.
    pub fn run(&mut self, block: &Block) {
        let text = self.real(&block.lines.join("\n"));
        let printed = self.printed.take();
        match &block.kind {
            Kind::Shell => self.printed = Some(self.succeed(block, self.bash(&text))),
            Kind::Console => self.console(block),
            Kind::Script(interpreter) => {
                fs::write(self.dir.path().join(interpreter.file), &text).expect("a file");
                let installed = root().join(interpreter.installed);
                let is_installed = !interpreter.installed.is_empty() && installed.exists();
                let program = if is_installed { installed } else { interpreter.program.into() };
                let mut command = self.command(program);
                command.arg(interpreter.file);
                self.printed = Some(self.succeed(block, command));
            }
            Kind::Server => {
                self.stop();
                let server = Running::start(self.bash(&text));
                if server.output.wait_for_address().is_none() {
                    panic!("{}: the server does not listen:\n{}", block.place, server.output.text());
                }
                self.server = Some(server);
            }
            Kind::Background => self.background = Some(Running::start(self.bash(&text))),
            Kind::Output => {
                let printed = printed.unwrap_or_else(|| panic!("{}: no block before it has an output", block.place));
                compare(&block.place, &block.lines, &printed);
            }
            Kind::OutputOfServer => self.expect_next(block, self.server.as_ref()),
            Kind::OutputOfBackground => self.expect_next(block, self.background.as_ref()),
            Kind::WebSocket => self.web_socket(block),
            Kind::Admin => self.admin(block),
            Kind::File(name) => fs::write(self.dir.path().join(name), format!("{text}\n")).expect("a file"),
            Kind::Json => {
                let values = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
                values.for_each(|value| drop(value.unwrap_or_else(|error| panic!("{}: {error}", block.place))));
            }
            Kind::NotRun => {}
        }
    }

    /// Runs each command, and compares its whole output.
    fn console(&self, block: &Block) {
        let mut lines = block.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let Some(first) = line.strip_prefix("$ ") else {
                panic!("{}: output before the first command: {line}", block.place);
            };
            let mut command = first.to_owned();
            while let Some(more) = lines.next_if(|line| line.starts_with("> ")) {
                command = format!("{command}\n{}", &more[2..]);
            }
            let shown: Vec<String> =
                std::iter::from_fn(|| lines.next_if(|line| !line.starts_with("$ "))).cloned().collect();
            let (_, printed) = self.finish(&block.place, self.bash(&self.real(&command)));
            compare(&format!("{}: {command}", block.place), &shown, &printed);
        }
    }

    /// Sends and receives the messages of a `ws` block.
    fn web_socket(&mut self, block: &Block) {
        if block.lines.first().is_some_and(|line| line.contains("socket:connected")) {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).expect("the page's server accepts");
            self.talk = Some(Talk { client: Client::upgrade(stream), shown_id: String::new() });
        }
        let mut talk = self.talk.take().unwrap_or_else(|| panic!("{}: no connection is open", block.place));
        for line in &block.lines {
            let place = format!("{}: {line}", block.place);
            if let Some(shown) = line.strip_prefix("→ ") {
                let sent = self.signed(&place, shown, &talk);
                talk.client.send(&sent);
            } else if let Some(close) = line.strip_prefix("← close ") {
                let (code, text) = close.split_once(' ').unwrap_or((close, ""));
                let reason = talk.client.expect_close(code.parse().expect("a close code"));
                assert!(is_like(text, &reason), "{place}: closed with {reason}");
            } else if let Some(shown) = line.strip_prefix("← ") {
                let came = talk.next(shown);
                assert!(is_like(shown, &came), "{place}: received\n← {came}");
                if let Some((shown_id, id)) = value_of(shown, "socket_id").zip(value_of(&came, "socket_id")) {
                    talk.shown_id = shown_id.to_owned();
                    talk.client.socket_id = id.to_owned();
                }
            } else {
                panic!("{place}: a line begins with → or ←");
            }
        }
        self.talk = Some(talk);
    }

    /// The message with the signature of the real `socket_id`. A signature that the page shows as wrong stays unchanged.
    fn signed(&self, place: &str, message: &str, talk: &Talk) -> String {
        let Some((channel, auth)) = value_of(message, "channel").zip(value_of(message, "auth")) else {
            return message.to_owned();
        };
        let channel_data = serde_json::from_str::<serde_json::Value>(message).ok();
        let channel_data = channel_data.as_ref().and_then(|message| message["data"]["channel_data"].as_str());
        let channel_data = channel_data.map_or(String::new(), |data| format!("--channel-data '{data}'"));
        let sign = |id: &str| {
            let command = format!("corecast sign {id} {channel} {channel_data} --key-file keys");
            let (_, printed) = self.finish(place, self.bash(&command));
            printed.concat()
        };
        if auth == sign(&talk.shown_id) {
            message.replace(auth, &sign(&talk.client.socket_id))
        } else {
            message.to_owned()
        }
    }

    fn admin(&self, block: &Block) {
        let mut admin = Admin::connect_to(&self.dir.path().join("corecast.sock"));
        for line in &block.lines {
            let place = format!("{}: {line}", block.place);
            if let Some(sent) = line.strip_prefix("→ ") {
                admin.send(sent);
            } else if let Some(shown) = line.strip_prefix("← ") {
                let came = admin.line();
                assert!(is_like(shown, &came), "{place}: received\n← {came}");
            } else {
                panic!("{place}: a line begins with → or ←");
            }
        }
    }

    /// Compares the next lines of a running program.
    fn expect_next(&self, block: &Block, running: Option<&Running>) {
        let running = running.unwrap_or_else(|| panic!("{}: no program runs", block.place));
        let printed = |text: &str| -> Vec<String> {
            // The last line may be incomplete.
            let ended = text.rfind('\n').map_or("", |end| &text[..end]);
            self.shown(ended).into_iter().skip(running.compared.load(Ordering::Relaxed).into()).collect()
        };
        match running.output.wait_for(|text| shown_first(&block.lines, &printed(text))) {
            Some(used) => _ = running.compared.fetch_add(used as u16, Ordering::Relaxed),
            None => compare(&block.place, &block.lines, &printed(&running.output.text())),
        }
    }

    fn succeed(&self, block: &Block, command: Command) -> Vec<String> {
        let (is_success, printed) = self.finish(&block.place, command);
        assert!(is_success, "{}: fails:\n{}", block.place, printed.join("\n"));
        printed
    }

    /// Whether a command succeeds, and its output.
    fn finish(&self, place: &str, command: Command) -> (bool, Vec<String>) {
        let mut running = Running::start(command);
        if !running.output.wait_for_end() {
            panic!("{place}: does not end within {LONG:?}; so far:\n{}", running.output.text());
        }
        let status = running.child.wait().expect("a child can be waited for");
        (status.success(), self.shown(&running.output.text()))
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = self.command("bash");
        command.args(["-euo", "pipefail", "-c", script]);
        command
    }

    /// A program in the page's directory, without the caller's environment.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let dir = self.dir.path();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}/bin:{path}", dir.display()))
            .env("LC_ALL", "C.UTF-8")
            .env("NODE_PATH", root().join(REQUIRED))
            .env("XDG_RUNTIME_DIR", dir)
            .env("HOME", dir)
            .env("CORECAST_LISTEN", format!("127.0.0.1:{}", self.port()))
            .env("CORECAST_HTTP", format!("127.0.0.1:{}", self.ports[1].1))
            .env("CORECAST_SHARDS", "2")
            .env("CORECAST_PIN", "none")
            .current_dir(dir);
        command
    }

    fn port(&self) -> u16 {
        self.ports[0].1.parse().expect("a port")
    }

    /// The page's text with the real ports and directory.
    fn real(&self, text: &str) -> String {
        let text = self.ports.iter().fold(text.to_owned(), |text, (shown, real)| with_number(&text, shown, real));
        text.replace(SHOWN_DIR, &self.dir.path().display().to_string())
    }

    /// Printed output with the page's ports and directory.
    fn shown(&self, text: &str) -> Vec<String> {
        // The directory first: its name may contain a port's digits.
        let text = text.replace(&self.dir.path().display().to_string(), SHOWN_DIR);
        let text = self.ports.iter().fold(text, |text, (shown, real)| with_number(&text, real, shown));
        text.lines().map(str::to_owned).collect()
    }

    /// Whether a program or a module of that name exists.
    pub fn has(&self, name: &str) -> bool {
        let mut command = self.bash(&format!("command -v {name}"));
        let has_program = command.output().is_ok_and(|output| output.status.success());
        has_program || [REQUIRED, IMPORTED].iter().any(|modules| root().join(modules).join(name).exists())
    }

    /// Stops the running programs.
    pub fn stop(&mut self) {
        self.talk = None;
        for running in [self.background.take(), self.server.take()].into_iter().flatten() {
            running.signal(Signal::TERM);
            assert!(running.output.wait_for_end(), "does not stop: {}", running.output.text());
        }
    }
}

/// The text with `number` replaced by `other`, except where it is part of a longer word, such as an ID, a signature or a time.
fn with_number(text: &str, number: &str, other: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(number) {
        let (before, after) = (&rest[..at], &rest[at + number.len()..]);
        let is_part = before.ends_with(char::is_alphanumeric)
            || before.is_empty() && replaced.ends_with(char::is_alphanumeric)
            || after.starts_with(char::is_alphanumeric);
        replaced.push_str(before);
        replaced.push_str(if is_part { number } else { other });
        rest = after;
    }
    replaced + rest
}

#[test]
fn a_port_is_not_part_of_a_longer_word() {
    let replaced = |text: &str| with_number(text, "12345", "9000");
    assert_eq!(replaced("at 127.0.0.1:12345, 12345 and \"12345\""), "at 127.0.0.1:9000, 9000 and \"9000\"");
    for text in
        ["", "112345", "123456", "1234512345", "2026-11-25T20:50:39.123456Z", "a12345b7-fcf0-419c-a455-e60b6cfb937d"]
    {
        assert_eq!(replaced(text), text);
    }
}

/// The string value of a member, in JSON as the pages write it.
fn value_of<'a>(message: &'a str, member: &str) -> Option<&'a str> {
    message.split_once(&format!(r#""{member}":""#)).and_then(|(_, rest)| rest.split('"').next())
}

#[track_caller]
fn compare(place: &str, shown: &[String], printed: &[String]) {
    if !is_shown(shown, printed) {
        panic!("{place}\n--- shown ---\n{}\n--- printed ---\n{}\n---", shown.join("\n"), printed.join("\n"));
    }
}

/// A free port, below the range of ephemeral ports.
fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Different from those of a test process that started a moment ago.
    let start = (std::process::id().wrapping_mul(7919) % 20_000) as u16;
    loop {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        // Does not listen: a program that another thread starts meanwhile inherits the socket for a moment, and the server could not bind.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("a socket option");
        if socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).is_ok() {
            return port.to_string();
        }
    }
}

/// A program and its children, killed on drop.
struct Running {
    child: Child,
    output: Arc<Stderr>,
    /// How many lines of its output the page has shown.
    compared: AtomicU16,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a second handle")).stderr(writer);
        let child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Running { child, output: Stderr::drain(reader), compared: AtomicU16::new(0) }
    }

    fn signal(&self, signal: Signal) {
        // Fails if the process has ended, which is fine.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The ports that pages show: of the server, of its HTTP, and of other listeners.
const SHOWN_PORTS: [&str; 3] = ["9000", "9001", "8080"];
/// Where `tests/clients/run.sh` installs modules.
const REQUIRED: &str = "target/clients/node/node_modules";
/// Where `tests/pusher/run.sh` installs modules.
const IMPORTED: &str = "target/pusher/node_modules";
/// The directory that pages show.
const SHOWN_DIR: &str = "/run/user/1000";
