"""Overrides of operators, in the fake and in S3."""

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


def an_override(name: str = "1", kind: str = "pause", **fields) -> Override:
    return Override(
        **{"id": name, "kind": kind, "by": "anna@host", "at": NOW, "until": NOW + 1800, **fields}
    )


@pytest.fixture(params=["fake", "s3"])
def control(request: pytest.FixtureRequest) -> Control:
    return (
        FakeControl()
        if request.param == "fake"
        else S3Control(request.getfixturevalue("bucket"), "toy", REGION)
    )


def test_overrides_are_read_as_they_were_written(control: Control):
    assert control.overrides() == ()
    hint = an_override(
        "2", "hint", cpus=2.0, mem_mib=4096.0, count=10, pool="default", reason="sale"
    )
    control.update_overrides(lambda overrides: (*overrides, an_override(), hint))
    assert control.overrides() == (an_override(), hint)
    control.update_overrides(
        lambda overrides: tuple(item for item in overrides if item.kind != "pause")
    )
    assert control.overrides() == (hint,)


@pytest.mark.slow
def test_no_concurrent_override_is_lost(bucket: str):
    controls = [S3Control(bucket, "toy", REGION) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda item: item[1].update_overrides(
                    lambda overrides: (*overrides, an_override(str(item[0])))
                ),
                enumerate(controls),
            )
        )
    assert {item.id for item in controls[0].overrides()} == {"0", "1", "2", "3"}


def test_an_override_expires():
    assert in_force([an_override()], NOW + 1799) == (an_override(),)
    assert in_force([an_override()], NOW + 1800) == ()


def test_an_override_is_described_with_author_end_and_reason():
    text = describe(an_override(reason="deploying"))
    for part in ("paused", "anna@host", "until", "deploying"):
        assert part in text
    row = replace(an_override(), kind="bound", pool="default", bound="min", count=4).record(NOW)
    assert (row["kind"], row["override"], row["by"], row["count"]) == (
        "override",
        "bound",
        "anna@host",
        4,
    )
