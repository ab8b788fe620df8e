//! Messages about keys: which key is named, to whom, and the permissions that it needs.

use super::*;

/// The key was active before the policy was changed, or was set outside the operator.
#[test]
fn disallowed_key_is_not_named_in_messages() {
    let only_the_aws_owned = StreamEncryptionPolicySpec {
        keys: vec!["AWS_OWNED_CMK".to_owned()],
        ..StreamEncryptionPolicySpec::own_account()
    };
    let own = Scenario::of(Service::Firehose).permission.own_account().clone();
    let restricted = EffectivePolicy::of(Policy::read(&only_the_aws_owned).0.into_iter().collect(), own);
    let s = Scenario::of(Service::Firehose).converged().with(|s| s.permission = restricted).after(60);
    assert_eq!(
        status_fields::active_key(&s.input()),
        Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: None })
    );
    for reason in Reason::ALL {
        let wants_another = s.clone().wants(DesiredEncryption::AnyKey);
        assert!(
            !says(&wants_another, *reason).contains("key/1"),
            "{reason}: {}",
            says(&wants_another, *reason)
        );
    }
    assert!(!encrypted(&s.input()).contains("key/1"), "{}", encrypted(&s.input()));
    assert!(encrypted(&s.input()).contains("a customer managed key"), "{}", encrypted(&s.input()));
}

#[test]
fn key_usable_message_is_about_desired_key() {
    let words = |situation: Scenario| key_usable(&situation.input());
    assert_eq!(
        words(Scenario::of(Service::Kinesis)),
        format!(
            "{KEY_1} is enabled and of the right kind. Its key policy is not verified: producers need kms:GenerateDataKey and consumers need kms:Decrypt on this key."
        )
    );
    let disabled = words(Scenario::of(Service::Kinesis).key_is(KeyProblem::Disabled));
    assert_eq!(
        disabled,
        format!(
            "{KEY_1} is disabled, so no encryption call is made. Enable it, or set another key in spec.key."
        )
    );
}

#[test]
fn lost_key_message_names_impact_and_remedy() {
    let Key::Customer(arn) = key(1) else { unreachable!() };
    for (service, records) in
        [(Service::Kinesis, "neither written"), (Service::Firehose, "discards each of them after 24 hours")]
    {
        for (problem, remedy) in [
            (KeyProblem::Disabled, "Enable it."),
            (KeyProblem::PendingDeletion, "Cancel its deletion"),
            (KeyProblem::NotFound, "Set another key"),
            (KeyProblem::PendingImport, "Import it."),
            (KeyProblem::Unavailable, "key store"),
        ] {
            let words = active_key_unusable(&Scenario::of(service).input(), &arn, problem);
            for part in ["key/1 is the active key", records, remedy] {
                assert!(words.contains(part), "{problem:?}: {words}");
            }
        }
    }
}

#[test]
fn key_and_owner_are_named_if_reader_may_see_them() {
    let by_name = |name: &str| {
        let name = Some(name.to_owned());
        Scenario::of(Service::Kinesis)
            .wants(DesiredEncryption::UnknownKey)
            .with(|s| s.desired.key_reference = name)
    };
    assert!(
        says(&by_name("alias/orders"), Reason::KeyNotFound)
            .contains("The key alias/orders was not found in eu-west-1. Create the alias")
    );
    assert!(says(&by_name("orders"), Reason::KeyReferenceNotReady).contains("Key orders"));
    let owned = Scenario::of(Service::Kinesis);
    assert!(says(&owned, Reason::StreamAlreadyManaged).contains("of another namespace"));
    let words = says(&owned.with(|s| s.other_owner = Some("clicks")), Reason::StreamAlreadyManaged);
    assert!(words.contains("StreamEncryption clicks of this namespace"), "{words}");
    // The deletion of the owner could disable encryption.
    assert!(words.contains("Delete this resource: nothing changes in AWS."), "{words}");
}

/// Only Firehose creates a grant, and Kinesis requires its own action on the key.
#[test]
fn key_access_message_names_permissions_of_service() {
    for (service, code, named, absent) in [
        (Service::Firehose, "InvalidKMSResourceException", "kms:CreateGrant", "kinesis:"),
        (
            Service::Kinesis,
            "KMSAccessDeniedException",
            "kinesis:StartStreamEncryption with the ARN of the key as a resource",
            "kms:CreateGrant",
        ),
    ] {
        let plain = Scenario::of(service).sees(Observation::Off);
        let words = says(&plain.calls().refused(ErrorKind::KeyAccessDenied, code), Reason::KeyAccessDenied);
        assert!(words.contains(code) && words.contains(named) && !words.contains(absent), "{words}");
    }
}

#[test]
fn lost_active_key_comes_first_in_message() {
    let converged = Scenario::of(Service::Firehose).converged();
    let lost = converged.clone().active_key_is(KeyProblem::Disabled);
    let Key::Customer(arn) = key(1) else { unreachable!() };
    let alone = active_key_unusable(&lost.input(), &arn, KeyProblem::Disabled);
    assert_eq!(ready(&lost.input(), &lost.decide()), alone);
    let any = lost.clone().wants(DesiredEncryption::AnyKey);
    assert_eq!(ready(&any.input(), &any.decide()), alone);
    // The desired key is another one, and is unusable too.
    let other = lost.clone().wants(DesiredEncryption::Key(key(2))).key_is(KeyProblem::Disabled);
    let words = ready(&other.input(), &other.decide());
    assert!(words.starts_with(&alone) && words.contains("key/2 is disabled"), "{words}");
    let rekeying = lost.clone().wants(DesiredEncryption::Key(key(2))).calls().accepted();
    let words = ready(&rekeying.input(), &rekeying.decide());
    assert!(words.starts_with(&alone) && words.contains("key/2"), "{words}");
    // No claim is made if the stream could not be described, and only the owner sees the key.
    let unseen = lost.clone().cannot_see(ErrorKind::Transient);
    assert!(!ready(&unseen.input(), &unseen.decide()).contains("key/1"));
    for reason in [Reason::NotPermitted, Reason::StreamAlreadyManaged, Reason::Suspended] {
        assert!(!says(&lost, reason).contains("key/1"), "{reason}");
    }
}

#[test]
fn customer_key_message_names_required_permissions() {
    for (service, rights) in [
        (Service::Kinesis, ["kms:GenerateDataKey", "kms:Decrypt"]),
        (Service::Firehose, ["producers need kms:GenerateDataKey", "kms:Decrypt"]),
    ] {
        let words = key_usable(&Scenario::of(service).input());
        assert!(rights.iter().all(|right| words.contains(right)), "{words}");
        let aws_owned =
            key_usable(&Scenario::of(service).wants(DesiredEncryption::Key(Key::AwsOwned)).input());
        assert!(!aws_owned.contains("kms:"), "{aws_owned}");
    }
}
