"""Forecast of demand from a weekly profile. Pure.

The profile holds the peak usage of each pool in each of a week's 672 slots of 15 minutes, for the
last eight weeks. A forecast is a weighted quantile over at least two weeks; recent weeks weigh
more. While the usage of the last hour was far below its forecast (a holiday), there is no forecast.
Forecasts have cpus, memory and tasks; disk, ports and gpus are absent. Depends on
`autoscaler.model` only.
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
"""Seconds from Monday to the epoch, which is a Thursday. Weeks begin on Monday, UTC."""

MISSED_SHARE = 0.3
"""Part of the current forecast. A greater shortfall in the last hour suspends forecasts."""

LOOK_BACK_SLOTS = 4
SEEN_SHARE = 0.5
"""Least part of a slot that must be observed for the slot to count."""

UNWATCHED_S = 120.0
"""Longest gap between two leaders. In a longer gap the peak of a slot may be missed."""

DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast of a slot that starts at `at`. `weeks` is the number of past weeks behind it."""

    level: Level
    at: float
    weeks: int

    @property
    def when(self) -> str:
        """Return the weekday and time, such as `Mondays 09:00`."""
        minute = int((self.at + MONDAY_S) % 86400) // 60
        return f"{DAYS[int((self.at + MONDAY_S) // 86400) % 7]} {minute // 60:02}:{minute % 60:02}"


def slot_number(at: float) -> int:
    """Return the number of slots since the Monday before the epoch."""
    return int((at + MONDAY_S) // SLOT_S)


def learn(profile: Profile, levels: Mapping[str, Level], now: float) -> Profile:
    """Add the usage of each pool at `now`."""
    number = slot_number(now)
    if number != profile.slot:
        return Profile(_closed(profile, number), number, now, now, dict(levels))
    most = {pool: _most(profile.most.get(pool), level) for pool, level in levels.items()}
    return replace(profile, until=now, most={**profile.most, **most})


def resume(profile: Profile, now: float) -> Profile:
    """Return the profile of another process for use from `now` on.

    The current slot is discarded when the gap is at least `UNWATCHED_S`.
    """
    return profile if now - profile.until < UNWATCHED_S else replace(profile, slot=-1, most={})


def forecast(
    profile: Profile,
    pool: str,
    at: float,
    quantile: float,
    half_life_weeks: float,
    min_weeks: int = 2,
) -> Forecast | None:
    """Forecast the slot that contains `at` from earlier weeks; None with too few weeks."""
    week, slot = divmod(slot_number(at), SLOTS)
    known = [
        (past.levels[slot], 0.5 ** ((week - past.number) / half_life_weeks))
        for past in _before(profile, pool, week)
        if slot in past.levels
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
    """Return the greatest forecast from now until `lead_s` ahead.

    None without a forecast, and while the last hour was far below its forecast.
    """
    ends = slot_number(now + lead_s)
    times = [slot * SLOT_S - MONDAY_S for slot in range(slot_number(now), ends + 1)]
    forecasts = (forecast(profile, pool, at, quantile, half_life_weeks) for at in times)
    most = max(filter(None, forecasts), key=lambda candidate: candidate.level, default=None)
    if (
        most is None
        or missed(profile, pool, now, quantile, half_life_weeks) > most.level[0] * MISSED_SHARE
    ):
        return None
    return most


def missed(
    profile: Profile, pool: str, now: float, quantile: float, half_life_weeks: float
) -> float:
    """Return the mean shortfall of the last hour against its forecast, in thousandths of cpus.

    Negative when the usage exceeded the forecast.
    """
    number, lacks = slot_number(now), 0
    for slot in range(number - LOOK_BACK_SLOTS, number):
        week = next(
            (week for week in profile.pools.get(pool, ()) if week.number == slot // SLOTS), None
        )
        predicted = forecast(profile, pool, slot * SLOT_S - MONDAY_S, quantile, half_life_weeks)
        if week is not None and predicted is not None and slot % SLOTS in week.levels:
            lacks += predicted.level[0] - week.levels[slot % SLOTS][0]
    return lacks / LOOK_BACK_SLOTS


def _before(profile: Profile, pool: str, week: int) -> list[Week]:
    return [past for past in profile.pools.get(pool, ()) if past.number < week]


def _closed(profile: Profile, now_slot: int) -> dict[str, tuple[Week, ...]]:
    """Return the weeks of each pool with the ended slot added and old weeks removed."""
    oldest = now_slot // SLOTS - KEEP_WEEKS
    pools = {
        pool: tuple(week for week in weeks if week.number >= oldest)
        for pool, weeks in profile.pools.items()
    }
    if profile.slot < 0 or profile.until - profile.since < SLOT_S * SEEN_SHARE:
        return pools
    recorded = {
        pool: _with_level(pools.get(pool, ()), profile.slot, level)
        for pool, level in profile.most.items()
    }
    return {**pools, **recorded}


def _with_level(weeks: Iterable[Week], slot_index: int, level: Level) -> tuple[Week, ...]:
    """Set the level of a slot in the week that contains it."""
    number, slot = divmod(slot_index, SLOTS)
    by_number = {week.number: week for week in weeks}
    levels = by_number.get(number, Week(number)).levels
    by_number[number] = Week(number, {**levels, slot: level})
    return tuple(by_number[key] for key in sorted(by_number))


def _most(earlier: Level | None, level: Level) -> Level:
    if earlier is None:
        return level
    return (max(earlier[0], level[0]), max(earlier[1], level[1]), max(earlier[2], level[2]))


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
