//! A progress bar on the standard error, for a verb that takes longer than a moment. Only on a terminal.

use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::notice;

/// The bar that is drawn now. A program runs one verb.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

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
        *drawn() = Some(bar.clone());
        Self(bar)
    }

    /// Counts one step.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        *drawn() = None;
        self.0.finish_and_clear();
    }
}

/// Prints a line on the standard error, above the bar if there is one.
pub(super) fn note(line: &str) {
    let bar = drawn().clone();
    match bar {
        Some(bar) => bar.suspend(|| notice(line)),
        None => notice(line),
    }
}

fn drawn() -> MutexGuard<'static, Option<ProgressBar>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}
