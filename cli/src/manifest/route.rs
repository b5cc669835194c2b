//! `--route`: which delivery stream the logs of a namespace, or of pods with a label, go to on EKS Fargate, whose router loads
//! no plugin and so knows no templates.
//!
//! One `rewrite_tag` filter gives what a route fits another tag, and each stream has its output of that tag. Of the routes in
//! their order the first that fits counts, as of the filter's rules.

use std::fmt;

use crate::aws::{StreamName, each_once};
use crate::classic::Section;
use crate::kube::Name;
use crate::verdict::Failure;
use crate::{datadog, fargate};

/// One `--route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    by: By,
    value: String,
    stream: StreamName,
}

/// What a route goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum By {
    Namespace,
    Label(String),
}

/// How a label's route is told from a namespace's.
const LABEL: &str = "label:";

impl Route {
    /// Reads `NAMESPACE=STREAM` or `label:KEY=VALUE=STREAM`.
    pub fn new(text: &str) -> Result<Self, String> {
        let form = || format!("expected NAMESPACE=STREAM or {LABEL}KEY=VALUE=STREAM");
        let (from, stream) = text.rsplit_once('=').ok_or_else(form)?;
        let (by, value) = match from.strip_prefix(LABEL) {
            Some(label) => {
                let (key, value) = label.split_once('=').ok_or_else(form)?;
                if !is_label_key(key) {
                    return Err(format!("'{key}' is no label's key as Kubernetes takes them"));
                }
                if !is_label_value(value) {
                    return Err(format!("'{value}' is no label's value as Kubernetes takes them"));
                }
                (By::Label(key.to_owned()), value)
            }
            None if from.contains('=') => return Err(format!("{}: a label's begins with {LABEL}", form())),
            None => {
                Name::new(from).map_err(|fault| format!("the namespace '{from}': {fault}"))?;
                (By::Namespace, from)
            }
        };
        let stream = StreamName::new(stream).map_err(|fault| format!("the stream '{stream}': {fault}"))?;
        Ok(Self { by, value: value.to_owned(), stream })
    }
}

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|part| Name::new(part).is_ok());
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(domain)
}

/// A label may be empty.
fn is_label_value(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && (text.is_empty() || text.starts_with(edge) && text.ends_with(edge))
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            By::Namespace => write!(f, "{}={}", self.value, self.stream),
            By::Label(key) => write!(f, "{LABEL}{key}={}={}", self.value, self.stream),
        }
    }
}

/// Refuses routes of which one can never be meant.
pub fn check(routes: &[Route], excluded: &[Name]) -> Result<(), Failure> {
    for (index, route) in routes.iter().enumerate() {
        let same = |other: &&Route| other.by == route.by && other.value == route.value && other.stream != route.stream;
        if let Some(first) = routes.iter().take(index).find(same) {
            return Err(Failure::new(format!("--route {route} never counts: {first} comes before it")));
        }
        if route.by == By::Namespace && excluded.iter().any(|name| name.to_string() == route.value) {
            return Err(Failure::new(format!(
                "--route {route}: --exclude-namespace {} keeps its logs from every stream",
                route.value
            )));
        }
    }
    Ok(())
}

/// The streams, each once: the default, then those of the routes in their order.
pub fn streams(default: &StreamName, routes: &[Route]) -> Vec<StreamName> {
    let all: Vec<StreamName> = [default].into_iter().chain(routes.iter().map(|route| &route.stream)).cloned().collect();
    each_once(&all)
}

/// Whether a route goes by a label, which so must not be gone before.
pub fn by_label(routes: &[Route]) -> bool {
    routes.iter().any(|route| matches!(route.by, By::Label(_)))
}

/// Routes of one key to one stream: one rule.
struct Rule<'r> {
    by: &'r By,
    values: Vec<&'r str>,
    stream: &'r StreamName,
}

/// As few rules as do what `routes` say. A key has one value, so that routes of one key may change places; so may those to one
/// stream.
fn rules<'r>(default: &StreamName, routes: &'r [Route]) -> Vec<Rule<'r>> {
    let mut rules: Vec<Rule<'r>> = Vec::new();
    for Route { by, value, stream } in routes {
        let in_reach = rules.iter_mut().rev().take_while(|rule| rule.by == by || rule.stream == stream);
        match in_reach.filter(|rule| rule.by == by && rule.stream == stream).last() {
            Some(rule) if rule.values.contains(&value.as_str()) => {}
            Some(rule) => rule.values.push(value),
            None => rules.push(Rule { by, values: vec![value], stream }),
        }
    }
    // What no other rule could have goes to the default anyway.
    for index in (0..rules.len()).rev() {
        if let [rule, later @ ..] = &rules[index..]
            && rule.stream == default
            && later.iter().all(|later| later.by == rule.by)
        {
            rules.remove(index);
        }
    }
    rules
}

/// Filter and outputs for some routes.
pub struct Sections {
    /// `rewrite_tag`; none if all goes to the default.
    pub filter: Option<Section>,
    /// The streams beside the default's output, each with what its output matches.
    pub outputs: Vec<(StreamName, String)>,
}

