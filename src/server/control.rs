//! The control thread: signals, and what operators ask of the whole server. It reads files, so that no shard ever waits for
//! a disk, and hands every shard the same result.

use super::{Reread, Room, manager};
use crate::config::{Change, Config, Difference, WARNING_INTERVAL};
use crate::control::{Phase, Remote};
use crate::hub::mail::{Answer, Asker, Operation};
use crate::shard::Shared;
use crate::shard::orders::{Call, Order};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use tracing::level_filters::LevelFilter;

/// What the control thread holds. It lives as long as the process.
pub struct Control {
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// The way to each shard.
    pub orders: Vec<Sender<Order>>,
    /// What is wanted of this thread, one after the other.
    pub calls: Receiver<Call>,
    /// In force.
    pub config: Config,
    /// What the system allows.
    pub room: Room,
    /// The HTTP listener's thread, where there is one.
    pub http: Option<Remote>,
    /// How the configuration is read again.
    pub reread: Reread,
    /// Changes the log's level.
    pub set_log: Box<dyn Fn(LevelFilter) + Send>,
}

impl Control {
    /// Does what is called for.
    pub fn run(mut self) {
        loop {
            let call = match self.calls.recv_timeout(WARNING_INTERVAL) {
                Ok(call) => call,
                Err(RecvTimeoutError::Timeout) => {
                    self.config.live.warn();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match call {
                Call::Operate(asker, Operation::Reload) => {
                    let answer = self.reload();
                    self.answer(asker, answer);
                }
                Call::Reload => drop(self.reload()),
                Call::Stop(signal) => self.stop(signal),
            }
        }
    }

    /// Reads the configuration as at the start. If it is valid all shards hold to it when this returns; otherwise nothing has
    /// changed.
    fn reload(&mut self) -> Answer {
        let read = match (self.reread)() {
            Ok(read) => read,
            Err(invalid) => {
                let text = invalid.in_one_line();
                tracing::error!("the configuration stays as it was: {text}");
                return Answer::InvalidConfiguration(text.into());
            }
        };
        let difference = self.config.difference(&read);
        (self.set_log)(read.live.log);
        self.config.live.exchange(read.live);
        self.config.live.warn();
        self.http.iter().for_each(|http| http.apply(&self.config.live.keys));
        let live = self.room.fit(&self.config.live);
        let (done, all_done) = bounded(self.orders.len());
        self.order_all(|| Order::Apply { live: live.clone(), done: done.clone() });
        drop(done);
        // Ends when every shard has said so, or has stopped.
        all_done.iter().for_each(drop);
        report(&difference);
        Answer::Reloaded(Box::new(difference))
    }

    fn stop(&self, signal: &str) {
        tracing::info!(signal, "stopping: what was acknowledged is delivered first");
        manager::tell_stopping();
        self.http.iter().for_each(|http| http.enter(Phase::Stopping));
        self.shared.is_stopping.store(true, SeqCst);
        (0..self.orders.len()).for_each(|shard| self.wake(shard));
    }

    fn answer(&self, asker: Asker, answer: Answer) {
        self.order(usize::from(asker.shard), Order::Answer(asker, answer));
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        (0..self.orders.len()).for_each(|shard| self.order(shard, order()));
    }

    fn order(&self, shard: usize, order: Order) {
        // A shard that has stopped needs no orders.
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
