//! The console: access, the answer of each path, and names that hostile clients choose.

use crate::harness::{Client, LONG, RawClient, Server, TempDir, eventually};
use crate::http::{Http, Response};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Instant;

const KEY: &str = "an-access-key-for-tests";
const LOCAL: &str = "Host: localhost:9001\r\nCorecast-Console: 1\r\n";

impl Http {
    /// A request of the console's page, with header lines of the test's choice.
    fn console(&mut self, method: &str, path: &str, head: &str, body: &str) -> Response {
        let length = body.len();
        self.write(&format!("{method} /console{path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}"));
        self.response()
    }

    fn asked(&mut self, path: &str) -> Value {
        let answer = self.console("GET", &format!("/api/{path}"), LOCAL, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
        answer.json()
    }

    fn tell(&mut self, path: &str, body: &Value) -> Response {
        self.tell_text(path, &body.to_string())
    }

    pub fn tell_text(&mut self, path: &str, body: &str) -> Response {
        let head = format!("{LOCAL}Content-Type: application/json\r\n");
        self.console("POST", &format!("/api/{path}"), &head, body)
    }
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The code of a refusal. Every refusal must also have a text for people.
    #[track_caller]
    fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("cache-control: no-store"), "{}", self.head);
        let refusal = self.json();
        assert!(!refusal["error"].as_str().expect("error").is_empty());
        refusal["code"].as_str().expect("code").to_owned()
    }
}

fn start() -> Server {
    Server::options(2).arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").start()
}

fn key_file(dir: &TempDir, key: &str) -> PathBuf {
    let path = dir.path().join("console-key");
    std::fs::write(&path, format!("# for the console\n{key}\n")).expect("a temporary file");
    path
}

#[test]
fn on_loopback_the_console_needs_no_key() {
    let server = start();
    let mut http = Http::connect(&server);
    let info = http.asked("info");
    assert_eq!(info["shards"], 2);
    assert_eq!(info["has_key"], false);
    assert_eq!(info["can_sign"], true);
    assert_eq!(info["websocket"]["port"], server.address.port());
    assert_eq!(info["websocket"]["may_connect"], true);
}

#[test]
fn the_page_and_its_files_hold_the_browser_to_a_policy() {
    let server = start();
    let mut http = Http::connect(&server);
    let page = http.console("GET", "", "Host: x\r\n", "");
    assert_eq!(page.status, 200);
    let mut files = vec![String::new()];
    let quoted = page.body.split('"').filter_map(|text| text.strip_prefix("console/"));
    files.extend(quoted.map(|name| format!("/{name}")));
    let main = http.console("GET", "/main.js", "Host: x\r\n", "");
    let quoted = main.body.split('"').filter_map(|text| text.strip_prefix("./"));
    files.extend(quoted.map(|name| format!("/{name}")));
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let answer = http.console("GET", &file, "Host: x\r\n", "");
        assert_eq!(answer.status, 200, "{file}");
        for header in [
            "content-security-policy: default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.head.contains(&format!("{header}\r\n")), "{file}: {header}: {}", answer.head);
        }
        // Markup that the policy would block, and calls that would interpret text as elements.
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "<style",
            "onclick=\"",
            "style=\"",
        ] {
            assert!(!answer.body.contains(forbidden), "{file}: {forbidden}");
        }
    }
    assert_eq!(http.console("GET", "/nothing.js", "Host: x\r\n", "").status, 404);
    assert_eq!(http.console("GET", "/..%2Fmod.rs", "Host: x\r\n", "").status, 404);
    let moved = http.console("GET", "/", "Host: x\r\n", "");
    assert_eq!(moved.status, 308);
    assert!(moved.head.contains("location: ../console\r\n"), "{}", moved.head);
}

