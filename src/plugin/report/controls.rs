//! The controls that the encryption of a stream answers, and their verdict by its state. Pure.
//!
//! AWS Security Hub, AWS Config and Prowler have the verdict themselves; this report says what it is by the operator's
//! last observation, and where they differ from what can be encrypted at all.

use serde::Serialize;
use stream_encryption_api::stream_encryption::Service;

use crate::plugin::fleet::State;

/// A control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Control {
    /// Its id.
    pub(super) id: &'static str,
    /// Who has it.
    pub(super) framework: &'static str,
    /// The service of the streams that it is about.
    service: Service,
    /// Whether it fails streams that cannot be encrypted themselves.
    fails_not_encryptable: bool,
}

/// Every control: [Kinesis.1](https://docs.aws.amazon.com/securityhub/latest/userguide/kinesis-controls.html),
/// [DataFirehose.1](https://docs.aws.amazon.com/securityhub/latest/userguide/datafirehose-controls.html), which uses
/// the rule of AWS Config, the rules of
/// [AWS Config](https://docs.aws.amazon.com/config/latest/developerguide/managed-rules-by-aws-config.html), and the checks of
/// [Prowler](https://hub.prowler.com/check).
pub(super) const CONTROLS: &[Control] = &[
    Control {
        id: "Kinesis.1",
        framework: "AWS Security Hub",
        service: Service::Kinesis,
        fails_not_encryptable: false,
    },
    Control {
        id: "kinesis-stream-encrypted",
        framework: "AWS Config",
        service: Service::Kinesis,
        fails_not_encryptable: false,
    },
    Control {
        id: "kinesis_stream_encrypted_at_rest",
        framework: "Prowler",
        service: Service::Kinesis,
        fails_not_encryptable: false,
    },
    Control {
        id: "DataFirehose.1",
        framework: "AWS Security Hub",
        service: Service::Firehose,
        fails_not_encryptable: true,
    },
    Control {
        id: "kinesis-firehose-delivery-stream-encrypted",
        framework: "AWS Config",
        service: Service::Firehose,
        fails_not_encryptable: true,
    },
    Control {
        id: "firehose_stream_encrypted_at_rest",
        framework: "Prowler",
        service: Service::Firehose,
        fails_not_encryptable: true,
    },
];

/// The verdict of a control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Verdict {
    /// Records are encrypted.
    Passed,
    /// Records are, or may be, in plaintext.
    Failed,
    /// The stream cannot be encrypted itself: its source must be.
    NotApplicable,
    /// It is not known.
    Unknown,
}

/// The verdict of one control on one stream.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ControlResult {
    pub(super) id: &'static str,
    pub(super) framework: &'static str,
    pub(super) result: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<&'static str>,
}

/// Returns the verdict of each control that is about streams of this service.
pub(super) fn results(service: Service, state: State) -> Vec<ControlResult> {
    let concerned = CONTROLS.iter().filter(|control| control.service == service);
    concerned
        .map(|control| {
            let (result, note) = verdict(control, state);
            ControlResult { id: control.id, framework: control.framework, result, note }
        })
        .collect()
}

fn verdict(control: &Control, state: State) -> (Verdict, Option<&'static str>) {
    match state {
        State::Encrypted => (Verdict::Passed, None),
        State::Plaintext => (Verdict::Failed, None),
        State::Changing => (Verdict::Failed, Some("AWS is changing the encryption.")),
        State::NotEncryptable if control.fails_not_encryptable => (
            Verdict::NotApplicable,
            Some(
                "The framework itself may report a failure: AWS encrypts only streams whose source is DirectPut, so the source must be encrypted instead. Suppress the finding.",
            ),
        ),
        State::NotEncryptable => (Verdict::NotApplicable, None),
        State::Unknown => (Verdict::Unknown, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_verdict_for_its_service() {
        for (state, verdict) in [
            (State::Encrypted, Verdict::Passed),
            (State::Plaintext, Verdict::Failed),
            (State::Changing, Verdict::Failed),
            (State::NotEncryptable, Verdict::NotApplicable),
            (State::Unknown, Verdict::Unknown),
        ] {
            for (service, count) in [(Service::Kinesis, 3), (Service::Firehose, 3)] {
                let results = results(service, state);
                assert_eq!(results.len(), count);
                assert!(results.iter().all(|one| one.result == verdict), "{state:?}: {results:?}");
            }
        }
    }
}
