"""`target: aws` calls AWS and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesaform.cli.context import open_context
from mesaform.common.errors import NotOwned

FILE = """\
name: toy
target: aws
network: {operator_cidrs: [203.0.113.7/32]}
"""
OF_PROFILE = "[profile work]\nendpoint_url = http://localhost:4566\n"
OF_SERVICE = """\
[profile work]
services = elsewhere
[services elsewhere]
ec2 =
  endpoint_url = http://localhost:4566
"""


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Enters the cloud with a shared configuration file and environment variables."""
    for name in ("AWS_ENDPOINT_URL", "MESAFORM_ALLOW_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "work")
    (tmp_path / "cluster.yaml").write_text(FILE)

    def enter(text: str = "[profile work]\n", **variables: str) -> None:
        config.write_text(text)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        open_context(str(tmp_path / "cluster.yaml")).enter_cloud()

    return enter


def test_aws_is_entered_without_settings_of_endpoints(enter) -> None:
    enter()


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2"])
def test_a_variable_left_over_from_the_local_cloud_is_refused(enter, name: str) -> None:
    with pytest.raises(NotOwned, match=f"{name}=http://127.0.0.1:5566") as caught:
        enter(**{name: "http://127.0.0.1:5566"})
    assert f"unset {name}" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "setting"), [(OF_PROFILE, "endpoint_url"), (OF_SERVICE, "ec2.endpoint_url")]
)
def test_a_profile_with_another_endpoint_is_refused(enter, text: str, setting: str) -> None:
    with pytest.raises(NotOwned, match=f" {setting}=http://localhost:4566") as caught:
        enter(text)
    assert "AWS_PROFILE" in caught.value.fix


def test_an_endpoint_that_is_meant_is_allowed(enter) -> None:
    enter(OF_PROFILE, MESAFORM_ALLOW_ENDPOINT_URL="1", AWS_ENDPOINT_URL="https://vpce.example")
