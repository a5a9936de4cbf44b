//! The supervisor thread handles signals, and operators' requests that concern the whole server. A reload reads files on one
//! more thread, so that a slow disk delays neither a shard nor a stop, a drain or a shed. Only the supervisor decides whether
//! the server goes on.

use super::apportion::apportioned;
use super::capacity::Capacity;
use super::http_thread::Remote;
use super::machine::Machine;
use super::{Reread, fit, log_costs, reserve_descriptors, systemd};
use crate::api::{Operation, Phase, Refusal, Reply, Share};
use crate::config::{Change, Config, Difference, Invalid, WARNING_INTERVAL};
use crate::hub::mail::Answer;
use crate::ids::Asker;
use crate::shard::Shared;
use crate::shard::orders::{Call, Order};
use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tracing::level_filters::LevelFilter;

/// The state of the supervisor's thread, which lives as long as the process.
pub struct Supervisor {
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// The channel of orders to each shard.
    pub orders: Vec<Sender<Order>>,
    /// The calls that it handles.
    pub calls: Receiver<Call>,
    /// The configuration in force.
    pub config: Config,
    /// The machine as it was at the start. Later the server itself uses a part of it.
    pub machine: Machine,
    /// The thread that serves HTTP and sends webhooks.
    pub http: Remote,
    /// Reads the configuration again.
    pub reread: Reread,
    /// Changes the log level.
    pub set_log: Box<dyn Fn(LevelFilter) + Send>,
    /// Whether the server goes on.
    pub course: Course,
    /// Reloads that are under way.
    pub reloads: Reloads,
}

/// Reloads that are under way: one read of the configuration at a time.
#[derive(Default)]
pub struct Reloads {
    /// The result of the thread that reads.
    read: Option<Receiver<Read>>,
    /// The requests that this result answers; `None` is SIGHUP.
    served: Vec<Option<Asker>>,
    /// Requests that came later. The next read answers them, because this one may have seen an older file.
    waiting: Vec<Option<Asker>>,
}

type Read = Result<Config, Invalid>;

/// Whether the server goes on. It never returns to an earlier state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It serves.
    Serving,
    /// It closes its connections over a time.
    Draining {
        /// When the last connection is asked to leave.
        until: Instant,
        /// Shards that have asked all of their connections.
        drained: usize,
    },
    /// It closes the remaining connections, and ends.
    Stopping,
}

impl Supervisor {
    /// Serves the calls.
    pub fn run(mut self) {
        loop {
            let read = self.reloads.read.clone().unwrap_or_else(never);
            select! {
                recv(self.calls) -> call => match call {
                    Ok(call) => self.call(call),
                    Err(_) => return,
                },
                recv(read) -> read => self.reload(read.unwrap_or_else(|_| Err(Invalid::new("the configuration was not read")))),
                default(WARNING_INTERVAL) => self.warn(),
            }
        }
    }

    fn call(&mut self, call: Call) {
        match call {
            Call::Operate(asker, Operation::Rule { channel }) => {
                let explained = self.config.live.rules.explain(channel.as_channel().as_str()).into();
                self.answer(asker, Answer::Reply(Ok(Reply::Rule { channel, explained })));
            }
            Call::Operate(asker, Operation::Reload) => self.begin_reload(Some(asker)),
            Call::Operate(asker, Operation::Drain { over_ms }) => {
                let answer = self.drain(over_ms);
                self.answer(asker, answer);
            }
            Call::Operate(asker, Operation::Shed { share, over_ms }) => {
                self.answer(asker, self.shed(share, over_ms));
            }
            Call::Operate(asker, Operation::ConsoleToken { read_only }) => {
                self.answer(asker, Answer::Reply(self.http.console_token(read_only)));
            }
            Call::Reload => self.begin_reload(None),
            Call::Terminate => self.terminate(),
            Call::Interrupt => self.stop("SIGINT"),
            Call::Drained => self.drained(),
        }
    }

    fn begin_reload(&mut self, asker: Option<Asker>) {
        // One reload answers any number of signals.
        if asker.is_some() || !self.reloads.waiting.contains(&None) {
            self.reloads.waiting.push(asker);
        }
        if self.reloads.read.is_none() {
            self.begin_read();
        }
    }

