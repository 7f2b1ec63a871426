"""What Terraform knows of a cluster: outputs and ids, read from the stacks' state through python-terraform."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.state_folders import STACKS, state_file


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the stacks made. After an interrupted run some of it is still empty.

    Addresses and ids of masters are in the order of their zones; agents are those that Terraform keeps, by pool.
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


def outputs(place: ClusterContext) -> Outputs | None:
    """The outputs of a cluster; None if no stack has any state with something in it."""
    states = {stack: _state(state_file(place.cluster_dir, stack)) for stack in STACKS}
    if not any(state.get("resources") for state in states.values()):
        return None
    network, masters, agents = (
        _values(states[stack]) for stack in ("network", "masters", "agents")
    )
    return Outputs(
        vpc_id=network.get("vpc_id", ""),
        subnet_ids=network.get("subnet_ids", {}),
        security_group_ids=network.get("security_group_ids", {}),
        master_ids=tuple(masters.get("instance_ids", ())),
        master_private_addresses=tuple(masters.get("private_addresses", ())),
        master_public_addresses=tuple(masters.get("public_addresses", ())),
        agent_ids={pool: tuple(ids) for pool, ids in agents.get("instance_ids", {}).items()},
        launch_template_ids=agents.get("launch_template_ids", {}),
    )


def terraform_instance_ids(place: ClusterContext) -> set[str]:
    """The ids of all EC2 instances that Terraform knows. Every other instance of the cluster is the autoscaler's, or a stray."""
    return {
        str(attributes["id"])
        for kind, attributes in _managed(place)
        if kind == "aws_instance" and attributes.get("id")
    }


def known_names(place: ClusterContext) -> frozenset[str]:
    """Every id and name that Terraform knows."""
    return frozenset(
        str(attributes[key])
        for _, attributes in _managed(place)
        for key in ("id", "name")
        if attributes.get(key)
    )


def vpc_is_known(place: ClusterContext) -> bool:
    """Whether the cluster's VPC is in this folder's state: the proof that the cluster was raised from here."""
    return any(kind == "aws_vpc" and attributes.get("id") for kind, attributes in _managed(place))


def _managed(place: ClusterContext) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Type and attributes of everything in the states of all stacks."""
    for stack in STACKS:
        for resource in _state(state_file(place.cluster_dir, stack)).get("resources") or ():
            if resource.get("mode") == "managed":
                for instance in resource.get("instances") or ():
                    yield str(resource.get("type")), instance.get("attributes") or {}


def _state(path: Path) -> dict[str, Any]:
    """A stack's state as it is on disk; nothing where there is none, or where a crash cut it short."""
    from python_terraform import Terraform

    if not path.exists() or not path.stat().st_size:
        return {}
    terraform = Terraform(working_dir=str(path.parent))
    try:
        terraform.read_state_file(path.name)
    except ValueError:
        logging.getLogger(__name__).warning(
            "%s cannot be read: Terraform is writing it, or a crash cut it short", path
        )
        return {}
    return dict(vars(terraform.tfstate))


def _values(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: output["value"]
        for name, output in (state.get("outputs") or {}).items()
        if output.get("value") is not None
    }
