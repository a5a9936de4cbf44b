//! Users: sign-in, messages to a user, and closing all connections of a user.

use crate::auth::{self, auth};
use crate::harness::{Admin, Client, Options, Server, assert_error, corecast, eventually, for_shards, output};
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    a_message_to_a_user_reaches_each_of_its_connections,
    a_sign_in_is_refused_for_the_first_reason,
    a_connection_has_one_user,
    a_user_is_disconnected_everywhere,
    a_disconnected_user_receives_nothing_that_is_published_later,
    a_member_may_leave_its_channel_data_out,
    the_channel_of_a_user_is_not_listed,
);

fn options(shards: usize) -> Options {
    Server::options(shards).arg("--key", auth::key())
}

fn sign_in(client: &Client, user_data: &str) -> String {
    let auth = auth::auth_of_user(&client.socket_id, user_data);
    json!({"event": "socket:signin", "data": {"auth": auth, "user_data": user_data}}).to_string()
}

fn user(id: &str) -> String {
    json!({"id": id}).to_string()
}

fn signed_in(id: &str) -> String {
    format!(r#"{{"event":"socket:signed_in","data":{{"user_id":{}}}}}"#, Value::from(id))
}

/// Connects, and signs in as this user.
#[track_caller]
pub fn connect_as(server: &Server, id: &str) -> Client {
    let mut client = Client::connect(server);
    client.send(&sign_in(&client, &user(id)));
    client.expect(&signed_in(id));
    client
}

fn a_message_to_a_user_reaches_each_of_its_connections(shards: usize) {
    let server = options(shards).start();
    let ids = ["12", "é \"\\\n", "a:b/c", &"x".repeat(128)];
    let mut clients: Vec<(usize, Client)> =
        (0..12).map(|n| (n % ids.len(), connect_as(&server, ids[n % ids.len()]))).collect();
    let mut other = Client::connect(&server);
    let mut admin = Admin::connect(&server);
    for (n, id) in ids.iter().enumerate() {
        let reply = admin.ok(json!({"command": "publish", "user": id, "event": "note", "data": n}));
        assert_eq!(reply["subscribers"], 3, "{id}");
        for (_, client) in clients.iter_mut().filter(|(of, _)| *of == n) {
            client.expect(&format!(r#"{{"event":"note","data":{n}}}"#));
        }
    }
    let excluded = clients[0].1.socket_id.clone();
    let reply = admin
        .ok(json!({"command": "publish", "users": ["12", "a:b/c", "absent", "12"], "event": "e", "exclude": excluded}));
    assert_eq!(reply["subscribers"], 5);
    for (of, client) in clients.iter_mut().skip(1).filter(|(of, _)| [0, 2].contains(of)) {
        client.expect(r#"{"event":"e"}"#);
        assert!(*of != 1);
    }
    clients.iter_mut().for_each(|(_, client)| client.expect_nothing_before_pong());
    other.expect_nothing_before_pong();
    drop(clients);
    eventually("the connections have left", || {
        admin.ok(json!({"command": "publish", "user": "12", "event": "e"}))["subscribers"] == 0
    });
}

fn a_sign_in_is_refused_for_the_first_reason(shards: usize) {
    let server = options(shards).start();
    let mut client = Client::connect(&server);
    let good = user("12");
    let signed: Value = serde_json::from_str(&sign_in(&client, &good)).expect("JSON");
    let right = signed["data"]["auth"].clone();
    let of =
        |user_data: &str| serde_json::from_str::<Value>(&sign_in(&client, user_data)).expect("JSON")["data"].clone();
    let cases = [
        (json!({}), "auth_required"),
        (json!({"user_data": good}), "auth_required"),
        (json!({"auth": right}), "invalid_data"),
        (json!({"auth": right, "user_data": 1}), "invalid_data"),
        (json!({"auth": 1, "user_data": good}), "auth_invalid"),
        (json!({"auth": "key:00", "user_data": good}), "auth_invalid"),
        (json!({"auth": right, "user_data": user("13")}), "auth_invalid"),
        (of("nonsense"), "invalid_data"),
        (of(r#"{"id":12}"#), "invalid_data"),
        (of(r#"{"id":""}"#), "invalid_data"),
        (of(&user(&"x".repeat(129))), "invalid_data"),
    ];
    for (data, code) in cases {
        client.send(&json!({"event": "socket:signin", "data": data}).to_string());
        assert_error(&client.text(), "socket:signin.error", None, code);
    }
    client.send(r#"{"event":"socket:signin"}"#);
    assert_error(&client.text(), "socket:signin.error", None, "auth_required");
    client.send(&sign_in(&client, &good));
    client.expect(&signed_in("12"));
}

fn a_connection_has_one_user(shards: usize) {
    let server = options(shards).start();
    let mut client = Client::connect(&server);
    // Sent at once: each is answered in its turn.
    client.send(&sign_in(&client, &user("12")));
    client.send(&sign_in(&client, r#"{"id":"12","user_info":{"name":"A"}}"#));
    client.send(&sign_in(&client, &user("13")));
    client.expect(&signed_in("12"));
    client.expect(&signed_in("12"));
    assert_error(&client.text(), "socket:signin.error", None, "already_signed_in");
    let reply = Admin::connect(&server).ok(json!({"command": "publish", "user": "12", "event": "e"}));
    assert_eq!(reply["subscribers"], 1);
    client.expect(r#"{"event":"e"}"#);
}

fn a_user_is_disconnected_everywhere(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<Client> = (0..6).map(|_| connect_as(&server, "12")).collect();
    let mut other = connect_as(&server, "13");
    let mut admin = Admin::connect(&server);
    admin.ok(json!({"command": "publish", "user": "12", "event": "last"}));
    let reply = admin.ok(json!({"command": "disconnect", "user": "12", "code": 4001, "reason": "banned"}));
    assert_eq!(reply["connections"], 6);
    for client in &mut clients {
        client.expect(r#"{"event":"last"}"#);
        assert_eq!(client.expect_close(4001), "banned");
    }
    assert_eq!(admin.ok(json!({"command": "disconnect", "user": "absent"}))["connections"], 0);
    let path = server.admin_path.to_str().expect("UTF-8");
    let run = output(corecast(&["disconnect", "--user", "13", "--json", "--admin-socket", path]), b"");
    assert!(run.status.success(), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stdout).contains(r#""connections":1"#), "{run:?}");
    other.expect_close(4000);
}

fn a_disconnected_user_receives_nothing_that_is_published_later(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<Client> = (0..6).map(|_| connect_as(&server, "12")).collect();
    let mut admin = Admin::connect(&server);
    let publish = |data: u64| json!({"command": "publish", "user": "12", "event": "e", "data": data}).to_string();
    let disconnect = json!({"command": "disconnect", "user": "12"}).to_string();
    admin.send(&[publish(1), publish(2), disconnect, publish(3), publish(4)].join("\n"));
    for client in &mut clients {
        client.expect(r#"{"event":"e","data":1}"#);
        client.expect(r#"{"event":"e","data":2}"#);
        client.expect_close(4000);
    }
}

fn a_member_may_leave_its_channel_data_out(shards: usize) {
    let server = options(shards).start();
    let mut client = Client::connect(&server);
    let subscribe = |client: &Client| {
        let auth = auth(&client.socket_id, "presence-a", None);
        json!({"event": "socket:subscribe", "data": {"channel": "presence-a", "auth": auth}}).to_string()
    };
    client.send(&subscribe(&client));
    assert_error(&client.text(), "socket:subscribe.error", Some("presence-a"), "invalid_data");
    client.send(&sign_in(&client, r#"{"id":"12","user_info":[1]}"#));
    client.send(&subscribe(&client));
    client.expect(&signed_in("12"));
    let members = r#"{"count":1,"members":[{"user_id":"12","user_info":[1]}]}"#;
    client
        .expect(&format!(r#"{{"event":"socket:subscribed","channel":"presence-a","data":{{"presence":{members}}}}}"#));
}

fn the_channel_of_a_user_is_not_listed(shards: usize) {
    let server = options(shards).arg("--max-subscriptions", "1").start();
    let mut client = connect_as(&server, "12");
    client.subscribe("a");
    let mut admin = Admin::connect(&server);
    let reply = admin.ok(json!({"command": "channels"}));
    assert_eq!(reply["channels"], json!([{"channel": "a", "subscribers": 1}]));
    let reply = admin.ok(json!({"command": "connection", "socket_id": client.socket_id}));
    assert_eq!((&reply["channels"], &reply["subscriptions"]), (&json!(["a"]), &json!(1)));
    let stats = admin.stats();
    let counted = ["channels", "users", "subscriptions"].map(|name| stats[name].as_u64());
    assert_eq!(counted, [Some(1); 3], "a sign-in is not a subscription");
    let reply = admin.ok(json!({"command": "busiest"}));
    assert_eq!(reply["channels"].as_array().map(Vec::len), Some(1), "{reply}");
}
