//! The cost of reading an inbound message with the parser of this crate and with two others. All three return the same: a
//! verdict on the whole text, the event, and the members as raw spans. Only ratios within one run are worth quoting.

use corecast::admin;
use corecast::protocol::json::Reader;
use corecast::protocol::json::scan;
use corecast::protocol::native::command::command;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

const PING: &str = r#"{"event":"socket:ping","data":{"id":1}}"#;
const SUBSCRIBE: &str = r#"{"event":"socket:subscribe","data":{"channel":"private-user.13","auth":"app-key:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f"}}"#;
const BEYOND_64_BITS: &str = r#"{"event":"socket:ping","data":{"id":100000000000000000000}}"#;

fn messages(c: &mut Criterion) {
    for (name, text) in [("ping", PING), ("subscribe", SUBSCRIBE), ("beyond_64_bits", BEYOND_64_BITS)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut reader = Reader::default();
        assert!(command(&mut reader, text).is_ok());
        group.bench_function("corecast", |b| b.iter(|| command(&mut reader, black_box(text)).is_ok()));
        assert!(by_serde_json(text).is_some());
        group.bench_function("serde_json", |b| b.iter(|| by_serde_json(black_box(text)).is_some()));
        assert!(by_scanner(text).is_some());
        group.bench_function("by_scanner", |b| b.iter(|| by_scanner(black_box(text)).is_some()));
    }
}

fn publish(c: &mut Criterion) {
    let text = format!(
        r#"{{"id":1,"command":"publish","channel":"user:13","event":"order.paid","data":{{"text":"{}"}}}}"#,
        "x".repeat(117)
    );
    let mut group = c.benchmark_group("publish");
    group.throughput(Throughput::Bytes(text.len() as u64));
    let mut parser = admin::lines::reader::Parser::default();
    assert!(parser.request(text.as_bytes()).command.is_ok());
    group.bench_function("corecast", |b| b.iter(|| parser.request(black_box(text.as_bytes())).command.is_ok()));
    assert!(serde_json::from_slice::<Publish<'_>>(text.as_bytes()).is_ok());
    group.bench_function("serde_json", |b| {
        b.iter(|| serde_json::from_slice::<Publish<'_>>(black_box(text.as_bytes())).is_ok())
    });
    let by_scanner = |line| {
        let text = std::str::from_utf8(line).ok()?;
        members(text, ["id", "command", "channel", "event", "data"])
    };
    assert!(by_scanner(text.as_bytes()).is_some());
    group.bench_function("by_scanner", |b| b.iter(|| by_scanner(black_box(text.as_bytes())).is_some()));
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    auth: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Publish<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    command: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn by_serde_json(text: &str) -> Option<Message<'_>> {
    let message: Message<'_> = serde_json::from_str(text).ok()?;
    match &*message.event {
        "socket:ping" => message.data.id.is_some().then_some(message),
        "socket:subscribe" => (message.data.channel.is_some() && message.data.auth.is_some()).then_some(message),
        _ => None,
    }
}

fn by_scanner(text: &str) -> Option<[Option<&str>; 3]> {
    let [event, data] = members(text, ["event", "data"])?;
    let found = members(data?, ["channel", "auth", "id"])?;
    match event? {
        r#""socket:ping""# => found[2].map(|_| found),
        r#""socket:subscribe""# => found[0].and(found[1]).map(|_| found),
        _ => None,
    }
}

/// Raw values of an object's members by name, from the scanner for plain publishes.
fn members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<[Option<&'a str>; N]> {
    let mut found = [None; N];
    scan::members(text, |key, value| {
        if let Some(at) = names.iter().position(|name| name.as_bytes() == key) {
            found[at] = Some(value);
        }
        Some(())
    })?;
    Some(found)
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = messages, publish
}
criterion_main!(benches);
