"""Baseline with the rules of Karpenter: batches, first-fit-decreasing, consolidation.

Published rules kept: a batch closes 1 s after the last or 10 s after the first arrival; tasks go to
existing and coming machines first, then to new machines (fewest tasks first) as long as one type
holds them all; lowest price on demand. Consolidation looks each 10 s: empty machines, then the
longest prefix (at most 100, binary search) of machines by disruption that fits on the rest and at
most one cheaper machine, then single ones; validated 15 s later; `consolidateAfter` counts from
when tasks last came or went; 10 % of machines at a time, rounded up; the replacement is up before
the old ones drain; an offering without capacity is left alone for 3 min; a machine not registered
after 15 min goes. Two policies: WhenEmptyOrUnderutilized (the default) and WhenEmpty, which people
choose whose work must not be moved. Simplified: one NodePool; the disruption cost of a machine is
its number of tasks; no spot-to-spot moves; nothing is consolidated while work waits; evicted tasks
stop at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, plus
from mesaform.aws.ports import Offering
from mesaform.config.schema import ClusterSpec
from mesaform.simulator.baselines.common import Buyer, decreasing, gaps_of, place
from mesaform.simulator.world import Behaviour, EventKind, Host, World

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
    """A disruption: the machines, the types that may replace them, and the progress."""

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
    """See `Scaler`. `consolidate_after_s` is `consolidateAfter`.

    Without `moves` only empty machines are consolidated.
    """

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
        self.behaviour = Behaviour("spread")
        self.name = "karpenter" if moves else "karpenter-when-empty"

    def on_event(self, happening: EventKind, now: float) -> None:
        state = self._state
        state.changed = True
        if happening in {"arrived", "lost"}:
            state.batch.first = min(state.batch.first, now)
            state.batch.last = now

    def next_wakeup(self, world: World, now: float) -> float:
        state = self._state
        if any(self._is_replacement_up(world, command) for command in state.commands):
            return now
        times = [state.batch.closes_at, state.retry_at]
        times += [command.validate_at for command in state.commands if not command.started]
        times += _registration_deadlines(world)
        if state.commands or (state.changed and world.hosts):
            times.append(max(state.poll_at, math.ceil(now / POLL_S) * POLL_S))
        return min(times)

    def _is_replacement_up(self, world: World, command: Command) -> bool:
        host = world.hosts.get(command.replacement)
        return host is not None and host.up

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
            options = self._available(claim.options, now)[:1]
            why = f"{claim.tasks} tasks, the cheapest type that holds them"
            if options and self._buyer.buy(world, options, 1, why):
                continue
            for option in options:
                state.unavailable[option.instance_type] = now + UNAVAILABLE_S
            state.retry_at = now + (BATCH_IDLE_S if options else UNAVAILABLE_S)
            if not self._buyer.room(world):
                state.retry_at = math.inf

    def _available(self, options: Sequence[Offering], now: float) -> list[Offering]:
        """Options that had capacity when last asked for."""
        unavailable = self._state.unavailable
        return [option for option in options if unavailable.get(option.instance_type, 0) <= now]

    def _claims(self, shapes: Sequence[Shape], now: float) -> list[Claim]:
        """First fit decreasing onto machines to be."""
        types = self._available(self._buyer.types, now)
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
        if world.waiting or state.commands:
            state.changed = bool(state.commands)
            return
        hosts = [host for host in world.hosts.values() if host.ours and not host.cordoned]
        ready = self._settled(hosts, now)
        state.changed = len(ready) < len(hosts)  # some become candidates later
        allowed = min(math.ceil(len(world.hosts) * BUDGET), max(0, len(hosts) - self._floor))
        command = self._find(world, ready, allowed, now) if allowed else None
        if command is not None:
            state.commands.append(command)
            state.changed = True

    def _settled(self, hosts: Sequence[Host], now: float) -> list[Host]:
        """Hosts that registered and have not changed for `consolidateAfter`."""
        return [host for host in hosts if host.up and now - host.changed_at >= self._after_s]

    def _find(self, world: World, ready: list[Host], allowed: int, now: float) -> Command | None:
        """The next consolidation: empty hosts, else several for fewer, else one."""
        validate_at = now + VALIDATE_S
        empty = [host.name for host in ready if not host.tasks][:allowed]
        if empty:
            return Command(empty, [], validate_at, why="empty")
        if not self._moves:
            return None
        candidates = sorted(ready, key=lambda host: (len(host.tasks), host.bought_at))
        several = self._find_several(world, candidates, min(MULTI_AT_MOST, allowed))
        if several is not None:
            hosts, options = several
            names = [host.name for host in hosts]
            return Command(names, options, validate_at, why="several fit on fewer")
        return self._find_one(world, candidates, validate_at)

    def _find_one(self, world: World, candidates: list[Host], validate_at: float) -> Command | None:
        """The first candidate that a cheaper machine, or none, replaces."""
        for host in candidates:
            options = self._instead(world, [host])
            if options is not None:
                why = "a cheaper type" if options else "its tasks fit elsewhere"
                return Command([host.name], options, validate_at, why=why)
        return None

    def _find_several(
        self, world: World, candidates: list[Host], most: int
    ) -> tuple[list[Host], list[Offering]] | None:
        """The longest prefix of candidates that fewer machines replace, by binary search."""
        low, high, best = 2, min(most, len(candidates)), None
        while low <= high:
            middle = (low + high) // 2
            options = self._instead(world, candidates[:middle])
            if options is None:
                high = middle - 1
            else:
                best, low = (candidates[:middle], options), middle + 1
        return best

    def _instead(self, world: World, going: Sequence[Host]) -> list[Offering] | None:
        """The cheaper types of which one may replace these hosts.

        An empty list means that none is needed, None that the hosts must stay.
        """
        left = self._shapes_without_place(world, going)
        if not left:
            return []
        if any(host.offering.capacity == "spot" for host in going):
            return None
        load = NOTHING
        for shape in left:
            load = plus(load, shape)
        return self._cheaper(going, self._holding(load, self._buyer.types)) or None

    def _cheaper(self, going: Sequence[Host], options: Sequence[Offering]) -> list[Offering]:
        """Options that cost less than the hosts; for several hosts none of their own types."""
        most_usd = sum(host.usd_per_hour for host in going) - 1e-9
        excluded = {host.offering.instance_type for host in going} if len(going) > 1 else set()
        return [
            option
            for option in options
            if option.usd_per_hour < most_usd and option.instance_type not in excluded
        ]

    def _shapes_without_place(self, world: World, going: Sequence[Host]) -> list[Shape]:
        """Shapes of tasks on these hosts that fit on no other host."""
        names = {host.name for host in going}
        shapes = [shape for host in going for shape in world.shapes_on(host)]
        shapes.sort(key=lambda shape: (shape[0], shape[1]), reverse=True)
        staying = (host for host in world.hosts.values() if host.name not in names)
        return place(shapes, gaps_of(staying))

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
        """Validate a command and begin it: buy its replacement, cordon its hosts."""
        hosts, options = self._validated(world, command)
        if not hosts or options is None:
            self._state.commands.remove(command)
            command.started = False
            return
        if options:
            why = f"instead of {', '.join(command.names)}"
            bought = self._buyer.buy(world, options[:1], 1, why)
            if not bought:
                self._state.commands.remove(command)
                return
            command.replacement = bought[0]
        for host in hosts:
            world.cordon(host.name)
        command.names = [host.name for host in hosts]
        command.started = True

    def _validated(
        self, world: World, command: Command
    ) -> tuple[list[Host], list[Offering] | None]:
        """The hosts that may still go and what may replace them; None: the command is void."""
        hosts = _hosts_of(world, command)
        if world.waiting:
            return hosts, None
        if command.why == "empty":
            return [host for host in hosts if not host.tasks], []
        options = self._instead(world, hosts)
        needs_replacement = bool(options) and not command.options
        return hosts, None if needs_replacement else options

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


def _registration_deadlines(world: World) -> list[float]:
    """When each host that has not registered is given up."""
    return [host.bought_at + REGISTER_S for host in world.hosts.values() if not host.up]


def _hosts_of(world: World, command: Command) -> list[Host]:
    """The hosts of a command that still exist."""
    return [world.hosts[name] for name in command.names if name in world.hosts]
