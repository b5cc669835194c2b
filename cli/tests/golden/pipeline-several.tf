terraform {
  required_providers {
    datadog = {
      source = "DataDog/datadog"
    }
  }
}

resource "datadog_logs_custom_pipeline" "kubehose" {
  name       = "EKS Fargate Log Pipeline"
  is_enabled = true

  filter {
    query = "@aws.firehose.arn:(\"arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs\" OR \"arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs.shop\" OR \"arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs-shop\")"
  }

  processor {
    attribute_remapper {
      name                 = "kubernetes.container_name to the tag kube_container_name"
      is_enabled           = true
      source_type          = "attribute"
      sources              = ["kubernetes.container_name", "kube_container_name"]
      target               = "kube_container_name"
      target_type          = "tag"
      preserve_source      = false
      override_on_conflict = false
    }
  }

  processor {
    attribute_remapper {
      name                 = "kubernetes.namespace_name to the tag kube_namespace"
      is_enabled           = true
      source_type          = "attribute"
      sources              = ["kubernetes.namespace_name", "kube_namespace"]
      target               = "kube_namespace"
      target_type          = "tag"
      preserve_source      = false
      override_on_conflict = false
    }
  }

  processor {
    attribute_remapper {
      name                 = "kubernetes.pod_name to the tag pod_name"
      is_enabled           = true
      source_type          = "attribute"
      sources              = ["kubernetes.pod_name", "pod_name"]
      target               = "pod_name"
      target_type          = "tag"
      preserve_source      = false
      override_on_conflict = false
    }
  }

  processor {
    attribute_remapper {
      name                 = "kubernetes.docker_id to the tag container_id"
      is_enabled           = true
      source_type          = "attribute"
      sources              = ["kubernetes.docker_id", "container_id"]
      target               = "container_id"
      target_type          = "tag"
      preserve_source      = false
      override_on_conflict = false
    }
  }
}

output "pipeline_id" {
  value = datadog_logs_custom_pipeline.kubehose.id
}
