"""Machines that end at once or never register: counted by pool and cause, until a pool stops. Pure.

After each failure the pool tries another type in another zone, as far as it has others
(`launch_backoff.add_failure`). After `MAX_FAILURES` machines of a pool failed in a row for one
cause, the pool buys nothing for `FIRST_STOP_S`, then one machine at a time as a probe. A failed
probe doubles the pause; a machine that registers, or a new version of the pool's launch template,
ends the stop.

Karpenter's registration health and the suspension of an Auto Scaling group after failed launches
are the models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from mesaform.autoscaler.model.lifecycle import REGISTERED
from mesaform.autoscaler.model.planner_state import Backoff, LaunchFailures, PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LIVE, Supply
from mesaform.autoscaler.planner import launch_backoff
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag

MAX_FAILURES = 3
"""Machines in a row of one pool and cause after which the pool stops."""

FIRST_STOP_S = 300.0
MAX_STOP_S = 3600.0
"""Seconds until the first probe of the same offering, and at most between two probes."""

FIRST_PROBE_S = 1.0
"""Seconds until the first probe of another offering."""

REMEMBERED_S = 7200.0
"""Seconds that a machine is remembered: EC2 lists it for about an hour after its end."""

NEVER_REGISTERED = "never registered"
"""The cause of a machine that ran for `boot_timeout_s` without an agent."""

NO_CAPACITY_CODE = "Server.InsufficientInstanceCapacity"
ORDINARY_ENDS = frozenset(
    {
        NO_CAPACITY_CODE,
        "Client.UserInitiatedShutdown",
        "Client.UserInitiatedHibernate",
        "Server.SpotInstanceTermination",
        "Server.SpotInstanceShutdown",
        "Server.ScheduledStop",
    }
)
"""Codes of ends that say nothing of a pool: asked for, announced, or a lack of capacity.

