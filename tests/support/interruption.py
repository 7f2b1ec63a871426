"""A machine of a real cluster is taken away: what becomes of its tasks, and how quickly."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from harness.cluster_harness import ClusterHarness, until

ALIVE = ("pending", "running")


@dataclass(frozen=True)
class Interruption:
    """Result of an interruption. Times are seconds after the announcement.

    `moved` are the ids of tasks that were on the machine.
    """

    replacements: frozenset[str]
    replaced_s: float
    drained_s: float
    moved: frozenset[str]


def tasks_by_agent(cluster: ClusterHarness, app: str) -> dict[str, set[str]]:
    """Ids of the app's running tasks by agent, from the leading master; empty without a leader."""
    result: dict[str, set[str]] = {}
    for address in cluster.masters():
        code, _, text = cluster.http(f"http://{address}:5050/tasks?limit=1000")
        if code == 200:
            for task in json.loads(text)["tasks"]:
                if task["state"] == "TASK_RUNNING" and task["id"].startswith(f"{app}."):
                    result.setdefault(task["slave_id"], set()).add(task["id"])
            break
    return result


def autoscaled(cluster: ClusterHarness, *states: str) -> set[str]:
    """Ids of the autoscaler's machines in these states, as EC2 lists them."""
    mine = [
        {"Name": "tag:mesaform:cluster", "Values": [cluster.name]},
        {"Name": "tag:mesaform:managed-by", "Values": ["autoscaler"]},
    ]
    mine.append({"Name": "instance-state-name", "Values": list(states)})
    reservations = cluster.boto("ec2").describe_instances(Filters=mine)["Reservations"]
    return {
        instance["InstanceId"]
        for reservation in reservations
        for instance in reservation["Instances"]
    }


def interrupt(
    cluster: ClusterHarness, instance_id: str, app: str, *, after_s: float = 45.0, via: str = "both"
) -> Interruption:
    """Interrupt a busy spot machine and wait until it ended and its tasks run elsewhere.

    Fails unless a machine is bought, the machine's tasks leave before its end, all others stay
    where they are, and none is lost.
    """
    agent = next(
        item["agent_id"]
        for item in cluster.status()["agents"]
        if item["instance_id"] == instance_id
    )
    before = tasks_by_agent(cluster, app)
    doomed, others = (
        before[agent],
        set().union(*(ids for name, ids in before.items() if name != agent)),
    )
    machines = autoscaled(cluster, *ALIVE)
    began = time.monotonic()
    cluster.mesaform(
        "local", "fault", "interrupt", instance_id, "--after", str(after_s), "--via", via
    )
    new = until(
        "a machine is bought in its place", lambda: autoscaled(cluster, *ALIVE) - machines, after_s
    )
    replaced_s = time.monotonic() - began

    def moved_off() -> bool:
        now = tasks_by_agent(cluster, app)
        assert not now or others <= set().union(*now.values()), "a task elsewhere was disturbed"
        return (
            bool(now)
            and agent not in now
            and sum(map(len, now.values())) == len(doomed) + len(others)
        )

    until("its tasks run elsewhere", moved_off, after_s - replaced_s)
    drained_s = time.monotonic() - began
    assert instance_id in autoscaled(cluster, "running"), "it ended before its tasks had moved"
    until(
        "it has ended",
        lambda: instance_id not in autoscaled(cluster, *ALIVE, "shutting-down"),
        after_s + 30,
    )
    still = set().union(*tasks_by_agent(cluster, app).values())
    assert others <= still, "a task was lost with it"
    assert not doomed & still
    return Interruption(frozenset(new), replaced_s, drained_s, frozenset(doomed))
