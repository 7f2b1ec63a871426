"""S3 fails under a real daemon and recovers: scaling continues; the ledger has each row once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ledger import S3Ledger
from tests.integration.autoscaler.test_daemon import Cluster, Daemon, alive, leads, until
from tests.integration.aws.conftest import REGION, bucket, cloud, moto_url  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]


class Line:
    """A line to S3 that can be cut: a port that hands everything on."""

    def __init__(self, to: str) -> None:
        self._to = urlsplit(to)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._hand_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._to.hostname, self._to.port)
        self._open |= {writer, back}
        with contextlib.suppress(ConnectionError, OSError):
            await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
        for item in (writer, back):
            self._open.discard(item)
            item.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def line(moto_url: str, bucket: str) -> AsyncIterator[Line]:
    outcome = Line(moto_url)
    await outcome.mend()
    yield outcome
    await outcome.cut()


async def test_without_s3_machines_are_bought_and_given_back_and_the_ledger_has_it_all_afterwards(
    cluster: Cluster,
    daemons: Any,
    spec: None,
    bucket: str,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, fleet = S3Ledger(bucket, "toy", REGION), AwsFleet(REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{line.port}")
    daemon: Daemon = await daemons()
    await until(lambda: leads(daemon))
    await line.cut()
    cluster.want(2)
    (machine,) = await until(lambda: alive(fleet))
    cluster.want(0)
    cluster.register(machine)
    await until(lambda: not alive(fleet))

    async def backlog() -> bool:
        text = await daemon.get("/metrics")
        return (
            "mesaform_autoscaler_ledger_backlog 0.0" not in text
            and 'api_errors_total{api="s3"}' in text
        )

    await until(backlog)
    assert not ledger.read(kinds=["decision", "machine_stopped"])
    await line.mend()
    kinds = ["decision", "machine_started", "machine_stopped"]
    rows = await until(
        lambda: (
            (result := ledger.read(kinds=kinds))
            and result[-1]["kind"] == "machine_stopped"
            and result
        ),
        60,
    )
    story = [row.get("decision", row["kind"]) for row in rows]
    for once in ("buy", "machine_started", "deactivate", "drain", "terminate", "machine_stopped"):
        assert story.count(once) == 1, story
