//! `kubehose delivery-stream`: Direct PUT → Datadog, with S3 for records that Datadog did not accept.
//!
//! Vendors' pages: <https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html>,
//! <https://docs.datadoghq.com/logs/guide/send-aws-services-logs-with-the-datadog-kinesis-firehose-destination/>.
//! The API key is never written: the stream reads it from Secrets Manager.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Map, Value, json};

use crate::aws::{self, Account, Bucket, Region, RoleArn, RoleName, SecretArn, StreamName};
use crate::datadog::Site;
use crate::iam_policy::{self, Streams, log_group};
use crate::pipeline::hcl;
use crate::verdict::{self, Failure, Outcome, note, print};

/// Write the delivery stream to Datadog, or several, with their roles, policies, log groups and bucket.
#[derive(ClapArgs)]
#[command(after_help = "Examples:
  kubehose delivery-stream --site eu --region eu-west-1 --account 123456789012 --delivery-stream logs \\
    --format cloudformation > stream.json
  kubehose delivery-stream --site us1 --region us-east-1 --account 123456789012 --delivery-stream logs --bucket spare \\
    --role-arn arn:aws:iam::123456789012:role/logs-delivery \\
    --secret-arn arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-AbCdEf > stream.json
  aws firehose create-delivery-stream --cli-input-json file://stream.json
  kubehose delivery-stream --site eu --region eu-west-1 --account 123456789012 --delivery-stream logs,logs-shop,logs-pay \\
    --format terraform > streams.tf")]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Input of `aws firehose create-delivery-stream`, a template, or resources
    #[arg(long, value_enum, default_value_t = Format::Cli)]
    format: Format,
    /// Role that Firehose assumes [cli: required]
    #[arg(long, value_name = "ARN", value_parser = RoleArn::new)]
    role_arn: Option<RoleArn>,
    /// Existing pod execution role that is allowed to put records; without it one is created [cloudformation, terraform]
    #[arg(long, value_name = "NAME", value_parser = RoleName::new)]
    pod_execution_role: Option<RoleName>,
    /// Neither create nor change a pod execution role [cloudformation, terraform]
    #[arg(long, conflicts_with = "pod_execution_role")]
    no_pod_execution_role: bool,
    /// The router also writes its own log to CloudWatch, so allow this to the pod execution role [cloudformation, terraform]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    flb_log_cw: bool,
}

/// How the stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Cli,
    Cloudformation,
    Terraform,
}

/// What Datadog recommends for the stream.
pub const BUFFER_SECONDS: u32 = 60;
/// The recommended size, in MiB.
pub const BUFFER_MIB: u32 = 2;
/// The sizes that Datadog accepts: its intake answers 413 to payloads of more than 5 MB uncompressed, and Firehose then writes them
/// to S3 (<https://docs.datadoghq.com/api/latest/logs/#send-logs>). AWS allows up to 64 MiB.
const MIN_BUFFER_MIB: u32 = 1;
const MAX_BUFFER_MIB: u32 = 4;
/// How long Firehose retries, in seconds.
pub const RETRY_SECONDS: u32 = 60;

