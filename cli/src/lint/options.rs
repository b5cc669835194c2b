//! Which options a plugin has: kubehose's from its table, the host's from its schema, the Go plugin's from its page.

use super::host::{self, HostOption, Plugin};

/// Options that the core keeps from every plugin (src/flb_output.c, src/flb_filter.c, src/flb_input.c of v5.1.1).
const CORE: [&str; 3] = ["alias", "log_level", "log_suppress_interval"];
/// Those of filters and outputs.
const CORE_ROUTED: [&str; 2] = ["match", "match_regex"];
/// Those of outputs only.
const CORE_OUTPUT: [&str; 7] = ["host", "port", "ipv6", "retry_limit", "workers", "tls", "storage.total_limit_size"];
/// Those of inputs only.
const CORE_INPUT: [&str; 18] = [
    "tag",
    "routable",
    "mem_buf_limit",
    "listen",
    "host",
    "port",
    "ipv6",
    "tls",
    "storage.type",
    "storage.pause_on_chunks_overlimit",
    "threaded",
    "thread.ring_buffer.capacity",
    "thread.ring_buffer.window",
    "rate_gate",
    "rate_gate.backpressure",
    "rate_gate.max_bytes",
    "rate_gate.max_records",
    "rate_window",
];
/// Families of options that inputs and outputs have (src/flb_upstream.c, src/flb_oauth2.c).
const CORE_FAMILIES: [&str; 4] = ["net.", "tls.", "oauth2", "_debug.http."];
/// Options that every section may have (src/flb_config_map.c, src/flb_config.c).
const SPECIAL: [&str; 4] = ["name", "active", "condition", "routes"];
/// Options that a plugin has only where the host runs on Windows, which the schema of another host lacks: input, option.
const WINDOWS: [(&str, &str); 1] = [("tail", "windows.path_encoding")];

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

/// The outputs that put records into a delivery stream.
pub const FIREHOSE_OUTPUTS: [&str; 3] = ["kubehose", "kinesis_firehose", "firehose"];

/// The plugin's own options, None where they are not known here.
fn own(section: &str, plugin: &str) -> Option<Vec<&'static str>> {
    match (section, plugin) {
        ("OUTPUT", "kubehose") => Some(kubehose::options::OPTIONS.iter().map(|spec| spec.name).collect()),
        ("OUTPUT", "firehose") => Some(FIREHOSE.to_vec()),
        // One without a table of options reads them itself, and the host checks none (flb_output.c).
        _ => host::plugin(section, plugin)
            .filter(|plugin| !plugin.options.is_empty() || plugin.bare || section == "PROCESSOR")
            .map(|plugin| plugin.options.iter().map(|option| option.name).collect()),
    }
}

/// Whether the core accepts the option in any output.
pub fn is_core(key: &str) -> bool {
    is_core_of("OUTPUT", key) && !key.starts_with("net.") && !key.starts_with("tls.")
}

/// Whether the core keeps the option, in small letters, from the plugins of that section.
pub fn is_core_of(section: &str, key: &str) -> bool {
    let families = CORE_FAMILIES.iter().any(|family| key.starts_with(family));
    CORE.contains(&key)
        || match section {
            "OUTPUT" => CORE_ROUTED.contains(&key) || CORE_OUTPUT.contains(&key) || families,
            "FILTER" => CORE_ROUTED.contains(&key),
            "INPUT" => CORE_INPUT.contains(&key) || key.starts_with("rate_gate.") || families,
            _ => false,
        }
}

