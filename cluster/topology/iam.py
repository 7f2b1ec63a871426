"""IAM documents of a cluster. The Sid of each statement names its purpose. Pure.

Masters run the autoscaler. They may launch machines that carry the cluster's tag, terminate those
that the autoscaler launched, read and append below the cluster's prefix of the bucket, and receive
messages of the cluster's queue. Agents run other people's tasks and have no rights.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesaform.topology import eventbridge
from mesaform.topology.names import Tag, bucket_name, spec_parameter_name

Statement = dict[str, object]
Document = dict[str, object]


def partition(region: str) -> str:
    """Return the ARN partition of a region."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def role_name(cluster: str, role: str) -> str:
    """Return the name of the role, and of the instance profile, of the masters or the agents."""
    return f"mesaform-{cluster}-{role}"


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
                "Sid": "InstancesTakeTheRole",
                "Effect": "Allow",
                "Principal": {"Service": service},
                "Action": "sts:AssumeRole",
            }
        ]
    )


def master_document(cluster: str, region: str, account_id: str) -> Document:
    """Return the policy of the masters: the rights that the autoscaler needs."""
    arn = _Arns(partition(region), region, account_id)
    owned = {f"ec2:ResourceTag/{Tag.CLUSTER}": cluster}
    return _document(
        [
            _allow(
                "SeeMachines", _DESCRIBE, "*", {"StringEquals": {"aws:RequestedRegion": region}}
            ),
            _allow(
                "BuyFromOurTemplates",
                _BUY,
                arn.ec2("launch-template/*", "subnet/*", "security-group/*"),
                {"StringEquals": owned},
            ),
            _allow(
                "BuyTagged",
                "ec2:RunInstances",
                arn.ec2(*_BOUGHT),
                {"StringEquals": {f"aws:RequestTag/{Tag.CLUSTER}": cluster}},
            ),
            _allow("BuyByFleet", "ec2:CreateFleet", arn.ec2("fleet/*", *_BOUGHT)),
            _allow("BuySpot", _BUY, arn.ec2("spot-instances-request/*")),
            _allow("BuyOfAnyImage", _BUY, [*arn.public_ec2("image/*", "snapshot/*")]),
            _allow(
                "TagWhatIsBought",
                "ec2:CreateTags",
                arn.ec2("fleet/*", *_BOUGHT),
                {"StringEquals": {"ec2:CreateAction": _CREATE_ACTIONS}},
            ),
            _allow(
                "GiveBackWhatWasBought",
                "ec2:TerminateInstances",
                arn.ec2("instance/*"),
                {"StringEquals": {**owned, f"ec2:ResourceTag/{Tag.MANAGED_BY}": "autoscaler"}},
            ),
            _allow(
                "HandTheAgentsRoleToMachines",
                "iam:PassRole",
                arn.role(role_name(cluster, "agent")),
                {"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}},
            ),
            _allow(
                "ReadAndAppendRecords",
                ["s3:GetObject", "s3:PutObject"],
                f"arn:{arn.partition}:s3:::{bucket_name(account_id, region)}/{cluster}/*",
            ),
            _allow(
                "MergeTheLedgersParts",
                "s3:DeleteObject",
                f"arn:{arn.partition}:s3:::{bucket_name(account_id, region)}/{cluster}/ledger/*",
            ),
            _allow(
                "ListRecords",
                "s3:ListBucket",
                f"arn:{arn.partition}:s3:::{bucket_name(account_id, region)}",
                {"StringLike": {"s3:prefix": f"{cluster}/*"}},
            ),
            _allow("ReadTheSpec", "ssm:GetParameter", arn.parameter(spec_parameter_name(cluster))),
            _allow("ReadPrices", "pricing:GetProducts", "*"),
            _allow("TakeNotices", _TAKE, queue_arn(cluster, region, account_id)),
        ]
    )


_DESCRIBE = [
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeFleetInstances",
    "ec2:DescribeFleets",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
]
_BUY = ["ec2:CreateFleet", "ec2:RunInstances"]
_TAKE = ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"]
_CREATE_ACTIONS = ["CreateFleet", "RunInstances"]
_BOUGHT = ("instance/*", "volume/*", "network-interface/*")


class _Arns:
    def __init__(self, partition: str, region: str, account_id: str) -> None:
        self.partition = partition
        self._region = region
        self._account_id = account_id

    def ec2(self, *resources: str) -> list[str]:
        return [
            f"arn:{self.partition}:ec2:{self._region}:{self._account_id}:{resource}"
            for resource in resources
        ]

    def public_ec2(self, *resources: str) -> list[str]:
        return [f"arn:{self.partition}:ec2:{self._region}::{resource}" for resource in resources]

    def role(self, name: str) -> str:
        return f"arn:{self.partition}:iam::{self._account_id}:role/{name}"

    def parameter(self, name: str) -> str:
        return f"arn:{self.partition}:ssm:{self._region}:{self._account_id}:parameter{name}"


def _document(statements: list[Statement]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(
    sid: str,
    action: str | list[str],
    resource: str | list[str],
    condition: Mapping[str, object] | None = None,
) -> Statement:
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}
    return {**statement, "Condition": dict(condition)} if condition else statement
