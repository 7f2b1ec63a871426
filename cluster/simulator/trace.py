"""Traces: the arrival, shape and duration of tasks, read from CSV with a column map.

The duration of a task starts when it is placed, because demand depends on capacity. Times count
from the first arrival.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mesaform.autoscaler.model.shape import Shape, make
from mesaform.common.errors import BadInput
from mesaform.placement.constraints import Constraint, host_port, problem_with
from mesaform.placement.task_labels import NO_LABELS, TaskLabels, read_labels

FIELDS = {
    "name": "the task's name",
    "app": "what groups equal tasks; default: their shape",
    "cpus": "cores",
    "mem": "memory, MiB",
    "disk": "disk, MiB",
    "gpus": "tasks with more than 0 are left out",
    "ports": "number of host ports, or fixed ones: `2`, `:31500`, `:31500 :31501`",
    "constraints": "as of apps: `hostname UNIQUE; zone GROUP_BY 3`",
    "labels": "as of apps: `mesaform.capacity-type=spot; mesaform.max-wait=10m`",
    "start": "arrival, seconds or ISO 8601",
    "end": "end, the same; or `duration`",
    "duration": "seconds",
    "service": "LS, service or true: a stopped task continues; others start over",
}
SERVICE_WORDS = frozenset({"ls", "service", "true", "yes", "1", "guaranteed"})
COMPLAINTS = 5
"""How many bad rows are named before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `at` is its arrival in seconds after the first arrival of the trace.

    A task with `keeps_work` (a service) continues after it was stopped. `constraints` are those of
    its app, fixed host ports and those of its labels among them; all tasks of an app have the same
    constraints and labels.
    """

    name: str
    app: str
    shape: Shape
    at: float
    runs_s: float
    keeps_work: bool = False
    constraints: tuple[Constraint, ...] = ()
    labels: TaskLabels = NO_LABELS


@dataclass(frozen=True, slots=True)
class Trace:
    """Tasks by arrival. `left_out` counts rows with GPUs. `constraints` are by app."""

    name: str
    tasks: tuple[Task, ...]
    left_out: int = 0
    constraints: Mapping[str, tuple[Constraint, ...]] = dataclasses.field(default_factory=dict)

    @property
    def span_s(self) -> float:
        """From the first arrival to when the last task would end if nothing ever waited."""
        return max((task.at + task.runs_s for task in self.tasks), default=0.0)


@dataclass(frozen=True, slots=True)
class Column:
    header: str
    factor: float = 1.0


ColumnMap = Mapping[str, Column]

KNOWN_FORMATS: Mapping[str, ColumnMap] = {
    "openb (alibaba cluster-trace-gpu-v2023)": {
        "name": Column("name"),
        "cpus": Column("cpu_milli", 0.001),
        "mem": Column("memory_mib"),
        "gpus": Column("num_gpu"),
        "start": Column("creation_time"),
        "end": Column("deletion_time"),
        "service": Column("qos"),
    },
    "mesaform": {
        field: Column(field) for field in ("name", "app", "cpus", "mem", "start", "duration")
    },
}
"""Formats recognised by their header: each column that a map names is there."""


def parse_map(text: str) -> dict[str, Column]:
    """Parse `cpus=cpu_milli:0.001,mem=memory_mib`: field, column and an optional factor.

    Raises:
        BadInput: a field is not known, or a factor is no number.

    """
    column_of: dict[str, Column] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        field, equals, column = part.partition("=")
        if not equals or field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, 1)
            raise BadInput(
                f"no field {field!r}" + (f"; nearest: {near[0]}" if near else ""),
                where="--map",
                fix=_fields(),
            )
        header, _, factor = column.partition(":")
        try:
            column_of[field] = Column(header, float(factor) if factor else 1.0)
        except ValueError:
            raise BadInput(
                f"{factor!r} is not a factor",
                where=f"--map {field}",
                fix="like cpus=cpu_milli:0.001",
            ) from None
    return column_of


def load(path: Path, columns: ColumnMap | None = None) -> Trace:
    """Read a trace; without `columns` its format is recognised by its header.

    Raises:
        BadInput: no such file, an unknown format, or rows that make no sense, each with its line.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(error.strerror or str(error), where=str(path)) from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)
        ) from None
    return parse(text, path.name, columns, str(path))


