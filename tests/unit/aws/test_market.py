"""Prices are read outside of passes and cached; the book and estimates fill gaps."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest

from harness.autoscaler_builders import NOW, ZONES
from mesaform.aws.ports import Quote
from mesaform.aws.pricing import price_book, spot
from mesaform.aws.pricing.market import (
    LIST_PRICE_MAX_AGE_S,
    RETRY,
    SPOT_REFRESH_S,
    TYPES_PER_REFRESH,
    Market,
)
from mesaform.aws.pricing.price_cache import MemoryPriceCache
from mesaform.common.errors import Permanent, Retryable
from mesaform.testing.fake_prices import FakePriceList, FakeSpotFeed

M5 = "m5.large"
REGION = "us-east-1"


class Setting:
    """A market with fake sources and a clock that the test sets."""

    def __init__(
        self,
        listed: dict[str, float] | None = None,
        quotes: Sequence[Quote] = (),
        region: str = REGION,
    ) -> None:
        self.now = NOW
        self.list = FakePriceList(listed if listed is not None else {M5: 0.1})
        self.feed = FakeSpotFeed(quotes)
        self.cache = MemoryPriceCache()
        self.region = region
        self.market = self.another()

    def another(self) -> Market:
        """The market of another process with the same cache."""
        return Market(self.region, self.list, self.feed, self.cache, lambda: self.now)

    def refresh(self, *types: str, after_s: float = 0.0) -> None:
        self.now += after_s
        self.market.refresh(types or (M5,))


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_before_the_first_refresh_the_book_answers(setting: Setting) -> None:
    assert setting.market.on_demand(M5) == 0.096
    assert setting.market.spot(M5, ZONES[0]) is None
    assert setting.list.calls == []


def test_a_listed_price_precedes_the_books(setting: Setting) -> None:
    setting.refresh(M5, "c5.large")
    assert setting.market.on_demand(M5) == 0.1
    assert setting.market.on_demand("c5.large") == 0.085
    assert setting.market.on_demand("x9.large") is None


def test_list_prices_are_read_again_after_half_a_day(setting: Setting) -> None:
    setting.refresh()
    setting.refresh(after_s=LIST_PRICE_MAX_AGE_S - 1)
    assert setting.list.calls == [(M5,)]
    setting.list.prices[M5] = 0.11
    setting.refresh(after_s=1)
    assert len(setting.list.calls) == 2
    assert setting.market.on_demand(M5) == 0.11


def test_only_what_is_not_known_is_asked_for(setting: Setting) -> None:
    setting.refresh(M5)
    setting.refresh(M5, "c5.large")
    setting.refresh(M5, "c5.large")
    assert setting.list.calls == [(M5,), ("c5.large",)]


def test_a_long_list_comes_in_parts_and_a_failure_loses_one_of_them() -> None:
    names = [f"m5.{n}xlarge" for n in range(1, 61)]
    setting = Setting(dict.fromkeys(names, 7.0))
    setting.refresh(*names)
    setting.list.fail_next = Retryable("ThrottlingException", after_s=1)
    setting.refresh(*names, after_s=10)
    assert [setting.market.on_demand(name) == 7.0 for name in names] == [
        True
    ] * TYPES_PER_REFRESH + [False] * 35
    for _ in range(3):
        setting.refresh(*names, after_s=RETRY.first_s)
    assert {setting.market.on_demand(name) for name in names} == {7.0}
    assert [len(asked) for asked in setting.list.calls] == [25, 25, 25, 10]


def test_while_aws_does_not_answer_the_last_prices_stay_and_it_is_asked_ever_more_rarely(
    setting: Setting,
) -> None:
    setting.refresh()
    setting.now += LIST_PRICE_MAX_AGE_S
    asked = []
    for _ in range(1000):
        setting.list.fail_next = Retryable("down", after_s=1)
        before = len(setting.list.calls)
        setting.refresh(after_s=10)
        asked += [setting.now] * (len(setting.list.calls) - before)
    assert setting.market.on_demand(M5) == 0.1
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps == [RETRY.first_s, 2 * RETRY.first_s, 4 * RETRY.first_s, 8 * RETRY.first_s, 3600]
    setting.list.fail_next = None
    setting.list.prices[M5] = 0.12
    setting.refresh(after_s=3600)
    assert setting.market.on_demand(M5) == 0.12


def test_without_the_right_to_ask_the_book_answers(setting: Setting) -> None:
    setting.list.fail_next = Permanent("AccessDenied")
    setting.refresh()
    assert setting.market.on_demand(M5) == 0.096


def test_the_next_leader_asks_nobody_while_what_was_kept_is_young(setting: Setting) -> None:
    setting.refresh()
    setting.list.calls.clear()
    setting.now += LIST_PRICE_MAX_AGE_S / 2
    other = setting.another()
    other.refresh([M5])
    assert other.on_demand(M5) == 0.1
    assert setting.list.calls == []


def test_what_was_kept_is_used_even_when_it_is_old_and_aws_is_gone(setting: Setting) -> None:
    setting.refresh()
    setting.now += 40 * LIST_PRICE_MAX_AGE_S
    other = setting.another()
    setting.list.fail_next = Retryable("down", after_s=1)
    other.refresh([M5])
    assert other.on_demand(M5) == 0.1


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"region":"eu-west-1","usd_per_hour":{"m5.large":9}}', b'{"region":1}']
)
def test_a_kept_list_that_is_broken_or_of_another_region_is_not_used(
    setting: Setting, data: bytes
) -> None:
    setting.cache.write(data)
    setting.list.fail_next = Retryable("down", after_s=1)
    setting.refresh()
    assert setting.market.on_demand(M5) == 0.096


def test_who_may_not_ask_reads_what_others_kept(setting: Setting) -> None:
    setting.refresh()
    reader = Market(REGION, None, None, setting.cache, lambda: setting.now)
    reader.refresh([M5])
    assert reader.on_demand(M5) == 0.1


def test_reading_a_price_never_waits_for_one_that_is_being_asked_for() -> None:
    asked, answer = threading.Event(), threading.Event()

    class Slow(FakePriceList):
        def usd_per_hour(self, types: Sequence[str]) -> dict[str, float]:
            asked.set()
            assert answer.wait(60)
            return super().usd_per_hour(types)

    market = Market(REGION, Slow({M5: 0.1}), None, MemoryPriceCache(), time.time)
    refreshing = threading.Thread(target=market.refresh, args=([M5],))
    refreshing.start()
    assert asked.wait(60)
    assert market.on_demand(M5) == 0.096
    market.refresh([M5])  # returns at once: somebody else is asking
    answer.set()
    refreshing.join(60)
    assert market.on_demand(M5) == 0.1


def test_spot_prices_are_asked_for_on_a_period_and_at_once_for_new_types() -> None:
    setting = Setting(quotes=[Quote(NOW - 60, M5, ZONES[0], 0.04)])
    setting.refresh()
    for _ in range(29):
        setting.refresh(after_s=10)
    assert len(setting.feed.calls) == 1
    setting.refresh(after_s=10)
    assert len(setting.feed.calls) == 2
    setting.refresh(M5, "c5.large")
    assert len(setting.feed.calls) == 3
    assert SPOT_REFRESH_S == 300


def test_a_spike_counts_at_once_and_is_felt_for_an_hour() -> None:
    history = [
        Quote(NOW - 9000, M5, ZONES[0], 0.03),
        Quote(NOW, M5, ZONES[0], 0.09),
        Quote(NOW + 600, M5, ZONES[0], 0.03),
    ]
    assert spot.smoothed_price(history[:1], NOW - 1) == pytest.approx(0.03)
    assert spot.smoothed_price(history[:2], NOW + 1) == 0.09
    assert spot.smoothed_price(history, NOW + 601) == pytest.approx(0.04, rel=0.01)
    assert spot.smoothed_price(history, NOW + 3600) == pytest.approx(0.04, rel=0.01)
    assert spot.smoothed_price(history, NOW + 3900) == pytest.approx(0.035, rel=0.01)
    assert spot.smoothed_price(history, NOW + 4200) == pytest.approx(0.03)


def test_histories_hold_no_more_than_the_window() -> None:
    quotes = [Quote(NOW + 60.0 * n, M5, ZONES[0], 0.03) for n in range(300)]
    histories = spot.merge_quotes({}, quotes, NOW + 60 * 299)
    history = histories[M5, ZONES[0]]
    assert len(history) == 61
    assert history[0].at <= NOW + 60 * 299 - spot.WINDOW_S
    assert spot.merge_quotes(histories, [], NOW + 90_000)[M5, ZONES[0]] == history[-1:]


def test_prices_stay_between_the_least_and_the_most_quoted() -> None:
    history = [
        Quote(NOW + 300.0 * n, M5, ZONES[0], usd)
        for n, usd in enumerate((0.03, 0.05, 0.02, 0.09, 0.04))
    ]
    for seconds in range(0, 9000, 30):
        seen = [quote for quote in history if quote.at <= NOW + seconds]
        price = spot.smoothed_price(
            spot.trim_history(seen, NOW + seconds - spot.WINDOW_S), NOW + seconds
        )
        assert seen[-1].usd_per_hour <= price <= 0.09


def test_estimated_prices_of_another_region_carry_a_note_until_aws_answers() -> None:
    setting = Setting({M5: 0.115}, region="eu-central-1")
    assert "us-east-1" in setting.market.note([M5])
    assert "m5.large" in setting.market.note([M5])
    setting.refresh()
    assert setting.market.note([M5]) == ""
    assert price_book.note("us-east-1", [M5]) == ""
