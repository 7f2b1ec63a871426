"""Which of the open offers an app's instances go to, by the strategy of placement. Pure.

Depends on `mesaform.placement`. What is known of an agent are its offer and this framework's
instances on it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.placement.preference import AgentUse, Rank, Strategy, rank
from mesaform.placement.run_times import RunTimes
from mesaform.services.matching import OpenOffer
from mesaform.services.model import Instance

NANOSECONDS = 1e9

MOST_REOPENINGS = 10
"""How often in a batch offers are examined again that an app's constraints refused.

Instances beyond that are placed with the next offers.
"""


@dataclass(slots=True)
class AgentLoad:
    """Own instances on an agent: how many of each app, and the last expected end."""

    apps: dict[str, int] = field(default_factory=dict)
    ends_at: float = 0.0

    @property
    def tasks(self) -> int:
        return sum(self.apps.values())

    def add(self, app_id: str, ends_at: float) -> None:
        self.apps[app_id] = self.apps.get(app_id, 0) + 1
        self.ends_at = max(self.ends_at, ends_at)


class OfferChoice:
    """The open offers of a batch, for each app in the order of its preference.

    Args:
        offers: the offers.
        instances: instances of this framework, of all agents.
        strategy: pack or spread.
        run_times: learned run times of apps.
        now: epoch seconds.
        grouped: apps that are spread by a constraint, whatever the strategy.

    """

    def __init__(
        self,
        offers: Sequence[OpenOffer],
        instances: Iterable[Instance],
        strategy: Strategy,
        run_times: RunTimes,
        now: float,
        grouped: Container[str] = (),
    ) -> None:
        self._grouped = grouped
        self._offers = offers
        self._strategy: Strategy = strategy
        self._run_times = run_times
        self._now = now
        self._loads = {offer.offer.agent_id.value: AgentLoad() for offer in offers}
        self._heaps: dict[str, list[tuple[Rank, int]]] = {}
        self._refused: dict[str, list[int]] = {}
        self._reopenings: dict[str, int] = {}
        self._may_reopen: set[str] = set()
        self._free: dict[int, tuple[float, float]] = {}
        for instance in instances:
            self._count(instance)

    def best(self, app_id: str) -> OpenOffer | None:
        """The preferred offer that has not refused the app; None when none is left."""
        if app_id not in self._heaps:
            heap = [(self._rank(app_id, n), n) for n in range(len(self._offers))]
            heapq.heapify(heap)
            self._heaps[app_id] = heap
        heap = self._heaps[app_id]
        if not heap:
            self._reopen(app_id)
        while heap:
            known, number = heap[0]
            present = self._rank(app_id, number)
            if present <= known:
                return self._offers[number]
            heapq.heapreplace(heap, (present, number))
        return None

    def _reopen(self, app_id: str) -> None:
        """Offers whose refusal was not final, if an instance was placed since."""
        times = self._reopenings.get(app_id, 0)
        if app_id not in self._may_reopen or times >= MOST_REOPENINGS:
            return
        self._may_reopen.discard(app_id)
        self._reopenings[app_id] = times + 1
        for number in self._refused.pop(app_id, ()):
            heapq.heappush(self._heaps[app_id], (self._rank(app_id, number), number))

    def refuse(self, app_id: str, *, is_final: bool) -> None:
        """The app does not fit on its preferred offer; it may later, unless that is final."""
        _, number = heapq.heappop(self._heaps[app_id])
        if not is_final:
            self._refused.setdefault(app_id, []).append(number)

    def take(self, app_id: str, instance: Instance) -> None:
        """An instance was placed on the app's preferred offer."""
        self._count(instance)
        self._free.pop(self._heaps[app_id][0][1], None)
        self._may_reopen.add(app_id)

    def _count(self, instance: Instance) -> None:
        load = self._loads.get(instance.agent_id)
        if load is not None:
            since = instance.started_at or instance.staged_at
            ends_at = self._run_times.end_of(instance.app_id, since, self._now)
            load.add(instance.app_id, ends_at)

    def _rank(self, app_id: str, number: int) -> Rank:
        offer = self._offers[number]
        load = self._loads[offer.offer.agent_id.value]
        if number not in self._free:
            free: Mapping[str, int] = offer.remaining.milli
            self._free[number] = (free.get("cpus", 0) / 1000, free.get("mem", 0) / 1000)
        use = AgentUse(
            *self._free[number],
            load.tasks,
            load.apps.get(app_id, 0),
            load.ends_at,
            _leaves_at(offer),
        )
        strategy = "spread" if app_id in self._grouped else self._strategy
        return rank(strategy, use, self._run_times.end_of(app_id, self._now, self._now))


def _leaves_at(offer: OpenOffer) -> float:
    """When the agent of an offer is announced to become unavailable (epoch seconds)."""
    unavailability = offer.offer.unavailability
    return math.inf if unavailability is None else unavailability.start.nanoseconds / NANOSECONDS