def parse(text: str, name: str, columns: ColumnMap | None = None, where: str = "trace") -> Trace:
    """As `load`, for text that is already read."""
    rows = csv.DictReader(io.StringIO(text))
    header = list(rows.fieldnames or ())
    chosen = columns or _recognised(header, where)
    _check_columns(chosen, header, where)
    tasks: list[Task] = []
    complaints: list[str] = []
    left_out = 0
    for number, row in enumerate(rows):
        try:
            if _has_gpus(row, chosen):
                left_out += 1
            else:
                tasks.append(_task(row, chosen, number))
        except ValueError as error:
            complaints.append(f"{where}:{rows.line_num}: {error}")
    _refuse(complaints, tasks, left_out, where)
    constraints = {task.app: task.constraints for task in tasks if task.constraints}
    return starting_at_zero(Trace(name, tuple(tasks), left_out, constraints))


def _has_gpus(row: Mapping[str, str | None], columns: ColumnMap) -> bool:
    return "gpus" in columns and _number(row, columns["gpus"]) > 0


def _refuse(complaints: Sequence[str], tasks: Sequence[Task], left_out: int, where: str) -> None:
    """Refuse a trace with bad rows or without tasks.

    Raises:
        BadInput: there are complaints, or there is no task.

    """
    if complaints:
        more = len(complaints) - COMPLAINTS
        shown = "\n".join(complaints[:COMPLAINTS])
        raise BadInput(shown + (f"\nand {more} more" if more > 0 else ""))
    if not tasks:
        without = f" without GPUs ({left_out} with)" if left_out else ""
        raise BadInput(f"the trace has no task{without}", where=where)


def starting_at_zero(trace: Trace) -> Trace:
    """The trace in order of arrival, the first at 0."""
    first = min((task.at for task in trace.tasks), default=0.0)
    tasks = sorted(
        (replace(task, at=task.at - first) for task in trace.tasks), key=lambda task: task.at
    )
    return replace(trace, tasks=tuple(tasks))


def window(
    trace: Trace,
    from_s: float = 0.0,
    until_s: float = math.inf,
    limit: int | None = None,
    longest_s: float = math.inf,
) -> Trace:
    """Select at most `limit` tasks that arrive in [from_s, until_s) and run at most `longest_s`."""
    tasks = [
        task for task in trace.tasks if from_s <= task.at < until_s and task.runs_s <= longest_s
    ]
    return starting_at_zero(replace(trace, tasks=tuple(tasks[:limit])))


def all_resumable(trace: Trace) -> Trace:
    """The trace with every task going on where it was stopped."""
    return replace(trace, tasks=tuple(replace(task, keeps_work=True) for task in trace.tasks))


def _recognised(header: Sequence[str], where: str) -> ColumnMap:
    for columns in KNOWN_FORMATS.values():
        if {column.header for column in columns.values()} <= set(header):
            return columns
    raise BadInput(
        f"the columns {', '.join(header) or '(none)'} are of no known format",
        where=f"{where}:1",
        fix=_fields(),
    )


def _fields() -> str:
    words = "; ".join(f"{field}: {what}" for field, what in FIELDS.items())
    example = "--map cpus=cpu_milli:0.001,mem=memory_mib,start=created,end=deleted"
    return f"map the columns: {example} ({words})"


def _check_columns(columns: ColumnMap, header: Iterable[str], where: str) -> None:
    known = list(header)
    needed = [field for field in ("cpus", "mem", "start") if field not in columns]
    if "end" not in columns and "duration" not in columns:
        needed.append("end or duration")
    if needed:
        raise BadInput(f"the map lacks {', '.join(needed)}", where="--map", fix=_fields())
    for field, column in columns.items():
        if column.header not in known:
            hint = _nearest(column.header, known)
            raise BadInput(f"{field}: no column {column.header!r}; {hint}", where=f"{where}:1")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.4)
    return f"nearest: {near[0]}" if near else f"columns: {', '.join(known)}"


