//! Tests: in which order files are written, and what an overwritten file had before.

use super::*;

#[test]
fn overwritten_file_is_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks()], &Managed::default(), false);
    let (policy, link) = (folder.path().join("policy.yaml"), folder.path().join("link"));
    let old = fs::read_to_string(&policy).unwrap();
    fs::hard_link(&policy, &link).unwrap();
    written(&folder, &[clicks(), orders()], &Managed::default(), true);
    assert_ne!(fs::read_to_string(&policy).unwrap(), old);
    assert_eq!(fs::read_to_string(&link).unwrap(), old, "the old file is not truncated");
}

/// Two runs for different regions may share a folder, and a person may edit a file during a survey.
#[test]
fn file_that_changed_since_its_read_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks()], &Managed::default(), false);
    let other = planned("arn:aws:kinesis:eu-central-1:444455556666:stream/other", Ok(ManifestKey::AwsOwned));
    let layout = layout_of(&folder, &[clicks(), other], &Managed::default());
    written(&folder, &[clicks(), orders()], &Managed::default(), true);
    let policy = folder.path().join("policy.yaml");
    let texts = || ["policy.yaml", "kustomization.yaml"].map(|file| read(&folder, file));
    let of_another_run = texts();
    let error = write(folder.path(), &layout, true).unwrap_err().to_string();
    assert!(error.contains("policy.yaml has changed") && error.contains("run the command again"), "{error}");
    assert_eq!(texts(), of_another_run);
    fs::remove_file(&policy).unwrap();
    assert!(write(folder.path(), &layout, true).is_err());
    assert!(!policy.exists(), "a person has removed it");
}

#[test]
fn failed_write_leaves_no_entry_without_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policy.yaml")).unwrap();
    let layout = layout_of(&folder, &[clicks()], &Managed::default());
    let error = write(folder.path(), &layout, true).unwrap_err().to_string();
    assert!(error.ends_with("policy.yaml"), "{error}");
    assert!(folder.path().join(path(&clicks().stream.arn)).exists());
    assert!(!folder.path().join("kustomization.yaml").exists());
}
