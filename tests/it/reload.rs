//! Reloads: a running server takes another configuration as a whole, or not at all.

use crate::harness::{
    Admin, Client, RawClient, Server, TempDir, UPGRADE_REQUEST, corecast, eventually, for_shards, frame, opcode,
    output, subscribe, text_frame,
};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use tungstenite::protocol::Message;

for_shards!(
    changes_are_reported_and_apply_in_every_shard,
    keys_are_rotated_under_a_live_subscription,
    an_invalid_configuration_changes_nothing,
    rules_change_without_a_restart,
);

fn rules_change_without_a_restart(shards: usize) {
    let server = Server::options(shards).config("").start();
    let mut admin = Admin::connect(&server);
    let mut rule = |channel: &str| {
        let mut reply = admin.ok(json!({"id": 1, "command": "rule", "channel": channel}));
        let keys = reply["keys"].take();
        let key = |name: &str| keys.as_array().expect("keys").iter().find(|key| key["key"] == name).cloned();
        (reply, key("history").expect("history"))
    };
    let plain = json!({"key": "history", "value": 0, "source": "name"});
    let none = json!({"id": 1, "ok": true, "channel": "a1", "keys": null});
    assert_eq!(rule("a1"), (none.clone(), plain.clone()));
    let first = "[[channel]]\nmatch = \"b\"\n[[channel]]\nmatch = \"a*\"\nhistory = 7\n";
    let expected = ["channel: none → match = \"b\"", "channel: none → match = \"a*\", history = 7"];
    assert_eq!(server.changes(first), expected);
    let second = json!({"id": 1, "ok": true, "channel": "a1", "rule": 2, "match": "a*", "keys": null});
    let kept = json!({"key": "history", "value": 7, "source": "rule"});
    assert_eq!(rule("a1"), (second.clone(), kept.clone()));
    let reply = server.reload(&first.replace("7", "-7"));
    assert_eq!((&reply["ok"], &reply["code"]), (&json!(false), &json!("invalid_configuration")), "{reply}");
    for part in ["table 2", "match \\\"a*\\\"", "line 5", "history", "\\\"-7\\\"", "0 to 100000 messages"] {
        assert!(reply["error"].to_string().contains(part), "{part:?} is not in {reply}");
    }
    assert_eq!(rule("a1"), (second, kept));
    assert_eq!(server.changes("").len(), 2);
    assert_eq!(rule("a1"), (none, plain));
    let refused = admin.request(json!({"id": 1, "command": "rule", "channel": "#a"}));
    assert_eq!(refused["code"], "invalid_channel");
    let refused = admin.request(json!({"id": 1, "command": "rule"}));
    assert_eq!(refused["code"], "missing_member");
    let shown = server.run(&["rule", "cache-a"]);
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("cache-a: no [[channel]] table fits"), "{shown:?}");
}

impl Server {
    /// The reply to `reload`, with another text in its configuration file.
    #[track_caller]
    pub fn reload(&self, text: &str) -> Value {
        self.write_config(text);
        Admin::connect(self).request(json!({"id": 1, "command": "reload"}))
    }

    /// Reloads; the changes as `option: old → new`.
    #[track_caller]
    pub fn changes(&self, text: &str) -> Vec<String> {
        let reply = self.reload(text);
        assert_eq!(reply["ok"], true, "{reply}");
        assert_eq!(reply["restart"], json!([]), "{reply}");
        listed(&reply["changes"])
    }
}

fn listed(changes: &Value) -> Vec<String> {
    let texts = changes.as_array().expect("a list").iter().map(|change| {
        let member = |name: &str| change[name].as_str().unwrap_or_else(|| panic!("no {name} in {change}"));
        format!("{}: {} → {}", member("option"), member("old"), member("new"))
    });
    texts.collect()
}

fn changes_are_reported_and_apply_in_every_shard(shards: usize) {
    let server = Server::options(shards).config("max-subscriptions = 2\n").start();
    // Enough that every shard has some.
    let mut clients: Vec<Client> = (0..4 * shards).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("a");
        client.subscribe("b");
    }
    assert_eq!(server.changes("max-subscriptions = 3\n"), ["max-subscriptions: 2 → 3"]);
    // The reply promises that the new limit applies on every shard.
    for client in &mut clients {
        client.subscribe("c");
    }
    assert_eq!(server.changes("max-subscriptions = 1\n"), ["max-subscriptions: 3 → 1"]);
    for client in &mut clients {
        // Existing subscriptions stay, a further one is refused.
        client.send(&subscribe("d"));
        assert!(client.text().contains("too_many_subscriptions"));
    }
    assert_eq!(Admin::connect(&server).publish("c", "e", json!(1)), clients.len() as u64);
    assert_eq!(server.changes("max-subscriptions = 1\n"), Vec::<String>::new());
}

