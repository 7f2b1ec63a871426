"""The image's wheel has exactly the modules that the programs of a machine can import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mesaform_images import bundle
from mesaform_images.builder.steps.mesaform import IMPORT_EVERYTHING
from mesaform_images.module_graph import imports_of

LAYOUT = bundle.installed_layout()

IMPORTED = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "mesaform"]))
"""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def sources() -> bundle.Sources:
    return bundle.read_sources(LAYOUT)


@pytest.fixture(scope="module")
def run(sources: bundle.Sources, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python code with the image's wheel in place of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = folder / sources.wheel_name()
    wheel.write_bytes(sources.wheel_bytes())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")

    def run_code(code: str, *arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_code


def modules_of(sources: bundle.Sources) -> set[str]:
    paths = (Path(path) for path in sources.wheel if path.endswith(".py"))
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths}


@pytest.mark.slow
def test_every_module_of_the_wheel_can_be_imported_without_the_checkout(
    run: Run, sources: bundle.Sources
) -> None:
    checks = {
        "programs": [
            "mesaform.node",
            "mesaform.engine",
            "mesaform.services",
            "mesaform.autoscaler",
        ],
        "not_importable": ["mesaform.engine.agent.runner"],
    }
    run(IMPORT_EVERYTHING, json.dumps(checks))


@pytest.mark.slow
def test_the_wheel_has_what_its_modules_import_and_the_entry_points_import_no_more(
    run: Run, sources: bundle.Sources
) -> None:
    modules = modules_of(sources)
    importable = sorted(
        name for name in modules if not name.endswith(("__main__", "engine.agent.runner"))
    )
    imported = set(json.loads(run(IMPORTED, json.dumps(importable))))
    assert imported == set(importable)


@pytest.mark.slow
def test_no_import_in_a_function_refers_to_a_module_that_the_wheel_lacks(
    sources: bundle.Sources,
) -> None:
    modules = modules_of(sources)
    tree = {
        ".".join(path.relative_to(LAYOUT.package).with_suffix("").parts)
        for path in (LAYOUT.package).rglob("*.py")
    }
    known = {f"mesaform.{name}".removesuffix(".__init__") for name in tree}
    for path, content in sources.wheel.items():
        if path.endswith(".py"):
            package = ".".join(Path(path).parent.parts)
            assert imports_of(content, package) & known <= modules, path


def test_nothing_for_operators_or_tests_is_in_the_wheel(sources: bundle.Sources) -> None:
    packages = {".".join(name.split(".")[:2]) for name in modules_of(sources)}
    operator_side = {"cli", "localcloud", "provision", "simulator", "status", "teardown", "testing"}
    assert not packages & {f"mesaform.{name}" for name in operator_side}
    assert "mesaform/webui/autoscaler/index.html" in sources.wheel
