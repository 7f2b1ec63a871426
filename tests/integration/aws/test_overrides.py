"""Operators' orders, on the fake and in S3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mesaform.aws.control import S3Control
from mesaform.aws.overrides import Override, describe, in_force
from mesaform.aws.ports import Control
from mesaform.testing.fake_cloud import FakeControl
from tests.integration.aws.conftest import REGION

NOW = 1_800_000_000.0


def an_order(name: str = "1", kind: str = "pause", **fields) -> Override:
    return Override(
        **{"id": name, "kind": kind, "by": "anna@desk", "at": NOW, "until": NOW + 1800, **fields}
    )


@pytest.fixture(params=["fake", "s3"])
def control(request: pytest.FixtureRequest) -> Control:
    return (
        FakeControl()
        if request.param == "fake"
        else S3Control(request.getfixturevalue("bucket"), "toy", REGION)
    )


def test_orders_are_read_as_they_were_given(control: Control):
    assert control.overrides() == ()
    hint = an_order("2", "hint", cpus=2.0, mem_mib=4096.0, count=10, pool="default", reason="sale")
    control.update_overrides(lambda orders: (*orders, an_order(), hint))
    assert control.overrides() == (an_order(), hint)
    control.update_overrides(
        lambda orders: tuple(order for order in orders if order.kind != "pause")
    )
    assert control.overrides() == (hint,)


@pytest.mark.slow
def test_of_orders_given_at_the_same_moment_none_is_lost(bucket: str):
    controls = [S3Control(bucket, "toy", REGION) for _ in range(4)]
    with ThreadPoolExecutor(4) as people:
        list(
            people.map(
                lambda item: item[1].update_overrides(
                    lambda orders: (*orders, an_order(str(item[0])))
                ),
                enumerate(controls),
            )
        )
    assert {order.id for order in controls[0].overrides()} == {"0", "1", "2", "3"}


def test_an_order_ends_by_itself():
    assert in_force([an_order()], NOW + 1799) == (an_order(),)
    assert in_force([an_order()], NOW + 1800) == ()


def test_an_order_says_who_gave_it_until_when_and_why():
    said = describe(an_order(reason="deploying"))
    for word in ("paused", "anna@desk", "until", "deploying"):
        assert word in said
    row = replace(an_order(), kind="bound", pool="default", bound="min", count=4).record(NOW, "x")
    assert (row["kind"], row["order"], row["by"], row["count"]) == (
        "order",
        "bound",
        "anna@desk",
        4,
    )
