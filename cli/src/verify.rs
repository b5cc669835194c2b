//! `kubehose verify`: the guide's checks against the live cluster and the live stream, through kubectl and aws; read-only.

use std::process::{Command, Stdio};

use anstyle::{AnsiColor, Style};
use clap::Args as ClapArgs;
use serde_json::Value;

use crate::aws::{Account, EksName, Region, StreamName, stream_arn};
use crate::datadog::Site;
use crate::fargate;
use crate::kube::Name;
use crate::lint;
use crate::lint::rules::Severity;
use crate::verdict::{Outcome, Verdict, note, print};

/// Check a live setup: namespace, ConfigMap, role, pods, delivery stream, Datadog.
///
/// Each check is ✔ good, ✘ bad with its cure, or ? where it could not be made. Nothing is changed. The Datadog checks need
/// DD_API_KEY and DD_APP_KEY in the environment.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose verify --region eu-west-1 --cluster fargate-cluster --fargate-profile fargate-profile --delivery-stream logs")]
pub struct Args {
    /// Region of the cluster and of the delivery stream
    #[arg(long, env = "AWS_REGION", value_parser = Region::new)]
    region: Region,
    /// The EKS cluster
    #[arg(long, value_name = "NAME", value_parser = EksName::new)]
    cluster: EksName,
    /// Its Fargate profile
    #[arg(long, value_name = "NAME", value_parser = EksName::new)]
    fargate_profile: EksName,
    /// Name of the delivery stream
    #[arg(long, value_name = "NAME", value_parser = StreamName::new)]
    delivery_stream: StreamName,
    /// Namespace whose pods are looked at
    #[arg(long, value_name = "NAME", default_value = "fargate-namespace", value_parser = Name::new)]
    namespace: Name,
    /// kubectl's context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Datadog site, for the checks there
    #[arg(long, value_enum)]
    site: Option<Site>,
}

/// What came of a check.
enum Mark {
    Good,
    Bad { cure: String },
    Unknown,
}

/// One line of the report.
struct Check {
    what: String,
    mark: Mark,
    detail: String,
}

fn good(what: &str, detail: impl Into<String>) -> Check {
    Check { what: what.to_owned(), mark: Mark::Good, detail: detail.into() }
}

fn bad(what: &str, detail: impl Into<String>, cure: impl Into<String>) -> Check {
    Check { what: what.to_owned(), mark: Mark::Bad { cure: cure.into() }, detail: detail.into() }
}

fn unknown(what: &str, detail: impl Into<String>) -> Check {
    Check { what: what.to_owned(), mark: Mark::Unknown, detail: detail.into() }
}

/// Why an answer could not be had.
enum NoAnswer {
    /// The thing is not there.
    Missing,
    /// The question could not be asked.
    Failed(String),
}

/// Asks a program for JSON. `input` goes to its stdin.
fn ask(program: &str, words: &[&str]) -> Result<Value, NoAnswer> {
    let output = Command::new(program)
        .args(words)
        .env("AWS_PAGER", "")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| NoAnswer::Failed(format!("{program} cannot be run: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a word").trim();
        let missing = ["NotFound", "NoSuchEntity"].iter().any(|word| line.contains(word));
        return Err(if missing { NoAnswer::Missing } else { NoAnswer::Failed(line.to_owned()) });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| NoAnswer::Failed(format!("{program} answered no JSON: {error}")))
}

/// Runs `kubehose verify`.
pub fn run(args: &Args) -> Outcome {
    let progress = crate::verdict::progress("checks");
    let mut checks = Vec::new();
    for step in [context, namespace, config_map, profile_and_role, pods, stream, datadog] {
        checks.extend(step(args));
        progress.inc(1);
    }
    progress.finish_and_clear();
    let text: String = checks.iter().map(line).collect();
    print(&crate::verdict::coloured(&text))?;
    let count = |wanted: fn(&Mark) -> bool| checks.iter().filter(|check| wanted(&check.mark)).count();
    let failed = count(|mark| matches!(mark, Mark::Bad { .. }));
    let open = count(|mark| matches!(mark, Mark::Unknown));
    note(&format!("{} checks: {failed} failed, {open} could not be made", checks.len()));
    Ok(if failed > 0 { Verdict::Findings } else { Verdict::Fine })
}

