//! Security Token Service: `GetCallerIdentity`, and session credentials for a role.
//!
//! The other services recognise the credentials that it issues: their account, role, session, external id and
//! age. Signatures and web identity tokens are not verified. It follows
//! <https://docs.aws.amazon.com/STS/latest/APIReference/>.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::input::{number, required, text};
use super::log::Session;
use super::policy::matches;
use super::request::AwsError;
use super::state::{Context, State, session_arn};
use super::stream::later;

pub(crate) fn call(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    match context.request.operation.as_str() {
        "GetCallerIdentity" => Ok(caller_identity(context)),
        "AssumeRole" | "AssumeRoleWithWebIdentity" => assume(state, context),
        other => Err(AwsError::new(
            "InvalidAction",
            format!("Could not find operation {other} for version 2011-06-15"),
        )),
    }
}

fn caller_identity(context: &Context<'_>) -> Value {
    let user = match &context.principal.session {
        Some(session) => format!("AROAEXAMPLE:{}", session.name),
        None => "AIDAEXAMPLE".to_owned(),
    };
    json!({ "Arn": context.principal.arn, "UserId": user, "Account": context.account })
}

fn assume(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let web_identity = context.request.operation == "AssumeRoleWithWebIdentity";
    if web_identity {
        required(context.request, "WebIdentityToken")?;
    }
    let role = required(context.request, "RoleArn")?.to_owned();
    let name = required(context.request, "RoleSessionName")?.to_owned();
    let external_id = text(context.request, "ExternalId")?.map(str::to_owned);
    let is_role = role.splitn(6, ':').nth(5).is_some_and(|resource| resource.starts_with("role/"));
    if !is_role || !role.starts_with("arn:") {
        return Err(AwsError::new("ValidationError", format!("{role} is invalid")));
    }
    let planted = state.roles.get(&role).cloned().unwrap_or_default();
    let trusted = planted.trusts.is_empty()
        || planted
            .trusts
            .iter()
            .any(|p| matches(p, &context.principal.access_key) || matches(p, &context.principal.arn));
    let external_id_fits = planted.external_id.is_none() || planted.external_id == external_id;
    if !(external_id_fits && (trusted || web_identity)) {
        let mut error = AwsError::new(
            "AccessDenied",
            format!(
                "User: {} is not authorized to perform: sts:{} on resource: {role}",
                context.principal.arn, context.request.operation
            ),
        );
        error.status = 403;
        return Err(error);
    }
    let longest = planted.max_session.unwrap_or(SignedDuration::from_hours(1));
    let seconds = number(context.request, "DurationSeconds", 900, 43_200, 3600)?;
    let duration = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(3600));
    // A role that is not planted has no duration limit of its own, so that tests can have old sessions.
    if state.roles.contains_key(&role) && duration > longest {
        let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(AwsError::new("ValidationError", message));
    }
    let session = Session {
        role,
        name,
        external_id,
        tags: tags(&context.request.body),
        issued: context.now,
        expires: later(context.now, duration),
    };
    let number = state.next();
    let access_key = format!("ASIA{number:016}");
    let answer = json!({
        "Credentials": {
            "AccessKeyId": access_key,
            "SecretAccessKey": format!("simulated-secret-{number}"),
            "SessionToken": format!("simulated-token-{number}"),
            "Expiration": session.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        },
        "AssumedRoleUser": { "Arn": session_arn(&session), "AssumedRoleId": format!("AROAEXAMPLE:{}", session.name) },
    });
    state.sessions.insert(access_key, session);
    Ok(answer)
}

/// Returns the session tags: `Tags.member.1.Key` and so on, in the query protocol.
fn tags(body: &Value) -> Vec<String> {
    let member =
        |number: usize, part: &str| body.get(format!("Tags.member.{number}.{part}")).and_then(Value::as_str);
    (1..=50)
        .map_while(|n| Some(format!("{}={}", member(n, "Key")?, member(n, "Value").unwrap_or_default())))
        .collect()
}
