//! Signatures of private channels, presence channels and sign-ins.

use crate::config::Key;
use crate::protocol::socket_id::SocketId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::{self, Write};

/// The part of a signature that failed. For the operator's log, never for the client.
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

/// For the operator's log.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::NoKeyConfigured => "this server has no key configured",
            Failure::NotString => "auth or channel_data is not a string",
            Failure::NoColon => "auth is not of the form key:signature",
            Failure::UnknownKey => "the key before the colon is not one of this server's",
            Failure::NotHex => "the signature is not hexadecimal",
            Failure::WrongLength => "the signature does not have 64 digits",
            Failure::WrongSignature => {
                "the signature was made with another secret, socket_id, channel, channel_data or user_data"
            }
        })
    }
}

/// The keys in use, each as an HMAC state with the key already processed.
pub struct KeyRing {
    /// Few keys, each with an id of its own: two during a rotation.
    keys: Vec<(Box<str>, Hmac<Sha256>)>,
}

impl KeyRing {
    /// A ring with these keys.
    pub fn new(keys: &[Key]) -> KeyRing {
        KeyRing { keys: keys.iter().map(|key| (key.id.as_str().into(), keyed(key))).collect() }
    }

    /// Whether the signature is valid for the socket id in either spelling. Constant time in the signature.
    pub fn verify(&self, &Attempt { socket_id, auth, parts }: &Attempt<'_>) -> Result<(), Failure> {
        // The signature contains no colon, so the last colon ends the key.
        let (id, hex) = auth.rsplit_once(':').ok_or(Failure::NoColon)?;
        let keyed = self.keyed(id)?;
        let signature = decode(hex)?;
        // A clone of the keyed state: 167 ns against 250 ns with a new key (`benches/auth.rs`).
        let mut over_uuid = keyed.clone();
        over_uuid.update(&socket_id.uuid());
        if finish(over_uuid, parts).verify_slice(&signature).is_ok() {
            return Ok(());
        }
        let mut over_dotted = Feed(keyed.clone());
        let _ = write!(over_dotted, "{}", socket_id.dotted());
        finish(over_dotted.0, parts).verify_slice(&signature).map_err(|_| Failure::WrongSignature)
    }

    fn keyed(&self, id: &str) -> Result<&Hmac<Sha256>, Failure> {
        let missing = if self.keys.is_empty() { Failure::NoKeyConfigured } else { Failure::UnknownKey };
        self.keys.iter().find(|(known, _)| **known == *id).map(|(_, keyed)| keyed).ok_or(missing)
    }

    /// Whether a key has this id.
    pub fn has_key(&self, id: &str) -> bool {
        self.keyed(id).is_ok()
    }

    /// Whether the ring has a key.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// `key:hex` as [`sign`] makes it, with the first key; `None` without a key.
    pub fn sign(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> Option<String> {
        let (id, keyed) = self.keys.first()?;
        Some(signed(id, keyed.clone(), socket_id, parts(channel, channel_data)))
    }

    /// Whether `hex` is the signature of `text` with the key `id`. Takes constant time in the signature.
    pub fn verify_text(&self, id: &str, text: &str, hex: &str) -> Result<(), Failure> {
        let mac = self.keyed(id)?.clone().chain_update(text);
        let signature = decode(hex)?;
        mac.verify_slice(&signature).map_err(|_| Failure::WrongSignature)
    }
}

/// A signature that a client has shown, and what it should sign.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    socket_id: SocketId,
    /// The signature, as it came.
    pub auth: &'a str,
    parts: Parts<'a>,
}

impl<'a> Attempt<'a> {
    /// To subscribe to a channel.
    pub fn of_channel(
        socket_id: SocketId,
        auth: &'a str,
        channel: &'a str,
        channel_data: Option<&'a str>,
    ) -> Attempt<'a> {
        Attempt { socket_id, auth, parts: parts(channel, channel_data) }
    }

    /// To sign in.
    pub fn of_user(socket_id: SocketId, auth: &'a str, user_data: &'a str) -> Attempt<'a> {
        Attempt { socket_id, auth, parts: user_parts(user_data) }
    }

    /// The string to sign, with the second spelling of the socket id.
    pub fn signed(&self) -> String {
        format!("{}{}", self.socket_id.dotted(), self.parts.concat())
    }
}

/// `key:hex` over the string to sign; `socket_id` is signed exactly as written.
pub fn sign(key: &Key, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    signed(&key.id, keyed(key), socket_id, parts(channel, channel_data))
}

/// `key:hex` over a sign-in; `socket_id` is signed exactly as written.
#[cfg(any(test, fuzzing))]
pub fn sign_user(key: &Key, socket_id: &str, user_data: &str) -> String {
    signed(&key.id, keyed(key), socket_id, user_parts(user_data))
}

fn signed(id: &str, mac: Hmac<Sha256>, socket_id: &str, parts: Parts<'_>) -> String {
    format!("{id}:{}", hex(finish(mac.chain_update(socket_id), parts)))
}

