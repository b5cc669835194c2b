//! `kubehose pipeline`: the guide's log pipeline for Datadog, whose remappers turn the four attributes into tags.
//!
//! Vendor's page: <https://docs.datadoghq.com/api/latest/logs-pipelines/#create-a-pipeline>.

use std::fmt::Write as _;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use crate::aws::StreamArn;
use crate::datadog::REMAPS;
use crate::verdict::{self, Outcome, print};

/// Write Datadog's log pipeline: four remappers that turn the attributes, under either name, into tags.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose pipeline | curl -sSf https://api.datadoghq.com/api/v1/logs/config/pipelines \\
    -H 'Content-Type: application/json' -H \"DD-API-KEY: $DD_API_KEY\" -H \"DD-APPLICATION-KEY: $DD_APP_KEY\" -d @-")]
pub struct Args {
    /// Body for the API, or a Terraform resource
    #[arg(long, value_enum, default_value_t = Format::Api)]
    format: Format,
    #[command(flatten)]
    pipeline: Pipeline,
}

/// How the pipeline is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Api,
    Terraform,
}

/// Which pipeline; shared with `bundle`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Pipeline {
    /// The pipeline's name
    #[arg(long = "pipeline-name", value_name = "NAME", default_value = NAME, value_parser = one_line)]
    pub name: String,
    /// The logs that it processes
    #[arg(long, value_name = "QUERY", default_value = QUERY, value_parser = one_line)]
    pub query: String,
    /// Process only the logs of these delivery streams, whatever their `service` and `source`
    #[arg(long, value_name = "ARN", conflicts_with = "query", value_delimiter = ',', value_parser = StreamArn::new)]
    pub stream_arn: Vec<StreamArn>,
}

/// The guide's name and filter.
const NAME: &str = "EKS Fargate Log Pipeline";
const QUERY: &str = "service:aws source:aws";

fn one_line(text: &str) -> Result<String, String> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err("expected one line of text".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Runs `kubehose pipeline`.
pub fn run(args: &Args) -> Outcome {
    print(&match args.format {
        Format::Api => verdict::json(&api(&args.pipeline)),
        Format::Terraform => terraform(&args.pipeline),
    })
}

impl Pipeline {
    /// The query of the pipeline's filter.
    pub fn filter(&self) -> String {
        // https://docs.datadoghq.com/logs/explorer/search_syntax/
        let arns: Vec<String> = self.stream_arn.iter().map(|arn| format!("\"{arn}\"")).collect();
        match arns.as_slice() {
            [] => self.query.clone(),
            [arn] => format!("@aws.firehose.arn:{arn}"),
            _ => format!("@aws.firehose.arn:({})", arns.join(" OR ")),
        }
    }
}

/// One remapper: its name, its sources under both spellings, its target.
fn remappers() -> impl Iterator<Item = (String, Vec<&'static str>, &'static str)> {
    REMAPS.into_iter().map(|(source, target)| {
        // The router may have renamed the attribute already; it still has to become a tag.
        (format!("{source} to the tag {target}"), vec![source, target], target)
    })
}

/// The body of `POST /api/v1/logs/config/pipelines`.
pub fn api(pipeline: &Pipeline) -> Value {
    let processors: Vec<Value> = remappers()
        .map(|(name, sources, target)| {
            json!({
                "type": "attribute-remapper",
                "name": name,
                // Off unless it is said.
                "is_enabled": true,
                "source_type": "attribute",
                "sources": sources,
                "target": target,
                "target_type": "tag",
                "preserve_source": false,
                "override_on_conflict": false
            })
        })
        .collect();
    json!({
        "name": pipeline.name,
        "is_enabled": true,
        "filter": {"query": pipeline.filter()},
        "processors": processors
    })
}

/// The same as a Terraform resource
/// (<https://registry.terraform.io/providers/DataDog/datadog/latest/docs/resources/logs_custom_pipeline>).
pub fn terraform(pipeline: &Pipeline) -> String {
    // Without a source Terraform would look for hashicorp/datadog. Its provider, with the keys, is the caller's.
    let mut text = format!(
        "terraform {{
  required_providers {{
    datadog = {{
      source = \"DataDog/datadog\"
    }}
  }}
}}

resource \"datadog_logs_custom_pipeline\" \"kubehose\" {{
  name       = {}
  is_enabled = true

  filter {{
    query = {}
  }}
",
        hcl(&pipeline.name),
        hcl(&pipeline.filter())
    );
    for (name, sources, target) in remappers() {
        let sources: Vec<String> = sources.into_iter().map(hcl).collect();
        let _ = write!(
            text,
            "
  processor {{
    attribute_remapper {{
      name                 = {}
      is_enabled           = true
      source_type          = \"attribute\"
      sources              = [{}]
      target               = {}
      target_type          = \"tag\"
      preserve_source      = false
      override_on_conflict = false
    }}
  }}
",
            hcl(&name),
            sources.join(", "),
            hcl(target)
        );
    }
    text.push_str(
        "}

output \"pipeline_id\" {
  value = datadog_logs_custom_pipeline.kubehose.id
}
",
    );
    text
}

/// `text` as a string of Terraform's language, where `${` and `%{` would open a template.
pub fn hcl(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "$${").replace("%{", "%%{");
    format!("\"{escaped}\"")
}
