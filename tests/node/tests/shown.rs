//! Tests the output of kubectl that the README shows.

use node::commands::kubectl;
use node::stage::Stage;
use simulated_aws::samples;

/// Returns a line's words, regardless of spacing, without the times and ages, which vary.
fn words(line: &str) -> Vec<&str> {
    let is_age = |word: &str| {
        word.len() > 1
            && word.ends_with(['s', 'm', 'h'])
            && word[..word.len() - 1].chars().all(|digit| digit.is_ascii_digit())
    };
    let is_time = |word: &str| word.ends_with('Z') && word.parse::<jiff::Timestamp>().is_ok();
    line.split_whitespace().map(|word| if is_age(word) || is_time(word) { "…" } else { word }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_output_matches_readme() {
    let stage = Stage::set(samples::world()).await;
    stage.install().await;
    stage.samples().await;
    let readme = packages::text("README.md");
    let mut shown = 0;
    for block in readme.split("```text\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for part in block.split("$ kubectl ").skip(1) {
            let (command, lines) = part.split_once('\n').expect("a command, and what it prints");
            let printed = kubectl(command).await;
            println!("$ kubectl {command}\n{printed}");
            let mut printed = printed.lines().map(words);
            for line in lines.lines().filter(|line| !["", "…"].contains(&line.trim())) {
                // In this order; lines in between may be omitted.
                assert!(
                    printed.any(|other| other == words(line)),
                    "`kubectl {command}` does not print: {line}"
                );
            }
            shown += 1;
        }
    }
    assert_eq!(shown, 1);
}
