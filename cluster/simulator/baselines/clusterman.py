"""clusterman: capacity = what is allocated / setpoint, outside a margin, each ten minutes.

It does not see work that waits.

Published rules kept: setpoint 0.7, margin 0.1, the larger of cpus and memory decides, a period of
600 s, victims by idleness and then fewest tasks, a maintenance window of 600 s and termination 90 s
later without looking again. Simplified: one resource group, of the cheapest type of the policy's
pool that holds every kind of task of the trace; never below one machine, since from nothing
allocated it would ask for nothing for ever; machines in their window stay cordoned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mesaform.autoscaler.model.shape import Shape, contains
from mesaform.aws.ports import Offering
from mesaform.config.schema import ClusterSpec
from mesaform.simulator.baselines.common import Buyer
from mesaform.simulator.world import Behaviour, EventKind, Host, World

SETPOINT = 0.7
MARGIN = 0.1
PERIOD_S = 600.0
WINDOW_S = 600.0
AFTER_WINDOW_S = 90.0


class Clusterman:
    """See `Scaler`."""

    name = "clusterman"
    behaviour = Behaviour()

    def __init__(self, spec: ClusterSpec, offerings: Mapping[str, Sequence[Offering]]) -> None:
        self._buyer = Buyer(spec, offerings)
        self._least = max(1, spec.agents[0].floor)
        self._next = 0.0
        self._leaving: dict[str, float] = {}
        self._changed = True
        self._option: Offering | None = None

    def on_event(self, _happening: EventKind, _now: float) -> None:
        self._changed = True

    def next_wakeup(self, _world: World, now: float) -> float:
        leaving = min(self._leaving.values(), default=math.inf)
        return min(
            leaving,
            max(self._next, math.ceil(now / PERIOD_S) * PERIOD_S) if self._changed else math.inf,
        )

    def reconcile(self, world: World, now: float) -> None:
        for name, at in list(self._leaving.items()):
            if at <= now or name not in world.hosts:
                del self._leaving[name]
                world.terminate(name, "its maintenance window is over")
        if now < self._next:
            return
        self._next = (now // PERIOD_S + 1) * PERIOD_S
        self._changed = False
        self._resize(world, now)

    def _resize(self, world: World, now: float) -> None:
        option = self._type(world)
        staying = [host for host in world.hosts.values() if host.name not in self._leaving]
        target = self._target(world, staying, option)
        if target > len(staying):
            self._changed = (
                True  # what it buys changes what is allocated: look again in the next period
            )
            self._buyer.buy(
                world,
                [option],
                target - len(staying),
                f"allocated / {SETPOINT:g} asks for {target} machines",
            )
        elif target < len(staying):
            for host in sorted(staying, key=lambda host: (len(host.tasks), host.bought_at))[
                : len(staying) - target
            ]:
                world.cordon(host.name)
                self._leaving[host.name] = now + WINDOW_S + AFTER_WINDOW_S

    def _target(self, world: World, staying: list[Host], option: Offering) -> int:
        """How many machines: the margin keeps small changes out."""
        shape = self._buyer.shapes[option.instance_type]
        wanted = 0.0
        for dimension in (0, 1):
            used = sum(host.used[dimension] for host in world.hosts.values())
            have = sum(host.total[dimension] for host in staying)
            if have and abs(used / SETPOINT - have) / have <= MARGIN:
                need = float(len(staying))
            else:
                need = len(staying) + (used / SETPOINT - have) / shape[dimension]
            wanted = max(wanted, need)
        return max(self._least, math.ceil(wanted - 1e-9))

    def _type(self, world: World) -> Offering:
        """The cheapest type that holds every kind of task that any type holds.

        An operator would have chosen it.
        """
        if self._option is None:
            largest = self._largest_task(world)
            shapes = self._buyer.shapes
            fitting = (
                option
                for option in self._buyer.types
                if contains(shapes[option.instance_type], largest)
            )
            self._option = next(fitting, self._buyer.types[-1])
        return self._option

    def _largest_task(self, world: World) -> Shape:
        """The largest cpus, memory and disk of the tasks that some type holds."""
        sizes = list(self._buyer.shapes.values())
        shapes = (work.task.shape for work in world.work)
        able = [shape for shape in shapes if any(contains(size, shape) for size in sizes)]
        cpus, mem, disk = (max((shape[d] for shape in able), default=0) for d in range(3))
        return (cpus, mem, disk, 0, 0)
