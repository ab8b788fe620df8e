//! Tests AWS's own events: which calls make one, and what it contains.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::Event;
use simulated_aws::{Caller, Fault, PlantedKey, Request, Rule};

use crate::stage::{KINESIS, REGION, Stage};

fn recording() -> Stage {
    let mut stage = Stage::plain();
    stage.world.record_events(true);
    stage
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().filter_map(Event::operation).collect()
}

fn only(events: Vec<Event>) -> Event {
    assert_eq!(events.len(), 1, "{events:?}");
    events.into_iter().next().expect("one event")
}

fn start_request() -> Request {
    Request::firehose("StartDeliveryStreamEncryption", json!({ "DeliveryStreamName": "orders" }))
}

#[test]
fn no_event_is_made_unless_events_are_on() {
    let mut stage = Stage::plain();
    stage.start(None).expect("started");
    assert_eq!(stage.world.take_events(), []);
    assert_eq!(stage.world.events_made(), 0);
    stage.world.record_events(true);
    stage.wait(60);
    stage.stop().expect("stopped");
    assert_eq!(names(&stage.world.take_events()), ["StopDeliveryStreamEncryption"]);
    assert_eq!(stage.world.take_events(), [], "each event is taken once");
}

#[test]
fn changes_of_streams_make_events_and_reads_make_none() {
    let mut stage = recording();
    stage.start(None).expect("started");
    stage.status();
    stage.put_is_encrypted();
    stage.start_kinesis("alias/aws/kinesis").expect("started");
    stage.summary();
    stage.wait(60);
    stage.stop().expect("stopped");
    stage.stop_kinesis().expect("stopped");
    let new = json!({ "DeliveryStreamName": "new" });
    stage.call(&Request::firehose("CreateDeliveryStream", new.clone())).expect("created");
    stage.call(&Request::kinesis("CreateStream", json!({ "StreamName": "new" }))).expect("created");
    stage.wait(60);
    stage.call(&Request::firehose("DeleteDeliveryStream", new)).expect("deleted");
    stage.call(&Request::kinesis("DeleteStream", json!({ "StreamName": "new" }))).expect("deleted");
    let expected = [
        "StartDeliveryStreamEncryption",
        "StartStreamEncryption",
        "StopDeliveryStreamEncryption",
        "StopStreamEncryption",
        "CreateDeliveryStream",
        "CreateStream",
        "DeleteDeliveryStream",
        "DeleteStream",
    ];
    assert_eq!(names(&stage.world.take_events()), expected);
}

#[test]
fn event_has_envelope_and_record_of_its_call() {
    let mut stage = recording();
    stage.now += SignedDuration::from_millis(900);
    let reply = stage.world.call(stage.now, &stage.caller, REGION, &start_request());
    let event = only(stage.world.take_events());
    assert_eq!((event.at, event.request_id()), (stage.now, Some(reply.request_id().as_str())));
    let envelope = &event.body;
    let expected = json!({
        "version": "0", "id": envelope["id"], "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.firehose", "account": "111122223333", "time": "2026-01-02T00:00:00Z",
        "region": REGION, "resources": [], "detail": envelope["detail"],
    });
    assert_eq!(*envelope, expected);
    let detail = &envelope["detail"];
    let expected = json!({
        "eventVersion": "1.11", "eventTime": "2026-01-02T00:00:00Z",
        "userIdentity": {
            "type": "IAMUser", "principalId": "AIDAEXAMPLE", "accountId": "111122223333",
            "arn": "arn:aws:iam::111122223333:user/AKIAIOSFODNN7EXAMPLE",
            "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "userName": "AKIAIOSFODNN7EXAMPLE",
        },
        "eventSource": "firehose.amazonaws.com", "eventName": "StartDeliveryStreamEncryption",
        "awsRegion": REGION, "sourceIPAddress": "192.0.2.1", "userAgent": "simulated-aws",
        "requestParameters": { "deliveryStreamName": "orders" }, "responseElements": null,
        "requestID": reply.request_id(), "eventID": detail["eventID"], "readOnly": false,
        "eventType": "AwsApiCall", "managementEvent": true, "recipientAccountId": "111122223333",
        "eventCategory": "Management",
    });
    assert_eq!(*detail, expected);
    assert_ne!(envelope["id"], detail["eventID"]);
}

#[test]
fn kinesis_event_equals_the_recorded_one() {
    let recorded = include_str!("../../recorded/kinesis-start-request.json");
    let recorded: Value = serde_json::from_str(recorded).expect("JSON");
    let mut stage = recording();
    let arn = KINESIS.replace(REGION, "us-east-1");
    stage.world.settings().region = "us-east-1".to_owned();
    let stream = simulated_aws::PlantedStream {
        service: simulated_aws::Service::Kinesis,
        name: "clicks".to_owned(),
        ..Default::default()
    };
    stage.world.plant_stream(stream);
    let body = json!({ "StreamARN": arn, "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis" });
    let start = Request::kinesis("StartStreamEncryption", body);
    stage.world.call(stage.now, &stage.caller, "us-east-1", &start).result.expect("started");
    let event = only(stage.world.take_events());
    for (member, value) in recorded["event"].as_object().expect("an event") {
        assert_eq!(event.body["detail"][member], *value, "{member}");
    }
}

