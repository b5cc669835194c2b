//! The checks through kubectl: the configuration and the pods of EKS Fargate, or the DaemonSet on nodes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Setup;
use super::ask::{NoAnswer, Programs, shortened};
use super::permissions::{Need, in_namespace};
use super::report::{Check, Report, bad, good, no_answer, unknown};
use crate::fargate;
use crate::lint;
use crate::lint::rules::Severity;
use crate::verdict::plural;

/// The cluster of kubectl, and a check if it may be the wrong one: a healthy wrong cluster would pass all other checks.
pub fn context(programs: &mut Programs, setup: &Setup) -> (Option<String>, Option<Check>) {
    let what = "kubectl's cluster";
    let found = match programs.kubectl(&["config", "view", "--minify"]) {
        Err(NoAnswer::Missing) => return (None, Some(unknown(what, "kubectl has no current context"))),
        Err(why) => return (None, Some(no_answer(what, why, Need::None, "", ""))),
        Ok(found) => found,
    };
    let name = found["clusters"][0]["name"].as_str().unwrap_or_default().to_owned();
    let Some(cluster) = &setup.cluster else { return (Some(name), None) };
    // `aws eks update-kubeconfig` names it by its ARN, eksctl <name>.<region>.eksctl.io; other tools choose freely.
    let is_meant = name.split(['/', '.']).any(|word| word == cluster.as_ref());
    let check = (!is_meant).then(|| unknown(what, format!("{name} may not be {cluster}; --context names another")));
    (Some(name), check)
}

/// The namespace aws-observability.
pub fn namespace(programs: &mut Programs, report: &mut Report) {
    let what = "namespace aws-observability and its label";
    let (key, value) = fargate::NAMESPACE_LABEL;
    let label = format!("kubectl label namespace {} {key}={value} --overwrite", fargate::NAMESPACE);
    let need = Need::Cluster { verb: "get", resource: "namespaces", namespace: None };
    report.say(match programs.kubectl(&["get", "namespace", fargate::NAMESPACE]) {
        Err(why) => no_answer(what, why, need, "the namespace is missing", "apply the output of kubehose manifest"),
        Ok(found) if found["metadata"]["labels"][key] == value => good(what, ""),
        Ok(_) => bad(what, "without the label the router is not configured", label),
    });
}

/// The ConfigMap aws-logging, as lint judges it.
pub fn aws_logging(programs: &mut Programs, setup: &Setup, report: &mut Report) {
    let what = "ConfigMap aws-logging";
    let need = in_namespace("get", "configmaps", fargate::NAMESPACE);
    match programs.kubectl(&["get", "configmap", fargate::CONFIG_MAP, "-n", fargate::NAMESPACE]) {
        Err(why) => report.say(no_answer(what, why, need, "it is missing", "apply the output of kubehose manifest")),
        Ok(found) => {
            linted(what, &found, report);
            let output = found["data"][fargate::OUTPUT].as_str().unwrap_or_default();
            names_stream(setup, fargate::OUTPUT, output, report);
        }
    }
}

/// What lint finds in a manifest; findings of one rule share a line.
fn linted(what: &str, manifest: &Value, report: &mut Report) {
    let text = manifest.to_string();
    let mut errors: BTreeMap<&str, (String, usize, &str)> = BTreeMap::new();
    let mut warnings: Vec<&str> = Vec::new();
    for finding in lint::check([(what, text.as_bytes())].into_iter()) {
        // The label has a check of its own.
        if finding.rule.id == lint::rules::NAMESPACE_UNSEEN.id {
            continue;
        }
        match finding.rule.severity {
            Severity::Warning if warnings.contains(&finding.rule.id) => {}
            Severity::Warning => warnings.push(finding.rule.id),
            Severity::Error => {
                errors.entry(finding.rule.id).or_insert((finding.message, 0, finding.rule.fix)).1 += 1;
            }
        }
    }
    if errors.is_empty() {
        let detail = if warnings.is_empty() { String::new() } else { format!("warnings: {}", warnings.join(", ")) };
        return report.say(good(what, detail));
    }
    for (id, (message, count, fix)) in errors {
        let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
        report.say(bad(&format!("{what} [{id}]"), format!("{message}{more}"), fix));
    }
}

