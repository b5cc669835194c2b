//! Parsers of lines: `Format json`, `Format regex`, and joining CRI's partial lines.

use std::collections::HashMap;

use regex::bytes::Regex;

use super::configuration::{Error, Section};
use super::event::{Body, Time, Value};

/// A `[PARSER]`.
#[derive(Debug, Clone)]
pub(super) struct Parser {
    format: Format,
    time_key: String,
    time_format: Option<String>,
    time_keep: bool,
}

#[derive(Debug, Clone)]
enum Format {
    Json,
    Regex(Regex),
}

impl Parser {
    /// Reads a `[PARSER]`; returns its name and the parser.
    pub fn from_section(section: &Section) -> Result<(String, Parser), Error> {
        section.only(&["name", "format", "regex", "time_key", "time_format", "time_keep"])?;
        let name = section.get("name").ok_or_else(|| section.error("[PARSER] needs a Name".to_owned()))?;
        let format = match section.get("format").map(str::to_ascii_lowercase).as_deref() {
            Some("json") => Format::Json,
            Some("regex") => {
                let text = section.get("regex").ok_or_else(|| section.error("Format regex needs Regex".to_owned()))?;
                let regex = Regex::new(text).map_err(|error| section.error(format!("Regex {text:?}: {error}")))?;
                Format::Regex(regex)
            }
            other => {
                let other = other.unwrap_or("nothing");
                return Err(section.error(format!("Format {other:?}: the stand-in knows json and regex")));
            }
        };
        let parser = Parser {
            format,
            time_key: section.get("time_key").unwrap_or("time").to_owned(),
            time_format: section.get("time_format").map(str::to_owned),
            time_keep: section.switch("time_keep", false)?,
        };
        Ok((name.to_owned(), parser))
    }

    /// The fields of a line; None if it does not match.
    pub fn parse(&self, line: &[u8]) -> Option<(Option<Time>, Body)> {
        let mut body = match &self.format {
            Format::Json => match serde_json::from_slice(line).ok()? {
                Value::Map(body) => body,
                _ => return None,
            },
            Format::Regex(regex) => {
                let captures = regex.captures(line)?;
                let names = regex.capture_names().flatten();
                // An empty group is left out, as in the real host.
                let found = names.filter_map(|name| Some((name, captures.name(name)?)));
                found
                    .filter(|(_, text)| !text.is_empty())
                    .map(|(name, text)| (name.into(), Value::Text(text.as_bytes().to_vec())))
                    .collect()
            }
        };
        let mut time = None;
        if let Some(format) = &self.time_format
            && let Some(at) = body.iter().position(|(key, _)| key == self.time_key.as_bytes())
            && let Value::Text(text) = &body[at].1
            && let Ok(text) = std::str::from_utf8(text)
        {
            time = parse_time(text, format);
            if time.is_some() && !self.time_keep {
                body.remove(at);
            }
        }
        Some((time, body))
    }
}

/// Parses a time by `Time_Format`; without a zone it is UTC.
fn parse_time(text: &str, format: &str) -> Option<Time> {
    // The format of container runtimes, by far the most common.
    if format.starts_with("%Y-%m-%dT%H:%M:%S")
        && let Ok(time) = text.parse::<jiff::Timestamp>()
    {
        return Some(time.into());
    }
    let format = format.replace("%L", "%f");
    let text = match (format.ends_with("%z"), text.strip_suffix('Z')) {
        (true, Some(text)) => format!("{text}+0000"),
        _ => text.to_owned(),
    };
    let parsed = jiff::fmt::strtime::parse(&format, text).ok()?;
    let time = match parsed.to_timestamp() {
        Ok(time) => time,
        Err(_) => parsed.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp(),
    };
    Some(time.into())
}

/// Joins lines that a container runtime has split (`multiline.parser cri`), separately for each stream.
#[derive(Debug, Default)]
pub(super) struct CriJoin {
    /// The parts of an unfinished line, by stream.
    partial: HashMap<Vec<u8>, (Time, Body)>,
}

/// A line of a container runtime's log file.
struct CriLine<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    tag: &'a [u8],
    log: &'a [u8],
}

