"""TLS of a machine's services: its files, their environment, and the program that renews them.

Pure functions of the node document (docs/adr/0048-tls.md). A document without terms of TLS gives
nothing: its ports speak plain HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from mesaform.common.tls import FOLDER_VARIABLE
from mesaform.node.model import ConfigFile, Identity, Programs, Service
from mesaform.topology.ports import Port
from mesaform.topology.user_data import AUTHORITY_VARIABLE, NodeDocument

HOSTS_VARIABLE = "MESAFORM_TLS_HOSTS"
"""Of masters: addresses and names in the certificate, separated by commas."""
ISSUERS_VARIABLE = "MESAFORM_TLS_ISSUERS"
"""Of agents: `host:port` of the autoscalers, which issue certificates."""


def environment(document: NodeDocument, machine_dir: PurePosixPath) -> dict[str, str]:
    """Where the services find the machine's TLS files."""
    if document.tls is None:
        return {}
    return {FOLDER_VARIABLE: str(machine_dir / "tls")}


def authority_environment(document: NodeDocument, machine_dir: PurePosixPath) -> dict[str, str]:
    """Where a master's programs find the CA with its key."""
    if document.tls is None or not document.tls.parameter:
        return {}
    return {AUTHORITY_VARIABLE: str(machine_dir / "secrets" / "ca.json")}


def files(document: NodeDocument, machine_dir: PurePosixPath) -> tuple[ConfigFile, ...]:
    """The CA's certificates; they are no secret."""
    if document.tls is None:
        return ()
    return (ConfigFile(machine_dir / "tls" / "ca.pem", document.tls.authorities),)


def services(
    document: NodeDocument,
    identity: Identity,
    programs: Programs,
    machine_dir: PurePosixPath,
    proof: Mapping[str, str],
) -> tuple[Service, ...]:
    """The program that gets and renews the machine's certificate; the others wait for it."""
    if document.tls is None:
        return ()
    own = {
        **environment(document, machine_dir),
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",
        "MESAFORM_MACHINE": identity.instance_id,
        "MESAFORM_ADDRESS": identity.address,
    }
    role = (
        _issuing(document, identity, machine_dir)
        if document.role == "master"
        else _requesting(document, proof)
    )
    argv = (programs.python, "-m", "mesaform.node.certificates")
    return (Service("certificates", argv, {**own, **role}),)


def _issuing(
    document: NodeDocument, identity: Identity, machine_dir: PurePosixPath
) -> dict[str, str]:
    hosts = [name for name in (identity.public_address, *document.host_names) if name]
    return {
        **authority_environment(document, machine_dir),
        HOSTS_VARIABLE: ",".join(hosts),
        "MESAFORM_CLUSTER": document.cluster,
        "AWS_REGION": document.region,
    }


def _requesting(document: NodeDocument, proof: Mapping[str, str]) -> dict[str, str]:
    issuers = ",".join(f"{member.address}:{Port.AUTOSCALER}" for member in document.zookeeper)
    return {ISSUERS_VARIABLE: issuers, **proof}
