"""The Pulumi program declares what the CDKTF program synthesizes: resources and properties."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from mesaform.provision.image import USUAL_ROOT_DEVICE
from tests.integration.stacks.conftest import DEPLOYMENT, RICH_FILE
from tests.support.synthesis import synthesize

pytestmark = [pytest.mark.slow]

PROVIDER = "pulumi:providers:aws"
TYPES = {
    "aws_cloudwatch_event_rule": "aws:cloudwatch/eventRule:EventRule",
    "aws_cloudwatch_event_target": "aws:cloudwatch/eventTarget:EventTarget",
    "aws_cloudwatch_log_group": "aws:cloudwatch/logGroup:LogGroup",
    "aws_default_security_group": "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
    "aws_ebs_volume": "aws:ebs/volume:Volume",
    "aws_ec2_subnet_cidr_reservation": "aws:ec2/subnetCidrReservation:SubnetCidrReservation",
    "aws_egress_only_internet_gateway": (
        "aws:ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway"
    ),
    "aws_eip": "aws:ec2/eip:Eip",
    "aws_flow_log": "aws:ec2/flowLog:FlowLog",
    "aws_iam_instance_profile": "aws:iam/instanceProfile:InstanceProfile",
    "aws_iam_role": "aws:iam/role:Role",
    "aws_iam_role_policy": "aws:iam/rolePolicy:RolePolicy",
    "aws_instance": "aws:ec2/instance:Instance",
    "aws_internet_gateway": "aws:ec2/internetGateway:InternetGateway",
    "aws_launch_template": "aws:ec2/launchTemplate:LaunchTemplate",
    "aws_lb": "aws:lb/loadBalancer:LoadBalancer",
    "aws_lb_listener": "aws:lb/listener:Listener",
    "aws_lb_target_group": "aws:lb/targetGroup:TargetGroup",
    "aws_lb_target_group_attachment": "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    "aws_nat_gateway": "aws:ec2/natGateway:NatGateway",
    "aws_network_interface": "aws:ec2/networkInterface:NetworkInterface",
    "aws_route": "aws:ec2/route:Route",
    "aws_route53_record": "aws:route53/record:Record",
    "aws_route53_zone": "aws:route53/zone:Zone",
    "aws_route_table": "aws:ec2/routeTable:RouteTable",
    "aws_route_table_association": "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws_security_group": "aws:ec2/securityGroup:SecurityGroup",
    "aws_sqs_queue": "aws:sqs/queue:Queue",
    "aws_ssm_parameter": "aws:ssm/parameter:Parameter",
    "aws_subnet": "aws:ec2/subnet:Subnet",
    "aws_vpc": "aws:ec2/vpc:Vpc",
    "aws_vpc_endpoint": "aws:ec2/vpcEndpoint:VpcEndpoint",
    "aws_vpc_security_group_egress_rule": "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws_vpc_security_group_ingress_rule": (
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    ),
}
FUNCTIONS = {
    "aws_caller_identity": "aws:index/getCallerIdentity:getCallerIdentity",
    "aws_subnet": "aws:ec2/getSubnet:getSubnet",
}
"""Pulumi's names of Terraform's resource types and data sources."""

RENAMED = {
    "aws_instance": {"networkInterface": "networkInterfaces"},
    "aws_lb_listener": {"defaultAction": "defaultActions"},
    "aws_route53_zone": {"vpc": "vpcs"},
}
"""Arguments that Pulumi names otherwise, because they are lists."""

NO_INPUTS = frozenset({"//", "lifecycle", "depends_on"})
"""Metadata, and options that Pulumi takes apart from a resource's properties."""

TABLES = ("tags",)
"""Arguments whose keys are the user's and not the provider's."""

NETWORKS = {
    "public with every option": (
        "mode: public, ipv6: true, flow_logs: cloudwatch, load_balancer: {},"
        " private_dns: drawn.internal"
    ),
    "NAT per zone with every option": (
        "mode: private, ipv6: true, flow_logs: s3, private_dns: drawn.internal, load_balancer:"
        " {certificate_arn: 'arn:aws:acm:us-east-1:111122223333:certificate/0123abcd',"
        " host_name: mesos.example.com, internal: false}"
    ),
    "single NAT": "mode: private, nat: single",
    "no NAT, with endpoints": "mode: private, nat: none, load_balancer: {internal: true}",
    "existing by tags": (
        "mode: existing, existing: {subnet_tags: {tier: private}}, load_balancer: {},"
        " private_dns: drawn.internal"
    ),
    "existing by id": (
        "mode: existing, existing:"
        " {subnet_ids: [subnet-0123456789abcdef0, subnet-0123456789abcdef1]}"
    ),
}
KINDS = {
    "public with every option": {TYPES[kind] for kind in ("aws_lb", "aws_flow_log")},
    "NAT per zone with every option": {
        TYPES[kind]
        for kind in (
            "aws_nat_gateway",
            "aws_eip",
            "aws_lb_listener",
            "aws_egress_only_internet_gateway",
        )
    },
    "single NAT": {TYPES["aws_nat_gateway"]},
    "no NAT, with endpoints": {TYPES["aws_vpc_endpoint"]},
    "existing by tags": {TYPES["aws_network_interface"], TYPES["aws_route53_record"]},
    "existing by id": {TYPES["aws_network_interface"]},
}
"""Kinds that a mode must have, so that the comparison is of something."""
OTHER_FILES = {
    name: (
        "name: drawn\ntarget: aws\ndebug: ssm\ntls: true\n"
        + ("ttl: 8h\n" if name == "existing by id" else "")
        + f"network: {{{network}, zones: [us-east-1a, us-east-1b],"
        " operator_cidrs: [203.0.113.0/24]}\n"
        "agents: [{count: 1, max: 3, types: [m5.large, m6g.large]}]\n"
    )
    for name, network in NETWORKS.items()
}
ENCODED = re.compile(r"\$\{base64encode\(local\.([^)]+)\)\}")
"""How the program has Terraform encode user data with addresses that only it knows."""
DIVIDED = re.compile(r"\$\{cidrsubnet\(local\.([^,]+), (\d+), (\d+)\)\}")
IPV6_BLOCK = "2600:1f18:1234:ab00::/56"
"""What AWS gives the VPC."""

