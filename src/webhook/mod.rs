//! Webhooks: events of the server, posted to URLs of the business backend, as Pusher posts them.
//!
//! ```text
//! shard 0 ─ events ─► stream ─► told ─┬─► queue ─► endpoint ─► POST URL 1
//!                                     └─► queue ─► endpoint ─► POST URL 2
//! ```
//!
//! The events come over a session with the shard that keeps the journal, open for as long as there is a URL. It is always
//! read, whatever the URLs do, so the shards never wait for one. [`Known`] is what the stream has sent so far: a snapshot
//! is compared with it, and the difference is told. A new URL is first told what is known.
//!
//! Each URL has a queue ([`queue`]) and a task ([`endpoint`]) that offers it batch after batch, one request at a time: order
//! is kept, a batch comes at least once, and one dead URL delays no other. What a queue cannot hold, or has offered for
//! too long, is dropped, counted and logged. Once a second such a queue compares what its URL was told with what is known,
//! and adds the difference. So at rest each URL knows the state of the server.

mod client_event;
pub mod endpoint;
pub mod event;
pub mod http_client;
pub mod post;
pub mod queue;
pub mod stream;
mod tally;
pub mod told;

use crate::admin::link::{Opener, Sent};
use crate::api::Phase;
use crate::config::{Key, Live, WebhookUrl, Webhooks};
use endpoint::Sending;
use http_client::{Client, Times};
use queue::{Queue, Seldom};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use stream::Stream;
pub use tally::{Lost, Tally};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until, timeout_at};
pub use told::{CHANNELS, CONNECTIONS, MEMBERS};
use told::{Known, Tracked};

/// What the configuration says of webhooks.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    webhooks: Webhooks,
    /// Signs the requests. Configurations with a URL have a key.
    key: Option<Key>,
}

impl Settings {
    /// Those of a server's settings.
    pub fn of(live: &Live) -> Settings {
        Settings { webhooks: live.webhooks.clone(), key: live.keys.first().cloned() }
    }
}

/// Sends events to the URLs until the server has ended, and then what is left, as far as they accept it at once.
pub async fn run(opener: Opener, mut settings: watch::Receiver<Settings>, phase: watch::Receiver<Phase>, tally: Tally) {
    let mut teller = Teller {
        opener,
        tally,
        known: Known::default(),
        stream: None,
        reopen_at: Instant::now(),
        warnings: Seldom::default(),
        endpoints: Vec::new(),
        sending: None,
    };
    teller.apply(&settings.borrow_and_update().clone());
    let mut end = phase.clone();
    let mut ticks = interval(TICK);
    loop {
        // A server that is going down serves no new session.
        let opens = teller.stream.is_none() && !teller.endpoints.is_empty() && *phase.borrow() < Phase::Stopping;
        let reopen_at = teller.reopen_at;
        tokio::select! {
            read = read(&mut teller.stream) => {
                teller.take(read);
                // A large snapshot is not read in one go: requests over HTTP are served between.
                tokio::task::yield_now().await;
            }
            _ = ticks.tick() => teller.tick(),
            () = sleep_until(reopen_at), if opens => teller.open(),
            Ok(()) = settings.changed() => teller.apply(&settings.borrow_and_update().clone()),
            () = ended(&mut end) => break,
        }
    }
    teller.end().await;
}

/// Sends the events to all URLs.
struct Teller {
    opener: Opener,
    tally: Tally,
    known: Known,
    stream: Option<Stream>,
    /// When to ask for another stream, while none is open.
    reopen_at: Instant,
    warnings: Seldom,
    endpoints: Vec<Endpoint>,
    /// How requests are sent; `None`: no URL has been configured yet.
    sending: Option<watch::Sender<Sending<Client>>>,
}

