"""Import rules of pyproject.toml cover the tree, and modules that say "Pure." do no I/O."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from grimp import ImportGraph, Layer

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "cluster"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


PURE = re.compile(r"\bPure\.")


def contract(name: str) -> dict[str, list[str]]:
    return next(entry for entry in CONTRACTS if entry["name"] == name)


def imported_roots(text: str) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def test_every_package_has_a_layer() -> None:
    layers = contract("packages point one way")["layers"]
    listed = set(re.findall(r"mesaform\.(\w+)", " ".join(layers)))
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= listed


def test_modules_that_say_pure_import_no_io() -> None:
    forbidden = set(contract("pure packages")["forbidden_modules"])
    claims, impure = 0, {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        # Most modules do not say it anywhere, and need not be parsed.
        is_claimed = PURE.search(text) and PURE.search(ast.get_docstring(ast.parse(text)) or "")
        if is_claimed:
            claims += 1
            if roots := imported_roots(text) & forbidden:
                impure[str(path.relative_to(ROOT))] = sorted(roots)
    assert claims > 20
    assert impure == {}


def test_a_benchmark_that_imports_a_test_breaks_a_contract() -> None:
    layers = contract("nothing imports tests")["layers"]
    graph = ImportGraph()
    for module in ("tests", "tests.support", "benchmarks", "benchmarks.road", "harness"):
        graph.add_module(module)
    graph.add_import(importer="benchmarks.road", imported="harness")
    graph.add_import(importer="tests.support", imported="harness")
    ordered = [Layer(*layer.split(" : "), independent=False) for layer in layers]
    assert graph.find_illegal_dependencies_for_layers(layers=ordered) == set()
    graph.add_import(importer="benchmarks.road", imported="tests.support")
    assert graph.find_illegal_dependencies_for_layers(layers=ordered) != set()


def test_only_tests_import_tests() -> None:
    folders = ("cluster", "stacks", "images", "benchmarks", "harness")
    texts = {path: path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert len(texts) > 500
    naming = {path: text for path, text in texts.items() if re.search(r"\btests\b", text)}
    assert [path for path, text in naming.items() if "tests" in imported_roots(text)] == []
