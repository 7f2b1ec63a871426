"""The week as it usually goes: what ran in each quarter of an hour of past weeks, and from it what the next one will need. Pure.

Kept is the most that ran at a time in each of a week's 672 slots, by pool, for the last eight weeks. A forecast is a quantile over
the weeks, recent ones weighing more; it takes at least two. A day that is not like the others (a holiday) costs little: while
the last hour lacked much of what is foretold, nothing is believed. Disk, ports and gpus are not foretold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mesaform.autoscaler.model.weekly_profile import Level, Profile, Week

SLOT_S = 900
SLOTS = 672
WEEK_S = SLOT_S * SLOTS
KEEP_WEEKS = 8
MONDAY_S = 3 * 86400
"""The epoch began on a Thursday; weeks here begin on Monday, UTC."""

MISSED_SHARE = 0.3
"""Nothing is believed while the last hour lacked more than this part of what is foretold now."""

LOOK_BACK_SLOTS = 4
SEEN_SHARE = 0.5
"""A slot that was watched for less than this part of it teaches nothing."""

UNWATCHED_S = 120.0
"""Between two leaders; a slot unwatched for longer may have missed its peak."""

DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a slot will need. `weeks` is how many past weeks say so."""

    level: Level
    at: float
    weeks: int

    @property
    def when(self) -> str:
        """Such as `Mondays 09:00`."""
        minute = int((self.at + MONDAY_S) % 86400) // 60
        return f"{DAYS[int((self.at + MONDAY_S) // 86400) % 7]} {minute // 60:02}:{minute % 60:02}"


def slot_number(at: float) -> int:
    """Slots since the Monday before the epoch."""
    return int((at + MONDAY_S) // SLOT_S)


def learn(profile: Profile, levels: Mapping[str, Level], now: float) -> Profile:
    """What runs at this moment, by pool."""
    number = slot_number(now)
    if number != profile.slot:
        return Profile(_closed(profile, number), number, now, now, dict(levels))
    most = {pool: _most(profile.most.get(pool), level) for pool, level in levels.items()}
    return replace(profile, until=now, most={**profile.most, **most})


def resume(profile: Profile, now: float) -> Profile:
    """A profile as another process left it: the slot under way begins anew if nobody watched for a while."""
    return profile if now - profile.until < UNWATCHED_S else replace(profile, slot=-1, most={})


def forecast(
    profile: Profile,
    pool: str,
    at: float,
    quantile: float,
    half_life_weeks: float,
    min_weeks: int = 2,
) -> Forecast | None:
    """What the slot of a moment will need by the weeks before its own; None while too few are known."""
    week, slot = divmod(slot_number(at), SLOTS)
    known = [
        (one.levels[slot], 0.5 ** ((week - one.number) / half_life_weeks))
        for one in _before(profile, pool, week)
        if slot in one.levels
    ]
    if len(known) < min_weeks:
        return None
    cpus = _quantile([(level[0], weight) for level, weight in known], quantile)
    mem = _quantile([(level[1], weight) for level, weight in known], quantile)
    tasks = _quantile([(level[2], weight) for level, weight in known], quantile)
    return Forecast((cpus, mem, tasks), slot_number(at) * SLOT_S - MONDAY_S, len(known))


def expected(
    profile: Profile, pool: str, now: float, lead_s: float, quantile: float, half_life_weeks: float
) -> Forecast | None:
    """The most that is foretold from now until `lead_s` ahead; None when nothing is, or when what was foretold lately did not come."""
    ends = slot_number(now + lead_s)
    times = [slot * SLOT_S - MONDAY_S for slot in range(slot_number(now), ends + 1)]
    found = [
        one
        for at in times
        if (one := forecast(profile, pool, at, quantile, half_life_weeks)) is not None
    ]
    most = max(found, key=lambda one: one.level, default=None)
    if (
        most is None
        or missed(profile, pool, now, quantile, half_life_weeks) > most.level[0] * MISSED_SHARE
    ):
        return None
    return most


def missed(
    profile: Profile, pool: str, now: float, quantile: float, half_life_weeks: float
) -> float:
    """By how much, on average over the slots of the last hour, less came than was foretold: cpus in thousandths; below 0: more came."""
    number, lacks = slot_number(now), 0
    for slot in range(number - LOOK_BACK_SLOTS, number):
        this = next(
            (one for one in profile.pools.get(pool, ()) if one.number == slot // SLOTS), None
        )
        said = forecast(profile, pool, slot * SLOT_S - MONDAY_S, quantile, half_life_weeks)
        if this is not None and said is not None and slot % SLOTS in this.levels:
            lacks += said.level[0] - this.levels[slot % SLOTS][0]
    return lacks / LOOK_BACK_SLOTS


def _before(profile: Profile, pool: str, week: int) -> list[Week]:
    return [one for one in profile.pools.get(pool, ()) if one.number < week]


def _closed(profile: Profile, now_slot: int) -> dict[str, tuple[Week, ...]]:
    """The pools with the slot that ended written down, and without weeks that are too old."""
    oldest = now_slot // SLOTS - KEEP_WEEKS
    pools = {
        pool: tuple(one for one in weeks if one.number >= oldest)
        for pool, weeks in profile.pools.items()
    }
    if profile.slot < 0 or profile.until - profile.since < SLOT_S * SEEN_SHARE:
        return pools
    number, slot = divmod(profile.slot, SLOTS)
    for pool, level in profile.most.items():
        weeks = {one.number: one for one in pools.get(pool, ())}
        weeks[number] = Week(number, {**weeks.get(number, Week(number)).levels, slot: level})
        pools[pool] = tuple(weeks[one] for one in sorted(weeks))
    return pools


def _most(one: Level | None, other: Level) -> Level:
    return (
        other
        if one is None
        else (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))
    )


def _quantile(values: Iterable[tuple[int, float]], quantile: float) -> int:
    """The least value that at least `quantile` of the weight does not exceed."""
    ordered = sorted(values)
    wanted = quantile * sum(weight for _, weight in ordered) - 1e-9
    reached = 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= wanted:
            return value
    return ordered[-1][0]
