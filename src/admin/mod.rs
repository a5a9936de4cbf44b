//! Admin sessions: requests in, replies out in request order (PROTOCOL.md, The admin socket).
//!
//! * [`session`] is the core: the window, the order of replies, the parts that settle a publish. Typed and pure.
//! * [`lines`] is the codec of the admin socket: a JSON object a line.
//! * [`link`] is the codec of threads of this process: typed values over a channel.
//! * [`client`] is the other end of the socket, for the command line.

pub mod client;
pub mod lines;
pub mod link;
pub mod session;
