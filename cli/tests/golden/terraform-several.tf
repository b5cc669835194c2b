# Delivery streams "logs", "logs.shop", "logs-shop" in eu-west-1, account 123456789012. A module, or a file beside others; needs hashicorp/aws 5.64 or newer.
data "aws_region" "current" {}

variable "buffering_size" {
  description = "MiB at which what has gathered goes to Datadog, which takes 5 MB at a time"
  type        = number
  default     = 2

  validation {
    condition     = var.buffering_size >= 1 && var.buffering_size <= 4
    error_message = "Datadog answers 413 to more than 4 MiB."
  }
}

variable "buffering_interval" {
  description = "Seconds after which it goes before that"
  type        = number
  default     = 60
}

variable "retry_duration" {
  description = "Seconds for which Firehose tries again"
  type        = number
  default     = 60
}

variable "tags" {
  description = "Tags of what is made"
  type        = map(string)
  default     = {}
}

locals {
  delivery_streams = toset(["logs", "logs.shop", "logs-shop"])
}

moved {
  from = aws_cloudwatch_log_group.delivery
  to   = aws_cloudwatch_log_group.delivery["logs"]
}

moved {
  from = aws_cloudwatch_log_stream.delivery
  to   = aws_cloudwatch_log_stream.delivery["logs"]
}

moved {
  from = aws_cloudwatch_log_stream.backup
  to   = aws_cloudwatch_log_stream.backup["logs"]
}

moved {
  from = aws_kinesis_firehose_delivery_stream.kubehose
  to   = aws_kinesis_firehose_delivery_stream.kubehose["logs"]
}

resource "aws_s3_bucket" "failed" {
  bucket_prefix = "kubehose-failed-"
  tags          = var.tags

  # The bucket holds logs that exist nowhere else.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "failed" {
  bucket                  = aws_s3_bucket.failed.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

output "failed_records_bucket" {
  description = "Keeps what Datadog did not accept"
  value       = aws_s3_bucket.failed.id
}

variable "datadog_api_key" {
  description = "Datadog API key"
  type        = string
  sensitive   = true
}

resource "aws_secretsmanager_secret" "api_key" {
  name_prefix = "kubehose-datadog-api-key-"
  tags        = var.tags
}

resource "aws_secretsmanager_secret_version" "api_key" {
  secret_id     = aws_secretsmanager_secret.api_key.id
  secret_string = jsonencode({ api_key = var.datadog_api_key })
}

resource "aws_cloudwatch_log_group" "delivery" {
  for_each = local.delivery_streams

  name              = "/aws/kinesisfirehose/${each.key}"
  retention_in_days = 14
  tags              = var.tags
}

resource "aws_cloudwatch_log_stream" "delivery" {
  for_each = local.delivery_streams

  name           = "HttpEndpointDelivery"
  log_group_name = aws_cloudwatch_log_group.delivery[each.key].name
}

resource "aws_cloudwatch_log_stream" "backup" {
  for_each = local.delivery_streams

  name           = "BackupDelivery"
  log_group_name = aws_cloudwatch_log_group.delivery[each.key].name
}

resource "aws_iam_role" "delivery" {
  name_prefix        = "kubehose-delivery-"
  assume_role_policy = <<-JSON
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "Service": "firehose.amazonaws.com"
      },
      "Action": "sts:AssumeRole",
      "Condition": {
        "StringEquals": {
          "sts:ExternalId": "123456789012"
        }
      }
    }
  ]
}
  JSON
  tags               = var.tags
}

resource "aws_iam_role_policy" "delivery" {
  role   = aws_iam_role.delivery.id
  policy = <<-JSON
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "KeepWhatFailed",
      "Effect": "Allow",
      "Action": [
        "s3:AbortMultipartUpload",
        "s3:GetObject",
        "s3:PutObject"
      ],
      "Resource": "${aws_s3_bucket.failed.arn}/*"
    },
    {
      "Sid": "FindTheBucket",
      "Effect": "Allow",
      "Action": [
        "s3:GetBucketLocation",
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads"
      ],
      "Resource": "${aws_s3_bucket.failed.arn}"
    },
    {
      "Sid": "SayWhatFailed",
      "Effect": "Allow",
      "Action": [
        "logs:PutLogEvents"
      ],
      "Resource": [
        "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/kinesisfirehose/logs:log-stream:*",
        "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/kinesisfirehose/logs.shop:log-stream:*",
        "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/kinesisfirehose/logs-shop:log-stream:*"
      ]
    },
    {
      "Sid": "ReadTheApiKey",
      "Effect": "Allow",
      "Action": [
        "secretsmanager:GetSecretValue"
      ],
      "Resource": "${aws_secretsmanager_secret.api_key.arn}"
    }
  ]
}
  JSON
}

