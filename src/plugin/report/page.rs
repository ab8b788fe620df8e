//! The HTML page of a report: one file that needs no other, and contacts no host.

use serde::Serialize;

use crate::plugin::output::printable_json;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Returns the page for a report.
pub(super) fn html(report: &impl Serialize) -> serde_json::Result<String> {
    // The data stands in a script element, which only `<` could end. A terminal may show the page, too.
    let data = printable_json(&serde_json::to_string(report)?).replace('<', "\\u003c");
    Ok(PAGE.replacen("/*PAGE_CSS*/", STYLE, 1).replacen("/*PAGE_JS*/", SCRIPT, 1).replacen(
        "/*REPORT_DATA*/null",
        &data,
        1,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stream_encryption_api::condition::{Reason, Remedy};

    use super::*;

    #[test]
    fn page_has_style_script_and_harmless_data() {
        let page = html(&json!({"message": "</script><script>alert(1)</script>"})).unwrap();
        for token in ["PAGE_CSS", "PAGE_JS", "REPORT_DATA", "<script>alert(1)"] {
            assert!(!page.contains(token), "{token}");
        }
        assert!(page.contains("\\u003c/script>"));
    }

    /// The page cannot use the table of reasons.
    #[test]
    fn page_knows_the_reasons_that_need_nobody() {
        let listed = SCRIPT.split_once("RESOLVING = new Set([").unwrap().1.split_once("])").unwrap().0;
        let mut listed: Vec<&str> = listed.split('"').skip(1).step_by(2).collect();
        let nobody = Reason::ALL.iter().filter(|reason| reason.remedy() == Remedy::Nobody);
        let mut nobody: Vec<&str> = nobody.map(|reason| reason.as_str()).collect();
        listed.sort_unstable();
        nobody.sort_unstable();
        assert_eq!(listed, nobody);
    }

    #[test]
    fn page_names_no_other_host() {
        let page = html(&json!({})).unwrap();
        for word in ["src=\"http", "href=\"http", "url(http", "@import"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("default-src 'none'"), "a content security policy");
    }
}
