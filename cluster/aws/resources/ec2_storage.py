"""Volumes, images and snapshots."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from mesaform.aws.pricing.rates import BOOK
from mesaform.aws.resources.ec2 import Ec2Kind
from mesaform.aws.resources.kind import Raw, Resources, tag_map
from mesaform.aws.resources.owned import OwnedResource
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound
from mesaform.topology.names import Tag


@register
class Volumes(Ec2Kind):
    kind = "volume"
    depends_on = ("instance",)
    operation, result, id_key = "describe_volumes", "Volumes", "VolumeId"
    removal = "delete_volume"

    def _details(self, raw: Raw) -> Raw:
        instances = [
            item["InstanceId"]
            for item in raw.get("Attachments", ())
            if item.get("DeleteOnTermination")
        ]
        gib, volume_type = raw.get("Size", 0), raw.get("VolumeType", "gp3")
        return {
            "detail": f"{gib} GiB {volume_type}",
            "usd_per_hour": BOOK.volume_usd_per_hour(volume_type, gib),
            "deleted_with_instance": instances[0] if instances else "",
        }


@register
class Images(Ec2Kind):
    kind = "image"
    depends_on = ("instance", "launch template")
    operation, result, id_key = "describe_images", "Images", "ImageId"
    removal = "deregister_image"
    ownership: ClassVar = {"Owners": ["self"]}

    def _details(self, raw: Raw) -> Raw:
        gib = sum(
            mapping.get("Ebs", {}).get("VolumeSize", 0)
            for mapping in raw.get("BlockDeviceMappings", ())
        )
        return {"detail": raw.get("Name", ""), "usd_per_hour": BOOK.snapshot_usd_per_hour(gib)}

    def _remove(self, resource: OwnedResource) -> None:
        """Deregister the image, then delete its snapshots, which do not always carry a tag."""
        snapshots = [
            mapping["Ebs"]["SnapshotId"]
            for raw in self._lookup(resource.id, "ImageIds")
            for mapping in raw.get("BlockDeviceMappings", ())
            if mapping.get("Ebs", {}).get("SnapshotId")
        ]
        super()._remove(resource)
        for snapshot in snapshots:
            with suppress(NotFound):
                self._call("delete_snapshot", resource.id, SnapshotId=snapshot)


class BakedImages(Images):
    """Images that `mesaform bake` builds for all clusters of the account.

    They carry the tag of a recipe and of no cluster, so this class is not registered.
    """

    def list(self) -> Resources:
        """List the baked images of the account and region."""
        filters = [{"Name": "tag-key", "Values": [Tag.RECIPE]}]
        listed = self._pages(self.operation, Owners=["self"], Filters=filters)
        return [
            self._owned(raw)
            for page in listed
            for raw in self._items(page)
            if Tag.RECIPE in tag_map(raw.get("Tags"))
        ]


@register
class Snapshots(Ec2Kind):
    kind = "snapshot"
    depends_on = ("image",)
    operation, result, id_key = "describe_snapshots", "Snapshots", "SnapshotId"
    removal = "delete_snapshot"
    ownership: ClassVar = {"OwnerIds": ["self"]}

    def _details(self, raw: Raw) -> Raw:
        gib = raw.get("VolumeSize", 0)
        return {"detail": f"{gib} GiB", "usd_per_hour": BOOK.snapshot_usd_per_hour(gib)}
