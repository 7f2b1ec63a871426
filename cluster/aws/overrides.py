"""Temporary overrides of the autoscaler by an operator: value, ledger row and text. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

OverrideKind = Literal["pause", "bound", "hint", "drain"]


@dataclass(frozen=True, slots=True)
class Override:
    """A temporary instruction of an operator (`by`) to the autoscaler.

    `at` and `until` are in seconds since the epoch. The kinds:

    - pause: launch and remove nothing.
    - bound: `bound` (min or max) of `pool` is `count`.
    - hint: keep capacity for `count` tasks of `cpus` and `mem_mib` (in `pool`, if named).
    - drain: empty the agent or instance `target`, and remove it if the autoscaler launched it.
    """

    id: str
    kind: OverrideKind
    by: str
    at: float
    until: float
    reason: str = ""
    pool: str = ""
    bound: str = ""
    count: int = 0
    cpus: float = 0.0
    mem_mib: float = 0.0
    target: str = ""

    def is_in_force(self, now: float) -> bool:
        """Whether it has not expired."""
        return now < self.until

    def record(self, at: float) -> dict[str, Any]:
        """Return the ledger row of this override, set or withdrawn at a time (epoch s)."""
        fields = {
            key: value
            for key, value in asdict(self).items()
            if value not in ("", 0, 0.0) and key not in {"kind", "at", "id"}
        }
        return {
            "kind": "override",
            "at": at,
            "override": self.kind,
            "override_id": self.id,
            **fields,
        }


def in_force(overrides: Iterable[Override], now: float) -> tuple[Override, ...]:
    """Return the overrides that have not expired, oldest first."""
    active = (override for override in overrides if override.is_in_force(now))
    return tuple(sorted(active, key=lambda override: (override.at, override.id)))


def describe(override: Override) -> str:
    """Describe an override in one line: what, by whom, until when, why."""
    until = datetime.fromtimestamp(override.until, UTC).strftime("%m-%d %H:%M:%S UTC")
    text = f"{_action(override)}, by {override.by} until {until}"
    return f"{text}: {override.reason}" if override.reason else text


def _action(override: Override) -> str:
    hint = f"room for {override.count} x ({override.cpus:g} cpus, {override.mem_mib:g} MiB)"
    if override.pool:
        hint += f" in pool {override.pool}"
    return {
        "pause": "paused",
        "bound": f"{override.bound} of pool {override.pool} is {override.count}",
        "hint": hint,
        "drain": f"{override.target} is drained",
    }[override.kind]
