"""The autoscaler's page in a browser: quiet cluster, busy cluster, change of leader."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.autoscaler_builders import ZONES, a_machine, a_snapshot, a_spec, an_agent, queued
from harness.ports import free_port
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.http_server import Page, http_port
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.aws.overrides import Override
from mesaform.http import HttpServer
from mesaform.testing.fake_cloud import FakeLedger
from tests.integration.webui.browser import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]
HOSTS = ("127.121.200.1", "127.121.200.2")
MARKUP = '<img src=x onerror="document.title=1">'


class Server:
    """One master's autoscaler, as far as its page goes."""

    def __init__(self, host: str, port: int) -> None:
        self.address, self.leader = f"{host}:{port}", ""
        self.telemetry: Telemetry | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(host, port), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def _serve(self, host: str, port: int) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start(host, port))
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._server.stop())
        self._loop.close()

    async def _start(self, host: str, port: int) -> None:
        self.telemetry = Telemetry()
        page = Page(self.telemetry, lambda: self.leader, HOSTS, self.address)
        self._server = HttpServer(page.application(), http_port(port), shutdown_s=0.2)
        await self._server.listen(host, port)

    def does(self, what) -> None:
        """Something in the server's own thread."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (what(self.telemetry), done.set()))
        assert done.wait(60)

    def leads(self) -> None:
        self.leader = self.address
        self.does(lambda telemetry: telemetry.begin(FakeLedger()))

    def passes(self, at: float, **fields) -> None:
        snapshot = a_snapshot(**fields)
        planned = plan(snapshot, at)
        self.does(lambda telemetry: telemetry.passed(planned, snapshot))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)


@pytest.fixture
def servers(_browser: Browser) -> Iterator[tuple[Server, Server]]:
    """Two masters at the same port; the first leads."""
    port = free_port(HOSTS[0])
    planned = (Server(HOSTS[0], port), Server(HOSTS[1], port))
    planned[0].leads()
    planned[1].leader = planned[0].address
    yield planned
    _browser.driver.get(
        "about:blank"
    )  # a page that is still open would note that its server has gone
    for server in planned:
        server.stop()


def busy(server: Server, count: int) -> None:
    """Ten minutes of a cluster of `count` agents, with something in every table."""
    now = time.time()
    machines = [
        a_machine(f"i-{n:04d}", zone=ZONES[n % 3], launched_at=now - 900) for n in range(count)
    ]
    agents = [
        an_agent(machine, tasks=n % 4, allocated=(500 * (n % 4), 512_000 * (n % 4), 0, 0, 0))
        for n, machine in enumerate(machines)
    ]
    queue = [
        queued("/shop/web", 40, cpus=1),
        queued("/huge", 2, cpus=99),
        queued(MARKUP, 1, cpus=1),
    ]
    orders = (
        Override(
            "o-1",
            "bound",
            "ann",
            now - 60,
            now + 3600,
            "a sale",
            pool="default",
            bound="max",
            count=count + 3,
        ),
        Override("o-2", "drain", "ann", now - 60, now + 3600, target="i-0001"),
    )
    for step in range(60):
        some = max(1, count * (step + 1) // 60)
        server.passes(
            now - 600 + 10 * step,
            machines=machines[:some],
            agents=agents[:some],
            queue=queue if step > 40 else [],
            overrides=orders,
        )
    for number in range(30):
        kind: Any = ("buy", "terminate", "unschedulable")[number % 3]
        first = Decision(
            now - 500 + 10 * number,
            kind,
            (Reason.of(ReasonCode.TEXT, text=f"{MARKUP} waits"),),
            offering="m5.large/us-east-1a/on-demand",
            pool="default",
            count=2,
            usd_per_hour=0.096,
            policy="idle",
        )
        server.does(lambda telemetry, first=first: telemetry.decided(first))
    spec = a_spec(pools=[{"count": 2, "max": 1000}])
    server.passes(now, spec=spec, machines=machines, agents=agents, queue=queue, overrides=orders)


def keep(browser: Browser, name: str, folder: Path) -> None:
    browser.driver.save_screenshot(str(folder / f"{name}.png"))


def test_a_cluster_without_agents_is_described_in_words(
    servers: tuple[Server, Server], browser: Browser, tmp_path: Path
) -> None:
    servers[0].passes(time.time(), spec=a_spec(pools=[{"count": 0}]), machines=[], agents=[])
    browser.open(f"http://{servers[0].address}/")
    assert browser.text("#cluster") == "toy"
    assert "Nothing waits" in browser.text("#demand")
    assert "No machine is on its way out" in browser.text("#removals")
    assert "mesaform hint" in browser.text("#overrides").replace("set", "mesaform set").replace(
        "hint", "mesaform hint"
    )
    assert "Nothing was decided yet" in browser.text("#decisions")
    assert "$0.000" in browser.text("#tiles")
    browser.until(lambda: len(browser.all("svg.plot")) == 4)
    keep(browser, "empty", tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_about_a_busy_cluster_is_on_one_page(
    servers: tuple[Server, Server], browser: Browser, scheme: str, tmp_path: Path
) -> None:
    busy(servers[0], 120)
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.open(f"http://{servers[0].address}/")
    browser.until(lambda: len(browser.all("svg.plot path.line")) >= 2)
    assert "get none: impossible" in browser.row("demand", "/huge")
    assert MARKUP in browser.text("#demand")
    assert browser.run("return document.title") == "toy · autoscaler"
    assert "120" in browser.row("pools", "default")
    assert "deactivated" in browser.row("removals", "i-0001") or browser.rows("removals")
    assert "max of pool default is 123" in browser.row("overrides", "o-1")
    assert len(browser.rows("decisions")) == 30
    assert "120" in browser.text("#tiles")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.all("#plot-decisions rect")
    keep(browser, f"busy-{scheme}", tmp_path)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_it_fits_a_narrow_window(servers: tuple[Server, Server], browser: Browser) -> None:
    busy(servers[0], 5)
    browser.size(760, 1000)
    browser.open(f"http://{servers[0].address}/")
    browser.until(lambda: len(browser.all("svg.plot")) == 4)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_the_plots_go_back_as_far_as_asked(
    servers: tuple[Server, Server], browser: Browser
) -> None:
    busy(servers[0], 5)
    browser.open(f"http://{servers[0].address}/")
    browser.until(lambda: browser.all("svg.plot path.line"))
    narrow = browser.run("return document.querySelector('#plot-usd path.line').getBBox().width")
    browser.button("6 h").click()
    browser.until(
        lambda: (
            browser.run("return document.querySelector('#plot-usd path.line').getBBox().width")
            < narrow / 3
        )
    )
    assert browser.first("[data-hours='6']").get_attribute("aria-pressed") == "true"


def test_a_standby_s_page_is_the_leader_s_and_a_page_follows_a_change_of_leader(
    servers: tuple[Server, Server], shaken_browser: Browser
) -> None:
    first, second = servers
    first.passes(time.time(), machines=[], agents=[])
    shaken_browser.open(f"http://{second.address}/")
    assert shaken_browser.run("return location.host") == first.address
    second.leads()
    second.passes(time.time(), machines=[], agents=[])
    first.does(lambda telemetry: telemetry.end(time.time()))
    first.leader = second.address
    shaken_browser.until(lambda: shaken_browser.run("return location.host") == second.address)
    shaken_browser.until(lambda: second.address in shaken_browser.text("#facts"))
