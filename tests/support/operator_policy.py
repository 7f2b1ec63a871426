"""The operator's minimal policy, made from the product's calls and the resources of its stacks.

`python -m tests.support.operator_policy` writes the files of `cluster/doctor/`; a test compares
them. A new call of the product's own code needs no change here unless no rule of `RULES` covers it.
A new resource type of a stack needs a row in `TERRAFORM`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.support import aws_calls

FOLDER = aws_calls.REPOSITORY / "cluster" / "doctor"
BASE, SERVICES = "operator-policy.json", "operator-policy-services.json"
NETWORK = "operator-policy-network.json"
"""Rights in EC2, in the other services, and further ones for options of `network`: managed policies
have a limit of length."""

MACHINE_ONLY = ("cluster/autoscaler/", "cluster/node/", "cluster/aws/notice_queue.py")
"""Modules that only machines run, with the rights of the masters' role."""

_TAGS = ("ec2:CreateTags", "ec2:DeleteTags")
_RULE = (
    *("ec2:DescribeSecurityGroupRules", "ec2:DescribeSecurityGroups"),
    *("ec2:ModifySecurityGroupRules", *_TAGS),
)
_ROLE_READS = ("iam:ListAttachedRolePolicies", "iam:ListRolePolicies")
_ELB_TAGS = (
    *("elasticloadbalancing:AddTags", "elasticloadbalancing:DescribeTags"),
    "elasticloadbalancing:RemoveTags",
)

TERRAFORM: Mapping[str, tuple[str, ...]] = {
    "aws_cloudwatch_event_rule": (
        *("events:DeleteRule", "events:DescribeRule", "events:ListTagsForResource"),
        *("events:PutRule", "events:TagResource", "events:UntagResource"),
    ),
    "aws_cloudwatch_event_target": (
        *("events:ListTargetsByRule", "events:PutTargets", "events:RemoveTargets"),
    ),
    "aws_default_security_group": (
        *("ec2:DescribeSecurityGroups", *_TAGS),
        *("ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress"),
    ),
    "aws_ec2_subnet_cidr_reservation": (
        *("ec2:CreateSubnetCidrReservation", "ec2:DeleteSubnetCidrReservation"),
        "ec2:GetSubnetCidrReservations",
    ),
    "aws_iam_instance_profile": (
        *("iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile"),
        *("iam:DeleteInstanceProfile", "iam:GetInstanceProfile", "iam:PassRole"),
        *("iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile"),
        "iam:UntagInstanceProfile",
    ),
    "aws_iam_role": (
        *("iam:CreateRole", "iam:DeleteRole", "iam:GetRole", *_ROLE_READS),
        *("iam:DeleteRolePermissionsBoundary", "iam:ListInstanceProfilesForRole"),
        *("iam:PutRolePermissionsBoundary", "iam:TagRole", "iam:UntagRole"),
        *("iam:UpdateAssumeRolePolicy", "iam:UpdateRole"),
    ),
    "aws_iam_role_policy": ("iam:DeleteRolePolicy", "iam:GetRolePolicy", "iam:PutRolePolicy"),
    "aws_instance": (
        *("ec2:DescribeIamInstanceProfileAssociations", "ec2:DescribeImages"),
        *("ec2:DescribeInstanceAttribute", "ec2:DescribeInstanceCreditSpecifications"),
        *("ec2:DescribeInstanceTypes", "ec2:DescribeInstances", "ec2:DescribeTags"),
        *("ec2:DescribeVolumes", "ec2:DescribeVpcs", "ec2:ModifyInstanceAttribute"),
        *("ec2:ModifyInstanceMetadataOptions", "ec2:ModifyVolume", "ec2:RunInstances"),
        *("ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances", *_TAGS),
        "iam:PassRole",
    ),
    "aws_internet_gateway": (
        *("ec2:AttachInternetGateway", "ec2:CreateInternetGateway", "ec2:DeleteInternetGateway"),
        *("ec2:DescribeInternetGateways", "ec2:DetachInternetGateway", *_TAGS),
    ),
    "aws_launch_template": (
        *("ec2:CreateLaunchTemplate", "ec2:CreateLaunchTemplateVersion", *_TAGS),
        *("ec2:DeleteLaunchTemplate", "ec2:DescribeLaunchTemplateVersions"),
        *("ec2:DescribeLaunchTemplates", "ec2:ModifyLaunchTemplate"),
    ),
    "aws_route": (
        *("ec2:CreateRoute", "ec2:DeleteRoute", "ec2:DescribeRouteTables", "ec2:ReplaceRoute"),
    ),
    "aws_route_table": (
        *("ec2:CreateRouteTable", "ec2:DeleteRouteTable", "ec2:DescribeRouteTables", *_TAGS),
        "ec2:DisassociateRouteTable",
    ),
    "aws_route_table_association": (
        *("ec2:AssociateRouteTable", "ec2:DescribeRouteTables", "ec2:DisassociateRouteTable"),
        "ec2:ReplaceRouteTableAssociation",
    ),
    "aws_security_group": (
        *("ec2:CreateSecurityGroup", "ec2:DeleteSecurityGroup", "ec2:DescribeNetworkInterfaces"),
        *("ec2:DescribeSecurityGroups", "ec2:RevokeSecurityGroupEgress", *_TAGS),
    ),
    "aws_sqs_queue": (
        *("sqs:CreateQueue", "sqs:DeleteQueue", "sqs:GetQueueAttributes", "sqs:ListQueueTags"),
        *("sqs:SetQueueAttributes", "sqs:TagQueue", "sqs:UntagQueue"),
    ),
    "aws_ssm_parameter": (
        *("ssm:AddTagsToResource", "ssm:DeleteParameter", "ssm:DescribeParameters"),
        *("ssm:GetParameter", "ssm:ListTagsForResource", "ssm:PutParameter"),
        "ssm:RemoveTagsFromResource",
    ),
    "aws_subnet": (
        *("ec2:CreateSubnet", "ec2:DeleteSubnet", "ec2:DescribeNetworkInterfaces"),
        *("ec2:DescribeSubnets", "ec2:ModifySubnetAttribute", *_TAGS),
    ),
    "aws_vpc": (
        *("ec2:CreateVpc", "ec2:DeleteVpc", "ec2:DescribeNetworkAcls", "ec2:DescribeRouteTables"),
        *("ec2:DescribeSecurityGroups", "ec2:DescribeVpcAttribute", "ec2:DescribeVpcs"),
        *("ec2:ModifyVpcAttribute", *_TAGS),
    ),
    "aws_vpc_security_group_egress_rule": (
        *("ec2:AuthorizeSecurityGroupEgress", "ec2:RevokeSecurityGroupEgress", *_RULE),
    ),
    "aws_vpc_security_group_ingress_rule": (
        *("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress", *_RULE),
    ),
    "aws_ebs_volume": (
        *("ec2:CreateVolume", "ec2:DeleteVolume", "ec2:DescribeVolumes", "ec2:ModifyVolume"),
        *_TAGS,
    ),
    "aws_volume_attachment": (
        *("ec2:AttachVolume", "ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DetachVolume"),
    ),
}
"""Resource types of every cluster, and the actions with which the provider (hashicorp/aws 5.100)
creates, reads, changes and deletes them."""

