//! The mapping table and its rules: which attribute of an event goes out under which name.
//!
//! A rule moves a value from a path to a root attribute. The mapping never loses a value: where the target is already
//! there and may not be overwritten, the source stays where it is.

use crate::event::chunk::{Event, Token, Value};
use crate::event::path::{Found, Node, Path, Paths};
use crate::record::json::{self, Cut};

/// The four attributes of Datadog's guide for EKS Fargate, source and target.
///
/// <https://docs.datadoghq.com/logs/guide/aws-eks-fargate-logs-with-kinesis-data-firehose/>
pub const DATADOG: [(&str, &str); 4] = [
    ("kubernetes.container_name", "kube_container_name"),
    ("kubernetes.namespace_name", "kube_namespace"),
    ("kubernetes.pod_name", "pod_name"),
    ("kubernetes.docker_id", "container_id"),
];

/// Where Fluent Bit's kubernetes filter puts its fields.
const KUBERNETES: &[u8] = b"kubernetes";

/// One rule.
#[derive(Clone, Debug)]
struct Rule {
    /// Numbers of its source and of its target among the paths that are looked up.
    source: usize,
    target: usize,
    name: Box<[u8]>,
    /// `"target":`, ready to be written.
    name_json: Box<[u8]>,
    /// Which part of the tag stands in for the source when there is no `kubernetes` map.
    tag_field: Option<TagField>,
}

/// The parts of a container log's tag, in the order in which they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagField {
    Pod,
    Namespace,
    Container,
    Id,
}

impl TagField {
    /// The field that the kubernetes filter takes from the same part.
    fn of(source: &Path) -> Option<TagField> {
        let [first, field] = source.segments() else {
            return None;
        };
        if &**first != KUBERNETES {
            return None;
        }
        match &**field {
            b"pod_name" => Some(TagField::Pod),
            b"namespace_name" => Some(TagField::Namespace),
            b"container_name" => Some(TagField::Container),
            b"docker_id" => Some(TagField::Id),
            _ => None,
        }
    }
}

/// What a tag of Fluent Bit's tail input says about a container:
/// `kube.var.log.containers.<pod>_<namespace>_<container>-<64 hex>.log`, each part as a JSON string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFields([Vec<u8>; 4]);

impl TagFields {
    /// Reads a tag; none when it does not name a container's log file.
    pub fn parse(tag: &[u8]) -> Option<TagFields> {
        let tag = std::str::from_utf8(tag).ok()?;
        let (_, file) = tag.rsplit_once("var.log.containers.")?;
        let (rest, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
        if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        // Neither a pod's name nor a namespace's may have an underscore; a container's neither.
        let mut parts = rest.split('_');
        let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || [pod, namespace, container].contains(&"") {
            return None;
        }
        Some(TagFields([pod, namespace, container, id].map(|part| {
            let mut text = Vec::new();
            json::write_string(&mut text, part.as_bytes());
            text
        })))
    }

    fn get(&self, field: TagField) -> &[u8] {
        &self.0[field as usize]
    }
}

/// What a path is to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads to the `kubernetes` map.
    Kubernetes,
    /// It leads to what the rule of this number moves.
    Source(usize),
    /// It leads to where that rule moves it.
    Target(usize),
}

/// The rules of one output.
#[derive(Clone, Debug, Default)]
pub struct Remap {
    rules: Vec<Rule>,
    paths: Paths,
    /// Number of the path to the `kubernetes` map.
    kubernetes: usize,
    /// What each path is to the rules, by its number; none where source and target are the same.
    roles: Vec<Option<Role>>,
    /// Keep the source where it was, as Datadog's remapper does with `preserve_source`.
    pub preserve_source: bool,
    /// Overwrite a target that is already there, as Datadog's remapper does with `override_on_conflict`.
    pub override_on_conflict: bool,
    /// Take what is missing from the tag when an event has no `kubernetes` map.
    pub tag_fallback: bool,
}