fn line(check: &Check) -> String {
    let (sign, colour, cure) = match &check.mark {
        Mark::Good => ("✔", AnsiColor::Green, None),
        Mark::Bad { cure } => ("✘", AnsiColor::Red, Some(cure)),
        Mark::Unknown => ("?", AnsiColor::Yellow, None),
    };
    let style: Style = colour.on_default().bold();
    let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", check.detail) };
    let cure = cure.map_or(String::new(), |cure| format!("  cure: {cure}\n"));
    format!("{style}{sign}{style:#} {}{detail}\n{cure}", check.what)
}

/// A check whose answer could not be had.
fn no_answer(what: &str, why: NoAnswer, missing: &str, cure: &str) -> Check {
    match why {
        NoAnswer::Missing => bad(what, missing, cure),
        NoAnswer::Failed(said) => unknown(what, said),
    }
}

fn kubectl(args: &Args, words: &[&str]) -> Result<Value, NoAnswer> {
    let mut all: Vec<&str> = Vec::new();
    if let Some(context) = &args.context {
        all.extend(["--context", context]);
    }
    all.extend(words);
    all.extend(["-o", "json"]);
    ask("kubectl", &all)
}

fn aws(args: &Args, words: &[&str]) -> Result<Value, NoAnswer> {
    let mut all = words.to_vec();
    all.extend(["--region", args.region.as_ref(), "--output", "json"]);
    ask("aws", &all)
}

/// A healthy cluster that is not the one that is meant would pass every check.
fn context(args: &Args) -> Vec<Check> {
    let what = "kubectl's cluster";
    vec![match kubectl(args, &["config", "view", "--minify"]) {
        Err(NoAnswer::Missing) => unknown(what, "kubectl has no current context"),
        Err(NoAnswer::Failed(said)) => unknown(what, said),
        Ok(found) => {
            let name = found["clusters"][0]["name"].as_str().unwrap_or_default();
            // `aws eks update-kubeconfig` calls it by its ARN, eksctl by <name>.<region>.eksctl.io; others as they like.
            let words: Vec<&str> = name.split(['/', '.']).collect();
            if words.contains(&args.cluster.as_ref()) {
                good(what, name)
            } else {
                unknown(what, format!("{name} may not be {}; --context names another", args.cluster))
            }
        }
    }]
}

fn namespace(args: &Args) -> Vec<Check> {
    let what = "namespace aws-observability and its label";
    let (key, value) = fargate::NAMESPACE_LABEL;
    let label = format!("kubectl label namespace {} {key}={value} --overwrite", fargate::NAMESPACE);
    vec![match kubectl(args, &["get", "namespace", fargate::NAMESPACE]) {
        Err(why) => no_answer(what, why, "the namespace is missing", "apply the output of kubehose manifest"),
        Ok(found) if found["metadata"]["labels"][key] == value => good(what, ""),
        Ok(_) => bad(what, "without the label the router is not configured", label),
    }]
}

fn config_map(args: &Args) -> Vec<Check> {
    let what = "ConfigMap aws-logging";
    let found = match kubectl(args, &["get", "configmap", fargate::CONFIG_MAP, "-n", fargate::NAMESPACE]) {
        Err(why) => {
            return vec![no_answer(what, why, "it is missing", "apply the output of kubehose manifest")];
        }
        Ok(found) => found,
    };
    let mut checks = Vec::new();
    let manifest = found.to_string();
    // The label has a check of its own.
    let findings: Vec<_> = lint::check([("aws-logging", manifest.as_bytes())].into_iter())
        .into_iter()
        .filter(|finding| finding.rule.id != lint::rules::NAMESPACE_UNSEEN.id)
        .collect();
    let errors = findings.iter().filter(|finding| finding.rule.severity == Severity::Error).count();
    if errors == 0 {
        let warnings: Vec<&str> = findings.iter().map(|finding| finding.rule.id).collect();
        checks.push(good(
            what,
            if warnings.is_empty() { String::new() } else { format!("warnings: {}", warnings.join(", ")) },
        ));
    }
    for finding in findings.iter().filter(|finding| finding.rule.severity == Severity::Error) {
        checks.push(bad(&format!("{what} [{}]", finding.rule.id), &finding.message, finding.rule.fix));
    }
    let output = found["data"][fargate::OUTPUT].as_str().unwrap_or_default();
    let named = output.split_whitespace().any(|word| word == args.delivery_stream.as_ref());
    if !named {
        let detail = format!("output.conf does not name {}", args.delivery_stream);
        checks.push(bad(
            "the router's delivery stream",
            detail,
            "write it as delivery_stream, or verify the one that is there",
        ));
    }
    checks
}

