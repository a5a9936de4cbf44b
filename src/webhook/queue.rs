//! The events that one URL still has to be sent: oldest first, in batches, bounded by bytes.
//!
//! The queue also keeps what the URL has been told of each channel and connection. An event that changes nothing for the
//! URL is not sent: a channel that is vacated before its `channel_occupied` was sent cancels that event. An event that
//! finds no room is dropped; later [`Queue::catch_up`] compares what the URL was told with what is known.

use super::event::{Event, Subject};
use super::tally::{Lost, Tally};
use super::told::Known;
use crate::config::WebhookUrl;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The queue of one URL, from which one task takes batches.
pub struct Queue {
    /// For the log.
    pub url: WebhookUrl,
    /// The counters of the URL.
    pub tally: Tally,
    state: Mutex<State>,
    /// Wakes the task that takes batches.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Events that wait, in their order.
    waiting: BTreeMap<u64, Event>,
    /// Events that have been added so far.
    added: u64,
    waiting_bytes: usize,
    /// Of those, in bodies.
    waiting_text_bytes: usize,
    /// The batch that is being offered; it is kept until it is settled or lost.
    offered: Vec<Event>,
    offered_bytes: usize,
    views: HashMap<Subject, View>,
    /// Events were dropped since the URL last knew everything.
    is_behind: bool,
    overflow_warnings: Seldom,
    loss_warnings: Seldom,
    is_ending: bool,
}

/// What the URL knows of a channel or a connection. A subject without a view: it was never told, or told of the end.
#[derive(Default, PartialEq)]
struct View {
    told: Told,
    /// The last event that waits.
    last: Option<u64>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Told {
    /// Told of the end, or of nothing.
    #[default]
    Absent,
    Present,
    /// An event is being offered.
    Offered,
    /// An event was offered and lost, so the URL may have received it.
    Unsure,
}

/// Lets one warning a minute through.
#[derive(Debug, Default)]
pub struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether to warn now.
    pub fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|last| last.elapsed() >= WARNING_PAUSE);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

impl Queue {
    /// An empty one.
    pub fn new(url: WebhookUrl, tally: Tally) -> Queue {
        Queue { url, tally, state: Mutex::default(), changed: Notify::new() }
    }

    /// Adds an event, if the URL has to be told. Without room it is dropped.
    pub fn push(&self, event: Event) {
        self.change(|state| {
            let before = state.waiting.len();
            let has_room = state.add(event, FRESH_BYTES_MAX);
            if state.waiting.len() < before {
                // Neither the event that waited nor this one is sent.
                self.tally.count(|counters| counters.webhook_cancelled += 2);
            }
            if has_room {
                return;
            }
            self.tally.lose(Lost::Full, 1);
            if state.overflow_warnings.is_due() {
                tracing::warn!(
                    url = %self.url,
                    "webhook: {} bytes wait; events are dropped, and what holds is sent later",
                    state.held().1
                );
            }
        });
        self.changed.notify_one();
    }

    /// After a loss: adds the events that bring what the URL was told in line with what is known.
    pub fn catch_up(&self, known: &Known) {
        self.change(|state| {
            if std::mem::take(&mut state.is_behind) {
                state.catch_up(known);
            }
        });
        self.changed.notify_one();
    }

    /// What is known may differ from what the URL was told, so that [`Queue::catch_up`] has to compare them.
    pub fn fall_behind(&self) {
        self.lock().is_behind = true;
    }

    /// The next batch, when there is one; `None`: the end has come and nothing is left. It is held until
    /// [`Queue::settle`] or [`Queue::lose_offered`].
    pub async fn batch(&self) -> Option<Vec<Arc<str>>> {
        loop {
            self.when(|state| state.is_ending || !state.waiting.is_empty()).await;
            let mut batch = Vec::new();
            self.change(|state| {
                batch = state.offer();
                if batch.is_empty() {
                    state.settle();
                }
            });
            if !batch.is_empty() {
                return Some(batch);
            }
            let state = self.lock();
            if state.is_ending && state.waiting.is_empty() {
                return None;
            }
        }
    }

