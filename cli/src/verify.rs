//! `kubehose verify`: checks a live setup through kubectl, aws and curl; read-only, and said as it goes.

mod account;
mod ask;
mod cluster;
mod datadog;
mod permissions;
mod report;

use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;

use crate::aws::{Account, EksName, Region, StreamName};
use crate::datadog::Site;
use crate::kube::Name;
use crate::verdict::{Failure, Outcome, json as pretty, print};
use ask::Programs;
use report::{Check, Format, Report};

/// Check a live setup: configuration, role, pods or tasks, delivery stream, Datadog.
///
/// Each check is ✔ good, ✘ bad with its fix, or ? where it could not be made. Nothing is changed. The Datadog checks need
/// --site, and DD_API_KEY and DD_APP_KEY in the environment.
#[derive(ClapArgs)]
#[command(after_help = "Exit codes:
  0  no check failed
  1  a check failed
  2  the command line is wrong
  3  nothing could be checked

Examples:
  kubehose verify --region eu-west-1 --cluster fargate-cluster --fargate-profile fargate-profile --delivery-stream logs
  kubehose verify --target nodes --region eu-west-1 --cluster shop --delivery-stream logs --output json
  kubehose verify --target ecs --region eu-west-1 --cluster shop --service web --delivery-stream logs --site eu
  kubehose verify --permissions=iam --region eu-west-1 --account 123456789012 --delivery-stream logs > policy.json")]
pub struct Args {
    /// Where the router runs
    #[arg(long, value_enum, default_value_t = Target::Fargate)]
    target: Target,
    /// Region of the cluster and of the delivery stream
    #[arg(long, env = "AWS_REGION", value_parser = Region::new, required_unless_present = "permissions")]
    region: Option<Region>,
    /// Name of the delivery stream
    #[arg(long, value_name = "NAME", value_parser = StreamName::new, required_unless_present = "permissions")]
    delivery_stream: Option<StreamName>,
    /// The account that is meant; the credentials must be for it
    #[arg(long, value_name = "NUMBER", value_parser = Account::new)]
    account: Option<Account>,
    /// The cluster, of EKS or of ECS
    #[arg(long, value_name = "NAME", value_parser = EksName::new)]
    cluster: Option<EksName>,
    /// The Fargate profile of the pods (--target fargate)
    #[arg(long, value_name = "NAME", value_parser = EksName::new)]
    fargate_profile: Option<EksName>,
    /// Namespace of the pods for --target fargate [default: fargate-namespace], of the router for nodes [default: kubehose]
    #[arg(long, value_name = "NAME", value_parser = Name::new)]
    namespace: Option<Name>,
    /// The router's DaemonSet (--target nodes)
    #[arg(long, value_name = "NAME", default_value = "kubehose", value_parser = Name::new)]
    daemonset: Name,
    /// The service (--target ecs)
    #[arg(long, value_name = "NAME", value_parser = ecs_name)]
    service: Option<String>,
    /// The task definition, if it is not the service's (--target ecs)
    #[arg(long, value_name = "NAME", value_parser = ecs_name)]
    task_definition: Option<String>,
    /// kubectl's context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Datadog site, for the checks there
    #[arg(long)]
    site: Option<Site>,
    /// How the checks are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Seconds that each call may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Write the permissions that the checks of this target need, as JSON, instead
    #[arg(long, value_enum, value_name = "OF", num_args = 0..=1, default_missing_value = "all", require_equals = true)]
    permissions: Option<Permissions>,
}

/// Where the router runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// EKS Fargate's own router
    Fargate,
    /// A DaemonSet with the plugin
    Nodes,
    /// FireLens with the plugin
    Ecs,
}

/// Which permissions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Permissions {
    /// A policy of IAM
    Iam,
    /// Roles of the cluster, for kubectl apply
    Rbac,
    /// Both, under the keys iam and rbac
    All,
}

/// What is looked at.
pub struct Setup {
    region: Region,
    stream: StreamName,
    account: Option<Account>,
    /// The account of the credentials, once it is known.
    own_account: Option<String>,
    cluster: Option<EksName>,
    fargate_profile: Option<EksName>,
    namespace: Name,
    daemonset: Name,
    service: Option<String>,
    task_definition: Option<String>,
    site: Option<Site>,
}

/// A name, revision or ARN as ECS has them.
fn ecs_name(text: &str) -> Result<String, String> {
    let good = (1..=300).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:/".contains(&b));
    if good { Ok(text.to_owned()) } else { Err("expected a name as ECS has them: a-z A-Z 0-9 - _".to_owned()) }
}

