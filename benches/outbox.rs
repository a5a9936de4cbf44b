//! Writing the output of a turn to sinks that cost as much as a system call.

use corecast::hub::audience::pages::{Chunk, Pages};
use corecast::shard::output::outbox::{Outbox, Written};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::unix::net::UnixDatagram;

/// Accepts everything, at the cost of a system call: it sends an empty datagram to itself.
struct Costly(UnixDatagram, UnixDatagram);

impl Costly {
    fn new() -> Costly {
        let (a, b) = UnixDatagram::pair().expect("a socket pair");
        Costly(a, b)
    }

    fn pay(&self) {
        let _ = self.0.send(&[]);
        let _ = self.1.recv(&mut []);
    }
}

impl Write for Costly {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pay();
        Ok(black_box(bytes).len())
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.pay();
        Ok(black_box(slices).iter().map(|slice| slice.len()).sum())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Accepts everything at no cost: the rest is the cost of the outbox.
struct Free;

impl Write for Free {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(slices).iter().map(|slice| slice.len()).sum())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Accepts nothing.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const OUTBOXES: usize = 1000;

/// One turn: one page of `messages` frames for each outbox, or as many chunks of different pages, then one write each.
fn turn(pages: &mut Pages, outboxes: &mut [Outbox], to: &mut impl Write, messages: usize, chunks: usize) {
    let open: Vec<_> = (0..chunks)
        .map(|_| {
            let page = pages.open();
            pages.append(page, |out| out.resize(messages * 130, 0));
            page
        })
        .collect();
    for &page in &open {
        let end = pages.page_len(page);
        for outbox in &mut *outboxes {
            outbox.push(pages, Chunk { page, start: 0, end });
        }
        pages.release(page);
    }
    for outbox in outboxes {
        assert_eq!(outbox.write(pages, to).expect("written").0, Written::All);
    }
}

fn outbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(OUTBOXES as u64)).sample_size(20);
    for (name, messages, chunks) in [("1 message", 1, 1), ("256 messages", 256, 1), ("4 channels", 1, 4)] {
        let mut pages = Pages::default();
        let mut outboxes: Vec<Outbox> = (0..OUTBOXES).map(|_| Outbox::default()).collect();
        group.bench_function(format!("{name}, free write"), |bencher| {
            bencher.iter(|| turn(&mut pages, &mut outboxes, &mut Free, messages, chunks));
        });
        let mut costly = Costly::new();
        group.bench_function(format!("{name}, write at the price of a system call"), |bencher| {
            bencher.iter(|| turn(&mut pages, &mut outboxes, &mut costly, messages, chunks));
        });
    }
    group.bench_function("blocked, small part of a page copied out", |bencher| {
        let mut pages = Pages::default();
        bencher.iter_batched(
            || (0..OUTBOXES).map(|_| Outbox::default()).collect::<Vec<_>>(),
            |mut outboxes| {
                let page = pages.open();
                pages.append(page, |out| out.resize(60_000, 0));
                for outbox in &mut outboxes {
                    outbox.push(&mut pages, Chunk { page, start: 0, end: 130 });
                    assert_eq!(outbox.write(&mut pages, &mut Full).expect("blocked").0, Written::Blocked);
                }
                pages.release(page);
                for outbox in &mut outboxes {
                    outbox.clear(&mut pages);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(std::time::Duration::from_millis(500)).measurement_time(std::time::Duration::from_secs(2));
    targets = outbox
}
criterion_main!(benches);