/// The signature of a whole text, in hex.
pub fn sign_text(key: &Key, text: &str) -> String {
    hex(keyed(key).chain_update(text))
}

fn hex(mac: Hmac<Sha256>) -> String {
    let mut hex = String::with_capacity(64);
    for byte in mac.finalize().into_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn keyed(key: &Key) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.secret.as_bytes()).expect("HMAC takes keys of every length (RFC 2104)")
}

/// The string to sign, without the socket_id that it begins with.
type Parts<'a> = [&'a str; 4];

/// For a channel (PROTOCOL.md, Authorization).
fn parts<'a>(channel: &'a str, channel_data: Option<&'a str>) -> Parts<'a> {
    let (colon, channel_data) = channel_data.map_or(("", ""), |channel_data| (":", channel_data));
    [":", channel, colon, channel_data]
}

/// For a sign-in (PROTOCOL.md, Users). It differs from every string for a channel that needs a signature: the name of such a
/// channel starts with its prefix.
fn user_parts(user_data: &str) -> Parts<'_> {
    ["::user::", user_data, "", ""]
}

fn finish(mut mac: Hmac<Sha256>, parts: Parts<'_>) -> Hmac<Sha256> {
    for part in parts {
        mac.update(part.as_bytes());
    }
    mac
}

/// Formats into the hash, so that the string to sign is never built in memory.
struct Feed(Hmac<Sha256>);

