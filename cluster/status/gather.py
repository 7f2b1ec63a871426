"""Read every source of `status` at the same time, each with its own time-out.

Sources: EC2, S3, Terraform's outputs, the engine and services. Decides nothing; a source that does
not answer is named in `Sources.unreachable`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
import msgspec

from mesaform.aws.expiry import EXPIRY, NAME, Expiry
from mesaform.aws.overrides import Override, describe, in_force
from mesaform.aws.ports import Control, Fleet, Machine
from mesaform.common.errors import CredentialsExpired, MesaformError
from mesaform.common.json_types import as_list
from mesaform.common.set_aside import SetAside
from mesaform.common.snapshots import SnapshotName
from mesaform.config.schema import ClusterSpec
from mesaform.mesos.operator import OperatorClient
from mesaform.status.view import Sources, Unreachable, reachable
from mesaform.topology.addresses import master_addresses
from mesaform.topology.names import Tag
from mesaform.topology.ports import Port
from mesaform.zookeeper.four_letter import read_mode

T = TypeVar("T")
SOURCE_TIMEOUT_S = 12.0
"""For one source."""

PROBE_TIMEOUT_S = 2.5
"""For one port of a master."""


@dataclass(slots=True)
class Gatherer:
    """Reads the sources of one cluster.

    Args:
        spec: the cluster.
        session: for HTTP calls; the caller closes it.
        fleet: EC2; None when AWS cannot be reached.
        control: S3; None when AWS cannot be reached.
        outputs: reads Terraform's outputs; None where there is no state.
        set_aside: lists the records that were set aside in S3 and in files of this machine.
        snapshots: lists the snapshots of the state; None: they are not looked at.
        clock: epoch seconds.

    Attributes:
        expired: the error of the last call for which the credentials had expired.

    """

    spec: ClusterSpec
    session: aiohttp.ClientSession
    fleet: Fleet | None
    control: Control | None
    outputs: Callable[[], Mapping[str, Any] | None] = lambda: None
    set_aside: Callable[[], Sequence[SetAside]] = tuple
    snapshots: Callable[[], Sequence[SnapshotName]] | None = None
    clock: Callable[[], float] = time.time
    expired: CredentialsExpired | None = None
    _silent: list[Unreachable] = field(default_factory=list)

    async def gather(self) -> Sources:
        """Read every source once. Raises nothing: see `Sources.unreachable`."""
        self._silent = []
        machines, heartbeat_and_freeze, outputs, set_aside, snapshots = await asyncio.gather(
            self._machines(),
            self._autoscaler(),
            self._outputs(),
            self._read("records", asyncio.to_thread(self.set_aside)),
            self._snapshots(),
        )
        reach = self._masters(machines)
        answers = await self._cluster(reach) if reach else Sources(at=0)
        heartbeat, freeze, overrides, ends_at = heartbeat_and_freeze or (None, None, (), 0.0)
        return replace(
            answers,
            at=self.clock(),
            machines=machines,
            heartbeat=heartbeat,
            freeze=freeze,
            ends_at=ends_at,
            overrides=tuple(describe(item) for item in in_force(overrides, self.clock())),
            objects_set_aside=tuple(set_aside or ()),
            snapshots=snapshots,
            outputs=outputs,
            unreachable=tuple(self._silent),
        )

    @property
    def _scheme(self) -> str:
        return "https" if self.spec.tls else "http"

    def _masters(self, machines: Sequence[Machine] | None) -> dict[str, str]:
        """The reachable address of each master that may answer, by private address."""
        if machines is None:
            return {str(address): str(address) for address in master_addresses(self.spec)}
        return {
            machine.private_address: reachable(
                machine.private_address, machine.public_address, self.spec.target
            )
            for machine in machines
            if machine.tags.get(Tag.ROLE) == "master"
            and machine.state == "running"
            and machine.private_address
        }

    async def _machines(self) -> list[Machine] | None:
        fleet = self.fleet
        if fleet is None:
            return None
        return await self._read("EC2", asyncio.to_thread(fleet.machines, self.spec.name))

    async def _autoscaler(
        self,
    ) -> tuple[Mapping[str, Any] | None, str | None, tuple[Override, ...], float] | None:
        control = self.control
        if control is None:
            return None
        return await self._read(
            "autoscaler",
            asyncio.to_thread(
                lambda: (
                    control.last_heartbeat(),
                    control.frozen_reason(),
                    control.overrides(),
                    _ends_at(control),
                )
            ),
        )

    async def _snapshots(self) -> tuple[SnapshotName, ...] | None:
        if self.snapshots is None:
            return None
        names = await self._read("snapshots", asyncio.to_thread(self.snapshots))
        return None if names is None else tuple(names)

    async def _outputs(self) -> Mapping[str, Any] | None:
        return await self._read("Terraform", asyncio.to_thread(self.outputs))

    async def _cluster(self, reach: Mapping[str, str]) -> Sources:
        engine, services, unable, zookeeper_modes = await asyncio.gather(
            self._engine(reach),
            self._services(reach),
            self._unable(reach),
            self._zookeepers(reach),
        )
        return replace(
            engine,
            zookeeper_modes=zookeeper_modes,
            unable=unable,
            services_leader=services.services_leader,
            services_up=services.services_up,
            queue=services.queue,
        )

    async def _engine(self, reach: Mapping[str, str]) -> Sources:
        """The part of the sources that the engine answers."""
        up = await self._answering(reach, Port.ENGINE_MASTER, "/health")
        client = OperatorClient(
            [f"{self._scheme}://{at}:{Port.ENGINE_MASTER}" for at in reach.values()], self.session
        )
        base = await self._read("engine", client.leader())
        if base is None:
            return Sources(at=0, masters_up=up)
        host = base.rpartition(":")[0].rpartition("/")[2]
        leader = next((private for private, at in reach.items() if at == host), host)
        agents, tasks, frameworks = await asyncio.gather(
            self._read("agents", client.get_agents()),
            self._read("tasks", client.get_tasks()),
            self._read("frameworks", client.get_frameworks()),
        )
        return Sources(
            at=0,
            leader=leader,
            masters_up=up,
            agents=agents,
            tasks=tasks,
            frameworks=frameworks,
        )

    async def _unable(self, reach: Mapping[str, str]) -> tuple[str, ...]:
        """Why services and autoscalers cannot work, by their own account."""
        asked = [
            (f"{name} of {private}", f"{self._scheme}://{at}:{port}/health")
            for private, at in sorted(reach.items())
            for name, port in (("services", Port.SERVICES), ("autoscaler", Port.AUTOSCALER))
        ]
        answers = await asyncio.gather(*(self._get(url) for _, url in asked))
        return tuple(
            f"{name}: {reason}"
            for (name, _), (code, body) in zip(asked, answers, strict=True)
            if code == HTTPStatus.SERVICE_UNAVAILABLE
            for reason in as_list((_decoded(body) or {}).get("reasons"))
        )

    async def _zookeepers(self, reach: Mapping[str, str]) -> dict[str, str]:
        modes = await asyncio.gather(*(self._zookeeper_mode(at) for at in reach.values()))
        return {private: mode for private, mode in zip(reach, modes, strict=True) if mode}

    async def _zookeeper_mode(self, at: str) -> str | None:
        """What the services of a master say of its ZooKeeper; older images are asked directly."""
        code, body = await self._get(f"{self._scheme}://{at}:{Port.SERVICES}/zookeeper")
        if code == HTTPStatus.OK:
            return str((_decoded(body) or {}).get("mode") or "")
        if code == HTTPStatus.NOT_FOUND:
            return await read_mode(at, Port.ZOOKEEPER_CLIENT)
        return None

    async def _services(self, reach: Mapping[str, str]) -> Sources:
        """The part of the sources that services answer."""
        up = await self._answering(reach, Port.SERVICES, "/ping")
        for private, at in reach.items():
            code, body = await self._get(f"{self._scheme}://{at}:{Port.SERVICES}/v2/queue")
            if code == 200:
                return Sources(at=0, services_leader=private, services_up=up, queue=_decoded(body))
        self._silent.append(
            Unreachable(
                "services", f"no master answers /v2/queue on {Port.SERVICES}: none leads them"
            )
        )
        return Sources(at=0, services_up=up)

    async def _answering(self, reach: Mapping[str, str], port: int, path: str) -> frozenset[str]:
        codes = await asyncio.gather(
            *(self._get(f"{self._scheme}://{at}:{port}{path}") for at in reach.values())
        )
        return frozenset(private for private, (code, _) in zip(reach, codes, strict=True) if code)

    async def _get(self, url: str) -> tuple[int, bytes]:
        """Status and body, without following redirects; status 0 without an answer."""
        try:
            timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
            async with self.session.get(url, allow_redirects=False, timeout=timeout) as reply:
                return reply.status, await reply.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, b""

    async def _read(self, source: str, answer: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(SOURCE_TIMEOUT_S):
                return await answer
        except TimeoutError:
            self._silent.append(Unreachable(source, f"no answer in {SOURCE_TIMEOUT_S:.0f} s"))
        except CredentialsExpired as error:
            self.expired = error
            self._silent.append(Unreachable(source, error.what))
        except (MesaformError, OSError, aiohttp.ClientError, msgspec.DecodeError) as error:
            self._silent.append(Unreachable(source, str(error).partition("\n")[0]))
        return None


def _decoded(body: bytes) -> dict[str, Any] | None:
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return decoded if isinstance(decoded, dict) else None


def _ends_at(control: Control) -> float:
    """When a cluster with a ttl ends; 0 for others, and if the record cannot be read."""
    expiry = control.read_record(NAME, EXPIRY)
    return expiry.until if isinstance(expiry, Expiry) else 0.0
