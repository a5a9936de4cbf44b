//! The local admin socket: requests and replies.
pub mod client;
pub mod reply;
pub mod request;
