"""Karpenter: batches of what waits, first-fit-decreasing over real types, the cheapest type that holds it; consolidation.

Published rules kept: a batch closes 1 s after the last or 10 s after the first arrival; tasks go to existing and coming machines first,
then to new machines (fewest tasks first) as long as one type holds them all; lowest price on demand. Consolidation looks each 10 s: empty
machines, then the longest prefix (at most 100, binary search) of machines by disruption that fits on the rest and at most one cheaper
machine, then single ones; validated 15 s later; `consolidateAfter` counts from when tasks last came or went; 10 % of machines at a time,
rounded up; the replacement is up before the old ones drain; an offering without capacity is left alone for 3 min; a machine not
registered after 15 min goes.
Two policies: WhenEmptyOrUnderutilized (the default) and WhenEmpty, which people choose whose work must not be moved.
Simplified: one NodePool; the disruption cost of a machine is its number of tasks; no spot-to-spot moves; nothing is consolidated while
work waits; evicted tasks stop at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, plus
from mesaform.aws.ports import Offering
from mesaform.config.schema import ClusterSpec
from mesaform.simulator.baselines.common import Buyer, decreasing, gaps_of, place
from mesaform.simulator.world import EventKind, Host, World

BATCH_IDLE_S, BATCH_MOST_S = 1.0, 10.0
POLL_S = 10.0
VALIDATE_S = 15.0
CONSOLIDATE_AFTER_S = 0.0
BUDGET = 0.1
MULTI_AT_MOST = 100
UNAVAILABLE_S = 180.0
REGISTER_S = 900.0


@dataclass
class Claim:
    """A machine to be: what it holds, and the types that hold it, cheapest first."""

    used: Shape
    options: list[Offering]
    tasks: int = 1


@dataclass
class Command:
    """Machines to go, the types that may replace them (none: nothing does), and how far it has come."""

    names: list[str]
    options: list[Offering]
    validate_at: float
    replacement: str = ""
    started: bool = False
    why: str = ""


@dataclass
class Batch:
    first: float = math.inf
    last: float = math.inf

    @property
    def closes_at(self) -> float:
        return min(self.first + BATCH_MOST_S, self.last + BATCH_IDLE_S)


@dataclass
class _State:
    batch: Batch = field(default_factory=Batch)
    commands: list[Command] = field(default_factory=list)
    unavailable: dict[str, float] = field(default_factory=dict)
    poll_at: float = 0.0
    retry_at: float = math.inf
    changed: bool = True


class Karpenter:
    """See `Scaler`. `consolidate_after_s` is `consolidateAfter`; without `moves`, only empty machines are consolidated."""

    def __init__(
        self,
        spec: ClusterSpec,
        offerings: Mapping[str, Sequence[Offering]],
        consolidate_after_s: float = CONSOLIDATE_AFTER_S,
        *,
        moves: bool = True,
    ) -> None:
        self._buyer = Buyer(spec, offerings)
        self._floor = spec.agents[0].floor
        self._moves = moves
        self._after_s = consolidate_after_s
        self._state = _State()
        self.name = "karpenter" if moves else "karpenter-when-empty"

    def on_event(self, happening: EventKind, now: float) -> None:
        state = self._state
        state.changed = True
        if happening in {"arrived", "lost"}:
            state.batch.first = min(state.batch.first, now)
            state.batch.last = now

    def next_wakeup(self, world: World, now: float) -> float:
        state = self._state
        times = [state.batch.closes_at, state.retry_at]
        times += [command.validate_at for command in state.commands if not command.started]
        times += [host.bought_at + REGISTER_S for host in world.hosts.values() if not host.up]
        if any(
            command.replacement and world.hosts[command.replacement].up
            for command in state.commands
            if command.replacement in world.hosts
        ):
            return now
        if state.commands or (state.changed and world.hosts):
            times.append(max(state.poll_at, math.ceil(now / POLL_S) * POLL_S))
        return min(times)

    def reconcile(self, world: World, now: float) -> None:
        state = self._state
        for host in [
            host
            for host in world.hosts.values()
            if not host.up and now - host.bought_at >= REGISTER_S
        ]:
            world.terminate(host.name, "it never registered")
            state.batch = Batch(now, now - BATCH_IDLE_S)
        if min(state.batch.closes_at, state.retry_at) <= now:
            state.batch = Batch()
            self._provision(world, now)
        self._advance(world, now)
        if state.poll_at <= now:
            state.poll_at = now + POLL_S
            self._consolidate(world, now)

    # buying

    def _provision(self, world: World, now: float) -> None:
        state = self._state
        state.retry_at = math.inf
        left = place(decreasing(world), gaps_of(world.hosts.values()))
        for claim in self._claims(left, now):
            options = [
                option
                for option in claim.options
                if state.unavailable.get(option.instance_type, 0) <= now
            ]
            if not options or not self._buyer.buy(
                world, options[:1], 1, f"{claim.tasks} tasks, the cheapest type that holds them"
            ):
                for option in options[:1]:
                    state.unavailable[option.instance_type] = now + UNAVAILABLE_S
                state.retry_at = now + BATCH_IDLE_S if options else now + UNAVAILABLE_S
                if not self._buyer.room(world):
                    state.retry_at = math.inf

    def _claims(self, shapes: Sequence[Shape], now: float) -> list[Claim]:
        """First fit decreasing onto machines to be."""
        types = [
            option
            for option in self._buyer.types
            if self._state.unavailable.get(option.instance_type, 0) <= now
        ]
        claims: list[Claim] = []
        for shape in shapes:
            for claim in sorted(claims, key=lambda claim: claim.tasks):
                used = plus(claim.used, shape)
                if options := self._holding(used, claim.options):
                    claim.used, claim.options, claim.tasks = used, options, claim.tasks + 1
                    break
            else:
                if options := self._holding(shape, types):
                    claims.append(Claim(shape, options))
        return claims

    def _holding(self, load: Shape, options: Sequence[Offering]) -> list[Offering]:
        return [
            option for option in options if contains(self._buyer.shapes[option.instance_type], load)
        ]

    # consolidating

    def _consolidate(self, world: World, now: float) -> None:
        state = self._state
        state.changed = False
        if world.waiting or state.commands:
            state.changed = bool(state.commands)
            return
        hosts = [host for host in world.hosts.values() if host.ours and not host.cordoned]
        ready = [host for host in hosts if host.up and now - host.changed_at >= self._after_s]
        state.changed = len(ready) < len(hosts)  # some become candidates later
        allowed = min(math.ceil(len(world.hosts) * BUDGET), max(0, len(hosts) - self._floor))
        if allowed and (command := self._find(world, ready, allowed, now)):
            state.commands.append(command)
            state.changed = True

    def _find(self, world: World, ready: list[Host], allowed: int, now: float) -> Command | None:
        empty = [host.name for host in ready if not host.tasks][:allowed]
        if empty or not self._moves:
            return Command(empty, [], now + VALIDATE_S, why="empty") if empty else None
        candidates = sorted(ready, key=lambda host: (len(host.tasks), host.bought_at))
        low, high, best = 2, min(MULTI_AT_MOST, allowed, len(candidates)), None
        while low <= high:
            middle = (low + high) // 2
            options = self._instead(world, candidates[:middle])
            if options is None:
                high = middle - 1
            else:
                best, low = (candidates[:middle], options), middle + 1
        if best is not None:
            return Command(
                [host.name for host in best[0]],
                best[1],
                now + VALIDATE_S,
                why="several fit on fewer",
            )
        for host in candidates:
            if (options := self._instead(world, [host])) is not None:
                return Command(
                    [host.name],
                    options,
                    now + VALIDATE_S,
                    why="its tasks fit elsewhere" if not options else "a cheaper type",
                )
        return None

    def _instead(self, world: World, going: Sequence[Host]) -> list[Offering] | None:
        """The cheaper types of which one may replace these; none needed: an empty list; None: they must stay."""
        names = {host.name for host in going}
        shapes = sorted(
            (shape for host in going for shape in world.shapes_on(host)),
            key=lambda shape: (shape[0], shape[1]),
            reverse=True,
        )
        left = place(
            shapes, gaps_of(host for host in world.hosts.values() if host.name not in names)
        )
        if not left:
            return []
        load = NOTHING
        for shape in left:
            load = plus(load, shape)
        price = sum(host.usd_per_hour for host in going)
        if any(host.offering.capacity == "spot" for host in going):
            return None
        cheaper = [
            option
            for option in self._holding(load, self._buyer.types)
            if option.usd_per_hour < price - 1e-9
        ]
        if len(going) > 1:
            cheaper = [
                option
                for option in cheaper
                if option.instance_type not in {host.offering.instance_type for host in going}
            ]
        return cheaper or None

    def _advance(self, world: World, now: float) -> None:
        """Validate, replace, drain: each command as far as it goes now."""
        for command in list(self._state.commands):
            if not command.started and command.validate_at <= now:
                self._start(world, command)
            if command.started and self._replaced(world, command):
                for name in command.names:
                    if name in world.hosts:
                        world.terminate(name, f"consolidation: {command.why}")
                self._state.commands.remove(command)

    def _start(self, world: World, command: Command) -> None:
        hosts = [world.hosts[name] for name in command.names if name in world.hosts]
        options = self._instead(world, hosts)
        if command.why == "empty":
            hosts = [host for host in hosts if not host.tasks]
            options = []
        if not hosts or options is None or world.waiting or (options and not command.options):
            self._state.commands.remove(command)
            command.started = False
            return
        if options:
            bought = self._buyer.buy(
                world, options[:1], 1, f"instead of {', '.join(command.names)}"
            )
            if not bought:
                self._state.commands.remove(command)
                return
            command.replacement = bought[0]
        for host in hosts:
            world.cordon(host.name)
        command.names = [host.name for host in hosts]
        command.started = True

    def _replaced(self, world: World, command: Command) -> bool:
        if not command.replacement:
            return True
        host = world.hosts.get(command.replacement)
        if host is None:  # it never came, or was taken back: the old ones stay
            for name in command.names:
                if name in world.hosts:
                    world.uncordon(name)
            self._state.commands.remove(command)
            return False
        return host.up