#[test]
fn parameters_keep_nested_members_and_the_keys_of_tags() {
    let mut stage = recording();
    let key = stage.key(PlantedKey::default());
    stage.start(Some(&key)).expect("started");
    let tagged = json!({ "StreamName": "new", "Tags": { "Team": "data" } });
    stage.call(&Request::kinesis("CreateStream", tagged)).expect("created");
    let events = stage.world.take_events();
    let parameters = |at: usize| &events[at].body["detail"]["requestParameters"];
    let block = &parameters(0)["deliveryStreamEncryptionConfigurationInput"];
    assert_eq!(*block, json!({ "keyType": "CUSTOMER_MANAGED_CMK", "keyARN": key }));
    assert_eq!(*parameters(1), json!({ "streamName": "new", "tags": { "Team": "data" } }));
}

#[test]
fn refused_call_has_event_with_error_code_and_message() {
    let mut stage = recording();
    stage.start(None).expect("started");
    for (fault, code) in [
        (None, "ResourceInUseException"),
        (Some(Fault::AccessDenied), "AccessDeniedException"),
        (Some(Fault::Throttle), "ThrottlingException"),
        (Some(Fault::ServerError { status: 500 }), "InternalFailure"),
    ] {
        stage.world.take_events();
        stage.world.script(Rule {
            times: Some(u32::from(fault.is_some())),
            ..Rule::always(fault.unwrap_or(Fault::Hold))
        });
        let reply = stage.world.call(stage.now, &stage.caller, REGION, &start_request());
        let error = reply.result.clone().expect_err("refused");
        let detail = only(stage.world.take_events()).body["detail"].clone();
        assert_eq!((&detail["errorCode"], &error.code), (&json!(code), &code.to_owned()));
        assert_eq!(detail["errorMessage"], json!(error.message));
        assert_eq!(detail["requestID"], json!(reply.request_id()));
        stage.world.clear_faults();
    }
}

#[test]
fn lost_request_makes_no_event_and_lost_reply_makes_one() {
    let mut stage = recording();
    stage.world.script(Rule::once(Fault::LoseRequest));
    stage.world.call(stage.now, &stage.caller, REGION, &start_request());
    assert_eq!(stage.world.take_events(), []);
    stage.world.script(Rule::once(Fault::LoseReply));
    let reply = stage.world.call(stage.now, &stage.caller, REGION, &start_request());
    let event = only(stage.world.take_events());
    assert_eq!(event.request_id(), Some(reply.request_id().as_str()));
    assert_eq!(event.body["detail"].get("errorCode"), None);
}

#[test]
fn late_request_makes_its_event_when_it_arrives() {
    let mut stage = recording();
    stage.world.script(Rule::once(Fault::Late { by: SignedDuration::from_mins(2) }));
    let lost = stage.world.call(stage.now, &stage.caller, REGION, &start_request());
    assert_eq!(stage.world.take_events(), []);
    stage.wait(300);
    stage.world.settle(stage.now);
    let event = only(stage.world.take_events());
    assert_eq!(event.body["time"], "2026-01-02T00:02:00Z");
    assert_ne!(event.request_id(), Some(lost.request_id().as_str()), "it is another request to AWS");
}

#[test]
fn ids_of_events_are_unique_and_survive_a_reset() {
    let mut stage = recording();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..2 {
        stage.call(&start_request()).ok();
        stage.call(&start_request()).ok();
        for event in stage.world.take_events() {
            ids.insert(event.body["id"].to_string());
            ids.insert(event.body["detail"]["eventID"].to_string());
        }
        stage.world.reset();
    }
    assert_eq!(ids.len(), 8, "two ids for each of four events");
}

#[test]
fn event_of_role_session_names_its_issuer() {
    let mut stage = recording();
    let role = "arn:aws:iam::111122223333:role/path/operator";
    let assume = json!({ "RoleArn": role, "RoleSessionName": "one" });
    let session = stage.call(&Request::sts("AssumeRole", assume)).expect("assumed");
    let key = session["Credentials"]["AccessKeyId"].as_str().expect("a key").to_owned();
    stage.caller = Caller::new(&key);
    stage.start(None).expect("started");
    let identity = only(stage.world.take_events()).body["detail"]["userIdentity"].clone();
    assert_eq!(identity["type"], "AssumedRole");
    assert_eq!(identity["arn"], "arn:aws:sts::111122223333:assumed-role/operator/one");
    let issuer = &identity["sessionContext"]["sessionIssuer"];
    assert_eq!((&issuer["arn"], &issuer["userName"]), (&json!(role), &json!("operator")));
}

#[test]
fn heartbeats_are_sent_at_each_interval() {
    let mut stage = recording();
    stage.world.send_heartbeats(stage.now, Some(SignedDuration::from_mins(5)));
    stage.wait(900);
    stage.world.settle(stage.now);
    let times: Vec<Value> = stage.world.take_events().iter().map(|e| e.body["time"].clone()).collect();
    assert_eq!(times, ["2026-01-02T00:05:00Z", "2026-01-02T00:10:00Z", "2026-01-02T00:15:00Z"]);
    stage.world.send_heartbeats(stage.now, None);
    stage.wait(900);
    stage.world.heartbeat(stage.now);
    let event = only(stage.world.take_events()).body;
    assert_eq!((&event["source"], &event["detail-type"]), (&json!("aws.events"), &json!("Scheduled Event")));
}
