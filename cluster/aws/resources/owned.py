"""The value of a resource that a cluster owns, and the test of ownership.

Pure; depends on `topology` for the tag keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesaform.topology.names import Tag

KEPT_UNLESS_ASKED = frozenset({"image", "snapshot"})
"""Kinds that a teardown keeps unless the operator asks for their removal."""


STANDING_KINDS = frozenset(
    {"elastic address", "hosted zone", "load balancer", "nat gateway", "vpc endpoint"}
)
"""Kinds whose price is in a cluster's standing cost (`pricing.cluster_cost.standing_items`)."""


@dataclass(frozen=True, slots=True)
class OwnedResource:
    """A resource that carries the cluster's tag.

    `deleted_with_instance` is the instance whose termination deletes the resource.
    `usd_per_hour` is None if no price is known.
    """

    kind: str
    id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
    usd_per_hour: float | None = 0.0
    deleted_with_instance: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """The kind and the id, which together are unique."""
        return self.kind, self.id

    @property
    def name(self) -> str:
        """The tag `Name`, or the id."""
        return self.tags.get(Tag.NAME) or self.id


def is_standing(resource: OwnedResource) -> bool:
    """Whether a resource's price is part of the cluster's standing cost."""
    return resource.kind in STANDING_KINDS


def is_ours(tags: Mapping[str, str], cluster: str) -> bool:
    """Whether tags say that a resource belongs to the cluster: the only test of ownership."""
    return tags.get(Tag.CLUSTER) == cluster
