"""On-demand prices from the AWS Price List API (`pricing:GetProducts`), behind a port, with its fake.

The shape of the documents is that of AWS' guide "Using the AWS Price List Query API" and of the GetProducts reference: each entry of
`PriceList` is a JSON text with `product.attributes` and `terms.OnDemand.<term>.priceDimensions.<rate>.pricePerUnit`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.common.errors import CloudError

FILTERS: Mapping[str, str] = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
"""Attributes of the one product of a type that a plain Linux machine is billed as."""

HOURLY = "Hrs"


class PriceList(Protocol):
    """What AWS asks for types of one region."""

    def usd_per_hour(self, types: Sequence[str]) -> dict[str, float]:
        """On-demand Linux prices in USD an hour. A type that is not sold there, or not in dollars, is absent.

        Raises:
            Retryable: throttled, a server's fault or no answer.
            Permanent: no rights, or the service is not there.

        """
        ...


class AwsPriceList:
    """See `PriceList`: one filtered call a type, since a region's whole list is tens of megabytes."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._pricing = client.client("pricing", endpoint_region(region))

    def usd_per_hour(self, types: Sequence[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in types:
            asked = {**FILTERS, "regionCode": self._region, "instanceType": name}
            filters = [
                {"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in asked.items()
            ]
            with translate_errors("pricing GetProducts"):
                pages = self._pricing.get_paginator("get_products").paginate(
                    ServiceCode="AmazonEC2", Filters=filters
                )
                found.update(
                    prices_in(document for page in pages for document in page["PriceList"])
                )
        return {name: found[name] for name in types if name in found}


class FakePriceList:
    """See `PriceList`: sells what `prices` names. `fail_next` is raised by the next call, once; `asked` are all calls."""

    def __init__(self, prices: Mapping[str, float]) -> None:
        self.prices = dict(prices)
        self.fail_next: CloudError | None = None
        self.asked: list[tuple[str, ...]] = []

    def usd_per_hour(self, types: Sequence[str]) -> dict[str, float]:
        self.asked.append(tuple(types))
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        return {name: self.prices[name] for name in types if name in self.prices}


def endpoint_region(region: str) -> str:
    """The API answers in three places for all regions: the nearest."""
    if region.startswith("ap-"):
        return "ap-south-1"
    return "eu-central-1" if region.startswith(("eu-", "me-", "af-", "il-")) else "us-east-1"


def prices_in(documents: Iterable[str]) -> dict[str, float]:
    """Prices by type; documents about anything else than `FILTERS` say are passed over, and so is what is free or not in dollars."""
    found: dict[str, float] = {}
    for text in documents:
        document = json.loads(text)
        attributes = document.get("product", {}).get("attributes", {})
        if (
            any(attributes.get(key, value) != value for key, value in FILTERS.items())
            or "instanceType" not in attributes
        ):
            continue
        if rates := [usd for usd in _hourly(document) if usd > 0]:
            name = attributes["instanceType"]
            found[name] = min(found.get(name, rates[0]), *rates)
    return found


def _hourly(document: Mapping[str, Any]) -> Iterable[float]:
    for term in document.get("terms", {}).get("OnDemand", {}).values():
        for rate in term.get("priceDimensions", {}).values():
            if rate.get("unit") == HOURLY and "USD" in rate.get("pricePerUnit", {}):
                yield float(rate["pricePerUnit"]["USD"])
