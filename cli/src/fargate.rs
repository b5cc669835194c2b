//! What EKS Fargate's managed log router accepts: the rules for `manifest` and `lint`.
//!
//! Vendor's page: <https://docs.aws.amazon.com/eks/latest/userguide/fargate-logging.html>.

/// The namespace that the router reads its configuration from.
pub const NAMESPACE: &str = "aws-observability";
/// The label, `aws-observability: enabled`, without which the namespace is not read.
pub const NAMESPACE_LABEL: (&str, &str) = ("aws-observability", "enabled");
/// The ConfigMap's name.
pub const CONFIG_MAP: &str = "aws-logging";

/// The most characters that the ConfigMap may hold. The page does not say of what; the values under `data` are counted.
pub const MAX_CHARACTERS: usize = 5300;
/// Where a warning begins, because keys and YAML may be counted too.
pub const NEAR_MAX_CHARACTERS: usize = 5000;

/// Key of the filters.
pub const FILTERS: &str = "filters.conf";
/// Key of the outputs, in the singular.
pub const OUTPUT: &str = "output.conf";
/// Key of the parsers.
pub const PARSERS: &str = "parsers.conf";
/// Key that sends the router's own log to CloudWatch: the string "true" or "false".
pub const FLB_LOG_CW: &str = "flb_log_cw";

/// The keys that hold sections, each with the only section that it may hold.
pub const SECTION_OF_KEY: [(&str, &str); 3] = [(FILTERS, "FILTER"), (OUTPUT, "OUTPUT"), (PARSERS, "PARSER")];

/// The filters that may be used.
pub const FILTER_NAMES: [&str; 8] =
    ["grep", "parser", "record_modifier", "rewrite_tag", "throttle", "nest", "modify", "kubernetes"];
/// The outputs that may be used, both generations of each.
pub const OUTPUT_NAMES: [&str; 6] = ["es", "firehose", "kinesis_firehose", "cloudwatch", "cloudwatch_logs", "kinesis"];
/// What may not be set in the kubernetes filter.
pub const KUBERNETES_FORBIDDEN: [&str; 4] = ["Kube_URL", "Kube_CA_File", "Kube_Token_Command", "Kube_Token_File"];

/// The tag of the router's only input, `Tag kube.*` over `/var/log/containers/*.log`, as far as it is fixed.
pub const TAG_PREFIX: &str = "kube.var.log.containers.";
/// The tag of the second input, which `flb_log_cw: "true"` adds: the router's own log.
pub const OWN_LOG_TAG_PREFIX: &str = "flblogs.";
/// What filters and outputs match by default.
pub const MATCH: &str = "kube.*";
/// The container's files alone, where records that a filter has tagged anew begin with `kube.` too.
pub const MATCH_OF_FILES: &str = "kube.var.*";
/// How much the router's input holds in memory.
pub const MEM_BUF_LIMIT: &str = "45M";

/// The tag of records that go to the `number`th stream beside the default: [`MATCH`] fits it, [`MATCH_OF_FILES`] does not.
pub fn routed_tag(number: usize) -> String {
    format!("kube.{number}")
}

/// The CRI parser. None is built in, and without one `log` keeps its `… stdout F ` prefix and JSON is never merged.
pub const CRI_PARSER: &str = "crio";
/// Its expression: time, stream, P(artial) or F(ull), text.
pub const CRI_REGEX: &str = r"^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>P|F) (?<log>.*)$";
/// Its time.
pub const CRI_TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S.%L%z";

/// The kubernetes filter's settings in the guide, after Name and Match.
pub const KUBERNETES_SETTINGS: [(&str, &str); 3] =
    [("Merge_Log", "On"), ("Buffer_Size", "0"), ("Kube_Meta_Cache_TTL", "300s")];
