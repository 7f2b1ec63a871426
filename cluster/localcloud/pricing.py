"""The Price List API, which moto has not: GetProducts for EC2 types, answered from the product's price book in AWS' form."""

from __future__ import annotations

import json
from typing import Any

from mesaform.aws.pricing import price_book
from mesaform.localcloud.error_responses import Answer

JSON_TYPE = [("Content-Type", "application/x-amz-json-1.1")]
TERM, RATE = "JRTCKXETXF", "6YS6EN2CT7"
"""Codes of an on-demand term and of its hourly rate, the same for all products."""


def answer(action: str, body: bytes) -> Answer:
    """GetProducts; anything else is refused."""
    if action != "GetProducts":
        return Answer(
            "400 Bad Request",
            JSON_TYPE,
            json.dumps({"__type": "InvalidParameterException", "message": action}).encode(),
        )
    request = json.loads(body or b"{}")
    asked = {item["Field"]: item["Value"] for item in request.get("Filters", [])}
    document = {
        "FormatVersion": "aws_v1",
        "PriceList": [json.dumps(product) for product in _products(asked)],
    }
    return Answer("200 OK", JSON_TYPE, json.dumps(document).encode())


def _products(asked: dict[str, str]) -> list[dict[str, Any]]:
    """The product that is asked for, and a reservation of it that costs nothing an hour, as AWS lists one beside it."""
    name = asked.get("instanceType", "")
    usd = price_book.usd_per_hour(name)
    if usd is None or asked.get("operatingSystem", "Linux") != "Linux":
        return []
    found = [_product(name, asked.get("regionCode", price_book.REGION), "Used", usd)]
    if "capacitystatus" not in asked:
        found.append(
            _product(
                name,
                asked.get("regionCode", price_book.REGION),
                "AllocatedCapacityReservation",
                0.0,
            )
        )
    return found


def _product(name: str, region: str, status: str, usd: float) -> dict[str, Any]:
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
    rate = {
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
