//! One table of JSON values and one of documents, given to every entry point. All entry points accept the same ones,
//! and the same value reaches subscribers.

use crate::console::Page;
use crate::harness::{Admin, Client, Server, assert_error, corecast, for_shards, output, shortened};
use crate::http::{Http, start_with_key};
use serde_json::{Value, json};

for_shards!(names_must_be_unicode_and_refusals_carry_the_id);

/// Texts that are one JSON value (RFC 8259).
const VALID: &[&str] = &[
    "null",
    "true",
    "0",
    "-0",
    "-0.0e-0",
    "1e999",
    "-1E-999",
    "18446744073709551616",
    "-9223372036854775809",
    r#""""#,
    r#""\ud83c""#,
    r#""\uDFFF""#,
    r#""a\ud83c\ud83cb""#,
    r#""\udf00\ud83c""#,
    r#""\ud83c\u0041""#,
    r#""\ud83d\ude00""#,
    r#""\u0000\u001f\/\b\f\n\r\t\"\\""#,
    "\"é😀\u{7f}\u{2028}\u{feff}\"",
    r#"{"\ud83c":["\udc00",1e400]}"#,
    r#"{"a":1,"a":2,"\u0061":3}"#,
    "{ \"a\" :\t[ ] }",
    r#""{\"a\":1}""#,
];

/// Texts that are not valid JSON.
const INVALID: &[&str] = &[
    "",
    "{",
    "[1,]",
    r#"{"a":1,}"#,
    "[1}",
    "nul",
    "True",
    "NaN",
    "01",
    "+1",
    "1.",
    ".5",
    "1e",
    "0x1",
    "'a'",
    "1 2",
    "{}x",
    "1\u{c}",
    "\u{a0}1",
    "\u{feff}1",
    r#""\x""#,
    r#""\ud83""#,
    r#""\u12g4""#,
    "\"\t\"",
    "\"\u{1f}\"",
    "\"",
];

