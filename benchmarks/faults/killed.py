"""kill -9 of leaders, agents and the local cloud."""

from __future__ import annotations

import os
import signal

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import (
    AUTOSCALER,
    BURST,
    BURST_TASKS,
    SERVICES,
    Site,
)
from harness.cluster_harness import until

KILLS_OF_THE_LEADER = 3


def kill_engine_leader(site: Site) -> Outcome:
    """Kill the leading engine master three times; the slowest counts."""
    slowest = 0.0
    for _ in range(KILLS_OF_THE_LEADER):
        address = until("a master leads", site.engine_leader, 60)
        os.kill(site.engine(address, "master"), signal.SIGKILL)
        slowest = max(
            slowest,
            site.recovery("another master leads, with every task", site.is_serving),
        )
    return Outcome(slowest, lost=site.lost())


def kill_services_leader(site: Site) -> Outcome:
    address = until("services lead", site.services_leader, 60)
    os.kill(site.process(address, *SERVICES), signal.SIGKILL)
    recovery_s = site.recovery("services answer", site.services_leader)
    return Outcome(recovery_s, lost=site.lost())


def kill_autoscaler_in_a_burst(site: Site) -> Outcome:
    """Post 24 tasks, kill the leading autoscaler at once, and wait until all of them run."""
    address = until("an autoscaler leads", site.autoscaler_leader, 60)
    victim = site.process(address, *AUTOSCALER)
    site.post(BURST, BURST_TASKS, 1)
    os.kill(victim, signal.SIGKILL)
    recovery_s = site.recovery(
        "all tasks of the burst run", lambda: len(site.running(BURST)) == BURST_TASKS
    )
    twice = site.excess_machines(BURST_TASKS)
    return Outcome(recovery_s, site.lost(), twice, site.end_burst())


def kill_agent(site: Site) -> Outcome:
    address = site.agents()[0]
    old = site.engine(address, "agent")
    os.kill(old, signal.SIGKILL)

    def is_back() -> bool:
        pid = site.road.engine_pid(address, "agent")
        code = site.road.http(f"http://{address}:5051/health", timeout_s=2)[0]
        return pid not in (None, old) and code == 200 and site.is_serving()

    return Outcome(site.recovery("the agent and its tasks are back", is_back), lost=site.lost())


def kill_cloud(role: str) -> Scenario:
    """A scenario that kills a process of the local cloud."""

    def run(site: Site) -> Outcome:
        old = site.cloud_process(role)
        os.kill(old, signal.SIGKILL)
        recovery_s = site.recovery(
            f"the {role} is back", lambda: site.cloud_process(role) != old and _answers(site)
        )
        return Outcome(recovery_s, lost=site.lost())

    return Scenario("killed", f"kill -9 {role}", 10, run)


def _answers(site: Site) -> bool:
    return site.road.http(f"http://127.0.0.1:{site.road.port}/_mesaform/health")[0] != 0


SCENARIOS = (
    Scenario("killed", "kill -9 leading engine master, 3 times", 5, kill_engine_leader),
    Scenario("killed", "kill -9 leading services", 10, kill_services_leader),
    Scenario("killed", "kill -9 autoscaler in a burst of 24 tasks", 20, kill_autoscaler_in_a_burst),
    Scenario("killed", "kill -9 agent with tasks", 5, kill_agent),
    kill_cloud("hypervisor"),
    kill_cloud("endpoint"),
)
