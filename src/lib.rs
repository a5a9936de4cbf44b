//! corecast: a WebSocket publish/subscribe server. One process, N shards. A shard is one thread on a core of its own, with one
//! event loop and everything that the loop needs. Shards share no data that they write; they exchange mail.
//!
//! ```text
//!   browsers, phones            the business backend             SIGTERM, SIGHUP
//!          │ WebSocket                 │ admin socket (NDJSON)         │
//!          ▼                           ▼                               ▼
//!  ┌─ shard 0 ─ core 0 ────────────────────────────────┐          ┌─ supervisor ┐
//!  │ listener ─► connections (slab) ─► frames ─► hub   │◄─ orders ┤ reads files │
//!  │ admin listener ─► sessions ─► requests ──► │  ▲   ├─ calls ─►│ for all     │
//!  │ timer wheel ─► heartbeats       outboxes ◄─┘  │   │          └─────────────┘
//!  └───────────────────────────────────────────────┼───┘
//!                                   mail: bounded inbox, backlog, doorbell
//!  ┌─ shard 1 ─ core 1 ────────────────────────────┼───┐
//!  │ the same, with its own listener (SO_REUSEPORT)    │
//!  └───────────────────────────────────────────────────┘
//!  ┌─ HTTP ─ any core ─────────────────────────────────┐
//!  │ axum ─► typed requests ─► a session of each shard │◄── monitoring, orchestrators, backends elsewhere
//!  │ webhooks ◄─ events ◄─ another session of shard 0  │──► URLs of the backend
//!  └───────────────────────────────────────────────────┘
//! ```
//!
//! The HTTP thread ([`http`] and [`webhook`]) is not a shard. It is an admin client inside the process: each shard serves it a
//! session as it serves the sessions of the admin socket, with a window, ordered replies and a place in the turn, but with Rust
//! values over a channel instead of JSON over a socket. A publish goes to the shard that owns the channel.
//!
//! # One turn of a shard
//!
//! ```text
//! timeout = 0 if work was left over, else until the next entry of the timer wheel
//! poll
//!   listener → accept (budget)        socket → read once → frames → hub        doorbell → look into the inbox
//! orders    → from the supervisor: new settings, drain, stop
//! inbox     → letters (budget) → hub
//! admins    → lines (budget: bytes) → hub
//! wheel     → entries that are due (budget): ping, or close
//! leaving   → close connections that are due (budget)
//! lay out   → each channel with new messages: every subscriber gets a slice of the turn's page
//! ring      → one eventfd write, at most, for each shard that was sent mail
//! answer    → the replies to each publisher, in one write
//! flush     → one write or writev for each connection with new output (budget)
//! newcomers → upgrades, TLS handshakes and first messages (budget): established connections have priority
//! reap      → free the slots of connections that ended
//! report    → lifecycle events to the journal, if it has readers
//! ```
//!
//! Read, decide, then write once: the cost of a delivery is its write system call. All messages of a turn reach a subscriber in one
//! write, and the bytes are shared by all subscribers that are up to date ([`hub::audience::pages`]). A busy loop has more messages in each
//! turn, so each write carries more; batching needs no timer. Work beyond a budget is done in the next turn, which polls without
//! sleeping. Replies and small channels do not wait for bulk output, and established connections do not wait for clients that
//! reconnect ([`shard::output::write_queue`]). While too much output of earlier turns is unwritten, publishers and peers wait:
//! backpressure reaches the publisher.
//!
//! # Who owns what
//!
//! * A connection belongs to the shard that accepted it, for life.
//! * A channel is owned by one shard, by the hash of its name. The owner is its sequencer: every publish goes there, gets its place,
//!   and is mailed once to each shard that has subscribers. Every subscribe and unsubscribe is counted there too, and acknowledged in
//!   the same first-in-first-out mail as the messages, so `socket:subscribed` is a promise.
//! * An address is owned by one shard, by its hash, which counts its connections for the whole server ([`hub::admission::addresses`]).
//! * The journal of lifecycle events belongs to shard 0 ([`hub::observe::journal`]). The other shards report to it while it has readers.
//! * A message is encoded after its owner has sequenced it, once on each shard that has subscribers. A letter to another shard
//!   carries a reference to the message.
//!
//! # Invariants
//!
//! 1. Per channel, one order for all subscribers; between `subscribed` and `unsubscribed`, no gap and no duplicate.
//! 2. Exactly one reply for each request, in the order of the requests of a connection.
//! 3. No lock and no shared mutable state between shards, except mailboxes, doorbells and two counts of connections; TLS handshakes
//!    read the key of session tickets, which rustls changes every six hours.
//! 4. After warm-up, no allocation per delivery; no buffer for an idle connection.
//! 5. Everything that can grow has a limit, a counter and a defined behaviour at the limit.
//! 6. Input from a socket cannot panic the process. No `unsafe`.
//! 7. [`hub`], [`protocol`] and [`wire`] are pure, so a test runs whole clusters of shards on one thread, under a seeded scheduler;
//!    thousands of such runs check invariants 1 and 2 (`src/hub/simulation`). Shards with real sockets, turned by a test, check 5
//!    and 6 (`src/shard/trial`).
//!
//! # Layers
//!
//! A module uses only modules below it, which `tests/it/layering.rs` checks:
//! `main → server → {http, webhook, shard} → admin → hub → api → protocol → wire → {config, metrics}`.

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
