//! corecast: a WebSocket publish/subscribe server. One process, N shards; a shard is one pinned core with one thread, one
//! event loop, and everything that loop needs. Shards share nothing that they write; they talk by mail.
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
//!  │ axum ─► lines ─► an admin session of shard 0      │◄── monitoring, orchestrators, backends elsewhere
//!  │ webhooks ◄─ events ◄─ another, if there are any   │──► URLs of the backend
//!  └───────────────────────────────────────────────────┘
//! ```
//!
//! The HTTP thread ([`control`]) is no shard and no member of the mesh. It is an admin client whose socket never left the
//! process: one end of a pair is served by shard 0's admin sessions, with their window, their replies in order and their
//! place in the turn. A mailbox of its own would have to be given all of that again, and shards would have to know of HTTP.
//!
//! # One turn of a shard
//!
//! ```text
//! timeout = 0 if work was left over, else until the wheel's next entry
//! poll
//!   listener → accept (budget)        socket → read once → frames → hub        doorbell → noted
//! orders    → what the supervisor wants: other settings, the end
//! inbox     → open mail (budget) → hub
//! admins    → lines (budget: bytes) → hub
//! wheel     → expire (budget): ping, or close
//! leaving   → who is to leave by now (budget): close
//! lay       → every channel touched: each subscriber gets its part of the turn's page
//! ring      → each shard that was mailed: at most one eventfd write
//! answer    → every publisher that was served: its replies in one write
//! flush     → every connection with something new: one write or writev (budget)
//! newcomers → upgrades, TLS handshakes and what is said in the first second, a few a turn (budget): who is there comes first
//! reap      → connections that ended: slot freed
//! report    → to the journal what happened, where somebody reads it
//! ```
//!
//! Read, decide, then write once: the write system call is what delivery costs. Everything published in a turn reaches a
//! subscriber in one write, and for all who are up to date it is the same bytes ([`hub::pages`]). When the loop is busy,
//! more waits per turn and each write carries more: batching needs no timer. Whatever a budget leaves over is done in the
//! next turn, which then polls without sleeping; replies and small channels do not wait for bulk, nor anybody for a crowd
//! that comes back ([`shard::output::write_queue`]), and while bulk of earlier turns is unwritten beyond a bound, publishers and
//! peers wait, so that a flood is felt by who causes it.
//!
//! # Who owns what
//!
//! * A connection belongs to the shard that accepted it, for life.
//! * A channel is owned by one shard, by the hash of its name. The owner is its sequencer: every publish goes there, gets
//!   its place, and is mailed once to each shard that has subscribers. Every subscribe and unsubscribe is counted there
//!   too, and acknowledged in the same first-in-first-out mail as the messages, so `socket:subscribed` is a promise.
//! * An address is owned by one shard, by its hash, which counts its connections for the whole server ([`hub::addresses`]).
//! * The journal of what happens to connections and channels is shard 0's ([`hub::journal`]); the others report to it once
//!   somebody has asked for it.
//! * A message is encoded once, header and all, by the shard that the publisher talks to: its bytes have to be copied there
//!   in any case, and the owner adds nothing to them. What crosses cores is a reference.
//!
//! # Invariants
//!
//! 1. Per channel, one order for all subscribers; between `subscribed` and `unsubscribed`, no gap and no duplicate.
//! 2. Exactly one reply per request, in request order per connection.
//! 3. No lock and no shared mutable state between shards, beyond mailboxes, doorbells and two counts of connections; TLS
//!    handshakes read the key of session tickets, which rustls changes every six hours.
//! 4. After warm-up, no allocation per delivery; no per-connection buffer while a connection is idle.
//! 5. Everything that can grow has a limit, a counter and a defined behaviour at the limit.
//! 6. Nothing that came from a socket can panic the process. No `unsafe`.
//! 7. [`hub`], [`protocol`], [`wire`] are pure, so whole clusters of shards run inside one test, on one thread, under a
//!    seeded scheduler; invariants 1 and 2 are checked on thousands of such runs (`src/hub/simulation`). Shards are turned by
//!    hand around them, with real sockets, so that 5 and 6 are too (`src/shard/trial`).
//!
//! # Layers
//!
//! A module uses only what stands below it, which `tests/it/layering.rs` checks:
//! `main → server → {shard, control} → admin → hub → protocol → wire → {config, metrics}`.

pub mod admin;
pub mod api;
pub mod config;
pub mod control;
pub mod hub;
pub mod ids;
pub mod metrics;
pub mod protocol;
pub mod server;
pub mod shard;
pub mod wire;
