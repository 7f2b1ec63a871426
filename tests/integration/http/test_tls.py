"""Ports with TLS: who is accepted by whom, renewals, and the way to a certificate."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http.client import HTTPSConnection
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509

from harness.ports import free_port
from mesaform.autoscaler.observation.certificate_endpoint import CertificateEndpoint
from mesaform.autoscaler.reporting.http_server import http_port
from mesaform.common import certificates
from mesaform.common.tls import TlsFiles, Trust, read_key_pair, server_context
from mesaform.http import (
    HttpPort,
    HttpServer,
    Limits,
    Standbys,
    is_passed_on,
    open_session,
    pass_on,
)
from mesaform.http.login import OperatorLogin
from mesaform.node.certificates import Issuers, Machine, NotRenewed, Renewal
from mesaform.node.copy_authority import copy
from mesaform.node.interruption_monitor import Settings, send_to_leader
from mesaform.topology.instance_identity import IDENTITY_HEADER, identity_header
from mesaform.topology.user_data import MachineNotice
from tests.support.half_open import few_files, half_open
from tests.support.instances import Account
from tests.support.tls import DAY_S, Cluster

MASTER, STANDBY, AGENT = "127.74.0.1", "127.74.0.2", "127.74.0.9"
SHOWN = (ssl.SSLError, aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "cluster")


@asynccontextmanager
async def serving(
    files: TlsFiles | None, address: str = MASTER, limits: Limits | None = None
) -> AsyncIterator[str]:
    """A server with one path; its value is `host:port`."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"scheme": request.scheme, "login": _login(request)})

    app = web.Application()
    app.router.add_get("/", answer)
    server = HttpServer(app, HttpPort("test", limits or Limits(), tls=files), shutdown_s=0.2)
    try:
        yield f"{address}:{await server.listen(address, free_port(address))}"
    finally:
        await server.stop()


def _login(request: web.Request) -> str:
    return request.headers.get("Authorization", "")


async def get(trust: Trust | None, at: str) -> dict[str, str]:
    async with open_session(trust=trust) as session, session.get(f"https://{at}/") as answer:
        seen: dict[str, str] = await answer.json()
        return seen


async def is_accepted(trust: Trust, at: str) -> bool:
    try:
        await get(trust, at)
    except SHOWN:
        return False
    return True


async def test_a_client_that_trusts_the_ca_is_answered(cluster: Cluster) -> None:
    async with serving(cluster.machine("i-0", MASTER)) as at:
        assert (await get(cluster.trust, at))["scheme"] == "https"


async def test_a_server_of_another_cluster_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    async with serving(Cluster(tmp_path / "other").machine("i-0", MASTER)) as at:
        with pytest.raises(SHOWN, match="CERTIFICATE_VERIFY_FAILED"):
            await get(cluster.trust, at)


async def test_a_client_without_the_ca_refuses_every_master(cluster: Cluster) -> None:
    async with serving(cluster.machine("i-0", MASTER)) as at:
        for trust in (None, Trust()):
            with pytest.raises(SHOWN, match="CERTIFICATE_VERIFY_FAILED"):
                await get(trust, at)


async def test_a_certificate_of_another_machine_of_the_cluster_is_refused(
    cluster: Cluster,
) -> None:
    async with serving(cluster.machine("i-1", AGENT)) as at:
        with pytest.raises(SHOWN, match="IP address mismatch"):
            await get(cluster.trust, at)


async def test_an_expired_certificate_is_refused_and_its_renewal_is_used_without_a_restart(
    cluster: Cluster,
) -> None:
    files = cluster.machine("i-0", MASTER, issued_at=time.time() - 8 * DAY_S)
    async with serving(files, limits=Limits(header_s=0.4)) as at:
        with pytest.raises(SHOWN, match="certificate has expired"):
            await get(cluster.trust, at)
        cluster.certify(files, "i-0", MASTER)
        async with asyncio.timeout(60):
            while not await is_accepted(cluster.trust, at):
                await asyncio.sleep(0.05)


async def test_plain_http_is_refused(cluster: Cluster) -> None:
    async with serving(cluster.machine("i-0", MASTER)) as at:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://{at}/")
        assert (await get(cluster.trust, at))["scheme"] == "https", "the port goes on"


def test_versions_of_tls_before_1_2_are_refused(cluster: Cluster) -> None:
    contexts = (server_context(), cluster.trust.context())
    assert {context.minimum_version for context in contexts} == {ssl.TLSVersion.TLSv1_2}


async def test_a_peer_that_sends_no_handshake_is_disconnected(cluster: Cluster) -> None:
    files = cluster.machine("i-0", MASTER)
    async with serving(files, limits=Limits(header_s=0.2)) as at:
        host, _, port = at.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()


FLOODERS = ("127.74.0.6", "127.74.0.7", "127.74.0.8")


def flooded(at: str, count: int, peer: str = FLOODERS[0]) -> AbstractAsyncContextManager[None]:
    """A peer that holds `count` half-open handshakes."""
    host, _, port = at.rpartition(":")
    return half_open((host, int(port)), count, peer)


