"""What a run leaves behind: bills, entries, levels over time, and the figures made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mesaform.autoscaler.model.shape import Shape

LEAST_BILLED_S = 60.0
"""EC2 bills Linux by the second with a minimum of a minute."""


@dataclass(frozen=True, slots=True)
class Bill:
    """One machine's life; epoch seconds."""

    machine: str
    offering: str
    usd_per_hour: float
    bought_at: float
    gone_at: float

    @property
    def seconds(self) -> float:
        return max(LEAST_BILLED_S, self.gone_at - self.bought_at)

    @property
    def usd(self) -> float:
        return self.usd_per_hour * self.seconds / 3600


@dataclass(frozen=True, slots=True)
class Entry:
    """An action of a policy: `count` machines (or disrupted tasks) of a type, and the reason."""

    at: float
    kind: str
    count: int
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Level:
    """From `at` on: machines, their price, cpus (cores) they have and use, tasks waiting."""

    at: float
    machines: int
    usd_per_hour: float
    cpus: float
    cpus_used: float
    waiting: int


@dataclass(frozen=True, slots=True)
class Figures:
    """A run in numbers. Times in seconds, utilisation as parts of what was paid for."""

    tasks: int
    ended: int
    never_placed: int
    usd: float
    machine_hours: float
    machines_bought: int
    machines_most: int
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    wait_mean_s: float
    cpu_utilisation: float
    mem_utilisation: float
    task_hours: float
    disruptions: int
    disruptions_per_1000_task_hours: float
    interruptions: int
    lost_task_hours: float
    makespan_s: float
    looks: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` of them do not exceed; 0 when there are none."""
    if not ordered:
        return 0.0
    return ordered[
        max(0, min(len(ordered) - 1, -(-int(part * 1_000_000) * len(ordered) // 1_000_000) - 1))
    ]


@dataclass
class Record:
    """Filled while a world runs."""

    started_at: float
    bills: list[Bill] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    disruptions: int = 0
    interruptions: int = 0
    lost_s: float = 0.0
    looks: int = 0
    ended_at: float = 0.0
    _work: list[tuple[float | None, float, float]] = field(default_factory=list)
    _integral: list[float] = field(default_factory=lambda: [0.0] * 4)
    _last: tuple[float, Shape, Shape] | None = None

    def note(
        self,
        now: float,
        machines: int,
        usd_per_hour: float,
        total: Shape,
        used: Shape,
        waiting: int,
    ) -> None:
        """The levels from now on."""
        self._integrate(now)
        self._last = (now, total, used)
        level = Level(now, machines, usd_per_hour, total[0] / 1000, used[0] / 1000, waiting)
        if self.levels and self.levels[-1].at == now:
            self.levels[-1] = level
        else:
            self.levels.append(level)

    def finish(self, now: float, work: list[tuple[float | None, float, float]]) -> None:
        """Compute the totals.

        `work` has the seconds that each task waited (None if it never ended), ran, and should run.
        """
        self._integrate(now)
        self.ended_at = now
        self._work = work
        self.waits = sorted(waited for waited, _, _ in work if waited is not None)

    def figures(self) -> Figures:
        """The numbers of a finished run."""
        task_s = sum(ran_s for _, ran_s, _ in self._work)
        machine_s = sum(bill.gone_at - bill.bought_at for bill in self.bills)
        cpus, cpus_used, mem, mem_used = self._integral
        waits = self.waits
        return Figures(
            tasks=len(self._work),
            ended=len(waits),
            never_placed=len(self._work) - len(waits),
            usd=round(sum(bill.usd for bill in self.bills), 4),
            machine_hours=round(machine_s / 3600, 3),
            machines_bought=len(self.bills),
            machines_most=max((level.machines for level in self.levels), default=0),
            wait_p50_s=round(percentile(waits, 0.5), 1),
            wait_p95_s=round(percentile(waits, 0.95), 1),
            wait_p99_s=round(percentile(waits, 0.99), 1),
            wait_mean_s=round(_ratio(sum(waits), len(waits)), 1),
            cpu_utilisation=round(_ratio(cpus_used, cpus), 4),
            mem_utilisation=round(_ratio(mem_used, mem), 4),
            task_hours=round(task_s / 3600, 2),
            disruptions=self.disruptions,
            disruptions_per_1000_task_hours=round(_ratio(self.disruptions, task_s / 3.6e6), 3),
            interruptions=self.interruptions,
            lost_task_hours=round(self.lost_s / 3600, 2),
            makespan_s=round(self.ended_at - self.started_at, 1),
            looks=self.looks,
        )

    def _integrate(self, now: float) -> None:
        if self._last is None:
            return
        since, total, used = self._last
        passed = now - since
        for index, amount in enumerate((total[0], used[0], total[1], used[1])):
            self._integral[index] += amount * passed
        self._last = (now, total, used)


def _ratio(amount: float, whole: float) -> float:
    """`amount` by `whole`; 0 where there is no whole."""
    return amount / whole if whole else 0.0
