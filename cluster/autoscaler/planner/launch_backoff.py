"""Launch budgets: how many machines of an offering may be asked for in one go, and when. Pure.

Halved by each error and doubled by each success; an offering that has nothing is left alone for a while, each time twice as long, and then
tried again. Only what had an error lately has an entry (`PlannerState.backoffs`, so a new leader knows it); all else has `MOST_AT_ONCE`.
Entries are kept by scope (`mesaform.aws.capacity_errors`): an error may be about an offering, a zone or a quota. Which offerings a purchase names is
`scale_up`'s to say; which of them may be asked, and for how many, is said here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesaform.autoscaler.model.planner_state import Backoff
from mesaform.aws import capacity_errors
from mesaform.aws.ports import Capacity, LaunchRequest, LaunchResult, Offering

MOST_AT_ONCE = 500
"""Machines of one offering in one call: half of what EC2 lets an account launch in a burst."""

FIRST_S = 60.0
MOST_S = 600.0
"""How long an offering is left alone after its first error, and at most: what has capacity again is tried within this, if it is wanted."""

PACE_FIRST_S = 2.0
PACE_MOST_S = 60.0
"""How long a pool makes no call after one that gave nothing at all, however many offerings have not been tried yet."""

FORGOTTEN_AFTER_S = 3600.0
"""An error that old says nothing any more."""


@dataclass(slots=True)
class LaunchQuota:
    """What one pass may still ask for; `split` takes from it."""

    backoffs: Mapping[str, Backoff]
    now: float
    _asked: dict[str, int] = field(default_factory=dict)

    def left(self, offering: Offering, pool: str) -> int:
        """How many more machines of an offering may be asked for in this pass; 0 while it is left alone."""
        if blocked(self.backoffs, offering, pool, self.now):
            return 0
        return max(0, window(self.backoffs, offering) - self._asked.get(offering.key, 0))

    def split(
        self, count: int, offerings: Sequence[Offering], pool: str
    ) -> list[tuple[int, tuple[Offering, ...]]]:
        """`count` machines of any of `offerings`, in their order, as calls: each names only what may be asked for its whole count.

        An offering that is being tried out gets a small call of its own, with the others behind it: so trying costs no refused call.
        What no budget is left for is in no call.
        """
        calls: list[tuple[int, tuple[Offering, ...]]] = []
        for first in offerings:
            asked = min(count, self.left(first, pool))
            if asked > 0:
                calls.append(
                    (
                        asked,
                        (
                            first,
                            *(
                                o
                                for o in offerings
                                if o is not first and self.left(o, pool) >= asked
                            ),
                        ),
                    )
                )
                self._asked[first.key] = self._asked.get(first.key, 0) + asked
                count -= asked
        return calls


def blocked(backoffs: Mapping[str, Backoff], offering: Offering, pool: str, now: float) -> bool:
    """Whether an offering is left alone, by its own errors or by what others say of it."""
    return _until(backoffs, offering, pool) > now


def window(backoffs: Mapping[str, Backoff], offering: Offering) -> int:
    """How many machines of an offering may be asked for in one go, once it may be asked at all."""
    own = backoffs.get(offering.key)
    return MOST_AT_ONCE if own is None else max(1, own.window)


def next_try_at(
    backoffs: Mapping[str, Backoff], offerings: Iterable[tuple[str, Offering]], now: float
) -> float | None:
    """When the first of these offerings (each with its pool) that are left alone may be tried again; None when none is."""
    return min(
        (at for pool, offering in offerings if (at := _until(backoffs, offering, pool)) > now),
        default=None,
    )


def narrowed(
    request: LaunchRequest, backoffs: Mapping[str, Backoff], now: float
) -> LaunchRequest | None:
    """A call that was planned before another one of the same pass was refused: what of it may still be asked; None for nothing."""
    usable = tuple(o for o in request.offerings if not blocked(backoffs, o, request.pool, now))
    return replace(request, offerings=usable) if usable else None


def absorb(
    backoffs: Mapping[str, Backoff], request: LaunchRequest, result: LaunchResult, now: float
) -> dict[str, Backoff]:
    """What is known after a call."""
    known = {key: entry for key, entry in backoffs.items() if entry.until + FORGOTTEN_AFTER_S > now}
    given: dict[str, int] = {}
    for machine in result.machines:
        key = f"{machine.instance_type}/{machine.zone}/{machine.capacity}"
        given[key] = given.get(key, 0) + 1
    for key in given:
        _after_success(known, key, now, whole=key not in result.without_capacity)
    for key in result.without_capacity:
        known[key] = _after_error(known.get(key), request.count, given.get(key, 0), now)
    pace = _pace_key(request.pool, request.offerings[0].capacity)
    if result.machines:
        known.pop(pace, None)
    else:
        known[pace] = _paced(known.get(pace), now)
    return known


def refused(
    backoffs: Mapping[str, Backoff], request: LaunchRequest, now: float
) -> dict[str, Backoff]:
    """What is known after the cloud refused a call as such: none of its offerings is asked for a while."""
    return absorb(
        backoffs,
        request,
        LaunchResult((), tuple(offering.key for offering in request.offerings)),
        now,
    )


def _until(backoffs: Mapping[str, Backoff], offering: Offering, pool: str) -> float:
    if not backoffs:
        return 0.0
    keys = (*capacity_errors.concerning(offering), _pace_key(pool, offering.capacity))
    return max((backoffs[key].until for key in keys if key in backoffs), default=0.0)


def _pace_key(pool: str, capacity: Capacity) -> str:
    return f"pool:{pool}/{capacity_errors.ANY}/{capacity}"


def _after_error(before: Backoff | None, asked: int, given: int, now: float) -> Backoff:
    """Half of what was asked, but not less than what was given; left alone for twice as long as the last time."""
    strikes = before.consecutive_errors + 1 if before else 1
    most = min(before.window, asked) if before else asked
    return Backoff(
        now + min(MOST_S, FIRST_S * 2.0 ** min(strikes - 1, 16)), strikes, max(1, given, most // 2)
    )


def _after_success(known: dict[str, Backoff], key: str, now: float, *, whole: bool) -> None:
    """Twice as much the next time, if it gave all it was asked for; what it had been thought to lack, or to say of others, is not so."""
    kind, zone, capacity = key.split("/")
    for conclusion in (capacity_errors.of_zone(zone), capacity_errors.of_quota(kind, capacity)):
        known.pop(conclusion, None)
    like = f"{kind}/{zone}/on-demand"
    if capacity == "spot" and like in known:
        known[like] = replace(known[like], until=now)
    if whole and key in known:
        grown = known.pop(key).window * 2
        if grown < MOST_AT_ONCE:
            known[key] = Backoff(now, 0, max(2, grown))


def _paced(before: Backoff | None, now: float) -> Backoff:
    """A little longer after each call in a row that gave nothing; a row ends when nothing was tried for a while."""
    strikes = before.consecutive_errors + 1 if before and now - before.until < MOST_S else 1
    return Backoff(now + min(PACE_MOST_S, PACE_FIRST_S * 2.0 ** min(strikes - 1, 16)), strikes)
