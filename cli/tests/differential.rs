//! lint compared with the real Fluent Bit: what Fluent Bit refuses to start with is an error in lint, and what it
//! starts with is none.
//!
//! The variants are generated from a seed. FLUENT_BIT overrides the program found on PATH, VARIANTS the number of
//! variants, JUDGE_SECONDS the time for each test.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Our own generator, so that a seed always gives the same variants (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[(self.next() % from.len() as u64) as usize]
    }

    fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// Lines of the filters that EKS Fargate allows. A line that is probably refused starts with `!`, and is used less
/// often.
const FILTERS: &[(&str, &[&str])] = &[
    (
        "grep",
        &[
            "!Regex log",
            "Exclude log b",
            "Regex log a",
            "Exclude log ^(a|b)$",
            "!Regex log (",
            "Regex $log['a'] x",
            "!Exclude log *",
            "Regex log a b c",
            "Regex log /x/i",
            "!Logical_Op and",
            "!Logical_Op OR",
            "Logical_Op what",
            "!Nope x",
            "!Regex log [a",
            "Regex log (?<n>x)++",
        ],
    ),
    (
        "modify",
        &[
            "Rename a b",
            "!Rename a",
            "!Rename a b c d e",
            "Add x 1",
            "Add x \"1 2\"",
            "Remove a",
            "!Remove a b",
            "!Set a",
            "Copy a b",
            "Hard_copy a b",
            "Hard_rename a b",
            "Remove_wildcard a",
            "Remove_regex ^a",
            "!Remove_regex (",
            "!Rename ( b",
            "Move_to_start a",
            "Condition Key_exists a",
            "Condition Key_value_equals a b",
            "!Condition Key_value_matches a (",
            "!Condition Nope a",
            "Condition No_key_matches ^a",
            "!Rnema a b",
            "Set a b c",
            "Remove a b c",
            "!Add a b c d",
            "Condition Key_exists",
            "Condition Key_value_equals a",
            "!Condition Key_value_matches a",
            "!Condition Key_exists a b c",
        ],
    ),
    (
        "record_modifier",
        &[
            "Record a b",
            "!Record a",
            "Record a \"b c\"",
            "Record a b c",
            "Remove_key a",
            "Allowlist_key a",
            "!Whitelist_key b",
            "Uuid_key u",
            "!Recrod a b",
        ],
    ),
    (
        "nest",
        &[
            "Operation nest",
            "Operation lift",
            "!Operation Lift",
            "!Operation what",
            "Wildcard a*",
            "Wildcard b*",
            "Nest_under a",
            "Nested_under a",
            "Add_prefix x_",
            "Remove_prefix x_",
            "Operation nesting",
            "!Prefix a",
        ],
    ),
    (
        "throttle",
        &[
            "Rate 100",
            "Rate many",
            "Window 5",
            "Interval 1s",
            "Print_Status on",
            "!Print_Status maybe",
            "Print_Status true",
            "!Speed 1",
        ],
    ),
    (
        "rewrite_tag",
        &[
            "Rule $a ^b$ c true",
            "!Rule $a ^b$ c",
            "!Rule $a ( c false",
            "Rule $a x c maybe",
            "!Rule $a",
            "Emitter_Name e",
            "Emitter_Storage.type memory",
            "!Emitter_Storage.type disk",
            "Emitter_Mem_Buf_Limit 5M",
        ],
    ),
    ("stdout", &["Match x", "Log_Level info", "!Log_Level loud", "Alias s"]),
    ("nope", &["!a b"]),
];

const INPUTS: &[&str] = &[
    "Tag t",
    "Rate 1",
    "Rate x",
    "Dummy {\"a\":\"b\"}",
    "Log_Level debug",
    "!Log_Level x",
    "Mem_Buf_Limit 5M",
    "!Mem_Buf_Limit 5X",
    "Mem_Buf_Limit 5MB",
    "storage.type memory",
    "!storage.type what",
    "Copies 2",
    "!tls on",
    "tls off",
    "Threaded on",
    "!Nope 1",
    "Alias a",
    "!Flush_On_Startup maybe",
    "Flush_On_Startup on",
    "Routable true",
];
const OUTPUTS: &[&str] = &[
    "Match *",
    "Match t",
    "Format json_lines",
    "Log_Level warn",
    "Retry_Limit no_limits",
    "Retry_Limit x",
    "Workers 1",
    "!Nope 1",
    "!tls on",
    "tls off",
    "storage.total_limit_size 5M",
    "!storage.total_limit_size 5 parsecs",
    "json_date_key x",
    "Alias b",
    "Host x",
];

