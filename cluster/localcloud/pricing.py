"""The Price List API's GetProducts, from the product's price book. moto lacks it.

It has EC2 types and the products of `price_list.RATE_QUERIES`. Like AWS, it has prices of its own
for each region: those of other regions than the book's are a tenth higher.
"""

from __future__ import annotations

import json

import msgspec

from mesaform.aws.pricing import price_book
from mesaform.aws.pricing.price_list import RATE_QUERIES, RateQuery
from mesaform.aws.pricing.rates import BOOK
from mesaform.common.json_types import JsonObject
from mesaform.localcloud.error_responses import (
    Answer,
    ErrorForm,
    invalid_request,
    unknown_operation,
)

JSON_TYPE = [("Content-Type", "application/x-amz-json-1.1")]
TERM, RATE = "JRTCKXETXF", "6YS6EN2CT7"
"""Codes of an on-demand term and of its hourly rate, the same for all products."""

OTHER_REGIONS = 1.1
"""Prices of other regions than the book's, as a multiple of the book's."""


class Filter(msgspec.Struct, frozen=True, rename="pascal"):
    """A field of products and its value."""

    field: str
    value: str


class GetProducts(msgspec.Struct, frozen=True, rename="pascal"):
    """A request of GetProducts; what it does not name is ignored."""

    service_code: str = "AmazonEC2"
    filters: tuple[Filter, ...] = ()


def answer(action: str, body: bytes) -> Answer:
    """The answer to GetProducts; every other action is an error."""
    if action != "GetProducts":
        return unknown_operation(ErrorForm.JSON, f"The operation {action[:100]!r} is not supported")
    try:
        request = msgspec.json.decode(body or b"{}", type=GetProducts)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return invalid_request(ErrorForm.JSON, str(error)[:200])
    asked = {item.field: item.value for item in request.filters}
    document = {
        "FormatVersion": "aws_v1",
        "PriceList": [
            json.dumps(product)
            for product in (*_products(asked), *_rate_products(request.service_code, asked))
        ],
    }
    return Answer(200, JSON_TYPE, json.dumps(document).encode())


def _products(asked: dict[str, str]) -> list[JsonObject]:
    """The product that the filters name.

    Without a filter on capacity AWS also lists its reservation, which costs nothing an hour.
    """
    name = asked.get("instanceType", "")
    usd = price_book.usd_per_hour(name)
    if usd is None or asked.get("operatingSystem", "Linux") != "Linux":
        return []
    region = asked.get("regionCode", price_book.REGION)
    products = [_product(name, region, "Used", usd * regional_factor(region))]
    if "capacitystatus" not in asked:
        products.append(_product(name, region, "AllocatedCapacityReservation", 0.0))
    return products


def regional_factor(region: str) -> float:
    """Prices of a region as a multiple of the book's."""
    return 1.0 if region == price_book.REGION else OTHER_REGIONS


def _rate_products(service: str, asked: dict[str, str]) -> list[JsonObject]:
    """The products of `RATE_QUERIES` in a service that have the attributes asked for."""
    if "instanceType" in asked:
        return []
    products: list[JsonObject] = []
    for query in RATE_QUERIES:
        region = asked.get(query.region_field, price_book.REGION)
        usage = f"{region.upper()}-{query.usage or query.name}"
        attributes: dict[str, str] = {**query.filters(region), "usagetype": usage}
        if query.service == service and asked.items() <= attributes.items():
            usd = book_rate(query) * regional_factor(region)
            products.append(_document(service, usage, attributes, query.unit, usd))
    return products


def book_rate(query: RateQuery) -> float:
    """The price of a query in the book."""
    group, _, key = query.name.partition(".")
    if group == "volume":
        return BOOK.volume_usd_per_gib_month[key]
    return BOOK.credit_usd[key] if group == "credit" else float(getattr(BOOK, query.name))


def _product(name: str, region: str, status: str, usd: float) -> JsonObject:
    sku = f"{name}.{status}".upper()
    attributes = {
        "instanceType": name,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": status,
        "marketoption": "OnDemand",
        "locationType": "AWS Region",
    }
    return _document("AmazonEC2", sku, attributes, "Hrs", usd)


def _document(
    service: str, sku: str, attributes: dict[str, str], unit: str, usd: float
) -> JsonObject:
    rate: JsonObject = {
        "unit": unit,
        "pricePerUnit": {"USD": f"{usd:.10f}"},
        "beginRange": "0",
        "endRange": "Inf",
    }
    described: JsonObject = {"sku": sku, "attributes": {**attributes}}
    return {
        "product": described,
        "serviceCode": service,
        "terms": {
            "OnDemand": {
                f"{sku}.{TERM}": {"sku": sku, "priceDimensions": {f"{sku}.{TERM}.{RATE}": rate}}
            }
        },
    }
