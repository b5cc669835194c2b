//! What a plugin of the host refuses to start without, and the values that it knows (plugins/ of v5.1.1).
//!
//! The schema says neither: each plugin looks for itself. Held to the host by tests/differential.rs.

use super::conf::Section;
use super::{Findings, host, plugins, rules};

/// The section, the plugin, and options of which it needs one.
pub const NEEDS: &[(&str, &str, &[&str])] = &[
    ("INPUT", "blob", &["path"]),
    ("INPUT", "exec", &["command"]),
    ("INPUT", "health", &["host"]),
    ("INPUT", "netif", &["interface"]),
    ("INPUT", "proc", &["proc_name"]),
    ("INPUT", "serial", &["file"]),
    ("INPUT", "serial", &["bitrate"]),
    ("INPUT", "tail", &["path"]),
    ("FILTER", "geoip2", &["database"]),
    ("FILTER", "log_to_metrics", &["tag"]),
    ("FILTER", "log_to_metrics", &["metric_description"]),
    ("FILTER", "lua", &["script", "code"]),
    ("FILTER", "lua", &["call"]),
    ("FILTER", "nightfall", &["nightfall_api_key"]),
    ("FILTER", "nightfall", &["policy_id"]),
    ("FILTER", "parser", &["key_name"]),
    ("FILTER", "parser", &["parser"]),
    ("FILTER", "type_converter", &["int_key", "uint_key", "float_key", "str_key"]),
    ("OUTPUT", "azure", &["customer_id"]),
    ("OUTPUT", "azure", &["shared_key"]),
    ("OUTPUT", "azure_blob", &["account_name"]),
    ("OUTPUT", "azure_blob", &["container_name"]),
    ("OUTPUT", "azure_blob", &["shared_key", "auth_type"]),
    ("OUTPUT", "azure_kusto", &["ingestion_endpoint"]),
    ("OUTPUT", "azure_kusto", &["database_name"]),
    ("OUTPUT", "azure_kusto", &["table_name"]),
    ("OUTPUT", "azure_kusto", &["client_id"]),
    ("OUTPUT", "azure_logs_ingestion", &["client_id"]),
    ("OUTPUT", "azure_logs_ingestion", &["client_secret"]),
    ("OUTPUT", "azure_logs_ingestion", &["dce_url"]),
    ("OUTPUT", "azure_logs_ingestion", &["dcr_id"]),
    ("OUTPUT", "azure_logs_ingestion", &["table_name"]),
    ("OUTPUT", "azure_logs_ingestion", &["tenant_id"]),
    ("OUTPUT", "bigquery", &["dataset_id"]),
    ("OUTPUT", "bigquery", &["table_id"]),
    ("OUTPUT", "chronicle", &["customer_id"]),
    ("OUTPUT", "chronicle", &["log_type"]),
    ("OUTPUT", "cloudwatch_logs", &["log_group_name"]),
    ("OUTPUT", "cloudwatch_logs", &["log_stream_name", "log_stream_prefix"]),
    ("OUTPUT", "cloudwatch_logs", &["region"]),
    ("OUTPUT", "datadog", &["apikey"]),
    ("OUTPUT", "gcs", &["bucket"]),
    ("OUTPUT", "kinesis_streams", &["region"]),
    ("OUTPUT", "kinesis_streams", &["stream"]),
    ("OUTPUT", "logdna", &["api_key"]),
    ("OUTPUT", "nrlogs", &["api_key", "license_key"]),
    ("OUTPUT", "s3", &["bucket"]),
    ("OUTPUT", "slack", &["webhook"]),
    ("OUTPUT", "splunk", &["splunk_token", "http_user"]),
    ("OUTPUT", "td", &["api"]),
    ("OUTPUT", "td", &["database"]),
    ("OUTPUT", "td", &["table"]),
    ("PROCESSOR", "content_modifier", &["action"]),
    ("PROCESSOR", "sampling", &["type"]),
    ("PROCESSOR", "sql", &["query"]),
];

/// The section, the plugin, an option with the value that it has by itself, one of its values, and what that value needs.
type NeedsFor = (&'static str, &'static str, [&'static str; 2], &'static str, &'static [&'static str]);

