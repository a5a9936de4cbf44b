//! What the server says. Each function appends one whole, unmasked WebSocket text frame to `out`.
//! `channel` arguments are what stands between the quotes: a legal name, or the client's own spelling echoed.

use crate::protocol::socket_id::SocketId;

/// Why a request was refused; the text is for people, the code for programs (PROTOCOL.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorCode {
    AlreadySubscribed,
    NotSubscribed,
    InvalidChannel,
    AuthRequired,
    AuthInvalid,
    TooManySubscriptions { max: usize },
    MalformedMessage(&'static str),
    UnknownEvent,
    RateLimited,
}

/// `socket:connected`
pub fn connected(out: &mut Vec<u8>, socket_id: SocketId, heart_interval_s: u32, heart_timeout_s: u32) {
    let _ = (out, socket_id, heart_interval_s, heart_timeout_s);
}
/// `socket:subscribed`
pub fn subscribed(out: &mut Vec<u8>, channel: &str) {
    let _ = (out, channel);
}
/// `socket:subscribe.error`
pub fn subscribe_error(out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
    let _ = (out, channel, code);
}
/// `socket:unsubscribed`
pub fn unsubscribed(out: &mut Vec<u8>, channel: &str) {
    let _ = (out, channel);
}
/// `socket:unsubscribe.error`
pub fn unsubscribe_error(out: &mut Vec<u8>, channel: &str, code: ErrorCode) {
    let _ = (out, channel, code);
}
/// `socket:ping`
pub fn ping(out: &mut Vec<u8>) {
    let _ = out;
}
/// `socket:pong`; `reply` is raw JSON.
pub fn pong(out: &mut Vec<u8>, reply: &str) {
    let _ = (out, reply);
}
/// `socket:error`
pub fn error(out: &mut Vec<u8>, code: ErrorCode) {
    let _ = (out, code);
}
/// A business message. `event` is what stands between the quotes, as the publisher wrote it; `data` is raw JSON.
pub fn message(out: &mut Vec<u8>, channel: &str, event: &str, data: Option<&str>) {
    let _ = (out, channel, event, data);
}
/// Bytes that [`message`] appends.
pub fn message_len(channel: &str, event: &str, data: Option<&str>) -> usize {
    let _ = (channel, event, data);
    0
}
