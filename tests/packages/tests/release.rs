//! Tests the workflows, which have not run yet: GitHub would accept them, their actions change only by a commit
//! here, and the artifacts of a release are signed. Their effects outside the repository cannot be tested here.

use std::collections::BTreeSet;

use packages::objects::word;
use packages::programs::run_actionlint;
use packages::{CHART, kept, text};
use serde_json::{Value, json};

const RELEASE: &str = ".github/workflows/release.yaml";
const PULL_REQUEST: &str = ".github/workflows/pull-request.yaml";
const WORKFLOWS: [&str; 2] = [RELEASE, PULL_REQUEST];

/// Returns the compiler version of the tests.
fn compiler() -> String {
    let toolchain = text("rust-toolchain.toml");
    toolchain.split('"').nth(1).expect("a channel").to_owned()
}

fn workflow(file: &str) -> Value {
    serde_saphyr::from_str(&text(file)).expect("YAML")
}

fn jobs(workflow: &Value) -> impl Iterator<Item = (&String, &Value)> {
    workflow["jobs"].as_object().expect("jobs").iter()
}

fn steps(job: &Value) -> impl Iterator<Item = &Value> {
    job["steps"].as_array().expect("steps").iter()
}

/// Returns the shell scripts of all steps of a job.
fn runs(job: &Value) -> String {
    steps(job).filter_map(|step| step["run"].as_str()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn actionlint_accepts_workflows_and_rejects_mistake() {
    for file in WORKFLOWS {
        run_actionlint(&text(file)).await.unwrap_or_else(|error| panic!("{file}: {error:#}"));
    }
    let mistaken = text(RELEASE).replace("steps.image.outputs.digest", "steps.picture.outputs.digest");
    let error = run_actionlint(&mistaken).await.expect_err("there is no such step");
    assert!(format!("{error:#}").contains("\"picture\" is not defined"), "{error:#}");
}

#[test]
fn actions_are_pinned_by_commit() {
    let texts = WORKFLOWS.map(text);
    let named: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split_once("uses: "))
        .map(|(_, it)| it)
        .collect();
    let workflows = WORKFLOWS.map(workflow);
    let used = workflows
        .iter()
        .flat_map(jobs)
        .flat_map(|(_, job)| steps(job))
        .filter(|it| it["uses"].is_string())
        .count();
    assert!(used > 5 && named.len() == used, "{named:?}");
    for action in named {
        let (_, version) = action.split_once('@').expect("a version");
        let (commit, tag) =
            version.split_once(" # v").unwrap_or_else(|| panic!("{action}: missing version comment"));
        let is_commit =
            commit.len() == 40 && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        assert!(is_commit && tag.split('.').count() == 3, "{action}");
    }
}

#[test]
fn releases_page_lists_every_image_named_by_a_tag() {
    let (file, page) = (text("config/image/Containerfile"), text("docs/releases.md"));
    let in_file = file
        .lines()
        .filter_map(|line| line.strip_prefix("ARG BASE=").or_else(|| line.strip_prefix("FROM ")))
        .filter_map(|rest| rest.split(' ').next());
    let workflows = WORKFLOWS.map(workflow);
    let in_jobs = workflows
        .iter()
        .flat_map(jobs)
        .flat_map(|(_, job)| job["strategy"]["matrix"]["include"].as_array().into_iter().flatten())
        .map(|one| word(&one["container"]));
    // A name without a slash is a stage of the same file.
    let images: BTreeSet<&str> = in_file.chain(in_jobs).filter(|image| image.contains('/')).collect();
    assert!(images.len() >= 3, "{images:?}");
    for image in images.iter().filter(|image| !image.contains("@sha256:")) {
        assert!(page.contains(&format!("| `{image}` | ")), "docs/releases.md does not list {image}");
    }
}

#[test]
fn release_jobs_have_least_privilege_and_signing_runs_no_code() {
    let workflow = workflow(RELEASE);
    assert_eq!(workflow["permissions"], json!({}), "no permissions outside the jobs");
    let rights: BTreeSet<String> = jobs(&workflow)
        .flat_map(|(name, job)| {
            let rights =
                job["permissions"].as_object().unwrap_or_else(|| panic!("{name} must list its permissions"));
            rights.iter().map(move |(right, level)| format!("{name} {right} {}", word(level)))
        })
        .collect();
    let wanted = [
        "checks contents read",
        "image contents read",
        "image packages write",
        "plugin contents read",
        "publish attestations write",
        "publish contents write",
        "publish id-token write",
        "publish packages write",
    ];
    assert_eq!(rights, wanted.map(str::to_owned).into());
    assert!(runs(&workflow["jobs"]["checks"]).contains("bash .ci/run"));
    let publish = &workflow["jobs"]["publish"];
    assert_eq!(publish["needs"], json!(["image", "plugin"]));
    for builder in ["image", "plugin"] {
        assert_eq!(workflow["jobs"][builder]["needs"], "checks");
    }
    for program in ["cargo", "bash", "make", "docker build "] {
        assert!(!runs(publish).contains(program), "{program}");
    }
    safe_scripts(&workflow);
}

#[test]
fn pull_request_jobs_only_read_and_run_every_step_of_ci() {
    let workflow = workflow(PULL_REQUEST);
    assert_eq!(workflow["permissions"], json!({}), "no permissions outside the jobs");
    for (name, job) in jobs(&workflow) {
        assert_eq!(job["permissions"], json!({"contents": "read"}), "{name}");
    }
    safe_scripts(&workflow);
    let checks = &workflow["jobs"]["checks"];
    let groups = checks["strategy"]["matrix"]["include"].as_array().expect("groups");
    let run: BTreeSet<&str> = groups.iter().flat_map(|group| word(&group["steps"]).split(' ')).collect();
    let ci = text(".ci/run");
    let known = ci.lines().filter_map(|line| line.strip_prefix("step \""));
    let known = known.filter_map(|line| line.split('"').next()).filter(|step| *step != "toolchain");
    assert_eq!(run, known.collect());
}

/// Checks that nobody else can change the scripts of a workflow or use its token.
fn safe_scripts(workflow: &Value) {
    for (name, job) in jobs(workflow) {
        // An expression with the name of a tag or branch, which others can choose, would become part of the
        // script.
        assert!(!runs(job).contains("${{"), "{name} puts an expression into a script");
        for checkout in
            steps(job).filter(|step| step["uses"].as_str().is_some_and(|it| it.contains("checkout")))
        {
            assert_eq!(checkout["with"]["persist-credentials"], false, "{name}");
        }
    }
}

#[test]
fn image_and_chart_are_signed_by_digest_with_attestations() {
    let workflow = workflow(RELEASE);
    let script = runs(&workflow["jobs"]["publish"]);
    let signed: Vec<&str> = script.lines().filter(|line| line.contains("cosign sign ")).collect();
    assert_eq!(signed.len(), 2, "{signed:?}");
    for (line, what) in signed.iter().zip(["$IMAGE@$digest", "$CHARTS/stream-encryption-operator@$digest"]) {
        assert!(
            line.ends_with(&format!("{what}\"")),
            "must be signed by digest, because a tag can be moved: {line}"
        );
    }
    let build = steps(&workflow["jobs"]["image"]).find(|step| step["id"] == "build").expect("it");
    assert_eq!((&build["with"]["sbom"], &build["with"]["provenance"]), (&json!(true), &json!("mode=max")));
    let attested = steps(&workflow["jobs"]["publish"])
        .find(|step| step["uses"].as_str().is_some_and(|it| it.contains("attest-build-provenance")))
        .expect("it");
    assert_eq!(attested["with"]["subject-digest"], "${{ steps.image.outputs.digest }}");
}

#[test]
fn published_version_is_not_replaced_and_is_tagged_last() {
    let workflow = workflow(RELEASE);
    let tag = "\"$IMAGE:${GITHUB_REF_NAME#v}\"";
    let checks = runs(&workflow["jobs"]["checks"]);
    for guard in ["$(gh release list ", &format!("docker buildx imagetools inspect {tag}")] {
        assert!(checks.contains(guard), "{guard}: {checks}");
    }
    let script = runs(&workflow["jobs"]["publish"]);
    let at = |words: &str| script.find(words).unwrap_or_else(|| panic!("no {words}: {script}"));
    let tagged = at(&format!("--tag {tag} \"$IMAGE@$DIGEST\""));
    for earlier in ["cosign sign --yes --recursive \"$IMAGE@$digest\"", "helm push ", "cosign sign-blob "] {
        assert!(at(earlier) < tagged, "{earlier}: {script}");
    }
    assert!(tagged < at("gh release create "), "{script}");
}

#[test]
fn plugin_matches_krew_template_and_has_signed_checksums() {
    let release = workflow(RELEASE);
    let plugin = &release["jobs"]["plugin"];
    let platforms = &plugin["strategy"]["matrix"]["include"];
    let template = text(".krew.yaml");
    let platforms = platforms.as_array().expect("platforms");
    assert_eq!(platforms.len(), template.matches("{{addURIAndSha ").count());
    for platform in platforms {
        let archive = format!(
            "/{{{{ .TagName }}}}/kubectl-streamencryption_{{{{ .TagName }}}}_{}.tar.gz",
            word(&platform["platform"])
        );
        assert!(template.contains(&archive), "{archive}");
        let container = word(&platform["container"]);
        assert!(container.is_empty() || container.contains(&format!("/rust:{}-", compiler())), "{container}");
    }
    assert_eq!(plugin["strategy"]["matrix"], workflow(PULL_REQUEST)["jobs"]["plugin"]["strategy"]["matrix"]);
    assert!(runs(plugin).contains("bash config/plugin/build "));
    let publish = &release["jobs"]["publish"];
    assert!(
        runs(publish).contains("cosign sign-blob --yes --bundle checksums.txt.sigstore.json checksums.txt")
    );
    assert!(steps(publish).any(|step| step["with"]["subject-checksums"] == "plugin/checksums.txt"));
}

/// The license applies only to recipients of its text.
#[test]
fn repository_chart_and_image_contain_license() {
    let license = text("LICENSE");
    assert!(license.contains("Version 2.0, January 2004") && license.contains("END OF TERMS AND CONDITIONS"));
    kept(&format!("{CHART}/LICENSE"), &license);
    let image = text("config/image/Containerfile");
    let last = image.rsplit("\nFROM ").next().expect("a stage");
    assert!(
        last.contains("\nCOPY LICENSE /licenses/\n") && last.contains("licenses=\"Apache-2.0\""),
        "{last}"
    );
    assert!(
        text("config/image/build").contains("LICENSE\" \"$work/context\""),
        "the other build copies it too"
    );
    for (file, named) in [
        ("Cargo.toml", "license = \"Apache-2.0\""),
        (&format!("{CHART}/Chart.yaml"), "artifacthub.io/license: Apache-2.0"),
    ] {
        assert!(text(file).contains(named), "{file}");
    }
}

#[test]
fn image_uses_tested_versions_and_has_no_shell() {
    let text = text("config/image/Containerfile");
    let cargo: Vec<&str> =
        text.lines().filter(|line| line.contains("cargo ") && !line.starts_with('#')).collect();
    assert!(cargo.len() == 2 && cargo.iter().all(|line| line.contains("--locked")), "{cargo:?}");
    let channel = compiler();
    for place in [format!("/rust:{channel}-"), format!("RUSTUP_TOOLCHAIN={channel}\n")] {
        assert!(text.contains(&place), "not the compiler of the tests: no {place:?}");
    }
    let last = text.rsplit("\nFROM ").next().expect("a stage");
    assert!(last.starts_with("${BASE}\n") && text.contains("\nARG BASE=gcr.io/distroless/"), "{last}");
    assert!(!last.contains("\nRUN ") && last.contains("\nUSER 65532:65532\n"), "{last}");
}
