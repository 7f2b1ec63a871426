"""Record of a teardown in a file: machines and steps. The receipt is written from it after a crash.

Steps can be repeated without it, because each looks at the cloud first. Machines cannot: EC2 stops
listing terminated machines within the hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from mesaform.common.files import write_atomically
from mesaform.common.record_files import peek_record, set_aside_file, write_record
from mesaform.common.records import DOCUMENT_LIMIT_BYTES, Codec, Unreadable
from mesaform.teardown.receipt import MachineUsage

FILE = "teardown.json"
MachineRecord: TypeAlias = dict[str, str | float | bool | None]
"""A `MachineUsage` as stored, with `running`."""


class Entry(msgspec.Struct):
    """A step. `ended_at` is None while it runs, and stays so if the program died in it."""

    step: str
    began_at: float
    ended_at: float | None = None
    outcome: str = ""


class Record(msgspec.Struct):
    """The file.

    `machines` are all that any run of this teardown saw. `usd_per_hour` is the most that was
    running at the start of a run. `seen` are the ids of all that any run saw in the account.
    """

    cluster: str
    began_at: float
    runs: int = 0
    usd_per_hour: float = 0.0
    machines: dict[str, MachineRecord] = {}
    steps: list[Entry] = []
    seen: list[str] = []


CODEC = Codec("teardown.journal", Record, limit_bytes=DOCUMENT_LIMIT_BYTES)


class Journal:
    """One teardown's record, written whole and atomically at each change."""

    def __init__(self, folder: Path, cluster: str, now: float) -> None:
        self._path = folder / FILE
        self._record = self._load() or Record(cluster, now)
        self._record.runs += 1

    def _load(self) -> Record | None:
        record = peek_record(self._path, CODEC)
        if isinstance(record, Unreadable):  # a new record does, because no step depends on it
            set_aside_file(self._path)
            return None
        return record

    @property
    def is_resumed(self) -> bool:
        return self._record.runs > 1

    @property
    def last_step(self) -> str:
        """The last step that an earlier run began; empty if there is none."""
        return self._record.steps[-1].step if self._record.steps else ""

    @property
    def usd_per_hour(self) -> float:
        """The most that any run saw running, in USD an hour."""
        return self._record.usd_per_hour

    def record_machines(
        self, machines: Iterable[MachineUsage], usd_per_hour: float, now: float
    ) -> None:
        """Add machines. One that was running and is not given again ended by now."""
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

    def record_seen(self, ids: Iterable[str]) -> None:
        """Add ids of resources that the account showed."""
        self._record.seen = sorted({*self._record.seen, *ids})
        self._write()

    @property
    def seen(self) -> frozenset[str]:
        """Ids of all that any run of this teardown saw in the account."""
        return _seen(self._record)

    def machines(self, now: float) -> list[MachineUsage]:
        """All machines of this teardown; those still running count until now."""
        return [_usage(record, now) for record in self._record.machines.values()]

    def record_start(self, step: str, now: float) -> None:
        self._record.steps.append(Entry(step, now))
        self._write()

    def record_end(self, step: str, now: float, outcome: str) -> None:
        for entry in reversed(self._record.steps):
            if entry.step == step and entry.ended_at is None:
                entry.ended_at, entry.outcome = now, outcome
                break
        self._write()

    def close(self, receipt: Mapping[str, object], now: float) -> Path:
        """Write the receipt beside the record and remove the record; returns the receipt's path."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        path = self._path.with_name(f"receipt-{int(now)}.json")
        text = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
        write_atomically(path, text, mode=0o600)
        self._path.unlink(missing_ok=True)
        return path

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_record(self._path, CODEC, self._record)


def seen_before(folder: Path) -> frozenset[str]:
    """Ids that an unfinished teardown of this folder saw in the account; empty if there is none.

    A later `mesaform up` creates resources with other ids, which are not among them.
    """
    record = peek_record(folder / FILE, CODEC)
    return _seen(record) if isinstance(record, Record) else frozenset()


def _seen(record: Record) -> frozenset[str]:
    return frozenset({*record.seen, *record.machines})


def _usage(record: MachineRecord, now: float) -> MachineUsage:
    values = {key: value for key, value in record.items() if key != "running"}
    if record.get("running"):
        values["stopped_at"] = now
    return msgspec.convert(values, MachineUsage)
