"""Machines of the state that a killed Terraform replaced, and their successors in the account."""

from __future__ import annotations

import pytest

from mesaform.provision.interrupted import find_succeeded
from mesaform.provision.ownership import AccountView, CloudMachine
from mesaform.provision.terraform_state import ManagedResource
from mesaform.topology.names import Tag

OWN, FOREIGN = "0123456789abcdef", "fedcba9876543210"
NAME = "mesaform-a-master-1"
OLD = ManagedResource(
    "masters", "aws_instance", {"id": "i-old", "tags": {Tag.NAME: NAME}}, "master-1"
)


def living(instance_id: str, name: str = NAME, deployment: str = OWN) -> CloudMachine:
    return CloudMachine(instance_id, "vpc-1", 1.0, {Tag.NAME: name, Tag.DEPLOYMENT: deployment})


def succeeded(
    *machines: CloudMachine, resources: tuple[ManagedResource, ...] = (OLD,)
) -> list[str]:
    view = AccountView(machines, {})
    return [resource.id for resource in find_succeeded(resources, view, OWN)]


def test_a_machine_that_ended_and_has_a_living_successor_of_its_name_is_found():
    assert succeeded(living("i-new")) == ["i-old"]


@pytest.mark.parametrize(
    "machines",
    [
        (),
        (living("i-old"),),
        (living("i-old"), living("i-new")),
        (living("i-new", name="mesaform-a-master-2"),),
        (living("i-new", deployment=FOREIGN),),
    ],
    ids=["no successor", "it lives", "both live", "another name", "another deployment"],
)
def test_a_machine_stays_in_the_state_unless_it_ended_and_was_succeeded(
    machines: tuple[CloudMachine, ...],
):
    assert succeeded(*machines) == []


def test_a_machine_that_the_state_lists_is_nobodys_successor():
    listed = ManagedResource("masters", "aws_instance", {"id": "i-new", "tags": {}}, "master-2")
    assert succeeded(living("i-new"), resources=(OLD, listed)) == []


def test_resources_that_are_no_machines_stay():
    disk = ManagedResource("masters", "aws_ebs_volume", OLD.attributes, "master-1")
    assert succeeded(living("i-new"), resources=(disk,)) == []
