"""Attributes: the text that an agent is configured with, and the text that constraints compare."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.engine.agent.config import parse_attributes, parse_domain
from mesaform.mesos.attributes import attribute_texts
from mesaform.mesos.messages import Attribute, ItemSet
from mesaform.placement.attributes import comparison_text, number_of, scalar_text
from mesaform.topology.agent_attributes import (
    AgentMachine,
    fault_domain,
    machine_attributes,
    registered_attributes,
)

VALUE = st.one_of(
    st.text("0123456789.eE", min_size=1, max_size=9),
    st.text("abcxXinfNA_/.-0123456789", min_size=1, max_size=9),
    st.sampled_from(["0x" + "f" * 300, "9" * 5000, f"[1-{'9' * 5000}]"]),
    st.sampled_from(["1234567", "0.30", "1.10", "1_000", "0x10", "-1", "inf", "nan", "1e400"]),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.0, "1234567"),
        (0.5, "0.5"),
        (2.0, "2"),
        (0.0, "0"),
        (1.0005, "1"),
        (1.00051, "1.001"),
        (1.1005, "1.101"),
        (1e15, "1000000000000000"),
    ],
)
def test_a_scalar_has_at_most_three_decimals_as_marathon_prints_it(value: float, text: str) -> None:
    assert scalar_text(value) == text


@pytest.mark.parametrize(
    ("configured", "compared"),
    [
        ("1234567", "1234567"),
        ("0.30", "0.3"),
        ("1.10", "1.1"),
        ("1e3", "1000"),
        ("0x10", "16"),
        ("1_000", "1_000"),
        ("-1", "-1"),
        ("inf", "inf"),
        ("rack-7", "rack-7"),
        ("[7-9,1-5]", "[1-5,7-9]"),
    ],
)
def test_an_attribute_is_typed_by_its_text_as_by_mesos(configured: str, compared: str) -> None:
    assert comparison_text(configured) == compared


def test_only_finite_numbers_that_are_not_negative_are_scalars() -> None:
    assert number_of("0.5") == 0.5
    assert [number_of(text) for text in ("nan", "inf", "-1", "1_0", "", "1e400")] == [None] * 6


def test_the_first_attribute_of_a_name_counts_and_sets_are_in_order() -> None:
    twice = [*parse_attributes("rack:1"), *parse_attributes("rack:2")]
    both = Attribute(name="disks", type="SET", set=ItemSet(item=["ssd", "hdd"]))
    assert attribute_texts([*twice, both]) == {"rack": "1", "disks": "{hdd,ssd}"}


@given(st.dictionaries(st.sampled_from(["rack", "gen", "zone"]), VALUE))
def test_what_is_predicted_of_a_machine_is_what_its_agent_registers(own: dict[str, str]) -> None:
    machine = AgentMachine("m5.large", "us-east-1a", "default", "spot")
    flag = ";".join(f"{name}:{value}" for name, value in machine_attributes(own, machine).items())
    domain = parse_domain(json.dumps(fault_domain("us-east-1", "us-east-1a")))
    registered = attribute_texts(parse_attributes(flag), domain)
    assert registered_attributes(own, machine, "us-east-1") == registered
