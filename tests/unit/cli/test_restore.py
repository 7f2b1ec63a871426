"""`mesaform restore`: the choice of a snapshot, and when `mesaform up` names the command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from mesaform.cli.restore import describe_age, describe_counts
from mesaform.cli.snapshot_client import SnapshotClient, read_present_state, restore_hint
from mesaform.common.errors import NotFound, Retryable
from mesaform.common.records import Unreadable
from mesaform.common.snapshots import Snapshot, SnapshotName
from mesaform.services.model import App
from mesaform.services.records import APP

NEWEST = SnapshotName.of(1_795_750_800.0, "d1")
WITH_APP = {"/marathon/apps/%2Fweb": APP.encode(App(id="/web"))}


class Snapshots:
    """Snapshots in memory."""

    def __init__(self, **nodes_by_deployment: dict[str, bytes]) -> None:
        self.stored = {
            SnapshotName.of(NEWEST.at, deployment): Snapshot(
                cluster="c", deployment=deployment, at=NEWEST.at, nodes=nodes
            )
            for deployment, nodes in nodes_by_deployment.items()
        }
        self.failure: Exception | None = None

    def names(self) -> list[SnapshotName]:
        if self.failure:
            raise self.failure
        return sorted(self.stored)

    def read(self, name: SnapshotName) -> Snapshot | Unreadable:
        return self.stored[name]

    def write(self, snapshot: Snapshot) -> SnapshotName:
        raise NotImplementedError

    def remove(self, name: SnapshotName) -> None:
        raise NotImplementedError


@pytest.fixture
async def services() -> AsyncIterator[Any]:
    """Services that know the apps of `apps`; `picture` is a status with their address."""
    known = SimpleNamespace(apps=[], picture=None)
    app = web.Application()

    async def apps(_request: web.Request) -> web.Response:
        return web.json_response({"apps": known.apps})

    async def tasks(_request: web.Request) -> web.Response:
        return web.json_response({"tasks": []})

    app.add_routes([web.get("/v2/apps", apps), web.get("/v2/tasks", tasks)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.62.9.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    known.picture = SimpleNamespace(urls={"services": f"http://127.62.9.1:{port}"})
    yield known
    await runner.cleanup()


async def test_up_names_the_command_where_a_state_was_lost(services):
    hint = await restore_hint(services.picture, Snapshots(d1=WITH_APP), "d1")
    assert "The ensemble is empty" in hint
    assert str(NEWEST) in hint
    assert hint.endswith("mesaform restore")
    other = await restore_hint(services.picture, Snapshots(d1=WITH_APP), "d2")
    assert other.endswith("mesaform restore --any-deployment")


async def test_up_says_nothing_of_snapshots_where_nothing_was_lost(services):
    assert await restore_hint(services.picture, Snapshots(), "d1") == ""
    assert await restore_hint(services.picture, Snapshots(d1={}), "d1") == "", "it was empty"
    services.apps = [{"id": "/web"}]
    assert await restore_hint(services.picture, Snapshots(d1=WITH_APP), "d1") == ""
    assert await read_present_state(services.picture) == {"apps": 1}


async def test_up_goes_on_where_snapshots_cannot_be_listed(services):
    snapshots = Snapshots()
    snapshots.failure = Retryable("no answer", after_s=1.0)
    assert "not known" in await restore_hint(services.picture, snapshots, "d1")


async def test_services_that_do_not_answer_are_not_taken_for_empty():
    nobody: Any = SimpleNamespace(urls={"services": "http://127.62.9.1:9"})
    assert await read_present_state(nobody) is None
    without: Any = SimpleNamespace(urls={})
    assert await read_present_state(without) is None


def client(snapshots: Snapshots, deployment: str) -> SnapshotClient:
    control: Any = None
    return SnapshotClient(snapshots, control, "c", deployment)


def test_a_snapshot_of_an_earlier_deployment_is_named_and_not_taken_by_itself():
    with pytest.raises(NotFound, match="--any-deployment"):
        client(Snapshots(d1=WITH_APP), "d2").choose("", any_deployment=False)
    assert client(Snapshots(d1=WITH_APP), "d2").choose("", any_deployment=True) == NEWEST
    assert client(Snapshots(d1=WITH_APP), "d1").choose("2026-11-27", any_deployment=False) == NEWEST
    with pytest.raises(NotFound, match="no snapshot of 2020"):
        client(Snapshots(d1=WITH_APP), "d1").choose("2020", any_deployment=False)


def test_a_snapshot_is_validated_before_anybody_is_asked():
    assert client(Snapshots(d1=WITH_APP), "d1").validate(NEWEST, any_deployment=False) == {
        "apps": 1
    }


def test_counts_and_ages_are_in_words():
    assert describe_counts({"apps": 2, "instances": 3}) == "2 apps, 3 tasks"
    assert describe_counts({}) == "nothing"
    assert [describe_age(seconds) for seconds in (5, 700, 7300, 200_000)] == [
        "5 s",
        "11 min",
        "2 h",
        "2 d",
    ]
