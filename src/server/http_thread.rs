//! The HTTP thread, which serves HTTP and sends webhooks: an ordinary thread, unpinned, that holds sessions with the shards.

use crate::admin::link::Opener;
use crate::api::{Phase, Refusal, Reply};
use crate::config::Live;
use crate::http::console::tokens::{Rights, Tokens};
use crate::http::{self, Held, console, shards::Shards};
use crate::hub::placement::Placement;
use crate::webhook;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What the thread is built from.
pub struct Parts {
    /// Bound and listening; `None`: HTTP is not served.
    pub listener: Option<TcpListener>,
    /// Opens sessions with the shards.
    pub opener: Opener,
    /// Which shard owns which channel.
    pub placement: Placement,
    /// The app ID in the paths of publishing.
    pub app_id: String,
    /// Where WebSocket clients connect.
    pub listen: SocketAddr,
    /// What a reload exchanges.
    pub live: Arc<Live>,
    /// The random seed of the process.
    pub seed: [u64; 4],
}

/// The running thread.
pub struct HttpThread {
    remote: Remote,
    thread: JoinHandle<()>,
}

/// Tells the thread about phases and settings of the server.
#[derive(Clone)]
pub struct Remote {
    phase: watch::Sender<Phase>,
    held: Arc<Mutex<Arc<Held>>>,
    /// The address of the listener; `None`: HTTP is not served.
    address: Option<SocketAddr>,
    tokens: Arc<Mutex<Tokens>>,
    webhooks: watch::Sender<webhook::Settings>,
}

impl HttpThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no poller for it.
    pub fn start(parts: Parts) -> io::Result<HttpThread> {
        let Parts { listener, opener, placement, app_id, listen, live, seed } = parts;
        let (sender, phase) = watch::channel(Phase::Starting);
        let (webhooks, webhook_settings) = watch::channel(webhook::Settings::of(&live));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().enable_time().thread_keep_alive(Duration::MAX).build()?;
        // Names are looked up on threads of the runtime. The runtime panics if it has none and cannot start one, so it keeps
        // its first.
        drop(thread::Builder::new().spawn(|| ())?.join());
        drop(runtime.spawn_blocking(|| ()));
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let held = Arc::new(Mutex::new(Arc::new(Held::of(&live))));
        let tokens = Arc::new(Mutex::new(Tokens::new(seed)));
        let remote = Remote { phase: sender, held: held.clone(), address, tokens: tokens.clone(), webhooks };
        let run = move || {
            runtime.block_on(async {
                let tally = webhook::Tally::default();
                let sending =
                    tokio::spawn(webhook::run(opener.clone(), webhook_settings, phase.clone(), tally.clone()));
                if let Some(listener) = listener {
                    let webhooks = Box::new(move || tally.now());
                    let served = async {
                        let shards = Shards::open(&opener, placement)?;
                        let parts = http::Parts { listener, shards, app_id, listen, webhooks, held, tokens };
                        http::serve(parts, phase).await
                    };
                    if let Err(error) = served.await {
                        tracing::error!(%error, "the HTTP listener does not work");
                    }
                }
                // A panic in it ends the process.
                let _ = sending.await;
            });
            // A DNS look-up that hangs does not delay the end.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("http".into()).spawn(run)?;
        Ok(HttpThread { remote, thread })
    }

    /// A handle that tells the thread about phases and settings.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// The shards have ended: ends the requests in progress, and the thread.
    pub fn end(self) {
        self.remote.enter(Phase::Ended);
        if self.thread.join().is_err() {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

impl Remote {
    /// The server has reached this phase. Phases only go forward.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let is_later = phase > *now;
            *now = phase.max(*now);
            is_later
        });
    }

    /// Applies other settings, from the next request on.
    pub fn apply(&self, live: &Live) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(Held::of(live));
        if self.console().is_err() {
            self.tokens().end_all();
        }
        self.webhooks.send_replace(webhook::Settings::of(live));
    }

    /// The URL of the console, or why there is none.
    pub fn console(&self) -> Result<String, &'static str> {
        let address = self.address.ok_or("the console needs HTTP, which is off: --http ADDR:PORT starts it")?;
        match self.held.lock().unwrap_or_else(PoisonError::into_inner).console_closed() {
            Some(why) => Err(why),
            None => Ok(console::url(address)),
        }
    }

    /// The reply to `console_token`.
    pub fn console_token(&self, read_only: bool) -> Result<Reply, Refusal> {
        let url = self.console().map_err(Refusal::NotFound)?;
        let rights = if read_only { Rights::Read } else { Rights::All };
        tracing::info!(?rights, "a link to the console is made");
        Ok(Reply::ConsoleToken { token: self.tokens().link(rights, Instant::now()), url })
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Descriptors of the thread beside those of connections and webhooks: the runtime's poller and waker, a signal pair, the
/// listener, and a connection that is being refused.
pub const DESCRIPTORS_SPARE: u64 = 8;
