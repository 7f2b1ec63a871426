"""What a cluster still lacks before it answers, and where to look for the reason. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mesaform.common.durations import format_duration
from mesaform.common.set_aside import COMMAND, SetAside
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.status.view import AgentView, MasterView, Sources, Status
from mesaform.topology.ports import Port

SNAPSHOT_OLD_INTERVALS = 2.5
"""Age of the newest snapshot, in intervals, from which something must be wrong."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that an answering cluster has and this one lacks.

    `machine` (an instance id, or empty) and `service` name the log that explains it.
    """

    what: str
    machine: str = ""
    service: str = ""


def missing(
    status: Status, spec: ClusterSpec, masters_up: Sequence[str], services_up: Sequence[str]
) -> tuple[Missing, ...]:
    """The missing parts in the order in which they start; empty when the cluster answers.

    `masters_up` and `services_up` are the private addresses whose ports 5050 and 8080 answer.
    """
    return (
        *_masters(status, spec, masters_up),
        *_leader(status),
        *_agents(status, spec),
        *_services(status, services_up),
        *_autoscaler(status, spec),
    )


def missing_masters(
    status: Status, spec: ClusterSpec, masters_up: Sequence[str], services_up: Sequence[str]
) -> tuple[Missing, ...]:
    """The part of `missing` that masters lack each for itself, whether one of them leads or not."""
    silent = _silent_services(status, services_up)
    return (*_masters(status, spec, masters_up), *silent)


def missing_to_serve(
    status: Status, sources: Sources, count: int, spec: ClusterSpec
) -> tuple[Missing, ...]:
    """What is missing until `count` masters serve; agents and the autoscaler do not matter.

    Each must answer on its ports and have a ZooKeeper that follows or leads; one ZooKeeper must
    lead. The engine must have a leader that read its registry: before, it does not list agents.
    """
    silent = [lack for master in status.masters if (lack := _not_serving(master, sources))]
    present = len(status.masters)
    if present - len(silent) < count:
        absent = f"{spec.masters.count - present} of {spec.masters.count} masters have no machine"
        return (*silent, *([Missing(absent)] if present < count else []))
    return (*_zookeeper_leader(status, sources), *_leader(status), *_registry(status, sources))


def _zookeeper_leader(status: Status, sources: Sources) -> list[Missing]:
    modes = Counter(sources.zookeeper_modes.values())
    if modes["leader"] + modes["standalone"] == 1:
        return []
    listed = ", ".join(f"{number} {mode}" for mode, number in sorted(modes.items()))
    text = f"of the ZooKeepers not exactly one leads ({listed or 'none serves'})"
    return [Missing(text, _first_master(status), "zookeeper")]


def _registry(status: Status, sources: Sources) -> list[Missing]:
    if status.leader is None or sources.agents is not None:
        return []
    text = "the leading master does not list its agents: it has not read its registry"
    return [Missing(text, _first_master(status), "engine-master")]


def _not_serving(master: MasterView, sources: Sources) -> Missing | None:
    if master.address not in sources.masters_up:
        return _silent(master, Port.ENGINE_MASTER, "master")
    if master.address not in sources.services_up:
        return _silent(master, Port.SERVICES, "services")
    if master.address not in sources.zookeeper_modes:
        text = f"the ZooKeeper of master {master.address} serves no requests"
        return Missing(text, master.instance_id, "zookeeper")
    return None


def describe_unattended(status: Status, spec: ClusterSpec) -> str:
    """What happens to the machines of a silent autoscaler; empty if it works or launched none."""
    age_s = status.autoscaler.heartbeat_age_s
    if status.autoscaler.state != "silent" or age_s is None:
        return ""
    launched = [agent for agent in status.agents if agent.managed_by == "autoscaler"]
    return (
        f"{_count(launched)}: {_lease_outcome(spec.autoscaler.lease_s, age_s)}" if launched else ""
    )


def describe_set_aside(status: Status) -> list[str]:
    """What was set aside, by kind, and the commands for it; nothing if nothing was."""
    return [*_records_set_aside(status.set_aside), *_set_aside_on_agents(status)]


def _set_aside_on_agents(status: Status) -> list[str]:
    """The files that agents keep: their state names them."""
    return [
        f"set aside on agent {agent.address}: {agent.records_set_aside} of task-checkpoints and "
        f"agent; see records_set_aside in `curl {status.urls.get('services', '')}"
        f"/agents/{agent.agent_id}/state`, then delete the file there"
        for agent in status.agents
        if agent.records_set_aside
    ]


def _records_set_aside(entries: Sequence[SetAside]) -> list[str]:
    if not entries:
        return []
    kinds = Counter(entry.kind for entry in entries)
    counted = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
    noun = "record" if len(entries) == 1 else "records"
    text = f"set aside: {len(entries)} {noun} that could not be read ({counted})"
    return [f"{text}; see `{COMMAND} list`, then `{COMMAND} show ID`"]


def describe_snapshot(status: Status) -> str:
    """How old the newest snapshot of the state is; empty if that is not known."""
    snapshot = status.snapshot
    if snapshot is None:
        return ""
    if not snapshot.name:
        every = format_duration(snapshot.interval_s)
        return f"snapshots: none yet; one is written every {every} while there are apps"
    minutes = snapshot.age_s / 60
    old_s = SNAPSHOT_OLD_INTERVALS * snapshot.interval_s
    is_old = snapshot.age_s > old_s and status.leader is not None
    note = "; the next one is overdue, see /health of services" if is_old else ""
    return f"snapshots: {snapshot.count}, the newest {snapshot.name} is {minutes:.0f} min old{note}"


def _count(launched: Sequence[AgentView]) -> str:
    usd = sum(agent.usd_per_hour or 0.0 for agent in launched)
    noun = "machine" if len(launched) == 1 else "machines"
    return f"{len(launched)} {noun} of the silent autoscaler, ${usd:.4f} an hour"


def _lease_outcome(lease_s: float, age_s: float) -> str:
    if not lease_s:
        return "they run until you terminate them, autoscaler.lease_s is 0"
    when = f"in {lease_s - age_s:.0f} s" if age_s < lease_s else "now"
    return f"idle ones power off {when} (autoscaler.lease_s {lease_s:g})"


def _masters(status: Status, spec: ClusterSpec, up: Sequence[str]) -> list[Missing]:
    silent = [
        _silent(master, Port.ENGINE_MASTER, "master")
        for master in status.masters
        if master.address not in up
    ]
    count = spec.masters.count
    absent = count - len(status.masters)
    if absent > 0:
        return [Missing(f"{absent} of {count} masters have no machine"), *silent]
    return silent


def _silent(master: MasterView, port: int, service: str) -> Missing:
    problem = "is pending" if master.state == "pending" else f"does not answer on {port}"
    return Missing(f"master {master.address} {problem}", master.instance_id, service)


def _first_master(status: Status) -> str:
    """The id of a master whose log may explain a missing leader; empty without masters."""
    return status.masters[0].instance_id if status.masters else ""


def _leader(status: Status) -> list[Missing]:
    if status.leader is not None:
        return []
    return [Missing("no master is elected leader", _first_master(status), "zookeeper")]


def _agents(status: Status, spec: ClusterSpec) -> list[Missing]:
    return [lack for pool in spec.agents for lack in _agents_of(pool, status)]


def _agents_of(pool: Pool, status: Status) -> list[Missing]:
    agents = [agent for agent in status.agents if agent.pool == pool.name]
    inactive = [agent for agent in agents if agent.state != "active"]
    active_count = len(agents) - len(inactive)
    if active_count >= pool.count:
        return []
    text = f"{active_count} of {pool.count} agents of pool {pool.name} are active"
    if not inactive:
        return [Missing(text, service="agent")]
    return [Missing(text + _state_of(inactive[0]), inactive[0].instance_id, "agent")]


def _state_of(agent: AgentView) -> str:
    return f" ({agent.address} is {agent.state})"


def _services(status: Status, up: Sequence[str]) -> list[Missing]:
    silent = _silent_services(status, up)
    if not silent and "services" not in status.urls:
        return [Missing("no master leads the services", _first_master(status), "services")]
    return silent


def _silent_services(status: Status, up: Sequence[str]) -> list[Missing]:
    return [
        _silent(master, Port.SERVICES, "services")
        for master in status.masters
        if master.address not in up
    ]


def _autoscaler(status: Status, spec: ClusterSpec) -> list[Missing]:
    if not spec.autoscaler.enabled or status.autoscaler.state == "active":
        return []
    text = f"the autoscaler is {status.autoscaler.state}"
    return [Missing(text, _first_master(status), "autoscaler")]