#[test]
fn without_a_key_only_loopback_names_and_own_pages_have_access() {
    let server = start();
    let json = "Content-Type: application/json\r\n";
    let socket_id = Client::connect(&server).socket_id.clone();
    let body = json!({"socket_id": socket_id}).to_string();
    for (head, status, code) in [
        ("Host: localhost\r\n", 403, "header_missing"),
        ("Host: evil.example:9001\r\nCorecast-Console: 1\r\n", 403, "not_local"),
        ("Host: 127.0.0.1.evil.example\r\nCorecast-Console: 1\r\n", 403, "not_local"),
        ("Host: localhost:1\r\nCorecast-Console: 1\r\nOrigin: http://evil.example\r\n", 403, "foreign_origin"),
        ("Host: localhost:1\r\nCorecast-Console: 1\r\nOrigin: http://localhost:2\r\n", 403, "foreign_origin"),
        ("Host: localhost:1\r\nCorecast-Console: 1\r\nOrigin: null\r\n", 403, "foreign_origin"),
        ("Host: localhost:1\r\nCorecast-Console: 1\r\nSec-Fetch-Site: cross-site\r\n", 403, "foreign_origin"),
    ] {
        for (method, path) in
            [("GET", "/api/stats"), ("POST", "/api/disconnect"), ("POST", "/api/publish"), ("GET", "/api/x")]
        {
            let refused = Http::connect(&server).console(method, path, &format!("{head}{json}"), &body);
            assert_eq!(refused.refused(status), code, "{method} {path}: {head}");
            assert!(refused.head.contains("content-security-policy"), "{}", refused.head);
            assert!(!refused.head.contains("access-control"), "{}", refused.head);
        }
    }
    // Requests that another page can send without asking the server first: forms and plain text.
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let refused = Http::connect(&server).console("POST", "/api/disconnect", &format!("{LOCAL}{kind}"), &body);
        assert_eq!(refused.refused(415), "not_json");
    }
    let same = format!("{LOCAL}{json}Origin: http://localhost:9001\r\nSec-Fetch-Site: same-origin\r\n");
    let body = json!({"channel": "a", "event": "e"}).to_string();
    assert_eq!(Http::connect(&server).console("POST", "/api/publish", &same, &body).status, 200);
}

#[test]
fn a_configured_key_is_required() {
    let dir = TempDir::new();
    let file = key_file(&dir, KEY);
    let server = Server::options(1).arg("--http", "127.0.0.1:0").arg("--console-key-file", file.display()).start();
    let mut http = Http::connect(&server);
    assert_eq!(http.console("GET", "", "Host: x\r\n", "").status, 200, "the page itself needs no key");
    let host = "Host: ops.example.com\r\nCorecast-Console: 1\r\n";
    for path in ["info", "stats", "channels", "connections", "connections/x", "nothing"] {
        let refused = http.console("GET", &format!("/api/{path}"), host, "");
        assert_eq!(refused.refused(401), "key_required", "{path}");
    }
    for path in ["disconnect", "publish", "sign"] {
        let refused = Http::connect(&server).console("POST", &format!("/api/{path}"), host, "{}");
        assert_eq!(refused.refused(401), "key_required", "{path}");
    }
    let with = |key: &str| format!("{host}Authorization: Bearer {key}\r\n");
    assert_eq!(http.console("GET", "/api/stats", &with(KEY), "").status, 200);
    assert_eq!(
        http.console("GET", "/api/stats", LOCAL, "").refused(401),
        "key_required",
        "this machine needs the key too"
    );
    // Ten tries at once, and one more for each second that they take. Within the next second even the right key is
    // refused.
    let (mut guesses, deadline) = (0, Instant::now() + LONG);
    let refused = loop {
        let guess = http.console("GET", "/api/stats", &with("another-key-of-some-length"), "");
        if guess.status == 401 {
            assert_eq!(guess.refused(401), "key_invalid");
            guesses += 1;
            continue;
        }
        assert!(guesses >= 10, "{guesses}");
        assert_eq!(guess.refused(429), "too_many_tries");
        let refused = http.console("GET", "/api/stats", &with(KEY), "");
        if refused.status != 200 {
            break refused;
        }
        assert!(Instant::now() < deadline, "the right key is never refused");
    };
    assert_eq!(refused.refused(429), "too_many_tries");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    eventually("another try is allowed", || http.console("GET", "/api/stats", &with(KEY), "").status == 200);
    let metrics = http.get("/metrics").body;
    let value =
        |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
    assert_eq!(value("corecast_console_key_failures_total"), Some(guesses));
    assert!(value("corecast_console_throttled_total") >= Some(1));
    assert!(!server.stderr().contains(KEY) && !metrics.contains(KEY));
}

