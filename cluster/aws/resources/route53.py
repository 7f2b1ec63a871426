"""Private hosted zones of Route 53, with their records.

Route 53 has no filter by tag, and no regions: the tag `mesaform:region` tells apart clusters of one
name in several regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mesaform.aws.pricing.rates import HOSTED_ZONE_USD_PER_MONTH, HOURS_PER_MONTH
from mesaform.aws.resources.kind import Raw, Resources, TaggedKind, in_batches, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound
from mesaform.topology.names import Tag

TAGGED_AT_ONCE = 10
"""The most zones of one call of ListTagsForResources."""

CHANGED_AT_ONCE = 100
"""Records that one change deletes; Route 53 allows 1,000."""


@register
class HostedZones(TaggedKind):
    kind = "hosted zone"
    depends_on = ("instance",)
    service = "route53"

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        names = {
            raw["Id"].rpartition("/")[2]: raw["Name"]
            for page in self._pages("list_hosted_zones")
            for raw in page["HostedZones"]
            if raw.get("Config", {}).get("PrivateZone")
        }
        usd_per_hour = HOSTED_ZONE_USD_PER_MONTH / HOURS_PER_MONTH
        return [
            OwnedResource(self.kind, zone_id, tags, names[zone_id], usd_per_hour)
            for zone_id, tags in self._tags([*names])
            if is_ours(tags, self._cluster) and self._is_of_region(tags)
        ]

    def _is_of_region(self, tags: Mapping[str, str]) -> bool:
        return not self._region or tags.get(Tag.REGION) == self._region

    def _tags(self, zone_ids: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        for batch in in_batches(zone_ids, TAGGED_AT_ONCE):
            for entry in self._tag_sets(batch):
                yield entry["ResourceId"], tag_map(entry["Tags"])

    def _tag_sets(self, zone_ids: Sequence[str]) -> Sequence[Raw]:
        """The tags of each; one that was deleted since the list makes the call fail for all."""
        arguments = {"ResourceType": "hostedzone", "ResourceIds": zone_ids}
        try:
            answer = self._call("list_tags_for_resources", "of zones", **arguments)
        except NotFound:
            if len(zone_ids) == 1:
                return []
            return [entry for zone_id in zone_ids for entry in self._tag_sets([zone_id])]
        tag_sets: Sequence[Raw] = answer["ResourceTagSets"]
        return tag_sets

    def _remove(self, resource: OwnedResource) -> None:
        """Delete the records, then the zone: Route 53 deletes only an empty one."""
        for batch in in_batches(self._records(resource), CHANGED_AT_ONCE):
            changes = [{"Action": "DELETE", "ResourceRecordSet": record} for record in batch]
            self._call(
                "change_resource_record_sets",
                resource.id,
                HostedZoneId=resource.id,
                ChangeBatch={"Changes": changes},
            )
        self._call("delete_hosted_zone", resource.id, Id=resource.id)

    def _records(self, zone: OwnedResource) -> Sequence[Raw]:
        """All records but the two that every zone has."""
        return [
            record
            for page in self._pages("list_resource_record_sets", HostedZoneId=zone.id)
            for record in page["ResourceRecordSets"]
            if not (record["Type"] in {"NS", "SOA"} and record["Name"] == zone.detail)
        ]
