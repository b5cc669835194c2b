//! What becomes of each option of `firehose` and `kinesis_firehose`, as kubehose's own reader judges the result.

use std::collections::HashSet;

use kubehose::options::OPTIONS;

use crate::lint::router::is_known;
use crate::lint::{embedded, options, reader};

/// The output that a section was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// amazon-kinesis-firehose-for-fluent-bit.
    Go,
    /// Fluent Bit's built-in output.
    BuiltIn,
}

impl Peer {
    /// The output of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "firehose" => Some(Self::Go),
            "kinesis_firehose" => Some(Self::BuiltIn),
            _ => None,
        }
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Go => "firehose",
            Self::BuiltIn => "kinesis_firehose",
        }
    }
}

/// What is known of the configuration around a section.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    /// FireLens makes the section out of a task definition, and its events have no `kubernetes` map.
    pub firelens: bool,
    /// `Hot_Reload On`, which a proxy plugin with workers does not survive.
    pub hot_reload: bool,
}

/// An option as it stands there.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its name, in whatever capitals.
    pub key: String,
    pub value: String,
}

/// What becomes of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Keep,
    Value(String),
    Key(String),
    /// It is commented, for this reason.
    Out(String),
}

/// What becomes of a section.
#[derive(Debug)]
pub struct Plan {
    /// For each option that was given.
    pub changes: Vec<Change>,
    /// Options that come after the name.
    pub added: Vec<(&'static str, String)>,
    /// What is done to the section, and to its options by their index.
    pub notes: Vec<(Option<usize>, String)>,
}

/// The section as text, in the classic format.
pub fn render(plan: &Plan, given: &[Given]) -> String {
    let mut lines = vec!["[OUTPUT]".to_owned()];
    for (option, change) in given.iter().zip(&plan.changes) {
        let Given { key, value } = option;
        match change {
            Change::Keep => lines.push(format!("    {key} {value}")),
            Change::Value(value) => lines.push(format!("    {key} {value}")),
            Change::Key(key) => lines.push(format!("    {key} {value}")),
            Change::Out(why) => {
                lines.push(format!("    # Left out: {}", why.replace(['\n', '\r'], " ")));
                lines.push(format!("    # {key} {value}"));
            }
        }
        if key == "name" {
            lines.extend(plan.added.iter().map(|(key, value)| format!("    {key} {value}")));
        }
    }
    lines.join("\n") + "\n"
}

/// Options without which the records would go elsewhere, or nowhere: what is wrong with one is no matter of leaving it out.
const VITAL: [&str; 5] = ["region", "delivery_stream", "endpoint", "sts_endpoint", "role_arn"];

/// Plans what becomes of the section of `peer`; the error says why nothing can.
pub fn plan(peer: Peer, given: &[Given], around: Around) -> Result<Plan, String> {
    let mut plan = Plan { changes: Vec::new(), added: Vec::new(), notes: Vec::new() };
    let keys: Vec<String> = given.iter().map(|option| option.key.to_ascii_lowercase()).collect();
    let value_of = |key: &str| keys.iter().position(|other| other == key).map(|at| given[at].value.as_str());
    plan.notes.push((None, format!("{} becomes kubehose", peer.name())));
    let mut seen = HashSet::new();
    for (key, option) in keys.iter().zip(given) {
        let own = OPTIONS.iter().any(|spec| spec.name == key);
        let change = if own && !seen.insert(key.as_str()) {
            Change::Out("it stands twice, and the first counts".to_owned())
        } else {
            change(peer, key, &option.value, around, &value_of)
        };
        plan.changes.push(change);
    }
    if peer == Peer::BuiltIn
        && let Some(port) = value_of("port")
    {
        set_port(&mut plan, port, &keys, given)?;
    }
    // The plugin's own reader has the last word, on each value and on all of them together.
    for at in 0..given.len() {
        let (key, value) = plan.result(at, &keys, given);
        // A template is judged with what must stand beside it.
        let template = keys[at] == "delivery_stream" && value.contains('$');
        let judged = key.filter(|_| is_known(&value) && !template);
        let Some(fault) = judged.and_then(|key| reader::alone(&key, &value)) else {
            continue;
        };
        if VITAL.contains(&keys[at].as_str()) {
            return Err(fault);
        }
        plan.changes[at] = Change::Out(fault);
    }
    while let Some(fault) = plan.together(&keys, given) {
        let named = (0..given.len()).find(|at| {
            let (key, _) = plan.result(*at, &keys, given);
            key.is_some_and(|key| fault.contains(&format!("'{key}'")) && !VITAL.contains(&key.as_str()))
        });
        match named {
            Some(at) => plan.changes[at] = Change::Out(fault),
            None => return Err(fault),
        }
    }
    if value_of("delivery_stream").is_none() {
        return Err("it has no delivery_stream".to_owned());
    }
    let stays = |plan: &Plan, key: &str| {
        keys.iter().position(|other| other == key).is_some_and(|at| !matches!(plan.changes[at], Change::Out(_)))
    };
    if value_of("workers").is_none() && !around.hot_reload {
        plan.added.push(("workers", "2".to_owned()));
        plan.notes.push((None, format!("workers 2 added: {} waits in coroutines, kubehose on threads", peer.name())));
    }
    if value_of("remap").is_none() && stays(&plan, "data_keys") {
        plan.added.push(("remap", "none".to_owned()));
        plan.notes
            .push((None, "remap none added: data_keys names attributes as they are after the mapping".to_owned()));
    } else if value_of("remap").is_none() && !stays(&plan, "log_key") && !around.firelens {
        plan.notes.push((
            None,
            "the four attributes of Kubernetes get Datadog's names at the root; `remap none` leaves them where they are"
                .to_owned(),
        ));
    }
    plan.note_changes(peer, &keys, given);
    Ok(plan)
}

fn change<'v>(
    peer: Peer,
    key: &str,
    value: &str,
    around: Around,
    value_of: &dyn Fn(&str) -> Option<&'v str>,
) -> Change {
    let out = |why: &str| Change::Out(why.to_owned());
    let unread = format!("{} did not read it", peer.name());
    match key {
        "name" => Change::Value("kubehose".to_owned()),
        "host" => Change::Out(unread),
        "port" if peer == Peer::Go => Change::Out(unread),
        // See set_port.
        "port" => Change::Keep,
        "tls.ca_file" => match is_known(value).then(|| reader::alone("ca_file", value)).flatten() {
            None => Change::Key("ca_file".to_owned()),
            Some(fault) => Change::Out(fault),
        },
        "tls.verify" | "tls.verify_hostname" => {
            out("kubehose always checks certificates; ca_file names an authority of your own")
        }
        "tls.ca_path" => out("kubehose reads no folder of authorities; ca_file names a file"),
        "tls" => out("kubehose speaks TLS by itself"),
        _ if key.starts_with("tls.") => out("kubehose speaks TLS by itself"),
        _ if ["net.", "oauth2", "_debug."].iter().any(|family| key.starts_with(family)) => {
            out("kubehose has connections of its own")
        }
        "auto_retry_requests" => out("kubehose always sends again what failed, and only that"),
        "experimental_concurrency" if value.parse::<u32>() == Ok(0) => out("0 was its default; kubehose's is auto"),
        "experimental_concurrency" => match is_known(value).then(|| reader::alone("concurrency", value)).flatten() {
            None => Change::Key("concurrency".to_owned()),
            Some(fault) => Change::Out(fault),
        },
        "experimental_concurrency_retries" => {
            out("what failed is sent again until flush_timeout, then the host keeps it")
        }
        "compression" if peer == Peer::Go => Change::Out(format!("{unread}: its records go uncompressed")),
        "time_key" | "data_keys" | "time_key_format" if value_of("log_key").is_some() => {
            out("log_key sends one value alone, which has no place for it")
        }
        "external_id" if value_of("role_arn").is_none() => out("it is of use only together with role_arn"),
        // src/aws/flb_aws_util.c writes nanoseconds for %L; for kubehose and for the Go plugin it is milliseconds.
        "time_key_format" if peer == Peer::BuiltIn && value.contains("%L") => Change::Value(value.replace("%L", "%9N")),
        // The peers know no paths: a dot is part of the key.
        "log_key" if is_known(value) && value.contains(['.', '$']) && !value.contains('[') => {
            Change::Value(format!("${value}"))
        }
        _ if around.firelens && embedded::FIRELENS_OWN.contains(&key) => Change::Keep,
        _ if options::is_core(key) || OPTIONS.iter().any(|spec| spec.name == key) => Change::Keep,
        _ => {
            let near = options::near(key, OPTIONS.iter().map(|spec| spec.name));
            let more = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            Change::Out(format!("kubehose has no such option{more}"))
        }
    }
}

