//! The soak: a load with every fault that clients, operators and the machine bring, and at the end everything adds up.
//!
//! Beside a churn that checks every message: clients killed outright, half-sent frames, resets, an operator killed in the
//! middle of a line, descriptors that run out, and a log whose disk is full from the start.

use super::slow::stop_reading;
use super::{Cast, Findings, ProofArgs, Stage, Troupe, bystanders};
use crate::format::{bytes, number};
use crate::plan::Scenario;
use crate::procfs;
use crate::wire;
use anyhow::ensure;
use clap::Args;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, prlimit};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Options of `soak`.
#[derive(Args)]
pub struct SoakArgs {
    /// Connections that subscribe, listen, unsubscribe and reconnect.
    #[arg(long, short = 'n', default_value_t = 200)]
    pub connections: usize,
    /// Publishes a second to their channels.
    #[arg(long, short = 'r', default_value_t = 2_000.0)]
    pub rate: f64,
    /// Seconds.
    #[arg(long, short, default_value_t = 600.0, value_name = "SECONDS", env = "SOAK_SECONDS")]
    pub duration: f64,
    /// Memory that the server may keep at the end, beyond what it had when it was warm, in megabytes.
    #[arg(long, default_value_t = 16)]
    pub memory_slack_mb: u64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Runs it.
pub fn soak(args: &SoakArgs) -> anyhow::Result<bool> {
    let mut findings = Findings::default();
    let played = play(args, &mut findings);
    findings.conclude(played, &args.proof, "Soak with faults; the server's log goes to a full disk")
}

fn play(args: &SoakArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let options = ["--log", "debug", "--heart-interval", "5", "--heart-timeout", "5", "--outbox-limit", "131072"];
    let full_disk = "/dev/full".into();
    let mut stage = Stage::start(&args.proof, &options, Some(full_disk))?;
    let mut faults = Faults::default();

    // Warm: everything has happened once.
    faults.all(&stage)?;
    let (_, warm) = settle(&stage)?;

    let cast =
        Cast { title: "", first_channel: 0, is_background: false, processes: 1, warmup_s: 0.0, seconds: args.duration };
    let churn = Scenario::Churn {
        connections: args.connections,
        channels: CHURNED,
        reconnect: 0.05,
        rate: args.rate,
        size: 128,
    };
    let churn = stage.spawn(churn, Cast { title: "soak", ..cast })?;
    let steady = stage.spawn(bystanders(50, 5, 200.0, 20), Cast { first_channel: CHURNED, ..cast })?;
    let start = Instant::now();
    let mut peak = 0;
    while !is_over(&churn, &steady) && !stage.stop.load(SeqCst) && start.elapsed().as_secs_f64() < args.duration {
        faults.all(&stage)?;
        ensure!(stage.is_alive()?, "the server is gone after {:?}: {}", start.elapsed(), faults.told());
        peak = peak.max(stage.usage().rss_bytes);
    }
    let (churn, steady) = (churn.join()?, steady.join()?);
    for (who, harvest) in [("churn", &churn), ("steady", &steady)] {
        findings.check_faultless(who, harvest);
        findings.check(harvest.tally.undelivered == 0, format!("{who}: {} undelivered", harvest.tally.undelivered));
    }
    findings.latency("steady", "last", "publish → last subscriber", steady.tally.latencies.get("last"));
    findings.latency("steady", "ping", "ping → pong", steady.tally.latencies.get("ping"));
    findings.latency("churn", "operation", "subscribe, unsubscribe", churn.tally.latencies.get("operation"));

    let (stats, cold) = settle(&stage)?;
    add_up(findings, &stats, &cold, &warm, args.memory_slack_mb << 20);
    findings.lines.push(format!("{:.0} s: {}", start.elapsed().as_secs_f64(), faults.told()));
    findings.lines.push(format!(
        "memory {} when warm, {} at its peak, {} at the end; descriptors {} and {}",
        bytes(warm.rss_bytes as f64),
        bytes(peak as f64),
        bytes(cold.rss_bytes as f64),
        warm.descriptors,
        cold.descriptors
    ));
    let status = stage.terminate()?;
    findings.check(status == Some(0), format!("the server ended with {status:?} instead of 0"));
    Ok(())
}

fn is_over(churn: &Troupe, steady: &Troupe) -> bool {
    churn.is_finished() || steady.is_finished()
}

/// What must hold once everybody is gone.
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
    let (laid, out) = (stat("bytes_laid"), stat("bytes_out"));
    let (dropped, waiting) = (stat("outbox_bytes_dropped"), stat("outbox_bytes"));
    findings.lines.push(format!(
        "bytes due to clients {} = written {} + dropped when a connection ended {} + waiting {}",
        number(laid as f64),
        number(out as f64),
        number(dropped as f64),
        number(waiting as f64)
    ));
    findings.check(laid == out + dropped + waiting, format!("{laid} bytes laid out, {out} + {dropped} + {waiting}"));
    findings.check(waiting == 0, format!("{waiting} bytes wait for nobody"));
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

/// What the server holds when nobody is there.
struct Held {
    rss_bytes: u64,
    descriptors: u64,
}

/// Waits until the server has seen everybody go. Returns what it says then.
fn settle(stage: &Stage) -> anyhow::Result<(BTreeMap<String, u64>, Held)> {
    let start = Instant::now();
    loop {
        let stats = stage.stats()?;
        let left = ["connections", "connections_upgrading", "connections_closing", "channels"];
        let is_empty = left.iter().all(|name| stats.get(*name) == Some(&0));
        // One admin connection: ours, that asked.
        let is_quiet = stats.get("admin_connections") == Some(&1);
        if is_empty && is_quiet || start.elapsed() > Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(300));
            let (rss_bytes, descriptors) = (stage.usage().rss_bytes, procfs::descriptors(stage.server.pid()));
            return Ok((stats, Held { rss_bytes, descriptors }));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What was done so far, and who will be killed next.
#[derive(Default)]
struct Faults {
    victims: Vec<Child>,
    killed: u64,
    half_frames: u64,
    resets: u64,
    half_lines: u64,
    stopped: u64,
    exhausted: u64,
}

impl Faults {
    /// Each fault once; about half a second.
    fn all(&mut self, stage: &Stage) -> anyhow::Result<()> {
        self.victims.push(self.start_victim(stage)?);
        let address = stage.server.address;
        for round in 0..20u32 {
            self.half_frame(address, round)?;
            self.reset(address, round)?;
        }
        self.half_line(stage)?;
        self.stop_reading(stage)?;
        self.exhaust(stage)?;
        for mut victim in self.victims.drain(..) {
            std::thread::sleep(Duration::from_millis(200));
            // kill -9, with its connections in the middle of whatever they were doing.
            victim.kill()?;
            victim.wait()?;
            self.killed += 1;
        }
        Ok(())
    }

    /// A process of clients that subscribe and churn, to be killed.
    fn start_victim(&self, stage: &Stage) -> anyhow::Result<Child> {
        let admin = stage.server.admin_socket.clone().unwrap_or_default();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["churn", "--connect", &stage.server.address.to_string(), "--admin-socket"]).arg(admin);
        command.args(["--connections", "50", "--channels", "7", "--rate", "500", "--duration", "60"]);
        command.args(["--first-channel", &VICTIMS.to_string()]);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// A frame, or an upgrade, of which only a part comes before the end.
    fn half_frame(&mut self, address: SocketAddr, round: u32) -> anyhow::Result<()> {
        let mut bytes = wire::upgrade_request(&address.to_string(), "/");
        let head = bytes.len();
        wire::push_masked(&mut bytes, wire::TEXT, br#"{"event":"socket:subscribe","data":{"channel":"half"}}"#);
        let cut = match round % 3 {
            0 => head / 2,
            _ => head + (round as usize * 3) % (bytes.len() - head),
        };
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&bytes[..cut])?;
        self.half_frames += 1;
        Ok(())
    }

    /// A subscriber that resets its connection (SO_LINGER 0), half of the time with something unread.
    fn reset(&mut self, address: SocketAddr, round: u32) -> anyhow::Result<()> {
        let mut stream = stop_reading(address, CHURNED + round % 5)?;
        if round.is_multiple_of(2) {
            stream.set_read_timeout(Some(Duration::from_millis(5)))?;
            let _ = stream.read(&mut [0; 64]);
        }
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        self.resets += 1;
        Ok(())
    }

    /// An operator that vanishes in the middle of a line, with publishes and their replies under way.
    fn half_line(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let Some(path) = &stage.server.admin_socket else { return Ok(()) };
        let mut admin = UnixStream::connect(path)?;
        let line = br#"{"id":1,"command":"publish","channel":"unheard","event":"m","data":"half a line"}"#;
        for _ in 0..50 {
            admin.write_all(line)?;
            admin.write_all(b"\n")?;
        }
        admin.write_all(&line[..line.len() / 2])?;
        self.half_lines += 1;
        Ok(())
    }

    /// A subscriber that reads nothing until it is closed.
    fn stop_reading(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let Some(path) = &stage.server.admin_socket else { return Ok(()) };
        let _reader = stop_reading(stage.server.address, STOPPED)?;
        let mut admin = UnixStream::connect(path)?;
        let data = "x".repeat(100_000);
        let line = format!(
            "{{\"id\":1,\"command\":\"publish\",\"channel\":\"c{STOPPED}\",\"event\":\"m\",\"data\":\"{data}\"}}\n"
        );
        let before = stage.stats()?["closes_slow_consumer"];
        let start = Instant::now();
        while stage.stats()?["closes_slow_consumer"] == before {
            (0..10).try_for_each(|_| {
                admin.write_all(line.as_bytes())?;
                admin.read(&mut [0; 4096]).map(drop)
            })?;
            ensure!(start.elapsed() < Duration::from_secs(20), "a reader that stopped is still open after 20 s");
        }
        self.stopped += 1;
        Ok(())
    }

    /// Descriptors run out: clients that come meanwhile wait, and get in afterwards.
    fn exhaust(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let pid = Pid::from_raw(stage.server.pid() as i32);
        let was = getrlimit(Resource::Nofile);
        let mut low = was;
        low.current = Some(procfs::descriptors(stage.server.pid()) + 2);
        prlimit(pid, Resource::Nofile, low)?;
        let errors = stage_errors(stage);
        let waiting = (0..20).map(|_| TcpStream::connect(stage.server.address)).collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        // What it says of it comes with the next answer, for which it needs a descriptor: that of a client that ended.
        std::thread::sleep(Duration::from_millis(100));
        prlimit(pid, Resource::Nofile, was)?;
        for mut stream in waiting {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(&wire::upgrade_request(&stage.server.address.to_string(), "/"))?;
            ensure!(stream.read(&mut [0; 64])? > 0, "a client that came while descriptors ran out was turned away");
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "accepting did not resume");
        self.exhausted += stage_errors(stage).saturating_sub(errors);
        Ok(())
    }

    fn told(&self) -> String {
        format!(
            "{} client processes killed, {} half-sent frames and requests, {} resets, {} operators gone in mid-line, {} readers \
             that stopped, {} times out of descriptors",
            self.killed, self.half_frames, self.resets, self.half_lines, self.stopped, self.exhausted
        )
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        for victim in &mut self.victims {
            let _ = victim.kill();
            let _ = victim.wait();
        }
    }
}

fn stage_errors(stage: &Stage) -> u64 {
    stage.stats().map_or(0, |stats| stats["accept_errors"])
}

impl Stage {
    fn is_alive(&self) -> anyhow::Result<bool> {
        Ok(self.stats().is_ok())
    }

    /// SIGTERM, and the status that the server ends with.
    fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        if let Some(pid) = Pid::from_raw(self.server.pid() as i32) {
            kill_process(pid, Signal::TERM)?;
        }
        self.server.status()
    }
}

/// Channels of the churn; those of the steady load come next.
const CHURNED: u32 = 20;
/// The first channel of those who are killed.
const VICTIMS: u32 = 500;
/// The channel of the reader that stops.
const STOPPED: u32 = 1000;
