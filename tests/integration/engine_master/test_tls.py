"""TLS of a master: port 5050, and the link, which only machines of the cluster may open."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from harness.master_process import SIZE, LinkedAgent, Running, eventually, running
from mesaform.common.json_types import as_list
from mesaform.engine import link
from mesaform.engine.link_tls import channel_credentials
from mesaform.engine.master.link_connections import PEER_CONNECTIONS
from mesaform.http import open_session
from mesaform.mesos.messages import AgentInfo, Attribute, Text, to_wire
from mesaform.mesos.operator import OperatorClient
from tests.support.half_open import few_files, half_open
from tests.support.instances import Account
from tests.support.tls import DAY_S, Cluster, environment

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]
AGENT, ADDRESS = "i-00000000000000001", "127.97.4.1"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(tmp_path_factory.mktemp("account"))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "cluster")


@pytest.fixture
async def master(zookeeper_url: str, account: Account, cluster: Cluster) -> AsyncIterator[Running]:
    files = cluster.uncertified("i-0")
    process = Running(zookeeper_url, **account.environment, **environment(files))
    cluster.certify(files, "i-0", process.address)
    await process.start()
    try:
        await process.leading()
        yield process
    finally:
        await process.stop()


def an_agent(
    master: Running, account: Account, channel: grpc.ChannelCredentials | None
) -> LinkedAgent:
    own = Attribute(name="instance_id", type="TEXT", text=Text(value=AGENT))
    info = AgentInfo(hostname=ADDRESS, resources=to_wire(SIZE), attributes=[own])
    proof = account.proof(AGENT, ADDRESS)
    register = link.Register(info, None, f"{ADDRESS}:5051", "1.12.0", [], proof)
    return LinkedAgent(f"{master.address}:{master.link_port}", register, channel)


async def refusal(agent: LinkedAgent) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with agent:
            pass
    return caught.value.code(), str(caught.value.details())


async def test_an_agent_with_its_own_certificate_registers_and_operators_see_it_over_tls(
    master: Running, account: Account, cluster: Cluster
) -> None:
    credentials = channel_credentials(cluster.machine(AGENT, ADDRESS))
    async with (
        an_agent(master, account, credentials),
        open_session(trust=cluster.trust) as session,
    ):
        client = OperatorClient([f"https://{master.address}:{master.port}"], session)
        assert len(as_list((await client.get_agents())["agents"])) == 1


async def test_a_link_with_a_certificate_of_another_cluster_is_refused(
    master: Running, account: Account, cluster: Cluster, tmp_path: Path
) -> None:
    stranger = Cluster(tmp_path / "other").machine(AGENT, ADDRESS)
    stranger.learned_authorities.write_text(cluster.authority.certificate)
    code, _ = await refusal(an_agent(master, account, channel_credentials(stranger)))
    assert code is grpc.StatusCode.UNAVAILABLE, "the handshake fails"
    assert master.process.term is not None
    assert not master.process.term.links


async def test_a_link_without_a_certificate_or_without_tls_is_refused(
    master: Running, account: Account, cluster: Cluster
) -> None:
    bare = grpc.ssl_channel_credentials(cluster.authority.certificate.encode())
    for channel in (bare, None):
        code, _ = await refusal(an_agent(master, account, channel))
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_an_agent_does_not_register_with_a_certificate_of_another_instance(
    master: Running, account: Account, cluster: Cluster
) -> None:
    other = channel_credentials(cluster.machine("i-2", ADDRESS))
    code, reason = await refusal(an_agent(master, account, other))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert reason == f"its certificate is of i-2, not of {AGENT}"


async def test_a_link_with_an_expired_certificate_or_one_of_tomorrow_is_refused(
    master: Running, account: Account, cluster: Cluster
) -> None:
    for days in (-8, 1):
        moment = time.time() + days * DAY_S
        files = cluster.machine(AGENT, ADDRESS, issued_at=moment, by=f"{AGENT}{days}")
        code, _ = await refusal(an_agent(master, account, channel_credentials(files)))
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_an_agents_certificate_does_not_make_a_master(
    zookeeper_url: str, account: Account, cluster: Cluster
) -> None:
    posing = cluster.machine("i-2", "127.97.4.2")
    own = channel_credentials(cluster.machine(AGENT, ADDRESS))
    async with running(zookeeper_url, **account.environment, **environment(posing)) as false_master:
        await false_master.leading()
        code, _ = await refusal(an_agent(false_master, account, own))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert false_master.process.term is not None
        assert not false_master.process.term.links


async def test_an_agent_refuses_a_master_of_another_cluster(
    master: Running, account: Account, tmp_path: Path
) -> None:
    stranger = Cluster(tmp_path / "other").machine(AGENT, ADDRESS)
    code, _ = await refusal(an_agent(master, account, channel_credentials(stranger)))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_link_is_opened_with_the_certificates_as_they_are_now(
    master: Running, account: Account, cluster: Cluster, tmp_path: Path
) -> None:
    successor = Cluster(tmp_path / "successor")
    stranger = successor.machine(AGENT, ADDRESS)
    stranger.learned_authorities.write_text(cluster.authority.certificate)
    credentials = channel_credentials(stranger)
    await refusal(an_agent(master, account, credentials))
    own = master.process.tls
    assert own is not None
    own.learned_authorities.write_text(successor.authority.certificate)
    async with an_agent(master, account, credentials) as agent:
        assert agent.id
    await eventually(lambda: master.process.term is not None and not master.process.term.links)


async def test_half_open_connections_of_a_peer_leave_place_for_agents_of_others(
    zookeeper_url: str, account: Account, cluster: Cluster
) -> None:
    credentials = channel_credentials(cluster.machine(AGENT, ADDRESS))
    files = cluster.uncertified("i-0")
    with few_files(300):
        process = Running(zookeeper_url, **account.environment, **environment(files))
        cluster.certify(files, "i-0", process.address)
        await process.start()
        try:
            await process.leading()
            async with half_open((process.address, process.link_port), 600, "127.97.4.7"):
                await eventually_registered(process, account, credentials)
        finally:
            await process.stop()


async def eventually_registered(
    master: Running, account: Account, credentials: grpc.ChannelCredentials
) -> None:
    """Have an agent register, which tries again as agents do."""
    async with asyncio.timeout(8):  # gRPC ends a handshake after 10 s
        while True:
            try:
                async with an_agent(master, account, credentials):
                    return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)


async def test_a_peer_that_opens_many_connections_loses_those_without_a_link(
    master: Running, account: Account, cluster: Cluster
) -> None:
    credentials = channel_credentials(cluster.machine(AGENT, ADDRESS))
    link_port = (master.address, master.link_port)
    async with an_agent(master, account, credentials):
        for _ in range(2):
            async with half_open(link_port, 400, "127.0.0.1"), asyncio.timeout(8):
                await eventually(lambda: connections_to(link_port) <= PEER_CONNECTIONS + 1)
        assert master.process.term is not None
        assert len(master.process.term.links) == 1, "the flooder's machine keeps its link"


def connections_to(target: tuple[str, int]) -> int:
    """How many connections the host has to an address; gRPC listens on a socket of IPv6."""
    host, port = target
    number = int.from_bytes(socket.inet_aton(host), "little")
    local = f"0000000000000000FFFF0000{number:08X}:{port:04X}"
    lines = Path("/proc/self/net/tcp6").read_text(encoding="ascii").splitlines()[1:]
    return sum(1 for line in lines if line.split()[1] == local and line.split()[3] == "01")
