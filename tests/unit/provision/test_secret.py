"""The cluster's secret: drawn once, kept, and readable by its owner only."""

from __future__ import annotations

import json
from pathlib import Path

from mesaform.provision.deployment import Caller, establish_deployment, read_deployment

CALLER = Caller("111122223333", "arn:aws:iam::111122223333:user/me", 0.0)


def test_the_first_up_draws_a_secret_that_later_ones_keep(tmp_path: Path) -> None:
    first = establish_deployment(tmp_path / "one", CALLER, "eu-west-1")
    assert len(bytes.fromhex(first.secret)) == 32
    assert establish_deployment(tmp_path / "one", CALLER, "eu-west-1") == first
    assert establish_deployment(tmp_path / "two", CALLER, "eu-west-1").secret != first.secret
    file = tmp_path / "one" / "deployment.json"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_deployment_of_an_older_version_keeps_its_id_and_gets_a_secret(tmp_path: Path) -> None:
    record = {"deployment_id": "ab12", "account_id": "1", "region": "eu-west-1", "version": 1}
    file = tmp_path / "deployment.json"
    file.write_text(json.dumps(record))
    old = read_deployment(tmp_path)
    assert old is not None
    assert old.secret == ""
    established = establish_deployment(tmp_path, CALLER, "eu-west-1")
    assert (established.deployment_id, established.account_id) == ("ab12", "1")
    assert established.secret
    assert read_deployment(tmp_path) == established
    assert file.stat().st_mode & 0o777 == 0o600
