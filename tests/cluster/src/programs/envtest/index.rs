//! Chooses a release from the index of the archives, as `setup-envtest` does: the newest of a minor version
//! that has an archive for this platform. Never chooses a pre-release or another minor version.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context as _;
use serde::Deserialize;

/// The index: versions, such as `v1.35.0`, and their archives by name.
#[derive(Debug, Deserialize)]
struct Index {
    releases: BTreeMap<String, BTreeMap<String, Archive>>,
}

#[derive(Debug, Deserialize)]
struct Archive {
    hash: String,
    #[serde(rename = "selfLink")]
    self_link: String,
}

/// A version without a suffix, ordered by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// Parses `1.35.0`. A pre-release, such as `1.35.0-alpha.3`, is not a version here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // `u32::from_str` would accept a sign.
        let number =
            |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?;
        let mut parts = text.split('.').map(number);
        let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }

    pub(super) fn has_minor_of(self, other: Self) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// An archive to download.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) version: Version,
    pub(super) url: String,
    /// The SHA-512 hash of the archive, in hexadecimal.
    pub(super) hash: String,
}

/// Returns the newest release of the minor version of `encryption` that has an archive for `platform`, such as
/// `linux-amd64`.
pub(super) fn newest(index: &str, wanted: Version, platform: &str) -> anyhow::Result<Release> {
    let index: Index = serde_saphyr::from_str(index).context("not an index of envtest releases")?;
    let release = |(name, mut archives): (String, BTreeMap<String, Archive>)| {
        let version =
            Version::parse(name.strip_prefix('v')?).filter(|version| version.has_minor_of(wanted))?;
        let archive = archives.remove(&format!("envtest-v{version}-{platform}.tar.gz"))?;
        Some(Release { version, url: archive.self_link, hash: archive.hash })
    };
    index.releases.into_iter().filter_map(release).max_by_key(|release| release.version).with_context(|| {
        format!("no release of Kubernetes {}.{} for {platform} in the index", wanted.major, wanted.minor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Version = Version { major: 1, minor: 35, patch: 4 };

    /// Returns an index with an archive of each version for each of two platforms, as in the real one.
    fn index(versions: &[&str]) -> String {
        let archive = |name: String| {
            format!("    {name}:\n      hash: 00ab\n      selfLink: https://far.example/{name}\n")
        };
        let release = |version: &&str| {
            let archives = ["darwin-arm64", "linux-amd64"]
                .map(|platform| archive(format!("envtest-{version}-{platform}.tar.gz")));
            format!("  {version}:\n{}", archives.concat())
        };
        format!("releases:\n{}", versions.iter().map(release).collect::<String>())
    }

    fn chosen(index: &str) -> String {
        newest(index, WANTED, "linux-amd64").unwrap().version.to_string()
    }

    #[test]
    fn newest_patch_of_minor_is_chosen_by_number() {
        let all = ["v1.34.9", "v1.35.9", "v1.35.10", "v1.35.11-rc.0", "v1.36.0", "v2.35.20"];
        assert_eq!(chosen(&index(&all)), "1.35.10", "not by letter, no pre-release, no other minor");
        assert_eq!(
            newest(&index(&["v1.35.0"]), WANTED, "darwin-arm64").unwrap(),
            Release {
                version: Version { patch: 0, ..WANTED },
                url: "https://far.example/envtest-v1.35.0-darwin-arm64.tar.gz".to_owned(),
                hash: "00ab".to_owned(),
            },
            "also older than the wanted one"
        );
    }

    #[test]
    fn release_without_archive_for_platform_is_passed_over() {
        let both = index(&["v1.35.0", "v1.35.1"]);
        assert_eq!(chosen(&both.replace("v1.35.1-linux-amd64", "v1.35.1-linux-s390x")), "1.35.0");
        let error = newest(&both, WANTED, "linux-riscv64").unwrap_err().to_string();
        assert!(error.contains("1.35 for linux-riscv64"), "{error}");
        assert!(newest(&index(&["v1.36.0"]), WANTED, "linux-amd64").is_err());
    }

    #[test]
    fn text_that_is_no_index_is_an_error() {
        for text in ["", "<html>log in</html>", "releases: none", "releases: {v1.35.0: {a: {hash: 5}}}"] {
            assert!(newest(text, WANTED, "linux-amd64").is_err(), "{text}");
        }
    }

    #[test]
    fn version_with_sign_suffix_or_path_is_refused() {
        for text in ["1.35", "1.35.0.1", "1.+35.0", "1.35.0-rc.1", "1.35.", "1.35.0/../x", "1.35.99999999999"]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