/// Which stream.
#[derive(ClapArgs, Clone, Debug)]
pub struct Settings {
    /// Datadog site that receives the logs
    #[arg(long)]
    pub site: Site,
    /// Region of the delivery stream
    #[arg(long, env = "AWS_REGION", value_parser = Region::new)]
    pub region: Region,
    /// Account of the delivery stream
    #[arg(long, value_name = "DIGITS", value_parser = Account::new)]
    pub account: Account,
    /// Name of the delivery stream, or of several, which share their role, bucket and secret
    #[arg(long = "delivery-stream", required = true, value_name = "NAME", value_delimiter = ',', value_parser = StreamName::new)]
    pub delivery_streams: Vec<StreamName>,
    /// Existing bucket for records that Datadog did not accept; without it one is created [cli: required]
    #[arg(long, value_name = "NAME", value_parser = Bucket::new)]
    pub bucket: Option<Bucket>,
    /// Existing secret {"api_key": "…"}; without it one is created from a parameter [cli: required]
    #[arg(long, value_name = "ARN", value_parser = SecretArn::new)]
    pub secret_arn: Option<SecretArn>,
    /// Seconds after which collected records are sent to Datadog
    #[arg(long, value_name = "SECONDS", default_value_t = BUFFER_SECONDS, value_parser = clap::value_parser!(u32).range(0..=900))]
    pub buffer_seconds: u32,
    /// MiB at which they are sent earlier: 1 to 4, because Datadog accepts 5 MB at a time
    #[arg(long, value_name = "MIB", default_value_t = BUFFER_MIB, value_parser = buffer_mib)]
    pub buffer_mib: u32,
    /// Seconds for which Firehose retries
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_SECONDS, value_parser = clap::value_parser!(u32).range(0..=7200))]
    pub retry_seconds: u32,
    /// Attribute added to every log of the stream; `service` and `source` change what the pipeline's filter matches
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    pub attributes: Vec<(String, String)>,
}

/// What the template does about the pod execution role.
#[derive(Clone, Copy, Debug)]
pub enum PodRole<'a> {
    Make,
    Grant(&'a RoleName),
    Leave,
}

fn buffer_mib(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(mib) if (MIN_BUFFER_MIB..=MAX_BUFFER_MIB).contains(&mib) => Ok(mib),
        _ => Err(format!(
            "expected {MIN_BUFFER_MIB} to {MAX_BUFFER_MIB}: Datadog answers 413 to more than 5 MB, and the logs end in S3"
        )),
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value))
            if (1..=256).contains(&name.len()) && value.len() <= 1024 && !text.chars().any(char::is_control) =>
        {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE of up to 256 and 1024 characters".to_owned()),
    }
}

/// Runs `kubehose delivery-stream`.
pub fn run(args: &Args) -> Outcome {
    let settings =
        &Settings { delivery_streams: aws::each_once(&args.settings.delivery_streams), ..args.settings.clone() };
    let pod_role = match (&args.pod_execution_role, args.no_pod_execution_role) {
        (Some(name), _) => PodRole::Grant(name),
        (None, true) => PodRole::Leave,
        (None, false) => PodRole::Make,
    };
    match args.format {
        Format::Cli => {
            let missing = |flag: &str, what: &str| Failure::new(format!("{flag} is missing: --format cli {what}"));
            let role = args.role_arn.as_ref().ok_or_else(|| {
                missing(
                    "--role-arn",
                    "writes the stream alone, so it needs the role made of `kubehose iam-policy --of delivery`",
                )
            })?;
            let bucket = settings
                .bucket
                .as_ref()
                .ok_or_else(|| missing("--bucket", "writes the stream alone, so it needs a bucket"))?;
            let secret = settings.secret_arn.as_ref().ok_or_else(|| {
                missing(
                    "--secret-arn",
                    "needs a secret {\"api_key\": \"…\"} in Secrets Manager, because the key itself is not written",
                )
            })?;
            let parts = Parts { role: role.as_ref(), bucket: &bucket.arn(&settings.region), secret: secret.as_ref() };
            match settings.delivery_streams.as_slice() {
                [stream] => print(&verdict::json(&create_input(settings, stream, &parts))),
                streams => {
                    note("a stream a line: | while IFS= read -r stream; do");
                    note("  aws firehose create-delivery-stream --cli-input-json \"$stream\" </dev/null; done");
                    let line = |stream| format!("{}\n", create_input(settings, stream, &parts));
                    print(&streams.iter().map(line).collect::<String>())
                }
            }
        }
        Format::Cloudformation => print(&template_file(&cloudformation(settings, pod_role, args.flb_log_cw))),
        Format::Terraform => print(&terraform(settings, pod_role, args.flb_log_cw)),
    }
}

impl Settings {
    fn streams(&self) -> Streams<'_> {
        Streams { region: &self.region, account: &self.account, names: &self.delivery_streams }
    }
}

