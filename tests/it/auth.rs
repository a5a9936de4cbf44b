//! Private channels: which signatures are accepted, and how the others are refused.

use crate::harness::{
    Admin, Client, Options, Server, assert_error, corecast, for_shards, output, second_spelling, subscribed,
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::fmt::Write;
use std::net::TcpListener;
use std::thread;
use tungstenite::protocol::Message;

for_shards!(
    a_signature_over_either_spelling_is_accepted,
    an_empty_channel_data_counts,
    every_live_key_is_accepted,
    wrong_signatures_are_auth_invalid,
    an_absent_auth_is_auth_required,
    without_keys_nothing_is_accepted,
    auth_is_ignored_on_public_channels,
    sign_subcommand_is_accepted,
);

pub const KEY: &str = "278d425bdf160c739803";
pub const SECRET: &str = "7ad3773142a6692b25b8";
const OTHER_KEY: &str = "second";
const OTHER_SECRET: &str = "another-secret";
const CHANNEL: &str = "private-user.1";

/// The signature, computed from its definition with the hmac and sha2 crates.
fn hmac_hex(secret: &str, string_to_sign: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(string_to_sign.as_bytes());
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes text");
        hex
    })
}

/// The first key, as an option names it.
pub fn key() -> String {
    format!("{KEY}:{SECRET}")
}

/// `auth` for a channel, with the first key.
pub fn auth(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    auth_by(KEY, SECRET, socket_id, channel, channel_data)
}

/// `auth` for a sign-in, with the first key.
pub fn auth_of_user(socket_id: &str, user_data: &str) -> String {
    format!("{KEY}:{}", hmac_hex(SECRET, &format!("{socket_id}::user::{user_data}")))
}

pub fn auth_by(key: &str, secret: &str, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    let string_to_sign = match channel_data {
        None => format!("{socket_id}:{channel}"),
        Some(data) => format!("{socket_id}:{channel}:{data}"),
    };
    format!("{key}:{}", hmac_hex(secret, &string_to_sign))
}

fn spellings(client: &Client) -> [String; 2] {
    [client.socket_id.clone(), second_spelling(&client.socket_id)]
}

fn with_keys(shards: usize) -> Options {
    Server::options(shards).arg("--key", format!("{KEY}:{SECRET}")).arg("--key", format!("{OTHER_KEY}:{OTHER_SECRET}"))
}

/// Subscribes with these members of `data`, and returns the reply.
fn answer(client: &mut Client, data: Value) -> String {
    client.send(&json!({"event": "socket:subscribe", "data": data}).to_string());
    client.text()
}

#[track_caller]
fn assert_accepted(client: &mut Client, data: Value) {
    let channel = data["channel"].as_str().expect("a channel").to_owned();
    assert_eq!(answer(client, data.clone()), subscribed(&channel), "{data}");
    client.unsubscribe(&channel);
}

#[track_caller]
fn assert_invalid(client: &mut Client, data: Value) {
    let channel = data["channel"].as_str().expect("a channel").to_owned();
    let reply = answer(client, data.clone());
    eprintln!("{data} → {reply}"); // shown if the next line fails
    assert_error(&reply, "socket:subscribe.error", Some(&channel), "auth_invalid");
}

#[test]
fn the_published_test_vector() {
    let expected = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
    assert_eq!(hmac_hex(SECRET, "1234.1234:private-foobar"), expected);
    let key = format!("{KEY}:{SECRET}");
    let signed = output(corecast(&["sign", "1234.1234", "private-foobar", "--key", &key]), b"");
    assert!(signed.status.success(), "{signed:?}");
    assert_eq!(String::from_utf8_lossy(&signed.stdout).trim_end(), format!("{KEY}:{expected}"));
    let data = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
    let arguments = ["sign", "1234.1234", "presence-foobar", "--channel-data", data, "--key", &key];
    let signed = output(corecast(&arguments), b"");
    // Presence channels do not exist yet. `sign` may refuse one, but must not make a wrong signature.
    if signed.status.success() {
        let expected = hmac_hex(SECRET, &format!("1234.1234:presence-foobar:{data}"));
        assert_eq!(String::from_utf8_lossy(&signed.stdout).trim_end(), format!("{KEY}:{expected}"));
    }
}

#[test]
fn sign_refuses_inputs_that_are_part_of_another_signed_text() {
    let key = format!("{KEY}:{SECRET}");
    for (socket_id, channel) in [
        ("1234.1234:private-victim", "private-mine"),
        ("POST\n/apps/1/events\nauth_key=k&auth_timestamp=1&auth_version=1.0&body_md5=0&z=", "private-mine"),
        ("1234.1234\n", "private-mine"),
        ("1234.1234", "private-mine:private-victim"),
    ] {
        let signed = output(corecast(&["sign", socket_id, channel, "--key", &key]), b"");
        assert!(!signed.status.success() && signed.stdout.is_empty(), "{signed:?}");
    }
}

