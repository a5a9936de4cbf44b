//! Converts between bytes and frames. Pure: no sockets, no clock.
pub mod decoder;
#[cfg(test)]
mod differential;
pub mod forwarded;
pub mod frame;
pub mod host;
pub mod proxy;
pub mod upgrade;
