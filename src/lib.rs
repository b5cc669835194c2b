//! kubehose: Kubernetes logs, out of Fluent Bit, into Amazon Data Firehose, named the way Datadog knows them.
