//! Command-line values and help for closing connections over a time.

use corecast::api::Share;
use corecast::api::operation::OVER_MS_MAX;

/// Parses a duration of at most an hour: a whole number and its unit. The result is in milliseconds.
pub fn time(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("must be a whole number and a unit (ms, s, m or h), as in 500ms, 60s or 5m".into()),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    millis.filter(|millis| *millis <= OVER_MS_MAX).ok_or("must be 0s to 1h".into())
}

/// Parses `20%`, or a number of connections.
pub fn share(text: &str) -> Result<Share, String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let share = match text.strip_suffix('%') {
        Some(percent) if is_number(percent) => {
            percent.parse().ok().filter(|percent| *percent <= 100).map(Share::Percent)
        }
        None if is_number(text) => text.parse().ok().map(Share::Count),
        _ => None,
    };
    share.ok_or("must be a number of connections, or 0% to 100%".into())
}

pub const DRAIN_AFTER: &str = "\
From now on the server is not ready and accepts no connections. It serves each existing connection until it closes it: in \
random order, spread evenly over the time, with code 1012 and the reason `retry after N ms`, with a different N for each. Then \
the server stops, as with SIGTERM. The command returns when the drain has begun. A second drain closes the remaining \
connections over its own time.

Examples:
  corecast drain --over 60s
  corecast drain --over 5m --json";

pub const SHED_AFTER: &str = "\
The server stays ready and accepts connections. It closes this part of the existing ones: chosen at random, spread evenly over \
the time, with code 1012 and the reason `retry after N ms`, with a different N for each. The command returns when the shed has \
begun. A second shed replaces the first: `corecast shed 0` cancels it.

Examples:
  corecast shed 20%
  corecast shed 500 --over 5m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_numbers_or_percentages() {
        let legal = [("20%", Share::Percent(20)), ("0%", Share::Percent(0)), ("500", Share::Count(500))];
        for (text, expected) in legal {
            assert_eq!(share(text), Ok(expected), "{text}");
        }
        for refused in ["", "%", "101%", "-1", "+1", "2.5%", "1e3", "20 %", "all", "99999999999999999999"] {
            assert!(share(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in [("0s", 0), ("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(time(text), Ok(millis), "{text}");
        }
        for refused in ["", "60", "s", "-1s", "+1s", "1.5s", "61m", "99999999999999999999s", "1 s", "1d"] {
            assert!(time(refused).is_err(), "{refused}");
        }
    }
}
