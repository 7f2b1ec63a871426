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
from mesaform.common.faults import Fault, contained
from mesaform.common.json_types import as_object
from mesaform.common.resources import Range, subtract_ranges
from mesaform.mesos.attributes import attribute_texts
from mesaform.mesos.messages import Attribute, DomainInfo, Resource, from_wire

Json = Mapping[str, Any]
_NONE = msgspec.Raw(b"[]")
_NULL = msgspec.Raw(b"null")
_RESOURCES = msgspec.json.Decoder(list[Resource])
_ATTRIBUTES = msgspec.json.Decoder(list[Attribute])
_DOMAIN = msgspec.json.Decoder(DomainInfo | None)

_Vector = tuple[Shape, tuple[Range, ...]]
"""Resources as a shape, and their host ports."""

_Fields = tuple[bytes, bytes]
"""The JSON of an agent's attributes and of its fault domain."""


@dataclass(frozen=True, slots=True)
class Agents:
    """All agents, without their tasks.

    `allocated` is the JSON of each agent's allocated resources. `recovered` is the number of agents
    that the master knows from its registry and that have not registered again. `unreadable` are the
    agents of which not even the id can be read.
    """

    agents: tuple[Agent, ...] = ()
    recovered: int = 0
    allocated: tuple[bytes, ...] = ()
    unreadable: int = 0

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
    domain: msgspec.Raw = _NULL


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


class _RawBody(msgspec.Struct, frozen=True, gc=False):
    agents: list[msgspec.Raw] = []
    recovered_agents: list[msgspec.Raw] = []


class _RawAnswer(msgspec.Struct, frozen=True, gc=False):
    get_agents: _RawBody = _RawBody()


class AgentReader:
    """Reader of GET_AGENTS. JSON that occurred in the last pass is not decoded again."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._vectors: dict[bytes, _Vector] = {}
        self._attributes: dict[_Fields, dict[str, str]] = {}
        self._reserved: dict[bytes, dict[str, Shape]] = {}
        self._reserved_before: dict[bytes, dict[str, Shape]] = {}
        self._decoder = msgspec.json.Decoder(_Answer)

    def read(self, body: bytes | bytearray) -> Agents:
        """Read a complete answer.

        An agent of which only the identity can be read has no resources. `faults` has each.

        Raises:
            msgspec.DecodeError: it is not JSON, or not of agents.

        """
        self.faults = []
        items, recovered, unreadable = self._items(body)
        vectors, attributes = self._vectors, self._attributes
        self._vectors, self._attributes = {}, {}
        self._reserved_before, self._reserved = self._reserved, {}
        agents, allocated = [], []
        for item in items:
            agent: Agent | None = None
            with contained("agent", item.agent_info.id.value, self.faults):
                agent = self._agent(item, vectors, attributes)
                allocated.append(bytes(item.allocated_resources))
            if agent is None:
                agent = _without_resources(item)
                unreadable += not agent.instance_id
            agents.append(agent)
        return Agents(tuple(agents), recovered, tuple(allocated), unreadable)

    def _items(self, body: bytes | bytearray) -> tuple[list[_Item], int, int]:
        """The agents, the number of recovered ones, and of those that cannot be read.

        Raises:
            msgspec.DecodeError: it is not JSON, or not of agents.

        """
        try:
            answer = self._decoder.decode(body).get_agents
        except msgspec.ValidationError:
            return self._items_one_by_one(body)
        return answer.agents, len(answer.recovered_agents), 0

    def _items_one_by_one(self, body: bytes | bytearray) -> tuple[list[_Item], int, int]:
        answer = msgspec.json.decode(body, type=_RawAnswer).get_agents
        items = []
        for raw in answer.agents:
            with contained("agent", bytes(raw)[:100].decode("utf-8", "replace"), self.faults):
                items.append(_lenient(raw))
        return items, len(answer.recovered_agents), len(answer.agents) - len(items)

    def _agent(
        self,
        item: _Item,
        vectors: Mapping[bytes, _Vector],
        attributes: Mapping[_Fields, dict[str, str]],
    ) -> Agent:
        info, total = (
            item.agent_info,
            bytes(
                item.agent_info.resources if item.total_resources == _NONE else item.total_resources
            ),
        )
        reserved = self._unused(total, bytes(item.allocated_resources))
        shape, ports = self._vector(total, vectors)
        allocated, taken_ports = self._vector(bytes(item.allocated_resources), vectors)
        return Agent(
            agent_id=info.id.value,
            hostname=info.hostname,
            attributes=self._named((bytes(info.attributes), bytes(info.domain)), attributes),
            total=reduce(minus, reserved.values(), shape),
            allocated=allocated,
            active=item.active,
            deactivated=item.deactivated,
            drain_state=item.drain_info.state,
            registered_at=item.registered_time.nanoseconds / 1e9,
            reserved=reserved,
            ports=subtract_ranges(ports, taken_ports) if taken_ports else ports,
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

    def _vector(self, raw: bytes, before: Mapping[bytes, _Vector]) -> _Vector:
        if raw not in self._vectors:
            self._vectors[raw] = before[raw] if raw in before else _vector_of(raw)
        return self._vectors[raw]

    def _named(self, fields: _Fields, before: Mapping[_Fields, dict[str, str]]) -> dict[str, str]:
        if fields not in self._attributes:
            self._attributes[fields] = before[fields] if fields in before else _texts_of(fields)
        return self._attributes[fields]


def _vector_of(raw: bytes) -> _Vector:
    resources = from_wire(_RESOURCES.decode(raw))
    return shape_of(resources), resources.ports


def _texts_of(fields: _Fields) -> dict[str, str]:
    """Attributes and fault domain as constraints compare them."""
    attributes, domain = fields
    return attribute_texts(_ATTRIBUTES.decode(attributes), _DOMAIN.decode(domain))


def _lenient(raw: msgspec.Raw) -> _Item:
    """The agent, or what is needed to know its machine, if not everything can be decoded.

    Raises:
        ValueError: not even the identity can be read.

    """
    try:
        return msgspec.json.decode(raw, type=_Item)
    except msgspec.ValidationError:
        info = as_object(as_object(msgspec.json.decode(raw)).get("agent_info"))
        agent_id = as_object(info.get("id")).get("value")
        if not isinstance(agent_id, str) or not agent_id:
            raise ValueError("the agent has no id") from None
        attributes = msgspec.Raw(msgspec.json.encode(info.get("attributes") or []))
        resources = msgspec.Raw(b'"unreadable"')
        known = _Info(_Id(agent_id), str(info.get("hostname", "")), attributes)
        return _Item(known, active=True, total_resources=resources)


def _without_resources(item: _Item) -> Agent:
    """An agent whose resources cannot be read: nothing is placed there, and its tasks count."""
    attributes: dict[str, str] = {}
    with contained("agent", item.agent_info.id.value, []):
        attributes = _texts_of((bytes(item.agent_info.attributes), bytes(_NULL)))
    return Agent(
        agent_id=item.agent_info.id.value,
        hostname=item.agent_info.hostname,
        attributes=attributes,
        total=NOTHING,
        active=item.active,
        deactivated=item.deactivated,
        drain_state=item.drain_info.state,
        registered_at=item.registered_time.nanoseconds / 1e9,
    )


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


def from_json(answer: Any) -> Agents:
    """The inner part of an answer that is in hand already."""
    return AgentReader().read(msgspec.json.encode({"type": "GET_AGENTS", "get_agents": answer}))
