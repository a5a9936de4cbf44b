//! The progress bar: open connections during setting up, then time and rate.

use std::cell::Cell;

use indicatif::{ProgressBar, ProgressStyle};

use crate::format::number;
use crate::plan::Plan;
use crate::worker::Moment;

/// A bar for one run, removed when dropped.
pub struct Bar {
    bar: ProgressBar,
    wanted: u64,
    length_s: f64,
    last: Cell<Moment>,
}

impl Bar {
    /// A bar, with a title if the run is one of several.
    pub fn new(plan: &Plan, title: &'static str, is_hidden: bool) -> Bar {
        let wanted = plan.connections() as u64;
        let bar = if is_hidden { ProgressBar::hidden() } else { ProgressBar::new(wanted) };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}[{wide_bar}] {msg}") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        if !title.is_empty() {
            bar.set_prefix(format!("{title} "));
        }
        Bar { bar, wanted, length_s: (plan.warmup_ns + plan.duration_ns) as f64 / 1e9, last: Cell::default() }
    }

    /// Shows a moment of the run.
    pub fn show(&self, moment: Moment) {
        if moment.seconds < 0.0 {
            self.bar.set_position(moment.connected);
            self.bar.set_message(format!("{} of {} connections", number(moment.connected as f64), self.wanted));
            return;
        }
        let last = self.last.replace(moment);
        let seconds = (moment.seconds - last.seconds).max(1e-3);
        let rate = moment.events.saturating_sub(last.events) as f64 / seconds;
        self.bar.set_length((self.length_s * 1000.0) as u64);
        self.bar.set_position((moment.seconds * 1000.0) as u64);
        self.bar.set_message(format!("{} / s, {:.0} of {:.0} s", number(rate), moment.seconds, self.length_s));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