    fn begin_read(&mut self) {
        let (sender, read) = bounded(1);
        self.reloads.served = std::mem::take(&mut self.reloads.waiting);
        self.reloads.read = Some(read);
        let reread = Arc::clone(&self.reread);
        let failed = sender.clone();
        // The channel has room for the one result.
        let run = move || drop(sender.send(reread()));
        if let Err(error) = thread::Builder::new().name("reload".into()).spawn(run) {
            drop(failed.send(Err(Invalid::new(format!("no thread to read the configuration: {error}")))));
        }
    }

    /// Applies what was read once for each request: the first reply reports the changes.
    fn reload(&mut self, read: Read) {
        self.reloads.read = None;
        for asker in std::mem::take(&mut self.reloads.served) {
            let answer = match &read {
                Ok(config) => self.apply(config.clone()),
                Err(invalid) => {
                    let text = invalid.in_one_line();
                    tracing::error!("the configuration stays as it was: {text}");
                    Answer::Reply(Err(Refusal::InvalidConfiguration(text.into())))
                }
            };
            if let Some(asker) = asker {
                self.answer(asker, answer);
            }
        }
        if !self.reloads.waiting.is_empty() {
            self.begin_read();
        }
    }

    /// Puts a configuration in force. All shards apply it when this returns.
    fn apply(&mut self, read: Config) -> Answer {
        let difference = self.config.difference(&read);
        let costs = self.costs();
        (self.set_log)(read.live.log);
        self.config.live.exchange(read.live);
        self.warn();
        self.http.apply(&self.config.live);
        let live = fit(&self.config, &self.machine);
        reserve_descriptors(&self.config, &self.machine, &live);
        self.ask_all(|_, done| Order::Apply { live: live.clone(), done });
        report(&difference);
        if self.costs() != costs {
            log_costs(&self.config, &self.machine);
        }
        Answer::Reply(Ok(Reply::Reloaded(Box::new(difference))))
    }

    fn warn(&self) {
        self.config.live.warnings(SystemTime::now()).iter().for_each(|warning| tracing::warn!("{warning}"));
    }

    /// What the limits can cost, for people.
    fn costs(&self) -> Vec<String> {
        Capacity::of(&self.config, &self.machine).lines()
    }

    /// SIGTERM: closes connections over the configured time, without extending a drain that is under way.
    fn terminate(&mut self) {
        let over_ms = self.config.live.drain_timeout_ms;
        let over_ms = match self.course {
            Course::Draining { until, .. } => {
                let left = until.saturating_duration_since(Instant::now());
                over_ms.min(left.as_millis() as u64)
            }
            _ => over_ms,
        };
        if over_ms == 0 {
            self.stop("SIGTERM");
        } else {
            self.drain(over_ms);
        }
    }

    /// Begins to close all connections over this time, after which the server stops. Replaces a drain that is under way.
    fn drain(&mut self, over_ms: u64) -> Answer {
        let drained = match self.course {
            Course::Serving => 0,
            Course::Draining { drained, .. } => drained,
            Course::Stopping => return Answer::Reply(Err(Refusal::GoingDown)),
        };
        let over = Duration::from_millis(over_ms);
        systemd::tell_stopping(over + self.stop_time());
        self.http.enter(Phase::Draining);
        self.course = Course::Draining { until: Instant::now() + over, drained };
        let connections = self.ask_all(|_, begun| Order::Drain { over_ms, begun }).into_iter().sum();
        tracing::info!(connections, over_ms, "draining: no more connections are accepted");
        Answer::Reply(Ok(Reply::Leaving { connections, over_ms }))
    }

    /// Begins to close a part of all connections over this time. Replaces a shed that is under way.
    fn shed(&self, share: Share, over_ms: u64) -> Answer {
        if self.course != Course::Serving {
            return Answer::Reply(Err(Refusal::GoingDown));
        }
        let mut counts = vec![0; self.orders.len()];
        for (shard, count) in self.ask_all(|_, counted| Order::Count(counted)) {
            counts[usize::from(shard)] = count;
        }
        let shares = apportioned(share, &counts);
        let begun = self.ask_all(|shard, begun| Order::Shed { count: shares[shard], over_ms, begun });
        let connections = begun.into_iter().sum();
        tracing::info!(connections, over_ms, "shedding");
        Answer::Reply(Ok(Reply::Leaving { connections, over_ms }))
    }

