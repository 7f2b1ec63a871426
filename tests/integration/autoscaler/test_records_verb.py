"""`mesaform records` and `status` as a person runs them: a daemon, ZooKeeper and moto."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mesaform.aws import client
from mesaform.aws.fleet import AwsFleet
from mesaform.cli import records
from mesaform.common.errors import MesaformError
from mesaform.zookeeper.session import ZooKeeper
from tests.integration.autoscaler.test_daemon import (
    Cluster,
    alive,
    cluster_on,
    leads,
    until,
)
from tests.integration.autoscaler.test_verbs import file  # noqa: F401
from tests.integration.aws.conftest import REGION

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]


@pytest.fixture
def host() -> str:
    return "127.96.0.5"


@pytest.fixture
async def cluster(host: str) -> AsyncIterator[Cluster]:
    async with cluster_on(Cluster(), host) as outcome:
        yield outcome


@pytest.fixture
async def zk(zookeeper_hosts: str) -> AsyncIterator[ZooKeeper]:
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


async def run(*arguments: str) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    records.register(app)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["records", *arguments])
    if isinstance(result.exception, MesaformError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_records_of_a_cluster_are_listed_shown_removed_and_the_autoscaler_goes_on(
    cluster: Cluster,
    daemons: Any,
    spec: None,
    bucket: str,
    zk: ZooKeeper,
    zookeeper_root: str,
    file: str,
):
    root = f"{zookeeper_root}/autoscaler"
    await zk.put(f"{root}/launches/ms-forged", b"garbage")
    await zk.put(f"{root}/state", b"\x00garbage")
    client.client("s3", REGION).put_object(
        Bucket=bucket, Key="toy/control/overrides.json", Body=b"garbage"
    )
    daemon = await daemons()
    await until(lambda: leads(daemon))
    health = await daemon.get("/health")
    assert health["able"]
    assert health["set_aside"] == {"launches": 1, "planner-state": 1, "overrides": 1}
    metrics = await daemon.get("/metrics")
    assert 'mesaform_records_set_aside_total{kind="launches"} 1' in metrics
    assert 'mesaform_leader_condition{condition="orders readable"} 1' in metrics

    async def listed() -> list[str]:
        rows = json.loads(await run("list", "--file", file, "--json"))["records"]
        return sorted(row["id"] for row in rows if row["kind"] != "overrides")

    assert await until(listed) == ["launches/ms-forged", "planner-state/state"]
    text = await run("list", "--file", file)
    assert f"was {root}/launches/ms-forged" in text
    assert "overrides/overrides.json." in text
    assert await run("show", "launches/ms-forged", "--file", file) == "garbage"
    await run("remove", "launches/ms-forged", "--file", file, "--yes")
    assert await listed() == ["planner-state/state"]
    with pytest.raises(MesaformError, match="a new record has this name"):
        await run("restore", "planner-state/state", "--file", file)
    with pytest.raises(MesaformError, match="no such record"):
        await run("show", "launches/ms-forged", "--file", file)
    # The pause that stands for the overrides ends; then demand is served.
    await asyncio.to_thread(end_pause, bucket)
    cluster.want(1)
    await until(lambda: alive(AwsFleet(REGION)))


def end_pause(bucket: str) -> None:
    from mesaform.aws.control import S3Control

    control = S3Control(bucket, "toy", REGION)
    assert [override.kind for override in control.overrides()] == ["pause"]
    control.update_overrides(lambda _: ())
