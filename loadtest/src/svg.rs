//! Shapes of inline SVG. The style of the page sets what their classes look like.

use std::fmt::Write;

use crate::format::escape;

/// Appends a line between two points.
pub fn line(out: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = write!(out, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}

/// Appends a text. Its `anchor` (start, middle or end) is at the point.
pub fn text(out: &mut String, class: &str, anchor: &str, (x, y): (f64, f64), text: &str) {
    let text = escape(text);
    let _ = write!(out, "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}
