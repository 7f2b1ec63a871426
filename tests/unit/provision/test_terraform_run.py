"""When a folder counts as initialized, so that a cut-short `terraform init` is run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesaform.provision.provider_mirror import PROVIDER_VERSION
from mesaform.provision.terraform_run import is_initialized

LOCKED = 'provider "registry.terraform.io/hashicorp/aws" {{\n  version = "{}"\n}}\n'


@pytest.mark.parametrize(
    ("has_folder", "lock_file", "expected"),
    [
        (False, None, False),
        (True, None, False),  # init failed at the provider, or was killed there
        (True, LOCKED.format("4.0.0"), False),  # an older program's provider
        (False, LOCKED.format(PROVIDER_VERSION), False),
        (True, LOCKED.format(PROVIDER_VERSION), True),
    ],
)
def test_only_a_completed_init_with_this_provider_counts(
    tmp_path: Path, has_folder: bool, lock_file: str | None, expected: bool
) -> None:
    if has_folder:
        (tmp_path / ".terraform").mkdir()
    if lock_file is not None:
        (tmp_path / ".terraform.lock.hcl").write_text(lock_file)
    assert is_initialized(tmp_path) is expected
