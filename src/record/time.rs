//! An event's time as text (`time_key`, `time_key_format`, `time_key_zone`).

use crate::event::chunk::Time;
use crate::record::json;
use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::{Offset, TimeZone};

/// The option `time_key` with its format.
#[derive(Clone, Debug)]
pub struct TimeKey {
    /// The attribute's name, dots replaced.
    pub name: Box<[u8]>,
    /// `"name":"`
    opening: Box<[u8]>,
    format: TimeFormat,
    zone: TimeZone,
}

impl TimeKey {
    /// An attribute `name` with times in `zone`, written as `format` says.
    pub fn new(name: &str, format: TimeFormat, zone: TimeZone) -> TimeKey {
        let mut opening = Vec::new();
        json::write_string(&mut opening, name.as_bytes());
        opening.extend_from_slice(b":\"");
        TimeKey { name: name.as_bytes().into(), opening: opening.into(), format, zone }
    }
}

/// Reads `UTC`, an offset such as `+02:00`, or a zone that the system knows, such as `Europe/Berlin`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_zone(text: &str) -> Result<TimeZone, String> {
    if text.eq_ignore_ascii_case("utc") || text == "Z" {
        return Ok(TimeZone::UTC);
    }
    if let Some(sign) = text.strip_prefix(['+', '-']) {
        let digits: String = sign.chars().filter(|character| *character != ':').collect();
        let digits = if digits.len() == 2 { digits + "00" } else { digits };
        let number = |at: usize| digits.get(at..at + 2).and_then(|part| part.parse::<i32>().ok());
        let (Some(hours), Some(minutes), 4) = (number(0), number(2), digits.len()) else {
            return Err("an offset is written +02:00".to_owned());
        };
        let seconds = (hours * 60 + minutes) * 60;
        if hours > 23 || minutes > 59 {
            return Err("an offset is below 24:00".to_owned());
        }
        let seconds = if text.starts_with('-') { -seconds } else { seconds };
        return Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|error| error.to_string());
    }
    TimeZone::get(text).map_err(|_| "this machine's /usr/share/zoneinfo has no such zone".to_owned())
}

/// A strftime format, with `%L` and `%3N` (milliseconds), `%6N`, `%9N`, `%f` (microseconds).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat {
    pieces: Vec<TimePiece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TimePiece {
    /// A part that changes at most once a second, for strftime.
    Second(String),
    /// This many digits of the second's fraction.
    Fraction(usize),
}

/// What C's strftime writes for these in the C locale, where jiff writes something else.
const OF_C: [(char, &str); 6] = [
    ('x', "%m/%d/%y"),
    ('X', "%H:%M:%S"),
    ('c', "%a %b %e %H:%M:%S %Y"),
    ('r', "%I:%M:%S %p"),
    ('h', "%b"),
    ('+', "%a %b %e %H:%M:%S %Z %Y"),
];

impl TimeFormat {
    /// Reads a format; the error says which part is not understood.
    pub fn parse(format: &str) -> Result<TimeFormat, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            text.push_str(before);
            let fraction = [("%L", 3), ("%f", 6), ("%N", 9), ("%3N", 3), ("%6N", 6), ("%9N", 9)];
            if let Some((spelling, digits)) = fraction.iter().find(|(spelling, _)| from.starts_with(spelling)) {
                if !text.is_empty() {
                    pieces.push(TimePiece::Second(std::mem::take(&mut text)));
                }
                pieces.push(TimePiece::Fraction(*digits));
                rest = &from[spelling.len()..];
                continue;
            }
            let mut after = from[1..].chars();
            let mut letter = after.next();
            // Alternative calendars and digits: the C locale has none.
            if matches!(letter, Some('E' | 'O')) {
                letter = after.next().filter(char::is_ascii_alphabetic);
            }
            let Some(letter) = letter else { return Err(format!("'{from}' is no conversion")) };
            match OF_C.iter().find(|(other, _)| *other == letter) {
                Some((_, meaning)) => text.push_str(meaning),
                None => text.extend(['%', letter]),
            }
            rest = after.as_str();
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(TimePiece::Second(text));
        }
        let parsed = TimeFormat { pieces };
        parsed.second_text(0, &TimeZone::UTC).map_err(|error| error.to_string())?;
        Ok(parsed)
    }

    /// The parts for one second, as they are in a JSON string; an empty one for the fraction.
    fn second_text(&self, second: i64, zone: &TimeZone) -> Result<Vec<Vec<u8>>, jiff::Error> {
        let time = Timestamp::from_second(second)?.to_zoned(zone.clone());
        let text = |piece: &TimePiece| match piece {
            TimePiece::Second(format) => {
                let mut quoted = Vec::new();
                json::write_string(&mut quoted, strtime::format(format, &time)?.as_bytes());
                Ok(quoted.get(1..quoted.len() - 1).unwrap_or_default().to_vec())
            }
            TimePiece::Fraction(_) => Ok(Vec::new()),
        };
        self.pieces.iter().map(text).collect()
    }
}

