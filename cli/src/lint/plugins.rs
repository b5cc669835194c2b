//! What Fluent Bit's plugins refuse at their start: plugins that do not exist, values by type, and the rules of the filters that
//! EKS Fargate allows (plugins/filter_*/ of v5.1.1).

use super::conf::{Entry, Section};
use super::host::{self, Type};
use super::options::{self, near};
use super::{Findings, regex, required, rules};

/// Go plugins that the images of AWS load on their command line.
const LOADED: [&str; 4] = ["kubehose", "firehose", "kinesis", "cloudwatch"];

/// Checks one section; `loads` says whether plugins come from files that are not read here.
pub fn check(section: &Section, loads: bool, findings: &mut Findings) {
    if findings.is_full() {
        return;
    }
    let plugin = section.plugin();
    match section.name.as_str() {
        "PARSER" => return check_parser(section, findings),
        "MULTILINE_PARSER" => return check_multiline(section, findings),
        "SERVICE" => return check_service(section, findings),
        "INPUT" | "FILTER" | "OUTPUT" | "CUSTOM" | "PROCESSOR" => {}
        _ => return,
    }
    let Some(name) = section.get("name").filter(|name| !is_open(&name.value.text)) else { return };
    let go = section.name == "OUTPUT" && LOADED.contains(&plugin.as_str());
    let known = host::plugin(&section.name, &plugin);
    if known.is_none() && !go {
        let names = host::plugins(&section.name).iter().map(|plugin| plugin.name);
        let candidates: Vec<&str> = names.chain(LOADED.into_iter().filter(|_| section.name == "OUTPUT")).collect();
        let close = near(&plugin, candidates);
        if !loads {
            let more = close.map_or(String::new(), |close| format!(": did you mean {close}?"));
            findings.add(&rules::PLUGIN_UNKNOWN, name.value.at, format!("there is no plugin {plugin}{more}"));
        }
        return;
    }
    for entry in &section.entries {
        check_value(section, known, entry, findings);
    }
    let tls = known.is_some_and(|known| known.tls);
    if let Some(entry) = section.get("tls").filter(|entry| host::bool_of(&entry.value.text) == Some(true))
        && section.name != "FILTER"
        && !tls
    {
        findings.add(&rules::TLS_ON, entry.key.at, format!("{plugin} does not take tls"));
    }
    if section.name == "INPUT" {
        check_tls_of_input(section, known, findings);
    }
    if section.name == "FILTER" {
        check_filter(section, &plugin, findings);
    }
    if let Some(known) = known {
        required::check(section, known.name, findings);
    }
}

/// What an input needs for TLS (src/flb_input.c).
fn check_tls_of_input(section: &Section, known: Option<&host::Plugin>, findings: &mut Findings) {
    let on = section.get("tls").is_some_and(|entry| host::bool_of(&entry.value.text) == Some(true));
    if on && known.is_some_and(|known| known.server && known.tls) {
        for key in ["tls.crt_file", "tls.key_file"].into_iter().filter(|key| section.get(key).is_none()) {
            findings.add(&rules::OPTION_MISSING, section.at, format!("tls has no {key}"));
        }
    }
    // Without TLS there is nothing that it could set these on, and the host crashes.
    let open = section.get("tls").is_some_and(|entry| is_open(&entry.value.text));
    for key in ["tls.ciphers", "tls.max_version", "tls.min_version"] {
        if let Some(entry) = section.get(key).filter(|_| !on && !open) {
            let message = format!("{} without tls on crashes Fluent Bit 5.1.1", entry.key.text);
            findings.add(&rules::OPTION_MISSING, entry.key.at, message);
        }
    }
}

/// Whether the value is known only at run time, or once a template was filled in.
pub fn is_open(text: &str) -> bool {
    text.contains("${") || text.contains("{{")
}

const LEVEL: &str = "write off, error, warn, info, debug or trace";
const LOG_LEVELS: [&str; 7] = ["off", "error", "warn", "warning", "info", "debug", "trace"];

