//! Conflation: slow readers of a channel with `slow = "latest-by-key"`, on which more is published than they read. None may be
//! closed, each must end with the last value of every key, and the neighbours must not notice.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;

use super::keyed_reader::KeyedReader;
use super::slow::stop_reading;
use super::{BackgroundRun, Findings, ProofArgs, Subject, bystanders};
use crate::format::{bytes, number};
use crate::plan::{Flood, Plan, Scenario, connections_per_process};
use crate::target::Publish;
use crate::values;

/// Options of `conflate`.
#[derive(Args)]
pub struct ConflateArgs {
    /// Slow readers: every second one stops reading, the others read a little.
    #[arg(long, short = 'n', default_value_t = 1_000, value_parser = values::count())]
    pub readers: usize,
    /// Keys; publishes take turns over them.
    #[arg(long, short = 'k', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub keys: u32,
    /// Publishes per second to their channel.
    #[arg(long, short = 'r', default_value_t = 1_000.0, value_parser = values::rate)]
    pub rate: f64,
    /// Bytes of payload, at least 28.
    #[arg(long, short = 's', default_value_t = 512, value_parser = values::size())]
    pub size: usize,
    /// Bytes per second that the others read.
    #[arg(long, default_value_t = 20_000, value_parser = values::count())]
    pub reads: usize,
    /// Subscribers of another channel, the neighbours.
    #[arg(long, default_value_t = 100, value_parser = values::count())]
    pub neighbours: usize,
    /// Measured time of each of the three situations, in seconds. It must be long enough to fill the outboxes.
    #[arg(long, short, default_value_t = 10.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Measures the neighbours alone, beside slow readers of another server, and beside slow readers of their own. Checks what the
/// latter end with.
pub fn conflate(args: &ConflateArgs) -> anyhow::Result<bool> {
    let title = format!(
        "{} slow readers of a channel with {} keys, {} publishes/s",
        number(args.readers as f64),
        args.keys,
        number(args.rate)
    );
    Findings::report(&args.proof.report, &title, |findings| measure(args, findings))
}

fn measure(args: &ConflateArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let most = connections_per_process().saturating_sub(args.neighbours + SPARE);
    ensure!(args.readers <= most, "{} slow readers: the limit is {most} (ulimit -Hn)", args.readers);
    let places = (args.readers + args.neighbours + SPARE).to_string();
    let rules = format!("[[channel]]\nmatch = \"{CHANNEL}\"\nslow = \"latest-by-key\"\n");
    let start = || Subject::start(&args.proof, &["--server-ping", "off", "--max-connections", &places], &rules, None);
    let subject = start()?;
    beside(args, [&subject; 2], "alone", &mut [], findings)?;
    // What the readers and their server cost the neighbours because they share the machine.
    let other = start()?;
    beside(args, [&subject, &other], "elsewhere", &mut connect(args, &other)?, findings)?;
    drop(other);

    let mut readers = connect(args, &subject)?;
    let published = beside(args, [&subject; 2], "slow", &mut readers, findings)?;
    subject.check_interrupted()?;
    let beside = resume(&subject, &mut readers, published)?;
    report(&subject, &readers, published, &beside, findings)
}

/// Subscribes the readers.
fn connect(args: &ConflateArgs, subject: &Subject) -> anyhow::Result<Vec<KeyedReader>> {
    let connect = |_| Ok(KeyedReader::new(stop_reading(subject.server.address, 0)?, args.keys)?);
    (0..args.readers).map(connect).collect()
}

/// Publishes to the channel of the readers of the server `slow`, which read slowly meanwhile, and measures the neighbours on
/// `subject`. Returns the number of publishes.
fn beside(
    args: &ConflateArgs,
    [subject, slow]: [&Subject; 2],
    situation: &'static str,
    readers: &mut [KeyedReader],
    findings: &mut Findings,
) -> anyhow::Result<u32> {
    let publisher = publish(args, slow)?;
    publisher.wait_until_begun()?;
    let others = subject.plan(bystanders(args.neighbours, 1, 100.0, 20), args.duration);
    let others = subject.spawn(situation, Plan { first_channel: 1, warmup_ns: 1_000_000_000, ..others })?;
    let mut reading: Vec<&mut KeyedReader> = readers.iter_mut().skip(1).step_by(2).collect();
    let begun = Instant::now();
    let mut reads = 0;
    while !others.is_finished() {
        subject.check_interrupted()?;
        ensure!(!publisher.is_finished(), "the publisher has ended too early: {}", publisher.end());
        // Evenly: readers that all read at the same moment would disturb the neighbours' clients on the same machine.
        let due = (begun.elapsed().as_secs_f64() * READS_PER_S as f64 * reading.len() as f64) as usize;
        for number in reads..due {
            let at = number % reading.len();
            reading[at].read(args.reads / READS_PER_S)?;
        }
        reads = due;
        std::thread::sleep(Duration::from_millis(1));
    }
    let results = others.join()?;
    findings.check_faultless(situation, &results);
    findings.latency(situation, "last", "publish → last neighbour", results.tally.latencies.get("last"));
    findings.latency(situation, "ping", "ping → pong", results.tally.latencies.get("ping"));
    let results = publisher.finish()?;
    findings.check_faultless(&format!("{situation} publisher"), &results);
    Ok(results.tally.published)
}

/// Starts the publisher: a run without subscribers, whose channels are the keys of one channel.
fn publish(args: &ConflateArgs, subject: &Subject) -> anyhow::Result<BackgroundRun> {
    let flood = Flood { channels: args.keys, rate: Some(args.rate), size: args.size, ..Flood::default() };
    let mut plan = subject.plan(Scenario::Flood(flood), PATIENCE_S);
    let template = format!(
        "{{\"id\":{{n}},\"command\":\"publish\",\"channel\":\"{CHANNEL}\",\"event\":\"m\",\"data\":{{data}},\"key\":\"{{channel}}\"}}\n"
    );
    plan.target.publish = Publish::Lines { hello: None, template: template.as_str().into() };
    subject.spawn("", plan)
}

/// All readers read until they have every last value. Returns the bytes that each of them read for that, beside what its receive
/// buffer held.
fn resume(subject: &Subject, readers: &mut [KeyedReader], published: u32) -> anyhow::Result<Vec<u64>> {
    let mut beside = Vec::new();
    let mut behind: Vec<(&mut KeyedReader, u64)> = Vec::new();
    for reader in readers {
        let held = reader.socket.bytes + reader.socket.waiting()?;
        behind.push((reader, held));
    }
    let begun = Instant::now();
    while !behind.is_empty() && begun.elapsed() < PATIENCE {
        subject.check_interrupted()?;
        let mut got = 0;
        for (reader, _) in &mut behind {
            got += reader.read(CHUNK)?;
        }
        behind.retain(|(reader, held)| {
            let is_done = reader.missing(published) == 0;
            if is_done {
                beside.push(reader.socket.bytes.saturating_sub(*held));
            }
            !is_done && !reader.socket.is_closed
        });
        if got == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(beside)
}

/// No reader may have been closed, each must have every last value, and messages must have been left out.
fn report(
    subject: &Subject,
    readers: &[KeyedReader],
    published: u32,
    beside: &[u64],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let stats = subject.stats()?;
    let stat = |name: &str| stats.get(name).copied().unwrap_or_default();
    let closed = readers.iter().filter(|reader| reader.socket.is_closed).count();
    let behind = readers.iter().filter(|reader| reader.missing(published) > 0).count();
    let out_of_order: u64 = readers.iter().map(|reader| reader.out_of_order).sum();
    let received: u64 = readers.iter().map(|reader| reader.received).sum();
    let due = u64::from(published) * readers.len() as u64;
    let most = beside.iter().copied().max().unwrap_or_default();
    for (name, value) in [
        ("closed", closed as u64),
        ("behind", behind as u64),
        ("out_of_order", out_of_order),
        ("conflated", stat("messages_conflated")),
        ("bytes_after_pause", most),
        ("memory", subject.usage().rss_bytes),
    ] {
        findings.number(name, value as f64);
    }
    findings.lines.push(format!(
        "{} publishes; the readers received {} of {} messages; {} were replaced by newer ones; memory {}",
        number(f64::from(published)),
        number(received as f64),
        number(due as f64),
        number(stat("messages_conflated") as f64),
        bytes(subject.usage().rss_bytes as f64)
    ));
    findings.lines.push(format!(
        "after the pause a reader had every last value after at most {}, beside what its receive buffer held",
        bytes(most as f64)
    ));
    findings.check(closed == 0, format!("{closed} readers were closed"));
    let slow = stat("closes_slow_consumer");
    findings.check(slow == 0, format!("the server closed {slow} slow consumers"));
    findings.check(behind == 0, format!("{behind} readers lack the last value of a key"));
    findings.check(out_of_order == 0, format!("{out_of_order} messages arrived after a later one, or twice"));
    findings.check(received < due, "the readers received everything: --duration or --rate is too small to block them");
    findings
        .check(received + stat("messages_conflated") == due, "messages were neither received nor counted as replaced");
    findings.check(most <= AFTER_PAUSE_MAX, format!("{most} bytes after the pause, {AFTER_PAUSE_MAX} are allowed"));
    Ok(())
}

/// The name of the channel of the readers: number 0.
const CHANNEL: &str = "c0";
/// How often in a second each of the readers that read a little does so.
const READS_PER_S: usize = 10;
/// Bytes of one read after the pause.
const CHUNK: usize = 4096;
/// Bytes that the server and the kernel may hold for a reader, beside its receive buffer.
const AFTER_PAUSE_MAX: u64 = 256 * 1024;
/// Time limit of the last reads.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time limit of the publisher, which ends with the measurement beside it.
const PATIENCE_S: f64 = 300.0;
/// Connections allowed beside the readers and the neighbours: those that ping, among others.
const SPARE: usize = 64;
