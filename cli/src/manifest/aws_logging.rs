//! The `aws-logging` ConfigMap of EKS Fargate and its namespace, never over the router's limit.

use std::fmt::Write as _;

use super::filters::Work;
use super::route::Route;
use super::{Remap, Router, filters, route};
use crate::aws::StreamName;
use crate::classic::{Section, render, render_narrow};
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

/// The ConfigMap's keys with their values.
type Data = Vec<(&'static str, String)>;

/// Namespace and ConfigMap for `router`.
pub fn manifest(router: &Router) -> Result<Manifest, Failure> {
    route::check(&router.routes, &router.exclude_namespace)?;
    let (data, characters) = within_limit(router)?;
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

/// The data with its characters, laid out in columns where there is room for that.
fn within_limit(router: &Router) -> Result<(Data, usize), Failure> {
    let characters = |data: &Data| data.iter().map(|(_, value)| value.chars().count()).sum::<usize>();
    let fits = |data: &Data| characters(data) <= fargate::MAX_CHARACTERS;
    let aligned = data(router, &router.routes, render);
    let data_of = |routes: &[Route]| data(router, routes, render_narrow);
    let found = if fits(&aligned) { aligned } else { data_of(&router.routes) };
    let characters = characters(&found);
    if fits(&found) {
        return Ok((found, characters));
    }
    let most =
        (0..router.routes.len()).rev().find(|count| fits(&data_of(router.routes.get(..*count).unwrap_or_default())));
    let advice = match most {
        Some(most) if most > 0 => format!(
            "of the {} routes the first {most} would fit, and those to one stream take less than those to several",
            router.routes.len()
        ),
        _ => "name fewer labels or namespaces, or leave the renaming to the pipeline (--remap none)".to_owned(),
    };
    Err(Failure::new(format!(
        "the ConfigMap would hold {characters} characters, and EKS Fargate takes {}: {advice}",
        fargate::MAX_CHARACTERS
    )))
}

fn data(router: &Router, routes: &[Route], render: fn(&[Section]) -> String) -> Data {
    let mut data = Vec::new();
    if !router.no_cri {
        data.push((fargate::PARSERS, render(&[cri_parser()])));
    }
    let work = Work { cri: !router.no_cri, renames: router.remap == Remap::Filters };
    data.push((fargate::FILTERS, render(&filters::sections(router, routes, work))));
    data.push((fargate::OUTPUT, render(&outputs(router, routes))));
    data.push((fargate::FLB_LOG_CW, router.flb_log_cw.to_string()));
    data
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

/// The default's output, and one for each other stream of the routes.
fn outputs(router: &Router, routes: &[Route]) -> Vec<Section> {
    let output = |pattern: &str, stream: &StreamName| {
        Section::new("OUTPUT")
            .set("Name", "kinesis_firehose")
            .set("Match", pattern)
            .set("region", &router.region)
            .set("delivery_stream", stream)
            .set("time_key", &router.time_key)
            .set("time_key_format", datadog::TIME_KEY_FORMAT)
            .set_if("role_arn", router.role_arn.as_ref())
    };
    let rest = if routes.is_empty() { &router.match_pattern } else { fargate::MATCH_OF_FILES };
    let mut outputs = vec![output(rest, &router.delivery_stream)];
    let routed = route::sections(&router.delivery_stream, routes).outputs;
    outputs.extend(routed.iter().map(|(stream, tag)| output(tag, stream)));
    outputs
}