/// The server may be a false one: `subscribe` sends its signature to it.
#[test]
fn subscribe_signs_for_the_socket_id_of_a_connection_only() {
    let key = format!("{KEY}:{SECRET}");
    for socket_id in [
        "1234.1234:private-victim",
        "POST\n/apps/1/events\nauth_key=k&auth_timestamp=1&auth_version=1.0&body_md5=0&z=",
        "",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("its address"));
        let server = thread::spawn(move || {
            let mut client = tungstenite::accept(listener.accept().expect("a client").0).expect("an upgrade");
            let data = json!({"socket_id": socket_id, "heart": {"interval": 30, "timeout": 25}});
            client.send(Message::text(json!({"event": "socket:connected", "data": data}).to_string())).expect("sent");
            client.read().map_or(None, |message| message.into_text().ok())
        });
        let refused = output(corecast(&["subscribe", "private-mine", "--key", &key, "--url", &url]), b"");
        assert!(!refused.status.success(), "{refused:?}");
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(stderr.contains("is not a UUID"), "{stderr}");
        assert_eq!(server.join().expect("no panic"), None, "a signature was sent");
    }
}

/// The command line takes a socket_id in upper case, as the admin socket does.
#[test]
fn sign_signs_the_spelling_that_the_server_verifies() {
    let key = format!("{KEY}:{SECRET}");
    let id = "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6";
    let signed = |id: &str| output(corecast(&["sign", id, CHANNEL, "--key", &key]), b"").stdout;
    assert_eq!(signed(&id.to_uppercase()), signed(id));
    assert_eq!(String::from_utf8_lossy(&signed(id)).trim_end(), auth(id, CHANNEL, None));
}

#[test]
fn the_second_spelling() {
    assert_eq!(
        second_spelling("1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6"),
        format!("{}.{}", 0x1ba1_b6cb_0127_48f8_u64, 0xb5a5_9fd7_9a7c_68a6_u64)
    );
}

