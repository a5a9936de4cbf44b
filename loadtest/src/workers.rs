//! The workers of a run: threads in this process and in further processes. They start together, and their tallies are added
//! up.
//!
//! A further process is this program again (`loadtest worker`) with a Unix socket as its standard input. It reads the plan,
//! then `start`, `go` and `stop`. It writes `live` numbers, `front`s (every message below is with all of its subscribers; the
//! publisher's closed loop needs them, and the publisher is always in the first process), and at the end its tally.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::clock::now_ns;
use crate::measure::Tally;
use crate::plan::{Plan, Scenario};
use crate::procfs::{self, Usage};
use crate::syscalls::Counting;
use crate::worker::{Live, Moment, Shared, Word, Worker};
use crate::{affinity, scenario};

/// The results of a run.
#[derive(Default)]
pub struct Results {
    /// The sum over all workers.
    pub tally: Tally,
    /// One moment for every tenth of a second.
    pub timeline: Vec<Moment>,
    /// Usage of the server before the first connection, and at the two ends of the measured time.
    pub server: Option<[Usage; 3]>,
    /// Time between the last two.
    pub server_window_ns: u64,
    /// System calls of the server per second within that time.
    pub syscalls_per_s: Option<f64>,
    /// The run ended early, by Ctrl-C.
    pub interrupted: bool,
}

/// Flags that control a run while it is under way.
#[derive(Default)]
pub struct Controls {
    /// End early.
    pub stop: Arc<AtomicBool>,
    /// Start what the scenario waits for: idle connections depart, subscribers are cut off.
    pub go: AtomicBool,
}

/// Runs the plan. `watch` is called every tenth of a second.
pub fn run(
    plan: &Plan,
    server_pid: Option<u32>,
    controls: &Controls,
    mut watch: impl FnMut(Moment),
) -> anyhow::Result<Results> {
    plan.check()?;
    let before = usage(server_pid);
    let mut workers = Workers::start(plan)?;
    workers.set_up(controls, &mut watch);
    let measured = workers.measure(server_pid, controls, &mut watch);
    let syscalls = measured.counting.map(|counting| counting.and_then(Counting::finish)).transpose();
    let mut tally = workers.finish()?;
    let syscalls_per_s = syscalls.unwrap_or_else(|error| {
        tally.note(format!("system calls were not counted: {error:#}"));
        None
    });
    let [first, last] = measured.marks.map(Option::unwrap_or_default);
    Ok(Results {
        tally,
        timeline: measured.timeline,
        server: server_pid.map(|_| [before, first.1, last.1]),
        server_window_ns: last.0 - first.0,
        syscalls_per_s,
        interrupted: controls.stop.load(Relaxed),
    })
}

fn usage(server_pid: Option<u32>) -> Usage {
    server_pid.and_then(procfs::usage).unwrap_or_default()
}

/// The workers of a run.
struct Workers {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<anyhow::Result<Tally>>>,
    remotes: Vec<Remote>,
}

/// What the first process has seen while the workers measured.
#[derive(Default)]
struct Measured {
    timeline: Vec<Moment>,
    /// Time and usage of the server at the two ends of the measured time.
    marks: [Option<(u64, Usage)>; 2],
    counting: Option<anyhow::Result<Counting>>,
}

impl Workers {
    fn start(plan: &Plan) -> anyhow::Result<Workers> {
        let plan = Arc::new(plan.clone());
        let further = plan.processes - 1;
        let shared = Arc::new(Shared::new(&plan, plan.threads + further, None));
        let remotes = (1..=further).map(|number| Remote::start(&plan, number, &shared)).collect::<Result<_, _>>()?;
        let threads = spawn(&plan, 0, &shared)?;
        Ok(Workers { plan, shared, threads, remotes })
    }

