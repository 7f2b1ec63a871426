"""kill -9 of `mesaform upgrade` between two machines, under load, then the same verb again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import BURST, RECOVERY_S, STEADY, STEADY_TASKS, Site
from harness.cluster_harness import ClusterHarness, until
from mesaform.topology.ports import Port

VERB_S = 900.0
"""Seconds after which an upgrade counts as stuck."""
PAUSE_S = 6.0
"""A kill comes up to so long after the machine that it waits for began to end."""
SAMPLE_S = 0.3
MOVING_TASKS = 6
"""Tasks of one cpu each: more than Terraform's agents hold."""
IN_ORDER = frozenset({"TASK_KILLED", "TASK_FINISHED", "TASK_GONE_BY_OPERATOR"})
"""Last states of tasks that were moved in order."""


@dataclass(slots=True)
class Samples:
    """What was seen while an upgrade ran.

    `masters_away` is the largest number of masters without a ZooKeeper at the same time, and
    `least_running` the least number of tasks of an app that a leading master listed.
    """

    masters_away: int = 0
    least_running: dict[str, int] = field(default_factory=dict)

    def add(self, road: ClusterHarness, apps: tuple[str, ...]) -> None:
        """Look once."""
        away = sum(not _accepts(address, Port.ZOOKEEPER_CLIENT) for address in road.masters())
        self.masters_away = max(self.masters_away, away)
        if road.leader() is None:
            return
        for app in apps:
            running = len(road.running_tasks(app))
            self.least_running[app] = min(running, self.least_running.get(app, running))


def _accepts(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def sampled(road: ClusterHarness, *apps: str) -> Iterator[Samples]:
    """Look at the cluster again and again while the block runs."""
    samples, ended = Samples(), threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLE_S):
            samples.add(road, apps)

    thread = threading.Thread(target=look, name="samples")
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def upgrade_masters(site: Site) -> Outcome:
    """Kill the upgrade when the first master has begun to end, then run it to its end."""
    _bake(site)
    before = _machines(site.road, "master")
    with sampled(site.road, STEADY) as samples:
        _kill_during(site, "masters", lambda: before.keys() - _machines(site.road, "master").keys())
        took_s = _complete(site.road, "masters")
    after = _machines(site.road, "master")
    site.recovery("the steady tasks run", site.is_serving)
    kept = len(before.keys() & after.keys()) + len(set(after.values()) - {_image(site.road)})
    note = f"at most {samples.masters_away} masters away"
    failed = "! " if samples.masters_away > 1 or len(after) != len(before) else ""
    return Outcome(took_s, lost=site.lost(), left_over=kept, note=failed + note)


def upgrade_agents(site: Site) -> Outcome:
    """Kill the upgrade among Terraform's agents, and again among the autoscaler's."""
    road = site.road
    site.post(BURST, MOVING_TASKS, 1)
    until("the tasks run", lambda: len(site.running(BURST)) == MOVING_TASKS, 240)
    moved = site.running(STEADY) | site.running(BURST)
    _bake(site)
    before, bought = _machines(road, "agent"), set(road.bought("pending", "running"))
    with sampled(road, STEADY, BURST) as samples:
        kept = before.keys() - bought
        _kill_during(site, "agents", lambda: kept - _machines(road, "agent").keys())
        _kill_during(site, "agents", lambda: bought - set(road.bought("pending", "running")))
        took_s = _complete(road, "agents")
    site.recovery("all tasks run", lambda: len(site.running(BURST)) == MOVING_TASKS)
    site.recovery("steady tasks run", lambda: len(site.running(STEADY)) == STEADY_TASKS)
    site.steady = site.running(STEADY)
    states = _last_states(road, moved)
    lost = sum(number for state, number in states.items() if state not in IN_ORDER)
    left = _left_over(road, before)
    note = f"{len(bought)} of the autoscaler's; {dict(states)}; least {samples.least_running}"
    return Outcome(took_s, lost=lost, left_over=len(left), note="; ".join((note, *left)))


