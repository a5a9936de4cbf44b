//! Black-box tests: the real binary, real sockets, an independent client (tungstenite). One binary, a module per property.

mod abuse;
mod admin;
mod auth;
mod backpressure;
mod command_line;
mod console;
mod documentation;
mod drain;
mod echo;
mod events;
mod founding_document;
mod harness;
mod hostile;
mod http;
mod layering;
mod life;
mod limits;
mod order;
mod protocol;
mod reload;
mod tail;
mod tls;
mod top;
mod transport;
mod values;
mod webhooks;
