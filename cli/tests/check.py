"""Puts generated files through the checkers of the people who will read them: check.py KIND FILE...; exit 1 on findings."""

import json
import os
import subprocess
import sys

BIN = os.path.dirname(sys.executable)


def fail(message):
    print(message)
    sys.exit(1)


def kubernetes(path):
    """Kubernetes' own schemas, strictly: an unknown field is an error."""
    done = subprocess.run([f"{BIN}/kubernetes-validate", "--strict", "--no-warn", path], capture_output=True, text=True)
    if done.returncode:
        fail(done.stdout + done.stderr)


def cloudformation(path):
    done = subprocess.run([f"{BIN}/cfn-lint", "--template", path], capture_output=True, text=True)
    if done.returncode:
        fail(done.stdout + done.stderr)


def policy(path):
    """parliament: every action and resource exists, and they belong together."""
    from parliament import analyze_policy_string

    findings = analyze_policy_string(open(path).read()).findings
    if findings:
        fail("\n".join(map(str, findings)))


def trust(path):
    """A trust policy has principals, which parliament does not take: check its shape."""
    document = json.load(open(path))
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        principal = statement["Principal"]
        if "Federated" in principal:
            assert actions == ["sts:AssumeRoleWithWebIdentity"], actions
            issuer = principal["Federated"].split(":oidc-provider/")[1]
            keys = statement["Condition"]["StringEquals"]
            assert set(keys) == {f"{issuer}:aud", f"{issuer}:sub"}, keys
        else:
            assert set(actions) <= {"sts:AssumeRole", "sts:TagSession"}, actions
            assert principal["Service"].endswith(".amazonaws.com")
        assert statement["Condition"], "a service that anyone can send as a confused deputy"


def pipeline(path):
    """Datadog's own client: its models refuse unknown types and values; what they make of it is what was written."""
    from datadog_api_client.model_utils import validate_and_convert_types
    from datadog_api_client.configuration import Configuration
    from datadog_api_client.v1.model.logs_pipeline import LogsPipeline
    from datadog_api_client.v1.model.logs_attribute_remapper import LogsAttributeRemapper

    body = json.load(open(path))
    model = validate_and_convert_types(body, (LogsPipeline,), ["body"], True, True, Configuration())
    assert model.to_dict()["name"] == body["name"]
    assert len(model.processors) == 4, model.processors
    for processor in model.processors:
        kind = type(getattr(processor, "_composed_instance", None) or processor.get_oneof_instance())
        assert kind is LogsAttributeRemapper, kind


