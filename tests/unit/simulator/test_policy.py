"""Policies: what a person writes, refused with its line when it makes no sense."""

from __future__ import annotations

import pytest

from mesaform.aws.pricing import price_book
from mesaform.common.errors import BadInput
from mesaform.simulator.market import TYPES, Market, Settings, offerings, size_of
from mesaform.simulator.policy import load, parse


def test_an_empty_policy_has_every_default_and_the_files_name(tmp_path):
    (tmp_path / "plain.yaml").write_text("", encoding="utf-8")
    policy = load(tmp_path / "plain.yaml")
    assert policy.name == "plain"
    assert policy.spec.agents[0].count == 0
    assert policy.spec.autoscaler.idle_after_s == 300


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("agents:\n  - max: 2\n    min: 5\n", "policy.yaml:2: agents[0].max: 2 is below min (5)"),
        (
            "autoscaler:\n  idle_after: 5\n",
            "policy.yaml:2: autoscaler.idle_after: unknown field; nearest: idle_after_s",
        ),
        (
            "cost:\n  max_usd_per_hour: -1\n",
            "policy.yaml:2: cost.max_usd_per_hour: must be more than 0",
        ),
        ("agents: []\n", "policy.yaml:1: agents: needs at least 1"),
        ("- a\n", "policy.yaml:1: must be a mapping"),
        ("agents: [\n", "not YAML"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_its_line(text, complaint):
    with pytest.raises(BadInput) as refused:
        parse(text)
    assert complaint in str(refused.value)


def test_a_policy_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("m5.large", (2, 8192)),
        ("c5.9xlarge", (36, 73728)),
        ("r5.12xlarge", (48, 393216)),
        ("t3.medium", (2, 4096)),
        ("t3.2xlarge", (8, 32768)),
        ("m7i.4xlarge", (16, 65536)),
        ("m5.metal", None),
        ("p3.2xlarge", None),
        ("nonsense", None),
    ],
)
def test_sizes_follow_the_rules_of_their_families(name, size):
    assert size_of(name) == size


def test_everything_that_is_for_sale_by_default_has_a_price_and_a_size():
    for name in TYPES:
        assert size_of(name)
        assert price_book.usd_per_hour(name)


def test_a_type_that_the_simulator_does_not_know_is_named():
    with pytest.raises(BadInput, match=r"p3\.2xlarge"):
        offerings(["p3.2xlarge"], ["us-east-1a"])


def test_chance_is_a_matter_of_the_seed_alone():
    item, same, other = (
        Market(Settings(seed=seed, never_boots=0.5, short_share=0.5)) for seed in (3, 3, 4)
    )
    offering = offerings(["m5.large"], ["us-east-1a"])[1]

    def fate(market: Market) -> list[tuple[float, float, bool]]:
        return [
            (
                market.boot_s(n),
                market.reclaimed_after_s(n, "spot"),
                market.has(offering, n * 1800.0),
            )
            for n in range(50)
        ]

    assert fate(item) == fate(same) != fate(other)
    assert {has for _, _, has in fate(item)} == {True, False}
    assert item.reclaimed_after_s(1, "on-demand") == float("inf")
