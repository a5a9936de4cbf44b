//! The native dialect: what a client may send ([`command`]), what it is sent ([`event`]), and the fast path for
//! [heartbeats](heartbeat).

pub mod command;
pub mod event;
pub mod heartbeat;