async def test_half_open_handshakes_of_a_peer_leave_place_for_another_one(
    cluster: Cluster,
) -> None:
    files = cluster.machine("i-0", MASTER)
    limits = Limits(header_s=600, peer_connections=30)
    with few_files(150):
        async with serving(files, limits=limits) as at, flooded(at, 400):
            async with asyncio.timeout(20):
                assert (await get(cluster.trust, at))["scheme"] == "https"


async def test_half_open_handshakes_count_from_their_accept_on(cluster: Cluster) -> None:
    files = cluster.machine("i-0", MASTER)
    server = HttpServer(
        web.Application(),
        HttpPort("test", Limits(header_s=600, peer_connections=30), tls=files),
        shutdown_s=0.2,
    )
    address = f"{MASTER}:{await server.listen(MASTER, free_port(MASTER))}"
    try:
        async with flooded(address, 200), asyncio.timeout(60):
            while server.connection_count < 30:
                await asyncio.sleep(0.01)
            assert server.connection_count == 30
        async with asyncio.timeout(60):
            while server.connection_count:
                await asyncio.sleep(0.01)
    finally:
        await server.stop()


async def test_the_connections_of_all_peers_have_a_limit_during_handshakes(
    cluster: Cluster,
) -> None:
    files = cluster.machine("i-0", MASTER)
    limits = Limits(header_s=600, peer_connections=30, connections=40)
    with few_files(150):
        async with serving(files, limits=limits) as at, AsyncExitStack() as floods:
            for peer in FLOODERS:
                await floods.enter_async_context(flooded(at, 100, peer))
            async with asyncio.timeout(20):
                assert (await get(cluster.trust, at))["scheme"] == "https"


async def test_a_port_listens_once_its_machine_has_a_certificate(cluster: Cluster) -> None:
    files = cluster.uncertified("i-0")
    server = HttpServer(web.Application(), HttpPort("test", tls=files))
    listening = asyncio.create_task(server.listen(MASTER, free_port(MASTER)))
    done, _ = await asyncio.wait({listening}, timeout=0.2)
    assert not done
    cluster.certify(files, "i-0", MASTER)
    async with asyncio.timeout(60):
        port = await listening
    with pytest.raises(aiohttp.ClientResponseError, match="404"):
        async with open_session(trust=cluster.trust) as session:
            await session.get(f"https://{MASTER}:{port}/", raise_for_status=True)
    await server.stop()


async def test_a_standby_passes_requests_on_over_tls_and_verifies_the_leader(
    cluster: Cluster, tmp_path: Path
) -> None:
    leaders = {
        "own": cluster.machine("i-0", MASTER),
        "foreign": Cluster(tmp_path / "other").machine("i-0", MASTER),
    }
    statuses = {}
    for name, files in leaders.items():
        async with serving(files) as leader:

            async def answer(request: web.Request, at: str = leader) -> web.StreamResponse:
                assert is_passed_on(request)
                return await pass_on(request, at)

            app = web.Application()
            app.router.add_get("/", answer)
            own = cluster.machine("i-2", STANDBY)
            port = HttpPort("standby", standbys=Standbys.PROXY, tls=own)
            standby = HttpServer(app, port, shutdown_s=0.2)
            number = await standby.listen(STANDBY, free_port(STANDBY))
            async with (
                open_session(trust=cluster.trust) as session,
                session.get(f"https://{STANDBY}:{number}/") as response,
            ):
                statuses[name] = response.status
            await standby.stop()
    assert statuses == {"own": 200, "foreign": 503}


async def test_the_operators_token_goes_over_tls_only(cluster: Cluster) -> None:
    async def token(_was_refused: bool) -> str:
        return "a-token-of-thirty-two-characters"

    async with serving(None) as plain, serving(cluster.machine("i-0", MASTER)) as secured:
        ports = [int(at.rpartition(":")[2]) for at in (plain, secured)]
        login = OperatorLogin(lambda: {MASTER}, ports, token, needs_tls=True)
        async with open_session(login, trust=cluster.trust) as session:
            async with session.get(f"https://{secured}/") as answer:
                assert (await answer.json())["login"].startswith("Basic ")
            async with session.get(f"http://{plain}/") as answer:
                assert (await answer.json())["login"] == ""


# --- the way to a certificate


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(tmp_path_factory.mktemp("account"))


@asynccontextmanager
async def issuing(
    cluster: Cluster, account: Account, *, has_authority: bool = True
) -> AsyncIterator[str]:
    """An autoscaler's port with the endpoint; its value is `host:port`."""
    file = cluster.folder / "ca.json"
    if has_authority:
        copy(cluster.document, file)
    endpoint = CertificateEndpoint(str(file), account.verifier, time.time)
    files = cluster.machine("i-0", MASTER)
    server = HttpServer(endpoint.add_to(web.Application()), http_port(9550, tls=files))
    try:
        yield f"{MASTER}:{await server.listen(MASTER, free_port(MASTER))}"
    finally:
        await server.stop()


