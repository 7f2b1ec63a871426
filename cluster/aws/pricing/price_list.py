"""On-demand prices from the AWS Price List API (`pricing:GetProducts`). See `PriceList`.

Disks, addresses, requests, traffic and gateways are asked for by `RATE_QUERIES`, a call each.

Source of the document format: "Using the AWS Price List Query API" and the reference of
`GetProducts`. Each entry of `PriceList` is a JSON text with `product.attributes` and
`terms.OnDemand.<term>.priceDimensions.<rate>.pricePerUnit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.aws.pricing.rates import BOOK, VOLUME_TYPE, Rates

FILTERS: Mapping[str, str] = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
"""Attributes of the product as which AWS bills a plain Linux machine."""

HOURLY = "Hrs"


@dataclass(frozen=True, slots=True)
class RateQuery:
    """Where the list has a price: service, attributes, and how its `usagetype` ends.

    The start of a `usagetype` names the region in a way of its own, such as `EUC1-`. `region_field`
    is the attribute that names the region.
    """

    name: str
    service: str
    attributes: Mapping[str, str]
    unit: str
    usage: str = ""
    region_field: str = "regionCode"

    def filters(self, region: str) -> dict[str, str]:
        """The filters of the query."""
        return {self.region_field: region, **self.attributes}


RATE_QUERIES: tuple[RateQuery, ...] = (
    RateQuery(
        f"volume.{VOLUME_TYPE}",
        "AmazonEC2",
        {"productFamily": "Storage", "volumeApiName": VOLUME_TYPE},
        "GB-Mo",
    ),
    *(
        RateQuery(
            f"credit.{family}",
            "AmazonEC2",
            {"productFamily": "CPU Credits", "operatingSystem": "Linux"},
            "vCPU-Hours",
            f"CPUCredits:{family}",
        )
        for family in BOOK.credit_usd
    ),
    RateQuery("address_usd_per_hour", "AmazonVPC", {}, HOURLY, "PublicIPv4:InUseAddress"),
    RateQuery(
        "nat_gateway_usd_per_hour",
        "AmazonEC2",
        {"group": "NGW:NatGateway", "operation": "NatGateway"},
        HOURLY,
        "NatGateway-Hours",
    ),
    RateQuery(
        "load_balancer_usd_per_hour",
        "AWSELB",
        {"productFamily": "Load Balancer-Network"},
        HOURLY,
        "LoadBalancerUsage",
    ),
    RateQuery("endpoint_usd_per_hour", "AmazonVPC", {}, HOURLY, "VpcEndpoint-Hours"),
    RateQuery("put_usd", "AmazonS3", {"group": "S3-API-Tier1"}, "Requests", "Requests-Tier1"),
    RateQuery("get_usd", "AmazonS3", {"group": "S3-API-Tier2"}, "Requests", "Requests-Tier2"),
    RateQuery(
        "zone_usd_per_gib",
        "AWSDataTransfer",
        {"transferType": "IntraRegion"},
        "GB",
        region_field="fromRegionCode",
    ),
)
"""The prices of `Rates` that are read from the list; the others are the book's."""


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
            prices.update(prices_in(self._documents("AmazonEC2", wanted)))
        return {name: prices[name] for name in types if name in prices}

    def rates(self) -> Rates:
        return rates_of(
            {
                query.name: rate_in(
                    self._documents(query.service, query.filters(self._region)), query
                )
                for query in RATE_QUERIES
            }
        )

    def _documents(self, service: str, wanted: Mapping[str, str]) -> list[str]:
        filters = [
            {"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()
        ]
        with translate_errors("pricing GetProducts"):
            pages = self._pricing.get_paginator("get_products").paginate(
                ServiceCode=service, Filters=filters
            )
            return [document for page in pages for document in page["PriceList"]]


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
        rates = [usd for usd in _rates(document, HOURLY) if usd > 0]
        if name and rates:
            prices[name] = min(prices.get(name, rates[0]), *rates)
    return prices


def rate_in(documents: Iterable[str], query: RateQuery) -> float | None:
    """Return the price that a query asks for; None if no document has it.

    Of several prices, such as those of a first free amount, the lowest above zero counts.
    """
    rates: list[float] = []
    for text in documents:
        document = msgspec.json.decode(text, type=_Document)
        usage = document.product.attributes.get("usagetype", "")
        if usage.endswith(query.usage):
            rates += (usd for usd in _rates(document, query.unit) if usd > 0)
    return min(rates, default=None)


def rates_of(read: Mapping[str, float | None]) -> Rates:
    """Return the rates with these prices by name of the query; those of the book where None."""
    known = {name: usd for name, usd in read.items() if usd is not None}
    grouped: dict[str, dict[str, float]] = {"volume": {}, "credit": {}}
    for name in [name for name in known if "." in name]:
        group, _, key = name.partition(".")
        grouped[group][key] = known.pop(name)
    volumes = {**BOOK.volume_usd_per_gib_month, **grouped["volume"]}
    surplus = {**BOOK.credit_usd, **grouped["credit"]}
    return msgspec.structs.replace(
        BOOK, volume_usd_per_gib_month=volumes, credit_usd=surplus, **known
    )


def _instance_type(attributes: Mapping[str, str]) -> str:
    """The type if the product is one of `FILTERS`, else an empty text."""
    matches = all(attributes.get(key, value) == value for key, value in FILTERS.items())
    return attributes.get("instanceType", "") if matches else ""


def _rates(document: _Document, unit: str) -> Iterable[float]:
    for term in document.terms.OnDemand.values():
        for rate in term.priceDimensions.values():
            if rate.unit == unit and "USD" in rate.pricePerUnit:
                yield float(rate.pricePerUnit["USD"])