/// Whether a configuration names the stream.
fn names_stream(setup: &Setup, file: &str, text: &str, report: &mut Report) {
    let named =
        text.split(|c: char| c.is_whitespace() || "\"',}".contains(c)).any(|word| word == setup.stream.as_ref());
    if !named {
        report.say(bad(
            "the router's delivery stream",
            format!("{file} does not name {}", setup.stream),
            "write it as delivery_stream, or verify the one that is there",
        ));
    }
}

/// The pods in the namespace, and what EKS says of their router.
pub fn pods(programs: &mut Programs, setup: &Setup, report: &mut Report) {
    let what = "pods";
    let namespace = setup.namespace.to_string();
    let need = in_namespace("list", "pods", &namespace);
    let found = match programs.kubectl(&["get", "pods", "-n", &namespace]) {
        Err(why) => {
            let fix = "kubehose sample-app writes a workload";
            return report.say(no_answer(what, why, need, "there is no such namespace", fix));
        }
        Ok(found) => found,
    };
    let empty = Vec::new();
    let pods = found["items"].as_array().unwrap_or(&empty);
    let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
    report.say(match (running, pods.len()) {
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
    let enabled = on_fargate.iter().filter(|pod| annotation(pod).as_deref() == Some("LoggingEnabled")).count();
    let disabled = on_fargate
        .iter()
        .filter_map(|pod| annotation(pod).filter(|said| said != "LoggingEnabled").map(|said| (said, name_of(pod))));
    let faults = grouped(disabled, on_fargate.len());
    let fix = "fix what it says, then restart the pods: a changed configuration reaches new pods only";
    if !faults.is_empty() {
        faults.into_iter().for_each(|fault| report.say(bad(what, fault, fix)));
    } else if enabled > 0 {
        report.say(good(what, format!("LoggingEnabled on {enabled} of {}", on_fargate.len())));
    } else {
        report.say(events(programs, what, &namespace));
    }
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or("a pod").to_owned()
}

/// A fault that many pods share, in one line: the fault, the number of pods, and some of their names.
fn grouped(faults: impl Iterator<Item = (String, String)>, all: usize) -> Vec<String> {
    let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (fault, pod) in faults {
        pods.entry(shortened(&fault)).or_default().push(pod);
    }
    pods.into_iter()
        .map(|(fault, pods)| {
            let more = if pods.len() > 3 { ", …" } else { "" };
            format!("{fault} ({} of {all}: {}{more})", pods.len(), pods[..pods.len().min(3)].join(", "))
        })
        .collect()
}

/// Older clusters report it only in events, which last an hour.
fn events(programs: &mut Programs, what: &str, namespace: &str) -> Check {
    let found = match programs.kubectl(&["get", "events", "-n", namespace]) {
        Err(why) => {
            return no_answer(what, why, in_namespace("list", "events", namespace), "there is no such namespace", "");
        }
        Ok(found) => found,
    };
    let empty = Vec::new();
    let events = found["items"].as_array().unwrap_or(&empty);
    let of = |reason: &str| events.iter().rfind(|event| event["reason"] == reason);
    match (of("LoggingDisabled"), of("LoggingEnabled")) {
        (Some(event), _) => bad(
            what,
            event["message"].as_str().unwrap_or("LoggingDisabled"),
            "fix what it says, then restart the pods: a changed configuration reaches new pods only",
        ),
        (None, Some(_)) => good(what, "LoggingEnabled"),
        (None, None) => unknown(what, "no pod on Fargate reports its logging; events last an hour, so restart a pod"),
    }
}

/// The router on nodes: its DaemonSet, its pods, its ConfigMaps. Returns the name of its service account.
pub fn daemonset(programs: &mut Programs, setup: &Setup, report: &mut Report) -> Option<String> {
    let what = format!("DaemonSet {}", setup.daemonset);
    let namespace = setup.namespace.to_string();
    let name = setup.daemonset.to_string();
    let need = in_namespace("get", "daemonsets", &namespace);
    let found = match programs.kubectl(&["get", "daemonset", &name, "-n", &namespace]) {
        Err(why) => {
            let fix = "apply the output of kubehose manifest --target daemonset, or name yours with --daemonset";
            report.say(no_answer(&what, why, need, &format!("it is missing in {namespace}"), fix));
            return None;
        }
        Ok(found) => found,
    };
    let count = |field: &str| found["status"][field].as_u64().unwrap_or(0);
    let (wanted, ready) = (count("desiredNumberScheduled"), count("numberReady"));
    report.say(match (ready, wanted) {
        (_, 0) => bad(&what, "no node is selected for it", "check its nodeSelector, affinity and tolerations"),
        (ready, wanted) if ready < wanted => {
            let fix = format!("kubectl describe pods -n {namespace}, and kubectl logs daemonset/{name} -n {namespace}");
            bad(&what, format!("{ready} of {wanted} pods ready"), fix)
        }
        (ready, _) => good(&what, format!("{}, all ready", plural(ready as usize, "pod"))),
    });
    let spec = &found["spec"]["template"]["spec"];
    router_pods(programs, &found, &namespace, report);
    let mut maps: Vec<&str> = spec["volumes"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|volume| volume["configMap"]["name"].as_str())
        .collect();
    maps.dedup();
    let mut text = String::new();
    let mut all_read = true;
    for map in &maps {
        let what = format!("ConfigMap {map}");
        match programs.kubectl(&["get", "configmap", map, "-n", &namespace]) {
            Err(why) => {
                all_read = false;
                let need = in_namespace("get", "configmaps", &namespace);
                report.say(no_answer(&what, why, need, "it is missing", "apply it: pods do not start without it"));
            }
            Ok(found) => {
                linted(&what, &found, report);
                for value in found["data"].as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str()) {
                    text.push_str(value);
                    text.push('\n');
                }
            }
        }
    }
    if all_read && !maps.is_empty() {
        names_stream(setup, &maps.join(" and "), &text, report);
    }
    Some(spec["serviceAccountName"].as_str().unwrap_or("default").to_owned())
}

/// Why pods of the router do not run, or have crashed.
fn router_pods(programs: &mut Programs, daemonset: &Value, namespace: &str, report: &mut Report) {
    let what = "the router's pods";
    let labels: Vec<String> = daemonset["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
        .collect();
    let found = match programs.kubectl(&["get", "pods", "-n", namespace, "-l", &labels.join(",")]) {
        Err(why) => {
            return report.say(no_answer(what, why, in_namespace("list", "pods", namespace), "there are none", ""));
        }
        Ok(found) => found,
    };
    let empty = Vec::new();
    let pods = found["items"].as_array().unwrap_or(&empty);
    let faults = pods.iter().flat_map(|pod| {
        let containers = pod["status"]["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
        containers.iter().filter_map(|container| {
            let waiting = container["state"]["waiting"]["reason"].as_str();
            let ended = container["lastState"]["terminated"]["reason"].as_str().filter(|reason| *reason != "Completed");
            let reason = match (waiting.filter(|reason| *reason != "ContainerCreating"), ended) {
                (Some(waiting), Some(ended)) => format!("{waiting} after {ended}"),
                (Some(reason), None) => reason.to_owned(),
                (None, Some(ended)) => format!("restarted after {ended}"),
                (None, None) => return None,
            };
            Some((reason, name_of(pod)))
        })
    });
    let faults = grouped(faults, pods.len());
    if faults.is_empty() {
        return report.say(good(what, "none has failed"));
    }
    let fix = format!("kubectl logs -n {namespace} --previous, of one of them; a wrong option is named there");
    faults.into_iter().for_each(|fault| report.say(bad(what, fault, fix.clone())));
}

/// The role that IRSA gives to a service account; None where it has none.
pub fn role_of(programs: &mut Programs, setup: &Setup, account: &str) -> Result<Option<String>, Check> {
    let namespace = setup.namespace.to_string();
    let what = format!("ServiceAccount {account}");
    match programs.kubectl(&["get", "serviceaccount", account, "-n", &namespace]) {
        Err(why) => {
            let need = in_namespace("get", "serviceaccounts", &namespace);
            Err(no_answer(&what, why, need, "it is missing", "apply it: pods do not start without it"))
        }
        Ok(found) => Ok(found["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].as_str().map(str::to_owned)),
    }
}
