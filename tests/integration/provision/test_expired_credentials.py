"""Credentials that expire in the middle of `up` and `down`: both end cleanly, and go on later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mesaform.aws.client import discard_clients
from mesaform.cli.context import endpoint_environment
from mesaform.cli.expired_credentials import explain_expiry
from mesaform.common.errors import CredentialsExpired
from tests.integration.localcloud.conftest import (
    REGION,
    Cloud,
    operator_key,
    start_cloud,
    stop_cloud,
)
from tests.integration.provision.checkouts import STACK_OF, Account, Checkout, census, open_checkout

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud(tmp_path) -> Iterator[Cloud]:
    cloud = start_cloud(tmp_path / "cloud")
    yield cloud
    stop_cloud(cloud)


@pytest.fixture
def checkout(cloud: Cloud, tmp_path, monkeypatch) -> Iterator[Checkout]:
    key = operator_key(cloud.root)
    variables = endpoint_environment(
        cloud.url, REGION, key["aws_access_key_id"], key["aws_secret_access_key"]
    )
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield open_checkout(
        tmp_path / "checkout",
        "expiring",
        REGION,
        Account(variables),
        image_id=cloud.base_image,
        network=".".join(cloud.cidr.split(".")[:2]),
    )
    discard_clients()


def own(checkout: Checkout) -> set[str]:
    """The ids of what the account holds of the checkout's deployment."""
    return {
        identity
        for identity, facts in census(REGION).items()
        if checkout.deployment_id and checkout.deployment_id in facts
    }


def test_up_and_down_end_at_the_refused_call_and_the_same_verb_goes_on(cloud, checkout):
    cloud.fault(kind="expired_credentials", actions=["CreateRole"])
    up = explain_expiry(checkout.context, "mesaform up")
    with pytest.raises(CredentialsExpired) as caught, up:
        asyncio.run(checkout.up())
    assert "3 resources (network 3)" in caught.value.fix
    with pytest.raises(CredentialsExpired), explain_expiry(checkout.context, "mesaform up"):
        asyncio.run(checkout.up())
    cloud.clear_faults()
    created = own(checkout)
    assert len(created) == 3

    asyncio.run(checkout.up())
    assert created < own(checkout)
    assert len(own(checkout)) == len(STACK_OF)

    cloud.fault(kind="expired_credentials", actions=["DeleteLaunchTemplate"])
    down = explain_expiry(checkout.context, "mesaform down")
    with pytest.raises(CredentialsExpired, match="expired during mesaform down") as caught, down:
        asyncio.run(checkout.down())
    assert caught.value.fix.endswith("then go on: mesaform down")
    cloud.clear_faults()
    assert own(checkout), "nothing is proven gone"

    asyncio.run(checkout.down())
    assert own(checkout) == set()
    assert not checkout.deployment_id
