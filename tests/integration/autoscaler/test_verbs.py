"""`mesaform why` and `mesaform plan` as a person runs them, on moto and a scripted master."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.aws.control import S3Control
from mesaform.aws.ledger import S3Ledger
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import ensure_credentials
from tests.integration.autoscaler.test_daemon import Cluster, cluster_on
from tests.integration.aws.conftest import REGION, bucket, cloud, moto_url  # noqa: F401

pytestmark = pytest.mark.slow
NETWORK = "127.95.0.0/16"
MASTER = "127.95.0.10"


@pytest.fixture
def file(tmp_path: Path, moto_url: str, bucket: str) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        f"name: toy\nnetwork: {{cidr: {NETWORK}}}\n"
        "agents: [{name: default, count: 0, types: [m5.large, m5.xlarge], max: 3}]\n"
    )
    folder = tmp_path / ".mesaform" / "local"
    folder.mkdir(parents=True)
    (folder / "endpoint.json").write_text(json.dumps({"url": moto_url, "pid": 1}))
    ensure_credentials(Layout(folder))
    return str(path)


def run(*arguments: str) -> str:
    """Output of the program in a process of its own: moto prints into that of the test."""
    ended = subprocess.run(
        [sys.executable, "-m", "mesaform.cli.main", *arguments],
        env={**os.environ, "COLUMNS": "180"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_why_shows_decisions_with_reasons_and_dollars(file: str, bucket: str):
    ledger, now = S3Ledger(bucket, "toy", REGION), time.time()
    ledger.append({"kind": "machine_started", "at": now, "instance_id": "i-1"})
    ledger.append(
        Decision(
            now - 9,
            "buy",
            (Reason.of(ReasonCode.DEMAND_QUEUED, app="/web", count=2, wait_s=3.0),),
            pool="default",
            offering="m5.large/us-east-1a/on-demand",
            count=2,
            machines=("i-1", "i-2"),
            usd_per_hour=0.192,
            after_usd=0.4,
        ).record()
    )
    ledger.append(
        Decision(
            now - 1,
            "terminate",
            (Reason.of(ReasonCode.NO_TASK_SINCE, idle_s=300.0),),
            offering="m5.large/us-east-1a/on-demand",
            machines=("i-1",),
            usd_per_hour=-0.096,
            after_usd=0.304,
        ).record()
    )
    shown = " ".join(run("why", "-f", file).split())
    assert "i-2" not in shown
    assert "i-1, i-2" in " ".join(run("why", "--verbose", "-f", file).split())
    for words in (
        "2 x m5.large for pool default",
        "/web: 2 instances waiting for 3 s",
        "+0.1920",
        "-0.0960",
        "$0.3040",
    ):
        assert words in shown
    assert shown.index("2 x m5.large") < shown.index("is terminated")
    rows = json.loads(run("why", "-f", file, "--last", "1", "--json"))["decisions"]
    assert [row["decision"] for row in rows] == ["terminate"]


def test_why_of_a_cluster_that_decided_nothing_says_so(file: str):
    assert "no decisions yet" in run("why", "-f", file)


async def test_plan_shows_demand_with_verdicts_and_does_nothing(file: str, bucket: str):
    import asyncio

    cluster = Cluster()
    cluster.want(9)
    S3Control(bucket, "toy", REGION).write_heartbeat(
        time.time(), frozen=False, address="x", planner_state={"leader_since": 1.0, "unknown": 1}
    )
    async with cluster_on(cluster, MASTER):
        shown = await asyncio.to_thread(run, "plan", "-f", file)
        actual = json.loads(await asyncio.to_thread(run, "plan", "-f", file, "--json"))
    assert "9 need machines to buy: 2 x m5.xlarge, 1 x m5.large" in shown
    for zone in ("us-east-1a", "us-east-1b"):
        assert f"would buy: 1 x m5.xlarge for pool default in {zone}" in shown
    (demand,) = actual["demand"]
    assert (demand["name"], demand["buying"], demand["unmet"]) == ("/web", 9, 0)
    assert actual["dry_run"] is True
    assert actual["after_usd_per_hour"] == pytest.approx(0.5086, rel=1e-3)
    assert cluster.calls == []


def test_plan_without_a_cluster_says_what_is_not_known(file: str):
    shown = run("plan", "-f", file)
    assert "no master is elected" in shown
    assert "The autoscaler would do nothing now" in shown
