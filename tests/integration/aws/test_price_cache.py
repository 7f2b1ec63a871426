"""Every price cache returns what was written last."""

from __future__ import annotations

import msgspec
import pytest

from mesaform.aws.ports import PriceCache
from mesaform.aws.pricing.market import CachedPrices
from mesaform.aws.pricing.price_cache import MemoryPriceCache, S3PriceCache

from .conftest import REGION


@pytest.fixture(params=["memory", "s3"])
def cache(request: pytest.FixtureRequest) -> PriceCache:
    if request.param == "memory":
        return MemoryPriceCache()
    return S3PriceCache(request.getfixturevalue("bucket"), "toy", REGION)


@pytest.mark.slow
def test_a_cache_returns_what_was_written_last(cache: PriceCache) -> None:
    assert cache.read() is None
    for usd in (0.1, 0.2):
        cache.write(msgspec.json.encode(CachedPrices(REGION, {"m5.large": usd}, {"m5.large": 1.0})))
    content = cache.read()
    assert content is not None
    assert msgspec.json.decode(content, type=CachedPrices).usd_per_hour == {"m5.large": 0.2}
