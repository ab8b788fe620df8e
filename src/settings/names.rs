//! Settings that name objects in Kubernetes: an invalid name is rejected at startup instead of being watched
//! indefinitely.

use stream_encryption_core::model::object::is_dns_subdomain;

/// Maximum length of a namespace's name.
const LONGEST_LABEL: usize = 63;
/// Maximum length of an identity in a lease: the API server accepts 128 characters as a field manager, and
/// `kube-lease-manager-` precedes the identity.
const LONGEST_IDENTITY: usize = 128 - "kube-lease-manager-".len();

/// Checks the name of one namespace that is given as `flag`.
pub(super) fn namespace(flag: &str, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!name.contains(','), "{flag} is {name:?}, but must be one namespace, not a list");
    anyhow::ensure!(
        name.len() <= LONGEST_LABEL && !name.contains('.') && is_dns_subdomain(name),
        "{flag} is {name:?}, but must be the name of a namespace: at most {LONGEST_LABEL} characters a-z, 0-9 and '-', beginning and \
         ending with a letter or digit"
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
