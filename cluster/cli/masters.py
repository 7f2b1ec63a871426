"""Where the masters of a cluster are, as the operator's machine reaches them."""

from __future__ import annotations

from mesaform.cli.context import Context
from mesaform.common.errors import ClusterUnreachable
from mesaform.topology.addresses import master_addresses
from mesaform.topology.ports import Port


def masters_of(context: Context) -> list[str]:
    """Base URLs of the engine's masters, such as `http://127.42.0.10:5050`.

    They are fixed on the local target and come from Terraform's outputs on aws.

    Raises:
        ClusterUnreachable: there are no outputs: the cluster was not raised from here.

    """
    return _urls(context, Port.ENGINE_MASTER)


def services_of(context: Context) -> list[str]:
    """Base URLs of the services on the same machines."""
    return _urls(context, Port.SERVICES)


def hosts_of(context: Context) -> list[str]:
    """Addresses of the masters, as this machine reaches them. Raises as `masters_of`."""
    return _addresses(context)


def _urls(context: Context, port: int) -> list[str]:
    return [f"http://{address}:{port}" for address in _addresses(context)]


def _addresses(context: Context) -> list[str]:
    if context.spec.target == "local":
        return [str(address) for address in master_addresses(context.spec)]
    from mesaform import provision

    outputs = provision.outputs(context)
    addresses = list(outputs.master_public_addresses) if outputs is not None else []
    if not addresses:
        raise ClusterUnreachable(
            "this cluster has no masters that are known here",
            where=str(context.cluster_dir),
            fix="raise it: mesaform up",
        )
    return addresses
