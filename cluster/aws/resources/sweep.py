"""The sweep: list everything that carries the cluster's tag, remove it in order, and again, until the cloud lists nothing.

It needs no state and no plan: whatever was lost or half made, the tag is enough. Errors of one resource do not stop the others;
what would not go when the time is up is returned with the reason. It never touches what does not carry the tag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from mesaform.aws import client
from mesaform.aws.resources.ec2 import EC2_LISTERS, Lister
from mesaform.aws.resources.other import (
    EventRules,
    InstanceProfiles,
    LogGroups,
    Parameters,
    Policies,
    Queues,
    Roles,
)
from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource, counts, in_order, is_ours
from mesaform.common.errors import CloudError, NotOwned, Permanent, Retryable

Sleep = Callable[[float], Awaitable[None]]
PERMANENT_TRIES = (
    3  # rights and arguments do not mend themselves, but eventual consistency can look like either
)


def aws_listers(cluster: str, region: str) -> tuple[Lister, ...]:
    """Every lister, on the cloud that the environment points at."""
    ec2, iam, ssm, logs, events, sqs = (
        client.client(service, region) for service in ("ec2", "iam", "ssm", "logs", "events", "sqs")
    )
    return (
        *(lister(ec2, cluster) for lister in EC2_LISTERS),
        EventRules(events, cluster),
        Queues(sqs, cluster),
        InstanceProfiles(iam, cluster),
        Roles(iam, cluster),
        Policies(iam, cluster),
        Parameters(ssm, cluster),
        LogGroups(logs, cluster),
    )


@dataclass(frozen=True, slots=True)
class Left:
    """A resource that would not go, and why."""

    resource: OwnedResource
    why: str


@dataclass(slots=True)
class Swept:
    """What a sweep did: what it asked to remove and is gone, and what is left. `rounds` is how often it listed."""

    removed: list[OwnedResource] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    rounds: int = 0

    @property
    def is_clean(self) -> bool:
        return not self.left

    def removed_counts(self) -> dict[str, int]:
        return counts(self.removed)


class Sweep:
    """Everything of one cluster, by tag.

    Args:
        sleep: how to wait between rounds (asyncio.sleep, or virtual time).
        rounds: how often to list before giving up; with `pause_s` between, a bound on the whole.

    """

    def __init__(
        self,
        listers: Sequence[Lister],
        cluster: str,
        *,
        sleep: Sleep = asyncio.sleep,
        rounds: int = 200,
        pause_s: float = 3.0,
    ) -> None:
        self._listers = {lister.kind: lister for lister in listers}
        self._cluster = cluster
        self._sleep = sleep
        self._rounds = rounds
        self._pause_s = pause_s

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._listers)

    async def inventory(self, kinds: Collection[str] | None = None) -> list[OwnedResource]:
        """What the cloud lists now, in the order in which it can go.

        Raises:
            Retryable: a list could not be had: nothing may be concluded from its absence.
            Permanent: the right to list is missing.

        """
        wanted = [
            lister for kind, lister in self._listers.items() if kinds is None or kind in kinds
        ]
        lists = [await asyncio.to_thread(lister.list) for lister in wanted]
        return in_order(resource for found in lists for resource in found)

    def describe(self, resource: OwnedResource) -> str:
        return self._listers[resource.kind].describe(resource)

    async def run(
        self,
        *,
        images: bool = False,
        wanted: Callable[[OwnedResource], bool] = lambda _: True,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Swept:
        """Remove all that `wanted` accepts until the cloud lists none of it, or the rounds are used up.

        Args:
            images: whether images and snapshots go as well.
            wanted: which of the cluster's resources to remove; the rest is left alone and not counted.
            tell: is told where the sweep is.

        """
        swept, asked = Swept(), dict[tuple[str, str], OwnedResource]()
        tries: dict[tuple[str, str], int] = {}
        why: dict[tuple[str, str], str] = {}
        for number in range(self._rounds):
            swept.rounds = number + 1
            there = [
                one
                for one in await self._patient_inventory()
                if wanted(one) and (images or one.kind not in KEPT_UNLESS_ASKED)
            ]
            swept.removed = [
                one for key, one in asked.items() if key not in {left.key for left in there}
            ]
            swept.left = [Left(one, why.get(one.key, "still listed")) for one in there]
            hopeless = [one for one in there if tries.get(one.key, 0) >= PERMANENT_TRIES]
            if not there or len(hopeless) == len(there):
                break
            tell(", ".join(f"{count} {kind}" for kind, count in counts(there).items()))
            if number:
                await self._sleep(self._pause_s)
            await self._round(there, asked, tries, why)
        return swept

    async def _patient_inventory(self) -> list[OwnedResource]:
        for _ in range(5):
            try:
                return await self.inventory()
            except Retryable as error:
                await self._sleep(error.after_s)
        return await self.inventory()

    async def _round(
        self,
        there: Sequence[OwnedResource],
        asked: dict[tuple[str, str], OwnedResource],
        tries: dict[tuple[str, str], int],
        why: dict[tuple[str, str], str],
    ) -> None:
        present = {one.id for one in there if one.kind == "instance"}
        for resource in there:
            if resource.deleted_with_instance in present:
                why[resource.key] = f"goes with {resource.deleted_with_instance}"
                asked[resource.key] = resource
                continue
            if tries.get(resource.key, 0) >= PERMANENT_TRIES:
                continue
            try:
                await asyncio.to_thread(self.remove, resource)
            except Permanent as error:
                tries[resource.key] = tries.get(resource.key, 0) + 1
                why[resource.key] = str(error)
            except CloudError as error:
                why[resource.key] = str(error)
            else:
                why[resource.key] = "asked to go; still listed"
            asked[resource.key] = resource

    def remove(self, resource: OwnedResource) -> None:
        """Remove one.

        Raises:
            NotOwned: it does not carry this cluster's tag.
            Retryable, Permanent: as the lister says.

        """
        if not is_ours(resource.tags, self._cluster):
            raise NotOwned(
                f"{resource.id} does not carry the tag of {self._cluster}",
                where=resource.kind,
                fix="it is left alone",
            )
        self._listers[resource.kind].remove(resource)
