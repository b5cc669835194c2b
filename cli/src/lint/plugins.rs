//! What Fluent Bit's plugins refuse at their start: plugins that do not exist, values by type, and the rules of the filters that
//! EKS Fargate allows (plugins/filter_*/ of v5.1.1).

use super::conf::{Entry, Section};
use super::host::{self, Type};
use super::options::{self, near};
use super::{Findings, regex, rules};

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
        "INPUT" | "FILTER" | "OUTPUT" | "CUSTOM" => {}
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
    if section.name == "FILTER" {
        check_filter(section, &plugin, findings);
    }
}

/// Whether the value is known only at run time.
fn is_open(text: &str) -> bool {
    text.contains("${")
}

const LOG_LEVELS: [&str; 7] = ["off", "error", "warn", "warning", "info", "debug", "trace"];

fn check_value(section: &Section, plugin: Option<&host::Plugin>, entry: &Entry, findings: &mut Findings) {
    let value = entry.value.text.as_str();
    let key = entry.key.text.to_ascii_lowercase();
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
        ("INPUT" | "FILTER" | "OUTPUT", "log_level") if !LOG_LEVELS.contains(&value.to_ascii_lowercase().as_str()) => {
            refuse(findings, "write off, error, warn, info, debug or trace");
        }
        ("INPUT", "storage.type")
            if !["filesystem", "memory", "memrb"].iter().any(|t| t.eq_ignore_ascii_case(value)) =>
        {
            refuse(findings, "write filesystem, memory or memrb");
        }
        ("INPUT", "mem_buf_limit") if !host::is_size(value) => refuse(findings, SIZE),
        ("OUTPUT", "storage.total_limit_size") if host::bool_of(value) != Some(false) && !host::is_size(value) => {
            refuse(findings, SIZE);
        }
        ("INPUT" | "OUTPUT" | "FILTER", "match_regex") => {
            if let Err(why) = regex::compile(value) {
                findings.add(&rules::REGEX, entry.value.at, format!("{value}: {why}"));
            }
        }
        _ => {}
    }
    let core = options::is_core_of(&section.name, &key);
    let Some(option) = plugin.filter(|_| !core).and_then(|plugin| plugin.option(&key)) else { return };
    match option.kind {
        Type::Bool if host::bool_of(value).is_none() => refuse(findings, "write on or off"),
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

fn check_filter(section: &Section, plugin: &str, findings: &mut Findings) {
    let known = |entry: &&Entry| !is_open(&entry.value.text);
    match plugin {
        "grep" => check_grep(section, findings),
        "parser" => {
            for key in ["key_name", "parser"] {
                if section.get(key).is_none() {
                    findings.add(&rules::OPTION_MISSING, section.at, format!("parser has no {key}"));
                }
            }
        }
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
