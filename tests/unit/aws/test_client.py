"""Clients of one environment share a session, and so the credentials that it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mesaform.aws import client
from mesaform.aws.errors import Fault, classify

REGION = "eu-south-2"


def test_credentials_are_asked_for_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile with a second factor would ask for a code each time."""
    asked = tmp_path / "asked"
    answer = {"Version": 1, "AccessKeyId": "AKIA", "SecretAccessKey": "x", "SessionToken": "t"}
    program = f"open({str(asked)!r}, 'a').write('once ');print({json.dumps(answer)!r})"
    script = tmp_path / "credentials.py"
    script.write_text(program)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for service in ("ec2", "s3", "ssm", "sts"):
        client.client(service, REGION)
    assert asked.read_text() == "once "


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("RequestExpired", Fault.EXPIRED),
        ("ExpiredTokenException", Fault.EXPIRED),
        ("EC2ThrottledException", Fault.THROTTLED),
        ("MaxFleetCountExceeded", Fault.NO_CAPACITY),
        ("InvalidFleetConfiguration", Fault.NO_CAPACITY),
    ],
)
def test_codes_of_expired_credentials_and_of_fleets_have_their_meaning(
    code: str, fault: Fault
) -> None:
    assert classify(code) is fault
