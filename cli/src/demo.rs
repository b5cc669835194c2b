//! `kubehose demo`: container logs through Fluent Bit and the plugin into a local Firehose, and what arrived there.
//!
//! It succeeds only if every line of the sample arrived exactly once, under the names from its file's name.

use clap::Parser;
use comfy_table::{ContentArrangement, Table, presets};
use kubehose::service::billed;
use kubehose_local::firehose::{AccessKey, Keep, Options, Server, Stats};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

/// Run sample container logs through Fluent Bit and the plugin into a local Firehose, and show what arrived
#[derive(Parser)]
#[command(after_help = "Example:
  FLUENT_BIT=/opt/fluent-bit/bin/fluent-bit kubehose demo --log")]
pub struct Args {
    /// The Fluent Bit to run; by default the one on PATH, or one in an image that docker or podman has, or the stand-in host
    #[arg(long, value_name = "FILE", env = "FLUENT_BIT")]
    fluent_bit: Option<PathBuf>,
    /// The root of the kubehose repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,
    /// Also show Fluent Bit's own log
    #[arg(long)]
    log: bool,
}

/// The configuration, and where its input looks, from the root of the repository.
const CONFIGURATION: &str = "examples/demo/fluent-bit.conf";
const CONTAINERS: &str = "examples/demo/var/log/containers";
/// What `plugins.conf` names.
const PLUGIN: &str = "target/release/libkubehose.so";
/// What the configuration calls them.
const STREAM: &str = "demo";
const REGION: &str = "eu-west-1";
/// A key pair that only the local endpoint knows; it checks the signatures.
const KEY: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
/// The sample takes about a second.
const AT_MOST: Duration = Duration::from_secs(60);
/// Lines that are shown for each container.
const EXAMPLES: usize = 3;

/// One line of a container's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Line {
    pod: String,
    namespace: String,
    container: String,
    id: String,
    stream: String,
    log: String,
}

/// Runs the demonstration.
pub fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("kubehose demo: {message}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &Args) -> Result<bool, String> {
    let lines = sample(&args.repository.join(CONTAINERS))?;
    if !args.repository.join(PLUGIN).is_file() {
        return Err(format!("{PLUGIN} is missing: run `cargo build --release`, or `make demo`, which does"));
    }
    let repository =
        args.repository.canonicalize().map_err(|error| format!("{}: {error}", args.repository.display()))?;
    let host = Host::find(args.fluent_bit.as_deref(), &repository)?;
    eprintln!("host      {host}");
    eprintln!("plugin    {PLUGIN}, by way of plugins.conf");
    let server = Server::start(Options {
        region: Some(REGION.to_owned()),
        streams: vec![STREAM.to_owned()],
        access_keys: vec![AccessKey::new(KEY.0, KEY.1)],
        keep: Keep::Records,
        count_unique: true,
        ..Options::default()
    })
    .map_err(|error| error.to_string())?;
    eprintln!("firehose  {} (local, checks signatures and limits)", server.url());
    eprintln!("input     {CONTAINERS}/*.log");
    let log = host.run(&repository, &server.url())?;
    if args.log {
        eprint!("\n{log}");
    }
    let arrived: Vec<Record> = server.records().iter().map(|record| Record::read(&record.data)).collect();
    let (missing, unexpected) = differences(&lines, &arrived);
    let stats = server.stats();
    let fine = missing == 0 && unexpected == 0 && stats.records_accepted == lines.len() as u64;
    show(&lines, &arrived, &stats).map_err(|error| format!("cannot write: {error}"))?;
    if !fine {
        eprintln!(
            "\nkubehose demo: of {} lines {missing} did not arrive, and {unexpected} records are of no line, or of one \
             that had arrived; the host's log:\n{log}",
            lines.len()
        );
    }
    Ok(fine)
}

/// What loads the plugin.
struct Host {
    place: Place,
    version: String,
}

/// Where that is.
enum Place {
    /// A Fluent Bit of this machine.
    Program(PathBuf),
    /// A Fluent Bit in a container.
    Image(Image),
    /// kubehose-host, and why nothing else.
    StandIn(PathBuf, String),
}

/// An image that a container engine has already.
struct Image {
    engine: &'static str,
    name: String,
}

/// The engines that are asked, and the images that are looked for: Fluent Bit's own and AWS's.
const ENGINES: [&str; 2] = ["docker", "podman"];
const IMAGES: [&str; 2] = ["fluent/fluent-bit", "aws-for-fluent-bit"];
/// Where both keep the program.
const IN_IMAGE: &str = crate::manifest::PROGRAM;
/// An engine whose daemon hangs must not hold the demo.
const ASKED_FOR: Duration = Duration::from_secs(20);

