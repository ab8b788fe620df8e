//! IAM policies for new streams, and what stays of existing ones.

use super::*;

fn account() -> Account {
    "111122223333".parse().unwrap()
}

fn allowed(number: usize, key: Option<usize>) -> AllowedStream {
    let stream = format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders-{number:04}");
    let key =
        key.map(|key| format!("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-{key:012}"));
    AllowedStream {
        stream: stream.parse().unwrap(),
        role: None,
        keys: vec![key.unwrap_or_else(|| AWS_OWNED.to_owned())],
    }
}

fn kinesis(number: usize, key: Option<usize>) -> AllowedStream {
    let stream = format!("arn:aws:kinesis:eu-west-1:111122223333:stream/orders-{number}");
    AllowedStream { stream: stream.parse().unwrap(), ..allowed(number, key) }
}

fn folder(files: &[IamFile]) -> Vec<ExistingIamPolicy> {
    let file = |IamFile { path, text }: &IamFile| ExistingIamPolicy {
        path: path.clone(),
        document: serde_json::from_str(text).ok(),
        text: text.clone(),
    };
    files.iter().map(file).collect()
}

fn made(existing: &[IamFile], streams: &[AllowedStream]) -> Vec<IamFile> {
    extended(&folder(existing), &account(), streams, &mut Vec::new()).unwrap()
}

fn fits(file: &IamFile) -> bool {
    file.text.chars().filter(|character| !character.is_whitespace()).count() <= LONGEST_MANAGED_POLICY
}