/// The ARNs that the stream refers to, or references to them in a template.
struct Parts<'a> {
    role: &'a str,
    bucket: &'a str,
    secret: &'a str,
}

/// Streams of Firehose's own log, one for each place that it delivers to.
const DELIVERY_LOG: &str = "HttpEndpointDelivery";
const BACKUP_LOG: &str = "BackupDelivery";

/// Input of CreateDeliveryStream.
fn create_input(settings: &Settings, stream: &StreamName, parts: &Parts<'_>) -> Value {
    let group = log_group(stream.as_ref());
    let log = |stream: &str| json!({"Enabled": true, "LogGroupName": group, "LogStreamName": stream});
    let attributes: Vec<Value> = settings
        .attributes
        .iter()
        .map(|(name, value)| json!({"AttributeName": name, "AttributeValue": value}))
        .collect();
    let mut request = json!({"ContentEncoding": "GZIP"});
    if !attributes.is_empty() {
        request["CommonAttributes"] = Value::Array(attributes);
    }
    json!({
        "DeliveryStreamName": stream.as_ref(),
        "DeliveryStreamType": "DirectPut",
        "HttpEndpointDestinationConfiguration": {
            "EndpointConfiguration": {"Url": settings.site.firehose_url(), "Name": "Datadog"},
            "SecretsManagerConfiguration": {"Enabled": true, "SecretARN": parts.secret, "RoleARN": parts.role},
            "BufferingHints": {"SizeInMBs": settings.buffer_mib, "IntervalInSeconds": settings.buffer_seconds},
            "RequestConfiguration": request,
            "RetryOptions": {"DurationInSeconds": settings.retry_seconds},
            "CloudWatchLoggingOptions": log(DELIVERY_LOG),
            "RoleARN": parts.role,
            "S3BackupMode": "FailedDataOnly",
            "S3Configuration": {
                "RoleARN": parts.role,
                "BucketARN": parts.bucket,
                "Prefix": "failed/",
                "ErrorOutputPrefix": "errors/",
                "CompressionFormat": "GZIP",
                "CloudWatchLoggingOptions": log(BACKUP_LOG)
            }
        }
    })
}

/// AWS's own policy for pulling images and the like.
pub fn pod_execution_policy(streams: &Streams<'_>) -> String {
    format!("arn:{}:iam::aws:policy/AmazonEKSFargatePodExecutionRolePolicy", streams.partition())
}

/// Every string with `${…}` in it becomes a substitution.
fn substitute(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains("${") => json!({"Fn::Sub": text}),
        Value::Array(items) => items.into_iter().map(substitute).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, substitute(value))).collect(),
        other => other,
    }
}

/// The streams in a sentence, however many there are.
fn named(settings: &Settings) -> String {
    match settings.delivery_streams.as_slice() {
        [stream] => format!("stream {stream}"),
        [stream, others @ ..] => format!("stream {stream} and {} more", others.len()),
        [] => String::new(),
    }
}

/// What ends the names of a stream's resources: nothing for the first, so that a template of it alone can get others.
fn ids(streams: &[StreamName]) -> Vec<String> {
    let mut ids = vec![String::new()];
    for stream in streams.iter().skip(1) {
        let words = stream.as_ref().split(|c: char| !c.is_ascii_alphanumeric());
        let words = words.filter_map(|word| word.split_at_checked(1));
        let name: String = words.map(|(first, rest)| first.to_ascii_uppercase() + rest).collect();
        let mut id = format!("Of{name}");
        // `a-b` and `a.b`, or signs alone.
        while ids.contains(&id) {
            id.push('X');
        }
        ids.push(id);
    }
    ids
}

/// The most bytes of a template that goes without a bucket
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html>).
const MAX_TEMPLATE: usize = 51_200;

/// The template as a file: as people read it, where CloudFormation takes as much.
pub fn template_file(template: &Value) -> String {
    let text = verdict::json(template);
    if text.len() <= MAX_TEMPLATE {
        return text;
    }
    let narrow = format!("{template}\n");
    if narrow.len() > MAX_TEMPLATE {
        note(&format!(
            "the template has {} bytes: over {MAX_TEMPLATE} `aws cloudformation deploy` needs --s3-bucket",
            narrow.len()
        ));
    }
    narrow
}

