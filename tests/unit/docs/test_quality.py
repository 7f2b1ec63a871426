"""Limits on the product's code that ruff does not measure. Exceptions do not exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from radon.complexity import cc_visit_ast

from tests.unit.docs.pages import REPOSITORY

FOLDERS = ("cluster", "stacks", "images", "benchmarks", "harness")
MOST_COMPLEXITY = 8  # paths through a function; `and`, `or` and comprehensions count
MOST_LINES = 50
MOST_ANY = 300
SOURCES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_are_simple_and_short(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [block for block in cc_visit_ast(tree) if block.letter in "FM"]
    complex_ones = [
        f"{block.fullname} (line {block.lineno}) has complexity {block.complexity}"
        for block in blocks
        if block.complexity > MOST_COMPLEXITY
    ]
    long_ones = [
        f"{function.name} (line {function.lineno}) has {lines} lines"
        for function in functions(tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MOST_LINES
    ]
    assert complex_ones + long_ones == []


def test_any_is_rare() -> None:
    uses = {
        name_of(path): len(re.findall(r"\bAny\b", path.read_text(encoding="utf-8")))
        for path in SOURCES
    }
    assert sum(uses.values()) < MOST_ANY, sorted(uses.items(), key=lambda use: -use[1])[:10]
