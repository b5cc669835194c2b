//! AWS's names, each checked once when it is read, and the ARNs made from them.

use std::fmt;

use kubehose::options::{is_region, is_stream_name};

/// The placeholders of Datadog's guide.
fn is_placeholder(text: &str) -> bool {
    text.contains(['<', '>', '{', '}', '$']) || text.starts_with("YOUR")
}

/// A name from a fixed alphabet; each constructor says which.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $type(String);

        impl $type {
            /// Checks `text` once; from here on it can stand in any file unquoted.
            pub fn new(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else if is_placeholder(text) {
                    Err(format!("that is a placeholder: put in {}", $what))
                } else {
                    Err(format!("expected {}", $what))
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// An AWS region.
    Region, is_region, "a region such as eu-west-1"
}

name! {
    /// A delivery stream's name, `[a-zA-Z0-9_.-]{1,64}`
    /// (<https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html>).
    StreamName, is_stream_name, "a delivery stream's name: 1 to 64 of a-z A-Z 0-9 _ . - (the name, not the ARN)"
}

name! {
    /// An account's number.
    Account, |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()), "an account's 12 digits"
}

name! {
    /// A bucket's name (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
    Bucket, is_bucket, "a bucket's name: 3 to 63 of a-z 0-9 . -, not its ARN or URL"
}

name! {
    /// A role's ARN.
    RoleArn, |text| is_arn(text, "iam", "role/"), "a role's ARN such as arn:aws:iam::123456789012:role/name"
}

name! {
    /// The ARN of a secret in Secrets Manager.
    SecretArn, |text| is_arn(text, "secretsmanager", "secret:"),
    "a secret's ARN such as arn:aws:secretsmanager:eu-west-1:123456789012:secret:name-AbCdEf"
}

name! {
    /// The ARN of a delivery stream.
    StreamArn, |text| is_arn(text, "firehose", "deliverystream/"),
    "a delivery stream's ARN such as arn:aws:firehose:eu-west-1:123456789012:deliverystream/name"
}

name! {
    /// The name of an IAM role, without its path.
    RoleName,
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b)),
    "a role's name: 1 to 64 of a-z A-Z 0-9 + = , . @ _ -"
}

name! {
    /// The name of an EKS cluster or of one of its Fargate profiles.
    EksName,
    |text| (1..=100).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
    "a name as EKS takes them: up to 100 of a-z A-Z 0-9 - _, a letter or digit first"
}

fn is_bucket(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&text.len())
        && text.starts_with(edge)
        && text.ends_with(edge)
        && !text.contains("..")
        && text.chars().all(|c| edge(c) || c == '.' || c == '-')
}

fn is_arn(text: &str, service: &str, resource: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    parts.len() == 6
        && parts[0] == "arn"
        && parts[1].starts_with("aws")
        && parts[2] == service
        && parts[4].len() == 12
        && parts[4].bytes().all(|b| b.is_ascii_digit())
        && parts[5].strip_prefix(resource).is_some_and(|rest| !rest.is_empty())
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'`\\<>{}$".contains(&b))
}

impl Region {
    /// The partition of a region, the second field of an ARN
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>).
    pub fn partition(&self) -> &'static str {
        match self.0.split('-').next() {
            Some("cn") => "aws-cn",
            Some("eusc") => "aws-eusc",
            Some("us") if self.0.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

impl Bucket {
    /// The bucket's ARN.
    pub fn arn(&self, region: &Region) -> String {
        format!("arn:{}:s3:::{self}", region.partition())
    }
}

/// The ARN of a delivery stream.
pub fn stream_arn(region: &Region, account: &Account, stream: &StreamName) -> String {
    format!("arn:{}:firehose:{region}:{account}:deliverystream/{stream}", region.partition())
}

/// The streams, each once, in their order.
pub fn each_once(streams: &[StreamName]) -> Vec<StreamName> {
    let mut once: Vec<StreamName> = Vec::new();
    for stream in streams {
        if !once.contains(stream) {
            once.push(stream.clone());
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_knows_its_partition() {
        for (region, partition) in
            [("eu-west-1", "aws"), ("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn"), ("us-east-1", "aws")]
        {
            assert_eq!(Region::new(region).unwrap().partition(), partition);
        }
    }

    #[test]
    fn a_placeholder_of_the_guide_is_called_one() {
        assert!(Region::new("<REGION>").unwrap_err().contains("placeholder"));
        assert!(StreamName::new("<YOUR-DELIVERY-STREAM-NAME>").unwrap_err().contains("placeholder"));
    }

    #[test]
    fn names_that_the_services_refuse_are_refused() {
        for region in ["", "west", "eu-west", "eu-west-", "EU-WEST-1", "eu west 1", "eu-west-1\n"] {
            assert!(Region::new(region).is_err(), "{region:?}");
        }
        for stream in ["", "a b", "arn:aws:firehose:eu-west-1:1:deliverystream/x", &"x".repeat(65)] {
            assert!(StreamName::new(stream).is_err(), "{stream:?}");
        }
        for bucket in ["ab", "Upper", "-a-b", "a..b", "s3://logs", "a_b_c"] {
            assert!(Bucket::new(bucket).is_err(), "{bucket:?}");
        }
        assert!(RoleArn::new("arn:aws:iam::123456789012:user/me").is_err());
        assert!(RoleArn::new("arn:aws:iam::123456789012:role/a\"b").is_err());
    }
}
