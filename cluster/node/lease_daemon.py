"""The dead man's lease at work: `python -m mesaform.node.lease_daemon`, a steering service beside the engine's agent.

It looks at the lease in ZooKeeper a few times a minute, asks the machine's own agent what runs once the lease is half over, and does
what `mesaform.node.lease_monitor` decides. A process of its own, so that nothing here can end the node, which would end every task.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import msgspec

from mesaform.common.errors import MesaformError
from mesaform.common.json_types import as_list, as_object
from mesaform.mesos.operator import OperatorClient
from mesaform.node.control_channel import ControlChannel, LineBroken
from mesaform.node.lease_monitor import (
    Asked,
    Effect,
    Event,
    Held,
    Hold,
    LeaseMonitor,
    Leave,
    LookAgain,
    Looked,
    Release,
    Released,
    Seen,
    State,
    Terms,
    Unseen,
)
from mesaform.topology.ports import Port
from mesaform.topology.user_data import Lease, ShutdownReport
from mesaform.topology.zookeeper import ZK_LEASE, ZK_SHUTDOWN_REPORTS
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable, split_zk_url

LOOK_AT_LEAST_EVERY_S = 15.0
LOOK_AT_MOST_EVERY_S = 1.0
LOOKS_A_LEASE = 20
CALL_S = 5.0
GOODBYE_S = 10.0
SESSION_S = 30.0
"""Nothing of this session's is ephemeral, so it need not show life often: a thousand machines cost a hundred pings a second."""

_TIMEOUT = aiohttp.ClientTimeout(total=CALL_S)
_RUNNING = ("pending_tasks", "queued_tasks", "launched_tasks", "terminated_tasks")
"""Of an agent's GET_TASKS; `terminated_tasks` are over, and nobody has heard so yet."""


def log(line: str) -> None:
    """A line in the service's log."""
    sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} lease: {line}\n")
    sys.stdout.flush()


class World(Protocol):
    """What can be known of the lease and of the agent. Nothing here raises: not to know is an answer."""

    async def lease(self) -> Seen | Unseen: ...
    async def agent(self) -> Looked: ...
    async def master_has_work(self) -> bool | None: ...
    async def farewell(self, leave: Leave) -> None: ...


class Steering(Protocol):
    """What the node does for this program (`mesaform.node.control_channel.Line` has it)."""

    async def hold(self) -> tuple[str, ...]: ...
    async def release(self) -> None: ...
    async def power_off(self) -> None: ...


