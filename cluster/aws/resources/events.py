"""Rules of EventBridge."""

from __future__ import annotations

from mesaform.aws.resources.kind import NAME_PREFIX, Resources, TaggedKind, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound


@register
class EventRules(TaggedKind):
    kind = "event rule"
    service = "events"
    depends_on = ("instance",)

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        prefix = f"{NAME_PREFIX}-{self._cluster}-"
        listed = (
            (raw["Name"], self._tags(raw["Arn"]))
            for page in self._pages("list_rules", NamePrefix=prefix)
            for raw in page["Rules"]
        )
        return [
            OwnedResource(self.kind, name, tags)
            for name, tags in listed
            if is_ours(tags, self._cluster)
        ]

    def _tags(self, arn: str) -> dict[str, str]:
        try:
            answer = self._call("list_tags_for_resource", arn, ResourceARN=arn)
        except NotFound:  # deleted since it was listed
            return {}
        return tag_map(answer.get("Tags"))

    def _remove(self, resource: OwnedResource) -> None:
        rule = resource.id
        targets = self._call("list_targets_by_rule", rule, Rule=rule)["Targets"]
        if targets:
            ids = [target["Id"] for target in targets]
            self._call("remove_targets", rule, Rule=rule, Ids=ids)
        self._call("delete_rule", rule, Name=rule)
