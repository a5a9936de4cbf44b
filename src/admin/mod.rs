//! Admin sessions: requests in, replies out in request order (PROTOCOL.md, The admin socket).
//!
//! * [`session`] is the core: the window, the order of replies, and the count of a publish's settled parts. Typed and pure.
//! * [`lines`] is the codec of the admin socket: one JSON object per line.
//! * [`link`] is the codec for threads of this process: typed values over a channel.
//! * [`client`] is the client of the socket, for the command line.

pub mod client;
pub mod lines;
pub mod link;
pub mod session;
