"""What may be removed before a run, and what never."""

from __future__ import annotations

import pytest

from mesaform.aws.resources.owned import OwnedResource
from mesaform.provision.orphans import is_stray
from mesaform.topology.names import Tag

KNOWN = frozenset({"i-known", "mesaform-a-agent"})


@pytest.mark.parametrize(
    ("resource", "stray"),
    [
        (OwnedResource("instance", "i-lost", {Tag.MANAGED_BY: "terraform"}), True),
        (OwnedResource("instance", "i-known", {Tag.MANAGED_BY: "terraform"}), False),
        (OwnedResource("instance", "i-bought", {Tag.MANAGED_BY: "autoscaler"}), False),
        (OwnedResource("instance", "i-builder", {Tag.MANAGED_BY: "bake"}), False),
        (OwnedResource("role", "mesaform-a-agent"), False),
        (OwnedResource("role", "mesaform-a-master"), True),
        (OwnedResource("vpc", "vpc-1"), False),
        (OwnedResource("image", "ami-1"), False),
        (OwnedResource("volume", "vol-1"), False),
    ],
)
def test_only_what_is_in_the_way_and_nobodys_is_a_stray(resource, stray):
    assert is_stray(resource, KNOWN) is stray
