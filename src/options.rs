//! Properties of an `[OUTPUT]` section → validated [`Config`], once; every option's name, default, bounds and help.
//!
//! Hosts before 5.1.1 accept unknown properties silently, and all return only those that are asked for by name, so an option that is not in
//! [`OPTIONS`] does not exist.

use crate::delivery::lanes::Streams;
use crate::delivery::pace::Concurrency;
use crate::delivery::{Acknowledge, DeliveryOptions};
use crate::error::Error;
use crate::event::path::{Path, Paths};
use crate::firehose::FirehoseConfig;
use crate::record::pack::{Compression, PackOptions};
use crate::record::remap::{Remap, parse_pattern};
use crate::record::stream::Template;
use crate::record::time::{TimeFormat, TimeKey, parse_zone};
use crate::record::{LogKey, Oversize, RecordOptions, SPLIT, TRUNCATED};
pub use crate::service::is_stream_name;
use crate::storage::chunks::SyncMode;
use crate::storage::{SpoolOptions, StorageOptions};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One option; the references are generated from these.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its name in the `[OUTPUT]` section.
    pub name: &'static str,
    /// Its value when it is not given; empty if there is none.
    pub default: &'static str,
    /// What it accepts, as its error message says it.
    pub accepted: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn option(name: &'static str, default: &'static str, accepted: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, default, accepted, help }
}

const SWITCH: &str = "on or off";
const SIZE: &str = "a size such as 512K, 64M or 1G, of at least 1M";
const DURATION: &str = "a duration such as 500ms, 10s or 2m, of 100ms to 1h";
const RATE: &str = "a whole number of at least 1";

