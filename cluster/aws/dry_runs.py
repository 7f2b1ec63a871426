"""Dry runs of launches: EC2 checks rights and parameters, and launches nothing.

EC2 answers a dry run that would succeed with the error `DryRunOperation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from mesaform.aws.client import client
from mesaform.aws.errors import error_code, translate, translate_errors
from mesaform.aws.resources.kind import pages
from mesaform.topology.names import Tag

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

SUCCESS = "DryRunOperation"


def launch_templates(region: str, cluster: str) -> dict[str, str]:
    """The names of the cluster's launch templates by their ids."""
    filters = [{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]
    where = "ec2 DescribeLaunchTemplates"
    ec2 = client("ec2", region)
    return {
        item["LaunchTemplateId"]: item["LaunchTemplateName"]
        for page in pages(ec2, "describe_launch_templates", where, Filters=filters)
        for item in page["LaunchTemplates"]
    }


def try_launch(region: str, request: Mapping[str, object]) -> None:
    """Dry run of RunInstances with these parameters.

    Raises:
        CloudError: EC2 would refuse the launch, or did not answer.

    """
    ec2: EC2Client = client("ec2", region)
    arguments = {"MinCount": 1, "MaxCount": 1, **request}
    _dry("ec2 RunInstances", lambda: ec2.run_instances(DryRun=True, **arguments))  # type: ignore[arg-type]  # EC2 checks them


def try_fleet(region: str, template_id: str, subnet_id: str, *, is_spot: bool) -> None:
    """Dry run of CreateFleet for one machine of a launch template in a subnet.

    Raises:
        CloudError: EC2 would refuse the fleet, or did not answer.

    """
    ec2: EC2Client = client("ec2", region)
    template = {"LaunchTemplateId": template_id, "Version": "$Latest"}
    target = {
        "TotalTargetCapacity": 1,
        "DefaultTargetCapacityType": "spot" if is_spot else "on-demand",
    }
    config = {"LaunchTemplateSpecification": template, "Overrides": [{"SubnetId": subnet_id}]}
    _dry(
        "ec2 CreateFleet",
        lambda: ec2.create_fleet(
            DryRun=True,
            Type="instant",
            LaunchTemplateConfigs=[config],  # type: ignore[list-item]  # EC2 checks it
            TargetCapacitySpecification=target,  # type: ignore[arg-type]  # likewise
        ),
    )


def _dry(where: str, call: Callable[[], object]) -> None:
    with translate_errors(where):
        try:
            call()
        except ClientError as error:
            if error_code(error) == SUCCESS:
                return
            raise translate(error, where) from error
