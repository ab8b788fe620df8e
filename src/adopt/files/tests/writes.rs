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
