//! The rules for a router's configuration, whatever its format.

use super::conf::{self, Conf, Entry, Section};
use super::options::{self, FIREHOSE_OUTPUTS};
use super::pattern::overlap;
use super::{Findings, parsers, plugins, reader, regex, rules};
use crate::{datadog, fargate};

/// What is known about where the configuration runs.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// On EKS Fargate; whether its router's own log is an input too.
    pub fargate: Option<OwnLog>,
    /// Whether sections of any kind may be in files that are not read here.
    pub open: bool,
    /// Whether parsers may be in files that are not read here.
    pub parsers: bool,
    /// Whether it is reloaded while it runs.
    pub reloads: bool,
}

impl Scope {
    /// That of a router that is not EKS Fargate's; `open`: the configuration is one part of several. What it includes may hold
    /// anything, a file that it names for parsers only those.
    pub fn of(conf: &Conf, open: bool) -> Self {
        let open = open || conf.includes();
        let named = |section: &Section| section.name == "SERVICE" && section.get("parsers_file").is_some();
        Self { fargate: None, open, parsers: open || conf.sections.iter().any(named), reloads: false }
    }
}

/// `flb_log_cw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnLog {
    On,
    Off,
}

/// Runs all checks that need only the sections.
pub fn check(conf: &Conf, scope: Scope, findings: &mut Findings) {
    let scope = Scope { reloads: scope.reloads || reloads(conf).is_some(), ..scope };
    let count = |name: &str| conf.sections.iter().filter(|section| section.name == name).count();
    // The host connects a single input to a single output without any Match (src/flb_router.c).
    let one_to_one = count("INPUT") == 1 && count("OUTPUT") == 1 && scope.fargate.is_none();
    let loads = scope.open
        || conf.sections.iter().any(|section| {
            section.name.ends_with("PLUGINS") || section.name == "SERVICE" && section.get("plugins_file").is_some()
        });
    for section in &conf.sections {
        check_section(section, scope, conf.routes || one_to_one, findings);
        if scope.fargate.is_none() || !is_refused_on_fargate(section) {
            plugins::check(section, loads, findings);
        }
    }
    for processor in &conf.processors {
        check_processor(processor, scope, findings);
    }
    check_parser_names(conf, findings);
    if !scope.parsers {
        parsers::check(conf, findings);
    }
    check_service(conf, scope, findings);
    let on_router = Router::of(conf, scope);
    on_router.check_matches(findings);
    on_router.check_parsers(findings);
    on_router.check_remap(findings);
    on_router.check_dotted_keys(findings);
    on_router.check_same_stream(findings);
    on_router.check_outputs(findings);
}

/// Whether EKS Fargate's router does not allow this plugin, for which there is another rule.
fn is_refused_on_fargate(section: &Section) -> bool {
    let plugin = section.plugin();
    match section.name.as_str() {
        "FILTER" => !fargate::FILTER_NAMES.contains(&plugin.as_str()),
        "OUTPUT" => !fargate::OUTPUT_NAMES.contains(&plugin.as_str()),
        _ => false,
    }
}

/// A processor is a plugin of its own kind, or a filter, whose records are those of its input or output.
fn check_processor(section: &Section, scope: Scope, findings: &mut Findings) {
    let Some(name) = section.get("name") else {
        findings.add(&rules::NAME_MISSING, section.at, "the processor has no name".to_owned());
        return;
    };
    let mut as_plugin = section.clone();
    if section.name == "FILTER" && section.get("match").is_none() {
        let word = |text: &str| conf::Word { text: text.to_owned(), at: name.value.at };
        as_plugin.entries.push(Entry { key: word("match"), value: word("*") });
    }
    check_section(&as_plugin, scope, true, findings);
    plugins::check(&as_plugin, false, findings);
}

fn check_parser_names(conf: &Conf, findings: &mut Findings) {
    let mut names = std::collections::HashSet::new();
    for parser in conf.sections.iter().filter(|section| section.name == "PARSER") {
        if let Some(entry) = parser.get("name")
            && !names.insert(entry.value.text.as_str())
        {
            findings.add(&rules::PARSER_TWICE, entry.value.at, format!("{} stands twice", entry.value.text));
        }
    }
}

