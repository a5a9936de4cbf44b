//! Mail between two shards and back, through inboxes, doorbells and polls.

use corecast::hub::mail::{Fence, Mail};
use corecast::ids::ShardId;
use corecast::shard::DOORBELL;
use corecast::shard::doorbell::Doorbell;
use corecast::shard::mesh::{Mesh, inbox};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mio::{Events, Poll, Waker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

struct End {
    poll: Poll,
    events: Events,
    mesh: Mesh,
}

fn pair() -> (End, End) {
    let polls = [Poll::new().expect("a poll"), Poll::new().expect("a poll")];
    let bell = |poll: &Poll| Doorbell::new(Waker::new(poll.registry(), DOORBELL).expect("a waker"), 2);
    let doorbells: Arc<[Doorbell]> = polls.iter().map(bell).collect::<Vec<_>>().into();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| inbox()).unzip();
    let mut ends = polls.into_iter().zip(receivers).enumerate().map(|(me, (poll, receiver))| End {
        poll,
        events: Events::with_capacity(8),
        mesh: Mesh::new(me as ShardId, receiver, senders.clone().into(), doorbells.clone()),
    });
    (ends.next().expect("two"), ends.next().expect("two"))
}

impl End {
    /// Sleeps until there is mail, and takes all of it. Returns the number of letters.
    fn take(&mut self, timeout: Option<Duration>) -> usize {
        let timeout = if self.mesh.has_mail() { Some(Duration::ZERO) } else { timeout };
        self.poll.poll(&mut self.events, timeout).expect("polled");
        self.mesh.look();
        let mut letters = 0;
        while self.mesh.receive().is_some() {
            letters += 1;
        }
        letters
    }

    fn send(&mut self, to: ShardId, letters: usize) {
        (0..letters).for_each(|_| self.mesh.send(to, Mail::Fence(Fence::Owners)));
        self.mesh.ring_mailed().expect("rung");
    }
}

fn mesh(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    for letters in [1, 64, 1024] {
        let (mut here, mut there) = pair();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let echo = std::thread::spawn(move || {
            while !over.load(Relaxed) {
                let taken = there.take(Some(Duration::from_millis(50)));
                there.send(0, taken);
            }
        });
        group.throughput(Throughput::Elements(letters as u64));
        group.bench_function(format!("{letters} letters there and back, asleep in between"), |bencher| {
            bencher.iter(|| {
                here.send(1, letters);
                let mut back = 0;
                while back < letters {
                    back += here.take(None);
                }
            });
        });
        is_over.store(true, Relaxed);
        echo.join().expect("the echo ends");
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = mesh
}
criterion_main!(benches);
