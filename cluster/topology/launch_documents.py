"""User data of the machines that stacks and the autoscaler launch, from the cluster's spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from mesaform.common.architecture import X86_64, Architecture
from mesaform.topology.addresses import master_addresses, master_names, service_names
from mesaform.topology.agent_attributes import pool_attributes
from mesaform.topology.names import (
    access_parameter_name,
    authority_parameter_name,
    load_balancer_host_pattern,
)
from mesaform.topology.user_data import (
    NODE_DOCUMENT_VERSION,
    PROTECT,
    AccessTerms,
    DataVolume,
    LeaseTerms,
    NodeDocument,
    Role,
    TlsTerms,
    ZooKeeperMember,
)
from mesaform.topology.zookeeper import AGENT_PURPOSE, derived_secret

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec


@dataclass(frozen=True, slots=True)
class MasterData:
    """What a master gets and no agent: the cluster's secret, and the volume of its data."""

    secret: str = field(default="", repr=False)
    volume: DataVolume | None = None


def lease_terms(spec: ClusterSpec) -> LeaseTerms:
    """Terms under which the autoscaler's agents terminate themselves."""
    return LeaseTerms(spec.autoscaler.lease_s, spec.autoscaler.idle_after_s)


def access_terms(spec: ClusterSpec) -> AccessTerms | None:
    """The settings of access in masters' node documents; None where nobody needs a credential."""
    if not spec.access.is_in_use:
        return None
    return AccessTerms(
        access_parameter_name(spec.name),
        requires_token=spec.access.needs_token,
        authenticates_frameworks=spec.access.needs_token or spec.access.authenticate_frameworks,
    )


def tls_terms(spec: ClusterSpec, role: Role, authorities: str) -> TlsTerms | None:
    """The terms of TLS in a node document; None where the ports speak plain HTTP."""
    if not spec.tls:
        return None
    parameter = authority_parameter_name(spec.name) if role == "master" else ""
    return TlsTerms(authorities, parameter)


@dataclass(frozen=True, slots=True)
class Membership:
    """The pool of an agent, the architecture of its type, and who launches it.

    The pool's name is empty for masters. The autoscaler's agents have a lease; in a protected pool
    they have none all the same. `secret` proves agents of Apache Mesos (`agent_secret`).
    """

    pool: str = ""
    architecture: Architecture = X86_64
    has_lease: bool = False
    secret: str = field(default="", repr=False)


NO_POOL = Membership()


def agent_secret(spec: ClusterSpec, cluster_secret: str) -> str:
    """What proves agents of Apache Mesos; empty for the embedded engine, whose agents have a proof.

    Agents cannot derive the cluster's secret from it.
    """
    if spec.engine != "mesos" or not cluster_secret:
        return ""
    return derived_secret(cluster_secret, AGENT_PURPOSE)


def host_names(spec: ClusterSpec) -> tuple[str, ...]:
    """Names under which the machines' HTTP ports may be called, besides their addresses."""
    own = (*master_names(spec), *service_names(spec))
    balancer = spec.network.load_balancer
    if balancer is None:
        return (*spec.http.host_names, *own)
    pattern = load_balancer_host_pattern(spec.name, spec.region)
    certified = (balancer.host_name,) if balancer.host_name else ()
    return (*spec.http.host_names, *own, pattern, *certified)


def node_document(
    spec: ClusterSpec,
    role: Role,
    recipe: str,
    member: Membership = NO_POOL,
    *,
    masters: MasterData | None = None,
    authorities: str = "",
) -> str:
    """Return the user data of a machine as JSON text.

    Args:
        spec: the cluster.
        role: the role of the machine.
        recipe: the digest of the image recipe.
        member: of agents: the pool, the architecture, and whether there is a lease.
        masters: what only documents of masters have; None for agents.
        authorities: the certificates of the cluster's CA, PEM, if it has TLS.

    """
    own = masters if masters is not None and role == "master" else MasterData()
    document = NodeDocument(
        version=NODE_DOCUMENT_VERSION,
        cluster=spec.name,
        role=role,
        region=spec.region,
        engine=spec.engine,
        zookeeper=_ensemble([str(address) for address in master_addresses(spec)]),
        recipe=recipe,
        pool=member.pool,
        secret=own.secret,
        agent_secret=member.secret if role == "agent" else "",
        data_volume=own.volume,
        task_user=spec.tasks.user,
        allow_root_tasks=spec.tasks.allow_root,
        host_names=host_names(spec),
        jsonp=spec.http.jsonp,
        session_manager=spec.debug == "ssm",
        access=access_terms(spec) if role == "master" else None,
        standbys=spec.http.standbys,
        tls=tls_terms(spec, role, authorities),
        placement=spec.placement if role == "master" else "spread",
    )
    if role == "agent":
        document = _with_pool(document, spec, member)
    return msgspec.json.encode(document).decode()


def with_masters(document: str, masters: Sequence[str]) -> str:
    """A node document with the masters at these addresses, which Terraform may know only later."""
    parsed = msgspec.json.decode(document, type=NodeDocument)
    changed = msgspec.structs.replace(parsed, zookeeper=_ensemble(masters))
    return msgspec.json.encode(changed).decode()


def _ensemble(addresses: Sequence[str]) -> tuple[ZooKeeperMember, ...]:
    return tuple(ZooKeeperMember(index, address) for index, address in enumerate(addresses, 1))


def _with_pool(document: NodeDocument, spec: ClusterSpec, member: Membership) -> NodeDocument:
    """The document with the settings of its pool."""
    own_pool = next((item for item in spec.agents if item.name == document.pool), None)
    if own_pool is None:
        return document
    is_protected = own_pool.attributes.get(PROTECT) == "true"
    return msgspec.structs.replace(
        document,
        disk_gib=own_pool.disk_gib,
        has_burst=own_pool.burst,
        attributes=pool_attributes(own_pool, spec, member.architecture),
        lease=lease_terms(spec) if member.has_lease and not is_protected else None,
    )