    /// One more shard has asked all of its connections to leave.
    fn drained(&mut self) {
        if let Course::Draining { drained, .. } = &mut self.course {
            *drained += 1;
            if *drained == self.orders.len() {
                self.stop("the end of the drain");
            }
        }
    }

    fn stop(&mut self, cause: &str) {
        if self.course == Course::Stopping {
            return;
        }
        self.course = Course::Stopping;
        tracing::info!(cause, "stopping: what was acknowledged is delivered first");
        systemd::tell_stopping(self.stop_time());
        self.http.enter(Phase::Stopping);
        self.shared.is_stopping.store(true, SeqCst);
        (0..self.orders.len()).for_each(|shard| self.wake(shard));
    }

    /// The longest that a stop can take.
    fn stop_time(&self) -> Duration {
        Duration::from_millis(self.config.live.shutdown_timeout_ms) + STOP_SLACK
    }

    fn answer(&self, asker: Asker, answer: Answer) {
        self.order(usize::from(asker.shard), Order::Answer(asker, answer));
    }

    /// Gives every shard an order, and waits for their answers. A shard that has stopped does not answer.
    fn ask_all<T>(&self, order: impl Fn(usize, Sender<T>) -> Order) -> Vec<T> {
        let (answer, answers) = bounded(self.orders.len());
        (0..self.orders.len()).for_each(|shard| self.order(shard, order(shard, answer.clone())));
        drop(answer);
        answers.iter().collect()
    }

    fn order(&self, shard: usize, order: Order) {
        // Fails only if the shard has stopped.
        if self.orders[shard].send(order).is_ok() {
            self.wake(shard);
        }
    }

    fn wake(&self, shard: usize) {
        if let Err(error) = self.shared.doorbells[shard].ring() {
            tracing::error!(%error, shard, "cannot wake a shard");
        }
    }
}

/// Beyond the shutdown's own time limit: joining threads, connections whose close began last, and the last webhooks.
const STOP_SLACK: Duration = Duration::from_secs(5);

fn report(difference: &Difference) {
    let Difference { changes, restart } = difference;
    tracing::info!(changes = changes.len(), "configuration reloaded");
    for Change { option, old, new } in changes {
        tracing::info!("{option}: {old} → {new}");
    }
    for Change { option, old, new } in restart {
        tracing::warn!("{option}: {old} → {new} needs a restart; the server keeps what it was started with");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Settings};
    use crate::hub::placement::Placement;
    use crate::server::http_thread::{HttpThread, Parts};
    use crossbeam_channel::unbounded;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_stop_does_not_wait_for_a_reload_that_waits_for_a_file() {
        let read = || Settings::gather(&Flags::default(), |_| None).and_then(|settings| settings.validate());
        let config = read().expect("the defaults are valid");
        let http = HttpThread::start(Parts {
            listener: None,
            opener: Arc::new(|_, _| None),
            placement: Placement::new(0, 1, [0; 4]),
            app_id: "1".into(),
            listen: config.listen,
            live: Arc::new(config.live.clone()),
            seed: [0; 4],
        });
        let (sender, calls) = unbounded();
        let shared = Arc::new(Shared {
            doorbells: Arc::new([]),
            is_stopping: AtomicBool::new(false),
            accepted: Arc::default(),
            admitted: Arc::default(),
            notices: Arc::default(),
            seed: [0; 4],
            start: Instant::now(),
            calls: sender.clone(),
            log_lines_dropped: Box::new(|| 0),
        });
        let (disk, file) = bounded(0);
        let (asked, is_asked) = unbounded();
        let supervisor = Supervisor {
            shared: shared.clone(),
            orders: Vec::new(),
            calls,
            config,
            machine: Machine::look(),
            http: http.expect("a thread").remote(),
            reread: Arc::new(move || {
                asked.send(()).expect("the test goes on");
                file.recv().expect("the disk answers");
                read()
            }),
            set_log: Box::new(|_| ()),
            course: Course::Serving,
            reloads: Reloads::default(),
        };
        thread::spawn(move || supervisor.run());
        sender.send(Call::Reload).expect("the supervisor runs");
        is_asked.recv().expect("the reload has begun");
        sender.send(Call::Terminate).expect("the supervisor runs");
        let start = Instant::now();
        while !shared.is_stopping.load(SeqCst) {
            assert!(start.elapsed() < Duration::from_secs(60), "the stop waits for the reload");
            thread::yield_now();
        }
        disk.send(()).expect("the reload still waits");
    }
}
