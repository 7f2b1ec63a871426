"""The access document from `mesaform up` to the ports, and the rotation of the token."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from mesaform.autoscaler.daemon.access import AccessCopy, MesosFiles
from mesaform.autoscaler.reporting.http_server import Page, http_port
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.aws import client
from mesaform.aws.access_parameter import ACCESS_DOCUMENT
from mesaform.aws.resources.sweep import resource_kinds
from mesaform.aws.secure_parameter import SecureParameter
from mesaform.aws.secure_parameter_writer import SecureParameterWriter
from mesaform.cli import token as token_verb
from mesaform.common.access import AccessDocument
from mesaform.common.errors import BadInput, Busy
from mesaform.config.schema import ClusterSpec
from mesaform.http import Access, AccessFile, HttpServer
from mesaform.provision.access import ensure_access, require_access, rotate
from mesaform.provision.deployment import establish_deployment
from mesaform.provision.orphans import is_orphan
from mesaform.provision.secret_documents import OWNER
from mesaform.topology.names import Tag, access_parameter_name
from tests.integration.aws.conftest import REGION, cloud, moto_url

__all__ = ["cloud", "moto_url"]
ACCOUNT = "123456789012"


@dataclass
class Place:
    spec: ClusterSpec
    cluster_dir: Path
    file: Path


def a_spec(**access: object) -> ClusterSpec:
    return ClusterSpec.model_validate({"name": "toy", "access": access})


@pytest.fixture
def place(cloud: Any, tmp_path: Path) -> Place:
    from mesaform.provision.deployment import Caller

    establish_deployment(tmp_path, Caller(ACCOUNT, "arn", 0.0), REGION)
    return Place(a_spec(token="required"), tmp_path, tmp_path / "cluster.yaml")


@pytest.mark.slow
def test_up_draws_a_token_once_and_stores_it_encrypted_with_the_tags_of_the_cluster(
    place: Place,
) -> None:
    assert "new token" in ensure_access(place)
    document = require_access(place)
    assert [len(token) for token in document.tokens] == [64]
    assert ensure_access(place) == "unchanged"
    assert require_access(place) == document
    ssm = client.client("ssm", REGION)
    (parameter,) = ssm.describe_parameters()["Parameters"]
    assert parameter["Type"] == "SecureString"
    (listed,) = next(
        kind for kind in resource_kinds("toy", REGION) if kind.kind == "parameter"
    ).list()
    assert listed.id == access_parameter_name("toy"), "the teardown finds it"
    assert listed.tags[Tag.MANAGED_BY] == OWNER
    deployment = listed.tags[Tag.DEPLOYMENT]
    assert not is_orphan(listed, known=(), deployment_id=deployment, leftover_machines=())


def test_a_framework_gets_a_secret_that_stays_and_loses_it_when_it_is_not_named_any_more(
    place: Place,
) -> None:
    ensure_access(place)
    token = require_access(place).tokens
    frameworks = [{"principal": "spark", "roles": ["analytics"]}, {"principal": "jenkins"}]
    place.spec = a_spec(token="required", frameworks=frameworks)
    assert ensure_access(place) == "credentials of frameworks renewed"
    first = require_access(place)
    place.spec = a_spec(token="required", frameworks=frameworks[1:])
    ensure_access(place)
    second = require_access(place)
    assert second.tokens == token
    assert second.credentials == first.credentials[1:]
    assert first.acls["register_frameworks"] == [
        {"principals": {"values": ["spark"]}, "roles": {"values": ["analytics"]}},
        {"principals": {"values": ["spark"]}, "roles": {"type": "NONE"}},
    ]
    assert "register_frameworks" not in second.acls


def test_a_cluster_that_asks_for_no_credential_gets_no_parameter(place: Place) -> None:
    place.spec = a_spec(token="none")
    assert ensure_access(place) == ""
    assert SecureParameter(ACCESS_DOCUMENT, "toy", REGION).read() is None


def test_a_parameter_that_cannot_be_read_is_named_and_not_replaced(place: Place) -> None:
    ssm = client.client("ssm", REGION)
    name = access_parameter_name("toy")
    ssm.put_parameter(Name=name, Value='{"tokens":["short"]}', Type="SecureString")
    with pytest.raises(BadInput, match="cannot be read"):
        ensure_access(place)
    assert "short" in ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]


def test_mesos_files_have_the_own_principals_the_operator_and_the_frameworks(
    tmp_path: Path, cloud: Any
) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"credentials":[{"principal":"services","secret":"s"}]}')
    files = MesosFiles(own, tmp_path / "credentials.json", tmp_path / "acls.json")
    copy = AccessCopy(
        SecureParameter(ACCESS_DOCUMENT, "toy", REGION), tmp_path / "access.json", files
    )
    document = AccessDocument(("1" * 64, "2" * 64), acls={"run_tasks": []})
    copy.write(document)
    entries = msgspec.json.decode(files.credentials.read_bytes())["credentials"]
    assert entries == [
        {"principal": "services", "secret": "s"},
        {"principal": "operator", "secret": "2" * 64},
    ]
    assert msgspec.json.decode(files.acls.read_bytes()) == {"run_tasks": []}
    for path in (copy.file, files.credentials, files.acls):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@dataclass
class Masters:
    """Ports 9550 of two masters, each with a copy of the document."""

    hosts: list[str]
    port: int
    copies: list[AccessCopy]


@pytest.fixture
async def masters(place: Place, tmp_path: Path) -> AsyncIterator[Masters]:
    hosts = ["127.97.2.1", "127.97.2.2"]
    servers, copies, port = [], [], 0
    for host in hosts:
        file = tmp_path / host
        copies.append(AccessCopy(SecureParameter(ACCESS_DOCUMENT, "toy", REGION), file))
        app = Page(Telemetry(), lambda: "", hosts, f"{host}:9550").application()
        access = Access(AccessFile(file), is_required=True)
        server = HttpServer(app, http_port(9550, access))
        port = await server.listen(host, port)
        servers.append(server)
    yield Masters(hosts, port, copies)
    for server in servers:
        await server.stop()


async def test_a_rotation_keeps_both_tokens_until_every_master_has_read_the_new_one(
    place: Place, masters: Masters, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_access(place)
    store = SecureParameterWriter(ACCESS_DOCUMENT, "toy", REGION)
    document = require_access(place)
    old = document.tokens[0]
    seen: list[tuple[str, bool, tuple[str, ...]]] = []

    def wait(token: str, accepts: bool) -> None:
        stored = store.read()
        assert stored is not None
        seen.append((token, accepts, stored.tokens))
        for copy in masters.copies:
            copy.write(stored)

    final = await asyncio.to_thread(rotate, store, document, wait)
    (new,) = final.tokens
    assert seen == [(new, True, (old, new)), (old, False, (new,))]
    assert new != old


async def test_an_interrupted_rotation_goes_on_with_the_same_token(place: Place) -> None:
    ensure_access(place)
    store = SecureParameterWriter(ACCESS_DOCUMENT, "toy", REGION)

    def fail(_token: str, _accepts: bool) -> None:
        raise Busy("a master does not answer")

    with pytest.raises(Busy):
        rotate(store, require_access(place), fail)
    halfway = require_access(place).tokens
    assert len(halfway) == 2
    rotate(store, require_access(place), lambda _token, _accepts: None)
    assert require_access(place).tokens == halfway[1:]


@pytest.mark.slow
async def test_a_master_serves_operators_from_its_copy_and_a_removed_document_ends_that(
    place: Place, masters: Masters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesaform.autoscaler.daemon.access.READ_EVERY_S", 0.1)
    monkeypatch.setattr("mesaform.autoscaler.daemon.access.READ_FIRST_S", 0.1)
    monkeypatch.setitem(token_verb.PROBES, masters.port, "/metrics")
    host, tasks = masters.hosts[0], [asyncio.create_task(c.follow()) for c in masters.copies]

    async def accepted(token: str) -> bool | None:
        return await asyncio.to_thread(token_verb.accepts_token, host, masters.port, token)

    async def becomes(token: str, wanted: bool) -> None:
        async with asyncio.timeout(60):
            while await accepted(token) is not wanted:
                await asyncio.sleep(0.05)

    try:
        assert await accepted("1" * 64) is False, "nobody may while there is no document"
        ensure_access(place)
        (token,) = require_access(place).tokens
        await becomes(token, True)
        async with aiohttp.ClientSession() as session:
            url = f"http://{host}:{masters.port}"
            async with session.get(f"{url}/health") as response:
                assert response.status != 401
            async with session.get(f"{url}/view") as response:
                assert response.status == 401
                assert "message" in await response.json()
        client.client("ssm", REGION).delete_parameter(Name=access_parameter_name("toy"))
        await becomes(token, False)
    finally:
        for task in tasks:
            task.cancel()