const NEEDS_FOR: &[NeedsFor] = &[
    ("OUTPUT", "azure_kusto", ["auth_type", "service_principal"], "service_principal", &["tenant_id", "client_secret"]),
    ("OUTPUT", "azure_kusto", ["auth_type", "service_principal"], "workload_identity", &["tenant_id"]),
    (
        "OUTPUT",
        "bigquery",
        ["enable_identity_federation", "off"],
        "on",
        &["project_id", "aws_region", "project_number", "pool_id", "provider_id", "google_service_account"],
    ),
    ("OUTPUT", "http", ["oauth2.enable", "off"], "on", &["oauth2.token_url", "oauth2.client_id"]),
    ("OUTPUT", "opentelemetry", ["oauth2.enable", "off"], "on", &["oauth2.token_url", "oauth2.client_id"]),
    (
        "OUTPUT",
        "oracle_log_analytics",
        ["oci_config_in_record", "off"],
        "off",
        &["oci_la_log_source_name", "oci_la_log_group_id"],
    ),
    ("OUTPUT", "stackdriver", ["resource", "global"], "generic_node", &["location", "namespace", "node_id"]),
    ("OUTPUT", "stackdriver", ["resource", "global"], "generic_task", &["location", "namespace", "job", "task_id"]),
    ("OUTPUT", "stackdriver", ["resource", "global"], "k8s_container", &["k8s_cluster_name", "k8s_cluster_location"]),
    ("OUTPUT", "stackdriver", ["resource", "global"], "k8s_node", &["k8s_cluster_name", "k8s_cluster_location"]),
    ("OUTPUT", "stackdriver", ["resource", "global"], "k8s_pod", &["k8s_cluster_name", "k8s_cluster_location"]),
];

/// What the actions of content_modifier need besides a key.
const ACTIONS: [(&str, &str); 5] = [
    ("convert", "converted_type"),
    ("extract", "pattern"),
    ("insert", "value"),
    ("rename", "value"),
    ("upsert", "value"),
];

/// The section, the plugin, and options that it refuses together.
const EXCLUDE: &[(&str, &str, [&str; 2])] = &[
    ("OUTPUT", "cloudwatch_logs", ["log_stream_name", "log_stream_prefix"]),
    ("OUTPUT", "kinesis_firehose", ["time_key", "log_key"]),
    ("OUTPUT", "kinesis_streams", ["time_key", "log_key"]),
];

/// The section, the plugin, its option, whether capitals count, and the values.
pub const VALUES: &[(&str, &str, &str, bool, &[&str])] = &[
    ("INPUT", "syslog", "mode", false, &["unix_tcp", "unix_udp", "tcp", "udp"]),
    ("INPUT", "tail", "windows.path_encoding", false, &["ansi", "utf-8", "utf8"]),
    ("FILTER", "log_to_metrics", "metric_mode", false, &["counter", "gauge", "histogram"]),
    ("FILTER", "multiline", "mode", false, &["parser", "partial_message"]),
    ("OUTPUT", "azure_blob", "compress", false, &["gzip", "zstd"]),
    ("OUTPUT", "azure_kusto", "auth_type", false, &["service_principal", "managed_identity", "workload_identity"]),
    ("OUTPUT", "es", "write_operation", false, &["index", "create", "update", "upsert"]),
    ("OUTPUT", "file", "format", false, &["csv", "ltsv", "plain", "msgpack", "template", "out_file"]),
    ("OUTPUT", "forward", "compress", false, &["text", "gzip"]),
    ("OUTPUT", "gcs", "compression", false, &["gzip", "none"]),
    ("OUTPUT", "gelf", "mode", false, &["tcp", "tls", "udp"]),
    ("OUTPUT", "http", "compress", false, &["gzip", "snappy", "zstd"]),
    ("OUTPUT", "http", "http_method", false, &["post", "put"]),
    ("OUTPUT", "kinesis_firehose", "compression", true, &["gzip", "zstd", "snappy"]),
    ("OUTPUT", "kinesis_streams", "compression", true, &["gzip", "zstd", "snappy"]),
    ("OUTPUT", "opensearch", "write_operation", false, &["index", "create", "update", "upsert"]),
    ("OUTPUT", "opentelemetry", "compress", false, &["gzip", "zstd"]),
    // The images of AWS are built with arrow and parquet, whose names may have capitals, as `none` may.
    ("OUTPUT", "s3", "compression", true, &["gzip", "zstd", "snappy", "none", "arrow", "parquet"]),
    ("OUTPUT", "syslog", "mode", false, &["tcp", "tls", "udp", "dtls"]),
    ("OUTPUT", "syslog", "syslog_format", false, &["rfc3164", "rfc5424"]),
    (
        "PROCESSOR",
        "content_modifier",
        "action",
        false,
        &["insert", "upsert", "delete", "rename", "hash", "extract", "convert"],
    ),
    ("PROCESSOR", "content_modifier", "converted_type", false, &["string", "boolean", "int", "double"]),
];

