//! The table of rules: what each finds, how grave it is, and the cure.

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It will not work.
    Error,
    /// It works, and not as is wished.
    Warning,
}

impl Severity {
    /// The word for it, in every format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, for ever.
    pub id: &'static str,
    pub severity: Severity,
    /// What it finds.
    pub finds: &'static str,
    /// The cure.
    pub fix: &'static str,
}

impl Rule {
    /// The rule's place in the book.
    pub fn page(&self) -> String {
        format!("lint-rules.html#{}", self.id)
    }
}

/// Rules whose errors are about what reaches what: Fluent Bit starts all the same.
const STARTS: [&str; 9] = [
    "match-nothing",
    "filter-unseen",
    "cri-never-matches",
    "parser-order",
    "parser-drops-log",
    "remap-order",
    "rename-nested",
    "rename-before-lift",
    "unknown-document",
];

/// Whether Fluent Bit, or kubehose in it, does not start over what the rule finds.
pub fn refuses(rule: &Rule) -> bool {
    rule.severity == Severity::Error && !STARTS.contains(&rule.id)
}

macro_rules! rules {
    ($($name:ident = $severity:ident $id:literal, $finds:literal, $fix:literal;)*) => {
        $(pub static $name: Rule = Rule { id: $id, severity: Severity::$severity, finds: $finds, fix: $fix };)*
        /// Every rule, in the order in which they are listed.
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    // The file.
    NOT_TEXT = Error "not-text", "the file is not text in UTF-8, or far larger than any configuration",
        "give a manifest or a Fluent Bit configuration";
    BOM = Error "byte-order-mark", "a byte order mark stands at the beginning; Fluent Bit refuses the file",
        "save the file as UTF-8 without it";
    YAML_SYNTAX = Error "yaml-syntax", "the file is not YAML", "fix it where the position points to";
    YAML_DUPLICATE_KEY = Error "yaml-duplicate-key", "a key stands twice in one mapping; kubectl refuses it, or the last one wins",
        "leave one of them";
    UNKNOWN_DOCUMENT = Error "unknown-document", "the document is neither a Kubernetes manifest nor a Fluent Bit configuration",
        "give a manifest with apiVersion and kind, or a configuration with pipeline";

    // The manifest of aws-logging. https://docs.aws.amazon.com/eks/latest/userguide/fargate-logging.html
    NAMESPACE_LABEL = Error "namespace-label", "the namespace aws-observability lacks the label that makes EKS Fargate read it",
        "label it `aws-observability: enabled`, in quotes or not";
    NAMESPACE_UNSEEN = Warning "namespace-unseen",
        "aws-logging comes without its namespace, so its label cannot be seen; without the label nothing is logged",
        "kubectl label namespace aws-observability aws-observability=enabled, or lint the namespace's manifest along";
    CONFIG_MAP_NAMESPACE = Error "configmap-namespace", "aws-logging stands in another namespace than aws-observability",
        "set metadata.namespace to aws-observability";
    CONFIG_MAP_NAME = Error "configmap-name", "a ConfigMap of the namespace aws-observability is not called aws-logging",
        "set metadata.name to aws-logging";
    CONFIG_MAP_SIZE = Error "configmap-size", "aws-logging holds more than 5300 characters",
        "drop comments, alignment and filters that the pipeline can do without";
    CONFIG_MAP_NEAR_SIZE = Warning "configmap-size-near", "aws-logging is near its 5300 characters",
        "leave some room: it is not said what exactly is counted";
    DATA_MISSING = Error "data-missing", "aws-logging has no data", "write the files under data";
    DATA_KEY = Error "data-key", "a key under data is none that the router reads",
        "use filters.conf, output.conf (singular), parsers.conf and flb_log_cw";
    DATA_NOT_STRING = Error "data-not-string", "a value under data is not a string, and the API server refuses it",
        "quote it";
    DATA_BINARY = Error "data-binary", "binaryData is not read by the router", "write the files under data";
    FLB_LOG_CW = Error "flb-log-cw", "flb_log_cw is neither \"true\" nor \"false\"", "write 'true' or 'false'";
    OUTPUT_MISSING = Error "output-missing", "there is no [OUTPUT]", "write one under output.conf";
    SECTION_KEY = Error "section-key", "a section stands under the wrong key",
        "[FILTER] goes under filters.conf, [OUTPUT] under output.conf, [PARSER] under parsers.conf";
    SECTION_NOT_ALLOWED = Error "section-not-allowed", "the section is the router's own on EKS Fargate",
        "leave it out; only [FILTER], [OUTPUT] and [PARSER] are yours";
    DIRECTIVE_NOT_ALLOWED = Error "directive-not-allowed", "@INCLUDE and @SET are refused on EKS Fargate",
        "write the content in place";
    ENVIRONMENT_NOT_ALLOWED = Error "environment-not-allowed", "${…} is not expanded on EKS Fargate", "write the value";
    FILTER_NOT_ALLOWED = Error "filter-not-allowed", "the filter is none of those that EKS Fargate allows",
        "use grep, parser, record_modifier, rewrite_tag, throttle, nest, modify or kubernetes";
    OUTPUT_NOT_ALLOWED = Error "output-not-allowed", "the output is none of those that EKS Fargate allows",
        "use kinesis_firehose, firehose, kinesis, cloudwatch_logs, cloudwatch or es; EKS Fargate loads no plugin";
    KUBERNETES_FORBIDDEN = Error "kubernetes-forbidden", "the option is forbidden in the kubernetes filter on EKS Fargate",
        "leave it out: the router knows its API server";
    KUBE_TAG_PREFIX = Warning "kube-tag-prefix", "Kube_Tag_Prefix differs from the tags that the router gives",
        "leave it out: kube.var.log.containers. is right there";

    // The classic format, as src/config_format/flb_cf_fluentbit.c reads it.
    INDENT = Error "indent", "the line is not indented like the others; Fluent Bit refuses the file",
        "indent all keys alike, deeper than their [SECTION], with spaces or with tabs";
    SECTION_INDENTED = Error "section-indented", "a [SECTION] is indented, so it is read as a group of the section before it",
        "begin the line with [";
    SECTION_UNCLOSED = Error "section-unclosed", "a section's name has no closing ]", "close it";
    SECTION_EMPTY = Error "section-empty", "the section has no keys; Fluent Bit refuses it for lack of a Name", "give it keys, or leave it out";
    SECTION_UNKNOWN = Error "section-unknown", "there is no such section", "check its name";
    KEY_OUTSIDE = Error "key-outside", "a key stands before the first section", "put it into one";
    VALUE_MISSING = Error "value-missing", "the key has no value after a space; Fluent Bit refuses the file",
        "write a space, not a tab, and a value";
    NAME_MISSING = Error "name-missing", "the section has no Name", "add Name";
    MATCH_MISSING = Error "match-missing", "the section has no Match, so no record reaches it", "add Match";
    OUTPUT_UNMATCHED = Warning "output-unmatched", "the output has no Match, so no record reaches it", "add Match";
    PARSER_SECTION = Error "parser-section", "a [PARSER] stands in the main file, which Fluent Bit refuses",
        "put it into a file of its own, and name that in [SERVICE] parsers_file";
    PARSER_TWICE = Error "parser-twice", "two parsers have one name; Fluent Bit refuses the second", "rename one of them";
    PARSER_FORMAT = Error "parser-format", "the parser has no Format that exists", "add Format, as a rule regex or json";
    PARSER_REGEX = Error "parser-regex", "a parser of Format regex has no Regex", "add Regex";
    PLUGINS_SECTION = Error "plugins-section", "[PLUGINS] in the main file fails on Fluent Bit 5",
        "put it into a file of its own, and name that in [SERVICE] plugins_file";
    PLUGIN_FILE = Error "plugin-file", "a plugin whose file name begins with flb- is loaded as one written in C",
        "rename the file";
    YAML_KEY = Error "yaml-key", "there is no such key in a Fluent Bit configuration", "check its name";
    YAML_SHAPE = Error "yaml-shape", "this part of the configuration is a list of mappings", "begin each entry with -";

    // Options.
    PLACEHOLDER = Error "placeholder", "a placeholder of the guide is still there", "put the value in";
    PLACEHOLDER_LEFT = Warning "placeholder-left", "something is left that looks as if it is to be filled in", "put the value in";
    OPTION_UNKNOWN = Error "option-unknown", "the plugin has no such option", "check its name";
    OPTION_TWICE = Error "option-twice", "an option that may stand once only stands twice; Fluent Bit refuses it", "leave one of them";
    OPTION_NUMBER = Warning "option-number", "the option's value is no number, and Fluent Bit reads it as 0", "write a number";
    OPTIONS_EXCLUDE = Error "options-exclude", "the options exclude each other; Fluent Bit refuses them", "leave one of them";
    OPTIONS_TOGETHER = Error "options-together", "kubehose refuses the options as they stand together", "do what the message says";
    PLUGIN_UNKNOWN = Error "plugin-unknown", "there is no such plugin; Fluent Bit refuses the file", "check its name, or load it with plugins_file";
    ARITY = Error "arity", "the value has another number of words than the plugin needs", "write them all, and quote what holds blanks";
    REGEX = Error "regex", "the regular expression does not compile", "fix it; it is Ruby's dialect (Onigmo)";
    OPTION_MISSING = Error "option-missing", "the output needs this option", "add it";
    OPTION_VALUE = Error "option-value", "the option does not accept this value", "use an accepted value";
    REGION = Error "region", "this is no AWS region", "write one such as eu-west-1";
    STREAM_NAME = Error "stream-name", "this is no delivery stream's name",
        "write the name alone, not the ARN: 1 to 64 of a-z A-Z 0-9 _ . -";
    TLS_ON = Error "tls-on", "the plugin has no `tls` of the host's; `tls on` aborts the configuration",
        "leave it out: the AWS outputs speak TLS by themselves";
    HOST_PORT = Error "host-port", "`host` and `port` are Fluent Bit's own and never reach kubehose, which goes to the region's endpoint",
        "write both into endpoint, as host:port";
    LOG_KEY = Warning "log-key", "log_key sends that key's value alone, so no name, id or namespace goes along",
        "leave it out";
    TIME_KEY = Warning "time-key",
        "a parser takes the time out of the record and the output does not put it back: Datadog dates the log by its receipt",
        "add time_key _timestamp and time_key_format %Y-%m-%dT%H:%M:%S.%3NZ";
    TIME_FORMAT = Warning "time-format", "the output's time has no zone or no milliseconds",
        "add time_key_format %Y-%m-%dT%H:%M:%S.%3NZ";
    RETRY_LIMIT = Warning "retry-limit", "with Retry_Limit 1 (the default) a second failure loses the chunk",
        "set Retry_Limit no_limits or a number, and storage.type filesystem on the input";
    WORKERS = Warning "workers", "with Workers 0 (the default) each flush stops the whole pipeline", "set Workers 1 or more";
    STORAGE_PATH = Error "storage-path", "an input keeps its chunks in files, and there is no storage.path",
        "set storage.path in [SERVICE]";

    // What reaches what.
    MATCH_NOTHING = Error "match-nothing", "the Match meets the tag of no input", "match what the inputs are tagged with";
    FILTER_UNSEEN = Error "filter-unseen", "no output takes the records that this filter works on",
        "give filter and output the same Match";
    OWN_LOG = Warning "own-log", "flb_log_cw adds an input tagged flblogs.*, and this Match ships it too", "match kube.*";
    CRI_PARSER = Warning "cri-parser",
        "nothing parses the container runtime's line: `log` keeps its `… stdout F ` prefix and JSON is never merged",
        "add a parser filter with a CRI parser before the kubernetes filter (kubehose manifest writes one)";
    PARSER_UNDEFINED = Error "parser-undefined", "the parser is not defined here",
        "add the [PARSER], under parsers.conf on EKS Fargate";
    CRI_NEVER_MATCHES = Error "cri-never-matches", "the parser matches no line of the container runtime, so nothing is parsed",
        "use the CRI parser (kubehose manifest writes it): time, stream, P or F, text";
    DOTTED_KEY = Warning "dotted-key", "a dot in a key is part of its name here, so nested keys are never found",
        "write a record accessor, $a['b'], for grep; lift the map with nest first, for modify";
    SAME_STREAM = Warning "same-stream", "two outputs send the same records to one stream, so each arrives twice",
        "leave one of them, or give them a Match each";
    HOT_RELOAD = Warning "hot-reload", "a hot reload leaves worker threads of a proxy plugin behind, and crashes Fluent Bit 5.1.1",
        "set Workers 0 on kubehose, or Hot_Reload Off";
    PARSER_ORDER = Error "parser-order", "the kubernetes filter comes before the parser that it needs, so JSON is never merged",
        "put the parser filter first";
    PARSER_DROPS_LOG = Error "parser-drops-log", "the parser's expression has no group `log`, so the text itself is lost",
        "name the group of the text (?<log>.*)";
    KUBERNETES_MISSING = Warning "kubernetes-missing", "there is no kubernetes filter, so there is nothing to make the names of",
        "add one";
    REMAP_ORDER = Error "remap-order", "the `kubernetes` map is lifted before the kubernetes filter has made it",
        "put the kubernetes filter first";
    RENAME_NESTED = Error "rename-nested", "modify sees keys of the root only, so this path is never found",
        "lift the `kubernetes` map with nest first, and rename the lifted key";
    RENAME_BEFORE_LIFT = Error "rename-before-lift", "no nest filter before this one lifts a key of this name",
        "lift the `kubernetes` map first, with this prefix in Add_prefix";
    NOT_NESTED_BACK = Warning "not-nested-back", "what was lifted is never nested back: the root fills with prefixed keys",
        "add nest with Operation nest, Wildcard <prefix>*, Nest_under kubernetes, Remove_prefix <prefix>";
}
