"""Settings with which running machines booted, where they differ from the cluster file's.

Depends on EC2, which keeps the user data of each machine.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mesaform.aws.client import client
from mesaform.aws.resources.kind import call
from mesaform.common.errors import CloudError
from mesaform.provision.machine_changes import MachineChange
from mesaform.provision.outdated import SETTINGS, declared_user_data
from mesaform.provision.preview import Preview
from mesaform.topology.user_data import NodeDocument, TlsTerms, parse_node_document

SETTING_OF_FIELD: Mapping[str, str] = {
    "attributes": "agents.attributes",
    "disk_gib": "agents.disk_gib",
    "has_burst": "agents.burst",
    "task_user": "tasks.user",
    "allow_root_tasks": "tasks.allow_root",
    "placement": "tasks.placement",
    "host_names": "http.host_names",
    "jsonp": "http.jsonp",
    "standbys": "http.standbys",
    "session_manager": "debug",
    "access": "access",
    "tls": "tls",
    "engine": "engine",
    "zookeeper": "masters",
    "data_volume": "masters.data_volume",
}
"""Settings of cluster.yaml by the fields of the node document that they set."""
END_OF_CERTIFICATE = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Booted:
    """User data of running machines. `read` gives the text of a machine. Raises CloudError."""

    region: str

    def read(self, instance_id: str) -> bytes:
        """The user data of a machine.

        Raises:
            CloudError: EC2 refused or did not answer.

        """
        answer = call(
            client("ec2", self.region),
            "describe_instance_attribute",
            instance_id,
            InstanceId=instance_id,
            Attribute="userData",
        )
        return base64.b64decode(answer["UserData"].get("Value", ""))


def with_boot_settings(preview: Preview, folder: Path, booted: Booted) -> Preview:
    """The preview with the names of the settings in which outdated machines differ.

    A machine whose user data cannot be read keeps the reason `settings`.
    """
    declared = declared_user_data(folder)
    outdated: list[MachineChange] = []
    incompatible: list[MachineChange] = []
    for machine in preview.outdated:
        documents = _documents(machine, declared, booted) if SETTINGS in machine.why else None
        if documents is None:
            outdated.append(machine)
            continue
        named = tuple(setting_differences(*documents)) or (SETTINGS,)
        others = tuple(item for item in machine.why if item != SETTINGS)
        outdated.append(replace(machine, why=(*others, *named)))
        if reasons := tuple(incompatible_settings(*documents)):
            incompatible.append(replace(machine, why=reasons))
    return replace(preview, outdated=tuple(outdated), incompatible=tuple(incompatible))


def _documents(
    machine: MachineChange, declared: Mapping[str, str], booted: Booted
) -> tuple[NodeDocument, NodeDocument] | None:
    """What the machine booted and what it would boot now; None where one cannot be read."""
    try:
        present = parse_node_document(booted.read(machine.instance_id))
        return present, parse_node_document(declared[machine.instance_id])
    except (CloudError, KeyError, ValueError, msgspec.MsgspecError):
        return None


def setting_differences(present: NodeDocument, declared: NodeDocument) -> Iterator[str]:
    """Names of the settings in which two node documents differ, in alphabetic order."""
    names = {
        setting
        for field, setting in SETTING_OF_FIELD.items()
        if getattr(present, field) != getattr(declared, field)
    }
    yield from sorted(names)


def incompatible_settings(present: NodeDocument, declared: NodeDocument) -> Iterator[str]:
    """Settings of which machines with both values do not work together, or not with the verbs."""
    if (present.tls is None) != (declared.tls is None):
        yield "tls"
    elif present.tls and declared.tls and not _trusts_issuer(present.tls, declared.tls):
        yield "the CA"
    if present.role == "master" and _demands(present) != _demands(declared):
        yield "access"


def _demands(document: NodeDocument) -> tuple[bool, bool]:
    """Whether operators, and whether frameworks, need a credential."""
    access = document.access
    if access is None:
        return False, False
    return access.requires_token, access.authenticates_frameworks


def _certificates(terms: TlsTerms) -> list[str]:
    """The trusted certificates; the first one is of the CA that issues."""
    parts = terms.authorities.split(END_OF_CERTIFICATE)
    return [part.strip() for part in parts if part.strip()]


def _trusts_issuer(present: TlsTerms, declared: TlsTerms) -> bool:
    return next(iter(_certificates(declared)), "") in _certificates(present)
