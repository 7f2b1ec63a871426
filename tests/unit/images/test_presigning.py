"""Presigned URLs name the bucket at its region's host, and user data stays within EC2's limit."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from mesaform.aws import client
from mesaform.common.errors import MissingPrerequisite
from mesaform_images import build_machine, bundle
from mesaform_images.bake import PRESIGNING

REGIONS = ["us-east-1", "eu-west-1", "ap-south-2", "eu-south-1", "me-central-1", "il-central-1"]


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0123456789")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    return monkeypatch


def presigned(region: str) -> str:
    s3 = client.client("s3", region, PRESIGNING)
    key = f"bake/{'0' * 16}/arm64/1800000000000000000-1/job.json"
    bucket = f"mesaform-111122223333-{region}"
    return str(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}))


@pytest.mark.parametrize("region", REGIONS)
def test_presigned_urls_name_the_regions_host(region: str, credentials: pytest.MonkeyPatch) -> None:
    host = urlsplit(presigned(region)).netloc
    assert host == f"mesaform-111122223333-{region}.s3.{region}.amazonaws.com"


def test_a_long_session_token_fits_into_the_builders_user_data(
    credentials: pytest.MonkeyPatch,
) -> None:
    start = bundle.read_sources(bundle.installed_layout()).start_program
    credentials.setenv("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjE/+=" * 300)
    url = presigned("me-central-1")
    user_data = build_machine.cloud_config(start, url)
    assert len(user_data.encode()) < build_machine.USER_DATA_BYTES
    assert user_data.count("X-Amz-Signature") == 1
    with pytest.raises(MissingPrerequisite, match="session token is too long"):
        build_machine.cloud_config(start, url * 2)
