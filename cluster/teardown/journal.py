"""What a teardown under way has seen and done, in a file: enough to write the receipt after a crash, and to tell a person where it was.

Steps need no memory to be repeated (each looks at the world first); machines do, because EC2 forgets them within the hour.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from mesaform.teardown.receipt import Ran

FILE = "teardown.json"


class Entry(msgspec.Struct):
    """A step that began; `ended_at` is None while it runs, or for ever if the program died in it."""

    step: str
    began_at: float
    ended_at: float | None = None
    outcome: str = ""


class Record(msgspec.Struct):
    """The file. `machines` are all that any run of this teardown saw; `usd_per_hour` is what the first run found running."""

    cluster: str
    began_at: float
    runs: int = 0
    usd_per_hour: float = 0.0
    machines: dict[str, dict[str, Any]] = {}
    steps: list[Entry] = []


class Journal:
    """One teardown's record, written whole and atomically at each change."""

    def __init__(self, folder: Path, cluster: str, now: float) -> None:
        self._path = folder / FILE
        self._record = self._load() or Record(cluster, now)
        self._record.runs += 1

    def _load(self) -> Record | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Record)
        except (
            OSError,
            msgspec.DecodeError,
        ):  # none, or cut short by a full disk: begin anew, nothing depends on it
            return None

    @property
    def is_resumed(self) -> bool:
        return self._record.runs > 1

    @property
    def last_step(self) -> str:
        """The step that an earlier run was in, or had done last."""
        return self._record.steps[-1].step if self._record.steps else ""

    @property
    def usd_per_hour(self) -> float:
        """The most that any run found to be running, in USD an hour."""
        return self._record.usd_per_hour

    def saw(self, machines: Iterable[Ran], usd_per_hour: float, now: float) -> None:
        """Keep machines for the receipt. One that is no longer seen ended at the latest now."""
        current = {machine.instance_id: machine for machine in machines}
        for instance_id, known in self._record.machines.items():
            if instance_id not in current and known.get("running"):
                known |= {"running": False, "stopped_at": now}
        for instance_id, machine in current.items():
            self._record.machines[instance_id] = {
                **msgspec.to_builtins(machine),
                "running": machine.stopped_at >= now,
            }
        self._record.usd_per_hour = max(self._record.usd_per_hour, usd_per_hour)
        self._write()

    def machines(self, now: float) -> list[Ran]:
        """All machines of this teardown; those still running count until now."""
        found = []
        for known in self._record.machines.values():
            values = {key: value for key, value in known.items() if key != "running"}
            if known.get("running"):
                values["stopped_at"] = now
            found.append(Ran(**values))
        return found

    def began(self, step: str, now: float) -> None:
        self._record.steps.append(Entry(step, now))
        self._write()

    def ended(self, step: str, now: float, outcome: str) -> None:
        for entry in reversed(self._record.steps):
            if entry.step == step and entry.ended_at is None:
                entry.ended_at, entry.outcome = now, outcome
                break
        self._write()

    def close(self, receipt: dict[str, Any], now: float) -> Path:
        """Put the receipt beside it and end the record: the next teardown begins anew. Returns the receipt's path."""
        path = self._path.with_name(f"receipt-{int(now)}.json")
        _write_atomically(path, msgspec.json.format(msgspec.json.encode(receipt), indent=2))
        self._path.unlink(missing_ok=True)
        return path

    def _write(self) -> None:
        _write_atomically(
            self._path, msgspec.json.format(msgspec.json.encode(self._record), indent=1)
        )


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)
