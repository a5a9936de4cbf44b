//! The console: access, the answer of each path, and names that hostile clients choose.

use crate::harness::{Admin, Client, LONG, RawClient, Server, TempDir, eventually, for_shards, output, write_script};
use crate::http::{Http, Response, metric};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

const KEY: &str = "an-access-key-for-tests";
const LOCAL: &str = "Host: localhost:9001\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

impl Http {
    /// A request of the console's page, with header lines of the test's choice.
    fn console(&mut self, method: &str, path: &str, head: &str, body: &str) -> Response {
        let length = body.len();
        self.write(&format!("{method} /console{path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}"));
        self.response()
    }

    /// Exchanges the token of a link.
    fn exchange(&mut self, token: &str) -> Response {
        self.console("POST", "/api/token", &format!("{LOCAL}{}", bearer(token)), "")
    }
}

/// The page of the console, with the token of a session.
pub struct Page {
    http: Http,
    head: String,
}

impl Page {
    pub fn open(server: &Server) -> Page {
        Page::opened(server, false)
    }

    fn opened(server: &Server, read_only: bool) -> Page {
        let link = link(server, read_only);
        let exchanged = connect(server).exchange(&link);
        assert_eq!(exchanged.status, 200, "{}", exchanged.body);
        Page::with(server, exchanged.json()["token"].as_str().expect("a token"))
    }

    /// A page with this token or key.
    fn with(server: &Server, token: &str) -> Page {
        Page { http: connect(server), head: format!("{LOCAL}{}", bearer(token)) }
    }

    fn get(&mut self, path: &str) -> Response {
        self.http.console("GET", &format!("/api/{path}"), &self.head, "")
    }

    fn asked(&mut self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
        answer.json()
    }

    fn tell(&mut self, path: &str, body: &Value) -> Response {
        self.tell_text(path, &body.to_string())
    }

    pub fn tell_text(&mut self, path: &str, body: &str) -> Response {
        self.http.console("POST", &format!("/api/{path}"), &format!("{}{JSON}", self.head), body)
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
        assert_eq!(self.head.contains("www-authenticate: Bearer"), status == 401, "{}", self.head);
        let refusal = self.json();
        assert!(!refusal["error"].as_str().expect("error").is_empty());
        refusal["code"].as_str().expect("code").to_owned()
    }
}

/// A connection that stays open until a request: the server closes those that send nothing for 5 s after they are accepted.
fn connect(server: &Server) -> Http {
    let mut http = Http::connect(server);
    assert_eq!(http.get("/live").status, 200);
    http
}

fn start() -> Server {
    Server::options(2).arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").start()
}

