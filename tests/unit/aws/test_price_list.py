"""The price list port: its fake, and the adapter on documents in the format of AWS.

The format is that of the GetProducts reference and of the guide "Using the AWS Price List Query
API"; names, codes and amounts are invented.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from mesaform.aws import client
from mesaform.aws.ports import PriceList
from mesaform.aws.pricing.price_list import (
    FILTERS,
    AwsPriceList,
    endpoint_region,
    prices_in,
)
from mesaform.common.errors import Permanent, Retryable
from mesaform.testing.fake_prices import FakePriceList

PRICES = {"m5.large": 0.115, "c5.large": 0.097}
REGION = "eu-central-1"


def a_document(
    name: str = "m5.large",
    usd: str = "0.1150000000",
    *,
    unit: str = "Hrs",
    currency: str = "USD",
    **attributes: str,
) -> str:
    sku = f"SKU{name}{usd}"
    rate = {
        "unit": unit,
        "endRange": "Inf",
        "description": f"${usd} per On Demand Linux {name} Instance Hour",
        "appliesTo": [],
        "rateCode": f"{sku}.JRTCKXETXF.6YS6EN2CT7",
        "beginRange": "0",
        "pricePerUnit": {currency: usd},
    }
    return json.dumps(
        {
            "product": {
                "productFamily": "Compute Instance",
                "attributes": {
                    **FILTERS,
                    "instanceType": name,
                    "regionCode": REGION,
                    "vcpu": "2",
                    "memory": "8 GiB",
                    **attributes,
                },
                "sku": sku,
            },
            "serviceCode": "AmazonEC2",
            "terms": {
                "OnDemand": {
                    f"{sku}.JRTCKXETXF": {
                        "priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": rate},
                        "sku": sku,
                        "effectiveDate": "2026-11-01T00:00:00Z",
                        "offerTermCode": "JRTCKXETXF",
                        "termAttributes": {},
                    }
                },
                "Reserved": {
                    f"{sku}.38NPMPTW36": {
                        "priceDimensions": {
                            "x": {"unit": "Hrs", "pricePerUnit": {"USD": "0.0010000000"}}
                        }
                    }
                },
            },
            "version": "20261101000000",
            "publicationDate": "2026-11-01T00:00:00Z",
        }
    )


@pytest.fixture
def pricing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """The Price List API as botocore's stub; every call must have been announced."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "stub",
        "AWS_SECRET_ACCESS_KEY": "stub",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    with Stubber(client.client("pricing", endpoint_region(REGION))) as stub:
        yield stub


def announce(stub: Stubber, name: str, *documents: str, token: str = "", after: str = "") -> None:
    filters = [
        {"Type": "TERM_MATCH", "Field": k, "Value": v}
        for k, v in {**FILTERS, "regionCode": REGION, "instanceType": name}.items()
    ]
    expected: dict[str, Any] = {
        "ServiceCode": "AmazonEC2",
        "Filters": filters,
        **({"NextToken": after} if after else {}),
    }
    stub.add_response(
        "get_products",
        {"PriceList": list(documents), **({"NextToken": token} if token else {})},
        expected,
    )


@pytest.fixture(params=["fake", "aws"])
def price_list(request: pytest.FixtureRequest) -> PriceList:
    if request.param == "fake":
        return FakePriceList(PRICES)
    stub = request.getfixturevalue("pricing")
    for name in ("m5.large", "m5.nosuch", "c5.large"):
        announce(stub, name, *([a_document(name, str(PRICES[name]))] if name in PRICES else []))
    return AwsPriceList(REGION)


def test_types_that_are_sold_have_a_price_and_the_others_are_absent(price_list: PriceList) -> None:
    assert price_list.usd_per_hour(["m5.large", "m5.nosuch", "c5.large"]) == PRICES


@pytest.fixture(params=["fake", "aws"])
def troubled(request: pytest.FixtureRequest) -> Any:
    """A list whose next call is refused with a code."""

    def make(code: str) -> PriceList:
        if request.param == "fake":
            fake = FakePriceList(PRICES)
            fake.fail_next = (
                Retryable(code, after_s=1) if code == "ThrottlingException" else Permanent(code)
            )
            return fake
        stub = request.getfixturevalue("pricing")
        stub.add_client_error(
            "get_products", code, "said AWS", expected_params={"ServiceCode": ANY, "Filters": ANY}
        )
        return AwsPriceList(REGION)

    return make


@pytest.mark.parametrize(
    ("code", "kind"), [("ThrottlingException", Retryable), ("AccessDeniedException", Permanent)]
)
def test_a_refusal_is_one_of_ours(troubled: Any, code: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        troubled(code).usd_per_hour(["m5.large"])


def test_every_page_is_read(pricing: Stubber) -> None:
    announce(pricing, "m5.large", a_document(tenancy="Dedicated"), token="next")
    announce(pricing, "m5.large", a_document(), after="next")
    assert AwsPriceList(REGION).usd_per_hour(["m5.large"]) == {"m5.large": 0.115}
    pricing.assert_no_pending_responses()


@pytest.mark.parametrize(
    "attributes",
    [
        {"operatingSystem": "Windows"},
        {"tenancy": "Dedicated"},
        {"preInstalledSw": "SQL Std"},
        {"capacitystatus": "AllocatedCapacityReservation"},
        {"marketoption": "CapacityBlock"},
    ],
)
def test_what_a_plain_linux_machine_is_not_billed_as_has_no_say(attributes: dict[str, str]) -> None:
    assert prices_in([a_document(usd="0.01", **attributes), a_document()]) == {"m5.large": 0.115}


@pytest.mark.parametrize(
    "document",
    [a_document(usd="0.0"), a_document(currency="CNY"), a_document(unit="Quantity"), "{}"],
)
def test_what_is_free_or_not_in_dollars_or_not_by_the_hour_is_no_price(document: str) -> None:
    assert prices_in([document]) == {}


@pytest.mark.parametrize(
    ("region", "asked"),
    [
        ("us-west-2", "us-east-1"),
        ("eu-north-1", "eu-central-1"),
        ("ap-northeast-1", "ap-south-1"),
        ("sa-east-1", "us-east-1"),
    ],
)
def test_the_nearest_of_the_three_endpoints_is_asked(region: str, asked: str) -> None:
    assert endpoint_region(region) == asked
