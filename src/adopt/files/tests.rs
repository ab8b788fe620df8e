//! The layout of the files, and what a second run changes.

use jiff::Timestamp;
use serde_json::{Value, json};
use stream_encryption_api::stream_encryption::{Mode, StreamEncryption};
use stream_encryption_core::model::arn::AwsAccount;
use tempfile::TempDir;

use super::super::found::FoundStream;
use super::super::keys::ManifestKey;
use super::*;

mod kept_keys;
mod writes;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn planned(arn: &str, key: Result<ManifestKey, String>) -> PlannedStream {
    let arn: StreamArn = arn.parse().unwrap();
    let place = Place { account: AwsAccount::of(&arn), region: arn.region.clone(), role: None };
    let encryption = match &key {
        Ok(ManifestKey::Arn(key)) => FoundEncryption::Customer(key.clone()),
        _ => FoundEncryption::Plaintext,
    };
    let stream = FoundStream { arn, described_time: Timestamp::UNIX_EPOCH, encryption, owners: None };
    PlannedStream { stream, place, managed_by: None, key }
}

fn orders() -> PlannedStream {
    planned("arn:aws:firehose:eu-west-1:111122223333:deliverystream/Orders", Ok(ManifestKey::AwsOwned))
}

fn clicks() -> PlannedStream {
    planned("arn:aws:kinesis:eu-central-1:444455556666:stream/clicks", Ok(ManifestKey::AwsOwned))
}

fn options() -> Options {
    Options { namespace: "data".to_owned(), mode: Mode::Observe }
}

fn written(
    folder: &TempDir,
    plan: &[PlannedStream],
    managed: &Managed,
    overwrite: bool,
) -> BTreeMap<String, Written> {
    let layout = layout_of(folder, plan, managed);
    write(folder.path(), &layout, overwrite).unwrap()
}

/// Returns the files after a survey of the places of the plan.
fn layout_of(folder: &TempDir, plan: &[PlannedStream], managed: &Managed) -> Layout {
    let surveyed: Vec<Place> = plan.iter().map(|planned| planned.place.clone()).collect();
    layout(&Folder::read(folder.path()).unwrap(), plan, &surveyed, managed, &options()).unwrap()
}

fn read(folder: &TempDir, path: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.path().join(path)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

#[test]
fn files_are_laid_out_by_account_and_region() {
    let folder = tempfile::tempdir().unwrap();
    let left_out =
        planned("arn:aws:kinesis:eu-west-1:111122223333:stream/gone", Err("it is gone".to_owned()));
    let made = written(&folder, &[orders(), clicks(), left_out], &Managed::default(), false);
    let name = names::of_stream(&orders().stream.arn);
    let (orders, clicks) = (
        format!("streams/111122223333/eu-west-1/{name}.yaml"),
        "streams/444455556666/eu-central-1/kinesis-clicks.yaml",
    );
    let paths: Vec<&str> = made.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "iam/111122223333.json",
            "iam/444455556666.json",
            "kustomization.yaml",
            "policy.yaml",
            &orders,
            clicks
        ]
    );
    assert!(made.values().all(|written| *written == Written::Created));
    assert_eq!(read(&folder, "kustomization.yaml")[0]["resources"], json!(["policy.yaml", orders, clicks]));
    let policies: Vec<Value> = read(&folder, "policy.yaml");
    assert_eq!(policies.len(), 2);
    assert_eq!(
        policies[1]["spec"]["streams"],
        json!(["arn:aws:kinesis:eu-central-1:444455556666:stream/clicks"])
    );
    assert_eq!(read(&folder, &orders)[0]["metadata"], json!({"name": name, "namespace": "data"}));
}

#[test]
fn second_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[orders(), clicks()], &Managed::default(), false);
    let again = written(&folder, &[orders(), clicks()], &Managed::default(), false);
    assert!(again.values().all(|written| *written == Written::Unchanged), "{again:?}");
}

#[test]
fn file_that_differs_is_overwritten_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks()], &Managed::default(), false);
    let old = fs::read_to_string(folder.path().join("policy.yaml")).unwrap();
    let both = [clicks(), orders()];
    assert_eq!(written(&folder, &both, &Managed::default(), false)["policy.yaml"], Written::Differs);
    assert_eq!(fs::read_to_string(folder.path().join("policy.yaml")).unwrap(), old);
    assert_eq!(written(&folder, &both, &Managed::default(), true)["policy.yaml"], Written::Overwritten);
    assert_eq!(written(&folder, &both, &Managed::default(), true)["policy.yaml"], Written::Unchanged);
}