/// Every option of the plugin, in the order of the reference.
pub const OPTIONS: &[OptionSpec] = &[
    option(
        "region",
        "AWS_REGION, AWS_DEFAULT_REGION",
        "an AWS region such as eu-west-1",
        "The region of the delivery stream.",
    ),
    option(
        "delivery_stream",
        "",
        "a stream's name (not its ARN): 1 to 64 letters, digits, '_', '.' or '-'; or a template of one",
        "The name of the delivery stream. Required. With `$kubernetes['namespace_name']`, other record accessors, `$TAG` or `$TAG[n]` in it, each event goes to the stream that its values name.",
    ),
    option(
        "default_delivery_stream",
        "",
        "a stream's name; needed, and allowed, only if delivery_stream is a template",
        "The stream for events that have no value for the template, or one that is not valid in a stream's name.",
    ),
    option(
        "max_streams",
        "64",
        "a whole number from 2 to 1000",
        "How many streams may be in use at a time; events for others go to `default_delivery_stream`.",
    ),
    option(
        "endpoint",
        "",
        "a URL such as http://127.0.0.1:4573, or host[:port], which means https",
        "An endpoint other than the region's: a VPC endpoint, FIPS, or a local stand-in.",
    ),
    option(
        "sts_endpoint",
        "",
        "a URL, or host[:port], which means https",
        "An endpoint of STS other than the region's, for `role_arn`, IRSA (web identity) and profiles that assume a role.",
    ),
    option(
        "role_arn",
        "",
        "a role's ARN such as arn:aws:iam::123456789012:role/logs",
        "A role to assume with the credentials that the AWS SDK finds by itself.",
    ),
    option("external_id", "", "2 to 1224 characters, together with role_arn", "The external ID for `role_arn`."),
    option("profile", "AWS_PROFILE", "a profile's name", "A profile of the shared AWS configuration files."),
    option(
        "ca_file",
        "",
        "the absolute path of a PEM file",
        "Certificate authorities to trust besides the system's own.",
    ),
    option(
        "remap",
        "datadog",
        "none, or a list of datadog and source=target, whose sources are a.b.c or $a['b.c']['d']",
        "Which attributes are sent under which names. `datadog` stands for the four of Datadog's guide.",
    ),
    option("remap_preserve_source", "off", SWITCH, "Also keep a remapped attribute under its old name."),
    option(
        "remap_override",
        "off",
        SWITCH,
        "Overwrite an attribute that already has the new name; if off, both stay as they are.",
    ),
    option(
        "kube_tag_fallback",
        "on",
        SWITCH,
        "Take pod, namespace, container and id from the tag where the event's `kubernetes` map has no text for them.",
    ),
    option(
        "tag_pattern",
        "",
        "a regular expression with some of the groups (?P<pod_name>…), namespace_name, container_name, docker_id",
        "Where the names are in tags that do not have the kubernetes filter's form.",
    ),
    option(
        "add_keys",
        "",
        "a list name=text, separated by commas",
        "Add constants to events that have no attribute of that name.",
    ),
    option(
        "data_keys",
        "",
        "paths, separated by commas: a.b.c or $a['b.c']['d']",
        "Send only these attributes, under their names after `remap`.",
    ),
    option(
        "drop_keys",
        "",
        "paths, separated by commas: a.b.c or $a['b.c']['d']",
        "Send all attributes but these, under their names after `remap`.",
    ),
    option(
        "log_key",
        "",
        "a path; not together with data_keys, drop_keys, time_key, add_keys or record_id",
        "Send only the value of this key: a string as it is, anything else as JSON. A blank value makes no record, and is counted.",
    ),
    option("replace_dots", "", "a text without dots", "Replace the dots in every key by this."),
    option("time_key", "", "an attribute's name", "Add the event's time under this name."),
    option(
        "time_key_format",
        "%Y-%m-%dT%H:%M:%S",
        "a strftime format, with %L or %3N (milliseconds), %6N or %f (microseconds), %9N",
        "The format of `time_key`; all other conversions are those of C's strftime.",
    ),
    option(
        "time_key_zone",
        "UTC",
        "UTC, an offset such as +02:00, or a zone such as Europe/Berlin that the machine knows",
        "The zone of `time_key`.",
    ),
    option(
        "record_id",
        "",
        "an attribute's name",
        "Add an id under this name that is the same when a record is sent again.",
    ),
    option(
        "otlp_metadata",
        "on",
        SWITCH,
        "With OTLP records, also send attributes, severity, trace and span ids under OpenTelemetry's names.",
    ),
    option("newline", "on", SWITCH, "End each record with a newline."),
    option(
        "simple_aggregation",
        "off",
        SWITCH,
        "Join events by newlines up to a record's limit: cheaper, for destinations that split lines (S3, OpenSearch).",
    ),
    option("compression", "none", "none, gzip, zstd or snappy", "Compress each record, after aggregation."),
    option(
        "compression_level",
        "",
        "a whole number, for gzip from 1 to 9 (6 if not given), for zstd from 1 to 19 (3)",
        "How hard the compression tries: more is smaller, and slower.",
    ),
    option(
        "oversize",
        "truncate",
        "truncate, split or drop (split not together with log_key)",
        "What happens to a record over 1,024,000 bytes. `truncate`: its longest texts are cut, then its largest parts dropped; `kubehose_truncated` says how many bytes. `split`: its texts are sent in several records, with `kubehose_id`, `kubehose_part`, `kubehose_parts`. `drop`: it is dead-lettered.",
    ),
    option(
        "dead_letter_file",
        "",
        "an absolute path in a writable folder",
        "NDJSON of every record that could not be delivered: time, tag, stream, reason, the record. `kubehose replay` sends it again.",
    ),
    option(
        "dead_letter_limit",
        "100M",
        SIZE,
        "The most bytes of all dead-letter files together; the oldest are deleted first.",
    ),
    option(
        "concurrency",
        "auto",
        "auto, or a whole number from 1 to 128",
        "PutRecordBatch calls in flight at a time; `auto` finds the number, up to 64.",
    ),
    option(
        "auto_retry_requests",
        "on",
        SWITCH,
        "Accepted for compatibility with kinesis_firehose; kubehose always retries.",
    ),
    option(
        "records_per_second",
        "",
        RATE,
        "Send at most this many records a second to a stream; each pod counts for itself.",
    ),
    option(
        "bytes_per_second",
        "",
        RATE,
        "Send at most this many bytes (before base64) a second to a stream; each pod counts for itself.",
    ),
    option(
        "acknowledge",
        "delivered",
        "delivered or buffered",
        "When a chunk is acknowledged to Fluent Bit: once Firehose has accepted it, or once it is in kubehose's memory.",
    ),
    option(
        "spool_dir",
        "",
        "an absolute path; not together with acknowledge",
        "Acknowledge a chunk once it is in a file in this folder. Files survive the process; the next start sends what remains.",
    ),
    option(
        "spool_limit",
        "1G",
        SIZE,
        "The most bytes of the spool; when it is full, chunks are acknowledged once they are delivered.",
    ),
    option(
        "spool_sync",
        "none",
        "none, interval, always",
        "What the spool survives besides the end of the process. `interval`: a power loss, except for the last second. `always`: a power loss. Both cost disk time.",
    ),
    option(
        "flush_timeout",
        "10s",
        DURATION,
        "How long a flush waits (with Workers 0, 500ms at most) before it is answered RETRY; the delivery goes on.",
    ),
    option("request_timeout", "30s", DURATION, "How long one PutRecordBatch call may take."),
    option("shutdown_timeout", "5s", DURATION, "How long the exit waits for records that are not delivered yet."),
    option(
        "max_buffer",
        "64M",
        SIZE,
        "The most bytes held in memory, encoded; a chunk that does not fit waits, then is answered RETRY.",
    ),
];

/// A validated `[OUTPUT]` section.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the records go, and with which credentials.
    pub firehose: FirehoseConfig,
    /// How they look.
    pub record: RecordOptions,
    /// Which streams they go to.
    pub streams: Streams,
    /// How they are delivered.
    pub delivery: DeliveryOptions,
    /// What is kept on disk.
    pub storage: StorageOptions,
}

