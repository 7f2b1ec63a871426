"""Sources of Apache Mesos in the recipe, and the operator's own fields of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mesaform.common.errors import BadInput
from mesaform_images import bundle
from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Recipe, read
from mesaform_images.builder.steps import engine
from mesaform_images.builder.steps.mesaform import engines

SHA256 = hashlib.sha256(b"package").hexdigest()
RECIPE = (bundle.installed_layout().images / "recipe.toml").read_text()


def with_engine(fields: str) -> bundle.Recipe:
    return bundle.parse_recipe(RECIPE, "recipe.toml", f"[engine]\n{fields}\n")


def baked(folder: Path, fields: str) -> Recipe:
    """The recipe as the builder reads it from a bundle with the operator's file."""
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "recipe.overrides.toml").write_text(f"[engine]\n{fields}\n")
    return read(folder)


@pytest.mark.parametrize(
    ("fields", "kind", "names"),
    [
        ('packages = ["aventer-mesos"]', "packages", ("aventer-mesos",)),
        (
            f'debs = [{{ url = "https://example.com/m.deb", sha256 = "{SHA256}" }}]',
            "debs",
            ("https://example.com/m.deb",),
        ),
        ('prefix = "/opt/mesos"', "prefix", ("/opt/mesos",)),
    ],
)
def test_the_recipe_names_one_source(fields: str, kind: str, names: tuple[str, ...]) -> None:
    source = with_engine(fields).engine_source
    assert source is not None
    assert (source.kind, source.names) == (kind, names)


def test_the_products_own_recipe_names_none() -> None:
    assert bundle.parse_recipe(RECIPE, "recipe.toml").engine_source is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('packages = ["a"]\nprefix = "/b"', "packages and prefix: name one source"),
        ('prefix = "opt"', "not an absolute path"),
        ('debs = ["https://example.com/a.deb"]', "each is { url"),
        ('debs = [{ url = "http://example.com/a.deb", sha256 = "" }]', "not an https URL"),
        ('debs = [{ url = "https://example.com/a.deb", sha256 = "12" }]', "not a SHA-256"),
        ('packages = "a"', "not a list"),
        ("package = []", "package is no field"),
    ],
)
def test_a_malformed_source_is_refused(fields: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        with_engine(fields)


def test_an_unknown_section_of_the_operators_file_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\[motor\] is no section"):
        bundle.parse_recipe(RECIPE, "own.toml", "[motor]\nx = 1\n")


@pytest.mark.slow
def test_the_operators_file_changes_the_digest_and_is_in_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bundle.read_sources(bundle.installed_layout())
    own = tmp_path / "own.toml"
    own.write_text('[engine]\nprefix = "/opt/mesos"\n')
    monkeypatch.setenv(bundle.OVERRIDES_VARIABLE, str(own))
    after = bundle.read_sources(bundle.installed_layout())
    assert after.digest() != before.digest()
    assert after.builder["recipe.overrides.toml"] == own.read_bytes()
    assert after.recipe.engine_source is not None


def test_the_programs_of_a_prefix_are_started_once_and_their_version_is_kept(
    tmp_path: Path,
) -> None:
    for name in ("mesos-master", "mesos-agent"):
        program = tmp_path / "prefix" / "sbin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\necho mesos 9.9.9\n")
        program.chmod(0o755)
    recipe = baked(tmp_path, f'prefix = "{tmp_path}/prefix"')
    host, versions = Host(tmp_path / "root", tmp_path, tmp_path / "log"), dict[str, str]()
    for _, action in engine.steps(host, recipe, "", versions):
        action()
    assert versions == {"mesos-master": "9.9.9", "mesos-agent": "9.9.9"}
    assert engines(recipe) == ["embedded", "mesos"]


def test_a_prefix_without_the_programs_fails_the_bake(tmp_path: Path) -> None:
    host = Host(tmp_path / "root", tmp_path, tmp_path / "log")
    ((_, check),) = engine.steps(host, baked(tmp_path, 'prefix = "/none"'), "", {})
    with pytest.raises(StepFailed, match="no program /none/sbin/mesos-master"):
        check()


def test_a_recipe_without_a_source_has_no_steps_of_the_engine(tmp_path: Path) -> None:
    recipe = baked(tmp_path, "")
    assert engine.steps(Host(Path("/"), tmp_path, tmp_path / "log"), recipe, "", {}) == []
    assert engines(recipe) == ["embedded"]