/// A CloudFormation template
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-kinesisfirehose-deliverystream.html>).
pub fn cloudformation(settings: &Settings, pod_role: PodRole<'_>, flb_log_cw: bool) -> Value {
    let streams = settings.streams();
    let mut parameters = Map::new();
    let mut resources = Map::new();
    let mut outputs = Map::new();

    let bucket = match &settings.bucket {
        Some(bucket) => bucket.arn(&settings.region),
        None => {
            resources.insert(
                "FailedRecords".to_owned(),
                json!({
                    "Type": "AWS::S3::Bucket",
                    // The bucket holds logs that exist nowhere else.
                    "DeletionPolicy": "Retain",
                    "UpdateReplacePolicy": "Retain",
                    "Properties": {
                        "PublicAccessBlockConfiguration": {
                            "BlockPublicAcls": true,
                            "BlockPublicPolicy": true,
                            "IgnorePublicAcls": true,
                            "RestrictPublicBuckets": true
                        }
                    }
                }),
            );
            outputs.insert("FailedRecordsBucket".to_owned(), json!({"Value": {"Ref": "FailedRecords"}}));
            "${FailedRecords.Arn}".to_owned()
        }
    };
    let secret = match &settings.secret_arn {
        Some(secret) => secret.to_string(),
        None => {
            parameters.insert(
                "DatadogApiKey".to_owned(),
                json!({"Type": "String", "NoEcho": true, "MinLength": 32, "Description": "Datadog API key"}),
            );
            resources.insert(
                "ApiKey".to_owned(),
                json!({
                    "Type": "AWS::SecretsManager::Secret",
                    "DeletionPolicy": "Delete",
                    "UpdateReplacePolicy": "Delete",
                    "Properties": {
                        "Description": format!("Datadog API key of the delivery {}", named(settings)),
                        "SecretString": "{\"api_key\":\"${DatadogApiKey}\"}"
                    }
                }),
            );
            "${ApiKey}".to_owned()
        }
    };
    let ids = ids(&settings.delivery_streams);
    for (stream, id) in settings.delivery_streams.iter().zip(&ids) {
        let group = format!("DeliveryLog{id}");
        resources.insert(
            group.clone(),
            json!({
                "Type": "AWS::Logs::LogGroup",
                "DeletionPolicy": "Delete",
                "UpdateReplacePolicy": "Delete",
                "Properties": {"LogGroupName": log_group(stream.as_ref()), "RetentionInDays": 14}
            }),
        );
        for (kind, name) in [("DeliveryLogStream", DELIVERY_LOG), ("BackupLogStream", BACKUP_LOG)] {
            resources.insert(
                format!("{kind}{id}"),
                json!({
                    "Type": "AWS::Logs::LogStream",
                    "Properties": {"LogGroupName": {"Ref": group}, "LogStreamName": name}
                }),
            );
        }
    }
    resources.insert(
        "DeliveryRole".to_owned(),
        json!({
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": iam_policy::delivery_trust(streams.account),
                "Policies": [{
                    "PolicyName": "deliver",
                    "PolicyDocument": iam_policy::delivery(&streams, &bucket, Some(&secret))
                }]
            }
        }),
    );
    let parts = Parts { role: "${DeliveryRole.Arn}", bucket: &bucket, secret: &secret };
    for (stream, id) in settings.delivery_streams.iter().zip(&ids) {
        resources.insert(
            format!("DeliveryStream{id}"),
            json!({
                "Type": "AWS::KinesisFirehose::DeliveryStream",
                "DependsOn": [format!("DeliveryLogStream{id}"), format!("BackupLogStream{id}")],
                "Properties": create_input(settings, stream, &parts)
            }),
        );
        outputs.insert(format!("DeliveryStreamArn{id}"), json!({"Value": format!("${{DeliveryStream{id}.Arn}}")}));
    }

    let put_records = iam_policy::router(&streams, flb_log_cw);
    match pod_role {
        PodRole::Leave => {}
        PodRole::Grant(role) => {
            resources.insert(
                "PutRecords".to_owned(),
                json!({
                    "Type": "AWS::IAM::RolePolicy",
                    "Properties": {"RoleName": role.as_ref(), "PolicyName": "kubehose", "PolicyDocument": put_records}
                }),
            );
        }
        PodRole::Make => {
            resources.insert(
                "PodExecutionRole".to_owned(),
                json!({
                    "Type": "AWS::IAM::Role",
                    "Properties": {
                        "AssumeRolePolicyDocument": iam_policy::router_trust(&streams),
                        "ManagedPolicyArns": [pod_execution_policy(&streams)],
                        "Policies": [{"PolicyName": "kubehose", "PolicyDocument": put_records}]
                    }
                }),
            );
            outputs.insert(
                "PodExecutionRoleArn".to_owned(),
                json!({"Description": "For the Fargate profile", "Value": "${PodExecutionRole.Arn}"}),
            );
        }
    }

    let mut template = Map::new();
    template.insert("AWSTemplateFormatVersion".to_owned(), json!("2010-09-09"));
    template.insert(
        "Description".to_owned(),
        json!(format!("Logs of EKS Fargate to Datadog: {}", named(settings).trim_start_matches("stream "))),
    );
    if !parameters.is_empty() {
        template.insert("Parameters".to_owned(), Value::Object(parameters));
    }
    template.insert("Resources".to_owned(), substitute(Value::Object(resources)));
    template.insert("Outputs".to_owned(), substitute(Value::Object(outputs)));
    Value::Object(template)
}

