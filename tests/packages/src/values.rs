//! `values.yaml` with the description of each value, and the table in the chart's README that is generated
//! from it.

use serde_json::Value;

/// The marks at the start and the end of the README's table.
const BEGIN: &str = "<!-- values: UPDATE_PACKAGES=1 cargo test -p packages -->\n";
const END: &str = "<!-- /values -->\n";
/// Maximum length of a default in the table.
const LONGEST_DEFAULT: usize = 60;

/// A value that has a `# -- ` comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documented {
    /// The keys, from the top level.
    pub path: Vec<String>,
    /// The description.
    pub words: String,
}

impl Documented {
    /// Returns the path, for example `image.tag`.
    pub fn key(&self) -> String {
        self.path.join(".")
    }

    pub fn default<'a>(&self, values: &'a Value) -> &'a Value {
        self.path.iter().fold(values, |value, key| &value[key.as_str()])
    }
}

/// Returns every documented value, in the order of the text.
pub fn documented(yaml: &str) -> Vec<Documented> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut words: Option<String> = None;
    for line in yaml.lines() {
        let content = line.trim_start();
        if let Some(first) = content.strip_prefix("# -- ") {
            words = Some(first.to_owned());
        } else if let Some(more) = content.strip_prefix("# ") {
            if let Some(words) = &mut words {
                words.push(' ');
                words.push_str(more);
            }
        } else if let Some((key, _)) = content.split_once(':').filter(|(key, _)| !key.starts_with('-')) {
            let indent = line.len() - content.len();
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key.to_owned()));
            if let Some(words) = words.take() {
                found.push(Documented { path: path.iter().map(|(_, key)| key.clone()).collect(), words });
            }
        } else {
            words = None;
        }
    }
    found
}

/// Returns the README with a regenerated table.
pub fn with_table(readme: &str, yaml: &str) -> anyhow::Result<String> {
    let values: Value = serde_saphyr::from_str(yaml)?;
    let marks = || anyhow::anyhow!("the README has not the marks {BEGIN}and {END}");
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(marks)?;
    let (_, after) = rest.split_once(END).ok_or_else(marks)?;
    let mut table = "| value | default | what it is |\n|---|---|---|\n".to_owned();
    for value in documented(yaml) {
        let default = value.default(&values).to_string();
        let default = if default.len() > LONGEST_DEFAULT {
            "see values.yaml".to_owned()
        } else {
            format!("`{default}`")
        };
        let line = format!("| `{}` | {default} | {} |\n", value.key(), value.words.replace('|', "\\|"));
        table.push_str(&line);
    }
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str =
        "# About.\n\nimage:\n  # -- Its tag.\n  # More of it.\n  tag: \"\"\n# -- Many.\ncount: 2\nplain: 1\n";

    #[test]
    fn comment_describes_key_below_it() {
        let found: Vec<(String, String)> =
            documented(VALUES).into_iter().map(|one| (one.key(), one.words)).collect();
        let wanted = [("image.tag", "Its tag. More of it."), ("count", "Many.")];
        assert_eq!(found, wanted.map(|(key, words)| (key.to_owned(), words.to_owned())));
    }

    #[test]
    fn table_is_inserted_between_marks() {
        let made = with_table(&format!("before\n{BEGIN}old\n{END}after\n"), VALUES).unwrap();
        assert!(made.starts_with("before\n") && made.ends_with("after\n") && !made.contains("old"));
        assert!(made.contains("| `count` | `2` | Many. |\n"), "{made}");
        assert!(with_table("no marks", VALUES).is_err());
    }
}
