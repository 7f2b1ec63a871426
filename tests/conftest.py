"""Fixtures that every part's tests share, and how tests are spread over processes."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from xdist import is_xdist_worker
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController

from harness.cluster_harness import ClusterHarness
from harness.zookeeper import ZooKeeperServer, available
from mesaform.http import UNHANDLED
from tests.support.profiles import load_profile

load_profile()
# A shell that starts the run in the background ignores SIGINT, and so would each of its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests of one lane run in one process, in order: they share a fixture that is dear to make, or an
# address with a fixed port. Each other file of integration and endtoend tests is a lane of its own;
# unit tests run wherever there is room. Lanes that take longest come first.
TESTS = Path(__file__).parent
LANES = {
    "endtoend/test_cluster.py": "cluster",
    "endtoend/test_mesos.py": "mesos",
    "integration/provision/test_real_terraform.py": "terraform",
    "fuzz": "fuzz",
    "integration/autoscaler/test_daemon.py": "daemon",
    "integration/autoscaler/test_ledger_unavailable.py": "daemon",
    "unit/provision/test_addresses.py": "addresses",
    "unit/docs/test_permissions.py": "permissions",
    "integration/provision": "provision",
    "integration/localcloud": "localcloud",
    "integration/teardown": "teardown",
    "integration/webui": "webui",
    "integration/stacks": "stacks",
    "integration/images": "images",
    "integration/services": "services",
}
CLUSTER_SECTION = "the cluster after the failure"
FIRST = (*dict.fromkeys(LANES.values()), "")


class LaneScheduling(LoadScopeScheduling):
    """xdist's scheduler by scope, where the scope is the lane."""

    def _split_scope(self, nodeid: str) -> str:
        return _lane_of_file(nodeid.partition("::")[0]) or nodeid

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        """Note that a test ended, and forget its scope once the whole scope ended.

        The scheduler reads every scope of a worker after each test, and most are a single test.
        """
        super().mark_test_complete(node, item_index, duration)
        nodeid = self.registered_collections[node][item_index]
        scope = self._split_scope(nodeid)
        if all(self.assigned_work[node][scope].values()):
            del self.assigned_work[node][scope]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LaneScheduling:
    """Spread tests by lane, whatever `--dist` says."""
    return LaneScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest lanes first."""
    items.sort(key=lambda item: _priority(_lane_of_file(item.nodeid.partition("::")[0])))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect no garbage meanwhile, and none of what collection makes: it stays until the end."""
    gc.disable()
    try:
        if is_xdist_worker(session) and _is_of_all_tests(session.config):
            _import_apart()
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what a cluster says of itself to the report of a test that failed with it."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and report.when == "call" and isinstance(cluster, ClusterHarness):
        report.sections.append((CLUSTER_SECTION, cluster.describe()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the first of these reports once more near the end, where a cut log still has it."""
    for report in terminalreporter.getreports("failed"):
        for name, content in report.sections:
            if name == CLUSTER_SECTION:
                terminalreporter.section(f"{name}: {report.nodeid}")
                terminalreporter.write_line(content)
                return


def _is_of_all_tests(config: pytest.Config) -> bool:
    return {Path(config.rootpath, argument) for argument in config.args} == {TESTS}


def _import_apart() -> None:
    """Import all test modules, each worker from another place of the list on.

    In a new checkout they must be compiled first. So each worker compiles a part and finds the
    others' parts done; in the order of collection each would compile all, at the same time.
    Collection reports what fails here.
    """
    files = sorted(TESTS.rglob("test_*.py"))
    worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    start = len(files) * worker // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for file in (*files[start:], *files[:start]):
        with suppress(Exception, pytest.skip.Exception):
            import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))


def _priority(lane: str) -> int:
    return FIRST.index(lane) if lane in FIRST else len(FIRST)


def lane_of(path: Path) -> str:
    """The lane of a test file; empty for one whose tests run wherever there is room."""
    for prefix, lane in LANES.items():
        if path.as_posix().startswith(prefix):
            return lane
    return "" if path.parts[0] == "unit" else path.as_posix()


@cache
def _lane_of_file(file: str) -> str:
    """The lane of a file that is named from the root of the checkout."""
    return lane_of(Path(file).relative_to(TESTS.name))


@pytest.fixture(autouse=True)
def no_unhandled_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test no server of this process had an exception that no code foresaw."""
    UNHANDLED.clear()
    yield
    counted = {port: count for port, count in UNHANDLED.by_port().items() if count}
    UNHANDLED.clear()
    if request.node.get_closest_marker("expects_unhandled_errors") is None:
        assert counted == {}, "see the log for `unhandled_error`"


@pytest.fixture(scope="session")
def zookeeper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """One ZooKeeper for a process's tests; a test that kills or pauses a server starts its own."""
    if not available():
        pytest.skip("needs Java and Debian's zookeeper package: apt-get install zookeeper")
    server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def zookeeper_hosts(zookeeper_server: ZooKeeperServer) -> str:
    """What a client takes: "127.99.0.1:34567". Shared: use paths below `zookeeper_root` only."""
    return zookeeper_server.hosts


@pytest.fixture
def zookeeper_root() -> str:
    """A path that no other test uses, such as "/t-3f…"."""
    return f"/t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def zookeeper_url(zookeeper_hosts: str, zookeeper_root: str) -> str:
    """A Mesos-style URL below that path: "zk://127.99.0.1:34567/t-3f…"."""
    return f"zk://{zookeeper_hosts}{zookeeper_root}"
