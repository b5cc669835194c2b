//! `kubehose iam-policy`: what the roles of the router and of the delivery stream may do.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use crate::aws::{self, Account, Bucket, EksName, Region, RoleName, SecretArn, StreamName, stream_arn};
use crate::delivery_stream;
use crate::kube::Name;
use crate::verdict::{self, Failure, Outcome, note, print};

/// Write an IAM policy: what the router's role may do, or the delivery stream's; with --trust who may assume the role.
///
/// With --trust, stderr shows the commands that create the role and attach its policy. Options marked [router] are for --of router alone.
#[derive(ClapArgs)]
#[command(after_help = "Examples:
  kubehose iam-policy --region eu-west-1 --account 123456789012 --delivery-stream logs > policy.json
  aws iam create-policy --policy-name FluentBitEKSFargate --policy-document file://policy.json
  kubehose iam-policy --of delivery --region eu-west-1 --account 123456789012 --delivery-stream logs --bucket spare
  kubehose iam-policy --trust pod-identity --cluster shop --region eu-west-1 --account 123456789012 --delivery-stream logs > trust.json")]
pub struct Args {
    /// Region of the delivery stream
    #[arg(long, env = "AWS_REGION", value_parser = Region::new)]
    region: Region,
    /// Account of the delivery stream
    #[arg(long, value_name = "DIGITS", value_parser = Account::new)]
    account: Account,
    /// Name of the delivery stream, or of several
    #[arg(long, required = true, value_name = "NAME", value_delimiter = ',', value_parser = StreamName::new)]
    delivery_stream: Vec<StreamName>,
    /// All streams whose names begin like this, if the plugin's delivery_stream is a template [router]
    #[arg(long, value_name = "PREFIX", value_parser = StreamName::new, conflicts_with = "trust")]
    stream_prefix: Option<StreamName>,
    /// Whose policy to write
    #[arg(long, value_enum, default_value_t = Of::Router)]
    of: Of,
    /// Write a trust policy instead: who may assume the role
    #[arg(long, value_enum, value_name = "WHO", conflicts_with_all = ["of", "bucket", "secret_arn"])]
    trust: Option<Trust>,
    /// Name of the role in the commands [--trust]
    #[arg(long, value_name = "NAME", value_parser = RoleName::new, requires = "trust")]
    role_name: Option<RoleName>,
    /// The EKS cluster [--trust pod-identity: required]
    #[arg(long, value_name = "NAME", value_parser = EksName::new, requires = "trust")]
    cluster: Option<EksName>,
    /// The cluster's OIDC issuer, as `aws eks describe-cluster` prints it [--trust irsa: required]
    #[arg(long, value_name = "URL", value_parser = issuer, requires = "trust")]
    oidc_issuer: Option<String>,
    /// Namespace of the router's service account [--trust irsa, pod-identity]
    #[arg(long, value_name = "NAME", default_value = "kubehose", value_parser = Name::new)]
    namespace: Name,
    /// The router's service account [--trust irsa, pod-identity]
    #[arg(long, value_name = "NAME", default_value = "kubehose", value_parser = Name::new)]
    service_account: Name,
    /// The router also writes its own log to CloudWatch, as with the guide's ConfigMap [router]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    flb_log_cw: bool,
    /// Bucket for records that Datadog did not accept [delivery: required]
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
    /// The delivery stream's role
    Delivery,
}

/// Who assumes a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Trust {
    /// Pods of a service account, by the cluster's OIDC provider
    Irsa,
    /// Pods of a service account, by EKS Pod Identity
    PodIdentity,
    /// Tasks on ECS: the task role
    EcsTask,
    /// EKS Fargate: the pod execution role
    Fargate,
    /// The delivery stream
    Firehose,
}

/// An OIDC issuer without its scheme, as IAM names its provider.
fn issuer(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("https://").unwrap_or(text);
    let good = name.contains('.')
        && name.len() <= 255
        && !name.ends_with('/')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"./-_".contains(&b));
    match good {
        true => Ok(name.to_owned()),
        false => {
            Err("expected an issuer such as https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF".to_owned())
        }
    }
}

