//! The checks through aws: the credentials, the Fargate profile, roles, ECS, the stream and its metrics.

use serde_json::Value;

use super::Setup;
use super::ask::{NoAnswer, Programs};
use super::permissions::{ASSOCIATION, ASSOCIATIONS, METRICS, Need, PROFILE, ROLE, SERVICE, STREAM, TASK};
use super::report::{Check, Report, bad, good, no_answer, unknown};
use crate::aws::{Account, stream_arn};
use crate::lint;
use crate::lint::rules::Severity;

/// Whose credentials these are.
#[derive(Default)]
pub struct Caller {
    pub account: Option<String>,
    pub arn: Option<String>,
}

/// Asks STS for the caller's identity; faults of the credentials are one check.
pub fn caller(programs: &mut Programs) -> (Caller, Option<Check>) {
    match programs.aws(&["sts", "get-caller-identity"]) {
        Ok(found) => {
            let text = |name: &str| found[name].as_str().map(str::to_owned);
            (Caller { account: text("Account"), arn: text("Arn") }, None)
        }
        Err(why) => (Caller::default(), Some(no_answer("AWS", why, Need::None, "there is nobody", ""))),
    }
}

/// Whether the credentials are for the intended account: that of --account, or the cluster's.
pub fn same_account(setup: &Setup, cluster: Option<&str>) -> Option<Check> {
    match &setup.account {
        Some(account) => other_account(setup, account.as_ref(), "--account names"),
        None => other_account(setup, account_of(cluster?)?, "kubectl's cluster is in"),
    }
}

/// The account that an ARN names.
fn account_of(arn: &str) -> Option<&str> {
    arn.strip_prefix("arn:")?.split(':').nth(3).filter(|account| !account.is_empty())
}

/// A fault, if an account is not that of the credentials.
fn other_account(setup: &Setup, account: &str, whose: &str) -> Option<Check> {
    let own = setup.own_account.as_deref().filter(|own| *own != account)?;
    Some(bad(
        "the account",
        format!("the credentials are for {own}, {whose} {account}"),
        format!("use credentials of {account} (AWS_PROFILE), or verify another setup (--context)"),
    ))
}

/// The Fargate profile and the role of its pods.
pub fn profile(programs: &mut Programs, setup: &Setup, report: &mut Report) {
    let what = "Fargate profile";
    let (Some(cluster), Some(profile)) = (&setup.cluster, &setup.fargate_profile) else { return };
    let words = [
        "eks",
        "describe-fargate-profile",
        "--cluster-name",
        cluster.as_ref(),
        "--fargate-profile-name",
        profile.as_ref(),
    ];
    let found = match programs.aws(&words) {
        Err(why) => {
            let fix = "name an existing profile and cluster";
            return report.say(no_answer(what, why, PROFILE, "there is no such profile", fix));
        }
        Ok(found) => found,
    };
    let profile = &found["fargateProfile"];
    let account = profile["podExecutionRoleArn"].as_str().and_then(account_of);
    report.say_once(account.and_then(|account| other_account(setup, account, "the profile's role is of")));
    report.say(match profile["status"].as_str().unwrap_or("unknown") {
        "ACTIVE" => good(what, ""),
        other => bad(
            what,
            format!("its status is {other}"),
            "wait for ACTIVE, or look at the profile's health in the console",
        ),
    });
    let namespace = setup.namespace.to_string();
    let selects = profile["selectors"].as_array().is_some_and(|selectors| {
        selectors
            .iter()
            .any(|selector| selector["namespace"].as_str().is_some_and(|pattern| matches(pattern, &namespace)))
    });
    report.say(if selects {
        good("the profile selects the namespace", namespace)
    } else {
        let fix = format!("add a selector for {namespace} to a profile: its pods do not run on Fargate");
        bad("the profile selects the namespace", format!("no selector is for {namespace}"), fix)
    });
    let what = "the pod execution role may put records";
    report.say(match profile["podExecutionRoleArn"].as_str() {
        None => unknown(what, "the profile names no role"),
        Some(role) => role_check(programs, setup, what, role),
    });
}

