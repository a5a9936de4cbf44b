//! The properties that the fuzz targets check of each parser of untrusted bytes, beyond not panicking. Also a module of
//! `tests/fuzz.rs`, which runs the same checks on stable.

pub mod admin_line;
pub mod decode;
pub mod frame;
pub mod json;
pub mod proxy_header;
pub mod pusher_command;
pub mod upgrade;
pub mod user;
pub mod values;