#[test]
fn separators_of_a_formatted_policy_file_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks(), orders()], &Managed::default(), false);
    let path = folder.path().join("policy.yaml");
    let plain = fs::read_to_string(&path).unwrap();
    let formatted = format!("---\n{}", plain.replace("---\n", "--- # team A\n"));
    assert_eq!(formatted.matches("---").count(), 2, "{formatted}");
    fs::write(&path, &formatted).unwrap();
    let both = [clicks(), orders()];
    assert_eq!(written(&folder, &both, &Managed::default(), false)["policy.yaml"], Written::Unchanged);
    let audit =
        planned("arn:aws:firehose:us-east-1:111122223333:deliverystream/audit", Ok(ManifestKey::AwsOwned));
    written(&folder, &[clicks(), orders(), audit], &Managed::default(), true);
    let extended = fs::read_to_string(&path).unwrap();
    assert!(extended.starts_with(&formatted), "{extended}");
    assert_eq!(read(&folder, "policy.yaml").len(), 3, "{extended}");
}

/// The cluster may be out of reach, so that the stream of an applied and edited manifest counts as unmanaged.
#[test]
fn edited_manifest_stays_if_the_cluster_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks()], &Managed::default(), false);
    let path = path(&clicks().stream.arn);
    let edited = fs::read_to_string(folder.path().join(&path)).unwrap().replace("Observe", "Enforce");
    fs::write(folder.path().join(&path), &edited).unwrap();
    written(&folder, &[clicks(), orders()], &Managed::default(), true);
    assert_eq!(fs::read_to_string(folder.path().join(&path)).unwrap(), edited);
    // The same for a file that is no manifest of the stream any more.
    fs::write(folder.path().join(&path), "# Moved to the team's own repository.\n").unwrap();
    let made = written(&folder, &[clicks()], &Managed::default(), true);
    assert_eq!(made[&path], Written::Differs);
}

#[test]
fn manifest_of_another_namespace_gives_this_one_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let of_team_a = planned(
        "arn:aws:firehose:eu-west-1:111122223333:deliverystream/audit",
        Ok(ManifestKey::Arn(KEY.parse().unwrap())),
    );
    written(&folder, std::slice::from_ref(&of_team_a), &Managed::default(), false);
    let before = read(&folder, "policy.yaml").remove(0);
    let plan = [of_team_a, orders()];
    let surveyed = [orders().place];
    let team_b = Options { namespace: "team-b".to_owned(), mode: Mode::Observe };
    let existing = Folder::read(folder.path()).unwrap();
    let made = layout(&existing, &plan, &surveyed, &Managed::default(), &team_b).unwrap();
    write(folder.path(), &made, true).unwrap();
    let policies = read(&folder, "policy.yaml");
    assert_eq!(policies[0], before);
    assert_eq!(policies[1]["metadata"]["name"], "adopted-team-b-111122223333-eu-west-1");
    assert_eq!(policies[1]["spec"]["streams"], json!([orders().stream.arn.to_string()]));
    assert_eq!(policies[1]["spec"]["keys"], json!(["AWS_OWNED_CMK"]));
    let iam = fs::read_to_string(folder.path().join("iam/111122223333.json")).unwrap();
    assert!(iam.contains(KEY) && iam.contains("/Orders"), "{iam}");
}

