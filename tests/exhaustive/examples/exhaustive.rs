//! The large check: `cargo run --release --example exhaustive`. Some minutes and some gigabytes; it decides nothing else.
//!
//! Each run widens what `tests/promises.rs` explores in seconds: two faults, changes of mind together with faults, more
//! moments. Names on the command line choose among the runs.

use std::process::ExitCode;

use exhaustive::bounds::{Bounds, Fault};
use exhaustive::names::{Encryption, Wish};
use exhaustive::report::check;
use exhaustive::world::SKEW;
use jiff::SignedDuration;
use stream_encryption_api::stream_encryption::Service;

fn runs() -> Vec<(&'static str, Bounds)> {
    let mind = &[Wish::One, Wish::Two, Wish::Off];
    let unanswered = &[Fault::TimeOut, Fault::LostReply, Fault::Failure];
    let pause = SignedDuration::from_secs(10);
    vec![
        ("two-faults", Bounds::new(1, 2, 0, 3, 0)),
        ("two-calls", Bounds::new(2, 1, 0, 5, 0)),
        ("change-of-mind", Bounds { wishes: mind, ..Bounds::new(2, 1, 1, 1, 0) }),
        ("pauses", Bounds { pause, ..Bounds::new(1, 1, 0, 2, 2) }),
        ("wrong-clocks", Bounds { ahead: [-SKEW, SKEW], kinds: unanswered, ..Bounds::new(1, 2, 0, 4, 0) }),
        (
            "kinesis",
            Bounds { service: Service::Kinesis, found: Encryption::Foreign, ..Bounds::new(1, 2, 0, 2, 0) },
        ),
    ]
}

fn main() -> ExitCode {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let mut broken = false;
    for (name, bounds) in runs() {
        if chosen.is_empty() || chosen.iter().any(|one| one == name) {
            let report = check(bounds, 2);
            println!("{name}: {report}");
            broken |= !report.broken.is_empty();
        }
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
