"""SIGSTOP and SIGCONT of leaders and of the local cloud."""

from __future__ import annotations

import os
import signal

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import (
    AUTOSCALER,
    BURST,
    BURST_TASKS,
    Site,
    last_for,
    stopped,
)
from harness.cluster_harness import until

FROZEN_S = 20.0
AWAY_S = 25.0


def freeze_engine_leader(site: Site) -> Outcome:
    """Stop the leading master; another leads, and the old one does not lead again by itself."""
    address = until("a master leads", site.engine_leader, 60)
    with stopped(site.engine(address, "master")):
        recovery_s = site.recovery("another master leads", site.engine_leader)
        last_for(max(0.0, FROZEN_S - recovery_s))
    site.recovery("one master leads", site.is_serving)
    return Outcome(recovery_s, lost=site.lost())


def lose_metadata(site: Site) -> Outcome:
    """Finding H1: a new leader that starts without credentials must act once they are back."""
    address = until("an autoscaler leads", site.autoscaler_leader, 60)
    with stopped(site.cloud_process("hypervisor")):
        os.kill(site.process(address, *AUTOSCALER), signal.SIGKILL)
        last_for(AWAY_S)
    site.post(BURST, BURST_TASKS, 1)
    recovery_s = site.recovery(
        "all tasks of the burst run", lambda: len(site.running(BURST)) == BURST_TASKS
    )
    twice = site.excess_machines(BURST_TASKS)
    return Outcome(recovery_s, site.lost(), twice, site.end_burst())


def freeze_endpoint(site: Site) -> Outcome:
    """Stop the AWS endpoint; nothing of the cluster may end because of it."""
    with stopped(site.cloud_process("endpoint")):
        last_for(AWAY_S)
    recovery_s = site.recovery("the cluster answers", site.is_serving)
    return Outcome(recovery_s, lost=site.lost())


SCENARIOS = (
    Scenario("stopped", "SIGSTOP leading engine master, 20 s", 8, freeze_engine_leader),
    Scenario(
        "stopped",
        "IMDS away 25 s, autoscaler killed",
        60,
        lose_metadata,
    ),
    Scenario("stopped", "SIGSTOP endpoint, 25 s", 5, freeze_endpoint),
)
