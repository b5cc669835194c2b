//! The router beside the application in its own pod, as a native sidecar; for pods on Fargate whose logs need the plugin.
//!
//! Vendor's page: <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>.

use super::Remap;
use super::plugin_config::{CONFIG_DIR, HTTP_PORT, PROGRAM, Place, RELOAD_NOTE, STATE_DIR, output, plugins, service};
use crate::classic::{Section, render};
use crate::kube;

/// What the application's container is called.
const APP: &str = "app";

/// A Deployment of the application with the router beside it.
pub fn manifest(place: &Place<'_>, app_image: &str, log_dir: &str) -> String {
    let (router, namespace, image) =
        (place.router, kube::scalar(&place.namespace.to_string()), kube::scalar(place.image));
    let app_image = kube::scalar(app_image);
    let annotations = match &router.role_arn {
        Some(role) => format!("\n  annotations:\n    eks.amazonaws.com/role-arn: {role}"),
        None => String::new(),
    };
    let config = kube::literal(&configuration(place, log_dir), 4);
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
{RELOAD_NOTE}
apiVersion: v1
kind: ConfigMap
metadata:
  name: kubehose-sidecar
  namespace: {namespace}
data:
  fluent-bit.conf: {config}  plugins.conf: {plugins}---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-with-kubehose
  namespace: {namespace}
  labels:
    app.kubernetes.io/name: app-with-kubehose
spec:
  replicas: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: app-with-kubehose
  template:
    metadata:
      labels:
        app.kubernetes.io/name: app-with-kubehose
    spec:
      serviceAccountName: kubehose
      # An init container that restarts always is a sidecar: it starts before the application and stops after it.
      initContainers:
        - name: kubehose
          image: {image}
          restartPolicy: Always
          command: [{PROGRAM}]
          args: [-c, {CONFIG_DIR}/fluent-bit.conf]
          env:
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - name: POD_NAMESPACE
              valueFrom:
                fieldRef:
                  fieldPath: metadata.namespace
          ports:
            - name: http
              containerPort: {HTTP_PORT}
          livenessProbe:
            httpGet:
              path: /
              port: http
            initialDelaySeconds: 10
            periodSeconds: 30
          resources:
            requests:
              cpu: 20m
              memory: 64Mi
            limits:
              memory: 256Mi
          securityContext:
            # Whatever user the image has; the state's folder is the pod's own, and open to it.
            runAsUser: 65532
            runAsNonRoot: true
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: config
              mountPath: {CONFIG_DIR}
              readOnly: true
            - name: state
              mountPath: {STATE_DIR}
            - name: logs
              mountPath: {log_dir}
              readOnly: true
      containers:
        - name: {APP}
          image: {app_image}
          volumeMounts:
            - name: logs
              mountPath: {log_dir}
      volumes:
        - name: config
          configMap:
            name: kubehose-sidecar
        # Both live as long as the pod: a restarted container finds them again.
        - name: state
          emptyDir: {{}}
        - name: logs
          emptyDir: {{}}
"
    )
}

fn configuration(place: &Place<'_>, log_dir: &str) -> String {
    let mut sections = vec![
        service(),
        Section::new("INPUT")
            .set("Name", "tail")
            .set("Tag", "app.*")
            .set("Path", format!("{log_dir}/*.log"))
            // Files that come while the router restarts, too.
            .set("Read_from_Head", "On")
            .set("DB", format!("{STATE_DIR}/tail.db"))
            .set("Mem_Buf_Limit", "16MB")
            .set("Skip_Long_Lines", "On")
            // The router starts before the application, whose files are seen at the next look for new ones: by default, one a minute.
            .set("Refresh_Interval", 5)
            .set("storage.type", "filesystem"),
    ];
    if place.router.remap == Remap::Filters {
        // The application's files have no container's name in their path: what Kubernetes tells the pod about itself
        // stands in for the kubernetes filter. The container's id is not among it.
        sections.push(
            Section::new("FILTER")
                .set("Name", "record_modifier")
                .set("Match", "app.*")
                .set("Record", "pod_name ${POD_NAME}")
                .set("Record", "kube_namespace ${POD_NAMESPACE}")
                .set("Record", format!("kube_container_name {APP}")),
        );
    }
    sections.push(output(place.router, "app.*"));
    render(&sections)
}
