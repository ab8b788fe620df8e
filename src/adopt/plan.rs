//! What to do with each stream: take it over with which key, or leave it out, and why. Pure.

use super::folder::Folder;
use super::found::{FoundEncryption, FoundStream};
use super::keys::{ManifestKey, PlaintextKeys};
use super::managed::Managed;
use super::survey::{Place, PlaceSurvey};

/// A stream with what is to be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStream {
    /// The stream.
    pub stream: FoundStream,
    /// Its account and region.
    pub place: Place,
    /// The `StreamEncryption` that manages it already, as `NAMESPACE/NAME`.
    pub managed_by: Option<String>,
    /// The key of its manifest, or why it is left out.
    pub key: Result<ManifestKey, String>,
}

/// Returns the plan for the streams of all places, in the order of their ARNs.
#[must_use]
pub fn plan(surveys: &[PlaceSurvey], managed: &Managed, keys: &PlaintextKeys) -> Vec<PlannedStream> {
    let streams =
        surveys.iter().flat_map(|survey| survey.streams.iter().map(move |stream| (&survey.place, stream)));
    let mut plan: Vec<PlannedStream> = streams
        .map(|(place, stream)| {
            let managed_by = managed.of(&stream.arn).map(ToOwned::to_owned);
            let key = match &managed_by {
                Some(resource) => Err(format!("StreamEncryption {resource} manages it already")),
                None => key(stream, keys),
            };
            PlannedStream { stream: stream.clone(), place: place.clone(), managed_by, key }
        })
        .collect();
    plan.sort_by(|one, other| one.stream.arn.cmp(&other.stream.arn));
    plan
}

/// Returns whether a run that writes into this folder may create a manifest for a stream. An earlier description is enough:
/// the source of a stream never changes, unlike its key.
#[must_use]
pub fn may_get_manifest(stream: &FoundStream, managed: &Managed, folder: &Folder) -> bool {
    !matches!(stream.encryption, FoundEncryption::NotEncryptable(_))
        && managed.of(&stream.arn).is_none()
        && !folder.manifests.contains_key(&stream.arn)
}

fn key(stream: &FoundStream, keys: &PlaintextKeys) -> Result<ManifestKey, String> {
    match &stream.encryption {
        FoundEncryption::Plaintext => keys.of(&stream.arn),
        FoundEncryption::AwsOwned => Ok(ManifestKey::AwsOwned),
        FoundEncryption::Customer(key) => Ok(ManifestKey::Arn(key.clone())),
        FoundEncryption::UnknownKey(name) => {
            Err(format!("its key {name} cannot be identified; allow kms:DescribeKey on it"))
        }
        FoundEncryption::NotEncryptable(source) => {
            Err(format!("its source is {source}; only DirectPut streams can be encrypted"))
        }
        FoundEncryption::Changing(why) | FoundEncryption::Unsettled(why) => Err(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use stream_encryption_api::stream_encryption::Mode;
    use stream_encryption_core::model::arn::{AwsAccount, StreamArn};

    use super::super::folder::ExistingManifest;
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn arn(name: &str) -> StreamArn {
        format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{name}").parse().unwrap()
    }

    fn survey(streams: Vec<(&str, FoundEncryption)>) -> PlaceSurvey {
        let account = AwsAccount::of(&arn("any"));
        let place = Place { account, region: "eu-west-1".parse().unwrap(), role: None };
        let found = |(name, encryption): (&str, FoundEncryption)| FoundStream {
            arn: arn(name),
            described_time: Timestamp::UNIX_EPOCH,
            encryption,
            owners: None,
        };
        let streams = streams.into_iter().map(found).collect();
        PlaceSurvey { streams, ..PlaceSurvey::new(place) }
    }

    #[test]
    fn manifest_names_the_active_key() {
        let customer = FoundEncryption::Customer(KEY.parse().unwrap());
        let survey = survey(vec![
            ("c", FoundEncryption::Plaintext),
            ("a", customer),
            ("b", FoundEncryption::AwsOwned),
        ]);
        let plan = plan(&[survey], &Managed::default(), &PlaintextKeys::default());
        let keys: Vec<_> = plan.iter().map(|planned| planned.key.clone()).collect();
        assert_eq!(
            keys,
            [
                Ok(ManifestKey::Arn(KEY.parse().unwrap())),
                Ok(ManifestKey::AwsOwned),
                Ok(ManifestKey::AwsOwned)
            ]
        );
    }

    #[test]
    fn unclear_and_unsuitable_streams_are_left_out() {
        for (encryption, words) in [
            (FoundEncryption::NotEncryptable("MSKAsSource".to_owned()), "only DirectPut"),
            (FoundEncryption::Changing("the stream is being deleted".to_owned()), "being deleted"),
            (FoundEncryption::UnknownKey("alias/x".to_owned()), "alias/x cannot be identified"),
        ] {
            let plan =
                plan(&[survey(vec![("a", encryption)])], &Managed::default(), &PlaintextKeys::default());
            let why = plan[0].key.clone().unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn stream_of_a_resource_is_left_out() {
        let mut managed = Managed::default();
        let resource = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": {"name": "a"},
            "spec": {"stream": {"arn": arn("a").to_string()}},
        }));
        managed.add("data", "a", Some(&resource.unwrap()), None, &[]);
        let plan =
            plan(&[survey(vec![("a", FoundEncryption::Plaintext)])], &managed, &PlaintextKeys::default());
        assert_eq!(plan[0].managed_by.as_deref(), Some("data/a"));
        assert!(plan[0].key.clone().unwrap_err().contains("data/a manages it already"));
    }

    #[test]
    fn only_a_stream_without_a_manifest_may_get_one() {
        let found = |encryption| survey(vec![("a", encryption)]).streams.remove(0);
        let (stream, none, empty) = (found(FoundEncryption::AwsOwned), Managed::default(), Folder::default());
        assert!(may_get_manifest(&stream, &none, &empty));
        let of_kafka = found(FoundEncryption::NotEncryptable("MSKAsSource".to_owned()));
        assert!(!may_get_manifest(&of_kafka, &none, &empty));
        let mut managed = Managed::default();
        managed.add_unreadable("data", "a", Some(arn("a")));
        assert!(!may_get_manifest(&stream, &managed, &empty));
        let manifest = ExistingManifest {
            path: String::new(),
            name: "a".to_owned(),
            namespace: None,
            key: None,
            mode: Mode::Observe,
            resolved: None,
        };
        let folder = Folder { manifests: [(arn("a"), manifest)].into(), ..Folder::default() };
        assert!(!may_get_manifest(&stream, &none, &folder));
    }
}
