//! `kubehose sample-app`: the guide's sample workload, something that logs.

use clap::Args as ClapArgs;

use crate::kube::{self, Name};
use crate::manifest::SAMPLE_IMAGE;
use crate::verdict::{Outcome, print};

/// Write the guide's sample workload and its namespace.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose sample-app --namespace fargate-namespace | kubectl apply -f -")]
pub struct Args {
    #[command(flatten)]
    sample: Sample,
}

/// Which sample; shared with `bundle`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Sample {
    /// Namespace that the Fargate profile selects
    #[arg(long, value_name = "NAME", default_value = "fargate-namespace", value_parser = Name::new)]
    pub namespace: Name,
    /// How many pods
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub replicas: u16,
    /// What they run
    #[arg(long, value_name = "IMAGE", default_value = SAMPLE_IMAGE, value_parser = kube::image)]
    pub sample_image: String,
}

/// Runs `kubehose sample-app`.
pub fn run(args: &Args) -> Outcome {
    print(&manifest(&args.sample))
}

/// The name of the sample's Deployment.
pub const NAME: &str = "sample-app";
/// The label that finds the sample's pods.
pub const SELECTOR: &str = "app=nginx";

/// Namespace and Deployment.
pub fn manifest(sample: &Sample) -> String {
    let Sample { namespace, replicas, sample_image } = sample;
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {NAME}
  namespace: {namespace}
spec:
  selector:
    matchLabels:
      app: nginx
  replicas: {replicas}
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
        - name: nginx
          image: {sample_image}
          ports:
            - containerPort: 80
          # What a pod on Fargate is sized by.
          resources:
            requests:
              cpu: 250m
              memory: 256Mi
"
    )
}
