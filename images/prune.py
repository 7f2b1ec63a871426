"""Removal of old images: each bake of changed sources adds one, and its snapshot costs money.

The newest of each architecture stay, and those from which machines run or launch templates launch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mesaform.aws.resources.kind import pages
from mesaform_images.build_machine import list_instances
from mesaform_images.ec2_calls import IMAGE_TAGS, call_with_retry, tag_filters
from mesaform_images.ec2_images import created_at, is_finished, remove_image

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef

MIN_AGE_S = 3600.0
"""Younger images stay: another folder's `mesaform up` may be about to boot them."""

FILTER_VALUES = 200


@dataclass(frozen=True, slots=True)
class BakedImage:
    """A finished image of a bake. `created_at` is in seconds since the epoch."""

    image_id: str
    architecture: str
    created_at: float


def superfluous(
    images: Iterable[BakedImage], in_use: Collection[str], keep: int, now: float
) -> list[str]:
    """Return the ids of the images to remove.

    Args:
        images: the finished images of the account and region.
        in_use: ids of images that machines or launch templates name.
        keep: how many of the newest of each architecture stay in any case.
        now: in seconds since the epoch.

    """
    kept: dict[str, int] = {}
    chosen: list[str] = []
    for image in sorted(images, key=lambda image: (-image.created_at, image.image_id)):
        kept[image.architecture] = kept.get(image.architecture, 0) + 1
        is_old = now - image.created_at >= MIN_AGE_S
        if kept[image.architecture] > keep and is_old and image.image_id not in in_use:
            chosen.append(image.image_id)
    return chosen


def prune_images(ec2: EC2Client, keep: int, now: float) -> list[str]:
    """Remove superfluous images with their snapshots; return their ids. Idempotent.

    Raises:
        CloudError: EC2 refused or did not answer.

    """
    listed = call_with_retry(
        "ec2 DescribeImages",
        lambda: ec2.describe_images(Owners=["self"], Filters=tag_filters(IMAGE_TAGS))["Images"],
    )
    finished = {image["ImageId"]: image for image in listed if is_finished(image)}
    baked = [_baked(image) for image in finished.values()]
    candidates = superfluous(baked, (), keep, now)
    if not candidates:
        return []
    removed = superfluous(baked, images_in_use(ec2, candidates), keep, now)
    for image_id in removed:
        remove_image(ec2, finished[image_id])
    return removed


def images_in_use(ec2: EC2Client, image_ids: Collection[str]) -> set[str]:
    """Return those of the images that instances or the current launch templates name."""
    in_use = set(_images_of_templates(ec2))
    remaining = sorted(image_ids)
    while remaining:
        part, remaining = remaining[:FILTER_VALUES], remaining[FILTER_VALUES:]
        filters: list[FilterTypeDef] = [{"Name": "image-id", "Values": part}]
        in_use |= {instance["ImageId"] for instance in list_instances(ec2, filters)}
    return in_use & set(image_ids)


def _images_of_templates(ec2: EC2Client) -> Iterator[str]:
    """The images of the latest and the default version of every launch template of the region."""
    where = "ec2 DescribeLaunchTemplates"
    templates = call_with_retry(
        where, partial(_listed, ec2, "describe_launch_templates", where, "LaunchTemplates")
    )
    where = "ec2 DescribeLaunchTemplateVersions"
    for template in templates:
        versions = call_with_retry(
            where,
            partial(
                ec2.describe_launch_template_versions,
                LaunchTemplateId=template["LaunchTemplateId"],
                Versions=["$Latest", "$Default"],
            ),
        )["LaunchTemplateVersions"]
        for version in versions:
            if image_id := version["LaunchTemplateData"].get("ImageId"):
                yield image_id


def _listed(ec2: EC2Client, operation: str, where: str, key: str) -> list[dict[str, str]]:
    return [item for page in pages(ec2, operation, where) for item in page[key]]


def _baked(image: ImageTypeDef) -> BakedImage:
    return BakedImage(image["ImageId"], image.get("Architecture", ""), created_at(image))
