"""Prints what a moto server's bucket holds, one object after another. Arguments: the server's URL, the key's id, its secret."""

import sys

import boto3

url, key, secret = sys.argv[1:]
s3 = boto3.client(
    "s3", endpoint_url=url, region_name="eu-west-1", aws_access_key_id=key, aws_secret_access_key=secret
)
for page in s3.get_paginator("list_objects_v2").paginate(Bucket="records"):
    for entry in page.get("Contents", []):
        sys.stdout.buffer.write(s3.get_object(Bucket="records", Key=entry["Key"])["Body"].read())
