//! Tests the templates of `config/events`: they name exactly the events that the operator parses, and protect the queue
//! as the CLI's policy does.

use std::collections::BTreeSet;

use packages::objects::word;
use packages::text;
use serde_json::{Value, json};

const TERRAFORM: &str = "config/events/terraform/main.tf";
const QUEUE: &str = "arn:aws:sqs:eu-west-1:111122223333:stream-encryption-events";
const BUS: &str = "arn:aws:events:eu-west-1:111122223333:event-bus/stream-encryption-events";
const FORWARDING_ACCOUNTS: [&str; 2] = ["444455556666", "111122223333"];
const RULE: &str = "arn:aws:events:eu-west-1:111122223333:rule/stream-encryption-events";
/// The rule of the events that other accounts and regions forward, on the event bus of a hub.
const FORWARDED: &str =
    "arn:aws:events:eu-west-1:111122223333:rule/stream-encryption-events/stream-encryption-events-forwarded";

/// Returns the resources of a `CloudFormation` template.
fn resources(file: &str) -> Value {
    let template: Value = serde_saphyr::from_str(&text(&format!("config/events/{file}"))).expect("YAML");
    assert_eq!(template["AWSTemplateFormatVersion"], "2010-09-09", "{file}");
    template["Resources"].clone()
}

/// Returns the JSON texts of the Terraform file, each with the name of its argument.
fn terraform_json() -> Vec<(String, String)> {
    let file = text(TERRAFORM);
    let parts: Vec<&str> = file.split("<<-JSON\n").collect();
    let argument =
        |before: &str| before.trim_end_matches([' ', '=']).rsplit(['\n', ' ']).next().map(str::to_owned);
    parts
        .windows(2)
        .map(|pair| {
            let (json, _) = pair[1].split_once("\n  JSON\n").expect("an end");
            (argument(pair[0]).expect("an argument"), json.to_owned())
        })
        .collect()
}

/// Returns the event pattern of each template, with the name of its file.
fn patterns() -> Vec<(&'static str, Value)> {
    let of_terraform = terraform_json();
    let (_, pattern) = of_terraform.iter().find(|(name, _)| name == "event_pattern").expect("a pattern");
    let mut found = vec![(TERRAFORM, serde_json::from_str(pattern).expect("JSON"))];
    for file in ["cloudformation.yaml", "cloudformation-spoke.yaml"] {
        found.push((file, resources(file)["Events"]["Properties"]["EventPattern"].clone()));
    }
    found
}

fn words(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list");
    let words: BTreeSet<String> = list.iter().map(|one| word(one).to_owned()).collect();
    assert_eq!(words.len(), list.len(), "{list:?} has a word twice");
    words
}

/// Returns the texts in the function that decides what an event is about: the services, and the names of events.
fn parsed() -> (BTreeSet<String>, BTreeSet<String>) {
    let code = text("src/core/model/aws_event.rs");
    let (_, body) = code.split_once("\nfn subject(").expect("the function");
    let (body, _) = body.split_once("\n}\n").expect("its end");
    let texts = body.split('"').skip(1).step_by(2).map(str::to_owned);
    let (events, services): (BTreeSet<_>, BTreeSet<_>) =
        texts.partition(|text| text.starts_with(|first: char| first.is_ascii_uppercase()));
    assert!(events.len() > 10, "src/core/model/aws_event.rs is read wrongly: {events:?}");
    (services.into_iter().map(|service| format!("aws.{service}")).collect(), events)
}

#[test]
fn event_patterns_name_exactly_the_parsed_events() {
    let (services, events) = parsed();
    for (file, pattern) in patterns() {
        assert_eq!(words(&pattern["source"]), services, "{file}");
        assert_eq!(words(&pattern["detail"]["eventName"]), events, "{file}");
        let kinds = ["AWS API Call via CloudTrail", "AWS Service Event via CloudTrail"];
        assert_eq!(pattern["detail-type"], json!(kinds), "{file}");
        assert_eq!(pattern.as_object().map(serde_json::Map::len), Some(3), "{file}");
    }
}

#[test]
fn hub_takes_forwarded_events_and_heartbeats() {
    let pattern = &resources("cloudformation.yaml")["Forwarded"]["Properties"]["EventPattern"];
    let (mut sources, _) = parsed();
    sources.insert("aws.events".to_owned());
    assert_eq!(words(&pattern["source"]), sources);
    let sources: Vec<String> = words(&pattern["source"]).into_iter().collect();
    for source in sources {
        let list = text(TERRAFORM);
        let (_, list) = list.split_once("event_pattern = jsonencode({ source = [").expect("the pattern");
        assert!(list.split(']').next().expect("an end").contains(&format!("\"{source}\"")), "{source}");
    }
}

