//! `corecast top`, in a terminal of its own and without one.

use crate::harness::{Admin, Client, Server, TempDir, corecast, eventually, output};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, LocalModes, Winsize, tcflow, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A terminal of 80×24 in which the command runs, and its output behind the last expected text.
struct Terminal {
    command: Child,
    keys: File,
    tty: File,
    sent: Arc<Mutex<String>>,
    is_over: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn start(args: &[&str], no_color: &str) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudoterminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("UTF-8");
        // Not the controlling terminal of these tests: its end would be theirs.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = File::from(rustix::fs::open(name, flags, Mode::empty()).expect("its other end"));
        tcsetwinsize(&tty, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let end = || tty.try_clone().expect("a second handle");
        let mut command = corecast(args);
        command.env("NO_COLOR", no_color).env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let command = command.spawn().expect("the binary");
        let (mut keys, sent) = (File::from(master), Arc::new(Mutex::new(String::new())));
        let (mut screen, all) = (keys.try_clone().expect("a second handle"), sent.clone());
        keys.flush().expect("a terminal");
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !ends.load(Ordering::Relaxed)
                && let Ok(n @ 1..) = screen.read(&mut bytes)
            {
                all.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Terminal { command, keys, tty, sent, is_over, reader }
    }

    /// Waits until the output behind the last expected text contains this text. Only changes of the screen are written, so
    /// what follows the text must not be lost.
    fn expect(&self, text: &str) {
        eventually(&format!("{text:?} is on the screen"), || {
            let mut sent = self.sent.lock().expect("no panic");
            let end = sent.find(text).map(|at| at + text.len());
            end.map(|end| sent.drain(..end)).is_some()
        });
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Closes the terminal, as a broken connection does. The command is not the leader of a session, so it gets no SIGHUP.
    fn hang_up(self) -> Child {
        let Terminal { command, keys, mut tty, is_over, reader, .. } = self;
        is_over.store(true, Ordering::Relaxed);
        // Wakes the reader.
        tty.write_all(b"x").expect("a terminal");
        reader.join().expect("no panic");
        drop((keys, tty));
        command
    }

    /// Waits for the end. The command must restore the terminal.
    fn end(self) -> ExitStatus {
        self.expect("\u{1b}[?25h\u{1b}[?1049l");
        let status = Killed(self.command).wait();
        let modes = tcgetattr(&self.tty).expect("a terminal").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
        status
    }
}

fn top(socket: &Path, no_color: &str) -> Terminal {
    Terminal::start(&["top", "--interval", "100ms", "--admin-socket", socket.to_str().expect("UTF-8")], no_color)
}

#[test]
fn it_shows_the_server_waits_for_it_and_quits() {
    let dir = TempDir::new();
    let socket = dir.path().join("top.sock");
    let mut server = Server::options(2).admin_socket(&socket).start();
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    let mut terminal = top(&socket, "");
    terminal.expect("\u{1b}[?1049h");
    terminal.expect("user:13");
    terminal.press("s");
    // Of "messages", what differs from "subscribers" in its place.
    terminal.expect("ages");
    terminal.press("?");
    terminal.expect("Ctrl-C");
    terminal.press("?");
    server.terminate();
    terminal.expect("reconnecting");
    let _server = Server::options(1).admin_socket(&socket).start();
    terminal.expect("live");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn a_signal_ends_it_and_gives_the_terminal_back() {
    let dir = TempDir::new();
    let socket = dir.path().join("top.sock");
    let _server = Server::options(1).admin_socket(&socket).start();
    for (signal, no_color) in [(Signal::TERM, ""), (Signal::HUP, "1")] {
        let terminal = top(&socket, no_color);
        terminal.expect("live");
        kill_process(Pid::from_child(&terminal.command), signal).expect("it runs");
        assert_eq!(terminal.end().signal(), Some(signal.as_raw()));
    }
}

#[test]
fn half_a_key_delays_neither_the_picture_nor_the_end() {
    let dir = TempDir::new();
    let socket = dir.path().join("top.sock");
    let server = Server::options(1).admin_socket(&socket).start();
    let mut terminal = top(&socket, "");
    terminal.expect("live");
    // Alt-[, or the first bytes of an arrow key.
    terminal.press("\u{1b}[");
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    terminal.expect("user:13");
    kill_process(Pid::from_child(&terminal.command), Signal::TERM).expect("it runs");
    assert_eq!(terminal.end().signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn it_ends_with_its_terminal() {
    let dir = TempDir::new();
    let socket = dir.path().join("top.sock");
    let _server = Server::options(1).admin_socket(&socket).start();
    let terminal = top(&socket, "");
    terminal.expect("live");
    let status = Killed(terminal.hang_up()).wait();
    assert_eq!(status.code(), Some(1), "{status:?}");
}

#[test]
fn a_blocked_terminal_does_not_prevent_the_end() {
    let dir = TempDir::new();
    let socket = dir.path().join("top.sock");
    let _server = Server::options(1).admin_socket(&socket).start();
    let terminal = top(&socket, "");
    terminal.expect("live");
    tcflow(&terminal.tty, Action::OOff).expect("a terminal");
    let pid = Pid::from_child(&terminal.command);
    let mut command = Killed(terminal.command);
    let mut status = None;
    eventually("the command ends", || {
        // The command may have ended already.
        let _ = kill_process(pid, Signal::TERM);
        status = command.0.try_wait().expect("a child");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.signal()), Some(Signal::TERM.as_raw()));
    tcflow(&terminal.tty, Action::OOn).expect("a terminal");
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Killed {
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the command ends", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_does_not_answer_is_not_called_live() {
    let dir = TempDir::new();
    let socket = dir.path().join("top.sock");
    let server = Server::options(1).admin_socket(&socket).start();
    let mut terminal = top(&socket, "");
    terminal.expect("live");
    server.signal(Signal::STOP);
    terminal.expect("answer");
    server.signal(Signal::CONT);
    terminal.expect("live");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn without_a_terminal_it_prints_one_picture_or_fails() {
    let server = Server::start(2);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    Admin::connect(&server).publish("user:13", "e", json!(1));
    let refused = server.run(&["top"]);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("top --once"), "{refused:?}");
    let page = server.run(&["top", "--once", "--interval", "100ms"]);
    let text = String::from_utf8_lossy(&page.stdout);
    assert!(page.status.success() && text.contains("user:13") && !text.contains('\u{1b}'), "{page:?}");
    let page = server.run(&["top", "--once", "--interval", "100ms", "--json"]);
    let view: Value = serde_json::from_slice(&page.stdout).expect("JSON");
    assert_eq!((&view["connections"], &view["subscriptions"]), (&json!(1), &json!(1)), "{view}");
    assert_eq!(view["channels"][0]["channel"], "user:13", "{view}");
    assert!(
        view["shards"].as_array().is_some_and(|shards| shards.len() == 2 && shards[0]["busy"].is_number()),
        "{view}"
    );
    let unreachable = output(corecast(&["top", "--once", "--admin-socket", "/nowhere/corecast.sock"]), b"");
    assert!(String::from_utf8_lossy(&unreachable.stderr).contains("/nowhere/corecast.sock"), "{unreachable:?}");
}
