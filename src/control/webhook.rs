//! Webhooks: what happens in the server, posted to URLs of the business backend, as Pusher posts it.
//!
//! ```text
//! shard 0 ─ events, by line ─► stream ─► known ─┬─► queue ─► endpoint ─► POST URL 1
//!                                               └─► queue ─► endpoint ─► POST URL 2
//! ```
//!
//! The events come over an admin connection of their own that never left the process, open for as long as there is a URL.
//! It is always read, whatever the URLs do, so the shards never wait for one. [`Known`] is what the URLs have been told so
//! far: a snapshot is compared with it, and only what differs is told. So after a loss the missing is made up for, and a
//! URL that is new is told first of what there is.
//!
//! Each URL has a queue ([`queue`]) and a task ([`endpoint`]) that offers it batch after batch, one request at a time: order
//! is kept, a batch comes at least once, and one dead URL holds up no other. What a queue cannot hold, or was offered for
//! too long, is dropped, counted and logged.

pub mod client;
pub mod endpoint;
pub mod known;
pub mod queue;
pub mod stream;
mod tally;

use super::{Phase, Sessions};
use crate::config::{Key, Live, WebhookUrl, Webhooks};
use client::Client;
use endpoint::Sending;
pub use known::{CHANNELS, CONNECTIONS};
use known::{Known, Tracked};
use queue::Queue;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use stream::Stream;
pub use tally::{Lost, Tally};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What the configuration says of webhooks.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    webhooks: Webhooks,
    /// Signs; the configuration has one where there is a URL.
    key: Option<Key>,
}

impl Settings {
    /// Those of a server's settings.
    pub fn of(live: &Live) -> Settings {
        Settings { webhooks: live.webhooks.clone(), key: live.keys.first().cloned() }
    }
}

/// Tells the URLs until the server has ended, and then what is left, as far as they take it at once.
pub async fn run(
    sessions: Sessions,
    mut settings: watch::Receiver<Settings>,
    phase: watch::Receiver<Phase>,
    tally: Tally,
) {
    let mut teller = Teller {
        sessions,
        tally,
        known: Known::default(),
        stream: None,
        reopen_at: Instant::now(),
        has_warned: false,
        endpoints: Vec::new(),
        sending: None,
    };
    teller.apply(&settings.borrow_and_update().clone());
    let mut end = phase.clone();
    loop {
        // A server that is going down serves no new session.
        let opens = teller.stream.is_none() && !teller.endpoints.is_empty() && *phase.borrow() < Phase::Stopping;
        let reopen_at = teller.reopen_at;
        tokio::select! {
            read = read(&mut teller.stream) => {
                teller.hear(read);
                // A large snapshot is not read in one go: requests over HTTP are served between.
                tokio::task::yield_now().await;
            }
            () = sleep_until(reopen_at), if opens => teller.open(),
            Ok(()) = settings.changed() => teller.apply(&settings.borrow_and_update().clone()),
            () = ended(&mut end) => break,
        }
    }
    teller.end().await;
}

/// Whoever tells.
struct Teller {
    sessions: Sessions,
    tally: Tally,
    known: Known,
    stream: Option<Stream>,
    /// When another stream is asked for, where there is none.
    reopen_at: Instant,
    /// It was said that nothing can be told.
    has_warned: bool,
    endpoints: Vec<Endpoint>,
    /// How all of them are told; `None`: there was no URL yet.
    sending: Option<watch::Sender<Sending>>,
}

