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
        *_local_problems(spec),
        *_network_problems(spec),
        *_pool_reference_problems(spec),
        *_pool_name_problems(spec),
        *_tls_problems(spec),
        *_architecture_problems(spec),
        *_ttl_problems(spec),
        *_size_problems(spec),
    ]


def _tls_problems(spec: ClusterSpec) -> Iterator[Problem]:
    if spec.tls and spec.engine == "mesos":
        yield (
            ("tls",),
            (
                "only for engine embedded: builds of Apache Mesos without --enable-ssl ignore "
                "LIBPROCESS_SSL_ENABLED and would listen without TLS"
            ),
        )


def _local_problems(spec: ClusterSpec) -> Iterator[Problem]:
    if spec.target != "local" and spec.local.machines != "processes":
        yield ("local", "machines"), "only for target local"


def _reserved_name_problems(spec: ClusterSpec) -> Iterator[Problem]:
    if spec.name in RESERVED_NAMES:
        yield ("name",), f"{spec.name} is reserved: {RESERVED_NAMES[spec.name]}"


def _network_problems(spec: ClusterSpec) -> Iterator[Problem]:
    is_local = spec.target == "local"
    if spec.network.mode != "existing":
        problems = network.vpc_problems(
            IPv4Network(spec.network.cidr),
            is_local=spec.has_loopback_machines,
            agents=sum(pool.max for pool in spec.agents),
            zones=len(spec.zones),
        )
        yield from ((("network", "cidr"), message) for message in problems)
    for message in network.zone_problems(spec.network.zones, spec.region):
        yield ("network", "zones"), message
    yield from _operator_problems(spec, is_local=is_local)
    yield from _mode_problems(spec)
    yield from _existing_problems(spec)
    yield from _balancer_problems(spec)


def _ttl_problems(spec: ClusterSpec) -> Iterator[Problem]:
    """The end of a ttl terminates machines; nothing else may be billed by the hour then."""
    if spec.ttl is None:
        return
    billed = {
        "NAT gateways": spec.network.mode == "private" and spec.network.nat != "none",
        "VPC endpoints": spec.network.mode == "private" and spec.network.nat == "none",
        "a load balancer": spec.network.load_balancer is not None,
    }
    if names := [name for name, has_them in billed.items() if has_them]:
        message = f"{' and '.join(names)} would be billed on after the end of the machines"
        yield ("ttl",), f"{message}; use mode public or existing, or no ttl"


def _operator_problems(spec: ClusterSpec, *, is_local: bool) -> Iterator[Problem]:
    cidrs = spec.network.operator_cidrs
    problems = network.operator_problems(
        cidrs, is_local=is_local, open_to_the_world=spec.network.open_to_the_world
    )
    problems += network.rule_count_problems(cidrs)
    yield from ((("network", "operator_cidrs"), message) for message in problems)


def _mode_problems(spec: ClusterSpec) -> Iterator[Problem]:
    given = spec.network
    own = ("public", "private")
    settings = (
        ("nat", given.nat != "per_zone", ("private",)),
        ("existing", given.existing, ("existing",)),
        ("ipv6", given.ipv6, own),
        ("flow_logs", given.flow_logs != "none", own),
    )
    for field, message in network.exclusive_problems(given.mode, settings):
        yield ("network", field), message


def _existing_problems(spec: ClusterSpec) -> Iterator[Problem]:
    given, zones = spec.network, spec.network.zones
    if given.mode != "existing":
        return
    if not zones:
        yield ("network", "zones"), "must name the zones of the subnets in mode existing"
    subnets = given.existing
    if subnets is None or bool(subnets.subnet_ids) == bool(subnets.subnet_tags):
        yield ("network", "existing"), "must have subnet_ids or subnet_tags, and not both"
    elif subnets.subnet_ids and len(set(subnets.subnet_ids)) != len(zones):
        count = len(set(subnets.subnet_ids))
        message = f"{count} subnets for {len(zones)} zones: name one subnet of each zone"
        yield ("network", "existing", "subnet_ids"), message


def _balancer_problems(spec: ClusterSpec) -> Iterator[Problem]:
    balancer = spec.network.load_balancer
    if balancer is None:
        return
    path = ("network", "load_balancer")
    if balancer.internal is False and spec.network.mode == "private" and spec.network.nat == "none":
        yield (*path, "internal"), "must be true with nat none: there is no way in"
    arn = balancer.certificate_arn
    if arn and arn.split(":")[3] != spec.region:
        message = f"the certificate is of {arn.split(':')[3]}, the cluster of {spec.region}"
        yield (*path, "certificate_arn"), message
    if bool(arn) != bool(balancer.host_name):
        reason = "clients compare the name that they call with the certificate"
        yield path, f"certificate_arn and host_name need each other: {reason}"


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
