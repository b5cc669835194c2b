//! Values for the Helm charts of Fluent Bit: fluent/fluent-bit, with the plugin by an init container, and eks/aws-for-fluent-bit.
//!
//! The charts: <https://github.com/fluent/helm-charts/tree/main/charts/fluent-bit>,
//! <https://github.com/aws/eks-charts/tree/master/stable/aws-for-fluent-bit>.

use clap::ValueEnum;

use super::daemonset::{NODE_AFFINITY, RESOURCES, SECURITY, UPDATE_STRATEGY, filters, input};
use super::plugin_config::{PLUGIN_PATH, Place, RELOAD_NOTE, STATE_DIR, output, plugins, service_with};
use crate::classic::render;
use crate::kube;
use crate::verdict::Failure;

/// The charts that values are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Chart {
    /// fluent/fluent-bit, Fluent Bit's own: its image, the plugin by an init container
    FluentBit,
    /// eks/aws-for-fluent-bit, AWS's: it has no init containers, so its image is one that holds the plugin
    AwsForFluentBit,
}

/// Where the pods find the plugin that the init container has copied.
pub const PLUGIN_DIR: &str = "/kubehose/plugin";

/// Values for `chart`.
pub fn values(place: &Place<'_>, chart: Chart) -> Result<String, Failure> {
    match chart {
        Chart::FluentBit => Ok(fluent_bit(place)),
        Chart::AwsForFluentBit => aws_for_fluent_bit(place),
    }
}

/// The annotations of the service account, as a map in YAML.
fn annotations(place: &Place<'_>) -> String {
    match &place.router.role_arn {
        Some(role) => format!("\n    eks.amazonaws.com/role-arn: {role}"),
        None => " {}".to_owned(),
    }
}

/// The container that copies the plugin into the volume `plugin`; its image holds the plugin and `cp`.
pub fn init_container(place: &Place<'_>) -> String {
    format!(
        "- name: kubehose-plugin
  image: {}
  # -f: the copy of the pod's first start may not be written to.
  command: [cp, -f, {}, {PLUGIN_DIR}/libkubehose.so]
  securityContext:
    runAsUser: 65532
    runAsNonRoot: true
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
  volumeMounts:
    - name: kubehose-plugin
      mountPath: {PLUGIN_DIR}
",
        kube::scalar(place.image),
        place.plugin_path
    )
}

/// The volumes that go with it: the plugin, and what must outlive the pod.
pub const VOLUMES: &str = "- name: kubehose-plugin
  emptyDir: {}
- name: kubehose-state
  hostPath:
    path: /var/lib/kubehose
    type: DirectoryOrCreate
";

/// Where the router has them.
pub fn volume_mounts() -> String {
    format!(
        "- name: kubehose-plugin
  mountPath: {PLUGIN_DIR}
  readOnly: true
- name: kubehose-state
  mountPath: {STATE_DIR}
"
    )
}

fn fluent_bit(place: &Place<'_>) -> String {
    let loaded = Place { plugin_path: &format!("{PLUGIN_DIR}/libkubehose.so"), ..*place };
    // The chart runs these texts through Helm's `tpl`, to which braces in an option are a template.
    let block = |text: String| kube::literal(&text.replace("{{", "{{ \"{{\" }}"), 4);
    format!(
        "# Values of the chart fluent/fluent-bit (https://fluent.github.io/helm-charts), of 0.58 and its like:
#   helm upgrade --install kubehose fluent/fluent-bit --namespace {namespace} --create-namespace --values values.yaml
fullnameOverride: kubehose
serviceAccount:
  name: kubehose
  annotations:{annotations}
initContainers:
{init}extraVolumes:
{volumes}extraVolumeMounts:
{mounts}# Instead of the chart's own, which has /var/log open to writing.
daemonSetVolumes:
  - name: varlog
    hostPath:
      path: /var/log
daemonSetVolumeMounts:
  - name: varlog
    mountPath: /var/log
    readOnly: true
securityContext:
{security}resources:
{resources}updateStrategy:
{update}terminationGracePeriodSeconds: 30
tolerations:
  - operator: Exists
affinity:
{affinity}{RELOAD_NOTE}
hotReload:
  enabled: false
config:
  service: {service}  inputs: {inputs}  filters: {filters}  outputs: {outputs}  customParsers: ''
  extraFiles:
    plugins.conf: {plugins}",
        namespace = place.namespace,
        annotations = annotations(place),
        init = kube::indented(&init_container(place), 2),
        volumes = kube::indented(VOLUMES, 2),
        mounts = kube::indented(&volume_mounts(), 2),
        security = kube::indented(SECURITY, 2),
        resources = kube::indented(RESOURCES, 2),
        update = kube::indented(UPDATE_STRATEGY, 2),
        affinity = kube::indented(NODE_AFFINITY, 2),
        service = block(render(&[service_with("/fluent-bit/etc/conf/plugins.conf")])),
        inputs = block(render(&[input(place)])),
        filters = block(render(&filters(place))),
        outputs = block(render(&[output(place.router, &place.router.match_pattern)])),
        plugins = kube::literal(&plugins(&loaded), 6),
    )
}

