"""Autoscaling on one real cluster: no task is lost, nothing is bought twice, `why` explains it.

The tests run in order and share the cluster and its ledger. Each app asks for whole machines, so
that machines can be counted.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from functools import partial

import pytest

from tests.support.cluster_harness import ClusterHarness, until

pytestmark = [
    pytest.mark.endtoend,
    pytest.mark.terraform,
    pytest.mark.zookeeper,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

CLUSTER = """\
version: 1
name: {name}
target: local
network:
  cidr: {cidr}
agents:
  - name: default
    count: 1
    types: [m5.large]
    max: 8
  - name: spot
    count: 0
    types: [m5.large]
    spot_share: 1.0
    max: 3
autoscaler:
  interval_s: 1
  idle_after_s: 2
"""
WHOLE_CPUS = 2  # of an m5.large
ALIVE = ("pending", "running")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = ClusterHarness(
        tmp_path_factory.mktemp("stories"), name="stories", cidr="127.79.0.0/16", template=CLUSTER
    )
    cluster.start_local()
    try:
        cluster.mesaform("up", "--yes", timeout_s=400)
        yield cluster
    finally:
        cluster.end()
    assert cluster.processes() == []


def missing(cluster, machines):
    """Those of the machines that are not alive any more."""
    return machines - set(cluster.bought(*ALIVE))


def want(cluster, app, instances, pool="default"):
    """An app of so many instances, each as large as a machine of the pool."""
    body = {
        "cmd": "sleep 1000",
        "cpus": WHOLE_CPUS,
        "mem": 64,
        "constraints": [["pool", "LIKE", pool]],
        "instances": instances,
    }
    cluster.services(f"/v2/apps/{app}?force=true", method="PUT", body={"id": f"/{app}", **body})


def running(cluster, app, count, timeout_s=60):
    """The ids of its tasks once so many run, and no more."""
    return until(
        f"{count} of {app} run",
        lambda: len(ids := cluster.running_tasks(f"{app}.")) == count and ids,
        timeout_s,
    )


def end(cluster, app):
    cluster.services(f"/v2/apps/{app}", method="DELETE")
    until(
        "the autoscaler's machines are gone",
        lambda: not cluster.bought(*ALIVE, "shutting-down"),
        60,
    )


def bought_for(cluster, subject):
    """The machines that the ledger says were bought for it."""
    return {
        name
        for row in cluster.decisions(subject)
        if row["decision"] == "buy"
        for name in row.get("machines", ())
    }


def zones(machines):
    return Counter(machine["Placement"]["AvailabilityZone"] for machine in machines.values())


def assert_explained(cluster, subject, *patterns):
    """Some line of the story has all of these words."""
    story = cluster.why(subject)
    assert any(all(re.search(pattern, line) for pattern in patterns) for line in story), (
        f"no line matches {patterns}:\n" + "\n".join(story)
    )


def test_machines_for_a_burst_are_bought_at_once_and_why_names_the_waiting_tasks(cluster):
    want(cluster, "burst", 4)
    running(cluster, "burst", 4)
    machines = set(cluster.bought(*ALIVE))
    assert len(machines) == 3, "one of the four runs on Terraform's machine"
    until("the ledger has the purchases", lambda: bought_for(cluster, "/burst") == machines, 20)
    assert_explained(
        cluster,
        "/burst",
        r"\d x m5\.large for pool default",
        r"/burst: 3 instances waiting for \d+ s",
    )
    rates = [row["usd_per_hour"] for row in cluster.decisions("/burst") if row["decision"] == "buy"]
    assert sum(rates) == pytest.approx(3 * 0.096), "three machines, in one pass or two"


def test_in_a_slow_decline_machines_go_one_after_another_and_no_task_is_lost(cluster):
    went = []
    for left in (3, 2, 1):
        before, machines = cluster.running_tasks("burst."), set(cluster.bought(*ALIVE))
        want(cluster, "burst", left)
        gone = until("a machine goes", partial(missing, cluster, machines), 60)
        assert len(gone) == 1, "one task fewer, one machine fewer"
        assert running(cluster, "burst", left) < before, "a task was lost or moved"
        went += gone
    assert_explained(
        cluster,
        went[1],
        "m5.large deactivated, drained after",
        "terminated after",
        r"no task for \d+ s \(idle_after_s 2\)",
        r"-0\.0960",
    )
    assert_explained(
        cluster,
        "",
        "3 machines: 3 x m5.large deactivated, drained .* terminated .*; one after another within",
        r"-0\.2880",
    )
    end(cluster, "burst")


def test_with_a_zone_out_of_capacity_machines_come_from_elsewhere_and_the_zone_is_named(cluster):
    (home,) = zones(cluster.bought()).most_common(1)[0][:1]
    fault = cluster.fault("capacity", "--zone", home)
    before = set(cluster.bought())
    want(cluster, "elsewhere", 4)
    running(cluster, "elsewhere", 4)
    machines = cluster.bought(*ALIVE)
    assert len(machines) == 3
    assert home not in zones(machines)
    until(
        "the ledger has the purchases",
        lambda: bought_for(cluster, "/elsewhere") == set(machines),
        20,
    )
    assert_explained(
        cluster,
        "/elsewhere",
        rf"no capacity of m5\.large \(on-demand\) in {home}: bought elsewhere",
    )
    assert set(cluster.bought()) - before == set(machines), "bought twice"
    cluster.mesaform("local", "fault", "clear", fault)
    end(cluster, "elsewhere")


def test_a_daemon_killed_between_journal_and_answer_is_followed_by_one_that_buys_nothing_again(
    cluster,
):
    before = set(cluster.bought())
    cluster.fault("delayed-response", "60", "--action", "CreateFleet", "--count", "1")
    address = cluster.status()["autoscaler"]["address"].partition(":")[0]
    want(cluster, "once", 2)
    machines = until("EC2 has sold a machine", lambda: set(cluster.bought()) - before, 30)
    assert bought_for(cluster, "") & machines == set(), "the answer came: this proves nothing"
    os.kill(cluster.pid_on(address, "-m", "mesaform.autoscaler"), signal.SIGKILL)
    running(cluster, "once", 2)
    until("the ledger knows of it", lambda: bought_for(cluster, "/once") == machines, 30)
    assert set(cluster.bought()) - before == machines, "bought twice"
    assert_explained(
        cluster,
        "",
        rf"the autoscaler on \S+ (took over from {address}:9550|leads again)",
        r"no leader for \d+ s",
    )
    assert_explained(
        cluster,
        "/once",
        "1 x m5.large for pool default",
        r"requested \d+ s before, and the answer was lost",
        r"\+0\.0960",
    )
    end(cluster, "once")


def test_an_interrupted_spot_machine_is_replaced_within_its_notice_and_its_task_starts_again(
    cluster,
):
    want(cluster, "brief", 1, pool="spot")
    running(cluster, "brief", 1)
    (machine,) = cluster.bought(*ALIVE)
    assert cluster.bought()[machine]["InstanceLifecycle"] == "spot"
    first = cluster.running_tasks("brief.")
    cluster.fault("interrupt", machine, "--after", "25")
    until(
        "another machine is bought before this one ends",
        lambda: set(cluster.bought(*ALIVE)) > {machine},
        25,
    )
    until(
        "it runs again",
        lambda: (ids := cluster.running_tasks("brief.")) and len(ids) == 1 and not ids & first,
        60,
    )
    until("the interrupted one is gone", lambda: machine not in cluster.bought(*ALIVE), 60)
    assert_explained(
        cluster,
        machine,
        r"m5\.large, spot\) is interrupted",
        r"the instance ends in \d+ s",
        "reported by",
        "capacity for its tasks is bought at once",
    )
    assert_explained(
        cluster, machine, "drained", r"spot interruption .* its tasks fit on other machines"
    )
    assert_explained(
        cluster,
        "/brief",
        r"1 x m5\.large for pool spot",
        rf"/brief has to leave {machine} spot interruption",
    )
    until(
        "its end is told",
        lambda: "instance_terminated" in {row["decision"] for row in cluster.decisions(machine)},
        20,
    )
    end(cluster, "brief")


def test_every_machine_was_ordered_once_is_recorded_and_is_gone(cluster):
    machines = cluster.bought()
    ordered = {
        row["token"]: row["count"] for row in cluster.decisions() if row["decision"] == "buy"
    }
    assert Counter(machine["Tags"]["mesaform:launch"] for machine in machines.values()) == ordered
    assert {machine["State"]["Name"] for machine in machines.values()} == {"terminated"}
    assert {
        name
        for row in cluster.decisions()
        if row["decision"] in {"terminate", "instance_terminated"}
        for name in row["machines"]
    } == set(machines)