struct Endpoint {
    url: WebhookUrl,
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Teller {
    /// Applies other settings. URLs that stay keep their queues.
    fn apply(&mut self, settings: &Settings) {
        let Webhooks { urls, events, retry_ms } = &settings.webhooks;
        self.endpoints.retain(|endpoint| {
            let stays = urls.contains(&endpoint.url);
            if !stays {
                endpoint.task.abort();
                endpoint.queue.lose_all(Lost::Removed);
            }
            stays
        });
        let Some(key) = settings.key.clone().filter(|_| !urls.is_empty()) else {
            self.known.track(Tracked::default());
            self.stream = None;
            return;
        };
        if self.known.track(Tracked::of(events)) {
            self.stream = None;
            self.reopen_at = Instant::now();
        }
        self.endpoints.iter().for_each(|endpoint| endpoint.queue.fall_behind());
        let has_secure = urls.iter().any(|url| url.uri().scheme_str() == Some("https"));
        let post = Client::new(has_secure, Times::default());
        let sending = Sending { key, retry: Duration::from_millis(*retry_ms), post };
        let sender = self.sending.get_or_insert_with(|| watch::Sender::new(sending.clone()));
        sender.send_replace(sending);
        for url in urls {
            if self.endpoints.iter().any(|endpoint| endpoint.url == *url) {
                continue;
            }
            let queue = Arc::new(Queue::new(url.clone(), self.tally.clone()));
            self.known.each(|event| queue.push(event));
            let task = tokio::spawn(endpoint::deliver(queue.clone(), sender.subscribe()));
            self.endpoints.push(Endpoint { url: url.clone(), queue, task });
        }
    }

    fn tick(&mut self) {
        self.known.tick();
        self.endpoints.iter().for_each(|endpoint| endpoint.queue.catch_up(&self.known));
    }

    fn open(&mut self) {
        self.stream = Stream::open(&self.opener, self.known.request());
        self.reopen_at = Instant::now() + REOPEN_PAUSE;
    }

    /// The stream has sent something, or has ended.
    fn take(&mut self, read: Option<Vec<Sent>>) {
        let Teller { known, endpoints, warnings, .. } = self;
        // The normal end of a stream is that of the server.
        let is_end = read.is_none();
        let push = |event: event::Event| endpoints.iter().for_each(|endpoint| endpoint.queue.push(event.clone()));
        let applied = match read {
            None => Err("it ended".into()),
            Some(sent) => sent.into_iter().try_for_each(|sent| known.take(sent, push)),
        };
        let Err(why) = applied else { return };
        self.tally.count(|counters| counters.webhook_streams_lost += 1);
        if is_end || !warnings.is_due() {
            tracing::debug!(%why, "webhooks: the stream of events is asked for again");
        } else {
            tracing::warn!(%why, "webhooks: without a stream of events nothing is sent; it is asked for again and again");
        }
        self.stream = None;
        self.reopen_at = Instant::now() + REOPEN_PAUSE;
    }

    /// The shards have ended: reads the stream to its end, and sends what is left.
    async fn end(mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        while self.stream.is_some()
            && let Ok(read) = timeout_at(deadline, read(&mut self.stream)).await
        {
            self.take(read);
        }
        self.endpoints.iter().for_each(|endpoint| endpoint.queue.end());
        for Endpoint { queue, mut task, .. } in self.endpoints {
            if timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
            queue.lose_all(Lost::Stopped);
        }
    }
}

async fn ended(phase: &mut watch::Receiver<Phase>) {
    // A dropped sender is an end, too.
    let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
}

async fn read(stream: &mut Option<Stream>) -> Option<Vec<Sent>> {
    match stream {
        Some(stream) => stream.read().await,
        None => pending().await,
    }
}

/// How long events that are left may delay the end of the server.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two comparisons of what a URL was told with what is known.
const TICK: Duration = Duration::from_secs(1);
/// Before the stream is asked for again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Descriptors of each URL: a connection, another that is being closed, and one for a look-up of its name.
pub const DESCRIPTORS_EACH: u64 = 3;

#[cfg(test)]
mod tests {
    use super::http_client::tests::{endpoint, request};
    use super::told::tests::{following, occupied};
    use super::*;
    use crate::admin::link::{self, Seat};
    use crate::api::{Command, Request};
    use crate::hub::observe::piece::Piece;
    use crossbeam_channel::TryRecvError;
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    /// A backend that takes everything: its URL, and the events that came.
    fn backend() -> (WebhookUrl, Receiver<String>) {
        let (seen, events) = channel();
        let address = endpoint(move |mut stream| {
            while let Some((_, body)) = request(&mut stream) {
                let (_, events) = body.split_once(r#""events":["#).expect("events");
                seen.send(events.trim_end_matches("]}").to_owned()).expect("the test waits");
                stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("the client reads");
            }
        });
        (WebhookUrl::parse(&format!("http://{address}/")).expect("a URL"), events)
    }

    fn settings(urls: &[&WebhookUrl]) -> Settings {
        let urls = urls.iter().map(|url| (*url).clone()).collect();
        let key = Some(Key { id: "app".into(), secret: "secret".into() });
        Settings { webhooks: Webhooks { urls, events: vec!["channel_occupied"], retry_ms: 300_000 }, key }
    }

    /// What the tests play: the shard, the rest of the server, and the end.
    struct Stage {
        seats: Receiver<Seat>,
        settings: watch::Sender<Settings>,
        phase: watch::Sender<Phase>,
        tally: Tally,
    }

    fn play(first: Settings, script: impl FnOnce(&Stage)) {
        let (opened, seats) = channel();
        let open: Opener = Arc::new(move |_, outlet| {
            let (link, seat) = link::link(Arc::new(|| ()), outlet);
            opened.send(seat).ok().map(|()| link)
        });
        let stage = Stage {
            seats,
            settings: watch::Sender::new(first),
            phase: watch::Sender::new(Phase::Serving),
            tally: Tally::default(),
        };
        let telling = run(open, stage.settings.subscribe(), stage.phase.subscribe(), stage.tally.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let thread = thread::spawn(move || runtime.block_on(telling));
        script(&stage);
        stage.phase.send_replace(Phase::Ended);
        thread.join().expect("no panic");
    }

    impl Stage {
        /// The next session, which has asked for this.
        #[track_caller]
        fn session(&self, since: Option<u64>) -> Seat {
            let seat = self.seats.recv_timeout(WAIT).expect("a session");
            let asked = loop {
                match seat.receive() {
                    Ok(asked) => break asked,
                    Err(TryRecvError::Empty) => thread::yield_now(),
                    Err(TryRecvError::Disconnected) => panic!("the session ended"),
                }
            };
            let Command::Request(Request::Events(events)) = asked.command else { panic!("{asked:?}") };
            assert_eq!((events.since, events.epoch.is_some()), (since, since.is_some()));
            seat
        }
    }

    /// Waits until the session has ended.
    fn wait_for_end(seat: &Seat) {
        let start = std::time::Instant::now();
        while seat.receive().is_err_and(|error| error == TryRecvError::Empty) {
            assert!(start.elapsed() < WAIT, "the session goes on");
            thread::yield_now();
        }
    }

    fn told(channel: &str) -> Result<String, std::sync::mpsc::RecvTimeoutError> {
        Ok(format!(r#"{{"name":"channel_occupied","channel":"{channel}"}}"#))
    }

    const WAIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_session_is_open_for_as_long_as_there_is_a_url() {
        let (url, events) = backend();
        play(settings(&[]), |stage| {
            assert!(stage.seats.recv_timeout(Duration::from_millis(50)).is_err(), "the settings have no URL yet");
            stage.settings.send_replace(settings(&[&url]));
            let mut session = stage.session(None);
            assert!(session.send(vec![following(41), occupied(42, "a")]));
            assert_eq!(events.recv_timeout(WAIT), told("a"));
            stage.settings.send_replace(settings(&[]));
            wait_for_end(&session);
            // Meanwhile events were missed, so it begins with a snapshot.
            stage.settings.send_replace(settings(&[&url]));
            stage.session(None);
        });
    }

    #[test]
    fn a_session_that_breaks_off_is_followed_by_another_that_continues() {
        let (url, events) = backend();
        play(settings(&[&url]), |stage| {
            let mut session = stage.session(None);
            assert!(session.send(vec![following(41), occupied(42, "a")]));
            assert_eq!(events.recv_timeout(WAIT), told("a"));
            assert!(session.send(vec![Sent::Piece(Piece::FellBehind { missing: 1 })]));
            let mut session = stage.session(Some(42));
            assert!(session.send(vec![following(42), occupied(43, "b")]));
            assert_eq!(events.recv_timeout(WAIT), told("b"));
            assert_eq!(stage.tally.now().counters.webhook_streams_lost, 1);
            drop(session);
            let _session = stage.session(Some(43));
            assert_eq!(stage.tally.now().counters.webhook_streams_lost, 2);
        });
    }

    #[test]
    fn a_stream_pauses_while_what_it_says_is_not_read() {
        let (opened, seats) = channel();
        let rung = Arc::new(AtomicUsize::new(0));
        let open: Opener = Arc::new({
            let rung = rung.clone();
            move |_, outlet| {
                let rung = rung.clone();
                let (link, seat) = link::link(Arc::new(move || _ = rung.fetch_add(1, Relaxed)), outlet);
                opened.send(seat).ok().map(|()| link)
            }
        });
        let mut stream = Stream::open(&open, Known::default().request()).expect("a session");
        let mut seat: Seat = seats.try_recv().expect("a seat");
        let mut sent = 0;
        while seat.has_room() {
            assert!(seat.send(vec![following(41)]));
            sent += 1;
            assert!(sent < 1000, "it never pauses");
        }
        let rings = rung.load(Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(stream.read()).map(|sent| sent.len()), Some(1));
        assert!(seat.has_room() && rung.load(Relaxed) > rings, "the shard is woken");
    }

    #[test]
    fn what_the_shards_said_last_is_told_at_the_end() {
        let (url, events) = backend();
        play(settings(&[&url]), |stage| {
            let mut session = stage.session(None);
            assert!(session.send(vec![following(41)]));
            stage.phase.send_replace(Phase::Stopping);
            assert!(session.send(vec![occupied(42, "a")]));
        });
        assert_eq!(events.try_recv().map_err(|_| panic!("it is told")), told("a"));
    }
}
