//! The values that options take. What a run cannot use is refused before it begins.

use clap::builder::RangedU64ValueParser;

/// Of things that a run cannot do without.
pub fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Channels: their numbers, from `--first-channel` on, must fit into 32 bits.
pub fn channels() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=1 << 24)
}

/// Bytes of payload. The stamp takes 28; more than 64 MiB, no server accepts as one message.
pub fn size() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(28..=64 << 20)
}

/// A rate per second that an open loop can keep.
pub fn rate(text: &str) -> Result<f64, String> {
    number(text, |rate| rate > 0.0 && rate <= 1e6, "above 0 and at most 1 000 000")
}

/// A rate per second, or 0 for none.
pub fn rate_or_none(text: &str) -> Result<f64, String> {
    number(text, |rate| (0.0..=1e6).contains(&rate), "from 0 to 1 000 000")
}

/// A time that is not empty, in seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    number(text, |seconds| seconds > 0.0 && seconds <= SECONDS_MAX, "above 0 and at most 10 000 000 seconds")
}

/// A time, in seconds, or 0 for none.
pub fn seconds_or_none(text: &str) -> Result<f64, String> {
    number(text, |seconds| (0.0..=SECONDS_MAX).contains(&seconds), "from 0 to 10 000 000 seconds")
}

/// A part of the whole.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, |share| (0.0..=1.0).contains(&share), "from 0 to 1")
}

/// A factor.
pub fn factor(text: &str) -> Result<f64, String> {
    number(text, |factor| factor > 0.0 && factor.is_finite(), "above 0")
}

fn number(text: &str, is_allowed: impl Fn(f64) -> bool, allowed: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    if is_allowed(number) { Ok(number) } else { Err(format!("must be {allowed}")) }
}

const SECONDS_MAX: f64 = 1e7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_cannot_use_is_refused() {
        for text in ["0", "-1", "nan", "inf", "", "1e999"] {
            assert!(rate(text).is_err() && seconds(text).is_err() && factor(text).is_err(), "{text}");
        }
        for text in ["-1", "nan", "inf"] {
            assert!(rate_or_none(text).is_err() && seconds_or_none(text).is_err() && share(text).is_err(), "{text}");
        }
        assert_eq!((rate("0.5"), rate_or_none("0"), seconds("1e7")), (Ok(0.5), Ok(0.0), Ok(1e7)));
        assert_eq!((seconds_or_none("0"), share("1"), factor("6")), (Ok(0.0), Ok(1.0), Ok(6.0)));
        assert!(share("1.1").is_err());
    }
}
