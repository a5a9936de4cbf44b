//! After warm-up, deliveries and heartbeats allocate nothing (invariant 4). It is a separate binary, because its allocator
//! counts.

#[path = "support/data_path.rs"]
mod data_path;

use allocation_counter::measure;
use data_path::{DataPath, KEPT, PLAIN, ping_frame, publish_line};

/// Turns before counting: pages, lists and tables have reached the size that the load needs.
const WARM_UP: usize = 64;
const TURNS: usize = 256;

fn check(name: &str, expected: u64, mut turn: impl FnMut()) {
    (0..WARM_UP).for_each(|_| turn());
    let allocations = measure(|| (0..TURNS).for_each(|_| turn())).count_total;
    assert_eq!(allocations, expected * TURNS as u64, "{name}: allocations in {TURNS} turns");
}

#[test]
fn no_allocation_per_delivery() {
    let line = publish_line(PLAIN);
    for messages in [1, 16, 256] {
        let mut path = DataPath::new(PLAIN, 1000);
        check(&format!("{messages} publishes to 1000 subscribers"), 0, || {
            (0..messages).for_each(|_| path.line(&line));
            path.flush();
        });
        assert!(path.sink.bytes > 1000 * 128 * messages * (WARM_UP + TURNS), "not everything was written");
    }
}

/// The payload, which the history keeps.
#[test]
fn one_allocation_per_publish_with_a_history() {
    let line = publish_line(KEPT);
    for subscribers in [0, 100] {
        let mut path = DataPath::new(KEPT, subscribers);
        check(&format!("16 publishes to {subscribers} subscribers of a channel with a history"), 16, || {
            (0..16).for_each(|_| path.line(&line));
            path.flush();
        });
    }
}

#[test]
fn no_allocation_per_ping() {
    let frame = ping_frame();
    let mut bytes = frame.clone();
    let mut path = DataPath::new(PLAIN, 100);
    check("pings of 100 connections", 0, || {
        for slot in 0..100 {
            bytes.copy_from_slice(&frame);
            path.frames(slot, &mut bytes);
        }
        path.flush();
    });
    let pong = r#"{"event":"socket:pong","data":{"reply":1}}"#;
    assert!(path.sink.bytes > 100 * pong.len() * (WARM_UP + TURNS), "not every ping was answered");
}
