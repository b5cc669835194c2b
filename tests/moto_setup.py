"""Prepares a moto server for tests/moto.rs: a user with a key, a bucket, a delivery stream into it; then turns the
signature check on. Prints the key's id and secret, one to a line. Arguments: the server's URL, the stream's name."""

import sys
import urllib.request

import boto3

url, stream = sys.argv[1:]


def client(service):
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="setup",
        aws_secret_access_key="setup",
    )


iam = client("iam")
iam.create_user(UserName="kubehose")
policy = """{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["firehose:PutRecordBatch", "s3:ListBucket", "s3:GetObject"], "Resource": "*"}]}"""
iam.put_user_policy(UserName="kubehose", PolicyName="records", PolicyDocument=policy)
key = iam.create_access_key(UserName="kubehose")["AccessKey"]

client("s3").create_bucket(Bucket="records", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
client("firehose").create_delivery_stream(
    DeliveryStreamName=stream,
    DeliveryStreamType="DirectPut",
    ExtendedS3DestinationConfiguration={
        "RoleARN": "arn:aws:iam::123456789012:role/firehose",
        "BucketARN": "arn:aws:s3:::records",
    },
)

# moto takes the body as it is only when it is no form.
off = urllib.request.Request(url + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
urllib.request.urlopen(off).read()
print(key["AccessKeyId"], key["SecretAccessKey"], sep="\n")