#[test]
fn applied_streams_stay_in_kustomization_and_policy() {
    let folder = tempfile::tempdir().unwrap();
    let with_key = planned(
        "arn:aws:firehose:eu-west-1:111122223333:deliverystream/audit",
        Ok(ManifestKey::Arn(KEY.parse().unwrap())),
    );
    written(&folder, std::slice::from_ref(&with_key), &Managed::default(), false);
    // The manifest was applied, so the stream is managed now; another stream is new.
    let manifest = read(&folder, &path(&with_key.stream.arn)).remove(0);
    let resource: StreamEncryption = serde_json::from_value(manifest).unwrap();
    let mut managed = Managed::default();
    managed.add("data", "firehose-audit", Some(&resource), None, &[]);
    let applied = PlannedStream {
        managed_by: Some("data/firehose-audit".to_owned()),
        key: Err("it is managed".to_owned()),
        ..with_key.clone()
    };
    let new =
        planned("arn:aws:firehose:eu-west-1:111122223333:deliverystream/new", Ok(ManifestKey::AwsOwned));
    let made = written(&folder, &[applied, new], &managed, true);
    assert!(!made.contains_key(&path(&with_key.stream.arn)), "its manifest belongs to its owner: {made:?}");
    let resources = read(&folder, "kustomization.yaml")[0]["resources"].clone();
    assert_eq!(resources.as_array().map(Vec::len), Some(3), "{resources}");
    let policy = &read(&folder, "policy.yaml")[0]["spec"];
    assert_eq!(policy["streams"].as_array().map(Vec::len), Some(2), "{policy}");
    assert!(policy["keys"].as_array().unwrap().contains(&json!(KEY)), "{policy}");
}

#[test]
fn survey_of_another_place_keeps_the_first_one() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[orders()], &Managed::default(), false);
    let iam = fs::read_to_string(folder.path().join("iam/111122223333.json")).unwrap();
    let made = written(&folder, &[clicks()], &Managed::default(), true);
    assert_eq!(made["policy.yaml"], Written::Overwritten);
    let names: Vec<Value> =
        read(&folder, "policy.yaml").iter().map(|policy| policy["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["adopted-data-111122223333-eu-west-1", "adopted-data-444455556666-eu-central-1"]);
    assert_eq!(read(&folder, "kustomization.yaml")[0]["resources"].as_array().map(Vec::len), Some(3));
    assert_eq!(fs::read_to_string(folder.path().join("iam/111122223333.json")).unwrap(), iam);
    // A survey of another region of an account extends the IAM policy of the account.
    let elsewhere =
        planned("arn:aws:firehose:eu-west-2:111122223333:deliverystream/x", Ok(ManifestKey::AwsOwned));
    written(&folder, &[elsewhere], &Managed::default(), true);
    let iam = fs::read_to_string(folder.path().join("iam/111122223333.json")).unwrap();
    assert!(iam.contains("eu-west-1") && iam.contains("eu-west-2"), "{iam}");
    assert_eq!(read(&folder, "policy.yaml").len(), 3);
}

#[test]
fn alias_of_an_applied_stream_keeps_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let alias = ManifestKey::Alias("alias/orders".to_owned(), KEY.parse().unwrap());
    let arn = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/audit";
    written(&folder, &[planned(arn, Ok(alias))], &Managed::default(), false);
    written(&folder, &[planned(arn, Err("it is managed".to_owned()))], &Managed::default(), true);
    let keys = &read(&folder, "policy.yaml")[0]["spec"]["keys"];
    assert_eq!(*keys, json!(["arn:aws:kms:eu-west-1:111122223333:alias/orders", KEY]));
}

/// The manifest names the key by its alias only, and a survey of another region does not describe it.
#[test]
fn alias_of_another_region_keeps_its_key_in_iam() {
    let folder = tempfile::tempdir().unwrap();
    let alias = || Ok(ManifestKey::Alias("alias/orders".to_owned(), KEY.parse().unwrap()));
    let firehose = planned("arn:aws:firehose:eu-west-1:111122223333:deliverystream/audit", alias());
    let kinesis = planned("arn:aws:kinesis:eu-west-1:111122223333:stream/clicks", alias());
    written(&folder, &[firehose, kinesis], &Managed::default(), false);
    let path = folder.path().join("iam/111122223333.json");
    let elsewhere =
        planned("arn:aws:firehose:eu-central-1:111122223333:deliverystream/x", Ok(ManifestKey::AwsOwned));
    for is_lost in [false, true] {
        if is_lost {
            fs::remove_file(&path).unwrap();
        }
        written(&folder, std::slice::from_ref(&elsewhere), &Managed::default(), true);
        let iam = fs::read_to_string(&path).unwrap();
        assert!(iam.contains(KEY) && iam.contains("eu-central-1") && !iam.contains("key/*"), "{iam}");
    }
}