    /// Waits until all workers are ready, and starts the warm-up.
    fn set_up(&mut self, controls: &Controls, watch: &mut impl FnMut(Moment)) {
        let deadline = now_ns() + self.plan.setup_ns + SETUP_SPARE_NS;
        while !self.shared.is_ready() && !self.is_over(controls) {
            std::thread::sleep(Duration::from_millis(5));
            watch(self.shared.moment(0));
            if now_ns() > deadline {
                self.shared.stop.store(true, SeqCst);
            }
        }
        let wants_connections = self.plan.connections() > 0 && !matches!(self.plan.scenario, Scenario::Connect(_));
        if wants_connections && self.shared.moment(0).connected == 0 {
            // There is nothing to measure; the report says why.
            self.shared.stop.store(true, SeqCst);
        }
        let start = now_ns() + 2_000_000;
        self.shared.start_at.store(start, SeqCst);
        self.tell(&format!("start {start}"));
    }

    /// Watches the workers until the measured time is over.
    fn measure(&mut self, server_pid: Option<u32>, controls: &Controls, watch: &mut impl FnMut(Moment)) -> Measured {
        let start = self.shared.start_at.load(SeqCst);
        let measure_from = start + self.plan.warmup_ns;
        let measure_to = measure_from + self.plan.duration_ns;
        let family = server_pid.map(procfs::family).unwrap_or_default();
        let mut measured = Measured::default();
        let mut next = start;
        loop {
            let now = now_ns();
            let is_over = self.is_over(controls);
            for (mark, due) in measured.marks.iter_mut().zip([measure_from, measure_to]) {
                if mark.is_none() && (now >= due || is_over) {
                    *mark = Some((now, usage(server_pid)));
                }
            }
            if is_over {
                self.shared.stop.store(true, SeqCst);
                self.tell("stop");
            }
            if is_over || now >= measure_to {
                return measured;
            }
            if self.plan.counts_syscalls && measured.marks[0].is_some() && measured.counting.is_none() {
                measured.counting = server_pid.map(Counting::start);
            }
            if controls.go.load(Relaxed) && self.shared.go_at.load(Relaxed) == 0 {
                // Far enough ahead that all processes have read it by then.
                let at = now + 20_000_000;
                self.shared.go_at.store(at, SeqCst);
                self.tell(&format!("go {at}"));
            }
            if now >= next {
                let moment = Moment { rss_bytes: procfs::rss_bytes(&family), ..self.shared.moment(start) };
                watch(moment);
                measured.timeline.push(moment);
                next += 100_000_000;
            }
            // Short, because the flags are polled.
            let times = [next, measure_from, measure_to, now + 10_000_000];
            let wake = times.into_iter().filter(|&at| at > now).min().unwrap_or(now);
            std::thread::sleep(Duration::from_nanos(wake.saturating_sub(now).max(100_000)));
        }
    }

    /// Waits for all workers, and adds up their tallies.
    fn finish(self) -> anyhow::Result<Tally> {
        let joined =
            self.threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a worker panicked")).flatten());
        let tallies: Vec<anyhow::Result<Tally>> = joined.chain(self.remotes.into_iter().map(Remote::finish)).collect();
        let is_only = tallies.len() == 1;
        let mut sum = Tally::default();
        for tally in tallies {
            match tally {
                Ok(tally) => sum.add(tally),
                Err(error) if is_only => return Err(error),
                Err(error) => {
                    sum.failed_workers += 1;
                    sum.note(format!("a worker failed: {error:#}"));
                }
            }
        }
        sum.settle();
        Ok(sum)
    }

