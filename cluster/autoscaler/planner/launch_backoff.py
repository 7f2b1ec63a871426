"""Back-off of launches: how many machines of an offering may be requested at once, and when. Pure.

Each capacity error halves the number and blocks the offering, each time twice as long; each success
doubles the number. Only offerings with a recent error have an entry in `PlannerState.backoffs`, so
a new leader knows them; all others may be requested `MAX_AT_ONCE` at a time. Entries are stored by
scope (`mesaform.aws.capacity_errors`): an error is about an offering, a zone or a quota.

`launch_requests` chooses the offerings of a purchase; this module says which of them may be
requested now, and for how many machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesaform.autoscaler.model.planner_state import Backoff, PlannerState
from mesaform.aws import capacity_errors
from mesaform.aws.ports import Capacity, LaunchRequest, LaunchResult, Machine, Offering
from mesaform.topology.names import Tag

MAX_AT_ONCE = 500
"""Machines of one offering in one call: half of what EC2 lets an account launch in a burst."""

FIRST_BLOCK_S = 60.0
MAX_BLOCK_S = 600.0
"""Seconds that an offering is blocked after its first error, and at most.

Capacity that returns is used within `MAX_BLOCK_S`, when there is demand for it.
"""

FIRST_PAUSE_S = 2.0
MAX_PAUSE_S = 60.0
"""Seconds that a pool makes no call after one that gave no machine, whatever it would request."""

ERROR_LIFETIME_S = 3600.0
"""Age at which an error is forgotten."""

FAILED = "failed:"
"""Start of the scopes of machines that failed before their agent registered."""

MAX_DOUBLINGS = 16
"""Limit of the exponent of a back-off, against overflow."""


@dataclass(slots=True)
class LaunchQuota:
    """Machines that one pass may still request of each offering. `split` uses it up."""

    backoffs: Mapping[str, Backoff]
    now: float
    _requested: dict[str, int] = field(default_factory=dict)

    def left(self, offering: Offering, pool: str) -> int:
        """Machines of an offering that this pass may still request; 0 while it is blocked."""
        if is_blocked(self.backoffs, offering, pool, self.now):
            return 0
        return max(0, window(self.backoffs, offering) - self._requested.get(offering.key, 0))

    def split(
        self, count: int, offerings: Sequence[Offering], pool: str
    ) -> list[tuple[int, tuple[Offering, ...]]]:
        """`count` machines of any of `offerings` as calls: pairs of machines and offerings named.

        A call names only offerings that may be requested for its whole count, in the given order.
        An offering on trial after an error has a small call of its own with the others behind it,
        so that the trial costs no refused call. Machines beyond the quota are in no call.
        """
        calls: list[tuple[int, tuple[Offering, ...]]] = []
        for first in offerings:
            requested = min(count, self.left(first, pool))
            if requested <= 0:
                continue
            others = (
                offering
                for offering in offerings
                if offering is not first and self.left(offering, pool) >= requested
            )
            calls.append((requested, (first, *others)))
            self._requested[first.key] = self._requested.get(first.key, 0) + requested
            count -= requested
        return calls


def is_blocked(backoffs: Mapping[str, Backoff], offering: Offering, pool: str, now: float) -> bool:
    """Whether an offering is blocked by errors about itself, its zone, its quota or the pool."""
    return _blocked_until(backoffs, offering, pool) > now


def window(backoffs: Mapping[str, Backoff], offering: Offering) -> int:
    """Machines of an offering in one call, once it is not blocked."""
    own = backoffs.get(offering.key)
    return MAX_AT_ONCE if own is None else max(1, own.window)


def next_try_at(
    backoffs: Mapping[str, Backoff], offerings: Iterable[tuple[str, Offering]], now: float
) -> float | None:
    """When the first blocked one of these offerings (each with its pool) is free, in epoch seconds.

    None when no offering is blocked.
    """
    return min(
        (
            at
            for pool, offering in offerings
            if (at := _blocked_until(backoffs, offering, pool)) > now
        ),
        default=None,
    )


def narrow(
    request: LaunchRequest, backoffs: Mapping[str, Backoff], now: float
) -> LaunchRequest | None:
    """A planned call without offerings that were blocked since; None when none is left."""
    usable = tuple(o for o in request.offerings if not is_blocked(backoffs, o, request.pool, now))
    return replace(request, offerings=usable) if usable else None


def state_after_result(
    state: PlannerState, request: LaunchRequest, result: LaunchResult, now: float
) -> PlannerState:
    """The planner state with the outcome of a call."""
    return replace(state, backoffs=absorb(state.backoffs, request, result, now))


def state_after_refusal(
    state: PlannerState, request: LaunchRequest, cause: str, now: float
) -> PlannerState:
    """Return the planner state after a refused call; it blocks all offerings of the call."""
    return replace(state, backoffs=absorb_refusal(state.backoffs, request, cause, now))


def absorb(
    backoffs: Mapping[str, Backoff], request: LaunchRequest, result: LaunchResult, now: float
) -> dict[str, Backoff]:
    """The entries after a call."""
    entries = {
        key: entry for key, entry in backoffs.items() if entry.until + ERROR_LIFETIME_S > now
    }
    launched: dict[str, int] = {}
    for machine in result.machines:
        key = f"{machine.instance_type}/{machine.zone}/{machine.capacity}"
        launched[key] = launched.get(key, 0) + 1
    for key in launched:
        _absorb_success(entries, key, now, is_complete=key not in result.without_capacity)
    for key in result.without_capacity:
        entries[key] = _after_error(entries.get(key), request.count, launched.get(key, 0), now)
    pool_key = _pool_key(request.pool, request.offerings[0].capacity)
    if result.machines:
        entries.pop(pool_key, None)
    else:
        entries[pool_key] = _after_empty_call(entries.get(pool_key), now)
    return entries


def add_error(backoffs: dict[str, Backoff], machine: Machine, now: float) -> None:
    """Add the error of a machine that EC2 launched and ended again for want of capacity."""
    key = f"{machine.instance_type}/{machine.zone}/{machine.capacity}"
    backoffs[key] = _after_error(backoffs.get(key), 1, 0, now)


def add_failure(
    backoffs: dict[str, Backoff],
    machine: Machine,
    cause: str,
    offered: Sequence[Offering],
    now: float,
) -> None:
    """Block what a machine that failed before its agent registered has in common with others.

    Its type and its zone are blocked for the pool, where the pool has others, else its offering:
    the next machine is another one. Machines that fail together count once.
    """
    what = f"{machine.instance_id} ({machine.instance_type}, {machine.zone}) {cause}"
    for key in _scopes_of_failure(machine, offered):
        known = backoffs.get(key)
        errors = known.consecutive_errors + 1 if known else 1
        if known is None or known.until <= now:
            until = now + _doubled(FIRST_BLOCK_S, MAX_BLOCK_S, errors)
            backoffs[key] = Backoff(until, errors, cause=what)


def _scopes_of_failure(machine: Machine, offered: Sequence[Offering]) -> list[str]:
    pool, instance_type, zone = machine.tags.get(Tag.POOL, ""), machine.instance_type, machine.zone
    scopes = []
    if len({offering.instance_type for offering in offered}) > 1:
        scopes.append(_failed(pool, instance_type, ""))
    if len({offering.zone for offering in offered}) > 1:
        scopes.append(_failed(pool, "", zone))
    return scopes or [_failed(pool, instance_type, zone)]


def drop_failures(backoffs: dict[str, Backoff], pool: str) -> None:
    """Forget the failures of a pool: one of its machines has registered."""
    for key in [key for key in backoffs if key.startswith(f"{FAILED}{pool}:")]:
        del backoffs[key]


def absorb_refusal(
    backoffs: Mapping[str, Backoff], request: LaunchRequest, cause: str, now: float
) -> dict[str, Backoff]:
    """The entries after the cloud refused a call as a whole, for a cause."""
    keys = tuple(offering.key for offering in request.offerings)
    entries = absorb(backoffs, request, LaunchResult((), keys), now)
    for key in (*keys, _pool_key(request.pool, request.offerings[0].capacity)):
        entries[key] = replace(entries[key], cause=cause)
    return entries


def cause_of(
    backoffs: Mapping[str, Backoff], offerings: Iterable[tuple[str, Offering]], now: float
) -> str:
    """Why the first of these offerings to be free is blocked; empty for want of capacity."""
    blocking = [
        max((backoffs[key] for key in _keys(o, pool) if key in backoffs), key=_until, default=None)
        for pool, o in offerings
    ]
    entries = [entry for entry in blocking if entry is not None and entry.until > now]
    return min(entries, key=_until).cause if entries else ""


def _blocked_until(backoffs: Mapping[str, Backoff], offering: Offering, pool: str) -> float:
    if not backoffs:
        return 0.0
    return max(
        (backoffs[key].until for key in _keys(offering, pool) if key in backoffs), default=0.0
    )


def _keys(offering: Offering, pool: str) -> tuple[str, ...]:
    """All scopes that block an offering for a pool."""
    kind, zone = offering.instance_type, offering.zone
    return (
        *capacity_errors.concerning(offering),
        _pool_key(pool, offering.capacity),
        *(_failed(pool, *scope) for scope in ((kind, ""), ("", zone), (kind, zone))),
    )


def _until(entry: Backoff) -> float:
    return entry.until


def _failed(pool: str, instance_type: str, zone: str) -> str:
    """The scope of machines of a pool that failed, by type or zone or both."""
    return f"{FAILED}{pool}:{instance_type}/{zone or capacity_errors.ANY}/{capacity_errors.ANY}"


def _pool_key(pool: str, capacity: Capacity) -> str:
    return f"pool:{pool}/{capacity_errors.ANY}/{capacity}"


def _doubled(first_s: float, most_s: float, errors: int) -> float:
    return min(most_s, first_s * 2.0 ** min(errors - 1, MAX_DOUBLINGS))


def _after_error(before: Backoff | None, requested: int, launched: int, now: float) -> Backoff:
    """Half of what was requested, but no less than what was launched; blocked twice as long."""
    errors = before.consecutive_errors + 1 if before else 1
    limit = min(before.window, requested) if before else requested
    until = now + _doubled(FIRST_BLOCK_S, MAX_BLOCK_S, errors)
    return Backoff(until, errors, max(1, launched, limit // 2))


def _absorb_success(
    entries: dict[str, Backoff], key: str, now: float, *, is_complete: bool
) -> None:
    """Double the window when the call was served in full, and drop conclusions that it refutes.

    Machines of one offering refute an error about its zone or quota. Spot capacity of a type shows
    that its on-demand offering may be tried again.
    """
    instance_type, zone, capacity = key.split("/")
    for conclusion in (
        capacity_errors.of_zone(zone),
        capacity_errors.of_quota(instance_type, capacity),
    ):
        entries.pop(conclusion, None)
    on_demand = f"{instance_type}/{zone}/on-demand"
    if capacity == "spot" and on_demand in entries:
        entries[on_demand] = replace(entries[on_demand], until=now)
    if is_complete and key in entries:
        doubled = entries.pop(key).window * 2
        if doubled < MAX_AT_ONCE:
            entries[key] = Backoff(now, 0, max(2, doubled))


def _after_empty_call(before: Backoff | None, now: float) -> Backoff:
    """A pool's pause after a call without machines: longer after each in a row.

    A row ends when the pool made no call for `MAX_BLOCK_S`.
    """
    errors = before.consecutive_errors + 1 if before and now - before.until < MAX_BLOCK_S else 1
    return Backoff(now + _doubled(FIRST_PAUSE_S, MAX_PAUSE_S, errors), errors)