fn key_file(dir: &TempDir, key: &str) -> PathBuf {
    let path = dir.path().join("console-key");
    std::fs::write(&path, format!("# for the console\n{key}\n")).expect("a temporary file");
    path
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The token of a new link.
fn link(server: &Server, read_only: bool) -> String {
    let request = json!({"id": 1, "command": "console_token", "read_only": read_only});
    let reply = Admin::connect(server).ok(request);
    assert_eq!(reply["url"], format!("http://{}/console", server.http()));
    reply["token"].as_str().expect("a token").to_owned()
}

/// A proxy on this machine makes every client local, and nginx sends the upstream's name as `Host` by default.
#[test]
fn without_a_token_nothing_is_answered() {
    let server = start();
    let port = server.http().port();
    let socket_id = Client::connect(&server).socket_id.clone();
    let body = json!({"socket_id": socket_id}).to_string();
    let mut heads =
        vec![format!("Host: 127.0.0.1:{port}\r\nX-Forwarded-For: 203.0.113.7\r\nX-Real-IP: 203.0.113.7\r\n")];
    for host in ["localhost", "127.0.0.1", "[::1]", "ops.example.com"] {
        heads.push(format!("Host: {host}:{port}\r\n"));
        heads
            .push(format!("Host: {host}\r\nX-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1;host=localhost\r\n"));
        heads.push(format!(
            "Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\nCorecast-Console: 1\r\n"
        ));
    }
    for head in &heads {
        for (method, path) in
            [("GET", "info"), ("GET", "stats"), ("GET", "channels"), ("GET", "connections/x"), ("GET", "x")]
        {
            let refused = Http::connect(&server).console(method, &format!("/api/{path}"), head, "");
            assert_eq!(refused.refused(401), "token_required", "{method} {path}: {head}");
        }
        for path in ["disconnect", "publish", "sign", "token"] {
            let refused =
                Http::connect(&server).console("POST", &format!("/api/{path}"), &format!("{head}{JSON}"), &body);
            assert_eq!(refused.refused(401), "token_required", "POST {path}: {head}");
        }
    }
    // As nginx's proxy_pass sends a request.
    let mut http = connect(&server);
    http.write(&format!("GET /console/api/stats HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"));
    assert_eq!(http.response().refused(401), "token_required");
    assert_eq!(Page::open(&server).asked("connections")["connections"], json!([]));
}

for_shards!(a_link_opens_the_console_once, a_channel_is_shown_with_its_rule, members_are_shown);

fn a_link_opens_the_console_once(shards: usize) {
    let server = Server::options(shards).arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").start();
    let (link, mut http) = (link(&server, false), connect(&server));
    assert_eq!(Page::with(&server, &link).get("stats").refused(401), "token_invalid", "a link is not a session");
    assert_eq!(
        http.console("GET", "/api/token", &format!("{LOCAL}{}", bearer(&link)), "").refused(405),
        "wrong_method"
    );
    let first = http.exchange(&link);
    assert_eq!(first.status, 200, "{}", first.body);
    assert!(first.head.contains("cache-control: no-store"), "{}", first.head);
    let first = first.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(http.exchange(&link).refused(401), "token_invalid");
    assert_eq!(http.exchange(&first).refused(401), "token_invalid");
    let mut page = Page::with(&server, &first);
    let info = page.asked("info");
    assert_eq!((&info["shards"], &info["read_only"], &info["can_sign"]), (&json!(shards), &json!(false), &json!(true)));
    assert_eq!(info["websocket"]["port"], server.address.port());
    assert_eq!(info["websocket"]["may_connect"], true);
    assert_eq!(page.tell("publish", &json!({"channel": "a", "event": "e"})).status, 200);
    assert_eq!(metric(&server, "corecast_console_links_total"), 1);
    assert_eq!(metric(&server, "corecast_console_sessions_total"), 1);
    assert_eq!(metric(&server, "corecast_console_key_failures_total"), 3);
    assert_eq!(metric(&server, "corecast_console_tokens_dropped_total"), 0);
    let log = server.stderr();
    assert!(!log.contains(&link) && !log.contains(&first), "{log}");
}

#[test]
fn a_read_only_session_has_get_alone() {
    let server = start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut page = Page::opened(&server, true);
    assert_eq!(page.asked("info")["read_only"], true);
    assert_eq!(page.asked("channels")["channels"], json!([{"channel": "a", "subscribers": 1}]));
    for path in ["publish", "disconnect", "sign", "stats", "x"] {
        let body = json!({"channel": "a", "event": "e", "socket_id": client.socket_id});
        // An unread body ends the connection.
        page.http = connect(&server);
        assert_eq!(page.tell(path, &body).refused(403), "read_only", "{path}");
    }
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let answer = Http::connect(&server).console(method, "/api/publish", &page.head, "");
        assert_eq!(answer.status, 403, "{method}");
    }
    client.expect_nothing_before_pong();
}

#[test]
fn the_last_64_links_work() {
    let server = start();
    let mut admin = Admin::connect(&server);
    let tokens: Vec<Value> =
        (0..65).map(|id| admin.ok(json!({"id": id, "command": "console_token"}))["token"].clone()).collect();
    let mut http = connect(&server);
    assert_eq!(http.exchange(tokens[0].as_str().expect("a token")).refused(401), "token_invalid");
    assert_eq!(http.exchange(tokens[1].as_str().expect("a token")).status, 200);
    assert_eq!(metric(&server, "corecast_console_tokens_dropped_total"), 1);
}

