//! The mapping: which attribute of an event is sent under which name; constants.
//!
//! A rule moves a value from a path to a root attribute. The mapping never loses a value: if the target exists
//! and may not be overwritten, the source stays where it is.

use crate::event::chunk::{Token, Value};
use crate::event::path::{Found, Node, Path, Paths};
use crate::record::json;
use regex_lite::Regex;

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
pub const KUBERNETES: &[u8] = b"kubernetes";

/// One rule.
#[derive(Clone, Debug)]
struct Rule {
    /// Numbers of its source and its target among the paths; a constant has no source.
    source: usize,
    target: usize,
    /// The target's name, and the name that is written, with dots replaced.
    target_name: Box<[u8]>,
    name: Box<[u8]>,
    /// `"target":`, ready to be written.
    name_json: Box<[u8]>,
    /// Which part of the tag is used if the source is not a text.
    tag_field: Option<TagField>,
    /// A constant's value, as a JSON string and as it is.
    constant: Option<TagText>,
}

/// The parts of a container log's tag, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagField {
    Pod,
    Namespace,
    Container,
    Id,
}

/// What the kubernetes filter calls them.
const FIELDS: [(&str, TagField); 4] = [
    ("pod_name", TagField::Pod),
    ("namespace_name", TagField::Namespace),
    ("container_name", TagField::Container),
    ("docker_id", TagField::Id),
];

impl TagField {
    /// The field that the kubernetes filter fills from the same part.
    fn of(source: &Path) -> Option<TagField> {
        let [first, field] = source.segments() else {
            return None;
        };
        let field = FIELDS.iter().find(|(name, _)| name.as_bytes() == &**field).map(|(_, field)| *field);
        field.filter(|_| &**first == KUBERNETES)
    }
}

/// A text in both forms.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TagText {
    json: Vec<u8>,
    raw: Vec<u8>,
}

impl TagText {
    fn new(text: &str) -> TagText {
        let mut json = Vec::new();
        json::write_string(&mut json, text.as_bytes());
        TagText { json, raw: text.as_bytes().to_vec() }
    }
}

/// The option `tag_pattern`.
///
/// # Errors
/// What is wrong with the expression, or that it names none of the fields.
pub fn parse_pattern(text: &str) -> Result<Regex, String> {
    let pattern = Regex::new(text).map_err(|error| error.to_string())?;
    let known = |name: &str| FIELDS.iter().any(|(field, _)| *field == name);
    match pattern.capture_names().flatten().find(|name| !known(name)) {
        Some(name) => Err(format!("there is no field '{name}'")),
        None if pattern.capture_names().flatten().next().is_none() => Err("it has no named group".to_owned()),
        None => Ok(pattern),
    }
}

/// What a tag says about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFields([Option<TagText>; 4]);

impl TagFields {
    /// Reads a tag of Fluent Bit's tail input, `kube.var.log.containers.<pod>_<namespace>_<container>-<64 hex>.log`; `None`
    /// if it does not name a container's log file.
    pub fn parse(tag: &[u8]) -> Option<TagFields> {
        let tag = std::str::from_utf8(tag).ok()?;
        let (_, file) = tag.rsplit_once("var.log.containers.")?;
        let (rest, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
        if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        // Names of pods, namespaces and containers have no underscores.
        let mut parts = rest.split('_');
        let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || [pod, namespace, container].contains(&"") {
            return None;
        }
        Some(TagFields([pod, namespace, container, id].map(|part| Some(TagText::new(part)))))
    }

    /// What the named groups of a pattern find in a tag; `None` if it does not match.
    fn matched(pattern: &Regex, tag: &[u8]) -> Option<TagFields> {
        let groups = pattern.captures(std::str::from_utf8(tag).ok()?)?;
        let mut fields = TagFields(Default::default());
        for (name, field) in FIELDS {
            let text = groups.name(name).filter(|text| !text.is_empty());
            if let (Some(text), Some(place)) = (text, fields.0.get_mut(field as usize)) {
                *place = Some(TagText::new(text.as_str()));
            }
        }
        Some(fields)
    }

    /// What the tag has for the value at this path.
    pub fn at(&self, path: &Path) -> Option<&[u8]> {
        self.get(TagField::of(path)?).map(|text| text.raw.as_slice())
    }

    fn get(&self, field: TagField) -> Option<&TagText> {
        self.0.get(field as usize)?.as_ref()
    }
}

/// What the rules do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the source of the rule with this number.
    Source(usize),
    /// It is the target of the rule with this number.
    Target(usize),
}

