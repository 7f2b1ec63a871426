"""A listing proves something only in the account that holds the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesaform.aws.resources.owned import OwnedResource
from mesaform.common.errors import NotOwned
from mesaform.teardown.account_check import require_listed_state
from mesaform.teardown.journal import Journal, is_teardown_unfinished
from mesaform.teardown.plan import Inventory, TeardownRequest, plan

OURS = {"mesaform:cluster": "one"}
STATE = {"network": frozenset({"vpc-1", "subnet-1", "r-rtb-1080289494"})}


def check(inventory: Inventory, *, is_resumed: bool = False) -> None:
    require_listed_state(
        inventory, is_resumed=is_resumed, where="the AWS account 1 (r)", folder=Path("/state")
    )


def test_a_state_of_which_the_account_shows_nothing_proves_nothing():
    with pytest.raises(NotOwned, match=r"subnet-1, vpc-1.*the AWS account 1"):
        check(Inventory("one", stacks=STATE))


def test_one_listed_resource_shows_that_it_is_the_right_account():
    check(Inventory("one", resources=(OwnedResource("vpc", "vpc-1", OURS),), stacks=STATE))


def test_what_an_unfinished_teardown_removed_may_be_missing():
    check(Inventory("one", stacks=STATE), is_resumed=True)


def test_a_teardown_is_unfinished_until_its_receipt_is_written(tmp_path):
    assert not is_teardown_unfinished(tmp_path)
    journal = Journal(tmp_path, "one", 1.0)
    journal.record_start("Destroy the stacks", 2.0)
    assert is_teardown_unfinished(tmp_path)
    receipt = journal.close({"cluster": "one"}, 3.0)
    assert not is_teardown_unfinished(tmp_path)
    assert receipt.stat().st_mode & 0o777 == 0o600


def test_an_empty_state_needs_nothing_from_the_account():
    check(Inventory("one", stacks={"network": frozenset({"r-rtb-1080289494"})}))


def test_resources_of_another_deployment_are_kept():
    theirs = OwnedResource("role", "mesaform-one-agent", {**OURS, "mesaform:deployment": "theirs"})
    ours = OwnedResource("role", "mesaform-one-master", {**OURS, "mesaform:deployment": "ours"})
    old = OwnedResource("queue", "mesaform-one", OURS)
    inventory = Inventory("one", resources=(theirs, ours, old), deployment_id="ours")
    planned = plan(inventory, TeardownRequest())
    assert planned.kept == (theirs,)
    assert planned.removes() == {ours.key, old.key}
    assert not inventory.is_empty
    assert Inventory("one", resources=(theirs,), deployment_id="ours").is_empty