/// Whether the value is the one that the plugin will see: neither the environment's nor still to be filled in.
pub fn is_known(value: &str) -> bool {
    !value.contains("${") && placeholder(value).is_none()
}

/// A placeholder such as `<REGION>`.
fn placeholder(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let inner = rest.get(start + 1..)?;
        let end = inner.find('>')?;
        let name = inner.get(..end)?;
        let capital = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_ ".contains(&b));
        if !name.is_empty() && capital && !rest.get(..start)?.ends_with('?') {
            return rest.get(start..start + end + 2);
        }
        rest = inner;
    }
    None
}

/// A placeholder of a template engine: `#{…}#`, `{{…}}`, or a word such as CHANGE_ME.
fn template(text: &str) -> Option<&str> {
    for (open, close) in [("#{", "}#"), ("{{", "}}")] {
        if let Some(start) = text.find(open)
            && let Some(length) = text.get(start..)?.find(close)
        {
            return text.get(start..start + length + close.len());
        }
    }
    let words = ["CHANGE_ME", "CHANGEME", "REPLACE_ME", "YOUR_REGION", "YOUR-REGION"];
    words.into_iter().find(|word| text.contains(word))
}

fn check_section(section: &Section, scope: Scope, routes: bool, findings: &mut Findings) {
    let plugin = section.plugin();
    let named = conf::NAMED.contains(&section.name.as_str());
    if named && section.value("name").is_none() && !section.entries.is_empty() {
        findings.add(&rules::NAME_MISSING, section.at, format!("[{}] has no Name", section.name));
    }
    let routed = section.name == "FILTER" || (section.name == "OUTPUT" && !routes);
    if routed && section.get("match").is_none() && section.get("match_regex").is_none() && !section.entries.is_empty() {
        let refused = section.name == "FILTER" || scope.fargate.is_some();
        let rule = if refused { &rules::MATCH_MISSING } else { &rules::OUTPUT_UNMATCHED };
        findings.add(rule, section.at, format!("[{}] {plugin} has no Match", section.name));
    }
    if section.name == "PARSER" && !section.entries.is_empty() {
        match section.value("format").map(str::to_ascii_lowercase).as_deref() {
            None => findings.add(&rules::PARSER_FORMAT, section.at, format!("the parser {plugin} has no Format")),
            Some("regex") if section.get("regex").is_none() => {
                findings.add(&rules::PARSER_REGEX, section.at, format!("the parser {plugin} has no Regex"));
            }
            _ => {}
        }
    }
    for entry in &section.entries {
        let key = entry.key.text.as_str();
        let value = entry.value.text.as_str();
        if let Some(found) = placeholder(value) {
            let ours = scope.fargate.is_some() || FIREHOSE_OUTPUTS.contains(&plugin.as_str());
            let rule = if ours { &rules::PLACEHOLDER } else { &rules::PLACEHOLDER_LEFT };
            findings.add(rule, entry.value.at, format!("{key} is still {found}"));
        } else if let Some(found) = template(value) {
            findings.add(&rules::PLACEHOLDER_LEFT, entry.value.at, format!("{key} holds {found}"));
        }
        if scope.fargate.is_some() && value.contains("${") {
            findings.add(&rules::ENVIRONMENT_NOT_ALLOWED, entry.value.at, format!("{key} is {value}"));
        }
        if let Some(unknown) = options::unknown(&section.name, &plugin, key) {
            let more = match (unknown.near, unknown.elsewhere) {
                (Some(near), _) => format!(": did you mean {near}?"),
                (None, Some(other)) => format!("; it is one of {other}"),
                (None, None) => String::new(),
            };
            findings.add(&rules::OPTION_UNKNOWN, entry.key.at, format!("{plugin} has no option {key}{more}"));
        } else if options::is_single(&section.name, &plugin, key)
            && section.get(key).is_some_and(|first| first.key.at != entry.key.at)
        {
            findings.add(&rules::OPTION_TWICE, entry.key.at, format!("{key} stands twice"));
        }
    }
    if scope.fargate.is_some() {
        check_fargate_section(section, &plugin, findings);
    }
    if section.name == "OUTPUT" && FIREHOSE_OUTPUTS.contains(&plugin.as_str()) {
        check_firehose_output(section, &plugin, scope, findings);
    }
}