/// The rules of one output.
#[derive(Clone, Debug, Default)]
pub struct Remap {
    rules: Vec<Rule>,
    /// How many rules move something; constants follow.
    moves: usize,
    paths: Paths,
    /// Number of the path to the `kubernetes` map.
    kubernetes: usize,
    /// What the rules do with each path, by its number; `None` if source and target are the same.
    roles: Vec<Option<Role>>,
    /// Keep the source where it was, as Datadog's remapper does with `preserve_source`.
    pub preserve_source: bool,
    /// Overwrite a target that is already there, as Datadog's remapper does with `override_on_conflict`.
    pub override_on_conflict: bool,
    /// Use the tag if an event has no text for a name.
    pub tag_fallback: bool,
    /// The pattern for tags of another form (`tag_pattern`).
    pub tag_pattern: Option<Regex>,
}

impl Remap {
    /// Rules from the option `remap`: `none`, or a list of `datadog` and `source=target`. The error says which part is
    /// wrong.
    pub fn parse(text: &str) -> Result<Remap, String> {
        let mut remap = Remap::default();
        remap.kubernetes = remap.paths.add(&Path::attribute(KUBERNETES));
        remap.roles.push(None);
        if text.trim() == "none" {
            return Ok(remap);
        }
        for part in text.split(',') {
            match (part.trim(), part.split_once('=')) {
                ("datadog", _) => {
                    DATADOG.iter().try_for_each(|(source, target)| remap.add_rule(source, target))?;
                }
                (_, Some((source, target))) => remap.add_rule(source.trim(), target.trim())?,
                (part, None) => return Err(format!("'{part}' is not of the form source=target")),
            }
        }
        Ok(remap)
    }

    fn add_rule(&mut self, source: &str, target: &str) -> Result<(), String> {
        let source = Path::parse(source)?;
        let moves = source != Path::attribute(target.as_bytes());
        let tag_field = TagField::of(&source);
        let number = self.paths.add(&source);
        self.roles.push(Some(Role::Source(self.rules.len())).filter(|_| moves));
        self.add_target(
            target,
            moves,
            Rule {
                source: number,
                target: 0,
                target_name: target.as_bytes().into(),
                name: target.as_bytes().into(),
                name_json: Box::default(),
                tag_field,
                constant: None,
            },
        )
    }

