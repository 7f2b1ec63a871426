"""kill -9 of verbs at random points: `up`, `down` and `bake`, then the same verb again; `run`."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import Site
from harness.cluster_harness import ClusterHarness, until

UP_S = 45.0
"""Length of an `up`: kills fall into it."""
DOWN_S = 25.0
BAKE_S = 12.0
MACHINES = 5
RUN = "orphan"


def kill_up(site: Site) -> Outcome:
    """On an empty account: kill `up` at a random point, then time the next one."""
    delay_s = site.random.uniform(2.0, UP_S)
    _kill_after(site.road, delay_s, "up", "--yes")
    began = time.monotonic()
    try:
        site.road.mesaform("up", "--yes", timeout_s=600)
        took_s = time.monotonic() - began
        machines = site.road.left_in_ec2().get("InstanceId", [])
        vpcs = site.road.left_in_ec2().get("VpcId", [])
        extra = max(0, len(machines) - MACHINES) + max(0, len(vpcs) - 1)
    finally:  # the next fault begins on an empty account, too
        _take_down(site.road)
    left = _left(site.road)
    return Outcome(took_s, left_over=left, bought_twice=extra, note=f"killed after {delay_s:.0f} s")


def kill_down(site: Site) -> Outcome:
    """On a running cluster: kill `down` at a random point, then time the next one."""
    site.road.mesaform("up", "--yes", timeout_s=600)
    delay_s = site.random.uniform(2.0, DOWN_S)
    _kill_after(site.road, delay_s, "down", "--yes", "--keep-local")
    began = time.monotonic()
    _take_down(site.road)
    took_s = time.monotonic() - began
    return Outcome(took_s, left_over=_left(site.road), note=f"killed after {delay_s:.0f} s")


def kill_bake(site: Site) -> Outcome:
    """On an empty account: kill `bake` at a random point, then time the next one."""
    delay_s = site.random.uniform(1.0, BAKE_S)
    _kill_after(site.road, delay_s, "bake", "--force")
    began = time.monotonic()
    site.road.mesaform("bake", timeout_s=600)
    took_s = time.monotonic() - began
    return Outcome(took_s, left_over=_left(site.road), note=f"killed after {delay_s:.0f} s")


def kill_run(site: Site) -> Outcome:
    """On a running cluster: kill `run` while its task runs; the task ends with its framework."""
    command = ("--name", RUN, "--cpus", "0.1", "--mem", "32", "--", "sleep", "100000")
    process = site.road.popen("run", *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("the task runs", lambda: site.running(RUN), 120)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    recovery_s = site.recovery("the task ended", lambda: not site.running(RUN))
    return Outcome(recovery_s, lost=site.lost())


def _take_down(road: ClusterHarness) -> None:
    road.mesaform("down", "--yes", "--keep-local", timeout_s=600)


def _left(road: ClusterHarness) -> int:
    resources = sum(map(len, road.left_in_ec2().values()))
    return resources + len(road.processes())


def _kill_after(road: ClusterHarness, delay_s: float, *verb: str) -> None:
    """Start a verb and kill it after a time; Terraform, if it runs, goes on."""
    process = road.popen(*verb, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


SCENARIOS = (Scenario("verbs", "kill -9 run, until its task ended", 75, kill_run),)
ON_AN_EMPTY_ACCOUNT = (
    *(Scenario("verbs", f"kill -9 bake ({number}), then bake", 75, kill_bake) for number in (1, 2)),
    *(Scenario("verbs", f"kill -9 up ({number}), then up", 75, kill_up) for number in (1, 2, 3)),
    *(Scenario("verbs", f"kill -9 down ({number}), then down", 75, kill_down) for number in (1, 2)),
)
"""They raise and remove the cluster themselves, so they run last, after `down`."""
