"""Zones come from the account at the first `up`, and stay as they were chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.errors import MissingPrerequisite
from mesaform.config.parser import parse
from mesaform.provision.deployment import Caller, establish_deployment, read_deployment
from mesaform.provision.zones import choose_zones, settle, with_recorded_zones

TOKYO = ["ap-northeast-1a", "ap-northeast-1c", "ap-northeast-1d"]
CALLER = Caller("111122223333", "arn:aws:iam::111122223333:user/o", 1_800_000_000.0)


def test_the_zones_of_the_account_are_chosen_where_it_has_no_b() -> None:
    assert choose_zones("ap-northeast-1", TOKYO, {"t3.medium": TOKYO}) == tuple(TOKYO)


def test_a_zone_that_does_not_sell_the_first_machines_is_left_out() -> None:
    zones = [f"us-east-1{letter}" for letter in "abcdef"]
    sold = {"t3.medium": zones[1:], "m5.large": [zones[0], *zones[2:]]}
    assert choose_zones("us-east-1", zones, sold) == ("us-east-1c", "us-east-1d", "us-east-1e")


def test_too_few_zones_are_refused_with_what_each_type_lacks() -> None:
    with pytest.raises(MissingPrerequisite, match=r"m7g\.large is sold in no zone"):
        choose_zones("ap-northeast-1", TOKYO, {"t3.medium": TOKYO, "m7g.large": []})


@given(
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.dictionaries(st.sampled_from(["m5.large", "t3.medium"]), st.sets(st.sampled_from("abcdef"))),
)
def test_only_zones_of_the_account_that_sell_every_type_are_chosen(
    letters: list[str], sold: dict[str, set[str]]
) -> None:
    available = [f"us-east-1{letter}" for letter in letters]
    places = {name: {f"us-east-1{letter}" for letter in own} for name, own in sold.items()}
    try:
        chosen = choose_zones("us-east-1", available, places)
    except MissingPrerequisite:
        return
    assert set(chosen) <= set(available).intersection(*places.values())
    assert list(chosen) == sorted(set(chosen))


def test_the_choice_is_recorded_and_never_moves(tmp_path: Path) -> None:
    spec = parse("name: a\nregion: ap-northeast-1\n")
    established = establish_deployment(tmp_path, CALLER, spec.region, zones=TOKYO)
    assert settle(spec, tmp_path).zones == tuple(TOKYO)
    assert read_deployment(tmp_path) == established
    assert establish_deployment(tmp_path, CALLER, spec.region) == established
    named = parse("name: a\nnetwork: {zones: [us-east-1d, us-east-1e, us-east-1f]}\n")
    assert with_recorded_zones(named, established).zones[0] == "us-east-1d", "the file wins"


def test_a_deployment_from_before_zones_were_recorded_keeps_its_zones(tmp_path: Path) -> None:
    spec = parse("name: a\n")
    establish_deployment(tmp_path, CALLER, spec.region)
    assert settle(spec, tmp_path).zones == ("us-east-1a", "us-east-1b", "us-east-1c")
