#!/usr/bin/env bash
# Applies the files of this folder in the order of Datadog's guide for EKS Fargate. Written by kubehose bundle.
set -euo pipefail

REGION='eu-west-1'
PARTITION='aws'
ACCOUNT='123456789012'
CLUSTER='fargate-cluster'
PROFILE='fargate-profile'
STREAM='logs'
STACK='kubehose-logs'
POLICY='FluentBitEKSFargate-logs'
SITE='EU'
API='https://api.datadoghq.eu'
OWN_SECRET='1'
NAMESPACE='fargate-namespace'
APP='sample-app'
SELECTOR='app=nginx'
PIPELINE='"EKS Fargate Log Pipeline"'
QUERY='service:aws source:aws'

usage() {
    cat <<USAGE
Usage: ./apply.sh [--dry-run]

Sets up the logs of the EKS Fargate cluster $CLUSTER: delivery stream $STREAM ($REGION) to Datadog ($SITE).
It can be run again; what is there stays or is brought up to date. --dry-run says what would be done and does nothing.

DD_API_KEY  Datadog API key; needed the first time, unless the bundle names a secret
DD_APP_KEY  Datadog application key; without it the log pipeline is left to you (pipeline.json, or terraform/)
USAGE
}

dry_run=
case "${1:-}" in
'') ;;
--dry-run) dry_run=1 ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac

say() { printf '\n== %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Says a command, and runs it unless this is a rehearsal. Keys never stand among the words of a command.
run() {
    printf '+ %s\n' "$*" >&2
    [ -n "$dry_run" ] || "$@"
}

# A question whose answer the next commands need; a rehearsal asks nobody.
ask() {
    printf '+ %s\n' "$*" >&2
    if [ -n "$dry_run" ]; then printf 'the-answer'; else "$@"; fi
}

cd "$(dirname "$0")"
if [ -z "$dry_run" ]; then
    for program in aws kubectl curl; do
        command -v "$program" >/dev/null || die "$program is not installed, or not on the PATH"
    done
fi
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export AWS_REGION="$REGION"
# The cluster that is meant, whatever the current context is.
export KUBECONFIG="$work/kubeconfig"
run aws eks update-kubeconfig --region "$REGION" --name "$CLUSTER" --kubeconfig "$KUBECONFIG"

say "1. The delivery stream, its role, its log and the place for what Datadog does not take"
key=()
if [ -n "$OWN_SECRET" ]; then
    if [ -n "${DD_API_KEY:-}" ]; then
        [[ $DD_API_KEY =~ ^[A-Za-z0-9_-]+$ ]] || die "DD_API_KEY is no API key"
        printf '["DatadogApiKey=%s"]' "$DD_API_KEY" >"$work/parameters.json"
        key=(--parameter-overrides "file://$work/parameters.json")
    elif [ -z "$dry_run" ] && ! aws cloudformation describe-stacks --stack-name "$STACK" >/dev/null 2>&1; then
        die "DD_API_KEY is not set: the first run puts it into Secrets Manager"
    fi
fi
run aws cloudformation deploy --region "$REGION" --stack-name "$STACK" \
    --template-file delivery-stream.cloudformation.json --capabilities CAPABILITY_IAM \
    --no-fail-on-empty-changeset ${key[@]+"${key[@]}"}

say "2. The namespace aws-observability, labelled, and the router's configuration"
run kubectl apply -f aws-logging.yaml

say "3. The policy that lets the router put records, on the pod execution role"
policy="arn:$PARTITION:iam::$ACCOUNT:policy/$POLICY"
if [ -z "$dry_run" ] && aws iam get-policy --policy-arn "$policy" >/dev/null 2>&1; then
    # A policy keeps five versions; the ones that are out of use make room.
    for version in $(ask aws iam list-policy-versions --policy-arn "$policy" \
        --query 'Versions[?!IsDefaultVersion].VersionId' --output text); do
        run aws iam delete-policy-version --policy-arn "$policy" --version-id "$version"
    done
    run aws iam create-policy-version --policy-arn "$policy" --set-as-default \
        --policy-document file://allow_kinesis_put_permission.json
else
    run aws iam create-policy --policy-name "$POLICY" --policy-document file://allow_kinesis_put_permission.json
fi
role=$(ask aws eks describe-fargate-profile --region "$REGION" --cluster-name "$CLUSTER" \
    --fargate-profile-name "$PROFILE" --query fargateProfile.podExecutionRoleArn --output text)
# The name stands after the last slash; a role may have a path.
run aws iam attach-role-policy --policy-arn "$policy" --role-name "${role##*/}"

say "4. The sample application"
restart=
if [ -z "$dry_run" ] && kubectl get deployment "$APP" -n "$NAMESPACE" >/dev/null 2>&1; then restart=1; fi
run kubectl apply -f sample-app.yaml
# A changed configuration reaches new pods only.
if [ -n "$restart" ]; then run kubectl rollout restart "deployment/$APP" -n "$NAMESPACE"; fi
run kubectl rollout status "deployment/$APP" -n "$NAMESPACE" --timeout 10m

say "5. Datadog's log pipeline"
datadog() {
    # The keys go in through a pipe: the words of a command can be read by others.
    printf 'header = "DD-API-KEY: %s"\nheader = "DD-APPLICATION-KEY: %s"\n' "$DD_API_KEY" "$DD_APP_KEY" |
        curl --silent --show-error --fail --config - --header 'Content-Type: application/json' "$@"
}
if [ -n "$dry_run" ]; then
    printf '+ curl %s/api/v1/logs/config/pipelines -d @pipeline.json\n' "$API" >&2
elif [ -z "${DD_API_KEY:-}" ] || [ -z "${DD_APP_KEY:-}" ]; then
    printf 'left to you: DD_API_KEY and DD_APP_KEY are not both set. The pipeline is in pipeline.json and terraform/\n' >&2
elif datadog "$API/api/v1/logs/config/pipelines" | sed 's/"name": */"name":/g' | grep -F -q "\"name\":$PIPELINE"; then
    printf 'the pipeline %s is there\n' "$PIPELINE" >&2
else
    printf '+ curl %s/api/v1/logs/config/pipelines -d @pipeline.json\n' "$API" >&2
    datadog --request POST --data-binary @pipeline.json --output /dev/null "$API/api/v1/logs/config/pipelines"
fi

say "6. What can be seen now"
run kubectl get pods -n "$NAMESPACE"
run kubectl get events -n "$NAMESPACE" --field-selector reason=LoggingEnabled
run kubectl logs -l "$SELECTOR" -n "$NAMESPACE" --tail 5
printf '\nIn Datadog after a minute or two: %s\n' "$QUERY" >&2