/// `port`, which the built-in output goes to and which never reaches a proxy plugin, becomes part of the endpoint.
fn set_port(plan: &mut Plan, port: &str, keys: &[String], given: &[Given]) -> Result<(), String> {
    let place = |key: &str| keys.iter().position(|other| other == key);
    let Some(at) = place("port") else { return Ok(()) };
    if is_known(port) && !port.parse::<u16>().is_ok_and(|number| number > 0) {
        if port == "0" {
            plan.changes[at] = Change::Out("443 is the default".to_owned());
            return Ok(());
        }
        return Err(format!("port {port} is no port"));
    }
    if port == "443" {
        plan.changes[at] = Change::Out("443 is the default".to_owned());
        return Ok(());
    }
    plan.changes[at] = Change::Out("Fluent Bit does not pass it to plugins, so it goes into endpoint".to_owned());
    if let Some(endpoint) = place("endpoint") {
        let with = given[endpoint].value.trim_end_matches('/');
        let authority = with.split_once("://").map_or(with, |(_, rest)| rest);
        if authority.contains(':') && !authority.ends_with(']') && !authority.contains("${") {
            return Err(format!("endpoint {with} has a port already, and port is {port}"));
        }
        plan.changes[endpoint] = Change::Value(format!("{with}:{port}"));
        return Ok(());
    }
    let region = place("region").map_or("${AWS_REGION}", |region| given[region].value.as_str());
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    plan.added.push(("endpoint", format!("firehose.{region}.{domain}:{port}")));
    Ok(())
}

