"""Machines that are behind: they booted another image, or other user data, than their stack has.

Terraform ignores both at running machines (ADR 0037), so its plans do not name these. Depends on
the synthesized stacks and on Terraform's states.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mesaform.common.json_types import Json, JsonObject, as_object
from mesaform.config.schema import ClusterSpec
from mesaform.provision import setting_changes
from mesaform.provision.machine_changes import MACHINE, MachineChange
from mesaform.provision.state_folders import CONFIGURATION_FILE, STACKS, stack_dir
from mesaform.provision.terraform_state import ManagedResource, managed_resources, read_states
from mesaform.topology.names import Tag

_OUTPUT = re.compile(
    r"\$\{data\.terraform_remote_state\.cross-stack-reference-input-(?P<stack>[\w-]+)"
    r"\.outputs\.(?P<name>[\w-]+)\}"
)
"""How cdktf writes a reference to an attribute of another stack."""

SETTINGS = "settings"
"""The reason of machines that booted other user data."""
SPEC_PARAMETER = "aws_ssm_parameter.spec"
"""Address of the parameter with the spec in the stack of the agents."""


def read_declared_stack(folder: Path, stack: str) -> JsonObject:
    """A synthesized stack as Terraform reads it; empty where there is none."""
    path = stack_dir(folder, stack) / CONFIGURATION_FILE
    try:
        return as_object(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def known_machines(folder: Path) -> list[ManagedResource]:
    """The machines of the state."""
    known = managed_resources(folder)
    return [resource for resource in known if resource.kind == MACHINE and resource.id]


def find_outdated(folder: Path, changed: set[str]) -> tuple[MachineChange, ...]:
    """Machines of the state whose image or user data differ from what their stack declares.

    Terraform's state has the SHA-1 of user data (provider 5, `aws_instance.user_data`).

    Args:
        folder: the cluster's state folder.
        changed: ids of machines that the plan changes anyway.

    """
    documents = {stack: read_declared_stack(folder, stack) for stack in STACKS}
    outputs = {stack: state.outputs for stack, state in read_states(folder).items()}
    return tuple(
        replacement_of(resource, declared, why)
        for resource in known_machines(folder)
        if resource.id not in changed
        and (declared := _declared(documents[resource.stack], resource.name))
        and (why := tuple(_boot_differences(resource.attributes, declared, outputs)))
    )


def declared_user_data(folder: Path) -> dict[str, str]:
    """What each machine of the state would boot if it were created now, by instance id."""
    documents = {stack: read_declared_stack(folder, stack) for stack in STACKS}
    outputs = {stack: state.outputs for stack, state in read_states(folder).items()}
    return {
        resource.id: _resolve(str(declared.get("user_data") or ""), outputs)
        for resource in known_machines(folder)
        if (declared := _declared(documents[resource.stack], resource.name))
    }


def deployed_spec(folder: Path) -> JsonObject | None:
    """The spec of the last whole deployment, which the agents' stack stores; None without one."""
    for resource in managed_resources(folder):
        if resource.stack == "agents" and resource.address == SPEC_PARAMETER:
            try:
                return as_object(json.loads(str(resource.attributes.get("value") or "")))
            except ValueError:
                return None
    return None


def require_changeable(folder: Path, spec: ClusterSpec) -> None:
    """Check that the cluster can take the spec (`setting_changes.require_changeable`)."""
    setting_changes.require_changeable(deployed_spec(folder), spec.model_dump(mode="json"))


def replacement_of(
    resource: ManagedResource, attributes: JsonObject, why: tuple[str, ...]
) -> MachineChange:
    """The replacement of a machine by one with these attributes."""
    tags = as_object(attributes.get("tags"))
    instance_type = str(attributes.get("instance_type") or "")
    return MachineChange(
        resource.id,
        str(tags.get(Tag.NAME) or resource.id),
        str(tags.get(Tag.ROLE, "")),
        "replace",
        why,
        resource.address,
        str(tags.get(Tag.POOL, "")),
        instance_type,
        instance_type,
    )


def _declared(stack: JsonObject, name: str) -> JsonObject:
    """The attributes of a machine in a synthesized stack; empty if it declares no such machine."""
    machines = as_object(as_object(stack.get("resource")).get(MACHINE))
    return as_object(machines.get(name))


def _boot_differences(
    present: JsonObject, declared: JsonObject, outputs: Mapping[str, Mapping[str, Json]]
) -> Iterator[str]:
    if present.get("ami") != declared.get("ami"):
        yield "image"
    text = _resolve(str(declared.get("user_data") or ""), outputs)
    if present.get("user_data") not in {text, hashlib.sha1(text.encode()).hexdigest()}:  # noqa: S324 # Terraform's choice, not a protection
        yield SETTINGS


def _resolve(text: str, outputs: Mapping[str, Mapping[str, Json]]) -> str:
    """The text with the outputs of other stacks in place of references to them.

    A reference to an output that no state has stays, so that the machine counts as behind.
    """

    def value_of(reference: re.Match[str]) -> str:
        known = outputs.get(reference["stack"], {})
        return str(known.get(reference["name"], reference[0]))

    return _OUTPUT.sub(value_of, text)
