//! Numbers, times, sizes and tables as text.

use comfy_table::{CellAlignment, Table, presets};

/// 1 234 567, or with decimals below 10.
pub fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// 1.5 M, 250 k: for the axis of a chart.
pub fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e3 => (value / 1e3, " k"),
        value => (value, ""),
    };
    format!("{}{unit}", (value * 100.0).round() / 100.0)
}

/// Nanoseconds in a readable unit.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// A share of 1 as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Bytes in a readable unit.
pub fn bytes(value: f64) -> String {
    match value.abs() {
        size if size < 10_000.0 => format!("{value:.0} B"),
        size if size < 1e7 => format!("{:.1} KB", value / 1e3),
        _ => format!("{:.1} MB", value / 1e6),
    }
}

/// A table with a border. The columns from number `numbers` on are aligned to the right.
pub fn table(head: Vec<String>, rows: Vec<Vec<String>>, numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(head);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Text with the characters escaped that HTML and SVG reserve.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(1_234_567.0), "1 234 567");
        assert_eq!(number(0.5), "0.50");
        assert_eq!(number(-1000.0), "-1 000");
        assert_eq!([1_500_000.0, 250_000.0, 0.0].map(short), ["1.5 M", "250 k", "0"]);
        assert_eq!(time(1_500.0), "1.5 µs");
        assert_eq!(time(2_500_000.0), "2.50 ms");
    }
}
