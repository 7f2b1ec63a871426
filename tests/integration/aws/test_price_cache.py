"""Every price cache returns what was written last."""

from __future__ import annotations

import msgspec
import pytest

from mesaform.aws.pricing.market import Cache, Kept, MemoryCache, S3Cache

from .conftest import REGION


@pytest.fixture(params=["memory", "s3"])
def cache(request: pytest.FixtureRequest) -> Cache:
    if request.param == "memory":
        return MemoryCache()
    return S3Cache(request.getfixturevalue("bucket"), "toy", REGION)


@pytest.mark.slow
def test_a_cache_returns_what_was_written_last(cache: Cache) -> None:
    assert cache.read() is None
    for usd in (0.1, 0.2):
        cache.write(msgspec.json.encode(Kept(REGION, {"m5.large": usd}, {"m5.large": 1.0})))
    content = cache.read()
    assert content is not None
    assert msgspec.json.decode(content, type=Kept).usd_per_hour == {"m5.large": 0.2}
