"""Baseline with the rules of Cluster Autoscaler.

Implemented rules: a scan every 10 s; a template node per group with first-fit-decreasing; ordered
machines count first; the expander least-waste, one group per scan. A node is unneeded below 0.5
(the larger of cpus and memory) when its tasks fit elsewhere. It is removed after 10 min unneeded
and 10 min after the last scale-up: up to ten empty nodes at once, else one with eviction. Nothing
is removed while more than 45 % are not ready.

Simplified: one group per type of the pool; equal zones; a failed group is backed off for 5 min;
eviction is instant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mesaform.autoscaler.model.shape import Shape, contains, minus
from mesaform.aws.ports import Offering
from mesaform.config.schema import ClusterSpec
from mesaform.simulator.baselines.common import Buyer, decreasing, gaps_of, place, utilisation
from mesaform.simulator.world import Behaviour, EventKind, Host, World

SCAN_S = 10.0
UNNEEDED_BELOW = 0.5
UNNEEDED_S = 600.0
AFTER_ADD_S = 600.0
EMPTY_AT_ONCE = 10
BACKOFF_S = 300.0
NOT_READY_SHARE, NOT_READY_LEAST = 0.45, 3
PROVISION_S = 900.0


class ClusterAutoscaler:
    """See `Scaler`."""

    name = "cluster-autoscaler"
    behaviour = Behaviour("spread")

    def __init__(self, spec: ClusterSpec, offerings: Mapping[str, Sequence[Offering]]) -> None:
        self._buyer = Buyer(spec, offerings)
        self._floor = spec.agents[0].floor
        self._unneeded: dict[str, float] = {}
        self._backoff: dict[str, float] = {}
        self._added_at = -math.inf
        self._changed = True
        self._last = -math.inf

    def on_event(self, _happening: EventKind, _now: float) -> None:
        self._changed = True

    def next_wakeup(self, world: World, now: float) -> float:
        scan = max((now // SCAN_S + (now % SCAN_S > 0)) * SCAN_S, self._last + SCAN_S)
        if self._changed:
            return scan
        timers = [
            max(since + UNNEEDED_S, self._added_at + AFTER_ADD_S)
            for since in self._unneeded.values()
        ]
        timers += [host.bought_at + PROVISION_S for host in world.hosts.values() if not host.up]
        timers += list(self._backoff.values()) if world.waiting else []
        at = min(timers, default=math.inf)
        return at if at == math.inf else max(scan, math.ceil(at / SCAN_S) * SCAN_S)

    def reconcile(self, world: World, now: float) -> None:
        self._last, self._changed = now, False
        self._backoff = {name: until for name, until in self._backoff.items() if until > now}
        for host in [
            host
            for host in world.hosts.values()
            if not host.up and now - host.bought_at >= PROVISION_S
        ]:
            world.terminate(host.name, "it never registered")
        if self._scale_up(world, now):
            self._changed = True
            return
        self._scale_down(world, now)

    def _scale_up(self, world: World, now: float) -> bool:
        best = self._least_waste(place(decreasing(world), gaps_of(world.hosts.values())))
        if best is None:
            return False
        waste, offering, count = best
        why = f"least waste of all groups: {waste:.0%}"
        bought = self._buyer.buy(world, [offering], count, why)
        has_room = self._buyer.room(world) > 0
        if bought:
            self._added_at = now
        elif has_room:
            self._backoff[offering.instance_type] = now + BACKOFF_S
        return bool(bought) or has_room

    def _least_waste(self, left: Sequence[Shape]) -> tuple[float, Offering, int] | None:
        """The group that wastes least for these shapes; None if no group holds any of them."""
        groups = (group for group in self._buyer.types if group.instance_type not in self._backoff)
        useful = [option for option in (self._option(group, left) for group in groups) if option[2]]
        return min(
            useful, key=lambda option: (option[0], -option[2], option[1].usd_per_hour), default=None
        )

    def _option(self, offering: Offering, shapes: Sequence[Shape]) -> tuple[float, Offering, int]:
        """Return the wasted part of cpus and memory, the group, and its number of new nodes."""
        total = self._buyer.shapes[offering.instance_type]
        fitting = [shape for shape in shapes if contains(total, shape)]
        if not fitting:
            return (math.inf, offering, 0)
        nodes: list[Shape] = []
        for shape in fitting:
            if place([shape], nodes):
                nodes.append(minus(total, shape))
        waste = (
            sum(1 - sum(shape[d] for shape in fitting) / (len(nodes) * total[d]) for d in (0, 1))
            / 2
        )
        return (waste, offering, len(nodes))

    def _scale_down(self, world: World, now: float) -> None:
        hosts = [host for host in world.hosts.values() if host.ours]
        not_ready = sum(not host.up for host in hosts)
        if not_ready > max(NOT_READY_LEAST, NOT_READY_SHARE * len(hosts)):
            self._unneeded.clear()
            return
        unneeded = self._find_unneeded(world, hosts)
        self._unneeded = {host.name: self._unneeded.get(host.name, now) for host in unneeded}
        if now - self._added_at >= AFTER_ADD_S:
            self._remove(world, unneeded, max(0, len(hosts) - self._floor), now)

    def _remove(self, world: World, unneeded: list[Host], most: int, now: float) -> None:
        """Terminate hosts that were unneeded long enough: empty ones together, else one."""
        ripe = [host for host in unneeded if now - self._unneeded[host.name] >= UNNEEDED_S][:most]
        empty = [host for host in ripe if not host.tasks][:EMPTY_AT_ONCE]
        for host in empty or ripe[:1]:
            world.terminate(host.name, f"unneeded for {now - self._unneeded.pop(host.name):.0f} s")
            self._changed = True

    def _find_unneeded(self, world: World, hosts: list[Host]) -> list[Host]:
        """Nodes under the threshold whose tasks fit on others that stay; emptiest first."""
        gaps = {host.name: host.free for host in hosts if host.up}
        by_use = sorted(hosts, key=lambda host: (len(host.tasks) > 0, utilisation(host)))
        return [host for host in by_use if host.up and _is_unneeded(world, host, gaps)]


def _is_unneeded(world: World, host: Host, gaps: dict[str, Shape]) -> bool:
    """Whether a host is under the threshold and its tasks fit into the gaps of the others.

    The tasks are moved in `gaps` then, and the host leaves it.
    """
    if utilisation(host) >= UNNEEDED_BELOW:
        return False
    names = [name for name in gaps if name != host.name]
    free = [gaps[name] for name in names]
    if place(sorted(world.shapes_on(host), reverse=True), free):
        return False
    gaps.update(zip(names, free, strict=True))
    del gaps[host.name]
    return True
