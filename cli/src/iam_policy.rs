//! `kubehose iam-policy`: what the roles of the two ends, router and delivery stream, may do.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use crate::aws::{Account, Bucket, Region, SecretArn, StreamName, stream_arn};
use crate::verdict::{self, Failure, Outcome, print};

/// Write an IAM policy: what the router's role may do, or the delivery stream's; or who may take on those roles.
#[derive(ClapArgs)]
#[command(after_help = "Examples:
  kubehose iam-policy --region eu-west-1 --account 123456789012 --delivery-stream logs > policy.json
  aws iam create-policy --policy-name FluentBitEKSFargate --policy-document file://policy.json
  kubehose iam-policy --of delivery --region eu-west-1 --account 123456789012 --delivery-stream logs --bucket spare")]
pub struct Args {
    /// Region of the delivery stream
    #[arg(long, env = "AWS_REGION", value_parser = Region::new)]
    region: Region,
    /// Account of the delivery stream
    #[arg(long, value_name = "DIGITS", value_parser = Account::new)]
    account: Account,
    /// Name of the delivery stream
    #[arg(long, value_name = "NAME", value_parser = StreamName::new)]
    delivery_stream: StreamName,
    /// Whose policy
    #[arg(long, value_enum, default_value_t = Of::Router)]
    of: Of,
    /// The router also writes its own log to CloudWatch, as the guide's ConfigMap asks for [router]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    flb_log_cw: bool,
    /// Bucket for what Datadog did not take [delivery: required]
    #[arg(long, value_name = "NAME", value_parser = Bucket::new)]
    bucket: Option<Bucket>,
    /// Secret that holds the API key [delivery]
    #[arg(long, value_name = "ARN", value_parser = SecretArn::new)]
    secret_arn: Option<SecretArn>,
}

/// Whose policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    /// The router's role: the pod execution role on Fargate
    Router,
    /// Who may take on the pod execution role
    RouterTrust,
    /// The delivery stream's role
    Delivery,
    /// Who may take on the delivery stream's role
    DeliveryTrust,
}

/// Runs `kubehose iam-policy`.
pub fn run(args: &Args) -> Outcome {
    let stream = Stream { region: &args.region, account: &args.account, name: &args.delivery_stream };
    let policy = match args.of {
        Of::Router => router(&stream, args.flb_log_cw),
        Of::RouterTrust => router_trust(&stream),
        Of::Delivery => {
            let Some(bucket) = &args.bucket else {
                return Err(Failure::new("--bucket is missing: the delivery stream's role writes what failed there"));
            };
            delivery(&stream, &bucket.arn(&args.region), args.secret_arn.as_ref().map(AsRef::as_ref))
        }
        Of::DeliveryTrust => delivery_trust(&args.account),
    };
    print(&verdict::json(&policy))
}

/// A delivery stream, as ARNs name it.
pub struct Stream<'a> {
    pub region: &'a Region,
    pub account: &'a Account,
    pub name: &'a StreamName,
}

impl Stream<'_> {
    /// The stream's ARN.
    pub fn arn(&self) -> String {
        stream_arn(self.region, self.account, self.name)
    }

    /// The partition of every ARN around the stream.
    pub fn partition(&self) -> &'static str {
        self.region.partition()
    }

    /// Where Firehose says why a delivery failed; the console's name for it.
    pub fn log_group(&self) -> String {
        format!("/aws/kinesisfirehose/{}", self.name)
    }
}

fn document(statements: Vec<Value>) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// What the guide grants the pod execution role, and CloudWatch Logs where the router's own log goes there
/// (<https://docs.aws.amazon.com/eks/latest/userguide/fargate-logging.html>).
pub fn router(stream: &Stream<'_>, flb_log_cw: bool) -> Value {
    let mut statements = vec![json!({
        "Sid": "PutRecords",
        "Effect": "Allow",
        "Action": ["firehose:PutRecord", "firehose:PutRecordBatch"],
        "Resource": stream.arn()
    })];
    if flb_log_cw {
        // The router chooses the group's name, `<cluster>-fluent-bit-logs`.
        let groups =
            format!("arn:{}:logs:{}:{}:log-group:*-fluent-bit-logs", stream.partition(), stream.region, stream.account);
        statements.push(json!({
            "Sid": "OwnLog",
            "Effect": "Allow",
            "Action": [
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
                "logs:PutRetentionPolicy"
            ],
            "Resource": [groups, format!("{groups}:log-stream:*")]
        }));
    }
    document(statements)
}

/// EKS Fargate's trust, bound to the account's clusters
/// (<https://docs.aws.amazon.com/eks/latest/userguide/pod-execution-role.html>).
pub fn router_trust(stream: &Stream<'_>) -> Value {
    document(vec![json!({
        "Effect": "Allow",
        "Principal": {"Service": "eks-fargate-pods.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnLike": {"aws:SourceArn": format!(
            "arn:{}:eks:{}:{}:fargateprofile/*", stream.partition(), stream.region, stream.account
        )}}
    })])
}

/// What Firehose does in the stream's name: failed records to S3, its log, the API key
/// (<https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html>).
pub fn delivery(stream: &Stream<'_>, bucket_arn: &str, secret_arn: Option<&str>) -> Value {
    let partition = stream.partition();
    let mut statements = vec![
        json!({
            "Sid": "KeepWhatFailed",
            "Effect": "Allow",
            "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
            "Resource": format!("{bucket_arn}/*")
        }),
        json!({
            "Sid": "FindTheBucket",
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": bucket_arn
        }),
        json!({
            "Sid": "SayWhatFailed",
            "Effect": "Allow",
            "Action": ["logs:PutLogEvents"],
            "Resource": format!(
                "arn:{partition}:logs:{}:{}:log-group:{}:log-stream:*", stream.region, stream.account, stream.log_group()
            )
        }),
    ];
    if let Some(secret) = secret_arn {
        statements.push(json!({
            "Sid": "ReadTheApiKey",
            "Effect": "Allow",
            "Action": ["secretsmanager:GetSecretValue"],
            "Resource": secret
        }));
    }
    document(statements)
}

/// Firehose's trust, for this account's streams only.
pub fn delivery_trust(account: &Account) -> Value {
    document(vec![json!({
        "Effect": "Allow",
        "Principal": {"Service": "firehose.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": account.as_ref()}}
    })])
}
