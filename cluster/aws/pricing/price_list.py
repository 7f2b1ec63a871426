"""On-demand prices from the AWS Price List API (`pricing:GetProducts`). See `PriceList`.

Source of the document format: "Using the AWS Price List Query API" and the reference of
`GetProducts`. Each entry of `PriceList` is a JSON text with `product.attributes` and
`terms.OnDemand.<term>.priceDimensions.<rate>.pricePerUnit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mesaform.aws import client
from mesaform.aws.errors import translate_errors

FILTERS: Mapping[str, str] = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
"""Attributes of the product as which AWS bills a plain Linux machine."""

HOURLY = "Hrs"


class _PriceDimension(msgspec.Struct):
    unit: str = ""
    pricePerUnit: dict[str, str] = {}  # noqa: N815 - the field's name in the document


class _Term(msgspec.Struct):
    priceDimensions: dict[str, _PriceDimension] = {}  # noqa: N815 - the field's name


class _Terms(msgspec.Struct):
    OnDemand: dict[str, _Term] = {}


class _Product(msgspec.Struct):
    attributes: dict[str, str] = {}


class _Document(msgspec.Struct):
    product: _Product = msgspec.field(default_factory=_Product)
    terms: _Terms = msgspec.field(default_factory=_Terms)


class AwsPriceList:
    """See `PriceList`. One filtered call per type: a region's whole list has tens of megabytes."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._pricing = client.client("pricing", endpoint_region(region))

    def usd_per_hour(self, types: Sequence[str]) -> dict[str, float]:
        prices: dict[str, float] = {}
        for name in types:
            wanted = {**FILTERS, "regionCode": self._region, "instanceType": name}
            filters = [
                {"Type": "TERM_MATCH", "Field": key, "Value": value}
                for key, value in wanted.items()
            ]
            with translate_errors("pricing GetProducts"):
                pages = self._pricing.get_paginator("get_products").paginate(
                    ServiceCode="AmazonEC2", Filters=filters
                )
                prices.update(
                    prices_in(document for page in pages for document in page["PriceList"])
                )
        return {name: prices[name] for name in types if name in prices}


def endpoint_region(region: str) -> str:
    """Return the nearest of the three regions in which the Price List API has an endpoint."""
    if region.startswith("ap-"):
        return "ap-south-1"
    return "eu-central-1" if region.startswith(("eu-", "me-", "af-", "il-")) else "us-east-1"


def prices_in(documents: Iterable[str]) -> dict[str, float]:
    """Return the prices by type in USD per hour.

    Documents of other products than `FILTERS` describe, free ones and those that have no price in
    dollars are ignored. Of several prices of a type the lowest counts.
    """
    prices: dict[str, float] = {}
    for text in documents:
        document = msgspec.json.decode(text, type=_Document)
        name = _instance_type(document.product.attributes)
        rates = [usd for usd in _hourly_rates(document) if usd > 0]
        if name and rates:
            prices[name] = min(prices.get(name, rates[0]), *rates)
    return prices


def _instance_type(attributes: Mapping[str, str]) -> str:
    """The type if the product is one of `FILTERS`, else an empty text."""
    matches = all(attributes.get(key, value) == value for key, value in FILTERS.items())
    return attributes.get("instanceType", "") if matches else ""


def _hourly_rates(document: _Document) -> Iterable[float]:
    for term in document.terms.OnDemand.values():
        for rate in term.priceDimensions.values():
            if rate.unit == HOURLY and "USD" in rate.pricePerUnit:
                yield float(rate.pricePerUnit["USD"])
