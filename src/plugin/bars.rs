//! The progress of a survey: one bar for each account and region, on the standard error of a terminal only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use stream_encryption_api::stream_encryption::Service;

use crate::adopt::survey::{Observer, Place};

/// The bars.
pub(super) struct Bars {
    all: MultiProgress,
    by_place: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    /// Creates no bar yet: each appears when its streams are listed.
    pub(super) fn new() -> Self {
        Self { all: MultiProgress::new(), by_place: Mutex::default() }
    }

    /// Removes the bars.
    pub(super) fn end(&self) {
        // A bar that is not finished is drawn once more when it is dropped.
        for bar in self.by_place.lock().unwrap_or_else(PoisonError::into_inner).values() {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }

    fn with(&self, place: &Place, change: impl FnOnce(&ProgressBar)) {
        let name = format!("{} {}", place.account.account, place.region);
        let mut by_place = self.by_place.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = by_place.entry(name.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(0));
            if let Ok(style) =
                ProgressStyle::with_template("{msg} {bar:30} {pos} of {len} streams, {eta} left")
            {
                bar.set_style(style);
            }
            bar.with_message(name)
        });
        change(bar);
    }
}

impl Observer for Bars {
    fn listed(&self, place: &Place, _: Service, streams: usize) {
        self.with(place, |bar| bar.inc_length(streams.try_into().unwrap_or(u64::MAX)));
    }

    fn described(&self, place: &Place, _: Service) {
        self.with(place, |bar| bar.inc(1));
    }
}
