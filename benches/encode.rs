//! The cost of writing a frame, beside a copy of the finished bytes. Only ratios within one run are worth quoting.

use corecast::protocol::error_code::ErrorCode;
use corecast::protocol::event::{Envelope, Subscribed};
use corecast::protocol::native::event;
use corecast::protocol::socket_id::SocketId;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

fn frames(c: &mut Criterion) {
    let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(117));
    let (channel, event) = (Some("user:13"), "order.paid");
    let envelope = Envelope { channel, event, data: Some(&data), offset: None, user_id: None };
    let socket_id = SocketId { high: 0x1ba1_b6cb_0127_48f8, low: 0xb5a5_9fd7_9a7c_68a6 };
    let mut out = Vec::with_capacity(4096);
    let mut bench = |name: &str, append: &dyn Fn(&mut Vec<u8>)| {
        c.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                append(black_box(&mut out));
                out.len()
            })
        });
    };
    bench("subscribed", &|out| event::subscribed(out, black_box("user:13"), &Subscribed::default()));
    bench("pong", &|out| event::pong(out, black_box(b"1")));
    bench("message_128", &|out| event::message(out, black_box(&envelope)));
    let mut frame = Vec::new();
    event::message(&mut frame, &envelope);
    bench("message_128_copied", &|out| out.extend_from_slice(black_box(&frame)));
    bench("connected", &|out| event::connected(out, black_box(socket_id), 30, 25));
    bench("subscribe_error", &|out| event::subscribe_error(out, black_box("user:13"), ErrorCode::AlreadySubscribed));
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = frames
}
criterion_main!(benches);
