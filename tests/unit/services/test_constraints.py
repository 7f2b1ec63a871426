from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.resources import Range
from mesaform.mesos.messages import (
    Attribute,
    DomainInfo,
    FaultDomain,
    Offer,
    RegionInfo,
    Text,
    ZoneInfo,
    ident,
)
from mesaform.mesos.values import SignedScalar
from mesaform.placement.constraints import (
    OPERATORS,
    UNLIMITED,
    Constraint,
    InstanceCounts,
    host_port,
    problem_with,
    room,
)
from mesaform.services.constraints import are_satisfied, fields_of

AGENT = {"@hostname": "h1", "rack": "r1", "@zone": "a"}


def agents_of_racks(*racks: str) -> list[dict[str, str]]:
    return [{"@hostname": f"h-{index}", "rack": rack} for index, rack in enumerate(racks)]


@pytest.mark.parametrize(
    ("constraint", "placed", "fits"),
    [
        (["hostname", "UNIQUE"], [], True),
        (["hostname", "UNIQUE"], [{"@hostname": "h1"}], False),
        (["@hostname", "UNIQUE"], [{"@hostname": "h2"}], True),
        (["rack", "CLUSTER", "r1"], [], True),
        (["rack", "CLUSTER", "r2"], [], False),
        (["rack", "CLUSTER"], agents_of_racks("r1"), True),
        (["rack", "CLUSTER"], agents_of_racks("r2"), False),
        (["rack", "GROUP_BY"], [], True),
        (["rack", "GROUP_BY"], agents_of_racks("r2"), True),
        (["rack", "GROUP_BY"], agents_of_racks("r1", "r1", "r2"), False),
        (["rack", "GROUP_BY"], agents_of_racks("r1", "r2"), True),
        (["rack", "GROUP_BY", "3"], agents_of_racks("r1", "r2"), False),
        (["rack", "LIKE", "r[12]"], [], True),
        (["rack", "LIKE", "r"], [], False),
        (["rack", "UNLIKE", "r2"], [], True),
        (["rack", "UNLIKE", "r1"], [], False),
        (["rack", "MAX_PER", "2"], agents_of_racks("r1"), True),
        (["rack", "MAX_PER", "2"], agents_of_racks("r1", "r1"), False),
        (["@zone", "IS", "a"], [], True),
        (["@zone", "IS", "b"], [], False),
    ],
)
def test_an_operator_compares_the_agent_with_those_of_other_instances(
    constraint: list[str], placed: list[dict[str, str]], fits: bool
) -> None:
    assert are_satisfied([constraint], AGENT, placed) is fits


@pytest.mark.parametrize("operator", ["UNIQUE", "CLUSTER", "GROUP_BY", "LIKE", "MAX_PER", "IS"])
def test_an_agent_without_the_attribute_satisfies_only_unlike(operator: str) -> None:
    assert not are_satisfied([["gpu", operator, "1"]], AGENT, [])
    assert are_satisfied([["gpu", "UNLIKE", "1"]], AGENT, [])


def test_all_constraints_must_hold() -> None:
    assert are_satisfied([["rack", "IS", "r1"], ["@zone", "IS", "a"]], AGENT, [])
    assert not are_satisfied([["rack", "IS", "r1"], ["@zone", "IS", "b"]], AGENT, [])


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (["rack"], "field, operator"),
        (["rack", "NEAR"], "NEAR"),
        (["rack", "UNIQUE", "x"], "no value"),
        (["rack", "LIKE"], "needs a value"),
        (["rack", "LIKE", "("], "regular expression"),
        (["rack", "UNLIKE", "(?!r1).*"], "regular expression of RE2: invalid perl operator"),
        (["rack", "MAX_PER", "few"], "whole number"),
    ],
)
def test_an_invalid_constraint_has_a_problem(constraint: list[str], text: str) -> None:
    assert text in (problem_with(constraint) or "")


def test_the_fields_of_an_offer_are_attributes_host_and_fault_domain() -> None:
    offer = Offer(
        id=ident("o"),
        framework_id=ident("f"),
        agent_id=ident("a"),
        hostname="h1",
        attributes=[
            Attribute(name="rack", type="TEXT", text=Text(value="r1")),
            Attribute(name="level", type="SCALAR", scalar=SignedScalar(value=3.0)),
        ],
        domain=DomainInfo(
            fault_domain=FaultDomain(region=RegionInfo(name="us"), zone=ZoneInfo(name="us-a"))
        ),
    )
    assert fields_of(offer) == {
        "rack": "r1",
        "level": "3",
        "@hostname": "h1",
        "@region": "us",
        "@zone": "us-a",
    }


@pytest.mark.parametrize("operator", ["LIKE", "UNLIKE"])
def test_no_agent_satisfies_a_pattern_that_only_an_earlier_release_took(operator: str) -> None:
    assert not are_satisfied([["rack", operator, "(?!r1).*"]], AGENT, [])


def test_a_catastrophic_pattern_is_compared_at_once() -> None:
    agent = {"@hostname": "h1", "rack": "a" * 1024}
    assert not are_satisfied([["rack", "LIKE", "(a+)+b"]], agent, [])
    assert are_satisfied([["rack", "UNLIKE", "(a|aa)+b"]], agent, [])


TEXT = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["@port", "hostname", "zone", "9" * 5000, "0x" + "f" * 400, "\x00", "1e400"]),
)


@given(TEXT, st.sampled_from([*OPERATORS, "FREE", "NEAR"]), TEXT)
def test_no_text_of_a_constraint_ends_its_evaluation(field: str, operator: str, value: str) -> None:
    constraint = Constraint(field, operator, value)
    machine = Place({"zone": "a", "@port": "b", field: value})
    assert 0 <= room("app", [constraint], machine, InstanceCounts()) <= UNLIMITED


@dataclass(frozen=True)
class Place:
    """A machine as constraints see it."""

    attributes: Mapping[str, str]
    hostname: str = "h"
    ports: tuple[Range, ...] = ((31000, 32000),)


def test_the_field_of_host_ports_is_an_attribute_like_another_where_somebody_states_it() -> None:
    stated = Constraint("@port", "LIKE", "x.*")
    assert not stated.is_host_port
    assert host_port(31000).is_host_port
    assert problem_with(["@port", "FREE", "1"]) is not None