#[test]
fn the_command_prints_a_link_and_opens_it() {
    let server = start();
    let printed = server.run(&["console", "--read-only"]);
    assert!(printed.status.success(), "{printed:?}");
    let link = String::from_utf8(printed.stdout).expect("UTF-8");
    let (url, token) = link.trim_end().split_once("#token=").expect("a fragment");
    assert_eq!(url, format!("http://{}/console", server.http()));
    let session = Http::connect(&server).exchange(token).json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(Page::with(&server, &session).asked("info")["read_only"], true);
    let json = server.run(&["console", "--json"]);
    let reply: Value = serde_json::from_slice(&json.stdout).expect("one line of JSON");
    assert_eq!((&reply["ok"], reply["token"].as_str().map(str::len)), (&json!(true), Some(64)));

    let dir = TempDir::new();
    let browser = |script: &str| {
        let program = dir.path().join(if cfg!(target_os = "macos") { "open" } else { "xdg-open" });
        write_script(&program, &format!("#!/bin/sh\n{script}\n"));
        let mut command = crate::harness::corecast(&["console", "--open"]);
        command.arg("--admin-socket").arg(&server.admin_path).env("PATH", dir.path());
        output(command, b"")
    };
    let opened = browser(r#"echo "open: $*""#);
    assert!(opened.status.success(), "{opened:?}");
    let said = String::from_utf8_lossy(&opened.stdout);
    let (link, opened) = said.split_once("\nopen: ").expect("the link, and the browser");
    assert!(link.starts_with(url) && link == opened.trim_end(), "{said}");
    let failed = browser("exit 3");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("open the link yourself"), "{failed:?}");
    assert!(String::from_utf8_lossy(&failed.stdout).starts_with(url), "{failed:?}");
}

#[test]
fn without_a_console_the_command_names_the_remedy() {
    let check = |options: &[(&str, &str)], remedy: &str| {
        let server = options.iter().fold(Server::options(1), |server, (name, value)| server.arg(name, value)).start();
        let refused = server.run(&["console"]);
        assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(1), &b""[..]), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("not_found: the console") && said.contains(remedy), "{said}");
    };
    check(&[("--http", "off")], "--http ADDR:PORT starts it");
    check(&[("--http", "127.0.0.1:0"), ("--console", "off")], "--console on starts it");
}

#[test]
fn a_restart_ends_links_and_sessions() {
    let dir = TempDir::new();
    let socket = dir.path().join("admin.sock");
    let start = |http: &str| Server::options(1).admin_socket(&socket).arg("--http", http).start();
    let mut server = start("127.0.0.1:0");
    let (unused, page) = (link(&server, false), Page::open(&server));
    server.terminate();
    let server = start("127.0.0.1:0");
    assert_eq!(Http::connect(&server).exchange(&unused).refused(401), "token_invalid");
    let answer = Http::connect(&server).console("GET", "/api/stats", &page.head, "");
    assert_eq!(answer.refused(401), "token_invalid");
    assert_eq!(Page::open(&server).get("stats").status, 200);
}

#[test]
fn the_page_and_its_files_hold_the_browser_to_a_policy() {
    let server = start();
    let mut http = connect(&server);
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
fn requests_of_other_pages_are_refused() {
    let server = start();
    let body = json!({"socket_id": Client::connect(&server).socket_id}).to_string();
    let mut page = Page::open(&server);
    let links = [(); 3].map(|()| link(&server, false));
    for (origin, link) in
        ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"].iter().zip(&links)
    {
        for (method, path) in
            [("GET", "/api/stats"), ("POST", "/api/disconnect"), ("POST", "/api/publish"), ("GET", "/api/x")]
        {
            let refused = Http::connect(&server).console(method, path, &format!("{}{origin}{JSON}", page.head), &body);
            assert_eq!(refused.refused(403), "foreign_origin", "{method} {path}: {origin}");
            assert!(refused.head.contains("content-security-policy"), "{}", refused.head);
            assert!(!refused.head.contains("access-control"), "{}", refused.head);
        }
        let refused = page.http.console("POST", "/api/token", &format!("{LOCAL}{origin}{}", bearer(link)), "");
        assert_eq!(refused.refused(403), "foreign_origin");
        assert_eq!(page.http.exchange(link).status, 200, "the link is not used up");
    }
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let refused = Http::connect(&server).console("POST", "/api/disconnect", &format!("{}{kind}", page.head), &body);
        assert_eq!(refused.refused(415), "not_json");
    }
    let same = format!("{}{JSON}Origin: http://localhost:9001\r\nSec-Fetch-Site: same-origin\r\n", page.head);
    let body = json!({"channel": "a", "event": "e"}).to_string();
    assert_eq!(page.http.console("POST", "/api/publish", &same, &body).status, 200);
}

