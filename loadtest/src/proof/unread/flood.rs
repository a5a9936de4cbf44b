//! The clients' part: they connect, send, and some of them read at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::client::{Requests, UnreadClient};
use super::{Subject, UnreadArgs};

/// What the clients did and what the server did about it.
pub struct Flood {
    /// Requests that were sent as a whole.
    pub requests: u64,
    /// Bytes that waited in the server's outboxes afterwards.
    pub waiting: u64,
    /// Connections that the server had closed by then, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Those that read at the end.
    pub resumed: Resumed,
}

/// Connects, sends, and waits until the server has read all that it reads. Then some of the clients read.
pub fn flood(args: &UnreadArgs, subject: &Subject, limit: Option<u64>) -> anyhow::Result<(Vec<UnreadClient>, Flood)> {
    let requests = Requests::new();
    let mut clients = connect(subject, args.connections)?;
    std::thread::sleep(SETTLED);
    send(args, subject, &requests, &mut clients, limit)?;
    let stats = at_rest(subject)?;
    let sent = clients.iter().map(|client| requests.whole(client.sent)).sum();
    let closed = stats.iter().filter_map(|(name, &count)| Some((name.strip_prefix("closes_")?.to_owned(), count)));
    let closed = closed.filter(|(reason, count)| *count > 0 && !reason.starts_with("client_")).collect();
    let resumed = resume(args, subject, &mut clients, &requests)?;
    Ok((clients, Flood { requests: sent, waiting: stats["outbox_bytes"], closed, resumed }))
}

/// All clients send in turn. What is limited is sent to its end, unless the kernel takes nothing for so long.
fn send(
    args: &UnreadArgs,
    subject: &Subject,
    requests: &Requests,
    clients: &mut [UnreadClient],
    limit: Option<u64>,
) -> anyhow::Result<()> {
    let most = limit.unwrap_or(u64::MAX);
    let mut since = Instant::now();
    while since.elapsed().as_secs_f64() < args.duration {
        subject.check_interrupted()?;
        let mut sent = 0;
        for client in &mut *clients {
            sent += client.send(requests, most)?;
        }
        if clients.iter().all(|client| client.is_closed() || client.sent >= most) {
            break;
        }
        if sent == 0 {
            std::thread::sleep(Duration::from_millis(5));
        } else if limit.is_some() {
            since = Instant::now();
        }
    }
    Ok(())
}

/// Opens connections, one after the other.
pub fn connect(subject: &Subject, count: usize) -> anyhow::Result<Vec<UnreadClient>> {
    (0..count).map(|_| UnreadClient::connect(subject.server.address)).collect()
}

/// The server's counters once it refuses no further request.
fn at_rest(subject: &Subject) -> anyhow::Result<BTreeMap<String, u64>> {
    let begun = Instant::now();
    let mut stats = subject.stats()?;
    loop {
        std::thread::sleep(REST);
        subject.check_interrupted()?;
        let later = subject.stats()?;
        if later["requests_refused"] == stats["requests_refused"] || begun.elapsed() > PATIENCE {
            return Ok(later);
        }
        stats = later;
    }
}

/// What the clients that read found.
#[derive(Default)]
pub struct Resumed {
    /// How many.
    pub clients: usize,
    /// Those that the server had closed.
    pub closed: usize,
    /// Replies to all of them.
    pub replies: u64,
    /// Requests of the others without a reply.
    pub missing: u64,
    /// Replies beyond one for each request, or in the place of others.
    pub wrong: u64,
    /// Time until the last of them had every reply.
    pub seconds: f64,
}

/// Some of the clients read until they have a reply for every request that they have sent.
fn resume(
    args: &UnreadArgs,
    subject: &Subject,
    clients: &mut [UnreadClient],
    requests: &Requests,
) -> anyhow::Result<Resumed> {
    let (begun, mut progress) = (Instant::now(), Instant::now());
    let count = args.resumed.min(clients.len());
    let step = clients.len() / count;
    let mut found = Resumed { clients: count, ..Resumed::default() };
    let mut behind: Vec<&mut UnreadClient> = clients.iter_mut().step_by(step).take(count).collect();
    behind.iter_mut().try_for_each(|client| client.resume())?;
    while !behind.is_empty() {
        subject.check_interrupted()?;
        let mut got = 0;
        for client in &mut behind {
            got += client.read(requests)?;
        }
        if got > 0 {
            progress = Instant::now();
        }
        let is_late = progress.elapsed() > PATIENCE;
        behind.retain(|client| {
            let sent = requests.whole(client.sent);
            let is_done = client.replies >= sent || client.is_closed() || is_late;
            if is_done {
                found.closed += usize::from(client.is_closed());
                found.replies += client.replies;
                found.missing += if client.is_closed() { 0 } else { sent.saturating_sub(client.replies) };
                found.wrong += client.misplaced + client.replies.saturating_sub(sent);
            }
            !is_done
        });
        if got == 0 && !behind.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    found.seconds = begun.elapsed().as_secs_f64();
    Ok(found)
}

/// The server reads from newcomers, which were accepted within the last second, after all others. After this time a connection is
/// not a newcomer.
pub const SETTLED: Duration = Duration::from_millis(1_500);
/// The server is at rest when it has refused nothing for so long.
const REST: Duration = Duration::from_millis(300);
/// Time limit of waiting for rest, and for the next reply.
const PATIENCE: Duration = Duration::from_secs(30);
