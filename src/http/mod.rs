//! HTTP for monitoring, orchestrators, people, and backends on other machines. It uses the ecosystem's standard parts
//! (axum, hyper, a tokio runtime of one thread), because it is not on the data path.
//!
//! It has an admin session with each shard ([`shards`]). A shard treats such a session like one of its admin socket: it
//! serves it in its turn, with a window of unsettled publishes, and without priority over other publishers. A publish
//! goes to the shard that owns the channel. Values cross threads as Rust types; JSON is read and written only here, at
//! the entry point.
//!
//! * [`serving`] has the connections and their limits, [`places`] decides which ones are served, [`head`] checks requests.
//! * [`shards`] sends requests to the shards, [`snapshot`] has their numbers.
//! * [`exposition`] writes the numbers for Prometheus, [`process`] reads the numbers of the process from the system.
//! * [`publish`] is the plain JSON entry point, [`rest`] the one for Pusher's libraries; [`console`] is for people.
//! * [`body`] reads request bodies, [`bearer`] bearer tokens.

pub mod bearer;
pub mod body;
pub mod console;
pub mod exposition;
pub mod head;
pub mod places;
pub mod process;
pub mod publish;
pub mod reply;
pub mod rest;
pub mod serving;
pub mod shards;
pub mod snapshot;

use crate::admin::lines::reader::Parser;
use crate::api::Phase;
use crate::config::{Access, Live};
use crate::metrics::{HttpCounters, WebhookStats};
use crate::protocol::auth::KeyRing;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bearer::Digest;
use body::Rest;
use console::access::{Door, Guard};
use console::tokens::Tokens;
use process::Process;
use rest::event::Bodies;
use rest::repetition::Seen;
use shards::{Shards, Unavailable};
use snapshot::{Numbers, Snapshot};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, watch};

/// What the HTTP server needs.
pub struct Parts {
    /// The listener, bound and listening.
    pub listener: TcpListener,
    /// The sessions with the shards.
    pub shards: Shards,
    /// The app ID in the paths of [`rest`].
    pub app_id: String,
    /// Address of the WebSocket listener.
    pub listen: SocketAddr,
    /// The numbers of webhooks.
    pub webhooks: Box<dyn Fn() -> WebhookStats + Send + Sync>,
    /// Settings that a reload replaces.
    pub held: Arc<Mutex<Arc<Held>>>,
    /// The tokens of the console.
    pub tokens: Arc<Mutex<Tokens>>,
}

/// Settings that a reload replaces.
pub struct Held {
    keys: KeyRing,
    door: Door,
    access: Access,
    is_tls: bool,
    publish_token: Option<Digest>,
}

/// The state that all requests share.
pub struct Face {
    shards: Shards,
    phase: watch::Receiver<Phase>,
    snapshot: Snapshot,
    counters: Mutex<HttpCounters>,
    webhooks: Box<dyn Fn() -> WebhookStats + Send + Sync>,
    app_id: String,
    listen: SocketAddr,
    held: Arc<Mutex<Arc<Held>>>,
    readers: Mutex<Readers>,
    /// Signatures of accepted requests of [`rest`].
    seen: Mutex<Seen>,
    /// Access to the console.
    guard: Guard,
    /// Limits the walks through the shards' tables for listings.
    walks: Semaphore,
    /// Limits the listings of all channels that are not yet sent.
    listings: Arc<Semaphore>,
    started: SystemTime,
    begun: Instant,
}

/// Readers of request bodies, whose buffers are reused.
#[derive(Default)]
struct Readers {
    rest: Bodies,
    members: Parser,
}

/// Serves HTTP until the server ends.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(parts: Parts, phase: watch::Receiver<Phase>) -> io::Result<()> {
    let Parts { listener, shards, app_id, listen, webhooks, held, tokens } = parts;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let begun = Instant::now();
    let face = Arc::new(Face {
        shards,
        phase: phase.clone(),
        snapshot: Snapshot::default(),
        counters: Mutex::default(),
        webhooks,
        app_id,
        listen,
        held,
        readers: Mutex::default(),
        seen: Mutex::default(),
        guard: Guard::new(tokens, begun),
        walks: Semaphore::new(1),
        listings: Arc::new(Semaphore::new(walk::LISTINGS_MAX)),
        started: SystemTime::now(),
        begun,
    });
    serving::serve(listener, face.clone(), router(face), phase).await;
    Ok(())
}

impl Held {
    /// Takes them from a server's settings.
    pub fn of(live: &Live) -> Held {
        Held {
            keys: KeyRing::new(&live.keys),
            door: Door::new(&live.console),
            access: live.access.clone(),
            is_tls: live.certificate.is_some(),
            publish_token: live.publish_token.as_ref().map(|token| Digest::of(token.secret.as_bytes())),
        }
    }

    /// Why the console is off; `None`: it is on.
    pub fn console_closed(&self) -> Option<&'static str> {
        self.door.closed()
    }
}