def requesting(
    cluster: Cluster, account: Account, addresses: list[str], machine: Machine | None = None
) -> tuple[Renewal, TlsFiles]:
    """The renewal of an agent; `machine` is what it says of itself, the proof is that of i-1."""
    files = cluster.uncertified("agent")
    proof = identity_header(account.proof("i-1", AGENT))
    own = machine or Machine("i-1", AGENT)
    source = Issuers(own, addresses, Trust(*files.trusted), proof)
    return Renewal(files, source, logging.getLogger(__name__).info), files


async def test_an_agent_gets_a_certificate_with_its_proof_and_serves_with_it(
    cluster: Cluster, account: Account
) -> None:
    nobody = f"{STANDBY}:{free_port(STANDBY)}"
    async with issuing(cluster, account) as at:
        renewal, files = requesting(cluster, account, [nobody, at])
        assert await asyncio.to_thread(renewal.renew)
        assert not await asyncio.to_thread(renewal.renew)
    async with serving(files, AGENT) as agent:
        assert (await get(cluster.trust, agent))["scheme"] == "https"


async def test_the_certificate_is_of_the_proven_instance_whatever_the_agent_asks_for(
    cluster: Cluster, account: Account
) -> None:
    async with issuing(cluster, account) as at:
        renewal, files = requesting(cluster, account, [at], Machine("i-0", AGENT))
        await asyncio.to_thread(renewal.renew)
    certificate = read_key_pair(files).certificate
    assert certificates.read_certificate(certificate).hosts == {AGENT}
    assert b"i-0" not in certificate
    (subject,) = (
        item.subject.rfc4514_string() for item in x509.load_pem_x509_certificates(certificate)
    )
    assert subject == "CN=i-1"


async def test_nobody_gets_a_certificate_without_a_proof_or_with_a_broken_request(
    cluster: Cluster, account: Account
) -> None:
    good = certificates.request_certificate(certificates.draw_key(), "i-1")
    header = identity_header(account.proof("i-1", AGENT))
    foreign = {IDENTITY_HEADER: header[IDENTITY_HEADER][:-8]}
    async with issuing(cluster, account) as at, open_session(trust=cluster.trust) as session:
        answers = []
        for headers, request in (({}, good), (foreign, good), (header, "no request")):
            async with session.post(
                f"https://{at}/certificates", json={"request": request}, headers=headers
            ) as answer:
                answers.append(answer.status)
    assert answers == [403, 403, 400]


async def test_a_master_without_the_ca_says_so_and_the_agent_asks_again(
    cluster: Cluster, account: Account
) -> None:
    async with issuing(cluster, account, has_authority=False) as at:
        renewal, files = requesting(cluster, account, [at])
        with pytest.raises(NotRenewed, match="503"):
            await asyncio.to_thread(renewal.renew)
        assert not files.certificate.exists()


async def test_an_agent_asks_no_master_of_another_cluster(
    cluster: Cluster, account: Account, tmp_path: Path
) -> None:
    async with issuing(Cluster(tmp_path / "other"), account) as at:
        renewal, _ = requesting(cluster, account, [at])
        with pytest.raises(NotRenewed, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(renewal.renew)


async def test_the_interruption_monitor_verifies_the_autoscaler(
    cluster: Cluster, tmp_path: Path
) -> None:
    notice = MachineNotice("i-1", "interruption", 1.0, 2.0, "spot")
    answers = []
    for owner in (cluster, Cluster(tmp_path / "other")):

        async def known(_request: web.Request) -> web.Response:
            return web.json_response({"known": True})

        app = web.Application()
        app.router.add_post("/notices", known)
        server = HttpServer(app, http_port(9550, tls=owner.machine("i-0", MASTER)))
        at = f"{MASTER}:{await server.listen(MASTER, free_port(MASTER))}"
        settings = Settings("i-1", AGENT, (at,), trust=cluster.trust)
        answers.append(await asyncio.to_thread(send_to_leader, settings, notice))
        await server.stop()
    assert answers == [True, False]


async def test_a_client_learns_of_a_ca_that_is_added_to_its_files(
    cluster: Cluster, tmp_path: Path
) -> None:
    successor = Cluster(tmp_path / "successor")
    files = cluster.uncertified("client")
    trust = Trust(*files.trusted)
    async with (
        serving(successor.machine("i-0", MASTER)) as at,
        open_session(trust=trust) as session,
    ):
        with pytest.raises(SHOWN):
            await session.get(f"https://{at}/")
        files.learned_authorities.write_text(successor.authority.certificate)
        async with session.get(f"https://{at}/") as answer:
            assert answer.status == 200


def test_a_blocking_client_uses_the_same_trust(cluster: Cluster) -> None:
    async def ask() -> int:
        async with serving(cluster.machine("i-0", MASTER)) as at:
            return await asyncio.to_thread(status_of, at)

    def status_of(at: str) -> int:
        host, _, port = at.rpartition(":")
        connection = HTTPSConnection(host, int(port), context=cluster.trust.context(), timeout=60)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        finally:
            connection.close()

    assert asyncio.run(ask()) == 200
