//! corecast: a WebSocket publish/subscribe server. One process, N shards. A shard is one thread on a core of its own, with one
//! event loop and everything that the loop needs. Shards share no data that they write; they exchange letters.
//!
//! ```text
//!   browsers, phones            the business backend             SIGTERM, SIGHUP
//!          │ WebSocket                 │ admin socket (NDJSON)         │
//!          ▼                           ▼                               ▼
//!  ┌─ shard 0 ─ core 0 ────────────────────────────────┐          ┌─ supervisor ┐
//!  │ listener ─► connections ─► frames ──────► hub     │◄─ orders ┤ reads files │
//!  │ admin listener ─► sessions ─► requests ─►  ▲ │    │─ calls ─►│ for all     │
//!  │ timer wheel ─► heartbeats     outboxes ◄───┼─┘    │          └─────────────┘
//!  └────────────────────────────────────────────┼──────┘
//!   letters: inbox (bounded), backlog, doorbell │
//!  ┌─ shard 1 ─ core 1 ─────────────────────────┼──────┐
//!  │ the same, with its own listener (SO_REUSEPORT)    │
//!  └───────────────────────────────────────────────────┘
//!  ┌─ HTTP ─ any core ─────────────────────────────────┐
//!  │ axum ─► typed requests ─► a session of each shard │◄── monitoring, orchestrators, backends elsewhere
//!  │ webhooks ◄─ events ◄─ another session of shard 0  │──► URLs of the backend
//!  └───────────────────────────────────────────────────┘
//! ```
//!
//! The HTTP thread ([`http`] and [`webhook`]) is not a shard. It is an admin client inside the process. Each shard serves it a
//! session like those of the admin socket: with a window, ordered replies and a place in the turn. Requests and replies are
//! Rust values over a channel instead of JSON over a socket. A publish goes to the shard that owns the channel.
//!
//! # One turn of a shard
//!
//! ```text
//! timeout = 0 if work is left over, else until the next entry of the timer wheel
//! poll
//!   client socket → read once → frames → hub        doorbell → look into the inbox
//! accept     → new connections (budget)
//! orders     → from the supervisor: new settings, drain, stop
//! inbox      → letters of other shards (budget) → hub
//! verdicts   → new connections that the owners of their addresses have admitted or refused
//! survey     → a part of the search for the busiest channels (budget)
//! admins     → requests of admin sessions (budget: bytes) → hub
//! backlog    → offer the letters again that a full inbox refused
//! wheel      → entries that are due (budget): ping, or close
//! leaving    → close connections that a drain has scheduled (budget)
//! departures → remove subscriptions of connections that have ended (budget)
//! fan out    → each audience with new messages: every subscriber is sent a part of the turn's page
//! ring       → at most one eventfd write for each shard that was sent letters
//! answer     → the replies to each admin session, in one write
//! flush      → one write or writev for each connection with new output (budget)
//! newcomers  → upgrades, TLS handshakes and first messages (budget): established connections have priority
//! reap       → free the slots of connections that have ended
//! report     → lifecycle events to the journal and sightings to live taps, if there are any
//! ```
//!
//! Read, decide, then write once: the cost of a delivery is its write system call. All messages of a turn reach a subscriber
//! in one write, and all subscribers without pending output share the bytes ([`hub::audience::pages`]). A busy loop has more
//! messages in each turn, so each write carries more; batching needs no timer. Work beyond a budget is done in the next turn,
//! which polls without sleeping. Replies and small channels do not wait for bulk output, and established connections do not
//! wait for clients that reconnect ([`shard::output::write_queue`]). While too much output of earlier turns is unwritten,
//! publishers and peers wait: backpressure reaches the publisher.
//!
//! # Who owns what
//!
//! * A connection belongs to the shard that accepted it, for life.
//! * A channel is owned by one shard, by the hash of its name ([`hub::channel`]). The owner is its sequencer: every publish goes
//!   there, is sequenced, and is sent once to each shard that has subscribers. Subscribes and unsubscribes are counted there too.
//!   They are acknowledged by letters in the same first-in-first-out order as the messages. So no message after
//!   `socket:subscribed` is missed.
//! * A letter carries the message, not bytes to send: one immutable allocation, shared by all letters of a publish
//!   ([`hub::message`]). A publish that stays on its shard allocates nothing.
//! * An audience is the subscribers of one channel on one shard that receive identical bytes. The shard that delivers encodes a
//!   message once per audience ([`hub::audience`]).
//! * A slow reader's output waits in its outbox ([`shard::output`]); on channels that conflate, the newest messages are held
//!   back until it is empty ([`hub::audience::conflation`]). Messages wait per subscriber nowhere else.
//! * An address is owned by one shard, by its hash, which counts its connections for the whole server ([`hub::admission`]).
//! * The journal of lifecycle events belongs to shard 0 ([`hub::observe::journal`]). The other shards report to it once it has
//!   had a consumer.
//!
//! # Invariants
//!
//! 1. Per channel, one order for all subscribers; between `subscribed` and `unsubscribed`, no gap and no duplicate.
//! 2. Exactly one reply for each request, in the order of the connection's requests, also if the connection ends right after
//!    its requests.
//! 3. No lock and no shared mutable state between shards, except inboxes, doorbells, two counts of connections, and the
//!    times of the last log lines about clients that cannot be served. TLS handshakes read the key of session tickets, which
//!    rustls changes every six hours.
//! 4. After warm-up, no allocation per delivery; no buffer for an idle connection.
//! 5. Everything that can grow has a limit, a counter and a defined behaviour at the limit. Arrivals and departures have a
//!    budget in each turn.
//! 6. Input from a socket cannot panic the process. No `unsafe`.
//! 7. [`hub`], [`protocol`] and [`wire`] are pure. So a test can run whole clusters of shards on one thread, under a seeded
//!    scheduler. Thousands of such runs check invariants 1 and 2 (`src/hub/simulation`). Shards with real sockets, turned by a
//!    test, check 5 and 6 (`src/shard/trial`).
//! 8. All entry points accept the same values, which reach subscribers unchanged (`tests/it/values.rs`).
//!
//! # Folders
//!
//! * [`shard`]: the event loop, and the only folder that touches clients' sockets. `connection/` holds the state of a
//!   connection, `output/` outboxes and the order of writes, `heartbeats/` the timers, `drain/` the closing of connections
//!   over a period of time.
//! * [`http`]: health, metrics, the REST API, the console. [`webhook`]: POST of lifecycle events to URLs of the backend.
//! * [`admin`]: the core of an admin session (window, order of replies), its JSON lines, and the client of the command line.
//! * [`hub`]: publish/subscribe without input and output. `channel/` is the owner's part, `audience/` the deliverer's.
//!   `observe/` holds the journal, live taps and surveys; `admission/` the limits per address.
//! * [`api`]: every operation, declared once: request, limits, reply, help line.
//! * [`protocol`]: commands, events, channel names, signatures and close codes. `native/` and `pusher/` are its dialects, of
//!   which [`protocol::dialect`] chooses one. [`wire`]: frames, upgrades, PROXY headers.
//! * [`ids`], [`config`] and [`metrics`] are used by all of them; [`server`] assembles the process.
//!
//! # Layers
//!
//! A module uses only modules below it, which `tests/it/layering.rs` checks:
//! `main → server → {http, webhook, shard} → admin → hub → api → protocol → wire → {config, metrics, ids}`.

pub mod admin;
pub mod api;
pub mod config;
pub mod http;
pub mod hub;
pub mod ids;
pub mod metrics;
pub mod protocol;
pub mod server;
pub mod shard;
pub mod webhook;
pub mod wire;
