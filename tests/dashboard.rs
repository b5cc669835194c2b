//! The dashboard and the alerts in `examples/` use only metrics that exist, and the dashboard shows all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

use kubehose::metrics::{COUNTERS, Counts, ERRORS, GAUGES, SECONDS};
use saphyr_parser::{Event, Parser};
use serde_json::Value;
use std::collections::BTreeSet;

const DASHBOARD: &str = include_str!("../examples/grafana/kubehose.json");
const RULES: &str = include_str!("../examples/prometheus/kubehose.rules.yaml");

/// Every series on the host's metrics endpoint.
fn series() -> BTreeSet<String> {
    let named = COUNTERS.iter().chain(&GAUGES).map(|(name, _, _)| *name).chain([ERRORS.0]);
    let mut all: BTreeSet<String> = named.map(|name| format!("kubehose_{}", name.to_str().unwrap())).collect();
    let seconds = SECONDS.0.to_str().unwrap();
    all.extend(["bucket", "sum", "count"].map(|part| format!("kubehose_{seconds}_{part}")));
    all
}

/// Our metrics' names in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kubehose")).map(str::to_owned).collect()
}

/// The classes in an expression's `class="…"` or `class=~"…|…"`.
fn classes(expression: &str) -> Vec<String> {
    let parts = expression.split("class=").skip(1);
    parts.flat_map(|part| part.split('"').nth(1).unwrap().split('|').map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn assert_exist(expression: &str) {
    let series = series();
    let names = names(expression);
    assert!(!names.is_empty(), "no metric of kubehose in: {expression}");
    for name in names {
        assert!(series.contains(&name), "there is no metric {name}, in: {expression}");
        // A counter only ever grows: its rate is what matters.
        if ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) {
            for (at, _) in expression.match_indices(&name) {
                let before = &expression[..at];
                assert!(
                    ["rate(", "increase(", "label_values("].iter().any(|call| before.ends_with(call)),
                    "{name} is used without a rate in: {expression}"
                );
            }
        }
    }
    let known: Vec<&str> = Counts::default().snapshot().errors.iter().map(|(class, _)| *class).collect();
    for class in classes(expression) {
        assert!(known.contains(&class.as_str()), "there is no class {class}, in: {expression}");
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}: another panel has the same id", panel["title"]);
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            assert_exist(expression);
            shown.extend(names(expression));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let query = variables.iter().find(|variable| variable["name"] == "name").unwrap();
    assert_exist(query["query"]["query"].as_str().unwrap());
    assert_eq!(shown, series());
}

#[test]
fn the_alerts_use_only_metrics_that_exist() {
    // All scalars in the order of the file, so that a value follows its key.
    let scalars: Vec<String> = Parser::new_from_str(RULES)
        .filter_map(|event| match event.unwrap().0 {
            Event::Scalar(text, ..) => Some(text.into_owned()),
            _ => None,
        })
        .collect();
    let of = |key: &str| -> Vec<&str> {
        scalars.windows(2).filter(|pair| pair[0] == key).map(|pair| pair[1].as_str()).collect()
    };
    let (alerts, expressions) = (of("alert"), of("expr"));
    assert_eq!(alerts.len(), expressions.len());
    assert_eq!((alerts.len(), of("severity").len(), of("summary").len()), (6, 6, 6));
    let mut watched = BTreeSet::new();
    for expression in &expressions {
        assert_exist(expression);
        watched.extend(names(expression));
    }
    for wanted in [
        "records_dropped_total",
        "records_dead_lettered_total",
        "errors_total",
        "throttled_total",
        "held_bytes",
        "held_bytes_limit",
    ] {
        assert!(watched.contains(&format!("kubehose_{wanted}")), "no alert on {wanted}");
    }
    // Classes of errors that pass by themselves raise no alert.
    let woken: BTreeSet<String> = expressions.iter().flat_map(|expression| classes(expression)).collect();
    let known = Counts::default().snapshot().errors;
    let lasting =
        known.iter().map(|(class, _)| *class).filter(|class| !["throttled", "service", "poison"].contains(class));
    assert_eq!(woken, lasting.map(str::to_owned).collect());
}
