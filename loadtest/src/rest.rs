//! Signed requests of the HTTP publishing interface, version 1.0 of Pusher's scheme.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::target::App;
use crate::template::{Fill, Template};

/// Messages on their way into requests: one in each, or a batch.
pub struct Requests {
    /// Where the requests go.
    pub address: SocketAddr,
    signer: Signer,
    event: Template,
    /// Limit of messages in a request.
    batch: u64,
    /// The messages of the next request, separated by commas, and their number.
    events: Vec<u8>,
    count: u64,
}

impl Requests {
    /// No messages yet.
    pub fn new(address: SocketAddr, app: &App) -> Requests {
        let event = r#"{"name":"m","channel":"{channel}","data":{data}}"#.into();
        let signer = Signer::new(address, app);
        Requests { address, signer, event, batch: app.batch as u64, events: Vec::new(), count: 0 }
    }

    /// Adds a message to the next request. Returns whether that is full.
    pub fn add(&mut self, fill: Fill<'_>) -> bool {
        if self.count > 0 {
            self.events.push(b',');
        }
        self.event.push(&mut self.events, fill);
        self.count += 1;
        self.count == self.batch
    }

    /// Whether it holds no message, so that no request is sent.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the request. Returns the number of messages in it.
    pub fn push_request(&mut self, out: &mut Vec<u8>) -> u64 {
        if self.batch > 1 {
            self.events.splice(0..0, *br#"{"batch":["#);
            self.events.extend_from_slice(b"]}");
        }
        self.signer.push_request(out, &self.events);
        self.events.clear();
        std::mem::take(&mut self.count)
    }
}

/// Signs `POST /apps/ID/events`, or `/batch_events`.
struct Signer {
    host: SocketAddr,
    path: String,
    key: String,
    mac: Hmac<Sha256>,
}

impl Signer {
    /// Signs requests to `host` with a key pair of the server.
    fn new(host: SocketAddr, app: &App) -> Signer {
        let events = if app.batch > 1 { "batch_events" } else { "events" };
        Signer { host, path: format!("/apps/{}/{events}", app.id), key: app.key.clone(), mac: mac_of(&app.secret) }
    }

    /// Appends a request with this body.
    fn push_request(&self, out: &mut Vec<u8>, body: &[u8]) {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        out.extend_from_slice(self.request(body, now_s).as_bytes());
        out.extend_from_slice(body);
    }

    /// The head of a request.
    fn request(&self, body: &[u8], now_s: u64) -> String {
        let Signer { host, path, key, mac } = self;
        let md5 = hex(&Md5::digest(body));
        let query = format!("auth_key={key}&auth_timestamp={now_s}&auth_version=1.0&body_md5={md5}");
        let signature = sign(mac, &format!("POST\n{path}\n{query}"));
        format!(
            "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
    }
}

/// What signs with a secret.
pub fn mac_of(secret: &str) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length (RFC 2104)")
}

/// The signature of a text, in hexadecimal digits.
pub fn sign(mac: &Hmac<Sha256>, text: &str) -> String {
    hex(&mac.clone().chain_update(text).finalize().into_bytes())
}

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Pusher's documentation of its HTTP API.
    #[test]
    fn a_request_is_signed_as_documented() {
        let host = SocketAddr::from(([127, 0, 0, 1], 9001));
        let (id, key, secret) = ("3".into(), "278d425bdf160c739803".into(), "7ad3773142a6692b25b8".into());
        let signer = Signer::new(host, &App { id, key, secret, ..App::default() });
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let head = signer.request(body, 1353088179);
        assert!(head.contains("body_md5=ec365a775a4cd0599faeb73354201b6f&"), "{head}");
        let signature = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
        assert!(head.contains(&format!("auth_signature={signature} HTTP/1.1\r\n")), "{head}");
    }
}
