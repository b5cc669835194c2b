//! An ECS task definition whose log router is FireLens with the plugin.
//!
//! Vendor's page: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/firelens-taskdef.html>.

use serde_json::{Map, Value, json};

use super::Remap;
use super::plugin_config::{PROGRAM, Place, WORKERS};
use crate::aws::RoleArn;
use crate::verdict;

/// Where FireLens writes the configuration that it generates.
const GENERATED: &str = "/fluent-bit/etc/fluent-bit.conf";

/// FireLens' records have no `kubernetes` map. `container_name` and `container_id` stand at their root under the names that
/// Datadog knows; of the task's metadata it knows these under others
/// (<https://docs.datadoghq.com/containers/amazon_ecs/tags/>).
const REMAP: &str = "ecs_task_arn=task_arn, ecs_cluster=ecs_cluster_name";

/// Whether an image lies in a private registry of ECR's, which Fargate pulls from with the task's execution role.
pub fn is_private_ecr(image: &str) -> bool {
    let host = image.split('/').next().unwrap_or_default();
    host.contains(".dkr.ecr.") || host.contains(".dkr-ecr.")
}

/// Input for `aws ecs register-task-definition --cli-input-json`.
pub fn task_definition(place: &Place<'_>, app_image: &str, execution_role: Option<&RoleArn>) -> String {
    let router = place.router;
    let mut options = Map::new();
    let mut set = |key: &str, value: &str| options.insert(key.to_owned(), json!(value));
    set("Name", "kubehose");
    set("region", router.region.as_ref());
    set("delivery_stream", router.delivery_stream.as_ref());
    set("remap", if router.remap == Remap::Filters { REMAP } else { "none" });
    set("kube_tag_fallback", "off");
    if router.preserve_source {
        set("remap_preserve_source", "on");
    }
    if router.override_on_conflict {
        set("remap_override", "on");
    }
    set("time_key", &router.time_key);
    set("time_key_format", crate::datadog::TIME_KEY_FORMAT);
    set("Workers", &WORKERS.to_string());
    set("Retry_Limit", "no_limits");

    let mut task = json!({
        "family": "app-with-kubehose",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "containerDefinitions": [
            {
                "name": "log_router",
                "image": place.image,
                "essential": true,
                "user": "0",
                // The plugin is named where the program starts: the configuration is FireLens' own.
                "entryPoint": [PROGRAM],
                "command": ["-e", place.plugin_path, "-c", GENERATED],
                "firelensConfiguration": {
                    "type": "fluentbit",
                    "options": {"enable-ecs-log-metadata": "true"}
                },
                "memoryReservation": 64
            },
            {
                "name": "app",
                "image": app_image,
                "essential": true,
                "dependsOn": [{"containerName": "log_router", "condition": "START"}],
                "logConfiguration": {"logDriver": "awsfirelens", "options": Value::Object(options)},
                "memoryReservation": 128
            }
        ]
    });
    let roles = [("executionRoleArn", execution_role), ("taskRoleArn", router.role_arn.as_ref())];
    for (name, role) in roles.into_iter().filter_map(|(name, role)| Some((name, role?))) {
        task[name] = json!(role.as_ref());
    }
    verdict::json(&task)
}
