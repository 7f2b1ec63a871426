"""`mesaform doctor` on the local cloud: each check on a good account and on bad ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from mesaform.aws.client import discard_clients
from mesaform.aws.service_linked_role import SPOT_ROLE, ensure_spot_role
from mesaform.cli.context import endpoint_environment
from mesaform.cli.main import build
from mesaform.config.parser import parse
from mesaform.doctor import region, spot_role
from mesaform.doctor.checks import CHECKS, examine
from mesaform.doctor.finding import Finding, Level
from mesaform.doctor.identity import identify
from mesaform.doctor.policy import operator_policy
from mesaform.doctor.runner import run_checks
from mesaform.doctor.subject import Examination, Pin, Subject
from mesaform.localcloud import daemon
from mesaform.topology.names import Tag, launch_template_name
from tests.integration.localcloud.conftest import (
    REGION,
    Cloud,
    operator_key,
    start_cloud,
    stop_cloud,
)

pytestmark = [pytest.mark.slow]
FILE = """\
name: sound
target: local
region: us-east-1
network: {cidr: 127.67.0.0/16}
agents: [{name: default, count: 2, max: 4, types: [m5.large, c5.large], spot_share: 0.5}]
"""
ACCOUNT = "123456789012"
STANDARD_VCPUS, RULES, VPCS = "L-1216C47A", "L-0EA8095F", "L-F678F1CE"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A local account with the network, templates and image of a cluster."""
    cloud = start_cloud(tmp_path_factory.mktemp("account"))
    _create_cluster(cloud)
    yield cloud
    stop_cloud(cloud)


