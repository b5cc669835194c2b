//! `kubehose bundle`: every file of the guide, and the script that applies them in the guide's order.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::aws::{Account, Bucket, EksName, SecretArn};
use crate::datadog::Site;
use crate::delivery_stream::{self, PodRole, Settings};
use crate::iam_policy::{self, Streams};
use crate::manifest::{Router, aws_logging};
use crate::pipeline::{self, Pipeline};
use crate::sample_app::{self, Sample};
use crate::verdict::{self, Failure, Outcome, Verdict, note};

/// Write all files of Datadog's guide for EKS Fargate into a folder, ready to apply.
///
/// `apply.sh` runs the guide's commands in order and can be run again; its --dry-run only shows them. Nothing in the files
/// needs editing.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose bundle logs --site eu --region eu-west-1 --account 123456789012 --cluster fargate-cluster \\
    --fargate-profile fargate-profile --delivery-stream logs
  DD_API_KEY=… DD_APP_KEY=… logs/apply.sh")]
pub struct Args {
    /// Folder for the files; created if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Overwrite files that differ, and links, but not the links' targets
    #[arg(long)]
    force: bool,
    /// Datadog site that receives the logs
    #[arg(long)]
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
    /// Existing bucket for records that Datadog did not accept; without it one is created
    #[arg(long, value_name = "NAME", value_parser = Bucket::new)]
    bucket: Option<Bucket>,
    /// Existing secret {"api_key": "…"}; without it one is created from DD_API_KEY when the files are applied
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

/// Runs `kubehose bundle`. Writes nothing unless everything can be written.
pub fn run(args: &Args) -> Outcome {
    let files = files(args)?;
    let mut present = Vec::new();
    for (name, text) in &files {
        let path = args.dir.join(name);
        folders_are_own(&args.dir, name)?;
        let found = look(&path, text).map_err(|error| failure("read", &path, &error))?;
        match found {
            Present::Other(what) => {
                return Err(Failure::new(format!("{} is {what}: nothing is written over it", path.display())));
            }
            Present::Differs(what) if !args.force => {
                return Err(Failure::new(format!("{} is there and {what}: --force overwrites it", path.display())));
            }
            found => present.push(found),
        }
    }
    for ((name, text), found) in files.iter().zip(present) {
        let path = args.dir.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| failure("make", folder, &error))?;
        }
        let mode = if *name == "apply.sh" { 0o755 } else { 0o644 };
        match found {
            Present::Same => fs::set_permissions(&path, fs::Permissions::from_mode(mode)),
            Present::Absent => create(&path, text, mode),
            Present::Differs(_) | Present::Other(_) => replace(&path, text, mode),
        }
        .map_err(|error| failure("write", &path, &error))?;
    }
    let script = args.dir.join("apply.sh");
    note(&format!("{} files in {}; rehearse with {} --dry-run", files.len(), args.dir.display(), script.display()));
    Ok(Verdict::Fine)
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {what} {}: {error}", path.display()))
}

/// What exists where a file would be written.
enum Present {
    Absent,
    /// The file, with the same text.
    Same,
    /// A file with other content, or a link, which is not followed.
    Differs(&'static str),
    /// No file.
    Other(&'static str),
}

fn look(path: &Path, text: &str) -> io::Result<Present> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Absent),
        found => found?,
    };
    if found.is_symlink() {
        return Ok(Present::Differs("is a symbolic link"));
    }
    if !found.is_file() {
        return Ok(Present::Other(if found.is_dir() { "a folder" } else { "no regular file" }));
    }
    let same = found.len() == text.len() as u64 && fs::read(path)? == text.as_bytes();
    Ok(if same { Present::Same } else { Present::Differs("differs") })
}

/// Checks that the folders between `dir` and `name` are missing or real folders, not links out of `dir`. The user has chosen `dir` itself.
fn folders_are_own(dir: &Path, name: &str) -> Result<(), Failure> {
    let within = Path::new(name).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    for folder in within.map(|folder| dir.join(folder)) {
        match fs::symlink_metadata(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(Failure::new(format!("{} is no folder: nothing is written into it", folder.display())));
            }
            Err(error) => return Err(failure("read", &folder, &error)),
        }
    }
    Ok(())
}

/// Writes a file that does not exist; does not follow a link that appeared meanwhile.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

/// Replaces a file, or a link, atomically.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = create(&beside, text, mode).and_then(|()| fs::rename(&beside, path));
    if written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn files(args: &Args) -> Result<Vec<(&'static str, String)>, Failure> {
    let router = &args.router;
    let names = router.streams();
    let settings = Settings {
        site: args.site,
        region: router.region.clone(),
        account: args.account.clone(),
        delivery_streams: names.clone(),
        bucket: args.bucket.clone(),
        secret_arn: args.secret_arn.clone(),
        buffer_seconds: delivery_stream::BUFFER_SECONDS,
        buffer_mib: delivery_stream::BUFFER_MIB,
        retry_seconds: delivery_stream::RETRY_SECONDS,
        attributes: Vec::new(),
    };
    let streams = Streams { region: &router.region, account: &args.account, names: &names };
    // The pod execution role is the profile's own: the script looks it up, as the guide does.
    Ok(vec![
        ("aws-logging.yaml", aws_logging::manifest(router)?.text),
        ("allow_kinesis_put_permission.json", verdict::json(&iam_policy::router(&streams, router.flb_log_cw))),
        (
            "delivery-stream.cloudformation.json",
            delivery_stream::template_file(&delivery_stream::cloudformation(
                &settings,
                PodRole::Leave,
                router.flb_log_cw,
            )),
        ),
        ("sample-app.yaml", sample_app::manifest(&args.sample)),
        ("pipeline.json", verdict::json(&pipeline::api(&args.pipeline))),
        ("terraform/delivery-stream.tf", delivery_stream::terraform(&settings, PodRole::Leave, router.flb_log_cw)),
        ("terraform/pipeline/pipeline.tf", pipeline::terraform(&args.pipeline)),
        ("apply.sh", script(args)),
    ])
}

/// `text` as one word of the shell.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn script(args: &Args) -> String {
    let router = &args.router;
    let stream = router.delivery_stream.as_ref();
    // A stack's name may have only letters, digits and hyphens.
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
        ("STREAM", &router.streams().iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")),
        ("STACK", &format!("kubehose-{stack}")),
        ("POLICY", &format!("FluentBitEKSFargate-{stream}")),
        ("SITE", args.site.name()),
        ("API", args.site.api_url()),
        ("OWN_SECRET", if args.secret_arn.is_none() { "1" } else { "" }),
        ("NAMESPACE", &args.sample.namespace.to_string()),
        ("APP", sample_app::NAME),
        ("SELECTOR", sample_app::SELECTOR),
        // As the API writes it, so that it can be found again.
        ("PIPELINE", &serde_json::Value::from(args.pipeline.name.as_str()).to_string()),
        ("QUERY", &args.pipeline.filter()),
    ] {
        let _ = writeln!(text, "{name}={}", word(value));
    }
    text.push_str(SCRIPT);
    text
}
