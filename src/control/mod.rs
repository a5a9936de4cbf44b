//! The control plane: one ordinary thread, unpinned, that speaks HTTP with monitoring, orchestrators and backends on other
//! machines. It is built of the ecosystem's standard parts (axum, hyper, a tokio runtime of one thread), because nothing
//! here is on the data path.
//!
//! It talks to the shards as an **admin client**: at start, one end of a socket pair is handed to shard 0, whose admin
//! sessions serve it like any other. It is not one more mailbox of the mesh, because an admin session already has all that
//! such a mailbox would need: requests in lines, replies in order, a window of unsettled publishes beyond which it is not
//! read, and a place in the turn behind the clients. So the shards are as they are without HTTP, nothing that HTTP does can
//! slow a delivery more than a publisher may, and what the command line can do, HTTP can do.
//!
//! * [`serving`] has the connections and their limits, [`pipe`] the way to the shards, [`snapshot`] their numbers.
//! * [`exposition`] writes those for Prometheus, [`process`] what the system says of the process.
//! * [`pusher`] publishes, [`console`] is for people; [`body`] reads what they are sent.
//! * [`webhook`] tells the business backend what happens, with or without a listener.

pub mod body;
pub mod console;
pub mod exposition;
pub mod pipe;
pub mod process;
pub mod pusher;
pub mod serving;
pub mod snapshot;
pub mod webhook;

use crate::config::{Access, Live};
use crate::metrics::HttpCounters;
use crate::protocol::auth::KeyRing;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use body::Rest;
use console::door::{Door, Tries};
use pipe::{Pipe, Unavailable};
use process::Process;
use pusher::Judge;
use snapshot::{Numbers, Snapshot};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, watch};

/// How far the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The shards do not turn yet.
    Starting,
    /// It serves.
    Serving,
    /// It accepts nobody any more and closes its connections over a time; publishers and monitoring are served as ever.
    Draining,
    /// It closes its connections; new work is to go elsewhere.
    Stopping,
    /// The shards are gone.
    Ended,
}

/// Opens an admin session with a shard and gives its other end.
pub type Sessions = Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// What the thread is built from.
pub struct Parts {
    /// Bound and listening; `None`: HTTP is not spoken.
    pub listener: Option<TcpListener>,
    /// The way to the shards.
    pub sessions: Sessions,
    /// The app ID in the paths of publishing.
    pub app_id: String,
    /// Where WebSocket clients connect.
    pub listen: SocketAddr,
    /// What a reload exchanges.
    pub live: Arc<Live>,
}

/// The running thread.
pub struct Control {
    remote: Remote,
    thread: JoinHandle<()>,
}

/// Tells the thread what the rest of the server does.
#[derive(Clone)]
pub struct Remote {
    phase: watch::Sender<Phase>,
    held: Arc<Mutex<Arc<Held>>>,
    /// Only this machine can reach the listener.
    is_local: bool,
    webhooks: watch::Sender<webhook::Settings>,
}

/// What requests go by that a reload exchanges.
pub struct Held {
    keys: KeyRing,
    door: Door,
    access: Access,
    is_tls: bool,
}

/// What all requests share.
pub struct Face {
    pipe: Pipe,
    phase: watch::Receiver<Phase>,
    snapshot: Snapshot,
    counters: Mutex<HttpCounters>,
    webhooks: webhook::Tally,
    app_id: String,
    listen: SocketAddr,
    held: Arc<Mutex<Arc<Held>>>,
    judge: Mutex<Judge>,
    /// Who had a wrong key for the console.
    tries: Mutex<Tries>,
    /// Walks through the shards' tables on behalf of a listing.
    walks: Semaphore,
    /// Listings of all channels that are not yet sent.
    listings: Arc<Semaphore>,
    started: SystemTime,
    begun: Instant,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no poller for it.
    pub fn start(parts: Parts) -> io::Result<Control> {
        let Parts { listener, sessions, app_id, listen, live } = parts;
        let (sender, phase) = watch::channel(Phase::Starting);
        let (webhooks, webhook_settings) = watch::channel(webhook::Settings::of(&live));
        // Names are looked up on threads of the runtime. It panics if it has none and cannot start one, so it keeps its first.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().enable_time().thread_keep_alive(Duration::MAX).build()?;
        drop(thread::Builder::new().spawn(|| ())?.join());
        drop(runtime.spawn_blocking(|| ()));
        // Nobody reaches one that is not there.
        let is_local = match &listener {
            Some(listener) => listener.local_addr()?.ip().is_loopback(),
            None => true,
        };
        let held = Arc::new(Mutex::new(Arc::new(Held::of(&live, is_local))));
        let remote = Remote { phase: sender, held: held.clone(), is_local, webhooks };
        let http = match listener {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                Some((listener, sessions()?))
            }
            None => None,
        };
        let run = move || {
            runtime.block_on(async {
                let tally = webhook::Tally::default();
                let telling = tokio::spawn(webhook::run(sessions, webhook_settings, phase.clone(), tally.clone()));
                let face = |pipe| Face {
                    pipe,
                    phase: phase.clone(),
                    snapshot: Snapshot::default(),
                    counters: Mutex::default(),
                    webhooks: tally,
                    app_id,
                    listen,
                    held,
                    judge: Mutex::default(),
                    tries: Mutex::default(),
                    walks: Semaphore::new(1),
                    listings: Arc::new(Semaphore::new(walk::LISTINGS_MAX)),
                    started: SystemTime::now(),
                    begun: Instant::now(),
                };
                if let Some((listener, pipe)) = http
                    && let Err(error) = speak(listener, pipe, face, phase.clone()).await
                {
                    tracing::error!(%error, "the HTTP listener does not work");
                }
                // A panic has ended the process.
                let _ = telling.await;
            });
            // A look-up of a name that hangs does not hold up the end.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("http".into()).spawn(run)?;
        Ok(Control { remote, thread })
    }

