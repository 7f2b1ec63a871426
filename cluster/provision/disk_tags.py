"""Tags of disks whose machine was created by an interrupted run.

Terraform does not repeat what it has not finished for a machine that was taken over, so disks
without tags would belong to nobody. They get the tags that the stacks declare for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from mesaform.config.schema import ClusterSpec
from mesaform.topology import names
from mesaform.topology.names import Tag

ALIVE_STATES = ("pending", "running", "stopping", "stopped")


def tag_disks(spec: ClusterSpec, deployment_id: str) -> int:
    """Give untagged disks that end with a machine the cluster's tags. Blocks. Idempotent.

    Args:
        spec: the cluster.
        deployment_id: only machines of this deployment.

    Returns:
        The number of disks that were tagged.

    Raises:
        CloudError: EC2 did not answer, or refused.

    """
    from mesaform.aws.client import client
    from mesaform.aws.errors import translate_errors

    ec2 = client("ec2", spec.region)
    tags = names.tags(spec, DEPLOYMENT=deployment_id)
    given = [{"Key": key, "Value": value} for key, value in tags.items()]
    untagged = _untagged(ec2, _disks(ec2, deployment_id))
    for volume_id in untagged:
        with translate_errors("ec2 CreateTags"):
            ec2.create_tags(Resources=[volume_id], Tags=given)
    return len(untagged)


def _disks(ec2: Any, deployment_id: str) -> set[str]:
    """The disks of the deployment's living machines."""
    from mesaform.aws.resources.kind import pages

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
    return {volume_id for instance in instances for volume_id in _own_disks(instance)}


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
