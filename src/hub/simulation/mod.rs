//! Seeded simulation of whole clusters: one to eight hubs with their clients and publishers on one thread. Letters arrive in
//! any order that the real mesh can produce. Every frame for a client is checked when it is appended.
//!
//! Bytes alone determine a run ([`run`]), so a seed or a fuzzer's input replays it:
//!
//! ```text
//! CORECAST_SEED=17 cargo test --lib simulation      one run again
//! CORECAST_RUNS=100000 cargo test --lib simulation  many runs
//! ```

pub(crate) mod choices;
mod cluster;
mod mesh;
mod model;
mod presence;
mod pusher;

use choices::Choices;
use cluster::Cluster;

/// One run. The first bytes choose the cluster. Each step takes one byte, and more for its choices. Panics if an invariant
/// is violated. Returns the number of messages published.
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
    fn every_invariant_holds_in_every_order_of_letters() {
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

    /// Inputs that the fuzz target `hub_actions` starts from, and those that it has found.
    #[test]
    fn every_invariant_holds_for_the_fuzzers_corpus() {
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
        fn every_invariant_holds_for_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            run(bytes.into_iter());
        }
    }

    /// Prints how to replay a seed whose run panics.
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