impl Image {
    /// The first that loads the plugin; else why there is none.
    fn find(repository: &Path) -> Result<(Image, String), String> {
        let mut why = "no docker or podman has an image of Fluent Bit".to_owned();
        for engine in ENGINES {
            let mut list = Command::new(engine);
            list.args(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
            let Some(listed) = output(&mut list).filter(|listed| listed.status.success()) else { continue };
            for name in String::from_utf8_lossy(&listed.stdout).lines() {
                let repository_name = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
                if !IMAGES.iter().any(|known| repository_name.ends_with(known)) {
                    continue;
                }
                let image = Image { engine, name: name.to_owned() };
                // Its C library may be older than the one that the plugin was built with here.
                let dry =
                    output(image.command(repository, "http://127.0.0.1:1", "trial").args(["-c", CONFIGURATION, "-D"]));
                match dry {
                    Some(dry) if dry.status.success() => {
                        let version = output(image.command(repository, "", "version").arg("--version"));
                        let version = version.map(|out| first_line(&out.stdout)).unwrap_or_default();
                        return Ok((image, version));
                    }
                    dry => {
                        let said = dry.map(|out| String::from_utf8_lossy(&out.stderr).into_owned()).unwrap_or_default();
                        let line = said.lines().find(|line| line.contains("rror")).unwrap_or("it did not end").trim();
                        why = format!("{engine}'s image {name} does not run the plugin: {line}");
                    }
                }
            }
        }
        Err(why)
    }

    /// The program in a container that sees the repository where it is here, and this machine's network.
    fn command(&self, repository: &Path, endpoint: &str, what: &str) -> Command {
        let folder = repository.display();
        let mut command = Command::new(self.engine);
        command.args(["run", "--rm", "--pull=never", "--network=host", "--name", &self.container(what)]);
        command.args(["--volume", &format!("{folder}:{folder}:ro"), "--workdir", &folder.to_string()]);
        for (name, value) in environment(endpoint) {
            command.args(["--env", &format!("{name}={value}")]);
        }
        command.args(["--entrypoint", IN_IMAGE, &self.name]);
        command
    }

    fn container(&self, what: &str) -> String {
        format!("kubehose-demo-{what}-{}", std::process::id())
    }
}

/// What the host finds in its environment: nothing of the machine's own AWS configuration or network is asked.
fn environment(endpoint: &str) -> [(&'static str, &str); 7] {
    [
        ("KUBEHOSE_DEMO_ENDPOINT", endpoint),
        ("AWS_ACCESS_KEY_ID", KEY.0),
        ("AWS_SECRET_ACCESS_KEY", KEY.1),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("NO_PROXY", "127.0.0.1"),
    ]
}

/// What a command says, unless it cannot be run or does not end.
fn output(command: &mut Command) -> Option<Output> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    let mut running = Running(child, None);
    let (mut out, mut err) = (running.0.stdout.take()?, running.0.stderr.take()?);
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = err.read_to_end(&mut text);
        text
    });
    let more = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = out.read_to_end(&mut text);
        text
    });
    let end = Instant::now() + ASKED_FOR;
    let status = loop {
        match running.0.try_wait().ok()? {
            Some(status) => break status,
            None if Instant::now() > end => return None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    Some(Output { status, stdout: more.join().unwrap_or_default(), stderr: read.join().unwrap_or_default() })
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().next().unwrap_or_default().to_owned()
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Program(program) => write!(out, "{} ({})", self.version, program.display()),
            Place::Image(image) => write!(out, "{} ({} in {})", self.version, image.name, image.engine),
            Place::StandIn(program, why) => {
                write!(
                    out,
                    "{} ({}): there is no fluent-bit on PATH or in FLUENT_BIT, and {why}",
                    self.version,
                    program.display()
                )
            }
        }
    }
}

