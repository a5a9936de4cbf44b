//! Pusher's dialect, frame by frame: what its clients send, and what they are sent.

mod cache;
mod client;
mod client_events;
mod closing;
mod delivery;
mod handshake;
mod libraries;
mod mixed;
mod presence;
mod requests;
mod subscriptions;
mod texts;
mod users;
