//! What every place that runs the plugin shares: its files inside the container and its output section.

use super::{Remap, Router};
use crate::classic::Section;
use crate::datadog;
use crate::kube::Name;

/// Where an image keeps the plugin unless told otherwise; so do those in `examples/images`.
pub const PLUGIN_PATH: &str = "/kubehose/libkubehose.so";
/// Where the official images, Fluent Bit's and AWS's, keep the program.
pub const PROGRAM: &str = "/fluent-bit/bin/fluent-bit";
/// Where the configuration is mounted; not `/fluent-bit/etc`, which holds the image's own parsers.
pub const CONFIG_DIR: &str = "/kubehose/etc";
/// Where chunks, the spool and the input's position are kept.
pub const STATE_DIR: &str = "/kubehose/state";
/// Port of Fluent Bit's own HTTP server, for the probes.
pub const HTTP_PORT: u16 = 2020;
/// Where it listens: on every address, IPv4 and IPv6. `0.0.0.0` leaves the probes of an IPv6 cluster unanswered.
pub const HTTP_LISTEN: &str = "::";
/// What stands above each configuration that is generated with workers.
pub const RELOAD_NOTE: &str =
    "# Workers rule out Hot_Reload: Fluent Bit 5.1.1 crashes after some reloads. Change it by a rollout.";

/// One router that runs the plugin.
pub struct Place<'a> {
    pub router: &'a Router,
    pub image: &'a str,
    pub plugin_path: &'a str,
    pub namespace: &'a Name,
}

/// A path to the plugin. A file name that starts with `flb-` would go to Fluent Bit's loader of C plugins.
pub fn plugin_path(text: &str) -> Result<String, String> {
    let path = folder(text)?;
    match path.rsplit('/').next() {
        Some(file) if file.starts_with("flb-") => {
            Err("a plugin whose file name starts with flb- is taken for one written in C: rename it".to_owned())
        }
        _ => Ok(path),
    }
}

/// An absolute path that needs no quotes anywhere.
pub fn folder(text: &str) -> Result<String, String> {
    let good = text.len() > 1
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if good { Ok(text.to_owned()) } else { Err("expected an absolute path of a-z A-Z 0-9 / . _ -".to_owned()) }
}

/// `[SERVICE]`, with chunks on disk: a router that is restarted goes on where it was.
pub fn service() -> Section {
    service_with(&format!("{CONFIG_DIR}/plugins.conf"))
}

/// `[SERVICE]` whose plugins another file names.
pub fn service_with(plugins_file: &str) -> Section {
    Section::new("SERVICE")
        .set("Flush", 1)
        .set("Log_Level", "info")
        .set("HTTP_Server", "On")
        .set("HTTP_Listen", HTTP_LISTEN)
        .set("HTTP_Port", HTTP_PORT)
        .set("Health_Check", "On")
        .set("plugins_file", plugins_file)
        .set("storage.path", format!("{STATE_DIR}/chunks"))
        .set("storage.sync", "normal")
        .set("storage.backlog.mem_limit", "16M")
}

/// The file that `[SERVICE] plugins_file` names; `[PLUGINS]` in the main file fails on 5.1.1.
pub fn plugins(place: &Place<'_>) -> String {
    crate::classic::render(&[Section::new("PLUGINS").set("Path", place.plugin_path)])
}

/// The output that runs the plugin.
pub fn output(router: &Router, match_pattern: &str) -> Section {
    output_with(router, match_pattern, WORKERS)
}

/// Flushes on threads of their own: with none, each of them stops the pipeline.
pub const WORKERS: u8 = 2;

/// The output with so many workers.
pub fn output_with(router: &Router, match_pattern: &str, workers: u8) -> Section {
    let on = |flag: bool| flag.then_some("on");
    Section::new("OUTPUT")
        .set("Name", "kubehose")
        .set("Match", match_pattern)
        .set("region", &router.region)
        .set("delivery_stream", &router.delivery_stream)
        .set("remap", if router.remap == Remap::Filters { "datadog" } else { "none" })
        .set_if("remap_preserve_source", on(router.preserve_source))
        .set_if("remap_override", on(router.override_on_conflict))
        .set("time_key", &router.time_key)
        .set("time_key_format", datadog::TIME_KEY_FORMAT)
        .set("Workers", workers)
        // A second RETRY loses the chunk at the default of 1; the disk's limit bounds what waits.
        .set("Retry_Limit", "no_limits")
        .set("storage.total_limit_size", "1G")
}
