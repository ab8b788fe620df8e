//! Validation of Kubernetes object names.
//!
//! A name becomes part of a request's path, and an invalid name must not: with `/` or `?` the request would
//! address another resource, and with a space it would be malformed.

/// Returns whether an object of any kind can have this name: a DNS subdomain
/// ([names](https://kubernetes.io/docs/concepts/overview/working-with-objects/names/)).
#[must_use]
pub fn is_dns_subdomain(name: &str) -> bool {
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253
        && name.split('.').map(str::as_bytes).all(|label| {
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
            end(label.first()) && end(label.last()) && label.iter().all(inner)
        })
}
