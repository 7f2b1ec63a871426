"""HTTP of the autoscaler: the page, its data, and the metrics that the documentation names."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from harness.autoscaler_builders import NOW, a_machine, a_snapshot, a_spec, an_agent, queued
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.api_views import KEPT_S, POINTS_SHOWN, Ring
from mesaform.autoscaler.reporting.http_server import Page, http_port
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.aws.overrides import Override
from mesaform.http import HttpServer
from mesaform.testing.fake_cloud import FakeLedger

ADDRESS = "127.122.9.1:9550"
DOCUMENT = Path(__file__).parents[3] / "docs" / "autoscaler.md"


class Site:
    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry, self.leader, self.base = telemetry, ADDRESS, ""
        self._session = ClientSession()

    async def get(self, path: str):
        async with self._session.get(self.base + path, allow_redirects=False) as answer:
            body = await answer.json() if "json" in answer.content_type else await answer.text()
            return answer.status, answer.headers, body

    async def close(self) -> None:
        await self._session.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A server that leads, at a free port, before its first pass."""
    served = Site(Telemetry())
    page = Page(served.telemetry, lambda: served.leader, ["127.122.9.1", "127.122.9.2"], ADDRESS)
    server = HttpServer(page.application(), http_port(9550))
    served.base = f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}"
    served.telemetry.begin(FakeLedger())
    yield served
    await served.close()
    await server.stop()


def a_pass(telemetry: Telemetry, at: float = NOW, **fields) -> None:
    snapshot = a_snapshot(**fields)
    telemetry.passed(plan(snapshot, at), snapshot)


async def test_the_moment_has_demand_with_verdicts_pools_with_bounds_removals_and_orders(
    site: Site,
):
    machine = a_machine("i-9")
    order = Override("o1", "bound", "ann", NOW - 5, NOW + 600, pool="default", bound="max", count=7)
    a_pass(
        site.telemetry,
        machines=[machine],
        agents=[an_agent(machine)],
        queue=[queued(count=3, cpus=99)],
        overrides=(order,),
    )
    status, _, view = await site.get("/view")
    assert status == 200
    assert view["cluster"] == "toy"
    (unit,) = view["plan"]["demand"]
    assert (unit["count"], unit["unmet"], unit["verdict"]) == (3, 3, "impossible")
    (pool,) = view["pools"]
    assert (pool["min"], pool["max"], pool["overridden"], pool["machines"]) == (2, 7, True, 1)
    assert "max of pool default is 7" in view["overrides"][0]["what"]
    assert view["totals"]["states"] == {"idle": 1}


async def test_before_the_first_pass_and_for_wrong_questions_the_answers_are_plain(site: Site):
    status, _, view = await site.get("/view")
    assert (status, view["plan"]) == (200, {})
    assert (await site.get("/series?hours=2"))[0] == 400
    assert (await site.get("/static/../daemon.py"))[0] == 404
    assert (await site.get("/health"))[2]["leader"] == ADDRESS


async def test_a_standby_sends_pages_to_the_leader_and_keeps_its_own_health_and_metrics(site: Site):
    site.telemetry.end(NOW)
    site.leader = "127.122.9.2:9550"
    for path in ("/", "/view", "/series?hours=6"):
        status, headers, _ = await site.get(path)
        assert (status, headers["Location"]) == (307, f"http://127.122.9.2:9550{path}")
    assert (await site.get("/health"))[2]["leading"] is False
    assert "mesaform_autoscaler_leading 0.0" in (await site.get("/metrics"))[2]
    site.leader = ""
    assert (await site.get("/view"))[0] == 503
    site.leader = ADDRESS
    assert (await site.get("/view"))[0] == 503


async def test_nothing_from_elsewhere_is_loaded_and_only_other_masters_are_asked(site: Site):
    _, headers, body = await site.get("/")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "connect-src 'self' http://127.122.9.1:9550 http://127.122.9.2:9550;" in policy
    assert re.findall(r"https?://", body) == []