fn check_fargate_section(section: &Section, plugin: &str, findings: &mut Findings) {
    let Some(name) = section.get("name") else { return };
    match section.name.as_str() {
        "FILTER" if !fargate::FILTER_NAMES.contains(&plugin) => {
            let more = options::near(plugin, fargate::FILTER_NAMES)
                .map_or(String::new(), |near| format!(": did you mean {near}?"));
            findings.add(
                &rules::FILTER_NOT_ALLOWED,
                name.value.at,
                format!("{plugin} is not a supported filter{more}"),
            );
        }
        "OUTPUT" if !fargate::OUTPUT_NAMES.contains(&plugin) => {
            // Its name outside of Fargate, which looks more like another's.
            let other = (plugin == "kinesis_streams").then_some("kinesis");
            let more = other
                .or_else(|| options::near(plugin, fargate::OUTPUT_NAMES))
                .map_or(String::new(), |near| format!(": did you mean {near}?"));
            findings.add(
                &rules::OUTPUT_NOT_ALLOWED,
                name.value.at,
                format!("{plugin} is not a supported output plugin{more}"),
            );
        }
        "FILTER" if plugin == "kubernetes" => {
            for entry in &section.entries {
                let key = entry.key.text.as_str();
                if fargate::KUBERNETES_FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(key)) {
                    findings.add(&rules::KUBERNETES_FORBIDDEN, entry.key.at, format!("{key} is forbidden"));
                }
            }
            if let Some(entry) = section.get("kube_tag_prefix")
                && entry.value.text != fargate::TAG_PREFIX
            {
                findings.add(
                    &rules::KUBE_TAG_PREFIX,
                    entry.value.at,
                    format!("the tags begin with {}", fargate::TAG_PREFIX),
                );
            }
        }
        _ => {}
    }
}

fn is_switched_on(value: &str) -> bool {
    ["on", "true", "yes"].contains(&value.to_ascii_lowercase().as_str())
}

fn check_firehose_output(section: &Section, plugin: &str, scope: Scope, findings: &mut Findings) {
    let known = |entry: &&Entry| is_known(&entry.value.text);
    let environment = plugin == "kubehose" && scope.fargate.is_none();
    for (option, required) in [("region", !environment), ("delivery_stream", true)] {
        if required && section.get(option).is_none() {
            findings.add(&rules::OPTION_MISSING, section.at, format!("{plugin} has no {option}"));
        }
    }
    if let Some(entry) = section.get("region").filter(known)
        && !kubehose::options::is_region(&entry.value.text)
    {
        findings.add(&rules::REGION, entry.value.at, format!("{} is no region", entry.value.text));
    }
    if let Some(entry) = section.get("delivery_stream").filter(known)
        && !kubehose::options::is_stream_name(&entry.value.text)
        // The plugin's own reader checks a template.
        && !(plugin == "kubehose" && entry.value.text.contains('$'))
    {
        findings.add(&rules::STREAM_NAME, entry.value.at, format!("{} is no stream's name", entry.value.text));
    }
    if let Some(entry) = section.get("log_key") {
        findings.add(&rules::LOG_KEY, entry.key.at, format!("only `{}` is sent", entry.value.text));
    }
    if section.get("time_key").is_some() {
        match section.get("time_key_format") {
            None => findings.add(
                &rules::TIME_FORMAT,
                section.at,
                "the default time_key_format has neither milliseconds nor zone".to_owned(),
            ),
            Some(entry) => {
                let format = &entry.value.text;
                let zone = format.ends_with('Z') || format.contains("%z") || format.contains("%s");
                let fraction = ["%L", "%f", "%3N", "%6N", "%9N"].iter().any(|part| format.contains(part));
                if !zone || !fraction {
                    let lacks = if zone { "milliseconds" } else { "a zone" };
                    findings.add(&rules::TIME_FORMAT, entry.value.at, format!("{format} has no part for {lacks}"));
                }
            }
        }
    }
    if plugin == "kubehose" {
        check_kubehose_output(section, &known, scope, findings);
    }
}

