"""IAM documents of a cluster. The Sid of each statement names its purpose. Pure.

Masters attach the volumes of their data, and run the autoscaler. They may launch machines that
carry the cluster's tag, terminate those that the autoscaler launched, read and append below the
cluster's prefix of the bucket, and receive messages of the cluster's queue. Agents run other
people's tasks and have no rights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from mesaform.topology import eventbridge, session_manager
from mesaform.topology.names import (
    Tag,
    access_parameter_name,
    authority_parameter_name,
    bucket_name,
    flow_log_group_name,
    framework_parameter_name,
    spec_parameter_name,
)

Condition = Mapping[str, Mapping[str, str | list[str]]]


class Statement(TypedDict, total=False):
    """A statement of an IAM policy."""

    Sid: str
    Effect: str
    Principal: dict[str, str]
    Action: str | list[str]
    Resource: str | list[str]
    Condition: Condition


class Document(TypedDict):
    """An IAM policy."""

    Version: str
    Statement: list[Statement]


def partition(region: str) -> str:
    """Return the ARN partition of a region."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def role_name(cluster: str, region: str, role: str) -> str:
    """Return the name of the role, and of the instance profile, of the masters or the agents.

    It has the region: roles are global, and a cluster's name may be used in every region.
    """
    return f"mesaform-{cluster}-{region}-{role}"


def queue_arn(cluster: str, region: str, account_id: str) -> str:
    """Return the ARN of the queue of the cluster's announcements."""
    return f"arn:{partition(region)}:sqs:{region}:{account_id}:{eventbridge.queue_name(cluster)}"


def rule_arn(name: str, region: str, account_id: str) -> str:
    """Return the ARN of an event rule."""
    return f"arn:{partition(region)}:events:{region}:{account_id}:rule/{name}"


def trust_document(region: str) -> Document:
    """Return the trust policy: only EC2 may assume the role."""
    service = "ec2.amazonaws.com.cn" if partition(region) == "aws-cn" else "ec2.amazonaws.com"
    return _document(
        [
            {
                "Sid": "Ec2AssumesTheRole",
                "Effect": "Allow",
                "Principal": {"Service": service},
                "Action": "sts:AssumeRole",
            }
        ]
    )


def flow_log_trust_document(account_id: str) -> Document:
    """Return the trust policy of the flow logs' role: only VPC flow logs of the account."""
    return _document(
        [
            {
                "Sid": "FlowLogsAssumeTheRole",
                "Effect": "Allow",
                "Principal": {"Service": "vpc-flow-logs.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": account_id}},
            }
        ]
    )


def flow_log_document(cluster: str, region: str, account_id: str) -> Document:
    """Return the policy of the flow logs' role: writing into the cluster's log group."""
    group = (
        f"arn:{partition(region)}:logs:{region}:{account_id}"
        f":log-group:{flow_log_group_name(cluster)}"
    )
    return _document(
        [
            _allow("WriteFlowLogs", _WRITE_LOGS, [group, f"{group}:*"]),
        ]
    )


def master_document(
    cluster: str,
    region: str,
    account_id: str,
    instance_types: Sequence[str] = (),
    *,
    iam_path: str = "/",
    kms_key: str | None = None,
) -> Document:
    """Return the policy of the masters: the rights that the autoscaler needs.

    Args:
        cluster: the cluster's name.
        region: the cluster's region.
        account_id: the account.
        instance_types: the types of the pools; machines of other types may not be launched. Without
            types the policy does not limit them.
        iam_path: the path of the cluster's roles.
        kms_key: the ARN of the key of disks; None is a key that needs no rights.

    """
    arn = _Arns(partition(region), region, account_id)
    return _document(
        [
            _allow(
                "DescribeMachines",
                _DESCRIBE,
                "*",
                {"StringEquals": {"aws:RequestedRegion": region}},
            ),
            *_launch_statements(cluster, arn, instance_types),
            _attach_statement(cluster, arn),
            _pass_role_statement(arn.role(iam_path, role_name(cluster, region, "agent"))),
            *(disk_key_statements(kms_key, region) if kms_key else ()),
            *_bucket_statements(cluster, arn.bucket(bucket_name(account_id, region))),
            _allow(
                "ReadSpecAndAccess",
                "ssm:GetParameter",
                [
                    arn.parameter(spec_parameter_name(cluster)),
                    arn.parameter(access_parameter_name(cluster)),
                    arn.parameter(authority_parameter_name(cluster)),
                    arn.parameter(framework_parameter_name(cluster, "*")),
                ],
            ),
            _allow("ReadPrices", "pricing:GetProducts", "*"),
            _allow("ReceiveNotices", _RECEIVE, queue_arn(cluster, region, account_id)),
        ]
    )


