//! How old a session is, and when the provider is asked for another one, hour by hour.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::future;

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_secs(10);

fn session(id: u64, expiry: Option<SystemTime>) -> Credentials {
    Credentials::new(format!("ASIA{id}"), "secret", Some("token".to_owned()), expiry, "test")
}

/// A clock that a test moves, in hours.
#[derive(Clone, Default)]
struct Hours(Arc<AtomicU64>);

impl Hours {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * u32::try_from(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn go_to(&self, hours: u64) {
        self.0.store(hours, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let hours = self.clone();
        Arc::new(move || hours.now())
    }
}

fn own(provider: impl ProvideCredentials + 'static, hours: &Hours) -> Own {
    Own::new(SharedCredentialsProvider::new(provider), hours.clock())
}

async fn age(own: &Own) -> Option<Duration> {
    own.session(SOON).await.unwrap().age
}

#[tokio::test]
async fn credentials_without_a_session_have_no_age() {
    let hours = Hours::default();
    let own = own(Credentials::new("AKIA", "secret", None, None, "test"), &hours);
    for hour in [0, 48] {
        hours.go_to(hour);
        assert_eq!(age(&own).await, None);
    }
}

#[tokio::test]
async fn the_provider_is_asked_again_five_hours_after_a_session_was_first_seen_or_when_it_ends() {
    for (ends_after, asked_at) in
        [(None, vec![0, 5, 10]), (Some(12), vec![0, 5, 10]), (Some(3), vec![0, 3, 6, 9])]
    {
        let hours = Hours::default();
        let (made, asked) = (hours.clone(), Arc::new(Mutex::new(Vec::new())));
        let noted = asked.clone();
        let own = own(
            provide_credentials_fn(move || {
                let hour = made.0.load(Ordering::Relaxed);
                noted.lock().unwrap().push(hour);
                let expiry = ends_after.map(|hours| made.now() + HOUR * hours);
                async move { Ok(session(hour, expiry)) }
            }),
            &hours,
        );
        for hour in 0..12 {
            hours.go_to(hour);
            let since = *asked_at.iter().rfind(|&&asked| asked <= hour).unwrap();
            assert_eq!(age(&own).await, Some(HOUR * u32::try_from(hour - since).unwrap()));
        }
        assert_eq!(*asked.lock().unwrap(), asked_at);
    }
}

#[tokio::test]
async fn credentials_that_say_nothing_of_their_end_are_asked_for_again() {
    let hours = Hours::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let own = own(
        provide_credentials_fn(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(Credentials::new("AKIA", "secret", None, None, "test")) }
        }),
        &hours,
    );
    for (hour, times) in [(0, 1), (0, 1), (1, 2)] {
        hours.go_to(hour);
        own.session(SOON).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), times);
    }
}

#[tokio::test]
async fn a_session_that_a_provider_hands_on_again_keeps_its_age() {
    let hours = Hours::default();
    let own = own(session(1, None), &hours);
    for hour in 0..48 {
        hours.go_to(hour);
        assert_eq!(age(&own).await, Some(HOUR * u32::try_from(hour).unwrap()));
    }
}

#[tokio::test]
async fn what_may_wait_gets_a_session_that_lasts_longer_than_what_must_go_at_once() {
    let hours = Hours::default();
    let made = Arc::new(AtomicU64::new(0));
    let counted = made.clone();
    let provider = provide_credentials_fn(move || {
        let id = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(session(id, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(30)))) }
    });
    let own = own(provider, &hours);
    for (lasting, asked) in [(SOON, 1), (SOON, 1), (Duration::from_mins(1), 2), (SOON, 2)] {
        own.session(lasting).await.unwrap();
        assert_eq!(made.load(Ordering::Relaxed), asked, "{lasting:?}");
    }
}

/// A provider that never answers, and may have something for that case.
#[derive(Debug)]
struct Silent(Option<Credentials>);

impl ProvideCredentials for Silent {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(std::future::pending())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_silent_provider_longer_than_for_aws() {
    let start = tokio::time::Instant::now();
    let silent = own(Silent(None), &Hours::default());
    let (one, other) = tokio::join!(silent.session(SOON), silent.session(SOON));
    assert!(one.is_err() && other.is_err());
    assert_eq!(start.elapsed(), DEADLINE);
    let of_an_instance = own(Silent(Some(session(7, None))), &Hours::default());
    assert_eq!(of_an_instance.session(SOON).await.unwrap().credentials.access_key_id(), "ASIA7");
}

#[test]
fn a_session_in_use_is_not_forgotten_for_many_that_are_not() {
    let mut seen = Seen::default();
    let at = |hour: u32| SystemTime::UNIX_EPOCH + HOUR * hour;
    seen.note("ASIA-in-use", at(0));
    for hour in 1..100 {
        seen.note(&format!("ASIA{hour}"), at(hour));
        assert_eq!(seen.note("ASIA-in-use", at(hour)), at(0));
    }
    assert_eq!(seen.0.len(), REMEMBERED);
}

#[tokio::test]
async fn no_secret_is_in_the_debug_output() {
    let session = own(session(1, None), &Hours::default()).session(SOON).await.unwrap();
    assert_eq!(format!("{session:?}"), "Session { age: Some(0ns), .. }");
}
