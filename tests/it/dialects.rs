//! How operators see which dialect a connection speaks.

use crate::harness::{Admin, Client, eventually, for_shards};
use crate::pusher_peer::{Pusher, connect, options, upgrade};
use serde_json::{Value, json};

for_shards!(connections_are_listed_and_counted_by_dialect, a_tail_shows_the_dialect);

fn connections_are_listed_and_counted_by_dialect(shards: usize) {
    let server = options(shards).arg("--echo-path", "/echo").start();
    let mut native = Client::connect(&server);
    native.subscribe("news");
    let mut of_pusher = [connect(&server), connect(&server)];
    of_pusher.iter_mut().for_each(|client| client.join("news"));
    let _echo = upgrade(&server, "/echo");
    let mut admin = Admin::connect(&server);
    for list in ["connections", "subscribers"] {
        let mut request = json!({"command": list});
        if list == "subscribers" {
            request["channel"] = "news".into();
        }
        let reply = admin.ok(request);
        let rows = reply[list].as_array().expect("a list");
        let of = |dialect: &str| rows.iter().filter(|row| row["dialect"] == dialect).count();
        assert_eq!((of("native"), of("pusher"), rows.len()), (1, 2, 3), "{reply}");
    }
    let socket_id = &native.socket_id;
    assert_eq!(admin.ok(json!({"command": "connection", "socket_id": socket_id}))["dialect"], "native");
    let socket_id = &of_pusher[0].socket_id;
    assert_eq!(admin.ok(json!({"command": "connection", "socket_id": socket_id}))["dialect"], "pusher");
    let numbers = |admin: &mut Admin| -> Vec<u64> {
        let stats = admin.stats();
        let number = |name: &&str| stats[*name].as_u64().expect("a number");
        NAMES.iter().map(number).collect()
    };
    assert_eq!(numbers(&mut admin), [1, 2, 1, 2, 1, 2]);
    let table = String::from_utf8(server.run(&["connections"]).stdout).expect("UTF-8");
    assert!(table.starts_with("SOCKET_ID") && table.contains("  DIALECT  "), "{table}");
    drop(of_pusher);
    eventually("the connections have left", || numbers(&mut admin)[..2] == [1, 0]);
}

const NAMES: [&str; 6] = [
    "connections_native",
    "connections_pusher",
    "upgrades_native",
    "upgrades_pusher",
    "messages_in_native",
    "messages_in_pusher",
];

fn a_tail_shows_the_dialect(shards: usize) {
    let server = options(shards).start();
    let mut tail = Admin::connect(&server);
    tail.ok(json!({"command": "tail"}));
    let mut client = connect(&server);
    client.join("news");
    client.close(1000);
    for event in ["connect", "subscribe", "close"] {
        let line: Value = serde_json::from_str(&tail.line()).expect("JSON");
        assert_eq!((&line["event"], &line["dialect"]), (&json!(event), &json!("pusher")), "{line}");
    }
}
