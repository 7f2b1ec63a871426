"""One cluster from `up` to `down`: it grows, survives failures, shrinks and is deleted.

The tests run in order and share the cluster.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.cluster_harness import ClusterHarness, until

pytestmark = [
    pytest.mark.endtoend,
    pytest.mark.terraform,
    pytest.mark.zookeeper,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = ClusterHarness(
        tmp_path_factory.mktemp("lifecycle"), name="lifecycle", cidr="127.77.0.0/16"
    )
    cluster.start_local()
    try:
        cluster.mesaform("up", "--yes", timeout_s=400)
        yield cluster
    finally:
        cluster.end()
    assert cluster.processes() == []


def leader_of(status):
    (leader,) = [master for master in status["masters"] if master["address"] == status["leader"]]
    return leader


def test_up_raises_three_masters_one_leading_and_two_agents(cluster):
    status = cluster.status()
    assert len(status["masters"]) == 3
    assert leader_of(status)["state"] == "leading"
    assert len({master["zone"] for master in status["masters"]}) == 3
    assert len(status["agents"]) == 2
    assert {agent["managed_by"] for agent in status["agents"]} == {"terraform"}
    assert all(agent["agent_id"] and agent["usd_per_hour"] > 0 for agent in status["agents"])
    assert status["usd_per_hour"] == pytest.approx(
        sum(machine["usd_per_hour"] for machine in status["masters"] + status["agents"])
    )


def test_5050_and_8080_answer_on_their_leader_and_redirect_elsewhere(cluster):
    for port, path in ((5050, "/state"), (8080, "/v2/info")):
        codes = sorted(
            cluster.http(f"http://{address}:{port}{path}")[0] for address in cluster.masters()
        )
        assert codes == [200, 307, 307], f"port {port}"


def test_a_second_up_changes_nothing(cluster):
    before = {
        machine["instance_id"]
        for machine in cluster.status()["masters"] + cluster.status()["agents"]
    }
    cluster.mesaform("up", "--yes", timeout_s=200)
    status = cluster.status()
    assert {machine["instance_id"] for machine in status["masters"] + status["agents"]} == before


def test_run_prints_the_output_and_exits_with_the_tasks_code(cluster):
    out = cluster.mesaform(
        "run",
        "--name",
        "hello",
        "--cpus",
        "0.5",
        "--mem",
        "64",
        "--",
        "sh",
        "-c",
        "echo hi; exit 3",
        expect=3,
        timeout_s=90,
    )
    assert "hi" in out.splitlines()


def test_work_that_finds_no_offer_gets_machines_and_they_go_when_it_goes(cluster):
    cluster.services(
        "/v2/apps",
        method="POST",
        body={"id": "/burst", "cmd": "sleep 1000", "cpus": 1, "mem": 64, "instances": 40},
    )
    until("some of it is unmet", lambda: cluster.services("/v2/queue")["queue"], 30)
    until("all 40 run", lambda: len(cluster.running_tasks("burst")) == 40, 240)
    grown = cluster.status()
    bought = [agent for agent in grown["agents"] if agent["managed_by"] == "autoscaler"]
    assert bought
    assert sum(agent["resources"]["total"]["cpus"] for agent in grown["agents"]) >= 40
    cluster.services("/v2/apps/burst", method="DELETE")
    until("the bought machines are gone", lambda: not cluster.bought("pending", "running"), 240)
    until("two agents are left", lambda: len(cluster.status()["agents"]) == 2, 60)
    assert {agent["managed_by"] for agent in cluster.status()["agents"]} == {"terraform"}
    text = cluster.mesaform("why", "--json", "--last", "500")
    assert "burst" in text
    for agent in bought:
        assert agent["instance_id"] in text


def test_tasks_outlive_the_leading_master_and_new_work_is_accepted(cluster):
    cluster.services(
        "/v2/apps",
        method="POST",
        body={"id": "/steady", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 4},
    )
    before = until(
        "four run", lambda: (ids := cluster.running_tasks("steady")) and len(ids) == 4 and ids, 60
    )
    old = leader_of(cluster.status())
    os.kill(pid_of_master(cluster, old["instance_id"]), signal.SIGKILL)
    until(
        "another master leads",
        lambda: (now := cluster.leader()) and now != old["address"] and now,
        30,
    )
    until("the same tasks run", lambda: cluster.running_tasks("steady") == before, 60)
    out = cluster.mesaform(
        "run",
        "--name",
        "after",
        "--cpus",
        "0.1",
        "--mem",
        "32",
        "--",
        "echo",
        "still here",
        timeout_s=90,
    )
    assert "still here" in out
    cluster.services("/v2/apps/steady", method="DELETE")


def test_an_agent_killed_hard_comes_back_with_its_tasks(cluster):
    cluster.services(
        "/v2/apps",
        method="POST",
        body={"id": "/kept", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 2},
    )
    before = until(
        "two run", lambda: (ids := cluster.running_tasks("kept")) and len(ids) == 2 and ids, 60
    )
    for pid in [
        pid
        for pid in cluster.processes()
        if command_of(pid)[-3:] == ["-m", "mesaform.engine", "agent"]
    ]:
        os.kill(pid, signal.SIGKILL)
    until(
        "both agents are registered again",
        lambda: sum(agent["state"] == "active" for agent in cluster.status()["agents"]) == 2,
        60,
    )
    until("the same tasks run", lambda: cluster.running_tasks("kept") == before, 60)
    cluster.services("/v2/apps/kept", method="DELETE")


def test_down_leaves_nothing_and_prints_the_receipt(cluster):
    out = cluster.mesaform("down", "--yes", "--keep-local", timeout_s=300)
    assert "$" in out
    assert cluster.left_in_ec2() == {}
    assert cluster.processes() == []


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []


def pid_of_master(cluster, instance_id):
    for pid in cluster.processes():
        if (
            f"MESAFORM_INSTANCE_ID={instance_id}".encode()
            not in Path(f"/proc/{pid}/environ").read_bytes()
        ):
            continue
        if command_of(pid)[-3:] == ["-m", "mesaform.engine", "master"]:
            return pid
    raise AssertionError(f"no engine master on {instance_id}")
