"""Log groups of CloudWatch Logs."""

from __future__ import annotations

from mesaform.aws.resources.kind import NAME_PREFIX, Resources, TaggedKind, string_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound


@register
class LogGroups(TaggedKind):
    kind = "log group"
    service = "logs"
    depends_on = ("flow log", "instance")  # both would create their group anew

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        listed = (
            (raw["logGroupName"], self._tags(raw["arn"].removesuffix(":*")))
            for page in self._pages("describe_log_groups", logGroupNamePrefix=f"/{NAME_PREFIX}")
            for raw in page["logGroups"]
        )
        return [
            OwnedResource(self.kind, name, tags, usd_per_hour=None)
            for name, tags in listed
            if is_ours(tags, self._cluster)
        ]

    def _tags(self, arn: str) -> dict[str, str]:
        try:
            answer = self._call("list_tags_for_resource", arn, resourceArn=arn)
        except NotFound:  # deleted since it was listed
            return {}
        return string_map(answer.get("tags", {}))

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_log_group", resource.id, logGroupName=resource.id)
