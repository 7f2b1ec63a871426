"""SSM parameters."""

from __future__ import annotations

from mesaform.aws.resources.kind import Resources, TaggedKind, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound
from mesaform.topology.names import Tag


@register
class Parameters(TaggedKind):
    kind = "parameter"
    service = "ssm"
    depends_on = ("instance",)  # the autoscaler reads the cluster's spec from it

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        filters = [{"Key": f"tag:{Tag.CLUSTER}", "Values": [self._cluster]}]
        names = [
            raw["Name"]
            for page in self._pages("describe_parameters", ParameterFilters=filters)
            for raw in page["Parameters"]
        ]
        tagged = ((name, self._tags(name)) for name in names)
        return [
            OwnedResource(self.kind, name, tags)
            for name, tags in tagged
            if is_ours(tags, self._cluster)
        ]

    def _tags(self, name: str) -> dict[str, str]:
        """All tags: the deployment's id is one of them."""
        try:
            answer = self._call(
                "list_tags_for_resource", name, ResourceType="Parameter", ResourceId=name
            )
        except NotFound:  # deleted since it was listed
            return {}
        return tag_map(answer.get("TagList"))

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_parameter", resource.id, Name=resource.id)
