//! Which hosts are asked: in each partition, in FIPS mode, behind VPC endpoints, and the same for every role and region.

use super::*;

/// The host of each service, as a principal with a role asks it about streams of `region`.
async fn hosts(loader: ConfigLoader, operators: &str, region: &str, partition: &str) -> [String; 4] {
    let recorded = Recorded::answers((0..9).map(|_| (400, "{}"))).assuming();
    let config = loader.credentials_provider(credentials()).http_client(recorded.http_client()).load().await;
    let aws = Aws::over(config, operators.parse().unwrap(), Pacer::new(80), Arc::new(SystemTime::now));
    let arn = |service, kind| format!("arn:{partition}:{service}:{region}:222222222222:{kind}");
    let [firehose, kinesis] = [("firehose", "deliverystream/orders"), ("kinesis", "stream/clicks")]
        .map(|(service, kind)| arn(service, kind).parse::<StreamArn>().unwrap());
    let key = KeyName::Arn(arn("kms", "key/1234abcd").parse().unwrap());
    let by = assuming("orders");
    // In the same region twice: the client that is kept asks where the first one did.
    for _ in 0..2 {
        for fault in [
            aws.look(&firehose, &by, Urgency::Drift).await.unwrap_err(),
            aws.look(&kinesis, &by, Urgency::Drift).await.unwrap_err(),
            aws.key(&firehose, &key, &by, Urgency::Drift).await.unwrap_err(),
        ] {
            assert_eq!(fault.code.as_deref(), Some("400"), "{fault:?}");
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
    loader(&Endpoints::of(region.parse().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn each_partition_has_hosts_of_its_own() {
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
async fn sts_is_asked_in_the_operators_region_and_each_stream_in_its_own() {
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
async fn in_fips_mode_every_host_is_one_of_fips_whatever_the_role_and_the_region() {
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
    // There STS has no other hosts than those of FIPS.
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
async fn hosts_of_both_internet_protocols_are_asked_where_that_is_wanted() {
    let hosts = hosts(in_region("eu-west-1").use_dual_stack(true), "eu-west-1", "us-east-2", "aws").await;
    assert!(hosts.iter().all(|host| host.ends_with(".api.aws")), "{hosts:?}");
}

/// What `AWS_USE_FIPS_ENDPOINT` and `AWS_ENDPOINT_URL_<SERVICE>` say in the environment, a file says in other words.
#[tokio::test(start_paused = true)]
async fn what_the_default_loader_finds_holds_for_every_role_and_region() {
    let fips = "[default]\nuse_fips_endpoint = true\n";
    let found =
        hosts(in_region("us-east-1").profile_files(file(fips)), "us-east-1", "us-west-2", "aws").await;
    assert!(found.iter().all(|host| host.contains("-fips.")), "{found:?}");

    // The endpoints of two services in a VPC. The SDK does not take these together with FIPS mode.
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
