"""Tasks cannot reach EC2's metadata service: nftables' real rules in a network namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mesaform.node import metadata_guard

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("nft", "ip", "unshare"))),
    reason="needs root, nft, ip and unshare",
)
def test_after_the_guard_only_root_reaches_the_metadata_service() -> None:
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.integration.node.guarded_namespace"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in result.stderr:
        pytest.skip("this host allows no network namespaces")
    assert result.stdout.splitlines() == [
        "open: root True, task True",
        "closed: root True, task False",
    ], result.stderr


def test_a_machine_without_nftables_serves_no_tasks() -> None:
    with pytest.raises(metadata_guard.CannotClose, match="bake an image with nftables"):
        metadata_guard.close_to_tasks(program="no-such-program")


def test_the_local_clouds_service_needs_no_rules() -> None:
    assert not metadata_guard.close_to_tasks("http://127.42.0.9:1338", "no-such-program")
