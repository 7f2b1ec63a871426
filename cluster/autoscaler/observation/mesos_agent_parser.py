"""Parser of GET_AGENTS that remembers decoded resources between passes. Pure.

Most agents report the same resources in every pass. Depends on `autoscaler.model` and
`mesos.messages`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import msgspec

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.shape import NOTHING, Shape, minus, plus, shape_of
from mesaform.autoscaler.observation.mesos_framework_parser import reserved_for
from mesaform.mesos.messages import Resource, from_wire

Json = Mapping[str, Any]
_NONE = msgspec.Raw(b"[]")
_RESOURCES = msgspec.json.Decoder(list[Resource])


@dataclass(frozen=True, slots=True)
class Agents:
    """All agents, without their tasks.

    `allocated` is the JSON of each agent's allocated resources. `recovered` is the number of agents
    that the master knows from its registry and that have not registered again.
    """

    agents: tuple[Agent, ...] = ()
    recovered: int = 0
    allocated: tuple[bytes, ...] = ()

    def resources(self) -> Iterator[Json]:
        """Yield the allocated resources of each agent in the form of GET_AGENTS."""
        return ({"allocated_resources": msgspec.json.decode(raw)} for raw in self.allocated)


class _Id(msgspec.Struct, frozen=True, gc=False):
    value: str = ""


class _Info(msgspec.Struct, frozen=True, gc=False):
    id: _Id = _Id()
    hostname: str = ""
    attributes: msgspec.Raw = _NONE
    resources: msgspec.Raw = _NONE


class _Drain(msgspec.Struct, frozen=True, gc=False):
    state: str = ""


class _Time(msgspec.Struct, frozen=True, gc=False):
    nanoseconds: int = 0


class _Item(msgspec.Struct, frozen=True, gc=False):
    agent_info: _Info = _Info()
    active: bool = False
    deactivated: bool = False
    drain_info: _Drain = _Drain()
    registered_time: _Time = _Time()
    total_resources: msgspec.Raw = _NONE
    allocated_resources: msgspec.Raw = _NONE


class _Body(msgspec.Struct, frozen=True, gc=False):
    agents: list[_Item] = []
    recovered_agents: list[msgspec.Raw] = []


class _Answer(msgspec.Struct, frozen=True, gc=False):
    get_agents: _Body = _Body()


class AgentReader:
    """Reader of GET_AGENTS. JSON that occurred in the last pass is not decoded again."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, Shape] = {}
        self._attributes: dict[bytes, dict[str, str]] = {}
        self._reserved: dict[bytes, dict[str, Shape]] = {}
        self._reserved_before: dict[bytes, dict[str, Shape]] = {}
        self._decoder = msgspec.json.Decoder(_Answer)

    def read(self, body: bytes | bytearray) -> Agents:
        """Read a complete answer.

        Raises:
            msgspec.DecodeError: it is not JSON, or not of agents.

        """
        answer = self._decoder.decode(body).get_agents
        shapes, attributes = self._shapes, self._attributes
        self._shapes, self._attributes = {}, {}
        self._reserved_before, self._reserved = self._reserved, {}
        return Agents(
            tuple(self._agent(item, shapes, attributes) for item in answer.agents),
            len(answer.recovered_agents),
            tuple(bytes(item.allocated_resources) for item in answer.agents),
        )

    def _agent(
        self, item: _Item, shapes: Mapping[bytes, Shape], attributes: Mapping[bytes, dict[str, str]]
    ) -> Agent:
        info, total = (
            item.agent_info,
            bytes(
                item.agent_info.resources if item.total_resources == _NONE else item.total_resources
            ),
        )
        reserved = self._unused(total, bytes(item.allocated_resources))
        return Agent(
            agent_id=info.id.value,
            hostname=info.hostname,
            attributes=self._named(bytes(info.attributes), attributes),
            total=reduce(minus, reserved.values(), self._shape(total, shapes)),
            allocated=self._shape(bytes(item.allocated_resources), shapes),
            active=item.active,
            deactivated=item.deactivated,
            drain_state=item.drain_info.state,
            registered_at=item.registered_time.nanoseconds / 1e9,
            reserved=reserved,
        )

    def _unused(self, total: bytes, allocated: bytes) -> dict[str, Shape]:
        """Return the reserved and unused resources by role.

        Reservations are rare. Without one the allocated resources are not decoded.
        """
        reserved = self._by_role(total)
        if not reserved:
            return reserved
        used = self._by_role(allocated)
        left = {role: minus(shape, used.get(role, NOTHING)) for role, shape in reserved.items()}
        return {role: shape for role, shape in left.items() if any(shape)}

    def _by_role(self, raw: bytes) -> dict[str, Shape]:
        if raw not in self._reserved:
            self._reserved[raw] = (
                self._reserved_before[raw]
                if raw in self._reserved_before
                else reserved_shapes(msgspec.json.decode(raw))
            )
        return self._reserved[raw]

    def _shape(self, raw: bytes, before: Mapping[bytes, Shape]) -> Shape:
        if raw not in self._shapes:
            self._shapes[raw] = (
                before[raw] if raw in before else shape_of(from_wire(_RESOURCES.decode(raw)))
            )
        return self._shapes[raw]

    def _named(self, raw: bytes, before: Mapping[bytes, dict[str, str]]) -> dict[str, str]:
        if raw not in self._attributes:
            self._attributes[raw] = (
                before[raw]
                if raw in before
                else {item["name"]: _value(item) for item in msgspec.json.decode(raw)}
            )
        return self._attributes[raw]


def reserved_shapes(resources: list[Json]) -> dict[str, Shape]:
    """Add up the reserved resources by role."""
    by_role: dict[str, Shape] = {}
    for resource in resources:
        if (role := reserved_for(resource)) != "*":
            by_role[role] = plus(
                by_role.get(role, NOTHING),
                shape_of(from_wire(msgspec.convert([resource], list[Resource]))),
            )
    return by_role


def _value(attribute: Json) -> str:
    for kind in ("text", "scalar"):
        if kind in attribute:
            return str(attribute[kind].get("value", ""))
    return ""


def from_json(answer: Any) -> Agents:
    """The inner part of an answer that is in hand already."""
    return AgentReader().read(msgspec.json.encode({"type": "GET_AGENTS", "get_agents": answer}))