def with_session_manager(document: Document | None) -> Document:
    """Return a policy with the rights of Session Manager's agent, which has no resources."""
    statements = document["Statement"] if document else []
    return _document([*statements, _allow("OpenSessions", [*session_manager.ACTIONS], "*")])


def _launch_statements(cluster: str, arn: _Arns, instance_types: Sequence[str]) -> list[Statement]:
    """Rights to launch machines with the cluster's tag, and to terminate the launched ones."""
    owned = {f"ec2:ResourceTag/{Tag.CLUSTER}": cluster}
    tagged = {f"aws:RequestTag/{Tag.CLUSTER}": cluster}
    types = {"ec2:InstanceType": sorted(set(instance_types))} if instance_types else {}
    return [
        _allow(
            "LaunchFromTheClustersTemplates",
            _LAUNCH,
            arn.ec2("launch-template/*", "subnet/*", "security-group/*"),
            {"StringEquals": owned},
        ),
        _allow(
            "LaunchTaggedMachines",
            "ec2:RunInstances",
            arn.ec2("instance/*"),
            {"StringEquals": {**tagged, **types}},
        ),
        _allow(
            "LaunchTaggedParts",
            "ec2:RunInstances",
            arn.ec2(*_PARTS),
            {"StringEquals": tagged},
        ),
        _allow("LaunchByFleet", "ec2:CreateFleet", arn.ec2("fleet/*", *_LAUNCHED)),
        _allow("LaunchSpot", _LAUNCH, arn.ec2("spot-instances-request/*")),
        _allow("LaunchFromAnyImage", _LAUNCH, [*arn.public_ec2("image/*", "snapshot/*")]),
        _allow(
            "TagLaunchedMachines",
            "ec2:CreateTags",
            arn.ec2("fleet/*", *_LAUNCHED),
            {"StringEquals": {"ec2:CreateAction": _CREATE_ACTIONS}},
        ),
        _allow(
            "TerminateLaunchedMachines",
            "ec2:TerminateInstances",
            arn.ec2("instance/*"),
            {"StringEquals": {**owned, f"ec2:ResourceTag/{Tag.MANAGED_BY}": "autoscaler"}},
        ),
    ]