/// `spool_sync interval` syncs what was written this long ago.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Reads options by name, each checked against [`OPTIONS`].
struct Reader<'p> {
    get: &'p dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn spec(name: &str) -> &'static OptionSpec {
        const UNKNOWN: OptionSpec = option("", "", "", "");
        debug_assert!(OPTIONS.iter().any(|spec| spec.name == name), "{name} is not in OPTIONS");
        OPTIONS.iter().find(|spec| spec.name == name).unwrap_or(&UNKNOWN)
    }

    /// The value as given, without white space around it; `None` if it is empty.
    fn given(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn wrong(name: &str, value: &str, why: impl Into<String>) -> Error {
        let spec = Self::spec(name);
        let value = without_password(value);
        Error::Option { name: spec.name, value, accepted: spec.accepted, why: why.into() }
    }

    fn optional<T>(&self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        let Some(value) = self.given(name) else { return Ok(None) };
        parse(&value).map(Some).map_err(|why| Self::wrong(name, &value, why))
    }

    /// An option whose default is a value like any other.
    fn defaulted<T>(&self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Error> {
        let value = self.given(name).unwrap_or_else(|| Self::spec(name).default.to_owned());
        parse(&value).map_err(|why| Self::wrong(name, &value, why))
    }
}

/// Names that other outputs, and people, use for our options.
const OTHER_NAMES: [(&str, &str); 28] = [
    ("stream", "delivery_stream"),
    ("stream_name", "delivery_stream"),
    ("delivery_stream_name", "delivery_stream"),
    ("firehose", "delivery_stream"),
    ("aws_region", "region"),
    ("aws_role_arn", "role_arn"),
    ("sts_role_arn", "role_arn"),
    ("assume_role", "role_arn"),
    ("aws_profile", "profile"),
    ("custom_endpoint", "endpoint"),
    ("url", "endpoint"),
    ("tls.ca_file", "ca_file"),
    ("include_keys", "data_keys"),
    ("keep_keys", "data_keys"),
    ("exclude_keys", "drop_keys"),
    ("remove_keys", "drop_keys"),
    ("time_format", "time_key_format"),
    ("time_zone", "time_key_zone"),
    ("timezone", "time_key_zone"),
    ("aggregation", "simple_aggregation"),
    ("append_newline", "newline"),
    ("compress", "compression"),
    ("experimental_concurrency", "concurrency"),
    ("max_concurrency", "concurrency"),
    ("timeout", "request_timeout"),
    ("dead_letter", "dead_letter_file"),
    ("buffer_limit", "max_buffer"),
    ("constants", "add_keys"),
];

/// An option that was given under nearly the right name: that name, and ours. The host returns properties only
/// by name, so we ask for each name that is one slip away: a letter too many, one missing, a wrong one, two swapped, other
/// underscores.
fn misspelt(get: &dyn Fn(&str) -> Option<String>) -> Option<(String, &'static str)> {
    let exists = |name: &str| OPTIONS.iter().any(|spec| spec.name == name);
    let given = |name: &str| !exists(name) && get(name).is_some();
    if let Some((other, ours)) = OTHER_NAMES.iter().find(|(other, _)| given(other)) {
        return Some(((*other).to_owned(), ours));
    }
    let mut name = String::with_capacity(64);
    for spec in OPTIONS {
        let ours = spec.name;
        for other in [ours.replace('_', ""), ours.replace('_', "-"), ours.replace('_', "."), ours.replace('_', "s_")] {
            if given(&other) {
                return Some((other, ours));
            }
        }
        let letters = || (b'a'..=b'z').chain(*b"_-.").map(char::from);
        for at in 0..=ours.len() {
            let (before, after) = ours.split_at(at);
            let rest = after.get(1..);
            let swapped = after.get(..2).and_then(|two| two.chars().next().zip(two.chars().nth(1)));
            // Missing; two swapped; a wrong one; one too many.
            let cut = rest.map(|rest| (None, None, rest));
            let swap = swapped.map(|(one, two)| (Some(two), Some(one), after.get(2..).unwrap_or_default()));
            let others = letters().filter_map(|letter| Some((Some(letter), None, rest?)));
            let more = letters().map(|letter| (Some(letter), None, after));
            for (one, two, rest) in cut.into_iter().chain(swap).chain(others).chain(more) {
                name.clear();
                name.push_str(before);
                name.extend(one);
                name.extend(two);
                name.push_str(rest);
                if given(&name) {
                    return Some((name, ours));
                }
            }
        }
    }
    None
}

impl Config {
    /// Reads an `[OUTPUT]` section, as [`Config::read`] does, and refuses an option whose name is nearly one of ours: the host
    /// does not report names that it is not asked for.
    ///
    /// # Errors
    /// Those of [`Config::read`], and [`Error::Misspelt`].
    pub fn of_section(
        get: &dyn Fn(&str) -> Option<String>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, Error> {
        match misspelt(get) {
            Some((name, meant)) => Err(Error::Misspelt { name, meant }),
            None => Config::read(get, environment),
        }
    }

    /// Reads and checks every option; `get` gives a property by its name, `environment` a variable.
    ///
    /// # Errors
    /// [`Error::Option`] and its like: each names the option, the value and what is accepted.
    pub fn read(
        get: &dyn Fn(&str) -> Option<String>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, Error> {
        let reader = Reader { get };
        let storage = read_storage(&reader)?;
        Ok(Config {
            firehose: read_firehose(&reader, environment)?,
            record: read_record(&reader)?,
            streams: read_streams(&reader)?,
            delivery: read_delivery(&reader, &storage)?,
            storage,
        })
    }
}

fn read_firehose(reader: &Reader<'_>, environment: &dyn Fn(&str) -> Option<String>) -> Result<FirehoseConfig, Error> {
    let region = reader
        .given("region")
        .or_else(|| environment("AWS_REGION").filter(|value| !value.is_empty()))
        .or_else(|| environment("AWS_DEFAULT_REGION").filter(|value| !value.is_empty()))
        .ok_or(Error::Missing { name: "region", hint: "set it, or AWS_REGION in the environment" })?;
    if !is_region(&region) {
        return Err(Reader::wrong("region", &region, ""));
    }
    let delivery_stream = reader
        .given("delivery_stream")
        .ok_or(Error::Missing { name: "delivery_stream", hint: "set it to the name of the Firehose stream" })?;
    let role_arn = reader.optional("role_arn", |value| is_role_arn(value).then(|| value.to_owned()).ok_or_default())?;
    let external_id = reader.optional("external_id", |value| {
        (2..=1224).contains(&value.chars().count()).then(|| value.to_owned()).ok_or_default()
    })?;
    if external_id.is_some() && role_arn.is_none() {
        return Err(Error::Missing { name: "role_arn", hint: "external_id is only used with it" });
    }
    let ca = reader.optional("ca_file", |path| {
        if !path.starts_with('/') {
            return Err("the host may change its working folder".to_owned());
        }
        let pem = std::fs::read(path).map_err(|error| error.to_string())?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("it is not PEM: {error}"))?;
        // The HTTP client does not check these, so each is tried as a trust anchor here.
        let anchors = certificates.iter().all(|certificate| webpki::anchor_from_trusted_cert(certificate).is_ok());
        match certificates.is_empty() {
            true => Err("there is no certificate in it".to_owned()),
            false if !anchors => Err("it holds something other than X.509 certificates".to_owned()),
            false => Ok(pem),
        }
    })?;
    Ok(FirehoseConfig {
        region,
        delivery_stream,
        endpoint: reader.optional("endpoint", parse_endpoint)?,
        sts_endpoint: reader.optional("sts_endpoint", parse_endpoint)?,
        role_arn,
        external_id,
        profile: reader.given("profile"),
        ca,
        request_timeout: reader.defaulted("request_timeout", parse_duration)?,
    })
}

fn read_streams(reader: &Reader<'_>) -> Result<Streams, Error> {
    const NAME: &str = "delivery_stream";
    let name = reader.given(NAME).unwrap_or_default();
    let template = Template::parse(&name).map_err(|why| Reader::wrong(NAME, &name, why))?;
    let default = reader
        .optional("default_delivery_stream", |value| is_stream_name(value).then(|| value.to_owned()).ok_or_default())?;
    let most = reader.defaulted("max_streams", |value| parse_within(value, 2, 1000))?;
    if let Some(value) = reader.given("max_streams").filter(|_| template.is_none()) {
        return Err(Reader::wrong("max_streams", &value, format!("delivery_stream ({name}) is a name, of one stream")));
    }
    let default = match (&template, default) {
        (None, _) if !is_stream_name(&name) => return Err(Reader::wrong(NAME, &name, "")),
        (None, Some(default)) => {
            let why = format!("delivery_stream ({name}) is a name, not a template, so all events go there");
            return Err(Reader::wrong("default_delivery_stream", &default, why));
        }
        (None, None) => name,
        (Some(_), Some(default)) => default,
        (Some(_), None) => {
            let hint = "delivery_stream is a template; set it to the stream for events without a value";
            return Err(Error::Missing { name: "default_delivery_stream", hint });
        }
    };
    Ok(Streams { template, default: default.into(), most })
}

fn read_record(reader: &Reader<'_>) -> Result<RecordOptions, Error> {
    let mut remap = reader.defaulted("remap", Remap::parse)?;
    remap.preserve_source = reader.defaulted("remap_preserve_source", parse_switch)?;
    remap.override_on_conflict = reader.defaulted("remap_override", parse_switch)?;
    remap.tag_fallback = reader.defaulted("kube_tag_fallback", parse_switch)?;
    remap.tag_pattern = reader.optional("tag_pattern", parse_pattern)?;
    // What does nothing beside another value is a mistake.
    let off = |name: &str| reader.given(name).is_some_and(|value| parse_switch(&value) == Ok(false));
    let none = reader.given("remap").as_deref() == Some("none");
    for (name, without) in [
        (
            "tag_pattern",
            none.then_some("remap is none").or_else(|| off("kube_tag_fallback").then_some("kube_tag_fallback is off")),
        ),
        ("remap_override", none.then_some("remap is none")),
        ("remap_preserve_source", none.then_some("remap is none")),
    ] {
        if let Some((value, why)) = reader.given(name).filter(|_| !off(name)).zip(without) {
            return Err(Reader::wrong(name, &value, format!("{why}, so that it does nothing")));
        }
    }
    reader.optional("add_keys", |list| {
        not_a_switch(list)?;
        list.split(',').try_for_each(|part| match part.split_once('=') {
            Some((name, value)) => remap.add_constant(name.trim(), value.trim()),
            None => Err(format!("'{}' is not of the form name=text", part.trim())),
        })
    })?;
    let format = reader.defaulted("time_key_format", TimeFormat::parse)?;
    let zone = reader.defaulted("time_key_zone", parse_zone)?;
    let replace_dots = reader.optional("replace_dots", |with| {
        not_a_switch(with)?;
        if with.contains('.') {
            return Err("it contains a dot".to_owned());
        }
        remap.replace_dots(with)?;
        Ok(with.to_owned())
    })?;
    // No two added attributes may have the same name.
    let mut added: Vec<Vec<u8>> = [TRUNCATED].iter().chain(&SPLIT).map(|name| name.as_bytes().to_vec()).collect();
    for name in &added {
        if remap.has_target(name) {
            let name = String::from_utf8_lossy(name);
            let option =
                if reader.given("add_keys").is_some_and(|list| list.contains(&*name)) { "add_keys" } else { "remap" };
            let value = reader.given(option).unwrap_or_default();
            return Err(Reader::wrong(option, &value, format!("'{name}' is kubehose's own")));
        }
    }
    let mut name = |option: &'static str| {
        reader.optional(option, |text| {
            not_a_switch(text)?;
            let name = replace_dots.as_deref().map_or(text.to_owned(), |with| text.replace('.', with));
            if remap.has_target(name.as_bytes()) || added.contains(&name.clone().into_bytes()) {
                return Err("another attribute is added under this name".to_owned());
            }
            added.push(name.clone().into_bytes());
            Ok(name)
        })
    };
    let (record_id, time_key) = (name("record_id")?, name("time_key")?);
    let data_keys = reader.optional("data_keys", |list| {
        not_a_switch(list)?;
        let mut paths = Paths::default();
        for name in list.split(',').map(str::trim) {
            paths.add(&Path::parse(name)?);
            // A name with a dot may be that of a root attribute.
            if !name.starts_with('$') {
                paths.add(&Path::attribute(name.as_bytes()));
            }
        }
        Ok(paths)
    })?;
    let drop_keys = reader.optional("drop_keys", |list| {
        not_a_switch(list)?;
        let mut paths = Paths::default();
        for path in list.split(',') {
            paths.add(&Path::parse(path.trim())?);
        }
        Ok(paths)
    })?;
    let log_key = reader.optional("log_key", |text| {
        not_a_switch(text)?;
        let others = ["data_keys", "drop_keys", "time_key", "add_keys", "record_id"];
        match others.iter().find(|name| reader.given(name).is_some()) {
            Some(other) => Err(format!("{other} is set, and does not apply to a single value")),
            None => Path::parse(text).map(|path| LogKey::new(&path)),
        }
    })?;
    let compression = reader.defaulted("compression", |value| match value {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "snappy" => Ok(Compression::Snappy),
        _ => Err(String::new()),
    })?;
    let level = reader.optional("compression_level", |value| match compression {
        Compression::Gzip => parse_within(value, 1, 9),
        Compression::Zstd => parse_within(value, 1, 19),
        Compression::None | Compression::Snappy => Err("compression is neither gzip nor zstd".to_owned()),
    })?;
    // Only checked.
    reader.defaulted("auto_retry_requests", parse_switch)?;
    Ok(RecordOptions {
        remap,
        time: time_key.map(|name| TimeKey::new(&name, format, zone)),
        record_id: record_id.map(|name| name.into_bytes().into()),
        newline: reader.defaulted("newline", parse_switch)?,
        oversize: reader.defaulted("oversize", |value| match value {
            "truncate" => Ok(Oversize::Truncate),
            "split" if log_key.is_some() => {
                Err("log_key is set, and its text has no place for the parts' names".to_owned())
            }
            "split" => Ok(Oversize::Split),
            "drop" => Ok(Oversize::Drop),
            _ => Err(String::new()),
        })?,
        data_keys,
        drop_keys,
        log_key,
        replace_dots,
        otlp_metadata: reader.defaulted("otlp_metadata", parse_switch)?,
        pack: PackOptions { aggregate: reader.defaulted("simple_aggregation", parse_switch)?, compression, level },
    })
}

fn read_storage(reader: &Reader<'_>) -> Result<StorageOptions, Error> {
    let dead_letter_file = reader.optional("dead_letter_file", |path| {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err("the host may change its working folder".to_owned());
        }
        match path.parent() {
            Some(folder) if folder.is_dir() => Ok(path),
            _ => Err("its folder does not exist".to_owned()),
        }
    })?;
    for (name, other) in
        [("spool_limit", "spool_dir"), ("spool_sync", "spool_dir"), ("dead_letter_limit", "dead_letter_file")]
    {
        if let Some(value) = reader.given(name)
            && reader.given(other).is_none()
        {
            return Err(Reader::wrong(name, &value, format!("{other} is not set, without which it does nothing")));
        }
    }
    let spool_limit = reader.defaulted("spool_limit", parse_size)?;
    let spool_sync = reader.defaulted("spool_sync", |value| match value {
        "none" => Ok(SyncMode::None),
        "interval" => Ok(SyncMode::Interval(SYNC_INTERVAL)),
        "always" => Ok(SyncMode::Always),
        _ => Err(String::new()),
    })?;
    let spool = reader.optional("spool_dir", |path| {
        let path = PathBuf::from(path);
        match (path.is_absolute(), reader.given("acknowledge")) {
            (false, _) => Err("the host may change its working folder".to_owned()),
            (true, Some(value)) => Err(format!("acknowledge is set to '{value}'")),
            (true, None) => Ok(SpoolOptions { folder: path, limit: spool_limit, sync: spool_sync }),
        }
    })?;
    let limit = reader.defaulted("dead_letter_limit", parse_size)?;
    Ok(StorageOptions { spool, dead_letters: dead_letter_file.map(|file| (file, limit)) })
}