/// `value` as a heredoc of Terraform's, in which `${…}` is a reference.
fn heredoc(value: &Value) -> String {
    format!("<<-JSON\n{value:#}\n  JSON")
}

/// A reference `${…}`, or a text, as an expression of Terraform's.
fn expression(text: &str) -> String {
    match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(reference) => reference.to_owned(),
        None => hcl(text),
    }
}

/// The resources that each stream has of its own.
const OF_EACH_STREAM: [&str; 4] = [
    "aws_cloudwatch_log_group.delivery",
    "aws_cloudwatch_log_stream.delivery",
    "aws_cloudwatch_log_stream.backup",
    "aws_kinesis_firehose_delivery_stream.kubehose",
];

const OUTPUTS_OF_ONE: &str = "output \"delivery_stream_arn\" {
  value = aws_kinesis_firehose_delivery_stream.kubehose.arn
}

output \"delivery_stream_name\" {
  description = \"delivery_stream of the output\"
  value       = aws_kinesis_firehose_delivery_stream.kubehose.name
}

";

const OUTPUTS_OF_SEVERAL: &str = "output \"delivery_stream_arns\" {
  description = \"By the streams' names\"
  value       = { for name, stream in aws_kinesis_firehose_delivery_stream.kubehose : name => stream.arn }
}

";

/// Terraform's resources
/// (<https://registry.terraform.io/providers/hashicorp/aws/latest/docs/resources/kinesis_firehose_delivery_stream>).
pub fn terraform(settings: &Settings, pod_role: PodRole<'_>, flb_log_cw: bool) -> String {
    let streams = settings.streams();
    let names: Vec<String> = settings.delivery_streams.iter().map(|stream| hcl(stream.as_ref())).collect();
    let several = names.len() > 1;
    // Of several streams each resource stands there once, for each of them.
    let (for_each, each) = if several { ("  for_each = local.delivery_streams\n\n", "[each.key]") } else { ("", "") };
    let name = if several { "each.key".to_owned() } else { names.concat() };
    let group = if several {
        format!("\"{}\"", log_group("${each.key}"))
    } else {
        hcl(&log_group(settings.delivery_streams[0].as_ref()))
    };
    let mut depends_on = vec!["aws_iam_role_policy.delivery"];
    // No provider and no required_providers: a module has them from its caller, and a folder may have one of the latter.
    let mut text = format!(
        "# Delivery stream{s} {all} in {region}, account {account}. A module, or a file beside others; needs hashicorp/aws 5.64 or newer.
data \"aws_region\" \"current\" {{}}

variable \"buffering_size\" {{
  description = \"MiB at which what has gathered goes to Datadog, which takes 5 MB at a time\"
  type        = number
  default     = {mib}

  validation {{
    condition     = var.buffering_size >= {MIN_BUFFER_MIB} && var.buffering_size <= {MAX_BUFFER_MIB}
    error_message = \"Datadog answers 413 to more than {MAX_BUFFER_MIB} MiB.\"
  }}
}}

