//! The fuzz targets of `fuzz/` without a fuzzer: every file of the corpus, and inputs derived from them. These are the same in every
//! run, so that a change never fails for an input of chance; `make test-long` draws others.
//!
//! ```text
//! CORECAST_SEED=17 cargo test --test fuzz         other inputs
//! CORECAST_RUNS=100000 cargo test --test fuzz     many of them
//! ```
//!
//! `hub_actions` needs the simulation, which only the library's own tests can reach: `cargo test --lib simulation`.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::panic::catch_unwind;
use std::path::PathBuf;

macro_rules! test_targets {
    ($($target:ident),* $(,)?) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), targets::$target::check);
            }
        )*
    };
}

test_targets!(frame, upgrade, decode, pusher_command, values, user, admin_line, proxy_header);

fn run(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "the corpus of {target} is empty");
    for (name, input) in &corpus {
        assert!(catch_unwind(|| check(input)).is_ok(), "fuzz/corpus/{target}/{name} fails");
    }
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("CORECAST_SEED").unwrap_or(0);
    let runs = number("CORECAST_RUNS").unwrap_or(RUNS);
    println!("{target}: {} files, {runs} inputs of CORECAST_SEED={seed}", corpus.len());
    let mut random = Random(seed);
    for _ in 0..runs {
        let input = mutated(&corpus, &mut random);
        if catch_unwind(|| check(&input)).is_err() {
            panic!(
                "to replay: CORECAST_SEED={seed} cargo test --test fuzz {target}\nthe input: b\"{}\"",
                input.escape_ascii()
            );
        }
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files
        .map(|file| {
            let file = file.expect("a file");
            (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}

/// One file of the corpus with a few random changes, as a fuzzer makes them.
fn mutated(corpus: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(9)).min(input.len());
        match random.below(7) {
            0 => input.insert(at, random.next() as u8),
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 if at < input.len() => input[at] = EDGES[random.below(EDGES.len())],
            3 => drop(input.drain(at..end)),
            4 => {
                let repeated = input[at..end].repeat(1 + random.below(3));
                input.splice(at..at, repeated);
            }
            5 => input.truncate(at),
            _ => {
                // The rest of another file behind the start of this one.
                let other = &corpus[random.below(corpus.len())].1;
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

const RUNS: u64 = 10_000;
const INPUT_BYTES_MAX: usize = 4096;
/// Bytes with a meaning: ends of ranges, quotes, brackets, line ends.
const EDGES: &[u8] = b"\0\x01\x7D\x7E\x7F\x80\x81\x82\x88\x89\xBF\xC0\xED\xF4\xFE\xFF\"\\{}[]:,\r\n 09-u";