NETWORK_TERRAFORM: Mapping[str, tuple[str, ...]] = {
    "aws_cloudwatch_log_group": (
        *("logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:DescribeLogGroups"),
        *("logs:ListTagsForResource", "logs:PutRetentionPolicy", "logs:TagResource"),
        "logs:UntagResource",
    ),
    "aws_egress_only_internet_gateway": (
        *("ec2:CreateEgressOnlyInternetGateway", "ec2:DeleteEgressOnlyInternetGateway"),
        *("ec2:DescribeEgressOnlyInternetGateways", *_TAGS),
    ),
    "aws_eip": (
        *("ec2:AllocateAddress", "ec2:DescribeAddresses", "ec2:DescribeAddressesAttribute"),
        *("ec2:DisassociateAddress", "ec2:ReleaseAddress", *_TAGS),
    ),
    "aws_flow_log": (
        *("ec2:CreateFlowLogs", "ec2:DeleteFlowLogs", "ec2:DescribeFlowLogs", *_TAGS),
        *("iam:PassRole", "logs:CreateLogDelivery", "logs:DeleteLogDelivery"),
    ),
    "aws_lb": (
        *("elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:DeleteLoadBalancer"),
        *("elasticloadbalancing:DescribeLoadBalancerAttributes", *_ELB_TAGS),
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:ModifyLoadBalancerAttributes",
        *("elasticloadbalancing:SetSecurityGroups", "elasticloadbalancing:SetSubnets"),
        *("ec2:DescribeNetworkInterfaces", "iam:CreateServiceLinkedRole"),
    ),
    "aws_lb_listener": (
        *("elasticloadbalancing:CreateListener", "elasticloadbalancing:DeleteListener"),
        *("elasticloadbalancing:DescribeListenerAttributes", *_ELB_TAGS),
        "elasticloadbalancing:DescribeListeners",
        *("elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyListenerAttributes"),
    ),
    "aws_lb_target_group": (
        *("elasticloadbalancing:CreateTargetGroup", "elasticloadbalancing:DeleteTargetGroup"),
        *("elasticloadbalancing:DescribeTargetGroupAttributes", *_ELB_TAGS),
        *("elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:ModifyTargetGroup"),
        "elasticloadbalancing:ModifyTargetGroupAttributes",
    ),
    "aws_lb_target_group_attachment": (
        *("elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:DescribeTargetHealth"),
        "elasticloadbalancing:RegisterTargets",
    ),
    "aws_nat_gateway": (
        *("ec2:CreateNatGateway", "ec2:DeleteNatGateway", "ec2:DescribeNatGateways", *_TAGS),
    ),
    "aws_network_interface": (
        *("ec2:AttachNetworkInterface", "ec2:CreateNetworkInterface"),
        *("ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces"),
        *("ec2:DetachNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute", *_TAGS),
    ),
    "aws_route53_record": (
        *("route53:ChangeResourceRecordSets", "route53:GetChange", "route53:GetHostedZone"),
        "route53:ListResourceRecordSets",
    ),
    "aws_route53_zone": (
        *("ec2:DescribeVpcs", "route53:AssociateVPCWithHostedZone"),
        *("route53:ChangeTagsForResource", "route53:CreateHostedZone", "route53:GetChange"),
        *("route53:DeleteHostedZone", "route53:GetHostedZone", "route53:ListTagsForResource"),
        *("route53:DisassociateVPCFromHostedZone", "route53:ListResourceRecordSets"),
    ),
    "aws_vpc_endpoint": (
        *("ec2:CreateVpcEndpoint", "ec2:DeleteVpcEndpoints", "ec2:DescribePrefixLists", *_TAGS),
        *("ec2:DescribeVpcEndpoints", "ec2:ModifyVpcEndpoint"),
        "route53:AssociateVPCWithHostedZone",
    ),
}
"""Resource types of options of `network`, and of masters in subnets of others."""