    /// Adds a constant under this name, for events without it.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn add_constant(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.add_target(
            name,
            true,
            Rule {
                source: usize::MAX,
                target: 0,
                target_name: name.as_bytes().into(),
                name: name.as_bytes().into(),
                name_json: Box::default(),
                tag_field: None,
                constant: Some(TagText::new(value)),
            },
        )
    }

    fn add_target(&mut self, target: &str, moves: bool, rule: Rule) -> Result<(), String> {
        if target.is_empty() {
            return Err("a target is empty".to_owned());
        }
        if self.has_target(target.as_bytes()) {
            return Err(format!("'{target}' is already the target of another mapping or constant"));
        }
        let mut name_json = Vec::new();
        json::write_string(&mut name_json, target.as_bytes());
        name_json.push(b':');
        let number = self.paths.add(&Path::attribute(target.as_bytes()));
        self.roles.push(Some(Role::Target(self.rules.len())).filter(|_| moves));
        self.moves += usize::from(rule.constant.is_none());
        self.rules.push(Rule { target: number, name_json: name_json.into(), ..rule });
        Ok(())
    }

    /// Whether a rule or a constant writes this name.
    pub fn has_target(&self, name: &[u8]) -> bool {
        self.rules.iter().any(|rule| *rule.name == *name)
    }

    /// How many rules and constants there are; the constants come last.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// The root of the paths of sources and targets.
    pub fn paths(&self) -> &Node {
        self.paths.root()
    }

    /// What the rules do with a value at `node`.
    pub fn roles(&self, node: &Node) -> impl Iterator<Item = Role> {
        node.ends().iter().filter_map(|number| self.roles.get(*number).copied().flatten())
    }

    /// Whether `node` is where the `kubernetes` map is.
    pub fn is_kubernetes(&self, node: &Node) -> bool {
        node.ends().contains(&self.kubernetes)
    }

    /// Whether the tag has a value for this rule, too; then only a text may be moved.
    pub fn is_name(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|rule| rule.tag_field.is_some())
    }

    /// The target of a rule.
    pub fn target(&self, rule: usize) -> &[u8] {
        self.rules.get(rule).map_or(&[], |rule| &rule.target_name)
    }

    /// The target of a rule, with dots replaced.
    pub fn name(&self, rule: usize) -> &[u8] {
        self.rules.get(rule).map_or(&[], |rule| &rule.name)
    }

    /// `"target":` of a rule.
    pub fn name_json(&self, rule: usize) -> &[u8] {
        self.rules.get(rule).map_or(&[], |rule| &rule.name_json)
    }

    /// How many rules move something.
    pub fn moves(&self) -> usize {
        self.moves
    }

    /// The value of a constant, as a JSON string.
    pub fn constant(&self, rule: usize) -> &[u8] {
        self.rules.get(rule).and_then(|rule| rule.constant.as_ref()).map_or(b"null", |text| &text.json)
    }

    /// The tag's value for a rule's source, as a JSON string.
    pub fn from_tag<'t>(&self, rule: usize, tag: &'t TagFields) -> Option<&'t [u8]> {
        self.tag_text(self.rules.get(rule)?, tag).map(|text| text.json.as_slice())
    }

    fn tag_text<'t>(&self, rule: &Rule, tag: &'t TagFields) -> Option<&'t TagText> {
        tag.get(rule.tag_field?).filter(|_| self.tag_fallback)
    }

    /// The tag's value for a rule's source.
    pub fn tag_value<'t>(&self, rule: usize, tag: Option<&'t TagFields>) -> &'t [u8] {
        let text = self.rules.get(rule).zip(tag).and_then(|(rule, tag)| self.tag_text(rule, tag));
        text.map_or(&[], |text| &text.raw)
    }

    /// Replaces the dots in the targets' names.
    ///
    /// # Errors
    /// When two targets become the same.
    pub fn replace_dots(&mut self, with: &str) -> Result<(), String> {
        let mut names = std::collections::HashSet::new();
        for rule in &mut self.rules {
            let name = String::from_utf8_lossy(&rule.name).replace('.', with);
            rule.name_json = Box::default();
            let mut name_json = Vec::new();
            json::write_string(&mut name_json, name.as_bytes());
            name_json.push(b':');
            (rule.name, rule.name_json) = (name.as_bytes().into(), name_json.into());
            if !names.insert(name.clone()) {
                return Err(format!("'{name}' would then be the target of two attributes"));
            }
        }
        Ok(())
    }

    /// What a tag says about the container, if the rules can use it, or if it is `asked` for.
    pub fn tag_fields(&self, tag: &[u8], asked: bool) -> Option<TagFields> {
        if !self.tag_fallback || !asked && !self.rules.iter().any(|rule| rule.tag_field.is_some()) {
            return None;
        }
        match &self.tag_pattern {
            Some(pattern) => TagFields::matched(pattern, tag),
            None => TagFields::parse(tag),
        }
    }

    /// Decides what moves where in one event, and replaces `plan` by that. Constants are not in it.
    pub fn plan(&self, root: Value<'_, '_>, tag: Option<&TagFields>, plan: &mut Plan) {
        let Plan { found, removed, overridden, moved } = plan;
        removed.clear();
        overridden.clear();
        moved.clear();
        if self.rules.is_empty() {
            return;
        }
        self.paths.find(root, found);
        for (number, rule) in self.rules.iter().take(self.moves).enumerate() {
            let mut source = found.get(rule.source).copied().flatten();
            let target = found.get(rule.target).copied().flatten();
            if source.is_some() && source == target {
                continue;
            }
            // A value that is not a text is not a name, and stays where it is.
            source = source
                .filter(|source| rule.tag_field.is_none() || is_text(Value { tape: root.tape, at: source.value }));
            let from = match (source, tag.and_then(|tag| self.tag_text(rule, tag))) {
                (Some(source), _) => Moved::At(source.value),
                (None, Some(_)) => Moved::Tag,
                (None, None) => continue,
            };
            if target.is_some() {
                if !self.override_on_conflict {
                    continue;
                }
                overridden.push(number);
            }
            if let Some(source) = source
                && !self.preserve_source
            {
                removed.push(source.key);
            }
            moved.push((number, from));
        }
    }

    /// Whether a plan overwrites the event's root attribute of this name.
    pub fn overrides(&self, plan: &Plan, name: &[u8]) -> bool {
        let targets = plan.overridden.iter().filter_map(|rule| self.rules.get(*rule));
        let mut targets = targets.filter_map(|rule| self.paths.root().child(name).map(|node| (rule, node)));
        targets.any(|(rule, node)| node.ends().contains(&rule.target))
    }
}

/// Whether it is a text that is not empty.
fn is_text(value: Value<'_, '_>) -> bool {
    match value.token() {
        Token::Str(text) => !text.is_empty(),
        Token::Bin(text) => !text.is_empty() && std::str::from_utf8(text).is_ok(),
        _ => false,
    }
}