variable \"buffering_interval\" {{
  description = \"Seconds after which it goes before that\"
  type        = number
  default     = {seconds}
}}

variable \"retry_duration\" {{
  description = \"Seconds for which Firehose tries again\"
  type        = number
  default     = {retry}
}}

variable \"tags\" {{
  description = \"Tags of what is made\"
  type        = map(string)
  default     = {{}}
}}
",
        s = if several { "s" } else { "" },
        all = names.join(", "),
        region = streams.region,
        account = streams.account,
        mib = settings.buffer_mib,
        seconds = settings.buffer_seconds,
        retry = settings.retry_seconds,
    );
    if several {
        text.push_str(&format!("\nlocals {{\n  delivery_streams = toset([{}])\n}}\n", names.join(", ")));
        // A state with the first stream alone keeps it.
        for address in OF_EACH_STREAM {
            text.push_str(&format!("\nmoved {{\n  from = {address}\n  to   = {address}[{}]\n}}\n", names[0]));
        }
    }
    let bucket = match &settings.bucket {
        Some(bucket) => bucket.arn(&settings.region),
        None => {
            text.push_str(
                "
resource \"aws_s3_bucket\" \"failed\" {
  bucket_prefix = \"kubehose-failed-\"
  tags          = var.tags

  # The bucket holds logs that exist nowhere else.
  lifecycle {
    prevent_destroy = true
  }
}

resource \"aws_s3_bucket_public_access_block\" \"failed\" {
  bucket                  = aws_s3_bucket.failed.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

output \"failed_records_bucket\" {
  description = \"Keeps what Datadog did not accept\"
  value       = aws_s3_bucket.failed.id
}
",
            );
            "${aws_s3_bucket.failed.arn}".to_owned()
        }
    };
    let put_records = heredoc(&iam_policy::router(&streams, flb_log_cw));
    let secret = match &settings.secret_arn {
        Some(secret) => secret.to_string(),
        None => {
            // The stream reads the value when it is made, and a secret without one fails it.
            depends_on.push("aws_secretsmanager_secret_version.api_key");
            text.push_str(
                "
variable \"datadog_api_key\" {
  description = \"Datadog API key\"
  type        = string
  sensitive   = true
}

resource \"aws_secretsmanager_secret\" \"api_key\" {
  name_prefix = \"kubehose-datadog-api-key-\"
  tags        = var.tags
}

resource \"aws_secretsmanager_secret_version\" \"api_key\" {
  secret_id     = aws_secretsmanager_secret.api_key.id
  secret_string = jsonencode({ api_key = var.datadog_api_key })
}
",
            );
            "${aws_secretsmanager_secret.api_key.arn}".to_owned()
        }
    };
    let common: String = settings
        .attributes
        .iter()
        .map(|(name, value)| {
            format!(
                "
      common_attributes {{
        name  = {}
        value = {}
      }}
",
                hcl(name),
                hcl(value)
            )
        })
        .collect();
    text.push_str(&format!(
        "
resource \"aws_cloudwatch_log_group\" \"delivery\" {{
{for_each}  name              = {group}
  retention_in_days = 14
  tags              = var.tags
}}

resource \"aws_cloudwatch_log_stream\" \"delivery\" {{
{for_each}  name           = \"{DELIVERY_LOG}\"
  log_group_name = aws_cloudwatch_log_group.delivery{each}.name
}}

