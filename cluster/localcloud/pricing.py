"""The Price List API's GetProducts for EC2 types, from the product's price book. moto lacks it."""

from __future__ import annotations

import json

import msgspec

from mesaform.aws.pricing import price_book
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


class Filter(msgspec.Struct, frozen=True, rename="pascal"):
    """A field of products and its value."""

    field: str
    value: str


class GetProducts(msgspec.Struct, frozen=True, rename="pascal"):
    """A request of GetProducts; what it does not name is ignored."""

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
        "PriceList": [json.dumps(product) for product in _products(asked)],
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
    products = [_product(name, region, "Used", usd)]
    if "capacitystatus" not in asked:
        products.append(_product(name, region, "AllocatedCapacityReservation", 0.0))
    return products


def _product(name: str, region: str, status: str, usd: float) -> JsonObject:
    sku = f"{name}.{status}".upper()
    attributes: JsonObject = {
        "instanceType": name,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": status,
        "marketoption": "OnDemand",
        "locationType": "AWS Region",
    }
    rate: JsonObject = {
        "unit": "Hrs",
        "pricePerUnit": {"USD": f"{usd:.10f}"},
        "beginRange": "0",
        "endRange": "Inf",
    }
    return {
        "product": {"productFamily": "Compute Instance", "sku": sku, "attributes": attributes},
        "serviceCode": "AmazonEC2",
        "terms": {
            "OnDemand": {
                f"{sku}.{TERM}": {"sku": sku, "priceDimensions": {f"{sku}.{TERM}.{RATE}": rate}}
            }
        },
    }
