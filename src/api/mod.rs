//! Every operation, declared once: its name, its help line, its members with their types and limits, its reply. Plain data.
//!
//! * [`operation`] declares the operations, says which shard answers each, and declares the replies.
//! * [`member`] reads the members of a request, whatever entry point they came by, and writes them.
//! * [`refusal`] says why there is no reply.
//! * [`phase`] is how far the server is; [`publish`] is the one operation whose request borrows from what was read.
//! * [`declare`] has the macros, [`value`] the values of members and replies.
//!
//! The admin socket, the command line, HTTP and letters between shards use these types. JSON exists only at the entry
//! points: [`admin::lines`](crate::admin::lines) reads and writes it.
//!
//! A new operation is declared in [`operation`], answered where its state lives, and given a place on the command line.

pub mod declare;
pub mod member;
pub mod operation;
pub mod phase;
pub mod publish;
pub mod refusal;
pub mod value;

pub use operation::{Command, ConnectionInfo, Reply, Request, Route, Rows};
pub use phase::Phase;
pub use publish::Publish;
pub use refusal::Refusal;
pub use value::{By, Operation, Share};