fn section(random: &mut Random, name: &str, plugin: &str, lines: &[&str], most: u64) -> Vec<String> {
    let mut keys = vec![format!("Name {plugin}")];
    for _ in 0..random.next() % (most + 1) {
        let line = random.pick(lines);
        match line.strip_prefix('!') {
            Some(line) if random.once_in(5) => keys.push(line.to_owned()),
            Some(_) => {}
            None => keys.push(line.to_owned()),
        }
    }
    if name == "FILTER" && !random.once_in(30) {
        keys.push("Match *".to_owned());
    }
    if random.once_in(40) {
        keys.remove(0);
    }
    if random.once_in(50) {
        keys.push("Alias".to_owned());
    }
    keys.insert(0, format!("[{name}]"));
    keys
}

/// A configuration in the classic format.
fn classic(random: &mut Random) -> String {
    let mut blocks = vec![section(random, "INPUT", "dummy", INPUTS, 2)];
    for _ in 0..random.next() % 3 {
        let &(plugin, lines) = &FILTERS[(random.next() % FILTERS.len() as u64) as usize];
        blocks.push(section(random, "FILTER", plugin, lines, 3));
    }
    let output = random.pick(&["null", "stdout", "stdout", "stdout", "stdout", "stdout", "stdout", "stdout", "stdotu"]);
    blocks.push(section(random, "OUTPUT", output, OUTPUTS, 2));
    let indent = random.pick(&["    ", "  ", "\t", " "]);
    let ending = if random.once_in(4) { "\r\n" } else { "\n" };
    let mut text = String::new();
    if random.once_in(30) {
        text.push('\u{feff}');
    }
    for block in blocks {
        for (index, line) in block.iter().enumerate() {
            if random.once_in(40) {
                text.push_str(
                    random.pick(&["# c", "  # c", "    # c", "\t# c", "", "  ", "    ", "        ", "#", "@SET a=b"]),
                );
                text.push_str(ending);
            }
            if index > 0 {
                text.push_str(if random.once_in(100) { random.pick(&["", "   ", "\t", "        "]) } else { indent });
            }
            match random.next() % 150 {
                0 => text.push_str(&line.replacen(' ', "\t", 1)),
                1 => text.push_str(&line.replacen(' ', "   ", 1)),
                2 => text.push_str(&line.to_ascii_lowercase()),
                3 if index == 0 => text.push_str(line.trim_end_matches(']')),
                _ => text.push_str(line),
            }
            text.push_str(ending);
        }
    }
    text
}

