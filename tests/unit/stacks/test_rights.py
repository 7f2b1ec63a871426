"""Least rights, read from the documents themselves."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mesaform.config.parser import parse
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.topology import iam, session_manager
from mesaform.topology.names import state_prefix
from mesaform_stacks.base import Settings
from mesaform_stacks.cluster import describe

TYPES = ("m5.large", "c5.large", "m5.large")
DOCUMENT = iam.master_document("west", "eu-west-1", "123456789012", TYPES)


def statements(action: str) -> list[iam.Statement]:
    return [
        s
        for s in DOCUMENT["Statement"]
        if action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    ]


def test_no_action_is_allowed_by_wildcard():
    for statement in DOCUMENT["Statement"]:
        actions = (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
        assert not any("*" in action for action in actions)


def test_all_resources_are_named_where_aws_supports_it():
    everything = [s for s in DOCUMENT["Statement"] if s["Resource"] == "*"]
    for statement in everything:
        actions = (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
        assert all(action.startswith(("ec2:Describe", "pricing:")) for action in actions)


def test_only_machines_of_the_autoscaler_can_be_terminated():
    (statement,) = statements("ec2:TerminateInstances")
    assert statement["Condition"] == {
        "StringEquals": {
            "ec2:ResourceTag/mesaform:cluster": "west",
            "ec2:ResourceTag/mesaform:managed-by": "autoscaler",
        }
    }


def test_machines_are_launched_only_with_the_clusters_tag():
    conditions = [
        s.get("Condition", {})
        for s in statements("ec2:RunInstances")
        if any("instance/*" in r for r in s["Resource"])
    ]
    assert conditions == [
        {
            "StringEquals": {
                "aws:RequestTag/mesaform:cluster": "west",
                "ec2:InstanceType": ["c5.large", "m5.large"],
            }
        }
    ]


def test_disks_and_interfaces_are_launched_only_with_the_clusters_tag():
    (statement,) = [s for s in DOCUMENT["Statement"] if s["Sid"] == "LaunchTaggedParts"]
    assert [resource.rpartition(":")[2] for resource in statement["Resource"]] == [
        "volume/*",
        "network-interface/*",
    ]
    assert statement["Condition"] == {"StringEquals": {"aws:RequestTag/mesaform:cluster": "west"}}


def test_tags_are_set_only_by_launches():
    (statement,) = statements("ec2:CreateTags")
    assert statement["Condition"] == {
        "StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}
    }


def test_masters_attach_volumes_of_masters_and_detach_none():
    (statement,) = statements("ec2:AttachVolume")
    assert statement["Condition"] == {
        "StringEquals": {
            "ec2:ResourceTag/mesaform:cluster": "west",
            "ec2:ResourceTag/mesaform:role": "master",
        }
    }
    assert [resource.rpartition(":")[2] for resource in statement["Resource"]] == [
        "instance/*",
        "volume/*",
    ]
    assert not statements("ec2:DetachVolume")


def test_only_the_agents_role_can_be_passed():
    (statement,) = statements("iam:PassRole")
    assert statement["Resource"] == "arn:aws:iam::123456789012:role/mesaform-west-eu-west-1-agent"


def test_only_the_clusters_prefix_is_readable_and_only_ledger_and_snapshots_are_deletable():
    (statement,) = statements("s3:PutObject")
    assert statement["Resource"] == "arn:aws:s3:::mesaform-123456789012-eu-west-1/west/*"
    deletes, old = statements("s3:DeleteObject")
    assert old["Resource"] == "arn:aws:s3:::mesaform-123456789012-eu-west-1/west/snapshots/*"
    assert str(deletes["Resource"]).endswith("/west/ledger/*")


def test_only_the_parameters_of_spec_access_ca_and_frameworks_can_be_read():
    (statement,) = statements("ssm:GetParameter")
    parameter = "arn:aws:ssm:eu-west-1:123456789012:parameter/mesaform/west"
    names = ("spec", "access", "ca", "frameworks/*")
    assert statement["Resource"] == [f"{parameter}/{name}" for name in names]


def test_messages_are_received_from_the_clusters_queue_only():
    (statement,) = statements("sqs:ReceiveMessage")
    assert statement["Resource"] == "arn:aws:sqs:eu-west-1:123456789012:mesaform-west-notices"
    assert statement["Action"] == ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"]
    assert statements("sqs:SendMessage") == []


def test_partitions_follow_the_region():
    assert [iam.partition(region) for region in ("cn-north-1", "us-gov-west-1", "eu-west-1")] == [
        "aws-cn",
        "aws-us-gov",
        "aws",
    ]


AWS = "name: west\ntarget: aws\nnetwork: {operator_cidrs: [203.0.113.0/24]}\n"
SPECS = {
    "all defaults": AWS,
    "TLS": AWS + "tls: true\n",
    "a time to live": AWS + "ttl: 8h\n",
    "Session Manager": AWS + "debug: ssm\n",
    "Apache Mesos": AWS + "engine: mesos\n",
}


def policies(text: str) -> dict[str, list[iam.Statement]]:
    """The statements of each role of the cluster, by the role's name."""
    settings = Settings(
        spec=parse(text), images=NOTHING_TO_BOOT, folder=Path("/x"), authorities="a CA"
    )
    resources = [item for stack in describe(settings) for item in stack.resources]
    assert not [item for item in resources if "policy_attachment" in item.kind.terraform_type]
    return {
        str(item.arguments["role"]): json.loads(str(item.arguments["policy"]))["Statement"]
        for item in resources
        if item.kind.terraform_type == "aws_iam_role_policy"
    }


@pytest.mark.parametrize("name", SPECS)
def test_agents_can_neither_end_nor_extend_the_cluster_nor_read_its_secrets(name):
    roles = policies(SPECS[name])
    masters = [role for role, rights in roles.items() if len(rights) > 1]
    assert len(masters) == 1
    others = [right for role, rights in roles.items() if role not in masters for right in rights]
    assert {action for right in others for action in right["Action"]} == (
        set(session_manager.ACTIONS) if name == "Session Manager" else set()
    )
    assert not {"ssm:GetParameter", "ssm:GetParameters"} & set(session_manager.ACTIONS)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cluster", ["west", "w", "we", "west-2", "_terraform"])
def test_masters_reach_no_state_of_terraform_and_no_object_of_another_cluster(name, cluster):
    (rights,) = (rights for rights in policies(SPECS[name]).values() if len(rights) > 1)
    keys = [f"{cluster}/control/expiry.json", f"{state_prefix(cluster)}masters.tfstate"]
    reached = [
        (right["Sid"], key)
        for right in rights
        for key in keys
        if "s3:" in str(right["Action"])
        and fnmatch(key, str(right["Resource"]).partition("-us-east-1/")[2])
    ]
    own = [("ReadAndWriteObjects", "west/control/expiry.json")]
    assert reached == (own if cluster == "west" else [])