fn profile_and_role(args: &Args) -> Vec<Check> {
    let what = "Fargate profile";
    let words = [
        "eks",
        "describe-fargate-profile",
        "--cluster-name",
        args.cluster.as_ref(),
        "--fargate-profile-name",
        args.fargate_profile.as_ref(),
    ];
    let found = match aws(args, &words) {
        Err(why) => {
            return vec![no_answer(what, why, "there is no such profile", "name an existing profile and cluster")];
        }
        Ok(found) => found,
    };
    let profile = &found["fargateProfile"];
    let status = profile["status"].as_str().unwrap_or("unknown");
    let mut checks = vec![match status {
        "ACTIVE" => good(what, ""),
        other => bad(
            what,
            format!("its status is {other}"),
            "wait for ACTIVE, or look at the profile's health in the console",
        ),
    }];
    let selects = profile["selectors"].as_array().is_some_and(|selectors| {
        selectors.iter().any(|selector| {
            selector["namespace"].as_str().is_some_and(|pattern| matches(pattern, &args.namespace.to_string()))
        })
    });
    checks.push(if selects {
        good("the profile selects the namespace", args.namespace.to_string())
    } else {
        let cure = format!("add a selector for {} to a profile: its pods do not run on Fargate", args.namespace);
        bad("the profile selects the namespace", format!("no selector is for {}", args.namespace), cure)
    });

    let what = "the pod execution role may put records";
    let Some(role) = profile["podExecutionRoleArn"].as_str() else {
        checks.push(unknown(what, "the profile names no role"));
        return checks;
    };
    let account = role.split(':').nth(4).and_then(|account| Account::new(account).ok());
    let Some(account) = account else {
        checks.push(unknown(what, format!("{role} is no role's ARN")));
        return checks;
    };
    let stream = stream_arn(&args.region, &account, &args.delivery_stream);
    let words = [
        "iam",
        "simulate-principal-policy",
        "--policy-source-arn",
        role,
        "--action-names",
        "firehose:PutRecord",
        "firehose:PutRecordBatch",
        "--resource-arns",
        &stream,
    ];
    checks.push(match aws(args, &words) {
        Err(NoAnswer::Missing) => bad(what, "the role is missing", "give the profile an existing role"),
        Err(NoAnswer::Failed(said)) => unknown(what, said),
        Ok(found) => {
            let results = found["EvaluationResults"].as_array().cloned().unwrap_or_default();
            let denied: Vec<&str> = results
                .iter()
                .filter(|result| result["EvalDecision"] != "allowed")
                .filter_map(|result| result["EvalActionName"].as_str())
                .collect();
            if results.is_empty() {
                unknown(what, "the simulation had no result")
            } else if denied.is_empty() {
                good(what, "")
            } else {
                let cure =
                    format!("attach the output of kubehose iam-policy to {}", role.rsplit('/').next().unwrap_or(role));
                bad(what, format!("{} is denied on {stream}", denied.join(" and ")), cure)
            }
        }
    });
    checks
}

/// A selector's namespace, in which `*` is any text and `?` any character.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|at| text.get(at..).is_some_and(|rest| matches(&pattern[1..], rest))),
        Some(wanted) => match text.chars().next() {
            Some(found) if found == wanted || wanted == '?' => {
                matches(&pattern[wanted.len_utf8()..], &text[found.len_utf8()..])
            }
            _ => false,
        },
    }
}

fn pods(args: &Args) -> Vec<Check> {
    let what = "pods";
    let namespace = args.namespace.to_string();
    let found = match kubectl(args, &["get", "pods", "-n", &namespace]) {
        Err(why) => {
            return vec![no_answer(what, why, "there is no such namespace", "kubehose sample-app writes a workload")];
        }
        Ok(found) => found,
    };
    let pods = found["items"].as_array().cloned().unwrap_or_default();
    let mut checks = Vec::new();
    let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
    checks.push(match (running, pods.len()) {
        (_, 0) => {
            bad(what, format!("none in {namespace}"), "run something there; kubehose sample-app writes a workload")
        }
        (0, all) => bad(what, format!("none of {all} is running"), format!("kubectl describe pods -n {namespace}")),
        (running, all) => good(what, format!("{running} of {all} running in {namespace}")),
    });
    let what = "the router of the pods";
    let annotation = |pod: &Value| pod["metadata"]["annotations"]["Logging"].as_str().map(str::to_owned);
    let on_fargate: Vec<&Value> =
        pods.iter().filter(|pod| pod["spec"]["schedulerName"] == "fargate-scheduler").collect();
    let disabled: Vec<String> = on_fargate
        .iter()
        .filter_map(|pod| {
            let said = annotation(pod)?;
            (said != "LoggingEnabled")
                .then(|| format!("{}: {said}", pod["metadata"]["name"].as_str().unwrap_or("a pod")))
        })
        .collect();
    let enabled = on_fargate.iter().filter(|pod| annotation(pod).as_deref() == Some("LoggingEnabled")).count();
    if !disabled.is_empty() {
        let cure = "fix what it says, then restart the pods: a changed configuration reaches new pods only";
        checks.push(bad(what, disabled.join("; "), cure));
    } else if enabled > 0 {
        checks.push(good(what, format!("LoggingEnabled on {enabled} of {}", on_fargate.len())));
    } else {
        checks.push(events(args, what, &namespace));
    }
    checks
}

