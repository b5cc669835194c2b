//! Datadog's sites with their Firehose intakes, and its names for Kubernetes' attributes.

use clap::builder::TypedValueParser;

/// The four remaps of the guide: the attribute that Fluent Bit writes, the name that Datadog expects.
pub use kubehose::record::remap::DATADOG as REMAPS;

/// The map that Fluent Bit's kubernetes filter writes its fields into.
pub const KUBERNETES: &str = "kubernetes";

/// The four remaps as (field of the `kubernetes` map, target).
pub fn kubernetes_fields() -> impl Iterator<Item = (&'static str, &'static str)> {
    REMAPS.into_iter().filter_map(|(source, target)| Some((source.strip_prefix("kubernetes.")?, target)))
}

/// The record key for the time. Datadog uses the first of `@timestamp timestamp _timestamp …`; this
/// one is the least likely to be in an application's own JSON, where it would be repeated
/// (<https://docs.datadoghq.com/logs/log_configuration/pipelines/?tab=date#date-attribute>).
pub const TIME_KEY: &str = "_timestamp";

/// ISO 8601 in UTC with milliseconds, as Datadog reads it. The output's default has neither zone nor milliseconds.
pub const TIME_KEY_FORMAT: &str = "%Y-%m-%dT%H:%M:%S.%3NZ";

/// A Datadog site (<https://docs.datadoghq.com/getting_started/site/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Site {
    Us1,
    Us3,
    Us5,
    Eu,
    Ap1,
    Ap2,
    Uk1,
    Us1Fed,
}

impl Site {
    /// Every site that has an intake for Firehose.
    const ALL: [Self; 8] = [Self::Us1, Self::Us3, Self::Us5, Self::Eu, Self::Ap1, Self::Ap2, Self::Uk1, Self::Us1Fed];

    /// Reads a site in any of its spellings: EU, eu1, datadoghq.eu, https://app.datadoghq.eu/logs.
    pub fn new(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let host = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
        let host = host.split(['/', ':', '?']).next().unwrap_or_default();
        let host = ["app.", "api.", "www."].into_iter().find_map(|start| host.strip_prefix(start)).unwrap_or(host);
        let name = host.replace(['_', ' '], "-");
        let found = Self::ALL
            .into_iter()
            .find(|site| site.word() == name || site.domain() == name || site.other_words().contains(&name.as_str()));
        found.ok_or_else(|| match name.as_str() {
            "us2-fed" | "us2fed" | "us2.ddog-gov.com" => {
                "of US2-FED Datadog names no intake for Firehose; ask its support".to_owned()
            }
            _ => {
                let names: Vec<&str> = Self::ALL.iter().map(|site| site.name()).collect();
                format!("expected one of Datadog's sites: {}, or its domain such as datadoghq.eu", names.join(", "))
            }
        })
    }

    /// Its name at Datadog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Us1 => "US1",
            Self::Us3 => "US3",
            Self::Us5 => "US5",
            Self::Eu => "EU",
            Self::Ap1 => "AP1",
            Self::Ap2 => "AP2",
            Self::Uk1 => "UK1",
            Self::Us1Fed => "US1-FED",
        }
    }

    /// Its name in small letters, as the command line lists it.
    fn word(self) -> &'static str {
        match self {
            Self::Us1 => "us1",
            Self::Us3 => "us3",
            Self::Us5 => "us5",
            Self::Eu => "eu",
            Self::Ap1 => "ap1",
            Self::Ap2 => "ap2",
            Self::Uk1 => "uk1",
            Self::Us1Fed => "us1-fed",
        }
    }

    /// Its other names.
    fn other_words(self) -> &'static [&'static str] {
        match self {
            Self::Us1 => &["us"],
            Self::Eu => &["eu1"],
            Self::Uk1 => &["uk"],
            Self::Us1Fed => &["us1fed", "fed", "gov", "us1-gov"],
            _ => &[],
        }
    }

    /// Its domain, Datadog's parameter `site`.
    pub fn domain(self) -> &'static str {
        match self {
            Self::Us1 => "datadoghq.com",
            Self::Us3 => "us3.datadoghq.com",
            Self::Us5 => "us5.datadoghq.com",
            Self::Eu => "datadoghq.eu",
            Self::Ap1 => "ap1.datadoghq.com",
            Self::Ap2 => "ap2.datadoghq.com",
            Self::Uk1 => "uk1.datadoghq.com",
            Self::Us1Fed => "ddog-gov.com",
        }
    }

    /// Where the logs of a delivery stream go
    /// (<https://docs.datadoghq.com/logs/guide/send-aws-services-logs-with-the-datadog-kinesis-firehose-destination/>; of UK1
    /// only the host is published, <https://docs.datadoghq.com/agent/guide/private-link/>).
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
            Self::Uk1 => {
                "https://aws-kinesis-http-intake.logs.uk1.datadoghq.com/api/v2/logs?dd-protocol=aws-kinesis-firehose"
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
            Self::Uk1 => "https://api.uk1.datadoghq.com",
        }
    }
}

impl clap::builder::ValueParserFactory for Site {
    type Parser = SiteParser;

    fn value_parser() -> SiteParser {
        SiteParser
    }
}

/// Reads `--site`.
#[derive(Clone, Copy, Debug)]
pub struct SiteParser;

impl TypedValueParser for SiteParser {
    type Value = Site;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Site, clap::Error> {
        let parse = |text: String| Site::new(&text);
        clap::builder::StringValueParser::new().try_map(parse).parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        Some(Box::new(Site::ALL.into_iter().map(|site| clap::builder::PossibleValue::new(site.word()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remap_takes_a_field_of_the_kubernetes_map() {
        assert_eq!(kubernetes_fields().count(), REMAPS.len());
    }

    #[test]
    fn a_site_is_read_in_each_of_its_spellings() {
        for site in Site::ALL {
            let domain = site.domain();
            assert_eq!(site.api_url(), format!("https://api.{domain}"));
            assert!(site.firehose_url().contains(&format!(".logs.{domain}/")), "{domain}");
            let mut spellings = vec![
                site.name().to_owned(),
                site.name().to_lowercase(),
                site.name().replace('-', "_"),
                domain.to_owned(),
                domain.to_uppercase(),
                format!("https://app.{domain}"),
                format!("https://{domain}/logs?x=y"),
                format!("https://api.{domain}/"),
                format!(" {domain} "),
            ];
            spellings.extend(site.other_words().iter().map(|word| (*word).to_owned()));
            for spelling in spellings {
                assert_eq!(Site::new(&spelling), Ok(site), "{spelling}");
            }
        }
        assert_eq!(Site::new("EU1"), Ok(Site::Eu));
        for wrong in ["", "us2", "eu2", "datadoghq", "datadoghq.com.evil", "evil/datadoghq.com", "mydatadoghq.eu"] {
            assert!(Site::new(wrong).unwrap_err().contains("US1-FED"), "{wrong}");
        }
        assert!(Site::new("US2-FED").unwrap_err().contains("no intake"));
    }
}