impl Remap {
    /// Rules from the option `remap`: `datadog`, `none`, or `source=target, …`. The error says which part is wrong.
    pub fn parse(text: &str) -> Result<Remap, String> {
        let pairs: Vec<(&str, &str)> = match text.trim() {
            "none" => Vec::new(),
            "datadog" => DATADOG.to_vec(),
            list => {
                let mut pairs = Vec::new();
                for part in list.split(',') {
                    let Some((source, target)) = part.split_once('=') else {
                        return Err(format!("'{}' is not of the form source=target", part.trim()));
                    };
                    pairs.push((source.trim(), target.trim()));
                }
                pairs
            }
        };
        let mut remap = Remap::default();
        remap.kubernetes = remap.paths.add(&Path::attribute(KUBERNETES));
        remap.roles.push(Some(Role::Kubernetes));
        for (source, target) in pairs {
            let source = Path::parse(source)?;
            if target.is_empty() {
                return Err("a target is empty".to_owned());
            }
            if remap.rules.iter().any(|rule| *rule.name == *target.as_bytes()) {
                return Err(format!("the target '{target}' stands there twice"));
            }
            let mut name_json = Vec::new();
            json::write_string(&mut name_json, target.as_bytes());
            name_json.push(b':');
            let rule = Rule {
                tag_field: TagField::of(&source),
                source: remap.paths.add(&source),
                target: remap.paths.add(&Path::attribute(target.as_bytes())),
                name: target.as_bytes().into(),
                name_json: name_json.into(),
            };
            let number = remap.rules.len();
            let moves = source != Path::attribute(target.as_bytes());
            remap.roles.push(Some(Role::Source(number)).filter(|_| moves));
            remap.roles.push(Some(Role::Target(number)).filter(|_| moves));
            remap.rules.push(rule);
        }
        Ok(remap)
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Where the paths of sources and targets begin.
    pub fn paths(&self) -> &Node {
        self.paths.root()
    }

    /// What it means that an event has something at `node`.
    pub fn roles(&self, node: &Node) -> impl Iterator<Item = Role> {
        node.ends().iter().filter_map(|number| self.roles.get(*number).copied().flatten())
    }

    /// Whether `node` is where the `kubernetes` map is.
    pub fn is_kubernetes(&self, node: &Node) -> bool {
        node.ends().contains(&self.kubernetes)
    }

    /// `"target":` of a rule.
    pub fn name_json(&self, rule: usize) -> &[u8] {
        self.rules.get(rule).map_or(&[], |rule| &rule.name_json)
    }

    /// What the tag tells of a rule's source.
    pub fn from_tag<'t>(&self, rule: usize, tag: &'t TagFields) -> Option<&'t [u8]> {
        Some(tag.get(self.rules.get(rule)?.tag_field?)).filter(|_| self.tag_fallback)
    }

    /// Replaces the dots in the targets' names.
    pub fn replace_dots(&mut self, with: &str) {
        for rule in &mut self.rules {
            rule.name_json = json::replace_dots(&rule.name_json, with).into();
        }
    }

    /// Whether the tag can be of any use.
    pub fn wants_tag(&self) -> bool {
        self.tag_fallback && self.rules.iter().any(|rule| rule.tag_field.is_some())
    }

    /// Decides for one event what moves where; `plan` is written anew.
    pub fn plan(&self, event: &Event<'_, '_>, tag: Option<&TagFields>, plan: &mut Plan) {
        let Plan { found, removed, moved } = plan;
        removed.clear();
        moved.clear();
        let root = event.body;
        if self.rules.is_empty() || !matches!(root.token(), Token::Map { .. }) {
            return;
        }
        self.paths.find(root, found);
        let from_tag = self.tag_fallback && tag.is_some() && found[self.kubernetes].is_none();
        for (number, rule) in self.rules.iter().enumerate() {
            let source = found[rule.source];
            if source.is_none() && !(from_tag && rule.tag_field.is_some()) {
                continue;
            }
            if let Some(target) = found[rule.target] {
                if source == Some(target) || !self.override_on_conflict {
                    continue;
                }
                remove_all(removed, root, &rule.name);
            }
            if let Some(source) = source
                && !self.preserve_source
            {
                removed.push(source.key);
            }
            moved.push((number, source.map(|source| source.value)));
        }
    }

    /// The names of what a plan moves, as JSON strings.
    pub fn moved_names(&self, plan: &Plan) -> impl Iterator<Item = Vec<u8>> {
        let rules = plan.moved.iter().filter_map(|(number, _)| self.rules.get(*number));
        rules.map(|rule| rule.name_json.strip_suffix(b":").unwrap_or_default().to_vec())
    }

    /// Of what a plan moves, keeps the targets that `keep` wants.
    pub fn retain_moved(&self, plan: &mut Plan, keep: impl Fn(&[u8]) -> bool) {
        plan.moved.retain(|(number, _)| self.rules.get(*number).is_some_and(|rule| keep(&rule.name)));
    }

    /// The value that a plan moves to this target: where it is on the tape, or its JSON from the tag.
    pub fn moved_value<'t>(&self, name: &[u8], tag: Option<&'t TagFields>, plan: &Plan) -> Option<Moved<'t>> {
        let (number, source) =
            plan.moved.iter().find(|(number, _)| self.rules.get(*number).is_some_and(|rule| *rule.name == *name))?;
        match source {
            Some(at) => Some(Moved::At(*at)),
            None => Some(Moved::Json(tag?.get(self.rules.get(*number)?.tag_field?))),
        }
    }

    /// Appends what a plan moves, `"name":value` each, with `comma` called before each.
    pub fn write_moved(
        &self,
        event: &Event<'_, '_>,
        tag: Option<&TagFields>,
        plan: &Plan,
        cut: Cut<'_>,
        out: &mut Vec<u8>,
        mut comma: impl FnMut(&mut Vec<u8>),
    ) {
        for (number, source) in &plan.moved {
            let Some(rule) = self.rules.get(*number) else { continue };
            comma(out);
            out.extend_from_slice(&rule.name_json);
            match (source, tag, rule.tag_field) {
                (Some(at), ..) => json::write_value(out, Value { tape: event.body.tape, at: *at }, cut),
                (None, Some(tag), Some(field)) => out.extend_from_slice(tag.get(field)),
                (None, ..) => out.extend_from_slice(b"null"),
            }
        }
    }
}

