//! Seeded simulation of whole clusters: one to eight hubs, their clients and publishers on one thread, mail in any order
//! that the real mesh could produce, every frame that a client is sent checked the moment it is laid out.
//!
//! A run is made by bytes and by nothing else ([`run`]), so that a seed, or a fuzzer's input, replays it:
//!
//! ```text
//! CORECAST_SEED=17 cargo test --lib simulation      one run again
//! CORECAST_RUNS=100000 cargo test --lib simulation  many runs
//! ```

pub(crate) mod choices;
mod client;
mod cluster;
mod mesh;

use choices::Choices;
use cluster::Cluster;

/// One run: the first bytes choose the cluster, then each step takes one byte, and more where it has to choose. Panics
/// where a promise is broken. Returns how many messages were published.
pub fn run(bytes: impl Iterator<Item = u8>) -> usize {
    let mut cluster = Cluster::new(Choices::new(bytes));
    while cluster.step() {}
    cluster.finish();
    cluster.published()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_promise_holds_in_every_order_of_mail() {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seeds = match number("CORECAST_SEED") {
            Some(seed) => seed..seed + 1,
            None => 0..number("CORECAST_RUNS").unwrap_or(RUNS),
        };
        let published: usize = seeds
            .map(|seed| {
                let _replay = Replay(seed);
                let len = [100, 300, 1000, 3000][seed as usize % 4];
                run(choices::bytes(seed, len))
            })
            .sum();
        assert!(published > 0);
    }

    /// What the fuzz target `hub_actions` starts from, and what it has found.
    #[test]
    fn every_promise_holds_for_the_fuzzers_corpus() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/hub_actions");
        let files: Vec<_> = std::fs::read_dir(folder).expect("the corpus").map(|file| file.expect("a file")).collect();
        assert!(!files.is_empty());
        for file in files {
            println!("{}", file.path().display());
            run(std::fs::read(file.path()).expect("a file").into_iter());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_promise_holds_for_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            run(bytes.into_iter());
        }
    }

    /// Says how to run a failed seed again.
    struct Replay(u64);

    impl Drop for Replay {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("to replay: CORECAST_SEED={} cargo test --lib simulation", self.0);
            }
        }
    }

    const RUNS: u64 = 2000;
}
