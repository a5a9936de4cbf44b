//! Converts between frames and their meaning. Pure. The only folder that knows JSON and event names.
//!
//! [`command`] is what a client may ask for, [`event`] what it is told, and [`error_code`] why a request is refused.
//! [`native`] and [`pusher`] read and write these in the words of a dialect, which [`dialect`] chooses.

pub mod auth;
pub mod channel;
pub mod client_event;
pub mod close;
pub mod command;
pub mod dialect;
pub mod error_code;
pub mod event;
pub mod json;
pub mod native;
pub mod position;
pub mod pusher;
pub mod socket_id;
pub mod user;
