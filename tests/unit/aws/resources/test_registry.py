"""The order of deletion follows from the dependencies that the kinds declare."""

from __future__ import annotations

import re
from graphlib import CycleError
from pathlib import Path

import pytest

from mesaform.aws.resources.ec2 import Ec2Kind
from mesaform.aws.resources.owned import OwnedResource
from mesaform.aws.resources.registry import (
    count_by_kind,
    deletion_order,
    deletion_rank,
    in_deletion_order,
    register,
    registered_kinds,
)

OPERATIONS = Path(__file__).parents[4] / "docs" / "operations.md"


def test_the_order_is_the_documented_one() -> None:
    section = OPERATIONS.read_text().partition("### Order of deletion")[2]
    documented = re.findall(r"^\d+\. ([a-z -]+)$", section.partition("\n#")[0], re.MULTILINE)
    assert documented == list(registered_kinds())


def test_every_kind_follows_what_it_depends_on() -> None:
    for kind, kind_class in registered_kinds().items():
        for required in kind_class.depends_on:
            assert deletion_rank(required) < deletion_rank(kind), f"{required} before {kind}"


def test_instances_are_deleted_before_everything_but_their_requests() -> None:
    assert list(registered_kinds())[:2] == ["spot request", "instance"]


def test_a_cycle_is_an_error() -> None:
    with pytest.raises(CycleError):
        deletion_order({"a": ["b"], "b": ["c"], "c": ["a"]})


def test_an_unknown_dependency_is_an_error() -> None:
    with pytest.raises(ValueError, match="'a' depends on unknown kinds: x"):
        deletion_order({"a": ["x"]})


def test_a_second_class_of_the_same_kind_is_an_error() -> None:
    registered_kinds()

    class Duplicate(Ec2Kind):
        kind = "vpc"

    with pytest.raises(ValueError, match="two classes"):
        register(Duplicate)


def test_kinds_of_equal_rank_are_sorted_by_name() -> None:
    order = deletion_order({"z": [], "b": ["z"], "a": ["z"], "c": ["a"]})
    assert order == ("z", "a", "b", "c")


def test_resources_are_sorted_and_counted_in_the_order_of_deletion() -> None:
    resources = [
        OwnedResource("vpc", "vpc-1"),
        OwnedResource("instance", "i-2"),
        OwnedResource("instance", "i-1"),
        OwnedResource("something new", "x"),
    ]
    ordered = [resource.id for resource in in_deletion_order(resources)]
    assert ordered == ["x", "i-1", "i-2", "vpc-1"]
    assert count_by_kind(resources) == {"something new": 1, "instance": 2, "vpc": 1}