/// A value that a plan moves.
#[derive(Clone, Copy, Debug)]
pub enum Moved<'t> {
    /// Its index on the event's tape.
    At(usize),
    /// Ready JSON.
    Json(&'t [u8]),
}

/// What happens to the attributes of one event. Its buffers are reused from event to event.
#[derive(Debug, Default)]
pub struct Plan {
    found: Vec<Option<Found>>,
    /// Keys (indices on the event's tape) that are left out, with their values.
    pub removed: Vec<usize>,
    /// Rules, and where on the tape their values are; none for one from the tag.
    moved: Vec<(usize, Option<usize>)>,
}

/// Leaves out a root attribute, each time that it stands there.
pub fn remove_all(removed: &mut Vec<usize>, root: Value<'_, '_>, name: &[u8]) {
    for (key, _) in root.pairs() {
        if let Token::Str(text) | Token::Bin(text) = key.token()
            && text == name
        {
            removed.push(key.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TAG: &str = "kube.var.log.containers.web-6c8b.x_shop_nginx-main-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.log";

    fn remap(rules: &str, set: impl FnOnce(&mut Remap)) -> Remap {
        let mut remap = Remap::parse(rules).unwrap();
        remap.tag_fallback = true;
        set(&mut remap);
        remap
    }

    fn apply(remap: &Remap, tag: &str, body: serde_json::Value) -> serde_json::Value {
        crate::record::tests::through(remap, tag, &body)
    }

    #[test]
    fn the_four_move_and_the_rest_stays() {
        let body = json!({"log": "x", "kubernetes": {"pod_name": "p", "namespace_name": "n", "container_name": "c",
            "docker_id": "d", "labels": {"pod_name": "not me"}}});
        let moved = json!({"log": "x", "kubernetes": {"labels": {"pod_name": "not me"}},
            "kube_container_name": "c", "kube_namespace": "n", "pod_name": "p", "container_id": "d"});
        assert_eq!(apply(&remap("datadog", |_| {}), TAG, body.clone()), moved);
        assert_eq!(apply(&remap("none", |_| {}), TAG, body.clone()), body);
        let mut kept = body.clone();
        for (source, target) in DATADOG {
            kept[target] = body["kubernetes"][source.split_once('.').unwrap().1].clone();
        }
        assert_eq!(apply(&remap("datadog", |r| r.preserve_source = true), TAG, body), kept);
    }

    #[test]
    fn a_target_that_is_there_stays_unless_overridden() {
        let body = json!({"pod_name": "the app's", "kubernetes": {"pod_name": "p", "host": "h"}});
        assert_eq!(apply(&remap("datadog", |_| {}), TAG, body.clone()), body);
        assert_eq!(
            apply(&remap("datadog", |r| r.override_on_conflict = true), TAG, body),
            json!({"kubernetes": {"host": "h"}, "pod_name": "p"})
        );
    }

    #[test]
    fn a_map_with_nothing_left_is_an_empty_one() {
        assert_eq!(
            apply(&remap("datadog", |_| {}), TAG, json!({"kubernetes": {"pod_name": "p"}})),
            json!({"kubernetes": {}, "pod_name": "p"})
        );
    }

    #[test]
    fn without_the_map_the_tag_tells() {
        let told = json!({"log": "x", "kube_container_name": "nginx-main", "kube_namespace": "shop", "pod_name": "web-6c8b.x",
            "container_id": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"});
        assert_eq!(apply(&remap("datadog", |_| {}), TAG, json!({"log": "x"})), told);
        let body = json!({"log": "x"});
        assert_eq!(apply(&remap("datadog", |r| r.tag_fallback = false), TAG, body.clone()), body);
        assert_eq!(apply(&remap("datadog", |_| {}), "app.log", body.clone()), body);
        assert_eq!(apply(&remap("none", |_| {}), TAG, body), json!({"log": "x"}));
        // The map is there, and lacks a field: the filter has spoken, the tag is not asked.
        let body = json!({"kubernetes": {"host": "h"}});
        assert_eq!(apply(&remap("datadog", |_| {}), TAG, body.clone()), body);
        for other in ["kube.var.log.containers.a_b_c-12.log", "var.log.containers.a_b-0123.log", ""] {
            assert_eq!(TagFields::parse(other.as_bytes()), None);
        }
    }

    #[test]
    fn own_rules_with_both_spellings_of_a_path() {
        let body = json!({"a": {"b.c": {"d": 1}, "e": [2]}, "f": null});
        assert_eq!(
            apply(&remap("$a['b.c']['d'] = one, a.e=two,f=three, no.such=four", |_| {}), TAG, body),
            json!({"a": {"b.c": {}}, "one": 1, "two": [2], "three": null})
        );
        for wrong in ["a", "a=", "=b", "a..b=c", "$a[b]=c", "$a['b'=c", "a=x,b=x", "$=x"] {
            assert!(Remap::parse(wrong).is_err(), "{wrong}");
        }
    }
}
