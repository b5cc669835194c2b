//! `kubehose cost`: what a month of logs costs through Firehose and through CloudWatch Logs, from a sample and a rate.
//!
//! Vendor's pages: <https://aws.amazon.com/firehose/pricing/>, <https://aws.amazon.com/cloudwatch/pricing/>.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};

use clap::Args as ClapArgs;
use kubehose::service::{BILLING_STEP, billed};

use crate::verdict::{Failure, Outcome, note, print};

/// When the prices below were written down. They are list prices of us-east-1's first tier.
const PRICES_OF: &str = "2025-01";
/// Firehose, Direct PUT, per GB.
const FIREHOSE: f64 = 0.029;
/// CloudWatch Logs, standard class, per GB ingested.
const CLOUDWATCH: f64 = 0.50;
/// CloudWatch Logs, per GB and month kept.
const CLOUDWATCH_KEPT: f64 = 0.03;
/// Storage is billed compressed; AWS's calculator counts this share of the ingested bytes.
const CLOUDWATCH_COMPRESSED: f64 = 0.15;

/// The size up to which `simple_aggregation` joins records.
const AGGREGATE: f64 = 1000.0 * 1024.0;
/// A GB as AWS bills it.
const GB: f64 = (1u64 << 30) as f64;
/// A month as AWS's calculator counts it.
const SECONDS_A_MONTH: f64 = 730.0 * 3600.0;

/// Compare what a month of logs costs through Firehose and through CloudWatch Logs.
///
/// Firehose rounds each record up to 5 KB, so small records cost many times their size, unless they are joined
/// (`simple_aggregation`), which needs a destination that splits lines; Datadog is not known to. Datadog's own price is the same
/// either way and is left out, as is that of a NAT gateway or a VPC endpoint.
#[derive(ClapArgs)]
#[command(after_help = "Examples:
  kubehose cost --sample records.ndjson --per-second 200
  kubehose cost --record-bytes 900 --per-second 200 --routers 20 --firehose-per-gb 0.036")]
pub struct Args {
    /// Records, one a line, as the output writes them (kubehose preview prints them); `-` is stdin
    #[arg(long, value_name = "FILE", required_unless_present = "record_bytes", conflicts_with = "record_bytes")]
    sample: Option<String>,
    /// Size of a record instead
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=1_024_000))]
    record_bytes: Option<u64>,
    /// Records a second, of all routers together
    #[arg(long, value_name = "N", value_parser = positive)]
    per_second: f64,
    /// Number of routers that send them: one per node, on Fargate one per pod
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive)]
    routers: f64,
    /// Seconds for which a router collects records before it sends
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = positive)]
    flush: f64,
    /// Price of Firehose
    #[arg(long, value_name = "USD", default_value_t = FIREHOSE, value_parser = price)]
    firehose_per_gb: f64,
    /// Price of CloudWatch Logs
    #[arg(long, value_name = "USD", default_value_t = CLOUDWATCH, value_parser = price)]
    cloudwatch_per_gb: f64,
    /// Price of a GB stored in CloudWatch Logs for a month; 15 % of the bytes are counted, as they are billed compressed
    #[arg(long, value_name = "USD", default_value_t = CLOUDWATCH_KEPT, value_parser = price)]
    cloudwatch_kept_per_gb: f64,
    /// Months for which CloudWatch Logs stores them
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = price)]
    kept_months: f64,
}

fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|value| value.is_finite() && *value >= 0.0 && *value <= 1e12)
        .ok_or_else(|| "expected a number".to_owned())
}

fn price(text: &str) -> Result<f64, String> {
    number(text)
}

fn positive(text: &str) -> Result<f64, String> {
    number(text).and_then(|value| if value > 0.0 { Ok(value) } else { Err("expected a number above 0".to_owned()) })
}

/// What the records look like.
struct Sample {
    records: u64,
    bytes: u64,
    billed: u64,
}

