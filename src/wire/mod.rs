//! Bytes ↔ frames. Pure: no sockets, no clock.
mod decoder;
#[cfg(test)]
mod differential;
pub mod frame;
pub mod upgrade;
