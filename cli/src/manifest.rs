//! `kubehose manifest`: the router's configuration as something to apply, for the place where the router runs.

pub mod aws_logging;
mod daemonset;
mod filters;
mod firelens;
mod helm;
mod kustomize;
mod operator;
mod plugin_config;
mod route;
mod sidecar;

use clap::{Args as ClapArgs, ValueEnum};
pub use plugin_config::PROGRAM;
use route::Route;

use crate::aws::{Region, RoleArn, StreamName};
use crate::kube::{self, Name};
use crate::verdict::{Failure, Outcome, note, print};
use crate::{datadog, fargate};

/// Write the router's configuration, ready to apply.
///
/// For `fargate` that is the labelled namespace and the aws-logging ConfigMap: EKS Fargate's router loads no plugin, so its
/// own filters give the attributes their names. The other targets run the kubehose plugin from an image that holds it.
/// Options marked [fargate] are for that target alone.
#[derive(ClapArgs)]
#[command(after_help = "Examples:
  kubehose manifest --region eu-west-1 --delivery-stream logs | kubectl apply -f -
  kubehose manifest --region eu-west-1 --delivery-stream logs --route shop=logs-shop --route label:team=payments=logs-pay
  kubehose manifest --target daemonset --image registry.example/kubehose:0.1 --region eu-west-1 --delivery-stream logs")]
pub struct Args {
    #[command(flatten)]
    pub router: Router,

    /// Where the router runs
    #[arg(long, value_enum, default_value_t = Target::Fargate)]
    target: Target,
    /// Exactly the ConfigMap of Datadog's guide, with the region and the stream filled in, and nothing else [fargate]
    #[arg(long, conflicts_with_all = ["remap", "preserve_source", "override_on_conflict", "no_cri", "flb_log_cw", "time_key",
        "role_arn", "exclude_namespace", "drop", "keep_labels", "match_pattern", "image", "routes"])]
    guide: bool,
    /// Image that holds Fluent Bit and libkubehose.so [all but fargate: required]; where an init container copies the plugin (fluent/fluent-bit, fluent-operator), one with libkubehose.so and cp
    #[arg(long, value_name = "IMAGE", value_parser = kube::image)]
    image: Option<String>,
    /// The chart [helm-values]
    #[arg(long, value_enum, default_value_t = helm::Chart::FluentBit)]
    chart: helm::Chart,
    /// Where libkubehose.so lies in that image [all but fargate and the chart aws-for-fluent-bit]
    #[arg(long, value_name = "PATH", default_value = plugin_config::PLUGIN_PATH, value_parser = plugin_config::plugin_path)]
    plugin_path: String,
    /// Namespace of what is written [all but fargate, firelens]
    #[arg(long, value_name = "NAME", default_value = "kubehose", value_parser = Name::new)]
    namespace: Name,
    /// Image of the application beside the router [sidecar, firelens]
    #[arg(long, value_name = "IMAGE", default_value = crate::manifest::SAMPLE_IMAGE, value_parser = kube::image)]
    app_image: String,
    /// Role with which ECS pulls images and starts the task; needed for images in ECR [firelens]
    #[arg(long, value_name = "ARN", value_parser = RoleArn::new)]
    execution_role_arn: Option<RoleArn>,
    /// Folder that the application writes its logs into, shared with the router [sidecar]
    #[arg(long, value_name = "PATH", default_value = "/var/log/nginx", value_parser = plugin_config::folder)]
    log_dir: String,
}

/// What every sample and every default application runs: the guide's own.
pub const SAMPLE_IMAGE: &str = "nginx";

