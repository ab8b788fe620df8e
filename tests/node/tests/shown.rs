//! What people see: the README shows what kubectl prints.

use node::commands::kubectl;
use node::stage::Stage;
use simulated_aws::samples;

/// The columns and the values; not the ages, and not how wide the columns are.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_shows_what_kubectl_prints() {
    let stage = Stage::set(samples::world()).await;
    stage.install().await;
    stage.samples().await;
    let list = kubectl("get strenc -A").await;
    let description = kubectl("describe strenc telemetry -n data").await;
    println!("{list}\n{description}");
    let readme = packages::text("README.md");
    for line in list.lines() {
        // The last column is the age.
        let line = words(line);
        let shown = readme.lines().any(|other| {
            let other = words(other);
            other.len() == line.len() && other[..other.len() - 1] == line[..line.len() - 1]
        });
        assert!(shown, "the README does not show: {}", line.join(" "));
    }
    // Names of fields and conditions, without what differs from one cluster to another.
    for line in description.lines().filter(|line| line.trim_end().ends_with(':') || line.contains("Reason:")) {
        assert!(readme.lines().any(|other| words(other) == words(line)), "the README does not show: {line}");
    }
}
