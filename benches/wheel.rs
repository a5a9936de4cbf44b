//! The timer wheel: arming, and turns in which the heartbeats of many connections are due.

use corecast::shard::heartbeats::wheel::Wheel;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const KEYS: u32 = 100_000;
/// A heartbeat interval of 30 s, in ticks.
const INTERVAL: u32 = 300;

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    group.throughput(Throughput::Elements(1));
    group.bench_function("arm again", |bencher| {
        let mut wheel = Wheel::new(0);
        let mut key = 0;
        bencher.iter(|| {
            key = (key + 7919) % KEYS;
            wheel.arm(key, 1 + key % INTERVAL);
        });
    });
    group.throughput(Throughput::Elements(u64::from(KEYS)));
    group.sample_size(20);
    group.bench_function("an interval of 100 000 heartbeats", |bencher| {
        let mut wheel = Wheel::new(0);
        let mut now = 0;
        (0..KEYS).for_each(|key| wheel.arm(key, 1 + key % INTERVAL));
        bencher.iter(|| {
            for _ in 0..INTERVAL {
                now += 1;
                while let Some(key) = wheel.expire(now) {
                    wheel.arm(key, now + INTERVAL);
                }
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(std::time::Duration::from_millis(500)).measurement_time(std::time::Duration::from_secs(2));
    targets = wheel
}
criterion_main!(benches);
