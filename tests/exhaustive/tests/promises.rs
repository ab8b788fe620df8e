//! The product keeps every promise in every order of events within small bounds, and the interesting situations are among them.

use exhaustive::bounds::Bounds;
use exhaustive::report::{Report, check};

fn kept(report: &Report) {
    for (promise, story) in &report.broken {
        println!("{promise}\n{}", story.text);
    }
    println!("{} states, {} steps, depth {}, {:?}", report.states, report.steps, report.depth, report.took);
    println!("{:?} unreached {:?}", report.reasons, report.unreached);
    assert!(report.broken.is_empty());
}

#[test]
fn small() {
    let f: Vec<u8> = std::env::var("B").unwrap_or("1,1,1,3,1".into()).split(',').map(|x| x.parse().unwrap()).collect();
    kept(&check(Bounds::new(u32::from(f[0]), f[1], f[2], f[3], f[4]), 2));
}
