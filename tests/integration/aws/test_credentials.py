"""No client without credentials is kept: the metadata service may be away when one is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mesaform.aws import client
from mesaform.common.errors import NotAuthenticated
from tests.integration.aws.conftest import REGION
from tests.integration.node.metadata import MetadataServer

ROLE = "meta-data/iam/security-credentials/"


def credentials(key: str) -> str:
    expires = datetime.now(UTC) + timedelta(hours=6)
    return json.dumps(
        {
            "Code": "Success",
            "AccessKeyId": key,
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        }
    )


@pytest.fixture
def metadata(cloud, monkeypatch, tmp_path) -> Iterator[MetadataServer]:
    """A machine whose credentials come from the metadata service, and whose calls go to moto."""
    values = {ROLE: "masters", f"{ROLE}masters": credentials("AKIAFIRST")}
    with MetadataServer(values, "127.71.0.9") as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "absent"))
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
        yield server
    client.discard_clients()


def key_of(made) -> str:
    return made._request_signer._credentials.get_frozen_credentials().access_key


@pytest.mark.slow
def test_a_client_made_while_the_metadata_service_is_away_works_once_it_answers(metadata):
    metadata.failures = [503] * 4
    with pytest.raises(NotAuthenticated):
        client.account_bucket(REGION)
    metadata.failures = []
    assert client.account_bucket(REGION).endswith(REGION)


def test_a_client_is_shared_and_discarded_on_demand(metadata):
    made = client.client("s3", REGION)
    assert client.client("s3", REGION) is made
    metadata.values[f"{ROLE}masters"] = credentials("AKIASECOND")
    client.discard_clients()
    assert (key_of(made), key_of(client.client("s3", REGION))) == ("AKIAFIRST", "AKIASECOND")
