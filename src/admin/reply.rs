//! Replies of the admin socket → lines. Pure. Each function appends one line, newline included.

use crate::admin::request::Refusal;

/// `{"id":…,"ok":false,"code":"…","error":"…"}`
pub fn refused(out: &mut Vec<u8>, id: &str, refusal: &Refusal) {
    let _ = (out, id, refusal);
}
/// `{"id":…,"ok":true}`
pub fn done(out: &mut Vec<u8>, id: &str) {
    let _ = (out, id);
}
/// `{"id":…,"ok":true,"subscribers":N}`
pub fn published(out: &mut Vec<u8>, id: &str, subscribers: u64) {
    let _ = (out, id, subscribers);
}
