//! Converts between frames and their meaning. Pure. The only folder that knows JSON and event names.
pub mod auth;
pub mod channel;
pub mod client_event;
pub mod close;
pub mod command;
pub mod dialect;
pub mod event;
pub mod heartbeat;
pub mod json;
pub mod native;
pub mod pusher;
pub mod socket_id;
pub mod user;
