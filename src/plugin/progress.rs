//! A progress bar on the standard error, for a verb that takes longer than a moment. Only on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins a bar for `total` steps; `done` says what a step does, such as "planned".
    pub(super) fn new(done: &'static str, total: usize) -> Self {
        let bar = ProgressBar::new(total.try_into().unwrap_or(u64::MAX));
        let template = format!("{{bar:30}} {{pos}} of {{len}} {done}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Counts one step.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}