fn check_kubehose_output(section: &Section, known: &dyn Fn(&&Entry) -> bool, scope: Scope, findings: &mut Findings) {
    for name in ["host", "port"] {
        if let Some(entry) = section.get(name) {
            findings.add(&rules::HOST_PORT, entry.key.at, format!("{name} is set"));
        }
    }
    // Those two have rules of their own, which name them if they are wrong.
    let checked_elsewhere = ["region", "delivery_stream"];
    let mut alone = true;
    for spec in kubehose::options::OPTIONS.iter().filter(|spec| !checked_elsewhere.contains(&spec.name)) {
        let Some(entry) = section.get(spec.name).filter(known) else {
            continue;
        };
        if let Some(fault) = reader::alone(spec.name, &entry.value.text) {
            findings.add(&rules::OPTION_VALUE, entry.value.at, fault);
            alone = false;
        }
    }
    if alone {
        check_together(section, known, findings);
    }
    // With workers a reload does harm: see HOT_RELOAD.
    if scope.fargate.is_none() && !scope.reloads && section.value("workers").unwrap_or("0") == "0" {
        let at = section.get("workers").map_or(section.at, |entry| entry.value.at);
        findings.add(&rules::WORKERS, at, "kubehose runs on the pipeline's own thread".to_owned());
    }
}

/// The plugin's own reader over the whole section: options that are valid alone may be refused together.
fn check_together(section: &Section, known: &dyn Fn(&&Entry) -> bool, findings: &mut Findings) {
    let left = section.get("default_delivery_stream").is_some();
    let value = |name: &str| {
        let entry = section.get(name)?;
        let text = &entry.value.text;
        match name {
            _ if placeholder(text).is_some() => None,
            "delivery_stream" => Some(reader::stream(text, left)),
            "default_delivery_stream" => Some(reader::stream(text, false)),
            _ => Some(entry).filter(known).map(|entry| entry.value.text.clone()),
        }
    };
    if let Some(message) = reader::together(&value) {
        // The message names the option that is refused.
        let named = section
            .entries
            .iter()
            .find(|entry| message.contains(&format!("'{}'", entry.key.text.to_ascii_lowercase())));
        findings.add(&rules::OPTIONS_TOGETHER, named.map_or(section.at, |entry| entry.value.at), message);
    }
}

/// What switches hot reload on.
fn reloads(conf: &Conf) -> Option<&Entry> {
    let services = conf.sections.iter().filter(|section| section.name == "SERVICE");
    services.filter_map(|service| service.get("hot_reload")).find(|entry| is_switched_on(&entry.value.text))
}

