"""Every example is a valid cluster file, also as the local cluster that `make examples` raises."""

from __future__ import annotations

from typing import Any

import pytest

from mesaform.config.parser import parse
from tests.examples.account import differences
from tests.examples.local_files import NETS, local_cidr, local_text
from tests.support.synthesis import EXAMPLES, example_files

NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


def test_every_example_is_raised_but_for_that_of_pulumi():
    assert set(NAMES) == set(example_files())
    assert set(NAMES) - set(NETS) == {"pulumi"}
    assert len(set(NETS.values())) == len(NETS)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_and_says_what_it_is_for(name):
    spec = parse(example_files()[name])
    assert spec.target == "aws"
    readme = (EXAMPLES / name / "README.md").read_text()
    assert readme.startswith(f"# {name}\n")
    assert f"[{name}]({name})" in (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize("name", NETS)
def test_the_local_cluster_differs_from_its_example_in_addresses_only(name):
    text = example_files()[name]
    ours, local = parse(text), parse(local_text(name, text))
    assert (local.target, local.masters, local.agents) == ("local", ours.masters, ours.agents)
    assert (local.ttl, local.zones, local.account) == (ours.ttl, ours.zones, ours.account)
    real: Any = {
        "cidr": True,
        "operator_cidrs": True,
        "load_balancer": {"certificate_arn", "host_name"},
    }
    if ours.network.load_balancer is None:
        del real["load_balancer"]
    assert local.network.model_dump(exclude=real) == ours.network.model_dump(exclude=real)
    if ours.network.mode != "existing":
        assert local.network.cidr == local_cidr(name)


def test_what_came_and_what_went_is_listed():
    before = {"Vpcs": frozenset({"a", "b"}), "Volumes": frozenset[str]()}
    after = {"Vpcs": frozenset({"a"}), "Volumes": frozenset({"v"})}
    assert differences(before, after) == ["Vpcs: b is gone", "Volumes: v is left"]
    assert differences(before, before) == []
