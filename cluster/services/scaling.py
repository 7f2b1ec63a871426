"""How far an app is from what is wanted: how many instances to start and which to kill now. Pure.

An app whose configuration changed is replaced instance by instance: new ones start beside the old within
`maximumOverCapacity`, and old ones go as new ones run, so that `minimumHealthCapacity` of them always run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesaform.services.constraints import value_of
from mesaform.services.model import App, Instance, Standing


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next for one app."""

    launches: int
    kills: tuple[Instance, ...]


def plan(app: App, instances: Iterable[Instance]) -> Step:
    """The next step towards exactly `app.instances` running instances of its present configuration."""
    counted = [instance for instance in instances if instance.counts]
    current = [instance for instance in counted if instance.config_version == app.config_version]
    old = [instance for instance in counted if instance.config_version != app.config_version]
    if not old:
        return Step(
            max(0, app.instances - len(current)), choose(app, current, len(current) - app.instances)
        )
    most, least = _bounds(app)
    launches = max(0, min(app.instances - len(current), most - len(counted)))
    replaced = sum(instance.standing.ready(app) for instance in current)
    if replaced >= app.instances:
        surplus = choose(app, current, len(current) - app.instances)
        return Step(0, (*old, *surplus))
    idle = [instance for instance in old if not instance.running]
    spare = max(0, replaced + len(old) - len(idle) - least)
    working = [instance for instance in old if instance.running]
    return Step(launches, (*idle, *choose(app, working, min(spare, len(working)))))


def _bounds(app: App) -> tuple[int, int]:
    """The most instances at a time and the fewest that run while an app is replaced; the two always leave room for a step."""
    least = math.ceil(app.instances * app.upgrade_strategy.minimum_health_capacity)
    most = app.instances + math.floor(app.instances * app.upgrade_strategy.maximum_over_capacity)
    return max(most, least + 1 if most == least else most), least


def choose(app: App, instances: Sequence[Instance], count: int) -> tuple[Instance, ...]:
    """Which `count` instances to kill: those that do not run first, then by `killSelection`; GROUP_BY keeps its balance."""
    newest_first = app.kill_selection == "YOUNGEST_FIRST"
    left = sorted(
        instances,
        key=lambda item: (
            item.running,
            -item.staged_at if newest_first else item.staged_at,
            item.task_id,
        ),
    )
    field = next(
        (constraint[0] for constraint in app.constraints if constraint[1] == "GROUP_BY"), None
    )
    chosen: list[Instance] = []
    while left and len(chosen) < count:
        victim = left[0] if field is None or not left[0].running else _from_fullest(field, left)
        left.remove(victim)
        chosen.append(victim)
    return tuple(chosen)


def _from_fullest(field: str, instances: Sequence[Instance]) -> Instance:
    sizes = Counter(value_of(field, instance.places) for instance in instances)
    fullest = max(sizes.values())
    return next(
        instance for instance in instances if sizes[value_of(field, instance.places)] == fullest
    )


def simple_step(app: App, tally: Mapping[Standing, int]) -> Step | None:
    """The same as `plan`, when nothing has to be chosen: all that counts is of the present configuration and not too many."""
    counted = 0
    for standing, count in tally.items():
        if standing.counts and standing.config_version != app.config_version:
            return None
        counted += count if standing.counts else 0
    return Step(app.instances - counted, ()) if counted <= app.instances else None


def settled(app: App, tally: Mapping[Standing, int]) -> bool:
    """Whether nothing is left to do or to wait for: exactly what is wanted runs, and is healthy where that is checked."""
    current = others = 0
    for standing, count in tally.items():
        if standing.config_version == app.config_version and standing.ready(app):
            current += count
        elif not standing.inactive:
            others += count
    return current == app.instances and others == 0