resource "aws_kinesis_firehose_delivery_stream" "kubehose" {
  for_each = local.delivery_streams

  name        = each.key
  destination = "http_endpoint"
  tags        = var.tags

  http_endpoint_configuration {
    url                = "https://aws-kinesis-http-intake.logs.datadoghq.eu/v1/input"
    name               = "Datadog"
    role_arn           = aws_iam_role.delivery.arn
    buffering_size     = var.buffering_size
    buffering_interval = var.buffering_interval
    retry_duration     = var.retry_duration
    s3_backup_mode     = "FailedDataOnly"

    secrets_manager_configuration {
      enabled    = true
      secret_arn = aws_secretsmanager_secret.api_key.arn
      role_arn   = aws_iam_role.delivery.arn
    }

    request_configuration {
      content_encoding = "GZIP"
    }

    cloudwatch_logging_options {
      enabled         = true
      log_group_name  = aws_cloudwatch_log_group.delivery[each.key].name
      log_stream_name = aws_cloudwatch_log_stream.delivery[each.key].name
    }

    s3_configuration {
      role_arn            = aws_iam_role.delivery.arn
      bucket_arn          = aws_s3_bucket.failed.arn
      prefix              = "failed/"
      error_output_prefix = "errors/"
      compression_format  = "GZIP"

      cloudwatch_logging_options {
        enabled         = true
        log_group_name  = aws_cloudwatch_log_group.delivery[each.key].name
        log_stream_name = aws_cloudwatch_log_stream.backup[each.key].name
      }
    }
  }

  lifecycle {
    precondition {
      condition     = data.aws_region.current.id == "eu-west-1"
      error_message = "The policies are for a stream in eu-west-1: give this module a provider of that region."
    }
  }

  depends_on = [aws_iam_role_policy.delivery, aws_secretsmanager_secret_version.api_key]
}

output "delivery_stream_arns" {
  description = "By the streams' names"
  value       = { for name, stream in aws_kinesis_firehose_delivery_stream.kubehose : name => stream.arn }
}

output "put_records_policy" {
  description = "What a router's role must be allowed"
  value       = <<-JSON
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "PutRecords",
      "Effect": "Allow",
      "Action": [
        "firehose:PutRecord",
        "firehose:PutRecordBatch"
      ],
      "Resource": [
        "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs",
        "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs.shop",
        "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs-shop"
      ]
    },
    {
      "Sid": "OwnLog",
      "Effect": "Allow",
      "Action": [
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
        "logs:PutRetentionPolicy"
      ],
      "Resource": [
        "arn:aws:logs:eu-west-1:123456789012:log-group:*-fluent-bit-logs",
        "arn:aws:logs:eu-west-1:123456789012:log-group:*-fluent-bit-logs:log-stream:*"
      ]
    }
  ]
}
  JSON
}

resource "aws_iam_role" "pod_execution" {
  name_prefix        = "kubehose-pods-"
  assume_role_policy = <<-JSON
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "Service": "eks-fargate-pods.amazonaws.com"
      },
      "Action": "sts:AssumeRole",
      "Condition": {
        "ArnLike": {
          "aws:SourceArn": "arn:aws:eks:eu-west-1:123456789012:fargateprofile/*"
        }
      }
    }
  ]
}
  JSON
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "pod_execution" {
  role       = aws_iam_role.pod_execution.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSFargatePodExecutionRolePolicy"
}

resource "aws_iam_role_policy" "put_records" {
  name   = "kubehose"
  role   = aws_iam_role.pod_execution.id
  policy = <<-JSON
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "PutRecords",
      "Effect": "Allow",
      "Action": [
        "firehose:PutRecord",
        "firehose:PutRecordBatch"
      ],
      "Resource": [
        "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs",
        "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs.shop",
        "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs-shop"
      ]
    },
    {
      "Sid": "OwnLog",
      "Effect": "Allow",
      "Action": [
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
        "logs:PutRetentionPolicy"
      ],
      "Resource": [
        "arn:aws:logs:eu-west-1:123456789012:log-group:*-fluent-bit-logs",
        "arn:aws:logs:eu-west-1:123456789012:log-group:*-fluent-bit-logs:log-stream:*"
      ]
    }
  ]
}
  JSON
}

output "pod_execution_role_arn" {
  description = "For the Fargate profile"
  value       = aws_iam_role.pod_execution.arn
}
