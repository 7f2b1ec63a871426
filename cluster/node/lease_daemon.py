"""Shell of the agent lease: `python -m mesaform.node.lease_daemon`, a service of the machine.

The program reads the lease in ZooKeeper, asks the machine's engine agent for its tasks once half of
the lease is over, and carries out what `mesaform.node.lease_monitor` decides. It is a process of
its own so that no defect here ends the node, which would end every task. It writes plain lines to
its log and does not import structlog: it runs on every agent and must use little memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec

from mesaform.common.errors import MesaformError
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.common.tls import scheme, tls_files, trust_of
from mesaform.http import open_session
from mesaform.mesos.operator import OperatorClient
from mesaform.node.control_channel import ChannelBroken, ControlChannel
from mesaform.node.lease_monitor import (
    AgentObserved,
    AgentRestarted,
    AgentStopped,
    Effect,
    Event,
    LeaseMonitor,
    LeaseRead,
    LeaseUnreadable,
    MasterAnswered,
    PowerOff,
    RestartAgent,
    State,
    StopAgent,
    Terms,
    Verify,
)
from mesaform.topology.instance_identity import (
    PROOF_VARIABLE,
    identity_header,
    read_proof,
)
from mesaform.topology.ports import Port
from mesaform.topology.user_data import SHUTDOWN_REPORTS_PATH, Lease, ShutdownReport
from mesaform.topology.zookeeper import ZK_LEASE, ZK_SHUTDOWN_REPORTS
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable, split_zk_url

LONGEST_PAUSE_S = 15.0
SHORTEST_PAUSE_S = 1.0
OBSERVATIONS_PER_LEASE = 20

CALL_TIMEOUT_S = 5.0
"""For one call to the machine's agent or to ZooKeeper."""

SHUTDOWN_CALL_TIMEOUT_S = 10.0
"""For each call of the shutdown and for the last question to the master."""

SESSION_TIMEOUT_S = 30.0
"""The session owns no ephemeral nodes, so rare pings do: 1,000 machines send 100 a second."""

SHUTDOWN_STORED = 204
"""The answer of an autoscaler that has stored a shutdown report."""

_TIMEOUT = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
_RUNNING = ("pending_tasks", "queued_tasks", "launched_tasks", "terminated_tasks")
"""Fields of GET_TASKS that keep a machine; the final state of a `terminated_task` is not
acknowledged yet."""


def log(line: str) -> None:
    """Write a line to the service's log."""
    sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} lease: {line}\n")
    sys.stdout.flush()


class ClusterPort(Protocol):
    """What the lease keeper reads and writes. No method raises: `unknown` is an answer."""

    async def read_lease(self) -> LeaseRead | LeaseUnreadable:
        """Read the lease in ZooKeeper."""
        ...

    async def observe_agent(self) -> AgentObserved:
        """Ask the machine's engine agent whether it runs anything."""
        ...

    async def master_has_work(self) -> bool | None:
        """Whether the leading master assigns work to the agent; None: unknown."""
        ...

    async def report_shutdown(self, cause: PowerOff) -> None:
        """Write the shutdown report and mark the agent as gone; failures are ignored."""
        ...


class NodePort(Protocol):
    """What the node does for this program; `mesaform.node.control_channel` implements it."""

    async def hold(self) -> tuple[str, ...]: ...
    async def release(self) -> None: ...
    async def power_off(self) -> None: ...


