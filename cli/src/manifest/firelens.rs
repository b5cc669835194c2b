//! An ECS task definition whose log router is FireLens with the plugin.
//!
//! Vendor's page: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/firelens-taskdef.html>.

use serde_json::{Map, Value, json};

use super::Remap;
use super::plugin_config::{PROGRAM, Place};
use crate::verdict;

/// Where FireLens writes the configuration that it generates.
const GENERATED: &str = "/fluent-bit/etc/fluent-bit.conf";

/// Input for `aws ecs register-task-definition --cli-input-json`.
pub fn task_definition(place: &Place<'_>, app_image: &str) -> String {
    let router = place.router;
    let mut options = Map::new();
    let mut set = |key: &str, value: &str| options.insert(key.to_owned(), json!(value));
    set("Name", "kubehose");
    set("region", router.region.as_ref());
    set("delivery_stream", router.delivery_stream.as_ref());
    // FireLens' records already hold container_id and container_name at the root.
    set("remap", if router.remap == Remap::Filters { "datadog" } else { "none" });
    set("kube_tag_fallback", "off");
    if router.preserve_source {
        set("remap_preserve_source", "on");
    }
    if router.override_on_conflict {
        set("remap_override", "on");
    }
    set("time_key", &router.time_key);
    set("time_key_format", crate::datadog::TIME_KEY_FORMAT);
    set("Workers", "2");
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
    if let (Some(role), Some(fields)) = (&router.role_arn, task.as_object_mut()) {
        fields.insert("taskRoleArn".to_owned(), json!(role.as_ref()));
    }
    verdict::json(&task)
}
