//! lint compared with the real Fluent Bit: what Fluent Bit refuses to start with is an error in lint, and what it
//! starts with is none.
//!
//! The variants are generated from a seed. FLUENT_BIT overrides the program found on PATH, VARIANTS the number of
//! variants.

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

#[test]
fn lint_errors_match_what_fluent_bit_refuses_to_start_with() {
    let Some(program) = fluent_bit() else {
        println!("skipped: there is no fluent-bit on PATH, and FLUENT_BIT names none");
        return;
    };
    let count: usize = std::env::var("VARIANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(18));
    let files: Vec<std::path::PathBuf> = (0..count)
        .map(|number| {
            let path = folder.path().join(format!("{number}.conf"));
            std::fs::write(&path, classic(&mut random)).unwrap();
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
            // Findings about routing are ignored: Fluent Bit does not refuse such configurations.
            .filter(|finding| !["match-nothing", "filter-unseen"].contains(&finding["rule"].as_str().unwrap()))
            .map(|finding| format!("{}:{} {}", finding["line"], finding["rule"], finding["message"]))
            .collect()
    };
    let begun = Instant::now();
    let (mut judged, mut refused, mut wrong) = (0, 0, Vec::new());
    for file in &files {
        if begun.elapsed() > Duration::from_secs(50) {
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
        "{judged} variants: Fluent Bit refuses {refused}, starts with {}; {} judged otherwise",
        judged - refused,
        wrong.len()
    );
    assert!(judged > 0 && refused > 0 && refused < judged, "{judged} {refused}");
    assert!(wrong.is_empty(), "{} of {judged}\n{}", wrong.len(), wrong.join("\n----\n"));
}
