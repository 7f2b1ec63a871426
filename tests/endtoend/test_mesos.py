"""The same cluster with `engine: mesos`: functions of `test_cluster` on a real Apache Mesos.

They run in the order of this file and share the cluster. `make faults FAULTS='--engine mesos'` does
more to one. Skipped where `MESAFORM_TEST_MESOS` names no folder with Apache Mesos.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time

import pytest

from harness.cluster_harness import ClusterHarness, until
from harness.mesos_prefix import PREFIX_VARIABLE, mesos_prefix
from tests.endtoend import test_cluster as shared
from tests.fuzz.scheduler import SMALL, LiveScheduler

pytestmark = [
    pytest.mark.endtoend,
    pytest.mark.terraform,
    pytest.mark.zookeeper,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(mesos_prefix() is None, reason=f"{PREFIX_VARIABLE} names no Apache Mesos"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = ClusterHarness(
        tmp_path_factory.mktemp("mesos"),
        name="mesos",
        template=f"{shared.CLUSTER}engine: mesos\n",
        mesos=mesos_prefix(),
    )
    cluster.start_local()
    try:
        yield cluster
    finally:
        cluster.end()
    assert cluster.processes() == []


def test_up_raises_three_masters_of_apache_mesos_and_two_agents(cluster):
    cluster.mesaform("up", "--yes", timeout_s=900)
    status = cluster.status()
    assert len(status["masters"]) == 3
    assert shared.leader_of(status)["state"] == "leading"
    assert len(status["agents"]) == 2
    assert {agent["managed_by"] for agent in status["agents"]} == {"terraform"}
    _, _, version = cluster.http(f"http://{status['leader']}:5050/version")
    assert "git_sha" in json.loads(version) or "build_date" in json.loads(version)


test_run_prints_the_output_and_exits_with_the_tasks_code = (
    shared.test_run_prints_the_output_and_exits_with_the_tasks_code
)


def test_a_run_shows_the_output_of_its_task_and_no_lost_connection(cluster):
    process = cluster.popen(
        *("run", "--name", "quiet", "--cpus", "0.1", "--mem", "32", "--"),
        *("sh", "-c", "echo out; echo error >&2"),
        stdout=-1,
        stderr=-1,
    )
    out, err = process.communicate(timeout=300)
    assert out == "out\n"
    own = [line for line in err.splitlines() if not line.startswith("quiet: TASK_")]
    assert own == ["error"]


test_machines_for_a_burst_are_bought_at_once = (
    shared.test_machines_for_a_burst_are_bought_at_once_and_why_names_the_waiting_tasks
)


def test_the_bought_machines_go_when_their_tasks_have_ended(cluster):
    shared.end(cluster, "burst")
    until("two agents are left", lambda: len(cluster.status()["agents"]) == 2, 180)


def operate(cluster, **call):
    """An operator's call to the leading master; its answer, None without one."""
    url = f"http://{cluster.leader()}:5050/api/v1"
    code, _, text = cluster.http(url, method="POST", body=call)
    assert code in (200, 202), text
    return json.loads(text) if text else None


def one_bought(cluster, app):
    """The machine bought for an app that fills Terraform's two and this one."""
    shared.want(cluster, app, 3)
    shared.running(cluster, app, 3)
    (machine,) = cluster.bought(*shared.ALIVE)
    return machine


def test_a_drain_moves_the_task_to_another_machine_and_the_machine_goes(cluster):
    old = one_bought(cluster, "moved")
    cluster.mesaform("drain", old, "--reason", "noise")
    until("it is terminated", lambda: old not in cluster.bought(*shared.ALIVE), 240)
    shared.running(cluster, "moved", 3)
    shared.assert_explained(cluster, old, "drain", "noise")
    gone = operate(cluster, type="GET_AGENTS")["get_agents"]["agents"]
    names = {item["text"]["value"] for agent in gone for item in attributes(agent, "instance_id")}
    assert old not in names
    shared.end(cluster, "moved")


