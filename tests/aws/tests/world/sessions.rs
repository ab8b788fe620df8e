//! Tests session credentials: their principal, and their maximum age.

use serde_json::json;
use simulated_aws::world::PlantedRole;
use simulated_aws::{Caller, PlantedKey, Request};

use crate::stage::{Stage, error};

#[test]
fn session_older_than_six_hours_cannot_create_a_grant() {
    for (hours, minutes, status) in [(5, 59, "ENABLED"), (6, 1, "ENABLING_FAILED")] {
        let mut stage = Stage::plain();
        let key = stage.key(PlantedKey::default());
        let body = json!({ "RoleArn": "arn:aws:iam::111122223333:role/se", "RoleSessionName": "op", "DurationSeconds": 43200 });
        let answer = stage.call(&Request::sts("AssumeRole", body)).expect("assumed");
        stage.caller = Caller::new(answer["Credentials"]["AccessKeyId"].as_str().expect("a key id"));
        stage.wait(hours * 3600 + minutes * 60);
        stage.start(Some(&key)).expect("accepted");
        stage.wait(10);
        assert_eq!(stage.status(), status);
        if status == "ENABLING_FAILED" {
            assert_eq!(stage.block()["FailureDescription"]["Type"], "CREATE_KMS_GRANT_FAILED");
            stage.start(None).expect("accepted");
            stage.wait(10);
            assert_eq!(stage.status(), "ENABLED", "Firehose's own key needs no grant");
        }
    }
}

#[test]
fn session_has_account_role_name_external_id_and_expiry() {
    let mut stage = Stage::plain();
    let role = "arn:aws:iam::444455556666:role/team/se";
    stage.world.plant_role(PlantedRole {
        arn: role.to_owned(),
        external_id: Some("x1".to_owned()),
        ..PlantedRole::default()
    });
    let assume = |id: &str| {
        Request::sts("AssumeRole", json!({ "RoleArn": role, "RoleSessionName": "op", "ExternalId": id }))
    };
    assert_eq!(stage.call(&assume("wrong")), error("AccessDenied"));
    let answer = stage.call(&assume("x1")).expect("assumed");
    stage.caller = Caller::new(answer["Credentials"]["AccessKeyId"].as_str().expect("a key id"));
    let identity = stage.call(&Request::sts("GetCallerIdentity", json!({}))).expect("an identity");
    assert_eq!(identity["Account"], "444455556666");
    assert_eq!(identity["Arn"], "arn:aws:sts::444455556666:assumed-role/se/op");
    let session =
        stage.world.calls().last().and_then(|call| call.principal.session.clone()).expect("a session");
    assert_eq!((session.role.as_str(), session.external_id.as_deref()), (role, Some("x1")));
    assert_eq!(stage.stop(), error("ResourceNotFoundException"), "that account has no stream of this name");
    stage.wait(3600);
    assert_eq!(stage.stop(), error("ExpiredTokenException"));
}