/// What the router does with the logs; shared with `bundle`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Router {
    /// Region of the delivery stream
    #[arg(long, env = "AWS_REGION", value_parser = Region::new)]
    pub region: Region,
    /// Name of the delivery stream
    #[arg(long, value_name = "NAME", value_parser = StreamName::new)]
    pub delivery_stream: StreamName,
    /// `filters` renames the four attributes in the router, `none` leaves that to Datadog's pipeline
    #[arg(long, value_enum, default_value_t = Remap::Filters)]
    pub remap: Remap,
    /// Keep the attribute under its old name too
    #[arg(long)]
    pub preserve_source: bool,
    /// Replace an attribute of the application that already has the new name
    #[arg(long = "override")]
    pub override_on_conflict: bool,
    /// A stream of its own for the logs of a namespace, or of pods with a label; the first that matches counts, and other logs go to --delivery-stream [fargate]
    #[arg(long = "route", value_name = "NAMESPACE=STREAM|label:KEY=VALUE=STREAM", value_delimiter = ',', value_parser = Route::new)]
    pub routes: Vec<Route>,
    /// `Match` of the filters and the output
    #[arg(long = "match", conflicts_with = "routes", value_name = "PATTERN", default_value = fargate::MATCH, value_parser = match_pattern)]
    pub match_pattern: String,
    /// Leave out the CRI parser: `log` keeps its `… stdout F ` prefix, and JSON in it is not merged [fargate]
    #[arg(long)]
    pub no_cri: bool,
    /// Send the router's own log to CloudWatch, as the guide does [fargate]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pub flb_log_cw: bool,
    /// Key that carries the time of the log
    #[arg(long, value_name = "KEY", default_value = datadog::TIME_KEY, value_parser = record_key)]
    pub time_key: String,
    /// Role that the router assumes [fargate, firelens], or that its service account has through IRSA [all others]
    #[arg(long, value_name = "ARN", value_parser = RoleArn::new)]
    pub role_arn: Option<RoleArn>,
    /// Namespaces whose logs are not sent
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', value_parser = Name::new)]
    pub exclude_namespace: Vec<Name>,
    /// Fields to leave out, for smaller records
    #[arg(long, value_enum, value_name = "FIELD", num_args = 1.., value_delimiter = ',')]
    pub drop: Vec<Field>,
    /// Labels to keep; the others are left out
    #[arg(long, value_name = "LABEL", num_args = 1.., value_delimiter = ',', value_parser = record_key)]
    pub keep_labels: Vec<String>,
}

impl Router {
    /// Every stream that it sends to, the default first.
    pub fn streams(&self) -> Vec<StreamName> {
        route::streams(&self.delivery_stream, &self.routes)
    }
}

/// Where the router runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// EKS Fargate's managed router
    Fargate,
    /// One router per node
    Daemonset,
    /// One router beside the application in its pod
    Sidecar,
    /// An ECS task with FireLens
    Firelens,
    /// One router per node, as values of a Helm chart
    HelmValues,
    /// One router per node, as resources of the Fluent Operator
    FluentOperator,
    /// One router per node, as a kustomization over the DaemonSet's manifest
    Kustomize,
}

/// Who renames the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Remap {
    Filters,
    None,
}

/// A field that the kubernetes filter adds, or the text that it has parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Field {
    /// The pod's labels
    Labels,
    /// The pod's annotations
    Annotations,
    /// The node's name
    Host,
    /// The pod's uid
    PodId,
    /// The pod's address
    PodIp,
    /// The image with its digest
    ContainerHash,
    /// The image
    ContainerImage,
    /// The unparsed text of a line whose JSON has been merged
    Log,
}

impl Field {
    /// The field's key in the `kubernetes` map; labels, annotations and log are switched off in the filter instead.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Labels | Self::Annotations | Self::Log => None,
            Self::Host => Some("host"),
            Self::PodId => Some("pod_id"),
            Self::PodIp => Some("pod_ip"),
            Self::ContainerHash => Some("container_hash"),
            Self::ContainerImage => Some("container_image"),
        }
    }
}

/// Fluent Bit's keys and values end at a space or at the end of the line, and `${…}` is expanded.
fn word(text: &str, what: &str) -> Result<String, String> {
    let good = (1..=253).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains("${");
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("expected {what} without spaces, control characters and ${{…}}"))
    }
}

