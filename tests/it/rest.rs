//! Pusher's HTTP API: presence, caches, users, attributes, and the requests that libraries send.

use crate::auth;
use crate::client_events::join;
use crate::harness::{Admin, Client, Options, Server, eventually, for_shards, second_spelling};
use crate::http::{Http, hmac_hex, md5_hex, now_s, signed};
use crate::users::connect_as;
use serde_json::{Value, json};

for_shards!(
    presence_channels_have_users,
    cache_channels_have_their_last_message,
    attributes_that_a_channel_does_not_have,
    an_event_reaches_users_beside_channels,
    the_connections_of_a_user_are_terminated,
    a_channel_that_is_named_twice_gets_one_message,
    a_batch_is_published_whole_or_not_at_all,
    publishers_of_all_kinds_share_one_order,
    libraries_of_other_languages_are_answered,
);

/// A server with the key of [`signed`] and that of [`auth::auth`].
fn options(shards: usize) -> Options {
    Server::options(shards).arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").arg("--key", auth::key())
}

impl Http {
    /// The answer to a signed GET, which must be 200.
    #[track_caller]
    fn answer(&mut self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let answer = self.get(&signed("GET", path, parameters, ""));
        assert_eq!(answer.status, 200, "{path} {parameters:?}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    #[track_caller]
    fn refused(&mut self, path: &str, parameters: &[(&str, &str)], status: u16) {
        let answer = self.get(&signed("GET", path, parameters, ""));
        assert_eq!(answer.status, status, "{path} {parameters:?}: {}", answer.body);
        assert!(answer.head.to_ascii_lowercase().contains("content-type: text/plain"), "{}", answer.head);
    }

    /// The answer to a publish, which must be 200.
    #[track_caller]
    fn published(&mut self, event: &Value) -> Value {
        let answer = self.publish(&event.to_string());
        assert_eq!(answer.status, 200, "{event}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }
}

fn presence_channels_have_users(shards: usize) {
    let server = options(shards).arg("--presence-grace", "0").start();
    let mut http = Http::connect(&server);
    assert_eq!(http.answer("/apps/1/channels", &[]), json!({"channels": {}}));
    assert_eq!(http.answer("/apps/1/channels/presence-a/users", &[]), json!({"users": []}));
    let users = ["11", "é \"", "11", "12"];
    let mut clients: Vec<Client> = users.iter().map(|user| join(&server, "presence-a", Some(user))).collect();
    let other = join(&server, "presence-b", Some("11"));
    let mut plain = Client::connect(&server);
    plain.subscribe("presence");

    let expected = json!({"users": [{"id": "11"}, {"id": "é \""}, {"id": "12"}]});
    assert_eq!(http.answer("/apps/1/channels/presence-a/users", &[]), expected);
    let all = [("info", "user_count,subscription_count")];
    let expected = json!({"occupied": true, "user_count": 3, "subscription_count": 4});
    assert_eq!(http.answer("/apps/1/channels/presence-a", &all), expected);
    let expected = json!({"channels": {"presence-a": {"user_count": 3}, "presence-b": {"user_count": 1}}});
    let counts = [("filter_by_prefix", "presence-"), ("info", "user_count")];
    assert_eq!(http.answer("/apps/1/channels", &counts), expected);
    let counts = [("filter_by_prefix", "presence-b"), all[0]];
    let expected = json!({"channels": {"presence-b": {"user_count": 1, "subscription_count": 1}}});
    assert_eq!(http.answer("/apps/1/channels", &counts), expected);
    let expected = json!({"channels": {"presence": {}, "presence-a": {}, "presence-b": {}}});
    assert_eq!(http.answer("/apps/1/channels", &[("filter_by_prefix", "presence")]), expected);
    assert_eq!(http.answer("/apps/1/channels", &[("filter_by_prefix", "Presence")]), json!({"channels": {}}));
    for prefix in ["", "presence", "private-"] {
        http.refused("/apps/1/channels", &[("filter_by_prefix", prefix), ("info", "user_count")], 400);
    }
    http.refused("/apps/1/channels", &[("info", "cache")], 400);
    http.refused("/apps/1/channels/presence", &[("info", "user_count")], 400);
    http.refused("/apps/1/channels/presence/users", &[], 400);
    http.refused("/apps/1/channels/presence-a%3Ab/users", &[], 400);

    let event = json!({"name": "e", "channel": "presence-a", "data": "1", "info": "user_count,subscription_count"});
    let expected = json!({"channels": {"presence-a": {"user_count": 3, "subscription_count": 4}}});
    assert_eq!(http.published(&event), expected);
    drop((clients.pop(), other));
    eventually("the members have left", || {
        http.answer("/apps/1/channels/presence-a/users", &[]) == json!({"users": [{"id": "11"}, {"id": "é \""}]})
            && http.answer("/apps/1/channels/presence-b", &all)
                == json!({"occupied": false, "user_count": 0, "subscription_count": 0})
    });
}

fn cache_channels_have_their_last_message(shards: usize) {
    let server = options(shards).config("[[channel]]\nmatch = \"cache-off\"\nhistory = 0\n").start();
    let mut http = Http::connect(&server);
    let info = [("info", "cache")];
    for name in ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"] {
        let path = format!("/apps/1/channels/{name}");
        assert_eq!(http.answer(&path, &info), json!({"occupied": false, "cache": null}));
        for text in [r#"{"id":42}"#, "hello", "", "é\n", " [1,\n2] ", r#""quoted""#, "17"] {
            assert_eq!(http.published(&json!({"name": "e", "channel": name, "data": text})), json!({}));
            let cached = http.answer(&path, &info);
            assert_eq!(cached["cache"]["data"], text, "{cached}");
            let ttl = cached["cache"]["ttl"].as_u64().expect("seconds");
            assert!((1700..=1800).contains(&ttl), "{cached}");
        }
    }
    assert_eq!(http.answer("/apps/1/channels/cache-b", &[("info", "")]), json!({"occupied": false}));
    for name in ["a", "presence-a", "my-cache-a", "cache-off"] {
        http.refused(&format!("/apps/1/channels/{name}"), &info, 400);
    }
    let mut admin = Admin::connect(&server);
    let newest = admin.ok(json!({"command": "channel", "channel": "cache-a", "newest": true}));
    assert_eq!((&newest["newest"]["event"], &newest["newest"]["data"]), (&json!("e"), &json!(17)), "{newest}");
    for (data, text) in [(json!("text"), r#""text""#), (json!({"a": 1}), r#"{"a":1}"#), (Value::Null, "null")] {
        admin.publish("cache-a", "e", data);
        assert_eq!(http.answer("/apps/1/channels/cache-a", &info)["cache"]["data"], text);
    }
}

fn attributes_that_a_channel_does_not_have(shards: usize) {
    let server = options(shards).start();
    let (_first, _second) = (join(&server, "presence-a", Some("1")), join(&server, "presence-a", Some("1")));
    let mut http = Http::connect(&server);
    let names = ["a", "presence-a", "cache-a", "#server-to-user-12"];
    let event = |info: &str| json!({"name": "e", "channels": names, "data": "1", "info": info});
    let expected = json!({"channels": {
        "a": {"subscription_count": 0},
        "presence-a": {"subscription_count": 2, "user_count": 1},
        "cache-a": {"subscription_count": 0},
        "#server-to-user-12": {},
    }});
    assert_eq!(http.published(&event("user_count,subscription_count")), expected);
    let expected =
        json!({"channels": {"a": {}, "presence-a": {"user_count": 1}, "cache-a": {}, "#server-to-user-12": {}}});
    assert_eq!(http.published(&event("user_count")), expected);
    assert_eq!(http.published(&event("")), json!({}));
    assert_eq!(http.publish(&event("colour").to_string()).status, 400);
    let batch = json!({"batch": [
        {"name": "e", "channel": "a", "data": "1", "info": "user_count"},
        {"name": "e", "channel": "presence-a", "data": "1", "info": "user_count"},
        {"name": "e", "channel": "presence-a", "data": "1"},
    ]});
    let answer = http.publish_batch(&batch.to_string());
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"batch":[{},{"user_count":1},{}]}"#));
}

fn an_event_reaches_users_beside_channels(shards: usize) {
    let server = options(shards).start();
    let ids = ["auth0|7", "a@b.example", "é\" /"];
    let mut users: Vec<Client> = ids.iter().map(|id| connect_as(&server, id)).collect();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    for (id, user) in ids.iter().zip(&mut users) {
        let event = json!({"name": "note", "channels": [format!("#server-to-user-{id}")], "data": r#"{"a": 1}"#});
        assert_eq!(http.published(&event), json!({}));
        user.expect(r#"{"event":"note","data":{"a": 1}}"#);
    }
    let channel = format!("#server-to-user-{}", ids[1]);
    let absent = format!("#server-to-user-{}", "x".repeat(200));
    let event = json!({"name": "both", "channels": ["a", channel, absent, "a", channel], "data": "1"});
    assert_eq!(http.published(&event), json!({}));
    client.expect(r#"{"event":"both","channel":"a","data":1}"#);
    users[1].expect(r#"{"event":"both","data":1}"#);
    let exclude = second_spelling(&users[0].socket_id);
    let event = json!({"name": "e", "channel": "#server-to-user-auth0|7", "data": "1", "socket_id": exclude});
    assert_eq!(http.published(&event), json!({}));
    users.iter_mut().for_each(Client::expect_nothing_before_pong);
    client.expect_nothing_before_pong();
    http.refused("/apps/1/channels/%23server-to-user-12", &[], 400);
    assert_eq!(http.answer("/apps/1/channels", &[]), json!({"channels": {"a": {}}}));
}

fn the_connections_of_a_user_are_terminated(shards: usize) {
    // No member of an earlier round leaves meanwhile.
    let server = options(shards).arg("--presence-grace", "3600").start();
    let mut http = Http::connect(&server);
    // Sent as escaped, and signed as escaped or not.
    for (id, escaped, unescaped) in [
        ("12", "12", "12"),
        ("auth0|a b", "auth0%7Ca%20b", "auth0|a b"),
        ("a/b", "a/b", "a/b"),
        ("a%2Fb", "a%252Fb", "a%2Fb"),
        ("users/é/terminate_connections", "users/%C3%A9/terminate_connections", "users/é/terminate_connections"),
    ] {
        for (prefix, signed_id, body) in
            [("/apps/1", escaped, "{}"), ("/apps/1", unescaped, ""), ("", escaped, "anything"), ("", unescaped, "{}")]
        {
            let mut clients = [connect_as(&server, id), connect_as(&server, id)];
            let mut member = join(&server, "presence-room", Some(id));
            let mut other = connect_as(&server, "another");
            let path = |id: &str| format!("{prefix}/users/{id}/terminate_connections");
            let signed = signed("POST", &path(signed_id), &[], body);
            let (_, query) = signed.split_once('?').expect("a query");
            let answer = http.post(&format!("{}?{query}", path(escaped)), body);
            assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{prefix} {signed_id}");
            for client in &mut clients {
                assert_eq!(client.expect_close(4000), "terminated by the backend");
            }
            // Presence alone is not a sign-in.
            member.expect_nothing_before_pong();
            other.expect_nothing_before_pong();
        }
    }
    let path = "/apps/1/users/absent/terminate_connections";
    let answer = http.post(&signed("POST", path, &[], "{}"), "{}");
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    for (status, path) in [
        (404, "/apps/2/users/12/terminate_connections".to_owned()),
        (404, "/apps/1/users/12/terminate".to_owned()),
        (404, "/apps/1/users/terminate_connections".to_owned()),
        (400, format!("/users/{}/terminate_connections", "x".repeat(201))),
    ] {
        assert_eq!(Http::connect(&server).post(&signed("POST", &path, &[], "{}"), "{}").status, status, "{path}");
    }
    for path in ["/apps/1/users/12/terminate_connections", "/users/12/terminate_connections"] {
        assert_eq!(Http::connect(&server).post(path, "{}").status, 401, "{path}");
        assert_eq!(Http::connect(&server).post(&signed("POST", path, &[], "{}"), "other").status, 401, "{path}");
    }
}

fn a_channel_that_is_named_twice_gets_one_message(shards: usize) {
    let server = options(shards).start();
    let mut client = Client::connect(&server);
    let names: Vec<String> = (0..99).map(|number| format!("c{number}")).collect();
    for name in &names {
        client.subscribe(name);
    }
    let mut http = Http::connect(&server);
    let mut listed = names.clone();
    listed.push(names[50].clone());
    assert_eq!(http.published(&json!({"name": "e", "channels": listed, "data": "1"})), json!({}));
    let mut received: Vec<String> = names.iter().map(|_| client.text()).collect();
    received.sort();
    let mut expected: Vec<String> =
        names.iter().map(|name| format!(r#"{{"event":"e","channel":"{name}","data":1}}"#)).collect();
    expected.sort();
    assert_eq!(received, expected);
    client.expect_nothing_before_pong();
    listed.push("a".into());
    assert_eq!(http.publish(&json!({"name": "e", "channels": listed, "data": "1"}).to_string()).status, 400);
}

fn a_batch_is_published_whole_or_not_at_all(shards: usize) {
    let server = options(shards).start();
    let mut client = join(&server, "private-encrypted-a", None);
    client.subscribe("a");
    let sealed = r#"{"nonce":"bm9uY2U=","ciphertext":"Y2lwaGVy"}"#;
    let good = [
        json!({"name": "one", "channel": "private-encrypted-a", "data": sealed}),
        json!({"name": "two", "channel": "private-encrypted-a", "data": sealed}),
    ];
    let mut http = Http::connect(&server);
    for bad in [
        json!({"name": "e", "channel": "a b", "data": "1"}),
        json!({"name": "pusher:e", "channel": "a", "data": "1"}),
        json!({"name": "e", "channel": "a", "data": "\"".repeat(131_072)}),
        json!({"name": "e", "channel": "a", "data": "1", "socket_id": "1"}),
    ] {
        let status = http.publish_batch(&json!({"batch": [good[0], good[1], bad]}).to_string()).status;
        assert!([400, 413].contains(&status), "{status}");
    }
    let published = http.publish_batch(&json!({"batch": good}).to_string());
    assert_eq!((published.status, published.body.as_str()), (200, "{}"));
    for name in ["one", "two"] {
        client.expect(&format!(r#"{{"event":"{name}","channel":"private-encrypted-a","data":{sealed}}}"#));
    }
    client.expect_nothing_before_pong();
    let published = http.publish_batch(r#"{"batch":[]}"#);
    assert_eq!((published.status, published.body.as_str()), (200, "{}"));
}

fn publishers_of_all_kinds_share_one_order(shards: usize) {
    const EACH: usize = 20;
    let server = options(shards).start();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("a"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut http = Http::connect(&server);
            for n in 0..EACH {
                http.published(&json!({"name": "rest", "channel": "a", "data": n.to_string()}));
            }
        });
        scope.spawn(|| {
            let mut http = Http::connect(&server);
            for n in 0..EACH {
                let event = |part: usize| json!({"name": "batch", "channel": "a", "data": (2 * n + part).to_string()});
                assert_eq!(http.publish_batch(&json!({"batch": [event(0), event(1)]}).to_string()).status, 200);
            }
        });
        scope.spawn(|| {
            let mut admin = Admin::connect(&server);
            (0..EACH).for_each(|n| _ = admin.publish("a", "admin", json!(n)));
        });
    });
    let orders: Vec<Vec<String>> =
        clients.iter_mut().map(|client| (0..4 * EACH).map(|_| client.text()).collect()).collect();
    assert!(orders.iter().all(|order| *order == orders[0]));
    for (event, count) in [("rest", EACH), ("batch", 2 * EACH), ("admin", EACH)] {
        let expected: Vec<String> =
            (0..count).map(|n| format!(r#"{{"event":"{event}","channel":"a","data":{n}}}"#)).collect();
        let of_event = |text: &&String| text.starts_with(&format!(r#"{{"event":"{event}""#));
        assert!(orders[0].iter().filter(of_event).eq(&expected), "{event}: {:?}", orders[0]);
    }
}

/// A request as a library sends it.
struct Sent {
    library: &'static str,
    method: &'static str,
    path: &'static str,
    /// Parameters as they are signed, and as they are sent.
    parameters: &'static [(&'static str, &'static str, &'static str)],
    /// Lines of its head.
    head: &'static str,
    body: Option<&'static str>,
    answer: &'static str,
}

const PHP: &str =
    "User-Agent: GuzzleHttp/7\r\nContent-Type: application/json\r\nX-Pusher-Library: pusher-http-php 7.2.7\r\n";
const RUBY: &str =
    "X-Pusher-Library: pusher-http-ruby 2.0.3\r\nUser-Agent: HTTPClient/1.0 (2.9.0, ruby 3.3.0)\r\nAccept: */*\r\n";
const RUBY_POST: &str = "X-Pusher-Library: pusher-http-ruby 2.0.3\r\nContent-Type: application/json\r\nUser-Agent: HTTPClient/1.0 (2.9.0, ruby 3.3.0)\r\nAccept: */*\r\n";
const GO: &str = "User-Agent: Go-http-client/1.1\r\nContent-Type: application/json\r\nX-Pusher-Library: pusher-http-go 5.1.1\r\nAccept-Encoding: gzip\r\n";

const fn get(
    library: &'static str,
    path: &'static str,
    parameters: &'static [(&'static str, &'static str, &'static str)],
    head: &'static str,
    answer: &'static str,
) -> Sent {
    Sent { library, method: "GET", path, parameters, head, body: None, answer }
}

const fn post(
    library: &'static str,
    path: &'static str,
    head: &'static str,
    body: &'static str,
    answer: &'static str,
) -> Sent {
    Sent { library, method: "POST", path, parameters: &[], head, body: Some(body), answer }
}

const COUNTS: &str = r#"{"channels":{"presence-a":{"subscription_count":2,"user_count":1}}}"#;
const ROOM: &str = r#"{"occupied":true,"subscription_count":2,"user_count":1}"#;

/// What pusher-http-php 7.2, pusher-http-ruby 2.0 and pusher-http-go 5.1 send: order of members, escapes and headers are
/// theirs. PHP and Ruby escape commas in the query, Go does not.
#[rustfmt::skip]
const REQUESTS: &[Sent] = &[
    post("php trigger", "/apps/1/events", PHP, r#"{"name":"App\\Events\\Paid","data":"{\"url\":\"a\\\/b\"}","channel":"a"}"#, "{}"),
    post("php trigger text", "/apps/1/events", PHP, r#"{"name":"e","data":"\"hello\"","channels":["a","b"]}"#, "{}"),
    post("php trigger info", "/apps/1/events", PHP, r#"{"name":"e","data":"[]","channel":"presence-a","info":"user_count,subscription_count"}"#, COUNTS),
    post("php batch", "/apps/1/batch_events", PHP, r#"{"batch":[{"name":"e","data":"{\"a\":1}","channel":"a","info":"subscription_count"},{"name":"e","data":"1","channel":"private-encrypted-a"}]}"#, r#"{"batch":[{"subscription_count":1},{}]}"#),
    post("php sendToUser", "/apps/1/events", PHP, r##"{"name":"e","data":"1","channel":"#server-to-user-auth0|7"}"##, "{}"),
    post("php terminate", "/apps/1/users/12/terminate_connections", PHP, "{}", "{}"),
    get("php getChannels", "/apps/1/channels", &[("filter_by_prefix", "presence-", "presence-"), ("info", "user_count", "user_count")], PHP, r#"{"channels":{"presence-a":{"user_count":1}}}"#),
    get("php no channels", "/apps/1/channels", &[("filter_by_prefix", "none", "none")], PHP, r#"{"channels":{}}"#),
    get("php getChannelInfo", "/apps/1/channels/presence-a", &[("info", "user_count,subscription_count", "user_count%2Csubscription_count")], PHP, ROOM),
    get("php getPresenceUsers", "/apps/1/channels/presence-a/users", &[], PHP, r#"{"users":[{"id":"12"}]}"#),
    post("ruby trigger", "/apps/1/events", RUBY_POST, r#"{"info":"user_count,subscription_count","name":"e","channels":["presence-a"],"data":"hello"}"#, COUNTS),
    post("ruby trigger_batch", "/apps/1/batch_events", RUBY_POST, r#"{"batch":[{"channel":"a","name":"e","data":"{\"a\":1}"}]}"#, "{}"),
    get("ruby channels", "/apps/1/channels", &[], RUBY, r#"{"channels":{"a":{},"presence-a":{}}}"#),
    get("ruby channel.info", "/apps/1/channels/a", &[("info", "", "")], RUBY, r#"{"occupied":true}"#),
    get("ruby channel_info", "/apps/1/channels/presence-a", &[("info", "user_count,subscription_count", "user_count%2Csubscription_count")], RUBY, ROOM),
    get("ruby channel_users", "/apps/1/channels/presence-a/users", &[], RUBY, r#"{"users":[{"id":"12"}]}"#),
    post("go Trigger", "/apps/1/events", GO, r#"{"channels":["a"],"data":"{\"html\":\"\\u003cb\\u003e\"}","name":"e"}"#, "{}"),
    post("go TriggerWithParams", "/apps/1/events", GO, r#"{"channels":["presence-a"],"data":"hello","info":"user_count,subscription_count","name":"e","socket_id":"1.2"}"#, COUNTS),
    post("go TriggerBatch", "/apps/1/batch_events", GO, r#"{"batch":[{"channel":"a","name":"e","data":"1"},{"channel":"a","name":"e","data":"d","socket_id":"1.2","info":"subscription_count"}]}"#, r#"{"batch":[{},{"subscription_count":1}]}"#),
    post("go SendToUser", "/apps/1/events", GO, r##"{"channels":["#server-to-user-12"],"data":"1","name":"e"}"##, "{}"),
    get("go Channels", "/apps/1/channels", &[("filter_by_prefix", "presence-", "presence-"), ("info", "user_count", "user_count")], GO, r#"{"channels":{"presence-a":{"user_count":1}}}"#),
    get("go Channel", "/apps/1/channels/presence-a", &[("info", "user_count,subscription_count", "user_count,subscription_count")], GO, ROOM),
    get("go GetChannelUsers", "/apps/1/channels/presence-a/users", &[], GO, r#"{"users":[{"id":"12"}]}"#),
];

impl Sent {
    /// The bytes of the request.
    fn text(&self) -> String {
        let &Sent { method, path, parameters, head, body, .. } = self;
        let (now, digest) = (now_s().to_string(), md5_hex(body.unwrap_or_default()));
        let mut query =
            vec![("auth_key", "app", "app"), ("auth_timestamp", &now, &now), ("auth_version", "1.0", "1.0")];
        query.extend(body.map(|_| ("body_md5", digest.as_str(), digest.as_str())));
        query.extend(parameters);
        query.sort_unstable();
        let joined = |value: fn(&(&str, &str, &str)) -> String| query.iter().map(value).collect::<Vec<_>>().join("&");
        let signed = joined(|(name, signed, _)| format!("{name}={signed}"));
        let sent = joined(|(name, _, sent)| format!("{name}={sent}"));
        let signature = hmac_hex(&format!("{method}\n{path}\n{signed}"));
        let length = body.map_or(String::new(), |body| format!("Content-Length: {}\r\n", body.len()));
        let body = body.unwrap_or_default();
        format!(
            "{method} {path}?{sent}&auth_signature={signature} HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n{head}{length}\r\n{body}"
        )
    }
}

fn libraries_of_other_languages_are_answered(shards: usize) {
    let server = options(shards).start();
    let (_first, _second) = (join(&server, "presence-a", Some("12")), join(&server, "presence-a", Some("12")));
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    for request in REQUESTS {
        http.write(&request.text());
        let response = http.response();
        assert_eq!((response.status, response.body.as_str()), (200, request.answer), "{}", request.library);
        assert!(response.head.to_ascii_lowercase().contains("content-type: application/json"), "{}", request.library);
    }
    // PHP, Ruby and Go.
    for (event, data) in [
        (r"App\\Events\\Paid", r#"{"url":"a\/b"}"#),
        ("e", r#""hello""#),
        ("e", r#"{"a":1}"#),
        ("e", r#"{"a":1}"#),
        ("e", r#"{"html":"\u003cb\u003e"}"#),
        ("e", "1"),
        ("e", r#""d""#),
    ] {
        client.expect(&format!(r#"{{"event":"{event}","channel":"a","data":{data}}}"#));
    }
    client.expect_nothing_before_pong();
}
