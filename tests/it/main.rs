//! Black-box tests: the real binary, real sockets, an independent client (tungstenite). One binary, a module per property.

mod admin;
mod auth;
mod founding_document;
mod harness;
mod layering;
mod limits;
mod life;
mod order;
mod protocol;
