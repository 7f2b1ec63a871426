"""Services, `mesaform run` and the embedded engine together, as processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.zookeeper import available
from tests.support.little_cluster import CHECKOUT, LittleCluster

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleCluster]:
    if not available():
        pytest.skip("needs Java and Debian's zookeeper package: apt-get install zookeeper")
    with LittleCluster(tmp_path_factory.mktemp("cluster"), masters=2) as cluster:
        cluster.start_agent(1)
        cluster.start_agent(2)
        yield cluster


def call(cluster: LittleCluster, method: str, path: str, body: Any = None) -> Any:
    """One call on whichever services server leads."""
    for address in cluster.masters:
        if cluster.answers(f"http://{address}:8080/v2/info") == 200:
            data = json.dumps(body).encode() if body is not None else None
            request = urllib.request.Request(f"http://{address}:8080{path}", data, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code != 503:  # it has ceased to lead
                    raise
    return None


def running(cluster: LittleCluster, app: str) -> int:
    answer = call(cluster, "GET", f"/v2/apps{app}")
    return answer["app"]["tasksRunning"] if answer else -1


def run(cluster: LittleCluster, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "mesaform.cli.main",
        "run",
        "--file",
        str(cluster.cluster_file),
        *arguments,
    ]
    return subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_run_prints_the_output_and_ends_with_the_task_s_code(cluster: LittleCluster) -> None:
    job = run(
        cluster,
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
    )
    out, err = job.communicate(timeout=120)
    assert (out, job.returncode) == ("hi\n", 3), err


def test_ctrl_c_kills_the_tasks_of_a_run(cluster: LittleCluster) -> None:
    job = run(cluster, "--name", "long", "--instances", "2", "--", "sleep 1000")
    assert job.stderr is not None
    while "TASK_RUNNING" not in (line := job.stderr.readline()):
        assert line, "the run ended early"
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=120)
    assert job.returncode == 130
    with urllib.request.urlopen(
        f"http://{leading_master(cluster)}:5050/tasks", timeout=60
    ) as response:
        tasks = json.load(response)["tasks"]
    assert {task["state"] for task in tasks if task["name"].startswith("long")} == {"TASK_KILLED"}


def leading_master(cluster: LittleCluster) -> str:
    return cluster.until(
        lambda: next(
            (
                item
                for item in cluster.masters
                if cluster.answers(f"http://{item}:5050/slaves") == 200
            ),
            None,
        )
    )


def test_unmet_demand_is_met_by_new_agents_and_survives_a_leader_change(
    cluster: LittleCluster, tmp_path: Path
) -> None:
    call(
        cluster,
        "POST",
        "/v2/apps",
        {"id": "/twelve", "cmd": "sleep 1000", "cpus": 1, "mem": 32, "instances": 12},
    )
    cluster.until(lambda: running(cluster, "/twelve") == 8)
    [entry] = call(cluster, "GET", "/v2/queue")["queue"]
    assert entry["count"] == 4
    cluster.start_agent(3)
    cluster.until(lambda: running(cluster, "/twelve") == 12)
    before = {task["id"] for task in call(cluster, "GET", "/v2/apps/twelve/tasks")["tasks"]}

    killed = leading_master(cluster)
    for name in (f"master-{killed}", f"services-{killed}"):
        process = cluster.processes.pop(name)
        process.kill()
        process.wait()
    call_when_led = cluster.until(lambda: call(cluster, "GET", "/v2/apps/twelve/tasks"))
    assert {task["id"] for task in call_when_led["tasks"]} == before
    out, err = (
        job := run(cluster, "--name", "after", "--cpus", "0", "--mem", "32", "--", "echo ok")
    ).communicate(timeout=120)
    assert job.returncode == 2, "cpus below the least are refused"
    cluster.start_agent(4)
    out, err = (job := run(cluster, "--name", "after", "--mem", "32", "--", "echo ok")).communicate(
        timeout=120
    )
    assert (out, job.returncode) == ("ok\n", 0), err
    assert {task["id"] for task in call(cluster, "GET", "/v2/apps/twelve/tasks")["tasks"]} == before
    assert running(cluster, "/twelve") == 12
    call(cluster, "DELETE", "/v2/apps/twelve")
    cluster.until(lambda: call(cluster, "GET", "/v2/tasks") == {"tasks": []})


def test_files_are_fetched_and_an_unhealthy_instance_is_replaced(
    cluster: LittleCluster, tmp_path: Path
) -> None:
    (tmp_path / "page.txt").write_text("fetched")
    check = {
        "protocol": "MESOS_HTTP",
        "path": "/page.txt",
        "gracePeriodSeconds": 30,
        "intervalSeconds": 0.3,
        "delaySeconds": 0,
    }
    definition = {
        "id": "/web",
        "cmd": f"exec {sys.executable} -m http.server $PORT0",
        "cpus": 0.1,
        "mem": 64,
        "uris": [f"file://{tmp_path}/page.txt"],
        "healthChecks": [{**check, "timeoutSeconds": 5, "maxConsecutiveFailures": 2}],
        "backoffSeconds": 0.1,
    }
    call(cluster, "POST", "/v2/apps", definition)

    def healthy() -> Any:
        app = call(cluster, "GET", "/v2/apps/web")["app"]
        return app if app["tasksHealthy"] == 1 and not app["deployments"] else None

    [first] = cluster.until(healthy)["tasks"]
    assert first["healthCheckResults"][0]["alive"]
    [page] = [
        path
        for path in cluster.folder.glob("agent-*/**/page.txt")
        if first["id"] in str(path) and "latest" not in path.parts
    ]
    page.unlink()

    def replaced() -> Any:
        app = healthy()
        return app if app and app["tasks"][0]["id"] != first["id"] else None

    assert cluster.until(replaced)["lastTaskFailure"]["taskId"] == first["id"]
    call(cluster, "DELETE", "/v2/apps/web")
