//! The keys behind the aliases that manifests of the folder name. This module only reads.

use std::collections::BTreeMap;

use stream_encryption_core::controller::stream_api::{Priority, StreamApi as _};
use stream_encryption_core::model::arn::{AwsAccount, KeyArn, KmsKeyId};

use super::folder::Folder;
use super::survey::{PlaceSurvey, described};
use crate::aws::Aws;

/// Asks KMS for the keys behind the aliases that manifests of the surveyed places name, and returns a note about each alias
/// that does not exist. A failed request is a problem of its place.
///
/// A policy must allow the key as well as the alias, and the person may have written the alias.
pub async fn resolve(aws: &Aws, folder: &mut Folder, surveys: &mut [PlaceSurvey]) -> Vec<String> {
    let mut keys: BTreeMap<String, Option<KeyArn>> = BTreeMap::new();
    let mut notes = Vec::new();
    for (stream, manifest) in &mut folder.manifests {
        let (Some(alias), Some(pattern)) = (manifest.alias(), &manifest.key) else { continue };
        let is_of = |survey: &&mut PlaceSurvey| {
            survey.place.account == AwsAccount::of(stream) && survey.place.region == stream.region
        };
        let Some(survey) = surveys.iter_mut().find(is_of) else { continue };
        if !keys.contains_key(pattern) {
            let (name, principal) = (KmsKeyId::Alias(alias), survey.place.principal());
            let key = match aws.describe_key(stream, &name, &principal, Priority::Drift).await {
                Ok(Some(metadata)) => Some(metadata.arn),
                Ok(None) => {
                    notes.push(format!("{pattern} does not exist, so no policy allows its key"));
                    None
                }
                Err(error) => {
                    let why = described(&error);
                    survey.problems.push(format!(
                        "{pattern} cannot be resolved, so a policy may not allow its key: {why}"
                    ));
                    None
                }
            };
            keys.insert(pattern.clone(), key);
        }
        manifest.resolved = keys.get(pattern).cloned().flatten();
    }
    notes
}