fn resources(file: &IamFile, sid: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(&file.text).unwrap();
    let statements = list(&document["Statement"]);
    let statement = statements.into_iter().find(|statement| statement["Sid"] == sid);
    let resources = statement.map(|statement| list(&statement["Resource"])).unwrap_or_default();
    resources.into_iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn all(files: &[IamFile], sid: &str) -> Vec<String> {
    files.iter().flat_map(|file| resources(file, sid)).collect()
}

#[test]
fn iam_policies_cover_each_stream_once_and_fit() {
    let streams: Vec<_> = (0..300).map(|number| allowed(number, Some(number % 3))).collect();
    let files = made(&[], &streams);
    assert!(files.len() > 1 && files.iter().all(fits));
    assert_eq!(files[1].path, "iam/111122223333-2.json");
    let document: Value = serde_json::from_str(&files[0].text).unwrap();
    let sid = document["Statement"][0]["Sid"].as_str().unwrap();
    assert_eq!(
        all(&files, sid),
        streams.iter().map(|allowed| allowed.stream.to_string()).collect::<Vec<_>>()
    );
}

#[test]
fn stream_of_another_account_is_not_granted() {
    let mut other = allowed(1, None);
    other.stream = other.stream.to_string().replace("111122223333", "444455556666").parse().unwrap();
    let [file] = made(&[], &[allowed(1, Some(1)), other]).try_into().unwrap();
    assert!(file.path == "iam/111122223333.json" && !file.text.contains("444455556666"), "{}", file.text);
}

/// With a customer managed key of the region alone, AWS would refuse to encrypt the other stream.
#[test]
fn aws_key_of_kinesis_is_allowed_beside_a_customer_key() {
    let any_key = "arn:aws:kms:eu-west-1:111122223333:key/*";
    for (second, wanted) in [(None, true), (Some(2), false)] {
        let [file] = made(&[], &[kinesis(1, Some(1)), kinesis(2, second)]).try_into().unwrap();
        assert_eq!(file.text.contains(any_key), wanted, "{}", file.text);
        // A stream of Firehose needs no key of Kinesis.
        let again = made(std::slice::from_ref(&file), &[kinesis(1, Some(1)), allowed(3, None)]);
        assert_eq!(again[0].text.contains(any_key), wanted, "{}", again[0].text);
    }
}

/// Kinesis may report the key by its ARN. Without this permission, the operator would take it for another key than that of
/// the manifest.
#[test]
fn aws_key_of_kinesis_may_be_described() {
    let any_key = "arn:aws:kms:eu-west-1:111122223333:key/*";
    for (stream, described) in
        [(kinesis(1, None), &[any_key][..]), (kinesis(1, Some(1)), &[]), (allowed(1, None), &[])]
    {
        let streams = [stream];
        let [file] = made(&[], &streams).try_into().unwrap();
        assert_eq!(resources(&file, iam::DESCRIBE_AWS_MANAGED_KEYS), described, "{}", file.text);
        assert_eq!(made(std::slice::from_ref(&file), &streams), [file]);
    }
}

/// A person narrows `key/*` to the key of `alias/aws/kinesis`, by hand or with the policy that `iam policy` prints.
#[test]
fn narrowed_key_of_kinesis_is_not_widened() {
    let (any_key, key) = ("arn:aws:kms:eu-west-1:111122223333:key/*", &allowed(0, Some(9)).keys[0]);
    for streams in [vec![kinesis(1, None)], vec![kinesis(1, None), kinesis(2, Some(2))]] {
        let [mut file] = made(&[], &streams).try_into().unwrap();
        assert!(file.text.contains(any_key), "{}", file.text);
        file.text = file.text.replace(any_key, key);
        let narrowed = std::slice::from_ref(&file);
        assert_eq!(made(narrowed, &streams), narrowed);
        // Another stream may use the same key, and no other one, also beside an edited policy.
        let tag = r#""Condition": {"StringEquals": {"aws:ResourceTag/team": "data"}}, "Effect": "Allow""#;
        let edited = IamFile { text: file.text.replace(r#""Effect": "Allow""#, tag), ..file.clone() };
        for (file, count) in [(file, 1), (edited, 2)] {
            let more = [streams.clone(), vec![kinesis(3, None)]].concat();
            let files = made(&[file], &more);
            assert_eq!(files.len(), count);
            let start = resources(&files[count - 1], "EncryptKinesisStreams");
            assert!(start.contains(key) && start.iter().any(|one| one.ends_with("/orders-3")), "{start:?}");
            let described = resources(&files[count - 1], iam::DESCRIBE_AWS_MANAGED_KEYS);
            assert_eq!(described, [key.as_str()]);
            assert!(files.iter().all(|file| !file.text.contains("key/*")), "{files:?}");
        }
    }
    let printed = iam::policy(
        &Scope::new(
            vec![kinesis(1, None).stream.to_string().parse().unwrap()],
            Vec::new(),
            vec![key.parse().unwrap()],
        )
        .unwrap(),
        &[Feature::Encrypt, Feature::Disable],
    );
    let text = serde_json::to_string_pretty(&printed).unwrap();
    let file = IamFile { path: "iam/111122223333.json".to_owned(), text };
    assert_eq!(made(std::slice::from_ref(&file), &[kinesis(1, None)]), [file]);
}

/// Whether a person removed `key/*` from an edited policy is not known, so `adopt` says so instead of adding it.
#[test]
fn edited_policy_gets_no_other_one_with_any_key() {
    let [mut file] = made(&[], &[kinesis(1, Some(1))]).try_into().unwrap();
    file.text = file.text.replacen(r#""Sid""#, r#""NotPrincipal": "x", "Sid""#, 1);
    let mut notes = Vec::new();
    let edited = std::slice::from_ref(&file);
    let files = extended(&folder(edited), &account(), &[kinesis(1, None)], &mut notes).unwrap();
    assert_eq!(files, edited);
    assert!(notes[0].contains("does not allow arn:aws:kinesis:"), "{notes:?}");
}

#[test]
fn existing_policy_keeps_all_that_it_allows() {
    let first = made(&[], &[allowed(1, Some(1)), kinesis(2, None)]);
    assert_eq!(made(&first, &[]), first);
    let [file] = made(&first, &[kinesis(3, Some(3))]).try_into().unwrap();
    for part in ["orders-0001", "orders-2", "orders-3", "000000000001", "000000000003", "key/*"] {
        assert!(file.text.contains(part), "{part} is missing in {}", file.text);
    }
}

#[test]
fn policy_with_a_condition_stays_as_it_is() {
    let [mut file] = made(&[], &[allowed(1, Some(1))]).try_into().unwrap();
    let tag = r#"{"StringEquals": {"aws:ResourceTag/team": "data"}}, "Effect": "Allow""#;
    file.text = file.text.replacen(r#""Effect": "Allow""#, &format!(r#""Condition": {tag}"#), 1);
    let edited = std::slice::from_ref(&file);
    assert!(serde_json::from_str::<Value>(&file.text).is_ok(), "{}", file.text);
    assert_eq!(made(edited, &[allowed(1, Some(1))]), edited);
    let [first, second] = made(edited, &[allowed(1, Some(1)), allowed(2, Some(1))]).try_into().unwrap();
    assert_eq!(first, file);
    assert_eq!(second.path, "iam/111122223333-2.json");
    assert!(second.text.contains("orders-0002") && !second.text.contains("orders-0001"), "{}", second.text);
}

/// The keys of one stream may need more characters than a policy has.
#[test]
fn many_keys_are_divided_among_policies() {
    let mut one = allowed(1, None);
    one.keys = (0..60).flat_map(|key| allowed(1, Some(key)).keys).collect();
    let files = made(&[], std::slice::from_ref(&one));
    assert!(files.len() > 1 && files.iter().all(fits));
    let named = |key: &String| files.iter().any(|file| file.text.contains(&format!("{key}\"")));
    assert!(one.keys.iter().all(named));
    assert_eq!(made(&files, &[one]), files);
}

#[test]
fn each_stream_has_only_policies_with_its_own_keys() {
    let streams: Vec<_> = (0..100).map(|number| allowed(number, Some(number))).collect();
    let files = made(&[], &streams);
    assert!(files.iter().all(fits));
    assert_eq!(made(&files, &streams), files, "a second run adds nothing");
}
