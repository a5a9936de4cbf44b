//! Notifications for systemd with `Type=notify` (sd_notify(3)).

use crate::harness::{LONG, Options, Server, TempDir};
use rustix::process::Signal;
use std::os::unix::net::UnixDatagram;

/// A service manager, and the directory of its socket.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = TempDir::new();
        let socket = UnixDatagram::bind(dir.path().join("notify.sock")).expect("a socket");
        socket.set_read_timeout(Some(LONG)).expect("a timeout");
        Manager { socket, dir }
    }

    fn start(&self, options: Options) -> Server {
        options.env("NOTIFY_SOCKET", &self.dir.path().join("notify.sock")).start()
    }

    /// The next notification.
    fn told(&self) -> String {
        let mut bytes = [0; 512];
        let count = self.socket.recv(&mut bytes).expect("the server tells the manager");
        String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned()
    }
}

#[test]
fn systemd_is_notified_of_readiness_and_of_the_stop() {
    let manager = Manager::new();
    let mut server = manager.start(Server::options(1));
    assert_eq!(manager.told(), "READY=1");
    // A server that is ready serves its first client command.
    assert!(server.run(&["ping"]).status.success());
    server.signal(Signal::TERM);
    // The shutdown timeout of 8 s, and 5 s around it.
    assert_eq!(manager.told(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=13000000");
    assert!(server.wait().success());
}

/// The server asks systemd for the time that a drain takes, so that the unit's own timeout does not end it.
#[test]
fn systemd_is_told_how_long_a_drain_takes() {
    let manager = Manager::new();
    let mut server = manager.start(Server::options(1).arg("--drain-timeout", 60).arg("--shutdown-timeout", 20));
    assert_eq!(manager.told(), "READY=1");
    // Without connections, the drain ends at once.
    server.signal(Signal::TERM);
    assert_eq!(manager.told(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=85000000");
    assert_eq!(manager.told(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000");
    assert!(server.wait().success());
}