fn read_delivery(reader: &Reader<'_>, storage: &StorageOptions) -> Result<DeliveryOptions, Error> {
    Ok(DeliveryOptions {
        spool: storage.spool.is_some(),
        concurrency: reader.defaulted("concurrency", |value| match value {
            "auto" => Ok(Concurrency::Auto),
            number => parse_within(number, 1, 128).map(Concurrency::Fixed),
        })?,
        records_per_second: reader.optional("records_per_second", |value| parse_within(value, 1, u64::MAX))?,
        bytes_per_second: reader.optional("bytes_per_second", |value| parse_within(value, 1, u64::MAX))?,
        acknowledge: reader.defaulted("acknowledge", |value| match value {
            "delivered" => Ok(Acknowledge::Delivered),
            "buffered" => Ok(Acknowledge::Buffered),
            _ => Err(String::new()),
        })?,
        flush_timeout: reader.defaulted("flush_timeout", parse_duration)?,
        shutdown_timeout: reader.defaulted("shutdown_timeout", parse_duration)?,
        max_buffer: reader.defaulted("max_buffer", |value| parse_size(value).map(|size| size as usize))?,
    })
}

/// A value as an error may show it: a URL without user and password.
fn without_password(value: &str) -> String {
    match value.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://***@{rest}"),
        None => match value.rsplit_once('@') {
            Some((_, host)) if value.contains(':') => format!("***@{host}"),
            _ => value.to_owned(),
        },
    }
}

