//! The soak: a checked load beside faults of clients, operators and the machine. At the end all counters must add up.
//!
//! The faults: killed clients, half-sent frames, resets, an operator that ends in the middle of a line, stopped readers,
//! descriptors that run out, and a log on a full disk.

use super::slow::stop_reading;
use super::{Findings, ProofArgs, Subject, bystanders};
use crate::format::{bytes, number};
use crate::plan::{Churn, Plan, Scenario};
use crate::procfs;
use crate::values;
use crate::wire;
use anyhow::{Context, ensure};
use clap::Args;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, prlimit};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Options of `soak`.
#[derive(Args)]
pub struct SoakArgs {
    /// Connections that subscribe, listen, unsubscribe and reconnect.
    #[arg(long, short = 'n', default_value_t = 200, value_parser = values::count())]
    pub connections: usize,
    /// Publishes per second to their channels.
    #[arg(long, short = 'r', default_value_t = 2_000.0, value_parser = values::rate)]
    pub rate: f64,
    /// Duration, in seconds.
    #[arg(long, short, default_value_t = 600.0, value_name = "SECONDS", env = "SOAK_SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Growth of memory allowed since the end of the warm-up, in megabytes.
    #[arg(long, default_value_t = 16)]
    pub memory_slack_mb: u64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Runs the load and the faults, and checks the counters.
pub fn soak(args: &SoakArgs) -> anyhow::Result<bool> {
    Findings::report(&args.proof.report, "Soak with faults; the server's log goes to a full disk", |findings| {
        measure(args, findings)
    })
}

fn measure(args: &SoakArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let options = ["--log", "debug", "--heart-interval", "5", "--heart-timeout", "5", "--outbox-limit", "131072"];
    let full_disk = "/dev/full".into();
    let mut subject = Subject::start(&args.proof, &options, "", Some(full_disk))?;
    let mut faults = Faults::default();

    // Warm-up: every fault once.
    faults.all(&subject)?;
    let (_, warm) = settle(&subject)?;

    let (connections, rate) = (args.connections, args.rate);
    let churn = Churn { connections, channels: CHURNED, reconnect: 0.05, rate, size: 128 };
    let churn = subject.spawn("soak", subject.plan(Scenario::Churn(churn), args.duration))?;
    let steady = subject.plan(bystanders(50, 5, 200.0, 20), args.duration);
    let steady = subject.spawn("", Plan { first_channel: CHURNED, ..steady })?;
    let start = Instant::now();
    let mut peak = 0;
    let is_over = || churn.is_finished() || steady.is_finished() || subject.stop.load(SeqCst);
    while !is_over() && start.elapsed().as_secs_f64() < args.duration {
        faults.all(&subject)?;
        ensure!(subject.stats().is_ok(), "the server has ended after {:?}: {}", start.elapsed(), faults.summary());
        peak = peak.max(subject.usage().rss_bytes);
    }
    let (churn, steady) = (churn.join()?, steady.join()?);
    findings.check_faultless("churn", &churn);
    findings.check_faultless("steady", &steady);
    findings.latency("steady", "last", "publish → last subscriber", steady.tally.latencies.get("last"));
    findings.latency("steady", "ping", "ping → pong", steady.tally.latencies.get("ping"));
    findings.latency("churn", "operation", "subscribe, unsubscribe", churn.tally.latencies.get("operation"));

    let (stats, cold) = settle(&subject)?;
    add_up(findings, &stats, &cold, &warm, args.memory_slack_mb << 20);
    findings.lines.push(format!("{:.0} s: {}", start.elapsed().as_secs_f64(), faults.summary()));
    findings.lines.push(format!(
        "memory {} when warm, {} at its peak, {} at the end; descriptors {} and {}",
        bytes(warm.rss_bytes as f64),
        bytes(peak as f64),
        bytes(cold.rss_bytes as f64),
        warm.descriptors,
        cold.descriptors
    ));
    let status = subject.terminate()?;
    findings.check(status == Some(0), format!("the server ended with {status:?} instead of 0"));
    subject.check_interrupted()
}

/// Checks the counters after all clients have disconnected.
fn add_up(findings: &mut Findings, stats: &BTreeMap<String, u64>, cold: &Held, warm: &Held, slack: u64) {
    let stat = |name: &str| stats.get(name).copied().unwrap_or_default();
    let is_reason = |name: &str| name.starts_with("closes_");
    let closes: u64 = stats.iter().filter(|(name, _)| is_reason(name)).map(|(_, count)| count).sum();
    let open = stat("connections") + stat("connections_upgrading") + stat("connections_closing");
    let accepts = stat("accepts");
    findings.lines.push(format!(
        "accepted {} = open {} + closed {}",
        number(accepts as f64),
        number(open as f64),
        number(closes as f64)
    ));
    findings.check(accepts == open + closes, format!("{accepts} accepted, but {open} open + {closes} closed"));
    let reasons: Vec<String> = stats
        .iter()
        .filter(|(name, count)| is_reason(name) && **count > 0)
        .map(|(name, count)| format!("{} {}", name.trim_start_matches("closes_"), number(*count as f64)))
        .collect();
    findings.lines.push(format!("closed: {}", reasons.join(", ")));
    let (encoded, out) = (stat("bytes_encoded"), stat("bytes_out"));
    let (dropped, waiting) = (stat("outbox_bytes_dropped"), stat("outbox_bytes"));
    findings.lines.push(format!(
        "bytes due to clients {} = written {} + dropped when a connection ended {} + waiting {}",
        number(encoded as f64),
        number(out as f64),
        number(dropped as f64),
        number(waiting as f64)
    ));
    findings
        .check(encoded == out + dropped + waiting, format!("{encoded} bytes encoded, {out} + {dropped} + {waiting}"));
    findings.check(waiting == 0, format!("{waiting} bytes wait in outboxes without a connection"));
    findings.check(open == 0, format!("{open} connections are still there"));
    findings.check(stat("subscriptions") == 0, format!("{} subscriptions are still there", stat("subscriptions")));
    findings.check(stat("channels") == 0, format!("{} channels are still there", stat("channels")));
    findings.check(
        cold.descriptors == warm.descriptors,
        format!("{} descriptors at the end, {} when warm", cold.descriptors, warm.descriptors),
    );
    findings.check(
        cold.rss_bytes <= warm.rss_bytes + slack,
        format!("{} bytes of memory at the end, {} when warm", cold.rss_bytes, warm.rss_bytes),
    );
}

/// Resources of the server without clients.
struct Held {
    rss_bytes: u64,
    descriptors: u64,
}

/// Waits until the server has no clients. Returns its counters and resources.
fn settle(subject: &Subject) -> anyhow::Result<(BTreeMap<String, u64>, Held)> {
    let start = Instant::now();
    loop {
        let stats = subject.stats()?;
        let left = ["connections", "connections_upgrading", "connections_closing", "channels"];
        let is_empty = left.iter().all(|name| stats.get(*name) == Some(&0));
        // One admin connection: the one that asks.
        let is_quiet = stats.get("admin_connections") == Some(&1);
        if is_empty && is_quiet || start.elapsed() > Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(300));
            let (rss_bytes, descriptors) = (subject.usage().rss_bytes, procfs::descriptors(subject.server.pid()));
            return Ok((stats, Held { rss_bytes, descriptors }));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process of churning clients, killed in the middle of their work.
struct Victim(Child);

impl Victim {
    fn start(subject: &Subject) -> anyhow::Result<Victim> {
        let admin = subject.server.admin_socket.clone().unwrap_or_default();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["churn", "--connect", &subject.server.address.to_string(), "--admin-socket"]).arg(admin);
        command.args(["--connections", "50", "--channels", "7", "--rate", "500", "--duration", "60"]);
        command.args(["--first-channel", &VICTIMS.to_string()]);
        Ok(Victim(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The faults so far.
#[derive(Default)]
struct Faults {
    rounds: u64,
    /// Times out of descriptors.
    exhausted: u64,
}

impl Faults {
    /// Causes each fault once, some of them several times; takes about half a second.
    fn all(&mut self, subject: &Subject) -> anyhow::Result<()> {
        let victim = Victim::start(subject)?;
        for number in 0..EACH {
            half_frame(subject, number)?;
            reset(subject, number)?;
        }
        half_line(subject)?;
        stop_until_closed(subject)?;
        self.exhausted += exhaust(subject)?;
        std::thread::sleep(Duration::from_millis(200));
        drop(victim);
        self.rounds += 1;
        Ok(())
    }

    fn summary(&self) -> String {
        let (rounds, often) = (self.rounds, self.rounds * u64::from(EACH));
        format!(
            "{rounds} client processes killed, {often} half-sent frames and requests, {often} resets, {rounds} admin connections \
             closed in mid-line, {rounds} stopped readers, {} times out of descriptors",
            self.exhausted
        )
    }
}

/// Sends a part of a frame or of an upgrade request, and closes.
fn half_frame(subject: &Subject, number: u32) -> anyhow::Result<()> {
    let address = subject.server.address;
    let mut bytes = wire::upgrade_request(&address.to_string(), "/");
    let head = bytes.len();
    wire::push_masked(&mut bytes, wire::TEXT, br#"{"event":"socket:subscribe","data":{"channel":"half"}}"#);
    let cut = match number % 3 {
        0 => head / 2,
        _ => head + (number as usize * 3) % (bytes.len() - head),
    };
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&bytes[..cut])?;
    Ok(())
}

/// Resets the connection of a subscriber (SO_LINGER 0), half of the time with unread data.
fn reset(subject: &Subject, number: u32) -> anyhow::Result<()> {
    let mut stream = stop_reading(subject.server.address, CHURNED + number % 5)?;
    if number.is_multiple_of(2) {
        stream.set_read_timeout(Some(Duration::from_millis(5)))?;
        let _ = stream.read(&mut [0; 64]);
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

/// Closes an admin connection in the middle of a line, with publishes and replies in flight.
fn half_line(subject: &Subject) -> anyhow::Result<()> {
    let Some(path) = &subject.server.admin_socket else { return Ok(()) };
    let mut admin = UnixStream::connect(path)?;
    let line = br#"{"id":1,"command":"publish","channel":"unheard","event":"m","data":"half a line"}"#;
    for _ in 0..50 {
        admin.write_all(line)?;
        admin.write_all(b"\n")?;
    }
    admin.write_all(&line[..line.len() / 2])?;
    Ok(())
}

/// Stops reading on a subscribed connection until the server closes it.
fn stop_until_closed(subject: &Subject) -> anyhow::Result<()> {
    let _reader = stop_reading(subject.server.address, STOPPED)?;
    let mut admin = subject.server.admin()?;
    let data = "x".repeat(100_000);
    let line =
        format!("{{\"id\":1,\"command\":\"publish\",\"channel\":\"c{STOPPED}\",\"event\":\"m\",\"data\":\"{data}\"}}");
    let before = subject.stats()?["closes_slow_consumer"];
    let start = Instant::now();
    while subject.stats()?["closes_slow_consumer"] == before {
        for _ in 0..10 {
            admin.ask(&line)?;
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "a stopped reader is still open after 20 s");
    }
    Ok(())
}

/// Lets descriptors run out. Clients that connect then wait, and are accepted afterwards. Returns how often they ran out.
fn exhaust(subject: &Subject) -> anyhow::Result<u64> {
    let pid = Pid::from_raw(subject.server.pid() as i32);
    let was = getrlimit(Resource::Nofile);
    let mut low = was;
    low.current = Some(procfs::descriptors(subject.server.pid()) + 2);
    prlimit(pid, Resource::Nofile, low)?;
    let errors = accept_errors(subject);
    let waiting = (0..20).map(|_| TcpStream::connect(subject.server.address)).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    // The server counts the error when it answers again, for which it needs a free descriptor.
    std::thread::sleep(Duration::from_millis(100));
    prlimit(pid, Resource::Nofile, was)?;
    for mut stream in waiting {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&wire::upgrade_request(&subject.server.address.to_string(), "/"))?;
        // A stop of this process interrupts a read with a timeout (signal(7)), which is not the end of the run.
        let answered = stream.read_exact(&mut [0; 12]);
        answered.context("a client that connected without free descriptors was refused")?;
    }
    ensure!(start.elapsed() < Duration::from_secs(20), "accepting did not resume within 20 s");
    Ok(accept_errors(subject).saturating_sub(errors))
}

fn accept_errors(subject: &Subject) -> u64 {
    subject.stats().map_or(0, |stats| stats["accept_errors"])
}

impl Subject {
    /// Sends SIGTERM. Returns the exit status of the server.
    fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        if let Some(pid) = Pid::from_raw(self.server.pid() as i32) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = self.server.wait(|| Instant::now() > deadline)?;
        Ok(status.context("the server does not end")?.code())
    }
}

/// Half-sent frames, and resets, in a round of faults.
const EACH: u32 = 20;
/// Channels of the churn. Those of the steady load have the numbers after them.
const CHURNED: u32 = 20;
/// The first channel of the killed processes.
const VICTIMS: u32 = 500;
/// The channel of the stopped reader.
const STOPPED: u32 = 1000;