/// Runs `kubehose iam-policy`.
pub fn run(args: &Args) -> Outcome {
    let names = aws::each_once(&args.delivery_stream);
    let streams = Streams { region: &args.region, account: &args.account, names: &names };
    if let Some(trust) = args.trust {
        return print_trust(args, trust, &streams);
    }
    let policy = match args.of {
        Of::Router => {
            let mut policy = router(&streams, args.flb_log_cw);
            if let Some(prefix) = &args.stream_prefix {
                let all = stream_arn(&args.region, &args.account, prefix) + "*";
                policy["Statement"][0]["Resource"] = one_or_many(streams.arns().into_iter().chain([all]).collect());
            }
            policy
        }
        Of::Delivery => {
            let Some(bucket) = &args.bucket else {
                return Err(Failure::new("--bucket is missing: the delivery stream's role writes what failed there"));
            };
            delivery(&streams, &bucket.arn(&args.region), args.secret_arn.as_ref().map(AsRef::as_ref))
        }
    };
    let characters = characters(&policy);
    if characters > MAX_MANAGED {
        note(&format!(
            "the policy has {characters} characters, and `aws iam create-policy` takes {MAX_MANAGED}: --stream-prefix names many \
             streams at once"
        ));
    }
    print(&verdict::json(&policy))
}

/// The most characters of a managed policy, white space aside
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>).
const MAX_MANAGED: usize = 6144;

/// The characters of a policy that IAM counts.
fn characters(policy: &Value) -> usize {
    // None of the texts has blanks.
    policy.to_string().chars().count()
}

/// As policies have it: one text, or several in a list.
fn one_or_many(mut texts: Vec<String>) -> Value {
    if texts.len() == 1 { texts.pop().into() } else { texts.into() }
}

/// Writes the trust policy to stdout, and the commands that create the role to stderr.
fn print_trust(args: &Args, trust: Trust, streams: &Streams<'_>) -> Outcome {
    let account = ServiceAccount { namespace: &args.namespace, name: &args.service_account };
    let missing = |flag: &str, how: &str| Failure::new(format!("{flag} is missing: {how}"));
    let policy = match trust {
        Trust::Irsa => {
            let issuer = args.oidc_issuer.as_deref().ok_or_else(|| {
                missing(
                    "--oidc-issuer",
                    "`aws eks describe-cluster --name CLUSTER --query cluster.identity.oidc.issuer --output text` says it",
                )
            })?;
            irsa_trust(streams, issuer, &account)
        }
        Trust::PodIdentity => pod_identity_trust(&account),
        Trust::EcsTask => ecs_task_trust(streams),
        Trust::Fargate => router_trust(streams),
        Trust::Firehose => delivery_trust(&args.account),
    };
    let default = match trust {
        Trust::Irsa | Trust::PodIdentity | Trust::EcsTask => "kubehose",
        Trust::Fargate => "kubehose-pod-execution",
        Trust::Firehose => "kubehose-delivery",
    };
    let role = args.role_name.as_ref().map_or(default, AsRef::as_ref);
    let arn = format!("arn:{}:iam::{}:role/{role}", streams.partition(), streams.account);
    let mut commands = vec![
        format!("aws iam create-role --role-name {role} --assume-role-policy-document file://trust.json"),
        format!(
            "aws iam put-role-policy --role-name {role} --policy-name kubehose --policy-document file://policy.json"
        ),
    ];
    match trust {
        Trust::PodIdentity => {
            let cluster = args
                .cluster
                .as_ref()
                .ok_or_else(|| missing("--cluster", "the association of role and service account names it"))?;
            commands.push(format!(
                "aws eks create-pod-identity-association --cluster-name {cluster} --namespace {} --service-account {} --role-arn {arn}",
                account.namespace, account.name
            ));
        }
        Trust::Irsa => commands.push(format!(
            "kubectl -n {} annotate serviceaccount {} eks.amazonaws.com/role-arn={arn}",
            account.namespace, account.name
        )),
        Trust::Fargate => commands.push(format!(
            "aws iam attach-role-policy --role-name {role} --policy-arn {}",
            delivery_stream::pod_execution_policy(streams)
        )),
        Trust::EcsTask | Trust::Firehose => {}
    }
    let of = if trust == Trust::Firehose { "`kubehose iam-policy --of delivery`" } else { "`kubehose iam-policy`" };
    note(&format!("With this as trust.json, and what {of} writes as policy.json:"));
    commands.iter().for_each(|command| note(&format!("  {command}")));
    note(&match trust {
        Trust::Irsa => format!("The manifest annotates it, too: --role-arn {arn}"),
        Trust::PodIdentity => {
            "The cluster needs the add-on eks-pod-identity-agent; the manifest needs no --role-arn".to_owned()
        }
        Trust::EcsTask => format!("The task role of the task definition: --role-arn {arn}"),
        Trust::Fargate => format!("The pod execution role of the Fargate profile: {arn}"),
        Trust::Firehose => format!("The role of the delivery stream: --role-arn {arn}"),
    });
    print(&verdict::json(&policy))
}