impl Write for Feed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Reads the signature, with digits in either case.
fn decode(hex: &str) -> Result<[u8; 32], Failure> {
    let digits: &[u8; 64] = hex.as_bytes().try_into().map_err(|_| Failure::WrongLength)?;
    let mut signature = [0; 32];
    for (byte, pair) in signature.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            *byte = *byte << 4 | char::from(digit).to_digit(16).ok_or(Failure::NotHex)? as u8;
        }
    }
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(id: &str, secret: &str) -> Key {
        Key { id: id.to_owned(), secret: secret.to_owned() }
    }

    /// Pusher's published example.
    fn pusher() -> Key {
        key("278d425bdf160c739803", "7ad3773142a6692b25b8")
    }

    const SOCKET_ID: SocketId = SocketId { high: 1234, low: 1234 };
    const PUSHER_AUTH: &str = "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";

    #[track_caller]
    fn check(keys: &[Key], auth: &str, channel: &str, channel_data: Option<&str>, expected: Result<(), Failure>) {
        assert_eq!(
            KeyRing::new(keys).verify(&Attempt::of_channel(SOCKET_ID, auth, channel, channel_data)),
            expected,
            "{auth}"
        );
    }

    #[test]
    fn pushers_example_is_signed_and_verified() {
        assert_eq!(sign(&pusher(), "1234.1234", "private-foobar", None), PUSHER_AUTH);
        check(&[pusher()], PUSHER_AUTH, "private-foobar", None, Ok(()));
        let upper = PUSHER_AUTH.to_uppercase().replace("278D425BDF160C739803", "278d425bdf160c739803");
        check(&[pusher()], &upper, "private-foobar", None, Ok(()));
    }

    #[test]
    fn pushers_example_with_channel_data_is_signed_and_verified() {
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        let auth = "278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80";
        assert_eq!(sign(&pusher(), "1234.1234", "presence-foobar", Some(data)), auth);
        check(&[pusher()], auth, "presence-foobar", Some(data), Ok(()));
    }

    #[test]
    fn the_published_sign_in_is_signed_and_verified() {
        let data = r#"{"id":"12345"}"#;
        let auth = "278d425bdf160c739803:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba";
        assert_eq!(sign_user(&pusher(), "1234.1234", data), auth);
        let ring = KeyRing::new(&[pusher()]);
        assert_eq!(ring.verify(&Attempt::of_user(SOCKET_ID, auth, data)), Ok(()));
        assert_eq!(
            ring.verify(&Attempt::of_user(SOCKET_ID, &sign_user(&pusher(), &SOCKET_ID.to_string(), data), data)),
            Ok(())
        );
        assert_eq!(ring.verify(&Attempt::of_user(SOCKET_ID, auth, r#"{"id":"12346"}"#)), Err(Failure::WrongSignature));
        assert_eq!(
            ring.verify(&Attempt::of_user(SocketId { high: 1, low: 1 }, auth, data)),
            Err(Failure::WrongSignature)
        );
        assert_eq!(ring.verify(&Attempt::of_user(SOCKET_ID, "k:00", data)), Err(Failure::UnknownKey));
        // The signatures of a channel with channel_data and of a sign-in are not interchangeable.
        for channel in ["private-a", "presence-a"] {
            assert_eq!(
                ring.verify(&Attempt::of_channel(SOCKET_ID, auth, channel, Some(data))),
                Err(Failure::WrongSignature)
            );
            let auth = sign(&pusher(), "1234.1234", channel, Some(data));
            assert_eq!(ring.verify(&Attempt::of_user(SOCKET_ID, &auth, data)), Err(Failure::WrongSignature));
        }
    }

    #[test]
    fn a_text_is_signed_and_verified() {
        let signature = sign_text(&pusher(), "a text");
        assert_eq!(KeyRing::new(&[pusher()]).verify_text("278d425bdf160c739803", "a text", &signature), Ok(()));
    }

    #[test]
    fn both_spellings_of_the_socket_id_may_be_signed() {
        for spelling in [SOCKET_ID.to_string(), SOCKET_ID.dotted().to_string()] {
            check(&[pusher()], &sign(&pusher(), &spelling, "private-a", None), "private-a", None, Ok(()));
        }
        let upper = SocketId { high: 0xABCD, low: 1 };
        let auth = sign(&pusher(), &upper.to_string().to_uppercase(), "private-a", None);
        assert_eq!(
            KeyRing::new(&[pusher()]).verify(&Attempt::of_channel(upper, &auth, "private-a", None)),
            Err(Failure::WrongSignature)
        );
    }

    #[test]
    fn an_empty_channel_data_counts_as_present() {
        let with = sign(&pusher(), "1234.1234", "private-a", Some(""));
        let without = sign(&pusher(), "1234.1234", "private-a", None);
        assert_ne!(with, without);
        check(&[pusher()], &with, "private-a", Some(""), Ok(()));
        check(&[pusher()], &with, "private-a", None, Err(Failure::WrongSignature));
        check(&[pusher()], &without, "private-a", Some(""), Err(Failure::WrongSignature));
    }

    #[test]
    fn several_key_pairs_are_accepted_at_once() {
        let keys = [key("old", "a"), key("new", "b")];
        for signer in &keys {
            check(&keys, &sign(signer, "1234.1234", "private-a", None), "private-a", None, Ok(()));
        }
        let crossed = sign(&key("old", "b"), "1234.1234", "private-a", None);
        check(&keys, &crossed, "private-a", None, Err(Failure::WrongSignature));
    }

    #[test]
    fn each_failure_is_named() {
        let check = |keys: &[Key], auth: &str, expected| check(keys, auth, "private-foobar", None, Err(expected));
        check(&[], PUSHER_AUTH, Failure::NoKeyConfigured);
        for auth in ["", "278d425bdf160c739803", &PUSHER_AUTH.replace(':', "")] {
            check(&[pusher()], auth, Failure::NoColon);
        }
        for auth in [":", &PUSHER_AUTH[1..], &PUSHER_AUTH.replace("278d", "278D"), &format!(" {PUSHER_AUTH}")] {
            check(&[pusher()], auth, Failure::UnknownKey);
        }
        for auth in
            ["278d425bdf160c739803:", &PUSHER_AUTH[..84], &format!("{PUSHER_AUTH}0"), &format!("{PUSHER_AUTH} ")]
        {
            check(&[pusher()], auth, Failure::WrongLength);
        }
        for auth in
            [&PUSHER_AUTH.replace(":58", ":+8"), &PUSHER_AUTH.replace("a4", "é"), &PUSHER_AUTH.replace("a4", "ag")]
        {
            check(&[pusher()], auth, Failure::NotHex);
        }
        for auth in [PUSHER_AUTH.replace(":58", ":59"), PUSHER_AUTH.replace("c3a4", "c3a5")] {
            check(&[pusher()], &auth, Failure::WrongSignature);
        }
    }

    #[test]
    fn a_signature_is_for_one_connection_and_one_channel() {
        let ring = KeyRing::new(&[pusher()]);
        let other = SocketId { high: 1234, low: 1235 };
        assert_eq!(
            ring.verify(&Attempt::of_channel(other, PUSHER_AUTH, "private-foobar", None)),
            Err(Failure::WrongSignature)
        );
        assert_eq!(
            ring.verify(&Attempt::of_channel(SOCKET_ID, PUSHER_AUTH, "private-fooba", None)),
            Err(Failure::WrongSignature)
        );
        assert_eq!(
            ring.verify(&Attempt::of_channel(SOCKET_ID, PUSHER_AUTH, "private-fooba", Some("r"))),
            Err(Failure::WrongSignature)
        );
    }

    proptest! {
        #[test]
        fn any_auth_is_judged_without_panic(auth in "\\PC{0,80}|278d425bdf160c739803:([0-9a-f]{64}|\\PC{0,40})") {
            let ring = KeyRing::new(&[pusher()]);
            prop_assert!(ring.verify(&Attempt::of_channel(SOCKET_ID, &auth, "private-a", None)).is_err());
        }

        #[test]
        fn signatures_verify(high: u64, low: u64, channel in "private-[a-z.]{0,30}", data in prop::option::of(any::<String>())) {
            let id = SocketId { high, low };
            let auth = sign(&pusher(), &id.to_string(), &channel, data.as_deref());
            prop_assert_eq!(KeyRing::new(&[pusher()]).verify(&Attempt::of_channel(id, &auth, &channel, data.as_deref())), Ok(()));
        }
    }
}
