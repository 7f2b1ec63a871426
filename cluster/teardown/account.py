"""What an account keeps for all clusters: the bucket, baked images, and machines of other clusters.

Depends on EC2 and S3. Calls block.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesaform.aws.client import account_bucket, client
from mesaform.aws.errors import translate_errors
from mesaform.aws.pricing.rates import HOURS_PER_MONTH
from mesaform.aws.resources.ec2_storage import BakedImages
from mesaform.aws.resources.kind import pages, tag_map
from mesaform.aws.resources.owned import OwnedResource
from mesaform.aws.snapshots import SnapshotObjects
from mesaform.common.errors import CloudError, NotFound, NotOwned
from mesaform.common.progress import Report, stage
from mesaform.teardown.receipt import KeptRecord
from mesaform.topology.names import Tag

USD_PER_GIB_MONTH_S3 = 0.023
"""List price of S3 Standard in us-east-1."""
PRESENT_STATES = ("pending", "running", "shutting-down", "stopping", "stopped")


@dataclass(frozen=True, slots=True)
class PresentMachine:
    """A machine of the account that is not terminated; `cluster` is empty if it has no tag."""

    instance_id: str
    cluster: str


def bucket_exists(bucket: str, region: str) -> bool:
    """Whether the account has its bucket.

    Raises:
        CloudError: S3 did not answer.

    """
    try:
        with translate_errors(f"s3://{bucket}"):
            client("s3", region).head_bucket(Bucket=bucket)
    except NotFound:
        return False
    return True


def kept_bucket(region: str) -> list[KeptRecord]:
    """The bucket, which outlives the clusters, with its cost; empty if there is none."""
    try:
        bucket = account_bucket(region)
        if not bucket_exists(bucket, region):
            return []
        with translate_errors(f"s3://{bucket}"):
            listed = client("s3", region).get_paginator("list_objects_v2").paginate(Bucket=bucket)
            size_bytes = sum(item["Size"] for page in listed for item in page.get("Contents", ()))
    except CloudError:
        return []
    return [
        {
            "kind": "bucket",
            "id": bucket,
            "name": f"{size_bytes / 2**20:.1f} MiB of bundles and ledgers",
            "usd_per_hour": size_bytes / 2**30 * USD_PER_GIB_MONTH_S3 / HOURS_PER_MONTH,
        }
    ]


def kept_snapshots(region: str, cluster: str) -> list[KeptRecord]:
    """The snapshots of the cluster's state, which a later cluster of its name can restore.

    Their bytes are among those of the bucket, so they have no price of their own. Empty if there
    are none, or if S3 does not answer.
    """
    try:
        bucket = account_bucket(region)
        names = SnapshotObjects(bucket, cluster, region).names()
    except CloudError:
        return []
    if not names:
        return []
    noun = "snapshot" if len(names) == 1 else "snapshots"
    return [
        {
            "kind": "state",
            "id": f"s3://{bucket}/{cluster}/snapshots/",
            "name": f"{len(names)} {noun}, the newest {names[-1]}",
            "usd_per_hour": 0.0,
        }
    ]


def present_machines(region: str) -> list[PresentMachine]:
    """Every machine of the account that is not terminated, whosever it is.

    Raises:
        CloudError: EC2 did not answer.

    """
    filters = [{"Name": "instance-state-name", "Values": list(PRESENT_STATES)}]
    listed = pages(client("ec2", region), "describe_instances", "listing machines", Filters=filters)
    return [
        PresentMachine(raw["InstanceId"], tag_map(raw.get("Tags")).get(Tag.CLUSTER, ""))
        for page in listed
        for reservation in page["Reservations"]
        for raw in reservation["Instances"]
    ]


def baked_images(region: str, cluster: str, *, to_remove: bool) -> list[OwnedResource]:
    """Baked images of the account.

    Raises:
        NotOwned: they are to be removed, but machines of other clusters run from such images.

    """
    if to_remove:
        others = {machine.cluster for machine in present_machines(region)} - {"", cluster}
        if others:
            raise NotOwned(
                f"the images also serve {', '.join(sorted(others))}",
                where="--images",
                fix="take those clusters down first, or leave --images out",
            )
    return list(BakedImages(client("ec2", region), cluster).list())


def remove_images(region: str, cluster: str, report: Report) -> list[OwnedResource]:
    """Remove the baked images; returns those that remain."""
    images = BakedImages(client("ec2", region), cluster)
    with stage(report, "Remove baked images") as under_way:
        listed = images.list()
        for image in listed:
            images.remove(image)
        under_way.outcome = f"{len(listed)} images and their snapshots"
        return list(images.list())
