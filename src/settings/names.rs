//! Settings that name objects in Kubernetes: an invalid name is rejected at startup instead of being watched
//! indefinitely.

use stream_encryption_core::model::object::is_dns_subdomain;

/// Maximum length of a namespace's name.
const LONGEST_LABEL: usize = 63;
/// Maximum length of an identity in a lease, in characters. The API server has no limit for it; a Lease is for short texts.
const LONGEST_IDENTITY: usize = 109;

/// Checks the name of one namespace that is given as `flag`.
pub(crate) fn namespace(flag: &str, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!name.contains(','), "{flag} is {name:?}, but must be one namespace, not a list");
    anyhow::ensure!(
        name.len() <= LONGEST_LABEL && !name.contains('.') && is_dns_subdomain(name),
        "{flag} is {name:?}, but must be the name of a namespace: at most {LONGEST_LABEL} characters a-z, 0-9 and '-', beginning and \
         ending with a letter or digit"
    );
    Ok(())
}

/// Checks the names of namespaces that are given as `flag`, and returns them sorted, each once. A variable
/// without any text counts as not set. An empty name among others is an error: without it the list could
/// become empty, which means all namespaces.
pub(super) fn namespaces(flag: &str, names: &[String]) -> anyhow::Result<Vec<String>> {
    if names.iter().all(String::is_empty) && names.len() <= 1 {
        return Ok(Vec::new());
    }
    names.iter().try_for_each(|name| namespace(flag, name))?;
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Checks the name of a lease that is given as `flag`.
pub(super) fn lease(flag: &str, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        is_dns_subdomain(name),
        "{flag} is {name:?}, but must be the name of a Lease: at most 253 characters a-z, 0-9, '-' and '.', beginning and ending with \
         a letter or digit"
    );
    Ok(())
}

/// Checks the identity of a replica that is given as `flag`: the name of its pod.
pub(super) fn identity(flag: &str, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        name.len() <= LONGEST_IDENTITY && name.bytes().all(|b| b.is_ascii_graphic()),
        "{flag} is {name:?}, but must be the name of the pod: at most {LONGEST_IDENTITY} printable characters without spaces"
    );
    Ok(())
}