/// A key of one stream is none of another one of its account and region.
#[test]
fn key_of_a_stream_is_not_given_to_a_kept_one() {
    let folder = tempfile::tempdir().unwrap();
    let kinesis = planned(
        "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks",
        Ok(ManifestKey::Arn(KEY.parse().unwrap())),
    );
    let plan = [kinesis, orders()];
    written(&folder, &plan, &Managed::default(), false);
    assert!(
        written(&folder, &plan, &Managed::default(), true).values().all(|one| *one == Written::Unchanged)
    );
    let iam = fs::read_to_string(folder.path().join("iam/111122223333.json")).unwrap();
    assert!(!iam.contains("key/*"), "{iam}");
}

#[test]
fn name_of_another_resource_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut managed = Managed::default();
    managed.add("data", "kinesis-clicks", None, None, &[]);
    let layout = layout_of(&folder, &[clicks()], &managed);
    let manifest = &layout.files[&path(&clicks().stream.arn)];
    assert!(manifest.contains("name: kinesis-clicks-eu-central-1\n"), "{manifest}");
}

#[test]
fn policy_of_the_cluster_is_extended_in_its_folder_only() {
    let name = "adopted-data-444455556666-eu-central-1";
    let mut managed = Managed::default();
    managed.set_policies(BTreeSet::from([name.to_owned()]));
    for (has_policy, expected) in [(true, name.to_owned()), (false, format!("{name}-2"))] {
        let folder = tempfile::tempdir().unwrap();
        if has_policy {
            written(&folder, &[clicks()], &Managed::default(), false);
        }
        let other =
            planned("arn:aws:kinesis:eu-central-1:444455556666:stream/other", Ok(ManifestKey::AwsOwned));
        written(&folder, &[other], &managed, true);
        let policies = read(&folder, "policy.yaml");
        assert_eq!((policies.len(), &policies[0]["metadata"]["name"]), (1, &json!(expected)));
    }
}

#[test]
fn thousand_streams_are_divided_among_policies() {
    let folder = tempfile::tempdir().unwrap();
    let arn =
        |number: usize| format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders-{number:04}");
    let plan: Vec<_> = (0..1000).map(|number| planned(&arn(number), Ok(ManifestKey::AwsOwned))).collect();
    written(&folder, &plan, &Managed::default(), false);
    assert_eq!(read(&folder, "kustomization.yaml")[0]["resources"].as_array().map(Vec::len), Some(1001));
    let policies = read(&folder, "policy.yaml");
    let streams = |policy: &Value| policy["spec"]["streams"].as_array().map(Vec::len);
    assert_eq!(policies.iter().map(streams).collect::<Vec<_>>(), [Some(100); 10]);
    let layout = layout_of(&folder, &plan, &Managed::default());
    assert!(layout.iam[0].1.len() > 10, "{:?}", layout.iam);
    let again = write(folder.path(), &layout, false).unwrap();
    assert!(again.values().all(|written| *written == Written::Unchanged));
}

#[test]
fn plan_without_streams_writes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let left_out =
        planned("arn:aws:kinesis:eu-west-1:111122223333:stream/gone", Err("it is gone".to_owned()));
    assert_eq!(written(&folder, &[left_out], &Managed::default(), false).len(), 0);
}

/// A kustomization that does not list a file any more deletes its resources where Git is followed with pruning.
#[test]
fn entries_of_a_person_that_exist_stay_listed() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks()], &Managed::default(), false);
    let old = fs::read_to_string(folder.path().join("kustomization.yaml")).unwrap();
    let mut more = old;
    fs::create_dir_all(folder.path().join("streams/team-x/a/b")).unwrap();
    for path in ["streams/extra.yaml", "streams/team-x", "streams/team-x/a/b/deep.yaml"] {
        if !folder.path().join(path).exists() {
            fs::write(folder.path().join(path), "").unwrap();
        }
        more.extend(["- ", path, "\n"]);
    }
    fs::write(folder.path().join("kustomization.yaml"), format!("{more}- streams/gone.yaml\n")).unwrap();
    written(&folder, &[clicks()], &Managed::default(), true);
    assert_eq!(fs::read_to_string(folder.path().join("kustomization.yaml")).unwrap(), more);
}

