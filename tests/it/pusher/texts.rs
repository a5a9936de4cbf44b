//! Texts of backends: subscribers of this dialect receive them as they came, and native ones receive the value.

use super::client::{Pusher, event_of_a, in_both_dialects, options};
use crate::harness::{Client, for_shards};
use crate::http::Http;
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    texts_of_backends_arrive_as_they_came,
    an_event_is_kept_as_it_came,
    a_text_of_quotes_is_not_escaped_twice,
);

fn texts_of_backends_arrive_as_they_came(shards: usize) {
    let server = options(shards).start();
    let (mut client, mut native) = in_both_dialects(&server);
    let mut http = Http::connect(&server);
    for (data, text, value) in [
        (r#""{\"a\":1}""#, r#""{\"a\":1}""#, r#"{"a":1}"#),
        (r#""{\n  \"a\": 1\n}\n""#, r#""{\n  \"a\": 1\n}\n""#, "{\n  \"a\": 1\n}"),
        (r#"" 17 ""#, r#"" 17 ""#, "17"),
        (r#""hello""#, r#""hello""#, r#""hello""#),
        (r#""\"hello\"""#, r#""\"hello\"""#, r#""hello""#),
        (r#""""#, r#""""#, r#""""#),
        (r#""{x""#, r#""{x""#, r#""{x""#),
        (r#""a\"b\\c\nd\u0001é""#, r#""a\"b\\c\nd\u0001é""#, r#""a\"b\\c\nd\u0001é""#),
        (r#""null""#, r#""null""#, "null"),
        (r#"{"a": 1}"#, r#""{\"a\": 1}""#, r#"{"a": 1}"#),
        ("17", r#""17""#, "17"),
        ("null", r#""null""#, "null"),
    ] {
        let event = format!(r#"{{"name":"e","channel":"a","data":{data}}}"#);
        assert_eq!(http.publish(&event).status, 200, "{event}");
        client.expect(&event_of_a(text));
        native.expect(&event_of_a(value));
        let batch = format!(r#"{{"batch":[{event}]}}"#);
        assert_eq!(http.publish_batch(&batch).status, 200, "{batch}");
        client.expect(&event_of_a(text));
        native.expect(&event_of_a(value));
    }
}

fn an_event_is_kept_as_it_came(shards: usize) {
    let server = options(shards).start();
    let mut http = Http::connect(&server);
    for (data, text, value) in [
        (r#""{\n \"a\": 1 }""#, r#""{\n \"a\": 1 }""#, "{\n \"a\": 1 }"),
        (r#""hello\u00e9""#, r#""hello\u00e9""#, r#""hello\u00e9""#),
        (r#"{"a": 1}"#, r#""{\"a\": 1}""#, r#"{"a": 1}"#),
    ] {
        let event = format!(r#"{{"name":"e\u0031","channel":"cache-a","data":{data}}}"#);
        assert_eq!(http.publish(&event).status, 200);
        let mut client = Pusher::connect(&server);
        client.subscribe("cache-a");
        let found = client.text();
        let expected: Value = serde_json::from_str(text).expect("JSON");
        let found_value: Value = serde_json::from_str(&found).expect("JSON");
        assert_eq!(found_value, json!({"event": "e1", "channel": "cache-a", "data": expected}), "{found}");
        let mut native = Client::connect(&server);
        native.send(&crate::harness::subscribe("cache-a"));
        native.text();
        let found = native.text();
        assert!(found.contains(&format!(r#","data":{value},"offset":"#)), "{found}");
    }
}

fn a_text_of_quotes_is_not_escaped_twice(shards: usize) {
    let server = options(shards).start();
    let (mut client, mut native) = in_both_dialects(&server);
    let event = json!({"name": "e", "channel": "a", "data": "\"".repeat(131_071)}).to_string();
    assert_eq!(Http::connect(&server).publish(&event).status, 200);
    let data = event_of_a(&format!("\"{}\"", r#"\""#.repeat(131_071)));
    assert!(client.text() == data, "the text as it came");
    assert!(native.text() == data, "it is not JSON");
}
