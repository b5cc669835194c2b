//! The checks in Datadog, through curl: the pipeline, and whether logs arrive.

use serde_json::Value;

use super::Setup;
use super::ask::Programs;
use super::permissions::Need;
use super::report::{Check, Report, bad, good, no_answer, unknown};
use crate::datadog::REMAPS;

/// Without --site and both keys there is one check that says so.
pub fn checks(programs: &mut Programs, setup: &Setup, report: &mut Report) {
    let keys = ["DD_API_KEY", "DD_APP_KEY"].map(|name| std::env::var(name).ok().filter(|key| !key.is_empty()));
    let (Some(site), [Some(api), Some(application)]) = (setup.site, keys) else {
        return report.say(unknown("Datadog", "needs --site, DD_API_KEY and DD_APP_KEY"));
    };
    // They go into curl's configuration, where a quote would end them.
    let is_key = |key: &String| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if ![&api, &application].into_iter().all(is_key) {
        return report.say(unknown("Datadog", "DD_API_KEY or DD_APP_KEY is not a key"));
    }
    let headers = [("DD-API-KEY", api.as_str()), ("DD-APPLICATION-KEY", application.as_str())];
    let mut get = |path: &str| programs.curl(&format!("{}{path}", site.api_url()), &headers);
    let what = "Datadog's pipeline";
    report.say(match get("/api/v1/logs/config/pipelines") {
        Err(why) => no_answer(what, why, Need::Datadog("logs_read_config"), "", ""),
        Ok(found) => pipeline(what, &found),
    });
    let what = "logs in Datadog";
    let query = "/api/v2/logs/events?page%5Blimit%5D=1&filter%5Bfrom%5D=now-1h&filter%5Bquery%5D=";
    report.say(match get(&format!("{query}%40aws.firehose.arn%3A%2A%2F{}", setup.stream)) {
        Err(why) => no_answer(what, why, Need::Datadog("logs_read_data"), "", ""),
        Ok(found) if found["data"].as_array().is_some_and(|logs| !logs.is_empty()) => good(what, "of the last hour"),
        Ok(_) => bad(
            what,
            "none of this stream in the last hour",
            "check the deliveries above, and indexes and exclusion filters in Datadog",
        ),
    });
}

fn pipeline(what: &str, found: &Value) -> Check {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let enabled = |value: &Value| value["is_enabled"] == true;
    let processors: Vec<Value> = list(found)
        .iter()
        .filter(|pipeline| enabled(pipeline))
        .flat_map(|pipeline| list(&pipeline["processors"]))
        .collect();
    let makes = |target: &str| {
        processors.iter().any(|processor| {
            enabled(processor)
                && processor["type"] == "attribute-remapper"
                && processor["target_type"] == "tag"
                && processor["target"] == target
        })
    };
    let missing: Vec<&str> = REMAPS.iter().map(|(_, target)| *target).filter(|target| !makes(target)).collect();
    if missing.is_empty() {
        good(what, "the four tags are made")
    } else {
        bad(what, format!("no enabled remapper makes {}", missing.join(", ")), "create the output of kubehose pipeline")
    }
}