/// Valid and invalid values, nested and long ones too, each with whether it is valid.
fn values() -> Vec<(String, bool)> {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let deep_objects = |depth: usize| format!("{}{{}}{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let texts = [(VALID, true), (INVALID, false)];
    let mut all: Vec<_> =
        texts.iter().flat_map(|(texts, is_valid)| texts.iter().map(|text| (text.to_string(), *is_valid))).collect();
    for depth in [128, 129, 1024, 1025, 10_000] {
        all.push((deep(depth), true));
        all.push((deep_objects(depth), true));
        all.push((deep(depth) + "]", false));
    }
    all.push(("9".repeat(1000), true));
    all
}

/// Text to put before and after a valid document, and whether the result is still valid.
const AROUND: [(&str, &str, bool); 10] = [
    (" \t", " \t", true),
    ("", "\r", true),
    ("\u{feff}", "", false),
    ("", "x", false),
    ("", "{}", false),
    ("", ",", false),
    ("", "\0", false),
    ("\0", "", false),
    ("", "\u{c}", false),
    ("\u{a0}", "", false),
];

#[track_caller]
fn expect_data(client: &mut Client, data: &str, from: &str) {
    let (found, expected) = (client.text(), format!(r#"{{"event":"e","channel":"c","data":{data}}}"#));
    assert!(found == expected, "{from}: {} arrived as {}", shortened(&expected), shortened(&found));
}

#[test]
fn every_entry_point_publishes_the_same_values() {
    let server = start_with_key();
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let mut page = Page::open(&server);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    for (value, is_valid) in values() {
        let shown = shortened(&value);
        // Both the fast path and the parser, which reads lines with a repeated member.
        for members in [r#""event":"e""#, r#""exclude":"1.1","event":"x","data":0,"\u0065vent":"e""#] {
            let members = format!(r#""channel":"c",{members},"data":{value}"#);
            let reply = admin.ask(&format!(r#"{{"id":"\ud83c","command":"publish",{members}}}"#));
            if is_valid {
                assert_eq!(reply, r#"{"id":"\ud83c","ok":true,"subscribers":1}"#, "{shown}");
                expect_data(&mut client, &value, "admin socket");
            } else {
                assert!(reply.contains(r#""id":null,"ok":false,"code":"malformed_request""#), "{shown}: {reply}");
            }
            let told = page.tell_text("publish", &format!("{{{members}}}"));
            assert_eq!(told.status, if is_valid { 200 } else { 400 }, "{shown}: {}", told.body);
            if is_valid {
                expect_data(&mut client, &value, "console");
            } else {
                assert!(told.body.contains("malformed_request"), "{shown}: {}", told.body);
            }
        }
        // A string that does not hold JSON is delivered as a string.
        let text = json!(format!(" {value} ")).to_string();
        let event = format!(r#"{{"name":"x","data":0,"name":"e","channel":"c","d\u0061ta":{text}}}"#);
        let delivered = if is_valid { &value } else { &text };
        for published in [http.publish(&event), http.publish_batch(&format!(r#"{{"batch":[{event}]}}"#))] {
            assert_eq!(published.status, 200, "{shown}: {}", published.body);
            expect_data(&mut client, delivered, "REST");
        }
        let mut command = corecast(&["publish", "--admin-socket"]);
        command.arg(&server.admin_path).args(["--", "c", "e", &value]);
        let run = output(command, b"");
        assert_eq!(run.status.success(), is_valid, "{shown}: {run:?}");
        if is_valid {
            expect_data(&mut client, &value, "command line");
        }
    }
    client.expect_nothing_before_pong();
}

#[test]
fn publish_stdin_accepts_the_lines_that_the_admin_socket_accepts() {
    let server = Server::start(2);
    let mut client = Client::connect(&server);
    client.subscribe("c");
    let line = |value: &str| format!(r#"{{"channel":"c","event":"x","data":0,"\u0065vent":"e","data":{value}}}"#);
    let lines = values().into_iter().map(|(value, is_valid)| (line(&value), Some(value).filter(|_| is_valid)));
    let around = AROUND
        .iter()
        .map(|(before, after, is_valid)| (format!("{before}{}{after}", line("1")), is_valid.then(|| "1".to_owned())));
    let lines: Vec<_> = lines.chain(around).collect();
    let input: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let run = server.run_with_input(&["publish", "--stdin"], input.as_bytes());
    let refused = lines.iter().filter(|(_, data)| data.is_none()).count();
    let told = String::from_utf8(run.stderr).expect("UTF-8") + &String::from_utf8(run.stdout).expect("UTF-8");
    assert!(told.contains(&format!("refused {refused}")), "{told}");
    for data in lines.iter().filter_map(|(_, data)| data.as_deref()) {
        expect_data(&mut client, data, "--stdin");
    }
    client.expect_nothing_before_pong();
}

#[test]
fn every_entry_point_accepts_the_same_documents() {
    let server = start_with_key();
    let (mut admin, mut http) = (Admin::connect(&server), Http::connect(&server));
    let mut page = Page::open(&server);
    let mut client = Client::connect(&server);
    for (before, after, is_valid) in AROUND {
        let around = |document: &str| format!("{before}{document}{after}");
        let shown = around("…");
        for members in ["", r#","exclude":"1.1""#] {
            let reply =
                admin.ask(&around(&format!(r#"{{"id":1,"command":"publish","channel":"c","event":"e"{members}}}"#)));
            let expected =
                if is_valid { r#"{"id":1,"ok":true"# } else { r#"{"id":null,"ok":false,"code":"malformed_request""# };
            assert!(reply.starts_with(expected), "{shown:?}: {reply}");
        }
        client.send(&around(r#"{"event":"socket:ping","data":{"id":1}}"#));
        match is_valid {
            true => client.expect(r#"{"event":"socket:pong","data":{"reply":1}}"#),
            false => assert_error(&client.text(), "socket:error", None, "malformed_message"),
        }
        let status = if is_valid { 200 } else { 400 };
        let event = r#"{"name":"e","channel":"c","data":"1"}"#;
        assert_eq!(http.publish(&around(event)).status, status, "{shown:?}");
        assert_eq!(http.publish_batch(&around(&format!(r#"{{"batch":[{event}]}}"#))).status, status, "{shown:?}");
        assert_eq!(page.tell_text("publish", &around(r#"{"channel":"c","event":"e"}"#)).status, status, "{shown:?}");
        let sign = format!(r#"{{"socket_id":0,"socket_id":"{}","channel":"private-a"}}"#, client.socket_id);
        assert_eq!(page.tell_text("sign", &around(&sign)).status, status, "{shown:?}");
    }
}

/// Names that a backend chooses, as JSON strings that mean the same.
const NAMES: [[&str; 2]; 5] = [
    [r#""order-42""#, r#""order\u002d42""#],
    ["\"é😀\u{7f}\u{2028}\u{feff}\"", r#""\u00E9\ud83d\ude00\u007f\u2028\ufeff""#],
    [r#""\u0000\"\\""#, r#""\u0000\u0022\u005c""#],
    [r##""#server-to-user-1""##, r#""\u0023server\u002dto-user-1""#],
    [r#"" ""#, r#""\u0020""#],
];

#[test]
fn every_entry_point_means_the_same_name_by_its_spellings() {
    let server = start_with_key();
    let (mut admin, mut page) = (Admin::connect(&server), Page::open(&server));
    for [name, spelling] in NAMES {
        let members = |name: &str| format!(r#""channel":"c","event":"e","key":{name},"dedupe":{name}"#);
        let ask = |members: String| format!(r#"{{"id":1,"command":"publish",{members}}}"#);
        assert_eq!(admin.ask(&ask(members(name))), r#"{"id":1,"ok":true,"subscribers":0}"#, "{name}");
        let again = r#"{"id":1,"ok":true,"subscribers":0,"duplicate":true}"#;
        assert_eq!(admin.ask(&ask(members(spelling))), again, "{spelling}");
        assert_eq!(admin.ask(&ask(members(spelling) + r#","exclude":"1.1""#)), again, "{spelling}");
        let run =
            server.run_with_input(&["publish", "--stdin", "--json"], format!("{{{}}}", members(spelling)).as_bytes());
        assert_eq!(String::from_utf8_lossy(&run.stdout), format!("{again}\n"), "{spelling}");
        let told = page.tell_text("publish", &format!("{{{}}}", members(spelling)));
        let told: Value = serde_json::from_str(&told.body).expect("JSON");
        assert_eq!(told, json!({"subscribers": 0, "duplicate": true}), "{spelling}");
        // An argument of a command cannot hold a null character.
        let text: String = serde_json::from_str(name).expect("a string");
        if !text.contains('\0') {
            let run = server.run(&["publish", "c", "e", "--dedupe", &text, "--key", &text, "--json"]);
            assert_eq!(
                String::from_utf8_lossy(&run.stdout),
                again.replace("\"id\":1", "\"id\":null") + "\n",
                "{spelling}"
            );
        }
    }
}

#[test]
fn rest_data_that_holds_json_is_delivered_as_that_text() {
    let server = start_with_key();
    let (mut client, mut http) = (Client::connect(&server), Http::connect(&server));
    client.subscribe("c");
    let event = |data: &str| format!(r#"{{"name":"e","channel":"c","data":{}}}"#, json!(data));
    for text in ["{\"a\":\r\n[1,\t2 ]}", r#""\u00e9\ud83c""#, "1.50e+0"] {
        let event = event(&format!(" \n{text}\t\r\n"));
        assert_eq!(http.publish(&event).status, 200, "{event}");
        expect_data(&mut client, text, "REST");
    }
}

#[test]
fn clients_may_send_any_value_in_unused_members() {
    let server = Server::start(1);
    let mut client = Client::connect(&server);
    for (value, is_valid) in values() {
        client.send(&format!(r#"{{"event":"socket:ping","data":{{"x":{value},"id":"\ud83c"}}}}"#));
        match is_valid {
            true => client.expect(r#"{"event":"socket:pong","data":{"reply":"\ud83c"}}"#),
            false => assert_error(&client.text(), "socket:error", None, "malformed_message"),
        }
    }
}

#[test]
fn a_position_may_have_any_value_in_unknown_members_only() {
    let server = Server::options(1).arg("--max-subscribes-per-second", 0).start();
    let mut client = Client::connect(&server);
    let subscribe = |since: &str| format!(r#"{{"event":"socket:subscribe","data":{{"channel":"a","since":{since}}}}}"#);
    for (value, is_valid) in values() {
        client.send(&subscribe(&value));
        match is_valid {
            true => assert_error(&client.text(), "socket:subscribe.error", Some("a"), "malformed_since"),
            false => assert_error(&client.text(), "socket:error", None, "malformed_message"),
        }
        if is_valid {
            client.send(&subscribe(&format!(r#"{{"epoch":"\ud83c","offset":1,"x":{value}}}"#)));
            client.expect(r#"{"event":"socket:subscribed","channel":"a","data":{"recovered":false}}"#);
            client.unsubscribe("a");
        }
    }
}

fn names_must_be_unicode_and_refusals_carry_the_id(shards: usize) {
    let server = Server::options(shards).arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").start();
    let mut admin = Admin::connect(&server);
    let publish = r#""command":"publish","channel":"a","event":"e""#;
    for (member, value) in [
        ("command", r#""publish\ud83c""#),
        ("channel", r#""a\udc00""#),
        ("event", r#""\ud83ce""#),
        ("channels", r#"["\ud800\ud800"]"#),
        ("exclude", r#""1.1\ud83c""#),
        ("dedupe", r#""\ud83c""#),
        ("key", r#""a\udc00""#),
    ] {
        admin.refused(&format!(r#"{{"id":7,{publish},"{member}":{value}}}"#), json!(7), "malformed_request");
    }
    for line in [
        r#"{"id":7,"command":"connection","socket_id":"\ud83c"}"#,
        r#"{"id":7,"command":"disconnect","user":"\ud83c"}"#,
        r#"{"id":7,"command":"publish","user":"\ud83c","event":"e"}"#,
        r#"{"id":7,"command":"publish","users":["a","\udc00"],"event":"e"}"#,
        r#"{"id":7,"command":"history","channel":"a","since":{"epoch":"\ud83c","offset":1}}"#,
    ] {
        admin.refused(line, json!(7), "malformed_request");
    }
    let mut client = Client::connect(&server);
    for event in ["socket:subscribe", "socket:unsubscribe"] {
        client.send(&format!(r#"{{"event":"{event}","data":{{"channel":"a\ud83c"}}}}"#));
        assert_error(&client.text(), "socket:error", None, "malformed_message");
    }
    client.send(r#"{"event":"socket:subscribe","data":{"channel":"private-a","auth":"\ud83c"}}"#);
    assert_error(&client.text(), "socket:subscribe.error", Some("private-a"), "auth_invalid");
    client.send(r#"{"event":"socket:\ud83c"}"#);
    assert_error(&client.text(), "socket:error", None, "malformed_message");
    let mut http = Http::connect(&server);
    let mut page = Page::open(&server);
    for (member, value) in [
        ("name", r#""\ud83c""#),
        ("channel", r#""\ud83c""#),
        ("channels", r#"["\ud83c"]"#),
        ("socket_id", r#""\ud83c""#),
    ] {
        let event = format!(r#"{{"name":"e","channel":"a","data":"1","{member}":{value}}}"#);
        assert_eq!(http.publish(&event).status, 400, "{event}");
    }
    // Only strings that the server must understand have to be Unicode.
    client.subscribe("c");
    assert_eq!(http.publish(r#"{"name":"e","channel":"c","data":"\ud83c"}"#).status, 200);
    expect_data(&mut client, r#""\ud83c""#, "REST");
    for member in [r#""channel":"\ud83c""#, r#""event":"\ud83c""#, r#""dedupe":"\ud83c""#, r#""key":"\ud83c""#] {
        let told = page.tell_text("publish", &format!(r#"{{"channel":"a","event":"e",{member}}}"#));
        assert_eq!(told.status, 400, "{}", told.body);
        assert!(told.body.contains("malformed_request"), "{}", told.body);
    }
    let run = server.run_with_input(&["publish", "--stdin"], b"{\"channel\":\"a\",\"event\":\"\\ud83c\"}\n");
    assert!(!run.status.success() && String::from_utf8_lossy(&run.stderr).contains("malformed_request"), "{run:?}");
}