/// What `routes` come to.
pub fn sections(default: &StreamName, routes: &[Route]) -> Sections {
    let rules = rules(default, routes);
    let mut outputs: Vec<(StreamName, String)> = Vec::new();
    let mut filter = Section::new("FILTER").set("Name", "rewrite_tag").set("Match", fargate::MATCH_OF_FILES);
    for Rule { by, values, stream } in &rules {
        let tag = match outputs.iter().find(|(name, _)| name == *stream) {
            Some((_, tag)) => tag.clone(),
            None => {
                let tag = fargate::routed_tag(outputs.len() + 1);
                outputs.push(((*stream).clone(), tag.clone()));
                tag
            }
        };
        let key = match by {
            By::Namespace => format!("${}['namespace_name']", datadog::KUBERNETES),
            By::Label(label) => format!("${}['labels']['{label}']", datadog::KUBERNETES),
        };
        // Of the signs that names and values may have only the dot means something else.
        let values = values.join("|").replace('.', r"\.");
        let expression = if values.contains('|') { format!("^({values})$") } else { format!("^{values}$") };
        filter = filter.set("Rule", format!("{key} {expression} {tag} false"));
    }
    let filter = (!rules.is_empty()).then(|| filter.set("Emitter_Mem_Buf_Limit", fargate::MEM_BUF_LIMIT));
    Sections { filter, outputs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(texts: &[&str]) -> Vec<Route> {
        texts.iter().map(|text| Route::new(text).unwrap()).collect()
    }

    #[test]
    fn a_route_is_read_and_written_alike() {
        let long = format!("{}={}", "a".repeat(63), "s".repeat(64));
        for text in [
            "shop=logs-shop",
            "a-1=a.b_C-1",
            "label:team=payments=logs-pay",
            "label:app.kubernetes.io/name=a.b_c-1=x",
            "label:team==x",
            long.as_str(),
        ] {
            assert_eq!(Route::new(text).map(|route| route.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_can_be_no_route_is_told() {
        let long = format!("{}=x", "a".repeat(64));
        for (text, told) in [
            ("", "NAMESPACE=STREAM"),
            ("shop", "NAMESPACE=STREAM"),
            ("=x", "namespace ''"),
            ("shop=", "stream ''"),
            ("Shop=x", "namespace 'Shop'"),
            ("a.b=x", "namespace 'a.b'"),
            ("a*=x", "namespace 'a*'"),
            (long.as_str(), "namespace"),
            ("team=payments=x", "begins with label:"),
            ("label:team=x", "KEY=VALUE"),
            ("label:=v=x", "key"),
            ("label:a b=v=x", "key"),
            ("label:a'b=v=x", "key"),
            ("label:Up/name=v=x", "key"),
            ("label:a/b/c=v=x", "key"),
            ("label:a=(b|c)=x", "value"),
            ("label:a=b$=x", "value"),
            ("label:a=.b=x", "value"),
            ("label:a=${B}=x", "value"),
            ("shop=a$b", "stream"),
            ("shop=arn:aws:firehose:eu-west-1:123456789012:deliverystream/x", "stream"),
        ] {
            assert!(Route::new(text).is_err_and(|fault| fault.contains(told)), "{text}: {:?}", Route::new(text));
        }
    }

    /// The stream of a pod, as the routes say it one by one, and as the filter's rules do.
    #[test]
    fn the_rules_do_what_the_routes_say() {
        let default = StreamName::new("s0").unwrap();
        let mut seed = 1_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        for _ in 0..5000 {
            let texts: Vec<String> = (0..1 + random(7))
                .map(|_| {
                    let (value, stream) = (random(3), random(4));
                    match random(3) {
                        0 => format!("n{value}=s{stream}"),
                        kind => format!("label:k{kind}=n{value}=s{stream}"),
                    }
                })
                .collect();
            let routes: Vec<Route> = texts.iter().map(|text| Route::new(text).unwrap()).collect();
            if check(&routes, &[]).is_err() {
                continue;
            }
            let rules = rules(&default, &routes);
            for pod in 0..64 {
                let values = [format!("n{}", pod % 4), format!("n{}", pod / 4 % 4), format!("n{}", pod / 16)];
                let of = |by: &By| match by {
                    By::Namespace => values[0].as_str(),
                    By::Label(key) => values[if key == "k1" { 1 } else { 2 }].as_str(),
                };
                let said =
                    routes.iter().find(|route| of(&route.by) == route.value).map_or(&default, |route| &route.stream);
                let done =
                    rules.iter().find(|rule| rule.values.contains(&of(rule.by))).map_or(&default, |rule| rule.stream);
                assert_eq!(said, done, "{texts:?} {values:?}");
            }
        }
    }

    #[test]
    fn routes_to_one_stream_share_a_rule_and_an_output() {
        let default = StreamName::new("logs").unwrap();
        let routes = routes(&["a=x", "b=y", "label:k.e/y=v.1=y", "c=x", "d=logs", "c=x"]);
        let Sections { filter, outputs } = sections(&default, &routes);
        let tags: Vec<&str> = outputs.iter().map(|(_, tag)| tag.as_str()).collect();
        assert_eq!(tags, ["kube.1", "kube.2"]);
        let body = filter.unwrap().body();
        assert_eq!(body.matches("Rule").count(), 4, "{body}");
        assert!(body.contains(r"$kubernetes['labels']['k.e/y'] ^v\.1$ kube.2 false"), "{body}");
        assert!(!body.contains("^d$"), "{body}");
        assert!(sections(&default, &Route::new("d=logs").into_iter().collect::<Vec<_>>()).filter.is_none());
    }
}