fn check_value(section: &Section, plugin: Option<&host::Plugin>, entry: &Entry, findings: &mut Findings) {
    let value = entry.value.text.as_str();
    let key = entry.key.text.to_ascii_lowercase();
    if value.is_empty() && needs_value(&section.name, &key) {
        // In YAML, where an empty value is one.
        let message = format!("`{}` has no value", entry.key.text);
        findings.add(&rules::VALUE_MISSING, entry.key.at, message);
    }
    if is_open(value) || value.is_empty() {
        return;
    }
    let refuse = |findings: &mut Findings, why: &str| {
        findings.add(
            &rules::OPTION_VALUE,
            entry.value.at,
            format!("{}: '{value}' is not accepted; {why}", entry.key.text),
        );
    };
    match (section.name.as_str(), key.as_str()) {
        ("INPUT" | "FILTER" | "OUTPUT" | "PROCESSOR", "log_level")
            if !LOG_LEVELS.contains(&value.to_ascii_lowercase().as_str()) =>
        {
            refuse(findings, LEVEL);
        }
        ("INPUT", "storage.type")
            if !["filesystem", "memory", "memrb"].iter().any(|t| t.eq_ignore_ascii_case(value)) =>
        {
            refuse(findings, "write filesystem, memory or memrb");
        }
        ("INPUT", "mem_buf_limit" | "rate_gate.max_bytes") if !host::is_size(value) || value == "-1" => {
            refuse(findings, SIZE);
        }
        ("INPUT", key) if INPUT_BOOLS.contains(&key) && host::bool_of(value).is_none() => refuse(findings, SWITCH),
        ("INPUT", "rate_window" | "thread.ring_buffer.capacity") if number(value) < 1 => {
            refuse(findings, "write a number from 1 on");
        }
        ("INPUT", "thread.ring_buffer.window") if !(1..=100).contains(&number(value)) => {
            refuse(findings, "write a number from 1 to 100");
        }
        ("INPUT", "rate_gate.max_records") if value.parse::<u64>().is_err() => refuse(findings, "write a number"),
        ("INPUT", "rate_gate.resume_ratio") if !value.parse().is_ok_and(|ratio| 0.0 < ratio && ratio < 1.0) => {
            refuse(findings, "write a number between 0 and 1");
        }
        ("INPUT" | "OUTPUT" | "FILTER", "log_suppress_interval") if number(value) == -1 => {
            refuse(findings, "write a time such as 10s");
        }
        ("OUTPUT", "storage.total_limit_size")
            if host::bool_of(value) != Some(false) && (!host::is_size(value) || value == "-1") =>
        {
            refuse(findings, SIZE);
        }
        ("OUTPUT", "retry_limit")
            if number(value) < 1
                && !["no_limits", "false", "off", "no_retries"].iter().any(|word| word.eq_ignore_ascii_case(value)) =>
        {
            let message = format!(
                "{}: '{value}' is read as 1; write a number from 1 on, no_limits or no_retries",
                entry.key.text
            );
            findings.add(&rules::OPTION_NUMBER, entry.value.at, message);
        }
        ("OUTPUT", "workers") if !host::begins_with_number(value) => {
            findings.add(&rules::OPTION_NUMBER, entry.value.at, format!("{}: '{value}' is read as 0", entry.key.text));
        }
        ("INPUT" | "OUTPUT" | "FILTER", "match_regex") => {
            if let Err(why) = regex::compile(value) {
                findings.add(&rules::REGEX, entry.value.at, format!("{value}: {why}"));
            }
        }
        _ => {}
    }
    let core = options::is_core_of(&section.name, &key);
    let option = plugin.and_then(|plugin| match options::shared(&section.name, plugin, &key) {
        None if !core => plugin.option(&key),
        shared => shared,
    });
    let Some(option) = option else { return };
    match option.kind {
        Type::Bool if host::bool_of(value).is_none() => refuse(findings, SWITCH),
        Type::Int | Type::Double | Type::Time if !host::begins_with_number(value) && host::bool_of(value).is_none() => {
            findings.add(&rules::OPTION_NUMBER, entry.value.at, format!("{}: '{value}' is read as 0", entry.key.text));
        }
        Type::Size if !host::is_size(value) && host::bool_of(value).is_none() => {
            findings.add(&rules::OPTION_NUMBER, entry.value.at, format!("{}: '{value}' is no size", entry.key.text));
        }
        Type::Words(count) if option.many => {
            let found = host::words(value, count).len();
            if found < count {
                refuse_words(findings, entry, count, found);
            }
        }
        Type::Commas(count) if option.many && value.split(',').filter(|part| !part.is_empty()).count() < count => {
            refuse_words(findings, entry, count, value.split(',').count());
        }
        _ => {}
    }
}

