//! The hosts of requests: in each partition, in FIPS mode, with VPC endpoints, and the same for every role
//! and region.

use super::*;

/// A response that no client repeats.
const REFUSAL: (u16, &str) = (400, r#"{"__type":"ValidationException"}"#);

/// Returns the host of each service, for a principal with a role and streams of `region`.
async fn hosts(loader: ConfigLoader, operators: &str, region: &str, partition: &str) -> [String; 4] {
    let recorded = ReplayClient::answers((0..9).map(|_| REFUSAL)).assuming();
    let config = loader.credentials_provider(credentials()).http_client(recorded.http_client()).load().await;
    let aws =
        Aws::from_config(config, operators.parse().unwrap(), RateLimiter::new(80), Arc::new(SystemTime::now));
    let arn = |service, kind| format!("arn:{partition}:{service}:{region}:222222222222:{kind}");
    let [firehose, kinesis] = [("firehose", "deliverystream/orders"), ("kinesis", "stream/clicks")]
        .map(|(service, kind)| arn(service, kind).parse::<StreamArn>().unwrap());
    let key = KmsKeyId::Arn(arn("kms", "key/1234abcd").parse().unwrap());
    let principal = assuming("orders");
    // Two requests in the same region: the cached client uses the same host as the first one.
    for _ in 0..2 {
        for error in [
            aws.describe_stream(&firehose, &principal, Priority::Drift).await.unwrap_err(),
            aws.describe_stream(&kinesis, &principal, Priority::Drift).await.unwrap_err(),
            aws.describe_key(&firehose, &key, &principal, Priority::Drift).await.unwrap_err(),
        ] {
            assert_eq!(error.code.as_deref(), Some("ValidationException"), "{error:?}");
        }
    }
    let sent = recorded.sent();
    let of = |operation: &str| {
        let hosts: std::collections::BTreeSet<_> =
            sent.iter().filter(|sent| sent.operation == operation).map(|sent| sent.host.clone()).collect();
        let [host] = hosts.into_iter().collect::<Vec<_>>().try_into().unwrap();
        host
    };
    ["AssumeRole", "DescribeDeliveryStream", "DescribeStreamSummary", "DescribeKey"].map(of)
}

#[expect(deprecated, reason = "what took its place is in a crate that is not used here")]
fn file(written: &str) -> aws_config::profile::profile_file::ProfileFiles {
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
    ProfileFiles::builder().with_contents(ProfileFileKind::Config, written).build()
}

fn in_region(region: &str) -> ConfigLoader {
    loader(&AwsConfig::of(region.parse().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn each_partition_has_its_own_hosts() {
    for (partition, region, domain) in [
        ("aws", "eu-west-1", "amazonaws.com"),
        ("aws-cn", "cn-north-1", "amazonaws.com.cn"),
        ("aws-us-gov", "us-gov-west-1", "amazonaws.com"),
    ] {
        let hosts = hosts(in_region(region), region, region, partition).await;
        assert_eq!(
            hosts,
            ["sts", "firehose", "222222222222.control-kinesis", "kms"]
                .map(|name| { format!("{name}.{region}.{domain}") })
        );
    }
}

#[tokio::test(start_paused = true)]
async fn sts_uses_operator_region_and_streams_use_their_own() {
    let hosts = hosts(in_region("eu-west-1"), "eu-west-1", "us-east-2", "aws").await;
    assert_eq!(
        hosts,
        [
            "sts.eu-west-1.amazonaws.com",
            "firehose.us-east-2.amazonaws.com",
            "222222222222.control-kinesis.us-east-2.amazonaws.com",
            "kms.us-east-2.amazonaws.com",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn fips_mode_applies_to_every_role_and_region() {
    let of_us = hosts(in_region("us-east-1").use_fips(true), "us-east-1", "us-west-2", "aws").await;
    assert_eq!(
        of_us,
        [
            "sts-fips.us-east-1.amazonaws.com",
            "firehose-fips.us-west-2.amazonaws.com",
            "222222222222.control-kinesis-fips.us-west-2.amazonaws.com",
            "kms-fips.us-west-2.amazonaws.com",
        ]
    );
    let region = "us-gov-west-1";
    let of_the_government = hosts(in_region(region).use_fips(true), region, region, "aws-us-gov").await;
    // In this partition STS has no hosts other than those of FIPS.
    assert_eq!(
        of_the_government,
        [
            "sts.us-gov-west-1.amazonaws.com",
            "firehose-fips.us-gov-west-1.amazonaws.com",
            "222222222222.control-kinesis-fips.us-gov-west-1.amazonaws.com",
            "kms-fips.us-gov-west-1.amazonaws.com",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn dual_stack_mode_uses_dual_stack_hosts() {
    let hosts = hosts(in_region("eu-west-1").use_dual_stack(true), "eu-west-1", "us-east-2", "aws").await;
    assert!(hosts.iter().all(|host| host.ends_with(".api.aws")), "{hosts:?}");
}

/// The test uses a configuration file in place of `AWS_USE_FIPS_ENDPOINT` and `AWS_ENDPOINT_URL_<SERVICE>`.
#[tokio::test(start_paused = true)]
async fn loader_settings_apply_to_every_role_and_region() {
    let fips = "[default]\nuse_fips_endpoint = true\n";
    let found =
        hosts(in_region("us-east-1").profile_files(file(fips)), "us-east-1", "us-west-2", "aws").await;
    assert!(found.iter().all(|host| host.contains("-fips.")), "{found:?}");

    // The endpoints of two services in a VPC. The SDK does not accept these together with FIPS mode.
    let private = "[default]\nservices = private\n[services private]\n\
                   firehose =\n  endpoint_url = https://vpce-1.firehose.test\n\
                   sts =\n  endpoint_url = https://vpce-2.sts.test\n";
    let found =
        hosts(in_region("us-east-1").profile_files(file(private)), "us-east-1", "us-west-2", "aws").await;
    assert_eq!(
        found,
        [
            "vpce-2.sts.test",
            "vpce-1.firehose.test",
            "222222222222.control-kinesis.us-west-2.amazonaws.com",
            "kms.us-west-2.amazonaws.com",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn endpoint_url_replaces_that_of_every_service() {
    let endpoints = AwsConfig { endpoint_url: Some("http://aws.test:4566".to_owned()), ..ours() };
    for operation in Op::ALL {
        let recorded = ReplayClient::answers((0..3).map(|_| REFUSAL));
        let loader =
            loader(&endpoints).credentials_provider(credentials()).http_client(recorded.http_client());
        let aws = Aws::from_config(
            loader.load().await,
            endpoints.region.clone(),
            RateLimiter::new(endpoints.rate_percent),
            Arc::new(SystemTime::now),
        );
        let _ = ask(&aws, operation).await;
        let hosts: Vec<String> = recorded.sent().into_iter().map(|sent| sent.host).collect();
        assert_eq!(hosts, ["aws.test"], "{operation:?}");
    }
}

/// Returns the host that receives a request about the queue with this URL.
async fn queue_host(loader: ConfigLoader, url: &str) -> String {
    let recorded = ReplayClient::answers([(200, "{}")]);
    let config = loader.credentials_provider(credentials()).http_client(recorded.http_client()).load().await;
    let region = "eu-west-1".parse().unwrap();
    let aws = Aws::from_config(config, region, RateLimiter::new(80), Arc::new(SystemTime::now));
    aws.event_queue(&url.parse().unwrap()).receive().await.unwrap();
    recorded.sent()[0].host.clone()
}

const PRIVATE_QUEUE: &str = "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/111122223333/events";

#[tokio::test(start_paused = true)]
async fn queue_is_reached_at_the_host_of_its_url() {
    for (url, host) in [
        (PRIVATE_QUEUE, "vpce-1.sqs.eu-west-1.vpce.amazonaws.com"),
        ("https://sqs-fips.us-east-1.amazonaws.com/111122223333/events", "sqs-fips.us-east-1.amazonaws.com"),
        ("https://sqs.eu-west-2.amazonaws.com/111122223333/events", "sqs.eu-west-2.amazonaws.com"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/events", "sqs.cn-north-1.amazonaws.com.cn"),
        ("http://queue.test:4566/111122223333/events", "queue.test"),
    ] {
        assert_eq!(queue_host(in_region("eu-west-1"), url).await, host);
    }
}

/// The test uses a configuration file in place of `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_SQS`.
#[tokio::test(start_paused = true)]
async fn configured_endpoint_precedes_the_host_of_the_queue() {
    let all = "[default]\nendpoint_url = https://all.test\n";
    let of_sqs =
        "[default]\nservices = private\n[services private]\nsqs =\n  endpoint_url = https://sqs.test\n";
    for (loader, host) in [
        (in_region("eu-west-1").profile_files(file(all)), "all.test"),
        (in_region("eu-west-1").profile_files(file(of_sqs)), "sqs.test"),
        (in_region("eu-west-1").endpoint_url("https://flag.test"), "flag.test"),
        (in_region("eu-west-1").use_fips(true), "sqs-fips.eu-west-1.amazonaws.com"),
        (in_region("eu-west-1").use_dual_stack(true), "sqs.eu-west-1.api.aws"),
    ] {
        assert_eq!(queue_host(loader, PRIVATE_QUEUE).await, host);
    }
}

#[tokio::test]
async fn invalid_endpoint_or_share_is_rejected() {
    for url in ["", "aws.test:4566", "ftp://aws.test", "http://", "https:///path", "http://a b"] {
        let endpoints = AwsConfig { endpoint_url: Some(url.to_owned()), ..ours() };
        assert_eq!(Aws::new(endpoints).await.err(), Some(InvalidAwsConfig::Url(url.to_owned())));
    }
    for rate_percent in [0, 101] {
        assert_eq!(
            Aws::new(AwsConfig { rate_percent, ..ours() }).await.err(),
            Some(InvalidAwsConfig::RatePercent(rate_percent))
        );
    }
}
