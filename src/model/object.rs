//! Which texts can name an object of Kubernetes.
//!
//! A name goes into the path of a request. One that no object can have must not get there: with `/` or `?` in it, it
//! would ask for something else, and with a space it would be no request at all.

/// Whether an object of any kind can have this name: a DNS subdomain
/// ([names](https://kubernetes.io/docs/concepts/overview/working-with-objects/names/)).
#[must_use]
pub fn can_be_named(name: &str) -> bool {
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253
        && name.split('.').map(str::as_bytes).all(|label| {
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
            end(label.first()) && end(label.last()) && label.iter().all(inner)
        })
}
