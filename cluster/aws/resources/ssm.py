"""SSM parameters."""

from __future__ import annotations

from mesaform.aws.resources.kind import Resources, TaggedKind
from mesaform.aws.resources.owned import OwnedResource
from mesaform.aws.resources.registry import register
from mesaform.topology.names import Tag


@register
class Parameters(TaggedKind):
    kind = "parameter"
    service = "ssm"
    depends_on = ("instance",)  # the autoscaler reads the cluster's spec from it

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        filters = [{"Key": f"tag:{Tag.CLUSTER}", "Values": [self._cluster]}]
        return [
            OwnedResource(self.kind, raw["Name"], {Tag.CLUSTER: self._cluster})
            for page in self._pages("describe_parameters", ParameterFilters=filters)
            for raw in page["Parameters"]
        ]

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_parameter", resource.id, Name=resource.id)