/// Replaces references to resources by what they stand for in a hub, and conditions by what they return there.
fn resolved(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(resolved).collect(),
        Value::Object(map) if map.contains_key("Fn::If") => {
            let condition = &map["Fn::If"];
            assert_eq!(condition[0], "IsHub");
            resolved(&condition[1])
        }
        Value::Object(map) if map.get("Ref").is_some_and(|name| name == "ForwardingAccounts") => {
            json!(FORWARDING_ACCOUNTS)
        }
        Value::Object(map) => match map.get("Fn::GetAtt").map(|at| word(&at[0])) {
            Some("Queue") => json!(QUEUE),
            Some("Events") => json!(RULE),
            Some("Heartbeat") => json!(format!("{RULE}-heartbeat")),
            Some("Forwarded") => json!(FORWARDED),
            Some("Bus") => json!(BUS),
            Some(other) => panic!("{other} is not known"),
            None => map.iter().map(|(key, value)| (key.clone(), resolved(value))).collect(),
        },
        other => other.clone(),
    }
}

/// `tests/suite/iam.rs` compares the file of the policy with what the CLI prints.
#[test]
fn queue_policies_match_the_cli() {
    let printed: Value =
        serde_json::from_str(&text("config/iam/events-queue-policy.json")).expect("a policy");
    let template = &resources("cloudformation.yaml")["QueuePolicy"]["Properties"]["PolicyDocument"];
    assert_eq!(resolved(template), printed);
    let of_terraform = terraform_json();
    let (_, policy) = of_terraform.iter().find(|(name, _)| name == "policy").expect("a policy");
    let rules = json!([RULE, format!("{RULE}-heartbeat"), FORWARDED]).to_string();
    let policy =
        policy.replace("${aws_sqs_queue.events.arn}", QUEUE).replace("${jsonencode(local.rules)}", &rules);
    assert_eq!(serde_json::from_str::<Value>(&policy).expect("JSON"), printed);
}

/// Terraform creates independent resources at the same time. A permission for each account would be such a resource,
/// and `EventBridge` would keep only some of the permissions, without an error.
#[test]
fn bus_policy_of_a_hub_names_all_accounts_in_one_document() {
    assert!(!text(TERRAFORM).contains("aws_cloudwatch_event_permission"));
    let of_terraform = terraform_json();
    // The first policy is that of the queue.
    let (_, policy) = of_terraform.iter().filter(|(name, _)| name == "policy").nth(1).expect("a policy");
    let policy = policy
        .replace("${aws_cloudwatch_event_bus.hub[0].arn}", BUS)
        .replace("${jsonencode(var.forwarding_accounts)}", &json!(FORWARDING_ACCOUNTS).to_string());
    let mut policy: Value = serde_json::from_str(&policy).expect("JSON");
    // CloudFormation has the StatementId instead.
    let sid = policy["Statement"][0].as_object_mut().expect("a statement").remove("Sid");
    assert!(sid.is_some());
    let template = &resources("cloudformation.yaml")["BusPolicy"]["Properties"];
    let expected = json!({"Version": "2012-10-17", "Statement": [resolved(&template["Statement"])]});
    assert_eq!(policy, expected);
}

/// Each shard has a stack of its own, with another name, in the same account and region.
#[test]
fn bus_policies_of_several_stacks_have_different_ids() {
    let id = &resources("cloudformation.yaml")["BusPolicy"]["Properties"]["StatementId"];
    assert_eq!(*id, json!({"Fn::Sub": "${Name}-accounts"}));
}

#[test]
fn queues_are_encrypted_and_keep_messages_as_documented() {
    let resources = resources("cloudformation.yaml");
    let queue = &resources["Queue"]["Properties"];
    assert_eq!(queue["VisibilityTimeout"], 60);
    assert_eq!(queue["MessageRetentionPeriod"], 86_400);
    assert_eq!(queue["RedrivePolicy"]["maxReceiveCount"], 20);
    for queue in ["Queue", "DeadLetterQueue"] {
        assert_eq!(resources[queue]["Properties"]["SqsManagedSseEnabled"], true, "{queue}");
    }
    let terraform = text(TERRAFORM);
    let has = |line: &str| terraform.lines().filter(|one| one.split_whitespace().eq(line.split(' '))).count();
    assert_eq!(has("sqs_managed_sse_enabled = true"), 2);
    for line in
        ["visibility_timeout_seconds = 60", "message_retention_seconds = 86400", "maxReceiveCount = 20"]
    {
        assert_eq!(has(line), 1, "{line}");
    }
}

/// Three of them must be missing before the operator takes the events for lost.
#[test]
fn every_account_and_region_sends_a_heartbeat() {
    assert!(
        text("src/core/controller/event_inbox/arrivals.rs")
            .contains("SILENCE: Duration = Duration::from_mins(15)")
    );
    for file in ["cloudformation.yaml", "cloudformation-spoke.yaml"] {
        let resources = resources(file);
        let heartbeat = &resources["Heartbeat"]["Properties"];
        assert_eq!(heartbeat["ScheduleExpression"], "rate(5 minutes)", "{file}");
        assert_eq!(heartbeat["Targets"], resources["Events"]["Properties"]["Targets"], "{file}");
    }
    assert!(text(TERRAFORM).contains(r#"schedule_expression = "rate(5 minutes)""#));
}
