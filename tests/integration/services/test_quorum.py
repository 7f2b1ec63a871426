"""ZooKeeper stops answering and returns: no server leads meanwhile, and tasks keep running."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from harness.zookeeper import available
from tests.integration.services.test_with_engine import call
from tests.support.little_cluster import LittleCluster

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper, pytest.mark.timeout(180)]


@pytest.fixture
def cluster(tmp_path) -> Iterator[LittleCluster]:
    if not available():
        pytest.skip("needs Java and Debian's zookeeper package: apt-get install zookeeper")
    with LittleCluster(tmp_path, masters=3) as cluster:
        cluster.start_agent(1)
        yield cluster


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def leaders(cluster: LittleCluster) -> int:
    return sum(
        get(f"http://{address}:5050/metrics/snapshot")["master/elected"]
        for address in cluster.masters
    )


def tasks(cluster: LittleCluster, app: str) -> list[dict[str, Any]]:
    try:
        answer = call(cluster, "GET", f"/v2/apps{app}/tasks")
    except (OSError, urllib.error.URLError):
        return []
    return [task for task in answer["tasks"] if task["state"] == "TASK_RUNNING"] if answer else []


def written_pids(cluster: LittleCluster) -> list[int]:
    """Processes that have named themselves in `pid`; a task runs before its command has."""
    texts = [
        path.read_text()
        for path in cluster.folder.glob("agent-1/**/pid")
        if "latest" not in path.parts
    ]
    return [int(text) for text in texts if text.endswith("\n")]


@pytest.mark.parametrize("how", ["pauses", "ends"])
def test_masters_step_down_without_zookeeper_and_tasks_keep_running(
    cluster: LittleCluster, how: str
) -> None:
    call(
        cluster,
        "POST",
        "/v2/apps",
        {
            "id": "/p",
            "cmd": "echo $$ > pid; exec sleep 1000",
            "cpus": 0.1,
            "mem": 32,
            "instances": 2,
        },
    )
    before = cluster.until(lambda: running if len(running := tasks(cluster, "/p")) == 2 else None)
    pids = cluster.until(lambda: found if len(found := written_pids(cluster)) == 2 else None)

    cluster.zookeeper.pause() if how == "pauses" else cluster.zookeeper.kill()
    cluster.until(lambda: leaders(cluster) == 0)
    cluster.until(
        lambda: (
            200
            not in [
                cluster.answers(f"http://{address}:8080/v2/apps") for address in cluster.masters
            ]
        )
    )
    for pid in pids:
        os.kill(pid, 0)

    cluster.zookeeper.resume() if how == "pauses" else cluster.zookeeper.start()
    cluster.until(lambda: leaders(cluster) == 1)
    after = cluster.until(lambda: running if len(running := tasks(cluster, "/p")) == 2 else None)
    assert {task["id"] for task in after} == {task["id"] for task in before}
    for pid in pids:
        os.kill(pid, 0)
    call(cluster, "PUT", "/v2/apps/p", {"instances": 3})
    cluster.until(lambda: len(tasks(cluster, "/p")) == 3)
    call(cluster, "DELETE", "/v2/apps/p")
    cluster.until(lambda: call(cluster, "GET", "/v2/tasks") == {"tasks": []})