REFERENCE = re.compile(r"\$\{((?:data\.)?aws_\w+\.[^.}]+)\.(\w+)\}")
FROM_OTHER_STACK = re.compile(
    r"\$\{data\.terraform_remote_state\.cross-stack-reference-input-([\w-]+)"
    r"\.outputs\.([^.}]+)\}"
)


def camel_case(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def under_pulumis_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            camel_case(key): entry if key in TABLES else under_pulumis_names(entry)
            for key, entry in value.items()
            if key
            not in {"//", "lifecycle", "depends_on"}  # metadata, and options that are no inputs
        }
    if isinstance(value, list):
        return [under_pulumis_names(entry) for entry in value]
    return value


def with_stack_in_references(stack: str, stacks: dict[str, dict]) -> dict:
    """A stack's JSON whose references name their stack: `${network:aws_vpc.vpc.id}`."""

    def resolve(match: re.Match[str]) -> str:
        value = stacks[match[1]]["output"][match[2]]["value"]
        return REFERENCE.sub(rf"${{{match[1]}:\1.\2}}", value)

    text = json.dumps(stacks[stack])
    text = REFERENCE.sub(rf"${{{stack}:\1.\2}}", text)
    # All calls of a function have one answer, whichever stack makes them.
    text = FROM_OTHER_STACK.sub(resolve, text)
    return json.loads(re.sub(r"\$\{\w+:data\.", "${any:data.", text))


def name_in_pulumi(properties: dict) -> str:
    """`<stack>-<name>`, from the path of the construct: logical names lack some characters."""
    return properties["//"]["metadata"]["path"].replace("/", "-")


def cdktf_resources(stacks: dict[str, dict]) -> dict[str, dict]:
    """Type and properties by the name that Pulumi's program gives, `<stack>-<name>`."""
    listed = {}
    for stack in stacks:
        document = with_stack_in_references(stack, stacks)
        for kind, resources in document["resource"].items():
            for properties in resources.values():
                named = under_pulumis_names(computed(properties, document.get("locals", {})))
                renamed = RENAMED.get(kind, {})
                listed[name_in_pulumi(properties)] = {
                    "type": TYPES[kind],
                    "properties": {renamed.get(key, key): item for key, item in named.items()},
                }
    return listed


def computed(properties: dict, texts: dict[str, str]) -> dict:
    """The properties with what Terraform's functions return."""
    values = dict(properties)
    for key, value in properties.items():
        if match := ENCODED.fullmatch(str(value)):
            values[key] = base64.b64encode(texts[match[1]].encode()).decode()
        elif match := DIVIDED.fullmatch(str(value)):
            assert texts[match[1]].endswith(".ipv6_cidr_block}")
            subnets = list(ip_network(IPV6_BLOCK).subnets(int(match[2])))
            values[key] = str(subnets[int(match[3])])
    return values


def attributes_of(stacks: dict[str, dict]) -> dict[str, dict[str, str]]:
    """What references resolve to in Pulumi's program: themselves, as Terraform writes them."""
    attributes: dict[str, dict[str, str]] = {}
    for stack in stacks:
        document = json.dumps(with_stack_in_references(stack, stacks))
        for own, address, attribute in re.findall(
            r"\$\{(\w+):((?:data\.)?aws_\w+\.[^.}]+)\.(\w+)\}", document
        ):
            *_, kind, name = address.split(".")
            if address.startswith("data."):
                place = place_of_call(kind, name, stacks)
            else:
                place = name_in_pulumi(stacks[own]["resource"][kind][name])
            text = f"${{{own}:{address}.{attribute}}}"
            if attribute == "ipv6_cidr_block":
                text = IPV6_BLOCK
            attributes.setdefault(place, {})[camel_case(attribute)] = text
    return attributes


def place_of_call(kind: str, name: str, stacks: dict[str, dict]) -> str:
    """The function and, of a subnet, the zone that it is asked for."""
    if kind != "aws_subnet":
        return FUNCTIONS[kind]
    filters = stacks["network"]["data"][kind][name]["filter"]
    (zone,) = next(item["values"] for item in filters if item["name"] == "availability-zone")
    return f"{FUNCTIONS[kind]} {zone}"