#[test]
fn file_of_two_manifests_is_listed_once() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks(), orders()], &Managed::default(), false);
    let (one, other) = (path(&clicks().stream.arn), path(&orders().stream.arn));
    let texts = [&one, &other].map(|path| fs::read_to_string(folder.path().join(path)).unwrap());
    fs::write(folder.path().join(&one), texts.join("---\n")).unwrap();
    fs::remove_file(folder.path().join(&other)).unwrap();
    written(&folder, &[clicks(), orders()], &Managed::default(), true);
    assert_eq!(read(&folder, "kustomization.yaml")[0]["resources"], json!(["policy.yaml", one]));
}

/// The survey took long, and its other files are of use.
#[test]
fn kustomization_of_another_form_stops_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = "components: [../base]\n";
    fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
    let layout = layout_of(&folder, &[clicks()], &Managed::default());
    let made = write(folder.path(), &layout, true).unwrap();
    assert_eq!(made["kustomization.yaml"], Written::Differs);
    assert_eq!(made[&path(&clicks().stream.arn)], Written::Created);
    assert_eq!(fs::read_to_string(folder.path().join("kustomization.yaml")).unwrap(), text);
    assert!(
        layout.notes[0].contains("add these resources to it: policy.yaml, streams/"),
        "{:?}",
        layout.notes
    );
}

/// A kustomization with a namespace gives it to all manifests, whatever they say.
#[test]
fn manifest_has_the_namespace_of_the_kustomization() {
    for (of_manifest, of_kustomization, is_of_data) in [
        ("", None, true),
        ("", Some("data"), true),
        ("", Some("team-b"), false),
        ("  namespace: team-b\n", None, false),
        ("  namespace: team-b\n", Some("data"), true),
        ("  namespace: data\n", Some("team-b"), false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        written(&folder, &[clicks()], &Managed::default(), false);
        let file = folder.path().join(path(&clicks().stream.arn));
        let text = fs::read_to_string(&file).unwrap().replace("  namespace: data\n", of_manifest);
        fs::write(&file, text).unwrap();
        fs::remove_file(folder.path().join("policy.yaml")).unwrap();
        if let Some(namespace) = of_kustomization {
            let file = folder.path().join("kustomization.yaml");
            let text = format!("namespace: {namespace}\n{}", fs::read_to_string(&file).unwrap());
            fs::write(&file, text).unwrap();
        }
        written(&folder, &[clicks()], &Managed::default(), true);
        let policies = fs::read_to_string(folder.path().join("policy.yaml")).unwrap();
        assert_eq!(
            policies.contains("stream/clicks"),
            is_of_data,
            "{of_manifest:?}, {of_kustomization:?}: {policies}"
        );
        let read = Folder::read(folder.path()).unwrap();
        assert_eq!(read.ensure_namespace("data").is_err(), of_kustomization == Some("team-b"));
    }
}

#[test]
fn kustomization_of_any_name_is_extended() {
    for name in ["kustomization.yml", "Kustomization"] {
        let folder = tempfile::tempdir().unwrap();
        let text = "resources:\n- other.yaml\n";
        fs::write(folder.path().join(name), text).unwrap();
        let made = written(&folder, &[clicks()], &Managed::default(), false);
        assert_eq!((made[name], made.get("kustomization.yaml")), (Written::Differs, None));
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), text);
        written(&folder, &[clicks()], &Managed::default(), true);
        let listed = json!(["other.yaml", "policy.yaml", path(&clicks().stream.arn)]);
        assert_eq!(read(&folder, name)[0]["resources"], listed);
        assert!(!folder.path().join("kustomization.yaml").exists(), "kustomize refuses a second file");
    }
}

#[test]
fn mode_is_that_of_each_manifest() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder, &[clicks()], &Managed::default(), false);
    let kept = folder.path().join(path(&clicks().stream.arn));
    fs::write(&kept, fs::read_to_string(&kept).unwrap().replace("Observe", "Enforce")).unwrap();
    let layout = layout_of(&folder, &[clicks(), orders()], &Managed::default());
    assert_eq!(layout.modes[&clicks().stream.arn], Mode::Enforce);
    assert_eq!(layout.modes[&orders().stream.arn], Mode::Observe);
    assert_eq!(layout.kept, BTreeSet::from([clicks().stream.arn]));
}
