"""Which resources an interrupted run of this folder left, and which are never removed."""

from __future__ import annotations

import pytest

from mesaform.aws.resources.owned import OwnedResource
from mesaform.provision.orphans import IN_THE_WAY, NETWORK, is_orphan
from mesaform.topology.names import Tag

KNOWN = frozenset({"i-known", "mesaform-a-agent"})
OURS = {Tag.DEPLOYMENT: "ours", Tag.MANAGED_BY: "terraform"}


def resource(kind: str, identity: str, **changes: str) -> OwnedResource:
    return OwnedResource(kind, identity, {**OURS, **changes})


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (resource("instance", "i-leftover"), True),
        (resource("instance", "i-in-service"), False),
        (resource("instance", "i-known"), False),
        (resource("instance", "i-leftover", **{Tag.MANAGED_BY: "autoscaler"}), False),
        (resource("instance", "i-leftover", **{Tag.MANAGED_BY: "bake"}), False),
        (resource("instance", "i-leftover", **{Tag.DEPLOYMENT: "theirs"}), False),
        (OwnedResource("instance", "i-leftover", {Tag.MANAGED_BY: "terraform"}), False),
        (resource("role", "mesaform-a-agent"), False),
        (resource("role", "mesaform-a-master"), True),
        (resource("role", "mesaform-a-master", **{Tag.DEPLOYMENT: "theirs"}), False),
        (OwnedResource("role", "mesaform-a-master"), False),
        (resource("vpc", "vpc-1"), False),
        (resource("image", "ami-1"), False),
        (resource("volume", "vol-1"), False),
    ],
)
def test_only_leftovers_of_this_folders_run_are_orphans(candidate, expected):
    assert (
        is_orphan(candidate, known=KNOWN, deployment_id="ours", leftover_machines={"i-leftover"})
        is expected
    )


def test_a_vpc_is_an_orphan_only_while_no_machine_is_in_service():
    assert is_orphan(
        resource("vpc", "vpc-1"),
        known=KNOWN,
        deployment_id="ours",
        leftover_machines=(),
        kinds=IN_THE_WAY | NETWORK,
    )
