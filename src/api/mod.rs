//! Every operation, declared once: its name, help line, members with types and limits, and reply. Plain data.
//!
//! * [`operation`] declares the operations, says which shard answers each, and declares the replies.
//! * [`member`] reads and writes the members of a request, for every entry point.
//! * [`refusal`] has the reasons for refusing a request.
//! * [`history`] has the positions and messages of a channel's history.
//! * [`phase`] is the server's life cycle; [`publish`] is the only operation whose request borrows from the input.
//! * [`declare`] has the macros, [`value`] the values of members and replies.
//!
//! The admin socket, the command line, HTTP and letters between shards use these types. JSON exists only at the entry
//! points: [`admin::lines`](crate::admin::lines) reads and writes it.
//!
//! A new operation is declared in [`operation`], answered where its state lives, and given a place on the command line.

pub mod declare;
pub mod history;
pub mod member;
pub mod operation;
pub mod phase;
pub mod publish;
pub mod refusal;
pub mod value;

pub use operation::{Command, ConnectionInfo, Reply, Request, Route, Rows};
pub use phase::Phase;
pub use publish::{Publish, Published};
pub use refusal::Refusal;
pub use value::{By, Operation, Share};
