//! The operator's settings: flags and environment variables as given ([`Arguments`]), and their checked
//! values ([`Settings`]).

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use kube::core::Selector;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_core::controller::Config;
use stream_encryption_core::model::arn::Region;
use stream_encryption_core::model::request_limits::RequestLimits;

use crate::aws::{AwsConfig, QueueUrl};
use crate::plugin;

pub(crate) mod default_policy;
pub mod iam;
pub(crate) mod invalid;
pub(crate) mod names;
mod request_limits;
mod selector;

/// The default filter of the log.
pub(crate) const DEFAULT_LOG: &str = "info";
/// The default interval of drift detection, in seconds.
pub(crate) const DEFAULT_DRIFT_INTERVAL_SECONDS: u32 = 600;
/// The default interval of drift detection while AWS's events arrive, in seconds.
pub(crate) const DEFAULT_EVENTS_DRIFT_INTERVAL_SECONDS: u32 = 3_600;

/// Keeps Amazon Data Firehose and Kinesis data streams encrypted with the key you choose.
#[derive(Debug, Parser)]
#[command(name = "stream-encryption-operator", version)]
pub struct Arguments {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The arguments under the name of the kubectl plugin: the commands for people alone.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-streamencryption",
    bin_name = "kubectl streamencryption",
    version,
    about = "Shows, plans and explains the encryption of Amazon Data Firehose and Kinesis data streams. Changes nothing."
)]
pub struct PluginArguments {
    /// The command to run.
    #[command(subcommand)]
    pub command: plugin::Command,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator until it is stopped.
    Run(Box<RunArguments>),
    /// Print the `CustomResourceDefinitions`.
    Crd,
    /// Print an AWS policy: for the operator's role, a key, another role's trust, or the queue of AWS's events.
    /// Contacts neither AWS nor a cluster.
    Iam {
        /// The policy to print.
        #[command(subcommand)]
        document: iam::Document,
    },
    /// The commands for people, which are those of the kubectl plugin.
    #[command(flatten)]
    Plugin(plugin::Command),
    /// Probe a running operator; exits non-zero unless the response is a success (2xx).
    Check {
        /// The URL to request, such as
        /// `http://stream-encryption-operator.stream-encryption-system:8080/readyz`.
        #[arg(long)]
        url: String,
    },
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Human-readable text.
    Text,
}