impl Host {
    fn find(named: Option<&Path>, repository: &Path) -> Result<Host, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = || std::env::split_paths(&path).map(|dir| dir.join("fluent-bit")).find(|file| file.is_file());
        let named = named.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned);
        let (program, stand_in) = match named.or_else(on_path) {
            Some(program) => (program, None),
            None => {
                let why = match Image::find(repository) {
                    Ok((image, version)) => return Ok(Host { place: Place::Image(image), version }),
                    Err(why) => why,
                };
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                (own.with_file_name("kubehose-host"), Some(why))
            }
        };
        // It runs in another folder.
        let program = program.canonicalize().map_err(|error| {
            let fix = match stand_in {
                None => "set FLUENT_BIT to a Fluent Bit's path",
                Some(_) => "build it with `cargo build --release`",
            };
            format!("cannot run {}: {error}; {fix}", program.display())
        })?;
        let output = Command::new(&program).arg("--version").output();
        let output = output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let version = first_line(&output.stdout);
        let place = match stand_in {
            None => Place::Program(program),
            Some(why) => Place::StandIn(program, why),
        };
        Ok(Host { place, version })
    }

    /// Runs it to the end of the sample; gives its log.
    fn run(&self, repository: &Path, endpoint: &str) -> Result<String, String> {
        let (mut child, container) = match &self.place {
            Place::Program(program) | Place::StandIn(program, _) => {
                let mut child = Command::new(program);
                child.current_dir(repository).envs(environment(endpoint));
                child.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_PROFILE");
                (child, None)
            }
            Place::Image(image) => {
                (image.command(repository, endpoint, "run"), Some((image.engine, image.container("run"))))
            }
        };
        child.args(["-c", CONFIGURATION]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running(child.spawn().map_err(|error| format!("cannot run {self}: {error}"))?, container);
        let mut pipe = running.0.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut log = Vec::new();
            if let Some(pipe) = &mut pipe {
                // What was read before a fault is what there is.
                let _ = pipe.read_to_end(&mut log);
            }
            String::from_utf8_lossy(&log).into_owned()
        });
        let end = Instant::now() + AT_MOST;
        let status = loop {
            match running.0.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break Some(status),
                None if Instant::now() > end => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        drop(running);
        let log = reader.join().unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(log),
            Some(status) => Err(format!("the host ended with {status}; its log:\n{log}")),
            None => Err(format!("the host did not end within {} s; its log:\n{log}", AT_MOST.as_secs())),
        }
    }
}

