"""Findings of the checks: what was seen, how bad it is, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is. An error stops `mesaform up`."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table. `remedy` is empty only where nothing is to be done."""

    check: str
    level: Level
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return {
            "check": self.check,
            "level": self.level.value,
            "detail": self.detail,
            "remedy": self.remedy,
        }


def ok(check: str, detail: str) -> Finding:
    """A finding that needs no action."""
    return Finding(check, Level.OK, detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    """A finding with which a cluster comes up, but not everything works or is known."""
    return Finding(check, Level.WARNING, detail, remedy)


def error(check: str, detail: str, remedy: str) -> Finding:
    """A finding with which `mesaform up` would fail."""
    return Finding(check, Level.ERROR, detail, remedy)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that stop `mesaform up`."""
    return [finding for finding in findings if finding.level is Level.ERROR]