#[test]
fn a_configured_key_opens_the_console_too() {
    let dir = TempDir::new();
    let file = key_file(&dir, KEY);
    let server = Server::options(1).arg("--http", "127.0.0.1:0").arg("--console-key-file", file.display()).start();
    let mut http = connect(&server);
    assert_eq!(http.console("GET", "", "Host: x\r\n", "").status, 200, "the page itself needs no key");
    let host = "Host: ops.example.com\r\n";
    for path in ["info", "stats", "channels", "connections", "connections/x", "nothing"] {
        let refused = http.console("GET", &format!("/api/{path}"), host, "");
        assert_eq!(refused.refused(401), "token_required", "{path}");
    }
    let with = |key: &str| format!("{host}{}", bearer(key));
    assert_eq!(http.console("GET", "/api/stats", &with(KEY), "").status, 200);
    assert_eq!(Page::with(&server, KEY).asked("info")["read_only"], false);
    let mut page = Page::open(&server);
    // Ten tries at once, and one more for each second that they take. Within the next second even the right key is
    // refused, but sessions go on.
    let (mut guesses, deadline) = (0, Instant::now() + LONG);
    let refused = loop {
        let guess = http.console("GET", "/api/stats", &with("another-key-of-some-length"), "");
        if guess.status == 401 {
            assert_eq!(guess.refused(401), "token_invalid");
            guesses += 1;
            continue;
        }
        assert!(guesses >= 10, "{guesses}");
        assert_eq!(guess.refused(429), "too_many_tries");
        assert_eq!(page.get("stats").status, 200);
        let refused = http.console("GET", "/api/stats", &with(KEY), "");
        if refused.status != 200 {
            break refused;
        }
        assert!(Instant::now() < deadline, "the right key is never refused");
    };
    assert_eq!(refused.refused(429), "too_many_tries");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    eventually("another try is allowed", || http.console("GET", "/api/stats", &with(KEY), "").status == 200);
    assert_eq!(metric(&server, "corecast_console_key_failures_total"), guesses);
    assert!(metric(&server, "corecast_console_throttled_total") >= 1);
    assert!(!server.stderr().contains(KEY) && !http.get("/metrics").body.contains(KEY));
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
    let mut http = connect(&server);
    assert!((0..100).all(|client| guess(&mut http, client) == 401));
    assert!((0..100).any(|_| guess(&mut http, 1) == 429));
    let action = json!({"channel": "a", "event": "e"}).to_string();
    assert_eq!(http.console("POST", "/api/publish", &with(KEY, 200), &action).status, 200);
    eventually("the log names the client's address", || server.stderr().contains("192.0.2.200"));

    let server = start("198.51.100.7");
    let mut http = connect(&server);
    assert!((0..100).any(|client| guess(&mut http, client) == 429), "an untrusted peer can choose its address");
}

#[test]
fn beyond_loopback_it_needs_a_token_too() {
    let server = Server::options(1).arg("--http", "0.0.0.0:0").start();
    let mut http = connect(&server);
    assert_eq!(http.console("GET", "", "Host: x\r\n", "").status, 200);
    assert_eq!(http.console("GET", "/api/stats", LOCAL, "").refused(401), "token_required");
    let printed = server.run(&["console"]);
    let link = String::from_utf8_lossy(&printed.stdout);
    let url = format!("http://127.0.0.1:{}/console", server.http().port());
    let token = link.trim_end().strip_prefix(&format!("{url}#token=")).unwrap_or_else(|| panic!("{link}"));
    assert_eq!(http.exchange(token).status, 200);
    eventually("the log says how to open it", || {
        server.stderr().contains(&format!("{url}; `corecast console` prints"))
    });
}