fn keys_are_rotated_under_a_live_subscription(shards: usize) {
    let dir = TempDir::new();
    let file = dir.path().join("keys");
    std::fs::write(&file, "old:1\n").expect("a file");
    let server = Server::options(shards).config("").arg("--key-file", file.display()).start();
    let sign = |client: &Client, key: &str| {
        let signed = output(corecast(&["sign", &client.socket_id, "private-c", "--key", key]), b"");
        let auth = String::from_utf8_lossy(&signed.stdout).trim_end().to_owned();
        json!({"event": "socket:subscribe", "data": {"channel": "private-c", "auth": auth}}).to_string()
    };
    let live = r#"{"event":"socket:subscribed","channel":"private-c"}"#;
    let rotate = |keys: &str| {
        std::fs::write(&file, keys).expect("a file");
        server.changes("")
    };
    let mut early = Client::connect(&server);
    early.send(&sign(&early, "old:1"));
    early.expect(live);

    assert_eq!(rotate("old:1\nnew:2\n"), ["key: old → old, new"]);
    for key in ["old:1", "new:2"] {
        let mut client = Client::connect(&server);
        client.send(&sign(&client, key));
        client.expect(live);
    }
    assert_eq!(rotate("new:2\n"), ["key: old, new → new"]);
    let mut late = Client::connect(&server);
    late.send(&sign(&late, "old:1"));
    assert!(late.text().contains("auth_invalid"));
    late.send(&sign(&late, "new:2"));
    late.expect(live);
    // An existing subscription stays and receives every message.
    Admin::connect(&server).publish("private-c", "e", json!(1));
    early.expect(r#"{"event":"e","channel":"private-c","data":1}"#);

    assert_eq!(rotate("new:3\n"), ["key: new → new (another secret)"]);
    let stderr = server.stderr();
    assert!(!stderr.contains("new:"), "a secret is logged: {stderr}");
}

fn an_invalid_configuration_changes_nothing(shards: usize) {
    let server = Server::options(shards).config("max-subscriptions = 1\n").start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut check = |text: &str, said: &[&str]| {
        let reply = server.reload(text);
        assert_eq!((&reply["ok"], &reply["code"]), (&json!(false), &json!("invalid_configuration")), "{reply}");
        let error = reply["error"].as_str().expect("a text");
        for part in said {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
            eventually("it is logged too", || server.stderr().contains(part));
        }
        client.send(&subscribe("b"));
        assert!(client.text().contains("too_many_subscriptions"));
    };
    let file = server.config().display().to_string();
    check("max-subscriptions = 2\n\noutbox-limit = 1\n", &[&file, "line 3", "outbox-limit", "4096"]);
    check("max-subscriptions = 2\nmax-message = \n", &[&file, "line 2", "is not valid TOML"]);
    check("max-subscriptions = 2\nmax-subscription = 3\n", &[&file, "line 2", "Did you mean max-subscriptions?"]);
    check("max-subscriptions = 2\nkey-file = \"/none/such\"\n", &["/none/such"]);
    let keys = server.config_dir().join("keys");
    std::fs::write(&keys, "a:hunter2\nhunter2\n").expect("a file");
    check(&format!("max-subscriptions = 2\nkey-file = {keys:?}\n"), &["line 2", &keys.display().to_string()]);
    assert!(!server.stderr().contains("hunter2"));

    std::fs::remove_file(server.config()).expect("it was there");
    let reply = Admin::connect(&server).request(json!({"id": 1, "command": "reload"}));
    assert_eq!(reply["code"], "invalid_configuration", "{reply}");
    assert!(reply["error"].as_str().expect("a text").contains(&file), "{reply}");
    assert_eq!(server.changes("max-subscriptions = 2\n"), ["max-subscriptions: 1 → 2"]);
    client.subscribe("b");
}

/// A FIFO would hold up the reload, and with it a stop, until a writer comes.
#[test]
fn a_reload_reads_regular_files_only() {
    let mut server = Server::options(1).config("").start();
    let path = |name: &str| server.config_dir().join(name);
    let (fifo, to_fifo, keys, to_keys) = (path("fifo"), path("to-fifo"), path("keys"), path("to-keys"));
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).expect("a FIFO");
    std::fs::write(&keys, "a:0123456789abcdef\n").expect("a file");
    symlink(&fifo, &to_fifo).expect("a link");
    symlink(&keys, &to_keys).expect("a link");
    for refused in [&fifo, &to_fifo, &path("."), &"/dev/zero".into()] {
        for option in ["key-file", "console-key-file"] {
            let reply = server.reload(&format!("{option} = {refused:?}\n"));
            assert_eq!(reply["code"], "invalid_configuration", "{reply}");
            assert!(reply["error"].as_str().expect("a text").contains("it is not a regular file"), "{reply}");
        }
    }
    assert_eq!(server.changes(&format!("key-file = {to_keys:?}\n")), ["key: none → a"]);
    std::fs::remove_file(server.config()).expect("it was there");
    mkfifoat(CWD, server.config(), Mode::RUSR | Mode::WUSR).expect("a FIFO");
    server.signal(Signal::HUP);
    assert_eq!(server.terminate().code(), Some(0));
}

