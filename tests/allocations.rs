//! After warm-up, deliveries and heartbeats allocate nothing (invariant 4). It is a separate binary, because its allocator
//! counts.

#[path = "support/data_path.rs"]
mod data_path;

use allocation_counter::measure;
use data_path::{DataPath, ping_frame, publish_line};

/// Turns before counting: pages, lists and tables have reached the size that the load needs.
const WARM_UP: usize = 64;
const TURNS: usize = 256;

fn check(name: &str, mut turn: impl FnMut()) {
    (0..WARM_UP).for_each(|_| turn());
    let allocations = measure(|| (0..TURNS).for_each(|_| turn())).count_total;
    assert_eq!(allocations, 0, "{name}: allocations in {TURNS} turns");
}

#[test]
fn no_allocation_per_delivery() {
    let line = publish_line();
    for messages in [1, 16, 256] {
        let mut path = DataPath::new(1000);
        check(&format!("{messages} publishes to 1000 subscribers"), || {
            (0..messages).for_each(|_| path.line(&line));
            path.flush();
        });
        assert!(path.sink.bytes > 1000 * 128 * messages * (WARM_UP + TURNS), "not everything was written");
    }
}

#[test]
fn no_allocation_per_ping() {
    let frame = ping_frame();
    let mut bytes = frame.clone();
    let mut path = DataPath::new(100);
    check("pings of 100 connections", || {
        for slot in 0..100 {
            bytes.copy_from_slice(&frame);
            path.frames(slot, &mut bytes);
        }
        path.flush();
    });
}
