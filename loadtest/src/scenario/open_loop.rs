//! Publishes in an open loop: at a steady rate, whatever becomes of them. Worker 0 publishes for all.

use mio::Token;

use super::connect_publisher;
use crate::clock::Alarm;
use crate::engine::{Net, TOKEN_MIN};
use crate::measure::Tally;
use crate::publisher::Publisher;
use crate::worker::Worker;

/// The publishes of a run. They are numbered from 0 and take turns over the channels.
pub struct OpenLoop {
    /// Where to publish; only worker 0 has it.
    publisher: Option<Publisher>,
    /// Publishes per second; 0 for none.
    pub rate: f64,
    size: usize,
    channels: u32,
    first_channel: u32,
    /// Wakes the event loop for the next publish.
    alarm: Option<Alarm>,
    /// Publishes so far.
    pub published: u32,
}

impl OpenLoop {
    /// Nothing is published before [`OpenLoop::connect`].
    pub fn new(worker: &Worker, rate: f64, size: usize, channels: u32) -> OpenLoop {
        let first_channel = worker.plan.first_channel;
        OpenLoop { publisher: None, rate, size, channels, first_channel, alarm: None, published: 0 }
    }

    /// Connects the publisher, if this worker has it and there is anything to publish.
    pub fn connect(&mut self, worker: &Worker, net: &Net, tally: &mut Tally) -> anyhow::Result<()> {
        if worker.index == 0 && self.rate > 0.0 {
            self.publisher = connect_publisher(worker, net, PUBLISHER, self.size, tally)?;
            self.alarm = Some(Alarm::new(net.registry(), TIMER)?);
        }
        Ok(())
    }

    /// Publishes what is due since `begun_ns`. The event loop must turn again when the next publish is due.
    pub fn turn(&mut self, begun_ns: u64, now: u64) -> anyhow::Result<()> {
        let due_ns = |number: u32| begun_ns + (f64::from(number) * 1e9 / self.rate) as u64;
        let (Some(publisher), Some(alarm)) = (&mut self.publisher, &mut self.alarm) else { return Ok(()) };
        while due_ns(self.published) <= now && publisher.has_room() {
            let channel = self.first_channel + self.published % self.channels;
            publisher.push(self.published, due_ns(self.published), channel);
            self.published += 1;
        }
        publisher.flush();
        let due_ns = due_ns(self.published);
        if due_ns > now {
            alarm.set(due_ns, now)?;
        }
        Ok(())
    }

    /// Handles an event that is not about a connection.
    pub fn event(&mut self, token: Token) {
        match (token, &self.alarm, &mut self.publisher) {
            (TIMER, Some(alarm), _) => alarm.acknowledge(),
            (_, _, Some(publisher)) if token >= PUBLISHER => {
                publisher.read_answers(token.0 - PUBLISHER.0);
                publisher.flush();
            }
            _ => {}
        }
    }

    /// Whether every publish has been sent, and answered by a server that answers them.
    pub fn is_answered(&self) -> bool {
        self.publisher.as_ref().is_none_or(|publisher| publisher.is_done(self.published))
    }

    /// Adds the refused and unanswered publishes to a tally.
    pub fn conclude(&self, tally: &mut Tally) {
        self.publisher.iter().for_each(|publisher| publisher.conclude(self.published, tally));
    }
}

const TIMER: Token = Token(TOKEN_MIN);
/// The first of the publisher's tokens.
const PUBLISHER: Token = Token(TOKEN_MIN + 1);