/// Otherwise wrong keys of one client would lock out all clients behind the proxy.
#[test]
fn wrong_keys_behind_a_trusted_proxy_count_for_the_client() {
    let dir = TempDir::new();
    let start = |trusted: &str| {
        let options = Server::options(1).arg("--http", "127.0.0.1:0").arg("--trust-proxy", trusted);
        options.arg("--console-key-file", key_file(&dir, KEY).display()).start()
    };
    let with = |key: &str, client: u8| {
        let forwarded = format!("X-Forwarded-For: 10.9.9.9, 192.0.2.{client}\r\n");
        format!("{LOCAL}Authorization: Bearer {key}\r\n{forwarded}Content-Type: application/json\r\n")
    };
    let guess = |http: &mut Http, client| {
        http.console("GET", "/api/stats", &with("another-key-of-some-length", client), "").status
    };
    let server = start("127.0.0.1");
    let mut http = Http::connect(&server);
    assert!((0..100).all(|client| guess(&mut http, client) == 401));
    assert!((0..100).any(|_| guess(&mut http, 1) == 429));
    let action = json!({"channel": "a", "event": "e"}).to_string();
    assert_eq!(http.console("POST", "/api/publish", &with(KEY, 200), &action).status, 200);
    eventually("the log names the client's address", || server.stderr().contains("192.0.2.200"));

    let server = start("198.51.100.7");
    let mut http = Http::connect(&server);
    assert!((0..100).any(|client| guess(&mut http, client) == 429), "an untrusted peer can choose its address");
}

#[test]
fn beyond_loopback_the_console_is_off_without_a_key() {
    let everywhere = |options: crate::harness::Options| {
        let server = options.arg("--http", "0.0.0.0:0").start();
        assert_eq!(server.http().ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        server
    };
    let server = everywhere(Server::options(1));
    let mut http = Http::connect(&server);
    for path in ["", "/main.js", "/api/stats"] {
        let answer = http.console("GET", path, LOCAL, "");
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("--console-key-file"), "{path}: {}", answer.body);
    }
    eventually("the log names the remedy", || server.stderr().contains("--console-key-file FILE turns the console on"));

    let dir = TempDir::new();
    let server = everywhere(Server::options(1).arg("--console-key-file", key_file(&dir, KEY).display()));
    let mut http = Http::connect(&server);
    assert_eq!(http.console("GET", "", "Host: x\r\n", "").status, 200);
    assert_eq!(http.console("GET", "/api/stats", LOCAL, "").refused(401), "key_required");
    let head = format!("{LOCAL}Authorization: Bearer {KEY}\r\n");
    assert_eq!(http.console("GET", "/api/stats", &head, "").status, 200);
}

#[test]
fn a_reload_turns_the_console_on_and_off() {
    let dir = TempDir::new();
    let file = dir.path().join("corecast.toml");
    std::fs::write(&file, "console = false").expect("a temporary file");
    let server = Server::options(1).arg("--http", "127.0.0.1:0").arg("--config", file.display()).start();
    let mut http = Http::connect(&server);
    let answer = http.console("GET", "", LOCAL, "");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("--console on"), "{}", answer.body);
    assert_eq!(http.console("GET", "/api/stats", LOCAL, "").refused(404), "no_console");

    std::fs::write(&file, "").expect("a temporary file");
    assert!(server.run(&["reload"]).status.success());
    assert_eq!(http.console("GET", "/api/stats", LOCAL, "").status, 200);

    let key = key_file(&dir, KEY);
    std::fs::write(&file, format!("console-key-file = {key:?}")).expect("a temporary file");
    let reloaded = server.run(&["reload"]);
    assert!(reloaded.status.success());
    assert!(String::from_utf8_lossy(&reloaded.stdout).contains("console-key-file"), "{reloaded:?}");
    assert_eq!(http.console("GET", "/api/stats", LOCAL, "").refused(401), "key_required");
    key_file(&dir, "another-access-key-for-tests");
    assert!(String::from_utf8_lossy(&server.run(&["reload"]).stdout).contains("(another key)"));
    let with = |key: &str| format!("{LOCAL}Authorization: Bearer {key}\r\n");
    assert_eq!(http.console("GET", "/api/stats", &with(KEY), "").refused(401), "key_invalid");
    assert_eq!(http.console("GET", "/api/stats", &with("another-access-key-for-tests"), "").status, 200);
}