fn check_service(conf: &Conf, scope: Scope, findings: &mut Findings) {
    if scope.fargate.is_some() {
        return;
    }
    let main = conf.sections.iter().any(|section| ["INPUT", "OUTPUT", "SERVICE"].contains(&section.name.as_str()));
    for section in conf.sections.iter().filter(|section| main && conf.classic && section.name.ends_with("PARSER")) {
        findings.add(&rules::PARSER_SECTION, section.at, format!("[{}] is in the main file", section.name));
    }
    for section in conf.sections.iter().filter(|section| section.name.ends_with("PLUGINS")) {
        if main && section.name == "PLUGINS" {
            findings.add(&rules::PLUGINS_SECTION, section.at, "[PLUGINS] is in the main file".to_owned());
        }
        for entry in section.all("path") {
            if entry.value.text.rsplit('/').next().is_some_and(|file| file.starts_with("flb-")) {
                findings.add(&rules::PLUGIN_FILE, entry.value.at, entry.value.text.clone());
            }
        }
    }
    if let Some(entry) = reloads(conf) {
        let works = |section: &&Section| {
            section.name == "OUTPUT"
                && section.plugin() == "kubehose"
                && section.value("workers").is_some_and(|workers| workers != "0")
        };
        if conf.sections.iter().any(|section| works(&section)) {
            findings.add(&rules::HOT_RELOAD, entry.key.at, "kubehose has Workers".to_owned());
        }
    } else if scope.reloads {
        for section in conf.sections.iter().filter(|section| section.name == "OUTPUT" && section.plugin() == "kubehose")
        {
            if let Some(entry) = section.get("workers").filter(|entry| entry.value.text != "0") {
                findings.add(
                    &rules::HOT_RELOAD,
                    entry.value.at,
                    "the operator reloads, and kubehose has Workers".to_owned(),
                );
            }
        }
    }
    let path = conf.sections.iter().any(|section| section.name == "SERVICE" && section.get("storage.path").is_some());
    if !path && !scope.open {
        for input in conf.sections.iter().filter(|section| section.name == "INPUT") {
            if let Some(entry) = input.get("storage.type")
                && entry.value.text.eq_ignore_ascii_case("filesystem")
            {
                findings.add(&rules::STORAGE_PATH, entry.key.at, "storage.type filesystem needs it".to_owned());
            }
        }
    }
    let on_disk = conf.sections.iter().any(|section| {
        section.name == "INPUT"
            && section.value("storage.type").is_some_and(|kind| kind.eq_ignore_ascii_case("filesystem"))
    });
    for output in conf.sections.iter().filter(|section| section.name == "OUTPUT") {
        let plugin = output.plugin();
        let limit = output.value("retry_limit").unwrap_or("1");
        if FIREHOSE_OUTPUTS.contains(&plugin.as_str()) && limit == "1" && !on_disk && !scope.open {
            let at = output.get("retry_limit").map_or(output.at, |entry| entry.value.at);
            findings.add(
                &rules::RETRY_LIMIT,
                at,
                format!("{plugin} retries a chunk once, and nothing is kept on disk"),
            );
        }
    }
}

/// Lines as container runtimes write them.
const CRI_LINES: [&str; 3] = [
    "2026-01-02T03:04:05.123456789Z stdout F text",
    "2026-01-02T03:04:05.123456789+01:00 stderr F {\"level\":\"info\"}",
    "2026-01-02T03:04:05.123456789Z stdout P text",
];

/// Whether the input makes its tags of what comes in, whatever its `Tag`.
fn makes_tags(input: &Section) -> bool {
    match input.plugin().as_str() {
        // The tag of a request is its path.
        "http" => true,
        "opentelemetry" | "prometheus_remote_write" => input.value("tag_from_uri").is_none_or(is_switched_on),
        "elasticsearch" | "splunk" => input.get("tag_key").is_some(),
        "forward" => input.get("tag_prefix").is_some(),
        _ => false,
    }
}

/// The parts of a configuration that work on records, in order.
struct Router<'a> {
    scope: Scope,
    routes: bool,
    /// Whether the stream processor makes records with tags of its own.
    streams: bool,
    inputs: Vec<&'a Section>,
    filters: Vec<&'a Section>,
    outputs: Vec<&'a Section>,
    parsers: Vec<&'a Section>,
}

impl<'a> Router<'a> {
    fn of(conf: &'a Conf, scope: Scope) -> Self {
        let all = |name: &str| conf.sections.iter().filter(|section| section.name == name).collect();
        Self {
            scope,
            routes: conf.routes,
            streams: conf.sections.iter().any(|section| {
                section.name == "STREAM_TASK" || section.name == "SERVICE" && section.get("streams_file").is_some()
            }),
            inputs: all("INPUT"),
            filters: all("FILTER"),
            outputs: all("OUTPUT"),
            parsers: all("PARSER"),
        }
    }

