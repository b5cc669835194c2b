//! A kustomization over `kubehose.yaml`, the DaemonSet's manifest: image and configuration, whose change rolls the pods.
//!
//! Vendor's page: <https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/>.

use super::daemonset::configuration;
use super::plugin_config::{Place, RELOAD_NOTE, plugins};
use crate::kube;
use crate::verdict::Failure;

/// The file `kustomization.yaml`.
pub fn kustomization(place: &Place<'_>) -> Result<String, Failure> {
    let (image, digest) = match place.image.split_once('@') {
        Some((image, digest)) => (image, Some(digest)),
        None => (place.image, None),
    };
    let (name, tag) = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, None),
    };
    let version = match (digest, tag) {
        (Some(digest), _) => format!("digest: {}", kube::quoted(digest)),
        // 0.10 would be a number.
        (None, Some(tag)) => format!("newTag: {}", kube::quoted(tag)),
        (None, None) => {
            return Err(Failure::new(format!(
                "--image {}: give the image with its tag or digest, which the kustomization sets",
                place.image
            )));
        }
    };
    let file = |name: &str, text: &str| kube::literal(&format!("{name}={text}"), 8);
    Ok(format!(
        "# kubehose.yaml is `kubehose manifest --target daemonset`, with the same options.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources:
  - kubehose.yaml
images:
  - name: {name}
    {version}
{RELOAD_NOTE}
# Instead of the manifest's: the name of what is generated holds a hash, so that a change of it rolls the pods.
configMapGenerator:
  - name: kubehose-config
    namespace: {namespace}
    literals:
      - {config}      - {plugins}patches:
  - patch: |
      $patch: delete
      apiVersion: v1
      kind: ConfigMap
      metadata:
        name: kubehose
        namespace: {namespace}
  - patch: |
      apiVersion: apps/v1
      kind: DaemonSet
      metadata:
        name: kubehose
        namespace: {namespace}
      spec:
        template:
          spec:
            volumes:
              - name: config
                configMap:
                  name: kubehose-config
",
        namespace = kube::scalar(&place.namespace.to_string()),
        name = kube::scalar(name),
        config = file("fluent-bit.conf", &configuration(place)),
        plugins = file("plugins.conf", &plugins(place)),
    ))
}
