//! The source of the operator's own credentials, and the files that it reads.
//!
//! The SDK's chain reads its files only once, when it is created, so it is created again when one of them has
//! changed. A change is detected by the content: Kubernetes updates a mounted Secret by switching a symbolic
//! link, so the time of modification is not reliable. This module keeps no content, only its hash.

use std::path::PathBuf;

use aws_credential_types::provider::SharedCredentialsProvider;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};

/// Creates a provider that has read nothing yet.
type Make = Box<dyn Fn() -> BoxFuture<'static, SharedCredentialsProvider> + Send + Sync>;

/// A source of credentials.
pub(super) struct CredentialsSource {
    make: Make,
    files: Vec<PathBuf>,
    profile: Option<String>,
}

/// The hash of every file's content; `None` for a file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents(Vec<Option<[u8; 32]>>);

impl CredentialsSource {
    /// Creates a source of providers that `make` creates from the files that the environment names.
    pub(super) fn new(make: Make, environment: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let home = set("HOME");
        let file = |variable: &str, usual: &str| {
            let path = set(variable).unwrap_or_else(|| usual.to_owned());
            match path.strip_prefix("~/") {
                Some(rest) => PathBuf::from(home.as_deref().unwrap_or("/")).join(rest),
                None => PathBuf::from(path),
            }
        };
        let files = vec![
            file("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
            file("AWS_CONFIG_FILE", "~/.aws/config"),
        ];
        Self { make, files, profile: set("AWS_PROFILE") }
    }

    /// Creates a provider in its initial state.
    pub(super) async fn provider(&self) -> SharedCredentialsProvider {
        (self.make)().await
    }

    /// Returns the current content of the files.
    pub(super) async fn contents(&self) -> Contents {
        let mut contents = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let content = tokio::fs::read(file).await.ok();
            contents.push(content.map(|content| Sha256::digest(content).into()));
        }
        Contents(contents)
    }

    /// Returns the profile of `AWS_PROFILE`.
    pub(super) fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }
}

/// A source that always returns the same provider.
impl From<SharedCredentialsProvider> for CredentialsSource {
    fn from(provider: SharedCredentialsProvider) -> Self {
        let make: Make = Box::new(move || {
            let provider = provider.clone();
            Box::pin(async move { provider })
        });
        Self { make, files: Vec::new(), profile: None }
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;

    fn of(environment: &[(&str, &str)]) -> CredentialsSource {
        let make: Make = Box::new(|| {
            let credentials = Credentials::new("AKIA", "secret", None, None, "test");
            Box::pin(async move { SharedCredentialsProvider::new(credentials) })
        });
        CredentialsSource::new(make, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn files_and_profile_come_from_the_environment() {
        let home = of(&[("HOME", "/home/me")]);
        assert_eq!(home.files, ["/home/me/.aws/credentials", "/home/me/.aws/config"].map(PathBuf::from));
        assert_eq!(home.profile(), None);
        let named = of(&[
            ("HOME", "/home/me"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/secrets/aws"),
            ("AWS_CONFIG_FILE", "~/aws.ini"),
            ("AWS_PROFILE", "prod"),
        ]);
        assert_eq!(named.files, ["/secrets/aws", "/home/me/aws.ini"].map(PathBuf::from));
        assert_eq!(named.profile(), Some("prod"));
    }
}