/// Runs `kubehose cost`.
pub fn run(args: &Args) -> Outcome {
    let sample = match (&args.sample, args.record_bytes) {
        (Some(file), _) => read(file)?,
        (None, bytes) => {
            let bytes = bytes.unwrap_or(1);
            Sample { records: 1, bytes, billed: billed(bytes) }
        }
    };
    note("first tier, without free amounts; a month has 730 hours");
    print(&report(args, &sample))
}

fn read(file: &str) -> Result<Sample, Failure> {
    let input: Box<dyn std::io::Read> = match file {
        "-" => Box::new(std::io::stdin().lock()),
        path => {
            Box::new(std::fs::File::open(path).map_err(|error| Failure::new(format!("cannot read {path}: {error}")))?)
        }
    };
    let mut sample = Sample { records: 0, bytes: 0, billed: 0 };
    let mut reader = BufReader::new(input);
    let mut line = Vec::new();
    let progress = crate::verdict::progress("records");
    loop {
        line.clear();
        let read = reader
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::new(format!("cannot read {file}: {error}")))?;
        if read == 0 {
            break;
        }
        // A newline ends each record; it is part of it.
        let bytes = line.len() as u64 + u64::from(!line.ends_with(b"\n"));
        if bytes > 1 {
            sample.records += 1;
            sample.bytes += bytes;
            sample.billed += billed(bytes);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    if sample.records == 0 {
        return Err(Failure::new(format!("{file} holds no records: give one a line")));
    }
    Ok(sample)
}

fn report(args: &Args, sample: &Sample) -> String {
    let mean = sample.bytes as f64 / sample.records as f64;
    let a_month = args.per_second * SECONDS_A_MONTH;
    let gathered = (args.per_second / args.routers * args.flush * mean).clamp(mean, AGGREGATE.max(mean));
    let step = BILLING_STEP as f64;
    let joined = (gathered / step).ceil() * step / gathered;
    let volume = a_month * mean / GB;
    let kept = CLOUDWATCH_COMPRESSED * args.cloudwatch_kept_per_gb * args.kept_months;
    let rows = [
        (
            "Firehose, a record each",
            a_month * sample.billed as f64 / sample.records as f64 / GB,
            args.firehose_per_gb,
            0.0,
        ),
        ("Firehose, joined (1)", volume * joined, args.firehose_per_gb, 0.0),
        ("CloudWatch Logs (2)", volume, args.cloudwatch_per_gb, kept),
    ];
    let cost = |row: &(&str, f64, f64, f64)| row.1 * (row.2 + row.3);
    let most = rows.iter().map(cost).fold(f64::MIN_POSITIVE, f64::max);
    let mut text = format!(
        "{:.0} records a second of {mean:.0} bytes: {volume:.1} GB a month\n\n{:<24} {:>12} {:>12}\n",
        args.per_second, "", "GB billed", "USD a month"
    );
    for row in &rows {
        let bar = "█".repeat((cost(row) / most * 40.0).round() as usize);
        let line = format!("{:<24} {:>12.1} {:>12.2}  {bar}", row.0, row.1, cost(row));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(
        text,
        "\nEach record of this sample is billed as {:.1} times its size; joined, as {joined:.2} times.\n\
         (1) simple_aggregation, for S3 or OpenSearch: Datadog is not known to split a record into its lines.\n\
         (2) what comes in, and {CLOUDWATCH_COMPRESSED} of it kept for {} months: it is stored compressed.\n\
         List prices of {PRICES_OF} in us-east-1, unless given: see https://aws.amazon.com/firehose/pricing/ and \
         https://aws.amazon.com/cloudwatch/pricing/.",
        sample.billed as f64 / sample.bytes as f64,
        args.kept_months
    );
    text
}

#[cfg(test)]
mod tests {
    use super::billed;

    #[test]
    fn records_are_billed_in_steps() {
        assert_eq!([0, 1, 5120, 5121].map(billed), [5120, 5120, 5120, 10240]);
    }
}