def _left_over(road: ClusterHarness, before: Mapping[str, str]) -> list[str]:
    """Agents that were not replaced, take no work, or do not go when the burst has ended."""
    after, image = _machines(road, "agent"), _image(road)
    inactive = {
        agent["instance_id"] for agent in road.status()["agents"] if agent["state"] != "active"
    }
    kinds = {
        "kept": before.keys() & after.keys(),
        "with an old image": {key for key in after if after[key] != image},
        "inactive": inactive,
        "idle": set(_end_burst(road)),
    }
    return [f"{key} {kind}" for kind, keys in kinds.items() for key in sorted(keys)]


def _end_burst(road: ClusterHarness) -> list[str]:
    """Remove the burst; the autoscaler's agents without a task that do not go.

    Steady tasks that moved to one of its agents keep that one.
    """

    def idle() -> list[str]:
        agents = [item for item in road.status()["agents"] if item["managed_by"] == "autoscaler"]
        return [agent["instance_id"] for agent in agents if not agent["tasks"]]

    road.services(f"/v2/apps/{BURST}", method="DELETE")
    until("the burst ends", lambda: not road.running_tasks(BURST), RECOVERY_S)
    try:
        until("the burst's machines are removed", lambda: not idle(), RECOVERY_S)
    except AssertionError:
        return idle()
    return []


def _bake(site: Site) -> None:
    """A new image of the same recipe."""
    site.road.mesaform("bake", "--force", timeout_s=VERB_S)


def _kill_during(site: Site, role: str, has_begun: Callable[[], object]) -> None:
    """Start an upgrade, and kill it within seconds after a condition holds.

    Terraform, if it runs, goes on.
    """
    process = site.road.popen(
        "upgrade", role, "--yes", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until("it changes machines", lambda: has_begun() or process.poll() is not None, VERB_S)
    time.sleep(site.random.uniform(0.0, PAUSE_S))  # the moment of the kill, not a wait
    if process.poll() is not None:
        raise AssertionError(f"upgrade {role} ended with {process.returncode} before its kill")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _complete(road: ClusterHarness, role: str) -> float:
    """Run the upgrade to its end; returns its seconds."""
    began = time.monotonic()
    road.mesaform("upgrade", role, "--yes", timeout_s=VERB_S)
    return time.monotonic() - began


def _machines(road: ClusterHarness, role: str) -> dict[str, str]:
    """Image by instance id of machines of a role that have not begun to end."""
    wanted = [
        {"Name": "tag:mesaform:cluster", "Values": [road.name]},
        {"Name": "tag:mesaform:role", "Values": [role]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    reservations = road.boto("ec2").describe_instances(Filters=wanted)["Reservations"]
    return {
        instance["InstanceId"]: instance["ImageId"]
        for reservation in reservations
        for instance in reservation["Instances"]
    }


def _image(road: ClusterHarness) -> str:
    """The newest image."""
    images = road.boto("ec2").describe_images(Owners=["self"])["Images"]
    newest: str = max(images, key=lambda image: image["CreationDate"])["ImageId"]
    return newest


def _last_states(road: ClusterHarness, task_ids: set[str]) -> Counter[str]:
    """How many of these tasks are in which state, as the leading master lists them."""
    address = until("a master leads", road.leader, 60)
    _, _, text = road.http(f"http://{address}:{Port.ENGINE_MASTER}/tasks?limit=10000")
    listed: list[dict[str, Any]] = json.loads(text)["tasks"]
    states = {task["id"]: task["state"] for task in listed}
    return Counter(states.get(task_id, "not listed") for task_id in task_ids)


SCENARIOS = (
    Scenario("upgrade", "kill -9 upgrade masters, then again", 300, upgrade_masters),
    Scenario("upgrade", "kill -9 upgrade agents twice, then again", 300, upgrade_agents),
)