fn match_pattern(text: &str) -> Result<String, String> {
    word(text, "a pattern such as kube.*")
}

fn record_key(text: &str) -> Result<String, String> {
    // A quote would end the key in the JSON that the built-in output writes.
    match text.contains(['"', '\\']) {
        true => Err("expected a key without quotes and backslashes".to_owned()),
        false => word(text, "a key"),
    }
}

/// Runs `kubehose manifest`.
pub fn run(args: &Args) -> Outcome {
    if args.target == Target::Fargate {
        let manifest = match args.guide {
            true => aws_logging::guide(&args.router),
            false => aws_logging::manifest(&args.router)?,
        };
        note(&format!("{}: {} of {} characters", fargate::CONFIG_MAP, manifest.characters, fargate::MAX_CHARACTERS));
        let streams = args.router.streams();
        if streams.len() > 1 {
            let names: Vec<&str> = streams.iter().map(AsRef::as_ref).collect();
            note(&format!("for iam-policy and delivery-stream: --delivery-stream {}", names.join(",")));
        }
        return print(&manifest.text);
    }
    if args.guide {
        return Err(Failure::new("--guide writes the guide's ConfigMap, which is for --target fargate only"));
    }
    if !args.router.routes.is_empty() {
        return Err(Failure::new(
            "--route is for EKS Fargate, whose router loads no plugin: kubehose itself routes by a template as delivery_stream, \
             such as logs-$kubernetes['namespace_name']",
        ));
    }
    let Some(image) = &args.image else {
        return Err(Failure::new(
            "--image is missing: this target runs the plugin, so it needs an image that holds Fluent Bit and libkubehose.so",
        ));
    };
    let router = &args.router;
    let of_the_kubernetes_filter = [
        ("--exclude-namespace", !router.exclude_namespace.is_empty()),
        ("--drop", !router.drop.is_empty()),
        ("--keep-labels", !router.keep_labels.is_empty()),
    ];
    if let (Target::Sidecar | Target::Firelens, Some((option, _))) =
        (args.target, of_the_kubernetes_filter.iter().find(|(_, given)| *given))
    {
        return Err(Failure::new(format!(
            "{option} acts on what the kubernetes filter adds, and a sidecar or FireLens has no such filter: leave it out"
        )));
    }
    let place = plugin_config::Place {
        router: &args.router,
        image,
        plugin_path: &args.plugin_path,
        namespace: &args.namespace,
    };
    let on_nodes = !matches!(args.target, Target::Sidecar | Target::Firelens);
    if on_nodes && args.router.role_arn.is_none() {
        note("no --role-arn: give the service account kubehose a role by EKS Pod Identity, or the nodes' role is used");
    }
    match args.target {
        Target::Daemonset => print(&daemonset::manifest(&place)),
        Target::HelmValues => print(&helm::values(&place, args.chart)?),
        Target::FluentOperator => print(&operator::resources(&place)),
        Target::Kustomize => print(&kustomize::kustomization(&place)?),
        Target::Sidecar => print(&sidecar::manifest(&place, &args.app_image, &args.log_dir)),
        Target::Fargate | Target::Firelens => {
            if args.execution_role_arn.is_none()
                && let Some(image) = [image, &args.app_image].into_iter().find(|image| firelens::is_private_ecr(image))
            {
                return Err(Failure::new(format!(
                    "--execution-role-arn is missing: on Fargate {image} is pulled from ECR with that role \
                     (ecsTaskExecutionRole, with AWS's AmazonECSTaskExecutionRolePolicy)"
                )));
            }
            if args.router.role_arn.is_none() {
                note(
                    "no --role-arn: without a task role the plugin has no credentials, unless taskRoleArn is set elsewhere",
                );
            }
            print(&firelens::task_definition(&place, &args.app_image, args.execution_role_arn.as_ref()))
        }
    }
}
