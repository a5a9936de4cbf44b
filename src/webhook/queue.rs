//! The events that one URL still has to be sent: oldest first, in batches, bounded by bytes.

use super::tally::{Lost, Tally};
use crate::config::WebhookUrl;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The queue of one URL, from which one task takes batches.
pub struct Queue {
    /// For the log.
    pub url: WebhookUrl,
    /// Where it counts.
    pub tally: Tally,
    state: Mutex<State>,
    /// For the task that takes.
    changed: Notify,
}

/// An event as it stands in a body. Queues share it.
pub type Event = Arc<str>;

#[derive(Default)]
struct State {
    waiting: VecDeque<Event>,
    /// Of those.
    waiting_bytes: usize,
    /// The batch that is being offered; it is kept until it is settled or lost.
    offered: Vec<Event>,
    offered_bytes: usize,
    /// It is full, and the log says so.
    is_overflowing: bool,
    is_ending: bool,
}

impl Queue {
    /// An empty one.
    pub fn new(url: WebhookUrl, tally: Tally) -> Queue {
        Queue { url, tally, state: Mutex::default(), changed: Notify::new() }
    }

    /// Adds an event. If the queue is full, the oldest events are dropped: the latest event of a channel is its state.
    pub fn push(&self, event: Event) {
        let mut overflowed = 0;
        self.change(|state| {
            state.waiting_bytes += cost(&event);
            state.waiting.push_back(event);
            while state.waiting_bytes + state.offered_bytes > BYTES_MAX
                && let Some(oldest) = state.waiting.pop_front()
            {
                state.waiting_bytes -= cost(&oldest);
                overflowed += 1;
            }
            if overflowed > 0 && !std::mem::replace(&mut state.is_overflowing, true) {
                tracing::warn!(url = %self.url, "webhook: over {BYTES_MAX} bytes wait; the oldest are dropped, and counted");
            }
        });
        if overflowed > 0 {
            self.tally.lose(Lost::Full, overflowed);
        }
        self.changed.notify_one();
    }

    /// The next batch, when there is one; `None`: the end has come and nothing is left. It is held until
    /// [`Queue::settle`] or [`Queue::lose_offered`].
    pub async fn batch(&self) -> Option<Vec<Event>> {
        self.when(|state| state.is_ending || !state.waiting.is_empty()).await;
        let mut batch = Vec::new();
        self.change(|state| {
            while batch.len() < BATCH_EVENTS_MAX
                && let Some(event) = state.waiting.front()
                && (batch.is_empty() || state.offered_bytes + cost(event) <= BATCH_BYTES_MAX)
            {
                state.offered_bytes += cost(event);
                state.waiting_bytes -= cost(event);
                batch.extend(state.waiting.pop_front());
            }
            state.offered.clone_from(&batch);
        });
        Some(batch).filter(|batch| !batch.is_empty())
    }

    /// The URL has accepted the batch.
    pub fn settle(&self) {
        let mut events = 0;
        self.change(|state| {
            events = state.drop_offered();
            state.is_overflowing = false;
        });
        self.tally.count(|counters| counters.webhook_events += events as u64);
    }

    /// Drops the batch that is being offered.
    pub fn lose_offered(&self, why: Lost) {
        let mut events = 0;
        self.change(|state| events = state.drop_offered());
        self.say_lost(why, events);
    }

    /// Drops all events.
    pub fn lose_all(&self, why: Lost) {
        let mut events = 0;
        self.change(|state| {
            events = state.drop_offered() + state.waiting.len();
            state.waiting = VecDeque::new();
            state.waiting_bytes = 0;
        });
        self.say_lost(why, events);
    }

    fn say_lost(&self, why: Lost, events: usize) {
        if events > 0 {
            tracing::warn!(url = %self.url, events, why = why.label(), "webhook: events dropped");
            self.tally.lose(why, events);
        }
    }

    /// Waits until then, until a whole batch waits, or for the end.
    pub async fn gather(&self, until: Instant) {
        let is_due = |state: &State| {
            state.is_ending || state.waiting.len() >= BATCH_EVENTS_MAX || state.waiting_bytes >= BATCH_BYTES_MAX
        };
        // Either will do.
        let _ = timeout_at(until, self.when(is_due)).await;
    }

    /// No more events are pushed.
    pub fn end(&self) {
        self.lock().is_ending = true;
        self.changed.notify_one();
    }

    /// Whether the end has come.
    pub fn is_ending(&self) -> bool {
        self.lock().is_ending
    }

    /// Waits until then, or for the end.
    pub async fn pause(&self, until: Instant) {
        let _ = timeout_at(until, self.when(|state| state.is_ending)).await;
    }

