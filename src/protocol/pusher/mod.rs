//! The dialect of Pusher's clients, protocols 4 to 7: what a client may send ([`command`]), what it is sent ([`event`]), and
//! the request that opens a connection ([`handshake`]). [`data`] is how a message's value is written in this dialect.

pub mod command;
pub mod data;
pub mod event;
pub mod handshake;