IMPLIED: Mapping[str, tuple[str, ...]] = {
    "ec2:CreateFleet": ("ec2:CreateTags", "ec2:RunInstances", "iam:PassRole"),
    "ec2:ReplaceIamInstanceProfileAssociation": ("iam:PassRole",),
    "ec2:RunInstances": ("ec2:CreateTags", "iam:PassRole"),
}
"""Actions that AWS checks besides the one that is called: tags and the instance profile."""

_ARN = "arn:PARTITION"
_LOCAL = "REGION:ACCOUNT_ID"
_REGIONAL = {"StringEquals": {"aws:RequestedRegion": "REGION"}}
_BUCKET = f"{_ARN}:s3:::mesaform-ACCOUNT_ID-REGION"
_IAM = f"{_ARN}:iam::ACCOUNT_ID"


@dataclass(frozen=True, slots=True)
class Rule:
    """Where actions may be used. The first rule with a pattern for an action holds it."""

    sid: str
    patterns: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    condition: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


RULES = (
    Rule("ReadRegions", ("ec2:DescribeRegions", "pricing:GetProducts")),
    Rule(
        "ChangeOwnMachines",
        (
            *("ec2:ReplaceIamInstanceProfileAssociation", "ec2:StartInstances"),
            *("ec2:StopInstances", "ec2:TerminateInstances"),
        ),
        (f"{_ARN}:ec2:{_LOCAL}:instance/*",),
        {"Null": {"aws:ResourceTag/mesaform:managed-by": "false"}},
    ),
    Rule(
        "BuildInTheRegion",
        ("ec2:*", "elasticloadbalancing:*", "servicequotas:*"),
        condition=_REGIONAL,
    ),
    Rule(
        "PassRolesToMachines",
        ("iam:PassRole",),
        (f"{_IAM}:role/mesaform-*",),
        {
            "StringLike": {
                "iam:PassedToService": ["ec2.amazonaws.com*", "vpc-flow-logs.amazonaws.com"]
            }
        },
    ),
    Rule(
        "CreateServiceLinkedRoles",
        ("iam:CreateServiceLinkedRole",),
        (f"{_IAM}:role/aws-service-role/*",),
        {
            "StringEquals": {
                "iam:AWSServiceName": [
                    "spot.amazonaws.com",
                    "elasticloadbalancing.amazonaws.com",
                ]
            }
        },
    ),
    Rule(
        "ReadIam",
        (
            *("iam:GetRole", "iam:ListInstanceProfiles", "iam:ListPolicies", "iam:ListRoles"),
            "iam:Simulate*",
        ),
    ),
    Rule("ManagePolicies", ("iam:*Policy", "iam:*PolicyVersion*", "iam:*PolicyTags"), ()),
    Rule(
        "ManageRoles",
        ("iam:*",),
        (f"{_IAM}:role/mesaform-*", f"{_IAM}:instance-profile/mesaform-*"),
    ),
    Rule("UseTheBucket", ("s3:*",), (_BUCKET, f"{_BUCKET}/*")),
    Rule(
        "ManageQueuesRulesAndLogs",
        ("sqs:*", "events:*", "logs:*"),
        (
            f"{_ARN}:sqs:{_LOCAL}:mesaform-*",
            f"{_ARN}:events:{_LOCAL}:rule/mesaform-*",
            f"{_ARN}:logs:{_LOCAL}:log-group:/mesaform/*",
        ),
    ),
    Rule(
        "UseParameters",
        ("ssm:*",),
        (
            f"{_ARN}:ssm:{_LOCAL}:parameter/mesaform/*",
            f"{_ARN}:ssm:REGION::parameter/aws/service/*",
        ),
    ),
    Rule("ManageNames", ("route53:*",)),
)

