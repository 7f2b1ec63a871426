"""What is missing is named one by one, with what to do; programs are found by running them."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import pytest

from mesaform.config.schema import ClusterSpec, Network
from mesaform.provision import environment, prerequisites, provider_mirror, terraform
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.provision.prerequisites import find_lacks

LOCAL = ClusterSpec(name="a", network=Network(cidr="127.60.0.0/16"))
AWS = ClusterSpec(name="a", target="aws", network=Network(operator_cidrs=("203.0.113.0/24",)))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("TERRAFORM_BINARY_NAME", raising=False)
    return folder


def install(folder: Path, name: str, says: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{says}\nE\n".replace("cat", "/bin/cat"))
    program.chmod(0o755)


def install_all(folder: Path, root: Path) -> None:
    install(folder, "node", "v20.1.0")
    install(folder, "java", 'openjdk version "17.0.15" 2025-04-15')
    install(folder, "terraform", json.dumps({"terraform_version": "1.11.4"}))
    package = root / "node_modules" / "cdktf-cli" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text(json.dumps({"version": "0.21.0"}))


def lacks(spec: ClusterSpec, root: Path) -> list[str]:
    return [f"{lack.what}: {lack.fix}" for lack in find_lacks(spec, root / "state", root)]


def test_nothing_is_missing_where_everything_is(programs, tmp_path, monkeypatch):
    install_all(programs, tmp_path)
    monkeypatch.setattr(prerequisites, "ZOOKEEPER_JAR", Path(__file__))
    assert lacks(LOCAL, tmp_path) == []


@pytest.mark.parametrize(
    ("program", "says", "complaint"),
    [
        ("node", "v18.20.0", "node is 18.20.0: install Node.js 20 or newer"),
        ("java", 'openjdk version "8.0.1"', "java is 8.0.1, ZooKeeper needs 11: apt-get install"),
    ],
)
def test_what_is_too_old_is_named_with_its_version(programs, tmp_path, program, says, complaint):
    install_all(programs, tmp_path)
    install(programs, program, says)
    assert any(lack.startswith(complaint) for lack in lacks(LOCAL, tmp_path))


@pytest.mark.parametrize("program", ["node", "java"])
def test_a_missing_program_is_named(programs, tmp_path, program):
    install_all(programs, tmp_path)
    (programs / program).unlink()
    assert any(lack.startswith(f"{program} is missing") for lack in lacks(LOCAL, tmp_path))


def test_cdktf_must_be_the_locked_one(programs, tmp_path):
    install_all(programs, tmp_path)
    package = tmp_path / "node_modules" / "cdktf-cli" / "package.json"
    package.write_text(json.dumps({"version": "0.20.0"}))
    assert any(
        lack.startswith("cdktf is 0.20.0: 0.21.0 is the one that was locked")
        for lack in lacks(AWS, tmp_path)
    )
    package.unlink()
    assert any(
        lack.startswith("cdktf is missing") and "npm ci" in lack for lack in lacks(AWS, tmp_path)
    )


def test_aws_needs_neither_java_nor_addresses_of_this_host(programs, tmp_path):
    install_all(programs, tmp_path)
    (programs / "java").unlink()
    assert lacks(AWS, tmp_path) == []


@pytest.mark.parametrize(
    ("says", "complaint"), [("1.2.0", "terraform is 1.2.0"), ("", "terraform is missing")]
)
def test_a_terraform_that_somebody_named_is_reported_by_its_name(
    programs, tmp_path, monkeypatch, says, complaint
):
    install_all(programs, tmp_path)
    other = programs / "other-terraform"
    if says:
        install(programs, other.name, json.dumps({"terraform_version": says}))
    monkeypatch.setenv("TERRAFORM_BINARY_NAME", str(other))
    assert any(
        lack.startswith(f"{complaint} (TERRAFORM_BINARY_NAME is {other})")
        for lack in lacks(LOCAL, tmp_path)
    )


@pytest.mark.slow
def test_the_library_stands_in_where_no_terraform_is_installed(programs, tmp_path):
    result = terraform.find(tmp_path / "state")
    assert result is not None
    assert result.program == str(tmp_path / "state" / "terraform")
    assert result.version >= (1, 15)


def provide(root: Path) -> Path:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    target = f"{sys.platform}_{architecture or platform.machine()}"
    (root / provider_mirror.PROVIDER / provider_mirror.PROVIDER_VERSION / target).mkdir(
        parents=True
    )
    return root


def test_a_mirror_is_found_by_its_layout_wherever_it_lies(tmp_path):
    root = provide(tmp_path / "somewhere" / "plugins")
    assert provider_mirror.find_mirror([tmp_path / "nowhere", tmp_path]) == root


@pytest.mark.parametrize("depth", range(4))
def test_a_mirror_in_which_another_user_can_replace_the_provider_is_not_used(tmp_path, depth):
    root = provide(tmp_path / "somewhere" / "plugins")
    binary = next((root / provider_mirror.PROVIDER).glob("*/*")) / "terraform-provider-aws"
    binary.write_bytes(b"")
    assert provider_mirror.find_mirror([tmp_path]) == root
    opened = [binary, binary.parent, root, root.parent][depth]
    opened.chmod(opened.stat().st_mode | 0o020)
    assert provider_mirror.find_mirror([tmp_path]) is None


def test_a_mirror_without_our_version_is_none(tmp_path):
    (tmp_path / "plugins" / provider_mirror.PROVIDER / "5.0.0" / "linux_amd64").mkdir(parents=True)
    assert provider_mirror.find_mirror([tmp_path]) is None


def test_a_mirror_is_written_into_a_configuration_beside_the_persons_own(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.write_text('credentials "x" {}\n')
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(own))
    mirrors = [provide(tmp_path / "m").parent]
    file = provider_mirror.configure_providers(tmp_path / "state", mirrors)
    assert file is not None
    text = file.read_text()
    assert text.startswith('credentials "x"')
    assert f'path    = "{tmp_path / "m"}"' in text


def test_a_persons_own_word_on_providers_wins(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.write_text("provider_installation {\n}\n")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(own))
    mirrors = [provide(tmp_path / "m").parent]
    assert provider_mirror.configure_providers(tmp_path / "state", mirrors) == own


def test_without_a_mirror_the_registry_is_asked_and_a_missing_configuration_is_not_handed_on(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(tmp_path / "gone"))
    assert provider_mirror.configure_providers(tmp_path / "state", [tmp_path]) is None


@pytest.mark.slow
def test_settings_meant_for_other_projects_do_not_reach_terraform(place):
    foreign = {
        "TF_DATA_DIR": "/x",
        "TF_CLI_ARGS_apply": "-x",
        "TF_VAR_a": "1",
        "TF_WORKSPACE": "w",
        "PATH": os.environ["PATH"],
        "KEPT": "1",
    }
    result = environment.prepare_environment(place, NOTHING_TO_BOOT, foreign)
    assert not {"TF_DATA_DIR", "TF_CLI_ARGS_apply", "TF_VAR_a", "TF_WORKSPACE"} & set(result)
    assert (result["KEPT"], result["CHECKPOINT_DISABLE"], result["MESAFORM_CLUSTER_FILE"]) == (
        "1",
        "1",
        str(place.file),
    )
