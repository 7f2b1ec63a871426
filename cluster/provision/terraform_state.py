"""Reader of Terraform's state files: outputs, ids and types of managed resources.

The one reader of the project. Each stack has a file in the cluster's state folder. The files are
read through python-terraform; Terraform itself is not run.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog

from mesaform.common.json_types import Json, JsonObject, as_list, as_object
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.state_folders import ERRORED, STACKS, stack_dir, state_file

Condition = Literal["absent", "unreadable", "valid"]


@dataclass(frozen=True, slots=True)
class ManagedResource:
    """A resource in Terraform's state. `kind` is Terraform's type, such as `aws_instance`."""

    stack: str
    kind: str
    attributes: JsonObject
    name: str = ""
    is_tainted: bool = False

    @property
    def address(self) -> str:
        """Terraform's address within the stack, such as `aws_vpc.vpc`."""
        return f"{self.kind}.{self.name}"

    @property
    def id(self) -> str:
        """The provider's id; empty while the resource is half created."""
        return str(self.attributes.get("id") or "")


@dataclass(frozen=True, slots=True)
class StackState:
    """The state file of one stack.

    `absent` covers an empty file as well: Terraform creates one when it takes its lock, before it
    writes any state.
    """

    stack: str
    path: Path
    condition: Condition
    outputs: Mapping[str, Json] = field(default_factory=dict)
    resources: tuple[ManagedResource, ...] = ()
    serial: int = 0

    @property
    def backup(self) -> Path | None:
        """Terraform's copy of the state before its last change; None when there is none."""
        path = self.path.with_name(f"{self.path.name}.backup")
        return path if path.exists() and path.stat().st_size else None


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of the stacks. After an interrupted run some of them are still empty.

    Addresses and ids of masters are in the order of their zones; agents are those that Terraform
    keeps, by pool.
    """

    vpc_id: str = ""
    subnet_ids: Mapping[str, str] = field(default_factory=dict)  # by zone
    security_group_ids: Mapping[str, str] = field(default_factory=dict)  # by role
    master_ids: tuple[str, ...] = ()
    master_private_addresses: tuple[str, ...] = ()
    master_public_addresses: tuple[str, ...] = ()
    agent_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by pool
    launch_template_ids: Mapping[str, str] = field(default_factory=dict)  # by pool

    @property
    def complete(self) -> bool:
        """Whether every stack came to its end at least once."""
        return bool(self.vpc_id and self.master_ids and self.launch_template_ids)


def read_states(folder: Path) -> dict[str, StackState]:
    """The state of each stack, by stack."""
    return {stack: read_state(folder, stack) for stack in STACKS}


def read_state(folder: Path, stack: str) -> StackState:
    """The state of one stack as it is on disk."""
    return read_state_file(stack, state_file(folder, stack))


def read_latest_state(folder: Path, stack: str) -> StackState:
    """The state that Terraform wrote last, even if its backend did not take it."""
    errored = stack_dir(folder, stack) / ERRORED
    return read_state_file(stack, errored) if errored.exists() else read_state(folder, stack)


def read_state_file(stack: str, path: Path) -> StackState:
    """The state of a stack in a file."""
    from python_terraform.tfstate import Tfstate

    if not path.exists() or not path.stat().st_size:
        return StackState(stack, path, "absent")
    try:
        document = as_object(vars(Tfstate.load_file(str(path))))
    except (ValueError, TypeError, AttributeError):  # not JSON, or not an object
        structlog.get_logger(__name__).warning("Terraform's state cannot be read", path=str(path))
        return StackState(stack, path, "unreadable")
    return StackState(
        stack,
        path,
        "valid" if "resources" in document else "unreadable",
        _output_values(document),
        tuple(_managed_resources(stack, document)),
        int(str(document.get("serial") or 0)),
    )


def outputs(place: ClusterContext) -> Outputs | None:
    """The outputs of a cluster; None if no stack has any state with something in it."""
    states = read_states(place.cluster_dir)
    if not any(state.resources for state in states.values()):
        return None
    network, masters, agents = (states[name].outputs for name in ("network", "masters", "agents"))
    return Outputs(
        vpc_id=str(network.get("vpc_id") or ""),
        subnet_ids=_texts(network.get("subnet_ids")),
        security_group_ids=_texts(network.get("security_group_ids")),
        master_ids=_text_tuple(masters.get("instance_ids")),
        master_private_addresses=_text_tuple(masters.get("private_addresses")),
        master_public_addresses=_text_tuple(masters.get("public_addresses")),
        agent_ids={
            pool: _text_tuple(ids) for pool, ids in as_object(agents.get("instance_ids")).items()
        },
        launch_template_ids=_texts(agents.get("launch_template_ids")),
    )


def managed_resources(folder: Path) -> tuple[ManagedResource, ...]:
    """Every resource in the states of all stacks."""
    return tuple(resource for state in read_states(folder).values() for resource in state.resources)


def terraform_instance_ids(place: ClusterContext) -> set[str]:
    """The ids of all EC2 instances that Terraform knows.

    Every other instance of the cluster is the autoscaler's, or is left from an interrupted run.
    """
    return {
        resource.id
        for resource in managed_resources(place.cluster_dir)
        if resource.kind == "aws_instance" and resource.id
    }


def ids_at(folder: Path, stack: str, addresses: Collection[str]) -> tuple[str, ...]:
    """The ids that the state of a stack has at these addresses."""
    return tuple(
        resource.id
        for resource in read_state(folder, stack).resources
        if resource.address in addresses and resource.id
    )


def tainted_machines(folder: Path) -> tuple[ManagedResource, ...]:
    """The EC2 instances that Terraform would replace because their creation was interrupted."""
    return tuple(
        resource
        for resource in managed_resources(folder)
        if resource.is_tainted and resource.kind == "aws_instance"
    )


def known_names(folder: Path) -> frozenset[str]:
    """Every id and name that Terraform knows."""
    return frozenset(
        str(resource.attributes[key])
        for resource in managed_resources(folder)
        for key in ("id", "name")
        if resource.attributes.get(key)
    )


def known_addresses(folder: Path, stack: str) -> frozenset[str]:
    """The addresses of the resources in the state of one stack."""
    return frozenset(resource.address for resource in read_state(folder, stack).resources)


def stack_ids(folder: Path) -> dict[str, frozenset[str]]:
    """The ids in each stack's state; stacks with nothing in them are left out."""
    return {
        stack: frozenset(resource.id for resource in state.resources)
        for stack, state in read_states(folder).items()
        if state.resources
    }


