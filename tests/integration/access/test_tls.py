"""The CA from `mesaform up` to the verbs, its rotation, and the wait while `tls` changes."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mesaform.aws import client
from mesaform.aws.authority_parameter import AUTHORITY_DOCUMENT
from mesaform.aws.ports import Machine
from mesaform.aws.resources.sweep import resource_kinds
from mesaform.aws.secure_parameter import SecureParameter
from mesaform.aws.secure_parameter_writer import SecureParameterWriter
from mesaform.cli import token as token_verb
from mesaform.cli.ca import require_renewed
from mesaform.cli.context import Context
from mesaform.cli.operator_login import TOKEN_VARIABLE
from mesaform.cli.wiring import Wiring
from mesaform.common.access import OPERATOR, basic_header
from mesaform.common.certificates import AuthorityDocument, create_authority
from mesaform.common.errors import BadInput, Busy, MissingPrerequisite
from mesaform.common.record_files import write_record
from mesaform.common.tls import TlsFiles
from mesaform.config.schema import ClusterSpec
from mesaform.http import HttpPort, HttpServer
from mesaform.localcloud.endpoint_file import Endpoint, write_endpoint
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import CREDENTIALS, OperatorCredentials
from mesaform.node import copy_authority
from mesaform.provision import forget_deployment
from mesaform.provision.authority import (
    Rotation,
    certificates_file,
    ensure_authority,
    require_authority,
    rotate,
)
from mesaform.provision.deployment import Caller, establish_deployment
from mesaform.provision.orphans import is_orphan
from mesaform.provision.secret_documents import OWNER
from mesaform.status.tls_switch import TlsSwitch
from mesaform.status.view import Sources, join
from mesaform.topology.names import Tag, authority_parameter_name
from tests.integration.aws.conftest import REGION, cloud, moto_url
from tests.support.tls import DAY_S, Cluster

__all__ = ["cloud", "moto_url"]
ACCOUNT = "123456789012"
TOKEN = "a-token-of-at-least-thirty-two-characters"
MASTERS = ("127.75.0.10", "127.75.32.10", "127.75.64.10")


def a_spec(**changes: object) -> ClusterSpec:
    network = {"cidr": "127.75.0.0/16"}
    return ClusterSpec.model_validate({"name": "toy", "tls": True, "network": network, **changes})


@pytest.fixture
def place(cloud: Any, moto_url: str, tmp_path: Path) -> Context:
    context = Context(a_spec(access={"token": "required"}), tmp_path / "c.yaml", tmp_path / "state")
    layout = Layout(context.local_dir)
    layout.endpoint.parent.mkdir(parents=True)
    write_endpoint(layout, Endpoint(moto_url, os.getpid()))
    write_record(layout.credentials, CREDENTIALS, OperatorCredentials("local", "local", "none"))
    establish_deployment(context.cluster_dir, Caller(ACCOUNT, "arn", 0.0), REGION)
    return context


@pytest.mark.slow
def test_up_creates_the_ca_once_and_stores_it_encrypted_with_the_tags_of_the_cluster(
    place: Context,
) -> None:
    assert "new CA" in ensure_authority(place)
    document = require_authority(place)
    assert ensure_authority(place) == "unchanged"
    assert require_authority(place) == document
    (parameter,) = client.client("ssm", REGION).describe_parameters()["Parameters"]
    assert parameter["Type"] == "SecureString"
    (listed,) = next(
        kind for kind in resource_kinds("toy", REGION) if kind.kind == "parameter"
    ).list()
    assert listed.id == authority_parameter_name("toy"), "the teardown finds it"
    assert listed.tags[Tag.MANAGED_BY] == OWNER
    deployment = listed.tags[Tag.DEPLOYMENT]
    assert not is_orphan(listed, known=(), deployment_id=deployment, leftover_machines=())


def test_the_folder_keeps_the_certificate_without_the_key_and_forgets_it_with_the_cluster(
    place: Context,
) -> None:
    ensure_authority(place)
    file = certificates_file(place.cluster_dir)
    assert file.read_text() == require_authority(place).certificates
    assert "PRIVATE" not in file.read_text()
    forget_deployment(place)
    assert not file.exists()


def test_up_tells_of_a_ca_in_its_last_year(place: Context) -> None:
    old = create_authority("toy", "d1", time.time() - 3600 * DAY_S)
    SecureParameterWriter(AUTHORITY_DOCUMENT, "toy", REGION).create(AuthorityDocument((old,)), {})
    assert ensure_authority(place) == "unchanged; it ends in 50 days: mesaform ca rotate"


def test_without_tls_nothing_is_created_and_nothing_is_shown(place: Context) -> None:
    plain = Context(a_spec(tls=False), place.file, place.state_dir)
    assert ensure_authority(plain) == ""
    assert client.client("ssm", REGION).describe_parameters()["Parameters"] == []
    with pytest.raises(MissingPrerequisite, match="has no CA"):
        require_authority(plain)


def test_a_parameter_that_is_no_ca_is_refused_and_not_replaced(place: Context) -> None:
    ssm = client.client("ssm", REGION)
    name = authority_parameter_name("toy")
    ssm.put_parameter(Name=name, Value='{"authorities": []}', Type="SecureString")
    with pytest.raises(BadInput, match="CA cannot be read"):
        ensure_authority(place)
    stored = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    assert stored == '{"authorities": []}'


def test_a_master_copies_the_ca_into_a_file_of_root(place: Context, tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "ca.json"
    assert copy_authority.main(["toy", REGION, str(file)]) == 1, "there is none yet"
    assert not file.exists()
    ensure_authority(place)
    assert copy_authority.main(["toy", REGION, str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_rotation_adds_the_successor_lets_it_issue_and_then_drops_the_former(
    place: Context,
) -> None:
    ensure_authority(place)
    writer, present = (
        SecureParameterWriter(AUTHORITY_DOCUMENT, "toy", REGION),
        require_authority(place),
    )
    first = present.authorities[0]
    second = create_authority("toy", "d1", time.time() + 60)
    steps = []
    for _ in range(3):
        present, step = rotate(present, lambda: second)
        writer.replace(present)
        stored = SecureParameter(AUTHORITY_DOCUMENT, "toy", REGION).read()
        assert stored == present
        steps.append((step, present.authorities))
    assert steps == [
        (Rotation.ADDED, (first, second)),
        (Rotation.SWITCHED, (second, first)),
        (Rotation.DROPPED, (second,)),
    ]


@pytest.mark.parametrize("behind_s", [0.0, 1.0, 86400.0])
def test_a_rotation_drops_the_former_ca_also_with_a_clock_that_is_behind(behind_s: float) -> None:
    created = time.time()
    first = create_authority("toy", "d1", created)
    second = create_authority("toy", "d1", created - behind_s, former=first)
    present = AuthorityDocument((first,))
    steps = []
    for _ in range(3):
        present, step = rotate(present, lambda: second)
        steps.append(step)
    assert steps == [Rotation.ADDED, Rotation.SWITCHED, Rotation.DROPPED]
    assert present.authorities == (second,)


async def test_the_former_ca_stays_until_every_master_has_a_certificate_of_the_new_one(
    tmp_path: Path,
) -> None:
    first = create_authority("toy", "d1", time.time())
    second = create_authority("toy", "d1", time.time() + 60)
    document = AuthorityDocument((second, first))
    former = Cluster(tmp_path / "former", first).machine("i-0", MASTERS[0])
    renewed = Cluster(tmp_path / "new", second)
    async with listening(MASTERS[1], 5050, tls=renewed.machine("i-1", MASTERS[1])):
        async with listening(MASTERS[0], 5050, tls=former):
            with pytest.raises(Busy, match=f"{MASTERS[0]}, {MASTERS[2]}"):
                await asyncio.to_thread(require_renewed, document, MASTERS)
        async with listening(MASTERS[0], 5050, tls=renewed.machine("i-0", MASTERS[0])):
            await asyncio.to_thread(require_renewed, document, MASTERS[:2])


# --- verbs


@asynccontextmanager
async def listening(
    address: str, *ports: int, tls: TlsFiles | None, seen: list[str] | None = None
) -> AsyncIterator[None]:
    """A master's ports, which answer every path and note the credentials that they get."""

    async def answer(request: web.Request) -> web.Response:
        if seen is not None:
            seen.append(request.headers.get("Authorization", ""))
        return web.json_response({})

    async with AsyncExitStack() as stack:
        for port in ports:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            server = HttpServer(app, HttpPort(str(port), tls=tls), shutdown_s=0.2)
            await server.listen(address, port)
            stack.push_async_callback(server.stop)
        yield


