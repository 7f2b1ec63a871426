"""Deletion of all that carries a cluster's tag, repeated until AWS lists none of it.

The sweep needs no Terraform state: the tag is enough. An error of one resource does not stop the
others; a resource that remains is returned with the reason. A resource without the tag is never
touched. Depends on the registry of kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

from mesaform.aws.client import client
from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource, is_ours
from mesaform.aws.resources.registry import (
    ResourceKind,
    count_by_kind,
    in_deletion_order,
    registered_kinds,
)
from mesaform.common.backoff import Backoff
from mesaform.common.errors import (
    CloudError,
    NotAuthenticated,
    NotFound,
    NotOwned,
    Permanent,
    Retryable,
)

Sleep = Callable[[float], Awaitable[None]]
Key = tuple[str, str]

PERMANENT_TRIES = 3
"""Attempts after permanent errors: until AWS is consistent, a right may seem to be missing."""

LIST_TRIES = 6
"""Attempts at a list that fails with a retryable error."""

BATCH_TRIES = 8
BATCH_PAUSE = Backoff(first_s=1.0, cap_s=20.0)
"""Attempts at a batch of deletions that EC2 throttles, and the pauses between them."""


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

    def note(self, resource: OwnedResource, reason: str) -> None:
        """Note why a resource may still be listed."""
        self.reasons[resource.key] = reason
        self.requested[resource.key] = resource

    def add(self, resource: OwnedResource, error: CloudError | None) -> None:
        """Note the outcome of a requested deletion."""
        if isinstance(error, Permanent):
            count = self.permanent_errors.get(resource.key, 0) + 1
            self.permanent_errors[resource.key] = count
        self.note(resource, "deletion requested; still listed" if error is None else str(error))

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
            candidates = (item for item in await self.list_patiently() if item.kind not in kept)
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
        self._require_ours(resource)
        self._kinds[resource.kind].remove(resource)

    def _require_ours(self, resource: OwnedResource) -> None:
        if not is_ours(resource.tags, self._cluster):
            raise NotOwned(
                f"{resource.id} does not carry the tag of {self._cluster}",
                where=resource.kind,
                fix="it is not removed",
            )

    async def remove_all(
        self,
        resources: Sequence[OwnedResource],
        report: Callable[[str], None] = lambda _: None,
    ) -> dict[Key, CloudError]:
        """Request the deletion of resources of one kind, in batches; returns what was refused.

        A batch that AWS throttles is tried again `BATCH_TRIES` times. One that is refused as a
        whole is split, so that one resource does not keep the others.

        Raises:
            NotOwned: one does not carry this cluster's tag; nothing was requested.
            NotAuthenticated: the credentials are not valid (any more).

        """
        for resource in resources:
            self._require_ours(resource)
        refused: dict[Key, CloudError] = {}
        size = self._kinds[resources[0].kind].batch_size if resources else 1
        for first in range(0, len(resources), size):
            batch = resources[first : first + size]
            refused |= await self._remove_batch(batch, report)
            report(f"{min(first + size, len(resources))} of {len(resources)}")
        return refused

    async def _remove_batch(
        self, batch: Sequence[OwnedResource], report: Callable[[str], None]
    ) -> dict[Key, CloudError]:
        kind, error = self._kinds[batch[0].kind], cast("Retryable | None", None)
        for failures in range(BATCH_TRIES):
            if error is not None:
                pause_s = max(BATCH_PAUSE.delay_s(failures), min(error.after_s, BATCH_PAUSE.cap_s))
                report(f"{error.what.partition(':')[0]}: again in {pause_s:.0f} s")
                await self._sleep(pause_s)
            try:
                await asyncio.to_thread(kind.remove_batch, batch)
            except Retryable as throttled:
                error = throttled
            except NotAuthenticated:
                raise
            except CloudError as refused:
                return await self._split(batch, refused, report)
            else:
                return {}
        return dict.fromkeys((resource.key for resource in batch), cast("CloudError", error))

    async def _split(
        self,
        batch: Sequence[OwnedResource],
        error: CloudError,
        report: Callable[[str], None],
    ) -> dict[Key, CloudError]:
        """Request the deletions of a refused batch in halves. What is absent is no error."""
        if len(batch) == 1:
            return {} if isinstance(error, NotFound) else {batch[0].key: error}
        half = len(batch) // 2
        refused = await self._remove_batch(batch[:half], report)
        return refused | await self._remove_batch(batch[half:], report)

    async def list_patiently(self) -> list[OwnedResource]:
        """See `inventory`; a list that fails with a retryable error is tried again."""
        for _ in range(LIST_TRIES - 1):
            try:
                return await self.inventory()
            except Retryable as error:
                await self._sleep(error.after_s)
        return await self.inventory()

    async def _remove_all(self, listed: Sequence[OwnedResource], progress: _Progress) -> None:
        """Request one deletion of each resource; record errors instead of raising them."""
        instances = {resource.id for resource in listed if resource.kind == "instance"}
        requested: list[OwnedResource] = []
        for resource in listed:
            if resource.deleted_with_instance in instances:
                progress.note(resource, f"deleted with {resource.deleted_with_instance}")
            elif not progress.is_hopeless(resource):
                requested.append(resource)
        for _, group in groupby(requested, key=lambda resource: resource.kind):
            resources = list(group)
            refused = await self._try_to_remove(resources)
            for resource in resources:
                progress.add(resource, refused.get(resource.key))

    async def _try_to_remove(self, resources: Sequence[OwnedResource]) -> dict[Key, CloudError]:
        """Request the deletion of resources of one kind once; returns what was refused.

        Kinds without batches are not tried again here: the next round does.
        """
        if self._kinds[resources[0].kind].batch_size > 1:
            return await self.remove_all(resources)
        refused: dict[Key, CloudError] = {}
        for resource in resources:
            try:
                await asyncio.to_thread(self.remove, resource)
            except NotAuthenticated:
                raise
            except CloudError as error:
                refused[resource.key] = error
        return refused