/// A service account of Kubernetes.
struct ServiceAccount<'a> {
    namespace: &'a Name,
    name: &'a Name,
}

/// Pods of one service account of one cluster
/// (<https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html>).
fn irsa_trust(streams: &Streams<'_>, issuer: &str, account: &ServiceAccount<'_>) -> Value {
    document(vec![json!({
        "Effect": "Allow",
        "Principal": {"Federated": format!("arn:{}:iam::{}:oidc-provider/{issuer}", streams.partition(), streams.account)},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            format!("{issuer}:aud"): "sts.amazonaws.com",
            format!("{issuer}:sub"): format!("system:serviceaccount:{}:{}", account.namespace, account.name)
        }}
    })])
}

/// Pods of one service account; which clusters, the associations say
/// (<https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html>).
fn pod_identity_trust(account: &ServiceAccount<'_>) -> Value {
    document(vec![json!({
        "Effect": "Allow",
        "Principal": {"Service": "pods.eks.amazonaws.com"},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
        "Condition": {"StringEquals": {
            "aws:RequestTag/kubernetes-namespace": account.namespace.to_string(),
            "aws:RequestTag/kubernetes-service-account": account.name.to_string()
        }}
    })])
}

/// Tasks of the account in the region
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html>).
fn ecs_task_trust(streams: &Streams<'_>) -> Value {
    document(vec![json!({
        "Effect": "Allow",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {
            "ArnLike": {"aws:SourceArn": format!("arn:{}:ecs:{}:{}:*", streams.partition(), streams.region, streams.account)},
            "StringEquals": {"aws:SourceAccount": streams.account.as_ref()}
        }
    })])
}

/// Delivery streams, as ARNs name them.
pub struct Streams<'a> {
    pub region: &'a Region,
    pub account: &'a Account,
    pub names: &'a [StreamName],
}

impl Streams<'_> {
    /// The streams' ARNs.
    pub fn arns(&self) -> Vec<String> {
        self.names.iter().map(|name| stream_arn(self.region, self.account, name)).collect()
    }

    /// The partition of every ARN around the streams.
    pub fn partition(&self) -> &'static str {
        self.region.partition()
    }
}

/// The log group where Firehose says why a delivery failed, named as the console names it.
pub fn log_group(stream: &str) -> String {
    format!("/aws/kinesisfirehose/{stream}")
}

fn document(statements: Vec<Value>) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// What the guide grants the pod execution role, and CloudWatch Logs where the router's own log goes there
/// (<https://docs.aws.amazon.com/eks/latest/userguide/fargate-logging.html>).
pub fn router(streams: &Streams<'_>, flb_log_cw: bool) -> Value {
    let mut statements = vec![json!({
        "Sid": "PutRecords",
        "Effect": "Allow",
        "Action": ["firehose:PutRecord", "firehose:PutRecordBatch"],
        "Resource": one_or_many(streams.arns())
    })];
    if flb_log_cw {
        // The router chooses the group's name, `<cluster>-fluent-bit-logs`.
        let groups = format!(
            "arn:{}:logs:{}:{}:log-group:*-fluent-bit-logs",
            streams.partition(),
            streams.region,
            streams.account
        );
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
pub fn router_trust(streams: &Streams<'_>) -> Value {
    document(vec![json!({
        "Effect": "Allow",
        "Principal": {"Service": "eks-fargate-pods.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnLike": {"aws:SourceArn": format!(
            "arn:{}:eks:{}:{}:fargateprofile/*", streams.partition(), streams.region, streams.account
        )}}
    })])
}

/// What Firehose does in the streams' name: failed records to S3, its log, the API key
/// (<https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html>).
pub fn delivery(streams: &Streams<'_>, bucket_arn: &str, secret_arn: Option<&str>) -> Value {
    let partition = streams.partition();
    let logs = streams.names.iter().map(|name| {
        let group = log_group(name.as_ref());
        format!("arn:{partition}:logs:{}:{}:log-group:{group}:log-stream:*", streams.region, streams.account)
    });
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
            "Resource": one_or_many(logs.collect())
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