    /// The possible tags of records; None if they cannot be known.
    fn tags(&self) -> Option<Vec<String>> {
        let emits = |filter: &&Section| ["rewrite_tag", "log_to_metrics"].contains(&filter.plugin().as_str());
        if self.routes || self.streams || self.filters.iter().any(emits) {
            return None;
        }
        if let Some(own_log) = self.scope.fargate {
            let mut tags = vec![format!("{}*", fargate::TAG_PREFIX)];
            if own_log == OwnLog::On {
                tags.push(format!("{}*", fargate::OWN_LOG_TAG_PREFIX));
            }
            return Some(tags);
        }
        if self.scope.open || self.inputs.is_empty() {
            return None;
        }
        // FireLens adds inputs of its own to a configuration: <container>-firelens-<task>.
        if self.outputs.iter().any(|output| output.value("match").is_some_and(|pattern| pattern.contains("-firelens")))
        {
            return None;
        }
        let tag = |input: &&Section| match input.value("tag") {
            Some(_) if makes_tags(input) => None,
            Some(tag) if tag.contains("${") => None,
            // `<name>` is filled from Tag_Regex.
            Some(tag) if tag.contains('<') => Some(format!("{}*", tag.split('<').next().unwrap_or_default())),
            Some(tag) => Some(tag.to_owned()),
            // forward and similar inputs have tags of their own.
            None => (input.plugin() == "tail").then(|| "tail.*".to_owned()),
        };
        self.inputs.iter().map(tag).collect()
    }

    fn check_matches(&self, findings: &mut Findings) {
        let tags = self.tags();
        for section in self.filters.iter().chain(&self.outputs) {
            let Some(entry) = section.get("match") else { continue };
            let pattern = entry.value.text.as_str();
            if let Some(tags) = &tags
                && !tags.iter().any(|tag| overlap(pattern, tag))
            {
                let message = format!("Match {pattern} fits none of {}", tags.join(", "));
                findings.add(&rules::MATCH_NOTHING, entry.value.at, message);
            } else if section.name == "FILTER"
                && section.plugin() != "rewrite_tag"
                && !self.outputs.is_empty()
                && tags.is_some()
                && !self.outputs.iter().any(|output| match output.value("match") {
                    Some(other) => overlap(pattern, other),
                    // A single input goes to a single output without any Match.
                    None => output.get("match_regex").is_some() || self.inputs.len() == 1 && self.outputs.len() == 1,
                })
            {
                findings.add(
                    &rules::FILTER_UNSEEN,
                    entry.value.at,
                    format!("no output matches the records of {pattern}"),
                );
            }
            if section.name == "OUTPUT"
                && self.scope.fargate == Some(OwnLog::On)
                && overlap(pattern, &format!("{}*", fargate::OWN_LOG_TAG_PREFIX))
            {
                findings.add(&rules::OWN_LOG, entry.value.at, format!("Match {pattern} also fits flblogs.*"));
            }
        }
    }

    fn position(&self, plugin: &str) -> Option<usize> {
        self.filters.iter().position(|filter| filter.plugin() == plugin)
    }

    /// The parser filters over `log`, with their places.
    fn log_parsers(&self) -> impl Iterator<Item = (usize, &&'a Section)> {
        self.filters.iter().enumerate().filter(|(_, filter)| {
            filter.plugin() == "parser"
                && filter.value("key_name").is_some_and(|key| key.trim_start_matches('$') == "log")
        })
    }

    fn check_parsers(&self, findings: &mut Findings) {
        let kubernetes = self.position("kubernetes");
        let parsed_by_input = self.inputs.iter().any(|input| {
            input.get("parser").is_some()
                || input.get("multiline.parser").is_some()
                || input.get("docker_mode").is_some()
        });
        if let Some(kubernetes) = kubernetes {
            let filter = self.filters[kubernetes];
            let files = self.scope.fargate.is_some() || self.inputs.iter().any(|input| input.plugin() == "tail");
            let first = self.log_parsers().map(|(index, _)| index).min();
            match first {
                None if files && !parsed_by_input => {
                    findings.add(
                        &rules::CRI_PARSER,
                        filter.at,
                        "no parser comes before the kubernetes filter".to_owned(),
                    );
                }
                Some(parser) if parser > kubernetes && !parsed_by_input => {
                    findings.add(&rules::PARSER_ORDER, filter.at, "the parser filter comes later".to_owned());
                }
                _ => {}
            }
        }
        for (_, filter) in self.log_parsers() {
            for entry in filter.all("parser") {
                let definition =
                    self.parsers.iter().find(|parser| parser.value("name") == Some(entry.value.text.as_str()));
                let Some(parser) = definition else { continue };
                self.check_cri(parser, entry, findings);
                if let Some(regex) = parser.get("regex")
                    && kubernetes.is_some()
                    && !filter.value("preserve_key").is_some_and(is_switched_on)
                    && !["(?<log>", "(?P<log>"].iter().any(|group| regex.value.text.contains(group))
                {
                    findings.add(&rules::PARSER_DROPS_LOG, regex.value.at, "there is no (?<log>…)".to_owned());
                }
            }
        }
        let takes_time = |parser: &&&Section| {
            parser.get("time_key").is_some() && !parser.value("time_keep").is_some_and(is_switched_on)
        };
        let used = |parser: &&&Section| {
            self.log_parsers()
                .any(|(_, filter)| filter.all("parser").any(|entry| parser.value("name") == Some(&entry.value.text)))
        };
        if self.parsers.iter().filter(takes_time).any(|parser| used(&parser)) {
            for output in &self.outputs {
                if FIREHOSE_OUTPUTS.contains(&output.plugin().as_str()) && output.get("time_key").is_none() {
                    findings.add(&rules::TIME_KEY, output.at, format!("{} has no time_key", output.plugin()));
                }
            }
        }
    }

