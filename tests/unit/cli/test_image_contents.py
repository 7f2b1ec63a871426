"""The engine of a cluster file is compared with the images before anything is created."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mesaform.cli.main import build
from mesaform.common.errors import BadInput, Exit
from mesaform.doctor import engine
from mesaform.doctor.finding import Level
from mesaform.node.main import check
from mesaform.node.model import EXIT_REFUSED
from mesaform_images.bundle import installed_layout, parse_recipe

FILE = "name: a\ntarget: aws\n{engine}network: {{operator_cidrs: [203.0.113.0/24]}}\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the cluster file. A call to AWS fails: nothing listens, and there are no keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    def write_file(line: str) -> str:
        file = tmp_path / "cluster.yaml"
        file.write_text(FILE.format(engine=line))
        return str(file)

    return write_file


@pytest.mark.parametrize("verb", ["validate", "up", "bake"])
def test_mesos_without_a_source_of_its_packages_is_refused_with_its_line(verb, write):
    result = CliRunner().invoke(build(), [verb, "--file", write("engine: mesos\n")])
    refusal = result.exception
    assert isinstance(refusal, BadInput)
    assert refusal.exit_code == Exit.BAD_INPUT
    assert "cluster.yaml:3: engine: " in str(refusal)
    assert "engine: embedded" in str(refusal)


@pytest.mark.parametrize("target", ["aws", "local"])
@pytest.mark.parametrize("has_source", [True, False])
def test_mesos_is_right_on_both_targets_once_the_operators_recipe_names_a_source(
    target, has_source, write, tmp_path, monkeypatch
):
    file = Path(write("engine: mesos\n"))
    if target == "local":
        file.write_text("name: a\nengine: mesos\n")
    if has_source:
        own = tmp_path / "recipe.toml"
        own.write_text('[engine]\nprefix = "/opt/mesos"\n')
        monkeypatch.setenv("MESAFORM_RECIPE", str(own))
    result = CliRunner().invoke(build(), ["validate", "--file", str(file)])
    assert (result.exit_code == 0) is has_source, result.output
    if has_source:
        assert f"mesos engine on {target}" in result.output
    else:
        assert "MESAFORM_RECIPE" in str(result.exception)


def test_a_file_for_aws_that_names_no_engine_is_right(write):
    result = CliRunner().invoke(build(), ["validate", "--file", write("")])
    assert result.exit_code == 0, result.output
    assert "embedded engine on aws" in result.output


def test_the_check_of_the_account_knows_the_recipe():
    path = installed_layout().images / "recipe.toml"
    named = path.read_text().replace("packages = []", 'packages = ["mesos"]')
    has_mesos = parse_recipe(named, str(path)).engine_source is not None
    assert engine.assess("mesos", has_mesos=has_mesos).level is Level.OK
    assert engine.assess("mesos", has_mesos=False).level is Level.ERROR
    assert engine.assess("embedded", has_mesos=False).level is Level.OK


def test_the_check_of_an_image_fails_without_the_promised_engine(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert check("mesos") == EXIT_REFUSED
    assert "needs the program mesos-master" in capsys.readouterr().out