#[test]
fn a_reload_turns_the_console_on_and_off() {
    let dir = TempDir::new();
    let server = Server::options(1).arg("--http", "127.0.0.1:0").config("console = false").start();
    let mut http = connect(&server);
    let answer = http.console("GET", "", LOCAL, "");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("--console on"), "{}", answer.body);
    assert_eq!(http.console("GET", "/api/stats", LOCAL, "").refused(404), "no_console");
    assert_eq!(http.exchange("x").refused(404), "no_console");

    server.write_config("");
    assert!(server.run(&["reload"]).status.success());
    let (mut page, unused) = (Page::open(&server), link(&server, false));
    assert_eq!(page.get("stats").status, 200);

    let key = key_file(&dir, KEY);
    server.write_config(format!("console-key-file = {key:?}"));
    let reloaded = server.run(&["reload"]);
    assert!(reloaded.status.success());
    assert!(String::from_utf8_lossy(&reloaded.stdout).contains("console-key-file"), "{reloaded:?}");
    assert_eq!(page.get("stats").status, 200, "a reload keeps sessions");
    key_file(&dir, "another-access-key-for-tests");
    assert!(String::from_utf8_lossy(&server.run(&["reload"]).stdout).contains("(another key)"));
    assert_eq!(Page::with(&server, KEY).get("stats").refused(401), "token_invalid");
    assert_eq!(Page::with(&server, "another-access-key-for-tests").get("stats").status, 200);

    for text in ["console = false", ""] {
        server.write_config(text);
        assert!(server.run(&["reload"]).status.success());
    }
    assert_eq!(page.get("stats").refused(401), "token_invalid", "turning it off ends all sessions");
    assert_eq!(http.exchange(&unused).refused(401), "token_invalid");
}

#[test]
fn stats_are_those_of_the_shards() {
    let server = start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut page = Page::open(&server);
    eventually("counted", || {
        let answer = page.asked("stats");
        let shards = answer["shards"].as_array().expect("shards");
        assert_eq!(shards.len(), 2);
        let sum: u64 = shards.iter().map(|shard| shard["connections"].as_u64().expect("a number")).sum();
        assert_eq!(answer["stats"]["connections"], sum);
        assert!(answer["stats"]["written_us_to_4"].is_u64() && answer["process"]["resident_bytes"].is_u64());
        sum == 1 && answer["stats"]["subscriptions"] == 1
    });
    // Within half a second all requests get the same numbers.
    let first = page.asked("stats")["at_ms"].clone();
    eventually("asked anew", || page.asked("stats")["at_ms"] != first);
    let requests = |page: &mut Page| page.asked("stats")["stats"]["admin_requests"].as_u64().expect("a number");
    let before = requests(&mut page);
    for _ in 0..200 {
        page.asked("stats");
    }
    assert!(requests(&mut page) - before < 100);
}

