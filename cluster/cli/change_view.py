"""Planned changes for people, in 80 columns, and for programs, as JSON. No I/O.

A preview says what Terraform would do; tasks by machine and costs come from their own sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import wrap

from mesaform.cli.change_costs import CostChange
from mesaform.provision.machine_changes import MachineChange
from mesaform.provision.preview import Preview

WIDTH = 80
TASKS_SHOWN = 6
"""Names of tasks that are listed of a machine before the rest is counted."""


@dataclass(frozen=True, slots=True)
class ChangeView:
    """Everything that is shown of planned changes.

    `tasks` are the names of running tasks by instance id; None if no master answers. `title` names
    the cluster, its account and region. `note` is a further sentence.
    """

    title: str
    preview: Preview
    tasks: Mapping[str, Sequence[str]] | None
    costs: CostChange
    note: str = ""

    def lines(self) -> list[str]:
        """The lines for people."""
        if self.preview.is_empty:
            return [f"{self.title}: nothing to change", *self._outdated()]
        return [
            f"Changes of {self.title}:",
            *(line for change in self._changes for line in self._machine(change)),
            *self._unplanned(),
            *self._resources(),
            *self._costs(),
            *self._outdated(),
            *_wrapped(self.note),
        ]

    @property
    def _changes(self) -> tuple[MachineChange, ...]:
        return (*self.preview.changes, *self.preview.autoscaled)

    def _machine(self, change: MachineChange) -> Iterator[str]:
        identity = " ".join(filter(None, (change.instance_id, _types(change))))
        line = f"  {change.action:<14} {change.name} {identity}"
        if len(line) <= WIDTH:
            yield line.rstrip()
        else:
            yield f"  {change.action:<14} {change.name}"
            yield f"{'':17}{identity}"
        if change.why:
            yield from _wrapped(f"because of {', '.join(change.why)}", " " * 17)
        if change.role == "agent" and change.is_disruptive:
            yield from _wrapped(self._tasks_of(change), " " * 17)

    def _tasks_of(self, change: MachineChange) -> str:
        if self.tasks is None:
            return "no master answers, so its tasks are not known"
        names = self.tasks.get(change.instance_id, ())
        if not names:
            return "it runs no task"
        more = len(names) - TASKS_SHOWN
        listed = ", ".join(names[:TASKS_SHOWN]) + (f" and {more} more" if more > 0 else "")
        noun = "task moves" if len(names) == 1 else "tasks move"
        return f"{len(names)} {noun}: {listed}"

    def _unplanned(self) -> Iterator[str]:
        for stack in self.preview.unplanned:
            yield from _wrapped(
                f"the stack {stack} cannot be planned before others are deployed: its machines may"
                " be replaced"
            )

    def _resources(self) -> Iterator[str]:
        total = self.preview.total
        yield (
            f"  resources: {total.added} to add, {total.changed} to change,"
            f" {total.replaced} to replace, {total.destroyed} to destroy"
        )
        masters = [item for item in self.preview.masters if item.is_disruptive]
        if len(masters) > 1:
            yield "  masters change one at a time, each only while all others serve"
        if any(item.role == "agent" for item in self.preview.disruptive):
            yield "  agents are drained before they change"

    def _costs(self) -> Iterator[str]:
        before, after = self.costs.before, self.costs.after
        hourly = f"${before.usd_per_hour:.4f} an hour before, ${after.usd_per_hour:.4f} after"
        monthly = f"${before.usd_per_month:.2f} a month before, ${after.usd_per_month:.2f} after"
        yield f"  cost: {hourly}"
        yield f"        {monthly}"
        if self.costs.unpriced:
            yield from _wrapped(f"without a known price: {', '.join(self.costs.unpriced)}")

    def _outdated(self) -> Iterator[str]:
        for role in ("master", "agent"):
            behind = [change for change in self.preview.outdated if change.role == role]
            if behind:
                noun = role if len(behind) == 1 else f"{role}s"
                verb = "runs" if len(behind) == 1 else "run"
                yield f"  {len(behind)} {noun} {verb} an older image or older settings; to replace:"
                yield f"    mesaform upgrade {role}s"
                yield from _reasons(behind)

    def as_json(self) -> dict[str, object]:
        """The same as plain JSON values."""
        preview = self.preview
        return {
            "machines": [
                {
                    **asdict(change),
                    "why": list(change.why),
                    "tasks": _task_names(self.tasks, change),
                }
                for change in self._changes
            ],
            "resources": {
                "total": asdict(preview.total),
                "by_stack": {stack: asdict(counts) for stack, counts in preview.counts.items()},
            },
            "unplanned": dict(preview.errors),
            "outdated": [asdict(change) for change in preview.outdated],
            "cost": {
                "before": self.costs.before.as_json(),
                "after": self.costs.after.as_json(),
            },
        }


def _task_names(
    tasks: Mapping[str, Sequence[str]] | None, change: MachineChange
) -> list[str] | None:
    """Names of tasks that move; None where they are not known."""
    return None if tasks is None else list(tasks.get(change.instance_id, ()))


def _reasons(behind: Iterable[MachineChange]) -> Iterable[str]:
    """The settings in which machines are behind; nothing where none is known."""
    names = sorted({name for change in behind for name in change.why})
    return _wrapped(f"because of {', '.join(names)}", " " * 4) if names else ()


def _types(change: MachineChange) -> str:
    before, after = change.type_before, change.type_after
    if before and after and before != after:
        return f"({before} to {after})"
    return f"({after or before})" if after or before else ""


def _wrapped(text: str, indent: str = "  ") -> Iterable[str]:
    """Lines of at most `WIDTH` columns, unless one name is longer; no name is divided."""
    return wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