    /// Whether the first parser over `log` of a container's file fits any line that the runtime writes.
    fn check_cri(&self, parser: &Section, used: &Entry, findings: &mut Findings) {
        let containers = |input: &Section| input.value("path").is_some_and(|path| path.contains("/containers/"));
        let first = self.log_parsers().next().and_then(|(_, filter)| filter.get("parser"));
        let files = self.scope.fargate.is_some() || self.inputs.iter().any(|input| containers(input));
        let parsed_by_input = self
            .inputs
            .iter()
            .any(|input| ["parser", "multiline.parser", "docker_mode"].iter().any(|key| input.get(key).is_some()));
        // With several parsers, one that fits is enough; a later filter sees what an earlier one made.
        let alone = self.log_parsers().next().is_some_and(|(_, filter)| filter.all("parser").count() == 1);
        if !files || parsed_by_input || !alone || first.is_none_or(|first| first.key.at != used.key.at) {
            return;
        }
        // A docker parser for docker's own files is right on clusters that still have it.
        let Some(regex) = parser.get("regex") else { return };
        let Ok(compiled) = regex::compile(&regex.value.text) else { return };
        if !CRI_LINES.iter().any(|line| compiled.find(line).is_some()) {
            let message = format!("{} does not match `{}`", used.value.text, CRI_LINES[0]);
            findings.add(&rules::CRI_NEVER_MATCHES, regex.value.at, message);
        }
    }

    /// The prefixes that nest filters before that one give to keys.
    fn prefixes_before(&self, index: usize) -> Vec<&str> {
        let before = self.filters.iter().take(index).filter(|filter| filter.plugin() == "nest");
        before.filter_map(|filter| filter.value("add_prefix")).filter(|prefix| !prefix.is_empty()).collect()
    }

    fn check_dotted_keys(&self, findings: &mut Findings) {
        for (index, filter) in self.filters.iter().enumerate() {
            let prefixes = self.prefixes_before(index);
            let keys: &[&str] = match filter.plugin().as_str() {
                "grep" => &["regex", "exclude"],
                "modify" => &["rename", "hard_rename", "copy", "hard_copy", "remove"],
                _ => continue,
            };
            let entries =
                filter.entries.iter().filter(|entry| keys.iter().any(|key| entry.key.text.eq_ignore_ascii_case(key)));
            for entry in entries {
                let name = entry.value.text.split(' ').next().unwrap_or_default();
                let nested = ["kubernetes.", "log."].iter().any(|start| name.starts_with(start))
                    && !prefixes.iter().any(|prefix| name.starts_with(prefix));
                // modify's paths into `kubernetes` have a rule of their own.
                let renamed = filter.plugin() == "modify" && !entry.key.text.eq_ignore_ascii_case("remove");
                if nested && !(renamed && name.starts_with("kubernetes.")) {
                    findings.add(
                        &rules::DOTTED_KEY,
                        entry.value.at,
                        format!("{name} is one key with a dot in its name"),
                    );
                }
            }
        }
    }