/// The options of the family of options that `key`, in small letters, belongs to, where the core checks them against a table.
fn family(section: &str, plugin: &Plugin, key: &str) -> Option<&'static [HostOption]> {
    let side = if section == "INPUT" { "input" } else { "output" };
    let name = match section {
        "INPUT" | "OUTPUT" if key.starts_with("oauth2") => format!("oauth2-{side}"),
        "INPUT" | "OUTPUT" if key.starts_with("tls.") => format!("tls-{side}"),
        "OUTPUT" if key.starts_with("net.") => "client".to_owned(),
        "INPUT" if key.starts_with("net.") && plugin.client => "client".to_owned(),
        "INPUT" if key.starts_with("net.") && plugin.server => "server".to_owned(),
        // An input without a network has none, and the host crashes on them.
        "INPUT" if key.starts_with("net.") => return Some(&[]),
        _ if key.starts_with("http_server.") && plugin.http_server => "http-server".to_owned(),
        _ => return None,
    };
    host::shared(&name).map(|shared| shared.options.as_slice())
}

/// The option of the core's that `plugin` reads under that name, in small letters.
pub fn shared(section: &str, plugin: &Plugin, key: &str) -> Option<&'static HostOption> {
    // Others take them, and never look at the values.
    let reads = if key.starts_with("oauth2") {
        ["http", "opentelemetry"].contains(&plugin.name)
    } else {
        !plugin.options.is_empty()
    };
    family(section, plugin, key).filter(|_| reads)?.iter().find(|option| option.name == key)
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
    let lower = key.to_ascii_lowercase();
    let served = host::plugin(section, plugin);
    let table = own(section, plugin);
    // A plugin without a table of its own gets what the core does not know, but of its families only these.
    let checked = table.is_some() || lower.starts_with("net.") || lower.starts_with("oauth2");
    if let Some(family) = served.filter(|_| checked).and_then(|plugin| family(section, plugin, &lower)) {
        let names = || family.iter().map(|option| option.name);
        return (!names().any(|name| name == lower)).then(|| Unknown { near: near(&lower, names()), elsewhere: None });
    }
    let mut names = table?;
    let of_server: Vec<&str> = served
        .filter(|plugin| plugin.http_server)
        .and_then(|_| host::shared("http-server"))
        .map_or(Vec::new(), |shared| shared.options.iter().map(|option| option.name).collect());
    let by_server = of_server.contains(&lower.as_str());
    let by_prefix = served.is_some_and(|plugin| plugin.option(&lower).is_some());
    // Options of librdkafka (out_kafka/kafka.c, in_kafka/in_kafka.c).
    let of_library = plugin == "kafka" && lower.starts_with("rdkafka.");
    if is_core_of(section, &lower)
        || of_library
        || (section == "INPUT" && WINDOWS.contains(&(plugin, lower.as_str())))
        || SPECIAL.contains(&lower.as_str())
        || by_server
        || by_prefix
        || names.contains(&lower.as_str())
    {
        return None;
    }
    names.extend(of_server);
    names.extend(CORE);
    names.push("name");
    if section != "INPUT" {
        names.extend(CORE_ROUTED);
    }
    match section {
        "OUTPUT" => names.extend(CORE_OUTPUT),
        "INPUT" => names.extend(CORE_INPUT),
        _ => {}
    }
    let elsewhere = FIREHOSE_OUTPUTS
        .into_iter()
        .filter(|_| section == "OUTPUT")
        .find(|other| own(section, other).is_some_and(|names| names.contains(&lower.as_str())));
    Some(Unknown { near: near(&lower, names), elsewhere })
}

/// Whether an option of this plugin may not be repeated.
pub fn is_single(section: &str, plugin: &str, key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    if is_core_of(section, &lower) || SPECIAL.contains(&lower.as_str()) {
        return false;
    }
    if section == "OUTPUT" && FIREHOSE_OUTPUTS.contains(&plugin) {
        return true;
    }
    host::plugin(section, plugin).and_then(|plugin| plugin.option(&lower)).is_some_and(|option| !option.many)
}

/// The candidate that `text` is a misspelling of.
pub fn near<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long text is not a misspelt name, and computing its distance is slow.
    let candidates = candidates.into_iter().filter(|_| text.len() <= 64);
    candidates
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}
