//! Slow readers: their effect on the latency of their neighbours, and the memory that many of them take.

use super::{Findings, ProofArgs, Subject};
use crate::format::{bytes, number};
use crate::plan::{Flood, Plan, Scenario, connections_per_process};
use crate::target::Dialect;
use crate::values;
use crate::wire;
use anyhow::ensure;
use clap::Args;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Options of `slow`.
#[derive(Args)]
pub struct SlowArgs {
    /// Subscribers of the same channel that read.
    #[arg(long, short = 'n', default_value_t = 999, value_parser = values::count())]
    pub neighbours: usize,
    /// Publishes per second to their channel, of 4 KB each.
    #[arg(long, short = 'r', default_value_t = 50.0, value_parser = values::rate)]
    pub rate: f64,
    /// Measured time of each of the two situations, in seconds. The kernel buffers up to 4 MiB for a stopped reader.
    #[arg(long, short, default_value_t = 30.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Readers that stop at once, each on a channel of its own.
    #[arg(long, default_value_t = 1000, value_parser = values::count())]
    pub stopped: usize,
    /// The outbox limit of each of these, in bytes.
    #[arg(long, default_value_t = 1024 * 1024)]
    pub outbox_limit: usize,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Both proofs, one after the other.
pub fn slow(args: &SlowArgs) -> anyhow::Result<bool> {
    Findings::report(&args.proof.report, "Readers that stop reading", |findings| {
        neighbours(args, findings)?;
        memory(args, findings)
    })
}

/// Measures the latency of subscribers without and beside one that has stopped reading.
fn neighbours(args: &SlowArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let flood = Flood {
        subscribers: args.neighbours,
        rate: Some(args.rate),
        size: 4096,
        pingers: 20,
        ping_every_ns: 20_000_000,
        ..Flood::default()
    };
    for situation in ["alone", "beside one stopped"] {
        // A small limit, so that the reader is blocked, closed and replaced several times.
        let subject = Subject::start(&args.proof, &["--server-ping", "off", "--outbox-limit", "65536"], "", None)?;
        let plan = subject.plan(Scenario::Flood(flood.clone()), args.duration);
        let background = subject.spawn(situation, Plan { warmup_ns: 1_000_000_000, ..plan })?;
        let mut stopped = Vec::new();
        if situation != "alone" {
            while !background.is_finished() && !subject.stop.load(SeqCst) {
                if stopped.len() as u64 <= subject.stats()?["closes_slow_consumer"] {
                    stopped.push(stop_reading(subject.server.address, 0)?);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let results = background.join()?;
        let tally = &results.tally;
        findings.check_faultless(situation, &results);
        findings.latency(situation, "receipt", "publish → receipt", tally.latencies.get("receipt"));
        findings.latency(situation, "last", "publish → last neighbour", tally.latencies.get("last"));
        findings.latency(situation, "ping", "ping → pong", tally.latencies.get("ping"));
        subject.check_interrupted()?;
        if situation != "alone" {
            // The last one may have stopped shortly before the end.
            let closed = fill(&subject, 1, stopped.len())?["closes_slow_consumer"];
            findings.number("stopped", stopped.len() as f64);
            findings.number("closed", closed as f64);
            check_closed(findings, stopped.len(), closed);
            findings
                .lines
                .push(format!("{} stopped readers, one after the other; {closed} closed with 4100", stopped.len()));
        }
    }
    Ok(())
}

/// Measures the server's memory while the outboxes of many stopped readers fill, and afterwards.
fn memory(args: &SlowArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let most = connections_per_process().saturating_sub(SPARE);
    ensure!(args.stopped <= most, "{} stopped readers: the limit is {most} (ulimit -Hn)", args.stopped);
    let limit = args.outbox_limit.to_string();
    let places = (args.stopped + SPARE).to_string();
    let options = ["--server-ping", "off", "--outbox-limit", &limit, "--max-connections", &places];
    let subject = Subject::start(&args.proof, &options, "", None)?;
    let limits = subject.memory_limits()?;
    let bound = limits.clients;
    // A first few, so that memory that is allocated once is not counted.
    drop((0..SPARE as u32).map(|n| stop_reading(subject.server.address, n)).collect::<Result<Vec<_>, _>>()?);
    let before = subject.memory();
    let readers = (0..args.stopped as u32)
        .map(|channel| stop_reading(subject.server.address, channel))
        .collect::<anyhow::Result<Vec<_>>>()?;

    let (stats, peak) = subject.peak_during(|| fill(&subject, args.stopped, args.stopped))?;
    drop(readers);
    let release = subject.wait_until_released(before, peak);
    let after = release.after;

    findings.number("memory.before", before.anon as f64);
    findings.number("memory.peak", peak.anon as f64);
    findings.number("memory.after", after.anon as f64);
    findings.number("memory.bound", bound as f64);
    findings.lines.push(format!(
        "{} stopped at once, each on a channel of its own: memory {} before, {} at its peak (at most {} by --check-config), {} \
         after {:.1} s; {} closed with 4100, {} dropped",
        number(args.stopped as f64),
        bytes(before.anon as f64),
        bytes(peak.anon as f64),
        bytes(bound as f64),
        bytes(after.anon as f64),
        release.seconds,
        stats["closes_slow_consumer"],
        bytes(stats["outbox_bytes_dropped"] as f64),
    ));
    findings.lines.push(format!("at these limits, as the server prints it: {}", limits.lines.join("; ")));
    check_closed(findings, args.stopped, stats["closes_slow_consumer"]);
    findings.check(peak.anon <= bound, format!("the peak of {} bytes is beyond the printed {bound}", peak.anon));
    findings.check_released(before, peak, &release);
    Ok(())
}

/// Every reader that stopped must have been closed, and no other.
fn check_closed(findings: &mut Findings, stopped: usize, closed: u64) {
    findings.check(stopped > 0, "no reader stopped");
    findings.check(closed == stopped as u64, format!("{closed} of {stopped} stopped readers were closed"));
}

/// Publishes to the first channels in turn until so many slow consumers have been closed, or for a minute. Returns the
/// server's counters.
fn fill(subject: &Subject, channels: usize, stopped: usize) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut admin = subject.server.admin()?;
    let names: Vec<String> = (0..channels).map(|channel| format!("\"c{channel}\"")).collect();
    let data = "x".repeat(16 * 1024);
    let start = Instant::now();
    loop {
        let stats = subject.stats()?;
        if stats["closes_slow_consumer"] as usize >= stopped || start.elapsed() > PATIENCE {
            return Ok(stats);
        }
        subject.check_interrupted()?;
        for names in names.chunks(100) {
            let names = names.join(",");
            let line = format!(r#"{{"id":1,"command":"publish","channels":[{names}],"event":"m","data":"{data}"}}"#);
            admin.ask(&line)?;
        }
    }
}

/// A connection that subscribes and then stops reading, with the smallest receive buffer that the kernel allows.
pub fn stop_reading(address: SocketAddr, channel: u32) -> anyhow::Result<TcpStream> {
    let mut stream = connect_small(address, None)?;
    let dialect = Dialect::native();
    let mut request = wire::upgrade_request(&address.to_string(), "/");
    dialect.subscribe.iter().for_each(|subscribe| dialect.push(&mut request, subscribe, channel, 1));
    stream.write_all(&request)?;
    let mut seen = Vec::new();
    while memchr::memmem::find(&seen, b"socket:subscribed").is_none() {
        let mut piece = [0; 512];
        let got = stream.read(&mut piece)?;
        ensure!(got > 0, "the server closed a connection before it was subscribed");
        seen.extend_from_slice(&piece[..got]);
    }
    Ok(stream)
}

/// A connection with the smallest receive buffer that the kernel allows, and with segments of at most `segment` bytes.
pub fn connect_small(address: SocketAddr, segment: Option<u32>) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    segment.map_or(Ok(()), |bytes| socket.set_tcp_mss(bytes))?;
    socket.connect(&address.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// Time limit of filling the outboxes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections allowed beside the stopped readers.
const SPARE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stopped_reader_must_be_closed() {
        let check = |stopped, closed| {
            let mut findings = Findings::default();
            check_closed(&mut findings, stopped, closed);
            findings.violations.is_empty()
        };
        assert!(check(3, 3));
        assert!(!check(3, 2) && !check(3, 1) && !check(3, 4) && !check(0, 0));
    }
}
