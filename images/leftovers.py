"""Removal of what killed bakes left: builders, their security groups and unfinished images.

Leftovers are recognized by their tags and age. A bake removes those of earlier ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mesaform.topology.names import Tag
from mesaform_images.build_machine import creation_time, delete_group, list_instances, terminate
from mesaform_images.ec2_calls import BUILDER_TAGS, IMAGE_TAGS, call_with_retry, tag_filters
from mesaform_images.ec2_images import remove_image

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import ImageTypeDef

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
        *_remove_unfinished_images(ec2, oldest),
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


def _remove_unfinished_images(ec2: EC2Client, oldest: float) -> Iterator[str]:
    images = call_with_retry(
        "ec2 DescribeImages",
        lambda: ec2.describe_images(Owners=["self"], Filters=tag_filters(IMAGE_TAGS))["Images"],
    )
    for image in images:
        is_finished = any(tag["Key"] == Tag.RECIPE for tag in image.get("Tags", ()))
        if not is_finished and _created_at(image) < oldest:
            remove_image(ec2, image)
            yield image["ImageId"]


def _created_at(image: ImageTypeDef) -> float:
    """Epoch seconds; the present for an image without a date, which is therefore kept."""
    try:
        return datetime.fromisoformat(image.get("CreationDate", "")).astimezone(UTC).timestamp()
    except ValueError:
        return time.time()