/// A host that is killed, if it still runs, when it is dropped.
struct Running(Child, Option<(&'static str, String)>);

impl Drop for Running {
    fn drop(&mut self) {
        let running = matches!(self.0.try_wait(), Ok(None));
        if let (true, Some((engine, container))) = (running, &self.1) {
            // A container outlives the command that waits for it.
            let _ = Command::new(engine).args(["kill", container]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of the sample, file by file.
fn sample(folder: &Path) -> Result<Vec<Line>, String> {
    let failed = |error: io::Error| {
        format!("cannot read {}: {error}; run it in the root of the repository, or give --repository", folder.display())
    };
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some([pod, namespace, container, id]) = name_parts(&name) else {
            return Err(format!("{} is not named <pod>_<namespace>_<container>-<id>.log", file.display()));
        };
        for line in fs::read_to_string(&file).map_err(failed)?.lines() {
            // Time, stream, P or F, text.
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            let [_, stream, _, log] = parts.as_slice() else {
                return Err(format!("{}: this is no line of a container runtime: {line}", file.display()));
            };
            lines.push(Line {
                pod: pod.to_owned(),
                namespace: namespace.to_owned(),
                container: container.to_owned(),
                id: id.to_owned(),
                stream: (*stream).to_owned(),
                log: (*log).to_owned(),
            });
        }
    }
    Ok(lines)
}

fn name_parts(name: &str) -> Option<[&str; 4]> {
    let (rest, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let (pod, rest) = rest.split_once('_')?;
    let (namespace, container) = rest.split_once('_')?;
    Some([pod, namespace, container, id])
}

/// A record that arrived: the line that it is of, its time, and its text.
struct Record {
    line: Line,
    time: String,
    text: String,
}

impl Record {
    /// Reads a record; one that is not JSON belongs to no line.
    fn read(data: &[u8]) -> Record {
        let value: Value = serde_json::from_slice(data).unwrap_or_default();
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let line = Line {
            pod: text("pod_name"),
            namespace: text("kube_namespace"),
            container: text("kube_container_name"),
            id: text("container_id"),
            stream: text("stream"),
            // An empty line has no text: the host's parser drops empty fields.
            log: text("log"),
        };
        Record { line, time: text(crate::datadog::TIME_KEY), text: String::from_utf8_lossy(data).into_owned() }
    }
}

/// How many lines did not arrive, and how many records belong to no line, or to one that arrived before.
fn differences(lines: &[Line], arrived: &[Record]) -> (usize, usize) {
    let mut owed: HashMap<Line, i64> = HashMap::new();
    for line in lines {
        *owed.entry(line.clone()).or_default() += 1;
    }
    for record in arrived {
        *owed.entry(record.line.clone()).or_default() -= 1;
    }
    let sum = |sign: i64| owed.values().map(|count| (count * sign).max(0)).sum::<i64>() as usize;
    (sum(1), sum(-1))
}

fn show(lines: &[Line], arrived: &[Record], stats: &Stats) -> io::Result<()> {
    let out = &mut anstream::stdout().lock();
    let heading = anstyle::Style::new().bold();
    let width = width();
    if let Some((line, record)) = pair(lines, arrived) {
        writeln!(
            out,
            "\n{heading}A line{heading:#} of {}_{}_{}-{}….log",
            line.pod,
            line.namespace,
            line.container,
            short(&line.id)
        )?;
        writeln!(out, "{} {}", line.stream, line.log)?;
        writeln!(out, "{heading}and its record{heading:#}")?;
        writeln!(out, "{record}")?;
    }
    writeln!(out, "\n{heading}Records that arrived{heading:#}, up to {EXAMPLES} of each container")?;
    let mut table = table(width);
    table.set_header(["kube_namespace", "pod_name", "kube_container_name", "container_id", "time", "log"]);
    let mut shown: HashMap<&str, usize> = HashMap::new();
    let mut by_container: Vec<&Record> = arrived.iter().collect();
    by_container.sort_by(|a, b| (&a.line.namespace, &a.line.pod).cmp(&(&b.line.namespace, &b.line.pod)));
    for Record { line, time, .. } in by_container {
        let count = shown.entry(&line.id).or_default();
        *count += 1;
        if *count > EXAMPLES {
            continue;
        }
        let time = time.split_once('T').map_or("", |(_, time)| time);
        let text = cut(&line.log, width.saturating_sub(OTHER_WIDTH).max(20));
        table.add_row([&line.namespace, &line.pod, &line.container, &short(&line.id), time, &text]);
    }
    writeln!(out, "{table}")?;
    writeln!(out, "\n{heading}Counts{heading:#}")?;
    let mut counts = self::table(width);
    let billed_alone: u64 = stats.records_accepted * billed(1);
    counts.add_row(["lines read", &lines.len().to_string()]);
    counts.add_row(["records arrived", &stats.records_accepted.to_string()]);
    counts.add_row(["  of which unique", &stats.unique.to_string()]);
    counts.add_row(["batches (PutRecordBatch)", &stats.batches.to_string()]);
    counts.add_row(["bytes", &stats.bytes_accepted.to_string()]);
    counts.add_row([
        "bytes billed",
        &match stats.bytes_billed == billed_alone {
            true => format!("{} (each record as 5 KiB)", stats.bytes_billed),
            false => stats.bytes_billed.to_string(),
        },
    ]);
    writeln!(out, "{counts}")
}

/// A line whose record shows what the plugin does, and that record as it came.
fn pair<'a>(lines: &'a [Line], arrived: &'a [Record]) -> Option<(&'a Line, &'a str)> {
    let line = lines.iter().find(|line| line.log.contains("order placed"))?;
    arrived.iter().find(|record| record.line == *line).map(|record| (line, record.text.trim_end()))
}

/// What the columns beside the text take.
const OTHER_WIDTH: usize = 106;

/// The terminal's width, or enough for the usual names where there is none.
fn width() -> usize {
    terminal_size::terminal_size().map_or(OTHER_WIDTH + 54, |(width, _)| usize::from(width.0))
}

fn table(width: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.min(usize::from(u16::MAX)) as u16);
    table
}

/// The beginning of a container's id, as other tools show it.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// A text on one line, at most `width` characters long.
fn cut(text: &str, width: usize) -> String {
    let text = text.replace('\t', "  ");
    match text.char_indices().nth(width) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_owed_one_record() {
        let name = "web-1_shop_nginx-0123.log";
        assert_eq!(name_parts(name), Some(["web-1", "shop", "nginx", "0123"]));
        let line = |log: &str| Line {
            pod: "web-1".to_owned(),
            namespace: "shop".to_owned(),
            container: "nginx".to_owned(),
            id: "0123".to_owned(),
            stream: "stdout".to_owned(),
            log: log.to_owned(),
        };
        let record = |log: &str| {
            let names =
                r#""pod_name":"web-1","kube_namespace":"shop","kube_container_name":"nginx","container_id":"0123""#;
            Record::read(format!(r#"{{{names},"stream":"stdout","log":"{log}"}}"#).as_bytes())
        };
        let lines = [line("a"), line("a"), line("b")];
        assert_eq!(differences(&lines, &[record("a"), record("b"), record("a")]), (0, 0));
        assert_eq!(differences(&lines, &[record("a"), record("b"), record("b")]), (1, 1));
        assert_eq!(differences(&lines, &[]), (3, 0));
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("é\tb", 9), "é  b");
        assert_eq!(cut("éßc", 2), "éß…");
    }
}