/// The flags of `run`, as given.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The namespace that holds the ledgers.
    #[arg(long, env = "POD_NAMESPACE", default_value = "stream-encryption-system")]
    pub namespace: String,
    /// Watch only this namespace; repeat the flag, or separate names by commas, for several. Default: all.
    #[arg(long, env = "WATCH_NAMESPACE", value_delimiter = ',')]
    pub watch_namespace: Vec<String>,
    /// Reconcile only the resources whose labels match this selector, such as shard=a or 'shard notin (a,b)'.
    /// Default: all.
    #[arg(long, env = "WATCH_LABEL_SELECTOR")]
    pub watch_label_selector: Option<String>,
    /// The operator's own region, also used for streams given by name without a region.
    #[arg(long, env = "AWS_REGION")]
    pub region: Option<String>,
    /// One URL for all AWS services, such as that of an AWS emulator. With a web identity or a role of a profile, set
    /// `AWS_ENDPOINT_URL` instead: it also applies to the STS that provides these credentials. For URLs that differ
    /// by service, set `AWS_ENDPOINT_URL_<SERVICE>`.
    #[arg(long, env = "STREAM_ENCRYPTION_AWS_ENDPOINT_URL")]
    pub aws_endpoint_url: Option<String>,
    /// The share of AWS's request rate limits to use, in percent. The rest is left to other tools.
    #[arg(long, env = "AWS_RATE_PERCENT", default_value_t = 80)]
    pub aws_rate_percent: u8,
    /// The request rate limits that replace the defaults, as a JSON list such as
    /// `[{"operation":"kms:DescribeKey","account":"111122223333","region":"eu-west-1","requestsPerSecond":4000}]`.
    /// Default: AWS's default limits, or lower ones where the operator needs few requests.
    #[arg(long, env = "AWS_REQUEST_LIMITS")]
    pub aws_request_limits: Option<String>,
    /// Default policy: the spec of a `StreamEncryptionPolicy` as JSON, merged with the cluster's policies.
    /// The operator sends AWS no request about a stream that no policy allows. Default: none.
    #[arg(long, env = "DEFAULT_POLICY")]
    pub default_policy: Option<String>,
    /// The interval at which each stream is described to detect drift, in seconds.
    #[arg(long, env = "DRIFT_INTERVAL_SECONDS", default_value_t = DEFAULT_DRIFT_INTERVAL_SECONDS)]
    pub drift_interval_seconds: u32,
    /// The URL of the SQS queue through which AWS's events arrive. Default: none; drift is detected by interval only.
    #[arg(long, env = "EVENTS_QUEUE_URL")]
    pub events_queue_url: Option<String>,
    /// The interval at which each stream is described to detect drift while AWS's events arrive, in seconds.
    #[arg(long, env = "EVENTS_DRIFT_INTERVAL_SECONDS", default_value_t = DEFAULT_EVENTS_DRIFT_INTERVAL_SECONDS)]
    pub events_drift_interval_seconds: u32,
    /// The number of resources to reconcile at a time, in turn across namespaces.
    #[arg(long, env = "CONCURRENCY", default_value_t = 32)]
    pub concurrency: u16,
    /// The address that serves /metrics, /healthz and /readyz, such as `[::]:8080` (IPv4 and IPv6). Default:
    /// none.
    #[arg(long, env = "LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Reconcile only while holding the Lease; required for more than one replica.
    #[arg(long, env = "LEADER_ELECTION", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_election: bool,
    /// The name of the Lease, in the namespace of the ledgers. Operators that share that namespace need
    /// different ones.
    #[arg(long, env = "LEASE_NAME", default_value = "stream-encryption-operator")]
    pub lease: String,
    /// The identity of this replica in the Lease. Default: a random name.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// The log format.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// The log filter: a level, or levels by module, for example debug,kube=warn.
    #[arg(long, env = "LOG", default_value = DEFAULT_LOG)]
    pub log: String,
}

/// The values of the flags, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The namespace that holds the ledgers.
    pub namespace: String,
    /// The namespaces to watch, sorted; empty for all.
    pub watch_namespaces: Vec<String>,
    /// Selects the resources to reconcile; `None` for all.
    pub watch_label_selector: Option<Selector>,
    /// The operator's own region, also used for streams given by name without a region.
    pub region: Region,
    /// An endpoint that replaces all of AWS's.
    pub aws_endpoint_url: Option<String>,
    /// The share of AWS's request rate limits to use, in percent.
    pub aws_rate_percent: u8,
    /// AWS's request rate limits.
    pub aws_request_limits: RequestLimits,
    /// A default policy, merged with those in the cluster.
    pub default_policy: Option<StreamEncryptionPolicySpec>,
    /// Interval of drift detection.
    pub drift_interval: SignedDuration,
    /// The queue of AWS's events; `None` if the operator receives none.
    pub events_queue: Option<QueueUrl>,
    /// Interval of drift detection while AWS's events arrive.
    pub events_drift_interval: SignedDuration,
    /// Number of resources to reconcile at a time.
    pub concurrency: u16,
    /// The address that serves /metrics, /healthz and /readyz.
    pub listen: Option<SocketAddr>,
    /// Whether to reconcile only while holding the lease.
    pub leader_election: bool,
    /// The name of the lease.
    pub lease: String,
    /// The identity of this replica in the lease.
    pub identity: Option<String>,
}

impl Settings {
    /// Returns the part of the settings that a reconcile reads.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            region: self.region.clone(),
            drift_interval: self.drift_interval,
            drift_interval_with_events: self.events_queue.as_ref().map(|_| self.events_drift_interval),
        }
    }
}