/// Older clusters say it in events only, which last an hour.
fn events(args: &Args, what: &str, namespace: &str) -> Check {
    let found = match kubectl(args, &["get", "events", "-n", namespace]) {
        Err(why) => return no_answer(what, why, "there is no such namespace", ""),
        Ok(found) => found,
    };
    let events = found["items"].as_array().cloned().unwrap_or_default();
    let of = |reason: &str| events.iter().rfind(|event| event["reason"] == reason).cloned();
    match (of("LoggingDisabled"), of("LoggingEnabled")) {
        (Some(event), _) => bad(
            what,
            event["message"].as_str().unwrap_or("LoggingDisabled").to_owned(),
            "fix what it says, then restart the pods: a changed configuration reaches new pods only",
        ),
        (None, Some(_)) => good(what, "LoggingEnabled"),
        (None, None) => {
            unknown(what, "no pod on Fargate says anything of its logging; events last an hour, so restart a pod")
        }
    }
}

fn stream(args: &Args) -> Vec<Check> {
    let what = "delivery stream";
    let words = ["firehose", "describe-delivery-stream", "--delivery-stream-name", args.delivery_stream.as_ref()];
    let found = match aws(args, &words) {
        Err(why) => {
            return vec![no_answer(
                what,
                why,
                "there is no such stream",
                "create the output of kubehose delivery-stream",
            )];
        }
        Ok(found) => found,
    };
    let description = &found["DeliveryStreamDescription"];
    let mut checks = vec![match description["DeliveryStreamStatus"].as_str() {
        Some("ACTIVE") => good(what, ""),
        other => bad(
            what,
            format!("its status is {}", other.unwrap_or("unknown")),
            "wait for ACTIVE, or look for its failure",
        ),
    }];
    if description["DeliveryStreamType"] != "DirectPut" {
        let detail = description["DeliveryStreamType"].as_str().unwrap_or("unknown");
        checks.push(bad(
            "the stream's source",
            detail,
            "routers put records directly: make a stream of source Direct PUT",
        ));
    }
    let destination = &description["Destinations"][0]["HttpEndpointDestinationDescription"];
    let url = destination["EndpointConfiguration"]["Url"].as_str().unwrap_or_default();
    // A URL may carry a key; the host is enough.
    let host = url.split('/').nth(2).unwrap_or_default();
    checks.push(match args.site {
        _ if host.is_empty() => {
            bad("the stream's destination", "it is no HTTP endpoint", "make the stream with kubehose delivery-stream")
        }
        Some(site) if url != site.firehose_url() => {
            bad("the stream's destination", host, format!("the site {} is at {}", site.name(), site.firehose_url()))
        }
        _ => good("the stream's destination", host),
    });
    checks.extend(metrics(args));
    checks
}