class Keeper:
    """Looks and acts, again and again, until the machine leaves.

    Args:
        watch: what decides.
        world, node: see there.
        clock: monotonic seconds.
        sleep: waits so many seconds.

    """

    def __init__(
        self,
        watch: LeaseMonitor,
        world: World,
        node: Steering,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.watch = watch
        self._world = world
        self._node = node
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Return once the machine was asked to power off.

        Raises:
            LineBroken: the node does not answer; whoever runs this ends, and the broken line undoes what was held.

        """
        while await self._round():
            await self._sleep(self.pause_s)

    async def _round(self) -> bool:
        """Look once; False when the machine leaves."""
        await self._feed(await self._world.lease())
        if self.watch.wants_look:
            await self._feed(await self._world.agent())
        return self.watch.state is not State.LEAVING

    @property
    def pause_s(self) -> float:
        """Between two looks: a twentieth of the lease, within bounds."""
        lease_s = self.watch.terms.lease_s
        return (
            min(LOOK_AT_LEAST_EVERY_S, max(LOOK_AT_MOST_EVERY_S, lease_s / LOOKS_A_LEASE))
            if lease_s
            else LOOK_AT_LEAST_EVERY_S
        )

    async def _feed(self, event: Event) -> None:
        pending: list[Event] = [event]
        while pending:
            before = self.watch.state
            effects = self.watch.handle(pending.pop(0), self._clock())
            if self.watch.state is not before:
                log(_told(self.watch))
            for effect in effects:
                pending += await self._do(effect)

    async def _do(self, effect: Effect) -> list[Event]:
        match effect:
            case Hold():
                left = await self._node.hold()
                if left:
                    log(f"still there after the agent stopped: {', '.join(left)}")
                return [Held(left)]
            case LookAgain():
                await self._feed(await self._world.lease())
                if self.watch.state is State.LOOKING:
                    return [Asked(await self._world.master_has_work())]
            case Release():
                await self._node.release()
                return [Released()]
            case Leave():
                await self._world.farewell(effect)
                await self._node.power_off()
        return []


def _told(watch: LeaseMonitor) -> str:
    silent = f"no autoscaler renewed the lease for {watch.silent_s:.0f} s (lease_s {watch.terms.lease_s:g})"
    return {
        State.KEPT: "an autoscaler renews the lease again",
        State.SILENT: f"{silent}; this machine ends itself once it has had no task for {watch.needed_s:.0f} s",
        State.HOLDING: f"{silent}, no task for {watch.empty_s:.0f} s: the engine's agent is stopped, to look again",
        State.LOOKING: "nothing is left on this machine; asking the lease and the master once more",
        State.RESUMING: "something landed, or somebody came back: the engine's agent starts again",
        State.LEAVING: f"{silent}, no task for {watch.empty_s:.0f} s: powering off",
    }[watch.state]


@dataclass(slots=True)
class RealWorld:
    """See `World`. `agent_url` is the machine's own engine agent."""

    zk_hosts: str
    zk_path: str
    agent_url: str
    instance_id: str
    operator: OperatorClient
    session: aiohttp.ClientSession
    agent_id: str = ""
    _zk: ZooKeeper | None = None

    async def lease(self) -> Seen | Unseen:
        """Read, with a session that is opened when there is none."""
        try:
            zk = await self._connected()
            found = await zk.get(f"{self.zk_path}/{ZK_LEASE}")
        except (ZooKeeperUnavailable, MesaformError):
            return Unseen()
        return Seen("") if found is None else seen(found[0], self.instance_id)

    async def _connected(self) -> ZooKeeper:
        if self._zk is None:
            zk = ZooKeeper(self.zk_hosts, session_timeout_s=SESSION_S)
            await zk.start(timeout_s=CALL_S)
            self._zk = zk
        return self._zk

    async def agent(self) -> Looked:
        """Tasks, finished ones that nobody has heard of yet included, and containers."""
        try:
            tasks = await self._ask("GET_TASKS")
            containers = await self._ask("GET_CONTAINERS")
            told = await self._ask("GET_AGENT")
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return Looked("silent")
        self.agent_id = (
            str(told.get("agent_info", {}).get("id", {}).get("value", "")) or self.agent_id
        )
        busy = any(tasks.get(name) for name in _RUNNING) or bool(containers.get("containers"))
        return Looked("busy" if busy else "empty")

    async def _ask(self, kind: str) -> dict[str, Any]:
        async with self.session.post(
            f"{self.agent_url}/api/v1", json={"type": kind}, timeout=_TIMEOUT
        ) as answer:
            answer.raise_for_status()
            told = msgspec.json.decode(await answer.read(), type=dict[str, Any])
        found = told.get(kind.lower(), {})
        return found if isinstance(found, dict) else {}

    async def master_has_work(self) -> bool | None:
        """Whether resources of this agent are in use, as the leading master has it."""
        try:
            async with asyncio.timeout(GOODBYE_S):
                agents = as_list((await self.operator.get_agents()).get("agents"))
        except (MesaformError, TimeoutError):
            return None
        own = [
            agent
            for agent in map(as_object, agents)
            if as_object(as_object(agent.get("agent_info")).get("id")).get("value") == self.agent_id
        ]
        if not own or not self.agent_id:
            return None
        scalars = (
            as_object(as_object(item).get("scalar")).get("value")
            for item in as_list(own[0].get("allocated_resources"))
        )
        return any(isinstance(value, int | float) and value > 0 for value in scalars)

    async def farewell(self, leave: Leave) -> None:
        """Leave word in ZooKeeper, and take the agent off the master's list; what does not answer is not waited for."""
        said = ShutdownReport(
            self.instance_id,
            time.time(),
            leave.lease_s,
            round(leave.silent_s, 1),
            round(leave.empty_s, 1),
        )
        with contextlib.suppress(MesaformError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                zk = await self._connected()
                await zk.put(
                    f"{self.zk_path}/{ZK_SHUTDOWN_REPORTS}/{self.instance_id}",
                    msgspec.json.encode(said),
                )
        if self.agent_id:
            with contextlib.suppress(MesaformError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self.operator.mark_gone(self.agent_id)

    async def close(self) -> None:
        if self._zk is not None:
            await self._zk.stop()


def seen(data: bytes, instance_id: str) -> Seen:
    """The lease as this machine is concerned by it; one that cannot be read is at least another one than before."""
    try:
        lease = msgspec.json.decode(data, type=Lease)
    except msgspec.DecodeError:
        return Seen(repr(data))
    terms = Terms(lease.terms.lease_s, lease.terms.empty_s) if lease.terms else None
    return Seen(
        f"{lease.term}.{lease.renewal}.{lease.at}", terms, spared=instance_id in lease.protected
    )


async def main(environ: Mapping[str, str] = os.environ) -> int:
    """Keep the lease until the machine is told to stop."""
    zk_hosts, zk_path = split_zk_url(environ["MESAFORM_ZK"])
    masters, _ = split_zk_url(environ["MESAFORM_MASTERS"])
    urls = [f"http://{item.partition(':')[0]}:{Port.ENGINE_MASTER}" for item in masters.split(",")]
    watch = LeaseMonitor(
        Terms(float(environ["MESAFORM_LEASE_S"]), float(environ["MESAFORM_EMPTY_S"])),
        time.monotonic(),
    )
    async with aiohttp.ClientSession() as session:
        operator = OperatorClient(urls, session)
        world = RealWorld(
            zk_hosts,
            zk_path,
            f"http://{environ['MESAFORM_AGENT']}",
            environ["MESAFORM_MACHINE"],
            operator,
            session,
        )
        try:
            line = await ControlChannel.open(environ)
            log(f"lease_s {watch.terms.lease_s:g}, empty for {watch.needed_s:g} s")
            await Keeper(watch, world, line).run()
            await asyncio.Event().wait()  # the node ends this process with all others
        except LineBroken as error:
            log(str(error))
            return 1
        finally:
            await world.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
