"""Identifiers of product code contain no word of the deny-list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.docs.pages import REPOSITORY

DENY_LIST = Path(__file__).with_name("denied_words.txt")

FOLDERS = ("cluster", "stacks", "images", "benchmarks", "harness")

STANDARD_NAMES = frozenset({"NotFound", "connection_made"})
"""Terms of HTTP, of the AWS APIs and of asyncio's protocols that contain a denied word."""


def denied_words() -> frozenset[str]:
    """The words of the list; one that begins with `=` is denied as a whole identifier only."""
    lines = DENY_LIST.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if (word := line.partition("#")[0].strip()))


def is_denied(identifier: str, denied: frozenset[str]) -> bool:
    if identifier in STANDARD_NAMES:
        return False
    return f"={identifier}" in denied or bool(denied.intersection(words_of(identifier)))


def words_of(identifier: str) -> Iterator[str]:
    """The words of snake_case, CamelCase and UPPER_CASE names, in lower case."""
    for part in identifier.split("_"):
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)
        yield from (word.lower() for word in words)


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that a module defines: classes, functions, arguments, attributes, variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def violations(path: Path, denied: frozenset[str]) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        f"{path.relative_to(REPOSITORY)}:{line}: {name}"
        for line, name in sorted(set(identifiers(tree)))
        if is_denied(name, denied)
    ]


@pytest.mark.parametrize("name", FOLDERS)
def test_no_identifier_contains_a_denied_word(name: str):
    denied = denied_words()
    modules = sorted((REPOSITORY / name).rglob("*.py"))
    assert modules, f"{name} does not exist"
    assert [line for path in modules for line in violations(path, denied)] == []


def test_a_denied_word_is_recognised_in_every_kind_of_name():
    source = """
class ToldRows: ...
def find(one, *, said=1): ...
def keep(self):
    self.was_found = made = 1
    for mind in (): ...
import x as desk
"""
    denied = denied_words()
    names = {name for _, name in identifiers(ast.parse(source)) if is_denied(name, denied)}
    assert names == {"ToldRows", "one", "said", "was_found", "made", "mind", "desk"}
    assert not is_denied("milestone_foundation", denied)
    assert not is_denied("one_zone", denied)


def test_the_deny_list_is_sorted_and_has_no_word_twice():
    lines = DENY_LIST.read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if not line.startswith("#")]
    assert words == sorted(set(words), key=lambda word: word.lstrip("="))
