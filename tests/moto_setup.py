"""Prepares a moto server for tests/moto.rs: a user with a key, a bucket, a delivery stream into it; then turns the
signature check on. Also creates a role that may write to the stream, and a second user that may only assume it.
Prints the two keys' ids and secrets and the role's ARN, one per line. Arguments: the server's URL, the stream's name."""

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
records = """{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["firehose:PutRecordBatch", "s3:ListBucket", "s3:GetObject"], "Resource": "*"}]}"""
iam.put_user_policy(UserName="kubehose", PolicyName="records", PolicyDocument=records)

assumer = iam.create_user(UserName="assumer")["User"]["Arn"]
assume = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}"""
iam.put_user_policy(UserName="assumer", PolicyName="assume", PolicyDocument=assume)
trust = """{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "%s"},
     "Condition": {"StringEquals": {"sts:ExternalId": "id-1"}}}]}"""
role = iam.create_role(RoleName="logs", AssumeRolePolicyDocument=trust % assumer)["Role"]["Arn"]
iam.put_role_policy(RoleName="logs", PolicyName="records", PolicyDocument=records)
keys = [iam.create_access_key(UserName=user)["AccessKey"] for user in ("kubehose", "assumer")]

client("s3").create_bucket(Bucket="records", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
client("firehose").create_delivery_stream(
    DeliveryStreamName=stream,
    DeliveryStreamType="DirectPut",
    ExtendedS3DestinationConfiguration={
        "RoleARN": "arn:aws:iam::123456789012:role/firehose",
        "BucketARN": "arn:aws:s3:::records",
    },
)

# moto reads the raw body only when it is not a form.
off = urllib.request.Request(url + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
urllib.request.urlopen(off).read()
for key in keys:
    print(key["AccessKeyId"], key["SecretAccessKey"], sep="\n")
print(role)
