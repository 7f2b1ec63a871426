"""Objects whose absence S3 hides: GetObject of a missing key is refused, as without ListBucket."""

from __future__ import annotations

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from mesaform.aws import client
from mesaform.aws.control import S3Control
from mesaform.aws.ledger import S3Ledger
from mesaform.aws.pricing.price_cache import S3PriceCache
from mesaform.common.errors import Permanent
from tests.integration.aws.conftest import REGION

REFUSAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Raw:
    """The body of an answer."""

    def stream(self, *_args, **_kwargs):
        yield REFUSAL

    def read(self, *_args, **_kwargs) -> bytes:
        return REFUSAL


@pytest.fixture
def refuses_reads(bucket):
    """Has S3 refuse every GetObject; listings are answered."""
    events = client.client("s3", REGION).meta.events

    def refuse(request, **_):
        return AWSResponse(request.url, 403, HTTPHeaders(), Raw())

    events.register("before-send.s3.GetObject", refuse)
    yield
    events.unregister("before-send.s3.GetObject", refuse)


def test_orders_that_do_not_exist_are_none_even_if_reading_them_is_refused(bucket, refuses_reads):
    control = S3Control(bucket, "toy", REGION)
    assert control.frozen_reason() is None
    assert control.overrides() == ()
    assert control.last_heartbeat() is None
    assert S3PriceCache(bucket, "toy", REGION).read() is None
    assert S3Ledger(bucket, "toy", REGION)._get("toy/ledger/absent") is None


def test_a_freeze_that_may_not_be_read_is_an_error_and_not_none(bucket, refuses_reads):
    control = S3Control(bucket, "toy", REGION)
    control.freeze("a test")
    with pytest.raises(Permanent, match="AccessDenied"):
        control.frozen_reason()