    fn check_same_stream(&self, findings: &mut Findings) {
        for (index, output) in self.outputs.iter().enumerate() {
            let stream = |section: &Section| {
                let name = section.get("delivery_stream")?.value.text.clone();
                FIREHOSE_OUTPUTS
                    .contains(&section.plugin().as_str())
                    .then(|| (name, section.value("region").map(str::to_owned)))
            };
            let (Some(own), Some(pattern)) = (stream(output), output.value("match")) else { continue };
            let before = self.outputs.iter().take(index).find(|other| {
                stream(other).as_ref() == Some(&own)
                    && other.value("match").is_some_and(|other| overlap(other, pattern))
            });
            if let Some(other) = before {
                let message = format!("{} also gets them from the output on line {}", own.0, other.at.line);
                findings.add(&rules::SAME_STREAM, output.at, message);
            }
        }
    }

    fn check_remap(&self, findings: &mut Findings) {
        let kubernetes = self.position("kubernetes");
        let sends = self.outputs.iter().any(|output| FIREHOSE_OUTPUTS.contains(&output.plugin().as_str()));
        if kubernetes.is_none() && self.scope.fargate.is_some() && !self.scope.open && sends {
            let at = self.outputs[0].at;
            findings.add(&rules::KUBERNETES_MISSING, at, "no filter adds the pod's metadata".to_owned());
        }
        let mut prefixes: Vec<&str> = Vec::new();
        for (index, filter) in self.filters.iter().enumerate() {
            let lifts = filter.plugin() == "nest"
                && filter.value("operation").is_some_and(|name| name.eq_ignore_ascii_case("lift"));
            if lifts && filter.value("nested_under") == Some(datadog::KUBERNETES) {
                prefixes.push(filter.value("add_prefix").unwrap_or_default());
                if kubernetes.is_some_and(|kubernetes| kubernetes > index) {
                    findings.add(&rules::REMAP_ORDER, filter.at, "the kubernetes filter comes later".to_owned());
                }
                let prefix = filter.value("add_prefix").unwrap_or_default();
                let back =
                    self.filters.iter().skip(index).any(|later| {
                        later.plugin() == "nest" && later.value("nest_under") == Some(datadog::KUBERNETES)
                    });
                if !prefix.is_empty() && !back {
                    findings.add(&rules::NOT_NESTED_BACK, filter.at, format!("{prefix}* stay at the root"));
                }
            }
            if filter.plugin() == "modify" {
                let mut known = self.prefixes_before(index);
                known.extend(&prefixes);
                self.check_renames(filter, &known, findings);
            }
        }
    }

    fn check_renames(&self, filter: &Section, prefixes: &[&str], findings: &mut Findings) {
        // Without that filter, as on ECS, a name such as container_name is a key at the root.
        let adds = self.scope.fargate.is_some() || self.position("kubernetes").is_some();
        let rules_of_names = ["rename", "hard_rename", "copy", "hard_copy"];
        for entry in &filter.entries {
            if !rules_of_names.contains(&entry.key.text.to_ascii_lowercase().as_str()) {
                continue;
            }
            let source = entry.value.text.split_whitespace().next().unwrap_or_default();
            let bare = source.trim_start_matches('$');
            let lifted = prefixes.iter().any(|prefix| source.starts_with(prefix));
            if lifted {
                continue;
            }
            if bare.starts_with("kubernetes.") || bare.starts_with("kubernetes[") {
                findings.add(&rules::RENAME_NESTED, entry.value.at, format!("{source} is a path"));
            } else if adds
                && datadog::kubernetes_fields().any(|(field, target)| source.ends_with(field) && source != target)
            {
                findings.add(&rules::RENAME_BEFORE_LIFT, entry.value.at, format!("no filter before adds {source}"));
            }
        }
    }

    fn check_outputs(&self, findings: &mut Findings) {
        if self.scope.fargate.is_some() && self.outputs.is_empty() && !self.scope.open {
            findings.add_at_start(&rules::OUTPUT_MISSING, "nothing is sent anywhere".to_owned());
        }
    }
}