/// `.ok_or("")`: the value is not accepted, and there are no details.
trait OrDefault<T> {
    fn ok_or_default(self) -> Result<T, String>;
}

impl<T> OrDefault<T> for Option<T> {
    fn ok_or_default(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

/// `eu-west-1`, `us-gov-west-1`, `eusc-de-east-1`: words, then a number.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let Some((number, words)) = parts.split_last() else {
        return false;
    };
    words.len() >= 2
        && words.iter().all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// `arn:<partition>:iam::<12 digits>:role/<name>`.
pub fn is_role_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, iam, region, account, resource] = parts.as_slice() else {
        return false;
    };
    *arn == "arn"
        && partition.starts_with("aws")
        && *iam == "iam"
        && region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty() && !name.contains(char::is_whitespace))
}

/// A URL as it is; `host[:port]` gets `https://`.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(String::new());
    };
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(format!("the scheme '{scheme}' is neither http nor https"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
        return Err("after the scheme, only a host and an optional port are allowed".to_owned());
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if let Some(port) = port.filter(|port| parse_within(port, 1u16, u16::MAX).is_err()) {
        return Err(format!("'{port}' is not a port"));
    }
    if !is_host(host) {
        return Err(format!("'{host}' is not a host"));
    }
    Ok(format!("{scheme}://{authority}"))
}

/// Whether it is an IP address (of version 6 in brackets), or a name of labels as DNS has them, with underscores (RFC 1123, 2181).
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    name.len() <= 253 && name.split('.').all(label)
}

