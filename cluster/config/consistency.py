"""Checks of a whole cluster spec: fields that are valid alone and do not fit together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from mesaform.common.architecture import ARM64, architecture_of, architectures_of
from mesaform.config import network
from mesaform.config.field_types import Problem

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

RESERVED_NAMES = {"bake": "the account's bucket keeps the bundles of images below it"}
"""Names that no cluster may have, and why."""

PARAMETER_BYTES = 8192
"""Size of an advanced SSM parameter, from which the autoscaler reads the spec."""


def spec_problems(spec: ClusterSpec) -> list[Problem]:
    """Return all problems of a spec, each with the path of its field."""
    return [
        *_reserved_name_problems(spec),
        *_network_problems(spec),
        *_pool_reference_problems(spec),
        *_pool_name_problems(spec),
        *_engine_problems(spec),
        *_architecture_problems(spec),
        *_size_problems(spec),
    ]


def _reserved_name_problems(spec: ClusterSpec) -> Iterator[Problem]:
    if spec.name in RESERVED_NAMES:
        yield ("name",), f"{spec.name} is reserved: {RESERVED_NAMES[spec.name]}"


def _network_problems(spec: ClusterSpec) -> Iterator[Problem]:
    is_local = spec.target == "local"
    machines = spec.masters.count + sum(pool.max for pool in spec.agents)
    cidr = IPv4Network(spec.network.cidr)
    for message in network.vpc_problems(cidr, is_local=is_local, machines=machines):
        yield ("network", "cidr"), message
    for message in network.zone_problems(spec.network.zones, spec.region):
        yield ("network", "zones"), message
    for message in network.operator_problems(
        spec.network.operator_cidrs,
        is_local=is_local,
        open_to_the_world=spec.network.open_to_the_world,
    ):
        yield ("network", "operator_cidrs"), message


def _pool_reference_problems(spec: ClusterSpec) -> Iterator[Problem]:
    names = [pool.name for pool in spec.agents]
    references = {
        "headroom_slots": [slots.pool for slots in spec.autoscaler.headroom_slots],
        "calendar": [expected.pool for expected in spec.autoscaler.calendar],
    }
    for field, pools in references.items():
        for index, pool in enumerate(pools):
            if pool is not None and pool not in names:
                path = ("autoscaler", field, index, "pool")
                yield path, f"there is no pool {pool}; pools: {', '.join(names)}"


def _pool_name_problems(spec: ClusterSpec) -> Iterator[Problem]:
    names = [pool.name for pool in spec.agents]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("agents", index, "name"), f"pool {name} is defined more than once"


def _engine_problems(spec: ClusterSpec) -> Iterator[Problem]:
    if spec.target == "local" and spec.engine == "mesos":
        yield ("engine",), "mesos runs on aws only: the local target has the embedded engine"


def _architecture_problems(spec: ClusterSpec) -> Iterator[Problem]:
    if spec.engine == "mesos":
        yield from _mesos_architecture_problems(spec)
    offered = architectures_of([name for pool in spec.agents for name in pool.types])
    wanted = spec.tasks.architecture
    if wanted != "any" and wanted not in offered:
        yield (
            ("tasks", "architecture"),
            (
                f"no pool has {wanted} types, so tasks that pin no architecture would run nowhere: "
                f"set tasks.architecture: {offered[0]}"
            ),
        )


def _mesos_architecture_problems(spec: ClusterSpec) -> Iterator[Problem]:
    reason = "is arm64, and the packages of engine: mesos are x86_64 only"
    remedy = "take an x86_64 type, or engine: embedded"
    if architecture_of(spec.masters.type) == ARM64:
        yield ("masters", "type"), f"{spec.masters.type} {reason}: {remedy}"
    for index, pool in enumerate(spec.agents):
        for name in pool.types:
            if architecture_of(name) == ARM64:
                yield ("agents", index, "types"), f"{name} {reason}: {remedy}"


def _size_problems(spec: ClusterSpec) -> Iterator[Problem]:
    size = len(spec.model_dump_json().encode())
    if size > PARAMETER_BYTES:
        yield (
            ("agents",),
            (
                f"the spec takes {size} bytes as JSON, the autoscaler can read {PARAMETER_BYTES}: "
                "use fewer pools, types or attributes"
            ),
        )
