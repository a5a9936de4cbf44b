//! A PROXY header: judged once, and later bytes do not change the verdict.

use corecast::wire::proxy::{HEADER_BYTES_MAX, Header, read};

/// Panics where a part of the bytes gets another verdict than all of them.
pub fn check(input: &[u8]) {
    let whole = read(input);
    match whole {
        Header::Partial => assert!(input.len() < HEADER_BYTES_MAX, "no verdict at the limit"),
        Header::Whole { len, source } => {
            assert!((8..=HEADER_BYTES_MAX.min(input.len())).contains(&len));
            if let (Some(source), Some(line)) = (source, input[..len].strip_prefix(b"PROXY ")) {
                let line = std::str::from_utf8(line).expect("addresses are text").strip_suffix("\r\n").expect("a line");
                let words: Vec<&str> = line.split(' ').collect();
                assert_eq!(words.len(), 5, "{line:?}");
                assert_eq!(words[1].parse(), Ok(source.ip()), "{line:?}");
                assert_eq!(words[3], source.port().to_string(), "{line:?}");
            }
        }
        Header::Malformed(_) => {}
    }
    // The longest header has 8 KiB, and most of it is skipped without being read.
    let cuts = (0..input.len().min(300)).chain((300..input.len()).step_by(97));
    for cut in cuts {
        let part = read(&input[..cut]);
        if part != Header::Partial {
            assert_eq!(part, whole, "the first {cut} bytes");
        }
    }
}