    /// The URL has accepted the batch.
    pub fn settle(&self) {
        let mut events = 0;
        self.change(|state| events = state.settle());
        self.tally.count(|counters| counters.webhook_events += events as u64);
    }

    /// Drops the batch that is being offered.
    pub fn lose_offered(&self, why: Lost) {
        let mut events = 0;
        let mut is_due = false;
        self.change(|state| {
            events = state.lose_offered();
            is_due = state.loss_warnings.is_due();
        });
        if is_due {
            self.warn_lost(why, events);
        }
        self.tally.lose(why, events);
    }

    /// Drops all events.
    pub fn lose_all(&self, why: Lost) {
        let mut events = 0;
        self.change(|state| {
            events = state.lose_offered() + state.waiting.values().filter(|event| event.is_sent()).count();
            *state = State { is_ending: state.is_ending, ..State::default() };
        });
        if events > 0 {
            self.warn_lost(why, events);
            self.tally.lose(why, events);
        }
    }

    fn warn_lost(&self, why: Lost, events: usize) {
        tracing::warn!(url = %self.url, events, why = why.label(), "webhook: events dropped");
    }

    /// Waits until then, until a whole batch waits, or for the end.
    pub async fn gather(&self, until: Instant) {
        let is_due = |state: &State| {
            state.is_ending || state.waiting.len() >= BATCH_EVENTS_MAX || state.waiting_text_bytes >= BATCH_BYTES_MAX
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

    /// Adds an event, unless the URL already knows the state. Returns whether there was room. Ends may take more room than
    /// beginnings, so a URL that was told of many beginnings is also told of their ends.
    fn add(&mut self, event: Event, present_bytes_max: usize) -> bool {
        let Some(subject) = event.subject.clone() else { return self.add_once(event) };
        let view = self.views.entry(subject.clone()).or_default();
        let last = view.last.and_then(|last| Some((last, self.waiting.get(&last)?.is_there)));
        let mut is_needed = match last {
            Some((_, is_there)) => is_there != event.is_there,
            None => view.told.differs(event.is_there),
        };
        // The end of a connection carries its reason, and is always sent.
        let is_cancelled = !matches!(subject, Subject::Connection(_));
        if let Some((last, _)) = last.filter(|_| is_cancelled && is_needed) {
            view.last = None;
            is_needed = view.told.differs(event.is_there);
            self.take(last);
        }
        let bytes_max = if event.is_there { present_bytes_max } else { BYTES_MAX };
        let has_room = self.held().1 + cost(&event) <= bytes_max;
        if is_needed && has_room {
            let number = self.append(event);
            self.views.entry(subject).or_default().last = Some(number);
            return true;
        }
        self.forget(&subject);
        self.is_behind |= is_needed;
        !is_needed
    }

    /// Adds an event that is not a change, if there is room. Changes may take more room.
    fn add_once(&mut self, event: Event) -> bool {
        let has_room = self.held().1 + cost(&event) <= ONCE_BYTES_MAX;
        if has_room {
            self.append(event);
        }
        has_room
    }

    /// Returns the number of the event.
    fn append(&mut self, event: Event) -> u64 {
        self.added += 1;
        self.waiting_bytes += cost(&event);
        self.waiting_text_bytes += event.body_bytes();
        self.waiting.insert(self.added, event);
        self.added
    }

    fn take(&mut self, number: u64) -> Option<Event> {
        let event = self.waiting.remove(&number)?;
        self.waiting_bytes -= cost(&event);
        self.waiting_text_bytes -= event.body_bytes();
        Some(event)
    }

    /// Removes a view that says nothing.
    fn forget(&mut self, subject: &Subject) {
        if self.views.get(subject).is_some_and(|view| *view == View::default()) {
            self.views.remove(subject);
        }
    }

    /// Begins to offer the oldest events. Returns the texts of those that are sent.
    fn offer(&mut self) -> Vec<Arc<str>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while self.offered.len() < BATCH_EVENTS_MAX
            && let Some((&number, event)) = self.waiting.first_key_value()
            && (batch.is_empty() || bytes + event.body_bytes() <= BATCH_BYTES_MAX)
            && let Some(event) = self.take(number)
        {
            if let Some(subject) = &event.subject {
                let view = self.views.entry(subject.clone()).or_default();
                view.told = Told::Offered;
                view.last = view.last.filter(|last| *last != number);
            }
            bytes += event.body_bytes();
            self.offered_bytes += cost(&event);
            batch.extend(Some(event.text.clone()).filter(|_| event.is_sent()));
            self.offered.push(event);
        }
        batch
    }

    fn settle(&mut self) -> usize {
        self.end_offer(|event| if event.is_there { Told::Present } else { Told::Absent })
    }

    fn lose_offered(&mut self) -> usize {
        self.is_behind = true;
        self.end_offer(|_| Told::Unsure)
    }

    /// Returns how many events were sent.
    fn end_offer(&mut self, told: impl Fn(&Event) -> Told) -> usize {
        self.offered_bytes = 0;
        let offered = std::mem::take(&mut self.offered);
        for event in &offered {
            let Some(subject) = &event.subject else { continue };
            self.views.entry(subject.clone()).or_default().told = told(event);
            self.forget(subject);
        }
        offered.iter().filter(|event| event.is_sent()).count()
    }

    /// Adds the difference between what the URL was told and what is known: first the ends, then the rest while there is room.
    fn catch_up(&mut self, known: &Known) {
        self.is_behind = self.views.values().any(|view| view.told == Told::Offered);
        let differs = |(subject, view): (&Subject, &View)| {
            let is_settled = view.last.is_none() && view.told != Told::Offered;
            (is_settled && view.told.differs(known.has(subject))).then(|| known.event(subject.clone()))
        };
        let mut events: Vec<Event> = self.views.iter().filter_map(differs).take(CAUGHT_UP_MAX).collect();
        self.is_behind |= events.len() == CAUGHT_UP_MAX;
        events.sort_unstable_by_key(|event| event.is_there);
        for event in events {
            self.add(event, LASTING_BYTES_MAX);
        }
        for (subject, is_lasting) in known.subjects() {
            if !is_lasting && self.is_behind || self.views.contains_key(&subject) {
                continue;
            }
            if !is_lasting {
                self.is_behind = true;
            } else if !self.add(known.event(subject), LASTING_BYTES_MAX) {
                break;
            }
        }
    }
}

impl Told {
    fn differs(self, is_there: bool) -> bool {
        self != if is_there { Told::Present } else { Told::Absent }
    }
}

/// Bytes that an event takes in memory.
fn cost(event: &Event) -> usize {
    event.text.len() + EVENT_BYTES
}

/// Bytes of an event in memory beside its text: its place in the queue, its view, and the counts of two shared texts.
const EVENT_BYTES: usize = size_of::<(u64, Event)>() + VIEW_BYTES + 32;
/// Bytes of what a URL knows of one channel or connection. The name is shared.
pub const VIEW_BYTES: usize = size_of::<(Subject, View)>();
/// Bytes that may wait for one URL: some 40 000 events of channels.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Beyond these bytes, events that are not changes are dropped: a flood of client events does not delay changes.
const ONCE_BYTES_MAX: usize = BYTES_MAX / 4;
/// Beyond these bytes, channels that are occupied and connections that open are told later, if they last.
const FRESH_BYTES_MAX: usize = BYTES_MAX / 2;
/// The same for those that have lasted, so that short-lived ones leave room for them.
const LASTING_BYTES_MAX: usize = BYTES_MAX / 4 * 3;
/// Most events that one comparison adds about subjects that the URL was told of: more than the queue has room for.
const CAUGHT_UP_MAX: usize = BYTES_MAX / EVENT_BYTES;
/// Events of one request.
pub const BATCH_EVENTS_MAX: usize = 1000;
/// Bytes of one request, a little less in its body.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Between two warnings of one kind.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::event::Member;
    use crate::webhook::told::tests::{apply, following};
    use crate::webhook::told::{self, Tracked};

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
            assert!(first.iter().zip(numbers(BATCH_EVENTS_MAX)).all(|(text, number)| **text == *number));
            queue.settle();
            let second = queue.batch().await.expect("a batch");
            assert_eq!(second, [BATCH_EVENTS_MAX.to_string().into()]);
            queue.settle();

