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
