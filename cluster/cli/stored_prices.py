"""The list prices that a verb last read, in `.mesaform/`, for verbs that call no cloud.

Depends on the document of the price cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesaform.aws.pricing.market import CachedPrices
    from mesaform.aws.pricing.prices import Prices


def prices_path(state_dir: Path, region: str) -> Path:
    """The file of a region's prices."""
    return state_dir / f"prices-{region}.json"


def stored_prices(state_dir: Path, region: str) -> Prices:
    """The prices of a region that were read last; those of the price book where there are none."""
    import msgspec

    from mesaform.aws.pricing.market import decode_prices
    from mesaform.aws.pricing.prices import Prices

    try:
        data = prices_path(state_dir, region).read_bytes()
        return decode_prices(data, region).as_prices()
    except (OSError, msgspec.DecodeError):
        return Prices(region)


def store_prices(state_dir: Path, prices: CachedPrices) -> None:
    """Keep prices for later. A full or read-only disk loses nothing but their accuracy."""
    import contextlib

    import msgspec

    from mesaform.common.files import write_atomically

    if not prices.usd_per_hour and prices.rates is None:
        return
    with contextlib.suppress(OSError):
        state_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(prices_path(state_dir, prices.region), msgspec.json.encode(prices))
