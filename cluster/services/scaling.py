"""The next step of one app: how many instances to start and which to kill now. No I/O.

An app whose configuration changed is replaced gradually: new instances start beside the old ones
within `maximumOverCapacity`; old ones are killed as new ones run, so that `minimumHealthCapacity`
of the app's instances always run (Marathon 1.11, `upgradeStrategy`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesaform.services.constraints import value_of
from mesaform.services.model import App, Condition, Instance


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next for one app."""

    launches: int
    kills: tuple[Instance, ...]


def plan(app: App, instances: Iterable[Instance]) -> Step:
    """The next step towards `app.instances` running instances of its present configuration."""
    counted = [instance for instance in instances if instance.is_counted]
    current = [instance for instance in counted if instance.config_version == app.config_version]
    old = [instance for instance in counted if instance.config_version != app.config_version]
    if old:
        return _plan_replacement(app, current, old)
    surplus = len(current) - app.instances
    return Step(max(0, -surplus), choose_kills(app, current, surplus))


def _plan_replacement(app: App, current: Sequence[Instance], old: Sequence[Instance]) -> Step:
    most, least_running = _bounds(app)
    ready = sum(instance.condition.is_ready(app) for instance in current)
    if ready >= app.instances:
        return Step(0, (*old, *choose_kills(app, current, len(current) - app.instances)))
    launches = min(app.instances - len(current), most - len(current) - len(old))
    running = [instance for instance in old if instance.is_running]
    not_running = [instance for instance in old if not instance.is_running]
    spare = min(max(0, ready + len(running) - least_running), len(running))
    return Step(max(0, launches), (*not_running, *choose_kills(app, running, spare)))


def _bounds(app: App) -> tuple[int, int]:
    """The most instances at a time and the fewest that run during a replacement.

    The first is at least one more than the second, so that a step is always possible.
    """
    least = math.ceil(app.instances * app.upgrade_strategy.minimum_health_capacity)
    most = app.instances + math.floor(app.instances * app.upgrade_strategy.maximum_over_capacity)
    return max(most, least + 1 if most == least else most), least


def choose_kills(app: App, instances: Iterable[Instance], count: int) -> tuple[Instance, ...]:
    """The `count` instances to kill: first those that do not run, then by `killSelection`.

    With a GROUP_BY constraint each running instance is taken from the fullest group.
    """
    remaining = sorted(instances, key=lambda instance: _kill_order(app, instance))
    group_field = next((parts[0] for parts in app.constraints if parts[1] == "GROUP_BY"), None)
    chosen: list[Instance] = []
    while remaining and len(chosen) < count:
        first = remaining[0]
        if group_field is not None and first.is_running:
            first = _first_of_fullest_group(group_field, remaining)
        remaining.remove(first)
        chosen.append(first)
    return tuple(chosen)


def _kill_order(app: App, instance: Instance) -> tuple[bool, float, str]:
    is_newest_first = app.kill_selection == "YOUNGEST_FIRST"
    age_key = -instance.staged_at if is_newest_first else instance.staged_at
    return instance.is_running, age_key, instance.task_id


def _first_of_fullest_group(field: str, instances: Sequence[Instance]) -> Instance:
    sizes = Counter(value_of(field, instance.agent_fields) for instance in instances)
    fullest = max(sizes.values())
    return next(
        instance
        for instance in instances
        if sizes[value_of(field, instance.agent_fields)] == fullest
    )


def simple_step(app: App, tally: Mapping[Condition, int]) -> Step | None:
    """The step of `plan` from counts alone; None when instances must be chosen.

    It suffices when all instances have the present configuration and none is surplus.
    """
    counted = 0
    for condition, count in tally.items():
        if not condition.is_counted:
            continue
        if condition.config_version != app.config_version:
            return None
        counted += count
    return Step(app.instances - counted, ()) if counted <= app.instances else None


def is_settled(app: App, tally: Mapping[Condition, int]) -> bool:
    """Whether exactly the wanted instances run, and are healthy where health is checked."""
    ready = others = 0
    for condition, count in tally.items():
        if condition.config_version == app.config_version and condition.is_ready(app):
            ready += count
        elif not condition.is_inactive:
            others += count
    return ready == app.instances and others == 0
