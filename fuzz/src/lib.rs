//! What the fuzz targets check: a property of each parser that bytes from outside meet, and not only that it does not panic.
//! Also a module of `tests/fuzz.rs`, which runs the same on stable.

pub mod admin_line;
pub mod decode;
pub mod frame;
pub mod json;
pub mod proxy_header;
pub mod upgrade;
