"""The price book against prices that AWS published (us-east-1, Linux, on demand)."""

from __future__ import annotations

import pytest

from mesaform.aws.pricing import price_book

PUBLISHED = {
    "t3.micro": 0.0104, "t3.medium": 0.0416, "t3a.large": 0.0752, "t4g.small": 0.0168,
    "t2.small": 0.023, "m4.large": 0.1, "m5.large": 0.096, "m5.xlarge": 0.192,
    "m5.2xlarge": 0.384, "m5.metal": 4.608, "m5a.large": 0.086, "m6i.large": 0.096,
    "m6g.medium": 0.0385, "m6a.48xlarge": 8.2944, "m7i.large": 0.1008, "m7g.xlarge": 0.1632,
    "m7a.medium": 0.05796, "m8g.4xlarge": 0.71808, "c5.large": 0.085, "c5.18xlarge": 3.06,
    "c6i.32xlarge": 5.44, "c6g.large": 0.068, "c7i.metal-24xl": 4.7124, "c7g.2xlarge": 0.29,
    "c8g.large": 0.07976, "r5.large": 0.126, "r6i.4xlarge": 1.008, "r7g.large": 0.1071,
    "r7iz.metal-16xl": 6.5472, "x2idn.16xlarge": 6.669, "i3.large": 0.156, "i4i.large": 0.172,
    "i3en.xlarge": 0.452, "g4dn.xlarge": 0.526, "g4dn.12xlarge": 3.912, "g5.xlarge": 1.006,
    "g5.48xlarge": 16.288, "g6.2xlarge": 0.9776, "p3.2xlarge": 3.06, "p4d.24xlarge": 21.9576,
    "inf2.xlarge": 0.7582, "d3.xlarge": 0.499, "z1d.large": 0.186,
}  # fmt: skip


@pytest.mark.parametrize(("name", "usd"), PUBLISHED.items())
def test_the_book_is_within_one_percent_of_what_aws_publishes(name: str, usd: float):
    assert price_book.usd_per_hour(name) == pytest.approx(usd, rel=0.01)


@pytest.mark.parametrize("name", ["nosuch.large", "m5", "m5.", "m5.metal-7xl", ""])
def test_a_type_the_book_does_not_know_has_no_price(name: str):
    assert price_book.usd_per_hour(name) is None


def test_spot_is_estimated_as_a_share_of_on_demand():
    assert price_book.usd_per_hour("m5.large", "spot") == pytest.approx(
        0.096 * price_book.SPOT_SHARE_ESTIMATE
    )


@pytest.mark.parametrize(
    ("quoted", "expected"), [(0.031, 0.031), (0.00001, 0.0384), (9.0, 0.0384), (None, 0.0384)]
)
def test_a_spot_price_that_cannot_be_true_is_replaced_by_the_estimate(
    quoted: float | None, expected: float
):
    assert price_book.spot_price(0.096, quoted) == pytest.approx(expected)


def test_an_unknown_type_of_a_common_shape_is_estimated_within_a_sixth():
    for name, vcpus, mem_gib in (
        ("m5.2xlarge", 8, 32),
        ("c5.xlarge", 4, 8),
        ("r5.4xlarge", 16, 128),
        ("m6i.large", 2, 8),
    ):
        assert price_book.estimate(vcpus, mem_gib * 1024) == pytest.approx(
            PUBLISHED.get(name) or price_book.usd_per_hour(name), rel=1 / 6
        )


def test_a_misspelt_type_has_a_nearest():
    assert price_book.nearest_type("m5.lrage") == "m5.large"
