//! The filters that stand between the files of the containers and the output, out of those that EKS Fargate allows.
//!
//! The remap lifts the `kubernetes` map to the root under a rare prefix, renames the four fields there, and nests the others
//! back.

use super::route::{self, Route};
use super::{Field, Router};
use crate::classic::Section;
use crate::{datadog, fargate};

/// Prefix of the lifted fields. An application's own keys that start with it would be swept into `kubernetes`.
const LIFTED: &str = "kubehose__";
/// Prefix of the lifted labels, and of those among them that stay.
const LIFTED_LABEL: &str = "kubehose_l_";
const KEPT_LABEL: &str = "kubehose_k_";

/// What the filters do besides reading the pod's metadata.
#[derive(Clone, Copy)]
pub struct Work {
    /// Take the container runtime's line apart.
    pub cri: bool,
    /// Give the four fields Datadog's names.
    pub renames: bool,
}

/// The filters for `router`, in the order in which the records meet them.
pub fn sections(router: &Router, routes: &[Route], work: Work) -> Vec<Section> {
    let matching = |name: &str, pattern: &str| Section::new("FILTER").set("Name", name).set("Match", pattern);
    let filter = |name: &str| matching(name, &router.match_pattern);
    // What a route tags anew passes the filters from the first on: those before the routes must not meet it again.
    let before = if routes.is_empty() { &router.match_pattern } else { fargate::MATCH_OF_FILES };
    let before = |name: &str| matching(name, before);
    let mut sections = Vec::new();
    if work.cri {
        sections.push(before("parser").set("Key_Name", "log").set("Parser", fargate::CRI_PARSER));
    }
    let off = |field| router.drop.contains(&field).then_some("Off");
    let no_labels = off(Field::Labels).filter(|_| router.keep_labels.is_empty());
    let labels_route = route::by_label(routes);
    sections.push(
        before("kubernetes")
            .set_all(fargate::KUBERNETES_SETTINGS)
            .set_if("Labels", no_labels.filter(|_| !labels_route))
            .set_if("Annotations", off(Field::Annotations))
            .set_if("Keep_Log", off(Field::Log)),
    );
    if !router.exclude_namespace.is_empty() {
        let names: Vec<String> = router.exclude_namespace.iter().map(ToString::to_string).collect();
        sections.push(before("grep").set("Exclude", format!("$kubernetes['namespace_name'] ^({})$", names.join("|"))));
    }

    sections.extend(route::sections(&router.delivery_stream, routes).filter);

    let mut dropped: Vec<&str> = router.drop.iter().filter_map(|field| field.key()).collect();
    if no_labels.is_some() && labels_route {
        dropped.push("labels");
    }
    if !work.renames && dropped.is_empty() && router.keep_labels.is_empty() {
        return sections;
    }
    let lift = |under: &str, prefix: &str| {
        filter("nest").set("Operation", "lift").set("Nested_under", under).set("Add_prefix", prefix)
    };
    let nest = |under: &str, prefix: &str| {
        filter("nest")
            .set("Operation", "nest")
            .set("Wildcard", format!("{prefix}*"))
            .set("Nest_under", under)
            .set("Remove_prefix", prefix)
    };
    sections.push(lift(datadog::KUBERNETES, LIFTED));
    let mut modify = filter("modify");
    if work.renames {
        let rule = match (router.preserve_source, router.override_on_conflict) {
            (false, false) => "Rename",
            (false, true) => "Hard_rename",
            (true, false) => "Copy",
            (true, true) => "Hard_copy",
        };
        for (field, target) in datadog::kubernetes_fields() {
            modify = modify.set(rule, format!("{LIFTED}{field} {target}"));
        }
    }
    for field in &dropped {
        modify = modify.set("Remove", format!("{LIFTED}{field}"));
    }
    if work.renames || !dropped.is_empty() {
        sections.push(modify);
    }
    if !router.keep_labels.is_empty() {
        let labels = format!("{LIFTED}labels");
        let mut keep = filter("modify");
        for label in &router.keep_labels {
            keep = keep.set("Rename", format!("{LIFTED_LABEL}{label} {KEPT_LABEL}{label}"));
        }
        sections.push(lift(&labels, LIFTED_LABEL));
        sections.push(keep.set("Remove_wildcard", LIFTED_LABEL));
        sections.push(nest(&labels, KEPT_LABEL));
    }
    sections.push(nest(datadog::KUBERNETES, LIFTED));
    sections
}
