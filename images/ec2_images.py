"""Images in EC2: the base image, and the removal of an image with its snapshots."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from mesaform.common.errors import MissingPrerequisite, NotFound, Permanent
from mesaform.topology.names import Tag
from mesaform_images.ec2_calls import call_unless_absent, call_with_retry, poll_pause_s

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import ImageTypeDef
    from mypy_boto3_ssm import SSMClient

IMAGE_TIMEOUT_S = 1800.0
"""An image takes about three minutes on AWS."""


def base_image(ec2: EC2Client, ssm: SSMClient, parameter: str) -> ImageTypeDef:
    """Return the base image that a public SSM parameter names.

    Raises:
        MissingPrerequisite: the parameter or its image does not exist in this region.

    """
    try:
        image_id = base_image_id(ssm, parameter)
        images = call_with_retry(
            f"image {image_id}", lambda: ec2.describe_images(ImageIds=[image_id])["Images"]
        )
    except NotFound as error:
        raise MissingPrerequisite(
            "the base image is not published in this region",
            where=parameter,
            fix="name another under [base] in images/recipe.toml",
        ) from error
    return images[0]


def base_image_id(ssm: SSMClient, parameter: str) -> str:
    """Return the id of the image that a public SSM parameter names now.

    Raises:
        NotFound: the region has no such parameter.
        CloudError: SSM refused or did not answer.

    """
    return call_with_retry(
        f"ssm {parameter}", lambda: ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    )


def describe_image(ec2: EC2Client, image_id: str) -> ImageTypeDef:
    """Return an image; without any field but its id while EC2 does not list it yet."""
    try:
        images = call_with_retry(
            f"image {image_id}", lambda: ec2.describe_images(ImageIds=[image_id])["Images"]
        )
    except NotFound:
        images = []
    return images[0] if images else {"ImageId": image_id}


def await_image(
    ec2: EC2Client,
    image_id: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ImageTypeDef:
    """Return an image as soon as it is available.

    Raises:
        Permanent: the image failed, or is pending for longer than `IMAGE_TIMEOUT_S`.

    """
    started = clock()
    while (elapsed_s := clock() - started) < IMAGE_TIMEOUT_S:
        image = describe_image(ec2, image_id)
        state = image.get("State", "pending")
        if state == "available":
            return image
        if state != "pending":
            reason = image.get("StateReason", {}).get("Message", "")
            raise Permanent(f"the image is {state}. {reason}".strip(), where=image_id)
        sleep(poll_pause_s(elapsed_s))
    raise Permanent(f"the image is not available within {IMAGE_TIMEOUT_S:.0f} s", where=image_id)


def remove_image(ec2: EC2Client, image: ImageTypeDef) -> None:
    """Deregister an image and delete its snapshots. Idempotent."""
    deregister = partial(ec2.deregister_image, ImageId=image["ImageId"])
    call_unless_absent("ec2 DeregisterImage", deregister)
    for snapshot_id in snapshots_of(image):
        delete = partial(ec2.delete_snapshot, SnapshotId=snapshot_id)
        call_unless_absent("ec2 DeleteSnapshot", delete)


def snapshots_of(image: ImageTypeDef) -> list[str]:
    """Return the ids of the snapshots of an image."""
    volumes = (mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", ()))
    return [volume["SnapshotId"] for volume in volumes if volume.get("SnapshotId")]


def created_at(image: ImageTypeDef) -> float:
    """Epoch seconds; the present for an image without a date, which therefore counts as new."""
    try:
        return datetime.fromisoformat(image.get("CreationDate", "")).astimezone(UTC).timestamp()
    except ValueError:
        return time.time()


def is_finished(image: ImageTypeDef) -> bool:
    """Whether a bake completed the image: the tag of its recipe comes last."""
    return any(tag["Key"] == Tag.RECIPE for tag in image.get("Tags", ()))