/// Writes times, and keeps the texts of the last second, which neighbours in a chunk mostly share.
#[derive(Default)]
pub struct TimeWriter {
    second: Option<(i64, Vec<Vec<u8>>)>,
}

impl TimeWriter {
    /// Appends `"name":"…"`; false, and nothing appended, for a time outside the years that have a date, which no chunk holds.
    pub fn write(&mut self, key: &TimeKey, time: Time, out: &mut Vec<u8>) -> bool {
        if self.second.as_ref().is_none_or(|(second, _)| *second != time.seconds) {
            let Ok(texts) = key.format.second_text(time.seconds, &key.zone) else { return false };
            self.second = Some((time.seconds, texts));
        }
        let Some((_, texts)) = &self.second else { return false };
        out.extend_from_slice(&key.opening);
        for (piece, text) in key.format.pieces.iter().zip(texts) {
            match piece {
                TimePiece::Second(_) => out.extend_from_slice(text),
                TimePiece::Fraction(digits) => {
                    // Adding a billion keeps leading zeros; its first digit is cut.
                    let nanos = 1_000_000_000 + time.nanos.min(999_999_999);
                    let mut buffer = itoa::Buffer::new();
                    out.extend_from_slice(buffer.format(nanos).as_bytes().get(1..=*digits).unwrap_or_default());
                }
            }
        }
        out.push(b'"');
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn text(format: &str, zone: &str, seconds: i64) -> String {
        let key = TimeKey::new("t", TimeFormat::parse(format).unwrap(), parse_zone(zone).unwrap());
        let mut out = Vec::new();
        TimeWriter::default().write(&key, Time { seconds, nanos: 5_000_000 }, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.strip_prefix("\"t\":\"").unwrap().strip_suffix('"').unwrap().to_owned()
    }

    #[test]
    fn conversions_mean_what_they_mean_in_c() {
        // GNU date writes by C's strftime, but for %f, %L, %N and %+.
        let letters = "a A b B c C d D e F g G h H I j k l m M n p P r R s S t T u U V w W x X y Y z Z %";
        for letter in
            letters.split(' ').flat_map(|letter| [letter.to_owned(), format!("E{letter}"), format!("O{letter}")])
        {
            if letter.len() == 2 && !"cCxXyY".contains(&letter[1..]) && letter.starts_with('E') {
                continue;
            }
            if letter.len() == 2 && !"deHImMSuUVwWy".contains(&letter[1..]) && letter.starts_with('O') {
                continue;
            }
            for seconds in [0i64, 1_700_000_000, 951_782_399, 1_795_578_000] {
                let Ok(date) = Command::new("date")
                    .env("LC_ALL", "C")
                    .env("TZ", "UTC")
                    .args(["-d", &format!("@{seconds}"), &format!("+[%{letter}]")])
                    .output()
                else {
                    return eprintln!("not run, because date is not on PATH");
                };
                let ours = text(&format!("[%{letter}]"), "UTC", seconds).replace("\\n", "\n").replace("\\t", "\t");
                assert_eq!(ours, String::from_utf8(date.stdout).unwrap().trim_end_matches('\n'), "%{letter}");
            }
        }
    }

    #[test]
    fn a_zone_is_an_offset_or_a_name() {
        let format = "%Y-%m-%dT%H:%M:%S.%L%z";
        assert_eq!(text(format, "UTC", 0), "1970-01-01T00:00:00.005+0000");
        for offset in ["+05:30", "+0530"] {
            assert_eq!(text(format, offset, 0), "1970-01-01T05:30:00.005+0530");
        }
        assert_eq!(text(format, "-03", 0), "1969-12-31T21:00:00.005-0300");
        if parse_zone("Europe/Berlin").is_ok() {
            assert_eq!(text(format, "Europe/Berlin", 1_700_000_000), "2023-11-14T23:13:20.005+0100");
        }
        for wrong in ["+5", "+25:00", "+01:60", "Mars/Olympus", "+ab:cd", ""] {
            assert!(parse_zone(wrong).is_err(), "{wrong}");
        }
    }
}