async def test_the_last_day_comes_from_the_ledger_when_a_term_begins_and_nothing_is_doubled(
    site: Site,
):
    import time

    now = time.time()
    ledger = FakeLedger()
    level = {"usd": 1.0, "idle_usd": 0.0, "demand": {"unmet": 2}, "states": {"busy": 1}}
    ledger.append_many(
        {"kind": "level", "at": now - 3570 + 60 * number, "level": level} for number in range(30)
    )
    decision = {
        "kind": "decision",
        "decision": "buy",
        "at": now - 50,
        "text": "1 x m5.large",
        "count": 1,
    }
    ledger.append(decision)
    site.telemetry.recent.append(decision)
    a_pass(site.telemetry, at=now)
    site.telemetry._remember(ledger.read())
    _, _, series = await site.get("/series?hours=1")
    assert len(series["points"]) == 31
    assert series["points"][-1]["at"] == pytest.approx(now, abs=1)
    assert [item[1] for item in series["decisions"]] == ["buy"]


async def test_who_leads_again_shows_what_another_did_meanwhile(site: Site):
    import time

    now = time.time()
    a_pass(site.telemetry, at=now - 3000)
    site.telemetry.recent.append(
        {"kind": "decision", "decision": "buy", "at": now - 3000, "text": "mine"}
    )
    site.telemetry.end(now - 2900)
    ledger = FakeLedger()
    level = {"usd": 1.0, "idle_usd": 0.0, "demand": {}, "states": {}}
    ledger.append_many(
        {"kind": "level", "at": now - 3000 + 60 * number, "level": level} for number in range(40)
    )
    ledger.append({"kind": "decision", "decision": "buy", "at": now - 1000, "what": "theirs"})
    site.telemetry.begin(ledger)
    a_pass(site.telemetry, at=now)
    site.telemetry._remember(ledger.read())
    _, _, series = await site.get("/series?hours=1")
    assert len(series["points"]) == 41
    assert [item[3] for item in series["decisions"]] == ["mine", "theirs"]


def test_a_day_of_points_is_kept_and_no_more_are_shown_than_a_plot_has_room_for():
    ring = Ring()
    for second in range(0, int(KEPT_S) + 7200, 5):
        ring.add(float(second), {"usd": 1.0, "demand": {"unmet": 9 if second == 50_005 else 0}})
    until = KEPT_S + 7195
    shown = ring.thinned(until - KEPT_S, until)
    assert len(shown) <= POINTS_SHOWN + 1
    assert shown[0]["at"] >= until - KEPT_S
    assert max(point["demand"]["unmet"] for point in shown) == 9
    assert len(ring._points) <= KEPT_S / 10 + 2


def test_the_documentation_has_every_metric_and_no_other():
    families = {family.name for family in Telemetry().measures.registry.collect()}
    telemetry = set(
        re.findall(
            r"^\| `mesaform_autoscaler_(\w+?)(?:_total)?(?:\{[^}]*\})?` \|",
            DOCUMENT.read_text(),
            re.MULTILINE,
        )
    )
    assert telemetry == {name.removeprefix("mesaform_autoscaler_") for name in families}


def test_what_an_operator_would_alert_on_is_in_the_metrics():
    telemetry = Telemetry()
    telemetry.troubled("s3")
    telemetry.decided(Decision(NOW, "notice", policy="interruption"))
    machine = a_machine("i-9")
    a_pass(
        telemetry,
        spec=a_spec(),
        machines=[machine],
        agents=[an_agent(machine)],
        queue=[queued(count=40)],
        freeze_reason="down",
    )
    value = telemetry.measures.registry.get_sample_value
    assert value("mesaform_autoscaler_machines", {"pool": "default", "state": "idle"}) == 1
    assert value("mesaform_autoscaler_idle_usd_per_hour") == 0.096
    assert value("mesaform_autoscaler_usd_per_hour") == 0.096
    assert value("mesaform_autoscaler_api_errors_total", {"api": "s3"}) == 1
    assert value("mesaform_autoscaler_notices_total", {"kind": "interruption"}) == 1
    assert value("mesaform_autoscaler_blocked", {"by": "freeze"}) == 1
    assert value("mesaform_autoscaler_blocked", {"by": "pause"}) == 0
    assert value("mesaform_autoscaler_demand", {"verdict": "unmet"}) > 0
