//! What must hold in every round, and the numbers of all rounds.

use super::{Outcome, Subject, UnreadArgs};
use crate::format::{bytes, number, time};
use crate::measure::Latency;
use crate::proof::Findings;

/// Reports a round, and checks it.
pub fn check(
    args: &UnreadArgs,
    title: &str,
    subject: &Subject,
    outcome: &Outcome,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let Outcome { before, peak, release, flood, connections, .. } = outcome;
    let resumed = &flood.resumed;
    findings.lines.push(format!(
        "{title}: {} requests; {} of replies waited; closed by the server: {}; {} read again: {} replies in {:.2} s; memory fell \
         back in {:.2} s",
        number(flood.requests as f64),
        bytes(flood.waiting as f64),
        closed(outcome),
        resumed.clients,
        number(resumed.replies as f64),
        resumed.seconds,
        release.seconds
    ));
    match subject.memory_limits() {
        Ok(limits) => {
            let bound = limits.clients;
            findings.number("memory.bound", bound as f64);
            let peak = peak.anon;
            findings.check(peak <= bound, format!("{title}: the peak of {peak} bytes is beyond the printed {bound}"));
        }
        // An older binary may print it in other words.
        Err(_) if args.proof.server.server_bin.is_some() => {
            findings.lines.push(format!("{title}: this server prints no bound of the memory that can be read here"));
        }
        Err(error) => return Err(error),
    }
    let allowed = before.anon + *connections as u64 * EACH_MAX + subject.slack();
    let most = peak.anon;
    findings.check(most <= allowed, format!("{title}: the peak is {most} bytes; replies explain {allowed}"));
    findings.check_released(*before, *peak, release);
    findings.check(flood.waiting > 0, format!("{title}: no reply waited: --requests is too small"));
    for (count, what) in [
        (resumed.closed as u64, "connections were closed before they read again"),
        (resumed.missing, "requests have no reply"),
        (resumed.wrong, "replies are not those to the request in their place"),
    ] {
        findings.check(count == 0, format!("{title}: {count} {what}"));
    }
    Ok(())
}

/// The connections that the server closed, with reasons and codes.
fn closed(outcome: &Outcome) -> String {
    let known = |reason: &str| CODES.iter().find(|(name, _)| *name == reason).map(|(_, code)| format!(" with {code}"));
    let reasons = outcome.flood.closed.iter();
    let reasons = reasons.map(|(reason, count)| format!("{count}{} ({reason})", known(reason).unwrap_or_default()));
    let reasons: Vec<String> = reasons.collect();
    if reasons.is_empty() { "none".into() } else { reasons.join(", ") }
}

/// Reports the medians of all rounds of a case.
pub fn summarize(case: &str, outcomes: &[Outcome], findings: &mut Findings) {
    for (name, title, value, text) in FIGURES {
        let values: Vec<f64> = outcomes.iter().map(value).collect();
        findings.spread(&format!("{case}.{name}"), &format!("{case}: {title}"), &values, text);
    }
    for (at, situation) in ["alone", "beside"].into_iter().enumerate() {
        let pings: Vec<Latency> = outcomes.iter().filter_map(|outcome| outcome.pings[at].clone()).collect();
        findings.latency_spread(&format!("{case} {situation}"), "ping", "ping → pong", &pings);
    }
    for (reason, code) in CODES {
        let closed = |outcome: &Outcome| outcome.flood.closed.get(reason).copied().unwrap_or_default() as f64;
        let values: Vec<f64> = outcomes.iter().map(closed).filter(|&count| count > 0.0).collect();
        findings.spread(
            &format!("{case}.closed.{reason}"),
            &format!("{case}: closed with {code} ({reason})"),
            &values,
            number,
        );
    }
}

/// How a value of a round is read and written.
type Figure = (&'static str, &'static str, fn(&Outcome) -> f64, fn(f64) -> String);

const FIGURES: [Figure; 17] = [
    ("requests", "requests sent", |it| it.flood.requests as f64, number),
    ("requests.each", "requests sent by each connection", |it| it.each(it.flood.requests as f64), number),
    ("memory.before", "server's data before", |it| it.before.anon as f64, bytes),
    ("memory.peak", "server's data at its peak", |it| it.peak.anon as f64, bytes),
    ("memory.after", "server's data after they were closed", |it| it.release.after.anon as f64, bytes),
    (
        "memory.each",
        "server's data for each connection",
        |it| it.each(it.peak.anon as f64 - it.before.anon as f64),
        bytes,
    ),
    ("rss.before", "resident memory before", |it| it.before.rss as f64, bytes),
    ("rss.peak", "resident memory at its peak", |it| it.peak.rss as f64, bytes),
    ("rss.after", "resident memory after they were closed", |it| it.release.after.rss as f64, bytes),
    ("waiting", "replies that waited in the server", |it| it.flood.waiting as f64, bytes),
    ("waiting.each", "replies that waited for each connection", |it| it.each(it.flood.waiting as f64), bytes),
    ("kernel.before", "TCP buffers of all sockets of the machine before", |it| of_kernel(it.before.kernel), bytes),
    (
        "kernel.growth",
        "their growth, of servers and clients together",
        |it| of_kernel(it.peak.kernel) - of_kernel(it.before.kernel),
        bytes,
    ),
    ("closed", "connections closed by the server", |it| it.flood.closed.values().sum::<u64>() as f64, number),
    ("resumed.replies", "replies to the connections that read again", |it| it.flood.resumed.replies as f64, number),
    ("resumed.missing", "requests of these without a reply", |it| it.flood.resumed.missing as f64, number),
    ("released", "memory fell back after", |it| it.release.seconds * 1e9, time),
];

impl Outcome {
    /// The share of one connection.
    fn each(&self, sum: f64) -> f64 {
        sum / self.connections as f64
    }
}

/// A value that the kernel may not tell. Such values are left out.
fn of_kernel(bytes: Option<u64>) -> f64 {
    bytes.map_or(f64::NAN, |bytes| bytes as f64)
}

/// The reasons for which a server may close these connections, and the codes.
const CODES: [(&str, u16); 4] =
    [("slow_consumer", 4100), ("outbox_memory", 4100), ("pong_timeout", 4201), ("silent", 4202)];
/// Memory of a connection whose replies wait: 64 KiB of them, in pages that may be half empty, and the requests of a read that wait
/// for them.
const EACH_MAX: u64 = 256 * 1024;
