//! Attacks on signing examples: backends copy them, so they must refuse forged inputs.

use super::page::{Block, Interpreter, Kind};

/// Pairs of a socket_id and a channel that must not be signed for the user `foobar`, who may join `private-foobar` only.
const FORGED: [(&str, &str); 8] = [
    // Its signature is that of `private-victim` with the channel_data `private-foobar`.
    (VICTIM, "private-foobar"),
    // Its signature is that of a request to the HTTP API.
    (REQUEST, "private-foobar"),
    ("c38d3b54-fcf0-419c-a455-e60b6cfb937d\n", "private-foobar"),
    ("c38d3b54fcf0419ca455e60b6cfb937d----", "private-foobar"),
    ("", "private-foobar"),
    ("1234.1234", "private-victim"),
    ("1234.1234", "private-foobar:private-victim"),
    ("1234.1234", "private-foobar\n"),
];
const VICTIM: &str = "1234.1234:private-victim";
const REQUEST: &str = "POST\n/apps/1/events\nauth_key=k&auth_timestamp=1&auth_version=1.0&body_md5=0&z=";

/// Whether the block computes a signature that involves a socket_id.
pub fn is_example(block: &Block) -> bool {
    let code = block.lines.concat();
    let signs = ["hmac.new(", "createHmac(", "hash_hmac(", "hmac.New(", "openssl dgst"];
    signs.iter().any(|call| code.contains(call)) && ["socket_id", "socketId"].iter().any(|name| code.contains(name))
}

/// Code that runs after a signing example. It calls the example's `sign(user, socket_id, channel)` with each forged pair, and fails if
/// one is signed.
pub fn attack(block: &Block) -> String {
    let Kind::Script(Interpreter { program, .. }) = block.kind else {
        panic!("{}: a signing example is tested with forged inputs: make it ```python or ```js", block.place);
    };
    let forged = serde_json::to_string(&FORGED).expect("strings are JSON");
    match *program {
        "python3" => format!(
            "
for socket_id, channel in {forged}:
    try:
        auth = sign('foobar', socket_id, channel)
    except PermissionError:
        continue
    raise SystemExit(f'signed {{socket_id!r}}, {{channel!r}}')
"
        ),
        "node" => format!(
            "
for (const [socketId, channel] of {forged}) {{
  let auth;
  try {{ auth = sign('foobar', socketId, channel); }} catch (error) {{ if (error.message !== 'refused') throw error; }}
  if (auth) throw new Error('signed ' + JSON.stringify([socketId, channel]));
}}
"
        ),
        other => panic!("{}: {other} has no attack", block.place),
    }
}

#[test]
fn the_server_accepts_what_an_unchecked_example_would_sign() {
    use corecast::config::Key;
    use corecast::protocol::auth::{Attempt, KeyRing, sign};
    use corecast::protocol::socket_id::SocketId;

    let key = Key { id: "k".into(), secret: "s".into() };
    let ring = KeyRing::new(std::slice::from_ref(&key));
    let id = SocketId::parse("1234.1234").expect("the second spelling");
    let auth = sign(&key, VICTIM, "private-foobar", None);
    assert!(ring.verify(&Attempt::of_channel(id, &auth, "private-victim", Some("private-foobar"))).is_ok());
    let auth = sign(&key, REQUEST, "private-foobar", None);
    let (_, hex) = auth.split_once(':').expect("key:hex");
    assert!(ring.verify_text("k", &format!("{REQUEST}:private-foobar"), hex).is_ok());
}