def _task(row: Mapping[str, str | None], columns: ColumnMap, number: int) -> Task:
    """The task of a row; its app is named by its shape too, since shapes of one app may differ."""
    start = _time(row, columns["start"])
    runs_s = _runs_s(row, columns, start)
    cpus, mem_mib = _number(row, columns["cpus"]), _number(row, columns["mem"])
    disk_mib = _number(row, columns["disk"]) if "disk" in columns else 0.0
    if runs_s < 0:
        raise ValueError(f"it ends {-runs_s:g} s before it starts")
    if min(cpus, mem_mib, disk_mib) < 0 or not cpus + mem_mib:
        raise ValueError(f"{cpus:g} cpus and {mem_mib:g} MiB are no task")
    is_service = _text(row, columns, "service").lower() in SERVICE_WORDS
    ports, constraints = _ports(_text(row, columns, "ports"))
    constraints += _constraints(_text(row, columns, "constraints"))
    labels = _labels(_text(row, columns, "labels"))
    shape = make(cpus, mem_mib, disk_mib, ports=ports)
    size = f"{cpus:g}c-{mem_mib:g}m" + (f"-{disk_mib:g}d" if disk_mib else "")
    app = f"{_text(row, columns, 'app') or 'work'}-{size}{_rules(ports, constraints, labels)}"
    name = _text(row, columns, "name") or f"task-{number}"
    rules = constraints + labels.constraints
    return Task(name, app, shape, start, runs_s, is_service, rules, labels)


def _rules(ports: int, constraints: Iterable[Constraint], labels: TaskLabels) -> str:
    """The part of an app's name that tells its ports, constraints and labels."""
    rules = [str(rule) for rule in constraints] + list(labels.stated)
    return (f"-{ports}p" if ports else "") + "".join(f"-{rule}" for rule in rules)


def _ports(text: str) -> tuple[int, tuple[Constraint, ...]]:
    """How many host ports a task takes, and the fixed ones among them as constraints."""
    fixed: list[Constraint] = []
    count = 0
    for word in text.split():
        number = word.removeprefix(":")
        if not number.isdecimal() or int(number) > 65535:
            raise ValueError(f"ports {text!r}: a number of ports, or fixed ones such as :31500")
        if word.startswith(":"):
            fixed.append(host_port(int(number)))
        else:
            count += int(number)
    return count + len(fixed), tuple(fixed)


def _constraints(text: str) -> tuple[Constraint, ...]:
    """Constraints of a text such as `hostname UNIQUE; zone GROUP_BY 3`."""
    parsed: list[Constraint] = []
    for part in filter(None, (item.strip() for item in text.split(";"))):
        words = part.split(maxsplit=2)
        if (problem := problem_with(words)) is not None:
            raise ValueError(f"constraint {part!r}: {problem}")
        parsed.append(Constraint.of(words))
    return tuple(parsed)


def _labels(text: str) -> TaskLabels:
    """Labels of a text such as `mesaform.capacity-type=spot; mesaform.max-wait=10m`."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    stated = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"label {part!r} is not NAME=VALUE")
        stated[name.strip()] = value.strip()
    labels = read_labels(stated)
    if labels.problems:
        raise ValueError(labels.problem)
    return labels


def _runs_s(row: Mapping[str, str | None], columns: ColumnMap, start: float) -> float:
    """Seconds that a task runs: its duration, or its end less its start."""
    if "duration" in columns:
        return _number(row, columns["duration"])
    return _time(row, columns["end"]) - start


def _text(row: Mapping[str, str | None], columns: ColumnMap, field: str) -> str:
    """The text of a field without blanks around it; empty where there is no such column."""
    return (row.get(columns[field].header) or "").strip() if field in columns else ""


def _number(row: Mapping[str, str | None], column: Column) -> float:
    text = (row.get(column.header) or "").strip()
    try:
        value = float(text) * column.factor
    except ValueError:
        raise ValueError(f"{column.header} {text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{column.header} {text!r} is not a number")
    return value


def _time(row: Mapping[str, str | None], column: Column) -> float:
    text = (row.get(column.header) or "").strip()
    if "T" in text or text.count("-") == 2:
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise ValueError(f"{column.header} {text!r} is no time") from None
    return _number(row, column)
