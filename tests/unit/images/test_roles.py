"""Ansible's roles: their files, and variables that come from the recipe alone."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest
import yaml

from mesaform.common.errors import BadInput
from mesaform_images import bundle, export
from mesaform_images.builder import unserved
from mesaform_images.builder.recipe import read
from mesaform_images.builder.steps import roles

IMAGES = bundle.installed_layout().images
ROLES = sorted(path.name for path in (IMAGES / "roles").iterdir())
(PLAY,) = yaml.safe_load((IMAGES / "site.yml").read_text())
UNITS = IMAGES / "roles/mesaform/files"


def test_the_role_installs_every_unit_that_it_has() -> None:
    stated = yaml.safe_load((UNITS.parent / "vars/main.yml").read_text())["mesaform_units"]
    assert sorted(stated) == sorted(path.name for path in UNITS.iterdir())


def unit(name: str) -> configparser.RawConfigParser:
    """A unit of systemd, whose keys have capital letters."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign] # as its documentation says
    parser.read(UNITS / name)
    return parser


def specified(role: str) -> set[str]:
    text = (IMAGES / "roles" / role / "meta/argument_specs.yml").read_text()
    options: dict[str, object] = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return set(options)


def test_a_bake_applies_every_role_of_the_playbook_once() -> None:
    applied = [*roles.SYSTEM, *roles.PRODUCT]
    assert sorted(applied) == ROLES
    assert [entry["role"] for entry in PLAY["roles"]] == applied
    assert [entry["tags"] for entry in PLAY["roles"]] == [[role] for role in applied]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_gets_the_variables_that_it_states(role: str) -> None:
    (entry,) = [entry for entry in PLAY["roles"] if entry["role"] == role]
    extra = {"mesaform_digest", "mesaform_bundle"} if role == "mesaform" else set()
    assert set(entry.get("vars", ())) | extra == specified(role)


def test_roles_name_no_package_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes((IMAGES / "recipe.toml").read_bytes())
    recipe = read(tmp_path)
    packages = [
        *recipe["common"]["packages"],
        *recipe["docker"]["packages"],
        *recipe["zookeeper"]["packages"],
    ]
    names = "|".join(map(re.escape, packages))
    lists = re.compile(rf"^\s*(?:- |name: )({names})\s*$", re.MULTILINE)
    for path in (IMAGES / "roles").rglob("*.yml"):
        assert not lists.findall(path.read_text()), path


def test_every_field_of_the_recipe_that_the_playbook_reads_exists(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes((IMAGES / "recipe.toml").read_bytes())
    recipe = json.loads(json.dumps(read(tmp_path)))
    fields = re.findall(r"mesaform_recipe\.(\w+)\.(\w+)", (IMAGES / "site.yml").read_text())
    assert fields
    for section, field in fields:
        assert field in recipe[section]


def test_an_export_has_the_playbook_its_roles_the_bundle_and_the_operators_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[common]\nupdates = "security"\n')
    monkeypatch.setenv(bundle.OVERRIDES_VARIABLE, str(own))
    sources = bundle.read_sources(bundle.installed_layout())
    export.write(sources, tmp_path / "export")
    variables = json.loads((tmp_path / "export" / export.VARIABLES).read_text())
    assert variables["mesaform_recipe"]["common"]["updates"] == "security"
    assert variables["mesaform_digest"] == sources.digest()
    assert Path(variables["mesaform_bundle"]).read_bytes() == sources.bundle_bytes()
    for path in (IMAGES / "roles").rglob("*.*"):
        copy = tmp_path / "export/roles" / path.relative_to(IMAGES / "roles")
        assert copy.read_bytes() == path.read_bytes()
    with pytest.raises(BadInput, match="not empty"):
        export.write(sources, tmp_path / "export")


def test_machines_take_their_time_from_amazons_service() -> None:
    assert "169.254.169.123" in (IMAGES / "roles/common/files/amazon.sources").read_text()


def test_an_image_ends_a_machine_without_a_node_an_hour_after_the_boot() -> None:
    assert unit("mesaform-unserved.timer")["Timer"]["OnBootSec"] == "1h"
    command = unit("mesaform-unserved.service")["Service"]["ExecStart"]
    assert command == f"/usr/bin/python3 -I /opt/mesaform/{Path(unserved.__file__).name}"


def test_the_lines_of_the_node_go_to_the_console_of_the_machine() -> None:
    assert unit("mesaform-node.service")["Service"]["StandardOutput"] == "journal+console"
