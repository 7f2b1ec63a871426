"""Whether an agent is the instance that it says it is, and may use the agent id that it asks for.

The registry stores the instance of each agent, so an id belongs to the instance that proved to be
that agent. Pure; depends on `mesaform.topology.instance_identity`.
"""

from __future__ import annotations

from urllib.parse import unquote

from mesaform.engine import link
from mesaform.engine.registry import AgentRecord
from mesaform.mesos.messages import AgentInfo
from mesaform.topology.instance_identity import (
    InstanceDocument,
    InstanceVerifier,
    Unproven,
    is_same_machine,
)


def instance_of(
    register: link.Register, peer: str, record: AgentRecord | None, verifier: InstanceVerifier
) -> str:
    """The id of the instance that sent this message; empty for an agent of an older image.

    Args:
        register: the first message of a link.
        peer: the other end of the link, as gRPC names it.
        record: the registry's record of the agent id that the message names.
        verifier: verifies the proof in the message.

    Raises:
        Unproven: the message must not be handled; the text says why.

    """
    address = peer_address(peer)
    if register.identity is None and record is not None and not record.instance_id:
        _require_old_address(address, record)
        return ""
    document = verifier.verify(register.identity, address)
    _require_own_facts(register, document)
    _require_own_id(register, document, record)
    return document.instance_id


def peer_address(peer: str) -> str:
    """The IP address in gRPC's name of a peer: `ipv4:10.0.0.1:5000`, `ipv6:%5B::1%5D:5000`."""
    _, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]").removeprefix("::ffff:")


def _require_own_facts(register: link.Register, document: InstanceDocument) -> None:
    """Address and attributes, by which the autoscaler knows the machine, must be the document's."""
    ip = register.address.rpartition(":")[0]
    if ip != document.private_ip:
        raise Unproven(f"{document.instance_id} cannot register at {register.address or 'no port'}")
    facts = {
        "instance_id": document.instance_id,
        "instance_type": document.instance_type,
        "zone": document.availability_zone,
    }
    for name, claimed in _texts(register.info).items():
        if facts.get(name, claimed) not in {"", claimed}:
            raise Unproven(f"{document.instance_id} has {name} {facts[name]}, not {claimed}")


def _texts(info: AgentInfo) -> dict[str, str]:
    return {item.name: item.text.value for item in info.attributes if item.text is not None}


def _require_own_id(
    register: link.Register, document: InstanceDocument, record: AgentRecord | None
) -> None:
    if record is None:
        return
    owner = record.instance_id or _texts(record.info).get("instance_id", "")
    if owner not in {"", document.instance_id}:
        raise Unproven(
            f"agent {register.agent_id} belongs to {owner}, not to {document.instance_id}"
        )


def _require_old_address(address: str, record: AgentRecord) -> None:
    """Let an agent of an image without proofs return, at its own address, while it is upgraded."""
    if not is_same_machine(address, record.info.hostname):
        raise Unproven(f"it comes from {address}, not from {record.info.hostname}")