fn aws_for_fluent_bit(place: &Place<'_>) -> Result<String, Failure> {
    let (repository, tag) = match place.image.rsplit_once(':') {
        // Of a digest, the chart puts the two together again.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => {
            return Err(Failure::new(format!(
                "--image {}: the chart aws-for-fluent-bit takes an image with its tag, such as registry.example/kubehose:0.1",
                place.image
            )));
        }
    };
    if place.plugin_path != PLUGIN_PATH {
        return Err(Failure::new(
            "--plugin-path: the chart aws-for-fluent-bit sets no command, and the image's entry point names the plugin"
                .to_owned(),
        ));
    }
    let block = |text: String| kube::literal(&text, 2);
    // The image's entry point names the plugin. The chart's [SERVICE] line stands before what it is given.
    let service = service_with("/kubehose/plugins.conf").body();
    let service: String =
        service.lines().filter(|line| !line.starts_with("plugins_file")).map(|line| format!("{line}\n")).collect();
    Ok(format!(
        "# Values of the chart eks/aws-for-fluent-bit (https://aws.github.io/eks-charts), of 0.2 and its like:
#   helm upgrade --install kubehose eks/aws-for-fluent-bit --namespace {namespace} --create-namespace --values values.yaml
# The chart has no init containers: the image is AWS's with the plugin, of examples/images/aws-for-fluent-bit.Dockerfile.
fullnameOverride: kubehose
image:
  repository: {repository}
  tag: {tag}
serviceAccount:
  name: kubehose
  annotations:{annotations}
{RELOAD_NOTE}
service:
  # The chart's own file is not in every image, and nothing here uses a parser of it.
  parsersFiles: []
  extraService: {service}# The pipeline as a whole; what the chart would write of it is off.
input:
  enabled: false
filter:
  enabled: false
cloudWatchLogs:
  enabled: false
additionalInputs: {inputs}additionalFilters: {filters}additionalOutputs: {outputs}containerSecurityContext:
{security}resources:
{resources}updateStrategy:
{update}volumes:
  - name: varlog
    hostPath:
      path: /var/log
  - name: kubehose-state
    hostPath:
      path: /var/lib/kubehose
      type: DirectoryOrCreate
volumeMounts:
  - name: varlog
    mountPath: /var/log
    readOnly: true
  - name: kubehose-state
    mountPath: {STATE_DIR}
tolerations:
  - operator: Exists
affinity:
{affinity}",
        namespace = place.namespace,
        // 0.10 would be a number.
        tag = kube::quoted(tag),
        annotations = annotations(place),
        service = kube::literal(&service, 4),
        inputs = block(render(&[input(place)])),
        filters = block(render(&filters(place))),
        outputs = block(render(&[output(place.router, &place.router.match_pattern)])),
        security = kube::indented(SECURITY, 2),
        resources = kube::indented(RESOURCES, 2),
        update = kube::indented(UPDATE_STRATEGY, 2),
        affinity = kube::indented(NODE_AFFINITY, 2),
    ))
}