    /// The way to tell it things.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// The shards are gone: ends what is under way, and the thread.
    pub fn end(self) {
        self.remote.enter(Phase::Ended);
        if self.thread.join().is_err() {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

impl Remote {
    /// The server is there now. Nothing goes back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let is_later = phase > *now;
            *now = phase.max(*now);
            is_later
        });
    }
}

impl Remote {
    /// Other settings, from the next request on.
    pub fn apply(&self, live: &Live) {
        let held = Arc::new(Held::of(live, self.is_local));
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.webhooks.send_replace(webhook::Settings::of(live));
    }

    /// Why there is no console; `None`: there is one.
    pub fn console_closed(&self) -> Option<&'static str> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).door.closed()
    }
}

impl Held {
    fn of(live: &Live, is_local: bool) -> Held {
        Held {
            keys: KeyRing::new(&live.keys),
            door: Door::new(&live.console, is_local),
            access: live.access.clone(),
            is_tls: live.certificate.is_some(),
        }
    }
}

/// Serves HTTP until the end.
async fn speak(
    listener: TcpListener,
    pipe: UnixStream,
    face: impl FnOnce(Pipe) -> Face,
    phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let face = Arc::new(face(Pipe::open(pipe)?));
    serving::serve(listener, face.clone(), router(face), phase).await;
    Ok(())
}

impl Face {
    /// The way to the shards. Once they stop they read no publisher: better to say so at once than to let somebody wait.
    fn shards(&self) -> Result<&Pipe, Unavailable> {
        if *self.phase.borrow() < Phase::Stopping { Ok(&self.pipe) } else { Err(Unavailable::Closed) }
    }

    async fn numbers(&self) -> Result<Arc<Numbers>, Unavailable> {
        self.snapshot.numbers(self.shards()?).await
    }

    /// The settings as they are now.
    fn held(&self) -> Arc<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts something.
    pub fn count(&self, count: impl FnOnce(&mut HttpCounters)) {
        count(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn router(face: Arc<Face>) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/apps/{app_id}/events", post(pusher::events))
        .route("/apps/{app_id}/batch_events", post(pusher::batch_events))
        .route("/apps/{app_id}/channels", get(pusher::channels))
        .route("/apps/{app_id}/channels/{name}", get(pusher::channel))
        .route("/apps/{app_id}/channels/{name}/users", get(pusher::users))
        .merge(console::routes(&face))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(face.clone(), within_limits))
        .with_state(face)
}

/// Every request: counted, and answered in time.
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
    // That ends the connection, which whoever keeps theirs has to know before the next request breaks.
    if rest.is_unread() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The process is there and this thread turns.
async fn live() -> Response {
    ([(CACHE_CONTROL, "no-store")], "live\n").into_response()
}

/// New connections may be sent here: every shard answers, and none is being emptied.
async fn ready(State(face): State<Arc<Face>>) -> Response {
    let phase = *face.phase.borrow();
    match phase {
        Phase::Starting => return unavailable("starting\n"),
        Phase::Serving => {}
        Phase::Draining => return unavailable("draining\n"),
        Phase::Stopping | Phase::Ended => return unavailable("stopping\n"),
    }
    match face.numbers().await {
        Ok(_) => ([(CACHE_CONTROL, "no-store")], "ready\n").into_response(),
        Err(error) => error.into_response(),
    }
}

/// For Prometheus.
async fn metrics(State(face): State<Arc<Face>>) -> Response {
    match face.numbers().await {
        Ok(numbers) => {
            let http = face.counters.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let text = exposition::text(&numbers, &http, &face.webhooks.now(), &Process::now(face.started));
            ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn unknown() -> Response {
    (StatusCode::NOT_FOUND, "there is /live, /ready, /metrics, /console and /apps/ID/events, batch_events, channels\n")
        .into_response()
}

fn unavailable(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], text).into_response()
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        unavailable(match self {
            Unavailable::Overloaded => "too many requests are under way\n",
            Unavailable::Closed => "the server is stopping\n",
        })
    }
}

/// `Content-Type` of answers for programs.
const JSON: &str = "application/json";

/// Listings of channels.
pub mod walk {
    /// Channels that are asked of the shards at once.
    pub const PAGE: usize = crate::api::operation::PAGE_MAX;
    /// Channels in one answer.
    pub const CHANNELS_MAX: usize = 100_000;
    /// Such answers that wait for their walk, or for whoever asked to read them.
    pub const LISTINGS_MAX: usize = 8;
}

/// From a request's head to its answer, the body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Descriptors beside those of connections and webhooks: runtime's poller and waker, signal pair, listener, both ends of the
/// pair, and a connection that is being refused.
pub const DESCRIPTORS_SPARE: u64 = 10;