fn metrics(args: &Args) -> Vec<Check> {
    let end = jiff::Timestamp::now();
    let start = end - jiff::SignedDuration::from_hours(1);
    let sum = |metric: &str, statistic: &str| {
        let (start, end) = (start.to_string(), end.to_string());
        let dimension = format!("Name=DeliveryStreamName,Value={}", args.delivery_stream);
        let words = [
            "cloudwatch",
            "get-metric-statistics",
            "--namespace",
            "AWS/Firehose",
            "--metric-name",
            metric,
            "--dimensions",
            &dimension,
            "--start-time",
            &start,
            "--end-time",
            &end,
            "--period",
            "3600",
            "--statistics",
            statistic,
        ];
        aws(args, &words).map(|found| {
            let points = found["Datapoints"].as_array().cloned().unwrap_or_default();
            let values: Vec<f64> = points.iter().filter_map(|point| point[statistic].as_f64()).collect();
            (!values.is_empty())
                .then(|| values.iter().sum::<f64>() / if statistic == "Average" { values.len() as f64 } else { 1.0 })
        })
    };
    let taken = match sum("IncomingRecords", "Sum") {
        Err(NoAnswer::Failed(said)) => return vec![unknown("records of the last hour", said)],
        Err(NoAnswer::Missing) => return vec![unknown("records of the last hour", "no such metric")],
        Ok(None | Some(0.0)) => {
            return vec![bad(
                "records of the last hour",
                "none came in",
                "see the role and the pods above; the router's own log says more (flb_log_cw)",
            )];
        }
        Ok(Some(count)) => good("records of the last hour", format!("{count:.0} came in")),
    };
    let what = "deliveries of the last hour";
    let delivered = match sum("DeliveryToHttpEndpoint.Success", "Average") {
        Ok(Some(share)) if share >= 0.99 => good(what, format!("{:.1} % taken by Datadog", share * 100.0)),
        Ok(Some(share)) => bad(
            what,
            format!("only {:.1} % taken by Datadog", share * 100.0),
            format!(
                "see the log group /aws/kinesisfirehose/{}: as a rule the API key or the site is wrong",
                args.delivery_stream
            ),
        ),
        Ok(None) => unknown(what, "nothing was delivered yet; a stream gathers for a minute"),
        Err(NoAnswer::Failed(said)) => unknown(what, said),
        Err(NoAnswer::Missing) => unknown(what, "no such metric"),
    };
    vec![taken, delivered]
}

fn datadog(args: &Args) -> Vec<Check> {
    let keys = (std::env::var("DD_API_KEY"), std::env::var("DD_APP_KEY"));
    let (Some(site), (Ok(api), Ok(application))) = (args.site, keys) else {
        return vec![unknown("Datadog", "needs --site, DD_API_KEY and DD_APP_KEY")];
    };
    if [&api, &application]
        .iter()
        .any(|key| key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
    {
        return vec![unknown("Datadog", "DD_API_KEY or DD_APP_KEY is no key")];
    }
    let get = |path: &str| curl(&format!("{}{path}", site.api_url()), &api, &application);
    let pipelines = match get("/api/v1/logs/config/pipelines") {
        Err(said) => unknown("Datadog's pipeline", said),
        Ok(found) => pipeline_check(&found),
    };
    let query = "/api/v2/logs/events?page%5Blimit%5D=1&filter%5Bfrom%5D=now-1h&filter%5Bquery%5D=";
    let logs = match get(&format!("{query}%40aws.firehose.arn%3A%2A%2F{}", args.delivery_stream)) {
        Err(said) => unknown("logs in Datadog", said),
        Ok(found) if found["data"].as_array().is_some_and(|logs| !logs.is_empty()) => {
            good("logs in Datadog", "of the last hour")
        }
        Ok(_) => bad(
            "logs in Datadog",
            "none of this stream in the last hour",
            "see the deliveries above, and indexes and exclusion filters in Datadog",
        ),
    };
    vec![pipelines, logs]
}

fn pipeline_check(found: &Value) -> Check {
    let what = "Datadog's pipeline";
    let empty = Vec::new();
    let processors =
        found.as_array().unwrap_or(&empty).iter().filter(|pipeline| pipeline["is_enabled"] == true).flat_map(
            |pipeline| {
                pipeline["processors"]
                    .as_array()
                    .unwrap_or(&empty)
                    .iter()
                    .filter(|processor| processor["is_enabled"] == true)
            },
        );
    let targets: Vec<&str> = processors
        .filter(|processor| processor["type"] == "attribute-remapper" && processor["target_type"] == "tag")
        .filter_map(|processor| processor["target"].as_str())
        .collect();
    let missing: Vec<&str> =
        crate::datadog::REMAPS.iter().map(|(_, target)| *target).filter(|target| !targets.contains(target)).collect();
    if missing.is_empty() {
        good(what, "the four tags are made")
    } else {
        bad(what, format!("no enabled remapper makes {}", missing.join(", ")), "create the output of kubehose pipeline")
    }
}

/// GET through curl, the keys through a pipe: the words of a command can be read by others.
fn curl(url: &str, api: &str, application: &str) -> Result<Value, String> {
    use std::io::Write as _;
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "20", "--config", "-", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("curl cannot be run: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A curl that has gone says why on its own.
        let _ = write!(stdin, "header = \"DD-API-KEY: {api}\"\nheader = \"DD-APPLICATION-KEY: {application}\"\n");
    }
    let output = child.wait_with_output().map_err(|error| format!("curl cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("curl failed").to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("Datadog answered no JSON: {error}"))
}