def _pass_role_statement(role_arn: str) -> Statement:
    """The right to give the agents' role to machines."""
    return _allow(
        "PassTheAgentsRole",
        "iam:PassRole",
        role_arn,
        {"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}},
    )


def disk_key_statements(kms_key: str, region: str) -> list[Statement]:
    """The rights to launch machines whose disks a key of the account encrypts.

    EC2 uses the key for the caller (EBS User Guide, "Required permissions for EBS encryption").
    """
    domain = "amazonaws.com.cn" if partition(region) == "aws-cn" else "amazonaws.com"
    via_ec2 = {"kms:ViaService": f"ec2.{region}.{domain}"}
    return [
        _allow("UseTheKeyOfDisks", _USE_KEY, kms_key, {"StringEquals": via_ec2}),
        _allow(
            "GrantTheKeyToMachines",
            "kms:CreateGrant",
            kms_key,
            {"StringEquals": via_ec2, "Bool": {"kms:GrantIsForAWSResource": "true"}},
        ),
    ]


def _attach_statement(cluster: str, arn: _Arns) -> Statement:
    """The right of a master to attach the volume of its data; to detach one is nobody's."""
    owned = {f"ec2:ResourceTag/{Tag.CLUSTER}": cluster, f"ec2:ResourceTag/{Tag.ROLE}": "master"}
    return _allow(
        "AttachDataVolumes",
        "ec2:AttachVolume",
        arn.ec2("instance/*", "volume/*"),
        {"StringEquals": owned},
    )


def with_subnets(
    document: Document, region: str, account_id: str, subnet_ids: Sequence[str]
) -> Document:
    """Return the masters' policy with the subnets of an existing VPC, which have no tag of ours."""
    if not subnet_ids:
        return document
    arn = _Arns(partition(region), region, account_id)
    subnets = arn.ec2(*(f"subnet/{subnet_id}" for subnet_id in subnet_ids))
    statement = _allow("LaunchIntoExistingSubnets", _LAUNCH, subnets)
    return _document([*document["Statement"], statement])


def with_end(document: Document, cluster: str, region: str, account_id: str) -> Document:
    """Return the masters' policy with the right to end the cluster, for one with a ttl."""
    arn = _Arns(partition(region), region, account_id)
    statement = _allow(
        "EndTheClusterAfterItsTtl",
        "ec2:TerminateInstances",
        arn.ec2("instance/*"),
        {"StringEquals": {f"ec2:ResourceTag/{Tag.CLUSTER}": cluster}},
    )
    return _document([*document["Statement"], statement])


def _bucket_statements(cluster: str, bucket: str) -> list[Statement]:
    """Rights on the cluster's objects; only merged parts of the ledger and snapshots may go."""
    return [
        _allow("ReadAndWriteObjects", ["s3:GetObject", "s3:PutObject"], f"{bucket}/{cluster}/*"),
        _allow("DeleteMergedLedgerObjects", "s3:DeleteObject", f"{bucket}/{cluster}/ledger/*"),
        _allow("DeleteOldSnapshots", "s3:DeleteObject", f"{bucket}/{cluster}/snapshots/*"),
        _allow(
            "ListObjects", "s3:ListBucket", bucket, {"StringLike": {"s3:prefix": f"{cluster}/*"}}
        ),
    ]


_DESCRIBE = [
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "ec2:DescribeVolumes",
]
_WRITE_LOGS = [
    "logs:CreateLogStream",
    "logs:DescribeLogGroups",
    "logs:DescribeLogStreams",
    "logs:PutLogEvents",
]
_LAUNCH = ["ec2:CreateFleet", "ec2:RunInstances"]
_USE_KEY = [
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
]
_RECEIVE = ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"]
_CREATE_ACTIONS = ["CreateFleet", "RunInstances"]
_PARTS = ("volume/*", "network-interface/*")
_LAUNCHED = ("instance/*", *_PARTS)


class _Arns:
    def __init__(self, partition: str, region: str, account_id: str) -> None:
        self.partition = partition
        self.region = region
        self._account_id = account_id

    def ec2(self, *resources: str) -> list[str]:
        return [
            f"arn:{self.partition}:ec2:{self.region}:{self._account_id}:{resource}"
            for resource in resources
        ]

    def public_ec2(self, *resources: str) -> list[str]:
        return [f"arn:{self.partition}:ec2:{self.region}::{resource}" for resource in resources]

    def role(self, path: str, name: str) -> str:
        return f"arn:{self.partition}:iam::{self._account_id}:role{path}{name}"

    def bucket(self, name: str) -> str:
        return f"arn:{self.partition}:s3:::{name}"

    def parameter(self, name: str) -> str:
        return f"arn:{self.partition}:ssm:{self.region}:{self._account_id}:parameter{name}"


def _document(statements: list[Statement]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(
    sid: str,
    action: str | list[str],
    resource: str | list[str],
    condition: Condition | None = None,
) -> Statement:
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}
    if condition:
        statement["Condition"] = condition
    return statement
