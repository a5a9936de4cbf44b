//! The scenarios, and what they share: setting connections up, draining, heartbeats.

mod churn;
mod connect;
mod flood;
mod idle;
mod open_loop;
mod ping;
mod presence;
mod recover;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use mio::Token;

use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::Tally;
use crate::plan::Scenario;
use crate::publisher::Publisher;
use crate::target::Target;
use crate::worker::{Phase, Window, Worker};

/// Does a worker's share of its plan.
pub fn work(worker: &Worker) -> anyhow::Result<Tally> {
    match &worker.plan.scenario {
        Scenario::Flood(flood) => flood::work(worker, flood),
        Scenario::Ping(ping) => ping::work(worker, ping),
        Scenario::Idle(idle) => idle::work(worker, idle),
        Scenario::Presence(presence) => presence::work(worker, presence),
        Scenario::Recover(recover) => recover::work(worker, recover),
        Scenario::Connect(connect) => connect::work(worker, connect),
        Scenario::Churn(churn) => churn::work(worker, churn),
    }
}

/// Completes a worker's tally.
fn conclude(mut tally: Tally, net: &Net, window: &Window) -> Tally {
    window.close(&mut tally);
    tally.wanted = window.wanted;
    tally.connected = window.connected;
    tally.bytes_read = net.bytes_read;
    tally.reads = net.reads;
    tally
}

/// Opens `count` connections and waits until all are settled: they have ended, or `ready` counts them. `channel` names the
/// channel of each, for targets that subscribe by path.
fn set_up<H: Handler>(
    worker: &Worker,
    handler: &mut H,
    count: usize,
    channel: impl Fn(usize) -> u32,
    ready: impl Fn(&Net, &H) -> usize,
) -> anyhow::Result<(Net, Window)> {
    let mut net = Net::new(worker.plan.address, Arc::new(worker.plan.target.clone()))?;
    let mut started = 0;
    let begun = now_ns();
    let mut progress = (0, begun);
    loop {
        let settled = ready(&net, handler) + started - net.open - net.opening;
        if settled >= count {
            break;
        }
        while started < count && net.opening < IN_FLIGHT {
            net.open(channel(started));
            started += 1;
        }
        net.turn(handler, Some(Duration::from_millis(10)))?;
        worker.live().connected.store(net.open as u64, std::sync::atomic::Ordering::Relaxed);
        let now = now_ns();
        if settled != progress.0 {
            progress = (settled, now);
        }
        if now - progress.1 > GIVE_UP_NS || now - begun > worker.plan.setup_ns {
            // The server takes no more connections, or does not answer those that are open. Trying the rest would only
            // take this long again and again.
            net.give_up_opening(0, handler);
            break;
        }
        if worker.phase(now) == Phase::Over {
            break;
        }
    }
    let mut window = Window::default();
    (window.wanted, window.connected) = (count as u64, net.open as u64);
    Ok((net, window))
}

/// Records a connection that has ended.
fn note_ended(tally: &mut Tally, why: &Ended) {
    match why {
        Ended::Refused(why) => tally.note(format!("not connected: {why}")),
        Ended::Closed(code) => {
            tally.disconnected += 1;
            let code = code.map_or("without a close frame".into(), |code| format!("with {code}"));
            tally.note(format!("the server closed a connection {code}"));
        }
    }
}

/// Connects the publisher of a run. If that fails, the run ends, and a note gives the reason.
fn connect_publisher(
    worker: &Worker,
    net: &Net,
    token: Token,
    data_bytes: usize,
    tally: &mut Tally,
) -> anyhow::Result<Option<Publisher>> {
    let is_over = || worker.phase(now_ns()) == Phase::Over;
    match Publisher::connect(&worker.plan, data_bytes, &is_over) {
        Ok(mut publisher) => {
            publisher.register(net.registry(), token)?;
            Ok(Some(publisher))
        }
        Err(error) => {
            tally.note(format!("{error:#}"));
            worker.shared.stop.store(true, SeqCst);
            Ok(None)
        }
    }
}

/// Waits for outstanding answers after the end of a run: until `is_complete`, at most until nothing has arrived for
/// [`SILENCE_NS`], and at most [`DRAIN_NS`].
fn drain<H: Handler>(net: &mut Net, handler: &mut H, is_complete: impl Fn(&Net, &H) -> bool) -> anyhow::Result<()> {
    let begun = now_ns();
    let (mut reads, mut heard) = (net.reads, begun);
    loop {
        let now = now_ns();
        if net.reads != reads {
            (reads, heard) = (net.reads, now);
        }
        if is_complete(net, handler) || now - heard > SILENCE_NS || now - begun > DRAIN_NS {
            return Ok(());
        }
        net.turn(handler, Some(Duration::from_millis(10)))?;
    }
}

/// Answers the server's own `socket:ping` or `pusher:ping`. Returns whether the message was one.
fn is_heartbeat(net: &mut Net, id: usize, payload: &[u8]) -> bool {
    let Some(event) = payload.strip_prefix(b"{\"event\":\"") else { return false };
    let pong: &[u8] = if event.starts_with(b"socket:ping\"") {
        b"{\"event\":\"socket:pong\"}"
    } else if event.starts_with(b"pusher:ping\"") {
        b"{\"event\":\"pusher:pong\",\"data\":{}}"
    } else {
        return false;
    };
    net.send_text(id, pong);
    true
}

/// Pings on some connections in turn: each pings once per interval, spread evenly over it.
struct Pings<'a> {
    target: &'a Target,
    frame: Vec<u8>,
    connections: Range<usize>,
    every_ns: u64,
    begun_ns: u64,
    sent: usize,
}

impl Pings<'_> {
    fn new(target: &Target, connections: Range<usize>, every_ns: u64, begun_ns: u64) -> Pings<'_> {
        Pings { target, frame: Vec::new(), connections, every_ns, begun_ns, sent: 0 }
    }

    /// When the next ping is due.
    fn next_due_ns(&self) -> Option<u64> {
        let is_pinging = self.target.dialect.ping.is_some() && self.every_ns > 0 && !self.connections.is_empty();
        let slot_ns = self.every_ns as f64 / self.connections.len() as f64;
        is_pinging.then(|| self.begun_ns + (self.sent as f64 * slot_ns) as u64)
    }

    /// Sends what is due. Calls `each` with the number of the connection among these, and the time at which its ping was due.
    fn turn(&mut self, net: &mut Net, now: u64, mut each: impl FnMut(usize, u64)) {
        while let Some(due) = self.next_due_ns()
            && due <= now
        {
            let at = self.sent % self.connections.len();
            let id = self.connections.start + at;
            self.sent += 1;
            if net.is_alive(id) {
                each(at, due);
                self.target.push_ping(&mut self.frame, id);
                net.send(id, &self.frame);
            }
        }
    }
}

/// Limit of connections that are opening: enough to keep a server busy, few enough for any backlog.
const IN_FLIGHT: usize = 128;
/// When no connection has become ready for this long, the rest is given up.
const GIVE_UP_NS: u64 = 15_000_000_000;
/// After this long without a message, missing messages are lost.
const SILENCE_NS: u64 = 5_000_000_000;
/// Limit of the drain after a run.
const DRAIN_NS: u64 = 10_000_000_000;
