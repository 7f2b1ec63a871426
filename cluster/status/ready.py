"""When a cluster is up: what is still missing from a picture of it, and where to look for the reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mesaform.config.schema import ClusterSpec
from mesaform.status.view import AgentView, MasterView, Status
from mesaform.topology.ports import Port


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that an answering cluster has. `machine` (an instance id, or empty) and `service` say whose log tells more."""

    what: str
    machine: str = ""
    service: str = ""


def missing(
    status: Status, spec: ClusterSpec, masters_up: Sequence[str], services_up: Sequence[str]
) -> tuple[Missing, ...]:
    """What is not there yet, in the order in which it comes up; nothing when the cluster answers."""
    found = [
        *_masters(status, spec, masters_up),
        *_leader(status),
        *_agents(status, spec),
        *_services(status, services_up),
        *_autoscaler(status, spec),
    ]
    return tuple(found)


def left_alone(status: Status, spec: ClusterSpec) -> str:
    """What becomes of the machines of an autoscaler that is silent; nothing to say while it works, or when it bought none."""
    bought = [agent for agent in status.agents if agent.managed_by == "autoscaler"]
    age_s = status.autoscaler.heartbeat_age_s
    if status.autoscaler.state != "silent" or age_s is None or not bought:
        return ""
    usd = sum(agent.usd_per_hour or 0.0 for agent in bought)
    run = f"{len(bought)} machine{'s' if len(bought) != 1 else ''} that it bought run{'s' if len(bought) == 1 else ''}, ${usd:.4f} an hour"
    lease_s = spec.autoscaler.lease_s
    if not lease_s:
        return f"{run}; nobody ends them: autoscaler.lease_s is 0"
    when = f"in {lease_s - age_s:.0f} s" if age_s < lease_s else "now"
    return f"{run}; the idle ones end themselves {when} (autoscaler.lease_s {lease_s:g})"


def _masters(status: Status, spec: ClusterSpec, up: Sequence[str]) -> list[Missing]:
    found = [
        _silent(master, Port.ENGINE_MASTER, "master")
        for master in status.masters
        if master.address not in up
    ]
    absent = spec.masters.count - len(status.masters)
    return (
        [Missing(f"{absent} of {spec.masters.count} masters have no machine"), *found]
        if absent > 0
        else found
    )


def _silent(master: MasterView, port: int, service: str) -> Missing:
    what = (
        f"master {master.address} does not answer on {port}"
        if master.state != "pending"
        else f"master {master.address} is pending"
    )
    return Missing(what, master.instance_id, service)


def _leader(status: Status) -> list[Missing]:
    if status.leader is not None:
        return []
    some = status.masters[0].instance_id if status.masters else ""
    return [Missing("no master is elected leader", some, "zookeeper")]


def _agents(status: Status, spec: ClusterSpec) -> list[Missing]:
    found = []
    for pool in spec.agents:
        agents = [agent for agent in status.agents if agent.pool == pool.name]
        active = sum(1 for agent in agents if agent.state == "active")
        if active < pool.count:
            waiting = next((agent for agent in agents if agent.state != "active"), None)
            found.append(
                Missing(
                    f"{active} of {pool.count} agents of pool {pool.name} are active"
                    + _why(waiting),
                    waiting.instance_id if waiting else "",
                    "agent",
                )
            )
    return found


def _why(agent: AgentView | None) -> str:
    return f" ({agent.address} is {agent.state})" if agent else ""


def _services(status: Status, up: Sequence[str]) -> list[Missing]:
    found = [
        _silent(master, Port.SERVICES, "services")
        for master in status.masters
        if master.address not in up
    ]
    if not found and "services" not in status.urls:
        found.append(
            Missing(
                "no master leads the services",
                status.masters[0].instance_id if status.masters else "",
                "services",
            )
        )
    return found


def _autoscaler(status: Status, spec: ClusterSpec) -> list[Missing]:
    if not spec.autoscaler.enabled or status.autoscaler.state == "active":
        return []
    some = status.masters[0].instance_id if status.masters else ""
    return [Missing(f"the autoscaler is {status.autoscaler.state}", some, "autoscaler")]