struct Endpoint {
    url: WebhookUrl,
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Teller {
    /// Other settings: URLs that stay keep what they still have to be told.
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
        let has_secure = urls.iter().any(|url| url.uri().scheme_str() == Some("https"));
        let post = Client::new(has_secure, client::Times::default());
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

    fn open(&mut self) {
        match (self.sessions)().and_then(|session| Stream::open(session, &self.known.request())) {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => {
                tracing::warn!(%error, "webhooks: no session with the shards");
                self.reopen_at = Instant::now() + REOPEN_PAUSE;
            }
        }
    }

    /// Lines have come, or the end.
    fn hear(&mut self, read: io::Result<usize>) {
        let Teller { stream, known, endpoints, has_warned, .. } = self;
        let Some(open) = stream else { return };
        // As it does when the server ends.
        let is_end = matches!(read, Ok(0));
        let heard = match read {
            Ok(0) => Err("it ended".into()),
            Ok(_) => open.lines(|line| {
                known.hear(line, |event| endpoints.iter().for_each(|endpoint| endpoint.queue.push(event.clone())))
            }),
            Err(error) => Err(error.to_string()),
        };
        let Err(why) = heard else {
            *has_warned = false;
            return;
        };
        self.tally.count(|counters| counters.webhook_streams_lost += 1);
        if is_end || std::mem::replace(has_warned, true) {
            tracing::debug!(%why, "webhooks: the stream of events is asked for anew");
        } else {
            tracing::warn!(%why, "webhooks: nothing can be told without a stream of events; it is asked for again and again");
        }
        *stream = None;
        self.reopen_at = Instant::now() + REOPEN_PAUSE;
    }

    /// The shards are gone; what they said is read to its end.
    async fn end(mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        while self.stream.is_some()
            && let Ok(read) = timeout_at(deadline, read(&mut self.stream)).await
        {
            self.hear(read);
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
    // Whoever is to tell it is gone: that is an end, too.
    let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
}

async fn read(stream: &mut Option<Stream>) -> io::Result<usize> {
    match stream {
        Some(stream) => stream.read().await,
        None => pending().await,
    }
}

/// How long the end of the server may be held up by what is still to be told.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Before the stream is asked for again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Descriptors of each URL: a connection, another that is being closed, one that a look-up of its name takes; and, of the
/// first, both ends of the session.
pub const DESCRIPTORS_EACH: u64 = 5;

#[cfg(test)]
mod tests {
    use super::client::tests::{endpoint, request};
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
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
        sessions: Receiver<UnixStream>,
        settings: watch::Sender<Settings>,
        phase: watch::Sender<Phase>,
        tally: Tally,
    }

    fn play(first: Settings, script: impl FnOnce(&Stage)) {
        let (opened, sessions) = channel();
        let open: Sessions = Box::new(move || {
            let (ours, theirs) = UnixStream::pair()?;
            opened.send(theirs).map_err(io::Error::other)?;
            Ok(ours)
        });
        let stage = Stage {
            sessions,
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
        /// The next session, once it has asked for this.
        #[track_caller]
        fn session(&self, request: &str) -> UnixStream {
            let session = self.sessions.recv_timeout(WAIT).expect("a session");
            let mut line = String::new();
            BufReader::new(&session).read_line(&mut line).expect("a request");
            assert_eq!(line.trim_end(), request);
            session
        }
    }

    fn say(mut session: &UnixStream, text: &str) {
        session.write_all(text.as_bytes()).expect("it is read");
    }

    fn occupied(number: u64, channel: &str) -> String {
        format!("{{\"number\":{number},\"time_ms\":1,\"event\":\"channel_occupied\",\"channel\":\"{channel}\"}}\n")
    }

    fn told(channel: &str) -> Result<String, std::sync::mpsc::RecvTimeoutError> {
        Ok(format!(r#"{{"name":"channel_occupied","channel":"{channel}"}}"#))
    }

    const FIRST: &str = r#"{"id":1,"command":"events"}"#;
    const ANSWER: &str = "{\"id\":1,\"ok\":true,\"epoch\":\"00000000000000ff\",\"number\":41}\n";
    const WAIT: Duration = Duration::from_secs(15);

    #[test]
    fn a_session_is_open_for_as_long_as_there_is_a_url() {
        let (url, events) = backend();
        play(settings(&[]), |stage| {
            assert!(stage.sessions.recv_timeout(Duration::from_millis(50)).is_err(), "nobody is to be told");
            stage.settings.send_replace(settings(&[&url]));
            let session = stage.session(FIRST);
            say(&session, ANSWER);
            // Lines come in pieces.
            let line = occupied(42, "a");
            say(&session, &line[..20]);
            say(&session, &line[20..]);
            assert_eq!(events.recv_timeout(WAIT), told("a"));
            stage.settings.send_replace(settings(&[]));
            assert_eq!(BufReader::new(&session).read_line(&mut String::new()).expect("an end"), 0);
            // From a snapshot on: what happened meanwhile nobody knows.
            stage.settings.send_replace(settings(&[&url]));
            stage.session(FIRST);
        });
    }

    #[test]
    fn a_session_that_breaks_off_is_followed_by_another_that_goes_on() {
        let (url, events) = backend();
        play(settings(&[&url]), |stage| {
            let session = stage.session(FIRST);
            say(&session, &(ANSWER.to_owned() + &occupied(42, "a")));
            assert_eq!(events.recv_timeout(WAIT), told("a"));
            say(&session, "{\"event\":\"error\",\"code\":\"too_slow\",\"error\":\"\"}\n");
            let session = stage.session(r#"{"id":1,"command":"events","since":42,"epoch":"00000000000000ff"}"#);
            say(&session, &(ANSWER.replace("41", "42") + &occupied(43, "b")));
            assert_eq!(events.recv_timeout(WAIT), told("b"));
            assert_eq!(stage.tally.now().counters.webhook_streams_lost, 1);
            // Nothing that never ends is kept.
            drop(session);
            let session = stage.session(r#"{"id":1,"command":"events","since":43,"epoch":"00000000000000ff"}"#);
            session.set_write_timeout(Some(WAIT)).expect("socket option");
            while (&session).write_all(&[b'x'; 4096]).is_ok() {}
            assert_eq!(stage.tally.now().counters.webhook_streams_lost, 3);
        });
    }

    #[test]
    fn what_the_shards_said_last_is_told_at_the_end() {
        let (url, events) = backend();
        play(settings(&[&url]), |stage| {
            let session = stage.session(FIRST);
            say(&session, ANSWER);
            stage.phase.send_replace(Phase::Stopping);
            say(&session, &occupied(42, "a"));
        });
        assert_eq!(events.try_recv().map_err(|_| panic!("it is told")), told("a"));
    }
}
