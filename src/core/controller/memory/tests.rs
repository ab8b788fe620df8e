//! When descriptions and unacknowledged writes expire, and when the API server is read instead of the cache.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn retried(retry: &str) -> StreamEncryption {
    let mut resource = resource(false);
    let annotation = (stream_encryption_api::RETRY_ANNOTATION.to_owned(), retry.to_owned());
    resource.metadata.annotations = Some([annotation].into());
    resource
}

/// The entry of a resource whose stream was described now.
fn described(resource: &StreamEncryption, now: Timestamp) -> LastReconcile {
    let remembered = Remembered {
        identity: 0,
        stream: Some((Moment { wall: now, monotonic: Duration::ZERO }, None)),
        key: None,
        active_key_report: None,
        due: Timestamp::MAX,
        retry: retry_token(resource),
        deleting: is_being_deleted(resource),
    };
    LastReconcile { remembered: Some(remembered), ..LastReconcile::default() }
}

#[test]
fn changed_retry_annotation_evicts_only_old_descriptions() {
    let memory = Memory::default();
    let begin = Timestamp::UNIX_EPOCH;
    let at = |seconds| begin + SignedDuration::from_secs(seconds);
    memory.keep(&retried("0"), described(&retried("0"), at(0)));
    let mut describes = 0;
    // The annotation changes every second.
    for second in 1..=60 {
        let resource = retried(&second.to_string());
        let last = memory.recall_unexpired(&resource, at(second));
        if last.remembered.is_none() {
            describes += 1;
            memory.keep(&resource, described(&resource, at(second)));
        } else {
            assert!(last.retry_due.is_some_and(|due| due <= at(second + 10)), "it is not forgotten");
            memory.keep(&resource, last);
        }
    }
    assert_eq!(describes, 6);
    // The last change takes effect once.
    assert!(memory.recall_unexpired(&retried("60"), at(70)).remembered.is_some());
    memory.keep(&retried("61"), memory.recall_unexpired(&retried("61"), at(69)));
    assert!(memory.recall_unexpired(&retried("61"), at(70)).remembered.is_none());
}

fn resource(deleting: bool) -> StreamEncryption {
    let resource = serde_json::json!({
        "apiVersion": "streamencryption.dev/v1alpha1",
        "kind": "StreamEncryption",
        "metadata": {"name": "orders", "uid": "uid-1"},
        "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
    });
    let mut resource: StreamEncryption = serde_json::from_value(resource).unwrap();
    resource.metadata.deletion_timestamp = deleting.then_some(Time(Timestamp::UNIX_EPOCH));
    resource
}

#[test]
fn cache_with_version_seen_last_is_read() {
    let memory = Memory::default();
    let cached = |version: &str| {
        let mut resource = resource(false);
        resource.metadata.uid = Some("uid-1".to_owned());
        resource.metadata.resource_version = Some(version.to_owned());
        resource
    };
    assert_eq!(memory.read_from(&cached("1")), ReadFrom::Cache, "nothing is known");
    memory.record_version("uid-1", "2".to_owned());
    assert_eq!(memory.read_from(&cached("1")), ReadFrom::ApiServer, "the cache lags");
    assert_eq!(memory.read_from(&cached("2")), ReadFrom::Cache);
    assert_eq!(memory.read_from(&cached("3")), ReadFrom::ApiServer, "another client wrote");
    memory.forget_version("uid-1");
    assert_eq!(memory.read_from(&cached("2")), ReadFrom::ApiServer, "a conflict");
}

#[test]
fn unacknowledged_write_may_land_for_two_minutes() {
    let memory = Memory::default();
    let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    let sent = LastReconcile { unacknowledged_write: Some(at(0)), ..LastReconcile::default() };
    memory.keep(&resource(false), sent);
    assert_eq!(memory.recall_unexpired(&resource(false), at(119)).unacknowledged_write, Some(at(0)));
    assert_eq!(memory.recall_unexpired(&resource(false), at(120)).unacknowledged_write, None);
    assert_eq!(
        memory.recall_unexpired(&resource(false), at(-1)).unacknowledged_write,
        None,
        "the clock was set back"
    );
}

#[test]
fn deleted_resource_is_described_anew_once() {
    let memory = Memory::default();
    let now = Timestamp::UNIX_EPOCH;
    memory.keep(&resource(false), described(&resource(false), now));
    assert!(memory.recall_unexpired(&resource(false), now).remembered.is_some());
    assert!(memory.recall_unexpired(&resource(true), now).remembered.is_none(), "the deletion is news");
    memory.keep(&resource(true), described(&resource(true), now));
    assert!(memory.recall_unexpired(&resource(true), now).remembered.is_some(), "and then it is not");
}

#[test]
fn first_reconcile_of_a_process_can_be_interrupted() {
    let memory = Memory::default();
    memory.record_interruption(&resource(false));
    assert!(memory.recall_with_expired("uid-1").is_interrupted);
}
