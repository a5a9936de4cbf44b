//! The cost of checking the signature of a private channel. Only ratios within one run are worth quoting.

use corecast::config::Key;
use corecast::protocol::auth::{Attempt, KeyRing, sign};
use corecast::protocol::socket_id::SocketId;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

fn verify(c: &mut Criterion) {
    let key = Key { id: "278d425bdf160c739803".to_owned(), secret: "7ad3773142a6692b25b8".to_owned() };
    let ring = KeyRing::new(std::slice::from_ref(&key));
    let socket_id = SocketId { high: 0x1ba1_b6cb_0127_48f8, low: 0xb5a5_9fd7_9a7c_68a6 };
    let channel = "private-user.13";
    let over_uuid = sign(&key, &socket_id.to_string(), channel, None);
    let over_dotted = sign(&key, &socket_id.dotted().to_string(), channel, None);
    let wrong = over_uuid.replace(':', ":00")[..over_uuid.len()].to_owned();
    for (name, auth, verifies) in [("uuid", over_uuid, true), ("dotted", over_dotted, true), ("wrong", wrong, false)] {
        assert_eq!(ring.verify(&Attempt::of_channel(socket_id, &auth, channel, None)).is_ok(), verifies);
        c.bench_function(&format!("verify/{name}"), |b| {
            b.iter(|| ring.verify(&Attempt::of_channel(socket_id, black_box(&auth), channel, None)))
        });
    }
    c.bench_function("sign", |b| b.iter(|| sign(&key, black_box("1234.1234"), channel, None)));
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = verify
}
criterion_main!(benches);
