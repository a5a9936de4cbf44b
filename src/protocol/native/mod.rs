//! The native dialect: `socket:` events.

pub mod command;