async def test_a_verb_sends_the_token_over_tls_only(
    place: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    ensure_authority(place)
    own = Cluster(tmp_path / "own", require_authority(place).authorities[0])
    certificates_file(place.cluster_dir).unlink()  # another checkout reads it from SSM
    base = Wiring(place).masters[0]
    assert base == f"https://{MASTERS[0]}:5050"
    over_tls: list[str] = []
    plain: list[str] = []
    files = own.machine("i-0", MASTERS[0])
    async with (
        listening(MASTERS[0], 5050, tls=files, seen=over_tls),
        listening(MASTERS[1], 5050, tls=None, seen=plain),
        Wiring(place).open_session() as session,
    ):
        async with session.get(f"{base}/state") as answer:
            assert answer.status == 200
        async with session.get(f"http://{MASTERS[1]}:5050/state") as answer:
            assert answer.status == 200
    assert (over_tls, plain) == ([basic_header(OPERATOR, TOKEN)], [""])
    assert certificates_file(place.cluster_dir).exists()


async def test_the_probe_of_a_rotated_token_verifies_the_master(
    place: Context, tmp_path: Path
) -> None:
    own, other = Cluster(tmp_path / "own"), Cluster(tmp_path / "other")
    answers = []
    async with listening(MASTERS[0], 5050, tls=own.machine("i-0", MASTERS[0])):
        for trust in (own.trust, other.trust, None):
            probe = token_verb.accepts_token
            answers.append(await asyncio.to_thread(probe, MASTERS[0], 5050, TOKEN, trust))
    assert answers == [True, None, None]


# --- the wait while masters change


def sources(spec: ClusterSpec, up: tuple[str, ...]) -> Sources:
    machines = [
        Machine(
            f"i-{number}",
            "t3.medium",
            "us-east-1a",
            "on-demand",
            "running",
            address,
            "",
            100.0,
            {"mesaform:cluster": spec.name, "mesaform:role": "master"},
        )
        for number, address in enumerate(MASTERS)
    ]
    return Sources(
        at=1000.0, machines=machines, masters_up=frozenset(up), services_up=frozenset(up)
    )


async def lacking(switch: TlsSwitch, spec: ClusterSpec, up: tuple[str, ...]) -> list[str]:
    given = sources(spec, up)
    return [item.what for item in await switch.missing(join(spec, given), given)]


@pytest.mark.parametrize("to_tls", [True, False])
async def test_masters_of_the_other_scheme_count_while_tls_changes_and_agents_do_not(
    tmp_path: Path, to_tls: bool
) -> None:
    spec = a_spec(tls=to_tls)
    former = None if to_tls else Cluster(tmp_path).machine("i-1", MASTERS[1])
    switch = TlsSwitch(spec)
    silent = await lacking(switch, spec, MASTERS[:2])
    assert f"master {MASTERS[2]} does not answer on 5050" in silent
    assert "no master is elected leader" in silent, "no switch is seen yet"
    async with listening(MASTERS[1], 5050, 8080, tls=former):
        assert await lacking(switch, spec, (MASTERS[0], MASTERS[2])) == []
        assert await lacking(switch, spec, (MASTERS[2],)) == [
            f"master {MASTERS[0]} does not answer on 5050",
            f"master {MASTERS[0]} does not answer on 8080",
        ]
    assert await lacking(switch, spec, MASTERS) == [], "the agents of before cannot join yet"