/// Runs `kubehose verify`.
pub fn run(args: &Args) -> Outcome {
    let default = if args.target == Target::Nodes { "kubehose" } else { "fargate-namespace" };
    let namespace = match &args.namespace {
        Some(namespace) => namespace.clone(),
        None => Name::new(default).map_err(Failure::new)?,
    };
    if let Some(which) = args.permissions {
        let needs = permissions::needs(args.target, &namespace.to_string());
        let names = permissions::Names {
            partition: args.region.as_ref().map_or("*", Region::partition),
            region: args.region.as_ref().map_or("*", AsRef::as_ref),
            account: args.account.as_ref().map_or("*", AsRef::as_ref),
            cluster: args.cluster.as_ref().map_or("*", AsRef::as_ref),
            fargate_profile: args.fargate_profile.as_ref().map_or("*", AsRef::as_ref),
            stream: args.delivery_stream.as_ref().map_or("*", AsRef::as_ref),
            service: args.service.as_deref().map_or("*", |service| service.rsplit('/').next().unwrap_or(service)),
        };
        let (iam, rbac) = (permissions::iam(&needs, &names), permissions::rbac(&needs));
        return print(&pretty(&match which {
            Permissions::Iam => iam,
            Permissions::Rbac => rbac,
            Permissions::All => json!({"iam": iam, "rbac": rbac}),
        }));
    }
    let needed = match args.target {
        Target::Fargate => {
            vec![("--cluster", args.cluster.is_some()), ("--fargate-profile", args.fargate_profile.is_some())]
        }
        Target::Nodes => Vec::new(),
        Target::Ecs => vec![
            ("--cluster", args.cluster.is_some() || args.task_definition.is_some()),
            ("--service or --task-definition", args.service.is_some() || args.task_definition.is_some()),
        ],
    };
    let missing: Vec<&str> = needed.iter().filter(|(_, given)| !given).map(|(name, _)| *name).collect();
    let (Some(region), Some(stream), true) = (&args.region, &args.delivery_stream, missing.is_empty()) else {
        return Err(Failure::new(format!("these checks need {}", missing.join(" and "))));
    };
    let mut setup = Setup {
        region: region.clone(),
        stream: stream.clone(),
        account: args.account.clone(),
        own_account: None,
        cluster: args.cluster.clone(),
        fargate_profile: args.fargate_profile.clone(),
        namespace,
        daemonset: args.daemonset.clone(),
        service: args.service.clone(),
        task_definition: args.task_definition.clone(),
        site: args.site,
    };
    let mut programs = Programs::new(Duration::from_secs(args.timeout), args.context.clone(), region.to_string());
    let (caller, no_caller) = account::caller(&mut programs);
    setup.own_account.clone_from(&caller.account);
    check(args, &mut programs, &setup, caller, no_caller)
}

fn check(
    args: &Args,
    programs: &mut Programs,
    setup: &Setup,
    caller: account::Caller,
    no_caller: Option<Check>,
) -> Outcome {
    let (context, no_context) = match args.target {
        Target::Ecs => (None, None),
        _ => cluster::context(programs, setup),
    };
    let mut about =
        vec![("account", caller.account), ("region", Some(setup.region.to_string())), ("identity", caller.arn)];
    if args.target != Target::Ecs {
        about.push(("cluster", context.clone()));
    }
    let mut report = Report::begin(args.output, &about)?;
    for check in [no_caller, no_context, account::same_account(setup, context.as_deref())].into_iter().flatten() {
        report.say(check);
    }
    match args.target {
        Target::Fargate => {
            cluster::namespace(programs, &mut report);
            cluster::aws_logging(programs, setup, &mut report);
            account::profile(programs, setup, &mut report);
            cluster::pods(programs, setup, &mut report);
        }
        Target::Nodes => {
            if let Some(name) = cluster::daemonset(programs, setup, &mut report) {
                let check = match cluster::role_of(programs, setup, &name) {
                    Ok(role) => account::node_role(programs, setup, &name, role),
                    Err(check) => check,
                };
                report.say(check);
            }
        }
        Target::Ecs => account::ecs(programs, setup, &mut report),
    }
    account::stream(programs, setup, &mut report);
    account::metrics(programs, setup, &mut report);
    datadog::checks(programs, setup, &mut report);
    report.end()
}
