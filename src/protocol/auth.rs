//! Signatures of private channels.

use crate::config::Key;
use crate::protocol::socket_id::SocketId;

/// Which part of a signature failed; for the operator's log, never for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Failure {
    NoKeyConfigured,
    NotString,
    NoColon,
    UnknownKey,
    NotHex,
    WrongLength,
    WrongSignature,
}

/// The live keys, each with its HMAC state already keyed.
pub struct KeyRing {}

impl KeyRing {
    /// A ring of these keys.
    pub fn new(keys: &[Key]) -> KeyRing {
        let _ = keys;
        KeyRing {}
    }
    /// Whether `auth` signs `channel` (and `channel_data`) for `socket_id`, over either spelling of it; constant time in the signature.
    pub fn verify(
        &self,
        auth: &str,
        socket_id: SocketId,
        channel: &str,
        channel_data: Option<&str>,
    ) -> Result<(), Failure> {
        let _ = (auth, socket_id, channel, channel_data);
        Err(Failure::NoKeyConfigured)
    }
}

/// `key:hex` over the string to sign; `socket_id` is signed exactly as written.
pub fn sign(key: &Key, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    let _ = (key, socket_id, channel, channel_data);
    String::new()
}
