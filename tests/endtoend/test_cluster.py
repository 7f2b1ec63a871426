"""One cluster from the installed wheel to `down`, used only through the program and public ports.

It comes up although `up` is interrupted, runs commands and apps, grows and shrinks with its work,
survives failures, and goes although `down` is interrupted. No task is lost, nothing is bought
twice, and `why` explains what the autoscaler did.

The tests run in order and share the cluster and its ledger. Apps of the autoscaler's tests ask for
whole machines, so that machines can be counted.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from functools import partial

import pytest

from harness.cluster_harness import ClusterHarness, until
from harness.installation import CHECKOUT, Installation
from mesaform_images.lookup import recipe_digest

pytestmark = [
    pytest.mark.endtoend,
    pytest.mark.terraform,
    pytest.mark.zookeeper,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
]

CLUSTER = """\
version: 1
name: {name}
target: local
network:
  cidr: {cidr}
agents:
  - name: default
    count: 2
    types: [m5.large]
    max: 8
  - name: spot
    count: 0
    types: [m5.large]
    spot_share: 1.0
    max: 3
autoscaler:
  interval_s: 2
  idle_after_s: 2
"""
WHOLE_CPUS = 2  # of an m5.large
ALIVE = ("pending", "running")


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    installed = Installation(tmp_path_factory.mktemp("wheel"))
    installed.install()
    return installed


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, installation):
    cluster = ClusterHarness(
        tmp_path_factory.mktemp("whole"),
        name="whole",
        template=CLUSTER,
        installed=installation,
    )
    cluster.start_local()
    try:
        yield cluster
    finally:
        cluster.end()
    assert cluster.processes() == []


def start(cluster, log, *arguments):
    with log.open("w") as writing:
        return cluster.popen(*arguments, stdout=writing, stderr=subprocess.STDOUT)


def end_of(log):
    return log.read_text()[-3000:]


def machines_of_terraform(cluster):
    mine = [
        {"Name": "tag:mesaform:cluster", "Values": [cluster.name]},
        {"Name": "tag:mesaform:role", "Values": ["master", "agent"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    return cluster.boto("ec2").describe_instances(Filters=mine)["Reservations"]


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


def running(cluster, app, count, timeout_s=180):
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
        180,
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


def is_active_since(time_s, agent):
    """Whether an agent of `/slaves` registered again after that time, and is active."""
    return agent["active"] and agent.get("reregistered_time", 0) > time_s


def leader_of(status):
    (leader,) = [master for master in status["masters"] if master["address"] == status["leader"]]
    return leader


def test_the_installed_wheel_needs_no_checkout_and_bakes_the_same_image(installation, tmp_path):
    assert str(CHECKOUT) not in installation.evaluate("sys.path")
    assert str(CHECKOUT) not in installation.evaluate("__import__('mesaform').__file__ or ''")
    digest = "__import__('mesaform_images.lookup').lookup.recipe_digest()"
    assert installation.evaluate(digest) == recipe_digest(), "the wheel bakes the same image"
    made = subprocess.run(
        [installation.bin / "mesaform", "init", "--name", "wheel"],
        cwd=tmp_path,
        env=installation.environment,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert "name: wheel" in (tmp_path / "cluster.yaml").read_text()


def test_an_interrupted_up_says_how_to_carry_on(cluster, installation, tmp_path):
    up = start(cluster, tmp_path / "up.log", "up", "--yes")
    until(
        "terraform has made instances",
        lambda: machines_of_terraform(cluster) or up.poll() is not None,
        900,
    )
    assert up.poll() is None, end_of(tmp_path / "up.log")
    os.killpg(up.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
    assert up.wait(300) == 130, end_of(tmp_path / "up.log")
    assert "Carry on: mesaform up" in end_of(tmp_path / "up.log")
    assert machines_of_terraform(cluster), "nothing was made before: this proves nothing"
    assert not list(installation.folder.rglob("node_modules/cdktf-cli")), "nothing came from npm"


def test_up_carries_on_and_raises_three_masters_one_leading_and_two_agents(cluster):
    made = {
        instance["InstanceId"]
        for item in machines_of_terraform(cluster)
        for instance in item["Instances"]
    }
    cluster.mesaform("up", "--yes", timeout_s=900)
    status = cluster.status()
    assert len(status["masters"]) == 3
    assert leader_of(status)["state"] == "leading"
    assert len({master["zone"] for master in status["masters"]}) == 3
    assert len(status["agents"]) == 2
    assert {agent["managed_by"] for agent in status["agents"]} == {"terraform"}
    assert all(agent["agent_id"] and agent["usd_per_hour"] > 0 for agent in status["agents"])
    assert made <= {each["instance_id"] for each in status["masters"] + status["agents"]}
    machines = sum(machine["usd_per_hour"] for machine in status["masters"] + status["agents"])
    assert status["usd_per_hour"] == pytest.approx(status["cost"]["usd_per_hour"])
    assert status["usd_per_hour"] > machines, "requests belong to no machine"


def test_5050_and_8080_answer_on_their_leader_and_redirect_elsewhere(cluster):
    for port, path in ((5050, "/state"), (8080, "/v2/info")):
        codes = sorted(
            cluster.http(f"http://{address}:{port}{path}")[0] for address in cluster.masters()
        )
        assert codes == [200, 307, 307], f"port {port}"


def test_a_second_up_changes_nothing(cluster):
    status = cluster.status()
    before = {machine["instance_id"] for machine in status["masters"] + status["agents"]}
    process = cluster.popen("up", "--yes", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    shown, _ = process.communicate(timeout=900)
    assert process.returncode == 0, shown
    assert "Plan the changes: no machine is replaced" in shown
    assert "Deploy" not in shown, "a stack differs from its plan"
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
        timeout_s=300,
    )
    assert "hi" in out.splitlines()


def test_machines_for_a_burst_are_bought_at_once_and_why_names_the_waiting_tasks(cluster):
    want(cluster, "burst", 5)
    running(cluster, "burst", 5)
    machines = set(cluster.bought(*ALIVE))
    assert len(machines) == 3, "two of the five run on Terraform's machines"
    cluster.until_recorded(
        "the ledger has the purchases", lambda: bought_for(cluster, "/burst") == machines, 180
    )
    assert_explained(
        cluster,
        "/burst",
        r"\d x m5\.large for pool default",
        r"/burst: [35] instances waiting for \d+ s",
    )
    rates = [row["usd_per_hour"] for row in cluster.decisions("/burst") if row["decision"] == "buy"]
    assert sum(rates) == pytest.approx(3 * 0.1058, rel=0.01), "three machines, in one pass or two"


def test_in_a_slow_decline_machines_go_one_after_another_and_no_task_is_lost(cluster):
    went = []
    for left in (4, 3, 2):
        before, machines = cluster.running_tasks("burst."), set(cluster.bought(*ALIVE))
        want(cluster, "burst", left)
        gone = until("a machine goes", partial(missing, cluster, machines), 180)
        assert len(gone) == 1, "one task fewer, one machine fewer"
        assert running(cluster, "burst", left) < before, "a task was lost or moved"
        went += gone
    assert_explained(
        cluster,
        went[1],
        "m5.large deactivated, drained after",
        "terminated after",
        r"no task for \d+ s \(idle_after_s 2\)",
        r"-0\.10\d\d",
    )
    assert_explained(
        cluster,
        "",
        "3 machines: 3 x m5.large deactivated, drained .* terminated .*; one after another within",
        r"-0\.3[12]\d\d",
    )
    end(cluster, "burst")
    until("two agents are left", lambda: len(cluster.registered_agents()) == 2, 180)
    assert {agent["managed_by"] for agent in cluster.status()["agents"]} == {"terraform"}


def test_with_a_zone_out_of_capacity_machines_come_from_elsewhere_and_the_zone_is_named(cluster):
    (home,) = zones(cluster.bought()).most_common(1)[0][:1]
    fault = cluster.fault("capacity", "--zone", home)
    before = set(cluster.bought())
    want(cluster, "elsewhere", 5)
    running(cluster, "elsewhere", 5)
    machines = cluster.bought(*ALIVE)
    assert len(machines) == 3
    assert home not in zones(machines)
    cluster.until_recorded(
        "the ledger has the purchases",
        lambda: bought_for(cluster, "/elsewhere") == set(machines),
        180,
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
    want(cluster, "once", 3)
    machines = until("EC2 has sold a machine", lambda: set(cluster.bought()) - before, 180)
    assert bought_for(cluster, "") & machines == set(), "the answer came: this proves nothing"
    os.kill(cluster.pid_on(address, "-m", "mesaform.autoscaler"), signal.SIGKILL)
    running(cluster, "once", 3)
    cluster.until_recorded(
        "the ledger knows of it", lambda: bought_for(cluster, "/once") == machines, 180
    )
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
        r"\+0\.10\d\d",
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
    cluster.fault("interrupt", machine, "--after", "40")
    until(
        "another machine is bought before this one ends",
        lambda: set(cluster.bought(*ALIVE)) > {machine},
        40,
    )
    until(
        "it runs again",
        lambda: (ids := cluster.running_tasks("brief.")) and len(ids) == 1 and not ids & first,
        180,
    )
    until("the interrupted one is gone", lambda: machine not in cluster.bought(*ALIVE), 180)
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
    cluster.until_recorded(
        "its end is recorded",
        lambda: "instance_terminated" in {row["decision"] for row in cluster.decisions(machine)},
        180,
    )
    end(cluster, "brief")


def test_tasks_outlive_the_leading_master_and_new_work_is_accepted(cluster):
    cluster.services(
        "/v2/apps",
        method="POST",
        body={"id": "/steady", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 4},
    )
    before = until(
        "four run", lambda: (ids := cluster.running_tasks("steady")) and len(ids) == 4 and ids, 180
    )
    old = leader_of(cluster.status())
    os.kill(cluster.engine_pid(old["address"], "master"), signal.SIGKILL)
    until(
        "another master leads",
        lambda: (now := cluster.leader()) and now != old["address"] and now,
        180,
    )
    until("the same tasks run", lambda: cluster.running_tasks("steady") == before, 180)
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
        timeout_s=300,
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
        "two run", lambda: (ids := cluster.running_tasks("kept")) and len(ids) == 2 and ids, 180
    )
    killed_at = time.time()
    for agent in cluster.status()["agents"]:
        os.kill(cluster.engine_pid(agent["address"], "agent"), signal.SIGKILL)
    until(
        "both agents are registered again",
        lambda: sum(is_active_since(killed_at, each) for each in cluster.registered_agents()) == 2,
        180,
    )
    until("the same tasks run", lambda: cluster.running_tasks("kept") == before, 180)
    assert [agent["state"] for agent in cluster.status()["agents"]] == ["active"] * 2
    cluster.services("/v2/apps/kept", method="DELETE")


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


def test_down_goes_on_after_an_interruption_leaves_nothing_and_prints_the_receipt(
    cluster, tmp_path
):
    down = start(cluster, tmp_path / "down.log", "down", "--yes", "--keep-local")
    until(
        "terraform destroys",
        lambda: "Destroy agents" in end_of(tmp_path / "down.log") or down.poll() is not None,
        300,
    )
    assert down.poll() is None, end_of(tmp_path / "down.log")
    os.kill(down.pid, signal.SIGINT)
    assert down.wait(300) == 130, end_of(tmp_path / "down.log")
    assert cluster.left_in_ec2(), "everything was gone before: this proves nothing"

    receipt = json.loads(cluster.mesaform("down", "--yes", "--keep-local", "--json", timeout_s=900))
    assert receipt["receipt"]["left"] == []
    assert receipt["troubles"] == []
    assert cluster.left_in_ec2() == {}
    assert cluster.processes() == []