def differences(expected: dict[str, dict], actual: list[dict]) -> list[str]:
    """Each resource and property in which Pulumi's program differs from CDKTF's."""
    ours = {entry["name"]: entry for entry in actual if entry["type"].startswith("aws:")}
    lines = [f"{name}: only CDKTF has it" for name in expected.keys() - ours.keys()]
    lines += [f"{name}: only Pulumi has it" for name in ours.keys() - expected.keys()]
    for name in expected.keys() & ours.keys():
        theirs, entry = expected[name], ours[name]
        if entry["type"] != theirs["type"]:
            lines.append(f"{name}: {entry['type']} is not {theirs['type']}")
        inputs, properties = entry["inputs"], theirs["properties"]
        lines += [
            f"{name}.{key}: {inputs.get(key)!r} is not {properties.get(key)!r}"
            for key in sorted(inputs.keys() | properties.keys())
            if inputs.get(key) != properties.get(key)
        ]
    return sorted(lines)


@pytest.fixture(scope="module")
def stacks(variants) -> dict[str, dict]:
    return variants["rich"]


@pytest.fixture(scope="module")
def runs(stacks) -> list[dict]:
    """The program as it is, and with another rule of a security group."""
    request = {
        "cluster_file": RICH_FILE,
        "attributes": attributes_of(stacks),
        "images": {
            "x86_64": ["ami-0123456789abcdef0", "/dev/sda1"],
            "arm64": ["ami-0123456789abcdefa", USUAL_ROOT_DEVICE],
        },
        "deployment": {key: DEPLOYMENT[key] for key in ("deployment_id", "account_id", "secret")},
    }
    return run_pulumi(request)


def run_pulumi(request: object) -> list[dict]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.stacks.pulumi_run"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, dict]]:
    """The JSON and the program's resources of a cluster in each mode of the network."""
    account = "111122223333"
    synthesized = synthesize(tmp_path_factory.mktemp("networks"), OTHER_FILES, account)
    image = ["ami-0123456789abcdef0", "/dev/sda1"]
    deployment = {"deployment_id": "0123456789abcdef", "account_id": account}
    requests = [
        {
            "cluster_file": OTHER_FILES[name],
            "attributes": attributes_of(stacks),
            "images": {"x86_64": image, "arm64": image},
            "deployment": deployment,
        }
        for name, stacks in synthesized.items()
    ]
    declared = run_pulumi(requests)
    return dict(zip(synthesized, zip(synthesized.values(), declared, strict=True), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_pulumi_declares_every_mode_and_option_of_the_network_as_cdktf_does(networks, name):
    stacks, declared = networks[name]
    expected = cdktf_resources(stacks)
    assert {entry["type"] for entry in expected.values()} >= KINDS[name]
    assert differences(expected, declared["resources"]) == []


def test_pulumi_declares_every_resource_and_property_of_the_cdktf_program(stacks, runs):
    expected = cdktf_resources(stacks)
    assert len(expected) > 60
    assert differences(expected, runs[0]["resources"]) == []


def test_outputs_and_the_provider_are_those_of_the_cdktf_program(stacks, runs):
    outputs = {}
    for stack in stacks:
        document = with_stack_in_references(stack, stacks)["output"]
        outputs[stack] = {
            name: output["value"]
            for name, output in document.items()
            if not name.startswith("cross-stack-output-")
        }
    assert runs[0]["outputs"] == outputs
    (provider,) = [entry for entry in runs[0]["resources"] if entry["type"] == PROVIDER]
    (synthesized,) = stacks["network"]["provider"]["aws"]
    inputs = provider["inputs"]
    assert inputs["region"] == synthesized["region"]
    assert json.loads(inputs["allowedAccountIds"]) == synthesized["allowed_account_ids"]
    assert [json.loads(inputs["defaultTags"])] == synthesized["default_tags"]
    for entry in runs[0]["resources"]:
        if entry["type"].startswith("aws:"):
            assert entry["provider"].endswith("::aws::id of aws"), entry["name"]


def test_resources_are_replaced_as_terraform_does_and_the_clusters_secret_is_encrypted(runs):
    declared = [entry for entry in runs[0]["resources"] if entry["type"].startswith("aws:")]
    assert {entry["name"] for entry in declared} <= set(runs[0]["deleted_first"])
    for entry in declared:
        for key, value in entry["inputs"].items():
            if DEPLOYMENT["secret"] in json.dumps(value):
                assert key in entry["secret"], f"{entry['name']}.{key}"
    secret = {entry["name"] for entry in declared if "userData" in entry["secret"]}
    assert secret == {f"masters-master-{index}" for index in (1, 2, 3)}


def test_the_comparison_fails_when_one_rule_of_a_group_differs(stacks, runs):
    (line,) = differences(cdktf_resources(stacks), runs[1]["resources"])
    assert re.fullmatch(r"network-\w+-\d+-from-[\w.-]+\.toPort: \d+(\.0)? is not \d+", line)
