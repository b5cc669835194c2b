//! The permissions in IAM and in the cluster that `verify` needs; `verify --permissions` writes them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::Target;
use crate::fargate;

/// A permission that a check needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// An action of IAM.
    Iam(&'static str),
    /// A verb on a resource, in a namespace or in the whole cluster.
    Cluster { verb: &'static str, resource: &'static str, namespace: Option<String> },
    /// A scope of Datadog's application key.
    Datadog(&'static str),
    /// Allowed to everybody.
    None,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iam(action) => write!(f, "{action} in IAM"),
            Self::Cluster { verb, resource, namespace: Some(namespace) } => {
                write!(f, "{verb} {resource} in namespace {namespace} (RBAC)")
            }
            Self::Cluster { verb, resource, namespace: None } => write!(f, "{verb} {resource} in the cluster (RBAC)"),
            Self::Datadog(scope) => write!(f, "the scope {scope} of the application key"),
            Self::None => f.write_str("no permission"),
        }
    }
}

/// Something in a namespace of the cluster.
pub fn in_namespace(verb: &'static str, resource: &'static str, namespace: impl fmt::Display) -> Need {
    Need::Cluster { verb, resource, namespace: Some(namespace.to_string()) }
}

/// The actions for the stream and its metrics, whatever the target.
pub const STREAM: Need = Need::Iam("firehose:DescribeDeliveryStream");
pub const METRICS: Need = Need::Iam("cloudwatch:GetMetricStatistics");
pub const ROLE: Need = Need::Iam("iam:SimulatePrincipalPolicy");
pub const PROFILE: Need = Need::Iam("eks:DescribeFargateProfile");
pub const ASSOCIATIONS: Need = Need::Iam("eks:ListPodIdentityAssociations");
pub const ASSOCIATION: Need = Need::Iam("eks:DescribePodIdentityAssociation");
pub const SERVICE: Need = Need::Iam("ecs:DescribeServices");
pub const TASK: Need = Need::Iam("ecs:DescribeTaskDefinition");

/// All that the checks of a target read; `namespace` is that of the pods, or of the router.
pub fn needs(target: Target, namespace: &str) -> Vec<Need> {
    let mut needs = vec![STREAM, METRICS, ROLE];
    match target {
        Target::Fargate => needs.extend([
            PROFILE,
            Need::Cluster { verb: "get", resource: "namespaces", namespace: None },
            in_namespace("get", "configmaps", fargate::NAMESPACE),
            in_namespace("list", "pods", namespace),
            in_namespace("list", "events", namespace),
        ]),
        Target::Nodes => needs.extend([
            ASSOCIATIONS,
            ASSOCIATION,
            in_namespace("get", "daemonsets", namespace),
            in_namespace("get", "configmaps", namespace),
            in_namespace("get", "serviceaccounts", namespace),
            in_namespace("list", "pods", namespace),
        ]),
        Target::Ecs => needs.extend([SERVICE, TASK]),
    }
    needs
}

/// The group that the roles are bound to; an access entry of EKS puts somebody into it.
const GROUP: &str = "kubehose-verify";

/// The names in a policy's ARNs; an unknown one is `*`.
pub struct Names<'n> {
    pub partition: &'n str,
    pub region: &'n str,
    pub account: &'n str,
    pub cluster: &'n str,
    pub fargate_profile: &'n str,
    pub stream: &'n str,
    pub service: &'n str,
}

impl Names<'_> {
    /// The resource of an action.
    fn resource(&self, action: &str) -> String {
        let Self { partition, region, account, cluster, fargate_profile, stream, service } = self;
        let arn = |what: &str, id: String| format!("arn:{partition}:{what}:{region}:{account}:{id}");
        match action {
            "eks:DescribeFargateProfile" => arn("eks", format!("fargateprofile/{cluster}/{fargate_profile}/*")),
            "eks:ListPodIdentityAssociations" => arn("eks", format!("cluster/{cluster}")),
            "eks:DescribePodIdentityAssociation" => arn("eks", format!("podidentityassociation/{cluster}/*")),
            "firehose:DescribeDeliveryStream" => arn("firehose", format!("deliverystream/{stream}")),
            "ecs:DescribeServices" => arn("ecs", format!("service/{cluster}/{service}")),
            "iam:SimulatePrincipalPolicy" => format!("arn:{partition}:iam::{account}:role/*"),
            // IAM has no resources for metrics and task definitions.
            _ => "*".to_owned(),
        }
    }
}

/// A policy of IAM.
pub fn iam(needs: &[Need], names: &Names<'_>) -> Value {
    let mut by_resource: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for need in needs {
        if let Need::Iam(action) = need {
            by_resource.entry(names.resource(action)).or_default().push(action);
        }
    }
    let statements: Vec<Value> = by_resource
        .iter()
        .map(|(resource, actions)| json!({"Effect": "Allow", "Action": actions, "Resource": resource}))
        .collect();
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// Roles of the cluster, and their bindings to a group.
pub fn rbac(needs: &[Need]) -> Value {
    let mut rules: BTreeMap<Option<&str>, Vec<Value>> = BTreeMap::new();
    for need in needs {
        if let Need::Cluster { verb, resource, namespace } = need {
            let group = if *resource == "daemonsets" { "apps" } else { "" };
            let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
            // One namespace only: the names of others may be confidential.
            if namespace.is_none() {
                rule["resourceNames"] = json!([fargate::NAMESPACE]);
            }
            rules.entry(namespace.as_deref()).or_default().push(rule);
        }
    }
    let mut items = Vec::new();
    for (namespace, rules) in rules {
        let (role, binding) =
            if namespace.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
        let mut metadata = json!({"name": GROUP});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        let api = "rbac.authorization.k8s.io";
        items.push(json!({"apiVersion": format!("{api}/v1"), "kind": role, "metadata": metadata, "rules": rules}));
        items.push(json!({
            "apiVersion": format!("{api}/v1"),
            "kind": binding,
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": role, "name": GROUP},
            "subjects": [{"apiGroup": api, "kind": "Group", "name": GROUP}]
        }));
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
