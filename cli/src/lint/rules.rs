//! The table of rules: what each finds, its severity, and the fix.

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It will not work.
    Error,
    /// It works, but not as intended.
    Warning,
}

impl Severity {
    /// Its name in every format.
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
    /// Its name, which never changes.
    pub id: &'static str,
    pub severity: Severity,
    /// What it finds.
    pub finds: &'static str,
    /// The fix.
    pub fix: &'static str,
}

impl Rule {
    /// The rule's place in the book.
    pub fn page(&self) -> String {
        format!("lint-rules.html#{}", self.id)
    }
}

/// Rules whose errors do not stop Fluent Bit from starting: records do not reach what they should.
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

/// Whether what the rule finds stops the start of Fluent Bit, or of kubehose in it.
pub fn refuses(rule: &Rule) -> bool {
    rule.severity == Severity::Error && !STARTS.contains(&rule.id)
}

macro_rules! rules {
    ($($name:ident = $severity:ident $id:literal, $finds:literal, $fix:literal;)*) => {
        $(pub static $name: Rule = Rule { id: $id, severity: Severity::$severity, finds: $finds, fix: $fix };)*
        /// Every rule, in the order of the list.
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    // The file.
    NOT_TEXT = Error "not-text", "the file is not text in UTF-8, or far larger than any configuration",
        "give a manifest or a Fluent Bit configuration";
    BOM = Error "byte-order-mark", "the file begins with a byte order mark; Fluent Bit refuses it",
        "save the file as UTF-8 without it";
    YAML_SYNTAX = Error "yaml-syntax", "the file is not YAML", "fix it where the position points to";
    YAML_DUPLICATE_KEY = Error "yaml-duplicate-key", "a mapping has the same key twice; kubectl refuses it, or the last one wins",
        "remove one of them";
    UNKNOWN_DOCUMENT = Error "unknown-document", "the document is neither a Kubernetes manifest nor a Fluent Bit configuration",
        "give a manifest with apiVersion and kind, or a configuration with pipeline";

    // The manifest of aws-logging. https://docs.aws.amazon.com/eks/latest/userguide/fargate-logging.html
    NAMESPACE_LABEL = Error "namespace-label", "the namespace aws-observability lacks the label that makes EKS Fargate read it",
        "label it `aws-observability: enabled`, in quotes or not";
    NAMESPACE_UNSEEN = Warning "namespace-unseen",
        "aws-logging comes without its namespace, so its label cannot be checked; without the label nothing is logged",
        "kubectl label namespace aws-observability aws-observability=enabled, or lint the namespace's manifest, too";
    CONFIG_MAP_NAMESPACE = Error "configmap-namespace", "aws-logging is in another namespace than aws-observability",
        "set metadata.namespace to aws-observability";
    CONFIG_MAP_NAME = Error "configmap-name", "a ConfigMap of the namespace aws-observability is not called aws-logging",
        "set metadata.name to aws-logging";
    CONFIG_MAP_SIZE = Error "configmap-size", "aws-logging holds more than 5300 characters",
        "remove comments, alignment and filters that are not needed";
    CONFIG_MAP_NEAR_SIZE = Warning "configmap-size-near", "aws-logging is near the limit of 5300 characters",
        "leave some room: AWS does not say what exactly is counted";
    DATA_MISSING = Error "data-missing", "aws-logging has no data", "write the files under data";
    DATA_KEY = Error "data-key", "the router does not read a key under data",
        "use filters.conf, output.conf (singular), parsers.conf and flb_log_cw";
    DATA_NOT_STRING = Error "data-not-string", "a value under data is not a string, and the API server refuses it",
        "quote it";
    DATA_BINARY = Error "data-binary", "the router does not read binaryData", "write the files under data";
    FLB_LOG_CW = Error "flb-log-cw", "flb_log_cw is neither \"true\" nor \"false\"", "write 'true' or 'false'";
    OUTPUT_MISSING = Error "output-missing", "there is no [OUTPUT]", "write one under output.conf";
    SECTION_KEY = Error "section-key", "a section is under the wrong key",
        "[FILTER] goes under filters.conf, [OUTPUT] under output.conf, [PARSER] under parsers.conf";
    SECTION_NOT_ALLOWED = Error "section-not-allowed", "on EKS Fargate the router has this section itself",
        "remove it; only [FILTER], [OUTPUT] and [PARSER] are allowed";
    DIRECTIVE_NOT_ALLOWED = Error "directive-not-allowed", "EKS Fargate refuses @INCLUDE and @SET",
        "write the content in place";
    ENVIRONMENT_NOT_ALLOWED = Error "environment-not-allowed", "EKS Fargate does not expand ${…}", "write the value";
    FILTER_NOT_ALLOWED = Error "filter-not-allowed", "EKS Fargate does not allow this filter",
        "use grep, parser, record_modifier, rewrite_tag, throttle, nest, modify or kubernetes";
    OUTPUT_NOT_ALLOWED = Error "output-not-allowed", "EKS Fargate does not allow this output",
        "use kinesis_firehose, firehose, kinesis, cloudwatch_logs, cloudwatch or es; EKS Fargate loads no plugin";
    KUBERNETES_FORBIDDEN = Error "kubernetes-forbidden", "EKS Fargate forbids this option of the kubernetes filter",
        "remove it: the router knows its API server";
    KUBE_TAG_PREFIX = Warning "kube-tag-prefix", "Kube_Tag_Prefix differs from the router's tags",
        "remove it: the default, kube.var.log.containers., is right";

    // The classic format, as src/config_format/flb_cf_fluentbit.c reads it.
    INDENT = Error "indent", "the line is not indented like the others; Fluent Bit refuses the file",
        "indent all keys alike, deeper than their [SECTION], with spaces or with tabs";
    SECTION_INDENTED = Error "section-indented", "a [SECTION] is indented, so it is read as a group of the section before it",
        "begin the line with [";
    SECTION_UNCLOSED = Error "section-unclosed", "a section's name has no closing ]", "close it";
    SECTION_EMPTY = Error "section-empty", "the section has no keys; Fluent Bit refuses it for lack of a Name", "give it keys, or remove it";
    SECTION_UNKNOWN = Error "section-unknown", "there is no such section", "check its name";
    KEY_OUTSIDE = Error "key-outside", "a key comes before the first section", "move it into a section";
    VALUE_MISSING = Error "value-missing", "the key has no value after a space; Fluent Bit refuses the file",
        "write a space, not a tab, and a value";
    NAME_MISSING = Error "name-missing", "the section has no Name", "add Name";
    MATCH_MISSING = Error "match-missing", "the section has no Match, so no record reaches it", "add Match";
    OUTPUT_UNMATCHED = Warning "output-unmatched", "the output has no Match, so no record reaches it", "add Match";
    PARSER_SECTION = Error "parser-section", "the main file has a [PARSER], which Fluent Bit refuses",
        "move it into a file of its own, and name that in [SERVICE] parsers_file";
    PARSER_TWICE = Error "parser-twice", "two parsers have the same name; Fluent Bit refuses the second", "rename one of them";
    PARSER_FORMAT = Error "parser-format", "the parser has no Format that exists", "add Format, mostly regex or json";
    PARSER_REGEX = Error "parser-regex", "a parser of Format regex has no Regex", "add Regex";
    PLUGINS_SECTION = Error "plugins-section", "[PLUGINS] in the main file fails on Fluent Bit 5",
        "move it into a file of its own, and name that in [SERVICE] plugins_file";
    PLUGIN_FILE = Error "plugin-file", "Fluent Bit loads a plugin whose file name begins with flb- as one written in C",
        "rename the file";
    YAML_KEY = Error "yaml-key", "there is no such key in a Fluent Bit configuration", "check its name";
    YAML_SHAPE = Error "yaml-shape", "this part of the configuration is a list, a mapping or a text where Fluent Bit reads another",
        "write it as the message says: the entries of a list begin with -";

    // Options.
    PLACEHOLDER = Error "placeholder", "a placeholder of the guide is still there", "replace it by the value";
    PLACEHOLDER_LEFT = Warning "placeholder-left", "a value looks like a placeholder", "replace it by the value";
    OPTION_UNKNOWN = Error "option-unknown", "the plugin has no such option", "check its name";
    OPTION_TWICE = Error "option-twice", "an option that is allowed once is there twice; Fluent Bit refuses it", "remove one of them";
    OPTION_NUMBER = Warning "option-number", "the value is not what the option takes, and Fluent Bit reads it as 0 or the default, or as neither on nor off",
        "write a number, a size, on or off";
    OPTIONS_EXCLUDE = Error "options-exclude", "the options exclude each other; Fluent Bit refuses them", "remove one of them";
    OPTIONS_TOGETHER = Error "options-together", "kubehose refuses this combination of options", "do what the message says";
    PLUGIN_UNKNOWN = Error "plugin-unknown", "there is no such plugin; Fluent Bit refuses the file", "check its name, or load it with plugins_file";
    ARITY = Error "arity", "the value has too few or too many words for the plugin", "write all words, and quote those with blanks";
    MODIFY_WORDS = Warning "modify-words", "modify starts with this number of words, but does something else with them",
        "quote a value that has blanks, and write all words";
    REGEX = Error "regex", "the regular expression does not compile", "fix it; Fluent Bit uses Ruby's dialect (Onigmo)";
    OPTION_MISSING = Error "option-missing", "the plugin does not start without this option", "add it";
    OPTION_VALUE = Error "option-value", "the option does not accept this value", "use an accepted value";
    REGION = Error "region", "this is not an AWS region", "write one such as eu-west-1";
    STREAM_NAME = Error "stream-name", "this is not a delivery stream's name",
        "write the name alone, not the ARN: 1 to 64 of a-z A-Z 0-9 _ . -";
    TLS_ON = Error "tls-on", "the plugin does not use Fluent Bit's `tls`; `tls on` stops the start",
        "remove it: the AWS outputs use TLS by themselves";
    HOST_PORT = Error "host-port", "Fluent Bit does not pass `host` and `port` to kubehose, which uses the region's endpoint",
        "write both into endpoint, as host:port";
    LOG_KEY = Warning "log-key", "log_key sends only that key's value, without any name, id or namespace",
        "remove it";
    TIME_KEY = Warning "time-key",
        "a parser removes the time from the record and the output does not add it: in Datadog the log has the time of its receipt",
        "add time_key _timestamp and time_key_format %Y-%m-%dT%H:%M:%S.%3NZ";
    TIME_FORMAT = Warning "time-format", "the output's time has no zone or no milliseconds",
        "add time_key_format %Y-%m-%dT%H:%M:%S.%3NZ";
    RETRY_LIMIT = Warning "retry-limit", "with Retry_Limit 1 (the default) Fluent Bit drops a chunk that the output did not take twice",
        "set Retry_Limit no_limits or a number, and storage.type filesystem on the input";
    WORKERS = Warning "workers", "with Workers 0 (the default) each flush stops the whole pipeline", "set Workers 1 or more";
    STORAGE_PATH = Error "storage-path", "an input keeps its chunks in files, but there is no storage.path",
        "set storage.path in [SERVICE]";

    // What reaches what.
    MATCH_NOTHING = Error "match-nothing", "the Match fits the tag of no input", "match the tags of the inputs";
    FILTER_UNSEEN = Error "filter-unseen", "the records that this filter changes reach no output",
        "give filter and output the same Match";
    OWN_LOG = Warning "own-log", "flb_log_cw adds an input with the tag flblogs.*, and this Match sends it, too", "match kube.*";
    CRI_PARSER = Warning "cri-parser",
        "nothing parses the container runtime's line: `log` keeps its prefix `… stdout F `, and JSON is never merged",
        "add a parser filter with a CRI parser before the kubernetes filter (kubehose manifest writes one)";
    PARSER_UNDEFINED = Error "parser-undefined", "the parser is not defined here, and Fluent Bit does not start without it",
        "add the [PARSER], under parsers.conf on EKS Fargate, or a [MULTILINE_PARSER] for multiline.parser";
    PARSER_IGNORED = Warning "parser-ignored", "the parser is not defined here; Fluent Bit starts, and leaves the records unparsed",
        "add the parser, in a file that [SERVICE] parsers_file names";
    CRI_NEVER_MATCHES = Error "cri-never-matches", "the parser matches no line of the container runtime, so nothing is parsed",
        "use the CRI parser (kubehose manifest writes it): time, stream, P or F, text";
    DOTTED_KEY = Warning "dotted-key", "a dot in a key is part of its name here, so nested keys are never found",
        "write a record accessor, $a['b'], for grep; lift the map with nest first, for modify";
    SAME_STREAM = Warning "same-stream", "two outputs send the same records to one stream, so each arrives twice",
        "remove one of them, or give each its own Match";
    HOT_RELOAD = Warning "hot-reload", "a hot reload leaves worker threads of a proxy plugin behind, and crashes Fluent Bit 5.1.1",
        "set Workers 0 on kubehose, or Hot_Reload Off";
    PARSER_ORDER = Error "parser-order", "the kubernetes filter comes before the parser that it needs, so JSON is never merged",
        "put the parser filter first";
    PARSER_DROPS_LOG = Warning "parser-drops-log", "the parser's expression has no group `log`, where the kubernetes filter looks for JSON to merge",
        "name the group of the text (?<log>.*)";
    KUBERNETES_MISSING = Warning "kubernetes-missing", "there is no kubernetes filter, so the names have no source",
        "add one";
    REMAP_ORDER = Error "remap-order", "the `kubernetes` map is lifted before the kubernetes filter adds it",
        "put the kubernetes filter first";
    RENAME_NESTED = Error "rename-nested", "modify works on root keys only, so this path is never found",
        "lift the `kubernetes` map with nest first, and rename the lifted key";
    RENAME_BEFORE_LIFT = Error "rename-before-lift", "no nest filter before this one lifts a key of this name",
        "lift the `kubernetes` map first, with this prefix in Add_prefix";
    NOT_NESTED_BACK = Warning "not-nested-back", "lifted keys are never nested back: the root gets many prefixed keys",
        "add nest with Operation nest, Wildcard <prefix>*, Nest_under kubernetes, Remove_prefix <prefix>";
}
