"""One small cluster and one browser for all tests of the pages."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from harness import zookeeper
from tests.integration.webui import browser as chromium
from tests.integration.webui.browser import Browser
from tests.support.little_cluster import LittleCluster


class WebCluster(LittleCluster):
    """A cluster with the masters' addresses in the `zk://` URL, from which pages find them."""

    def zk(self, path: str) -> str:
        port = self.zookeeper.hosts.rpartition(":")[2]
        hosts = [self.zookeeper.hosts, *(f"{master}:{port}" for master in self.masters)]
        return f"zk://{','.join(hosts)}{path}"

    def leader(self, port: int) -> str:
        """The address whose server on this port leads, once one does."""
        path = "v2/info" if port == 8080 else "slaves"
        return str(
            self.until(
                lambda: next(
                    (
                        item
                        for item in self.masters
                        if self.answers(f"http://{item}:{port}/{path}") == 200
                    ),
                    None,
                )
            )
        )

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call on the leading services."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"http://{self.leader(8080)}:8080{path}", data, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def kill(self, master: str) -> None:
        """kill -9 of everything on a master."""
        for name in (f"master-{master}", f"services-{master}"):
            process = self.processes.pop(name)
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def empty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebCluster]:
    """Two masters and services, nobody else."""
    if not zookeeper.available():
        pytest.fail(
            "needs Java and Debian's zookeeper package: apt-get install zookeeper", pytrace=False
        )
    with WebCluster(tmp_path_factory.mktemp("cluster"), masters=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster(empty_cluster: WebCluster) -> Iterator[WebCluster]:
    """With two agents of 4 cpus and an app of two instances, /shop/web, which prints to stdout."""
    for number in (1, 2):
        empty_cluster.start_agent(number)
    app = {
        "id": "/shop/web",
        "cmd": "echo ready to serve; exec sleep 1000",
        "cpus": 0.5,
        "mem": 64,
        "instances": 2,
    }
    empty_cluster.api("POST", "/v2/apps", app)
    empty_cluster.until(
        lambda: empty_cluster.api("GET", "/v2/apps/shop/web")["app"]["tasksRunning"] == 2
    )
    yield empty_cluster
    for app in empty_cluster.api("GET", "/v2/apps")["apps"]:  # tasks outlive their agents
        empty_cluster.api("DELETE", f"/v2/apps{app['id']}?force=true")
    empty_cluster.until(lambda: empty_cluster.api("GET", "/v2/tasks") == {"tasks": []})


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if (lacking := chromium.missing()) is not None:
        pytest.fail(lacking, pytrace=False)
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(_browser: Browser) -> Iterator[Browser]:
    """A window of 1400 x 1000; afterwards no console message and no foreign request may exist."""
    _browser.size(1400, 1000)
    yield _browser
    assert _browser.console_messages() == []
    assert _browser.foreign_requests() == []


@pytest.fixture
def shaken_browser(_browser: Browser) -> Iterator[Browser]:
    """A browser for tests in which requests fail: only those failures may be in the console."""
    _browser.size(1400, 1000)
    yield _browser
    assert [
        line for line in _browser.console_messages() if "Failed to load resource" not in line
    ] == []
    assert _browser.foreign_requests() == []


@pytest.fixture
def engine_url(cluster: WebCluster) -> str:
    return f"http://{cluster.leader(5050)}:5050/"


@pytest.fixture
def services_url(cluster: WebCluster) -> str:
    return f"http://{cluster.leader(8080)}:8080/"