    async fn when(&self, is_so: impl Fn(&State) -> bool) {
        while !is_so(&self.lock()) {
            self.changed.notified().await;
        }
    }

    /// Changes what is held, and the gauges with it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = state.held();
        change(&mut state);
        self.tally.held(before, state.held());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Events and bytes.
    fn held(&self) -> (usize, usize) {
        (self.waiting.len() + self.offered.len(), self.waiting_bytes + self.offered_bytes)
    }

    fn drop_offered(&mut self) -> usize {
        self.offered_bytes = 0;
        std::mem::take(&mut self.offered).len()
    }
}

/// Bytes that an event takes: its text, a comma, and two counts and a handle in memory.
fn cost(event: &Event) -> usize {
    event.len() + 33
}

/// Bytes that may wait for one URL: some 80 000 events of channels.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events of one request.
pub const BATCH_EVENTS_MAX: usize = 1000;
/// Bytes of one request, a little less in its body.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run(script: impl AsyncFnOnce(Queue)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let url = WebhookUrl::parse("http://127.0.0.1/").expect("a URL");
        runtime.block_on(script(Queue::new(url, Tally::default())));
    }

    fn push(queue: &Queue, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| queue.push(text.into()));
    }

    fn numbers(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|number| number.to_string())
    }

    fn held(queue: &Queue) -> (u64, u64) {
        let gauges = queue.tally.now().gauges;
        (gauges.webhook_waiting_events, gauges.webhook_waiting_bytes)
    }

    #[test]
    fn batches_are_bounded_by_events_and_by_bytes_and_in_order() {
        run(async |queue| {
            push(&queue, numbers(BATCH_EVENTS_MAX + 1));
            let first = queue.batch().await.expect("a batch");
            assert_eq!(first.len(), BATCH_EVENTS_MAX);
            assert!(first.iter().zip(numbers(BATCH_EVENTS_MAX)).all(|(event, number)| **event == *number));
            queue.settle();
            let second = queue.batch().await.expect("a batch");
            assert_eq!(second, [BATCH_EVENTS_MAX.to_string().into()]);
            queue.settle();

            push(&queue, (0..3).map(|_| "x".repeat(BATCH_BYTES_MAX / 2 - 33)));
            assert_eq!(queue.batch().await.expect("a batch").len(), 2);
            queue.settle();
            assert_eq!(queue.batch().await.expect("a batch").len(), 1);
            queue.settle();
            assert_eq!(held(&queue), (0, 0));
            assert_eq!(queue.tally.now().counters.webhook_events, BATCH_EVENTS_MAX as u64 + 4);
        });
    }

    #[test]
    fn the_oldest_make_room_but_not_what_is_offered() {
        run(async |queue| {
            let large = |number: usize| format!("{number:01000}");
            let room = BYTES_MAX / 1033;
            push(&queue, (0..room).map(large));
            assert_eq!(held(&queue), (room as u64, 1033 * room as u64));
            let offered = queue.batch().await.expect("a batch");
            push(&queue, (room..room + 10).map(large));
            assert_eq!(queue.tally.now().losses[Lost::Full as usize], ("queue_full", 10));
            assert_eq!(held(&queue).0, room as u64);
            assert_eq!(*offered[0], large(0));
            queue.settle();
            // The next that are left.
            assert_eq!(*queue.batch().await.expect("a batch")[0], large(offered.len() + 10));
            queue.lose_all(Lost::Removed);
            assert_eq!(held(&queue), (0, 0));
            let lost = queue.tally.now().losses[Lost::Removed as usize];
            assert_eq!(lost, ("removed", (room - offered.len()) as u64));
        });
    }

    #[test]
    fn what_waits_long_enough_goes_and_a_whole_batch_at_once() {
        run(async |queue| {
            let start = Instant::now();
            queue.push("1".into());
            queue.gather(start + Duration::from_millis(100)).await;
            assert_eq!(start.elapsed(), Duration::from_millis(100));
            push(&queue, numbers(BATCH_EVENTS_MAX));
            queue.gather(start + Duration::from_secs(60)).await;
            assert_eq!(start.elapsed(), Duration::from_millis(100));
        });
    }

    #[test]
    fn at_the_end_what_is_left_is_handed_out_and_then_nothing() {
        run(async |queue| {
            queue.push("1".into());
            queue.end();
            let start = Instant::now();
            queue.pause(start + Duration::from_secs(60)).await;
            queue.gather(start + Duration::from_secs(60)).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            assert_eq!(queue.batch().await.expect("a batch").len(), 1);
            queue.settle();
            assert_eq!(queue.batch().await, None);
        });
    }
}
