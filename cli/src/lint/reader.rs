//! Checks one value, and options in combination, by the plugin's own reader.

use kubehose::options::{Config, OPTIONS};

/// What is wrong with the value of one option; None if there is no such option. Files exist where the plugin runs, not
/// where lint runs, so only the form of their paths is checked.
pub fn alone(name: &str, value: &str) -> Option<String> {
    let spec = OPTIONS.iter().find(|spec| spec.name == name)?;
    if OPTIONS_OF_FILES.contains(&spec.name) && value.starts_with('/') {
        return None;
    }
    let get = |asked: &str| match asked {
        _ if asked == spec.name => Some(value.to_owned()),
        // It is allowed only with a template.
        "delivery_stream" if spec.name == "default_delivery_stream" => Some("$TAG".to_owned()),
        "region" => Some(REGION.to_owned()),
        "delivery_stream" => Some(STREAM.to_owned()),
        // If it is missing, the check of the whole section says so.
        "role_arn" if spec.name == "external_id" => Some("arn:aws:iam::123456789012:role/logs".to_owned()),
        _ => None,
    };
    Config::read(&get, &|_| None).err().map(|error| error.to_string())
}

/// What is wrong with options that are valid alone. `value` returns a section's values; region and stream are checked
/// elsewhere.
pub fn together(value: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let get = |name: &str| match name {
        "region" => Some(REGION.to_owned()),
        // A template is checked with the option that it needs.
        "delivery_stream" => value(name).filter(|name| name.contains('$')).or(Some(STREAM.to_owned())),
        _ if OPTIONS_OF_FILES.contains(&name) => None,
        _ => value(name),
    };
    Config::read(&get, &|_| None).err().map(|error| error.to_string())
}

/// Options whose values are files.
const OPTIONS_OF_FILES: [&str; 2] = ["ca_file", "dead_letter_file"];
/// Used where region or stream is not what is checked.
const REGION: &str = "eu-west-1";
const STREAM: &str = "logs";
