//! The keys behind the aliases that manifests of the folder name. This module only reads.

use std::collections::BTreeMap;

use stream_encryption_core::controller::stream_api::{Priority, StreamApi as _};
use stream_encryption_core::model::arn::{AwsAccount, KeyArn, KmsKeyId};

use super::folder::Folder;
use super::survey::{Place, described};
use crate::aws::Aws;

/// Asks KMS for the keys behind the aliases that manifests of these places name, and returns what could not be resolved.
/// A policy must allow the key as well as the alias, and the person may have written the alias.
pub async fn resolve(aws: &Aws, folder: &mut Folder, surveyed: &[Place]) -> Vec<String> {
    let mut answers: BTreeMap<String, Result<KeyArn, String>> = BTreeMap::new();
    for (stream, manifest) in &mut folder.manifests {
        let (Some(alias), Some(pattern)) = (manifest.alias(), &manifest.key) else { continue };
        let is_of = |place: &&Place| place.account == AwsAccount::of(stream) && place.region == stream.region;
        let Some(place) = surveyed.iter().find(is_of) else { continue };
        if !answers.contains_key(pattern) {
            let name = KmsKeyId::Alias(alias);
            let answer = aws.describe_key(stream, &name, &place.principal(), Priority::Drift).await;
            let answer = match answer {
                Ok(Some(metadata)) => Ok(metadata.arn),
                Ok(None) => Err(format!("{pattern} does not exist, so no policy allows its key")),
                Err(error) => {
                    let why = described(&error);
                    Err(format!("{pattern} cannot be resolved, so a policy may not allow its key: {why}"))
                }
            };
            answers.insert(pattern.clone(), answer);
        }
        manifest.resolved = answers.get(pattern).and_then(|answer| answer.as_ref().ok().cloned());
    }
    answers.into_values().filter_map(Result::err).collect()
}