fn a_signature_over_either_spelling_is_accepted(shards: usize) {
    let server = with_keys(shards).start();
    let mut client = Client::connect(&server);
    let mut admin = Admin::connect(&server);
    for spelling in spellings(&client) {
        assert_accepted(&mut client, json!({"channel": CHANNEL, "auth": auth(&spelling, CHANNEL, None)}));
        for data in
            ["1", r#"{"user_id":10,"name":"é😀\n\"quoted\"","path":"a/b\\c"}"#, ":", "line\nline", "\u{0}\u{2028}"]
        {
            let auth = auth(&spelling, CHANNEL, Some(data));
            assert_accepted(&mut client, json!({"channel": CHANNEL, "auth": auth, "channel_data": data}));
        }
        for channel in ["private-", "private-a,b;c@d=e", "private-a/b"] {
            assert_accepted(&mut client, json!({"channel": channel, "auth": auth(&spelling, channel, None)}));
        }
    }
    // Once subscribed, a private channel is like any other.
    let auth = auth(&client.socket_id, CHANNEL, None);
    let data = json!({"channel": CHANNEL, "auth": auth});
    assert_eq!(answer(&mut client, data), subscribed(CHANNEL));
    assert_eq!(admin.publish(CHANNEL, "e", json!({"a": 1})), 1);
    client.expect(&format!(r#"{{"event":"e","channel":"{CHANNEL}","data":{{"a":1}}}}"#));
    client.expect_nothing_before_pong();
}

fn an_empty_channel_data_counts(shards: usize) {
    let server = with_keys(shards).start();
    let mut client = Client::connect(&server);
    for spelling in spellings(&client) {
        let with = auth(&spelling, CHANNEL, Some(""));
        let without = auth(&spelling, CHANNEL, None);
        assert_accepted(&mut client, json!({"channel": CHANNEL, "auth": with, "channel_data": ""}));
        assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": with}));
        assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": without, "channel_data": ""}));
    }
}

fn every_live_key_is_accepted(shards: usize) {
    let server = with_keys(shards).start();
    let mut client = Client::connect(&server);
    for spelling in spellings(&client) {
        for (key, secret) in [(KEY, SECRET), (OTHER_KEY, OTHER_SECRET)] {
            let auth = auth_by(key, secret, &spelling, CHANNEL, None);
            assert_accepted(&mut client, json!({"channel": CHANNEL, "auth": auth}));
        }
        let crossed = auth_by(KEY, OTHER_SECRET, &spelling, CHANNEL, None);
        assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": crossed}));
    }
}

fn wrong_signatures_are_auth_invalid(shards: usize) {
    let server = with_keys(shards).start();
    let mut client = Client::connect(&server);
    let other = Client::connect(&server);
    let id = client.socket_id.clone();
    let good = auth(&id, CHANNEL, None);
    let hex = good.split_once(':').expect("key:hex").1.to_owned();
    let flipped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let wrong: Vec<Value> = vec![
        json!(""),
        json!(":"),
        json!(KEY),
        json!(format!("{KEY}:")),
        json!(format!(":{hex}")),
        json!(hex),
        json!(format!("unknown:{hex}")),
        json!(format!("{OTHER_KEY}:{hex}")),
        json!(format!("{good}00")),
        json!(format!("{good}0")),
        json!(good[..good.len() - 1]),
        json!(good[..good.len() - 2]),
        json!(flipped),
        json!(format!("{KEY}:{}", "0".repeat(64))),
        json!(format!("{KEY}:{}", "z".repeat(64))),
        json!(format!("{KEY}:{}", "é".repeat(32))),
        json!(format!(" {good}")),
        json!(format!("{good} ")),
        json!(format!("{KEY}:{good}")),
        json!("x".repeat(10_000)),
        json!(auth(&other.socket_id, CHANNEL, None)),
        json!(auth(&second_spelling(&other.socket_id), CHANNEL, None)),
        json!(auth(&id.replace('-', ""), CHANNEL, None)),
        json!(auth(&id, "private-user.2", None)),
        json!(auth(&id, CHANNEL, Some("data"))),
        json!(auth_by(KEY, "wrong", &id, CHANNEL, None)),
        json!(null),
        json!(true),
        json!(13),
        json!([good]),
        json!({"auth": good}),
    ];
    for auth in wrong {
        assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": auth}));
    }
    let signed_data = auth(&id, CHANNEL, Some("data"));
    assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": signed_data, "channel_data": "Data"}));
    assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": signed_data, "channel_data": ""}));
    assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": good, "channel_data": "data"}));
    // `:` joins the signed parts, so a signature for one channel must not be valid for another one with channel_data.
    let longer = auth(&id, "private-a", Some("b"));
    assert_invalid(&mut client, json!({"channel": "private-a.b", "auth": longer}));

    // The refusals changed nothing, and the valid signature is still accepted.
    assert_eq!(Admin::connect(&server).subscribers(CHANNEL), 0);
    assert_accepted(&mut client, json!({"channel": CHANNEL, "auth": good}));
    let said = server.stderr();
    assert!(!said.contains(SECRET) && !said.contains(OTHER_SECRET), "a secret was logged:\n{said}");
}

fn an_absent_auth_is_auth_required(shards: usize) {
    let server = with_keys(shards).start();
    let mut client = Client::connect(&server);
    for data in [
        json!({"channel": CHANNEL}),
        json!({"channel": CHANNEL, "channel_data": "data"}),
        json!({"channel": CHANNEL, "channel_data": ""}),
        json!({"channel": CHANNEL, "Auth": auth(&client.socket_id, CHANNEL, None)}),
    ] {
        let reply = answer(&mut client, data);
        assert_error(&reply, "socket:subscribe.error", Some(CHANNEL), "auth_required");
    }
    assert_eq!(Admin::connect(&server).subscribers(CHANNEL), 0);
}

fn without_keys_nothing_is_accepted(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let reply = answer(&mut client, json!({"channel": CHANNEL}));
    assert_error(&reply, "socket:subscribe.error", Some(CHANNEL), "auth_required");
    let good_elsewhere = auth(&client.socket_id, CHANNEL, None);
    for auth in [good_elsewhere.as_str(), "", ":", &auth_by("", "", &client.socket_id, CHANNEL, None)] {
        assert_invalid(&mut client, json!({"channel": CHANNEL, "auth": auth}));
    }
}

fn auth_is_ignored_on_public_channels(shards: usize) {
    let server = with_keys(shards).start();
    let mut client = Client::connect(&server);
    for auth in [json!("XXXXX"), json!(""), json!(null), json!(13)] {
        assert_accepted(&mut client, json!({"channel": "user:13", "auth": auth}));
    }
}

fn sign_subcommand_is_accepted(shards: usize) {
    let server = with_keys(shards).start();
    let mut client = Client::connect(&server);
    for spelling in spellings(&client) {
        for (key, secret) in [(KEY, SECRET), (OTHER_KEY, OTHER_SECRET)] {
            for data in [None, Some(""), Some(r#"{"user_id":"é"}"#)] {
                let pair = format!("{key}:{secret}");
                let mut command = corecast(&["sign", &spelling, CHANNEL, "--key", &pair]);
                let mut request = json!({"channel": CHANNEL});
                if let Some(data) = data {
                    command.args(["--channel-data", data]);
                    request["channel_data"] = data.into();
                }
                let signed = output(command, b"");
                assert!(signed.status.success(), "{signed:?}");
                let stdout = String::from_utf8(signed.stdout).expect("UTF-8");
                assert_eq!(stdout.trim_end(), auth_by(key, secret, &spelling, CHANNEL, data));
                request["auth"] = stdout.trim_end().into();
                assert_accepted(&mut client, request);
            }
        }
    }
}