def create_stream(path):
    """botocore's model of CreateDeliveryStream takes the input, and moto makes the stream out of it."""
    import boto3
    from botocore.validate import validate_parameters
    from moto import mock_aws

    arguments = json.load(open(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "test"
    with mock_aws():
        client = boto3.client("firehose", region_name="eu-west-1")
        shape = client.meta.service_model.operation_model("CreateDeliveryStream").input_shape
        validate_parameters(arguments, shape)
        members(arguments, shape)
        made = client.create_delivery_stream(**arguments)
        assert made["DeliveryStreamARN"].endswith("/" + arguments["DeliveryStreamName"])
        stream = client.describe_delivery_stream(DeliveryStreamName=arguments["DeliveryStreamName"])
        destination = stream["DeliveryStreamDescription"]["Destinations"][0]["HttpEndpointDestinationDescription"]
        wanted = arguments["HttpEndpointDestinationConfiguration"]["EndpointConfiguration"]["Url"]
        assert destination["EndpointConfiguration"]["Url"] == wanted
        assert stream["DeliveryStreamDescription"]["DeliveryStreamType"] == "DirectPut"


def members(value, shape):
    """validate_parameters knows names and types; enums and patterns stand in the model too."""
    import re

    if shape.type_name == "structure":
        for key, inner in value.items():
            members(inner, shape.members[key])
    elif shape.type_name == "list":
        for inner in value:
            members(inner, shape.member)
    elif shape.type_name == "string":
        assert not shape.enum or value in shape.enum, (value, shape.enum)
        pattern = shape.metadata.get("pattern")
        assert not pattern or re.fullmatch(pattern, value), (value, pattern)


def task_definition(path):
    """botocore's model of RegisterTaskDefinition."""
    import boto3
    from botocore.validate import validate_parameters

    client = boto3.client("ecs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    arguments = json.load(open(path))
    shape = client.meta.service_model.operation_model("RegisterTaskDefinition").input_shape
    validate_parameters(arguments, shape)
    members(arguments, shape)


def schema(path, name):
    """A JSON schema that check-jsonschema carries, so that nothing is fetched."""
    done = subprocess.run(
        [f"{BIN}/check-jsonschema", "--builtin-schema", f"vendor.{name}", path], capture_output=True, text=True
    )
    if done.returncode:
        fail(done.stdout + done.stderr)


def compose(path):
    schema(path, "compose-spec")


def issue_form(path):
    schema(path, "github-issue-forms")


def dockerfile(path):
    done = subprocess.run([f"{BIN}/hadolint", path], capture_output=True, text=True)
    if done.returncode:
        fail(done.stdout + done.stderr)


def dependabot(path):
    schema(path, "dependabot")


def workflow(path):
    """GitHub's schema; zizmor, for what a pull request could turn against it; shellcheck over each step's script."""
    import re
    import yaml

    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    schema(path, "github-workflows")
    done = subprocess.run([f"{BIN}/zizmor", "--offline", "--no-progress", path], capture_output=True, text=True)
    if done.returncode:
        fail(done.stdout + done.stderr)
    for job in yaml.safe_load(open(path))["jobs"].values():
        for step in job["steps"]:
            if "run" not in step:
                continue
            assert "${{" not in step["run"], f"an expression inside a script, not in env: {step['run']}"
            done = subprocess.run(
                [f"{BIN}/shellcheck", "--shell=bash", "--external-sources", "-"],
                input=f"set -e\n{step['run']}\n", capture_output=True, text=True,
            )
            if done.returncode:
                fail(f"{path}: {step['run']}\n{done.stdout}{done.stderr}")
            for word in re.findall(r"(?:^|[\s;&|])((?:\./)?scripts/[\w.-]+)", step["run"]):
                assert os.path.exists(word), f"{path}: {word} is not there"


def action(path):
    """GitHub's schema of an action; shellcheck over each step's script, which holds no expression."""
    import yaml

    schema(path, "github-actions")
    for step in yaml.safe_load(open(path))["runs"]["steps"]:
        assert "${{" not in step["run"], f"an expression inside a script, not in env: {step['run']}"
        done = subprocess.run(
            [f"{BIN}/shellcheck", "--shell=bash", "-"],
            input=f"set -e\n{step['run']}\n", capture_output=True, text=True,
        )
        if done.returncode:
            fail(f"{path}: {step['run']}\n{done.stdout}{done.stderr}")


# Options of every call (https://docs.aws.amazon.com/cli/latest/reference/#global-options).
GLOBAL = {"region", "output", "cli-connect-timeout", "cli-read-timeout"}


def aws_commands(path):
    """Each line is a call of the aws command: its service, operation and options stand in botocore's models."""
    import boto3
    from botocore import xform_name

    # What the command adds to the service's operations, with what of its options is used here.
    own = {("cloudformation", "deploy"): {"stack-name", "template-file", "capabilities", "parameter-overrides"}}
    for line in open(path):
        _, service, operation, *options = line.split()
        if (service, operation) in own:
            known = own[service, operation]
        else:
            client = boto3.client(service, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
            name = client.meta.method_to_api_mapping[operation.replace("-", "_")]
            shape = client.meta.service_model.operation_model(name).input_shape
            known = {xform_name(member, "-") for member in shape.members} | {"cli-input-json", "query", "output"} | GLOBAL
        for option in options:
            assert not option.startswith("--") or option[2:] in known, (line, option)


def terraform(path):
    """A parser of Terraform's language; the JSON in its heredocs is JSON."""
    import hcl2

    text = open(path).read()
    with open(path) as file:
        assert hcl2.load(file)
    for part in text.split("<<-JSON\n")[1:]:
        json.loads(part.split("\n  JSON")[0])


def terraform_folder(path):
    """One folder is one module: in it no variable, output, resource, provider or required_providers stands twice."""
    import hcl2

    seen = set()

    def once(*name):
        assert name not in seen, f"{path}: twice in one folder: {' '.join(name)}"
        seen.add(name)

    for name in sorted(os.listdir(path)):
        with open(os.path.join(path, name)) as file:
            parsed = hcl2.load(file)
        for kind, blocks in parsed.items():
            for block in blocks:
                if kind == "terraform":
                    for inner in block:
                        once(kind, inner)
                elif kind in ("resource", "data"):
                    for label, resources in block.items():
                        for inner in resources:
                            once(kind, label, inner)
                elif kind != "moved":
                    for label in block:
                        once(kind, label)
        # A module has its providers from its caller.
        assert "provider" not in parsed, f"{path}/{name} configures a provider"


def charts(name):
    """The chart or the definitions, where KUBEHOSE_CHARTS has them; they are not the repository's."""
    folder = os.path.join(os.environ.get("KUBEHOSE_CHARTS", "/nonexistent"), name)
    if not os.path.isdir(folder):
        print(f"NOT RUN: {name}: KUBEHOSE_CHARTS names no folder with it", file=sys.stderr)
        return None
    return folder


def known_values(given, known, path=""):
    """Every value that is given is one that the chart has, of its kind."""
    for key, value in given.items():
        assert key in known, f"the chart has no value {path}{key}"
        theirs = known[key]
        if isinstance(value, dict) and theirs:
            known_values(value, theirs, f"{path}{key}.")
        else:
            assert theirs is None or isinstance(value, type(theirs)), f"{path}{key}: {type(theirs)}"


def helm(path, chart, more):
    import yaml

    values = yaml.safe_load(open(path))
    folder = charts(chart)
    if folder:
        known = yaml.safe_load(open(f"{folder}/values.yaml")) | more
        known_values(values, known)
        # A value that no template reads does nothing.
        templates = "".join(
            open(os.path.join(place, name)).read() for place, _, names in os.walk(f"{folder}/templates") for name in names
        )
        for key in values:
            assert f".Values.{key}" in templates, f"no template of {chart} reads {key}"
    return values


def helm_fluent_bit(path):
    values = helm(path, "fluent-bit", {})
    assert values["initContainers"][0]["volumeMounts"][0]["name"] == values["extraVolumes"][0]["name"]
    # The copy of the plugin from the pod's first start cannot be written to.
    assert "-f" in values["initContainers"][0]["command"]
    # The chart runs its configuration through a template.
    assert "{{" not in "".join(values["config"][key] for key in ("service", "inputs", "filters", "outputs"))


def helm_aws_for_fluent_bit(path):
    # Values that the chart's templates read and its file shows in comments alone, and one that goes to Kubernetes whole.
    more = {f"additional{kind}": "" for kind in ("Inputs", "Filters", "Outputs")}
    helm(path, "aws-for-fluent-bit", more | {"updateStrategy": {}})


def fluent_operator(path):
    """The operator's own definitions, strictly: an unknown field is an error."""
    import yaml
    from jsonschema import Draft7Validator

    def closed(schema):
        if isinstance(schema, dict):
            if schema.get("type") == "object" and "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
                schema = schema | {"additionalProperties": False}
            return {key: closed(value) for key, value in schema.items()}
        return [closed(one) for one in schema] if isinstance(schema, list) else schema

    folder = charts("fluent-operator-fluent-bit-crds")
    for document in yaml.safe_load_all(open(path)):
        if not folder or document["kind"] == "Namespace":
            continue
        name = f"{folder}/templates/fluentbit.fluent.io_{document['kind'].lower()}s.yaml"
        lines = [line for line in open(name).read().splitlines() if "{{" not in line and line != "  annotations:"]
        definition = yaml.safe_load("\n".join(lines))
        schema = closed(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        errors = [f"{list(error.path)}: {error.message}" for error in Draft7Validator(schema).iter_errors(document)]
        if errors:
            fail("\n".join(errors))


for file in sys.argv[2:]:
    {
        "kubernetes": kubernetes,
        "action": action,
        "aws-commands": aws_commands,
        "cloudformation": cloudformation,
        "policy": policy,
        "trust": trust,
        "pipeline": pipeline,
        "compose": compose,
        "create-stream": create_stream,
        "dependabot": dependabot,
        "dockerfile": dockerfile,
        "fluent-operator": fluent_operator,
        "helm-aws-for-fluent-bit": helm_aws_for_fluent_bit,
        "helm-fluent-bit": helm_fluent_bit,
        "issue-form": issue_form,
        "task-definition": task_definition,
        "terraform": terraform,
        "terraform-folder": terraform_folder,
        "workflow": workflow,
    }[sys.argv[1]](file)