/// Refuses a boolean where a text is expected: it was meant as a switch, and would become part of every record.
fn not_a_switch(text: &str) -> Result<(), String> {
    match parse_switch(text) {
        Ok(_) => Err("it is not a switch".to_owned()),
        Err(_) => Ok(()),
    }
}

/// A boolean as Fluent Bit reads it (flb_utils_bool); anything else is a mistake, not `off`.
fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" => Ok(true),
        "off" | "false" | "no" => Ok(false),
        _ => Err(String::new()),
    }
}

fn parse_within<T: FromStr + PartialOrd>(text: &str, least: T, most: T) -> Result<T, String> {
    text.parse::<T>().ok().filter(|number| *number >= least && *number <= most).ok_or_default()
}

/// A size in Fluent Bit's spelling: a number, then nothing, K, KB, M, MB, G or GB; in powers of 1024, as the host counts
/// its buffers (flb_utils_size_to_binary_bytes).
fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let digits = upper.trim_end_matches('B');
    let (number, unit) = match digits.char_indices().last() {
        Some((at, 'K')) => (&digits[..at], 1 << 10),
        Some((at, 'M')) => (&digits[..at], 1 << 20),
        Some((at, 'G')) => (&digits[..at], 1 << 30),
        _ => (digits, 1),
    };
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes >= 1 << 20 && *bytes <= 1 << 44).ok_or_default()
}

