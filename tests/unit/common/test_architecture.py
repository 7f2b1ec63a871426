"""Architectures follow from the names of types, and pins from constraints and labels."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import moto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.aws.boot_support import sold_capacities, unbootable_reason
from mesaform.common.architecture import (
    architecture_of,
    architectures_of,
    implied_constraints,
    pin_needed,
)


@cache
def recorded_types() -> dict[str, dict[str, Any]]:
    """DescribeInstanceTypes of AWS, as moto recorded it."""
    path = Path(moto.__file__).parent / "ec2/resources/instance_types.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))


def test_the_name_of_every_recorded_type_tells_its_architecture() -> None:
    others = {
        name: info["ProcessorInfo"]["SupportedArchitectures"]
        for name, info in recorded_types().items()
        if architecture_of(name) not in info["ProcessorInfo"]["SupportedArchitectures"]
    }
    assert {name.partition(".")[0].partition("-")[0].rstrip("12") for name in others} == {"mac"}


def test_no_recorded_type_is_offered_that_cannot_boot_an_image() -> None:
    for name, info in recorded_types().items():
        can_boot = (
            not info["BareMetal"]
            and not name.startswith("hpc")
            and {"x86_64", "arm64"} & set(info["ProcessorInfo"]["SupportedArchitectures"])
        )
        assert bool(unbootable_reason(info)) != bool(can_boot), name


@given(
    name=st.sampled_from(["m6g.large", "m5.large", "c7gn.xlarge", "t3a.small", "g5g.xlarge"]),
    architectures=st.lists(
        st.sampled_from(["x86_64", "arm64", "i386", "arm64_mac", "x86_64_mac"]), unique=True
    ),
    roots=st.lists(st.sampled_from(["ebs", "instance-store"]), unique=True),
    virtualization=st.lists(st.sampled_from(["hvm", "paravirtual"]), unique=True),
    classes=st.lists(st.sampled_from(["on-demand", "spot", "capacity-block"]), unique=True),
    is_bare_metal=st.booleans(),
)
def test_a_type_is_offered_only_where_its_image_can_boot(
    name: str,
    architectures: list[str],
    roots: list[str],
    virtualization: list[str],
    classes: list[str],
    is_bare_metal: bool,
) -> None:
    info = {
        "InstanceType": name,
        "BareMetal": is_bare_metal,
        "ProcessorInfo": {"SupportedArchitectures": architectures},
        "SupportedRootDeviceTypes": roots,
        "SupportedVirtualizationTypes": virtualization,
        "SupportedUsageClasses": classes,
    }
    if not unbootable_reason(info):
        assert architecture_of(name) in architectures  # whose image the launch template names
        assert "ebs" in roots
        assert "hvm" in virtualization
        assert set(sold_capacities(info)) == set(classes) & {"on-demand", "spot"} != set()
        assert not is_bare_metal


@pytest.mark.parametrize(
    ("constraints", "implied"),
    [
        ([], [("requires_pin", "UNLIKE", ".*")]),
        ([["zone", "GROUP_BY"]], [("requires_pin", "UNLIKE", ".*")]),
        ([["hostname", "UNIQUE"]], [("requires_pin", "UNLIKE", ".*")]),
        ([["arch", "UNLIKE", "arm64"]], [("requires_pin", "UNLIKE", ".*")]),
        ([["pool", "CLUSTER"]], [("requires_pin", "UNLIKE", ".*")]),
        ([["pool", "CLUSTER", "arm"]], [("requires_pin", "UNLIKE", "arch")]),
        ([["arch", "CLUSTER", "arm64"]], []),
        ([["arch", "LIKE", "arm.*"]], []),
        ([["arch", "GROUP_BY"]], []),
        ([["instance_type", "LIKE", "m7g.*"]], []),
        ([["hostname", "IS", "10.0.0.9"]], []),
    ],
)
def test_a_task_without_a_pin_is_kept_off_agents_that_require_one(
    constraints: list[list[str]], implied: list[tuple[str, str, str]]
) -> None:
    assert list(implied_constraints(constraints)) == implied


def test_the_label_pins_like_a_constraint() -> None:
    assert implied_constraints([], {"mesaform/arch": "arm64"}) == (("arch", "IS", "arm64"),)


def test_agents_require_a_pin_where_their_architecture_is_not_that_of_other_tasks() -> None:
    mixed, graviton = ["m5.large", "m6g.large"], ["m6g.large"]
    assert pin_needed("x86_64", "x86_64", mixed) == ""
    assert pin_needed("arm64", "x86_64", mixed) == "arch"
    assert pin_needed("arm64", "x86_64", graviton) == "pool"
    assert pin_needed("arm64", "arm64", graviton) == ""
    assert pin_needed("arm64", "any", mixed) == ""
    assert architectures_of(reversed(mixed)) == ("x86_64", "arm64")
