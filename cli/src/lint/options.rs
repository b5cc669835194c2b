//! Which options a plugin has: kubehose's own out of its table, the others' out of Fluent Bit's source (v5.1.1).

/// Options that the core keeps from every plugin (src/flb_output.c, src/flb_filter.c).
const CORE: [&str; 5] = ["match", "match_regex", "alias", "log_level", "log_suppress_interval"];
/// Those of outputs only.
const CORE_OUTPUT: [&str; 7] = ["host", "port", "ipv6", "retry_limit", "workers", "tls", "storage.total_limit_size"];
/// Families of options that every output has (src/flb_upstream.c, src/flb_oauth2.c).
const CORE_OUTPUT_FAMILIES: [&str; 4] = ["net.", "tls.", "oauth2.", "storage."];

/// plugins/out_kinesis_firehose/firehose.c
const KINESIS_FIREHOSE: [&str; 13] = [
    "region",
    "delivery_stream",
    "time_key",
    "time_key_format",
    "role_arn",
    "endpoint",
    "sts_endpoint",
    "external_id",
    "compression",
    "log_key",
    "auto_retry_requests",
    "profile",
    "simple_aggregation",
];
/// <https://github.com/aws/amazon-kinesis-firehose-for-fluent-bit#plugin-options>
const FIREHOSE: [&str; 15] = [
    "region",
    "delivery_stream",
    "data_keys",
    "log_key",
    "role_arn",
    "endpoint",
    "sts_endpoint",
    "time_key",
    "time_key_format",
    "replace_dots",
    "simple_aggregation",
    "compression",
    "external_id",
    "experimental_concurrency",
    "experimental_concurrency_retries",
];

/// plugins/filter_*/ of the filters that EKS Fargate allows.
const FILTERS: [(&str, &[&str]); 8] = [
    ("grep", &["regex", "exclude", "logical_op"]),
    ("parser", &["key_name", "parser", "preserve_key", "reserve_data", "unescape_key"]),
    ("record_modifier", &["record", "remove_key", "allowlist_key", "whitelist_key", "uuid_key"]),
    ("rewrite_tag", &["rule", "emitter_name", "emitter_storage.type", "emitter_mem_buf_limit"]),
    ("throttle", &["rate", "window", "print_status", "interval"]),
    ("nest", &["operation", "wildcard", "nest_under", "nested_under", "add_prefix", "remove_prefix"]),
    (
        "modify",
        &[
            "set",
            "add",
            "remove",
            "remove_wildcard",
            "remove_regex",
            "move_to_start",
            "move_to_end",
            "rename",
            "hard_rename",
            "copy",
            "hard_copy",
            "condition",
        ],
    ),
    (
        "kubernetes",
        &[
            "buffer_size",
            "tls.debug",
            "tls.verify",
            "tls.vhost",
            "tls.verify_hostname",
            "merge_log",
            "merge_parser",
            "merge_log_key",
            "merge_log_trim",
            "keep_log",
            "kube_url",
            "kube_meta_preload_cache_dir",
            "kube_ca_file",
            "kube_ca_path",
            "kube_tag_prefix",
            "kube_namespace_file",
            "kube_token_file",
            "kube_token_command",
            "labels",
            "annotations",
            "owner_references",
            "namespace_labels",
            "namespace_annotations",
            "namespace_metadata_only",
            "k8s-logging.parser",
            "k8s-logging.exclude",
            "use_journal",
            "regex_parser",
            "dummy_meta",
            "dns_retries",
            "dns_wait_time",
            "cache_use_docker_id",
            "use_tag_for_meta",
            "use_kubelet",
            "kubelet_host",
            "kubelet_port",
            "kube_token_ttl",
            "kube_meta_cache_ttl",
            "kube_meta_namespace_cache_ttl",
            "aws_use_pod_association",
            "use_pod_association",
            "aws_pod_association_host",
            "aws_pod_association_endpoint",
            "aws_pod_association_port",
            "aws_pod_service_map_ttl",
            "aws_pod_service_map_refresh_interval",
            "aws_pod_service_preload_cache_dir",
            "aws_pod_association_host_server_ca_file",
            "aws_pod_association_host_client_cert_file",
            "aws_pod_association_host_client_key_file",
            "aws_pod_association_host_tls_debug",
            "aws_pod_association_host_tls_verify",
            "set_platform",
        ],
    ),
];

/// The outputs that put records into a delivery stream.
pub const FIREHOSE_OUTPUTS: [&str; 3] = ["kubehose", "kinesis_firehose", "firehose"];

/// The plugin's own options, None where they are not known here.
fn own(section: &str, plugin: &str) -> Option<Vec<&'static str>> {
    match (section, plugin) {
        ("OUTPUT", "kubehose") => Some(kubehose::options::OPTIONS.iter().map(|spec| spec.name).collect()),
        ("OUTPUT", "kinesis_firehose") => Some(KINESIS_FIREHOSE.to_vec()),
        ("OUTPUT", "firehose") => Some(FIREHOSE.to_vec()),
        ("FILTER", _) => FILTERS.iter().find(|(name, _)| *name == plugin).map(|(_, options)| options.to_vec()),
        _ => None,
    }
}

/// Whether the core takes the option from any output.
pub fn is_core(key: &str) -> bool {
    CORE.contains(&key) || CORE_OUTPUT.contains(&key) || key.starts_with("storage.")
}

/// What is wrong with the name of an option.
pub struct Unknown {
    /// The nearest name that exists.
    pub near: Option<&'static str>,
    /// An output for which the name would be right.
    pub elsewhere: Option<&'static str>,
}

/// Whether `plugin` has no option `key`; None also where its options are not known.
pub fn unknown(section: &str, plugin: &str, key: &str) -> Option<Unknown> {
    let mut names = own(section, plugin)?;
    names.extend(CORE);
    names.push("name");
    let lower = key.to_ascii_lowercase();
    if section == "OUTPUT" {
        names.extend(CORE_OUTPUT);
        if CORE_OUTPUT_FAMILIES.iter().any(|family| lower.starts_with(family)) {
            return None;
        }
    }
    if names.contains(&lower.as_str()) {
        return None;
    }
    let elsewhere = FIREHOSE_OUTPUTS
        .into_iter()
        .filter(|_| section == "OUTPUT")
        .find(|other| own(section, other).is_some_and(|names| names.contains(&lower.as_str())));
    Some(Unknown { near: near(&lower, names), elsewhere })
}

/// Whether an option of this output may stand once only.
pub fn is_single(section: &str, plugin: &str, key: &str) -> bool {
    match section {
        "OUTPUT" => FIREHOSE_OUTPUTS.contains(&plugin),
        "FILTER" => plugin == "kubernetes" || (plugin == "parser" && !key.eq_ignore_ascii_case("parser")),
        _ => false,
    }
}

/// The candidate that `text` is a misspelling of.
pub fn near<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}