/// Checks one section of a plugin of the host.
pub fn check(section: &Section, plugin: &str, findings: &mut Findings) {
    let of = |kind: &str, name: &str| section.name == kind && plugin == name;
    let is_on = |key: &str| section.value(key).is_some_and(|value| host::bool_of(value) == Some(true));
    let has = |key: &str| section.get(key).is_some();
    let lacks = |findings: &mut Findings, keys: &[&str]| {
        let message = format!("{plugin} has no {}", keys.join(" or "));
        findings.add(&rules::OPTION_MISSING, section.at, message);
    };
    for (kind, name, keys) in NEEDS {
        if of(kind, name) && !keys.iter().any(|key| has(key)) {
            lacks(findings, keys);
        }
    }
    for (_, _, [key, default], value, needed) in NEEDS_FOR.iter().filter(|(kind, name, ..)| of(kind, name)) {
        let set = section.value(key).unwrap_or(default);
        let same = match host::bool_of(value) {
            Some(wanted) => host::bool_of(set) == Some(wanted),
            None => set.eq_ignore_ascii_case(value),
        };
        // Labels of stackdriver's resource may say the same.
        for option in needed.iter().filter(|option| same && !has(option) && !has("resource_labels")) {
            lacks(findings, &[option]);
        }
    }
    let secret = section.value("oauth2.auth_method").is_none_or(|method| ["basic", "post"].contains(&method));
    if (of("OUTPUT", "http") || of("OUTPUT", "opentelemetry"))
        && is_on("oauth2.enable")
        && secret
        && !has("oauth2.client_secret")
    {
        lacks(findings, &["oauth2.client_secret"]);
    }
    // The older way of several lines.
    if of("INPUT", "tail") && is_on("multiline") && !has("parser_firstline") {
        lacks(findings, &["parser_firstline"]);
    }
    if of("FILTER", "multiline") {
        let partial = section.value("mode").is_some_and(|mode| mode.eq_ignore_ascii_case("partial_message"));
        let key = if partial { "multiline.key_content" } else { "multiline.parser" };
        if !has(key) {
            lacks(findings, &[key]);
        }
    }
    if of("FILTER", "log_to_metrics")
        && section.value("metric_mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("counter"))
        && !has("value_field")
    {
        lacks(findings, &["value_field"]);
    }
    if of("PROCESSOR", "metrics_selector") {
        // What it selects: a metric, or in this context a label, of which it needs none.
        let context = section.value("context").unwrap_or_default();
        let of_labels = context.get(..18).is_some_and(|start| start.eq_ignore_ascii_case("delete_label_value"));
        if !of_labels && !has("metric_name") {
            lacks(findings, &["metric_name"]);
        }
        if let Some(entry) = section.get("label").filter(|_| of_labels)
            && host::words(&entry.value.text, 0).len() < 2
        {
            findings.add(&rules::ARITY, entry.value.at, format!("{} needs a label and a value", entry.key.text));
        }
    }
    if (of("OUTPUT", "es") || of("OUTPUT", "opensearch")) && is_on("aws_auth") && !has("aws_region") {
        lacks(findings, &["aws_region"]);
    }
    if of("PROCESSOR", "content_modifier")
        && let Some(action) = section.value("action").map(str::to_ascii_lowercase)
    {
        // The scope's name and version are keys by themselves.
        let itself =
            section.value("context").is_some_and(|context| context.to_ascii_lowercase().starts_with("otel_scope_"));
        for key in ACTIONS.iter().filter(|(name, _)| *name == action).map(|(_, key)| *key).chain(["key"]) {
            let implied = key == "key" && itself;
            if !has(key) && !implied {
                lacks(findings, &[key]);
            }
        }
    }
    for (kind, name, [one, other]) in EXCLUDE {
        if let (true, Some(_), Some(entry)) = (of(kind, name), section.get(one), section.get(other)) {
            let message = format!("{one} and {other} exclude each other");
            findings.add(&rules::OPTIONS_EXCLUDE, entry.key.at, message);
        }
    }
    for (_, name, key, exact, values) in VALUES.iter().filter(|(kind, name, ..)| of(kind, name)) {
        let Some(entry) = section.get(key) else { continue };
        let value = entry.value.text.as_str();
        let is_value = |known: &&str| {
            let capitals = !exact || (*name == "s3" && ["none", "arrow", "parquet"].contains(known));
            if capitals { known.eq_ignore_ascii_case(value) } else { *known == value }
        };
        if !value.is_empty() && !plugins::is_open(value) && !values.iter().any(is_value) {
            let message = format!("{}: '{value}' is not accepted; write {}", entry.key.text, values.join(", "));
            findings.add(&rules::OPTION_VALUE, entry.value.at, message);
        }
    }
    if of("PROCESSOR", "labels") {
        for entry in ["insert", "update", "upsert"].into_iter().flat_map(|key| section.all(key)) {
            if host::words(&entry.value.text, 0).len() < 2 {
                findings.add(&rules::ARITY, entry.value.at, format!("{} needs a key and a value", entry.key.text));
            }
        }
    }
    if of("OUTPUT", "s3")
        && let Some(entry) = section.get("s3_key_format")
        && !plugins::is_open(&entry.value.text)
        && !entry.value.text.starts_with('/')
    {
        let message = format!("{}: '{}' does not begin with /", entry.key.text, entry.value.text);
        findings.add(&rules::OPTION_VALUE, entry.value.at, message);
    }
}
