//! Resources of the Fluent Operator: its Fluent Bit with the plugin by an init container, inputs, filters and output as custom plugins.
//!
//! Its API: <https://github.com/fluent/fluent-operator/blob/master/docs/fluentbit.md>.

use super::daemonset::{NODE_AFFINITY, RESOURCES, SECURITY, filters, input};
use super::helm::{PLUGIN_DIR, VOLUMES, init_container, volume_mounts};
use super::plugin_config::{HTTP_LISTEN, HTTP_PORT, Place, STATE_DIR, output_with};
use crate::kube;

/// The image that the operator's chart 4.3 runs.
const IMAGE: &str = "ghcr.io/fluent/fluent-operator/fluent-bit:5.1.1";

/// Everything from the namespace to the ClusterOutput.
pub fn resources(place: &Place<'_>) -> String {
    let annotations = match &place.router.role_arn {
        Some(role) => format!("\n  serviceAccountAnnotations:\n    eks.amazonaws.com/role-arn: {role}"),
        None => String::new(),
    };
    let filters: String = filters(place)
        .iter()
        .map(|filter| {
            // The resource has the Match, for all of its filters.
            let body: String = filter
                .body()
                .lines()
                .filter(|line| !line.starts_with("Match "))
                .map(|line| format!("{line}\n"))
                .collect();
            format!("    - customPlugin:\n        config: {}", kube::literal(&body, 10))
        })
        .collect();
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
---
apiVersion: fluentbit.fluent.io/v1alpha2
kind: FluentBit
metadata:
  name: kubehose
  namespace: {namespace}
spec:
  image: {IMAGE}
  fluentBitConfigName: kubehose{annotations}
  # The operator's watcher starts Fluent Bit, and hands -e on to it.
  args: [-e, {PLUGIN_DIR}/libkubehose.so]
  initContainers:
{init}  volumes:
{volumes}  volumesMounts:
{mounts}  containerSecurityContext:
{security}  resources:
{resources}  terminationGracePeriodSeconds: 30
  tolerations:
    - operator: Exists
  affinity:
{affinity}---
apiVersion: fluentbit.fluent.io/v1alpha2
kind: ClusterFluentBitConfig
metadata:
  name: kubehose
spec:
  namespace: {namespace}
  service:
    flushSeconds: 1
    logLevel: info
    httpServer: true
    httpListen: '{HTTP_LISTEN}'
    httpPort: {HTTP_PORT}
    healthCheck: true
    storage:
      path: {STATE_DIR}/chunks
      sync: normal
      backlogMemLimit: 16M
  inputSelector: &selector
    matchLabels:
      app.kubernetes.io/part-of: kubehose
  filterSelector: *selector
  outputSelector: *selector
---
apiVersion: fluentbit.fluent.io/v1alpha2
kind: ClusterInput
metadata:
  name: kubehose
  labels:
    app.kubernetes.io/part-of: kubehose
spec:
  customPlugin:
    config: {input}---
apiVersion: fluentbit.fluent.io/v1alpha2
kind: ClusterFilter
metadata:
  name: kubehose
  labels:
    app.kubernetes.io/part-of: kubehose
spec:
  match: {match_pattern}
  filters:
{filters}---
# Workers 0: the operator changes the configuration by hot reload, and with workers Fluent Bit 5.1.1 crashes after some.
apiVersion: fluentbit.fluent.io/v1alpha2
kind: ClusterOutput
metadata:
  name: kubehose
  labels:
    app.kubernetes.io/part-of: kubehose
spec:
  customPlugin:
    config: {output}",
        namespace = kube::scalar(&place.namespace.to_string()),
        init = kube::indented(&init_container(place), 4),
        volumes = kube::indented(VOLUMES, 4),
        mounts = kube::indented(&volume_mounts(), 4),
        security = kube::indented(SECURITY, 4),
        affinity = kube::indented(NODE_AFFINITY, 4),
        resources = kube::indented(RESOURCES, 4),
        input = kube::literal(&input(place).body(), 6),
        match_pattern = kube::quoted(&place.router.match_pattern),
        output = kube::literal(&output_with(place.router, &place.router.match_pattern, 0).body(), 6),
    )
}