#[test]
fn channels_are_listed_and_searched() {
    let server = start();
    let mut client = Client::connect(&server);
    for n in 0..60 {
        client.subscribe(&format!("room:{n:02}"));
    }
    client.subscribe("Needle/in;hay");
    let mut page = Page::open(&server);
    let names = |answer: &Value| -> Vec<String> {
        let entries = answer["channels"].as_array().expect("channels");
        let mut names: Vec<String> =
            entries.iter().map(|entry| entry["channel"].as_str().expect("a name").to_owned()).collect();
        names.sort_unstable();
        names
    };
    let first = page.asked("channels");
    assert_eq!(names(&first).len(), 50);
    let next = first["next"].as_str().expect("there are more");
    let rest = page.asked(&format!("channels?after={next}"));
    assert_eq!((names(&rest).len(), &rest["next"]), (11, &Value::Null));
    assert_eq!(names(&page.asked("channels?limit=x&limit=7")).len(), 7);
    assert_eq!(names(&page.asked("channels?prefix=room:1&limit=100")).len(), 10);
    let found = page.asked("channels?contains=NEEDLE/IN%3Bh");
    assert_eq!(found["channels"], json!([{"channel": "Needle/in;hay", "subscribers": 1}]));
    assert_eq!(found["searched"], 61);
    assert_eq!(names(&page.asked("channels?contains=room:1&prefix=room:")).len(), 10);
    assert_eq!(names(&page.asked("channels?contains=%3Cscript%3E")), [""; 0]);
    for query in ["limit=0", "limit=1001", "limit=x", "limit=%2B7", "after=x", "after=9-0"] {
        let refused = page.get(&format!("channels?{query}"));
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
    let mut page = Page::open(&server);
    for _ in 0..3 {
        assert_eq!(page.tell("publish", &json!({"channel": "loud", "event": "e"})).status, 200);
    }
    let (many, loud) = (json!(["many", 2, 0]), json!(["loud", 1, 3]));
    let channels = |answer: &Value| -> Vec<Value> {
        let entries = answer["channels"].as_array().expect("channels").iter();
        entries.map(|entry| json!([entry["channel"], entry["subscribers"], entry["messages"]])).collect()
    };
    let first = page.asked("busiest");
    assert_eq!(channels(&first), [many.clone(), loud.clone()]);
    assert_eq!(first["addresses"], json!([{"address": "127.0.0.1", "connections": 2}]));
    let second = page.asked("busiest?by=messages&limit=10");
    assert_eq!(channels(&second), [loud, many.clone()]);
    assert!(second["at_ms"].as_u64() >= first["at_ms"].as_u64(), "{first} {second}");
    assert_eq!(channels(&page.asked("busiest?by=subscribers&limit=1")), [many]);
    for query in ["limit=0", "limit=1001", "by=", "by=%22,%22x"] {
        let refused = page.get(&format!("busiest?{query}"));
        assert_eq!(refused.refused(400), "malformed_request", "{query}");
    }
}

#[test]
fn connections_are_listed_shown_and_closed() {
    let server = start();
    let (mut one, mut other) = (RawClient::connect(&server), Client::connect(&server));
    other.subscribe("a");
    let mut page = Page::open(&server);
    let listed = page.asked("connections");
    let entries = listed["connections"].as_array().expect("connections");
    assert_eq!(entries.len(), 2);
    let found = page.asked(&format!("connections?contains={}", &other.socket_id[..13].to_ascii_uppercase()));
    assert_eq!(found["connections"][0]["socket_id"], other.socket_id);
    assert_eq!(found["connections"].as_array().map(Vec::len), Some(1));
    assert_eq!(page.asked("connections?contains=127.0.0.1")["connections"].as_array().map(Vec::len), Some(2));
    let details = page.asked(&format!("connections/{}", other.socket_id));
    assert_eq!(details["channels"], json!(["a"]));
    assert_eq!(page.get("connections/none").refused(404), "not_found");

    let socket_id = entries.iter().map(|entry| &entry["socket_id"]).find(|id| **id != other.socket_id);
    let body = json!({"socket_id": socket_id, "code": 4105, "reason": "über"});
    assert_eq!(page.tell("disconnect", &body).status, 200);
    one.expect_close(4105);
    one.finish_writing();
    eventually("gone", || page.tell("disconnect", &body).status == 404);
    for (body, status, code) in [
        (json!({}), 400, "missing_member"),
        (json!({"socket_id": 7}), 400, "malformed_request"),
        (json!({"socket_id": "x"}), 404, "not_found"),
        (json!({"socket_id": "x", "cod": 4000}), 400, "malformed_request"),
        (json!({"socket_id": other.socket_id, "code": 1000}), 400, "malformed_request"),
        (json!({"socket_id": other.socket_id, "reason": "x".repeat(124)}), 413, "too_large"),
    ] {
        assert_eq!(page.tell("disconnect", &body).refused(status), code, "{body}");
    }
    other.expect_nothing_before_pong();
    eventually("it is in the log", || server.stderr().contains("disconnected over the console"));
}

#[test]
fn subscribers_are_listed_and_unknown_parameters_refused() {
    let server = start();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
    clients[1..].iter_mut().for_each(|client| client.subscribe("user:13"));
    let mut page = Page::open(&server);
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = page.asked(&format!("subscribers?channel=user:13&limit=3{after}"));
        found.extend(page["subscribers"].as_array().expect("a list").iter().map(|row| row["socket_id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    found.sort_by_key(ToString::to_string);
    let mut expected: Vec<&str> = clients[1..].iter().map(|client| client.socket_id.as_str()).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let one = page.asked(&format!("subscribers?channel=user:13&contains={}", clients[2].socket_id));
    assert_eq!(one["subscribers"].as_array().map(Vec::len), Some(1));
    for (path, code) in [
        ("subscribers", "missing_member"),
        ("subscribers?channel=not+legal", "invalid_channel"),
        ("subscribers?chanel=a", "malformed_request"),
        ("connections?limit=0", "malformed_request"),
        ("busiest?bye=messages", "malformed_request"),
    ] {
        assert_eq!(page.get(path).refused(400), code, "{path}");
    }
    for path in ["stats/x", "tail", "disconnects"] {
        assert_eq!(page.get(path).refused(404), "not_found", "{path}");
    }
}

fn a_channel_is_shown_with_its_rule(shards: usize) {
    let options = Server::options(shards).config("[[channel]]\nmatch = \"prices:*\"\nhistory = 7\n");
    let server = options.arg("--http", "127.0.0.1:0").start();
    let mut client = Client::connect(&server);
    client.subscribe("plain");
    let mut page = Page::open(&server);
    let value = |shown: &Value, key: &str| {
        let mut keys = shown["rule"]["keys"].as_array().expect("keys").iter();
        keys.find(|entry| entry["key"] == key).expect("a key")["value"].clone()
    };
    let plain = page.asked("channel?channel=plain");
    assert_eq!((&plain["channel"], &plain["subscribers"]), (&json!("plain"), &json!(1)));
    assert_eq!((&plain["rule"]["rule"], value(&plain, "history")), (&Value::Null, json!(0)));
    assert_eq!((&plain["history"], &plain["position"]["offset"]), (&Value::Null, &Value::Null));
    assert_eq!(plain["members"]["count"], 0);
    let before = page.asked("channel?channel=prices:eur");
    assert_eq!(before["history"], json!({"messages": 0, "bytes": 0}));
    for n in 0..9 {
        assert_eq!(page.tell("publish", &json!({"channel": "prices:eur", "event": "e", "data": n})).status, 200);
    }
    let ruled = page.asked("channel?channel=prices:eur");
    assert_eq!(ruled["history"]["messages"], 7);
    assert!(ruled["history"]["bytes"].as_u64().is_some_and(|bytes| (7..7 * 1024).contains(&bytes)), "{ruled}");
    let kept = Admin::connect(&server).ok(json!({"id": 1, "command": "history", "channel": "prices:eur"}));
    assert_eq!((&ruled["position"]["epoch"], &ruled["position"]["offset"]), (&kept["epoch"], &kept["offset"]));
    let shown = server.run(&["channel", "prices:eur"]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).starts_with("prices:eur: 0 subscribers, 7 messages kept ("),
        "{shown:?}"
    );
    assert_eq!((&ruled["rule"]["rule"], &ruled["rule"]["match"]), (&json!(1), &json!("prices:*")));
    assert_eq!((value(&ruled, "history"), &ruled["subscribers"]), (json!(7), &json!(0)));
    for (query, code) in
        [("", "missing_member"), ("?channel=a+b", "invalid_channel"), ("?chanel=a", "malformed_request")]
    {
        assert_eq!(page.get(&format!("channel{query}")).refused(400), code, "{query}");
    }
}

fn members_are_shown(shards: usize) {
    let server = Server::options(shards).arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").start();
    let mut page = Page::open(&server);
    let mut clients = [(); 2].map(|()| Client::connect(&server));
    for client in &mut clients {
        let mut data = json!({"channel": "presence-room", "channel_data": r#"{"user_id":"7","user_info":{"n":1}}"#});
        let mut signed = data.clone();
        signed["socket_id"] = json!(client.socket_id);
        data["auth"] = page.tell("sign", &signed).json()["auth"].clone();
        client.send(&json!({"event": "socket:subscribe", "data": data}).to_string());
        assert!(client.text().contains("socket:subscribed"));
    }
    let room = page.asked("channel?channel=presence-room");
    let member = json!({"user_id": "7", "user_info": {"n": 1}, "connections": 2});
    assert_eq!((&room["members"]["count"], &room["members"]["members"]), (&json!(1), &json!([member])));
}

#[test]
fn published_data_arrives_as_written() {
    let server = start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let mut page = Page::open(&server);
    // Numbers beyond any type, and line breaks between tokens.
    let head = format!("{}Content-Type: application/json; charset=utf-8\r\n", page.head);
    let body = "{\"channel\":\"a\",\n\"event\":\"</script>\\n\",\r\n\"data\":{\"n\":\r\n12345678901234567890.10}}";
    let published = page.http.console("POST", "/api/publish", &head, body);
    assert_eq!((published.status, published.json()), (200, json!({"subscribers": 1})));
    client.expect("{\"event\":\"</script>\\n\",\"channel\":\"a\",\"data\":{\"n\":\r\n12345678901234567890.10}}");
    let logged = |name: &str| server.stderr().lines().filter(|line| line.contains(name)).count();
    eventually("the log has it on one line", || logged("channel=a event=\"</script>\\n\"") == 1);
    let excluded = json!({"channel": "a", "event": "e", "data": null, "exclude": client.socket_id});
    assert_eq!(page.tell("publish", &excluded).json(), json!({"subscribers": 0}));
    for (body, status, code) in [
        (json!({"channel": "a"}), 400, "missing_member"),
        (json!({"channel": "a", "event": "e", "exlude": "x"}), 400, "malformed_request"),
        (json!({"channel": "a b", "event": "e"}), 400, "invalid_channel"),
        (json!({"channel": "a", "event": "socket:e"}), 400, "reserved_event"),
        (json!({"channel": "a", "event": "e", "exclude": "x"}), 400, "malformed_request"),
        (json!({"channel": "a", "event": "e", "data": "x".repeat(256 * 1024)}), 413, "too_large"),
    ] {
        assert_eq!(page.tell("publish", &body).refused(status), code, "{body:.100}");
    }
    let refused = Page::open(&server).tell("publish", &json!({"data": "x".repeat(1024 * 1024)}));
    assert_eq!(refused.refused(413), "too_large");
    client.expect_nothing_before_pong();
}

#[test]
fn the_console_signs_for_private_channels() {
    let server = start();
    let mut client = Client::connect(&server);
    let mut page = Page::open(&server);
    let signed = page.tell("sign", &json!({"socket_id": client.socket_id, "channel": "private-a"}));
    assert_eq!(signed.status, 200, "{}", signed.body);
    let data = json!({"channel": "private-a", "auth": signed.json()["auth"]});
    client.send(&json!({"event": "socket:subscribe", "data": data}).to_string());
    client.expect(r#"{"event":"socket:subscribed","channel":"private-a"}"#);
    let user = r#"{"user_id":"7"}"#;
    let present = json!({"socket_id": client.socket_id, "channel": "presence-a", "channel_data": user});
    let key = corecast::config::Key { id: "app".into(), secret: "hunter2".into() };
    let auth = corecast::protocol::auth::sign(&key, &client.socket_id, "presence-a", Some(user));
    assert_eq!(page.tell("sign", &present).json()["auth"], auth);
    // The server verifies signatures over its own spelling of a UUID.
    let shouted = json!({"socket_id": client.socket_id.to_uppercase(), "channel": "private-a"});
    assert_eq!(page.tell("sign", &shouted).json()["auth"], signed.json()["auth"]);
    for (body, code) in [
        (json!({"socket_id": "x", "channel": "private-a"}), "malformed_request"),
        (json!({"socket_id": "1.1:private-victim", "channel": "private-a"}), "malformed_request"),
        (json!({"socket_id": "POST\n/apps/1/events\nauth_key=k&z=", "channel": "private-a"}), "malformed_request"),
        (json!({"socket_id": client.socket_id, "channel": "private-a:b"}), "invalid_channel"),
        (json!({"channel": "private-a"}), "missing_member"),
        (json!({"socket_id": client.socket_id}), "missing_member"),
        (json!({"socket_id": client.socket_id, "channel": "private-a", "channel_data": 1}), "malformed_request"),
    ] {
        assert_eq!(page.tell("sign", &body).refused(400), code, "{body}");
    }
    assert!(!signed.body.contains("hunter2") && !server.stderr().contains("hunter2"));
    let keyless = Server::options(1).arg("--http", "127.0.0.1:0").start();
    let body = json!({"socket_id": client.socket_id, "channel": "private-a"});
    assert_eq!(Page::open(&keyless).tell("sign", &body).refused(409), "no_key");
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
        let page = Page::open(&server);
        let refused = Http::connect(&server).console(method, path, &page.head, "");
        assert_eq!(refused.refused(status), code, "{method} {path}");
    }
}

#[test]
fn pages_are_told_whether_they_may_connect() {
    let options = Server::options(1).arg("--http", "127.0.0.1:0").arg("--path", "/ws");
    let server = options.arg("--allow-origin", "https://app.example.com").start();
    let mut page = Page::open(&server);
    let websocket = |page: &mut Page, origin: &str| page.asked(&format!("info?origin={origin}"))["websocket"].clone();
    let refused = websocket(&mut page, "http%3A%2F%2Flocalhost%3A9001");
    assert_eq!((&refused["may_connect"], &refused["path"]), (&json!(false), &json!("/ws")));
    assert_eq!(websocket(&mut page, "https%3A%2F%2Fapp.example.com")["may_connect"], true);
}