def _create_cluster(cloud: Cloud) -> None:
    vpc, subnets, _ = cloud.network()
    tags = [{"Key": Tag.CLUSTER, "Value": "sound"}]
    cloud.ec2.create_tags(Resources=[vpc, *subnets.values()], Tags=tags)
    gateway = cloud.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    cloud.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    filters = [{"Name": "vpc-id", "Values": [vpc]}]
    (table,) = cloud.ec2.describe_route_tables(Filters=filters)["RouteTables"]
    cloud.ec2.create_route(
        RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )
    cloud.ec2.create_launch_template(
        LaunchTemplateName=launch_template_name("sound", "default"),
        LaunchTemplateData={"ImageId": cloud.base_image, "InstanceType": "m5.large"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )


@pytest.fixture(autouse=True)
def _environment(account: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    key = operator_key(account.root)
    use_key(account, monkeypatch, key["aws_access_key_id"], key["aws_secret_access_key"])
    yield
    account.clear_faults()


def use_key(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, key_id: str, secret: str) -> None:
    for name, value in endpoint_environment(cloud.url, REGION, key_id, secret).items():
        monkeypatch.setenv(name, value)
    discard_clients()


def subject(cloud: Cloud, text: str = FILE, **facts: Any) -> Subject:
    return Subject(**{"spec": parse(text), "images": {"x86_64": cloud.base_image}, **facts})


def look(name: str, examined: Subject) -> list[Finding]:
    caller, finding = identify(examined)
    assert caller is not None, finding
    wanted = [check for check in CHECKS if check.name == name]
    return run_checks(wanted, Examination(examined, caller))


def bad(name: str, examined: Subject) -> list[Finding]:
    return [item for item in look(name, examined) if item.level is not Level.OK]


def test_a_good_account_has_no_finding_but_good_ones(account):
    ensure_spot_role(REGION)
    pin = Pin(ACCOUNT, REGION)
    findings = examine(subject(account, pin=pin, lacks=()))
    assert [item for item in findings if item.level is not Level.OK] == []
    assert {item.check for item in findings} == {"identity", *(check.name for check in CHECKS)}
    tried = [item.detail for item in findings if item.check == "dry runs"]
    assert [detail for detail in tried if launch_template_name("sound", "default") in detail]
    assert [detail for detail in tried if "for masters" in detail]


def test_dry_runs_launch_nothing(account):
    look("dry runs", subject(account))
    assert account.ec2.describe_instances()["Reservations"] == []


BAD_ACCOUNTS = [
    ("region", {"kind": "region_closed", "region": "eu-west-3"}, "not enabled", "error"),
    ("zones", {"kind": "zone_closed", "zone": "us-east-1b"}, "no zone us-east-1b", "error"),
    ("instance types", {"kind": "not_sold", "type": "t3.medium", "zone": "us-east-1c"},
     "masters: t3.medium is not sold in us-east-1c", "error"),
    ("instance types", {"kind": "not_sold", "type": "m5.large", "zone": "us-east-1a"},
     "pool default: m5.large is not sold in us-east-1a", "error"),
    ("instance types", {"kind": "not_sold", "type": "c5.large"}, "never bought", "warning"),
    ("quotas", {"kind": "quota", "code": STANDARD_VCPUS, "value": 5}, "needs 10 more", "error"),
    ("quotas", {"kind": "quota", "code": STANDARD_VCPUS, "value": 11}, "pools' max", "warning"),
    ("quotas", {"kind": "quota", "code": "L-34B43A08", "value": 1}, "spot vCPUs", "warning"),
    ("quotas", {"kind": "quota", "code": RULES, "value": 5}, "rules of a security", "error"),
    ("quotas", {"kind": "denied", "actions": ["servicequotas:GetServiceQuota"]},
     "not checked", "warning"),
    ("way out", {"kind": "gateways_blocked"}, "forbids internet gateways", "error"),
    ("disk encryption",
     {"kind": "default_key", "key": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k"},
     "masters may not use", "error"),
    ("bucket", {"kind": "denied", "actions": ["s3:ListBucket"]}, "another account's", "error"),
    ("dry runs", {"kind": "denied", "actions": ["ec2:RunInstances"]}, "would fail", "error"),
    ("dry runs", {"kind": "denied", "actions": ["ec2:CreateFleet"]}, "CreateFleet with", "error"),
    ("rights", {"kind": "denied", "actions": ["iam:SimulatePrincipalPolicy"]},
     "not checked", "warning"),
    ("rights", {"kind": "denied", "actions": ["ec2:CreateVpc"]},
     "denied by an explicit deny: ec2:CreateVpc", "error"),
    ("masters' rights", {"kind": "denied", "actions": ["iam:SimulateCustomPolicy"]},
     "not checked", "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "fault", "words", "level"), BAD_ACCOUNTS)
def test_a_bad_account_is_told_what_is_bad_and_what_to_do(account, check, fault, words, level):
    examined = subject(account)
    if check == "region":
        examined = replace(examined, spec=parse(FILE.replace("us-east-1", "eu-west-3")))
        account.fault(**fault)
        finding = region.look_at_region(Examination(examined, None))[0]
        findings = [finding]
    else:
        account.fault(**fault)
        findings = bad(check, examined)
    named = [item for item in findings if words in item.detail]
    assert named, findings
    assert all(item.level == level and item.remedy for item in named)


def test_credentials_that_aws_does_not_know_are_the_only_finding(account, monkeypatch):
    use_key(account, monkeypatch, "AKIAIOSFODNN7EXAMPLE", "wrong")
    (finding,) = examine(subject(account))
    assert (finding.check, finding.level) == ("identity", Level.ERROR)
    assert "does not know the credentials" in finding.detail


def test_good_credentials_in_a_region_that_is_not_enabled_are_told_apart(account):
    account.fault(kind="region_closed", region="eu-west-3")
    text = FILE.replace("us-east-1", "eu-west-3")
    (finding,) = examine(subject(account, text))
    assert finding.check == "identity"
    assert "enable eu-west-3" in finding.remedy


def test_another_account_than_that_of_the_first_up_is_an_error(account):
    examined = subject(account, pin=Pin("999999999999", REGION))
    (finding,) = bad("account", examined)
    assert finding.level is Level.ERROR
    assert "999999999999" in finding.detail


def test_a_region_without_a_default_subnet_is_named_before_a_bake(account, monkeypatch):
    monkeypatch.setattr("mesaform.doctor.internet.DEFAULT_SUBNETS", {"subnet-id": ["subnet-0"]})
    (finding,) = bad("way out", subject(account, images={}, builders=("t3.small",)))
    assert "no default subnet" in finding.detail


def test_types_that_cannot_serve_are_refused_and_surprises_are_named(account):
    types = "[m5.large, m99.large, g4dn.xlarge, t3.large]"
    text = FILE.replace("[m5.large, c5.large]", types)
    by_level: dict[str, list[str]] = {}
    for item in bad("instance types", subject(account, text)):
        by_level.setdefault(item.level.value, []).append(item.detail)
    assert any("m99.large does not exist" in detail for detail in by_level["error"])
    assert any("GPUs, which no image offers" in detail for detail in by_level["warning"])
    assert any("t3.large is burstable" in detail for detail in by_level["warning"])


def test_the_spot_role_is_created_once_by_who_may_and_missed_before(account):
    iam = account.client("iam")
    if any(role["RoleName"] == SPOT_ROLE for role in iam.list_roles()["Roles"]):
        iam.delete_service_linked_role(RoleName=SPOT_ROLE)
    assert [item.level for item in look(spot_role.CHECK, subject(account))] == [Level.WARNING]
    assert [ensure_spot_role(REGION), ensure_spot_role(REGION)] == [True, False]
    assert [item.level for item in look(spot_role.CHECK, subject(account))] == [Level.OK]


def test_spot_launches_of_a_role_fail_without_the_service_linked_role(account):
    iam = account.client("iam")
    if any(role["RoleName"] == SPOT_ROLE for role in iam.list_roles()["Roles"]):
        iam.delete_service_linked_role(RoleName=SPOT_ROLE)
    trust = {"Version": "2012-10-17", "Statement": []}
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    sts = account.client("sts")
    session = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="master")["Credentials"]
    ec2 = boto3.client(
        "ec2",
        endpoint_url=account.url,
        region_name=REGION,
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )
    template = {"LaunchTemplateName": launch_template_name("sound", "default")}
    config: Any = {
        "LaunchTemplateSpecification": template,
        "Overrides": [{"SubnetId": account.subnet()}],
    }
    answer = ec2.create_fleet(
        Type="instant",
        LaunchTemplateConfigs=[config],
        TargetCapacitySpecification={
            "TotalTargetCapacity": 1,
            "DefaultTargetCapacityType": "spot",
        },
    )
    codes = [error["ErrorCode"] for error in answer["Errors"]]
    assert codes == ["AuthFailure.ServiceLinkedRoleCreationNotPermitted"]
    assert answer["Instances"] == []


def test_launches_beyond_the_quota_of_vcpus_are_refused(account):
    account.fault(kind="quota", code=STANDARD_VCPUS, value=3)
    with pytest.raises(account.ec2.exceptions.ClientError, match="VcpuLimitExceeded"):
        account.launch(InstanceType="m5.xlarge")


@pytest.mark.parametrize("lacks", ["", "ec2:CreateVpc"])
def test_the_printed_policy_allows_every_call_and_one_without_an_action_is_told(
    account, monkeypatch, lacks
):
    """A user with the operator's policy and no other right."""
    iam, name = account.client("iam"), f"operator{len(lacks)}"
    iam.create_user(UserName=name)
    document = operator_policy(parse(FILE), ACCOUNT)
    for statement in document["Statement"]:
        actions = statement["Action"]
        statement["Action"] = [item for item in actions if item != lacks]
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    use_key(account, monkeypatch, key["AccessKeyId"], key["SecretAccessKey"])
    findings = look("rights", subject(account))
    if lacks:
        assert [item.detail for item in findings] == [f"denied by its policies: {lacks}"]
    else:
        assert [item.level for item in findings] == [Level.OK], findings


def test_the_verb_prints_json_and_ends_with_three_on_an_error(account, tmp_path, monkeypatch):
    (tmp_path / "cluster.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mesaform").mkdir()
    (tmp_path / ".mesaform" / "local").symlink_to(account.root)
    assert daemon.find(account.root)
    account.fault(kind="not_sold", type="t3.medium")
    result = CliRunner().invoke(build(), ["doctor", "--json"])
    assert result.exit_code == 3, result.output
    failed = [item for item in json.loads(result.stdout)["findings"] if item["level"] == "error"]
    assert {item["check"] for item in failed} == {"instance types"}


def test_up_stops_on_an_error_before_anything_is_created(account, tmp_path, monkeypatch):
    (tmp_path / "cluster.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mesaform").mkdir()
    (tmp_path / ".mesaform" / "local").symlink_to(account.root)
    from mesaform.cli.context import open_context
    from mesaform.cli.doctor import check_account
    from mesaform.common.errors import MissingPrerequisite
    from mesaform.common.progress import Recorded

    account.fault(kind="not_sold", type="t3.medium", zone="us-east-1a")
    context = open_context("cluster.yaml")
    with pytest.raises(MissingPrerequisite, match="is not sold in us-east-1a"):
        check_account(context, Recorded())