def set_states_aside(folder: Path) -> None:
    """Rename states that still list resources although the account was proven empty of them."""
    for stack in stack_ids(folder):
        path = state_file(folder, stack)
        path.replace(path.with_name(f"{path.name}.swept-{int(time.time())}"))


def set_unreadable_aside(folder: Path) -> tuple[Path, ...]:
    """Rename states that cannot be read; returns their new paths. The content is kept."""
    kept = []
    for state in read_states(folder).values():
        if state.condition == "unreadable":
            aside = state.path.with_name(f"{state.path.name}.unreadable-{int(time.time())}")
            state.path.replace(aside)
            kept.append(aside)
    return tuple(kept)


def _managed_resources(stack: str, document: JsonObject) -> Iterator[ManagedResource]:
    for entry in map(as_object, as_list(document.get("resources"))):
        if entry.get("mode") != "managed":
            continue
        for instance in map(as_object, as_list(entry.get("instances"))):
            yield ManagedResource(
                stack,
                str(entry.get("type")),
                as_object(instance.get("attributes")),
                str(entry.get("name", "")),
                instance.get("status") == "tainted",
            )


def _output_values(document: JsonObject) -> dict[str, Json]:
    return {
        name: as_object(output).get("value")
        for name, output in as_object(document.get("outputs")).items()
    }


def _texts(value: Json) -> dict[str, str]:
    return {key: str(item) for key, item in as_object(value).items()}


def _text_tuple(value: Json) -> tuple[str, ...]:
    return tuple(str(item) for item in as_list(value))