/// A number with `ms`, `s`, `m` or `h`; without a unit, seconds, as in Fluent Bit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(String::new()),
    };
    let total = number.parse::<f64>().map_err(|_| String::new())? * seconds;
    if !(0.1..=3600.0).contains(&total) {
        return Err(String::new());
    }
    Ok(Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(properties: &[(&str, &str)]) -> Result<Config, Error> {
        let get = |name: &str| properties.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::read(&get, &|_| None)
    }

    const LEAST: [(&str, &str); 2] = [("region", "eu-west-1"), ("delivery_stream", "logs")];

    fn with(name: &'static str, value: &'static str) -> Result<Config, Error> {
        let mut properties: Vec<(&str, &str)> = LEAST.iter().filter(|(key, _)| *key != name).copied().collect();
        properties.push((name, value));
        read(&properties)
    }

    #[test]
    fn the_least_is_a_region_and_a_stream() {
        let config = read(&LEAST).unwrap();
        assert_eq!(config.delivery.concurrency, Concurrency::Auto);
        assert_eq!(config.delivery.max_buffer, 64 << 20);
        assert_eq!(config.firehose.request_timeout, Duration::from_secs(30));
        assert!(config.record.newline && config.record.remap.tag_fallback);
        let from_environment = Config::read(&|name| (name == "delivery_stream").then(|| "logs".to_owned()), &|name| {
            (name == "AWS_DEFAULT_REGION").then(|| "us-gov-west-1".to_owned())
        });
        assert_eq!(from_environment.unwrap().firehose.region, "us-gov-west-1");
        assert!(read(&LEAST[..1]).unwrap_err().to_string().contains("delivery_stream"));
        assert!(read(&LEAST[1..]).unwrap_err().to_string().contains("AWS_REGION"));
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_accepted() {
        for (name, value) in [
            ("region", "<REGION>"),
            ("region", "Ireland"),
            ("delivery_stream", "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs"),
            ("delivery_stream", "<YOUR-DELIVERY-STREAM-NAME>"),
            ("endpoint", "ftp://x"),
            ("endpoint", "http://x/path"),
            ("endpoint", "x:port"),
            ("role_arn", "logs"),
            ("ca_file", "ca.pem"),
            ("ca_file", "/no/such/file"),
            ("remap", "pod_name"),
            ("remap_override", "maybe"),
            ("time_key_format", "%!"),
            ("drop_keys", "a..b"),
            ("data_keys", "a,,b"),
            ("log_key", "$a[b]"),
            ("replace_dots", "."),
            ("replace_dots", "true"),
            ("data_keys", "off"),
            ("time_key", "pod_name"),
            ("time_key", "kubehose_id"),
            ("record_id", "container_id"),
            ("time_key_zone", "Nowhere"),
            ("add_keys", "a"),
            ("add_keys", "pod_name=x"),
            ("add_keys", "kubehose_part=x"),
            ("remap", "a=kubehose_truncated"),
            ("tag_pattern", "(?P<pod>x)"),
            ("compression", "lzma"),
            ("compression_level", "6"),
            ("simple_aggregation", "2"),
            ("concurrency", "0"),
            ("concurrency", "many"),
            ("max_buffer", "64 parsecs"),
            ("max_buffer", "1K"),
            ("flush_timeout", "0"),
            ("flush_timeout", "10 years"),
            ("acknowledge", "perhaps"),
            ("oversize", "explode"),
            ("spool_dir", "relative"),
            ("spool_limit", "0"),
            ("dead_letter_file", "relative"),
            ("dead_letter_file", "/no/such/folder/file"),
            ("records_per_second", "-1"),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            let spec = Reader::spec(name);
            assert!(error.contains(name) && error.contains(value) && error.contains(spec.accepted), "{error}");
        }
    }

    #[test]
    fn an_option_that_does_nothing_without_another_is_refused_with_its_name() {
        for (name, value, other) in [
            ("spool_limit", "2G", "spool_dir"),
            ("spool_sync", "always", "spool_dir"),
            ("dead_letter_limit", "1G", "dead_letter_file"),
            ("external_id", "1234", "role_arn"),
            ("max_streams", "9", "delivery_stream"),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(other), "{error}");
        }
    }

    #[test]
    fn an_option_that_does_nothing_beside_another_is_refused_with_its_value() {
        for (name, value, other, off) in [
            ("tag_pattern", "(?P<pod_name>x)", "remap", "none"),
            ("tag_pattern", "(?P<pod_name>x)", "kube_tag_fallback", "off"),
            ("remap_override", "on", "remap", "none"),
            ("remap_preserve_source", "true", "remap", "none"),
        ] {
            let given = |at: &str| {
                [(name, value), (other, off)].iter().find(|(name, _)| *name == at).map(|(_, v)| (*v).to_owned())
            };
            let get = |at: &str| match at {
                "region" => Some("eu-west-1".to_owned()),
                "delivery_stream" => Some("s".to_owned()),
                _ => given(at),
            };
            let error = Config::read(&get, &|_| None).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(other), "{error}");
        }
    }

    #[test]
    fn an_endpoint_is_a_host_that_a_call_can_go_to() {
        let long = format!("{}.x", "a".repeat(64));
        for (endpoint, is) in [
            ("127.0.0.1:4573", Some("https://127.0.0.1:4573")),
            ("HTTP://Host.local/", Some("http://Host.local")),
            ("[::1]:80", Some("https://[::1]:80")),
            ("http://[::1]", Some("http://[::1]")),
            (
                "vpce-0-a_b.firehose.eu-west-1.vpce.amazonaws.com.",
                Some("https://vpce-0-a_b.firehose.eu-west-1.vpce.amazonaws.com."),
            ),
            ("h:80:80", None),
            ("http://[::1", None),
            ("http://h:0", None),
            ("h:", None),
            (".", None),
            ("http://a..b", None),
            ("-h:1", None),
            ("[::g]:80", None),
            (&long, None),
            ("ftp://h", None),
            ("h/path", None),
            ("user@h", None),
        ] {
            assert_eq!(parse_endpoint(endpoint).ok().as_deref(), is, "{endpoint}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_an_option_is_refused_with_what_was_meant() {
        let section = |name: &str| {
            let get = |asked: &str| match asked {
                "region" => Some("eu-west-1".to_owned()),
                "delivery_stream" => Some("logs".to_owned()),
                _ => asked.eq_ignore_ascii_case(name).then(|| "1".to_owned()),
            };
            Config::of_section(&get, &|_| None)
        };
        for (wrong, meant) in [
            ("drop_key", "drop_keys"),
            ("dropkeys", "drop_keys"),
            ("drop-keys", "drop_keys"),
            ("dorp_keys", "drop_keys"),
            ("drop_keyss", "drop_keys"),
            ("dxop_keys", "drop_keys"),
            ("stream_name", "delivery_stream"),
            ("time_zone", "time_key_zone"),
            ("Compresion", "compression"),
            ("max_bufer", "max_buffer"),
        ] {
            let error = section(wrong).unwrap_err().to_string().to_ascii_lowercase();
            let told = format!("there is no option '{wrong}': did you mean '{meant}'?").to_ascii_lowercase();
            assert_eq!(error, told);
        }
        // Every option is its own name, and what is not alike is not ours to judge.
        for spec in OPTIONS {
            assert!(!matches!(section(spec.name), Err(Error::Misspelt { .. })), "{}", spec.name);
        }
        assert!(section("something.else").is_ok());
        // One slip in each option, wherever it is.
        for spec in OPTIONS {
            for at in 0..spec.name.len() {
                let slip = format!("{}{}", &spec.name[..at], &spec.name[at + 1..]);
                assert!(matches!(section(&slip), Err(Error::Misspelt { .. })), "{slip}");
            }
        }
    }

    #[test]
    fn no_error_shows_a_password_of_an_url() {
        for value in [
            "http://user:geheim@host",
            "https://user:ge@heim@host:1/x",
            "user:geheim@host",
            "ftp://geheim@host",
            "http://:geheim@",
        ] {
            for name in ["endpoint", "sts_endpoint"] {
                let error = read(&[LEAST[0], LEAST[1], (name, value)]).unwrap_err().to_string();
                assert!(error.contains(name) && !error.contains("heim"), "{error}");
            }
        }
    }

    #[test]
    fn spellings_of_values() {
        assert_eq!(with("endpoint", "localhost:4573").unwrap().firehose.endpoint.unwrap(), "https://localhost:4573");
        assert_eq!(with("endpoint", "http://[::1]:80/").unwrap().firehose.endpoint.unwrap(), "http://[::1]:80");
        let level = |compression, level| {
            let options = [LEAST[0], LEAST[1], ("compression", compression), ("compression_level", level)];
            read(&options).map(|config| config.record.pack.level)
        };
        assert_eq!((level("gzip", "9").unwrap(), level("zstd", "19").unwrap()), (Some(9), Some(19)));
        for (compression, wrong) in [("gzip", "10"), ("gzip", "0"), ("zstd", "20"), ("zstd", "fast"), ("snappy", "1")] {
            assert!(level(compression, wrong).is_err_and(|error| error.to_string().contains("compression_level")));
        }
        assert_eq!(with("max_buffer", "2mb").unwrap().delivery.max_buffer, 2 << 20);
        assert_eq!(with("flush_timeout", "250ms").unwrap().delivery.flush_timeout, Duration::from_millis(250));
        assert_eq!(with("flush_timeout", "1.5").unwrap().delivery.flush_timeout, Duration::from_millis(1500));
        assert!(with("remap_override", "True").unwrap().record.remap.override_on_conflict);
        assert_eq!(with("profile", "  ").unwrap().firehose.profile, None);
        assert!(with("external_id", "x1").is_err_and(|e| e.to_string().contains("role_arn")));
    }
}