            push(&queue, ["x", "y", "z"].map(|text| text.repeat(BATCH_BYTES_MAX / 2 - 1)));
            assert_eq!(queue.batch().await.expect("a batch").len(), 2);
            queue.settle();
            assert_eq!(queue.batch().await.expect("a batch").len(), 1);
            queue.settle();
            assert_eq!(held(&queue), (0, 0));
            assert_eq!(queue.tally.now().counters.webhook_events, BATCH_EVENTS_MAX as u64 + 4);
        });
    }

    fn occupied(name: &str) -> Event {
        Event { subject: Some(Subject::Channel(name.into())), is_there: true, text: format!("+{name}").into() }
    }

    fn vacated(name: &str) -> Event {
        Event { subject: Some(Subject::Channel(name.into())), is_there: false, text: format!("-{name}").into() }
    }

    /// The texts of the next batch, which is accepted.
    async fn taken(queue: &Queue) -> Vec<Arc<str>> {
        let batch = queue.batch().await.expect("a batch");
        queue.settle();
        batch
    }

    fn texts(texts: &[&str]) -> Vec<Arc<str>> {
        texts.iter().map(|text| (*text).into()).collect()
    }

    #[test]
    fn events_that_undo_each_other_before_they_are_sent_are_cancelled() {
        run(async |queue| {
            for event in [occupied("a"), occupied("b"), vacated("a"), occupied("c"), vacated("c"), occupied("c")] {
                queue.push(event);
            }
            assert_eq!(taken(&queue).await, texts(&["+b", "+c"]));
            assert_eq!(queue.tally.now().counters.webhook_cancelled, 4);
            // The URL was told of `b`: its end is sent, but not an end that is undone.
            for event in [vacated("b"), vacated("c"), occupied("c")] {
                queue.push(event);
            }
            assert_eq!(taken(&queue).await, texts(&["-b"]));
            assert_eq!(held(&queue), (0, 0));
            assert_eq!(queue.lock().views.len(), 1, "only `c` is known to the URL");
        });
    }

    #[test]
    fn members_that_come_and_go_before_they_are_sent_are_cancelled() {
        run(async |queue| {
            let member = |user_id: &str| {
                let member = Member { channel: "a".into(), user_id: user_id.into() };
                Some(Subject::Member(Arc::new(member)))
            };
            for (user_id, is_there) in [("11", true), ("12", true), ("11", false)] {
                let text = format!("{user_id}{is_there}").into();
                queue.push(Event { subject: member(user_id), is_there, text });
            }
            assert_eq!(taken(&queue).await, texts(&["12true"]));
        });
    }

    #[test]
    fn an_event_that_is_being_offered_is_not_cancelled() {
        run(async |queue| {
            queue.push(occupied("a"));
            assert_eq!(queue.batch().await.expect("a batch"), texts(&["+a"]));
            queue.push(vacated("a"));
            queue.settle();
            assert_eq!(taken(&queue).await, texts(&["-a"]));
            assert!(queue.lock().views.is_empty());
        });
    }

    #[test]
    fn after_a_lost_batch_the_url_is_told_what_holds() {
        run(async |queue| {
            let mut known = Known::default();
            known.track(Tracked::of(&["channel_occupied", "channel_vacated"]));
            apply(&mut known, [following(0), told::tests::occupied(1, "stays")]);
            queue.push(occupied("stays"));
            queue.push(occupied("goes"));
            queue.batch().await.expect("a batch");
            queue.lose_offered(Lost::Expired);
            queue.catch_up(&known);
            // It may have received either.
            let again = taken(&queue).await;
            let [gone, there] = &again[..] else { panic!("{again:?}") };
            assert!(gone.contains("channel_vacated") && gone.contains("goes"), "{gone}");
            assert!(there.contains("channel_occupied") && there.contains("stays"), "{there}");
            queue.catch_up(&known);
            assert_eq!(held(&queue), (0, 0));
            assert!(!queue.lock().is_behind);
        });
    }

    #[test]
    fn churn_leaves_room_for_the_channels_that_last_and_for_ends() {
        run(async |queue| {
            let mut known = Known::default();
            known.track(Tracked::of(&["channel_occupied", "channel_vacated"]));
            queue.push(occupied("told"));
            taken(&queue).await;
            let room = FRESH_BYTES_MAX / cost(&occupied("00000"));
            (0..room + 10).for_each(|number| queue.push(occupied(&format!("{number:05}"))));
            assert_eq!(queue.tally.now().losses[Lost::Full as usize], ("queue_full", 10));
            assert_eq!(held(&queue).0, room as u64);
            apply(&mut known, [following(0), told::tests::occupied(1, "lasts")]);
            queue.push(occupied("lasts"));
            queue.push(vacated("told"));
            queue.catch_up(&known);
            let holds = |name: &str| {
                let state = queue.lock();
                state.waiting.values().any(|event| event.subject == Some(Subject::Channel(name.into())))
            };
            assert!(holds("told") && !holds("lasts"));
            (0..10).for_each(|_| known.tick());
            queue.catch_up(&known);
            assert!(holds("lasts"), "it has lasted");

            queue.lose_all(Lost::Removed);
            assert_eq!(held(&queue), (0, 0));
        });
    }

    #[test]
    fn what_waits_is_bounded_whatever_comes() {
        run(async |queue| {
            let room = FRESH_BYTES_MAX / cost(&occupied("00000"));
            for round in 0..4 {
                let name = |number: usize| format!("{:05}", round * room + number);
                (0..room).for_each(|number| queue.push(occupied(&name(number))));
                while held(&queue).0 > 0 {
                    taken(&queue).await;
                }
            }
            (0..4 * room).for_each(|number| queue.push(vacated(&format!("{number:05}"))));
            assert!(held(&queue).1 <= BYTES_MAX as u64);
            assert!(queue.tally.now().losses[Lost::Full as usize].1 > room as u64);
            // Nothing is known: the rest of the ends follows.
            let mut known = Known::default();
            known.track(Tracked::of(&["channel_vacated"]));
            while !queue.lock().views.is_empty() {
                while held(&queue).0 > 0 {
                    taken(&queue).await;
                }
                queue.catch_up(&known);
            }
        });
    }

    #[test]
    fn an_event_that_is_not_selected_is_not_sent() {
        run(async |queue| {
            queue.push(Event { text: "".into(), ..occupied("a") });
            queue.push(occupied("b"));
            assert_eq!(taken(&queue).await, texts(&["+b"]));
            queue.push(vacated("a"));
            assert_eq!(taken(&queue).await, texts(&["-a"]));
            queue.push(Event { text: "".into(), ..occupied("c") });
            queue.end();
            assert_eq!(queue.batch().await, None);
        });
    }

    #[test]
    fn events_that_are_not_changes_are_sent_each_and_give_way_to_changes() {
        run(async |queue| {
            let once = || Event::once("once".into());
            queue.push(once());
            queue.push(occupied("a"));
            queue.push(once());
            assert_eq!(taken(&queue).await, texts(&["once", "+a", "once"]));
            let room = ONCE_BYTES_MAX / cost(&once());
            (0..room + 10).for_each(|_| queue.push(once()));
            assert_eq!(queue.tally.now().losses[Lost::Full as usize], ("queue_full", 10));
            assert!(!queue.lock().is_behind, "nothing is told again");
            queue.push(vacated("a"));
            queue.push(occupied("b"));
            assert_eq!(held(&queue).0, room as u64 + 2);
            queue.batch().await.expect("a batch");
            queue.lose_offered(Lost::Expired);
            queue.catch_up(&Known::default());
            assert_eq!(held(&queue).0, (room - BATCH_EVENTS_MAX) as u64 + 2);
        });
    }

    #[test]
    fn one_warning_a_minute_is_due() {
        run(async |_| {
            let mut seldom = Seldom::default();
            assert!(seldom.is_due() && !seldom.is_due());
            tokio::time::advance(WARNING_PAUSE).await;
            assert!(seldom.is_due() && !seldom.is_due());
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