impl CriJoin {
    /// Adds a line; returns an event once one is complete. A line in another format is an event of its own, under
    /// `log`.
    pub fn line(&mut self, line: &[u8]) -> Option<(Time, Body)> {
        let Some(cri) = split_cri(line) else {
            return Some((Time::now(), vec![(b"log".to_vec(), Value::Text(line.to_vec()))]));
        };
        let (time, mut body) = self.partial.remove(cri.stream).unwrap_or_else(|| {
            let time = std::str::from_utf8(cri.time).ok().and_then(|text| parse_time(text, "%Y-%m-%dT%H:%M:%S.%L%z"));
            let text = |text: &[u8]| Value::Text(text.to_vec());
            let body = vec![
                (b"time".to_vec(), text(cri.time)),
                (b"stream".to_vec(), text(cri.stream)),
                (b"_p".to_vec(), text(cri.tag)),
                (b"log".to_vec(), text(b"")),
            ];
            (time.unwrap_or_else(Time::now), body)
        });
        if let Some((_, Value::Text(log))) = body.last_mut() {
            log.extend_from_slice(cri.log);
        }
        if cri.tag == b"F" {
            Some((time, body))
        } else {
            self.partial.insert(cri.stream.to_vec(), (time, body));
            None
        }
    }
}

fn split_cri(line: &[u8]) -> Option<CriLine<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, log) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let fits = !time.is_empty() && matches!(stream, b"stdout" | b"stderr") && matches!(tag, b"F" | b"P");
    fits.then_some(CriLine { time, stream, tag, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(lines: &[(&str, &str)]) -> Result<Parser, Error> {
        let properties = lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Parser::from_section(&Section { name: "PARSER".to_owned(), properties, place: "x".to_owned() })
            .map(|(_, parser)| parser)
    }

    fn text<'a>(body: &'a Body, key: &str) -> Option<&'a str> {
        body.iter().find(|(name, _)| name == key.as_bytes()).and_then(|(_, value)| match value {
            Value::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        })
    }

    #[test]
    fn the_guides_cri_parser_splits_a_line() {
        let parser = parser(&[
            ("Name", "cri"),
            ("Format", "regex"),
            ("Regex", "^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>P|F) (?<log>.*)$"),
            ("Time_Key", "time"),
            ("Time_Format", "%Y-%m-%dT%H:%M:%S.%L%z"),
        ])
        .unwrap();
        for time in ["2026-11-22T12:00:00.123456789Z", "2026-11-22T13:00:00.123456789+01:00"] {
            let (time, body) = parser.parse(format!("{time} stdout F hello world").as_bytes()).unwrap();
            assert_eq!(time, Some(Time { seconds: 1_795_348_800, nanoseconds: 123_456_789 }));
            assert_eq!(text(&body, "log"), Some("hello world"));
            assert_eq!(text(&body, "time"), None);
        }
        assert!(parser.parse(b"nonsense").is_none());
    }

    #[test]
    fn other_time_formats_are_read_too() {
        for (text, format) in [
            ("22/Nov/2026:12:00:00 +0000", "%d/%b/%Y:%H:%M:%S %z"),
            ("2026-11-22 12:00:00.000", "%Y-%m-%d %H:%M:%S.%L"),
            ("1795348800", "%s"),
        ] {
            assert_eq!(parse_time(text, format).map(|time| time.seconds), Some(1_795_348_800), "{text}");
        }
    }

    #[test]
    fn partial_lines_are_joined_by_stream() {
        let mut join = CriJoin::default();
        assert!(join.line(b"2026-11-22T12:00:00Z stdout P one ").is_none());
        let (_, other) = join.line(b"2026-11-22T12:00:01Z stderr F other").unwrap();
        assert_eq!(text(&other, "log"), Some("other"));
        let (time, body) = join.line(b"2026-11-22T12:00:02Z stdout F two").unwrap();
        assert_eq!(text(&body, "log"), Some("one two"));
        assert_eq!(time.seconds, 1_795_348_800);
        let (_, body) = join.line(b"no cri").unwrap();
        assert_eq!(text(&body, "log"), Some("no cri"));
    }

    #[test]
    fn unsupported_parser_options_are_named() {
        assert!(parser(&[("Name", "x"), ("Format", "logfmt")]).unwrap_err().0.contains("logfmt"));
        assert!(parser(&[("Name", "x"), ("Format", "regex"), ("Regex", "(")]).unwrap_err().0.contains("Regex"));
    }
}