impl Plan {
    /// The name, if it stays, and the value that an option has in the end.
    fn result(&self, at: usize, keys: &[String], given: &[Given]) -> (Option<String>, String) {
        let (key, value) = (keys[at].clone(), given[at].value.clone());
        match &self.changes[at] {
            Change::Keep => (Some(key), value),
            Change::Value(value) => (Some(key), value.clone()),
            Change::Key(key) => (Some(key.clone()), value),
            Change::Out(_) => (None, value),
        }
    }

    /// What the reader has against the options as they stand together.
    fn together(&self, keys: &[String], given: &[Given]) -> Option<String> {
        let result: Vec<(Option<String>, String)> = (0..given.len()).map(|at| self.result(at, keys, given)).collect();
        reader::together(&|name| {
            let found = result.iter().find(|(key, _)| key.as_deref() == Some(name));
            let added = self.added.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
            let value = found.map(|(_, value)| value.clone()).or(added);
            let left = result.iter().any(|(key, _)| key.as_deref() == Some("default_delivery_stream"));
            match name {
                "delivery_stream" => value.map(|value| reader::stream(&value, left)),
                "default_delivery_stream" => value.map(|value| reader::stream(&value, false)),
                _ => value.filter(|value| is_known(value)),
            }
        })
    }

    /// A note of each change, and of what keeps its words but not its meaning.
    fn note_changes(&mut self, peer: Peer, keys: &[String], given: &[Given]) {
        for (at, change) in self.changes.iter().enumerate() {
            let (key, value) = (&given[at].key, &given[at].value);
            let note = match change {
                Change::Value(_) if keys[at] == "name" => continue,
                Change::Value(_) if keys[at] == "time_key_format" => {
                    format!("{key}: %L becomes %9N: {} writes nanoseconds for %L, kubehose milliseconds", peer.name())
                }
                Change::Value(to) => format!("{key} {value} becomes {key} {to}"),
                Change::Key(to) => format!("{key} becomes {to}"),
                Change::Out(why) => format!("{key} is left out: {why}"),
                Change::Keep => String::new(),
            };
            if !note.is_empty() {
                self.notes.push((Some(at), note));
            }
            if keys[at] == "delivery_stream" && reader::stream(value, false).contains('$') {
                let note = format!("{key} {value} is a template for kubehose; {} read it as a name", peer.name());
                self.notes.push((Some(at), note));
            }
            if keys[at] == "log_key" && peer == Peer::BuiltIn && !matches!(change, Change::Out(_)) {
                let note = format!(
                    "log_key sends the key {value} alone; kinesis_firehose sent each key that {value} begins with, and cut \
                     the first and the last byte of a value that is no text"
                );
                self.notes.push((Some(at), note));
            }
        }
        for (key, value) in &self.added {
            if *key == "endpoint" {
                self.notes.push((None, format!("endpoint {value} added: the region's own, with that port")));
            }
        }
    }
}
