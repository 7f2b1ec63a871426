"""Combination of rules: the first problem counts."""

from __future__ import annotations

from collections.abc import Iterable


def first_of(problems: Iterable[str | None]) -> str | None:
    """The first problem. Later ones are not computed when `problems` is a generator."""
    return next((problem for problem in problems if problem is not None), None)


def first_true(*conditions: tuple[bool, str]) -> str | None:
    """The text of the first condition that holds."""
    return next((text for is_true, text in conditions if is_true), None)


def prefixed(prefix: str, problem: str | None) -> str | None:
    """The problem with words before it."""
    return None if problem is None else f"{prefix}: {problem}"
