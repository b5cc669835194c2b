//! The output of `verify`: a line for each check as it is made, or one JSON document.

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::ask::{NoAnswer, forbidden, shortened};
use super::permissions::Need;
use crate::verdict::{Failure, Outcome, Verdict, coloured, note, plural, print};

/// How the checks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// The result of a check.
pub enum Mark {
    Good,
    Bad {
        fix: String,
    },
    Unknown {
        need: Option<Need>,
    },
    /// As unknown, for a reason that was said before.
    Skipped,
}

/// One line of the report.
pub struct Check {
    pub what: String,
    pub mark: Mark,
    pub detail: String,
}

/// A check that passed.
pub fn good(what: &str, detail: impl Into<String>) -> Check {
    Check { what: what.to_owned(), mark: Mark::Good, detail: detail.into() }
}

/// A check that failed, with its fix.
pub fn bad(what: &str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { what: what.to_owned(), mark: Mark::Bad { fix: fix.into() }, detail: shortened(&detail.into()) }
}

/// A check that could not be made.
pub fn unknown(what: &str, detail: impl Into<String>) -> Check {
    Check { what: what.to_owned(), mark: Mark::Unknown { need: None }, detail: shortened(&detail.into()) }
}

/// A check without an answer; `missing` and `fix` are used if the thing does not exist.
pub fn no_answer(what: &str, why: NoAnswer, need: Need, missing: &str, fix: &str) -> Check {
    match why {
        NoAnswer::Missing => bad(what, missing, fix),
        NoAnswer::Forbidden(said) => {
            Check { what: what.to_owned(), detail: forbidden(&need, &said), mark: Mark::Unknown { need: Some(need) } }
        }
        NoAnswer::Failed(said) | NoAnswer::Unusable(said) => unknown(what, said),
        NoAnswer::Known => Check { what: what.to_owned(), mark: Mark::Skipped, detail: String::new() },
    }
}

/// The report so far.
pub struct Report {
    format: Format,
    good: usize,
    bad: usize,
    unknown: usize,
    /// Checks left out for a reason that was given before.
    skipped: Vec<String>,
    /// Failed checks.
    faults: Vec<String>,
    /// Why stdout accepts no more lines.
    failure: Option<Failure>,
}

impl Report {
    /// Begins with where it looks: pairs of a name and what it is, if it is known.
    pub fn begin(format: Format, about: &[(&str, Option<String>)]) -> Result<Self, Failure> {
        match format {
            Format::Text => {
                let lines: String = about
                    .iter()
                    .map(|(name, value)| format!("{name}: {}\n", value.as_deref().unwrap_or("not known")))
                    .collect();
                print(&lines)?;
            }
            Format::Json => {
                let pairs: String =
                    about.iter().map(|(name, value)| format!("  {}: {},\n", json!(name), json!(value))).collect();
                print(&format!("{{\n{pairs}  \"checks\": ["))?;
            }
        }
        Ok(Self { format, good: 0, bad: 0, unknown: 0, skipped: Vec::new(), faults: Vec::new(), failure: None })
    }

    /// As [`Report::say`], but for a fault that was said before.
    pub fn say_once(&mut self, check: Option<Check>) {
        if let Some(check) = check.filter(|check| !self.faults.contains(&check.what)) {
            self.say(check);
        }
    }

    /// Writes the result of a check at once.
    pub fn say(&mut self, check: Check) {
        let first = self.good + self.bad + self.unknown == 0;
        match check.mark {
            Mark::Good => self.good += 1,
            Mark::Bad { .. } => {
                self.bad += 1;
                self.faults.push(check.what.clone());
            }
            Mark::Unknown { .. } => self.unknown += 1,
            Mark::Skipped => {
                self.unknown += 1;
                self.skipped.push(check.what.clone());
            }
        }
        let text = match (self.format, &check.mark) {
            (Format::Text, Mark::Skipped) => return,
            (Format::Text, _) => coloured(&line(&check)),
            (Format::Json, _) => format!("{}\n    {}", if first { "" } else { "," }, object(&check)),
        };
        if let Err(failure) = print(&text) {
            self.failure.get_or_insert(failure);
        }
    }

    /// Ends the report; returns the exit code's verdict.
    pub fn end(self) -> Outcome {
        let Self { good, bad, unknown, .. } = self;
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.format {
            Format::Text if self.skipped.is_empty() => {}
            Format::Text => {
                let style = AnsiColor::Yellow.on_default().bold();
                let text = format!("{style}?{style:#} not checked, for a reason above: {}\n", self.skipped.join(", "));
                print(&coloured(&text))?;
            }
            Format::Json => {
                print(&format!(
                    "\n  ],\n  \"good\": {good},\n  \"failed\": {bad},\n  \"not_checked\": {unknown}\n}}\n"
                ))?;
            }
        }
        note(&format!("{}: {bad} failed, {unknown} could not be made", plural(good + bad + unknown, "check")));
        Ok(match (good, bad) {
            (0, 0) => Verdict::Nothing,
            (_, 0) => Verdict::Fine,
            _ => Verdict::Findings,
        })
    }
}

fn line(check: &Check) -> String {
    let (sign, colour, fix) = match &check.mark {
        Mark::Good => ("✔", AnsiColor::Green, None),
        Mark::Bad { fix } => ("✘", AnsiColor::Red, Some(fix)),
        Mark::Unknown { .. } | Mark::Skipped => ("?", AnsiColor::Yellow, None),
    };
    let style: Style = colour.on_default().bold();
    let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", check.detail) };
    let fix = fix.map_or(String::new(), |fix| format!("  fix: {fix}\n"));
    format!("{style}{sign}{style:#} {}{detail}\n{fix}", check.what)
}

fn object(check: &Check) -> Value {
    let (result, fix, need) = match &check.mark {
        Mark::Good => ("good", None, None),
        Mark::Bad { fix } => ("bad", Some(fix), None),
        Mark::Unknown { need } => ("unknown", None, need.as_ref().map(ToString::to_string)),
        Mark::Skipped => ("unknown", None, None),
    };
    let mut object = json!({"check": check.what, "result": result, "detail": check.detail});
    if let Some(fields) = object.as_object_mut() {
        fields.extend(fix.map(|fix| ("fix".to_owned(), json!(fix))));
        fields.extend(need.map(|need| ("needs".to_owned(), json!(need))));
    }
    object
}