/// A value that a plan moves.
#[derive(Clone, Copy, Debug)]
pub enum Moved {
    /// Its index on the event's tape.
    At(usize),
    /// The tag's value: see [`Remap::tag_value`].
    Tag,
}

/// What happens to the attributes of one event.
#[derive(Debug, Default)]
pub struct Plan {
    found: Vec<Option<Found>>,
    /// Keys (indices on the event's tape) that are dropped with their values.
    pub removed: Vec<usize>,
    /// Rules that overwrite a target that the event has.
    overridden: Vec<usize>,
    /// Rules, and what they move.
    pub moved: Vec<(usize, Moved)>,
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
        assert_eq!(apply(&remap("datadog", |_| {}), "app", body.clone()), body);
        assert_eq!(
            apply(&remap("datadog", |r| r.override_on_conflict = true), "app", body),
            json!({"kubernetes": {"host": "h"}, "pod_name": "p"})
        );
    }

    #[test]
    fn a_map_with_nothing_left_is_an_empty_one() {
        assert_eq!(
            apply(&remap("datadog", |_| {}), "app", json!({"kubernetes": {"pod_name": "p"}})),
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
        // Whatever of the map is there, in whatever shape: a name is a text from it, or the tag's.
        for kubernetes in [
            json!(null),
            json!("text"),
            json!({}),
            json!({"mine": 1}),
            json!([1]),
            json!({"pod_name": null, "docker_id": {}, "namespace_name": 7, "container_name": ""}),
        ] {
            let mut expected = told.clone();
            expected["kubernetes"] = kubernetes.clone();
            let body = json!({"log": "x", "kubernetes": kubernetes});
            assert_eq!(apply(&remap("datadog", |_| {}), TAG, body.clone()), expected);
            // Without a tag there is no name, and nothing is lost.
            assert_eq!(apply(&remap("datadog", |_| {}), "app", body.clone()), body);
        }
        let body = json!({"kubernetes": {"pod_name": "own"}});
        let both = json!({"kubernetes": {}, "kube_container_name": "nginx-main", "kube_namespace": "shop",
            "pod_name": "own", "container_id": told["container_id"]});
        assert_eq!(apply(&remap("datadog", |_| {}), TAG, body), both);
        for other in ["kube.var.log.containers.a_b_c-12.log", "var.log.containers.a_b-0123.log", ""] {
            assert_eq!(TagFields::parse(other.as_bytes()), None);
        }
    }

    #[test]
    fn a_pattern_reads_tags_of_ones_own() {
        let pattern = r"^app\.(?P<namespace_name>[^.]+)\.(?P<pod_name>[^.]+)(\.(?P<container_name>.+))?$";
        let own = remap("datadog", |remap| remap.tag_pattern = Some(parse_pattern(pattern).unwrap()));
        let body = json!({"log": "x", "kubernetes": {"pod_name": "own"}});
        assert_eq!(
            apply(&own, "app.shop.web-1.a \"b\"", body.clone()),
            json!({"log": "x", "kubernetes": {}, "kube_container_name": "a \"b\"", "kube_namespace": "shop", "pod_name": "own"})
        );
        assert_eq!(
            apply(&own, "app.shop.web-1", json!({"a": 1})),
            json!({"a": 1, "kube_namespace": "shop", "pod_name": "web-1"})
        );
        assert_eq!(apply(&own, TAG, json!({"a": 1})), json!({"a": 1}));
        for wrong in ["(", "no group", "(?P<pod>x)"] {
            assert!(parse_pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn own_rules_with_both_spellings_of_a_path() {
        let body = json!({"a": {"b.c": {"d": 1}, "e": [2]}, "f": null});
        assert_eq!(
            apply(&remap("$a['b.c']['d'] = one, a.e=two,f=three, no.such=four", |_| {}), TAG, body),
            json!({"a": {"b.c": {}}, "one": 1, "two": [2], "three": null})
        );
        let body = json!({"kubernetes": {"pod_name": "p"}, "a": 1});
        assert_eq!(apply(&remap("datadog, a=b", |_| {}), "", body), json!({"kubernetes": {}, "pod_name": "p", "b": 1}));
        for wrong in ["a", "datadog, a=pod_name", "a=", "=b", "a..b=c", "$a[b]=c", "$a['b'=c", "a=x,b=x", "$=x"] {
            assert!(Remap::parse(wrong).is_err(), "{wrong}");
        }
    }
}