/// Whether Fluent Bit starts, judged by its log.
fn starts(program: &Path, folder: &Path, file: &Path) -> Option<bool> {
    let mut child = Command::new(program)
        .arg("-c")
        .arg(file)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut started = false;
    let reader = BufReader::new(child.stderr.take()?);
    for line in reader.lines().map_while(Result::ok) {
        if line.contains("stream processor started") {
            started = true;
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Some(started)
}

fn fluent_bit() -> Option<std::path::PathBuf> {
    let name = std::env::var("FLUENT_BIT").unwrap_or_else(|_| "fluent-bit".to_owned());
    let found = Command::new(&name).arg("--version").output().ok()?;
    found.status.success().then(|| name.into())
}

/// Findings about what reaches what, and about names at AWS: Fluent Bit does not look at either.
const NOT_ITS_OWN: [&str; 4] = ["match-nothing", "filter-unseen", "region", "stream-name"];

/// Judges texts, each with the ending of its file's name, by both; at least one in ten must be refused, and one started.
fn compare(what: &str, texts: Vec<(&'static str, String)>) {
    let Some(program) = fluent_bit() else {
        println!("skipped: there is no fluent-bit on PATH, and FLUENT_BIT names none");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.lua"), "function f(tag, time, record) return 0, time, record end\n").unwrap();
    let files: Vec<std::path::PathBuf> = texts
        .iter()
        .enumerate()
        .map(|(number, (ending, text))| {
            let path = folder.path().join(format!("{number}.{ending}"));
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    let mut arguments = vec!["lint".to_owned(), "--format".to_owned(), "json".to_owned()];
    arguments.extend(files.iter().map(|path| path.display().to_string()));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = support::kubehose_with(&words, b"");
    let findings: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let errors_of = |path: &Path| -> Vec<String> {
        let name = path.display().to_string();
        findings
            .iter()
            .filter(|finding| finding["file"] == name.as_str() && finding["severity"] == "error")
            .filter(|finding| !NOT_ITS_OWN.contains(&finding["rule"].as_str().unwrap()))
            .map(|finding| format!("{}:{} {}", finding["line"], finding["rule"], finding["message"]))
            .collect()
    };
    let begun = Instant::now();
    let limit = Duration::from_secs(std::env::var("JUDGE_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(50));
    let (mut judged, mut refused, mut wrong) = (0, 0, Vec::new());
    for file in &files {
        if begun.elapsed() > limit {
            break;
        }
        let Some(starts) = starts(&program, folder.path(), file) else { continue };
        judged += 1;
        refused += usize::from(!starts);
        let errors = errors_of(file);
        if starts != errors.is_empty() {
            let verdict = if starts { "starts" } else { "refuses" };
            let text = std::fs::read_to_string(file).unwrap();
            wrong.push(format!("Fluent Bit {verdict}, lint says {errors:?}:\n{text:?}\n{text}"));
        }
    }
    println!(
        "{what}: {judged} of {} variants: Fluent Bit refuses {refused}, starts with {}; {} judged otherwise",
        files.len(),
        judged - refused,
        wrong.len()
    );
    assert!(judged > 0 && refused * 10 >= judged && refused < judged, "{judged} {refused}");
    assert!(wrong.is_empty(), "{} of {judged}\n{}", wrong.len(), wrong.join("\n----\n"));
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn lint_errors_match_what_fluent_bit_refuses_to_start_with() {
    let mut random = Random(number_of("SEED", 18));
    let texts = (0..number_of("VARIANTS", 300)).map(|_| ("conf", classic(&mut random))).collect();
    compare("filters", texts);
}

/// Sections that start as they stand: what the plugin needs, and options with values of a few words.
const PLUGINS: &[(&str, &str, &[&str])] = &[
    ("INPUT", "exec", &["Command true"]),
    ("INPUT", "health", &["Host 127.0.0.1", "Port 80"]),
    ("INPUT", "netif", &["Interface lo"]),
    ("INPUT", "proc", &["Proc_Name x"]),
    ("INPUT", "syslog", &["Mode tcp", "Port 0"]),
    ("INPUT", "tail", &["Path /none", "Read_from_Head on", "storage.type memory"]),
    ("INPUT", "tail", &["Path /none", "multiline off"]),
    ("INPUT", "dummy", &["threaded on", "storage.pause_on_chunks_overlimit off", "rate_gate off", "Mem_Buf_Limit 5M"]),
    ("INPUT", "dummy", &["thread.ring_buffer.capacity 8", "thread.ring_buffer.window 5", "rate_window 10"]),
    ("INPUT", "dummy", &["rate_gate.max_bytes 5M", "rate_gate.max_records 5", "rate_gate.resume_ratio 0.5"]),
    ("FILTER", "log_to_metrics", &["Tag m", "metric_description d", "metric_mode counter"]),
    ("FILTER", "lua", &["script a.lua", "call f"]),
    ("FILTER", "multiline", &["multiline.parser docker", "mode parser"]),
    ("FILTER", "multiline", &["multiline.key_content log", "mode partial_message"]),
    ("FILTER", "nightfall", &["nightfall_api_key k", "policy_id p"]),
    ("FILTER", "type_converter", &["int_key a b string"]),
    ("OUTPUT", "azure", &["customer_id c", "shared_key a2V5"]),
    ("OUTPUT", "azure_blob", &["account_name a", "shared_key a2V5", "container_name c", "compress gzip"]),
    (
        "OUTPUT",
        "azure_kusto",
        &[
            "auth_type service_principal",
            "tenant_id a",
            "client_id b",
            "client_secret c",
            "ingestion_endpoint https://x",
            "database_name d",
            "table_name t",
        ],
    ),
    (
        "OUTPUT",
        "azure_kusto",
        &[
            "auth_type workload_identity",
            "tenant_id a",
            "client_id b",
            "ingestion_endpoint https://x",
            "database_name d",
            "table_name t",
        ],
    ),
    (
        "OUTPUT",
        "azure_logs_ingestion",
        &["tenant_id a", "client_id b", "client_secret c", "dce_url https://x", "dcr_id d", "table_name t"],
    ),
    ("OUTPUT", "cloudwatch_logs", &["log_group_name g", "log_stream_prefix s", "region eu-west-1"]),
    ("OUTPUT", "cloudwatch_logs", &["log_group_name g", "log_stream_name s", "region eu-west-1"]),
    ("OUTPUT", "datadog", &["apikey k", "compress gzip"]),
    ("OUTPUT", "elasticsearch", &["write_operation create"]),
    ("OUTPUT", "es", &["aws_auth on", "aws_region eu-west-1"]),
    ("OUTPUT", "file", &["format csv"]),
    ("OUTPUT", "forward", &["compress gzip"]),
    ("OUTPUT", "gelf", &["mode udp"]),
    ("OUTPUT", "http", &["compress snappy", "http_method PUT"]),
    (
        "OUTPUT",
        "http",
        &["oauth2.enable on", "oauth2.token_url https://x/t", "oauth2.client_id c", "oauth2.client_secret s"],
    ),
    ("OUTPUT", "kinesis_firehose", &["delivery_stream s", "region eu-west-1", "compression gzip"]),
    ("OUTPUT", "kinesis_streams", &["stream s", "region eu-west-1", "compression zstd", "time_key t"]),
    ("OUTPUT", "logdna", &["api_key k"]),
    ("OUTPUT", "nrlogs", &["license_key k"]),
    ("OUTPUT", "opensearch", &["aws_auth on", "aws_region eu-west-1"]),
    ("OUTPUT", "opentelemetry", &["compress zstd"]),
    ("OUTPUT", "s3", &["bucket b", "compression gzip", "s3_key_format /a", "use_put_object on"]),
    ("OUTPUT", "slack", &["webhook https://hooks.slack.com/x"]),
    ("OUTPUT", "splunk", &["splunk_token t"]),
    ("OUTPUT", "syslog", &["mode tcp", "syslog_format rfc3164"]),
    ("OUTPUT", "td", &["api k", "database d", "table t"]),
    ("SERVICE", "", &["Flush 1", "Log_Level info", "Grace 1", "Daemon off"]),
    (
        "SERVICE",
        "",
        &["storage.sync full", "storage.checksum on", "storage.max_chunks_up 8", "storage.backlog.mem_limit 5M"],
    ),
    ("SERVICE", "", &["Coro_Stack_Size 24576", "scheduler.cap 30", "scheduler.base 3", "Health_Check off"]),
];

/// Values that some option takes, and that most do not.
const ODD: [&str; 8] = ["what", "lz4", "GZIP", "none", "Off # x", "5X", "0", "-1"];

/// A section's lines among what else a pipeline needs.
fn pipeline(kind: &str, plugin: &str, lines: &[String]) -> String {
    let mut body = String::new();
    if kind != "SERVICE" {
        body.push_str(&format!("    Name {plugin}\n"));
    }
    if ["FILTER", "OUTPUT"].contains(&kind) {
        body.push_str("    Match *\n");
    }
    for line in lines {
        body.push_str(&format!("    {line}\n"));
    }
    let section = format!("[{kind}]\n{body}");
    let (input, output) = ("[INPUT]\n    Name dummy\n    Tag t\n", "[OUTPUT]\n    Name null\n    Match *\n");
    match kind {
        "INPUT" => format!("{section}{output}"),
        "OUTPUT" => format!("{input}{section}"),
        _ => format!("{section}{input}{output}"),
    }
}

/// Each section as it stands, without each of its lines, and with other values; the order is drawn, the number limited by JUDGE_SECONDS.
#[test]
fn what_a_plugin_needs_and_which_values_it_knows_is_as_in_fluent_bit() {
    let mut texts = Vec::new();
    for (kind, plugin, lines) in PLUGINS {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        texts.push(("conf", pipeline(kind, plugin, &lines)));
        for at in 0..lines.len() {
            let mut fewer = lines.clone();
            let line = fewer.remove(at);
            if !fewer.is_empty() || *kind != "SERVICE" {
                texts.push(("conf", pipeline(kind, plugin, &fewer)));
            }
            for odd in ODD {
                let mut other = lines.clone();
                let key = line.split(' ').next().unwrap();
                other[at] = format!("{key} {odd}");
                // What is not there is no fault of the configuration, and a low level hides the line that says that it runs.
                let elsewhere = [
                    "script",
                    "call",
                    "Parser",
                    "multiline.parser",
                    "Path",
                    "shared_key",
                    "dce_url",
                    "ingestion_endpoint",
                    "oauth2.token_url",
                    "webhook",
                    "Port",
                ];
                if !elsewhere.contains(&key) {
                    texts.push(("conf", pipeline(kind, plugin, &other)));
                }
            }
        }
    }
    compare("plugins and [SERVICE]", shuffled(texts));
}

/// Configurations in YAML, each with one part of another shape, without a value, or with a processor.
const SHAPES: &[&str] = &[
    "pipeline:\n  inputs:\n    - name: dummy\n      tag:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      tag: ''\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      alias:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      log_level:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      rate:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      dummy:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match:\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n      format:\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n      alias:\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n      retry_limit:\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n      workers:\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match:\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n      regex:\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n      log_level:\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      rate: {a: b}\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      tag: [a, b]\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      tag: []\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      dummy: [[a]]\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      dummy: [{a: b}]\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      dummy:\n        -\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n      regex: {a: b}\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n      format: {a: b}\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n      format: [json]\n",
    "x: {a: &a 1}\npipeline:\n  inputs:\n    - name: dummy\n      rate: *a\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "x: {a: &a 1}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "x: &x {rate: 1}\npipeline:\n  inputs:\n    - name: dummy\n      <<: *x\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "x: [1]\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "x: 1\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "x: {a: {b: c}}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "x:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "env:\n  - name: A\n    value: b\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "env:\n  - A=b\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "env: {A: b}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "env: {A: {b: c}}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "env:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "env: []\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "service:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "service: [a]\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "service: {flush: {a: b}}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "service: {flush: [1]}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "service: {http_server: on, parsers_file: [a]}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "service: {flush: 1}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\nservice: {flush: 1}\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\npipeline: {outputs: []}\n",
    "pipeline:\n",
    "pipeline: []\n",
    "pipeline: {}\n",
    "pipeline:\n  inputs:\n  outputs: [{name: stdout, match: '*'}]\n",
    "pipeline:\n  inputs: []\n  outputs: [{name: stdout, match: '*'}]\n",
    "pipeline:\n  inputs: {name: dummy}\n  outputs: [{name: stdout, match: '*'}]\n",
    "pipeline:\n  inputs: [dummy]\n  outputs: [{name: stdout, match: '*'}]\n",
    "pipeline:\n  inputs: [{name: dummy}]\n  outputs: {name: stdout, match: '*'}\n",
    "Pipeline:\n  Inputs: [{Name: dummy}]\n  Outputs: [{Name: stdout, Match: '*'}]\n",
    "parsers:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "parsers: {name: a, format: json}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "parsers: [{name: a, format: json, types: {a: b}}]\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "parsers: [{name: a, format: json, types: [a]}]\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "parsers: [{name: a}]\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "parsers: []\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "multiline_parsers:\n  - name: a\n    type: regex\n    rules:\n      - {state: start_state, regex: '/^a/', next_state: cont}\n      - {state: cont, regex: '/^b/', next_state: cont}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "multiline_parsers:\n  - name: a\n    type: regex\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "multiline_parsers:\n  - name: a\n    type: regex\n    rules: {state: start_state, regex: a, next_state: b}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "multiline_parsers:\n  - name: a\n    type: regex\n    rules:\n      - {state: start_state, regex: '/^a/'}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "multiline_parsers:\n  - name: a\n    type: nope\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "multiline_parsers:\n  - name: a\n    type: regex\n    rules:\n      - {state: start_state, regex: '/^a/', next_state: cont}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "plugins:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "plugins: {a: b}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "customs:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "customs: []\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "upstream_servers:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "stream_processor:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "extensions:\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "extensions: {a: [1]}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "processors: {logs: []}\npipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: content_modifier\n            action: insert\n            key: a\n            value: b\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: fluentbit_metrics\n      processors:\n        metrics:\n          - name: metrics_selector\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: fluentbit_metrics\n      processors:\n        metrics:\n          - name: metrics_selector\n            metric_name: fluentbit\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: fluentbit_metrics\n      processors:\n        metrics:\n          - name: metrics_selector\n            context: metric_name\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: fluentbit_metrics\n      processors:\n        metrics:\n          - name: metrics_selector\n            context: delete_label_value\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: fluentbit_metrics\n      processors:\n        metrics:\n          - name: metrics_selector\n            context: delete_label_value\n            label: name x\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: fluentbit_metrics\n      processors:\n        metrics:\n          - name: metrics_selector\n            context: delete_label_value\n            label: name\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: fluentbit_metrics\n      processors:\n        metrics:\n          - name: metrics_selector\n            label: name x\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: nope\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - action: insert\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        - name: x\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        log:\n          - name: content_modifier\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs: {name: content_modifier}\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        profiles: []\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: content_modifier\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: content_modifier\n            action: nope\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: content_modifier\n            action: insert\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: content_modifier\n            action: insert\n            key: a\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: content_modifier\n            action: insert\n            key: a\n            value: b\n            nope: 1\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: grep\n            regex: a b\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: grep\n            nope: a b\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: grep\n            regex: a\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        metrics:\n          - name: grep\n            regex: a b\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        metrics:\n          - name: content_modifier\n            action: insert\n            key: a\n            value: b\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: grep\n            alias: x\n            log_level: loud\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: grep\n            regex: {a: b}\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: sql\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        metrics:\n          - name: labels\n            insert: a\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        traces:\n          - name: sampling\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        metrics:\n          - name: metrics_selector\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: opentelemetry_envelope\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: opentelemetry_envelope\n            x: y\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      processors:\n        logs:\n          - name: content_modifier\n            action: insert\n            key: a\n            value: b\n            condition: {op: and, rules: [{field: $a, op: eq, value: b}]}\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n      processors:\n        logs:\n          - name: nope\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n  inputs:\n    - name: dummy\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n      processors:\n        logs:\n          - name: nope\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      Processors:\n        logs:\n          - name: nope\n  filters:\n    - name: grep\n      match: '*'\n  outputs:\n    - name: stdout\n      match: '*'\n",
    "pipeline:\n\tinputs: []\n",
    "pipeline:\n  inputs:\n    - name: dummy\n      tag:\tx\n  outputs:\n    - name: stdout\n      match: [\n      '*'\n      ]\n",
];

#[test]
fn the_shapes_of_yaml_are_those_of_fluent_bit() {
    compare("shapes of YAML", SHAPES.iter().map(|text| ("yaml", (*text).to_owned())).collect());
}

/// Rules of parsers for several lines: the type, then state, expression and next state of each.
const MULTILINE: &[(&str, &[[&str; 3]])] = &[
    ("regex", &[["start_state", "/^a/", "next"], ["next", "/^b/", "next"]]),
    ("REGEX", &[["start_state", "^a", "next"], ["next", "^b", "start_state"]]),
    ("regex", &[["start_state,next", "/^a/", "next"]]),
    ("regex", &[["start_state", "/^a/", "gone"], ["next", "/^b/", "next"]]),
    ("regex", &[["start", "/^a/", "next"], ["next", "/^b/", "next"]]),
    ("regex", &[["next", "/^a/", "next"], ["start_state", "/^b/", "next"]]),
    ("regex", &[["start_state", "/^(a/", "next"], ["next", "/^b/", "next"]]),
    ("regex", &[["start_state", "/^a/", "next"], ["next", "/[/", "next"]]),
    ("regex", &[["start_state", "/(?<=a+)b/", "start_state"]]),
    ("regex", &[["start_state", "/(?<a-b>x)/", "start_state"]]),
    ("regex", &[]),
    ("endswith", &[]),
    ("eq", &[["x", "(", "y"]]),
    ("equals", &[]),
    ("", &[["start_state", "a", "start_state"]]),
];

#[test]
fn parsers_for_several_lines_are_judged_as_in_fluent_bit() {
    let mut texts = Vec::new();
    for (kind, rules) in MULTILINE {
        let mut yaml = "multiline_parsers:\n  - name: m\n".to_owned();
        if !kind.is_empty() {
            yaml.push_str(&format!("    type: {kind}\n"));
        }
        if !rules.is_empty() {
            yaml.push_str("    rules:\n");
        }
        for [state, regex, next] in *rules {
            yaml.push_str(&format!("      - state: {state}\n        regex: '{regex}'\n        next_state: {next}\n"));
        }
        texts.push(("yaml", format!("{yaml}pipeline:\n  inputs: [{{name: dummy}}]\n")));
    }
    compare("parsers for several lines", texts);
}

/// Sections that start, and what names parsers in them: the kind, the plugin, what it needs, and the options.
const NAMING: &[(&str, &str, &[&str], &[&str])] = &[
    (
        "inputs",
        "tail",
        &["path: /none"],
        &["parser", "multiline.parser", "parser_1", "parser_firstline", "docker_mode_parser"],
    ),
    (
        "inputs",
        "tail",
        &["path: /none", "multiline: on", "parser_firstline: a"],
        &["parser", "parser_1", "parser_x", "parser_firstline"],
    ),
    ("inputs", "tail", &["path: /none", "docker_mode: on"], &["docker_mode_parser", "multiline.parser"]),
    ("inputs", "tcp", &["port: 0"], &["parser"]),
    ("inputs", "udp", &["port: 0"], &["parser"]),
    ("inputs", "exec", &["command: 'true'"], &["parser"]),
    ("inputs", "stdin", &[], &["parser"]),
    ("inputs", "syslog", &["mode: tcp", "port: 0"], &["parser"]),
    ("filters", "parser", &["key_name: log"], &["parser"]),
    ("filters", "parser", &["key_name: log", "parser: a"], &["parser"]),
    ("filters", "multiline", &["multiline.key_content: log"], &["multiline.parser"]),
    ("filters", "multiline", &["multiline.key_content: log", "mode: partial_message"], &["multiline.parser"]),
    ("filters", "kubernetes", &[], &["merge_parser", "regex_parser"]),
];

/// Names of parsers; the configuration defines `a`, `m` and `syslog-rfc5424`.
const PARSERS: [&str; 12] =
    ["a", "A", "m", "M", "docker", "Cri", "nope", "a, m", "cri, java", "docker nope", "go, nope", "'a '"];

#[test]
fn parsers_that_are_missing_are_judged_as_in_fluent_bit() {
    let mut texts = Vec::new();
    for (kind, plugin, needs, options) in NAMING {
        for (option, name) in options.iter().flat_map(|option| PARSERS.map(|name| (option, name))) {
            let mut lines: Vec<String> = needs.iter().map(|line| (*line).to_owned()).collect();
            // The filter takes several parsers, other sections the first.
            lines.retain(|line| !line.starts_with(&format!("{option}:")) || *plugin == "parser");
            lines.push(format!("{option}: {}", name));
            texts.push(("yaml", with_parsers(kind, plugin, &lines, true)));
        }
        let lines: Vec<String> = needs.iter().map(|line| (*line).to_owned()).collect();
        texts.push(("yaml", with_parsers(kind, plugin, &lines, true)));
        texts.push(("yaml", with_parsers(kind, plugin, &lines, false)));
    }
    compare("parsers that are missing", shuffled(texts));
}

/// A section among what else a pipeline needs; `defined`: with parsers.
fn with_parsers(kind: &str, plugin: &str, lines: &[String], defined: bool) -> String {
    let mut text = String::new();
    if defined {
        text.push_str(
            "parsers:\n  - {name: a, format: json}\n  - {name: syslog-rfc5424, format: regex, regex: '^(?<a>x)'}\n",
        );
        text.push_str("multiline_parsers:\n  - name: m\n    type: regex\n    rules:\n");
        text.push_str("      - {state: start_state, regex: '/^a/', next_state: start_state}\n");
    }
    let matches = if kind == "filters" { "      match: '*'\n" } else { "" };
    let lines: String = lines.iter().map(|line| format!("      {line}\n")).collect();
    let section = format!("  {kind}:\n    - name: {plugin}\n{matches}{lines}");
    let input = if kind == "inputs" { "" } else { "  inputs:\n    - name: dummy\n      tag: t\n" };
    format!("{text}pipeline:\n{input}{section}  outputs:\n    - name: 'null'\n      match: '*'\n")
}

/// In an order that is drawn, because there may not be the time for all.
fn shuffled<T>(mut texts: Vec<T>) -> Vec<T> {
    let mut random = Random(number_of("SEED", 18));
    for at in (1..texts.len()).rev() {
        texts.swap(at, (random.next() % (at as u64 + 1)) as usize);
    }
    texts
}

/// Options that the core keeps for many plugins, each with a value.
const OF_THE_CORE: [&str; 34] = [
    "net.keepalive off",
    "net.keepalive maybe",
    "net.keepalive_idle_timeout 5s",
    "net.connect_timeout 5",
    "net.connect_timeout abc",
    "net.dns.mode UDP",
    "net.max_worker_connections 5",
    "net.tcp_keepalive on",
    "net.backlog 5",
    "net.share_port on",
    "net.share_port maybe",
    "net.io_timeout 5",
    "tls off",
    "tls.verify off",
    "tls.verify_hostname off",
    "tls.verify_client_cert off",
    "tls.ca_file /none",
    "tls.min_version TLSv1.2",
    "tls.proxy.verify off",
    "oauth2.client_id x",
    "oauth2.enable off",
    "oauth2.enable on",
    "oauth2.enable maybe",
    "oauth2.validate off",
    "oauth2.validate maybe",
    "oauth2.issuer x",
    "storage.type memory",
    "storage.total_limit_size 5M",
    "storage.pause_on_chunks_overlimit off",
    "retry_limit 5",
    "retry_limit many",
    "workers 1",
    "http_server.http2 on",
    "http_server.workers 1",
];

/// Inputs and outputs that start as they stand, with and without a network.
const CARRIERS: &[(&str, &str, &[&str])] = &[
    ("INPUT", "http", &["port 0"]),
    ("INPUT", "tcp", &["port 0"]),
    ("INPUT", "health", &["host 127.0.0.1", "port 1"]),
    ("INPUT", "tail", &["path /none"]),
    ("INPUT", "dummy", &[]),
    ("OUTPUT", "counter", &[]),
    ("OUTPUT", "forward", &[]),
    ("OUTPUT", "http", &[]),
    ("OUTPUT", "loki", &[]),
    ("OUTPUT", "opentelemetry", &[]),
    ("OUTPUT", "prometheus_exporter", &["port 0"]),
    ("OUTPUT", "stdout", &[]),
];

#[test]
fn misspelt_options_of_the_core_are_judged_as_in_fluent_bit() {
    let mut random = Random(number_of("SEED", 18));
    let mut texts = Vec::new();
    for (kind, plugin, needs) in CARRIERS {
        for option in OF_THE_CORE {
            let (key, value) = option.split_once(' ').unwrap();
            let at = 1 + (random.next() % (key.len() as u64 - 1)) as usize;
            let without = format!("{}{}", &key[..at], &key[at + 1..]);
            let twice = format!("{}{}", &key[..at], &key[at - 1..]);
            for key in [key.to_owned(), key.to_ascii_uppercase(), without, twice] {
                let mut lines: Vec<String> = needs.iter().map(|line| (*line).to_owned()).collect();
                lines.push(format!("{key} {value}"));
                texts.push(("conf", pipeline(kind, plugin, &lines)));
            }
        }
    }
    compare("options of the core", shuffled(texts));
}
