"""An autoscaler without credentials resigns and another one works; later it works itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesaform.aws.fleet import AwsFleet
from tests.integration.autoscaler.test_daemon import (
    Cluster,
    Daemon,
    alive,
    cluster_on,
    leads,
    until,
)
from tests.integration.aws.conftest import REGION
from tests.integration.aws.test_credentials import ROLE, credentials
from tests.integration.node.metadata import MetadataServer

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper, pytest.mark.timeout(180)]


@pytest.fixture
def host() -> str:
    return "127.96.0.6"


@pytest.fixture
async def cluster(host: str) -> AsyncIterator[Cluster]:
    async with cluster_on(Cluster(), host) as outcome:
        yield outcome


async def test_a_leader_without_credentials_gives_way_and_works_once_they_are_there(
    cluster: Cluster,
    daemons: Any,
    spec: None,
    zookeeper_hosts: str,
    zookeeper_root: str,
    host: str,
    tmp_path: Path,
):
    fleet = AwsFleet(REGION)
    first = Daemon(zookeeper_hosts, zookeeper_root, 0, host)
    with MetadataServer({}, "127.71.0.10") as metadata:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
            first.environment.pop(name, None)
        first.environment |= {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.endpoint,
            "AWS_CONFIG_FILE": str(tmp_path / "absent"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "absent"),
        }
        await first.start()
        try:
            await until(lambda: lacks(first, "credentials"))
            cluster.want(1)
            second = await daemons()
            await until(lambda: leads(second))
            machines = await until(lambda: alive(fleet))
            metrics = await first.get("/metrics")
            # On a busy host it leads and resigns again before the other one has started.
            assert re.search(
                r'^mesaform_leader_resignations_total\{condition="credentials"\} [1-9]',
                metrics,
                re.MULTILINE,
            )
            metadata.values |= {ROLE: "masters", f"{ROLE}masters": credentials("AKIAFIRST")}
            await second.kill()
            await until(lambda: leads(first))
            assert (await first.get("/health"))["able"]
            cluster.register(machines[0])
            cluster.want(0)
            await until(lambda: not alive(fleet))
        finally:
            await first.kill()


async def lacks(daemon: Daemon, condition: str) -> bool:
    health = await daemon.get("/health")
    return not health["able"] and not health["conditions"][condition]