/// A table that grows while connections are accepted delays a shard.
#[test]
fn the_descriptor_table_is_allocated_for_all_connections_at_once() {
    let server = Server::options(2).config("max-connections = 3000\n").start();
    let places = || server.descriptor_places();
    assert!((3000..6000).contains(&places()), "{}", places());
    server.changes("max-connections = 6000\n");
    assert!(places() >= 6000, "{}", places());
}

#[test]
fn sighup_reloads_and_changes_the_log_level() {
    let server = Server::options(2).config("log = \"warn\"\n").start();
    server.write_config("log = \"debug\"\n");
    server.signal(Signal::HUP);
    eventually("the change is logged", || server.stderr().contains("log: warn → debug"));
    // The level debug logs every close.
    Client::connect(&server).close(1000);
    eventually("a close is logged", || server.stderr().contains("ClientClosed"));
    server.write_config("log = \"off\"\nmax-subscriptions = 7\n");
    server.signal(Signal::HUP);
    eventually("the configuration has been read", || {
        let reply = Admin::connect(&server).request(json!({"id": 1, "command": "reload"}));
        reply["changes"] == json!([])
    });
    let mut client = Client::connect(&server);
    client.close(1000);
    eventually("the close is counted", || {
        let stats = Admin::connect(&server).request(json!({"id": 1, "command": "stats"}));
        stats["stats"]["closes_client_closed"] == 2
    });
    let logged = server.stderr();
    assert!(!logged.contains("max-subscriptions: ") && !logged.contains(&client.socket_id), "{logged}");
}