    /// Whether the run must end early: Ctrl-C, or a worker has failed.
    fn is_over(&self, controls: &Controls) -> bool {
        let is_stopped = controls.stop.load(Relaxed) || self.shared.stop.load(Relaxed);
        is_stopped || self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Sends a line to the further processes.
    fn tell(&mut self, line: &str) {
        for remote in &mut self.remotes {
            // A process that has ended is noticed when it is waited for.
            let _ = writeln!(remote.stream, "{line}");
        }
    }
}

/// The main function of a further process. Its standard input is a socket to the first one.
pub fn child() -> anyhow::Result<()> {
    // Ctrl-C signals the whole process group; only the first process acts on it.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)))?;
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let order = lines.next().context("no plan")??;
    let (number, plan): (usize, Plan) = serde_json::from_str(&order)?;
    let plan = Arc::new(plan);
    let shared = Arc::new(Shared::new(&plan, plan.threads, Some(stream.try_clone()?)));
    let threads = spawn(&plan, number * plan.threads, &shared)?;
    let controls = Arc::clone(&shared);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("go", at)) => controls.go_at.store(at.parse().unwrap_or(1), SeqCst),
                Some(("start", at)) => controls.start_at.store(at.parse().unwrap_or(1), SeqCst),
                _ => controls.stop.store(true, SeqCst),
            }
        }
        // The first process has ended: its results are not needed.
        controls.stop.store(true, SeqCst);
    });
    while !threads.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(50));
        shared.tell_first(&Word::Live(shared.moment(0), shared.is_ready()));
    }
    let mut tally = Tally::default();
    for thread in threads {
        tally.add(thread.join().map_err(|_| anyhow!("a worker panicked"))??);
    }
    shared.tell_first(&Word::Tally(Box::new(tally)));
    Ok(())
}

fn spawn(
    plan: &Arc<Plan>,
    first: usize,
    shared: &Arc<Shared>,
) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<Tally>>>> {
    (0..plan.threads)
        .map(|local| {
            let worker = Worker { plan: Arc::clone(plan), index: first + local, local, shared: Arc::clone(shared) };
            let body = move || {
                if let Some(core) = worker.plan.client_core {
                    affinity::pin_this_thread(core + worker.index);
                }
                if worker.plan.is_background {
                    // If it fails, the other run is measured a little less exactly.
                    let _ = rustix::process::nice(19);
                }
                scenario::work(&worker)
            };
            Ok(std::thread::Builder::new().name(format!("worker-{}", first + local)).spawn(body)?)
        })
        .collect()
}

/// A further process of the run.
struct Remote {
    child: Child,
    stream: UnixStream,
    reader: JoinHandle<anyhow::Result<Tally>>,
}

impl Remote {
    fn start(plan: &Arc<Plan>, number: usize, shared: &Arc<Shared>) -> anyhow::Result<Remote> {
        let (mut stream, theirs) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a further process")?;
        writeln!(stream, "{}", serde_json::to_string(&(number, &**plan))?)?;
        let lines = BufReader::new(stream.try_clone()?).lines();
        let (shared, live) = (Arc::clone(shared), plan.threads + number - 1);
        let reader = std::thread::spawn(move || {
            for line in lines {
                match serde_json::from_str(&line?)? {
                    Word::Front(worker, front) => shared.advance(worker, front),
                    Word::Live(now, is_ready) => shared.live[live].set(now, is_ready),
                    Word::Tally(tally) => return Ok(*tally),
                }
            }
            // The run must not wait for it.
            shared.live[live].ready.store(true, SeqCst);
            Err(anyhow!("a further process ended without its results"))
        });
        Ok(Remote { child, stream, reader })
    }

    fn finish(mut self) -> anyhow::Result<Tally> {
        let deadline = now_ns() + FINISH_NS;
        while !self.reader.is_finished() && now_ns() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !self.reader.is_finished() {
            // The reader ends with the process.
            self.child.kill()?;
        }
        let tally = self.reader.join().map_err(|_| anyhow!("the reader of a further process panicked"))?;
        self.child.wait()?;
        tally
    }
}

impl Shared {
    fn new(plan: &Plan, lives: usize, upstream: Option<UnixStream>) -> Shared {
        Shared {
            start_at: AtomicU64::new(0),
            go_at: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            live: (0..lives).map(|_| Live::default()).collect(),
            fronts: (0..plan.workers()).map(|_| AtomicU32::new(0)).collect(),
            publisher: OnceLock::new(),
            upstream: upstream.map(Mutex::new),
        }
    }
}

/// Workers end setting up by themselves; this is for processes that hang.
const SETUP_SPARE_NS: u64 = 15_000_000_000;
/// A process that has not sent its tally this long after the end is killed. Draining takes up to 10 s.
const FINISH_NS: u64 = 20_000_000_000;