const SIZE: &str = "write a size such as 5M";
const SWITCH: &str = "write on or off";

/// What the core of every input reads as a boolean, and refuses if it is none; other such options are then off.
const INPUT_BOOLS: [&str; 5] =
    ["threaded", "storage.pause_on_chunks_overlimit", "rate_gate", "rate_gate.backpressure", "tls.verify_client_cert"];

/// The number at the beginning of a text, as C reads it (atoi).
fn number(text: &str) -> i64 {
    let text = text.trim_start();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let value = digits[..end].parse().unwrap_or(0);
    if text.starts_with('-') { -value } else { value }
}

/// Whether the core refuses the option without a value (src/flb_input.c, src/flb_output.c, src/flb_filter.c).
fn needs_value(section: &str, key: &str) -> bool {
    let empty = match section {
        "INPUT" => key == "listen" || key == "host" || key == "port",
        "OUTPUT" => ["host", "port", "match", "match_regex", "retry_limit"].contains(&key),
        "FILTER" => key != "log_level",
        _ => return false,
    };
    options::is_core_of(section, key)
        && !empty
        && !["net.", "oauth2", "tls.", "_debug."].iter().any(|family| key.starts_with(family))
}

/// What `[SERVICE]` reads by type (src/flb_config.c).
const SERVICE: &[(&str, Type)] = &[
    ("daemon", Type::Bool),
    ("dns.prefer_ipv4", Type::Bool),
    ("dns.prefer_ipv6", Type::Bool),
    ("enable_chunk_trace", Type::Bool),
    ("flush.adaptive", Type::Bool),
    ("flush.adaptive.down_steps", Type::Int),
    ("flush.adaptive.high_pressure", Type::Double),
    ("flush.adaptive.low_pressure", Type::Double),
    ("flush.adaptive.max_interval", Type::Double),
    ("flush.adaptive.medium_pressure", Type::Double),
    ("flush.adaptive.min_interval", Type::Double),
    ("flush.adaptive.up_steps", Type::Int),
    ("grace", Type::Int),
    ("hc_errors_count", Type::Int),
    ("hc_period", Type::Int),
    ("hc_retry_failure_count", Type::Int),
    ("health_check", Type::Bool),
    ("hot_reload", Type::Bool),
    ("hot_reload.ensure_thread_safety", Type::Bool),
    ("hot_reload.timeout", Type::Int),
    ("http_port", Type::Int),
    ("http_server", Type::Bool),
    ("json.convert_nan_to_null", Type::Bool),
    ("json.escape_unicode", Type::Bool),
    ("multiline_buffer_limit", Type::Size),
    ("scheduler.base", Type::Int),
    ("scheduler.cap", Type::Int),
    ("security.fips_mode", Type::Bool),
    ("sp.convert_from_str_to_num", Type::Bool),
    ("storage.backlog.flush_on_shutdown", Type::Bool),
    ("storage.backlog.mem_limit", Type::Size),
    ("storage.checksum", Type::Bool),
    ("storage.delete_irrecoverable_chunks", Type::Bool),
    ("storage.inherit", Type::Bool),
    ("storage.keep.rejected", Type::Bool),
    ("storage.max_chunks_up", Type::Int),
    ("storage.metrics", Type::Bool),
    ("storage.rejected.limit", Type::Size),
    ("storage.trim_files", Type::Bool),
    ("windows.maxstdio", Type::Int),
];

/// The smallest stack of a coroutine: a page.
const MIN_STACK: i64 = 4096;

