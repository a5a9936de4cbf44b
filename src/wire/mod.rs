//! Bytes ↔ frames. Pure: no sockets, no clock.
mod decoder;
pub mod frame;
pub mod upgrade;
