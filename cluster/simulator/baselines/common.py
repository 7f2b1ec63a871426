"""Shared parts of the baselines: purchases from the single pool, and checks of free capacity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mesaform.autoscaler.model.shape import Shape, contains, minus, shape_of
from mesaform.aws.ports import LaunchRequest, Offering
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.simulator.world import Host, World


class Buyer:
    """The pool of a baseline: its bounds, and its offerings in a zone each.

    Prices do not differ by zone here.
    """

    def __init__(self, spec: ClusterSpec, offerings: Mapping[str, Sequence[Offering]]) -> None:
        self.pool: Pool = spec.agents[0]
        capacity = "spot" if self.pool.spot_share > 0 else "on-demand"
        every = [
            offering for offering in offerings[self.pool.name] if offering.capacity == capacity
        ]
        self.zones: dict[str, list[Offering]] = {}
        for offering in every:
            self.zones.setdefault(offering.instance_type, []).append(offering)
        self.types = sorted(
            (offerings[0] for offerings in self.zones.values()),
            key=lambda offering: (offering.usd_per_hour, offering.instance_type),
        )
        self.shapes = {
            offering.instance_type: shape_of(offering.resources) for offering in self.types
        }
        self._number = 0

    def room(self, world: World) -> int:
        """How many more machines the pool's max allows."""
        return max(0, self.pool.max - len(world.hosts))

    def buy(self, world: World, options: Sequence[Offering], count: int, why: str) -> list[str]:
        """Buy `count` of the first option with capacity in a zone; return the machines' names."""
        count = min(count, self.room(world))
        if count <= 0:
            return []
        self._number += 1
        every = tuple(zone for option in options for zone in self.zones[option.instance_type])
        request = LaunchRequest(
            "simulated", self.pool.name, count, every, f"baseline-{self._number}"
        )
        return [machine.instance_id for machine in world.buy(request, why).machines]


def decreasing(world: World) -> list[Shape]:
    """What waits, one shape a task, by cpus and then memory, the largest first."""
    shapes = [group.shape for group in world.waiting for _ in range(group.count)]
    return sorted(shapes, key=lambda shape: (shape[0], shape[1]), reverse=True)


def place(shapes: Iterable[Shape], gaps: list[Shape]) -> list[Shape]:
    """First fit into the gaps, which are changed in place; returns what does not fit."""
    left: list[Shape] = []
    for shape in shapes:
        for index, gap in enumerate(gaps):
            if contains(gap, shape):
                gaps[index] = minus(gap, shape)
                break
        else:
            left.append(shape)
    return left


def gaps_of(hosts: Iterable[Host]) -> list[Shape]:
    """The free room of hosts that take work or will."""
    return [host.free for host in hosts if not host.cordoned and not host.drained]


def utilisation(host: Host) -> float:
    """The larger of the parts of cpus and memory that are asked for."""
    return max(host.used[0] / max(1, host.total[0]), host.used[1] / max(1, host.total[1]))
