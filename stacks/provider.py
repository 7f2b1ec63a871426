"""Kinds of resources and blocks of Terraform's AWS provider that stacks describe.

Pure. A new kind is a line here, under the name of the class in CDKTF's generated package, and one
in `mesaform_stacks.pulumi.kinds`. All stacks import from this module.
"""

from __future__ import annotations

from mesaform_stacks.description import Block, Resource


class CloudwatchEventRule(Resource, terraform_type="aws_cloudwatch_event_rule"): ...


class CloudwatchEventTarget(Resource, terraform_type="aws_cloudwatch_event_target"): ...


class DataAwsCallerIdentity(Resource, terraform_type="aws_caller_identity", is_data=True): ...


class DefaultSecurityGroup(Resource, terraform_type="aws_default_security_group"): ...


class EbsVolume(Resource, terraform_type="aws_ebs_volume"): ...


class Ec2SubnetCidrReservation(Resource, terraform_type="aws_ec2_subnet_cidr_reservation"): ...


class IamInstanceProfile(Resource, terraform_type="aws_iam_instance_profile"): ...


class IamRole(Resource, terraform_type="aws_iam_role"): ...


class IamRolePolicy(Resource, terraform_type="aws_iam_role_policy"): ...


class Instance(Resource, terraform_type="aws_instance"): ...


class InstanceMetadataOptions(Block): ...


class InstanceRootBlockDevice(Block): ...


class InternetGateway(Resource, terraform_type="aws_internet_gateway"): ...


class LaunchTemplate(Resource, terraform_type="aws_launch_template"): ...


class LaunchTemplateBlockDeviceMappings(Block): ...


class LaunchTemplateBlockDeviceMappingsEbs(Block): ...


class LaunchTemplateIamInstanceProfile(Block): ...


class LaunchTemplateMetadataOptions(Block): ...


class LaunchTemplateTagSpecifications(Block): ...


class Route(Resource, terraform_type="aws_route"): ...


class RouteTable(Resource, terraform_type="aws_route_table"): ...


class RouteTableAssociation(Resource, terraform_type="aws_route_table_association"): ...


class SecurityGroup(Resource, terraform_type="aws_security_group"): ...


class SqsQueue(Resource, terraform_type="aws_sqs_queue"): ...


class SsmParameter(Resource, terraform_type="aws_ssm_parameter"): ...


class Subnet(Resource, terraform_type="aws_subnet"): ...


class Vpc(Resource, terraform_type="aws_vpc"): ...


class VpcSecurityGroupEgressRule(Resource, terraform_type="aws_vpc_security_group_egress_rule"): ...


class VpcSecurityGroupIngressRule(
    Resource, terraform_type="aws_vpc_security_group_ingress_rule"
): ...
