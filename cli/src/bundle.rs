//! `kubehose bundle`: every file of the guide, and the script that applies them in the guide's order.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::aws::{Account, Bucket, EksName, SecretArn};
use crate::datadog::Site;
use crate::delivery_stream::{self, PodRole, Settings};
use crate::iam_policy::{self, Stream};
use crate::manifest::{Router, aws_logging};
use crate::pipeline::{self, Pipeline};
use crate::sample_app::{self, Sample};
use crate::verdict::{self, Failure, Outcome, Verdict, note};

/// Write all files of the guide into a folder, ready to apply.
///
/// `apply.sh` runs the guide's commands in order; it can be rehearsed with --dry-run and run again. Nothing in the files
/// needs editing.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose bundle logs --site eu --region eu-west-1 --account 123456789012 --cluster fargate-cluster \\
    --fargate-profile fargate-profile --delivery-stream logs
  DD_API_KEY=… DD_APP_KEY=… logs/apply.sh")]
pub struct Args {
    /// Folder that the files go into; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Overwrite files that differ
    #[arg(long)]
    force: bool,
    /// Datadog site that takes the logs
    #[arg(long, value_enum)]
    site: Site,
    /// Account of the delivery stream
    #[arg(long, value_name = "DIGITS", value_parser = Account::new)]
    account: Account,
    /// The EKS cluster
    #[arg(long, value_name = "NAME", value_parser = EksName::new)]
    cluster: EksName,
    /// Its Fargate profile
    #[arg(long, value_name = "NAME", value_parser = EksName::new)]
    fargate_profile: EksName,
    /// Existing bucket for what Datadog did not take; without it one is made
    #[arg(long, value_name = "NAME", value_parser = Bucket::new)]
    bucket: Option<Bucket>,
    /// Existing secret {"api_key": "…"}; without it one is made out of DD_API_KEY when the files are applied
    #[arg(long, value_name = "ARN", value_parser = SecretArn::new)]
    secret_arn: Option<SecretArn>,
    #[command(flatten)]
    router: Router,
    #[command(flatten)]
    sample: Sample,
    #[command(flatten)]
    pipeline: Pipeline,
}

/// What follows the values in apply.sh.
const SCRIPT: &str = include_str!("bundle/apply.sh");

/// Runs `kubehose bundle`.
pub fn run(args: &Args) -> Outcome {
    let files = files(args)?;
    let failure =
        |path: &Path, error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    if !args.force {
        for (name, text) in &files {
            let path = args.dir.join(name);
            // What cannot be read is reported when it cannot be written.
            if std::fs::read_to_string(&path).is_ok_and(|present| present != *text) {
                return Err(Failure::new(format!("{} is there and differs: --force overwrites it", path.display())));
            }
        }
    }
    for (name, text) in &files {
        let path = args.dir.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failure(folder, error))?;
        }
        std::fs::write(&path, text).map_err(|error| failure(&path, error))?;
        if *name == "apply.sh" {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
                .map_err(|error| failure(&path, error))?;
        }
    }
    let script = args.dir.join("apply.sh");
    note(&format!("{} files in {}; rehearse with {} --dry-run", files.len(), args.dir.display(), script.display()));
    Ok(Verdict::Fine)
}

fn files(args: &Args) -> Result<Vec<(&'static str, String)>, Failure> {
    let router = &args.router;
    let settings = Settings {
        site: args.site,
        region: router.region.clone(),
        account: args.account.clone(),
        delivery_stream: router.delivery_stream.clone(),
        bucket: args.bucket.clone(),
        secret_arn: args.secret_arn.clone(),
        buffer_seconds: delivery_stream::BUFFER_SECONDS,
        buffer_mib: delivery_stream::BUFFER_MIB,
        retry_seconds: delivery_stream::RETRY_SECONDS,
        attributes: Vec::new(),
    };
    let stream = Stream { region: &router.region, account: &args.account, name: &router.delivery_stream };
    // The pod execution role is the profile's own: the script looks it up, as the guide does.
    Ok(vec![
        ("aws-logging.yaml", aws_logging::manifest(router)?.text),
        ("allow_kinesis_put_permission.json", verdict::json(&iam_policy::router(&stream, router.flb_log_cw))),
        (
            "delivery-stream.cloudformation.json",
            verdict::json(&delivery_stream::cloudformation(&settings, PodRole::Leave, router.flb_log_cw)),
        ),
        ("sample-app.yaml", sample_app::manifest(&args.sample)),
        ("pipeline.json", verdict::json(&pipeline::api(&args.pipeline))),
        ("terraform/delivery-stream.tf", delivery_stream::terraform(&settings, PodRole::Leave, router.flb_log_cw)),
        ("terraform/pipeline/pipeline.tf", pipeline::terraform(&args.pipeline)),
        ("apply.sh", script(args)),
    ])
}

/// `text` as one word of the shell's.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn script(args: &Args) -> String {
    let router = &args.router;
    let stream = router.delivery_stream.as_ref();
    // A stack's name takes letters, digits and hyphens only.
    let stack: String = stream.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut text = String::from(
        "#!/usr/bin/env bash
# Applies the files of this folder in the order of Datadog's guide for EKS Fargate. Written by kubehose bundle.
set -euo pipefail

",
    );
    for (name, value) in [
        ("REGION", router.region.as_ref()),
        ("PARTITION", router.region.partition()),
        ("ACCOUNT", args.account.as_ref()),
        ("CLUSTER", args.cluster.as_ref()),
        ("PROFILE", args.fargate_profile.as_ref()),
        ("STREAM", stream),
        ("STACK", &format!("kubehose-{stack}")),
        ("POLICY", &format!("FluentBitEKSFargate-{stream}")),
        ("SITE", args.site.name()),
        ("API", args.site.api_url()),
        ("OWN_SECRET", if args.secret_arn.is_none() { "1" } else { "" }),
        ("NAMESPACE", &args.sample.namespace.to_string()),
        ("APP", sample_app::NAME),
        ("SELECTOR", sample_app::SELECTOR),
        // As the API writes it, to be found again.
        ("PIPELINE", &serde_json::Value::from(args.pipeline.name.as_str()).to_string()),
        ("QUERY", &args.pipeline.filter()),
    ] {
        let _ = writeln!(text, "{name}={}", word(value));
    }
    text.push_str(SCRIPT);
    text
}
