//! The work queue and the rate limiter: what a turn costs among a few and among many resources and namespaces.

#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_core::model::service::Operation;
use stream_encryption_core::work_queue::{Lane, Work, WorkQueue};
use stream_encryption_operator::aws::rate_limit::{QueueKey, QuotaScope, RateLimiter};

fn namespace(number: usize) -> String {
    format!("team-{number}")
}

/// Returns a queue in which as many resources are due for checks for drift, in 100 namespaces.
fn queue(resources: usize) -> WorkQueue<usize, u8> {
    let mut queue = WorkQueue::new(32, |_: &u8| 8);
    (0..resources).for_each(|resource| queue.schedule(resource, Duration::ZERO));
    queue
}

fn work(resource: usize) -> Work<u8> {
    Work { scope: 0, lane: Lane::Drift, namespace: namespace(resource % 100) }
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100 turns of the work queue");
    group.throughput(Throughput::Elements(100));
    for resources in [1_000, 10_000, 100_000] {
        group.bench_function(BenchmarkId::from_parameter(resources), |bencher| {
            let mut queue = queue(resources);
            let mut now = Duration::ZERO;
            bencher.iter(|| {
                for _ in 0..100 {
                    now += Duration::from_millis(1);
                    if let Some(resource) = queue.next(now, |resource| Some(work(*resource))) {
                        queue.end(resource, Some(now + Duration::from_millis(resources as u64)));
                    }
                }
            });
        });
    }
    group.finish();
}

fn permits(criterion: &mut Criterion) {
    let stream: StreamArn =
        "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().expect("an ARN");
    let mut group = criterion.benchmark_group("1000 permits of the rate limiter");
    group.throughput(Throughput::Elements(1000));
    for namespaces in [1, 100, 1000] {
        group.bench_function(BenchmarkId::new("namespaces", namespaces), |bencher| {
            let runtime = || {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                // The clock advances when every waiter waits.
                builder.enable_time().start_paused(true).build().expect("a runtime")
            };
            let quota = QuotaScope::of(Operation::DescribeDeliveryStream, &stream);
            bencher.iter_batched(
                runtime,
                |runtime| {
                    runtime.block_on(async {
                        let limiter = RateLimiter::with_limits(100, RequestLimits::same(1000));
                        let waiters = (0..1000).map(|number| {
                            let (limiter, quota) = (limiter.clone(), quota.clone());
                            let key = QueueKey {
                                priority: Priority::Changing,
                                namespace: namespace(number % namespaces),
                            };
                            tokio::spawn(async move { limiter.acquire(&quota, &key).await })
                        });
                        for waiter in waiters.collect::<Vec<_>>() {
                            waiter.await.expect("a permit");
                        }
                    });
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, turns, permits);
criterion_main!(benches);