resource \"aws_cloudwatch_log_stream\" \"backup\" {{
{for_each}  name           = \"{BACKUP_LOG}\"
  log_group_name = aws_cloudwatch_log_group.delivery{each}.name
}}

resource \"aws_iam_role\" \"delivery\" {{
  name_prefix        = \"kubehose-delivery-\"
  assume_role_policy = {trust}
  tags               = var.tags
}}

resource \"aws_iam_role_policy\" \"delivery\" {{
  role   = aws_iam_role.delivery.id
  policy = {policy}
}}

resource \"aws_kinesis_firehose_delivery_stream\" \"kubehose\" {{
{for_each}  name        = {name}
  destination = \"http_endpoint\"
  tags        = var.tags

  http_endpoint_configuration {{
    url                = {url}
    name               = \"Datadog\"
    role_arn           = aws_iam_role.delivery.arn
    buffering_size     = var.buffering_size
    buffering_interval = var.buffering_interval
    retry_duration     = var.retry_duration
    s3_backup_mode     = \"FailedDataOnly\"

    secrets_manager_configuration {{
      enabled    = true
      secret_arn = {secret}
      role_arn   = aws_iam_role.delivery.arn
    }}

    request_configuration {{
      content_encoding = \"GZIP\"
{common}    }}

    cloudwatch_logging_options {{
      enabled         = true
      log_group_name  = aws_cloudwatch_log_group.delivery{each}.name
      log_stream_name = aws_cloudwatch_log_stream.delivery{each}.name
    }}

    s3_configuration {{
      role_arn            = aws_iam_role.delivery.arn
      bucket_arn          = {bucket}
      prefix              = \"failed/\"
      error_output_prefix = \"errors/\"
      compression_format  = \"GZIP\"

      cloudwatch_logging_options {{
        enabled         = true
        log_group_name  = aws_cloudwatch_log_group.delivery{each}.name
        log_stream_name = aws_cloudwatch_log_stream.backup{each}.name
      }}
    }}
  }}

  lifecycle {{
    precondition {{
      condition     = data.aws_region.current.id == {region}
      error_message = \"The policies are for a stream in {region_name}: give this module a provider of that region.\"
    }}
  }}

  depends_on = [{depends_on}]
}}

{outputs}output \"put_records_policy\" {{
  description = \"What a router's role must be allowed\"
  value       = {put_records}
}}
",
        region = hcl(streams.region.as_ref()),
        region_name = streams.region,
        outputs = if several { OUTPUTS_OF_SEVERAL } else { OUTPUTS_OF_ONE },
        depends_on = depends_on.join(", "),
        trust = heredoc(&iam_policy::delivery_trust(streams.account)),
        policy = heredoc(&iam_policy::delivery(&streams, &bucket, Some(&secret))),
        url = hcl(settings.site.firehose_url()),
        secret = expression(&secret),
        bucket = expression(&bucket),
    ));
    match pod_role {
        PodRole::Leave => {}
        PodRole::Grant(role) => text.push_str(&format!(
            "
resource \"aws_iam_role_policy\" \"put_records\" {{
  name   = \"kubehose\"
  role   = {}
  policy = {put_records}
}}
",
            hcl(role.as_ref())
        )),
        PodRole::Make => text.push_str(&format!(
            "
resource \"aws_iam_role\" \"pod_execution\" {{
  name_prefix        = \"kubehose-pods-\"
  assume_role_policy = {}
  tags               = var.tags
}}

resource \"aws_iam_role_policy_attachment\" \"pod_execution\" {{
  role       = aws_iam_role.pod_execution.name
  policy_arn = {}
}}

resource \"aws_iam_role_policy\" \"put_records\" {{
  name   = \"kubehose\"
  role   = aws_iam_role.pod_execution.id
  policy = {put_records}
}}

output \"pod_execution_role_arn\" {{
  description = \"For the Fargate profile\"
  value       = aws_iam_role.pod_execution.arn
}}
",
            heredoc(&iam_policy::router_trust(&streams)),
            hcl(&pod_execution_policy(&streams))
        )),
    }
    text
}
