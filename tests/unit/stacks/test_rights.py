"""Least rights, read from the documents themselves."""

from __future__ import annotations

from mesaform.topology import iam

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