Source: EC2 API reference, `StateReason`. Any other end before an agent registered is a failure:
`Client.InternalError` (no right to the disk's key), `Client.VolumeLimitExceeded`,
`Client.InstanceInitiatedShutdown` (the node refused its document), `Server.InternalError`.
"""


def observe(snapshot: Snapshot, now: float) -> PlannerState:
    """The planner state with the failures and the registrations that a snapshot shows."""
    state = snapshot.state
    failures, backoffs, seen = _in_force(snapshot), dict(state.backoffs), _recent(state, now)
    ours = list(filter(_is_ours, snapshot.machines))
    _drop_pools(failures, backoffs, ours, snapshot)
    for machine, cause in _ended(ours, seen, snapshot, now):
        seen[machine.instance_id] = now
        if cause == NO_CAPACITY_CODE:
            launch_backoff.add_error(backoffs, machine, now)
        elif cause and _is_latest(machine, snapshot):
            _add(failures, machine, cause, snapshot, now)
            offered = snapshot.offerings.get(_pool(machine), ())
            launch_backoff.add_failure(backoffs, machine, cause, offered, now)
    return replace(state, launch_failures=failures, failures_seen=seen, backoffs=backoffs)


def stopped_pools(state: PlannerState) -> dict[str, LaunchFailures]:
    """The stopped pools, each with the failures that stop it for longest."""
    stopped: dict[str, LaunchFailures] = {}
    for failures in state.launch_failures.values():
        known = stopped.get(failures.pool)
        if failures.count >= MAX_FAILURES and (known is None or known.until < failures.until):
            stopped[failures.pool] = failures
    return stopped


def slots(state: PlannerState, supply: Supply, pool: str, now: float) -> int | None:
    """How many machines a pool may buy because of failures; None for any number."""
    failures = stopped_pools(state).get(pool)
    if failures is None:
        return None
    is_probing = supply.ordered_by_pool.get(pool, 0) > 0 or any(
        node.is_autoscaled and node.state in {"bought", "booting"} for node in supply.in_pool(pool)
    )
    return 0 if now < failures.until or is_probing else 1


def reason(failures: LaunchFailures, now: float) -> Reason:
    """Why a pool buys nothing."""
    return Reason.of(
        ReasonCode.POOL_STOPPED,
        pool=failures.pool,
        count=failures.count,
        cause=failures.cause,
        instance_id=failures.instance_id,
        retry_s=max(0.0, failures.until - now),
    )


def newly_stopped(before: PlannerState, after: PlannerState) -> Iterator[LaunchFailures]:
    """Pools that stopped since an earlier state."""
    known = stopped_pools(before)
    yield from (failures for pool, failures in stopped_pools(after).items() if pool not in known)


def resumed(before: PlannerState, after: PlannerState) -> list[str]:
    """Pools that stopped earlier and do not any more."""
    return sorted(stopped_pools(before).keys() - stopped_pools(after).keys())


def _recent(state: PlannerState, now: float) -> dict[str, float]:
    """The machines whose end was seen and that EC2 may still list."""
    return {name: at for name, at in state.failures_seen.items() if now - at < REMEMBERED_S}


def _in_force(snapshot: Snapshot) -> dict[str, LaunchFailures]:
    """The failures of launch templates that are still the latest ones, by pool and cause."""
    latest = {pool: template.latest for pool, template in snapshot.templates.items()}
    return {
        key: failures
        for key, failures in snapshot.state.launch_failures.items()
        if latest.get(failures.pool, failures.template) == failures.template
    }


def _is_ours(machine: Machine) -> bool:
    """Whether the autoscaler launched the machine."""
    tags = machine.tags
    return tags.get(Tag.MANAGED_BY) == "autoscaler" and tags.get(Tag.ROLE) == "agent"


def _is_latest(machine: Machine, snapshot: Snapshot) -> bool:
    """Whether the machine was launched from the pool's present launch template."""
    template = snapshot.templates.get(_pool(machine))
    version = machine.tags.get(Tag.TEMPLATE_VERSION, "")
    return template is None or not template.is_outdated(version, machine.launched_at)


def _cause(machine: Machine, state: PlannerState) -> str | None:
    """Why a machine failed; empty if it ended without failing, None while it has not ended."""
    removal = state.removals.get(machine.instance_id)
    if removal is not None and removal.phase == "terminating":
        is_late = removal.reason.code == ReasonCode.AGENT_NEVER_REGISTERED
        return NEVER_REGISTERED if is_late else ""
    if machine.state in LIVE:
        return None
    is_explained = removal is not None or machine.instance_id in state.notices
    if is_explained or _has_registered(machine, state):
        return ""
    return _failure_code(machine.ended_by)


def _is_late(machine: Machine, snapshot: Snapshot, now: float) -> bool:
    """Whether a machine runs for longer than `boot_timeout_s` without having registered.

    It counts before it is given up, so that the same pass buys another one.
    """
    leader_since = snapshot.state.leader_since
    if snapshot.cluster is None or leader_since is None or machine.state not in LIVE:
        return False
    late_at = max(machine.launched_at, leader_since) + snapshot.spec.autoscaler.boot_timeout_s
    return now > late_at and not _has_registered(machine, snapshot.state)


def _has_registered(machine: Machine, state: PlannerState) -> bool:
    name = machine.instance_id
    return name in state.registered_at or bool(REGISTERED & set(state.history.get(name, ())))


def _failure_code(code: str) -> str:
    """EC2's code of an end if it counts, else an empty text."""
    if code == NO_CAPACITY_CODE:
        return code
    is_failure = code.startswith(("Client.", "Server.")) and code not in ORDINARY_ENDS
    return code if is_failure else ""


def _ended(
    machines: Iterable[Machine], seen: Mapping[str, float], snapshot: Snapshot, now: float
) -> Iterator[tuple[Machine, str]]:
    """The machines that newly ended or never registered, each with its cause (see `_cause`)."""
    agents = snapshot.agents_by_instance
    for machine in [machine for machine in machines if machine.instance_id not in seen]:
        is_late = machine.instance_id not in agents and _is_late(machine, snapshot, now)
        cause = NEVER_REGISTERED if is_late else _cause(machine, snapshot.state)
        if cause is not None:
            yield machine, cause


def _pool(machine: Machine) -> str:
    return machine.tags.get(Tag.POOL, "")


def _drop_pools(
    failures: dict[str, LaunchFailures],
    backoffs: dict[str, Backoff],
    machines: Iterable[Machine],
    snapshot: Snapshot,
) -> None:
    """Forget the failures of pools of which a machine has just registered."""
    just_registered = snapshot.agents_by_instance.keys() - snapshot.state.registered_at.keys()
    pools = {_pool(machine) for machine in machines if machine.instance_id in just_registered}
    for key in [key for key, item in failures.items() if item.pool in pools]:
        del failures[key]
    for pool in pools:
        launch_backoff.drop_failures(backoffs, pool)


def _add(
    failures: dict[str, LaunchFailures],
    machine: Machine,
    cause: str,
    snapshot: Snapshot,
    now: float,
) -> None:
    """Count a failure of the pool's present launch template.

    It stops the pool if it is the third, or if it is that of a probe.
    """
    pool = _pool(machine)
    template = snapshot.templates.get(pool)
    key = f"{pool}/{cause}"
    known = failures.get(key) or LaunchFailures(pool, cause)
    counted = replace(
        known,
        count=known.count + 1,
        at=now,
        instance_id=machine.instance_id,
        template=template.latest if template else "",
    )
    if counted.count >= MAX_FAILURES and now >= known.until:
        until = now + _pause_s(known.stops, has_others=len(snapshot.offerings.get(pool, ())) > 1)
        counted = replace(counted, stops=known.stops + 1, until=until)
    failures[key] = counted


def _pause_s(stops: int, *, has_others: bool) -> float:
    """Seconds until the next probe. The first probe of another offering is made at once."""
    if has_others and not stops:
        return FIRST_PROBE_S
    exponent = stops - 1 if has_others else stops
    return min(MAX_STOP_S, FIRST_STOP_S * 2.0 ** min(exponent, 16))