#[test]
fn stats_are_those_of_the_shards() {
    let server = start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    eventually("counted", || {
        let answer = http.asked("stats");
        let shards = answer["shards"].as_array().expect("shards");
        assert_eq!(shards.len(), 2);
        let sum: u64 = shards.iter().map(|shard| shard["connections"].as_u64().expect("a number")).sum();
        assert_eq!(answer["stats"]["connections"], sum);
        assert!(answer["stats"]["written_us_to_4"].is_u64() && answer["process"]["resident_bytes"].is_u64());
        sum == 1 && answer["stats"]["subscriptions"] == 1
    });
    // Within half a second all requests get the same numbers.
    let first = http.asked("stats")["at_ms"].clone();
    eventually("asked anew", || http.asked("stats")["at_ms"] != first);
    let requests = |http: &mut Http| http.asked("stats")["stats"]["admin_requests"].as_u64().expect("a number");
    let before = requests(&mut http);
    for _ in 0..200 {
        http.asked("stats");
    }
    assert!(requests(&mut http) - before < 100);
}

#[test]
fn channels_are_listed_and_searched() {
    let server = start();
    let mut client = Client::connect(&server);
    for n in 0..60 {
        client.subscribe(&format!("room:{n:02}"));
    }
    client.subscribe("Needle/in;hay");
    let mut http = Http::connect(&server);
    let names = |answer: &Value| -> Vec<String> {
        let entries = answer["channels"].as_array().expect("channels");
        let mut names: Vec<String> =
            entries.iter().map(|entry| entry["channel"].as_str().expect("a name").to_owned()).collect();
        names.sort_unstable();
        names
    };
    let first = http.asked("channels");
    assert_eq!(names(&first).len(), 50);
    let next = first["next"].as_str().expect("there are more");
    let rest = http.asked(&format!("channels?after={next}"));
    assert_eq!((names(&rest).len(), &rest["next"]), (11, &Value::Null));
    assert_eq!(names(&http.asked("channels?limit=7")).len(), 7);
    assert_eq!(names(&http.asked("channels?prefix=room:1&limit=100")).len(), 10);
    let found = http.asked("channels?contains=NEEDLE/IN%3Bh");
    assert_eq!(found["channels"], json!([{"channel": "Needle/in;hay", "subscribers": 1}]));
    assert_eq!(found["searched"], 61);
    assert_eq!(names(&http.asked("channels?contains=room:1&prefix=room:")).len(), 10);
    assert_eq!(names(&http.asked("channels?contains=%3Cscript%3E")), [""; 0]);
    for query in ["limit=0", "limit=1001", "limit=x", "after=x", "after=9-0"] {
        let refused = http.console("GET", &format!("/api/channels?{query}"), LOCAL, "");
        assert_eq!(refused.refused(400), "malformed_request", "{query}");
    }
}

#[test]
fn the_busiest_channels_and_addresses_are_listed() {
    // Connections of this machine are counted only if their number is limited.
    let options = Server::options(2).arg("--http", "127.0.0.1:0").arg("--max-connections-per-address", "9");
    let server = options.start();
    let (mut one, mut other) = (Client::connect(&server), Client::connect(&server));
    one.subscribe("many");
    other.subscribe("many");
    other.subscribe("loud");
    let mut http = Http::connect(&server);
    for _ in 0..3 {
        assert_eq!(http.tell("publish", &json!({"channel": "loud", "event": "e"})).status, 200);
    }
    let (many, loud) = (json!(["many", 2, 0]), json!(["loud", 1, 3]));
    let channels = |answer: &Value| -> Vec<Value> {
        let entries = answer["channels"].as_array().expect("channels").iter();
        entries.map(|entry| json!([entry["channel"], entry["subscribers"], entry["messages"]])).collect()
    };
    let first = http.asked("busiest");
    assert_eq!(channels(&first), [many.clone(), loud.clone()]);
    assert_eq!(first["addresses"], json!([{"address": "127.0.0.1", "connections": 2}]));
    let second = http.asked("busiest?by=messages&limit=10");
    assert_eq!(channels(&second), [loud, many.clone()]);
    assert!(second["at_ms"].as_u64() >= first["at_ms"].as_u64(), "{first} {second}");
    assert_eq!(channels(&http.asked("busiest?by=subscribers&limit=1")), [many]);
    for query in ["limit=0", "limit=1001", "by=", "by=%22,%22x"] {
        let refused = http.console("GET", &format!("/api/busiest?{query}"), LOCAL, "");
        assert_eq!(refused.refused(400), "malformed_request", "{query}");
    }
}

