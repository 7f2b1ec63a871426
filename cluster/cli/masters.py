"""Where the masters of a cluster are, as the operator's machine reaches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesaform.cli.context import Context
from mesaform.common.errors import CloudError, ClusterUnreachable
from mesaform.config.schema import ClusterSpec
from mesaform.topology.addresses import master_addresses
from mesaform.topology.names import Tag
from mesaform.topology.ports import Port

if TYPE_CHECKING:
    from mesaform.aws.ports import Machine


def masters_of(context: Context) -> list[str]:
    """Base URLs of the engine's masters, such as `http://127.42.0.10:5050`.

    They are fixed on the local target. Elsewhere EC2 is asked, since a public address changes when
    a machine stops; Terraform's outputs serve while EC2 does not answer. A load balancer with a
    certificate is called by its own name.

    Raises:
        ClusterUnreachable: no master is known: the cluster was not raised from here.

    """
    return _urls(context, Port.ENGINE_MASTER)


def services_of(context: Context) -> list[str]:
    """Base URLs of the services on the same machines."""
    return _urls(context, Port.SERVICES)


def hosts_of(context: Context) -> list[str]:
    """Addresses of the masters, as this machine reaches them. Raises as `masters_of`."""
    return _addresses(context)


def _urls(context: Context, port: int) -> list[str]:
    balancer = context.spec.network.load_balancer
    if context.spec.target == "aws" and balancer and balancer.host_name:
        return [f"https://{balancer.host_name}:{port}"]
    scheme = "https" if context.spec.tls else "http"
    return [f"{scheme}://{address}:{port}" for address in _addresses(context)]


def _addresses(context: Context) -> list[str]:
    fixed = [str(address) for address in master_addresses(context.spec)]
    if context.spec.target == "local" and fixed:
        return fixed
    addresses = _current_addresses(context.spec) or _recorded_addresses(context)
    if not addresses:
        raise ClusterUnreachable(
            "this cluster has no masters that are known here",
            where=str(context.cluster_dir),
            fix="raise it: mesaform up",
        )
    return addresses


def _current_addresses(spec: ClusterSpec) -> list[str]:
    """What EC2 says; nothing while it does not answer. Private ones where masters have no others.

    The order is that of the masters' names.
    """
    from mesaform.aws.fleet import AwsFleet

    try:
        machines = AwsFleet(spec.region).machines(spec.name)
    except CloudError:
        return []
    masters = sorted(filter(_is_master, machines), key=lambda item: item.tags.get(Tag.NAME, ""))
    known = (machine.public_address or machine.private_address for machine in masters)
    return list(filter(None, known))


def _is_master(machine: Machine) -> bool:
    return machine.tags.get(Tag.ROLE) == "master" and machine.state == "running"


def _recorded_addresses(context: Context) -> list[str]:
    """What Terraform's outputs say."""
    from mesaform import provision

    outputs = provision.outputs(context)
    if outputs is None:
        return []
    public = [address for address in outputs.master_public_addresses if address]
    return public or list(outputs.master_private_addresses)