def attributes(agent, name):
    return [item for item in agent["agent_info"].get("attributes", []) if item["name"] == name]


def test_an_empty_machine_in_a_maintenance_schedule_is_marked_gone_and_terminated(cluster):
    machine = one_bought(cluster, "maintained")
    address = cluster.bought()[machine]["PrivateIpAddress"]
    window = {
        "machine_ids": [{"hostname": address, "ip": address}],
        "unavailability": {"start": {"nanoseconds": (time.time_ns() + 3600 * 10**9)}},
    }
    schedule(cluster, [window])
    shared.end(cluster, "maintained")
    shared.assert_explained(cluster, machine, "terminated", r"still not drained after \d+ s")
    schedule(cluster, [])


def schedule(cluster, windows):
    operate(
        cluster,
        type="UPDATE_MAINTENANCE_SCHEDULE",
        update_maintenance_schedule={"schedule": {"windows": windows}},
    )


test_tasks_outlive_the_leading_master_and_new_work_is_accepted = (
    shared.test_tasks_outlive_the_leading_master_and_new_work_is_accepted
)


ENDING = {
    "agent": {"name": "x", "type": "SET", "set": {}, "allocation_info": {}},
    "master": {"name": "x", "type": "TEXT", "text": {"value": "y"}},
}
"""A resource of a task that ends a process of Apache Mesos by SIGABRT."""
BACK_S = 60


@pytest.mark.parametrize("part", ENDING)
def test_the_cluster_is_whole_again_after_a_task_has_ended_a_process_of_mesos(cluster, part):
    ids = {agent["id"] for agent in active_agents(cluster)}
    leader = cluster.leader()
    victim = leader if part == "master" else active_agents(cluster)[0]["hostname"]
    pid = cluster.engine_pid(victim, part)
    launch_with(leader, victim if part == "agent" else "", ENDING[part])
    until(f"the {part} ends", lambda: cluster.engine_pid(victim, part) != pid, BACK_S)
    until(f"the {part} runs again", lambda: cluster.engine_pid(victim, part), BACK_S)
    until("a master leads", cluster.leader, BACK_S)
    until("both agents are active", lambda: len(active_agents(cluster)) == 2, BACK_S)
    assert {agent["id"] for agent in active_agents(cluster)} == ids, "each keeps its id"
    out = cluster.mesaform("run", "--name", part, "--cpus", "0.1", "--mem", "32", "--", "echo", "1")
    assert out == "1\n"


def launch_with(leader, host, resource):
    """Launch a task with the resource beside usual ones, on a host or on any."""
    framework = LiveScheduler(leader, agent_host=host)
    framework.subscribe()

    def offered():
        return [o for o in framework.offers.values() if host in {"", o["hostname"]}]

    framework.until(lambda: bool(offered()), "an offer")
    offer = offered()[0]
    task = {
        "name": "ending",
        "task_id": {"value": "ending"},
        "agent_id": offer["agent_id"],
        "resources": [*SMALL, resource],
        "command": {"value": "true", "user": "nobody"},
    }
    launch = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    with contextlib.suppress(OSError, http.client.HTTPException):  # of a master that ended
        framework.call("ACCEPT", accept={"offer_ids": [offer["id"]], "operations": [launch]})
    framework.close()


def active_agents(cluster):
    """The active agents in the words of the leading master."""
    leader = cluster.leader()
    code, _, text = cluster.http(f"http://{leader}:5050/slaves")
    agents = json.loads(text)["slaves"] if code == 200 else []
    return [agent for agent in agents if agent["active"]]


def test_down_leaves_nothing(cluster):
    receipt = json.loads(cluster.mesaform("down", "--yes", "--keep-local", "--json", timeout_s=900))
    assert receipt["receipt"]["left"] == []
    assert receipt["troubles"] == []
    assert cluster.left_in_ec2() == {}
    assert cluster.processes() == []