#[test]
fn connections_are_listed_shown_and_closed() {
    let server = start();
    let (mut one, mut other) = (RawClient::connect(&server), Client::connect(&server));
    other.subscribe("a");
    let mut http = Http::connect(&server);
    let listed = http.asked("connections");
    let entries = listed["connections"].as_array().expect("connections");
    assert_eq!(entries.len(), 2);
    let found = http.asked(&format!("connections?contains={}", &other.socket_id[..13].to_ascii_uppercase()));
    assert_eq!(found["connections"][0]["socket_id"], other.socket_id);
    assert_eq!(found["connections"].as_array().map(Vec::len), Some(1));
    assert_eq!(http.asked("connections?contains=127.0.0.1")["connections"].as_array().map(Vec::len), Some(2));
    let details = http.asked(&format!("connections/{}", other.socket_id));
    assert_eq!(details["channels"], json!(["a"]));
    assert_eq!(http.console("GET", "/api/connections/none", LOCAL, "").refused(404), "not_found");

    let socket_id = entries.iter().map(|entry| &entry["socket_id"]).find(|id| **id != other.socket_id);
    let body = json!({"socket_id": socket_id, "code": 4105, "reason": "über"});
    assert_eq!(http.tell("disconnect", &body).status, 200);
    one.expect_close(4105);
    one.finish_writing();
    eventually("gone", || http.tell("disconnect", &body).status == 404);
    for (body, status, code) in [
        (json!({}), 400, "missing_member"),
        (json!({"socket_id": 7}), 400, "malformed_request"),
        (json!({"socket_id": "x"}), 404, "not_found"),
        (json!({"socket_id": "x", "cod": 4000}), 400, "malformed_request"),
        (json!({"socket_id": other.socket_id, "code": 1000}), 400, "malformed_request"),
        (json!({"socket_id": other.socket_id, "reason": "x".repeat(124)}), 413, "too_large"),
    ] {
        assert_eq!(http.tell("disconnect", &body).refused(status), code, "{body}");
    }
    other.expect_nothing_before_pong();
    eventually("it is in the log", || server.stderr().contains("disconnected over the console"));
}

