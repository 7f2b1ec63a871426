"""Traces made up by a seed: the same name and seed give the same trace, on every machine."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from mesaform.autoscaler.model.shape import make
from mesaform.common.errors import BadInput
from mesaform.simulator.trace import Task, Trace, starting_at_zero

DAY_S = 86_400.0
HOUR_S = 3_600.0
SMALL = ((0.5, 1024), (1, 2048), (1, 4096), (2, 4096), (2, 8192))
LARGE = ((4, 8192), (4, 16384), (8, 16384), (8, 30000), (15, 30000))


def make_trace(kind: str, seed: int) -> Trace:
    """A made-up trace: `burst` (12 h), `diurnal` (3 days) or `batch` (3 nights).

    Raises:
        BadInput: there is no such kind.

    """
    if kind not in KINDS:
        raise BadInput(
            f"no synthetic trace {kind!r}; there are {', '.join(KINDS)}", where="--synthetic"
        )
    chance = random.Random(f"{kind}/{seed}")  # noqa: S311 - reproducible, not secret
    return starting_at_zero(Trace(f"{kind}-{seed}", tuple(KINDS[kind](chance))))


def _task(
    chance: random.Random,
    sizes: tuple[tuple[float, int], ...],
    at: float,
    mean_s: float,
    *,
    service: bool = False,
) -> Task:
    cpus, mem_mib = chance.choice(sizes)
    runs_s = max(5.0, chance.lognormvariate(math.log(mean_s), 0.8))
    return Task(
        f"t-{at:.0f}",
        f"work-{cpus:g}c-{mem_mib:g}m",
        make(cpus, mem_mib),
        round(at, 1),
        round(runs_s, 1),
        service,
    )


def _burst(chance: random.Random) -> list[Task]:
    """A steady trickle, and six bursts of some hundred tasks that come within a minute."""
    tasks = [_task(chance, SMALL, chance.uniform(0, 12 * HOUR_S), 600) for _ in range(300)]
    for _ in range(6):
        at = chance.uniform(0, 11 * HOUR_S)
        tasks += [
            _task(chance, SMALL + LARGE[:2], at + chance.uniform(0, 60), 900)
            for _ in range(chance.randint(100, 250))
        ]
    return tasks


def _diurnal(chance: random.Random) -> list[Task]:
    """Services and short work that follow the sun: ten times as much at noon as at night."""
    tasks, at = [], 0.0
    while at < 3 * DAY_S:
        strength = 0.1 + 0.9 * max(0.0, math.sin(math.pi * (at % DAY_S) / DAY_S)) ** 2
        at += chance.expovariate(strength / 60.0)
        service = chance.random() < 0.3
        tasks.append(_task(chance, SMALL, at, 2 * HOUR_S if service else 900, service=service))
    return tasks


def _batch(chance: random.Random) -> list[Task]:
    """Each night at two a few hundred large tasks at once; by day hardly anything."""
    tasks = [_task(chance, SMALL, chance.uniform(0, 3 * DAY_S), 1200) for _ in range(200)]
    for night in range(3):
        tasks += [
            _task(chance, LARGE, night * DAY_S + 2 * HOUR_S + chance.uniform(0, 300), 2400)
            for _ in range(300)
        ]
    return tasks


KINDS: Mapping[str, Callable[[random.Random], list[Task]]] = {
    "burst": _burst,
    "diurnal": _diurnal,
    "batch": _batch,
}
