//! What Datadog knows: its sites with their Firehose intakes, and the names that it gives to Kubernetes' attributes.

use clap::ValueEnum;

/// The four remaps of the guide: the attribute that Fluent Bit writes, the name that Datadog knows.
pub use kubehose::record::remap::DATADOG as REMAPS;

/// The map that Fluent Bit's kubernetes filter writes its fields into.
pub const KUBERNETES: &str = "kubernetes";

/// The four remaps as (field of the `kubernetes` map, target).
pub fn kubernetes_fields() -> impl Iterator<Item = (&'static str, &'static str)> {
    REMAPS.into_iter().filter_map(|(source, target)| Some((source.strip_prefix("kubernetes.")?, target)))
}

/// The record key that carries the time. Datadog dates a log by the first of `@timestamp timestamp _timestamp …`; this
/// one is read, and the least likely to be in an application's own JSON, where it would stand twice
/// (<https://docs.datadoghq.com/logs/log_configuration/pipelines/?tab=date#date-attribute>).
pub const TIME_KEY: &str = "_timestamp";

/// ISO 8601 in UTC with milliseconds, as Datadog reads it. The output's default has neither zone nor milliseconds.
pub const TIME_KEY_FORMAT: &str = "%Y-%m-%dT%H:%M:%S.%3NZ";

/// A Datadog site (<https://docs.datadoghq.com/getting_started/site/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Site {
    Us1,
    Us3,
    Us5,
    Eu,
    Ap1,
    Ap2,
    Us1Fed,
}

impl Site {
    /// What Datadog calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Us1 => "US1",
            Self::Us3 => "US3",
            Self::Us5 => "US5",
            Self::Eu => "EU",
            Self::Ap1 => "AP1",
            Self::Ap2 => "AP2",
            Self::Us1Fed => "US1-FED",
        }
    }

    /// Where the logs of a delivery stream go
    /// (<https://docs.datadoghq.com/logs/guide/send-aws-services-logs-with-the-datadog-kinesis-firehose-destination/>).
    pub fn firehose_url(self) -> &'static str {
        match self {
            Self::Us1 => "https://aws-kinesis-http-intake.logs.datadoghq.com/v1/input",
            Self::Eu => "https://aws-kinesis-http-intake.logs.datadoghq.eu/v1/input",
            Self::Us1Fed => "https://aws-kinesis-http-intake.logs.ddog-gov.com/v1/input",
            Self::Us3 => {
                "https://aws-kinesis-http-intake.logs.us3.datadoghq.com/api/v2/logs?dd-protocol=aws-kinesis-firehose"
            }
            Self::Us5 => {
                "https://aws-kinesis-http-intake.logs.us5.datadoghq.com/api/v2/logs?dd-protocol=aws-kinesis-firehose"
            }
            Self::Ap1 => {
                "https://aws-kinesis-http-intake.logs.ap1.datadoghq.com/api/v2/logs?dd-protocol=aws-kinesis-firehose"
            }
            Self::Ap2 => {
                "https://aws-kinesis-http-intake.logs.ap2.datadoghq.com/api/v2/logs?dd-protocol=aws-kinesis-firehose"
            }
        }
    }

    /// Where the site's API answers.
    pub fn api_url(self) -> &'static str {
        match self {
            Self::Us1 => "https://api.datadoghq.com",
            Self::Eu => "https://api.datadoghq.eu",
            Self::Us1Fed => "https://api.ddog-gov.com",
            Self::Us3 => "https://api.us3.datadoghq.com",
            Self::Us5 => "https://api.us5.datadoghq.com",
            Self::Ap1 => "https://api.ap1.datadoghq.com",
            Self::Ap2 => "https://api.ap2.datadoghq.com",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remap_takes_a_field_of_the_kubernetes_map() {
        assert_eq!(kubernetes_fields().count(), REMAPS.len());
    }
}