#[test]
fn subscribers_are_listed_and_unknown_parameters_refused() {
    let server = start();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
    clients[1..].iter_mut().for_each(|client| client.subscribe("user:13"));
    let mut http = Http::connect(&server);
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.asked(&format!("subscribers?channel=user:13&limit=3{after}"));
        found.extend(page["subscribers"].as_array().expect("a list").iter().map(|row| row["socket_id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    found.sort_by_key(ToString::to_string);
    let mut expected: Vec<&str> = clients[1..].iter().map(|client| client.socket_id.as_str()).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let one = http.asked(&format!("subscribers?channel=user:13&contains={}", clients[2].socket_id));
    assert_eq!(one["subscribers"].as_array().map(Vec::len), Some(1));
    for (path, code) in [
        ("subscribers", "missing_member"),
        ("subscribers?channel=not+legal", "invalid_channel"),
        ("subscribers?chanel=a", "malformed_request"),
        ("connections?limit=0", "malformed_request"),
        ("busiest?bye=messages", "malformed_request"),
    ] {
        let path = format!("/api/{path}");
        assert_eq!(http.console("GET", &path, LOCAL, "").refused(400), code, "{path}");
    }
    for path in ["/api/stats/x", "/api/tail", "/api/disconnects"] {
        assert_eq!(http.console("GET", path, LOCAL, "").refused(404), "not_found", "{path}");
    }
}

#[test]
fn published_data_arrives_as_written() {
    let server = start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    // Numbers beyond any type, and line breaks between tokens.
    let head = format!("{LOCAL}Content-Type: application/json; charset=utf-8\r\n");
    let body = "{\"channel\":\"a\",\n\"event\":\"</script>\\n\",\r\n\"data\":{\"n\":\r\n12345678901234567890.10}}";
    let published = http.console("POST", "/api/publish", &head, body);
    assert_eq!((published.status, published.json()), (200, json!({"subscribers": 1})));
    client.expect("{\"event\":\"</script>\\n\",\"channel\":\"a\",\"data\":{\"n\":\r\n12345678901234567890.10}}");
    let logged = |name: &str| server.stderr().lines().filter(|line| line.contains(name)).count();
    eventually("the log has it on one line", || logged("channel=a event=\"</script>\\n\"") == 1);
    let excluded = json!({"channel": "a", "event": "e", "data": null, "exclude": client.socket_id});
    assert_eq!(http.tell("publish", &excluded).json(), json!({"subscribers": 0}));
    for (body, status, code) in [
        (json!({"channel": "a"}), 400, "missing_member"),
        (json!({"channel": "a", "event": "e", "exlude": "x"}), 400, "malformed_request"),
        (json!({"channel": "a b", "event": "e"}), 400, "invalid_channel"),
        (json!({"channel": "a", "event": "socket:e"}), 400, "reserved_event"),
        (json!({"channel": "a", "event": "e", "exclude": "x"}), 400, "malformed_request"),
        (json!({"channel": "a", "event": "e", "data": "x".repeat(256 * 1024)}), 413, "too_large"),
    ] {
        assert_eq!(http.tell("publish", &body).refused(status), code, "{body:.100}");
    }
    let refused = Http::connect(&server).tell("publish", &json!({"data": "x".repeat(1024 * 1024)}));
    assert_eq!(refused.refused(413), "too_large");
    client.expect_nothing_before_pong();
}

#[test]
fn the_console_signs_for_private_channels() {
    let server = start();
    let mut client = Client::connect(&server);
    let mut http = Http::connect(&server);
    let signed = http.tell("sign", &json!({"socket_id": client.socket_id, "channel": "private-a"}));
    assert_eq!(signed.status, 200, "{}", signed.body);
    let data = json!({"channel": "private-a", "auth": signed.json()["auth"]});
    client.send(&json!({"event": "socket:subscribe", "data": data}).to_string());
    client.expect(r#"{"event":"socket:subscribed","channel":"private-a"}"#);
    for (body, code) in [
        (json!({"socket_id": "x", "channel": "private-a"}), "malformed_request"),
        (json!({"socket_id": "1.1:private-victim", "channel": "private-a"}), "malformed_request"),
        (json!({"socket_id": "POST\n/apps/1/events\nauth_key=k&z=", "channel": "private-a"}), "malformed_request"),
        (json!({"socket_id": client.socket_id, "channel": "private-a:b"}), "invalid_channel"),
        (json!({"channel": "private-a"}), "malformed_request"),
    ] {
        assert_eq!(http.tell("sign", &body).refused(400), code, "{body}");
    }
    assert!(!signed.body.contains("hunter2") && !server.stderr().contains("hunter2"));
    let keyless = Server::options(1).arg("--http", "127.0.0.1:0").start();
    let body = json!({"socket_id": client.socket_id, "channel": "private-a"});
    assert_eq!(Http::connect(&keyless).tell("sign", &body).refused(409), "no_key");
}

#[test]
fn unknown_paths_and_wrong_methods_are_refused() {
    let server = start();
    for (method, path, status, code) in [
        ("GET", "/api/nothing", 404, "not_found"),
        ("POST", "/api/stats", 405, "wrong_method"),
        ("GET", "/api/disconnect", 405, "wrong_method"),
        ("DELETE", "/api/connections/x", 405, "wrong_method"),
        ("OPTIONS", "/api/publish", 405, "wrong_method"),
    ] {
        let refused = Http::connect(&server).console(method, path, LOCAL, "");
        assert_eq!(refused.refused(status), code, "{method} {path}");
    }
}

#[test]
fn pages_are_told_whether_they_may_connect() {
    let options = Server::options(1).arg("--http", "127.0.0.1:0").arg("--path", "/ws");
    let server = options.arg("--allow-origin", "https://app.example.com").start();
    let mut http = Http::connect(&server);
    let websocket = |http: &mut Http, origin: &str| http.asked(&format!("info?origin={origin}"))["websocket"].clone();
    let refused = websocket(&mut http, "http%3A%2F%2Flocalhost%3A9001");
    assert_eq!((&refused["may_connect"], &refused["path"]), (&json!(false), &json!("/ws")));
    assert_eq!(websocket(&mut http, "https%3A%2F%2Fapp.example.com")["may_connect"], true);
}
