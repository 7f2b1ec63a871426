"""Kinds of resources and blocks in pulumi-aws: the same provider's, under Pulumi's names.

pulumi-aws 6.83 is made from hashicorp/aws 5.100.0, the provider of the CDKTF program. Its arguments
and attributes have the names of Terraform's, so only classes differ.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import cast

from mesaform_stacks.description import Kind

CLASSES: Mapping[str, str] = {
    "CloudwatchEventRule": "cloudwatch.EventRule",
    "CloudwatchEventTarget": "cloudwatch.EventTarget",
    "CloudwatchLogGroup": "cloudwatch.LogGroup",
    "DefaultSecurityGroup": "ec2.DefaultSecurityGroup",
    "EbsVolume": "ebs.Volume",
    "Ec2SubnetCidrReservation": "ec2.SubnetCidrReservation",
    "EgressOnlyInternetGateway": "ec2.EgressOnlyInternetGateway",
    "Eip": "ec2.Eip",
    "FlowLog": "ec2.FlowLog",
    "IamInstanceProfile": "iam.InstanceProfile",
    "IamRole": "iam.Role",
    "IamRolePolicy": "iam.RolePolicy",
    "Instance": "ec2.Instance",
    "InternetGateway": "ec2.InternetGateway",
    "LaunchTemplate": "ec2.LaunchTemplate",
    "Lb": "lb.LoadBalancer",
    "LbListener": "lb.Listener",
    "LbTargetGroup": "lb.TargetGroup",
    "LbTargetGroupAttachment": "lb.TargetGroupAttachment",
    "NatGateway": "ec2.NatGateway",
    "NetworkInterface": "ec2.NetworkInterface",
    "Route": "ec2.Route",
    "Route53Record": "route53.Record",
    "Route53Zone": "route53.Zone",
    "RouteTable": "ec2.RouteTable",
    "RouteTableAssociation": "ec2.RouteTableAssociation",
    "SecurityGroup": "ec2.SecurityGroup",
    "SqsQueue": "sqs.Queue",
    "SsmParameter": "ssm.Parameter",
    "Subnet": "ec2.Subnet",
    "Vpc": "ec2.Vpc",
    "VpcEndpoint": "ec2.VpcEndpoint",
    "VpcSecurityGroupEgressRule": "vpc.SecurityGroupEgressRule",
    "VpcSecurityGroupIngressRule": "vpc.SecurityGroupIngressRule",
}
BLOCKS: Mapping[str, str] = {
    "DataAwsSubnetFilter": "ec2.GetSubnetFilterArgs",
    "InstanceMetadataOptions": "ec2.InstanceMetadataOptionsArgs",
    "InstanceNetworkInterface": "ec2.InstanceNetworkInterfaceArgs",
    "InstanceRootBlockDevice": "ec2.InstanceRootBlockDeviceArgs",
    "LaunchTemplateBlockDeviceMappings": "ec2.LaunchTemplateBlockDeviceMappingArgs",
    "LaunchTemplateBlockDeviceMappingsEbs": "ec2.LaunchTemplateBlockDeviceMappingEbsArgs",
    "LaunchTemplateIamInstanceProfile": "ec2.LaunchTemplateIamInstanceProfileArgs",
    "LaunchTemplateMetadataOptions": "ec2.LaunchTemplateMetadataOptionsArgs",
    "LaunchTemplateTagSpecifications": "ec2.LaunchTemplateTagSpecificationArgs",
    "LbListenerDefaultAction": "lb.ListenerDefaultActionArgs",
    "LbTargetGroupHealthCheck": "lb.TargetGroupHealthCheckArgs",
    "Route53ZoneVpc": "route53.ZoneVpcArgs",
}
FUNCTIONS: Mapping[str, str] = {
    "DataAwsCallerIdentity": "get_caller_identity_output",
    "DataAwsSubnet": "ec2.get_subnet_output",
}
ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "DataAwsSubnet": {"filter": "filters"},
    "Instance": {"network_interface": "network_interfaces"},
    "LbListener": {"default_action": "default_actions"},
    "Route53Zone": {"vpc": "vpcs"},
}
"""By class: arguments that Pulumi names otherwise."""


def load(table: Mapping[str, str], name: str) -> Callable[..., object]:
    """The class or function of pulumi-aws of a described kind or block.

    Raises:
        LookupError: the table has none.

    """
    try:
        place = table[name]
    except KeyError:
        raise LookupError(f"{name}: add its class in pulumi-aws to {__name__}") from None
    module, _, attribute = place.rpartition(".")
    loaded = importlib.import_module(f"pulumi_aws.{module}" if module else "pulumi_aws")
    return cast("Callable[..., object]", getattr(loaded, attribute))


def arguments_of(kind: Kind, arguments: Mapping[str, object]) -> dict[str, object]:
    """Arguments under Pulumi's names."""
    renamed = ARGUMENTS.get(kind.class_name, {})
    return {renamed.get(key, key): value for key, value in arguments.items()}