/// Whether a role may put records into the stream.
fn role_check(programs: &mut Programs, setup: &Setup, what: &str, role: &str) -> Check {
    let Some(account) = role.split(':').nth(4).and_then(|account| Account::new(account).ok()) else {
        return unknown(what, format!("{role} is no role's ARN"));
    };
    let stream = stream_arn(&setup.region, &account, &setup.stream);
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
    let found = match programs.aws(&words) {
        Err(why) => return no_answer(what, why, ROLE, "the role is missing", "give an existing role"),
        Ok(found) => found,
    };
    let empty = Vec::new();
    let results = found["EvaluationResults"].as_array().unwrap_or(&empty);
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
        let fix = format!("attach the output of kubehose iam-policy to {}", role.rsplit('/').next().unwrap_or(role));
        bad(what, format!("{} is denied on {stream}", denied.join(" and ")), fix)
    }
}

/// A selector's namespace, in which `*` is any text and `?` any character.
fn matches(pattern: &str, text: &str) -> bool {
    // The last `*` passed, and how far into the text it reached: enough to go back to, so this takes no exponential time.
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p).is_some_and(|c| *c == '?' || *c == text[t]) {
            p += 1;
            t += 1;
        } else if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some((at, reached)) = star {
            star = Some((at, reached + 1));
            p = at + 1;
            t = reached + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The role of a service account on nodes: IRSA's, or that of EKS Pod Identity.
pub fn node_role(programs: &mut Programs, setup: &Setup, account: &str, irsa: Option<String>) -> Check {
    let what = "the router's role may put records";
    if let Some(role) = irsa {
        return role_check(programs, setup, what, &role);
    }
    let Some(cluster) = &setup.cluster else {
        let detail = format!("ServiceAccount {account} names no role; with --cluster, EKS Pod Identity is asked");
        return unknown(what, detail);
    };
    let namespace = setup.namespace.to_string();
    let words = [
        "eks",
        "list-pod-identity-associations",
        "--cluster-name",
        cluster.as_ref(),
        "--namespace",
        &namespace,
        "--service-account",
        account,
    ];
    let found = match programs.aws(&words) {
        Err(why) => return no_answer(what, why, ASSOCIATIONS, "there is no such cluster", "name an existing cluster"),
        Ok(found) => found,
    };
    let Some(id) = found["associations"][0]["associationId"].as_str() else {
        let detail = format!("ServiceAccount {account} has no role, by IRSA or by EKS Pod Identity");
        return bad(what, detail, "kubehose manifest --role-arn annotates it; the node's own role is not checked");
    };
    let words =
        ["eks", "describe-pod-identity-association", "--cluster-name", cluster.as_ref(), "--association-id", id];
    match programs.aws(&words) {
        Err(why) => no_answer(what, why, ASSOCIATION, "the association is gone", "verify again"),
        Ok(found) => match found["association"]["roleArn"].as_str() {
            Some(role) => role_check(programs, setup, what, role),
            None => unknown(what, "the association names no role"),
        },
    }
}

/// The service of ECS and its task definition.
pub fn ecs(programs: &mut Programs, setup: &Setup, report: &mut Report) {
    let mut definition = setup.task_definition.clone();
    if let (Some(cluster), Some(service)) = (&setup.cluster, &setup.service) {
        let what = format!("service {service}");
        let words = ["ecs", "describe-services", "--cluster", cluster.as_ref(), "--services", service];
        match programs.aws(&words) {
            Err(why) => {
                report.say(no_answer(&what, why, SERVICE, "there is no such cluster", "name an existing cluster"));
            }
            Ok(found) => {
                let service = &found["services"][0];
                let count = |field: &str| service[field].as_u64().unwrap_or(0);
                report.say(match service["status"].as_str() {
                    None => bad(&what, "there is no such service", "name an existing service"),
                    Some("ACTIVE") if count("runningCount") < count("desiredCount") || count("runningCount") == 0 => {
                        bad(
                            &what,
                            format!("{} of {} tasks are running", count("runningCount"), count("desiredCount")),
                            "see the service's events, and the reason of a stopped task",
                        )
                    }
                    Some("ACTIVE") => {
                        good(&what, format!("{} of {} running", count("runningCount"), count("desiredCount")))
                    }
                    Some(other) => bad(&what, format!("its status is {other}"), "verify a service that is ACTIVE"),
                });
                let of_service = service["taskDefinition"].as_str().map(str::to_owned);
                definition = definition.or(of_service);
            }
        }
    }
    let Some(definition) = definition else { return };
    let what = "task definition";
    let words = ["ecs", "describe-task-definition", "--task-definition", &definition];
    match programs.aws(&words) {
        Err(why) => {
            report.say(no_answer(what, why, TASK, "there is no such task definition", "name an existing one"));
        }
        Ok(found) => task(programs, setup, &found["taskDefinition"], report),
    }
}

/// What a task definition says of its router and of its role.
fn task(programs: &mut Programs, setup: &Setup, task: &Value, report: &mut Report) {
    let what = "task definition";
    let empty = Vec::new();
    let containers = task["containerDefinitions"].as_array().unwrap_or(&empty);
    let mut faults = Vec::new();
    if !containers.iter().any(|container| container["firelensConfiguration"]["type"] == "fluentbit") {
        let fix = "kubehose manifest --target firelens writes one with a log router";
        faults.push(bad(what, "no container is a log router of FireLens (fluentbit)", fix));
    }
    let options: Vec<&Value> = containers
        .iter()
        .map(|container| &container["logConfiguration"])
        .filter(|log| log["logDriver"] == "awsfirelens")
        .map(|log| &log["options"])
        .collect();
    let to_stream = options.iter().any(|options| options["delivery_stream"] == setup.stream.as_ref());
    if !to_stream {
        let detail = format!("no container logs to {} (logDriver awsfirelens, delivery_stream)", setup.stream);
        faults.push(bad("the router's delivery stream", detail, "set both in its logConfiguration"));
    }
    let text = task.to_string();
    let errors: Vec<_> = lint::check([(what, text.as_bytes())].into_iter())
        .into_iter()
        .filter(|finding| {
            finding.rule.severity == Severity::Error && finding.rule.id != lint::rules::UNKNOWN_DOCUMENT.id
        })
        .collect();
    for (at, finding) in errors.iter().enumerate() {
        if errors[..at].iter().all(|before| before.rule.id != finding.rule.id) {
            faults.push(bad(&format!("{what} [{}]", finding.rule.id), &finding.message, finding.rule.fix));
        }
    }
    let on_fargate = task["requiresCompatibilities"].as_array().is_some_and(|on| on.iter().any(|on| on == "FARGATE"));
    let from_ecr = containers.iter().any(|c| c["image"].as_str().is_some_and(|image| image.contains(".dkr.ecr.")));
    if on_fargate && from_ecr && task["executionRoleArn"].is_null() {
        let detail = "without executionRoleArn a task on Fargate cannot pull from ECR";
        faults.push(bad(what, detail, "set executionRoleArn"));
    }
    if faults.is_empty() {
        report.say(good(what, task["taskDefinitionArn"].as_str().and_then(|arn| arn.rsplit('/').next()).unwrap_or("")));
    }
    faults.into_iter().for_each(|fault| report.say(fault));
    let what = "the task role may put records";
    report.say(match task["taskRoleArn"].as_str() {
        None => bad(what, "the task has no role", "set taskRoleArn: the execution role is not the router's"),
        Some(role) => role_check(programs, setup, what, role),
    });
}

/// The delivery stream.
pub fn stream(programs: &mut Programs, setup: &Setup, report: &mut Report) {
    let what = "delivery stream";
    let words = ["firehose", "describe-delivery-stream", "--delivery-stream-name", setup.stream.as_ref()];
    let found = match programs.aws(&words) {
        Err(why) => {
            let fix = "create the output of kubehose delivery-stream";
            return report.say(no_answer(what, why, STREAM, "there is no such stream", fix));
        }
        Ok(found) => found,
    };
    let description = &found["DeliveryStreamDescription"];
    let account = description["DeliveryStreamARN"].as_str().and_then(account_of);
    report.say_once(account.and_then(|account| other_account(setup, account, "the delivery stream is of")));
    report.say(match description["DeliveryStreamStatus"].as_str() {
        Some("ACTIVE") => good(what, ""),
        other => bad(
            what,
            format!("its status is {}", other.unwrap_or("unknown")),
            "wait for ACTIVE, or look for its failure",
        ),
    });
    if description["DeliveryStreamType"] != "DirectPut" {
        let detail = description["DeliveryStreamType"].as_str().unwrap_or("unknown");
        report.say(bad(
            "the stream's source",
            detail,
            "routers put records directly: create a stream with the source Direct PUT",
        ));
    }
    let destination = &description["Destinations"][0]["HttpEndpointDestinationDescription"];
    let url = destination["EndpointConfiguration"]["Url"].as_str().unwrap_or_default();
    // A URL may carry a key; the host is enough.
    let host = url.split('/').nth(2).unwrap_or_default();
    report.say(match setup.site {
        _ if host.is_empty() => bad(
            "the stream's destination",
            "it is not an HTTP endpoint",
            "create the stream with kubehose delivery-stream",
        ),
        Some(site) if url != site.firehose_url() => {
            bad("the stream's destination", host, format!("the site {} is at {}", site.name(), site.firehose_url()))
        }
        _ => good("the stream's destination", host),
    });
}

/// What entered the stream within an hour, and what it delivered.
pub fn metrics(programs: &mut Programs, setup: &Setup, report: &mut Report) {
    let what = "records of the last hour";
    report.say(match metric(programs, setup, "IncomingRecords", "Sum") {
        Err(why) => return report.say(no_answer(what, why, METRICS, "no such metric", "")),
        Ok(None | Some(0.0)) => {
            return report.say(bad(
                what,
                "none came in",
                "check the role and the pods above; the router's own log says more (flb_log_cw)",
            ));
        }
        Ok(Some(count)) => good(what, format!("{count:.0} came in")),
    });
    let what = "deliveries of the last hour";
    report.say(match metric(programs, setup, "DeliveryToHttpEndpoint.Success", "Average") {
        Ok(Some(share)) if share >= 0.99 => good(what, format!("{:.1} % accepted by Datadog", share * 100.0)),
        Ok(Some(share)) => bad(
            what,
            format!("only {:.1} % accepted by Datadog", share * 100.0),
            format!(
                "see the log group /aws/kinesisfirehose/{}: as a rule the API key or the site is wrong",
                setup.stream
            ),
        ),
        Ok(None) => unknown(what, "nothing was delivered yet; a stream collects for a minute"),
        Err(why) => no_answer(what, why, METRICS, "no such metric", ""),
    });
}

fn metric(programs: &mut Programs, setup: &Setup, name: &str, statistic: &str) -> Result<Option<f64>, NoAnswer> {
    let end = jiff::Timestamp::now();
    let start = (end - jiff::SignedDuration::from_hours(1)).to_string();
    let end = end.to_string();
    let dimension = format!("Name=DeliveryStreamName,Value={}", setup.stream);
    let words = [
        "cloudwatch",
        "get-metric-statistics",
        "--namespace",
        "AWS/Firehose",
        "--metric-name",
        name,
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
    let found = programs.aws(&words)?;
    let points = found["Datapoints"].as_array().map_or(&[][..], Vec::as_slice);
    let values: Vec<f64> = points.iter().filter_map(|point| point[statistic].as_f64()).collect();
    let divisor = if statistic == "Average" { values.len() as f64 } else { 1.0 };
    Ok((!values.is_empty()).then(|| values.iter().sum::<f64>() / divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_matches_as_a_glob_and_in_linear_time() {
        for (pattern, text, expected) in [
            ("apps", "apps", true),
            ("apps", "app", false),
            ("a*", "apps", true),
            ("*s", "apps", true),
            ("a?ps", "apps", true),
            ("*", "", true),
            ("", "", true),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(30), &"a".repeat(29)));
        assert!(!matches(&format!("{}b", "*a".repeat(40)), &"a".repeat(5000)));
    }
}
