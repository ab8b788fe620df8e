//! Policies for new streams, and what stays of existing ones.

use super::*;

fn allowed(number: usize, region: &str, key: Option<usize>, role: Option<&Role>) -> AllowedStream {
    let stream = format!("arn:aws:firehose:{region}:111122223333:deliverystream/orders-{number:04}");
    let key = key.map(|key| format!("arn:aws:kms:{region}:111122223333:key/{key:08}"));
    AllowedStream {
        stream: stream.parse().unwrap(),
        role: role.cloned(),
        keys: vec![key.unwrap_or_else(|| AWS_OWNED.to_owned())],
    }
}

fn role() -> Role {
    Role {
        arn: "arn:aws:iam::111122223333:role/spoke".parse().unwrap(),
        external_id: Some("of-the-data-team".parse().unwrap()),
    }
}

/// Returns the documents as a folder has them.
fn folder(documents: &[String]) -> Vec<ExistingPolicy> {
    let policy = |text: &String| {
        let object: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let spec = serde_json::from_value(object["spec"].clone()).ok();
        ExistingPolicy { name, spec, separator: String::new(), text: text.clone() }
    };
    documents.iter().map(policy).collect()
}

/// Returns the documents for a cluster that has no policy.
fn extended(
    existing: &[ExistingPolicy],
    namespace: &str,
    streams: &[AllowedStream],
) -> anyhow::Result<Vec<String>> {
    super::extended(existing, namespace, streams, &BTreeSet::new(), &mut Vec::new())
}

fn of_cluster(existing: &[String], streams: &[AllowedStream]) -> Vec<(String, StreamEncryptionPolicySpec)> {
    let made = folder(&extended(&folder(existing), "data", streams).unwrap());
    made.into_iter().map(|policy| (policy.name, policy.spec.unwrap())).collect()
}

#[test]
fn policy_allows_exactly_the_streams_and_keys() {
    let role = role();
    let streams = [allowed(1, "eu-west-1", None, Some(&role)), allowed(2, "eu-west-1", Some(7), Some(&role))];
    let [(name, spec)] = of_cluster(&[], &streams).try_into().unwrap();
    assert_eq!(name, "adopted-data-111122223333-eu-west-1");
    assert_eq!(spec.streams, streams.each_ref().map(|allowed| allowed.stream.to_string()));
    assert_eq!(spec.keys, ["AWS_OWNED_CMK", "arn:aws:kms:eu-west-1:111122223333:key/00000007"]);
    assert_eq!(spec.namespace_selector.match_labels["kubernetes.io/metadata.name"], "data");
    let role = spec.role.unwrap();
    assert_eq!(role.arn, "arn:aws:iam::111122223333:role/spoke");
    assert_eq!(role.external_id.as_deref(), Some("of-the-data-team"));
    assert!(!spec.allow_disable);
}

#[test]
fn each_region_and_each_hundred_streams_have_a_policy() {
    let mut streams: Vec<_> = (0..201).map(|number| allowed(number, "eu-west-1", None, None)).collect();
    streams.push(allowed(1, "eu-central-1", None, None));
    let policies = of_cluster(&[], &streams);
    let lengths: Vec<(&str, usize)> =
        policies.iter().map(|(name, spec)| (name.as_str(), spec.streams.len())).collect();
    assert_eq!(
        lengths,
        [
            ("adopted-data-111122223333-eu-west-1", 100),
            ("adopted-data-111122223333-eu-west-1-2", 100),
            ("adopted-data-111122223333-eu-west-1-3", 1),
            ("adopted-data-111122223333-eu-central-1", 1),
        ]
    );
}

#[test]
fn keys_of_a_policy_fit_its_list() {
    let two_keys = |number: usize| {
        let mut allowed = allowed(number, "eu-west-1", Some(2 * number), None);
        allowed.keys.push(format!("arn:aws:kms:eu-west-1:111122223333:key/{:08}", 2 * number + 1));
        allowed
    };
    let policies = of_cluster(&[], &(0..120).map(two_keys).collect::<Vec<_>>());
    assert_eq!(policies.iter().map(|(_, spec)| spec.keys.len()).collect::<Vec<_>>(), [100, 100, 40]);
    assert_eq!(policies.iter().map(|(_, spec)| spec.streams.len()).sum::<usize>(), 120);
}

#[test]
fn names_of_a_place_are_recognized() {
    let base = "adopted-data-111122223333-us-east-1";
    for (name, is_of_place) in [
        ("adopted-data-111122223333-us-east-1", true),
        ("adopted-data-111122223333-us-east-1-12", true),
        ("adopted-data-111122223333-us-east-12", false),
        ("adopted-data-111122223333-us-east-2", false),
        ("adopted-web-111122223333-us-east-1", false),
        ("adopted-data-111122223333-us-east-1-x", false),
    ] {
        assert_eq!(is_numbered(name, base), is_of_place, "{name}");
    }
}

/// The policies of other folders have the same names. Applying one of them would replace the lists of the other.
#[test]
fn policy_of_another_folder_keeps_its_name() {
    let base = "adopted-data-111122223333-eu-west-1";
    let in_cluster = BTreeSet::from([base.to_owned(), format!("{base}-2")]);
    let first = [allowed(1, "eu-west-1", None, None)];
    let written = super::extended(&[], "data", &first, &in_cluster, &mut Vec::new()).unwrap();
    assert_eq!(folder(&written)[0].name, format!("{base}-3"));
    // Once it is applied, the policy of the folder is that of the cluster, and is extended.
    let applied = BTreeSet::from([base.to_owned(), format!("{base}-2"), format!("{base}-3")]);
    let both = [&first[..], &[allowed(2, "eu-west-1", None, None)]].concat();
    let again =
        folder(&super::extended(&folder(&written), "data", &both, &applied, &mut Vec::new()).unwrap());
    assert_eq!((again.len(), again[0].name.clone()), (1, format!("{base}-3")));
    assert_eq!(again[0].spec.as_ref().map(|spec| spec.streams.len()), Some(2));
}

