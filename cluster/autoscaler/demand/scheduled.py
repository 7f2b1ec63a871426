"""Demand of work to come: hints, the calendar and the weekly profile. Pure.

Work that runs or waits counts towards each, and nothing counts twice. A hint is measured from the
least that was in use since it was given: work that came since takes its place. The calendar and the
profile are total use, so everything that runs counts, and capacity kept for hints too; the profile
adds what the calendar lacks. Both are bought ahead by the boot time of machines and a margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from mesaform.autoscaler.demand.headroom import in_pool
from mesaform.autoscaler.demand.usage import ALL, Use
from mesaform.autoscaler.forecasting import weekly_profile
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import (
    MANY,
    NOTHING,
    Shape,
    how_often,
    make,
    minus,
    plus,
    text,
    times,
)
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.weekly_profile import Level
from mesaform.aws.overrides import Override, in_force
from mesaform.config import calendar
from mesaform.config.schema import Expected

BOOT_SHARE = 0.25
"""Boot time as a part of `boot_timeout_s`, until a machine of the autoscaler has booted."""

STEP_S = 60.0


@dataclass(slots=True)
class _Room:
    """What is in use by pool, and capacity that is kept already."""

    used: Mapping[str, Use]
    first: str
    kept: dict[str, Shape] = field(default_factory=dict)

    def counted(self, pool: str) -> Shape:
        return plus(self.used.get(pool, Use()).amount, self.kept.get(pool, NOTHING))

    def keep(self, unit: DemandItem, pool: str) -> DemandItem:
        for name in (pool or self.first, ALL):
            self.kept[name] = plus(self.kept.get(name, NOTHING), times(unit.shape, unit.count))
        return unit


def units(snapshot: Snapshot, used: Mapping[str, Use], now: float) -> list[DemandItem]:
    """All capacity to keep for work to come."""
    room, lead_s = _Room(used, snapshot.spec.agents[0].name), lead(snapshot)
    return (
        _hinted(snapshot, room, now)
        + _scheduled(snapshot, room, lead_s, now)
        + _forecast(snapshot, room, lead_s, now)
    )


def lead(snapshot: Snapshot) -> float:
    """Time by which capacity is bought ahead (s): the median boot time, and the margin."""
    settings, registered = snapshot.spec.autoscaler, snapshot.state.registered_at
    took = [
        registered[machine.instance_id] - machine.launched_at
        for machine in snapshot.machines
        if machine.instance_id in registered
        and 0 < registered[machine.instance_id] - machine.launched_at <= settings.boot_timeout_s
    ]
    return (
        median(took) if took else settings.boot_timeout_s * BOOT_SHARE
    ) + settings.ahead_margin_s


def levels(used: Mapping[str, Use]) -> dict[str, Level]:
    """What is in use by pool, as the weekly profile learns it."""
    return {
        pool: (use.amount[0], use.amount[1], use.pieces)
        for pool, use in used.items()
        if pool != ALL
    }


def baselines(snapshot: Snapshot, used: Mapping[str, Use], now: float) -> dict[str, Shape]:
    """The least that was in use since each hint was given, by override id."""
    before, least = snapshot.state.hint_baselines, {}
    for hint in _hints(snapshot, now):
        used_now = used.get(hint.pool, Use()).amount
        least[hint.id] = _each(min, used_now, before.get(hint.id, used_now))
    return least


def _hints(snapshot: Snapshot, now: float) -> list[Override]:
    return [order for order in in_force(snapshot.overrides, now) if order.kind == "hint"]


def _hinted(snapshot: Snapshot, room: _Room, now: float) -> list[DemandItem]:
    """Capacity of hints. Work that came since takes the place of the oldest hint first."""
    items: list[DemandItem] = []
    taken: list[
        tuple[str, Shape, Shape]
    ] = []  # by older hints: pool, what came since, how much of it they took
    for hint in _hints(snapshot, now):
        shape = make(hint.cpus, hint.mem_mib)
        here = room.used.get(hint.pool, Use()).amount
        came = _each(
            max,
            minus(here, _each(min, here, snapshot.state.hint_baselines.get(hint.id, here))),
            NOTHING,
        )
        mine = came
        for pool, before, part in taken:
            if hint.pool in {pool, ALL} or pool == ALL:
                mine = minus(
                    mine, _each(max, minus(part, _each(max, minus(before, came), NOTHING)), NOTHING)
                )
        arrived = min(hint.count, how_often(shape, _each(max, mine, NOTHING)))
        taken.append((hint.pool, came, times(shape, arrived)))
        if arrived < hint.count:
            reason = Reason.of(
                ReasonCode.HINT,
                count=hint.count,
                cpus=hint.cpus,
                mem_mib=hint.mem_mib,
                pool=hint.pool,
                by=hint.by,
                until_epoch_s=hint.until,
                note=hint.reason,
                arrived=arrived,
            )
            unit = DemandItem(
                "hint",
                f"hint {hint.id}",
                shape,
                hint.count - arrived,
                (reason,),
                in_pool(hint.pool),
            )
            items.append(room.keep(unit, hint.pool))
    return items


def _scheduled(snapshot: Snapshot, room: _Room, lead_s: float, now: float) -> list[DemandItem]:
    """What the calendar says will be in use, less what is."""
    items: list[DemandItem] = []
    for index, entry in enumerate(snapshot.spec.autoscaler.calendar):
        shape, pool = make(entry.cpus, entry.mem_mib), entry.pool or ALL
        there = min(entry.count, how_often(shape, room.counted(pool)))
        if there < entry.count and _opens(entry, now, lead_s):
            reason = Reason.of(
                ReasonCode.CALENDAR,
                count=entry.count,
                resources=text(shape),
                days=entry.days,
                hours=entry.hours,
                present=there,
            )
            unit = DemandItem(
                "calendar",
                f"calendar {index}",
                shape,
                entry.count - there,
                (reason,),
                in_pool(entry.pool),
            )
            items.append(room.keep(unit, pool))
    return items


def _opens(entry: Expected, now: float, lead_s: float) -> bool:
    moments = [now + step * STEP_S for step in range(int(lead_s // STEP_S) + 1)]
    return any(calendar.is_open(entry.days, entry.hours, at) for at in (*moments, now + lead_s))


def _forecast(snapshot: Snapshot, room: _Room, lead_s: float, now: float) -> list[DemandItem]:
    """What past weeks say will be in use, less what is, in pieces of the size of tasks then."""
    settings, known = snapshot.spec.autoscaler.profile, snapshot.profile
    if not settings.enabled or known is None:
        return []
    items: list[DemandItem] = []
    for pool in snapshot.spec.agents:
        expected = weekly_profile.expected(
            known, pool.name, now, lead_s, settings.quantile, settings.half_life_weeks
        )
        if expected is None:
            continue
        there = room.counted(pool.name)
        shape, count = _lacking(expected.level, there)
        if count:
            reason = Reason.of(
                ReasonCode.WEEKLY_PROFILE,
                weeks=expected.weeks,
                slot=expected.when,
                used_cpus=expected.level[0] / 1000,
                used_mem_mib=expected.level[1] / 1000,
                percentile=settings.quantile * 100,
                pool=pool.name,
                present_cpus=there[0] / 1000,
                present_mem_mib=there[1] / 1000,
            )
            unit = DemandItem(
                "profile", f"profile of {pool.name}", shape, count, (reason,), in_pool(pool.name)
            )
            items.append(room.keep(unit, pool.name))
    return items


def _lacking(level: Level, there: Shape) -> tuple[Shape, int]:
    """The average shape of a task in the profile, and how many of them are missing."""
    cpus, mem, tasks = level
    shape: Shape = (math.ceil(cpus / max(1, tasks)), math.ceil(mem / max(1, tasks)), 0, 0, 0)
    lacks = [(cpus - there[0], shape[0]), (mem - there[1], shape[1])]
    count = max((math.ceil(lack / size) for lack, size in lacks if size and lack > 0), default=0)
    return shape, min(count, MANY)


def _each(choose: Callable[[int, int], int], a: Shape, b: Shape) -> Shape:
    return (
        choose(a[0], b[0]),
        choose(a[1], b[1]),
        choose(a[2], b[2]),
        choose(a[3], b[3]),
        choose(a[4], b[4]),
    )
