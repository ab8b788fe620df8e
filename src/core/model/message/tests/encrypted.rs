//! The message of `Encrypted`: since when, with which key, or why it is unknown.

use super::*;

#[test]
fn encrypted_message_matches_observation() {
    let words = |situation: Scenario| encrypted(&situation.input());
    let plain = "Records have been in plaintext since 2026-01-01T00:00:00Z or earlier.";
    assert_eq!(words(Scenario::of(Service::Kinesis)), "Unknown: the stream has not been described yet.");
    assert_eq!(words(seen(Observation::Off)), plain);
    let fresh = words(seen(Observation::On(key(1))));
    assert!(fresh.contains("up to 5 seconds"), "{fresh}");
    assert_eq!(
        words(seen(Observation::On(key(1))).after(5)),
        format!("Records have been encrypted since 2026-01-01T00:00:05Z, with {KEY_1}.")
    );
    assert_eq!(
        words(seen(Observation::On(Key::AwsOwned)).after(5)),
        "Records have been encrypted since 2026-01-01T00:00:05Z, with the AWS-owned key."
    );
}

#[test]
fn encrypted_message_has_separate_time_for_active_key() {
    let rekeyed = Scenario::of(Service::Kinesis)
        .converged()
        .wants(DesiredEncryption::Key(key(2)))
        .calls()
        .accepted()
        .after(100)
        .sees(Observation::On(key(2)));
    let words = encrypted(&rekeyed.input());
    assert!(
        words.starts_with("Records have been encrypted since 2026-01-01T00:00:05Z. AWS has changed"),
        "{words}"
    );
    let words = encrypted(&rekeyed.after(5).input());
    let both = "Records have been encrypted since 2026-01-01T00:00:05Z, and with arn:aws:kms:eu-west-1:111122223333:key/2 since 2026-01-01T00:02:45Z.";
    assert_eq!(words, both);
}

#[test]
fn message_times_match_status_fields() {
    let s = Scenario::of(Service::Kinesis).with(|s| s.now += SignedDuration::from_millis(300)).converged();
    let field = next_whole_second(status_fields::encrypted_since_time(&s.input()).unwrap()).0;
    assert!(encrypted(&s.input()).contains(&format!("since {field}, ")), "{}", encrypted(&s.input()));
    let plain = s.wants(DesiredEncryption::Off).converged();
    let field = next_whole_second(status_fields::plaintext_since_time(&plain.input()).unwrap()).0;
    assert!(encrypted(&plain.input()).contains(&format!("since {field}")), "{}", encrypted(&plain.input()));
}

#[test]
fn unknown_encryption_message_names_cause() {
    let of = || Scenario::of(Service::Firehose);
    let source = Observation::NotEncryptable("KinesisStreamAsSource".into());
    for (situation, words) in [
        (of(), "has not been described"),
        (of().cannot_see(ErrorKind::Transient), "the stream could not be described"),
        (without_key(of()), "no encryption state of the stream is known yet, and the desired key"),
        (seen(Observation::Missing), "was not found"),
        (seen(Observation::Creating), "is being created"),
        (seen(Observation::NotOperational("CREATING_FAILED".into())), "CREATING_FAILED"),
        (of().with(|s| s.sight = Sight::At(s.now, source)), "the stream's source is KinesisStreamAsSource"),
        (seen(failed(Action::Start)), "does not report which key is active"),
        (seen(Observation::InProgress(None)), "not reported a stable encryption state"),
    ] {
        let message = encrypted(&situation.input());
        assert!(message.starts_with("Unknown: ") && message.contains(words), "{message}");
    }
    let known = encrypted(&without_key(of().converged()).input());
    assert!(known.starts_with("Records have been encrypted since "), "the key does not matter: {known}");
}

/// Returns a situation in which KMS did not describe the desired key.
fn without_key(situation: Scenario) -> Scenario {
    let error = AwsError { operation: Operation::DescribeKey, ..aws_error(ErrorKind::Transient, "Code") };
    situation.with(|s| s.sight = Sight::Failed(error.clone()))
}