impl RunArguments {
    /// Checks the flags, and returns their values or the first problem.
    pub fn check(&self) -> anyhow::Result<Settings> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let within = |what: &str, value: u32, [least, most]: [u32; 2]| {
            let wanted = format!("a whole number from {least} to {most}");
            anyhow::ensure!((least..=most).contains(&value), "{what} is \"{value}\", but must be {wanted}");
            Ok(())
        };
        names::namespace("--namespace (POD_NAMESPACE)", &self.namespace)?;
        let watch_namespaces =
            names::namespaces("--watch-namespace (WATCH_NAMESPACE)", &self.watch_namespace)?;
        let watch_label_selector = given(&self.watch_label_selector)
            .map(|text| selector::selector("--watch-label-selector (WATCH_LABEL_SELECTOR)", &text))
            .transpose()?;
        names::lease("--lease (LEASE_NAME)", &self.lease)?;
        let identity = given(&self.identity);
        if let Some(identity) = &identity {
            names::identity("--identity (POD_NAME)", identity)?;
        }
        within("--aws-rate-percent (AWS_RATE_PERCENT)", self.aws_rate_percent.into(), [1, 100])?;
        within(
            "--drift-interval-seconds (DRIFT_INTERVAL_SECONDS)",
            self.drift_interval_seconds,
            [10, 86_400],
        )?;
        within(
            "--events-drift-interval-seconds (EVENTS_DRIFT_INTERVAL_SECONDS)",
            self.events_drift_interval_seconds,
            [10, 86_400],
        )?;
        let aws_endpoint_url = given(&self.aws_endpoint_url);
        if let Some(url) = &aws_endpoint_url {
            AwsConfig::check_endpoint_url(url)
                .context("--aws-endpoint-url (STREAM_ENCRYPTION_AWS_ENDPOINT_URL)")?;
        }
        // kube treats 0 as "no limit".
        within("--concurrency (CONCURRENCY)", self.concurrency.into(), [1, u16::MAX.into()])?;
        Ok(Settings {
            namespace: self.namespace.clone(),
            watch_namespaces,
            watch_label_selector,
            region: given(&self.region)
                .ok_or_else(|| anyhow::anyhow!("set AWS_REGION or --region, such as eu-west-1"))?
                .parse()
                .context("--region (AWS_REGION)")?,
            aws_endpoint_url,
            aws_rate_percent: self.aws_rate_percent,
            aws_request_limits: given(&self.aws_request_limits)
                .map(|text| {
                    request_limits::request_limits("--aws-request-limits (AWS_REQUEST_LIMITS)", &text)
                })
                .transpose()?
                .unwrap_or_default(),
            default_policy: given(&self.default_policy)
                .map(|text| default_policy::parse(&text).context("--default-policy (DEFAULT_POLICY)"))
                .transpose()?,
            drift_interval: SignedDuration::from_secs(i64::from(self.drift_interval_seconds)),
            events_queue: given(&self.events_queue_url)
                .map(|url| url.parse().context("--events-queue-url (EVENTS_QUEUE_URL)"))
                .transpose()?,
            events_drift_interval: SignedDuration::from_secs(i64::from(self.events_drift_interval_seconds)),
            concurrency: self.concurrency,
            listen: self.listen,
            leader_election: self.leader_election,
            lease: self.lease.clone(),
            identity,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn run(flags: &[&str]) -> anyhow::Result<Settings> {
        let region = ["--region", "eu-west-1"];
        let region: &[&str] = if flags.contains(&"--region") { &[] } else { &region };
        let all = ["stream-encryption-operator", "run"].iter().chain(region).chain(flags);
        match Arguments::try_parse_from(all)?.command {
            Command::Run(arguments) => arguments.check(),
            Command::Crd | Command::Iam { .. } | Command::Check { .. } | Command::Plugin(_) => {
                unreachable!("`run` was given")
            }
        }
    }

    const OWN: &str =
        r#"{"namespaceSelector":{},"streams":["arn:*:kinesis:*:own:stream/*"],"keys":["AWS_OWNED_CMK"]"#;

    #[test]
    fn default_policy_is_optional_and_uses_20_calls_by_default() {
        assert_eq!(run(&[]).unwrap().default_policy, None);
        let calls = |more: &str| {
            let policy = format!("{OWN}{more}}}");
            run(&["--default-policy", &policy]).unwrap().default_policy.unwrap().max_calls_per_day
        };
        assert_eq!(calls(""), 20);
        assert_eq!(calls(r#","maxCallsPerDay":25"#), 25);
    }

    #[test]
    fn invalid_default_policy_is_rejected() {
        let condition = |rest: &str| {
            OWN.replace("{},", &format!(r#"{{"matchExpressions":[{{"key":"a",{rest}}}]}},"#)) + "}"
        };
        for (policy, words) in [
            ("all".to_owned(), "not JSON"),
            ("{}".to_owned(), "not the spec"),
            (format!(r#"{OWN},"maxCallsPerDay":26}}"#), "from 1 to 25"),
            (format!(r#"{OWN},"maxCallsPerDay":0}}"#), "from 1 to 25"),
            (format!(r#"{OWN},"allowDisabel":true}}"#), "allowDisabel"),
            (OWN.replace("{},", r#"{"matchlabels":{"team":"data"}},"#) + "}", "matchlabels"),
            (
                OWN.replace("{},", r#"{"matchExpressions":[{"key":"a","operator":"In","valeus":["b"]}]},"#)
                    + "}",
                "valeus",
            ),
            (condition(r#""operator":"Exists","values":["b"]"#), "a: values must be set"),
            (condition(r#""operator":"DoesNotExist","values":["b"]"#), "a: values must be set"),
            (condition(r#""operator":"In""#), "a: values must be set"),
            (condition(r#""operator":"NotIn","values":[]"#), "a: values must be set"),
            (OWN.replace("own", "*") + "}", "12 digits or own"),
        ] {
            let error = format!("{:#}", run(&["--default-policy", &policy]).unwrap_err());
            assert!(error.contains(words), "{policy}: {error}");
        }
    }

    #[test]
    fn error_about_a_value_names_flag_and_variable() {
        let command = Arguments::command();
        let command = command.find_subcommand("run").unwrap();
        for (flag, value) in [
            ("--namespace", "A"),
            ("--watch-namespace", "A"),
            ("--watch-label-selector", "in ("),
            ("--lease", "A"),
            ("--identity", "a b"),
            ("--region", "Ireland"),
            ("--aws-endpoint-url", "foo"),
            ("--aws-rate-percent", "0"),
            ("--aws-request-limits", "{"),
            ("--default-policy", "all"),
            ("--drift-interval-seconds", "1"),
            ("--events-drift-interval-seconds", "1"),
            ("--events-queue-url", "foo"),
            ("--concurrency", "0"),
        ] {
            let error = format!("{:#}", run(&[flag, value]).unwrap_err());
            let names = invalid::named(flag, command);
            assert!(names.ends_with(')') && error.starts_with(&names), "{names}: {error}");
        }
    }

    #[test]
    fn invalid_namespace_name_is_rejected() {
        let long = "a".repeat(64);
        let error = run(&["--namespace=default,data"]).unwrap_err().to_string();
        assert!(error.contains("must be one namespace"), "{error}");
        for (name, words) in [
            ("Data", "name of a namespace"),
            ("data ", "name of a namespace"),
            (" data", "name of a namespace"),
            ("data\n", "name of a namespace"),
            ("my.data", "name of a namespace"),
            ("-data", "name of a namespace"),
            ("da/ta", "name of a namespace"),
            (&long, "name of a namespace"),
        ] {
            for flag in ["--watch-namespace", "--namespace"] {
                let error = run(&[&format!("{flag}={name}")]).unwrap_err().to_string();
                assert!(error.contains(words) && error.contains(flag), "{flag} {name:?}: {error}");
            }
        }
        let longest = "a".repeat(63);
        for name in ["data", "team-1", "1", &longest] {
            assert_eq!(run(&["--watch-namespace", name]).unwrap().watch_namespaces, [name]);
        }
        assert!(run(&["--namespace", ""]).is_err());
    }

    #[test]
    fn watched_namespaces_are_a_list_without_empty_names() {
        let watched = |flags: &[&str]| run(flags).map(|settings| settings.watch_namespaces);
        assert_eq!(watched(&[]).unwrap(), [""; 0]);
        assert_eq!(watched(&["--watch-namespace", ""]).unwrap(), [""; 0]);
        assert_eq!(watched(&["--watch-namespace", "web,data"]).unwrap(), ["data", "web"]);
        let twice = ["--watch-namespace", "web", "--watch-namespace", "data,web"];
        assert_eq!(watched(&twice).unwrap(), ["data", "web"]);
        // A list that is empty by mistake must not mean all namespaces.
        for list in [",", "data,", ",data", "data,,web", "data, web", "data,Web"] {
            let error = watched(&["--watch-namespace", list]).unwrap_err().to_string();
            assert!(error.contains("must be the name of a namespace"), "{list:?}: {error}");
        }
    }

    #[test]
    fn default_request_limits_are_those_of_aws() {
        for flags in [&[][..], &["--aws-request-limits", ""]] {
            assert_eq!(run(flags).unwrap().aws_request_limits, RequestLimits::default());
        }
    }

    #[test]
    fn queue_of_events_is_optional_and_lengthens_the_interval() {
        for flags in [&[][..], &["--events-queue-url", ""]] {
            assert_eq!(run(flags).unwrap().events_queue, None);
        }
        let url = "https://sqs.eu-west-1.amazonaws.com/111122223333/events";
        let settings = run(&["--events-queue-url", url]).unwrap();
        assert_eq!(settings.events_queue.unwrap().to_string(), url);
        assert_eq!(settings.events_drift_interval, SignedDuration::from_hours(1));
    }

    #[test]
    fn selector_and_lease_are_checked_at_startup() {
        let settings = run(&["--watch-label-selector", "shard in (b,a)", "--lease", "shard-a"]).unwrap();
        let selector = settings.watch_label_selector.unwrap().to_string();
        assert_eq!((selector.as_str(), settings.lease.as_str()), ("shard in (a,b)", "shard-a"));
        let settings = run(&["--watch-label-selector", ""]).unwrap();
        assert_eq!(settings.watch_label_selector, None);
        assert_eq!(settings.lease, "stream-encryption-operator");
        let error = run(&["--watch-label-selector", "shard in a"]).unwrap_err().to_string();
        assert!(error.starts_with("--watch-label-selector (WATCH_LABEL_SELECTOR) is"), "{error}");
        for name in ["", "Shard", "a b", "a/b"] {
            let error = run(&["--lease", name]).unwrap_err().to_string();
            assert!(error.contains("must be the name of a Lease"), "{name:?}: {error}");
        }
    }

    #[test]
    fn invalid_lease_identity_is_rejected() {
        let long = "a".repeat(110);
        for identity in ["pod 1", "pod\n", "pöd", &long] {
            let error = run(&["--identity", identity]).unwrap_err().to_string();
            assert!(error.contains("--identity") && error.contains("name of the pod"), "{error}");
        }
        assert_eq!(run(&["--identity", "operator-1"]).unwrap().identity.as_deref(), Some("operator-1"));
    }

    #[test]
    fn invalid_flags_are_rejected_with_a_hint() {
        for (flags, words) in [
            (
                ["--aws-rate-percent", "0"],
                r#"(AWS_RATE_PERCENT) is "0", but must be a whole number from 1 to 100"#,
            ),
            (["--aws-request-limits", "50"], "--aws-request-limits (AWS_REQUEST_LIMITS) is not a list"),
            (["--drift-interval-seconds", "5"], "from 10 to 86400"),
            (["--events-drift-interval-seconds", "86401"], "from 10 to 86400"),
            (
                ["--events-queue-url", "arn:aws:sqs:eu-west-1:111122223333:x"],
                "(EVENTS_QUEUE_URL): invalid queue",
            ),
            (["--concurrency", "0"], r#"(CONCURRENCY) is "0", but must be a whole number from 1 to 65535"#),
            (["--region", "Ireland"], "such as eu-west-1"),
        ] {
            let error = format!("{:#}", run(&flags).unwrap_err());
            assert!(error.contains(words), "{flags:?}: {error}");
        }
    }
}