impl Face {
    /// The sessions with the shards. Shards that stop do not read publishers, so a request is then refused at once.
    fn shards(&self) -> Result<&Shards, Unavailable> {
        if *self.phase.borrow() < Phase::Stopping { Ok(&self.shards) } else { Err(Unavailable::Closed) }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn numbers(&self) -> Result<Arc<Numbers>, Unavailable> {
        self.snapshot.numbers(self.shards()?).await
    }

    /// The current settings.
    fn held(&self) -> Arc<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Updates the counters.
    pub fn count(&self, count: impl FnOnce(&mut HttpCounters)) {
        count(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn router(face: Arc<Face>) -> Router {
    let health = Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn(head::refuse_cross_site));
    Router::new()
        .merge(health)
        .route("/publish", post(publish::publish))
        .route("/apps/{app_id}/events", post(rest::events))
        .route("/apps/{app_id}/batch_events", post(rest::batch_events))
        .route("/apps/{app_id}/channels", get(rest::channels))
        .route("/apps/{app_id}/channels/{name}", get(rest::channel))
        .route("/apps/{app_id}/channels/{name}/users", get(rest::users))
        .route("/apps/{app_id}/users/{*rest}", post(rest::terminate))
        .route("/users/{*rest}", post(rest::terminate_without_app))
        .merge(console::routes(&face))
        .fallback(unknown)
        .layer(middleware::from_fn(head::check))
        .layer(middleware::from_fn_with_state(face.clone(), within_limits))
        .with_state(face)
}

/// Counts every request, and answers it within the time limit.
async fn within_limits(State(face): State<Arc<Face>>, mut request: Request, next: Next) -> Response {
    face.count(|counters| counters.http_requests += 1);
    let rest = Rest::of(&mut request);
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        face.count(|counters| counters.http_timeouts += 1);
        unavailable("the server did not answer in time\n")
    });
    let status = response.status();
    face.count(|counters| {
        counters.http_client_errors += u64::from(status.is_client_error());
        counters.http_server_errors += u64::from(status.is_server_error());
    });
    // An unread body ends the connection. The client must know that before it sends the next request.
    if rest.is_unread() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers if the process is alive and this thread runs. It asks no shard: `/ready` reports a shard that does not answer.
async fn live() -> Response {
    ([(CACHE_CONTROL, "no-store")], "live\n").into_response()
}

/// Whether new connections may be sent here: every shard answers, and the server is not draining.
async fn ready(State(face): State<Arc<Face>>) -> Result<Response, Unavailable> {
    let phase = *face.phase.borrow();
    Ok(match phase {
        Phase::Starting => unavailable("starting\n"),
        Phase::Serving => {
            face.numbers().await?;
            ([(CACHE_CONTROL, "no-store")], "ready\n").into_response()
        }
        Phase::Draining => unavailable("draining\n"),
        Phase::Stopping | Phase::Ended => unavailable("stopping\n"),
    })
}

/// The numbers for Prometheus.
async fn metrics(State(face): State<Arc<Face>>) -> Result<impl IntoResponse, Unavailable> {
    let numbers = face.numbers().await?;
    let mut http = face.counters.lock().unwrap_or_else(PoisonError::into_inner).clone();
    face.guard.tokens().count(&mut http);
    let text = exposition::text(&numbers, &http, &(face.webhooks)(), &Process::now(face.started));
    Ok(([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text))
}

async fn unknown() -> Response {
    (StatusCode::NOT_FOUND, NO_SUCH_PATH).into_response()
}

fn unavailable(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], text).into_response()
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        unavailable(match self {
            Unavailable::Overloaded => "too many requests are outstanding\n",
            Unavailable::Closed => "the server is stopping\n",
        })
    }
}

/// The answer for a path that does not exist.
const NO_SUCH_PATH: &str =
    "the paths are /live, /ready, /metrics, /console, /publish and /apps/ID/events, batch_events, channels, users\n";

/// `Content-Type` of answers for programs.
const JSON: &str = "application/json";

/// Limits of channel listings.
pub mod walk {
    /// Channels requested from the shards at once.
    pub const PAGE: usize = crate::api::operation::PAGE_MAX;
    /// Most channels in one answer.
    pub const CHANNELS_MAX: usize = 100_000;
    /// Most such answers that wait for their walk, or for the client to read them.
    pub const LISTINGS_MAX: usize = 8;
}

/// Time limit from a request's head to its answer, the body included. Prometheus ends a scrape after 10 s. With a
/// shorter limit it records a 503 instead of its own timeout. Proxies wait for 60 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::link::{self, Opener, Seat};
    use crate::config::{Flags, Settings};
    use crate::hub::placement::Placement;
    use std::sync::mpsc::channel;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// A shard that does not answer makes the server unready. Nothing may kill the server for it.
    #[tokio::test]
    async fn live_is_answered_while_the_shards_are_blocked() {
        let (opened, seats) = channel::<Seat>();
        let (rung, rings) = channel();
        let opener: Opener = Arc::new(move |_, outlet| {
            let rung = rung.clone();
            let (link, seat) = link::link(Arc::new(move || _ = rung.send(())), outlet);
            opened.send(seat).ok().map(|()| link)
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let config = Settings::gather(&Flags::new(), |_| None).and_then(|settings| settings.validate()).expect("legal");
        let parts = Parts {
            listener,
            shards: Shards::open(&opener, Placement::new(0, 2, [1, 2, 3, 4])).expect("links"),
            app_id: config.app_id,
            listen: address,
            webhooks: Box::new(WebhookStats::default),
            held: Arc::new(Mutex::new(Arc::new(Held::of(&config.live)))),
            tokens: Arc::new(Mutex::new(Tokens::new([1, 2, 3, 4]))),
        };
        // They are never served.
        let seats: Vec<Seat> = seats.try_iter().collect();
        let ask = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.expect("a listener");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("an open connection");
            stream
        };
        let script = async {
            let unready = ask("/ready").await;
            while rings.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            let mut answer = [0; 15];
            ask("/live").await.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            let unanswered = unready.try_read(&mut answer).expect_err("no answer");
            assert_eq!((unanswered.kind(), seats.len()), (io::ErrorKind::WouldBlock, 2));
        };
        let (_phase, phase) = watch::channel(Phase::Serving);
        tokio::select! {
            served = serve(parts, phase) => panic!("the server ended: {served:?}"),
            () = script => {}
        }
    }
}
