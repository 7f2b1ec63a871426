"""Tags of disks whose machine was created by an interrupted run.

The AWS provider tags the disks of a machine in a call of its own, after the machine. Terraform does
not repeat the call for a machine that was taken over, so its disks would belong to nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from mesaform.topology.names import Tag

ALIVE_STATES = ("pending", "running", "stopping", "stopped")
RESERVED_PREFIX = "aws:"  # of tags that only AWS may write


def tag_disks(deployment_id: str, region: str) -> int:
    """Give untagged disks that end with a machine the machine's tags. Blocks. Idempotent.

    Args:
        deployment_id: only machines of this deployment.
        region: where.

    Returns:
        The number of disks that were tagged.

    Raises:
        CloudError: EC2 did not answer, or refused.

    """
    from mesaform.aws.client import client
    from mesaform.aws.errors import translate_errors

    ec2 = client("ec2", region)
    tags = _tags_by_disk(ec2, deployment_id)
    untagged = _untagged(ec2, tags)
    for volume_id in untagged:
        given = [{"Key": key, "Value": value} for key, value in tags[volume_id].items()]
        with translate_errors("ec2 CreateTags"):
            ec2.create_tags(Resources=[volume_id], Tags=given)
    return len(untagged)


def _tags_by_disk(ec2: Any, deployment_id: str) -> dict[str, dict[str, str]]:
    """The machine's tags for each disk of the deployment's living machines."""
    from mesaform.aws.resources.kind import pages, tag_map

    ours = [
        {"Name": f"tag:{Tag.DEPLOYMENT}", "Values": [deployment_id]},
        {"Name": "instance-state-name", "Values": list(ALIVE_STATES)},
    ]
    instances = (
        instance
        for page in pages(ec2, "describe_instances", "listing machines", Filters=ours)
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    )
    return {
        volume_id: {
            key: value
            for key, value in tag_map(instance.get("Tags")).items()
            if not key.startswith(RESERVED_PREFIX)
        }
        for instance in instances
        for volume_id in _own_disks(instance)
    }


def _untagged(ec2: Any, volume_ids: Collection[str]) -> list[str]:
    from mesaform.aws.resources.kind import pages, tag_map

    if not volume_ids:
        return []
    listing = pages(ec2, "describe_volumes", "listing disks", VolumeIds=sorted(volume_ids))
    return [
        volume["VolumeId"]
        for page in listing
        for volume in page["Volumes"]
        if Tag.DEPLOYMENT not in tag_map(volume.get("Tags"))
    ]


def _own_disks(instance: dict[str, Any]) -> Iterable[str]:
    """The disks that end with the machine: others may belong to somebody else."""
    for mapping in instance.get("BlockDeviceMappings", ()):
        disk = mapping.get("Ebs", {})
        if disk.get("DeleteOnTermination") and "VolumeId" in disk:
            yield disk["VolumeId"]