fn check_service(section: &Section, findings: &mut Findings) {
    for entry in section.entries.iter().filter(|entry| !is_open(&entry.value.text)) {
        let value = entry.value.text.as_str();
        let key = entry.key.text.to_ascii_lowercase();
        let counts = section.get(&key).is_some_and(|last| last.key.at == entry.key.at);
        let why = match key.as_str() {
            "log_level" if !LOG_LEVELS.contains(&value.to_ascii_lowercase().as_str()) => LEVEL,
            "flush" if counts && !is_positive(value) => "write seconds, more than 0",
            "coro_stack_size" if counts && (0..MIN_STACK).contains(&number(value)) => "write bytes, 4096 or more",
            "storage.sync" if counts && !["normal", "full"].iter().any(|mode| mode.eq_ignore_ascii_case(value)) => {
                "write normal or full"
            }
            key if key == "telemetry" || key.starts_with("telemetry.") => "it is a mapping, in YAML only",
            _ => {
                let kind = SERVICE.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind);
                let read = match kind.filter(|_| counts) {
                    Some(Type::Bool) if host::bool_of(value).is_none() => "is neither on nor off, and read as neither",
                    Some(Type::Int | Type::Double) if !host::begins_with_number(value) => "is read as 0",
                    Some(Type::Size) if !host::is_size(value) => "is no size",
                    _ => continue,
                };
                let message = format!("{}: '{value}' {read}", entry.key.text);
                findings.add(&rules::OPTION_NUMBER, entry.value.at, message);
                continue;
            }
        };
        let message = format!("{}: '{value}' is not accepted; {why}", entry.key.text);
        findings.add(&rules::OPTION_VALUE, entry.value.at, message);
    }
}

/// Whether C reads a number above 0 at the beginning of the text (atof).
fn is_positive(text: &str) -> bool {
    let text = text.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].bytes().any(|b| (b'1'..=b'9').contains(&b))
}

fn refuse_words(findings: &mut Findings, entry: &Entry, wanted: usize, found: usize) {
    let words = if wanted == 1 { "word" } else { "words" };
    findings.add(&rules::ARITY, entry.value.at, format!("{} needs {wanted} {words} and has {found}", entry.key.text));
}

fn check_regex(entry: &Entry, pattern: &str, findings: &mut Findings) {
    if let Err(why) = regex::compile(pattern) {
        findings.add(&rules::REGEX, entry.value.at, format!("{pattern}: {why}"));
    }
}

fn check_parser(section: &Section, findings: &mut Findings) {
    let format = section.value("format").unwrap_or_default().to_ascii_lowercase();
    let known = ["regex", "json", "ltsv", "logfmt"];
    if let Some(entry) = section.get("format").filter(|entry| !is_open(&entry.value.text))
        && !known.contains(&format.as_str())
    {
        findings.add(&rules::PARSER_FORMAT, entry.value.at, format!("{format} is none of {}", known.join(", ")));
    }
    if let Some(entry) = section.get("regex").filter(|entry| !is_open(&entry.value.text))
        && format == "regex"
    {
        check_regex(entry, &entry.value.text, findings);
    }
    if let Some(zone) = section.get("time_zone") {
        for other in ["time_offset"] {
            if section.get(other).is_some() && section.get("time_format").is_some() {
                findings.add(&rules::OPTION_VALUE, zone.key.at, format!("time_zone and {other} exclude each other"));
            }
        }
        if section.get("time_format").is_none() {
            findings.add(&rules::OPTION_VALUE, zone.key.at, "time_zone needs time_format".to_owned());
        }
    }
}

/// The types of a parser for several lines; only the first has rules.
const MULTILINE_TYPES: [&str; 4] = ["regex", "endswith", "equal", "eq"];
/// The state in which its first rule has to be used.
const START: &str = "start_state";

