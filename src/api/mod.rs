//! Every operation, declared once: its name, its help line, its members with their types and limits, its reply. Plain data.
//!
//! * [`request`] declares the operations, and says which shard answers each.
//! * [`member`] reads the members of a request, whatever entry point they came by, and writes them.
//! * [`reply`] declares the replies, [`refusal`] why there is none.
//! * [`publish`] is the one operation whose request borrows from what was read.
//!
//! The admin socket, the command line, HTTP and letters between shards use these types. JSON exists only at the entry
//! points: [`admin::lines`](crate::admin::lines) reads and writes it.
//!
//! A new operation is declared in [`request`], answered where its state lives, and given a place on the command line.

pub mod member;
pub mod publish;
pub mod refusal;
pub mod reply;
pub mod request;

pub use publish::{Command, Publish};
pub use refusal::Refusal;
pub use reply::{ConnectionInfo, Reply, Rows};
pub use request::{By, Operation, Request, Route, Share};
