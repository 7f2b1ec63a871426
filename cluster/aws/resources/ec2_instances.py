"""Instances, spot requests, launch templates and key pairs."""

from __future__ import annotations

from collections.abc import Sequence

from mesaform.aws.resources.ec2 import Ec2Kind, Raws
from mesaform.aws.resources.kind import Raw
from mesaform.aws.resources.owned import OwnedResource
from mesaform.aws.resources.registry import register


@register
class SpotRequests(Ec2Kind):
    kind = "spot request"
    operation, result = "describe_spot_instance_requests", "SpotInstanceRequests"
    id_key = "SpotInstanceRequestId"

    def _exists(self, raw: Raw) -> bool:
        return raw.get("State") in {"open", "active"}

    def _details(self, raw: Raw) -> Raw:
        return {"deleted_with_instance": raw.get("InstanceId", "")}

    def _remove(self, resource: OwnedResource) -> None:
        ids = [resource.id]
        self._call("cancel_spot_instance_requests", resource.id, SpotInstanceRequestIds=ids)


@register
class Instances(Ec2Kind):
    kind = "instance"
    batch_size = 500
    depends_on = ("spot request",)  # an open request would launch another instance
    operation, result, id_key = "describe_instances", "Reservations", "InstanceId"

    def _items(self, page: Raw) -> Raws:
        reservations = page.get("Reservations", ())
        return [instance for entry in reservations for instance in entry["Instances"]]

    def _exists(self, raw: Raw) -> bool:
        return bool(raw["State"]["Name"] != "terminated")

    def _details(self, raw: Raw) -> Raw:
        zone = raw.get("Placement", {}).get("AvailabilityZone", "")
        return {
            "detail": f"{raw.get('InstanceType', '')} {zone} {raw['State']['Name']}",
            "usd_per_hour": None,
        }

    def _remove(self, resource: OwnedResource) -> None:
        self.remove_batch([resource])

    def remove_batch(self, resources: Sequence[OwnedResource]) -> None:
        ids = [resource.id for resource in resources]
        self._call("terminate_instances", f"{len(ids)} instances", InstanceIds=ids)


@register
class LaunchTemplates(Ec2Kind):
    kind = "launch template"
    depends_on = ("instance",)  # a running autoscaler launches from it
    operation, result = "describe_launch_templates", "LaunchTemplates"
    id_key, removal = "LaunchTemplateId", "delete_launch_template"

    def _details(self, raw: Raw) -> Raw:
        return {"detail": raw.get("LaunchTemplateName", "")}


@register
class KeyPairs(Ec2Kind):
    kind = "key pair"
    depends_on = ("launch template",)
    operation, result, id_key = "describe_key_pairs", "KeyPairs", "KeyName"
    removal = "delete_key_pair"
