"""A listing proves something only in the account that holds the cluster."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from mesaform.aws.resources.owned import OwnedResource
from mesaform.common.errors import NotOwned
from mesaform.teardown.account_check import require_listed_state, require_proof, unproven_ids
from mesaform.teardown.journal import Journal, seen_before
from mesaform.teardown.plan import Inventory, TeardownRequest, plan

OURS = {"mesaform:cluster": "one"}
STATE = {"network": frozenset({"vpc-1", "subnet-1", "r-rtb-1080289494"})}


def check(inventory: Inventory, *, seen: Collection[str] = ()) -> None:
    require_listed_state(inventory, seen=seen, where="the AWS account 1 (r)", folder=Path("/state"))


def test_a_state_of_which_the_account_shows_nothing_proves_nothing():
    with pytest.raises(NotOwned, match=r"subnet-1, vpc-1.*the AWS account 1"):
        check(Inventory("one", stacks=STATE))


def test_one_listed_resource_shows_that_it_is_the_right_account():
    check(Inventory("one", resources=(OwnedResource("vpc", "vpc-1", OURS),), stacks=STATE))


def test_what_an_unfinished_teardown_removed_may_be_missing():
    check(Inventory("one", stacks=STATE), seen={"vpc-1", "subnet-1"})


def test_an_interrupted_teardown_goes_on_whatever_its_state_lists_besides():
    stacks = {"network": frozenset({"vpc-1", "sg-default"}), "agents": frozenset({"lt-new"})}
    living = Inventory("one", resources=(OwnedResource("vpc", "vpc-1", OURS),), stacks=stacks)
    check(living, seen={"vpc-1"})
    check(Inventory("one", stacks={"network": frozenset({"sg-default"})}))


def test_what_an_unfinished_teardown_saw_is_known_until_its_receipt_is_written(tmp_path):
    assert seen_before(tmp_path) == frozenset()
    journal = Journal(tmp_path, "one", 1.0)
    journal.record_seen(["vpc-1", "subnet-1"])
    assert seen_before(tmp_path) == {"vpc-1", "subnet-1"}
    receipt = journal.close({"cluster": "one"}, 3.0)
    assert seen_before(tmp_path) == frozenset()
    assert receipt.stat().st_mode & 0o777 == 0o600


def test_an_unfinished_teardown_excuses_nothing_that_a_later_up_created(tmp_path):
    Journal(tmp_path, "one", 1.0).record_seen(["vpc-1", "subnet-1"])
    created_later = {"network": frozenset({"vpc-2", "subnet-2"})}
    with pytest.raises(NotOwned, match="subnet-2, vpc-2"):
        check(Inventory("one", stacks=created_later), seen=seen_before(tmp_path))


def test_what_the_state_lists_and_no_listing_showed_is_not_proven_gone():
    stacks = {"network": {"vpc-1", "subnet-1"}, "masters": {"i-1", "i-2", "vol-1"}}
    assert unproven_ids(stacks, {"vpc-1", "i-1", "vol-1"}) == ("i-2",)


@pytest.mark.parametrize("tags", [OURS, {**OURS, "mesaform:deployment": "theirs"}])
def test_a_folder_without_record_and_state_takes_nothing_down_unless_the_id_is_named(tags):
    inventory = Inventory("one", resources=(OwnedResource("vpc", "vpc-1", tags),))
    identity = tags.get("mesaform:deployment", "none")
    with pytest.raises(NotOwned, match="cannot prove to own") as caught:
        require_proof(inventory, has_record=False, where="there", folder=Path("/state"))
    assert f"--deployment {identity}" in caught.value.fix
    require_proof(inventory, has_record=True, where="there", folder=Path("/state"))


def test_baked_images_need_no_proof():
    inventory = Inventory("one", resources=(OwnedResource("image", "ami-1", OURS),))
    require_proof(inventory, has_record=False, where="there", folder=Path("/state"))


def test_a_deployment_older_than_ids_owns_nothing_with_an_id():
    theirs = OwnedResource("role", "mesaform-one-agent", {**OURS, "mesaform:deployment": "theirs"})
    inventory = Inventory("one", resources=(theirs,), stacks=STATE)
    assert plan(inventory, TeardownRequest()).kept == (theirs,)


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
