//! Formats numbers to fit into a table column.

use super::view::Rate;
use corecast::config::bytes;

/// `12 345`, `12.3M`.
pub fn count(count: u64) -> String {
    match count {
        0..10_000_000 => grouped(count),
        10_000_000..10_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}G", count as f64 / 1e9),
    }
}

/// `0.5`, `12 345`; `-` without a value.
pub fn rate(rate: Rate) -> String {
    match rate {
        None => NONE.into(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(rate.round() as u64),
    }
}

/// `1.5 MiB`.
pub fn byte_rate(rate: Rate) -> String {
    rate.map_or(NONE.into(), |rate| bytes(rate.round() as u64))
}

/// `12 µs`, `1.5 ms`, `2.0 s`.
pub fn micros(us: Option<f64>) -> String {
    match us {
        None => NONE.into(),
        Some(us) if us < 1e3 => format!("{us:.0} µs"),
        Some(us) if us < 1e6 => format!("{:.1} ms", us / 1e3),
        Some(us) => format!("{:.1} s", us / 1e6),
    }
}

/// `75%`.
pub fn percent(share: Rate) -> String {
    share.map_or(NONE.into(), |share| format!("{:.0}%", share * 100.0))
}

/// A bar for a share from 0 to 1: at most `columns` wide, with a resolution of an eighth of a column.
pub fn bar(share: Rate, columns: usize) -> String {
    let eighths = (share.unwrap_or_default().clamp(0.0, 1.0) * (columns * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    // An empty string for zero eighths.
    bar += ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    bar
}

/// Cuts a text that is longer than `columns`, and marks the cut.
pub fn clip(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.into();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

const NONE: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let counts = [(0, "0"), (999, "999"), (1234, "1 234"), (9_999_999, "9 999 999"), (12_345_678, "12.3M")];
        for (number, text) in counts {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(12_345_678_901), "12.3G");
        let rates = [(None, "-"), (Some(0.0), "0"), (Some(0.52), "0.5"), (Some(9.97), "10"), (Some(1234.4), "1 234")];
        for (number, text) in rates {
            assert_eq!(rate(number), text);
        }
        for (number, text) in [(None, "-"), (Some(0.4), "0 µs"), (Some(1500.0), "1.5 ms"), (Some(2e6), "2.0 s")] {
            assert_eq!(micros(number), text);
        }
        assert_eq!((byte_rate(None), byte_rate(Some(1536.2))), ("-".into(), "1.5 KiB".into()));
        assert_eq!((percent(None), percent(Some(0.756))), ("-".into(), "76%".into()));
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        for (share, text) in [(None, ""), (Some(0.0), ""), (Some(0.5), "██"), (Some(0.6), "██▍"), (Some(1.0), "████")]
        {
            assert_eq!(bar(share, 4), text);
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!((clip("abc", 3), clip("abcd", 3), clip("é", 0)), ("abc".into(), "ab…".into(), "…".into()));
    }
}
