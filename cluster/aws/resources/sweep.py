"""Deletion of all that carries a cluster's tag, repeated until AWS lists none of it.

The sweep needs no Terraform state: the tag is enough. An error of one resource does not stop the
others; a resource that remains is returned with the reason. A resource without the tag is never
touched. Depends on the registry of kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.aws.client import client
from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource, is_ours
from mesaform.aws.resources.registry import (
    ResourceKind,
    count_by_kind,
    in_deletion_order,
    registered_kinds,
)
from mesaform.common.errors import CloudError, NotOwned, Permanent, Retryable

Sleep = Callable[[float], Awaitable[None]]
Key = tuple[str, str]

PERMANENT_TRIES = 3
"""Attempts after permanent errors: until AWS is consistent, a right may seem to be missing."""

LIST_TRIES = 6
"""Attempts at a list that fails with a retryable error."""


def resource_kinds(cluster: str, region: str) -> tuple[ResourceKind, ...]:
    """Return every registered kind with a client of its service, in the order of deletion."""
    return tuple(
        kind_class(client(kind_class.service, region), cluster, region)
        for kind_class in registered_kinds().values()
    )


@dataclass(frozen=True, slots=True)
class Remaining:
    """A resource that is still listed, and the reason."""

    resource: OwnedResource
    reason: str


@dataclass(slots=True)
class SweepResult:
    """Outcome of a sweep: what it removed, what remains, and how many times it listed."""

    removed: list[OwnedResource] = field(default_factory=list)
    remaining: list[Remaining] = field(default_factory=list)
    rounds: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing remains."""
        return not self.remaining

    def removed_counts(self) -> dict[str, int]:
        """How many resources of each kind were removed."""
        return count_by_kind(self.removed)


@dataclass(slots=True)
class _Progress:
    """State over the rounds of one sweep, by resource.

    Attributes:
        requested: resources whose deletion was requested, or that are deleted with an instance.
        permanent_errors: how many permanent errors each deletion met.
        reasons: why each was still listed after the last round.

    """

    requested: dict[Key, OwnedResource] = field(default_factory=dict)
    permanent_errors: dict[Key, int] = field(default_factory=dict)
    reasons: dict[Key, str] = field(default_factory=dict)

    def is_hopeless(self, resource: OwnedResource) -> bool:
        return self.permanent_errors.get(resource.key, 0) >= PERMANENT_TRIES

    def result(self, listed: Sequence[OwnedResource], rounds: int) -> SweepResult:
        keys = {resource.key for resource in listed}
        removed = [resource for key, resource in self.requested.items() if key not in keys]
        remaining = [
            Remaining(resource, self.reasons.get(resource.key, "still listed"))
            for resource in listed
        ]
        return SweepResult(removed, remaining, rounds)


class Sweep:
    """All resources of one cluster, by tag.

    Args:
        kinds: the kinds to look at (`resource_kinds`).
        cluster: the cluster's name.
        sleep: how to wait between rounds (`asyncio.sleep`, or virtual time).
        rounds: how many times to list at most; with `pause_s` between them, a bound on the time.
        pause_s: seconds between two rounds.

    """

    def __init__(
        self,
        kinds: Sequence[ResourceKind],
        cluster: str,
        *,
        sleep: Sleep = asyncio.sleep,
        rounds: int = 200,
        pause_s: float = 3.0,
    ) -> None:
        self._kinds: Mapping[str, ResourceKind] = {kind.kind: kind for kind in kinds}
        self._cluster = cluster
        self._sleep = sleep
        self._rounds = rounds
        self._pause_s = pause_s

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds that the sweep looks at."""
        return tuple(self._kinds)

    async def inventory(self, kinds: Collection[str] | None = None) -> list[OwnedResource]:
        """List the cluster's resources (of `kinds`, if given), in the order of deletion.

        Raises:
            Retryable: a list failed, so that nothing can be concluded from an absence.
            Permanent: the right to list is missing.

        """
        selected = [kind for name, kind in self._kinds.items() if kinds is None or name in kinds]
        lists = [await asyncio.to_thread(kind.list) for kind in selected]
        return in_deletion_order(resource for listed in lists for resource in listed)

    def describe(self, resource: OwnedResource) -> str:
        """Describe a resource in one line for people."""
        return self._kinds[resource.kind].describe(resource)

    async def run(
        self,
        *,
        images: bool = False,
        wanted: Callable[[OwnedResource], bool] = lambda _: True,
        report: Callable[[str], None] = lambda _: None,
    ) -> SweepResult:
        """Remove all that `wanted` accepts until AWS lists none of it or the rounds are used up.

        Args:
            images: whether images and snapshots are removed as well.
            wanted: which of the cluster's resources to remove; others are ignored.
            report: receives the counts of what remains, before each round.

        """
        progress, result = _Progress(), SweepResult()
        for number in range(self._rounds):
            kept = frozenset() if images else KEPT_UNLESS_ASKED
            candidates = (item for item in await self._list_patiently() if item.kind not in kept)
            listed = list(filter(wanted, candidates))
            result = progress.result(listed, number + 1)
            if all(map(progress.is_hopeless, listed)):
                break
            counts = count_by_kind(listed)
            report(", ".join(f"{count} {kind}" for kind, count in counts.items()))
            if number:
                await self._sleep(self._pause_s)
            await self._remove_all(listed, progress)
        return result

    def remove(self, resource: OwnedResource) -> None:
        """Request the deletion of one resource. Idempotent. Blocks.

        Raises:
            NotOwned: it does not carry this cluster's tag.
            Retryable, Permanent: see `ResourceKind.remove`.

        """
        if not is_ours(resource.tags, self._cluster):
            raise NotOwned(
                f"{resource.id} does not carry the tag of {self._cluster}",
                where=resource.kind,
                fix="it is not removed",
            )
        self._kinds[resource.kind].remove(resource)

    async def _list_patiently(self) -> list[OwnedResource]:
        for _ in range(LIST_TRIES - 1):
            try:
                return await self.inventory()
            except Retryable as error:
                await self._sleep(error.after_s)
        return await self.inventory()

    async def _remove_all(self, listed: Sequence[OwnedResource], progress: _Progress) -> None:
        """Request one deletion of each resource; record errors instead of raising them."""
        instances = {resource.id for resource in listed if resource.kind == "instance"}
        for resource in listed:
            if resource.deleted_with_instance in instances:
                reason = f"deleted with {resource.deleted_with_instance}"
            elif progress.is_hopeless(resource):
                continue
            else:
                reason = await self._try_to_remove(resource, progress)
            progress.reasons[resource.key] = reason
            progress.requested[resource.key] = resource

    async def _try_to_remove(self, resource: OwnedResource, progress: _Progress) -> str:
        """Request a deletion; return why the resource may still be listed."""
        try:
            await asyncio.to_thread(self.remove, resource)
        except Permanent as error:
            count = progress.permanent_errors.get(resource.key, 0) + 1
            progress.permanent_errors[resource.key] = count
            return str(error)
        except CloudError as error:
            return str(error)
        return "deletion requested; still listed"