/// Checks a parser for several lines as src/flb_parser.c and src/multiline/flb_ml_rule.c do.
fn check_multiline(section: &Section, findings: &mut Findings) {
    let Some(kind) = section.get("type") else {
        findings.add(&rules::OPTION_MISSING, section.at, "the parser has no type".to_owned());
        return;
    };
    let value = kind.value.text.as_str();
    if is_open(value) {
        return;
    }
    if !MULTILINE_TYPES.iter().any(|known| known.eq_ignore_ascii_case(value)) {
        let message = format!("{}: '{value}' is none of {}", kind.key.text, MULTILINE_TYPES.join(", "));
        findings.add(&rules::OPTION_VALUE, kind.value.at, message);
    }
    if !value.eq_ignore_ascii_case("regex") {
        return;
    }
    let lines: Vec<(&Entry, Vec<String>)> =
        section.all("rule").map(|entry| (entry, host::words(&entry.value.text, 3))).collect();
    let states = |words: &[String]| -> Vec<String> {
        let from = words.first().map(String::as_str).unwrap_or_default();
        from.split(',').map(|state| state.trim().to_owned()).collect()
    };
    let all: Vec<String> = lines.iter().flat_map(|(_, words)| states(words)).collect();
    for (index, (entry, words)) in lines.iter().enumerate() {
        let Some(pattern) = words.get(1) else {
            findings.add(&rules::ARITY, entry.value.at, "a rule needs a state and an expression".to_owned());
            continue;
        };
        check_regex(entry, pattern, findings);
        if index == 0 && !states(words).iter().any(|state| state == START) {
            findings.add(&rules::OPTION_VALUE, entry.value.at, format!("the first rule is not for {START}"));
        }
        if let Some(next) = words.get(2).filter(|next| !all.contains(next)) {
            findings.add(&rules::OPTION_VALUE, entry.value.at, format!("no rule is for the state {next}"));
        }
    }
}

fn check_filter(section: &Section, plugin: &str, findings: &mut Findings) {
    let known = |entry: &&Entry| !is_open(&entry.value.text);
    match plugin {
        "grep" => check_grep(section, findings),
        "record_modifier" => {
            let keeps = ["allowlist_key", "whitelist_key"].iter().find_map(|key| section.get(key));
            if let (Some(_), Some(keeps)) = (section.get("remove_key"), keeps) {
                let message = format!("{} and Remove_key exclude each other", keeps.key.text);
                findings.add(&rules::OPTIONS_EXCLUDE, keeps.key.at, message);
            }
        }
        "rewrite_tag" => {
            for entry in section.all("rule").filter(known) {
                let words = host::words(&entry.value.text, 4);
                if let Some(pattern) = words.get(1).filter(|_| words.len() >= 4) {
                    check_regex(entry, pattern, findings);
                }
            }
            if let Some(entry) = section.get("emitter_storage.type").filter(known)
                && !["memory", "filesystem"].iter().any(|kind| kind.eq_ignore_ascii_case(&entry.value.text))
            {
                let message = format!("Emitter_Storage.type: '{}' is neither memory nor filesystem", entry.value.text);
                findings.add(&rules::OPTION_VALUE, entry.value.at, message);
            }
        }
        "nest" => {
            if let Some(entry) = section.get("operation").filter(known)
                && !["nest", "lift"].iter().any(|word| entry.value.text.starts_with(word))
            {
                let message = format!("Operation: '{}' is neither nest nor lift, in small letters", entry.value.text);
                findings.add(&rules::OPTION_VALUE, entry.value.at, message);
            }
            if let (Some(_), Some(entry)) = (section.get("add_prefix"), section.get("remove_prefix")) {
                let message = "Add_prefix and Remove_prefix exclude each other".to_owned();
                findings.add(&rules::OPTIONS_EXCLUDE, entry.key.at, message);
            }
        }
        "type_converter" => {
            let keys = ["int_key", "uint_key", "float_key", "str_key"];
            let is_rule = |entry: &&Entry| keys.iter().any(|key| entry.key.text.eq_ignore_ascii_case(key));
            for entry in section.entries.iter().filter(is_rule).filter(known) {
                let words = host::words(&entry.value.text, 3);
                if let Some(kind) = words.get(2).filter(|kind| !is_type(kind.trim())) {
                    let message = format!("{}: '{kind}' is none of {}", entry.key.text, TYPES.join(", "));
                    findings.add(&rules::OPTION_VALUE, entry.value.at, message);
                }
            }
        }
        "modify" => section.entries.iter().filter(known).for_each(|entry| check_modify(entry, findings)),
        _ => {}
    }
}

