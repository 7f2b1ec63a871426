"""The bundle and its digest: bytes that depend on their sources alone."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from mesaform.common.errors import BadInput, MissingPrerequisite
from mesaform_images import bundle
from mesaform_images.lookup import recipe_digest

CHECKOUT = Path(__file__).parents[3]


SMALL_PACKAGE = {
    "__init__.py": "",
    "node/__init__.py": "",
    "node/__main__.py": "from mesaform.node.main import main\n",
    "node/main.py": "def main():\n    from mesaform.node import late\n",
    "node/late.py": "",
    "node/interruption_monitor.py": "",
    "node/attach_volume.py": "",
    "node/mesos_log.py": "",
    "node/lease_daemon.py": "",
    "node/certificates.py": "",
    "node/copy_authority.py": "",
    "engine/__init__.py": "",
    "engine/__main__.py": "",
    "engine/agent/__init__.py": "",
    "engine/agent/runner.py": "",
    "services/__init__.py": "",
    "services/__main__.py": "",
    "autoscaler/__init__.py": "",
    "autoscaler/__main__.py": "",
    "cli/main.py": "",
    "simulator/svg.py": "",
    "webui/master/index.html": "<p>",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small checkout: the real images/ and pyproject, and a package of a few files."""
    shutil.copytree(
        CHECKOUT / "images", tmp_path / "images", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    for path, text in SMALL_PACKAGE.items():
        (tmp_path / "cluster" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cluster" / path).write_text(text)
    return tmp_path


def digest(root: Path) -> str:
    return bundle.read_sources(bundle.checkout_layout(root)).digest()


@pytest.mark.parametrize(
    "path",
    [
        "cluster/node/main.py",
        "cluster/node/late.py",
        "cluster/webui/master/index.html",
        "images/recipe.toml",
        "images/requirements.lock",
        "images/start.py",
        "images/builder/host.py",
    ],
)
def test_the_digest_changes_with_every_source_of_the_image(root: Path, path: str) -> None:
    before = digest(root)
    with (root / path).open("a") as file:
        file.write("# one more line\n")
    assert digest(root) != before


def test_the_digest_changes_when_a_file_comes_goes_or_moves(root: Path) -> None:
    seen = {digest(root)}
    (root / "cluster/webui/extra.js").write_text("x = 1\n")
    seen.add(digest(root))
    (root / "cluster/webui/extra.js").rename(root / "cluster/webui/master/extra.js")
    seen.add(digest(root))
    (root / "cluster/node/late.py").unlink()
    seen.add(digest(root))
    (root / "cluster/node/main.py").write_text("import mesaform.cli.main\n")
    seen.add(digest(root))
    assert len(seen) == 5


def test_the_digest_does_not_change_with_anything_else(root: Path) -> None:
    before = digest(root)
    (root / "cluster/cli/main.py").write_text("# the operator's side\n")
    (root / "cluster/simulator/svg.py").write_text("# a plot\n")
    (root / "cluster/node/not_imported.py").write_text("x = 1\n")
    (root / "cluster/node/__pycache__").mkdir()
    (root / "cluster/node/__pycache__/main.cpython-311.pyc").write_bytes(b"compiled")
    (root / "cluster/node/main.py~").write_text("an editor's copy")
    (root / "cluster/node/.main.py.swp").write_text("an editor's other copy")
    (root / "README.md").write_text("words")
    for path in (root / "cluster").rglob("*"):
        os.utime(path, (1, 1))
    assert digest(root) == before


def test_a_new_requirement_of_machines_is_a_new_recipe_and_one_of_operators_is_not(
    root: Path,
) -> None:
    before = digest(root)
    project = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(
        project.replace('    "aiohttp', '    "another-package>=1",\n    "aiohttp')
    )
    assert digest(root) == before
    requirements = (root / "images/requirements.in").read_text()
    (root / "images/requirements.in").write_text(requirements + "another-package>=1\n")
    assert digest(root) != before


def test_the_same_sources_give_the_same_bytes(root: Path) -> None:
    assert (
        bundle.read_sources(bundle.checkout_layout(root)).bundle_bytes()
        == bundle.read_sources(bundle.checkout_layout(root)).bundle_bytes()
    )


def test_the_bundle_holds_the_wheel_the_locks_the_recipe_and_the_builder(root: Path) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(bundle.read_sources(bundle.checkout_layout(root)).bundle_bytes())
    ) as archive:
        names = set(archive.getnames())
    assert {
        "mesaform-0.1.0-py3-none-any.whl",
        "requirements.lock",
        "bootstrap.lock",
        "recipe.toml",
        "mesaform_images/builder/__main__.py",
    } <= names


def test_the_wheel_has_pages_and_code_but_not_the_operators_side_and_its_record_is_true(
    root: Path,
) -> None:
    with zipfile.ZipFile(
        io.BytesIO(bundle.read_sources(bundle.checkout_layout(root)).wheel_bytes())
    ) as wheel:
        names = set(wheel.namelist())
        record = {
            path: (digest, size)
            for path, digest, size in csv.reader(
                io.StringIO(wheel.read("mesaform-0.1.0.dist-info/RECORD").decode())
            )
        }
        assert names == set(record)
        for name in names - {"mesaform-0.1.0.dist-info/RECORD"}:
            content = wheel.read(name)
            assert int(record[name][1]) == len(content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert record[name][0] == f"sha256={digest}"
    assert "mesaform/webui/master/index.html" in names
    assert "mesaform/cli/main.py" not in names


def test_a_checkout_without_its_lock_names_the_file(root: Path) -> None:
    (root / "images/requirements.lock").unlink()
    with pytest.raises(MissingPrerequisite, match=r"images/requirements\.lock"):
        bundle.read_sources(bundle.checkout_layout(root))


def test_a_recipe_with_a_mistake_names_the_field(root: Path) -> None:
    text = (root / "images/recipe.toml").read_text()
    (root / "images/recipe.toml").write_text(text.replace("instance_type", "instanze_type"))
    with pytest.raises(BadInput, match="instance_type"):
        bundle.read_sources(bundle.checkout_layout(root))


def test_an_entry_point_that_does_not_exist_is_named(root: Path) -> None:
    (root / "cluster/node/lease_daemon.py").unlink()
    with pytest.raises(BadInput, match=r"no module mesaform\.node\.lease_daemon"):
        bundle.read_sources(bundle.checkout_layout(root))


def test_a_module_that_cannot_be_parsed_is_an_error(root: Path) -> None:
    (root / "cluster/node/late.py").write_text("def (:\n")
    with pytest.raises(BadInput, match="cannot be parsed"):
        bundle.read_sources(bundle.checkout_layout(root))


def test_the_digest_of_this_checkout_is_read_in_a_moment() -> None:
    assert len(recipe_digest()) == bundle.DIGEST_LENGTH
    assert recipe_digest() == recipe_digest()
