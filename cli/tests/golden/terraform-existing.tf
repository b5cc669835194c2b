terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.64"
    }
  }
}

provider "aws" {
  region = "eu-west-1"
}

resource "aws_cloudwatch_log_group" "delivery" {
  name              = "/aws/kinesisfirehose/logs"
  retention_in_days = 14
}

resource "aws_cloudwatch_log_stream" "delivery" {
  name           = "HttpEndpointDelivery"
  log_group_name = aws_cloudwatch_log_group.delivery.name
}

resource "aws_cloudwatch_log_stream" "backup" {
  name           = "BackupDelivery"
  log_group_name = aws_cloudwatch_log_group.delivery.name
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
      "Resource": "arn:aws:s3:::spare/*"
    },
    {
      "Sid": "FindTheBucket",
      "Effect": "Allow",
      "Action": [
        "s3:GetBucketLocation",
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads"
      ],
      "Resource": "arn:aws:s3:::spare"
    },
    {
      "Sid": "SayWhatFailed",
      "Effect": "Allow",
      "Action": [
        "logs:PutLogEvents"
      ],
      "Resource": "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/kinesisfirehose/logs:log-stream:*"
    },
    {
      "Sid": "ReadTheApiKey",
      "Effect": "Allow",
      "Action": [
        "secretsmanager:GetSecretValue"
      ],
      "Resource": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:datadog-AbCdEf"
    }
  ]
}
  JSON
}

resource "aws_kinesis_firehose_delivery_stream" "kubehose" {
  name        = "logs"
  destination = "http_endpoint"

  http_endpoint_configuration {
    url                = "https://aws-kinesis-http-intake.logs.datadoghq.eu/v1/input"
    name               = "Datadog"
    role_arn           = aws_iam_role.delivery.arn
    buffering_size     = 2
    buffering_interval = 60
    retry_duration     = 60
    s3_backup_mode     = "FailedDataOnly"

    secrets_manager_configuration {
      enabled    = true
      secret_arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:datadog-AbCdEf"
      role_arn   = aws_iam_role.delivery.arn
    }

    request_configuration {
      content_encoding = "GZIP"

      common_attributes {
        name  = "env"
        value = "prod"
      }
    }

    cloudwatch_logging_options {
      enabled         = true
      log_group_name  = aws_cloudwatch_log_group.delivery.name
      log_stream_name = aws_cloudwatch_log_stream.delivery.name
    }

    s3_configuration {
      role_arn            = aws_iam_role.delivery.arn
      bucket_arn          = "arn:aws:s3:::spare"
      prefix              = "failed/"
      error_output_prefix = "errors/"
      compression_format  = "GZIP"

      cloudwatch_logging_options {
        enabled         = true
        log_group_name  = aws_cloudwatch_log_group.delivery.name
        log_stream_name = aws_cloudwatch_log_stream.backup.name
      }
    }
  }

  depends_on = [aws_iam_role_policy.delivery]
}

resource "aws_iam_role_policy" "put_records" {
  name   = "kubehose"
  role   = "pods"
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
      "Resource": "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs"
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