UNBOUND = Rule(
    "List",
    (
        *("events:ListRules", "logs:CreateLogDelivery", "logs:DeleteLogDelivery"),
        *("logs:DescribeLogGroups", "sqs:ListQueues", "ssm:DescribeParameters"),
        *("kms:DescribeKey", "ssm:ListTagsForResource"),
    ),
    condition=_REGIONAL,
)
"""Actions that IAM cannot bind to a resource."""

POLICY_RESOURCES = (f"{_IAM}:role/mesaform-*", f"{_IAM}:policy/mesaform-*")


def own_actions() -> frozenset[str]:
    """Actions of the product's own calls that an operator makes."""
    found = [site for site in aws_calls.sites() if not site.module.startswith(MACHINE_ONLY)]
    called = set(aws_calls.actions_of(found))
    return frozenset(called | {extra for name in called for extra in IMPLIED.get(name, ())})


def terraform_actions(table: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Actions of the table's resource types that the stacks use."""
    used = aws_calls.resource_types()
    return frozenset(action for kind, row in table.items() if kind in used for action in row)


def documents() -> dict[str, dict]:
    """The policies by the names of their files."""
    base = own_actions() | terraform_actions(TERRAFORM)
    return {
        BASE: document(action for action in base if _is_of_ec2(action)),
        SERVICES: document(action for action in base if not _is_of_ec2(action)),
        NETWORK: document(terraform_actions(NETWORK_TERRAFORM) - base),
    }


def _is_of_ec2(action: str) -> bool:
    return action.startswith("ec2:")


def document(actions: Iterable[str]) -> dict:
    """A policy that allows the actions where `RULES` say.

    Raises:
        LookupError: no rule covers an action.

    """
    by_rule: dict[str, list[str]] = {}
    for action in sorted(actions):
        by_rule.setdefault(rule_of(action).sid, []).append(action)
    rules = [UNBOUND, *RULES]
    return {
        "Version": "2012-10-17",
        "Statement": [_statement(rule, by_rule[rule.sid]) for rule in rules if rule.sid in by_rule],
    }


def rule_of(action: str) -> Rule:
    """The rule that covers an action."""
    for rule in (UNBOUND, *RULES):
        if any(fnmatchcase(action, pattern) for pattern in rule.patterns):
            return rule
    raise LookupError(f"no rule of {__name__} covers {action}")


def _statement(rule: Rule, actions: list[str]) -> dict:
    resources = list(rule.resources or POLICY_RESOURCES)
    statement: dict = {
        "Sid": rule.sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources[0] if len(resources) == 1 else resources,
    }
    if rule.condition:
        statement["Condition"] = rule.condition
    return statement


def text_of(policy: Mapping[str, object]) -> str:
    """The text of a policy's file."""
    return json.dumps(policy, indent=2) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write the files."""
    for name, policy in documents().items():
        (folder / name).write_text(text_of(policy))


if __name__ == "__main__":
    write()
