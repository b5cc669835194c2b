//! One router per node: what Kubernetes runs, so that it grows with the cluster.
//!
//! Vendors' pages: <https://docs.fluentbit.io/manual/installation/kubernetes>,
//! <https://docs.aws.amazon.com/eks/latest/userguide/iam-roles-for-service-accounts.html>.

use super::filters::{self, Work};
use super::plugin_config::{CONFIG_DIR, HTTP_PORT, PROGRAM, Place, RELOAD_NOTE, STATE_DIR, output, plugins, service};
use crate::classic::{Section, render};
use crate::{fargate, kube};

/// Which nodes have a router.
pub const NODE_AFFINITY: &str = "nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - key: kubernetes.io/os
            operator: In
            values: [linux]
          # No DaemonSet runs on Fargate; its pods have their own router.
          - key: eks.amazonaws.com/compute-type
            operator: NotIn
            values: [fargate]
";

/// As whom it runs there.
pub const SECURITY: &str =
    "# The runtime's log files are root's, and so is the folder of the state. Root reads them, and may nothing else.
runAsUser: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [DAC_READ_SEARCH]
";

/// What it may use.
pub const RESOURCES: &str = "requests:
  cpu: 50m
  memory: 128Mi
limits:
  memory: 512Mi
";

/// A tenth of the nodes at a time get a new router.
pub const UPDATE_STRATEGY: &str = "type: RollingUpdate
rollingUpdate:
  maxUnavailable: 10%
";

/// Everything from the namespace to the DaemonSet.
pub fn manifest(place: &Place<'_>) -> String {
    let (router, namespace, image) =
        (place.router, kube::scalar(&place.namespace.to_string()), kube::scalar(place.image));
    let annotations = match &router.role_arn {
        Some(role) => format!("\n  annotations:\n    eks.amazonaws.com/role-arn: {role}"),
        None => String::new(),
    };
    let affinity = kube::indented(NODE_AFFINITY, 8);
    let security = kube::indented(SECURITY, 12);
    let resources = kube::indented(RESOURCES, 12);
    let update = kube::indented(UPDATE_STRATEGY, 4);
    let config = kube::literal(&configuration(place), 4);
    let plugins = kube::literal(&plugins(place), 4);
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: kubehose
  namespace: {namespace}{annotations}
---
# What the kubernetes filter asks the API for.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: kubehose
rules:
  - apiGroups: ['']
    resources: [namespaces, pods]
    verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: kubehose
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: kubehose
subjects:
  - kind: ServiceAccount
    name: kubehose
    namespace: {namespace}
---
# Above applications, below the node's own agents: a full node evicts its log router last.
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata:
  name: kubehose
value: 1000000
globalDefault: false
description: Log routers, one per node.
---
{RELOAD_NOTE}
apiVersion: v1
kind: ConfigMap
metadata:
  name: kubehose
  namespace: {namespace}
data:
  fluent-bit.conf: {config}  plugins.conf: {plugins}---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: kubehose
  namespace: {namespace}
  labels:
    app.kubernetes.io/name: kubehose
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: kubehose
  updateStrategy:
{update}  template:
    metadata:
      labels:
        app.kubernetes.io/name: kubehose
    spec:
      serviceAccountName: kubehose
      priorityClassName: kubehose
      # Longer than the plugin's shutdown_timeout and Fluent Bit's Grace.
      terminationGracePeriodSeconds: 30
      affinity:
{affinity}      tolerations:
        - operator: Exists
      containers:
        - name: kubehose
          image: {image}
          command: [{PROGRAM}]
          args: [-c, {CONFIG_DIR}/fluent-bit.conf]
          ports:
            - name: http
              containerPort: {HTTP_PORT}
          # The process is alive when its server answers; it is healthy while few chunks fail.
          livenessProbe:
            httpGet:
              path: /
              port: http
            initialDelaySeconds: 10
            periodSeconds: 30
          readinessProbe:
            httpGet:
              path: /api/v1/health
              port: http
            periodSeconds: 10
          resources:
{resources}          securityContext:
{security}          volumeMounts:
            - name: config
              mountPath: {CONFIG_DIR}
              readOnly: true
            - name: state
              mountPath: {STATE_DIR}
            - name: logs
              mountPath: /var/log
              readOnly: true
      volumes:
        - name: config
          configMap:
            name: kubehose
        # On the node: the position and what is not delivered outlive the pod.
        - name: state
          hostPath:
            path: /var/lib/kubehose
            type: DirectoryOrCreate
        - name: logs
          hostPath:
            path: /var/log
"
    )
}

/// The files of the node's containers, but for the router's own.
pub fn input(place: &Place<'_>) -> Section {
    Section::new("INPUT")
        .set("Name", "tail")
        .set("Tag", fargate::MATCH)
        .set("Path", "/var/log/containers/*.log")
        // Otherwise what a pod wrote before the router started is not read: on a new node, and of pods that came during a restart.
        .set("Read_from_Head", "On")
        // The router's own lines would feed it.
        .set("Exclude_Path", format!("/var/log/containers/kubehose-*_{}_*.log", place.namespace))
        .set("multiline.parser", "cri, docker")
        .set("DB", format!("{STATE_DIR}/tail.db"))
        .set("DB.locking", "true")
        .set("Mem_Buf_Limit", "45MB")
        .set("Skip_Long_Lines", "On")
        .set("Refresh_Interval", 10)
        .set("storage.type", "filesystem")
}

/// The filters: the names are the plugin's work, the container runtime's lines the input's.
pub fn filters(place: &Place<'_>) -> Vec<Section> {
    filters::sections(place.router, &[], Work { cri: false, renames: false })
}

/// The router's whole configuration.
pub fn configuration(place: &Place<'_>) -> String {
    let mut sections = vec![service(), input(place)];
    sections.extend(filters(place));
    sections.push(output(place.router, &place.router.match_pattern));
    render(&sections)
}
