//! Bytes ↔ frames. Pure: no sockets, no clock.
pub mod frame;
pub mod upgrade;
