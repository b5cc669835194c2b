//! The `aws-logging` ConfigMap of EKS Fargate and its namespace, never over the router's limit.

use std::fmt::Write as _;

use super::filters::Work;
use super::{Remap, Router, filters};
use crate::classic::{Section, render};
use crate::verdict::Failure;
use crate::{datadog, fargate, kube};

/// A manifest, and how much of the limit its ConfigMap uses.
pub struct Manifest {
    /// YAML, ready for `kubectl apply`.
    pub text: String,
    /// What counts against [`fargate::MAX_CHARACTERS`].
    pub characters: usize,
}

/// The namespace with the label that the guide leaves out.
pub fn namespace() -> String {
    let (key, value) = fargate::NAMESPACE_LABEL;
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n  labels:\n    {key}: {value}\n",
        fargate::NAMESPACE
    )
}

/// Namespace and ConfigMap for `router`.
pub fn manifest(router: &Router) -> Result<Manifest, Failure> {
    let mut data = Vec::new();
    if !router.no_cri {
        data.push((fargate::PARSERS, render(&[cri_parser()])));
    }
    let work = Work { cri: !router.no_cri, renames: router.remap == Remap::Filters };
    data.push((fargate::FILTERS, render(&filters::sections(router, work))));
    data.push((fargate::OUTPUT, render(&[output(router)])));
    data.push((fargate::FLB_LOG_CW, router.flb_log_cw.to_string()));

    let characters = data.iter().map(|(_, value)| value.chars().count()).sum();
    if characters > fargate::MAX_CHARACTERS {
        return Err(Failure::new(format!(
            "the ConfigMap would hold {characters} characters, and EKS Fargate takes {}: name fewer labels or namespaces, or \
             leave the renaming to the pipeline (--remap none)",
            fargate::MAX_CHARACTERS
        )));
    }
    let mut text = namespace();
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {}\n  namespace: {}\ndata:\n",
        fargate::CONFIG_MAP,
        fargate::NAMESPACE
    );
    for (key, value) in data {
        let _ = if value.contains('\n') {
            write!(text, "  {key}: {}", kube::literal(&value, 4))
        } else {
            writeln!(text, "  {key}: {}", kube::quoted(&value))
        };
    }
    Ok(Manifest { text, characters })
}

/// The guide's own ConfigMap, byte for byte but for the region, the stream and the blanks at the ends of its lines.
/// <https://docs.datadoghq.com/logs/guide/aws-eks-fargate-logs-with-kinesis-data-firehose/>
pub fn guide(router: &Router) -> Manifest {
    let filters = "[FILTER]
    Name                kubernetes
    Match               kube.*
    Merge_Log           On
    Buffer_Size         0
    Kube_Meta_Cache_TTL 300s
";
    let output = format!(
        "[OUTPUT]
    Name kinesis_firehose
    Match kube.*
    region {}
    delivery_stream {}
",
        router.region, router.delivery_stream
    );
    let text = format!(
        "apiVersion: v1
kind: ConfigMap
metadata:
  name: aws-logging
  namespace: aws-observability
data:
  filters.conf: {}
  flb_log_cw: 'true'

  output.conf: {}",
        kube::literal(filters, 4),
        kube::literal(&output, 4)
    );
    Manifest { text, characters: filters.len() + output.len() + "true".len() }
}

fn cri_parser() -> Section {
    Section::new("PARSER")
        .set("Name", fargate::CRI_PARSER)
        .set("Format", "regex")
        .set("Regex", fargate::CRI_REGEX)
        .set("Time_Key", "time")
        .set("Time_Format", fargate::CRI_TIME_FORMAT)
}

fn output(router: &Router) -> Section {
    Section::new("OUTPUT")
        .set("Name", "kinesis_firehose")
        .set("Match", &router.match_pattern)
        .set("region", &router.region)
        .set("delivery_stream", &router.delivery_stream)
        .set("time_key", &router.time_key)
        .set("time_key_format", datadog::TIME_KEY_FORMAT)
        .set_if("role_arn", router.role_arn.as_ref())
}