#[test]
fn options_that_need_a_restart_are_reported_and_the_others_apply() {
    let server = Server::options(1).config("").arg("--max-message", 1000).start();
    let text = "pin = \"auto\"\nlisten = \"127.0.0.1:1\"\nmax-subscriptions = 1\nmax-message = 2000\n";
    // The flags of the start still win over the file.
    assert_eq!(server.changes(text), ["max-subscriptions: 128 → 1"]);

    let server = Server::options(2).config("").without_pin().start();
    for _ in 0..2 {
        let reply = server.reload("pin = \"none\"\nmax-subscriptions = 1\n");
        assert_eq!(listed(&reply["restart"]), ["pin: auto → none"], "{reply}");
    }
    let output = server.run(&["reload"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout.contains("pin: auto → none needs a restart"), "{stdout}");
    let mut client = Client::connect(&server);
    client.subscribe("a");
    client.send(&subscribe("b"));
    assert!(client.text().contains("too_many_subscriptions"));
    eventually("it is logged", || server.stderr().contains("pin: auto → none needs a restart"));
}

#[test]
fn concurrent_reloads_report_a_change_once() {
    let server = Server::options(2).config("").start();
    server.write_config("max-subscriptions = 5\n");
    let mut admins: Vec<Admin> = (0..8).map(|_| Admin::connect(&server)).collect();
    for admin in &mut admins {
        admin.send(r#"{"id":1,"command":"reload"}"#);
        admin.send(r#"{"id":2,"command":"reload"}"#);
        admin.send(r#"{"id":3,"command":"ping"}"#);
    }
    let mut reported = Vec::new();
    for admin in &mut admins {
        for _ in 0..2 {
            let reply: Value = serde_json::from_str(&admin.line()).expect("JSON");
            reported.extend(listed(&reply["changes"]));
        }
        assert_eq!(admin.line(), r#"{"id":3,"ok":true}"#);
    }
    assert_eq!(reported, ["max-subscriptions: 128 → 5"], "exactly one reload reports the change");
}

/// A client that was told a long heartbeat interval is not closed by a reload that shortens it.
#[test]
fn a_connection_keeps_the_heartbeat_that_it_was_told() {
    let server = Server::options(1).config("heart-interval = 60\nheart-timeout = 60\n").start();
    let mut early = RawClient::connect(&server);
    assert_eq!(
        server.changes("heart-interval = 1\nheart-timeout = 1\n"),
        ["heart-interval: 60 → 1", "heart-timeout: 60 → 1"]
    );
    // Time is counted in ticks of 100 ms, and a connection of the reload's own tick counts as early.
    std::thread::sleep(std::time::Duration::from_millis(250));
    let mut late = RawClient::tcp(&server);
    let connected = late.upgrade();
    assert_eq!(connected["data"]["heart"], json!({"interval": 1, "timeout": 1}));
    late.expect_close(4202);
    early.write(&text_frame(r#"{"event":"socket:ping","data":{"id":1}}"#));
    early.expect(r#"{"event":"socket:pong","data":{"reply":1}}"#);
}

#[test]
fn limits_apply_from_the_next_use_on() {
    let server = Server::options(1).config("").start();
    let mut open = RawClient::connect(&server);
    let text = "path = [\"/ws\"]\nmax-message = 200\nmax-connections = 1\nadmin-line-limit = 1024\n";
    let changes = server.changes(text);
    assert_eq!(changes.len(), 4, "{changes:?}");
    // The next upgrade.
    let mut refused = RawClient::tcp(&server);
    refused.write(UPGRADE_REQUEST.as_bytes());
    assert!(refused.head().starts_with("HTTP/1.1 404"));
    let mut second = RawClient::tcp(&server);
    second.write(UPGRADE_REQUEST.replace("/chat", "/ws").as_bytes());
    assert!(second.head().starts_with("HTTP/1.1 101"));
    second.expect_close(4101);
    // The next admin line.
    let mut admin = Admin::connect(&server);
    admin.refused(&"x".repeat(1025), Value::Null, "too_large");
    // The next message.
    open.write(&frame(opcode::TEXT, &[b' '; 201]));
    open.expect_close(1009);
    // The next handshake.
    assert_eq!(server.changes(&format!("{text}handshake-timeout = 1\n")), ["handshake-timeout: 10 → 1"]);
    RawClient::tcp(&server).expect_end();
    assert_eq!(server.stat("closes_handshake_timeout"), 1);
}

#[test]
fn without_a_number_max_connections_is_what_the_machine_holds() {
    let server = Server::options(1).config("max-connections = 1\n").start();
    let _one = Client::connect(&server);
    let mut second = RawClient::tcp(&server);
    second.write(UPGRADE_REQUEST.as_bytes());
    assert!(second.head().starts_with("HTTP/1.1 101"));
    second.expect_close(4101);
    assert_eq!(server.changes(""), ["max-connections: 1 → auto"]);
    let _more: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    assert_eq!(server.changes("max-connections = \"auto\"\n"), [""; 0]);
    let log = || server.stderr();
    eventually("both reloads are in the log", || log().matches("configuration reloaded").count() == 2);
    assert!(!log().contains("WARN"), "{}", log());
}

/// A connection beyond a lower outbox limit is closed at the next write.
#[test]
fn a_lower_outbox_limit_closes_connections_beyond_it() {
    let server = Server::options(1).config("outbox-limit = \"1GiB\"\n").start();
    let mut slow = RawClient::tcp_with_small_buffer(&server);
    slow.upgrade();
    slow.write(&text_frame(&subscribe("c")));
    slow.text();
    let mut admin = Admin::connect(&server);
    let outbox = |admin: &mut Admin| {
        let stats = admin.stats();
        (stats["outbox_bytes"].as_u64(), stats["closes_slow_consumer"].as_u64())
    };
    let large = "x".repeat(100_000);
    eventually("a megabyte waits", || {
        admin.publish("c", "e", json!(large));
        outbox(&mut admin).0 > Some(1_000_000)
    });
    // 42 members fit into half of that.
    let expected = ["outbox-limit: 1073741824 → 100000", "presence-members: 100 → 42"];
    assert_eq!(server.changes("outbox-limit = 100000\n"), expected);
    assert_eq!(outbox(&mut admin).1, Some(0), "nothing was written yet");
    admin.publish("c", "e", json!(1));
    eventually("it is closed", || outbox(&mut admin).1 == Some(1));
    drop(slow);
}

/// Reloads during a stream of publishes.
#[test]
fn deliveries_have_no_gap_during_a_reload() {
    let server = Server::options(2).config("").start();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("c"));
    let mut admin = Admin::connect(&server);
    for n in 0..200 {
        admin.send(&json!({"id": n, "command": "publish", "channel": "c", "event": "e", "data": n}).to_string());
        if n % 20 == 0 {
            assert_eq!(server.changes(&format!("max-subscriptions = {}\n", 10 + n)).len(), 1);
        }
    }
    for client in &mut clients {
        for n in 0..200 {
            assert!(
                matches!(client.message(), Message::Text(text) if text.as_str().ends_with(&format!("\"data\":{n}}}")))
            );
        }
    }
}