fn check_grep(section: &Section, findings: &mut Findings) {
    let rules_of = |entry: &&Entry| ["regex", "exclude"].iter().any(|key| entry.key.text.eq_ignore_ascii_case(key));
    for entry in section.entries.iter().filter(rules_of).filter(|entry| !is_open(&entry.value.text)) {
        match entry.value.text.split_once(' ') {
            None => {
                findings.add(&rules::ARITY, entry.value.at, format!("{} needs a key and an expression", entry.key.text))
            }
            Some((_, pattern)) => check_regex(entry, pattern, findings),
        }
    }
    let both = section.get("regex").is_some() && section.get("exclude").is_some();
    if let Some(entry) = section.get("logical_op")
        && both
        && ["and", "or"].iter().any(|word| entry.value.text.eq_ignore_ascii_case(word))
    {
        let message = format!("with Logical_Op {} Regex and Exclude exclude each other", entry.value.text);
        findings.add(&rules::OPTIONS_EXCLUDE, entry.value.at, message);
    }
}

/// What type_converter converts to (src/flb_typecast.c).
const TYPES: [&str; 6] = ["int", "uint", "float", "hex", "string", "bool"];

/// Whether it begins one of them, which is enough.
fn is_type(text: &str) -> bool {
    TYPES.iter().any(|kind| kind.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text)))
}

/// The conditions of modify, and how many words each needs besides its own name.
const CONDITIONS: [(&str, usize); 10] = [
    ("key_exists", 1),
    ("key_does_not_exist", 1),
    ("a_key_matches", 1),
    ("no_key_matches", 1),
    ("key_value_equals", 2),
    ("key_value_does_not_equal", 2),
    ("key_value_matches", 2),
    ("key_value_does_not_match", 2),
    ("matching_keys_have_matching_values", 2),
    ("matching_keys_do_not_have_matching_values", 2),
];

fn check_modify(entry: &Entry, findings: &mut Findings) {
    let key = entry.key.text.to_ascii_lowercase();
    let one = ["remove", "remove_wildcard", "remove_regex", "move_to_start", "move_to_end"].contains(&key.as_str());
    let two = ["rename", "hard_rename", "add", "set", "copy", "hard_copy"].contains(&key.as_str());
    if !one && !two && key != "condition" {
        return;
    }
    let Some(parts) = host::split_quoted(&entry.value.text, 3) else {
        findings.add(&rules::OPTION_VALUE, entry.value.at, format!("{}: a quote is left open", entry.key.text));
        return;
    };
    if key == "condition" {
        let Some((name, count)) =
            parts.first().and_then(|first| CONDITIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(first)))
        else {
            let first = parts.first().map_or("", String::as_str);
            let more = near(&first.to_ascii_lowercase(), CONDITIONS.map(|(name, _)| name))
                .map_or(String::new(), |near| format!(": did you mean {near}?"));
            findings.add(&rules::OPTION_VALUE, entry.value.at, format!("there is no condition {first}{more}"));
            return;
        };
        let message = format!("Condition {name} needs {count} more words and has {}", parts.len() - 1);
        // Only an expression for a value has to be there.
        let compiles = *count == 2 && name.contains("match");
        if parts.len() > 3 || (compiles && parts.len() < 3) {
            findings.add(&rules::ARITY, entry.value.at, message);
        } else if parts.len() < count + 1 {
            findings.add(&rules::MODIFY_WORDS, entry.value.at, message);
        }
        return;
    }
    let wanted = if one { 1 } else { 2 };
    match parts.as_slice() {
        // Three words are no rule that it knows, so it is the first of them.
        [first, _, last] => {
            let message = format!("{} of three words is read as Rename {first} {last}", entry.key.text);
            findings.add(&rules::MODIFY_WORDS, entry.value.at, message);
        }
        _ if parts.len() != wanted => return refuse_words(findings, entry, wanted, parts.len()),
        _ => {}
    }
    // The filter compiles the first and the last word, whatever they are used for.
    for pattern in parts.first().into_iter().chain(parts.last().filter(|_| parts.len() > 1)) {
        check_regex(entry, pattern, findings);
    }
}