class LeaseKeeper:
    """Observes and acts until the machine powers off. `clock` gives monotonic seconds."""

    def __init__(
        self,
        monitor: LeaseMonitor,
        cluster: ClusterPort,
        node: NodePort,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.monitor = monitor
        self._cluster = cluster
        self._node = node
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Return once the machine was asked to power off.

        Raises:
            ChannelBroken: the node does not answer. The caller ends the process; the closed channel
                makes the node release the services that it holds.

        """
        while await self._observe():
            await self._sleep(self.pause_s)

    async def _observe(self) -> bool:
        """Observe once; False when the machine powers off."""
        await self._handle(await self._cluster.read_lease())
        if self.monitor.needs_observation:
            await self._handle(await self._cluster.observe_agent())
        return self.monitor.state is not State.POWERING_OFF

    @property
    def pause_s(self) -> float:
        """Seconds between two observations: a twentieth of the lease, within bounds."""
        lease_s = self.monitor.terms.lease_s
        if not lease_s:
            return LONGEST_PAUSE_S
        return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, lease_s / OBSERVATIONS_PER_LEASE))

    async def _handle(self, event: Event) -> None:
        pending: list[Event] = [event]
        while pending:
            before = self.monitor.state
            effects = self.monitor.handle(pending.pop(0), self._clock())
            if self.monitor.state is not before:
                log(_describe(self.monitor))
            for effect in effects:
                pending += await self._perform(effect)

    async def _perform(self, effect: Effect) -> list[Event]:
        match effect:
            case StopAgent():
                remaining = await self._node.hold()
                if remaining:
                    log(f"processes remain after the agent stopped: {', '.join(remaining)}")
                return [AgentStopped(remaining)]
            case Verify():
                await self._handle(await self._cluster.read_lease())
                if self.monitor.state is State.VERIFYING:
                    return [MasterAnswered(await self._cluster.master_has_work())]
            case RestartAgent():
                await self._node.release()
                return [AgentRestarted()]
            case PowerOff():
                await self._cluster.report_shutdown(effect)
                await self._node.power_off()
        return []


def _describe(monitor: LeaseMonitor) -> str:
    silence = (
        f"no autoscaler renewed the lease for {monitor.silent_s:.0f} s"
        f" (lease_s {monitor.terms.lease_s:g})"
    )
    without_task = f"no task for {monitor.agent.empty_s:.0f} s"
    return {
        State.RENEWED: "an autoscaler renews the lease again",
        State.EXPIRED: (
            f"{silence}; the machine powers off once it has had no task for"
            f" {monitor.required_empty_s:.0f} s"
        ),
        State.STOPPING_AGENT: f"{silence}, {without_task}: stopping the engine's agent to verify",
        State.VERIFYING: "no process remains; reading the lease and asking the master again",
        State.RESTARTING_AGENT: "the machine has work or its lease was renewed: restarting agent",
        State.POWERING_OFF: f"{silence}, {without_task}: powering off",
    }[monitor.state]


@dataclass(slots=True)
class Cluster:
    """`ClusterPort` over ZooKeeper and HTTP.

    `agent_url` is the machine's own engine agent. `reports` are the URLs where autoscalers take
    shutdown reports. `session` sends the proof of this machine with each call if it `has_proof`.
    """

    zk_hosts: str
    zk_path: str
    agent_url: str
    instance_id: str
    operator: OperatorClient
    session: aiohttp.ClientSession
    reports: Sequence[str] = ()
    has_proof: bool = False
    agent_id: str = ""
    _zk: ZooKeeper | None = None

    async def read_lease(self) -> LeaseRead | LeaseUnreadable:
        """Read the lease; a ZooKeeper session is opened when there is none."""
        try:
            zk = await self._connect()
            node = await zk.get(f"{self.zk_path}/{ZK_LEASE}")
        except (ZooKeeperUnavailable, MesaformError):
            return LeaseUnreadable()
        return LeaseRead("") if node is None else parse_lease(node[0], self.instance_id)

    async def _connect(self) -> ZooKeeper:
        if self._zk is None:
            zk = ZooKeeper(self.zk_hosts, session_timeout_s=SESSION_TIMEOUT_S)
            await zk.start(timeout_s=CALL_TIMEOUT_S)
            self._zk = zk
        return self._zk

    async def observe_agent(self) -> AgentObserved:
        """Ask for tasks, ended tasks without acknowledgement included, and for containers."""
        try:
            tasks = await self._call_agent("GET_TASKS")
            containers = await self._call_agent("GET_CONTAINERS")
            info = await self._call_agent("GET_AGENT")
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return AgentObserved("silent")
        self.agent_id = _agent_id(info) or self.agent_id
        is_busy = any(tasks.get(name) for name in _RUNNING) or bool(containers.get("containers"))
        return AgentObserved("busy" if is_busy else "empty")

    async def _call_agent(self, call: str) -> JsonObject:
        async with self.session.post(
            f"{self.agent_url}/api/v1", json={"type": call}, timeout=_TIMEOUT
        ) as response:
            response.raise_for_status()
            answer = msgspec.json.decode(await response.read(), type=dict[str, object])
        return as_object(answer.get(call.lower()))

    async def master_has_work(self) -> bool | None:
        """Whether resources of this agent are allocated, in the view of the leading master."""
        try:
            async with asyncio.timeout(SHUTDOWN_CALL_TIMEOUT_S):
                answer = await self.operator.get_agents()
        except (MesaformError, TimeoutError):
            return None
        agents = [as_object(agent) for agent in as_list(answer.get("agents"))]
        own_agents = [agent for agent in agents if _agent_id(agent) == self.agent_id]
        if not self.agent_id or not own_agents:
            return None
        return any(_is_positive(item) for item in as_list(own_agents[0].get("allocated_resources")))

    async def report_shutdown(self, cause: PowerOff) -> None:
        """Send the report and mark the agent as gone at the master."""
        report = ShutdownReport(
            self.instance_id,
            time.time(),
            cause.lease_s,
            round(cause.silent_s, 1),
            round(cause.empty_s, 1),
        )
        body = msgspec.json.encode(report)
        if not await self._post_report(body):
            await self._write_report(body)
        if self.agent_id:
            with contextlib.suppress(MesaformError, TimeoutError):
                async with asyncio.timeout(SHUTDOWN_CALL_TIMEOUT_S):
                    await self.operator.mark_gone(self.agent_id)

    async def _post_report(self, body: bytes) -> bool:
        """Send the report to the autoscalers in turn; whether one of them has stored it."""
        headers = {"Content-Type": "application/json"}
        for url in self.reports if self.has_proof else ():
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self.session.post(
                    url, data=body, headers=headers, timeout=_TIMEOUT
                ) as response:
                    if response.status == SHUTDOWN_STORED:
                        return True
        return False

    async def _write_report(self, body: bytes) -> None:
        """Write the report to ZooKeeper, where masters of an older version let agents write."""
        path = f"{self.zk_path}/{ZK_SHUTDOWN_REPORTS}/{self.instance_id}"
        with contextlib.suppress(MesaformError, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_CALL_TIMEOUT_S):
                zk = await self._connect()
                await zk.put(path, body)

    async def close(self) -> None:
        """End the ZooKeeper session."""
        if self._zk is not None:
            await self._zk.stop()


def _agent_id(agent: JsonObject) -> str:
    """The agent's id in an answer to GET_AGENT or in an item of GET_AGENTS; empty if missing."""
    info = as_object(agent.get("agent_info"))
    return str(as_object(info.get("id")).get("value") or "")


def _is_positive(resource: object) -> bool:
    """Whether a Mesos resource has a scalar above 0."""
    value = as_object(as_object(resource).get("scalar")).get("value")
    return isinstance(value, int | float) and value > 0


def parse_lease(data: bytes, instance_id: str) -> LeaseRead:
    """The lease as it concerns this machine.

    Unreadable data yields a mark of its own, so that a change of it counts as a renewal.
    """
    try:
        lease = msgspec.json.decode(data, type=Lease)
    except msgspec.DecodeError:
        return LeaseRead(repr(data))
    terms = Terms(lease.terms.lease_s, lease.terms.empty_s) if lease.terms else None
    return LeaseRead(
        f"{lease.term}.{lease.renewal}.{lease.at}",
        terms,
        is_protected=instance_id in lease.protected,
    )


async def main(environ: Mapping[str, str] = os.environ) -> int:
    """Keep the lease until the node stops this process; the exit code is 1 without a node."""
    zk_hosts, zk_path = split_zk_url(environ["MESAFORM_ZK"])
    masters, _ = split_zk_url(environ["MESAFORM_MASTERS"])
    hosts = [item.partition(":")[0] for item in masters.split(",")]
    tls = tls_files(environ)
    urls = [f"{scheme(tls)}://{host}:{Port.ENGINE_MASTER}" for host in hosts]
    monitor = LeaseMonitor(
        Terms(float(environ["MESAFORM_LEASE_S"]), float(environ["MESAFORM_EMPTY_S"])),
        time.monotonic(),
    )
    proof = read_proof(environ.get(PROOF_VARIABLE, ""))
    # The masters carry out a call from an agent's machine only with its proof.
    async with open_session(headers=identity_header(proof), trust=trust_of(tls)) as session:
        cluster = Cluster(
            zk_hosts,
            zk_path,
            f"{scheme(tls)}://{environ['MESAFORM_AGENT']}",
            environ["MESAFORM_MACHINE"],
            OperatorClient(urls, session),
            session,
            [f"{scheme(tls)}://{host}:{Port.AUTOSCALER}{SHUTDOWN_REPORTS_PATH}" for host in hosts],
            has_proof=proof is not None,
        )
        try:
            channel = await ControlChannel.open(environ)
            log(f"lease_s {monitor.terms.lease_s:g}, empty for {monitor.required_empty_s:g} s")
            await LeaseKeeper(monitor, cluster, channel).run()
            await asyncio.Event().wait()  # the node ends this process with all others
        except ChannelBroken as error:
            log(str(error))
            return 1
        finally:
            await cluster.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