#[test]
fn settings_of_a_person_stay_and_are_not_for_new_streams() {
    let first = extended(&[], "data", &[allowed(1, "eu-west-1", None, None)]).unwrap();
    let edited = first[0].replace("maxCallsPerDay: 20", "allowDisable: true\n  maxCallsPerDay: 5");
    let streams = [allowed(1, "eu-west-1", Some(7), None), allowed(2, "eu-west-1", None, None)];
    let [(_, old), (name, new)] = of_cluster(&[edited], &streams).try_into().unwrap();
    assert_eq!(
        (old.allow_disable, old.max_calls_per_day, old.streams.len(), old.keys.len()),
        (true, 5, 1, 2)
    );
    assert_eq!(name, "adopted-data-111122223333-eu-west-1-2");
    assert_eq!((new.allow_disable, new.max_calls_per_day, new.keys.len()), (false, 20, 1));
    assert_eq!(new.streams, [streams[1].stream.to_string()]);
}

#[test]
fn policy_in_a_form_of_its_own_stays_as_it_is() {
    let first = extended(&[], "data", &[allowed(1, "eu-west-1", None, Some(&role()))]).unwrap();
    let edited = first[0].replace("spec:\n", "spec: # Reviewed in May.\n");
    let again = [allowed(1, "eu-west-1", None, None)];
    let made = extended(&folder(std::slice::from_ref(&edited)), "data", &again).unwrap();
    assert_eq!(made, std::slice::from_ref(&edited));
    // Another key goes into a policy with the same role: with two roles, the operator would use neither.
    let with_key = [allowed(1, "eu-west-1", Some(7), None)];
    let made = extended(&folder(std::slice::from_ref(&edited)), "data", &with_key).unwrap();
    assert_eq!((made.len(), &made[0]), (2, &edited));
    assert_eq!(folder(&made)[1].spec.as_ref().unwrap().role, folder(&made)[0].spec.as_ref().unwrap().role);
}

#[test]
fn policy_that_allows_all_that_is_needed_is_not_extended() {
    let pattern = allowed(1, "eu-west-1", Some(7), None).stream.to_string().replace("orders-0001", "*");
    let first = extended(&[], "data", &[allowed(1, "eu-west-1", Some(7), None)]).unwrap();
    let edited = first[0].replace("orders-0001", "*").replace("key/00000007", "key/*");
    let streams: Vec<_> = (0..3).map(|number| allowed(number, "eu-west-1", Some(number), None)).collect();
    let [(_, spec)] = of_cluster(&[edited], &streams).try_into().unwrap();
    assert_eq!(spec.streams, [pattern]);
}

/// An account may have more customer managed keys than a policy can list.
#[test]
fn second_run_gives_no_policy_a_key_of_another() {
    let streams: Vec<_> = (0..250).map(|number| allowed(number, "eu-west-1", Some(number), None)).collect();
    let first = extended(&[], "data", &streams).unwrap();
    assert_eq!(extended(&folder(&first), "data", &streams).unwrap(), first);
    let more = allowed(250, "eu-west-1", Some(250), None);
    let second = of_cluster(&first, &[&streams[..], &[more]].concat());
    assert!(second.iter().all(|(_, spec)| spec.keys.len() <= MAX_ITEMS));
    assert_eq!(second.iter().map(|(_, spec)| spec.keys.len()).sum::<usize>(), 251);
}

#[test]
fn roles_of_a_place_have_policies_of_their_own() {
    let streams = [allowed(1, "eu-west-1", None, Some(&role())), allowed(2, "eu-west-1", None, None)];
    let names: Vec<String> = of_cluster(&[], &streams).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["adopted-data-111122223333-eu-west-1", "adopted-data-111122223333-eu-west-1-2"]);
}

/// A policy must list a key, and only the cluster knows the ARN of a key that a manifest names by an object.
#[test]
fn stream_without_a_known_key_or_policy_is_noted() {
    let with_key = [allowed(1, "eu-west-1", None, None)];
    let unknown = [AllowedStream { keys: Vec::new(), ..with_key[0].clone() }];
    let existing = folder(&extended(&[], "data", &with_key).unwrap());
    for (existing, is_noted) in [(Vec::new(), true), (existing, false)] {
        let mut notes = Vec::new();
        let made = super::extended(&existing, "data", &unknown, &BTreeSet::new(), &mut notes).unwrap();
        assert_eq!(made.len(), existing.len());
        let names_it = |note: &String| note.contains(&unknown[0].stream.to_string());
        assert_eq!((notes.len() == 1, notes.iter().any(names_it)), (is_noted, is_noted), "{notes:?}");
    }
}

#[test]
fn more_keys_than_a_policy_can_list_are_divided() {
    let mut one = allowed(1, "eu-west-1", None, None);
    one.keys = (0..150).map(|key| format!("arn:aws:kms:eu-west-1:111122223333:key/{key:08}")).collect();
    let policies = of_cluster(&[], std::slice::from_ref(&one));
    assert_eq!(policies.iter().map(|(_, spec)| spec.keys.len()).collect::<Vec<_>>(), [75, 75]);
}
