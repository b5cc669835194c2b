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
        // The one with the wider range.
        "compression" if spec.name == "compression_level" => Some("zstd".to_owned()),
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

/// A value of `delivery_stream` as the plugin may see it, once Fluent Bit has put in what the environment has for `${…}`.
/// `left`: whether `default_delivery_stream` stands beside it.
pub fn stream(value: &str, left: bool) -> String {
    let mut seen = String::new();
    let mut rest = value;
    while let Some((before, inner)) = rest.split_once("${") {
        let Some((_, behind)) = inner.split_once('}') else { break };
        seen.push_str(before);
        seen.push('x');
        rest = behind;
    }
    seen.push_str(rest);
    // The environment may have a template for it, which then is what the other is left for.
    if left && value.contains("${") && !seen.contains('$') { "$TAG".to_owned() } else { seen }
}

/// Options whose values are files.
const OPTIONS_OF_FILES: [&str; 2] = ["ca_file", "dead_letter_file"];
/// Used where region or stream is not what is checked.
const REGION: &str = "eu-west-1";
const STREAM: &str = "logs";

#[cfg(test)]
mod tests {
    use super::stream;

    #[test]
    fn a_variable_of_the_environment_is_no_template() {
        for (value, alone, left) in [
            ("logs", "logs", "logs"),
            ("${A}", "x", "$TAG"),
            ("logs-${A}-${B}", "logs-x-x", "$TAG"),
            ("${A}-$TAG[1]", "x-$TAG[1]", "x-$TAG[1]"),
            ("$a['b']${A}", "$a['b']x", "$a['b']x"),
            ("${A}$", "x$", "x$"),
            ("${A", "${A", "${A"),
            ("", "", ""),
        ] {
            assert_eq!((stream(value, false).as_str(), stream(value, true).as_str()), (alone, left), "{value}");
        }
    }
}
