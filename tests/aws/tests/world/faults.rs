//! Tests faults, and which requests they affect.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::Delivery;
use simulated_aws::{Caller, Fault, PlantedKey, Request, Rule, Settings};

use crate::stage::{REGION, Stage, error, quick};

#[test]
fn every_fault_has_its_effect() {
    let minute = SignedDuration::from_mins(1);
    let refuse = Fault::Refuse { code: "MadeUp".to_owned(), message: String::new(), status: 418 };
    // Each row: the fault, the outcome of the request, whether it was executed, the delivery of the answer.
    let rows = [
        (refuse, "MadeUp", false, Delivery::Prompt),
        (Fault::AccessDenied, "AccessDeniedException", false, Delivery::Prompt),
        (Fault::DeniedBySessionPolicy, "AccessDeniedException", false, Delivery::Prompt),
        (Fault::InvalidToken, "UnrecognizedClientException", false, Delivery::Prompt),
        (Fault::Throttle, "ThrottlingException", false, Delivery::Prompt),
        (Fault::ServerError { status: 500 }, "InternalFailure", false, Delivery::Prompt),
        (Fault::ServerErrorAfterwards { status: 503 }, "ServiceUnavailableException", true, Delivery::Prompt),
        (Fault::LoseRequest, "RequestLost", false, Delivery::Lost),
        (Fault::LoseReply, "OK", true, Delivery::Lost),
        (Fault::Late { by: minute }, "RequestLost", false, Delivery::Lost),
        (Fault::Hold, "OK", true, Delivery::Held),
        (Fault::Slow { by: minute }, "OK", true, Delivery::After(minute)),
        (Fault::NoOp, "OK", false, Delivery::Prompt),
        (Fault::Takes { time: minute }, "OK", true, Delivery::Prompt),
        (Fault::Stuck, "OK", true, Delivery::Prompt),
    ];
    for (fault, outcome, executed, delivery) in rows {
        let mut stage = Stage::plain();
        stage.world.script(Rule::once(fault.clone()).on("StartDeliveryStreamEncryption").of("orders"));
        let request =
            Request::firehose("StartDeliveryStreamEncryption", json!({ "DeliveryStreamName": "orders" }));
        let reply = stage.world.call(stage.now, &stage.caller, REGION, &request);
        let call = stage.world.calls().last().expect("logged").clone();
        assert_eq!(
            (call.outcome.as_str(), call.executed, reply.delivery),
            (outcome, executed, delivery),
            "{fault:?}"
        );
        assert_eq!(stage.status(), if executed { "ENABLING" } else { "DISABLED" }, "{fault:?}");
        assert!(stage.world.rules().is_empty(), "the rule is removed after one request");
        stage.wait(30);
        let takes_longer = matches!(fault, Fault::Takes { .. } | Fault::Stuck);
        assert_eq!(stage.status() == "ENABLING", takes_longer, "{fault:?}");
        stage.wait(45);
        assert_eq!(stage.status() == "ENABLING", matches!(fault, Fault::Stuck), "{fault:?}");
        let arrived = executed || matches!(fault, Fault::Late { .. });
        assert_eq!(stage.status() == "DISABLED", !arrived, "{fault:?}: a late request arrives in the end");
    }
}

#[test]
fn rules_match_by_operation_target_key_principal_and_count() {
    let mut stage = Stage::plain();
    let other = stage.key(PlantedKey::default());
    stage.world.script(Rule { key: Some(other.clone()), times: None, ..Rule::always(Fault::AccessDenied) });
    assert_eq!(stage.start(Some(&other)), error("AccessDeniedException"));
    stage.start(None).expect("another key is not denied");
    stage.world.clear_faults();
    let number =
        stage.world.script(Rule { skip: 1, times: Some(2), ..Rule::always(Fault::Throttle) }.on("Describe*"));
    let describe = Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": "orders" }));
    let outcomes: Vec<bool> = (0..4).map(|_| stage.call(&describe).is_ok()).collect();
    assert_eq!(outcomes, [true, false, false, true]);
    assert!(!stage.world.clear_fault(number), "the rule was removed after its last request");
    stage
        .world
        .script(Rule { principal: Some("AKIASOMEBODYELSE".to_owned()), ..Rule::always(Fault::AccessDenied) });
    assert!(stage.call(&describe).is_ok());
    stage.caller = Caller::new("AKIASOMEBODYELSE");
    assert_eq!(stage.call(&describe), error("AccessDeniedException"));
}

#[test]
fn lagging_describe_shows_old_state() {
    let mut stage = Stage::new(Settings { read_lag: SignedDuration::from_secs(3), ..quick() });
    stage.start(None).expect("started");
    assert_eq!(stage.status(), "DISABLED");
    assert_eq!(stage.start(None), error("ResourceInUseException"), "only reads lag");
    stage.wait(3);
    assert_eq!(stage.status(), "ENABLING");
}
