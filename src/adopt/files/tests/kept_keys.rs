//! Tests: the keys that policies allow for a stream whose manifest the folder had already.

use super::*;

/// Writes the manifest of a stream with another key, and removes what allows the stream and its keys.
fn with_key(key: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks()], &Managed::default(), false);
    let file = folder.path().join(path(&clicks().stream.arn));
    let text = fs::read_to_string(&file).unwrap();
    let edited = text.replace("  key:\n    type: AWS_OWNED_CMK\n", key);
    assert_ne!(edited, text);
    fs::write(&file, edited).unwrap();
    fs::remove_file(folder.path().join("policy.yaml")).unwrap();
    fs::remove_dir_all(folder.path().join("iam")).unwrap();
    folder
}

/// Returns a stream that is managed, and encrypted with this key.
fn encrypted(arn: &str, key: &str) -> PlannedStream {
    let mut planned = planned(arn, Err("it is managed".to_owned()));
    planned.stream.encryption = FoundEncryption::Customer(key.parse().unwrap());
    planned
}

/// The operator gives a stream in plaintext the key of AWS if its manifest names no key.
#[test]
fn manifest_without_a_key_is_allowed_the_key_of_aws() {
    for key in ["", "  key: null\n"] {
        let folder = with_key(key);
        written(&folder, &[clicks()], &Managed::default(), true);
        let policy = &read(&folder, "policy.yaml")[0]["spec"];
        assert_eq!(policy["streams"], json!([clicks().stream.arn.to_string()]));
        assert_eq!(policy["keys"], json!(["AWS_OWNED_CMK"]));
    }
}

/// Somebody may have set a key that nobody approved. The next run must not approve it.
#[test]
fn active_key_that_no_manifest_names_is_only_noted() {
    let folder = tempfile::tempdir().unwrap();
    let arn = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/audit";
    let by_arn = planned(arn, Ok(ManifestKey::Arn(KEY.parse().unwrap())));
    written(&folder, &[by_arn], &Managed::default(), false);
    let other = KEY.replace("1234abcd", "abcd1234");
    let plan = [encrypted(arn, &other), orders()];
    let layout = layout_of(&folder, &plan, &Managed::default());
    write(folder.path(), &layout, true).unwrap();
    let text = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    for text in [text("policy.yaml"), text("iam/111122223333.json")] {
        assert!(text.contains("/Orders") && text.contains(KEY) && !text.contains(&other), "{text}");
    }
    let [note] = &layout.notes[..] else { panic!("{:?}", layout.notes) };
    assert!(note.contains(arn) && note.contains(&other), "{note}");
    // A person may approve it, for example because another tool is changing the key.
    let approved = text("policy.yaml").replace(KEY, &format!("{KEY}\n  - {other}"));
    fs::write(folder.path().join("policy.yaml"), &approved).unwrap();
    let layout = layout_of(&folder, &plan, &Managed::default());
    write(folder.path(), &layout, true).unwrap();
    assert_eq!(layout.notes, Vec::<String>::new());
    assert_eq!(text("policy.yaml"), approved);
    assert!(text("iam/111122223333.json").contains(&other));
}

/// Only the cluster knows the ARN of a key that a manifest names by an object.
#[test]
fn manifest_with_an_object_is_allowed_the_active_key() {
    let object = "  key:\n    type: CUSTOMER_MANAGED_CMK\n    objectRef: {name: clicks}\n";
    let arn = clicks().stream.arn.to_string();
    let key = KEY.replace("eu-west-1", "eu-central-1");
    let folder = with_key(object);
    let layout = layout_of(&folder, &[encrypted(&arn, &key)], &Managed::default());
    assert!(layout.files["policy.yaml"].contains(&arn) && layout.files["policy.yaml"].contains(&key));
    let layout = layout_of(&folder, &[clicks()], &Managed::default());
    assert!(layout.notes[0].contains(&arn), "{:?}", layout.notes);
}
