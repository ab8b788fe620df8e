//! Values kept as text, which needs a fifth of the memory of the values.
//!
//! A resource or a status consists of many short texts and absent fields. As a Rust value, each text is an allocation
//! of its own and each absent field has its full size; as JSON, all of it is one allocation, in which `phrases.rs`
//! replaces what is the same everywhere. A value that JSON would change is kept as it is, so whoever reads one always
//! gets exactly what was packed. Pure.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

mod phrases;

use phrases::{restore, shorten};

/// A packed value. Clones share it.
#[derive(Clone, Debug)]
pub struct Packed<T>(Content<T>);

#[derive(Clone, Debug)]
enum Content<T> {
    /// Shortened JSON, which was read once and resulted in the same value.
    Text(Arc<[u8]>),
    Value(Arc<T>),
}

impl<T: Clone + PartialEq + Serialize + DeserializeOwned> Packed<T> {
    /// Packs a value.
    pub fn of(value: &T) -> Self {
        Self::pack(value, None)
    }

    /// Packs a value that is probably the same as an earlier one, and then shares its memory.
    #[must_use]
    pub fn of_similar(earlier: &Self, value: &T) -> Self {
        Self::pack(value, Some(earlier))
    }

    fn pack(value: &T, earlier: Option<&Self>) -> Self {
        let as_it_is = || Self(Content::Value(Arc::new(value.clone())));
        let Ok(json) = serde_json::to_vec(value) else { return as_it_is() };
        let text = shorten(&json);
        if let Some(Self(Content::Text(known))) = earlier
            && **known == *text
        {
            return Self(Content::Text(known.clone()));
        }
        let is_same = serde_json::from_slice::<T>(&json).is_ok_and(|read| read == *value);
        if is_same { Self(Content::Text(text.into())) } else { as_it_is() }
    }

    /// Returns the value.
    #[must_use]
    pub fn read(&self) -> T {
        match &self.0 {
            Content::Text(text) => serde_json::from_slice(&restore(text))
                .unwrap_or_else(|error| unreachable!("it was read before: {error}")),
            Content::Value(value) => T::clone(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn is_text<T>(packed: &Packed<T>) -> bool {
        matches!(packed.0, Content::Text(_))
    }

    #[test]
    fn packed_value_is_read_unchanged() {
        for (nanosecond, text) in [(0, true), (5, false)] {
            let time = Time(Timestamp::new(7, nanosecond).unwrap());
            let packed = Packed::of(&time);
            assert_eq!(packed.read(), time);
            assert_eq!(is_text(&packed), text, "Kubernetes has whole seconds");
        }
        let unwritable = f64::INFINITY;
        assert!(Packed::of(&unwritable).read().is_infinite());
    }

    #[test]
    fn same_value_packed_again_shares_memory() {
        let first = Packed::of(&"orders".to_owned());
        let (same, other) = (
            Packed::of_similar(&first, &"orders".to_owned()),
            Packed::of_similar(&first, &"payments".to_owned()),
        );
        let text = |packed: &Packed<String>| match &packed.0 {
            Content::Text(text) => text.clone(),
            Content::Value(_) => unreachable!("a text is always the same"),
        };
        assert!(Arc::ptr_eq(&text(&first), &text(&same)));
        assert_eq!(other.read(), "payments");
    }
}
