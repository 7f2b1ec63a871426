"""When a folder counts as initialized, so that a cut-short `terraform init` is run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesaform.provision.provider_mirror import PROVIDER, PROVIDER_VERSION, drop_checksums
from mesaform.provision.state_folders import CONFIGURATION_FILE
from mesaform.provision.terraform_driver import terraform_commands
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
        install(tmp_path).mkdir(parents=True)
    if lock_file is not None:
        (tmp_path / ".terraform.lock.hcl").write_text(lock_file)
    assert is_initialized(tmp_path) is expected


def install(folder: Path) -> Path:
    """Where `init` puts the provider, or a link to it."""
    return folder / ".terraform" / "providers" / PROVIDER / PROVIDER_VERSION / "linux_amd64"


def test_a_provider_whose_mirror_is_gone_is_installed_again(tmp_path: Path) -> None:
    install(tmp_path).parent.mkdir(parents=True)
    install(tmp_path).symlink_to(tmp_path / "mirror")
    (tmp_path / ".terraform.lock.hcl").write_text(LOCKED.format(PROVIDER_VERSION))
    assert not is_initialized(tmp_path)
    (tmp_path / "mirror").mkdir()
    assert is_initialized(tmp_path)


def test_a_folder_whose_state_moved_is_initialized_again(tmp_path: Path) -> None:
    install(tmp_path).mkdir(parents=True)
    (tmp_path / ".terraform.lock.hcl").write_text(LOCKED.format(PROVIDER_VERSION))
    (tmp_path / ".terraform" / "terraform.tfstate").write_text(
        json.dumps({"backend": {"type": "local", "config": {"path": "/a/network.tfstate"}}})
    )
    for path, expected in (("/a/network.tfstate", True), ("/b/network.tfstate", False)):
        declared = {"terraform": {"backend": {"local": {"path": path}}}}
        (tmp_path / CONFIGURATION_FILE).write_text(json.dumps(declared))
        assert is_initialized(tmp_path) is expected


def test_a_lock_file_keeps_the_version_and_loses_the_sums(tmp_path: Path) -> None:
    sums = '  hashes = [\n    "h1:edXOJWE4ORX8=",\n    "zh:0000",\n  ]\n'
    locked = LOCKED.format(PROVIDER_VERSION)
    lock_file = tmp_path / ".terraform.lock.hcl"
    lock_file.write_text(f"# Terraform's.\n\n{locked[:-2]}{sums}}}\n")
    for _ in range(2):
        drop_checksums(tmp_path)
        assert lock_file.read_text() == f"# Terraform's.\n\n{locked}"
    install(tmp_path).mkdir(parents=True)
    assert is_initialized(tmp_path)


def test_a_folder_without_providers_has_no_sums_to_lose(tmp_path: Path) -> None:
    drop_checksums(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_a_folder_that_is_not_initialized_gets_an_init() -> None:
    assert [call[0] for call in terraform_commands("apply", is_initialized=False)] == [
        "init",
        "apply",
    ]
    assert [call[0] for call in terraform_commands("destroy", is_initialized=True)] == ["destroy"]
