from __future__ import annotations

import pytest

from mesaform.mesos.messages import Attribute, Offer, Scalar, Text, ident
from mesaform.services.constraints import places_of, problem_with, satisfied

HERE = {"@hostname": "h1", "rack": "r1", "@zone": "a"}


def on(*racks: str) -> list[dict[str, str]]:
    return [{"@hostname": f"h-{index}", "rack": rack} for index, rack in enumerate(racks)]


@pytest.mark.parametrize(
    ("constraint", "placed", "fits"),
    [
        (["hostname", "UNIQUE"], [], True),
        (["hostname", "UNIQUE"], [{"@hostname": "h1"}], False),
        (["@hostname", "UNIQUE"], [{"@hostname": "h2"}], True),
        (["rack", "CLUSTER", "r1"], [], True),
        (["rack", "CLUSTER", "r2"], [], False),
        (["rack", "CLUSTER"], on("r1"), True),
        (["rack", "CLUSTER"], on("r2"), False),
        (["rack", "GROUP_BY"], [], True),
        (["rack", "GROUP_BY"], on("r2"), True),
        (["rack", "GROUP_BY"], on("r1", "r1", "r2"), False),
        (["rack", "GROUP_BY"], on("r1", "r2"), True),
        (["rack", "GROUP_BY", "3"], on("r1", "r2"), False),
        (["rack", "LIKE", "r[12]"], [], True),
        (["rack", "LIKE", "r"], [], False),
        (["rack", "UNLIKE", "r2"], [], True),
        (["rack", "UNLIKE", "r1"], [], False),
        (["rack", "MAX_PER", "2"], on("r1"), True),
        (["rack", "MAX_PER", "2"], on("r1", "r1"), False),
        (["@zone", "IS", "a"], [], True),
        (["@zone", "IS", "b"], [], False),
    ],
)
def test_an_operator_decides_on_the_agent_and_on_where_others_are(
    constraint: list[str], placed: list[dict[str, str]], fits: bool
) -> None:
    assert satisfied([constraint], HERE, placed) is fits


@pytest.mark.parametrize("operator", ["UNIQUE", "CLUSTER", "GROUP_BY", "LIKE", "MAX_PER", "IS"])
def test_an_agent_without_the_attribute_fits_nothing_but_unlike(operator: str) -> None:
    assert not satisfied([["gpu", operator, "1"]], HERE, [])
    assert satisfied([["gpu", "UNLIKE", "1"]], HERE, [])


def test_all_constraints_must_hold() -> None:
    assert satisfied([["rack", "IS", "r1"], ["@zone", "IS", "a"]], HERE, [])
    assert not satisfied([["rack", "IS", "r1"], ["@zone", "IS", "b"]], HERE, [])


@pytest.mark.parametrize(
    ("constraint", "word"),
    [
        (["rack"], "field, operator"),
        (["rack", "NEAR"], "NEAR"),
        (["rack", "UNIQUE", "x"], "no value"),
        (["rack", "LIKE"], "needs a value"),
        (["rack", "LIKE", "("], "regular expression"),
        (["rack", "MAX_PER", "few"], "whole number"),
    ],
)
def test_what_is_wrong_with_a_constraint_is_said(constraint: list[str], word: str) -> None:
    assert word in (problem_with(constraint) or "")


def test_an_offer_s_fields_are_its_attributes_its_host_and_its_fault_domain() -> None:
    offer = Offer(
        id=ident("o"),
        framework_id=ident("f"),
        agent_id=ident("a"),
        hostname="h1",
        attributes=[
            Attribute(name="rack", type="TEXT", text=Text(value="r1")),
            Attribute(name="level", type="SCALAR", scalar=Scalar(value=3.0)),
        ],
        domain={"fault_domain": {"region": {"name": "us"}, "zone": {"name": "us-a"}}},
    )
    assert places_of(offer) == {
        "rack": "r1",
        "level": "3",
        "@hostname": "h1",
        "@region": "us",
        "@zone": "us-a",
    }
