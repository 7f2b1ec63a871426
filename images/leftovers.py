"""Removal of what killed bakes left: builders, their networks, unfinished images and snapshots.

Leftovers are recognized by their tags and age. `up`, `down` and `bake` remove those of earlier
bakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from mesaform_images import build_network
from mesaform_images.build_machine import creation_time, delete_group, list_instances, terminate
from mesaform_images.ec2_calls import (
    BUILDER_TAGS,
    IMAGE_TAGS,
    call_unless_absent,
    call_with_retry,
    tag_filters,
)
from mesaform_images.ec2_images import created_at, is_finished, remove_image, snapshots_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

STALE_AFTER_S = 3600.0
"""Age of a leftover: no bake takes this long."""


def remove_leftovers(ec2: EC2Client, now: float, stale_after_s: float = STALE_AFTER_S) -> list[str]:
    """Remove what killed bakes left; return the ids. `now` is in seconds since the epoch.

    `stale_after_s` is the age of a leftover; 0 where no other bake can run in the account.

    Raises:
        CloudError: EC2 refused.

    """
    oldest = now - stale_after_s
    return [
        *_remove_builders(ec2, oldest),
        *_remove_groups(ec2, oldest),
        *_remove_networks(ec2, oldest),
        *_remove_unfinished_images(ec2, oldest),
        *_remove_orphaned_snapshots(ec2, oldest),
    ]


def _remove_builders(ec2: EC2Client, oldest: float) -> Iterator[str]:
    for instance in list_instances(ec2, tag_filters(BUILDER_TAGS)):
        if instance["LaunchTime"].timestamp() < oldest:
            terminate(ec2, [instance["InstanceId"]])
            yield instance["InstanceId"]


def _remove_groups(ec2: EC2Client, oldest: float) -> Iterator[str]:
    groups = call_with_retry(
        "ec2 DescribeSecurityGroups",
        lambda: ec2.describe_security_groups(Filters=tag_filters(BUILDER_TAGS))["SecurityGroups"],
    )
    for group in groups:
        created = creation_time(group["GroupName"])
        is_stale = created is not None and created < oldest
        if is_stale and delete_group(ec2, group["GroupId"]):
            yield group["GroupId"]


def _remove_networks(ec2: EC2Client, oldest: float) -> Iterator[str]:
    for name in sorted(build_network.temporary_names(ec2)):
        created = creation_time(name)
        is_stale = created is not None and created < oldest
        if is_stale and build_network.remove_network(ec2, name):
            yield name


def _remove_orphaned_snapshots(ec2: EC2Client, oldest: float) -> Iterator[str]:
    """Remove snapshots of bakes that no image of the account has.

    An image that was deregistered while it was pending leaves such a snapshot.
    """
    snapshots = call_with_retry(
        "ec2 DescribeSnapshots",
        lambda: ec2.describe_snapshots(OwnerIds=["self"], Filters=tag_filters(IMAGE_TAGS)),
    )["Snapshots"]
    stale = [item["SnapshotId"] for item in snapshots if item["StartTime"].timestamp() < oldest]
    if not stale:
        return
    images = call_with_retry(
        "ec2 DescribeImages", lambda: ec2.describe_images(Owners=["self"])["Images"]
    )
    in_use = {snapshot for image in images for snapshot in snapshots_of(image)}
    for snapshot_id in stale:
        if snapshot_id not in in_use:
            delete = partial(ec2.delete_snapshot, SnapshotId=snapshot_id)
            call_unless_absent("ec2 DeleteSnapshot", delete)
            yield snapshot_id


def _remove_unfinished_images(ec2: EC2Client, oldest: float) -> Iterator[str]:
    images = call_with_retry(
        "ec2 DescribeImages",
        lambda: ec2.describe_images(Owners=["self"], Filters=tag_filters(IMAGE_TAGS))["Images"],
    )
    for image in images:
        if not is_finished(image) and created_at(image) < oldest:
            remove_image(ec2, image)
            yield image["ImageId"]
