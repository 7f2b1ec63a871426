"""Network Load Balancers, their listeners and target groups.

ELB has no filter by tag: everything is listed, and the tags are read in batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from mesaform.aws.pricing.rates import BOOK
from mesaform.aws.resources.kind import Raw, Resources, TaggedKind, in_batches, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound

TAGGED_AT_ONCE = 20
"""The most resources of one call of DescribeTags (ELB API reference)."""


class _ElbKind(TaggedKind):
    """A kind that is named by an ARN. `id_key` is the field and argument with the ARN."""

    service = "elbv2"
    id_key: ClassVar[str]
    usd_per_hour: ClassVar[float] = 0.0

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        raws = {raw[self.id_key]: raw for raw in self._raws()}
        return [
            OwnedResource(self.kind, arn, tags, self._detail(raws[arn]), self.usd_per_hour)
            for arn, tags in self._tags([*raws])
            if is_ours(tags, self._cluster)
        ]

    def _raws(self) -> Iterator[Raw]:
        raise NotImplementedError

    def _detail(self, raw: Raw) -> str:
        return f"{raw.get('Protocol', '')} {raw.get('Port', '')}".strip()

    def _tags(self, arns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        for batch in in_batches(arns, TAGGED_AT_ONCE):
            for entry in self._descriptions(batch):
                yield entry["ResourceArn"], tag_map(entry["Tags"])

    def _descriptions(self, arns: Sequence[str]) -> Sequence[Raw]:
        """The tags of each; one that was deleted since the list makes the call fail for all."""
        try:
            answer = self._call("describe_tags", f"of {self.kind}", ResourceArns=arns)
        except NotFound:
            if len(arns) == 1:
                return []
            return [entry for arn in arns for entry in self._descriptions([arn])]
        descriptions: Sequence[Raw] = answer["TagDescriptions"]
        return descriptions


@register
class LoadBalancers(_ElbKind):
    kind = "load balancer"
    depends_on = ("listener",)
    id_key = "LoadBalancerArn"
    usd_per_hour = BOOK.load_balancer_usd_per_hour

    def _raws(self) -> Iterator[Raw]:
        for page in self._pages("describe_load_balancers"):
            yield from page["LoadBalancers"]

    def _detail(self, raw: Raw) -> str:
        return str(raw.get("DNSName", ""))

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_load_balancer", resource.id, LoadBalancerArn=resource.id)


@register
class Listeners(_ElbKind):
    kind = "listener"
    depends_on = ("instance",)
    id_key = "ListenerArn"

    def _raws(self) -> Iterator[Raw]:
        """The listeners of the cluster's load balancers: ELB lists those of one at a time."""
        for balancer in LoadBalancers(self._client, self._cluster, self._region).list():
            try:
                for page in self._pages("describe_listeners", LoadBalancerArn=balancer.id):
                    yield from page["Listeners"]
            except NotFound:  # deleted since it was listed
                continue

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_listener", resource.id, ListenerArn=resource.id)


@register
class TargetGroups(_ElbKind):
    kind = "target group"
    depends_on = ("load balancer",)
    id_key = "TargetGroupArn"

    def _raws(self) -> Iterator[Raw]:
        for page in self._pages("describe_target_groups"):
            yield from page["TargetGroups"]

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_target_group", resource.id, TargetGroupArn=resource.id)
